//! Transactions of nf_tables as netlink messages (`linux/netfilter/nf_tables.h`).

use std::net::IpAddr;

use super::build::{self, TABLE};
use super::diff::Batch;
use super::epoch::{Epoch, Options};
use super::expr::expressions;
use super::model::{Chain, Element, More, Quota, Rule, Set, Table, Type, Value};
use crate::nla::{self, Message};

/// `NFNL_SUBSYS_NFTABLES`.
pub const SUBSYSTEM: u8 = 10;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// Fill of a list of elements beyond which a new message is begun; one attribute holds less than 64 KiB.
const CHUNK: usize = 60_000;
/// Elements that count up to which the kernel tells what those that go had counted: its answers have to fit into the socket.
pub const TOLD: usize = 2000;
/// What fits as a comment into an element's user data of 256 bytes.
const COMMENT: usize = 250;

pub(super) mod kind {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const DEL_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const DEL_CHAIN: u8 = 5;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const DEL_RULE: u8 = 8;
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const NEW_ELEMENT: u8 = 12;
    pub(crate) const DEL_ELEMENT: u8 = 14;
}

/// Flags of a request (`linux/netlink.h`).
mod flag {
    pub(super) const REQUEST: u16 = 1;
    pub(super) const ACK: u16 = 4;
    pub(super) const ECHO: u16 = 8;
    pub(super) const EXCL: u16 = 0x200;
    pub(super) const CREATE: u16 = 0x400;
    pub(super) const APPEND: u16 = 0x800;
}

/// A transaction, ready to be sent in one piece.
#[derive(Debug)]
pub struct Transaction {
    bytes: Vec<u8>,
    sequence: u32,
    steps: Vec<Step>,
}

/// One message of a transaction, for an error that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its sequence number.
    pub sequence: u32,
    /// What it does.
    pub what: String,
    /// Where it stands in the transaction.
    pub start: usize,
}

impl Transaction {
    /// Starts one whose messages are numbered from `sequence`. With a generation, the kernel refuses it (`ERESTART`)
    /// when anybody has changed any ruleset since.
    #[must_use]
    pub fn begin(sequence: u32, generation: Option<u32>) -> Self {
        let mut begin = Message::new(0x10, flag::REQUEST, sequence, &batch_header());
        if let Some(generation) = generation {
            begin.be32(1, generation);
        }
        Self {
            bytes: begin.finish(),
            sequence,
            steps: Vec::new(),
        }
    }

    /// Makes the table, dropping one of that name.
    pub fn replace_table(&mut self, table: &Table) {
        let named = |message: &mut Message| message.string(1, table.name);
        self.push(kind::NEW_TABLE, flag::CREATE, "make the table", named);
        self.push(kind::DEL_TABLE, 0, "drop the old table", named);
        self.push(kind::NEW_TABLE, flag::CREATE, "make the table", |message| {
            named(message);
            message.bytes(6, &user_text(0, &table.comment));
        });
        for (id, set) in (1..).zip(&table.sets) {
            self.push(kind::NEW_SET, flag::CREATE, set.name, |message| {
                new_set(message, set, id);
                if set.counter && table.counters {
                    counting(message);
                }
            });
        }
        for chain in &table.chains {
            self.push(kind::NEW_CHAIN, flag::CREATE, chain.name, |message| {
                new_chain(message, chain)
            });
        }
        self.rules(&table.chains);
        self.add(&table.elements);
    }

    /// Drops the table of that name.
    pub fn drop_table(&mut self, name: &str) {
        self.push(kind::DEL_TABLE, 0, "drop the table", |message| {
            message.string(1, name);
        });
    }

    /// The changes of a batch; `epoch` is the one it bumps to, if it does.
    pub fn batch(&mut self, batch: &Batch, options: Options, epoch: Epoch) {
        if batch.flush {
            for set in build::SETS.iter().filter(|set| build::is_policy(set)) {
                self.push(kind::DEL_ELEMENT, 0, set.name, |message| {
                    names(message, set.name)
                });
            }
        }
        self.delete(&batch.delete);
        self.add(&batch.add);
        if batch.bump {
            let chains = build::epoch_chains(options, epoch);
            for chain in &chains {
                self.push(kind::DEL_RULE, 0, chain.name, |message| {
                    names(message, chain.name)
                });
            }
            self.rules(&chains);
        }
    }

    /// Adds elements, with their chains; one that exists fails the transaction.
    pub fn add(&mut self, elements: &[Element]) {
        for element in elements.iter().filter(|it| it.set.verdicts) {
            let chain = element.chain();
            let named = |message: &mut Message| {
                message.string(1, TABLE);
                message.string(3, &chain);
            };
            self.push(kind::NEW_CHAIN, flag::CREATE, chain.as_str(), named);
            // Somebody may have left one of that name.
            self.push(kind::DEL_RULE, 0, chain.as_str(), |message| {
                names(message, &chain);
            });
            if let Some(rule) = element.counting() {
                self.rule(&chain, &rule);
            }
        }
        self.elements(kind::NEW_ELEMENT, flag::CREATE | flag::EXCL, elements);
    }

