//! Tables, chains, rules, sets and elements as values which compare and print. The text is nft's own syntax: `nft -f`
//! loads it, and what it makes is what the netlink encoding of the same value makes.

mod statement;

use std::fmt;
use std::net::IpAddr;

pub use statement::{Rate, Statement, Translation};

/// A table of the family `inet`, with the elements its sets start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Name.
    pub name: &'static str,
    /// Kept with the table; shown by `nft list`.
    pub comment: String,
    /// Named sets and maps.
    pub sets: Vec<&'static Set>,
    /// Elements of the sets that can count do.
    pub counters: bool,
    /// Elements which belong to the table itself and never change.
    pub elements: Vec<Element>,
    /// Chains; a chain may refer to a later one.
    pub chains: Vec<Chain>,
}

/// A named set, or a map when it has values.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// Name; never a keyword of nft.
    pub name: &'static str,
    /// Types of the fields of the key.
    pub key: &'static [Type],
    /// Maps to a 32-bit number, shown as a class id.
    pub map: bool,
    /// Keys may be ranges.
    pub interval: bool,
    /// A map whose values are addresses of the key's family.
    pub addresses: bool,
    /// Elements count or limit what they match.
    pub dynamic: bool,
    /// A map to chains: each element has one of its own, with the rule of [`Element::counting`].
    pub verdicts: bool,
    /// Elements count the packets that find them.
    pub counter: bool,
}

impl Set {
    /// Type of the values of a map.
    #[must_use]
    pub fn data(&self) -> Type {
        match self.addresses {
            true if self.key.contains(&Type::Ip6) => Type::Ip6,
            true => Type::Ip4,
            false if self.verdicts => Type::Verdict,
            false => Type::ClassId,
        }
    }

    /// Several fields, of which some may be ranges. Such keys compare as strings of bytes, so that every field is in
    /// network order, also those which the kernel otherwise keeps in host order.
    #[must_use]
    pub const fn ranges_in_concatenation(&self) -> bool {
        self.interval && self.key.len() > 1
    }
}

/// Type of one field of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Interface name.
    IfName,
    /// IPv4 address.
    Ip4,
    /// IPv6 address.
    Ip6,
    /// Device group.
    DevGroup,
    /// The scratch value in `meta priority`.
    ClassId,
    /// Layer 4 protocol.
    Proto,
    /// TCP or UDP port, or `type << 8 | code` of ICMP.
    Port,
    /// ICMPv6 type.
    Icmp6Type,
    /// A chain to jump to; never part of a key.
    Verdict,
}

impl Type {
    /// nft's name of the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IfName => "ifname",
            Self::Ip4 => "ipv4_addr",
            Self::Ip6 => "ipv6_addr",
            Self::DevGroup => "devgroup",
            Self::ClassId => "classid",
            Self::Proto => "inet_proto",
            Self::Port => "inet_service",
            Self::Icmp6Type => "icmpv6_type",
            Self::Verdict => "verdict",
        }
    }

    /// nft's number of the type, which the kernel keeps for it.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::IfName => 41,
            Self::Ip4 => 7,
            Self::Ip6 => 8,
            Self::DevGroup => 35,
            Self::ClassId => 23,
            Self::Proto => 12,
            Self::Port => 13,
            Self::Icmp6Type => 29,
            // `NFT_DATA_VERDICT`.
            Self::Verdict => 0xffff_ff00,
        }
    }

    /// Bytes of a value.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::IfName | Self::Ip6 | Self::Verdict => 16,
            Self::Ip4 | Self::DevGroup | Self::ClassId => 4,
            Self::Proto | Self::Icmp6Type => 1,
            Self::Port => 2,
        }
    }

    /// The kernel holds the value in host order.
    #[must_use]
    pub const fn host_order(self) -> bool {
        matches!(self, Self::IfName | Self::DevGroup | Self::ClassId)
    }

    fn write(self, f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
        match (self, value) {
            (Self::IfName, Value::Name(name)) => write!(f, "\"{name}\""),
            (Self::ClassId, Value::Number(number)) => write_class(f, *number),
            (_, Value::Name(name)) => f.write_str(name),
            (_, Value::Address(address)) => write!(f, "{address}"),
            (_, Value::Number(number)) => write!(f, "{number}"),
        }
    }
}

fn write_class(f: &mut fmt::Formatter<'_>, number: u32) -> fmt::Result {
    write!(f, "{:x}:{:x}", number >> 16, number & 0xffff)
}

