//! Host endpoints before connections are tracked: every packet is judged by itself. What a policy allows is not tracked and
//! passes everywhere; what it denies is dropped; what it does not mention goes on. Flows of pods are tracked: there is no
//! way for untracked packets to or from them.

use super::super::epoch::Options;
use super::super::model::{Chain, CtDirection, Field, Hook, Statement};
use super::host::{Way, chain, failsafes, loopback, names};
use super::{
    ACCEPT, AUDIT_PREFIX, LOG_GROUP, LOG_PREFIX, RAW_GUARD, RETURN, goto, jump, plain, to_workload,
};
use crate::policy::tables::{Answer, Direction, HostHook};

/// Packets of some host endpoint of this node are under policy before connections are tracked.
fn guarded() -> Statement {
    Statement::In(vec![Field::L4Proto], &RAW_GUARD)
}

/// Every chain. What comes in from elsewhere than pods arrives from the chain that checks the sources of pods.
pub(super) fn chains(options: Options) -> [Chain; 5] {
    let judged = |name, interface, hook, to, of| {
        let (judge, _) = names(hook, CtDirection::Original);
        let mut rules = vec![loopback(interface)];
        rules.extend(to);
        rules.extend(of);
        rules.extend([plain([jump(judge)]), plain([goto("untrack")])]);
        chain(name, rules)
    };
    let note = |bit, prefix| {
        plain([
            Statement::PriorityBits(bit),
            Statement::Limit(options.log),
            Statement::Log(LOG_GROUP, prefix),
        ])
    };
    let mut untrack = Vec::new();
    if !options.quiet {
        untrack.push(note(Answer::LOG_BIT, LOG_PREFIX));
        untrack.push(note(Answer::AUDIT_BIT, AUDIT_PREFIX));
    }
    untrack.extend([
        plain([
            Statement::PriorityBits(Answer::PASS_BIT),
            Statement::ClearPriority,
            RETURN,
        ]),
        plain([
            Statement::PriorityBits(Answer::ALLOW_BIT),
            Statement::ClearPriority,
            Statement::Untrack,
            ACCEPT,
        ]),
        plain([Statement::ClearPriority]),
    ]);
    [
        chain("raw_in", vec![plain([guarded(), goto("raw_in_host")])]),
        judged(
            "raw_in_host",
            Field::IifName,
            HostHook::RawIn,
            failsafes(Direction::Ingress, Way::TO_NODE, RETURN),
            failsafes(Direction::Egress, Way::ANSWER, RETURN),
        ),
        Chain {
            name: "raw_output",
            hook: Some(Hook {
                name: "output",
                number: 3,
                priority: -300,
                nat: false,
            }),
            rules: vec![
                plain([to_workload(), RETURN]),
                plain([guarded(), goto("raw_out_host")]),
            ],
        },
        judged(
            "raw_out_host",
            Field::OifName,
            HostHook::RawOut,
            failsafes(Direction::Egress, Way::FROM_NODE, RETURN),
            failsafes(Direction::Ingress, Way::ANSWERED, RETURN),
        ),
        chain("untrack", untrack),
    ]
}
