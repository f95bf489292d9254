//! What a rule is made of.

use std::fmt;

use super::{CtDirection, CtState, Field, Is, Set, Type, Verdict, write_class};

/// Which end of a connection gets another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// The one that opened it.
    Source = 0,
    /// The one it is opened to.
    Destination = 1,
}

/// How many packets may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In a second.
    pub second: u32,
    /// At once.
    pub burst: u32,
}

/// A match, which ends the rule when it fails, or an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The interface's name begins with this.
    NameBegins(Field, Is, &'static str),
    /// The masked device group.
    Group(Field, u32, Is, u32),
    /// The masked mark of the connection.
    CtMark(u32, Is, u32),
    /// Any of these states.
    CtState(&'static [CtState]),
    /// Direction within the connection.
    CtDirection(CtDirection),
    /// Layer 4 protocol.
    L4Proto(u8),
    /// The scratch register.
    Priority(u32),
    /// These bits are set in the scratch register.
    PriorityBits(u32),
    /// These bits of the scratch register have this value.
    PriorityMasked(u32, u32),
    /// At most so many packets; the rest does not match.
    Limit(Rate),
    /// The connection is one of more than these that came by here and are open.
    Opened(u32),
    /// The chain of the element for the key of these fields, and back at its end.
    Dispatch(Vec<Field>, &'static Set),
    /// Hands a copy of the packet to the readers of the netlink log group, with this prefix.
    Log(u16, &'static str),
    /// The key of these fields is in the set.
    In(Vec<Field>, &'static Set),
    /// The key of these fields is in the map; its value goes to the scratch register.
    Map(Vec<Field>, &'static Set),
    /// Clears the scratch register.
    ClearPriority,
    /// Keeps the bits of the mask of the connection's mark and sets these others.
    SetCtMark(u32, u32),
    /// Counts packets and bytes.
    Counter,
    /// Answers with a TCP reset and drops.
    ResetTcp,
    /// Answers that it is prohibited, by ICMP of the packet's family, and drops.
    Reject,
    /// Gives one end the address that the map has for the key of these fields, and the source a port of this range.
    Nat(Translation, Vec<Field>, &'static Set, Option<(u16, u16)>),
    /// Gives the source the address of the interface the packet leaves by, and a port of this range.
    Masquerade(Option<(u16, u16)>),
    /// Sets the DSCP of an IPv4 packet.
    Dscp4(u8),
    /// Sets the DSCP of an IPv6 packet.
    Dscp6(u8),
    /// Keeps the packet from connection tracking.
    Untrack,
    /// Ends the rule.
    Verdict(Verdict),
}

struct Ports(Option<(u16, u16)>, &'static str);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((first, last)) if first == last => write!(f, "{}:{first}", self.1),
            Some((first, last)) => write!(f, "{}:{first}-{last}", self.1),
            None => Ok(()),
        }
    }
}

fn joined(fields: &[Field]) -> String {
    fields
        .iter()
        .map(|field| field.name())
        .collect::<Vec<_>>()
        .join(" . ")
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameBegins(field, Is::Equal, prefix) => {
                write!(f, "{} \"{prefix}*\"", field.name())
            }
            Self::NameBegins(field, Is::Not, prefix) => {
                write!(f, "{} != \"{prefix}*\"", field.name())
            }
            Self::Group(field, mask, is, value) => {
                write!(f, "{} & {mask:#010x} {is} {value:#010x}", field.name())
            }
            Self::CtMark(mask, is, value) => write!(f, "ct mark & {mask:#010x} {is} {value:#010x}"),
            Self::CtState(states) => {
                let names: Vec<_> = states.iter().map(|state| state.name()).collect();
                write!(f, "ct state {}", names.join(","))
            }
            Self::CtDirection(CtDirection::Original) => f.write_str("ct direction original"),
            Self::CtDirection(CtDirection::Reply) => f.write_str("ct direction reply"),
            Self::L4Proto(proto) => write!(f, "meta l4proto {proto}"),
            Self::Priority(value) => {
                f.write_str("meta priority ")?;
                write_class(f, *value)
            }
            Self::PriorityBits(bits) => {
                f.write_str("meta priority & ")?;
                write_class(f, *bits)?;
                f.write_str(" == ")?;
                write_class(f, *bits)
            }
            Self::PriorityMasked(mask, value) => {
                f.write_str("meta priority & ")?;
                write_class(f, *mask)?;
                f.write_str(" == ")?;
                write_class(f, *value)
            }
            Self::Limit(Rate { second, burst }) => {
                write!(f, "limit rate {second}/second burst {burst} packets")
            }
            Self::Opened(most) => write!(f, "ct count over {most}"),
            Self::Dispatch(key, map) => write!(f, "{} vmap @{}", joined(key), map.name),
            Self::Log(group, prefix) => write!(f, "log prefix \"{prefix}\" group {group}"),
            Self::In(key, set) => write!(f, "{} @{}", joined(key), set.name),
            Self::Map(key, set) => write!(f, "meta priority set {} map @{}", joined(key), set.name),
            Self::ClearPriority => f.write_str("meta priority set none"),
            Self::SetCtMark(keep, set) => {
                write!(f, "ct mark set ct mark & {keep:#010x} | {set:#010x}")
            }
            Self::Counter => f.write_str("counter"),
            Self::ResetTcp => f.write_str("reject with tcp reset"),
            Self::Untrack => f.write_str("notrack"),
            Self::Reject => f.write_str("reject with icmpx admin-prohibited"),
            Self::Nat(end, key, map, ports) => {
                let end = match end {
                    Translation::Source => "snat",
                    Translation::Destination => "dnat",
                };
                let family = match map.data() {
                    Type::Ip6 => "ip6",
                    _ => "ip",
                };
                let (key, map, ports) = (joined(key), map.name, Ports(*ports, ""));
                write!(f, "{end} {family} to {key} map @{map}{ports}")
            }
            Self::Masquerade(ports) => write!(f, "masquerade{}", Ports(*ports, " to ")),
            Self::Dscp4(value) => write!(f, "ip dscp set {value}"),
            Self::Dscp6(value) => write!(f, "ip6 dscp set {value}"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}
