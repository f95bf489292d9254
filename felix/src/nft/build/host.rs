//! Host endpoints: the node's own interfaces under policy. A node without one has none of these rules; where no policy
//! selects one, a guard that is empty keeps packets, and their priority, from being touched.

use super::super::epoch::{Epoch, Options};
use super::super::model::{Chain, CtDirection, CtState, Field, Hook, Is, Rule, Set, Statement};
use super::{
    ACCEPT, FAILSAFE_IN4, FAILSAFE_IN6, FAILSAFE_OUT4, FAILSAFE_OUT6, HOST_ANY_FORWARD_IN,
    HOST_ANY_FORWARD_OUT, HOST_ANY_LOCAL_IN, HOST_ANY_LOCAL_OUT, HOST_ANY_PRE_DNAT,
    HOST_ANY_RAW_IN, HOST_ANY_RAW_OUT, HOST_FORWARD_IN, HOST_FORWARD_OUT, HOST_GUARD,
    HOST_LOCAL_IN, HOST_LOCAL_OUT, HOST_PAIR_FORWARD_IN, HOST_PAIR_FORWARD_OUT, HOST_PAIR_LOCAL_IN,
    HOST_PAIR_LOCAL_OUT, HOST_PAIR_PRE_DNAT, HOST_PAIR_RAW_IN, HOST_PAIR_RAW_OUT, HOST_PRE_DNAT,
    HOST_RAW_IN, HOST_RAW_OUT, INTERFACE_PREFIX, LOOPBACK, NET4, NET6, OWN_REST, OWN4, OWN6, PEER4,
    PEER6, RETURN, from_workload, goto, jump, plain, rule, run_name,
};
use crate::policy::tables::{Answer, Direction, HostHook, Program};

/// The maps of a hook: by interface and class, by interface, and by class for all other interfaces.
pub(in crate::nft) const fn maps(hook: HostHook) -> [&'static Set; 3] {
    match hook {
        HostHook::LocalIn => [&HOST_PAIR_LOCAL_IN, &HOST_LOCAL_IN, &HOST_ANY_LOCAL_IN],
        HostHook::LocalOut => [&HOST_PAIR_LOCAL_OUT, &HOST_LOCAL_OUT, &HOST_ANY_LOCAL_OUT],
        HostHook::ForwardIn => [
            &HOST_PAIR_FORWARD_IN,
            &HOST_FORWARD_IN,
            &HOST_ANY_FORWARD_IN,
        ],
        HostHook::ForwardOut => [
            &HOST_PAIR_FORWARD_OUT,
            &HOST_FORWARD_OUT,
            &HOST_ANY_FORWARD_OUT,
        ],
        HostHook::PreDnat => [&HOST_PAIR_PRE_DNAT, &HOST_PRE_DNAT, &HOST_ANY_PRE_DNAT],
        HostHook::RawIn => [&HOST_PAIR_RAW_IN, &HOST_RAW_IN, &HOST_ANY_RAW_IN],
        HostHook::RawOut => [&HOST_PAIR_RAW_OUT, &HOST_RAW_OUT, &HOST_ANY_RAW_OUT],
    }
}

/// Names of the two chains that judge a hook's packets of one direction.
pub(super) const fn names(hook: HostHook, flow: CtDirection) -> (&'static str, &'static str) {
    use CtDirection::{Original, Reply};
    match (hook, flow) {
        (HostHook::LocalIn, Original) => ("host_in_o", "host_in_ox"),
        (HostHook::LocalIn, Reply) => ("host_in_r", "host_in_rx"),
        (HostHook::LocalOut, Original) => ("host_out_o", "host_out_ox"),
        (HostHook::LocalOut, Reply) => ("host_out_r", "host_out_rx"),
        (HostHook::ForwardIn, Original) => ("forward_in_o", "forward_in_ox"),
        (HostHook::ForwardIn, Reply) => ("forward_in_r", "forward_in_rx"),
        (HostHook::ForwardOut, Original) => ("forward_out_o", "forward_out_ox"),
        (HostHook::ForwardOut, Reply) => ("forward_out_r", "forward_out_rx"),
        (HostHook::PreDnat, Original) => ("pre_dnat_o", "pre_dnat_ox"),
        (HostHook::PreDnat, Reply) => ("pre_dnat_r", "pre_dnat_rx"),
        (HostHook::RawIn, Original) => ("raw_in_o", "raw_in_ox"),
        (HostHook::RawIn, Reply) => ("raw_in_r", "raw_in_rx"),
        (HostHook::RawOut, Original) => ("raw_out_o", "raw_out_ox"),
        (HostHook::RawOut, Reply) => ("raw_out_r", "raw_out_rx"),
    }
}

