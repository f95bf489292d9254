//! Rows of the policy tables as elements of the kernel's sets, and back.

use std::net::IpAddr;

use super::build;
use super::model::{Element, Set, Value};
use crate::policy::tables::{
    Answer, Change, Class, Direction, Edit, Failsafe, Guard, HostHook, Program, Subject, Tables,
};

/// What a change takes out of the kernel's sets and what it puts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The element that goes.
    pub old: Option<Element>,
    /// The element that comes.
    pub new: Option<Element>,
}

/// The elements of a change; `None` for a change of a link, which is no element.
#[must_use]
pub fn of(change: &Change) -> Option<Move> {
    Some(match change {
        Change::Workload(edit) => moved(edit, |(interface, address), pod| Element {
            comment: Some(pod.clone()),
            ..element(
                family(*address, &build::WORKLOAD4, &build::WORKLOAD6),
                vec![Value::Name(interface.clone()), Value::Address(*address)],
            )
        }),
        Change::Peer(edit) => moved(edit, |address, class| {
            let set = family(*address, &build::PEER4, &build::PEER6);
            mapped(set, vec![Value::Address(*address)], class.0)
        }),
        Change::Net(edit) => moved(edit, |(first, last), class| Element {
            last: Some(vec![Value::Address(*last)]),
            ..mapped(
                family(*first, &build::NET4, &build::NET6),
                vec![Value::Address(*first)],
                class.0,
            )
        }),
        Change::Pair(edit) => moved(edit, |(direction, subject, class), program| {
            let set = side(*direction, &build::PAIR_EGRESS, &build::PAIR_INGRESS);
            mapped(set, numbers([subject.0, class.0]), program.0)
        }),
        Change::Default(edit) => moved(edit, |(direction, subject), program| {
            let set = side(*direction, &build::DEFAULT_EGRESS, &build::DEFAULT_INGRESS);
            mapped(set, numbers([subject.0]), program.0)
        }),
        Change::Port(edit) => moved(edit, |(program, proto, port), verdict| {
            mapped(
                &build::PORT,
                numbers([program.0, (*proto).into(), (*port).into()]),
                verdict.number(),
            )
        }),
        Change::PortRange(edit) => moved(edit, |(program, proto, first, last), verdict| Element {
            last: Some(numbers([program.0, (*proto).into(), (*last).into()])),
            ..mapped(
                &build::PORT_RANGE,
                numbers([program.0, (*proto).into(), (*first).into()]),
                verdict.number(),
            )
        }),
        Change::Icmp(edit) => moved(edit, |(program, proto, code), verdict| {
            mapped(
                &build::ICMP_CODE,
                numbers([program.0, (*proto).into(), (*code).into()]),
                verdict.number(),
            )
        }),
        Change::Proto(edit) => moved(edit, |(program, proto), verdict| {
            mapped(
                &build::PROTO,
                numbers([program.0, (*proto).into()]),
                verdict.number(),
            )
        }),
        Change::Program(edit) => moved(edit, |program, verdict| {
            mapped(&build::PROGRAM, numbers([program.0]), verdict.number())
        }),
        Change::ProgramRanged(edit) => moved(edit, |program, verdict| {
            mapped(
                &build::PROGRAM_RANGED,
                numbers([program.0]),
                verdict.number(),
            )
        }),
        Change::Source(edit) => moved(edit, |(program, proto, first, last), to| Element {
            last: Some(numbers([program.0, (*proto).into(), (*last).into()])),
            ..mapped(
                &build::SOURCE,
                numbers([program.0, (*proto).into(), (*first).into()]),
                to.0,
            )
        }),
        Change::SourceRest(edit) => moved(edit, |program, to| {
            mapped(&build::SOURCE_REST, numbers([program.0]), to.0)
        }),
        Change::Own(edit) => moved(edit, |(program, first, last), to| {
            let key = |address| vec![Value::Number(program.0), Value::Address(address)];
            Element {
                last: Some(key(*last)),
                ..mapped(
                    family(*first, &build::OWN4, &build::OWN6),
                    key(*first),
                    to.0,
                )
            }
        }),
        Change::OwnRest(edit) => moved(edit, |program, to| {
            mapped(&build::OWN_REST, numbers([program.0]), to.0)
        }),
        Change::Host(edit) => moved(edit, |(hook, interface, class), program| {
            let [pair, own, any] = build::host_maps(*hook);
            let name = interface.clone().map(Value::Name);
            let class = class.map(|class| Value::Number(class.0));
            match (name, class) {
                (Some(name), Some(class)) => mapped(pair, vec![name, class], program.0),
                (Some(name), None) => mapped(own, vec![name], program.0),
                (None, class) => {
                    let class = class.unwrap_or(Value::Number(Class::NONE.0));
                    mapped(any, vec![class], program.0)
                }
            }
        }),
        Change::Guard(edit) => moved(edit, |guard, ()| Element {
            last: Some(numbers([u8::MAX.into()])),
            ..element(guard_set(*guard), numbers([0]))
        }),
        Change::Failsafe(edit) => moved(edit, |it, ()| {
            let key = |address| {
                let mut key = numbers([it.protocol.into(), it.port.into()]);
                key.push(Value::Address(address));
                key
            };
            Element {
                last: Some(key(it.last)),
                ..element(failsafe_set(it.direction, it.first), key(it.first))
            }
        }),
        Change::Link(_) => return None,
    })
}

