//! What the kernel says about `inet margay`: the state of its rules, and its elements.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::build;
use super::encode;
use super::epoch::{Epoch, LOG_RATE, MarkByte, Options, Revoked, ToHost};
use super::model::{Chain, Element, Hook, More, Quota, Rate, Set, Table, Type, Value};
use super::terms::{Rules, Services};
use crate::nla;

/// What is there of the table, without its elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The table's comment; `None` when there is no table.
    pub comment: Option<String>,
    /// The table has flags, such as `dormant`. We set none.
    pub flagged: bool,
    /// How many chains, sets and other objects the kernel counts in it.
    pub size: Option<u32>,
    /// Type and length of the key, by name of the set.
    pub sets: BTreeMap<String, (u32, u32)>,
    /// Hook and policy by name of the chain, of the chains that were asked for.
    pub chains: BTreeMap<String, Entered>,
    /// Rules by chain, in order.
    pub rules: BTreeMap<String, Vec<Written>>,
    /// How many connections the chains of elements allow; `None`: the chain is not as felix makes them.
    pub counting: BTreeMap<String, Option<u32>>,
    /// The bits of the connection's mark that are kept, and those that are set, when one is accepted.
    pub stamp: Option<(u32, u32)>,
    /// A connection that is forbidden now is answered with a reset.
    pub resets: bool,
    /// Some rule logs.
    pub logs: bool,
    /// How many denied packets are told of.
    pub log: Option<Rate>,
    /// Whoever sends to a Service that nobody translated is told.
    pub rejects_loops: bool,
    /// Source ports of what leaves by the node's address, first and last.
    pub ports: Vec<u16>,
    /// What the rules have counted.
    pub counters: Counters,
    /// Elements of some set count.
    pub elements_count: bool,
}

/// How packets enter a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entered {
    /// Number and priority of the hook.
    pub hook: Option<(u32, i32)>,
    /// It may translate addresses.
    pub nat: bool,
    /// What becomes of packets at its end, `NF_DROP` (0) or `NF_ACCEPT` (1).
    pub policy: Option<u32>,
}

/// A rule as the kernel tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    expressions: Vec<u8>,
    comment: Option<String>,
}

/// Packets that were dropped since the table was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// From an unknown interface, or with a source that is not the interface's.
    pub spoofed: u64,
    /// By policy, before they became a connection.
    pub denied: u64,
    /// Of connections that had been allowed: answered with a reset.
    pub reset: u64,
}

impl Inspection {
    /// Takes in a message about the table.
    pub fn table(&mut self, payload: &[u8]) {
        let attributes = payload.get(4..).unwrap_or_default();
        if nla::find(attributes, 1).map(nla::text).as_deref() == Some(build::TABLE) {
            self.comment = Some(
                nla::find(attributes, 6)
                    .and_then(|data| user_text(data, 0))
                    .unwrap_or_default(),
            );
            self.size = nla::find(attributes, 3).and_then(nla::be32);
            self.flagged = nla::find(attributes, 2)
                .and_then(nla::be32)
                .is_some_and(|flags| flags != 0);
        }
    }

    /// Takes in a message about a chain.
    pub fn chain(&mut self, payload: &[u8]) {
        let attributes = payload.get(4..).unwrap_or_default();
        let Some(name) = nla::find(attributes, 3).map(nla::text) else {
            return;
        };
        let hook = nla::find(attributes, 4).and_then(|hook| {
            let number = |kind| nla::find(hook, kind).and_then(nla::be32);
            Some((number(1)?, number(2)?.cast_signed()))
        });
        let policy = nla::find(attributes, 5).and_then(nla::be32);
        let kind = nla::find(attributes, 7).map(nla::text);
        let nat = kind.as_deref() == Some("nat");
        self.chains.insert(name, Entered { hook, nat, policy });
    }

    /// Takes in a message about a set.
    pub fn set(&mut self, payload: &[u8]) {
        let attributes = payload.get(4..).unwrap_or_default();
        let number = |kind| {
            nla::find(attributes, kind)
                .and_then(nla::be32)
                .unwrap_or_default()
        };
        if let Some(name) = nla::find(attributes, 2).map(nla::text) {
            self.sets.insert(name, (number(4), number(5)));
            self.elements_count |= nla::find(attributes, 17).is_some();
        }
    }

