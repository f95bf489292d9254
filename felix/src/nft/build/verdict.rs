//! From a program to what becomes of the packet.

use super::super::epoch::{Options, Revoked};
use super::super::model::{Chain, CtDirection, Field, Is, Statement};
use super::{
    AUDIT_PREFIX, DENY_PREFIX, DROP, ICMP_CODE, LOG_GROUP, LOG_PREFIX, PORT, PORT_RANGE, PROGRAM,
    PROGRAM_RANGED, PROTO, RETURN, SOURCE, SOURCE_REST, goto, plain, rule,
};
use crate::policy::tables::{Answer, Program};

const TCP: u8 = 6;

pub(super) const fn run_name(flow: CtDirection) -> &'static str {
    match flow {
        CtDirection::Original => "run_o",
        CtDirection::Reply => "run_r",
    }
}

/// The program in the scratch register is asked about protocol and port; the service's port is the source of a reply.
/// A refined program is exchanged for another by the opener's port first, and that one is asked the same.
pub(super) fn run(flow: CtDirection) -> [Chain; 3] {
    let (port, source, refine, refined) = match flow {
        CtDirection::Original => (
            Field::DestinationPort,
            Field::SourcePort,
            "refine_o",
            "refined_o",
        ),
        CtDirection::Reply => (
            Field::SourcePort,
            Field::DestinationPort,
            "refine_r",
            "refined_r",
        ),
    };
    let key = |rest: &[Field]| {
        let mut key = vec![Field::Priority];
        key.extend_from_slice(rest);
        key
    };
    let ask = |rest: &[Field], map| plain([Statement::Map(key(rest), map), goto("act")]);
    let constant = || {
        [
            plain([
                Statement::PriorityBits(Program::FIXED | Answer::ALLOW_BIT),
                RETURN,
            ]),
            plain([
                Statement::PriorityBits(Program::FIXED | Answer::DENY_BIT),
                goto("deny"),
            ]),
        ]
    };
    let exact = || {
        [
            ask(&[Field::L4Proto, port], &PORT),
            ask(&[Field::L4Proto, Field::SourcePort], &ICMP_CODE),
            ask(&[], &PROGRAM),
        ]
    };
    let ranges = || {
        [
            ask(&[Field::L4Proto, port], &PORT_RANGE),
            ask(&[Field::L4Proto], &PROTO),
            ask(&[], &PROGRAM_RANGED),
            plain([goto("deny")]),
        ]
    };
    let is_refined = plain([Statement::PriorityBits(Program::REFINED), goto(refine)]);
    let exchange = |rest: &[Field], map| plain([Statement::Map(key(rest), map), goto(refined)]);
    [
        Chain {
            name: run_name(flow),
            hook: None,
            rules: constant()
                .into_iter()
                .chain(exact())
                .chain([is_refined])
                .chain(ranges())
                .collect(),
        },
        Chain {
            name: refine,
            hook: None,
            rules: vec![
                exchange(&[Field::L4Proto, source], &SOURCE),
                exchange(&[], &SOURCE_REST),
                plain([goto("deny")]),
            ],
        },
        Chain {
            name: refined,
            hook: None,
            rules: constant()
                .into_iter()
                .chain(exact())
                .chain(ranges())
                .collect(),
        },
    ]
}

/// Where an answer leads. Notes are taken once, of connections that were never judged before.
pub(super) fn ends(options: Options) -> [Chain; 4] {
    let act = vec![
        plain([
            Statement::PriorityMasked(Answer::BITS, Answer::ALLOW_BIT),
            RETURN,
        ]),
        plain([
            Statement::PriorityMasked(Answer::BITS, Answer::DENY_BIT),
            goto("deny"),
        ]),
        plain([goto("noted")]),
    ];
    let note = |bit, prefix| {
        plain([
            Statement::PriorityBits(bit),
            Statement::CtMark(options.mark.mask(), Is::Equal, 0),
            Statement::Limit(options.log),
            Statement::Log(LOG_GROUP, prefix),
        ])
    };
    let mut noted = Vec::new();
    if !options.quiet {
        noted.push(note(Answer::LOG_BIT, LOG_PREFIX));
        noted.push(note(Answer::AUDIT_BIT, AUDIT_PREFIX));
    }
    noted.push(plain([Statement::PriorityBits(Answer::ALLOW_BIT), RETURN]));
    noted.push(plain([goto("deny")]));
    let mut ok = vec![plain([Statement::ClearPriority])];
    ok.extend(super::terms::opened(options));
    ok.extend(super::terms::unstamped(options.terms));
    ok.push(plain([goto("stamp")]));
    let mut deny = vec![plain([Statement::ClearPriority])];
    if !options.quiet {
        deny.push(plain([
            Statement::Limit(options.log),
            Statement::Log(LOG_GROUP, DENY_PREFIX),
        ]));
    }
    if options.revoked == Revoked::Reset {
        deny.push(rule(
            [
                Statement::L4Proto(TCP),
                Statement::CtMark(options.mark.mask(), Is::Not, 0),
                Statement::Counter,
                Statement::ResetTcp,
            ],
            "was allowed before",
        ));
    }
    deny.push(rule([Statement::Counter, DROP], "denied"));
    [
        Chain {
            name: "act",
            hook: None,
            rules: act,
        },
        Chain {
            name: "noted",
            hook: None,
            rules: noted,
        },
        Chain {
            name: "ok",
            hook: None,
            rules: ok,
        },
        Chain {
            name: "deny",
            hook: None,
            rules: deny,
        },
    ]
}
