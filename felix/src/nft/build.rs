//! The fixed ruleset: every set and map, every chain and rule of `inet margay`.
//!
//! A packet of a workload is judged once per connection and epoch. The other side's address gives a class (`peer4`,
//! `net4` …); class and device group of our side's interface give a program (`pair_eg`, else `default_eg` …); the
//! program gives a verdict on protocol and port (`port`, `icmp_code`, `program`, `port_range`, `proto`,
//! `program_ranged`). An accepted connection is stamped with the epoch in a byte of its mark, and while that
//! epoch lasts one comparison lets it pass. A change that takes permission away bumps the epoch in the same
//! transaction: every live connection is judged again, and those now forbidden end, TCP with a reset unless
//! that is not wanted.
//!
//! Replies are judged too, by the same tables with addresses, ports and interfaces exchanged, so that a connection does
//! not survive because its next packet happens to be a reply.
//!
//! The packet's mark belongs to others (kube-proxy, among them). Scratch between two lookups is the packet's priority,
//! used only on packets being judged and cleared afterwards.

use std::collections::BTreeSet;

mod host;
mod raw;
mod sets;
mod terms;
mod verdict;

pub(super) use host::maps as host_maps;
pub use sets::*;
use verdict::{ends, run, run_name};

use super::epoch::{Epoch, Options, ToHost};
use super::model::{
    Chain, CtDirection, CtState, Element, Field, Hook, Is, Rule, Set, Statement, Table, Value,
    Verdict,
};
use super::terms::Rules;
use crate::policy::tables::{Direction, Subject};

/// Name of the table.
pub const TABLE: &str = "margay";
/// How the host side of every workload's veth is named.
pub const INTERFACE_PREFIX: &str = "mgy";
/// Netlink log group (NFLOG) of what is denied or noted.
pub const LOG_GROUP: u16 = 77;
/// The chain of connections that are one too many.
pub const CROWDED: &str = "crowded";
/// Prefix of a packet that was denied.
pub const DENY_PREFIX: &str = "margay deny";
/// Prefix of the first packet of a flow which a rule with action Log matched.
pub const LOG_PREFIX: &str = "margay log";
/// Prefix of the first packet of a flow which policies under audit would judge otherwise.
pub const AUDIT_PREFIX: &str = "margay audit";

/// The chains whose rules name the epoch: a bump writes them anew, all in one transaction. They are kept short.
#[must_use]
pub fn epoch_chains(options: Options, epoch: Epoch) -> Vec<Chain> {
    let (mask, mark) = (options.mark.mask(), options.mark.of(epoch));
    let judged = || {
        rule(
            [Statement::CtMark(mask, Is::Equal, mark), ACCEPT],
            "judged in this epoch",
        )
    };
    let filter = |name, number| {
        Some(Hook {
            name,
            number,
            priority: 0,
            nat: false,
        })
    };
    let mut transit = terms::services(options.terms);
    let hosts = |to| {
        options
            .terms
            .hosts
            .then(|| plain([host::guarded(), goto(to)]))
    };
    transit.extend(hosts("transit"));
    let mut chains = vec![
        Chain {
            name: "forward",
            hook: filter("forward", 2),
            rules: [
                judged(),
                plain([from_workload(Is::Equal), goto("judge")]),
                plain([to_workload(), goto("judge")]),
            ]
            .into_iter()
            .chain(transit)
            .collect(),
        },
        Chain {
            name: "input",
            hook: filter("input", 1),
            rules: [judged(), plain([from_workload(Is::Equal), goto("to_node")])]
                .into_iter()
                .chain(hosts("to_host"))
                .collect(),
        },
        Chain {
            name: "output",
            hook: filter("output", 3),
            rules: [judged(), plain([to_workload(), goto("from_node")])]
                .into_iter()
                .chain(hosts("from_host"))
                .collect(),
        },
        Chain {
            name: "stamp",
            hook: None,
            rules: vec![plain([Statement::SetCtMark(!mask, mark)]), plain([ACCEPT])],
        },
    ];
    if options.terms.hosts {
        chains.push(host::epoch_chain(options, epoch));
    }
    chains.extend(terms::epoch_chain(options, epoch));
    chains
}