    /// Takes in a message about a rule.
    pub fn rule(&mut self, payload: &[u8]) {
        let attributes = payload.get(4..).unwrap_or_default();
        let Some(chain) = nla::find(attributes, 2).map(nla::text) else {
            return;
        };
        let expressions = nla::find(attributes, 4).unwrap_or_default();
        if counts(&chain) {
            // One rule, and no other.
            let counted = self.counting.entry(chain);
            counted
                .and_modify(|most| *most = None)
                .or_insert_with(|| connections(expressions));
            return;
        }
        let mut packets = None;
        let mut resets = false;
        for expression in nla::attributes(expressions) {
            let data = nla::find(expression.value, 2).unwrap_or_default();
            match nla::find(expression.value, 1).map(nla::text).as_deref() {
                Some("counter") => packets = nla::find(data, 2).and_then(nla::be64),
                Some("reject") => resets = true,
                Some("log") => self.logs = true,
                Some("limit") if chain == "deny" => self.log = rate(data),
                Some("immediate") if chain == "outgoing4" && self.ports.len() < 2 => {
                    let value = nla::find(data, 2).and_then(|nest| nla::find(nest, 1));
                    let port = value.filter(|value| value.len() == 2);
                    self.ports.extend(
                        port.and_then(|it| it.first_chunk())
                            .map(|it| u16::from_be_bytes(*it)),
                    );
                }
                Some("bitwise") if chain == "stamp" => {
                    let bits = |kind| {
                        nla::find(data, kind).and_then(|nest| nla::ne32(nla::find(nest, 1)?))
                    };
                    self.stamp = bits(4).zip(bits(5));
                }
                _ => {}
            }
        }
        self.resets |= resets && chain == "deny";
        self.rejects_loops |= resets && chain == "looped";
        match (chain.as_str(), packets) {
            ("prerouting", Some(packets)) => self.counters.spoofed = packets,
            ("deny", Some(packets)) if resets => self.counters.reset = packets,
            ("deny", Some(packets)) => self.counters.denied = packets,
            _ => {}
        }
        self.rules.entry(chain).or_default().push(Written {
            expressions: expressions.to_vec(),
            comment: nla::find(attributes, 7).and_then(|data| user_text(data, 0)),
        });
    }

    /// The epoch which accepted connections are stamped with, and where.
    #[must_use]
    pub fn epoch(&self) -> Option<(MarkByte, Epoch)> {
        let (keep, set) = self.stamp?;
        let mark = MarkByte::new(!keep)?;
        Some((mark, mark.epoch(set)?))
    }

    /// What the operator of the felix which made the table had chosen.
    #[must_use]
    pub fn options(&self) -> Option<Options> {
        let (mark, _) = self.epoch()?;
        let revoked = if self.resets {
            Revoked::Reset
        } else {
            Revoked::Drop
        };
        let with = |to_host| Options {
            mark,
            revoked,
            to_host,
            quiet: !self.logs,
            log: self.log.unwrap_or(LOG_RATE),
            counters: self.elements_count,
            terms: self.terms(),
        };
        // The comment tells one choice of ours from another; a table of another felix tells only what shows in its rules.
        let made = ToHost::ALL.map(with).into_iter().find(|options| {
            let comment = build::table(*options, Epoch::FIRST).comment;
            self.comment.as_ref() == Some(&comment)
        });
        Some(made.unwrap_or_else(|| with(ToHost::default())))
    }

    fn terms(&self) -> Rules {
        let has = |name| self.chains.contains_key(name);
        let ports = match self.ports.as_slice() {
            [first, last] => Some((*first, *last)),
            _ => None,
        };
        let services = match self.rejects_loops {
            true => Services::Reject,
            false => Services::Drop,
        };
        Rules {
            outgoing: has("outgoing4").then_some(ports),
            floating: has("floating_in"),
            services: has("looped").then_some(services),
            limits: has("limit_out"),
            hosts: has("pre_nat"),
            connections: has("opened"),
        }
    }

    /// The ruleset is the one this felix makes, complete and nothing else, at this epoch; `None` when it is not.
    #[must_use]
    pub fn current(&self, options: Options) -> Option<Epoch> {
        let (_, epoch) = self.epoch()?;
        let wanted = build::table(options, epoch);
        self.holds(&wanted, true).then_some(epoch)
    }

    /// The same by what can be told without reading rules: names, hooks, comments, and how many rules a chain has.
    #[must_use]
    pub fn alike(&self, options: Options) -> Option<Epoch> {
        let (_, epoch) = self.epoch()?;
        let wanted = build::table(options, epoch);
        self.holds(&wanted, false).then_some(epoch)
    }

