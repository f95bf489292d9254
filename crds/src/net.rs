//! Prefixes and address families as every crate uses them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// Both, in the order addresses are listed everywhere.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A prefix without host bits. Ordered by family, first address, then length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr(IpNetwork);

/// As the derived order would be, by numbers instead of bytes: tables of routes are searched by it.
impl Ord for Cidr {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.0, other.0) {
            (IpNetwork::V4(a), IpNetwork::V4(b)) => {
                let number =
                    |it: Ipv4Network| u64::from(it.ip().to_bits()) << 8 | u64::from(it.prefix());
                number(a).cmp(&number(b))
            }
            (IpNetwork::V6(a), IpNetwork::V6(b)) => {
                let (first, second) = (a.ip().to_bits(), b.ip().to_bits());
                first.cmp(&second).then(a.prefix().cmp(&b.prefix()))
            }
            (a, _) if a.is_ipv4() => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        }
    }
}

impl PartialOrd for Cidr {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text is not a [`Cidr`]; each message names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No `address/length`.
    #[error("{0:?} is not a prefix: write it as 10.244.0.0/16 or fd00:10:244::/48")]
    Syntax(String),
    /// The length exceeds the address.
    #[error("{family} prefixes have at most {} bits, {length} are given", .family.bits())]
    Length {
        /// Family of the address.
        family: Family,
        /// Bits given.
        length: u8,
    },
    /// Bits beyond the length are set.
    #[error("{given} has bits set beyond its length: write {masked}")]
    HostBits {
        /// As given.
        given: String,
        /// What was probably meant.
        masked: Cidr,
    },
    /// `::ffff:a.b.c.d` is IPv4 in disguise; the API server refuses it too.
    #[error("{0} is an IPv4 address written as IPv6: write the IPv4 prefix")]
    Mapped(String),
}

impl Cidr {
    /// The prefix of `length` bits that holds `address`.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, CidrError> {
        IpNetwork::new(address, length)
            .map(Self::from)
            .map_err(|_| CidrError::Length {
                family: Family::of(address),
                length,
            })
    }

    /// The /32 or /128 of an address.
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// The first address, which is also the prefix's own.
    pub fn first(self) -> IpAddr {
        self.0.ip()
    }

    /// The last address.
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// Length in bits.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix()
    }

    /// Family of the prefix.
    pub fn family(self) -> Family {
        Family::of(self.first())
    }

    /// Whether this is a /32 or /128.
    pub fn is_host(self) -> bool {
        self.prefix_len() == self.family().bits()
    }

    /// Number of addresses; `u128::MAX` stands for that of ::/0, which is one more.
    pub fn size(self) -> u128 {
        1u128
            .checked_shl(u32::from(self.family().bits() - self.prefix_len()))
            .unwrap_or(u128::MAX)
    }

    /// Whether the address lies inside.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether `other` lies inside or is the same.
    pub fn covers(self, other: Self) -> bool {
        self.prefix_len() <= other.prefix_len() && self.contains(other.first())
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address `ordinal` places after the first.
    pub fn nth(self, ordinal: u128) -> Option<IpAddr> {
        if ordinal >= self.size() {
            return None;
        }
        match self.first() {
            IpAddr::V4(first) => {
                let bits = u32::from(first).checked_add(u32::try_from(ordinal).ok()?)?;
                Some(IpAddr::V4(Ipv4Addr::from(bits)))
            }
            IpAddr::V6(first) => Some(IpAddr::V6(Ipv6Addr::from(
                u128::from(first).checked_add(ordinal)?,
            ))),
        }
    }

    /// How many places after the first the address lies; None when it lies outside.
    pub fn ordinal(self, address: IpAddr) -> Option<u128> {
        if !self.contains(address) {
            return None;
        }
        match (self.first(), address) {
            (IpAddr::V4(first), IpAddr::V4(it)) => {
                Some(u128::from(u32::from(it) - u32::from(first)))
            }
            (IpAddr::V6(first), IpAddr::V6(it)) => Some(u128::from(it) - u128::from(first)),
            _ => None,
        }
    }

    /// How many prefixes of `length` bits fit inside; 0 when `length` is shorter than this one's or too long.
    pub fn subnets(self, length: u8) -> u128 {
        match length.checked_sub(self.prefix_len()) {
            Some(bits) if length <= self.family().bits() => {
                1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
            }
            _ => 0,
        }
    }

    /// The `index`-th prefix of `length` bits inside this one.
    pub fn subnet(self, length: u8, index: u128) -> Option<Self> {
        if index >= self.subnets(length) {
            return None;
        }
        let shift = u32::from(self.family().bits() - length);
        let offset = index.checked_shl(shift).unwrap_or(0);
        Self::new(self.nth(offset)?, length).ok()
    }

    /// The prefix as the name of an object: `10-244-0-0-26`, `fd00-10-244---122`.
    pub fn object_name(self) -> String {
        let name = self.to_string().replace(['.', ':', '/'], "-");
        // An object's name starts with a letter or digit; a prefix can start with "::".
        if name.starts_with('-') {
            format!("0{name}")
        } else {
            name
        }
    }
}

