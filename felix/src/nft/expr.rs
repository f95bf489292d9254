//! The statements of a rule as the kernel's expressions: loads into registers, and what is done with those.

use super::encode::length;
use super::model::{CtState, Field, Is, Rule, Set, Statement, Translation, Type, Verdict};
use crate::nla::Message;

/// The register in which keys begin (`NFT_REG32_00`); those of 32 bits follow each other.
const REGISTER: u32 = 8;
/// Registers of 32 bits in one of 128: nft begins each value of a translation at one of those.
const WHOLE: u32 = 4;

mod meta {
    pub(super) const PRIORITY: u32 = 2;
    pub(super) const IIFNAME: u32 = 6;
    pub(super) const OIFNAME: u32 = 7;
    pub(super) const NFPROTO: u32 = 15;
    pub(super) const L4PROTO: u32 = 16;
    pub(super) const IIFGROUP: u32 = 21;
    pub(super) const OIFGROUP: u32 = 22;
}

mod ct {
    pub(super) const STATE: u32 = 0;
    pub(super) const DIRECTION: u32 = 1;
    pub(super) const MARK: u32 = 3;
}

const IP4: u8 = 2;
const IP6: u8 = 10;
const ICMP6: u8 = 58;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const PORTS_GIVEN: u32 = 2;

/// Writes the expressions of a rule into the list.
pub(super) fn expressions(list: &mut Message, rule: &Rule) {
    let mut writer = Expressions {
        list,
        network: None,
        transport: None,
    };
    for statement in &rule.statements {
        writer.statement(statement);
    }
}

/// Writes the expressions of one rule, and what a field's protocol demands, once.
struct Expressions<'a> {
    list: &'a mut Message,
    network: Option<u8>,
    transport: Option<u8>,
}