/// Value of one field of a key; its [`Type`] is the set's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Of an interface name.
    Name(String),
    /// Of an address.
    Address(IpAddr),
    /// Of anything else.
    Number(u32),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The set or map it is in.
    pub set: &'static Set,
    /// Key; the first of the range in a set of intervals.
    pub key: Vec<Value>,
    /// Last of the range, `None` when the set has no intervals.
    pub last: Option<Vec<Value>>,
    /// What a map maps it to.
    pub value: Option<u32>,
    /// Shown by `nft list`, and read back.
    pub comment: Option<String>,
    /// The address it is mapped to, or what it limits.
    pub more: Option<More>,
}

/// What an element has beside its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// In a map of addresses.
    Address(IpAddr),
    /// In a dynamic set: the element matches only what is too much.
    Over(Quota),
}

/// How much is not too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Packets in a second, and at once.
    Packets {
        /// In a second.
        rate: u64,
        /// At once.
        burst: u32,
    },
    /// Bytes in a second, and at once beside those of one second.
    Bytes {
        /// In a second.
        rate: u64,
        /// At once.
        burst: u32,
    },
    /// Connections at a time: the first packets of the others are too much. Counted by a rule: the kernel takes an
    /// element that counts connections away as soon as it has none.
    Connections(u32),
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packets { rate, burst } => {
                write!(f, "limit rate over {rate}/second burst {burst} packets")
            }
            Self::Bytes { rate, burst } => {
                write!(f, "limit rate over {rate} bytes/second burst {burst} bytes")
            }
            Self::Connections(most) => write!(f, "ct count over {most}"),
        }
    }
}

impl Element {
    /// The chain of its own, in a map to chains.
    #[must_use]
    pub fn chain(&self) -> String {
        match self.key.first() {
            Some(Value::Name(name)) => format!("{}_{name}", self.set.name),
            _ => self.set.name.to_owned(),
        }
    }

    /// The rule of that chain: what becomes of a connection that is one too many.
    #[must_use]
    pub fn counting(&self) -> Option<Rule> {
        match self.more {
            Some(More::Over(Quota::Connections(most))) => Some(Rule {
                statements: vec![
                    Statement::Opened(most),
                    Statement::Verdict(Verdict::Goto(super::build::CROWDED)),
                ],
                comment: None,
            }),
            _ => None,
        }
    }

    fn write_key(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, value)) in self.set.key.iter().zip(&self.key).enumerate() {
            if i > 0 {
                f.write_str(" . ")?;
            }
            kind.write(f, value)?;
            if let Some(last) = self
                .last
                .as_ref()
                .and_then(|last| last.get(i))
                .filter(|last| *last != value)
            {
                f.write_str("-")?;
                kind.write(f, last)?;
            }
        }
        Ok(())
    }

    /// As nft writes it between the braces of `elements`.
    #[must_use]
    pub fn text(&self) -> String {
        struct Text<'a>(&'a Element);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_key(f)?;
                let limit = self.0.more.filter(|_| !self.0.set.verdicts);
                if let Some(More::Over(quota)) = limit {
                    write!(f, " {quota}")?;
                }
                if let Some(comment) = &self.0.comment {
                    write!(f, " comment \"{comment}\"")?;
                }
                if self.0.set.verdicts {
                    write!(f, " : jump {}", self.0.chain())?;
                }
                if let Some(value) = self.0.value {
                    f.write_str(" : ")?;
                    write_class(f, value)?;
                }
                if let Some(More::Address(address)) = &self.0.more {
                    write!(f, " : {address}")?;
                }
                Ok(())
            }
        }
        Text(self).to_string()
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ {} }}", self.set.name, self.text())
    }
}

/// A chain, reached from a hook or from another chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: &'static str,
    /// Where packets enter it, if they do so by themselves. The policy is always accept: what is not a workload's
    /// traffic is none of our business.
    pub hook: Option<Hook>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// A hook of the family `inet` and the priority there (`linux/netfilter.h`, `linux/netfilter_ipv4.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// nft's name.
    pub name: &'static str,
    /// `NF_INET_…`.
    pub number: u32,
    /// Lower runs earlier: -300 is before connection tracking, 0 is where filters sit, after DNAT and before SNAT.
    pub priority: i32,
    /// It sees the first packet of each connection only, and may translate addresses.
    pub nat: bool,
}

impl Hook {
    /// The kernel's name for what its chains may do.
    #[must_use]
    pub const fn chain_type(self) -> &'static str {
        if self.nat { "nat" } else { "filter" }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Matches and actions, in order.
    pub statements: Vec<Statement>,
    /// Shown by `nft list`.
    pub comment: Option<&'static str>,
}