    /// Removes elements, with their chains; one that does not exist fails the transaction.
    pub fn delete(&mut self, elements: &[Element]) {
        let own = elements.iter().filter(|it| it.set.verdicts);
        let own: Vec<String> = own.map(Element::chain).collect();
        let chains = |transaction: &mut Self, kind, flags| {
            for chain in &own {
                transaction.push(kind, flags, chain.as_str(), |message| {
                    message.string(1, TABLE);
                    message.string(3, chain);
                });
            }
        };
        // Somebody may have taken it away.
        chains(self, kind::NEW_CHAIN, flag::CREATE);
        self.delete_elements(elements);
        chains(self, kind::DEL_CHAIN, 0);
    }

    /// The kernel tells what those had counted, if there are not too many.
    fn delete_elements(&mut self, elements: &[Element]) {
        let counting = elements.iter().filter(|it| it.set.counter).count();
        for alike in elements.chunk_by(|a, b| a.set.counter == b.set.counter) {
            let told = counting <= TOLD && alike.iter().any(|it| it.set.counter);
            let flags = if told { flag::ECHO } else { 0 };
            self.elements(kind::DEL_ELEMENT, flags, alike);
        }
    }

    /// Ends it: the bytes to send, the sequence number whose acknowledgement means success, and the steps.
    #[must_use]
    pub fn end(mut self) -> (Vec<u8>, u32, Vec<Step>) {
        let last = self.sequence;
        if let Some(step) = self.steps.last() {
            let flags = step.start + 6;
            let old = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]);
            self.bytes[flags..flags + 2].copy_from_slice(&(old | flag::ACK).to_ne_bytes());
        }
        let end = Message::new(
            0x11,
            flag::REQUEST,
            self.sequence.wrapping_add(1),
            &batch_header(),
        );
        self.bytes.extend(end.finish());
        (self.bytes, last, self.steps)
    }

    fn rules(&mut self, chains: &[Chain]) {
        for chain in chains {
            for rule in &chain.rules {
                self.rule(chain.name, rule);
            }
        }
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        self.push(
            kind::NEW_RULE,
            flag::CREATE | flag::APPEND,
            format!("{chain}: {rule}"),
            |message| {
                names(message, chain);
                message.nest(4, |list| expressions(list, rule));
                if let Some(comment) = rule.comment {
                    message.bytes(7, &user_text(0, comment));
                }
            },
        );
    }

    fn elements(&mut self, kind: u8, flags: u16, elements: &[Element]) {
        let mut rest = elements;
        while let Some(first) = rest.first() {
            let set = first.set;
            let mut taken = 0;
            let before = rest;
            self.push(kind, flags, set.name, |message| {
                names(message, set.name);
                message.nest(3, |list| {
                    let start = list.size();
                    while let Some(element) = rest.first()
                        && std::ptr::eq(element.set, set)
                        && list.size() - start < CHUNK
                    {
                        write_element(list, element, kind == kind::NEW_ELEMENT);
                        rest = &rest[1..];
                        taken += 1;
                    }
                });
            });
            if let Some(step) = self.steps.last_mut() {
                let verb = if kind == kind::NEW_ELEMENT {
                    "add"
                } else {
                    "delete"
                };
                step.what = match taken {
                    1 => format!("{verb} {}", before[0]),
                    _ => format!(
                        "{verb} {taken} elements of {}, from {}",
                        set.name,
                        before[0].text()
                    ),
                };
            }
        }
    }

    fn push(
        &mut self,
        kind: u8,
        flags: u16,
        what: impl Into<String>,
        fill: impl FnOnce(&mut Message),
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let start = self.bytes.len();
        let mut message = request(kind, flags, self.sequence);
        fill(&mut message);
        self.bytes.extend(message.finish());
        self.steps.push(Step {
            sequence: self.sequence,
            what: what.into(),
            start,
        });
    }
}

/// What a rule does, as the attribute of the message which makes it holds it.
#[must_use]
pub fn rule(rule: &Rule) -> Vec<u8> {
    let mut list = Message::new(0, 0, 0, &[]);
    expressions(&mut list, rule);
    list.finish().split_off(nla::HEADER)
}

/// A message of nf_tables for the family `inet`, to which attributes can be added.
#[must_use]
pub fn request(kind: u8, flags: u16, sequence: u32) -> Message {
    Message::new(
        u16::from_be_bytes([SUBSYSTEM, kind]),
        flag::REQUEST | flags,
        sequence,
        &[INET, 0, 0, 0],
    )
}

