//! What packets meet beside policy. Every rule here is there only while something asks for it: see [`Rules`].

use super::super::epoch::{Epoch, Options};
use super::super::model::{Chain, CtState, Field, Hook, Is, Rule, Set, Statement, Translation};
use super::super::terms::{Rules, Services};
use super::{
    CLUSTER4, CLUSTER6, CROWDED, DROP, DSCP, EGRESS_BYTES, EGRESS_CONNECTIONS, EGRESS_PACKETS,
    FLOATING4, FLOATING6, HAIRPIN4, HAIRPIN6, INGRESS_CONNECTIONS, INGRESS_PACKETS, LIMITED,
    NAT_FROM4, NAT_FROM6, NAT_NOT4, NAT_NOT6, NAT_TO4, NAT_TO6, RETURN, SERVICE4, SERVICE6, goto,
    jump, plain, rule,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Values of the DSCP field.
const CODE_POINTS: u8 = 64;

fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

/// A chain that sees the first packet of each connection. Those of others at the same hook (kube-proxy's are at -100 and
/// 100) come first when they have the lower priority, and what they have translated stays as it is.
fn nat(
    name: &'static str,
    hook: &'static str,
    number: u32,
    priority: i32,
    rules: Vec<Rule>,
) -> Chain {
    let hook = Hook {
        name: hook,
        number,
        priority,
        nat: true,
    };
    Chain {
        hook: Some(hook),
        ..chain(name, rules)
    }
}

/// Every chain but those whose rules name the epoch.
pub(super) fn chains(rules: Rules) -> Vec<Chain> {
    let mut chains = Vec::new();
    if rules.outgoing.is_some() || rules.floating {
        chains.push(nat("outgoing", "postrouting", 4, 110, outgoing(rules)));
    }
    if let Some(ports) = rules.outgoing {
        let to = [
            (
                "outgoing4",
                Field::Ip4Source,
                Field::Ip4Destination,
                &NAT_NOT4,
                &NAT_TO4,
            ),
            (
                "outgoing6",
                Field::Ip6Source,
                Field::Ip6Destination,
                &NAT_NOT6,
                &NAT_TO6,
            ),
        ];
        chains.extend(
            to.map(|(name, from, to, not, map)| chain(name, translated(from, to, not, map, ports))),
        );
    }
    if rules.floating {
        let rules = || {
            vec![
                translate(
                    Translation::Destination,
                    &[Field::Ip4Destination],
                    &FLOATING4,
                    None,
                ),
                translate(
                    Translation::Destination,
                    &[Field::Ip6Destination],
                    &FLOATING6,
                    None,
                ),
            ]
        };
        chains.push(nat("floating_in", "prerouting", 0, -110, rules()));
        chains.push(nat("floating_out", "output", 3, -110, rules()));
    }
    if let Some(services) = rules.services {
        let end = match services {
            Services::Drop => DROP,
            Services::Reject => Statement::Reject,
        };
        chains.push(chain(
            "looped",
            vec![rule(
                [Statement::Counter, end],
                "a Service that nobody serves here",
            )],
        ));
    }
    if rules.limits {
        chains.extend(limiting());
    }
    if rules.connections {
        chains.extend(counting());
    }
    chains
}

fn translate(
    end: Translation,
    key: &[Field],
    map: &'static Set,
    ports: Option<(u16, u16)>,
) -> Rule {
    plain([Statement::Nat(end, key.to_vec(), map, ports)])
}

fn outgoing(rules: Rules) -> Vec<Rule> {
    let mut all = Vec::new();
    if rules.floating {
        let ends = [
            ([Field::Ip4Source, Field::Ip4Destination], &HAIRPIN4),
            ([Field::Ip6Source, Field::Ip6Destination], &HAIRPIN6),
        ];
        all.extend(ends.map(|(key, map)| translate(Translation::Source, &key, map, None)));
    }
    if rules.outgoing.is_some() {
        let pools = [
            (Field::Ip4Source, &NAT_FROM4, "outgoing4"),
            (Field::Ip6Source, &NAT_FROM6, "outgoing6"),
        ];
        all.extend(pools.map(|(from, set, to)| plain([Statement::In(vec![from], set), goto(to)])));
    }
    all
}

/// Ports are chosen for protocols that have them only.
fn translated(
    from: Field,
    to: Field,
    not: &'static Set,
    map: &'static Set,
    ports: Option<(u16, u16)>,
) -> Vec<Rule> {
    let mut rules = vec![plain([Statement::In(vec![to], not), RETURN])];
    let source = |ports| Statement::Nat(Translation::Source, vec![from], map, ports);
    if ports.is_some() {
        for protocol in [TCP, UDP, SCTP] {
            let only = || Statement::L4Proto(protocol);
            rules.push(plain([only(), source(ports)]));
            rules.push(plain([only(), Statement::Masquerade(ports)]));
        }
    }
    rules.push(plain([source(None)]));
    rules.push(plain([Statement::Masquerade(None)]));
    rules
}

/// What comes for a Service and was not translated leaves the node again only by mistake.
pub(super) fn services(rules: Rules) -> Vec<Rule> {
    if rules.services.is_none() {
        return Vec::new();
    }
    let looped = |field, set| plain([Statement::In(vec![field], set), goto("looped")]);
    vec![
        looped(Field::Ip4Destination, &SERVICE4),
        looped(Field::Ip6Destination, &SERVICE6),
    ]
}

/// Where packets of pods with limits go aside, by the interfaces that are asked for.
pub(super) fn limits(rules: Rules, interfaces: &[Field]) -> Vec<Rule> {
    let aside = |field: &Field| {
        let to = match field {
            Field::IifName => "limit_out",
            _ => "limit_in",
        };
        plain([Statement::In(vec![*field], &LIMITED), jump(to)])
    };
    match rules.limits {
        true => interfaces.iter().map(aside).collect(),
        false => Vec::new(),
    }
}

/// Their connections are stamped so that the next packet comes by again.
pub(super) fn unstamped(rules: Rules) -> Vec<Rule> {
    let again = |field| plain([Statement::In(vec![field], &LIMITED), goto("restamp")]);
    match rules.limits {
        true => vec![again(Field::IifName), again(Field::OifName)],
        false => Vec::new(),
    }
}

/// Where the first packet of a connection that policy allows is counted. One that was stamped before is no first packet,
/// also when nothing has come back yet: it must not be dropped because others are too many.
pub(super) fn opened(options: Options) -> Option<Rule> {
    options.terms.connections.then(|| {
        plain([
            Statement::CtState(&[CtState::New]),
            Statement::CtMark(options.mark.mask(), Is::Equal, 0),
            jump("opened"),
        ])
    })
}

/// Each pod with a limit has a chain of its own for the way that is limited, with one rule. The kernel adds the
/// connection to those of the rule, without those that have ended, and matches when they are too many; one that is refused
/// does not stay among them.
fn counting() -> [Chain; 2] {
    let of_pod = |field, map| plain([Statement::Dispatch(vec![field], map)]);
    [
        chain(
            "opened",
            vec![
                of_pod(Field::IifName, &EGRESS_CONNECTIONS),
                of_pod(Field::OifName, &INGRESS_CONNECTIONS),
            ],
        ),
        chain(
            CROWDED,
            vec![
                rule(
                    [
                        Statement::L4Proto(TCP),
                        Statement::Counter,
                        Statement::ResetTcp,
                    ],
                    "one too many",
                ),
                rule([Statement::Counter, DROP], "one too many"),
            ],
        ),
    ]
}

/// Stamps as the epoch before did: the connection counts as one that was judged then, and not since.
pub(super) fn epoch_chain(options: Options, epoch: Epoch) -> Option<Chain> {
    let (mask, mark) = (options.mark.mask(), options.mark.of(epoch.before()));
    let rules = vec![
        plain([Statement::SetCtMark(!mask, mark)]),
        plain([super::ACCEPT]),
    ];
    options.terms.limits.then(|| chain("restamp", rules))
}

fn limiting() -> Vec<Chain> {
    const HIGH: u32 = 0o70;
    let over = |field, set| {
        rule(
            [Statement::In(vec![field], set), Statement::Counter, DROP],
            "too much",
        )
    };
    let mut mark = vec![
        plain([
            Statement::In(vec![Field::Ip4Destination], &CLUSTER4),
            RETURN,
        ]),
        plain([
            Statement::In(vec![Field::Ip6Destination], &CLUSTER6),
            RETURN,
        ]),
    ];
    mark.extend(
        (0..)
            .zip(MARKS)
            .map(|(eight, to)| plain([Statement::PriorityMasked(HIGH, eight << 3), goto(to)])),
    );
    let mut chains = vec![
        chain(
            "limit_out",
            vec![
                over(Field::IifName, &EGRESS_PACKETS),
                over(Field::IifName, &EGRESS_BYTES),
                plain([Statement::Map(vec![Field::IifName], &DSCP), goto("code")]),
            ],
        ),
        chain("limit_in", vec![over(Field::OifName, &INGRESS_PACKETS)]),
        chain("code", mark),
    ];
    let eight = |(first, name)| {
        let values = (0..CODE_POINTS).filter(move |value| value >> 3 == first);
        let set = values.flat_map(|value| {
            let is = || Statement::Priority(value.into());
            [
                plain([is(), Statement::Dscp4(value)]),
                plain([is(), Statement::Dscp6(value)]),
            ]
        });
        chain(name, set.collect())
    };
    chains.extend((0..).zip(MARKS).map(eight));
    chains
}

/// nft knows no value of the field that is not written in the rule: one rule each, eight in a chain.
const MARKS: [&str; 8] = [
    "code_0", "code_8", "code_16", "code_24", "code_32", "code_40", "code_48", "code_56",
];