/// The elements of all rows.
pub fn all(tables: &Tables) -> impl Iterator<Item = Element> {
    Tables::default()
        .diff(tables)
        .into_iter()
        .filter_map(|change| of(&change)?.new)
}

/// Puts the row of an element that was read into the tables; `false` when no row looks like that, so that somebody
/// else must have made it.
pub fn insert(tables: &mut Tables, element: &Element) -> bool {
    read(tables, element).is_some()
}

fn read(tables: &mut Tables, element: &Element) -> Option<()> {
    let set = element.set;
    let is = |other: &'static Set| std::ptr::eq(set, other);
    if is(&build::WORKLOAD4) || is(&build::WORKLOAD6) {
        let [Value::Name(interface), Value::Address(address)] = element.key.as_slice() else {
            return None;
        };
        let pod = element.comment.clone().unwrap_or_default();
        tables.workloads.insert((interface.clone(), *address), pod);
        return Some(());
    }
    for guard in [Guard::Flows, Guard::Packets] {
        if is(guard_set(guard)) {
            tables.guard.insert(guard, ());
            return Some(());
        }
    }
    if let [
        Value::Number(protocol),
        Value::Number(port),
        Value::Address(first),
    ] = element.key.as_slice()
    {
        let direction = Direction::BOTH
            .into_iter()
            .find(|direction| is(failsafe_set(*direction, *first)))?;
        let last = match element.last.as_deref() {
            Some([_, _, Value::Address(last)]) => *last,
            _ => *first,
        };
        let failsafe = Failsafe {
            direction,
            protocol: u8::try_from(*protocol).ok()?,
            port: u16::try_from(*port).ok()?,
            first: *first,
            last,
        };
        tables.failsafes.insert(failsafe, ());
        return Some(());
    }
    let value = element.value?;
    if let Some(key) = host_key(element) {
        tables.hosts.insert(key, program_of(value));
        return Some(());
    }
    if is(&build::PEER4) || is(&build::PEER6) {
        let [Value::Address(address)] = element.key.as_slice() else {
            return None;
        };
        tables.peers.insert(*address, Class(value));
    } else if is(&build::NET4) || is(&build::NET6) {
        let ([Value::Address(first)], Some([Value::Address(last)])) =
            (element.key.as_slice(), element.last.as_deref())
        else {
            return None;
        };
        tables.nets.insert((*first, *last), Class(value));
    } else if is(&build::PAIR_EGRESS) || is(&build::PAIR_INGRESS) {
        let [Value::Number(subject), Value::Number(class)] = element.key.as_slice() else {
            return None;
        };
        let direction = if is(&build::PAIR_EGRESS) {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        tables.pairs.insert(
            (direction, Subject(*subject), Class(*class)),
            program_of(value),
        );
    } else if is(&build::DEFAULT_EGRESS) || is(&build::DEFAULT_INGRESS) {
        let [Value::Number(subject)] = element.key.as_slice() else {
            return None;
        };
        let direction = if is(&build::DEFAULT_EGRESS) {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        tables
            .defaults
            .insert((direction, Subject(*subject)), program_of(value));
    } else if is(&build::OWN_REST) {
        let [Value::Number(program)] = element.key.as_slice() else {
            return None;
        };
        tables.own_rest.insert(Program(*program), program_of(value));
    } else if is(&build::OWN4) || is(&build::OWN6) {
        let ([Value::Number(program), Value::Address(first)], Some([_, Value::Address(last)])) =
            (element.key.as_slice(), element.last.as_deref())
        else {
            return None;
        };
        let key = (Program(*program), *first, *last);
        tables.owns.insert(key, program_of(value));
    } else if is(&build::SOURCE_REST) {
        let [Value::Number(program)] = element.key.as_slice() else {
            return None;
        };
        tables
            .source_rest
            .insert(Program(*program), program_of(value));
    } else if is(&build::SOURCE) {
        let (
            [
                Value::Number(program),
                Value::Number(proto),
                Value::Number(first),
            ],
            Some([_, _, Value::Number(last)]),
        ) = (element.key.as_slice(), element.last.as_deref())
        else {
            return None;
        };
        let proto = u8::try_from(*proto).ok()?;
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        tables
            .sources
            .insert((Program(*program), proto, first, last), program_of(value));
    } else {
        program_row(tables, element, Answer::from_number(value)?)?;
    }
    Some(())
}

/// A felix from before rules were counted had short numbers for the programs that answer everything alike.
const fn program_of(value: u32) -> Program {
    match value {
        1 => Program::ALLOW,
        2 => Program::DENY,
        value => Program(value),
    }
}

/// Interface and class of a row of a host endpoint.
fn host_key(element: &Element) -> Option<(HostHook, Option<String>, Option<Class>)> {
    let number = |map: &&'static Set| std::ptr::eq(element.set, *map);
    let found = HostHook::ALL
        .iter()
        .find_map(|&hook| Some((hook, build::host_maps(hook).iter().position(number)?)));
    let (hook, _) = found?;
    Some(match element.key.as_slice() {
        [Value::Name(name), Value::Number(class)] => {
            (hook, Some(name.clone()), Some(Class(*class)))
        }
        [Value::Name(name)] => (hook, Some(name.clone()), None),
        [Value::Number(class)] => {
            let class = Class(*class);
            (
                hook,
                None,
                Some(class).filter(|class| *class != Class::NONE),
            )
        }
        _ => return None,
    })
}

/// A row of the maps whose values are verdicts.
fn program_row(tables: &mut Tables, element: &Element, verdict: Answer) -> Option<()> {
    let is = |other: &'static Set| std::ptr::eq(element.set, other);
    let (Value::Number(program), rest) = element.key.split_first()? else {
        return None;
    };
    let program = Program(*program);
    match rest {
        [] if is(&build::PROGRAM) => {
            tables.programs.insert(program, verdict);
        }
        [] if is(&build::PROGRAM_RANGED) => {
            tables.programs_ranged.insert(program, verdict);
        }
        [Value::Number(proto)] if is(&build::PROTO) => {
            tables
                .protos
                .insert((program, u8::try_from(*proto).ok()?), verdict);
        }
        [Value::Number(proto), Value::Number(port)] => {
            let (proto, port) = (u8::try_from(*proto).ok()?, u16::try_from(*port).ok()?);
            if is(&build::PORT) {
                tables.ports.insert((program, proto, port), verdict);
            } else if is(&build::ICMP_CODE) {
                tables.icmp.insert((program, proto, port), verdict);
            } else if is(&build::PORT_RANGE) {
                let Some([_, _, Value::Number(last)]) = element.last.as_deref() else {
                    return None;
                };
                tables
                    .port_ranges
                    .insert((program, proto, port, u16::try_from(*last).ok()?), verdict);
            } else {
                return None;
            }
        }
        _ => return None,
    }
    Some(())
}

fn moved<K, V>(edit: &Edit<K, V>, element: impl Fn(&K, &V) -> Element) -> Move {
    Move {
        old: edit.old.as_ref().map(|value| element(&edit.key, value)),
        new: edit.new.as_ref().map(|value| element(&edit.key, value)),
    }
}

const fn family(address: IpAddr, ip4: &'static Set, ip6: &'static Set) -> &'static Set {
    match address {
        IpAddr::V4(_) => ip4,
        IpAddr::V6(_) => ip6,
    }
}

const fn side(direction: Direction, egress: &'static Set, ingress: &'static Set) -> &'static Set {
    match direction {
        Direction::Egress => egress,
        Direction::Ingress => ingress,
    }
}