/// The key's bytes as the kernel holds them in a register: fields of a concatenation start at multiples of four.
#[must_use]
pub fn key(set: &Set, values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for (kind, value) in set.key.iter().zip(values) {
        field(&mut bytes, *kind, value, set.ranges_in_concatenation());
        if set.key.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

fn field(bytes: &mut Vec<u8>, kind: Type, value: &Value, network_order: bool) {
    match value {
        Value::Name(name) => {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            bytes.resize(start + kind.length(), 0);
        }
        Value::Address(IpAddr::V4(address)) => bytes.extend_from_slice(&address.octets()),
        Value::Address(IpAddr::V6(address)) => bytes.extend_from_slice(&address.octets()),
        Value::Number(number) if kind.host_order() && !network_order => {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        Value::Number(number) => {
            bytes.extend_from_slice(&number.to_be_bytes()[4 - kind.length()..])
        }
    }
}

/// The key that follows, `None` after the last one there is.
fn successor(mut key: Vec<u8>) -> Option<Vec<u8>> {
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(key);
        }
    }
    None
}

fn write_element(list: &mut Message, element: &Element, new: bool) {
    const KEY: u16 = 1;
    const KEY_END: u16 = 10;
    const EXPRESSION: u16 = 7;
    const INTERVAL_END: u32 = 1;
    let first = key(element.set, &element.key);
    let concatenation = element.set.ranges_in_concatenation();
    let last = element.last.as_ref().map(|last| key(element.set, last));
    // A set of single ranges holds the first address of each, and the first one behind it.
    let end = if concatenation {
        None
    } else {
        last.clone().map(successor)
    };
    list.nest(1, |message| {
        message.nest(KEY, |nest| nest.bytes(1, &first));
        if let Some(last) = last.filter(|_| concatenation) {
            message.nest(KEY_END, |nest| nest.bytes(1, &last));
        }
        if !new {
            return;
        }
        if let Some(value) = element.value {
            message.nest(2, |nest| nest.bytes(1, &value.to_ne_bytes()));
        }
        match &element.more {
            Some(More::Address(address)) => message.nest(2, |nest| match address {
                IpAddr::V4(address) => nest.bytes(1, &address.octets()),
                IpAddr::V6(address) => nest.bytes(1, &address.octets()),
            }),
            Some(More::Over(_)) if element.set.verdicts => {
                const VERDICT: u16 = 2;
                const JUMP: i32 = -3;
                message.nest(2, |data| {
                    data.nest(VERDICT, |verdict| {
                        verdict.bytes(1, &JUMP.to_be_bytes());
                        verdict.string(2, &element.chain());
                    });
                });
            }
            Some(More::Over(quota)) => message.nest(EXPRESSION, |nest| over(nest, *quota)),
            None => {}
        }
        if let Some(comment) = &element.comment {
            message.bytes(
                6,
                &user_text(0, &comment[..comment.floor_char_boundary(COMMENT)]),
            );
        } else if end == Some(None) {
            // nft's mark of a range without an end.
            message.bytes(6, &user_number(1, 1));
        }
    });
    if let Some(Some(end)) = end {
        list.nest(1, |message| {
            message.be32(3, INTERVAL_END);
            message.nest(KEY, |nest| nest.bytes(1, &end));
        });
    }
}

/// The expression of an element that matches what is too much.
fn over(message: &mut Message, quota: Quota) {
    const OVER: u32 = 1;
    let limit = |message: &mut Message, rate, burst, bytes| {
        message.string(1, "limit");
        message.nest(2, |data| {
            data.be64(1, rate);
            data.be64(2, 1);
            data.be32(3, burst);
            data.be32(4, bytes);
            data.be32(5, OVER);
        });
    };
    match quota {
        Quota::Packets { rate, burst } => limit(message, rate, burst, 0),
        Quota::Bytes { rate, burst } => limit(message, rate, burst, 1),
        // Counted by the chain that the element leads to.
        Quota::Connections(_) => {}
    }
}

const fn batch_header() -> [u8; 4] {
    [0, 0, 0, SUBSYSTEM]
}

/// Table and object, which most messages begin with.
fn names(message: &mut Message, object: &str) {
    message.string(1, TABLE);
    message.string(2, object);
}

/// User data as libnftnl writes it: type, length, value.
fn user_text(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    user_data(kind, &bytes)
}

fn user_number(kind: u8, number: u32) -> Vec<u8> {
    user_data(kind, &number.to_ne_bytes())
}

fn user_data(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("invariant: comments are cut to fit");
    let mut bytes = vec![kind, length];
    bytes.extend_from_slice(value);
    bytes
}

fn new_set(message: &mut Message, set: &Set, id: u32) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCAT: u32 = 0x80;
    const EVALUATE: u32 = 0x20;
    const HOST_ORDER: u32 = 1;
    const NETWORK_ORDER: u32 = 2;
    names(message, set.name);
    let mut flags = if set.interval { INTERVAL } else { 0 };
    flags |= if set.map { MAP } else { 0 };
    flags |= if set.dynamic { EVALUATE } else { 0 };
    flags |= if set.ranges_in_concatenation() {
        CONCAT
    } else {
        0
    };
    message.be32(3, flags);
    message.be32(4, key_type(set));
    message.be32(5, key_length(set));
    if set.map {
        message.be32(6, set.data().id());
        message.be32(7, length(set.data()));
    }
    message.be32(10, id);
    if set.ranges_in_concatenation() {
        message.nest(9, |description| {
            description.nest(2, |fields| {
                for kind in set.key {
                    fields.nest(1, |field| field.be32(1, length(*kind)));
                }
            });
        });
    }
    let order = match set.key {
        [kind] if kind.host_order() => HOST_ORDER,
        [_] => NETWORK_ORDER,
        _ => 0,
    };
    let mut user = user_number(0, order);
    if set.map {
        let order = match set.addresses {
            true => NETWORK_ORDER,
            false if set.verdicts => 0,
            false => HOST_ORDER,
        };
        user.extend(user_number(1, order));
    }
    message.bytes(13, &user);
}

