//! RFC 3339 timestamps as `metav1.Time` (whole seconds) and `metav1.MicroTime` print them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z, now.
pub fn now() -> i64 {
    since_epoch().0
}

/// Now, as `metav1.Time` prints it.
pub fn timestamp() -> String {
    format(now())
}

/// Now in microseconds, as `metav1.MicroTime` prints it.
pub fn micro_timestamp() -> String {
    let (seconds, micros) = since_epoch();
    let whole = format(seconds);
    format!("{}.{micros:06}Z", whole.trim_end_matches('Z'))
}

fn since_epoch() -> (i64, u32) {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        since.subsec_micros(),
    )
}

/// `seconds` since the epoch as `2026-11-22T06:40:00Z`.
pub fn format(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// Seconds since the epoch of an RFC 3339 timestamp (fractions are dropped); `None` if it is none.
pub fn parse(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let bytes = text.as_bytes();
    if (bytes[4], bytes[7], bytes[13], bytes[16]) != (b'-', b'-', b':', b':')
        || !matches!(bytes[10], b'T' | b't' | b' ')
    {
        return None;
    }
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let zone = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days since the epoch of a date in the proleptic Gregorian calendar. Years are counted from March, so that
/// the leap day is the last of its year, in eras of 400 years (146097 days).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`]: (year, month, day).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (
        era * 400 + year + i64::from(month <= 2),
        month,
        of_year - (153 * march + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_parses() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-22T06:40:00Z", 1_795_329_600),
        ] {
            assert_eq!(format(seconds), text);
            assert_eq!(parse(text), Some(seconds));
        }
        // Every day of the years 0 to 9999.
        for day in -719_528..2_932_897 {
            assert_eq!(parse(&format(day * 86_400)), Some(day * 86_400));
        }
    }

    #[test]
    fn understands_fractions_and_zones() {
        assert_eq!(
            parse("2026-11-22T08:40:00.123456+02:00"),
            parse("2026-11-22T06:40:00Z")
        );
        for bad in [
            "",
            "yesterday",
            "2026-11-22",
            "2026-11-22T06:40:00",
            "2026-13-22T06:40:00Z",
            "2026-11-22T06:40:00+2",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
