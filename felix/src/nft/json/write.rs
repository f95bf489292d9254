//! From the model to nft's JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nftables::expr::{
    self, BinaryOperation, CT, Elem, Expression, Map, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Range,
};
use nftables::schema;
use nftables::stmt::{
    self, AnonymousCounter, CTCount, Counter, JumpTarget, Limit, Log, Mangle, Match, NAT,
    NATFamily, Operator, Reject, RejectType, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};

use super::{Limiting, Member, NamedSet, Object, Words};
use crate::nft::model::{
    Chain, CtDirection, CtState, Element, Field, Hook, Is, More, Quota, Rule, Set, Statement,
    Table, Translation, Type, Value, Verdict,
};

type Expr = Expression<'static>;
type Stmt = stmt::Statement<'static>;

/// The parts of a table in the order in which nft prints them.
pub(super) fn objects(table: &Table) -> Vec<Object> {
    let mut elements: BTreeMap<&str, Vec<&Element>> = BTreeMap::new();
    for element in &table.elements {
        elements.entry(element.set.name).or_default().push(element);
    }
    let sets = table.sets.iter().map(|set| {
        let elements = elements.get(set.name).map_or(&[][..], Vec::as_slice);
        let named = named_set(table, set, elements);
        match set.map {
            true => Object::Map(named),
            false => Object::Set(named),
        }
    });
    let chains = table
        .chains
        .iter()
        .map(|it| Object::Chain(chain(table, it)));
    let rules = table.chains.iter().flat_map(|chain| {
        let rules = chain.rules.iter();
        rules.map(move |it| Object::Rule(rule(table, chain.name.into(), it)))
    });
    // Elements name their chains, and those chains name others.
    let own = table.elements.iter().filter(|it| it.set.verdicts);
    let named = own.clone().map(|it| {
        Object::Chain(schema::Chain {
            family: NfFamily::INet,
            table: table.name.into(),
            name: it.chain().into(),
            ..schema::Chain::default()
        })
    });
    let counting = own.filter_map(|it| {
        let counted = it.counting()?;
        Some(Object::Rule(rule(table, it.chain().into(), &counted)))
    });
    let whole = Object::Table(schema::Table {
        family: NfFamily::INet,
        name: table.name.into(),
        handle: None,
    });
    [whole]
        .into_iter()
        .chain(named)
        .chain(sets)
        .chain(chains)
        .chain(rules)
        .chain(counting)
        .collect()
}

fn named_set(table: &Table, set: &Set, elements: &[&Element]) -> NamedSet {
    let types = set.key.iter().map(|kind| kind.name().into()).collect();
    let flags = set.interval.then_some("interval".into());
    NamedSet {
        family: NfFamily::INet,
        table: table.name.into(),
        name: set.name.into(),
        handle: None,
        key: Words::of(types),
        map: set.map.then_some(Words::One(set.data().name().into())),
        // Older nft takes nothing but a list here.
        flags: Words::Several(flags.into_iter().collect()),
        elem: elements.iter().map(|it| member(it)).collect(),
        rest: (set.counter && table.counters)
            .then(|| {
                let counter = serde_json::json!([{ "counter": null }]);
                ("stmt".to_owned(), counter)
            })
            .into_iter()
            .collect(),
    }
}

fn member(it: &Element) -> Member {
    match it.more {
        Some(More::Over(quota)) if !it.set.verdicts => Member::Limiting {
            elem: Limiting {
                val: key_of(it),
                limit: over(quota),
            },
        },
        _ => Member::Plain(element(it)),
    }
}

/// What the element of a set with this quota matches: what is more.
fn over(quota: Quota) -> Limit<'static> {
    let (rate, burst) = match quota {
        Quota::Packets { rate, burst } | Quota::Bytes { rate, burst } => (rate, burst),
        // Those are rules of their own.
        Quota::Connections(most) => (most.into(), 0),
    };
    let unit = matches!(quota, Quota::Bytes { .. }).then_some("bytes".into());
    Limit {
        // The crate has no room for more.
        rate: u32::try_from(rate).unwrap_or(u32::MAX),
        rate_unit: unit.clone(),
        per: Some("second".into()),
        burst: Some(burst),
        burst_unit: unit,
        inv: Some(true),
    }
}

fn element(element: &Element) -> Expr {
    let mut key = key_of(element);
    if let Some(comment) = &element.comment {
        key = Expression::Named(NamedExpression::Elem(Elem {
            val: Box::new(key),
            timeout: None,
            expires: None,
            comment: Some(comment.clone().into()),
            counter: None,
        }));
    }
    if element.set.verdicts {
        let jump = expr::Verdict::Jump(JumpTarget {
            target: element.chain().into(),
        });
        return Expression::List(vec![key, Expression::Verdict(jump)]);
    }
    match (element.value, element.more) {
        (Some(value), _) => Expression::List(vec![key, class(value)]),
        (None, Some(More::Address(address))) => {
            let address = Expression::String(address.to_string().into());
            Expression::List(vec![key, address])
        }
        (None, _) => key,
    }
}

