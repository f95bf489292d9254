//! The string and number formats that are checked; others mean nothing, as for a real API server.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// A checked `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ipv4,
    Ipv6,
    Cidr,
    DateTime,
    Date,
    Uuid,
    Mac,
    Byte,
    Int32,
    Int64,
}

impl Format {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "date-time" | "datetime" => Self::DateTime,
            "date" => Self::Date,
            "uuid" => Self::Uuid,
            "mac" => Self::Mac,
            "byte" => Self::Byte,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::DateTime => "date-time",
            Self::Date => "date",
            Self::Uuid => "uuid",
            Self::Mac => "mac",
            Self::Byte => "byte",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        }
    }

    /// Whether a value is of the format; values of other types are not its business.
    pub(crate) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Int32, Value::Number(n)) => {
                n.as_f64().is_none_or(|n| n.fract() != 0.0)
                    || n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            (Self::Int64, Value::Number(n)) => !n.is_u64() || n.is_i64(),
            (Self::Int32 | Self::Int64, _) => true,
            (_, Value::String(text)) => self.accepts_text(text),
            _ => true,
        }
    }

    fn accepts_text(self, text: &str) -> bool {
        match self {
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => cidr(text),
            Self::DateTime => date_time(text),
            Self::Date => date(text),
            Self::Uuid => uuid(text),
            Self::Mac => mac(text),
            Self::Byte => base64(text),
            Self::Int32 | Self::Int64 => true,
        }
    }
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let Some(length) = number(length, 1, 3) else {
        return false;
    };
    (address.parse::<Ipv4Addr>().is_ok() && length <= 32)
        || (address.parse::<Ipv6Addr>().is_ok() && length <= 128)
}

/// Decimal digits, between `least` and `most` of them.
fn number(text: &str, least: usize, most: usize) -> Option<u32> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

fn date(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Some(year), Some(month), Some(day)) =
        (number(year, 4, 4), number(month, 2, 2), number(day, 2, 2))
    else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// RFC 3339 section 5.6.
fn date_time(text: &str) -> bool {
    let Some((day, time)) = text.split_once(['T', 't']) else {
        return false;
    };
    let (clock, zone_ok) = if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        (clock, true)
    } else {
        let Some(at) = time.rfind(['+', '-']) else {
            return false;
        };
        let zone = time[at + 1..].split_once(':');
        let fine = zone.is_some_and(|(hours, minutes)| {
            number(hours, 2, 2).is_some_and(|h| h < 24)
                && number(minutes, 2, 2).is_some_and(|m| m < 60)
        });
        (&time[..at], fine)
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.split(':');
    let (Some(hour), Some(minute), Some(second), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    date(day)
        && zone_ok
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit())
        && number(hour, 2, 2).is_some_and(|h| h < 24)
        && number(minute, 2, 2).is_some_and(|m| m < 60)
        && number(second, 2, 2).is_some_and(|s| s <= 60)
}

fn uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32])
        && groups.concat().bytes().all(|b| b.is_ascii_hexdigit())
}

fn mac(text: &str) -> bool {
    let octets: Vec<&str> = text.split([':', '-']).collect();
    matches!(octets.len(), 6 | 8 | 20)
        && octets
            .iter()
            .all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn base64(text: &str) -> bool {
    let plain = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - plain.len() <= 2
        && plain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        for (name, good, bad) in [
            (
                "ipv4",
                &["10.0.0.1", "0.0.0.0"][..],
                &["10.0.0", "010.0.0.1", "::1", ""][..],
            ),
            (
                "ipv6",
                &["::1", "fd00:10::1"],
                &["10.0.0.1", "fd00::1%eth0", ":::"],
            ),
            (
                "cidr",
                &["10.0.0.0/8", "fd00::/64", "10.1.2.3/24"],
                &[
                    "10.0.0.0",
                    "10.0.0.0/33",
                    "fd00::/129",
                    "x/8",
                    "10.0.0.0/-1",
                    "10.0.0.0/",
                ],
            ),
            (
                "date-time",
                &[
                    "2026-11-22T06:00:00Z",
                    "2026-11-22T06:00:00.123456+01:00",
                    "2024-02-29t23:59:60z",
                ],
                &[
                    "2026-11-22",
                    "2026-02-29T00:00:00Z",
                    "2026-11-22T06:00Z",
                    "2026-11-22T24:00:00Z",
                    "2026-11-22T06:00:00",
                    "2026-11-22T06:00:00.Z",
                ],
            ),
            ("date", &["2026-11-22"], &["2026-13-01", "26-1-1"]),
            (
                "uuid",
                &["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
                &["6ba7b810", "g"],
            ),
            (
                "mac",
                &["aa:bb:cc:dd:ee:ff"],
                &["aa:bb", "aa:bb:cc:dd:ee:fg"],
            ),
            ("byte", &["", "aGk=", "aGVsbG8h"], &["aGk", "a===", "a b="]),
        ] {
            let format = Format::parse(name).unwrap();
            assert_eq!(format.name(), name);
            for text in good {
                assert!(format.accepts(&json!(text)), "{name} {text}");
            }
            for text in bad {
                assert!(!format.accepts(&json!(text)), "{name} {text}");
            }
            assert!(format.accepts(&json!(1)), "{name} of a number");
        }
        assert!(Format::Int32.accepts(&json!(2_147_483_647)));
        assert!(!Format::Int32.accepts(&json!(2_147_483_648_i64)));
        assert!(Format::Int64.accepts(&json!(i64::MAX)));
        assert!(!Format::Int64.accepts(&json!(u64::MAX)));
        assert_eq!(Format::parse("shape"), None);
    }
}