/// Each element of the set gets a counter.
fn counting(message: &mut Message) {
    message.nest(17, |expression| {
        expression.string(1, "counter");
        expression.nest(2, |_| {});
    });
}

/// nft's number for the key's type: six bits a field.
#[must_use]
pub fn key_type(set: &Set) -> u32 {
    set.key.iter().fold(0, |all, kind| all << 6 | kind.id())
}

pub(super) fn length(kind: Type) -> u32 {
    u32::try_from(kind.length()).expect("invariant: at most 16")
}

/// Bytes of a key.
#[must_use]
pub fn key_length(set: &Set) -> u32 {
    match set.key {
        [kind] => length(*kind),
        kinds => kinds
            .iter()
            .map(|kind| length(*kind).next_multiple_of(4))
            .sum(),
    }
}

fn new_chain(message: &mut Message, chain: &Chain) {
    const ACCEPT: u32 = 1;
    message.string(1, TABLE);
    message.string(3, chain.name);
    if let Some(hook) = chain.hook {
        message.nest(4, |nest| {
            nest.be32(1, hook.number);
            nest.bytes(2, &hook.priority.to_be_bytes());
        });
        message.be32(5, ACCEPT);
        message.string(7, hook.chain_type());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_are_cut_below_the_limit_of_an_attribute() {
        let elements: Vec<_> = (0..10_000_u32)
            .map(|i| Element {
                set: &build::PEER4,
                key: vec![Value::Address(std::net::Ipv4Addr::from_bits(i).into())],
                last: None,
                value: Some(i),
                comment: None,
                more: None,
            })
            .collect();
        let mut transaction = Transaction::begin(1, None);
        transaction.add(&elements);
        let (bytes, last, steps) = transaction.end();
        let sent: Vec<_> = nla::messages(&bytes).collect();
        assert_eq!(sent.len(), steps.len() + 2);
        assert_eq!(steps.last().expect("steps").sequence, last);
        let count: usize = sent
            .iter()
            .filter_map(|message| nla::find(message.payload.get(4..)?, 3))
            .map(|list| nla::attributes(list).count())
            .sum();
        assert_eq!(count, elements.len());
        // Only the last message is acknowledged.
        let acks: Vec<_> = sent
            .iter()
            .filter(|message| message.flags & flag::ACK != 0)
            .collect();
        assert_eq!(acks.len(), 1);
        assert_eq!(acks[0].sequence, last);
    }

    #[test]
    fn keys_are_laid_out_as_registers() {
        let numbers = [Value::Number(0x11), Value::Number(17), Value::Number(5000)];
        let mut host = 0x11_u32.to_ne_bytes().to_vec();
        host.extend([17, 0, 0, 0, 0x13, 0x88, 0, 0]);
        assert_eq!(key(&build::PORT, &numbers), host);
        assert_eq!(
            key(&build::PORT_RANGE, &numbers),
            [0, 0, 0, 0x11, 17, 0, 0, 0, 0x13, 0x88, 0, 0]
        );
        assert_eq!(key_length(&build::PORT), 12);
        assert_eq!(key_type(&build::PORT), 0x0001_730d);
        assert_eq!(successor(vec![0, 255]), Some(vec![1, 0]));
        assert_eq!(successor(vec![255, 255]), None);
    }
}