/// The whole table at this epoch, without the elements of policy.
#[must_use]
pub fn table(options: Options, epoch: Epoch) -> Table {
    let mut chains = vec![antispoof(options)];
    chains.extend(epoch_chains(options, epoch));
    chains.extend(node_chains(options));
    chains.extend(forward_chains(options));
    if options.terms.hosts {
        chains.extend(host::chains());
        chains.extend(raw::chains(options));
    }
    for direction in Direction::BOTH {
        for flow in [CtDirection::Original, CtDirection::Reply] {
            chains.extend(side(direction, flow));
        }
    }
    for flow in [CtDirection::Original, CtDirection::Reply] {
        chains.extend(run(flow));
    }
    chains.extend(ends(options));
    chains.extend(terms::chains(options.terms));
    let mut table = Table {
        name: TABLE,
        comment: String::new(),
        sets: SETS.to_vec(),
        counters: options.counters,
        elements: constants(),
        chains,
    };
    table.comment = format!("ruleset {:016x}", fingerprint(&table, options));
    table
}

/// The names of the chains of every table of ours, whatever was chosen.
#[must_use]
pub fn chain_names() -> BTreeSet<String> {
    let options = Options {
        terms: Rules::EVERY,
        ..Options::default()
    };
    let chains = table(options, Epoch::FIRST).chains.into_iter();
    chains.map(|chain| chain.name.to_owned()).collect()
}

/// Recognises the table that another felix made: the same rules, whatever the epoch. FNV-1a of the text.
fn fingerprint(table: &Table, options: Options) -> u64 {
    let epochless = Table {
        chains: table
            .chains
            .iter()
            .map(|chain| {
                let first = epoch_chains(options, Epoch::FIRST)
                    .into_iter()
                    .find(|other| other.name == chain.name);
                first.unwrap_or_else(|| chain.clone())
            })
            .collect(),
        ..table.clone()
    };
    epochless
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

const ACCEPT: Statement = Statement::Verdict(Verdict::Accept);
const DROP: Statement = Statement::Verdict(Verdict::Drop);
const RETURN: Statement = Statement::Verdict(Verdict::Return);
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

const fn goto(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain))
}

const fn jump(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain))
}

const fn from_workload(is: Is) -> Statement {
    Statement::NameBegins(Field::IifName, is, INTERFACE_PREFIX)
}

const fn to_workload() -> Statement {
    Statement::NameBegins(Field::OifName, Is::Equal, INTERFACE_PREFIX)
}

/// The interface's pod is selected by policies of this direction.
const fn isolated(field: Field, direction: Direction) -> Statement {
    let bit = direction.bit();
    Statement::Group(
        field,
        Subject::MAGIC_MASK | bit,
        Is::Equal,
        Subject::MAGIC | bit,
    )
}

const fn unprogrammed(field: Field) -> Statement {
    Statement::Group(field, Subject::MAGIC_MASK, Is::Not, Subject::MAGIC)
}

fn plain<const N: usize>(statements: [Statement; N]) -> Rule {
    Rule {
        statements: statements.into(),
        comment: None,
    }
}

fn rule<const N: usize>(statements: [Statement; N], comment: &'static str) -> Rule {
    Rule {
        statements: statements.into(),
        comment: Some(comment),
    }
}

fn discovery() -> Statement {
    Statement::In(vec![Field::Icmp6Type], &NEIGHBOUR)
}

/// Before connection tracking and before the established path, or a spoofer could ride another pod's connection.
fn antispoof(options: Options) -> Chain {
    let others = match options.terms.hosts {
        true => goto("raw_in"),
        false => ACCEPT,
    };
    Chain {
        name: "prerouting",
        hook: Some(Hook {
            name: "prerouting",
            number: 0,
            priority: -300,
            nat: false,
        }),
        rules: vec![
            plain([from_workload(Is::Not), others]),
            plain([
                Statement::In(vec![Field::IifName, Field::Ip4Source], &WORKLOAD4),
                ACCEPT,
            ]),
            plain([
                Statement::In(vec![Field::IifName, Field::Ip6Source], &WORKLOAD6),
                ACCEPT,
            ]),
            plain([
                Statement::In(vec![Field::IifName, Field::Ip4Source], &SOURCE4),
                ACCEPT,
            ]),
            plain([
                Statement::In(vec![Field::IifName, Field::Ip6Source], &SOURCE6),
                ACCEPT,
            ]),
            plain([
                Statement::In(vec![Field::Ip6Source], &LOCAL6),
                discovery(),
                ACCEPT,
            ]),
            rule(
                [Statement::Counter, DROP],
                "unknown interface or spoofed source",
            ),
        ],
    }
}

