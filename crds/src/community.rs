//! BGP communities as people write them.

use std::fmt;
use std::str::FromStr;

/// A community of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997: `65000:100`, or a well-known name.
    Standard(u32),
    /// RFC 4360: `rt:65000:100`, `soo:192.0.2.1:7`, or 16 hexadecimal digits after `0x`.
    Extended([u8; 8]),
    /// RFC 8092: `65000:1:2`.
    Large([u32; 3]),
}

/// Well-known communities and where they are defined: RFC 8326, 7999, 1997, 1997, 1997.
const NAMES: [(&str, u32); 5] = [
    ("graceful-shutdown", 0xffff_0000),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
];

/// Why a text is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no community: write it as 65000:100, 65000:1:2, rt:65000:100, soo:65000:100, no-export or blackhole"
)]
pub struct CommunityError(String);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        parse(text).ok_or_else(|| CommunityError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Community> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, value)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Some(Community::Standard(*value));
    }
    if let Some(digits) = lower.strip_prefix("0x") {
        let whole = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u64::from_str_radix(digits, 16).ok().filter(|_| whole)?;
        return Some(Community::Extended(value.to_be_bytes()));
    }
    let parts: Vec<&str> = lower.split(':').collect();
    match parts[..] {
        ["rt", admin, value] => extended(0x02, admin, value),
        ["soo", admin, value] => extended(0x03, admin, value),
        [high, low] => {
            let (high, low) = (number(high)?, number(low)?);
            let (high, low) = (u16::try_from(high).ok()?, u16::try_from(low).ok()?);
            Some(Community::Standard(u32::from(high) << 16 | u32::from(low)))
        }
        [a, b, c] => Some(Community::Large([number(a)?, number(b)?, number(c)?])),
        _ => None,
    }
}

/// A number without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A route target or site of origin: of a 2-octet AS, an address, or a 4-octet AS (RFC 4360, 5668).
fn extended(subtype: u8, admin: &str, value: &str) -> Option<Community> {
    let value = number(value)?;
    let mut bytes = [0, subtype, 0, 0, 0, 0, 0, 0];
    let long = if admin.contains('.') {
        bytes[0] = 1;
        admin.parse::<std::net::Ipv4Addr>().ok()?.octets()
    } else {
        let asn = number(admin)?;
        if let Ok(asn) = u16::try_from(asn) {
            bytes[2..4].copy_from_slice(&asn.to_be_bytes());
            bytes[4..8].copy_from_slice(&value.to_be_bytes());
            return Some(Community::Extended(bytes));
        }
        bytes[0] = 2;
        asn.to_be_bytes()
    };
    bytes[2..6].copy_from_slice(&long);
    bytes[6..8].copy_from_slice(&u16::try_from(value).ok()?.to_be_bytes());
    Some(Community::Extended(bytes))
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(value) => match NAMES.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xffff),
            },
            Self::Extended(bytes) => write!(f, "0x{:016x}", u64::from_be_bytes(*bytes)),
            Self::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_of_every_kind_are_read_and_print_as_themselves() {
        for (text, want, printed) in [
            ("65000:100", Community::Standard(0xfde8_0064), "65000:100"),
            ("65535:65281", Community::Standard(0xffff_ff01), "no-export"),
            ("BLACKHOLE", Community::Standard(0xffff_029a), "blackhole"),
            (
                "4200000001:1:2",
                Community::Large([4_200_000_001, 1, 2]),
                "4200000001:1:2",
            ),
            (
                "rt:65000:100",
                Community::Extended([0, 2, 0xfd, 0xe8, 0, 0, 0, 100]),
                "0x0002fde800000064",
            ),
            (
                "soo:192.0.2.1:7",
                Community::Extended([1, 3, 192, 0, 2, 1, 0, 7]),
                "0x0103c00002010007",
            ),
            (
                "rt:4200000001:7",
                Community::Extended([2, 2, 0xfa, 0x56, 0xea, 1, 0, 7]),
                "0x0202fa56ea010007",
            ),
        ] {
            let found: Community = text.parse().unwrap();
            assert_eq!(found, want, "{text}");
            assert_eq!(found.to_string(), printed);
            assert_eq!(printed.parse(), Ok(found));
        }
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in [
            "",
            "1",
            "65536:1",
            "1:65536",
            "1:2:3:4",
            "a:b",
            "rt:1",
            "rt:192.0.2.1:65536",
            "+1:2",
            "0x12",
            "0x00000000000000zz",
            "4294967296:1:1",
            ":",
        ] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }
}
