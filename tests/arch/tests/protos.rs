//! Every message, field and call of the protocols says what it means.

use std::fs;

use arch::{project_files, refuse, root};
use regex::Regex;

#[test]
fn everything_in_a_proto_has_a_comment() {
    let declaration = Regex::new(
        r"^\s*(?:(?:message|enum|service|oneof)\s+(?P<block>\w+)\s*\{|rpc\s+(?P<call>\w+)|(?:(?:repeated|optional)\s+)?(?:map<[^>]*>|[\w.]+)\s+(?P<field>\w+)\s*=\s*\d+|(?P<value>[A-Z][A-Z0-9_]*)\s*=\s*\d+)",
    )
    .unwrap();
    let mut problems = Vec::new();
    let mut declarations = 0;
    for path in project_files()
        .iter()
        .filter(|path| path.ends_with(".proto"))
    {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(found) = declaration.captures(line) else {
                continue;
            };
            let name = ["block", "call", "field", "value"]
                .iter()
                .find_map(|group| found.name(group))
                .map_or("", |name| name.as_str());
            declarations += 1;
            let above = at
                .checked_sub(1)
                .is_some_and(|above| lines[above].trim_start().starts_with("//"));
            if !above && !line.contains("//") {
                problems.push(format!("{path}:{}: {name} has no comment", at + 1));
            }
        }
    }
    assert!(
        declarations > 20,
        "only {declarations} declarations found in the protos"
    );
    refuse(
        &problems,
        "Say above it what it means, in which unit, and what its absence means.",
    );
}