/// Flows of some host endpoint of this node are under policy.
pub(super) fn guarded() -> Statement {
    Statement::In(vec![Field::L4Proto], &HOST_GUARD)
}

/// A host endpoint's policy was asked, and allowed.
fn allowed() -> Rule {
    plain([Statement::PriorityBits(Answer::ALLOW_BIT), goto("ok")])
}

pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

/// The chain whose rules name the epoch: see [`super::epoch_chains`].
pub(super) fn epoch_chain(options: Options, epoch: Epoch) -> Chain {
    let (mask, mark) = (options.mark.mask(), options.mark.of(epoch));
    let (judge, _) = names(HostHook::PreDnat, CtDirection::Original);
    let mut rules = vec![
        rule(
            [Statement::CtMark(mask, Is::Equal, mark), ACCEPT],
            "judged in this epoch",
        ),
        plain([from_workload(Is::Equal), RETURN]),
        passing(),
        loopback(Field::IifName),
        plain([Statement::CtDirection(CtDirection::Reply), RETURN]),
    ];
    rules.extend(failsafes(Direction::Ingress, Way::TO_NODE, ACCEPT));
    rules.extend([plain([jump(judge)]), plain([Statement::ClearPriority])]);
    chain("pre_dnat", rules)
}

/// Where in a packet the other side's address and the port of a failsafe are.
#[derive(Clone, Copy)]
pub(super) struct Way {
    port: Field,
    ip4: Field,
    ip6: Field,
}

impl Way {
    /// To a port of the node.
    pub(super) const TO_NODE: Self = Self {
        port: Field::DestinationPort,
        ..Self::ANSWER
    };
    /// From a port elsewhere.
    pub(super) const ANSWER: Self = Self {
        port: Field::SourcePort,
        ip4: Field::Ip4Source,
        ip6: Field::Ip6Source,
    };
    /// To a port elsewhere.
    pub(super) const FROM_NODE: Self = Self {
        port: Field::DestinationPort,
        ..Self::ANSWERED
    };
    /// From a port of the node.
    pub(super) const ANSWERED: Self = Self {
        port: Field::SourcePort,
        ip4: Field::Ip4Destination,
        ip6: Field::Ip6Destination,
    };
}

pub(super) fn loopback(field: Field) -> Rule {
    plain([Statement::In(vec![field], &LOOPBACK), RETURN])
}

fn passing() -> Rule {
    rule(
        [
            Statement::CtState(&[CtState::Invalid, CtState::Related, CtState::Untracked]),
            RETURN,
        ],
        "errors, resets, neighbour discovery",
    )
}

/// Ports of the node (ingress) or elsewhere (egress) that no policy closes, in packets that go this way.
pub(super) fn failsafes(direction: Direction, way: Way, verdict: Statement) -> [Rule; 2] {
    let sets: [&Set; 2] = match direction {
        Direction::Ingress => [&FAILSAFE_IN4, &FAILSAFE_IN6],
        Direction::Egress => [&FAILSAFE_OUT4, &FAILSAFE_OUT6],
    };
    let [four, six] = sets;
    [(way.ip4, four), (way.ip6, six)].map(|(address, ports)| {
        rule(
            [
                Statement::In(vec![Field::L4Proto, way.port, address], ports),
                verdict.clone(),
            ],
            "failsafe",
        )
    })
}