    fn holds(&self, table: &Table, to_the_letter: bool) -> bool {
        let chain = |chain: &Chain| {
            let hook = |hook: Hook| (hook.number, hook.priority);
            let entered = Entered {
                hook: chain.hook.map(hook),
                nat: chain.hook.is_some_and(|hook| hook.nat),
                policy: chain.hook.map(|_| ACCEPT),
            };
            let rules = self.rules.get(chain.name).map_or(&[][..], Vec::as_slice);
            self.chains.get(chain.name) == Some(&entered)
                && rules.len() == chain.rules.len()
                && rules.iter().zip(&chain.rules).all(|(there, rule)| {
                    there.comment.as_deref() == rule.comment
                        && (!to_the_letter || says(&there.expressions, &encode::rule(rule)))
                })
        };
        self.comment.as_ref() == Some(&table.comment)
            && !self.flagged
            && self.size.is_none_or(|size| {
                let chains = table.chains.len() + self.counting.len();
                usize::try_from(size) == Ok(table.sets.len() + chains)
            })
            && self.counting.values().all(Option::is_some)
            && self.sets.len() == table.sets.len()
            && table.sets.iter().all(|set| self.has(set))
            && self.chains.len() == table.chains.len()
            && table.chains.iter().all(chain)
    }

    /// The set is there, with keys as this felix writes them.
    #[must_use]
    pub fn has(&self, set: &Set) -> bool {
        self.sets.get(set.name) == Some(&(encode::key_type(set), encode::key_length(set)))
    }
}

/// The chain is one of an element's.
fn counts(chain: &str) -> bool {
    let mut maps = build::SETS.iter().filter(|set| set.verdicts);
    maps.any(|set| {
        let rest = chain.strip_prefix(set.name);
        rest.is_some_and(|rest| rest.starts_with('_'))
    })
}

/// How many connections the rule of such a chain allows, if it is one that felix makes.
fn connections(expressions: &[u8]) -> Option<u32> {
    let limit = nla::attributes(expressions).find_map(|expression| {
        let name = nla::find(expression.value, 1).map(nla::text)?;
        let data = nla::find(expression.value, 2).filter(|_| name == "connlimit")?;
        nla::find(data, 1).and_then(nla::be32)
    })?;
    let element = Element {
        set: &build::EGRESS_CONNECTIONS,
        key: Vec::new(),
        last: None,
        value: None,
        comment: None,
        more: Some(More::Over(Quota::Connections(limit))),
    };
    says(expressions, &encode::rule(&element.counting()?)).then_some(limit)
}

/// `NF_ACCEPT`, the policy of every chain of ours that has a hook.
const ACCEPT: u32 = 1;

/// The kernel's attributes say everything that ours say. It adds some, and numbers registers of 128 bits by themselves.
fn says(there: &[u8], ours: &[u8]) -> bool {
    let mut listed = nla::attributes(there).filter(|attribute| attribute.kind == 1);
    let is_list = |bytes| {
        nla::attributes(bytes)
            .filter(|a| a.nested && a.kind == 1)
            .count()
            > 1
    };
    if is_list(there) || is_list(ours) {
        let mut ours = nla::attributes(ours);
        return ours.all(|ours| {
            listed
                .next()
                .is_some_and(|there| says(there.value, ours.value))
        }) && listed.next().is_none();
    }
    nla::attributes(ours).all(|ours| {
        nla::find(there, ours.kind).is_some_and(|there| {
            there == ours.value
                || ours.nested && says(there, ours.value)
                || nla::be32(ours.value)
                    .zip(nla::be32(there))
                    .is_some_and(|(ours, there)| {
                        ours >= 8 && ours % 4 == 0 && there == ours / 4 - 1
                    })
        })
    })
}

/// The elements of a set, gathered from the messages of a dump.
#[derive(Debug)]
pub struct Elements {
    set: &'static Set,
    raw: Vec<Raw>,
}

#[derive(Debug)]
struct Raw {
    key: Vec<u8>,
    last: Option<Vec<u8>>,
    end: bool,
    value: Option<u32>,
    address: Option<IpAddr>,
    over: Option<Quota>,
    /// The chain it leads to.
    chain: Option<String>,
    comment: Option<String>,
}

impl Elements {
    /// None yet.
    #[must_use]
    pub const fn of(set: &'static Set) -> Self {
        Self {
            set,
            raw: Vec::new(),
        }
    }

    /// Takes in one message of the dump.
    pub fn message(&mut self, payload: &[u8]) {
        let list = nla::find(payload.get(4..).unwrap_or_default(), 3).unwrap_or_default();
        self.raw
            .extend(nla::attributes(list).filter_map(|element| raw(element.value)));
    }