/// What can be read of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of the interface it came in by.
    IifName,
    /// Name of the interface it goes out by.
    OifName,
    /// Device group of the interface it came in by.
    IifGroup,
    /// Device group of the interface it goes out by.
    OifGroup,
    /// Layer 4 protocol.
    L4Proto,
    /// The packet's priority, our scratch register.
    Priority,
    /// IPv4 source.
    Ip4Source,
    /// IPv4 destination.
    Ip4Destination,
    /// IPv6 source.
    Ip6Source,
    /// IPv6 destination.
    Ip6Destination,
    /// First 16 bits of the layer 4 header: source port, or type and code of ICMP.
    SourcePort,
    /// Second 16 bits of the layer 4 header.
    DestinationPort,
    /// ICMPv6 type.
    Icmp6Type,
}

impl Field {
    /// As nft writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::IifGroup => "iifgroup",
            Self::OifGroup => "oifgroup",
            Self::L4Proto => "meta l4proto",
            Self::Priority => "meta priority",
            Self::Ip4Source => "ip saddr",
            Self::Ip4Destination => "ip daddr",
            Self::Ip6Source => "ip6 saddr",
            Self::Ip6Destination => "ip6 daddr",
            Self::SourcePort => "th sport",
            Self::DestinationPort => "th dport",
            Self::Icmp6Type => "icmpv6 type",
        }
    }

    /// Type of its value.
    #[must_use]
    pub const fn kind(self) -> Type {
        match self {
            Self::IifName | Self::OifName => Type::IfName,
            Self::IifGroup | Self::OifGroup => Type::DevGroup,
            Self::L4Proto => Type::Proto,
            Self::Priority => Type::ClassId,
            Self::Ip4Source | Self::Ip4Destination => Type::Ip4,
            Self::Ip6Source | Self::Ip6Destination => Type::Ip6,
            Self::SourcePort | Self::DestinationPort => Type::Port,
            Self::Icmp6Type => Type::Icmp6Type,
        }
    }
}

/// Equal or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// `==`, which nft leaves out where it can.
    Equal,
    /// `!=`.
    Not,
}

/// A bit of the connection tracking state of a packet (`NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtState {
    /// Belongs to no connection and cannot begin one.
    Invalid = 1,
    /// About a connection (an ICMP error), or expected by one.
    Related = 4,
    /// Begins a connection, or nothing has come back yet.
    New = 8,
    /// Never seen by connection tracking.
    Untracked = 64,
}

impl CtState {
    const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Related => "related",
            Self::New => "new",
            Self::Untracked => "untracked",
        }
    }
}

/// Direction of a packet within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtDirection {
    /// As its first packet.
    Original = 0,
    /// The other.
    Reply = 1,
}

/// Where a packet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passes this hook.
    Accept,
    /// Is gone.
    Drop,
    /// Back behind the last jump.
    Return,
    /// Into a chain, and back at its end.
    Jump(&'static str),
    /// Into a chain, never back here.
    Goto(&'static str),
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::Not => "!=",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, statement) in self.statements.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{statement}")?;
        }
        match self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            writeln!(
                f,
                "    type {} hook {} priority {}; policy accept;",
                hook.chain_type(),
                hook.name,
                hook.priority
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "    {rule}")?;
        }
        writeln!(f, "  }}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        writeln!(f, "  comment \"{}\"", self.comment)?;
        for set in &self.sets {
            let types: Vec<_> = set.key.iter().map(|kind| kind.name()).collect();
            let word = if set.map { "map" } else { "set" };
            write!(f, "  {word} {} {{ type {}", set.name, types.join(" . "))?;
            if set.map {
                write!(f, " : {}", set.data().name())?;
            }
            f.write_str("; ")?;
            if set.interval {
                f.write_str("flags interval; ")?;
            }
            if set.dynamic {
                f.write_str("flags dynamic; ")?;
            }
            if set.counter && self.counters {
                f.write_str("counter; ")?;
            }
            let elements: Vec<_> = self
                .elements
                .iter()
                .filter(|e| e.set == *set)
                .map(Element::text)
                .collect();
            if !elements.is_empty() {
                write!(f, "elements = {{ {} }} ", elements.join(", "))?;
            }
            f.write_str("}\n")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        for element in self.elements.iter().filter(|it| it.set.verdicts) {
            writeln!(f, "  chain {} {{", element.chain())?;
            if let Some(rule) = element.counting() {
                writeln!(f, "    {rule}")?;
            }
            writeln!(f, "  }}")?;
        }
        f.write_str("}\n")
    }
}