/// Every chain about host endpoints whose rules never change.
pub(super) fn chains() -> Vec<Chain> {
    use CtDirection::{Original, Reply};
    use HostHook::{ForwardIn, ForwardOut, LocalIn, LocalOut};
    let to_workload = |is| Statement::NameBegins(Field::OifName, is, INTERFACE_PREFIX);
    let name = |hook, flow| names(hook, flow).0;
    // What comes to the node, and what it answers to what it opened.
    let local = |first, reply, interface, hook: HostHook, way| {
        let mut rules = vec![
            loopback(interface),
            passing(),
            plain([Statement::CtDirection(Reply), goto(reply)]),
        ];
        rules.extend(failsafes(hook.direction(), way, ACCEPT));
        rules.extend([plain([jump(name(hook, Original))]), allowed()]);
        chain(first, rules)
    };
    let replies = |name_of, hook: HostHook, way| {
        let mut rules: Vec<Rule> = failsafes(hook.direction(), way, ACCEPT).into();
        rules.extend([plain([jump(name(hook, Reply))]), allowed()]);
        chain(name_of, rules)
    };
    let mut chains = vec![
        Chain {
            name: "pre_nat",
            hook: Some(Hook {
                name: "prerouting",
                number: 0,
                priority: -150,
                nat: false,
            }),
            rules: vec![plain([guarded(), goto("pre_dnat")])],
        },
        local(
            "to_host",
            "to_host_r",
            Field::IifName,
            LocalIn,
            Way::TO_NODE,
        ),
        replies("to_host_r", LocalOut, Way::ANSWER),
        local(
            "from_host",
            "from_host_r",
            Field::OifName,
            LocalOut,
            Way::FROM_NODE,
        ),
        replies("from_host_r", LocalIn, Way::ANSWERED),
        chain(
            "transit",
            vec![
                passing(),
                plain([Statement::CtDirection(Reply), goto("transit_r")]),
                plain([jump("hosts_o")]),
                allowed(),
            ],
        ),
        chain("transit_r", vec![plain([jump("hosts_r")]), allowed()]),
        chain(
            "hosts_o",
            vec![
                plain([from_workload(Is::Not), jump(name(ForwardIn, Original))]),
                plain([to_workload(Is::Not), jump(name(ForwardOut, Original))]),
            ],
        ),
        chain(
            "hosts_r",
            vec![
                plain([from_workload(Is::Not), jump(name(ForwardOut, Reply))]),
                plain([to_workload(Is::Not), jump(name(ForwardIn, Reply))]),
            ],
        ),
    ];
    for flow in [Original, Reply] {
        for comes_in in [true, false] {
            chains.extend(own(flow, comes_in));
        }
    }
    for hook in HostHook::ALL {
        for flow in [Original, Reply] {
            let single = hook == HostHook::PreDnat || hook.is_raw();
            if !single || flow == Original {
                chains.extend(judge(hook, flow));
            }
        }
    }
    chains
}

/// Names of the chains that ask for our own address where a program wants that; `comes_in`: it is the destination.
const fn own_names(flow: CtDirection, comes_in: bool) -> [&'static str; 2] {
    match (flow, comes_in) {
        (CtDirection::Original, true) => ["own_o_in", "owned_o_in"],
        (CtDirection::Original, false) => ["own_o_out", "owned_o_out"],
        (CtDirection::Reply, true) => ["own_r_in", "owned_r_in"],
        (CtDirection::Reply, false) => ["own_r_out", "owned_r_out"],
    }
}

/// From a program to the one to ask: a program that looks at our own address is exchanged for another.
fn own(flow: CtDirection, comes_in: bool) -> [Chain; 2] {
    let [name, owned] = own_names(flow, comes_in);
    let run = run_name(flow);
    let (ip4, ip6) = if comes_in {
        (Field::Ip4Destination, Field::Ip6Destination)
    } else {
        (Field::Ip4Source, Field::Ip6Source)
    };
    let exchange = |key, map| plain([Statement::Map(key, map), goto(run)]);
    [
        chain(
            name,
            vec![
                plain([Statement::PriorityBits(Program::OWNED), goto(owned)]),
                plain([goto(run)]),
            ],
        ),
        chain(
            owned,
            vec![
                exchange(vec![Field::Priority, ip4], &OWN4),
                exchange(vec![Field::Priority, ip6], &OWN6),
                exchange(vec![Field::Priority], &OWN_REST),
                plain([goto("deny")]),
            ],
        ),
    ]
}

/// One judgement: the class of the other side's address, then the program of interface and class.
fn judge(hook: HostHook, flow: CtDirection) -> [Chain; 2] {
    let (class, program) = names(hook, flow);
    // Who opens a flow is the source of its original packets and the destination of its replies.
    let comes_in = (hook.direction() == Direction::Ingress) == (flow == CtDirection::Original);
    let (ip4, ip6, interface) = if comes_in {
        (Field::Ip4Source, Field::Ip6Source, Field::IifName)
    } else {
        (Field::Ip4Destination, Field::Ip6Destination, Field::OifName)
    };
    let [pair, own, any] = maps(hook);
    let [run, _] = own_names(flow, comes_in);
    let classify = |field, map| plain([Statement::Map(vec![field], map), goto(program)]);
    let ask = |key, map| plain([Statement::Map(key, map), goto(run)]);
    [
        chain(
            class,
            vec![
                classify(ip4, &PEER4),
                classify(ip6, &PEER6),
                classify(ip4, &NET4),
                classify(ip6, &NET6),
                plain([Statement::ClearPriority, goto(program)]),
            ],
        ),
        chain(
            program,
            vec![
                ask(vec![interface, Field::Priority], pair),
                ask(vec![interface], own),
                ask(vec![Field::Priority], any),
                plain([Statement::ClearPriority]),
                ask(vec![Field::Priority], any),
            ],
        ),
    ]
}