/// Between a pod and its own node. The node always reaches its pods; what a pod opens to its node is judged by the
/// pod's egress, in both directions of the connection, and then as the operator chose.
fn node_chains(options: Options) -> [Chain; 2] {
    let allowed = |host| match options.to_host {
        ToHost::Accept => vec![plain([goto("ok")])],
        ToHost::Drop => vec![plain([goto("deny")])],
        ToHost::Return => {
            let asked = || plain([host::guarded(), Statement::ClearPriority, goto(host)]);
            let asked = options.terms.hosts.then(asked);
            asked.into_iter().chain([plain([goto("ok")])]).collect()
        }
    };
    let mut to_node = vec![
        plain([discovery(), ACCEPT]),
        plain([Statement::CtState(&[CtState::Invalid]), goto("deny")]),
        rule(
            [Statement::CtDirection(CtDirection::Reply), goto("stamp")],
            "of the node's own connections",
        ),
        plain([Statement::CtState(&[CtState::Related]), ACCEPT]),
        rule(
            [unprogrammed(Field::IifGroup), goto("deny")],
            "not programmed",
        ),
    ];
    to_node.extend(terms::limits(options.terms, &[Field::IifName]));
    to_node.extend([plain([
        isolated(Field::IifGroup, Direction::Egress),
        jump("eg_o"),
    ])]);
    to_node.extend(allowed("to_host"));
    let mut from_node = vec![
        rule(
            [
                Statement::CtState(&[CtState::Invalid, CtState::Related, CtState::Untracked]),
                ACCEPT,
            ],
            "errors, resets, neighbour discovery",
        ),
        rule(
            [Statement::CtDirection(CtDirection::Original), goto("stamp")],
            "the node to its own pods",
        ),
        plain([isolated(Field::OifGroup, Direction::Egress), jump("eg_r")]),
    ];
    from_node.extend(allowed("from_host"));
    [
        Chain {
            name: "to_node",
            hook: None,
            rules: to_node,
        },
        Chain {
            name: "from_node",
            hook: None,
            rules: from_node,
        },
    ]
}

/// Between a pod and anything but its own node. An ICMP error carries the mark of the connection it is about, but is
/// not judged in its place: it passes without stamping, or an allowed error would revive a forbidden connection.
fn forward_chains(options: Options) -> [Chain; 3] {
    let error = |proto| {
        rule(
            [
                Statement::L4Proto(proto),
                Statement::CtState(&[CtState::Related]),
                ACCEPT,
            ],
            "about a connection",
        )
    };
    let judge = vec![
        rule(
            [
                unprogrammed(Field::IifGroup),
                from_workload(Is::Equal),
                goto("deny"),
            ],
            "not programmed",
        ),
        rule(
            [unprogrammed(Field::OifGroup), to_workload(), goto("deny")],
            "not programmed",
        ),
        // Nearly all that come here: the rest is asked for what else they may be.
        plain([Statement::CtState(&[CtState::New]), goto("judge_o")]),
        plain([
            Statement::CtState(&[CtState::Invalid, CtState::Untracked]),
            goto("deny"),
        ]),
        error(ICMP),
        error(ICMP6),
        plain([Statement::CtDirection(CtDirection::Reply), goto("judge_r")]),
        plain([goto("judge_o")]),
    ];
    let through = |hosts| {
        let asked = || plain([host::guarded(), jump(hosts)]);
        let asked = options.terms.hosts.then(asked);
        asked.into_iter().chain([plain([goto("ok")])])
    };
    let limits = || terms::limits(options.terms, &[Field::IifName, Field::OifName]);
    let mut judge_o = limits();
    judge_o.extend(terms::services(options.terms));
    judge_o.extend([
        plain([isolated(Field::IifGroup, Direction::Egress), jump("eg_o")]),
        plain([isolated(Field::OifGroup, Direction::Ingress), jump("in_o")]),
    ]);
    judge_o.extend(through("hosts_o"));
    let mut judge_r = limits();
    judge_r.extend([
        plain([isolated(Field::OifGroup, Direction::Egress), jump("eg_r")]),
        plain([isolated(Field::IifGroup, Direction::Ingress), jump("in_r")]),
    ]);
    judge_r.extend(through("hosts_r"));
    [
        Chain {
            name: "judge",
            hook: None,
            rules: judge,
        },
        Chain {
            name: "judge_o",
            hook: None,
            rules: judge_o,
        },
        Chain {
            name: "judge_r",
            hook: None,
            rules: judge_r,
        },
    ]
}