impl Expressions<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::NameBegins(field, is, prefix) => {
                self.load(*field, REGISTER);
                self.compare(*is, prefix.as_bytes());
            }
            Statement::Group(field, mask, is, value) => {
                self.load(*field, REGISTER);
                self.mask(*mask, 0);
                self.compare(*is, &value.to_ne_bytes());
            }
            Statement::CtMark(mask, is, value) => {
                self.ct(ct::MARK);
                self.mask(*mask, 0);
                self.compare(*is, &value.to_ne_bytes());
            }
            Statement::CtState(states) => {
                self.ct(ct::STATE);
                self.mask(
                    states
                        .iter()
                        .fold(0, |bits, state: &CtState| bits | *state as u32),
                    0,
                );
                self.compare(Is::Not, &[0; 4]);
            }
            Statement::CtDirection(direction) => {
                self.ct(ct::DIRECTION);
                self.compare(Is::Equal, &[*direction as u8]);
            }
            Statement::L4Proto(proto) => {
                self.load(Field::L4Proto, REGISTER);
                self.compare(Is::Equal, &[*proto]);
                self.transport = Some(*proto);
            }
            Statement::Priority(value) => {
                self.load(Field::Priority, REGISTER);
                self.compare(Is::Equal, &value.to_ne_bytes());
            }
            Statement::PriorityBits(bits) => {
                self.load(Field::Priority, REGISTER);
                self.mask(*bits, 0);
                self.compare(Is::Equal, &bits.to_ne_bytes());
            }
            Statement::PriorityMasked(mask, value) => {
                self.load(Field::Priority, REGISTER);
                self.mask(*mask, 0);
                self.compare(Is::Equal, &value.to_ne_bytes());
            }
            Statement::Limit(rate) => self.expression("limit", |data| {
                data.be64(1, rate.second.into());
                data.be64(2, 1);
                data.be32(3, rate.burst);
                data.be32(4, 0);
                data.be32(5, 0);
            }),
            Statement::Opened(most) => self.expression("connlimit", |data| {
                const OVER: u32 = 1;
                data.be32(1, *most);
                data.be32(2, OVER);
            }),
            Statement::Dispatch(fields, map) => {
                self.key(fields, map);
                self.expression("lookup", |data| {
                    data.string(1, map.name);
                    data.be32(2, REGISTER);
                    // The verdict.
                    data.be32(3, 0);
                });
            }
            Statement::Log(group, prefix) => self.expression("log", |data| {
                data.be16(1, *group);
                data.string(2, prefix);
            }),
            Statement::In(fields, set) => {
                self.key(fields, set);
                self.lookup(set, false);
            }
            Statement::Map(fields, set) => {
                self.key(fields, set);
                self.lookup(set, true);
                self.set_priority();
            }
            Statement::ClearPriority => {
                self.expression("immediate", |data| {
                    data.be32(1, REGISTER);
                    data.nest(2, |nest| nest.bytes(1, &[0; 4]));
                });
                self.set_priority();
            }
            Statement::SetCtMark(keep, set) => {
                self.ct(ct::MARK);
                self.mask(*keep, *set);
                self.expression("ct", |data| {
                    data.be32(2, ct::MARK);
                    data.be32(4, REGISTER);
                });
            }
            Statement::Counter => self.expression("counter", |_| {}),
            Statement::ResetTcp => self.expression("reject", |data| data.be32(1, 1)),
            Statement::Untrack => self.list.nest(1, |expression| {
                expression.string(1, "notrack");
            }),
            Statement::Reject => self.expression("reject", |data| {
                const ICMPX: u32 = 2;
                const ADMIN_PROHIBITED: u8 = 3;
                data.be32(1, ICMPX);
                data.bytes(2, &[ADMIN_PROHIBITED]);
            }),
            Statement::Nat(end, key, map, ports) => self.nat(*end, key, map, *ports),
            Statement::Masquerade(ports) => {
                let range = self.ports(*ports, REGISTER);
                self.expression("masq", |data| {
                    if let Some((first, last)) = range {
                        data.be32(1, PORTS_GIVEN);
                        data.be32(2, first);
                        data.be32(3, last);
                    }
                });
            }
            // The first 16 bits of the header hold it, in both families.
            Statement::Dscp4(value) => self.dscp(IP4, u16::from(*value) << 2, 0xff03),
            Statement::Dscp6(value) => self.dscp(IP6, u16::from(*value) << 6, 0xf03f),
            Statement::Verdict(verdict) => self.verdict(*verdict),
        }
    }

    fn nat(&mut self, end: Translation, key: &[Field], map: &Set, ports: Option<(u16, u16)>) {
        const ADDRESS_GIVEN: u32 = 1;
        self.key(key, map);
        self.lookup(map, true);
        let range = self.ports(ports, REGISTER + WHOLE);
        let family = match map.data() {
            Type::Ip6 => IP6,
            _ => IP4,
        };
        self.expression("nat", |data| {
            data.be32(1, end as u32);
            data.be32(2, family.into());
            data.be32(3, REGISTER);
            data.be32(4, REGISTER);
            if let Some((first, last)) = range {
                data.be32(5, first);
                data.be32(6, last);
            }
            let ports = if range.is_some() { PORTS_GIVEN } else { 0 };
            data.be32(7, ADDRESS_GIVEN | ports);
        });
    }

    /// Loads a range of ports; the registers it is in.
    fn ports(&mut self, ports: Option<(u16, u16)>, register: u32) -> Option<(u32, u32)> {
        let (first, last) = ports?;
        self.immediate(register, &first.to_be_bytes());
        if first == last {
            return Some((register, register));
        }
        self.immediate(register + WHOLE, &last.to_be_bytes());
        Some((register, register + WHOLE))
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |data| {
            data.be32(1, register);
            data.nest(2, |nest| nest.bytes(1, value));
        });
    }

    fn dscp(&mut self, network: u8, value: u16, others: u16) {
        const NETWORK: u32 = 1;
        const INTERNET_CHECKSUM: u32 = 1;
        const IP4_CHECKSUM: u32 = 10;
        self.network(network);
        self.payload(NETWORK, 0, 2, REGISTER);
        self.expression("bitwise", |data| {
            data.be32(1, REGISTER);
            data.be32(2, REGISTER);
            data.be32(3, 2);
            data.nest(4, |nest| nest.bytes(1, &others.to_be_bytes()));
            data.nest(5, |nest| nest.bytes(1, &value.to_be_bytes()));
        });
        self.expression("payload", |data| {
            data.be32(2, NETWORK);
            data.be32(3, 0);
            data.be32(4, 2);
            data.be32(5, REGISTER);
            if network == IP4 {
                data.be32(6, INTERNET_CHECKSUM);
                data.be32(7, IP4_CHECKSUM);
            }
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.list.nest(1, |expression| {
            expression.string(1, name);
            expression.nest(2, fill);
        });
    }

    fn key(&mut self, fields: &[Field], set: &Set) {
        // Whatever protocol the fields belong to is checked before the first is loaded: checks use the same registers.
        for field in fields {
            self.protocols(*field);
        }
        let mut register = REGISTER;
        for field in fields {
            self.load(*field, register);
            let kind = field.kind();
            let reversed = kind.host_order() && kind != Type::IfName || kind == Type::Proto;
            if set.ranges_in_concatenation() && reversed {
                // nft reverses every field it takes for one in host order; for one byte that changes nothing.
                self.expression("byteorder", |data| {
                    data.be32(1, register);
                    data.be32(2, register);
                    data.be32(3, 1);
                    data.be32(4, length(kind));
                    data.be32(5, length(kind).max(2));
                });
            }
            register += length(kind).div_ceil(4);
        }
    }

    fn protocols(&mut self, field: Field) {
        let network = match field {
            Field::Ip4Source | Field::Ip4Destination => Some(IP4),
            Field::Ip6Source | Field::Ip6Destination | Field::Icmp6Type => Some(IP6),
            _ => None,
        };
        if let Some(network) = network {
            self.network(network);
        }
        if field == Field::Icmp6Type && self.transport != Some(ICMP6) {
            self.meta(meta::L4PROTO, REGISTER);
            self.compare(Is::Equal, &[ICMP6]);
            self.transport = Some(ICMP6);
        }
    }

    fn network(&mut self, network: u8) {
        if self.network != Some(network) {
            self.meta(meta::NFPROTO, REGISTER);
            self.compare(Is::Equal, &[network]);
            self.network = Some(network);
        }
    }

    fn load(&mut self, field: Field, register: u32) {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match field {
            Field::IifName => self.meta(meta::IIFNAME, register),
            Field::OifName => self.meta(meta::OIFNAME, register),
            Field::IifGroup => self.meta(meta::IIFGROUP, register),
            Field::OifGroup => self.meta(meta::OIFGROUP, register),
            Field::L4Proto => self.meta(meta::L4PROTO, register),
            Field::Priority => self.meta(meta::PRIORITY, register),
            Field::Ip4Source => self.payload(NETWORK, 12, 4, register),
            Field::Ip4Destination => self.payload(NETWORK, 16, 4, register),
            Field::Ip6Source => self.payload(NETWORK, 8, 16, register),
            Field::Ip6Destination => self.payload(NETWORK, 24, 16, register),
            Field::SourcePort => self.payload(TRANSPORT, 0, 2, register),
            Field::DestinationPort => self.payload(TRANSPORT, 2, 2, register),
            Field::Icmp6Type => self.payload(TRANSPORT, 0, 1, register),
        }
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |data| {
            data.be32(2, key);
            data.be32(1, register);
        });
    }

    fn set_priority(&mut self) {
        self.expression("meta", |data| {
            data.be32(2, meta::PRIORITY);
            data.be32(3, REGISTER);
        });
    }

    fn ct(&mut self, key: u32) {
        self.expression("ct", |data| {
            data.be32(2, key);
            data.be32(1, REGISTER);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |data| {
            data.be32(1, register);
            data.be32(2, base);
            data.be32(3, offset);
            data.be32(4, length);
        });
    }

    fn mask(&mut self, mask: u32, xor: u32) {
        self.expression("bitwise", |data| {
            data.be32(1, REGISTER);
            data.be32(2, REGISTER);
            data.be32(3, 4);
            data.nest(4, |nest| nest.bytes(1, &mask.to_ne_bytes()));
            data.nest(5, |nest| nest.bytes(1, &xor.to_ne_bytes()));
        });
    }

    fn compare(&mut self, is: Is, value: &[u8]) {
        self.expression("cmp", |data| {
            data.be32(1, REGISTER);
            data.be32(2, u32::from(is == Is::Not));
            data.nest(3, |nest| nest.bytes(1, value));
        });
    }

    fn lookup(&mut self, set: &Set, map: bool) {
        self.expression("lookup", |data| {
            data.string(1, set.name);
            data.be32(2, REGISTER);
            if map {
                data.be32(3, REGISTER);
            }
        });
    }

    fn verdict(&mut self, verdict: Verdict) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3_i32, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        self.expression("immediate", |data| {
            data.be32(1, 0);
            data.nest(2, |nest| {
                nest.nest(2, |nest| {
                    nest.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        nest.string(2, chain);
                    }
                });
            });
        });
    }
}
