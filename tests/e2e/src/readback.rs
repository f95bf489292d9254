//! The kernel's table of every node, read back by nft and compared with what felix on that node wants there: rules, sets,
//! elements, and the device groups of pods' links.

use std::collections::BTreeMap;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use felix::nft::json::Document;
use lab::Lab;
use serde_json::Value;

/// How long felix and the kernel may take to agree, as there may be changes under way.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many differences are told.
const TOLD: usize = 20;

/// What is not as felix wants it, of every node. One on which felix does not answer wants nothing, unless `everywhere` says
/// that it has to.
pub(crate) fn differences(lab: &Lab, everywhere: bool) -> Vec<String> {
    let mut found = Vec::new();
    for node in &lab.plan().nodes {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = match of(lab, &node.name) {
                Ok(None) if everywhere => vec!["felix does not answer".to_owned()],
                Ok(None) => break,
                Ok(Some(there)) => there,
                Err(problem) => vec![problem],
            };
            if there.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let told = there.iter().take(TOLD);
                found.extend(told.map(|it| format!("{}: {it}", node.name)));
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    found
}

/// Differences on one node; `None` when felix does not answer there.
fn of(lab: &Lab, node: &str) -> Result<Option<Vec<String>>, String> {
    let wanted = run(lab, node, &["margayctl", "policy", "render", "-o", "json"])?;
    if !wanted.status.success() {
        return Ok(None);
    }
    let there = run(
        lab,
        node,
        &["nft", "-jn", "list", "table", "inet", "margay"],
    )?;
    if !there.status.success() {
        return Err(String::from_utf8_lossy(&there.stderr).into_owned());
    }
    let mut found = document(&wanted)?.differences(&document(&there)?);
    let groups = run(lab, node, &["margayctl", "policy", "render"])?;
    let links = run(lab, node, &["ip", "-N", "-j", "link", "show"])?;
    let links: Vec<Value> = serde_json::from_slice(&links.stdout).map_err(|e| e.to_string())?;
    let actual: BTreeMap<&str, u32> = links
        .iter()
        .filter_map(|it| Some((it["ifname"].as_str()?, number(it["group"].as_str()?)?)))
        .collect();
    for (link, group) in wanted_groups(&String::from_utf8_lossy(&groups.stdout)) {
        let there = actual.get(link.as_str());
        if there != Some(&group) {
            found.push(format!(
                "the group of {link} should be {group:#010x} and is {there:#x?}"
            ));
        }
    }
    Ok(Some(found))
}

/// The lines `# mgy… is namespace/pod: device group 0x…` below the table.
fn wanted_groups(text: &str) -> Vec<(String, u32)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
    lines
        .filter_map(|line| {
            let (link, rest) = line.split_once(" is ")?;
            let (_, group) = rest.rsplit_once("device group ")?;
            Some((link.to_owned(), number(group)?))
        })
        .collect()
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text == "default" => Some(0),
        None => text.parse().ok(),
    }
}

fn document(output: &Output) -> Result<Document, String> {
    let text = String::from_utf8_lossy(&output.stdout);
    Document::parse(&text).map_err(|e| format!("nft's JSON is not as it should be: {e}"))
}

fn run(lab: &Lab, node: &str, argv: &[&str]) -> Result<Output, String> {
    lab.exec(node, argv).map_err(|e| format!("{e:#}"))
}