fn key_of(element: &Element) -> Expr {
    let fields = element.set.key.iter().zip(&element.key).enumerate();
    let mut fields: Vec<Expr> = fields
        .map(|(at, (kind, first))| {
            let last = element.last.as_ref().and_then(|last| last.get(at));
            match last.filter(|last| *last != first) {
                Some(last) => Expression::Range(Box::new(Range {
                    range: [value(*kind, first), value(*kind, last)],
                })),
                None => value(*kind, first),
            }
        })
        .collect();
    match fields.len() {
        1 => fields.remove(0),
        _ => Expression::Named(NamedExpression::Concat(fields)),
    }
}

fn value(kind: Type, value: &Value) -> Expr {
    match (kind, value) {
        (_, Value::Name(name)) => Expression::String(name.clone().into()),
        (_, Value::Address(address)) => Expression::String(address.to_string().into()),
        (Type::ClassId, Value::Number(number)) => class(*number),
        (_, Value::Number(number)) => Expression::Number(*number),
    }
}

/// nft writes the scratch value as a traffic class.
fn class(number: u32) -> Expr {
    Expression::String(match number {
        0 => "none".into(),
        number => format!("{:x}:{:x}", number >> 16, number & 0xffff).into(),
    })
}

fn chain(table: &Table, chain: &Chain) -> schema::Chain<'static> {
    let entered = |hook: Hook| match hook.name {
        "prerouting" => NfHook::Prerouting,
        "input" => NfHook::Input,
        "forward" => NfHook::Forward,
        "output" => NfHook::Output,
        _ => NfHook::Postrouting,
    };
    schema::Chain {
        family: NfFamily::INet,
        table: table.name.into(),
        name: chain.name.into(),
        newname: None,
        handle: None,
        _type: chain.hook.map(|hook| match hook.nat {
            true => NfChainType::NAT,
            false => NfChainType::Filter,
        }),
        hook: chain.hook.map(entered),
        prio: chain.hook.map(|hook| hook.priority),
        dev: None,
        policy: chain.hook.map(|_| NfChainPolicy::Accept),
    }
}

fn rule(table: &Table, chain: Cow<'static, str>, rule: &Rule) -> schema::Rule<'static> {
    schema::Rule {
        family: NfFamily::INet,
        table: table.name.into(),
        chain,
        expr: rule.statements.iter().map(statement).collect(),
        handle: None,
        index: None,
        comment: rule.comment.map(Into::into),
    }
}

fn statement(statement: &Statement) -> Stmt {
    match statement {
        Statement::NameBegins(name, is, prefix) => {
            let pattern = Expression::String(format!("{prefix}*").into());
            compare(field(*name), *is, pattern)
        }
        Statement::Group(group, mask, is, value) => {
            let masked = and(field(*group), Expression::Number(*mask));
            compare(masked, *is, Expression::Number(*value))
        }
        Statement::CtMark(mask, is, value) => {
            let masked = and(ct("mark"), Expression::Number(*mask));
            compare(masked, *is, Expression::Number(*value))
        }
        Statement::CtState(states) => Stmt::Match(Match {
            left: ct("state"),
            right: Expression::List(states.iter().map(|it| state(*it)).collect()),
            op: Operator::IN,
        }),
        Statement::CtDirection(direction) => {
            let word = match direction {
                CtDirection::Original => "original",
                CtDirection::Reply => "reply",
            };
            compare(ct("direction"), Is::Equal, Expression::String(word.into()))
        }
        Statement::L4Proto(number) => {
            let number = Expression::Number((*number).into());
            compare(field(Field::L4Proto), Is::Equal, number)
        }
        Statement::Priority(number) => compare(field(Field::Priority), Is::Equal, class(*number)),
        Statement::PriorityBits(bits) => {
            let masked = and(field(Field::Priority), class(*bits));
            compare(masked, Is::Equal, class(*bits))
        }
        Statement::Limit(rate) => Stmt::Limit(Limit {
            rate: rate.second,
            rate_unit: None,
            per: Some("second".into()),
            burst: Some(rate.burst),
            burst_unit: None,
            inv: None,
        }),
        Statement::Opened(most) => Stmt::CTCount(CTCount {
            val: Expression::Number(*most),
            inv: Some(true),
        }),
        Statement::Dispatch(fields, map) => Stmt::VerdictMap(VerdictMap {
            key: key(fields),
            data: named(map),
        }),
        Statement::Log(group, prefix) => {
            let mut log = Log::new(Some((*group).into()));
            log.prefix = Some((*prefix).into());
            Stmt::Log(Some(log))
        }
        Statement::In(fields, set) => compare(key(fields), Is::Equal, named(set)),
        Statement::Map(fields, set) => {
            scratch(Expression::Named(NamedExpression::Map(Box::new(Map {
                key: key(fields),
                data: named(set),
            }))))
        }
        Statement::ClearPriority => scratch(class(0)),
        Statement::SetCtMark(keep, set) => {
            let kept = and(ct("mark"), Expression::Number(*keep));
            let value = BinaryOperation::OR(vec![kept, Expression::Number(*set)]);
            Stmt::Mangle(Mangle {
                key: ct("mark"),
                value: Expression::BinaryOperation(Box::new(value)),
            })
        }
        Statement::PriorityMasked(mask, value) => {
            let masked = and(field(Field::Priority), class(*mask));
            compare(masked, Is::Equal, class(*value))
        }
        Statement::Reject => Stmt::Reject(Some(Reject::new(
            Some(RejectType::ICMPX),
            Some(RejectCode::AdminProhibited),
        ))),
        Statement::Nat(end, fields, map, range) => {
            let address = Expression::Named(NamedExpression::Map(Box::new(Map {
                key: key(fields),
                data: named(map),
            })));
            let translation = Some(NAT {
                addr: Some(address),
                family: Some(match map.data() {
                    Type::Ip6 => NATFamily::IP6,
                    _ => NATFamily::IP,
                }),
                port: range.map(ports),
                flags: None,
            });
            match end {
                Translation::Source => Stmt::SNAT(translation),
                Translation::Destination => Stmt::DNAT(translation),
            }
        }
        Statement::Masquerade(range) => Stmt::Masquerade(range.map(|range| NAT {
            addr: None,
            family: None,
            port: Some(ports(range)),
            flags: None,
        })),
        Statement::Dscp4(value) => code_point("ip", *value),
        Statement::Dscp6(value) => code_point("ip6", *value),
        Statement::Untrack => Stmt::Notrack,
        Statement::Counter => Stmt::Counter(Counter::Anonymous(Some(AnonymousCounter {
            packets: Some(0),
            bytes: Some(0),
        }))),
        Statement::ResetTcp => Stmt::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))),
        Statement::Verdict(verdict) => match verdict {
            Verdict::Accept => Stmt::Accept(None),
            Verdict::Drop => Stmt::Drop(None),
            Verdict::Return => Stmt::Return(None),
            Verdict::Jump(target) => Stmt::Jump(to(target)),
            Verdict::Goto(target) => Stmt::Goto(to(target)),
        },
    }
}