/// One side's judgement: the class of the other side's address, then the program of subject and class.
fn side(direction: Direction, flow: CtDirection) -> [Chain; 2] {
    use CtDirection::{Original, Reply};
    use Direction::{Egress, Ingress};
    let (class, program) = match (direction, flow) {
        (Egress, Original) => ("eg_o", "eg_ox"),
        (Egress, Reply) => ("eg_r", "eg_rx"),
        (Ingress, Original) => ("in_o", "in_ox"),
        (Ingress, Reply) => ("in_r", "in_rx"),
    };
    let (pair, default) = match direction {
        Egress => (&PAIR_EGRESS, &DEFAULT_EGRESS),
        Ingress => (&PAIR_INGRESS, &DEFAULT_INGRESS),
    };
    // The opener of a flow is the source of its original packets and the destination of its replies.
    let (ip4, ip6, group) = match (direction, flow) {
        (Egress, Original) => (
            Field::Ip4Destination,
            Field::Ip6Destination,
            Field::IifGroup,
        ),
        (Egress, Reply) => (Field::Ip4Source, Field::Ip6Source, Field::OifGroup),
        (Ingress, Original) => (Field::Ip4Source, Field::Ip6Source, Field::OifGroup),
        (Ingress, Reply) => (
            Field::Ip4Destination,
            Field::Ip6Destination,
            Field::IifGroup,
        ),
    };
    let run = run_name(flow);
    let classify = |field, map| plain([Statement::Map(vec![field], map), goto(program)]);
    [
        Chain {
            name: class,
            hook: None,
            rules: vec![
                classify(ip4, &PEER4),
                classify(ip6, &PEER6),
                classify(ip4, &NET4),
                classify(ip6, &NET6),
                plain([Statement::ClearPriority, goto(program)]),
            ],
        },
        Chain {
            name: program,
            hook: None,
            rules: vec![
                plain([
                    Statement::Map(vec![group, Field::Priority], pair),
                    goto(run),
                ]),
                plain([Statement::Map(vec![group], default), goto(run)]),
                plain([goto("deny")]),
            ],
        },
    ]
}

fn constants() -> Vec<Element> {
    let address = |text: [u16; 8]| vec![Value::Address(std::net::IpAddr::from(text))];
    let single = |set, key| Element {
        set,
        key,
        last: None,
        value: None,
        comment: None,
        more: None,
    };
    let range = |first, last| Element {
        last: Some(address(last)),
        ..single(&LOCAL6, address(first))
    };
    let mut elements = vec![
        range([0; 8], [0; 8]),
        range(
            [0xfe80, 0, 0, 0, 0, 0, 0, 0],
            [
                0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
            ],
        ),
    ];
    // Listener report and done, router and neighbour solicitation, neighbour advertisement, version 2 listener report.
    elements.push(single(&LOOPBACK, vec![Value::Name("lo".to_owned())]));
    for icmp6 in [131, 132, 133, 135, 136, 143] {
        elements.push(single(&NEIGHBOUR, vec![Value::Number(icmp6)]));
    }
    elements
}

/// The elements of this set belong to the ruleset and not to policy.
#[must_use]
pub fn is_constant(set: &Set) -> bool {
    [&LOCAL6, &NEIGHBOUR, &LOOPBACK]
        .iter()
        .any(|constant| std::ptr::eq(set, *constant))
}

/// The elements of this set tabulate policy.
#[must_use]
pub fn is_policy(set: &Set) -> bool {
    let terms = TERMS.iter().any(|other| std::ptr::eq(set, *other));
    !is_constant(set) && !terms
}