impl From<IpNetwork> for Cidr {
    /// Clears the host bits.
    fn from(net: IpNetwork) -> Self {
        let masked = IpNetwork::new(net.network(), net.prefix());
        Self(masked.expect("the length was valid with the unmasked address"))
    }
}

impl From<Cidr> for IpNetwork {
    fn from(cidr: Cidr) -> Self {
        cidr.0
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let length: u8 = length.parse().map_err(|_| syntax())?;
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(CidrError::Mapped(text.to_owned()));
        }
        let cidr = Self::new(address, length)?;
        if cidr.first() != address {
            return Err(CidrError::HostBits {
                given: text.to_owned(),
                masked: cidr,
            });
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix_len())
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_prints_the_same_text() {
        for text in [
            "10.244.0.0/16",
            "0.0.0.0/0",
            "::/0",
            "fd00:10:244::/48",
            "10.0.0.1/32",
            "fd00::1/128",
        ] {
            assert_eq!(cidr(text).to_string(), text);
            let json = serde_json::to_string(&cidr(text)).unwrap();
            assert_eq!(serde_json::from_str::<Cidr>(&json).unwrap(), cidr(text));
        }
        assert_eq!(cidr("FD00:0:0::/64").to_string(), "fd00::/64");
    }

    #[test]
    fn the_order_is_by_family_address_and_length() {
        let sorted = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/32",
            "10.0.0.1/32",
            "255.255.255.255/32",
            "::/0",
            "::/128",
            "::1/128",
            "fd00::/8",
            "fd00::/64",
            "fd00:1::/64",
        ]
        .map(cidr);
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
                assert_eq!(a.cmp(b), a.0.cmp(&b.0), "{a} {b}");
            }
        }
    }

    #[test]
    fn errors_name_the_fix() {
        let error = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(
            error("10.0.0.5/24"),
            "10.0.0.5/24 has bits set beyond its length: write 10.0.0.0/24"
        );
        assert_eq!(
            error("10.0.0.0/33"),
            "IPv4 prefixes have at most 32 bits, 33 are given"
        );
        assert!(error("banana").contains("write it as 10.244.0.0/16"));
        assert!(error("10.0.0.0").contains("is not a prefix"));
        assert!(error("10.0.0.0/+8").contains("is not a prefix"));
        assert!(error("10.0.0.0/").contains("is not a prefix"));
        assert!(error("::ffff:10.0.0.0/104").contains("write the IPv4 prefix"));
    }

    #[test]
    fn counts_addresses_and_subnets() {
        let pool = cidr("10.244.0.0/16");
        assert_eq!(pool.size(), 65536);
        assert_eq!(pool.subnets(26), 1024);
        assert_eq!(pool.subnet(26, 1023), Some(cidr("10.244.255.192/26")));
        assert_eq!(pool.subnet(26, 1024), None);
        assert_eq!(pool.subnets(8), 0);
        assert_eq!(pool.subnets(33), 0);
        assert_eq!(pool.nth(65535), Some("10.244.255.255".parse().unwrap()));
        assert_eq!(pool.nth(65536), None);
        assert_eq!(pool.ordinal("10.244.1.0".parse().unwrap()), Some(256));
        assert_eq!(pool.ordinal("10.245.0.0".parse().unwrap()), None);
        assert_eq!(pool.ordinal("fd00::1".parse().unwrap()), None);
        let six = cidr("fd00:10:244::/48");
        assert_eq!(six.subnet(122, 1), Some(cidr("fd00:10:244::40/122")));
        assert_eq!(cidr("::/0").size(), u128::MAX);
        assert_eq!(cidr("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(cidr("::/0").subnet(0, 0), Some(cidr("::/0")));
        assert_eq!(cidr("0.0.0.0/0").subnet(0, 0), Some(cidr("0.0.0.0/0")));
    }

    #[test]
    fn relations_keep_families_apart() {
        assert!(cidr("10.0.0.0/8").covers(cidr("10.1.0.0/16")));
        assert!(!cidr("10.1.0.0/16").covers(cidr("10.0.0.0/8")));
        assert!(cidr("10.1.0.0/16").overlaps(cidr("10.0.0.0/8")));
        assert!(!cidr("::/0").overlaps(cidr("0.0.0.0/0")));
    }

    #[test]
    fn names_are_valid_for_objects() {
        assert_eq!(cidr("10.244.0.0/26").object_name(), "10-244-0-0-26");
        assert_eq!(cidr("fd00:10:244::/122").object_name(), "fd00-10-244---122");
        assert_eq!(cidr("::/122").object_name(), "0---122");
    }
}
