//! Whether two documents say the same of a table. nft has several ways to write a range, a mask or a list, and not
//! every version takes the same; both sides are brought into one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nftables::expr::{BinaryOperation, Elem, Expression, NamedExpression};
use nftables::schema;
use nftables::stmt::{Counter, Limit, Match, Operator, Statement};

use super::{Document, Member, NamedSet, Object};
use crate::nft::model::CtState;
use crate::policy::intervals::span;

type Expr = Expression<'static>;

/// What a document says, in one way of writing.
#[derive(Debug, Default)]
struct Said {
    /// Everything that has a name, with what is said of it.
    named: BTreeMap<String, String>,
    /// Elements by set and key, with value and comment.
    elements: BTreeMap<String, String>,
    /// Rules by chain, in order.
    rules: BTreeMap<String, Vec<String>>,
}

pub(super) fn differences(wanted: &Document, there: &Document) -> Vec<String> {
    let (wanted, there) = (Said::of(wanted), Said::of(there));
    let mut found = Vec::new();
    compare(&wanted.named, &there.named, &mut found);
    compare(&wanted.elements, &there.elements, &mut found);
    let chains: BTreeSet<_> = wanted.rules.keys().chain(there.rules.keys()).collect();
    for chain in chains {
        let rules = |said: &Said| said.rules.get(chain).cloned().unwrap_or_default();
        let (wanted, there) = (rules(&wanted), rules(&there));
        for at in 0..wanted.len().max(there.len()) {
            let (wanted, there) = (wanted.get(at), there.get(at));
            if wanted != there {
                let text =
                    |rule: Option<&String>| rule.cloned().unwrap_or_else(|| "none".to_owned());
                found.push(format!(
                    "chain {chain}, rule {at}: wanted {}, there {}",
                    text(wanted),
                    text(there)
                ));
            }
        }
    }
    found
}

fn compare(
    wanted: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
    found: &mut Vec<String>,
) {
    for (name, said) in wanted {
        match there.get(name) {
            Some(same) if same == said => {}
            Some(other) => found.push(format!("{name}: wanted {said}, there {other}")),
            None => found.push(format!("{name} is not there: wanted {said}")),
        }
    }
    for (name, said) in there {
        if !wanted.contains_key(name) {
            found.push(format!("{name} is there and should not be: {said}"));
        }
    }
}

impl Said {
    fn of(document: &Document) -> Self {
        let mut said = Self::default();
        for object in &document.nftables {
            match object {
                Object::Metainfo(_) => {}
                Object::Table(table) => {
                    let name = format!("table {}", table.name);
                    said.named.insert(name, text(&table.family));
                }
                Object::Set(set) => said.set("set", set),
                Object::Map(map) => said.set("map", map),
                Object::Chain(chain) => {
                    let handleless = schema::Chain {
                        handle: None,
                        ..chain.clone()
                    };
                    let name = format!("chain {}", chain.name);
                    said.named.insert(name, text(&handleless));
                }
                Object::Rule(rule) => {
                    let statements: Vec<_> = rule.expr.iter().cloned().map(statement).collect();
                    let comment = rule.comment.as_deref().unwrap_or_default();
                    let said = said.rules.entry(rule.chain.to_string()).or_default();
                    said.push(format!("{} {comment:?}", text(&statements)));
                }
            }
        }
        said
    }

    fn set(&mut self, word: &str, set: &NamedSet) {
        // Not every version says of a set that its elements have statements.
        let flags = set.flags.as_slice().iter().filter(|it| *it != "dynamic");
        let flags: Vec<&str> = flags.map(|it| &**it).collect();
        let shape = format!(
            "type {}, values {:?}, flags {}, {:?}",
            set.key.as_slice().join(" . "),
            set.map.as_ref().map(|it| it.as_slice().join(" . ")),
            flags.join(", "),
            set.rest
        );
        self.named.insert(format!("{word} {}", set.name), shape);
        for member in &set.elem {
            let element = match member {
                Member::Plain(element) => element,
                Member::Limiting { elem } => {
                    let key = format!("element {} {{ {} }}", set.name, key_text(set, &elem.val));
                    self.elements.insert(key, quota(&elem.limit));
                    continue;
                }
            };
            let (key, value) = match element {
                Expression::List(pair) if set.map.is_some() => (pair.first(), pair.get(1)),
                key => (Some(key), None),
            };
            let (key, comment) = match key {
                Some(Expression::Named(NamedExpression::Elem(Elem { val, comment, .. }))) => {
                    (Some(&**val), comment.as_deref())
                }
                key => (key, None),
            };
            let key = key.map(|it| key_text(set, it)).unwrap_or_default();
            let kind = set.map.as_ref().and_then(|it| it.as_slice().first());
            let value = value.map(|it| field(kind.map_or("", |it| it), it, false));
            let said = format!(
                "{} {:?}",
                value.unwrap_or_default(),
                comment.unwrap_or_default()
            );
            self.elements
                .insert(format!("element {} {{ {key} }}", set.name), said);
        }
    }
}

/// What nft does not say of a limit in packets, in some versions.
const UNSAID_BURST: Option<u32> = Some(5);

/// A limit in bytes or packets, whatever the unit it was said in.
fn quota(limit: &Limit<'static>) -> String {
    let scale = |unit: Option<&str>| match unit {
        Some("kbytes") => 1 << 10,
        Some("mbytes") => 1 << 20,
        _ => 1_u64,
    };
    let of = |amount: Option<u32>, unit: &Option<Cow<'static, str>>| {
        amount.map(|it| u64::from(it) * scale(unit.as_deref()))
    };
    format!(
        "limit {:?} {:?} burst {:?}, {}, over: {:?}",
        of(Some(limit.rate), &limit.rate_unit),
        limit.per,
        of(limit.burst.or(UNSAID_BURST), &limit.burst_unit),
        match limit.rate_unit {
            Some(_) => "bytes",
            None => "packets",
        },
        limit.inv
    )
}