    /// All of them; ranges put together from their ends.
    #[must_use]
    pub fn finish(mut self) -> Vec<Element> {
        let set = self.set;
        if !set.interval || set.ranges_in_concatenation() {
            return self
                .raw
                .iter()
                .filter_map(|raw| {
                    let last = match &raw.last {
                        Some(last) => Some(values(set, last)?),
                        None => None,
                    };
                    element(set, raw, last)
                })
                .collect();
        }
        // Where one range ends and the next begins, the end comes first.
        self.raw
            .sort_by(|a, b| (&a.key, !a.end).cmp(&(&b.key, !b.end)));
        let mut ranges = Vec::new();
        for (i, raw) in self.raw.iter().enumerate().filter(|(_, raw)| !raw.end) {
            let last = match self.raw.get(i + 1) {
                Some(next) => predecessor(next.key.clone()),
                None => vec![u8::MAX; raw.key.len()],
            };
            if let Some(last) = values(set, &last) {
                ranges.extend(element(set, raw, Some(last)));
            }
        }
        ranges
    }
}

/// The element at the start of this list, for an error which names it.
#[must_use]
pub fn first_element(set: &'static Set, attribute: &[u8]) -> Option<Element> {
    let raw = raw(nla::attributes(attribute).next()?.value)?;
    element(set, &raw, None)
}

fn element(set: &'static Set, raw: &Raw, last: Option<Vec<Value>>) -> Option<Element> {
    let address = raw.address.filter(|_| set.addresses).map(More::Address);
    let mut element = Element {
        set,
        key: values(set, &raw.key)?,
        last,
        value: raw.value.filter(|_| !set.addresses && !set.verdicts),
        comment: raw.comment.clone(),
        more: address.or_else(|| raw.over.map(More::Over)),
    };
    if set.verdicts && raw.chain.as_ref() != Some(&element.chain()) {
        // Somebody else's: it is not what anybody wants, and goes.
        element.comment = None;
    }
    Some(element)
}

fn raw(element: &[u8]) -> Option<Raw> {
    let data = |kind| nla::find(nla::find(element, kind)?, 1);
    Some(Raw {
        key: data(1)?.to_vec(),
        last: data(10).map(<[u8]>::to_vec),
        end: nla::find(element, 3)
            .and_then(nla::be32)
            .is_some_and(|flags| flags & 1 != 0),
        value: data(2).and_then(nla::ne32),
        address: data(2).and_then(address),
        over: nla::find(element, 7).and_then(over),
        chain: nla::find(element, 2)
            .and_then(|data| nla::find(nla::find(data, 2)?, 2))
            .map(nla::text),
        comment: nla::find(element, 6).and_then(|user| user_text(user, 0)),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|it| IpAddr::from(*it)),
        16 => bytes.first_chunk::<16>().map(|it| IpAddr::from(*it)),
        _ => None,
    }
}

/// What an expression lets match.
fn rate(data: &[u8]) -> Option<Rate> {
    let second = nla::find(data, 1).and_then(nla::be64)?;
    Some(Rate {
        second: second.try_into().ok()?,
        burst: nla::find(data, 3).and_then(nla::be32)?,
    })
}

/// The expression of an element that matches what is too much; `None` for any other.
fn over(expression: &[u8]) -> Option<Quota> {
    const OVER: u32 = 1;
    let data = nla::find(expression, 2)?;
    let number = |kind| nla::find(data, kind).and_then(nla::be32);
    match nla::text(nla::find(expression, 1)?).as_str() {
        "limit" => {
            let long = |kind| nla::find(data, kind).and_then(nla::be64);
            let (rate, burst) = (long(1)?, number(3)?);
            let plain = long(2)? == 1 && number(5)? == OVER;
            let quota = match number(4)? {
                0 => Quota::Packets { rate, burst },
                _ => Quota::Bytes { rate, burst },
            };
            plain.then_some(quota)
        }
        _ => None,
    }
}

fn predecessor(mut key: Vec<u8>) -> Vec<u8> {
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != u8::MAX {
            break;
        }
    }
    key
}

fn values(set: &Set, mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut all = Vec::with_capacity(set.key.len());
    for kind in set.key {
        let field = bytes.get(..kind.length())?;
        all.push(value(*kind, field, set.ranges_in_concatenation())?);
        bytes = bytes.get(kind.length().next_multiple_of(4).min(bytes.len())..)?;
    }
    Some(all)
}

fn value(kind: Type, field: &[u8], network_order: bool) -> Option<Value> {
    Some(match kind {
        Type::IfName => Value::Name(nla::text(field)),
        Type::Ip4 => Value::Address(IpAddr::from(*field.first_chunk::<4>()?)),
        Type::Ip6 => Value::Address(IpAddr::from(*field.first_chunk::<16>()?)),
        _ if kind.host_order() && !network_order => Value::Number(nla::ne32(field)?),
        _ => Value::Number(
            field
                .iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte)),
        ),
    })
}

/// The text of this kind in user data.
fn user_text(mut data: &[u8], wanted: u8) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, tail) = rest.split_at_checked((*length).into())?;
        if *kind == wanted {
            return Some(nla::text(value));
        }
        data = tail;
    }
    None
}

#[cfg(test)]
mod tests;