const fn guard_set(guard: Guard) -> &'static Set {
    match guard {
        Guard::Flows => &build::HOST_GUARD,
        Guard::Packets => &build::RAW_GUARD,
    }
}

const fn failsafe_set(direction: Direction, address: IpAddr) -> &'static Set {
    match direction {
        Direction::Ingress => family(address, &build::FAILSAFE_IN4, &build::FAILSAFE_IN6),
        Direction::Egress => family(address, &build::FAILSAFE_OUT4, &build::FAILSAFE_OUT6),
    }
}

fn numbers<const N: usize>(numbers: [u32; N]) -> Vec<Value> {
    numbers.into_iter().map(Value::Number).collect()
}

pub(crate) const fn element(set: &'static Set, key: Vec<Value>) -> Element {
    Element {
        set,
        key,
        last: None,
        value: None,
        comment: None,
        more: None,
    }
}

const fn mapped(set: &'static Set, key: Vec<Value>, value: u32) -> Element {
    Element {
        set,
        key,
        last: None,
        value: Some(value),
        comment: None,
        more: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_back_from_its_element() {
        let tables = crate::nft::diff::fixture();
        let mut back = Tables {
            links: tables.links.clone(),
            ..Tables::default()
        };
        for element in all(&tables) {
            assert!(insert(&mut back, &element), "{element}");
        }
        assert_eq!(back, tables);
    }

    #[test]
    fn a_foreign_element_is_no_row() {
        let mut tables = Tables::default();
        let element = mapped(&build::PROGRAM, numbers([16]), 3);
        assert!(!insert(&mut tables, &element));
        assert_eq!(tables, Tables::default());
    }
}