fn key_text(set: &NamedSet, key: &Expr) -> String {
    let interval = set.flags.as_slice().iter().any(|it| it == "interval");
    let fields = match key {
        Expression::Named(NamedExpression::Concat(fields)) => fields.as_slice(),
        one => std::slice::from_ref(one),
    };
    let fields = set.key.as_slice().iter().zip(fields);
    fields
        .map(|(kind, it)| field(kind, it, interval))
        .collect::<Vec<_>>()
        .join(" . ")
}

/// A field of a key, or a value: of intervals both ends.
fn field(kind: &str, value: &Expr, interval: bool) -> String {
    let (first, last) = match value {
        Expression::Range(range) => {
            let [first, last] = &range.range;
            (single(kind, first), single(kind, last))
        }
        Expression::Named(NamedExpression::Prefix(prefix)) => {
            let address = single(kind, &prefix.addr).parse::<IpAddr>().ok();
            let length = u8::try_from(prefix.len).ok();
            let net = address
                .zip(length)
                .and_then(|(address, length)| IpNetwork::new(address, length).ok());
            match net.map(span) {
                Some((first, last)) => (first.to_string(), last.to_string()),
                None => (text(value), String::new()),
            }
        }
        single_value => {
            let value = single(kind, single_value);
            (value.clone(), value)
        }
    };
    match interval {
        true => format!("{first}-{last}"),
        false => first,
    }
}

fn single(kind: &str, value: &Expr) -> String {
    match (kind, value) {
        (_, Expression::Number(number)) => number.to_string(),
        ("classid", Expression::String(class)) => {
            class_number(class).map_or_else(|| class.to_string(), |number| number.to_string())
        }
        ("devgroup", Expression::String(name)) if name == "default" => "0".to_owned(),
        (_, Expression::String(word)) => match word.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => word.to_string(),
        },
        (_, other) => text(other),
    }
}

fn class_number(class: &str) -> Option<u32> {
    if class == "none" {
        return Some(0);
    }
    let (major, minor) = class.split_once(':')?;
    let part = |digits| u16::from_str_radix(digits, 16).ok();
    Some(u32::from(part(major)?) << 16 | u32::from(part(minor)?))
}

fn statement(said: Statement<'static>) -> Statement<'static> {
    match said {
        // Packets it has seen.
        Statement::Counter(_) => Statement::Counter(Counter::Anonymous(None)),
        Statement::Match(said) => Statement::Match(matched(said)),
        Statement::Limit(mut said) => {
            said.burst = said.burst.or(UNSAID_BURST);
            Statement::Limit(said)
        }
        Statement::Mangle(mut said) => {
            said.value = masked(said.value);
            Statement::Mangle(said)
        }
        other => other,
    }
}

fn matched(said: Match<'static>) -> Match<'static> {
    let (left, right) = match (said.left, said.right) {
        // A mask that is a prefix.
        (left, Expression::Named(NamedExpression::Prefix(prefix))) if prefix.len <= 32 => {
            let mask = Expression::Number(u32::MAX.checked_shl(32 - prefix.len).unwrap_or(0));
            let masked = BinaryOperation::AND(left, mask);
            (Expression::BinaryOperation(Box::new(masked)), *prefix.addr)
        }
        other => other,
    };
    let is_of = |key| matches!(&left, Expression::Named(NamedExpression::CT(ct)) if ct.key == key);
    let right = match is_of("state") || is_of("direction") {
        true => bits(&right),
        false => right,
    };
    let op = match said.op {
        Operator::IN if !is_of("state") => Operator::EQ,
        op => op,
    };
    Match { left, right, op }
}

/// Words and numbers of connection tracking, alone or in a list.
fn bits(said: &Expr) -> Expr {
    let bit = |it: &Expr| match it {
        Expression::Number(number) => *number,
        Expression::String(word) => match Cow::as_ref(word) {
            "invalid" => CtState::Invalid as u32,
            "related" => CtState::Related as u32,
            "new" => CtState::New as u32,
            "untracked" => CtState::Untracked as u32,
            "reply" => 1,
            _ => 0,
        },
        _ => 0,
    };
    let all = match said {
        Expression::List(list) => list.iter().fold(0, |bits, it| bits | bit(it)),
        one => bit(one),
    };
    Expression::Number(all)
}

/// `x & m | v`: bits that are set anyway may stand in the mask as well.
fn masked(value: Expr) -> Expr {
    let Expression::BinaryOperation(operation) = &value else {
        return value;
    };
    let BinaryOperation::OR(parts) = &**operation else {
        return value;
    };
    let [Expression::BinaryOperation(kept), Expression::Number(set)] = parts.as_slice() else {
        return value;
    };
    let BinaryOperation::AND(from, Expression::Number(mask)) = &**kept else {
        return value;
    };
    let kept = BinaryOperation::AND(from.clone(), Expression::Number(mask & !set));
    let kept = Expression::BinaryOperation(Box::new(kept));
    let value = BinaryOperation::OR(vec![kept, Expression::Number(*set)]);
    Expression::BinaryOperation(Box::new(value))
}

fn text(value: &impl serde::Serialize) -> String {
    // Everything here is plain data, which always has a text.
    serde_json::to_string(value).unwrap_or_default()
}