fn ports((first, last): (u16, u16)) -> Expr {
    let port = |port: u16| Expression::Number(port.into());
    match first == last {
        true => port(first),
        false => Expression::Range(Box::new(Range {
            range: [port(first), port(last)],
        })),
    }
}

fn code_point(protocol: &'static str, value: u8) -> Stmt {
    Stmt::Mangle(Mangle {
        key: payload(protocol, "dscp"),
        value: Expression::Number(value.into()),
    })
}

fn to(chain: &'static str) -> JumpTarget<'static> {
    JumpTarget {
        target: chain.into(),
    }
}

fn compare(left: Expr, is: Is, right: Expr) -> Stmt {
    let op = match is {
        Is::Equal => Operator::EQ,
        Is::Not => Operator::NEQ,
    };
    Stmt::Match(Match { left, right, op })
}

fn and(left: Expr, right: Expr) -> Expr {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(left, right)))
}

/// Writes the scratch register.
fn scratch(value: Expr) -> Stmt {
    Stmt::Mangle(Mangle {
        key: field(Field::Priority),
        value,
    })
}

fn named(set: &Set) -> Expr {
    Expression::String(format!("@{}", set.name).into())
}

fn ct(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

fn state(state: CtState) -> Expr {
    Expression::Number(state as u32)
}

fn key(fields: &[Field]) -> Expr {
    match fields {
        [one] => field(*one),
        several => {
            let several = several.iter().map(|it| field(*it)).collect();
            Expression::Named(NamedExpression::Concat(several))
        }
    }
}

fn payload(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn field(field: Field) -> Expr {
    let meta = |key| Expression::Named(NamedExpression::Meta(Meta { key }));
    match field {
        Field::IifName => meta(MetaKey::Iifname),
        Field::OifName => meta(MetaKey::Oifname),
        Field::IifGroup => meta(MetaKey::Iifgroup),
        Field::OifGroup => meta(MetaKey::Oifgroup),
        Field::L4Proto => meta(MetaKey::L4proto),
        Field::Priority => meta(MetaKey::Priority),
        Field::Ip4Source => payload("ip", "saddr"),
        Field::Ip4Destination => payload("ip", "daddr"),
        Field::Ip6Source => payload("ip6", "saddr"),
        Field::Ip6Destination => payload("ip6", "daddr"),
        Field::SourcePort => payload("th", "sport"),
        Field::DestinationPort => payload("th", "dport"),
        Field::Icmp6Type => payload("icmpv6", "type"),
    }
}
