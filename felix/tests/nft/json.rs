//! nft's JSON of the table: nft loads it, and what nft says of the kernel is what the model says.

use felix::nft::build;
use felix::nft::epoch::{Epoch, MarkByte, Options, Revoked};
use felix::nft::json::Document;
use felix::nft::model::Table;
use felix::nft::rows;
use felix::nft::terms::Elements;
use felix::policy::tables::{Class, Tables};

use crate::ns::Namespace;
use crate::policed::{Kernel, address, enforce};
use crate::terms::{CHOICES, elements, every_rule};

const LIST: &str = "nft -jn list table inet margay";

fn table(options: Options, epoch: Epoch, rows: &Tables) -> Table {
    let mut table = build::table(options, epoch);
    table.elements.extend(rows::all(rows));
    table
}

/// Rows whose comments nft takes, with a block that is everything.
fn rows() -> Tables {
    let mut rows = super::rows();
    rows.workloads.retain(|_, pod| pod.len() < 100);
    rows
}

fn there(namespace: &Namespace) -> Document {
    Document::parse(&namespace.sh(LIST)).expect("nft's JSON")
}

#[test]
fn what_netlink_made_reads_back_as_the_model() {
    let kernel = Kernel::new();
    let rows = super::rows();
    enforce(
        &kernel,
        &Tables::default(),
        &Tables {
            links: Default::default(),
            ..rows.clone()
        },
        true,
    );
    let epoch = kernel.with(|nft| nft.epoch());
    let options = kernel.with(|nft| nft.options());
    let wanted = Document::of(&table(options, epoch, &rows));
    assert_eq!(wanted.differences(&there(&kernel.namespace)), [""; 0]);

    for (change, named) in [
        (
            "nft add element inet margay peer4 '{ 10.9.9.9 : 0:10 }'",
            "element peer4 { 10.9.9.9 } is there and should not be",
        ),
        (
            "nft delete element inet margay peer4 '{ 10.9.9.9 }'; nft delete element inet margay peer6 '{ fd00:1::1 }'",
            "element peer6 { fd00:1::1 } is not there",
        ),
        ("nft add rule inet margay ok accept", "chain ok, rule 2"),
        ("nft add chain inet margay more", "chain more is there"),
    ] {
        kernel.namespace.sh(change);
        let found = wanted.differences(&there(&kernel.namespace));
        assert!(
            found.iter().any(|it| it.contains(named)),
            "{change}: {found:?}"
        );
    }
}

#[test]
fn what_netlink_made_beside_policy_reads_back_as_the_model() {
    for (ports, services) in CHOICES {
        let options = every_rule(ports, services);
        let made = Kernel::new();
        let epoch = made.with(|nft| {
            nft.set_options(options);
            nft.ensure_table().expect("table");
            nft.apply(&Elements::default().step(&elements()))
                .expect("elements");
            nft.epoch()
        });
        let mut table = build::table(options, epoch);
        table.elements.extend(elements().iter().cloned());
        let wanted = Document::of(&table);
        assert_eq!(wanted.differences(&there(&made.namespace)), [""; 0]);
    }
}

#[test]
fn text_and_json_make_the_same_table() {
    let everything = {
        let mut rows = rows();
        rows.nets.clear();
        for (first, last) in [
            ("0.0.0.0", "255.255.255.255"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let span = (address(first), address(last));
            rows.nets.insert(span, Class(0x10));
        }
        rows
    };
    let other = Options {
        mark: MarkByte::new(0x0000_ff00).expect("a byte"),
        revoked: Revoked::Drop,
        quiet: true,
        ..Options::default()
    };
    for (options, epoch, rows) in [
        (Options::default(), Epoch::FIRST, rows()),
        (other, Epoch::new(200).expect("epoch"), everything),
    ] {
        let table = table(options, epoch, &rows);
        let document = Document::of(&table);
        let json = document.text().expect("JSON");
        for (command, input) in [("nft -f -", &table.to_string()), ("nft -j -f -", &json)] {
            let namespace = Namespace::new();
            namespace.feed(command, input);
            let found = document.differences(&there(&namespace));
            assert_eq!(found, [""; 0], "{command}");
        }
    }
}

#[test]
fn a_document_comes_back_from_its_text_and_every_change_of_it_is_named() {
    let wanted = Document::of(&table(Options::default(), Epoch::FIRST, &rows()));
    let text = wanted.text().expect("JSON");
    let back = Document::parse(&text).expect("a document");
    assert_eq!(back.differences(&wanted), [""; 0]);
    assert_eq!(back, wanted);
    let changes = [
        // Another epoch, another verdict, a chain's priority.
        ("16777216", "33554432", "chain forward, rule 0"),
        (
            "{\"drop\":null}",
            "{\"accept\":null}",
            "chain prerouting, rule",
        ),
        ("\"prio\":-300", "\"prio\":-299", "chain prerouting"),
        // Another value of elements, a flag of sets, a comment of a rule, a name of a map.
        ("\"0:1\"]", "\"0:2\"]", "element port {"),
        ("\"flags\":[\"interval\"]", "\"flags\":[]", "map net4"),
        (
            "\"comment\":\"denied\"",
            "\"comment\":\"no\"",
            "chain deny, rule",
        ),
        ("\"name\":\"peer4\"", "\"name\":\"peer5\"", "peer5"),
    ];
    for (from, to, named) in changes {
        assert!(text.contains(from), "{from} is not in {text}");
        let there = Document::parse(&text.replace(from, to)).expect("a document");
        let found = wanted.differences(&there);
        assert!(
            found.iter().any(|it| it.contains(named)),
            "{from} -> {to}: {found:?}"
        );
    }
    let mut fewer = wanted.clone();
    fewer.nftables.pop();
    assert_eq!(wanted.differences(&fewer).len(), 1);
    assert_eq!(fewer.differences(&wanted).len(), 1);
}
