//! Durations as people write them: `90s`, `5m`, `1h30m`.

use crate::error::FieldError;

/// The pattern of a duration in a CEL rule, as a literal.
macro_rules! duration_rule {
    ($field:literal) => {
        Rule::new("self.matches('^([0-9]{1,9}[smh])+$')").message(concat!(
            $field,
            " is a duration: write it as 90s, 5m or 1h30m"
        ))
    };
}
pub(crate) use duration_rule;

/// Reads a duration of `least` to `most` seconds.
pub(crate) fn seconds(field: &str, text: &str, least: u32, most: u32) -> Result<u32, FieldError> {
    let whole = parse(text).ok_or_else(|| {
        FieldError::new(
            field,
            format!("{text:?} is no duration: write it as 90s, 5m or 1h30m"),
        )
    })?;
    u32::try_from(whole)
        .ok()
        .filter(|seconds| (least..=most).contains(seconds))
        .ok_or_else(|| {
            FieldError::new(
                field,
                format!("{text} is out of range: set {least}s to {most}s"),
            )
        })
}

fn parse(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let each = match unit.as_bytes().first()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(each)?)?;
        rest = &unit[1..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_units() {
        for (text, want) in [
            ("90s", 90),
            ("5m", 300),
            ("1h30m", 5400),
            ("0s", 0),
            ("24h", 86400),
        ] {
            assert_eq!(seconds("f", text, 0, 100_000), Ok(want), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "1d",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "5m ",
        ] {
            let error = seconds("f", text, 0, 10).unwrap_err().to_string();
            assert!(error.contains("write it as"), "{text}: {error}");
        }
        let error = seconds("f", "2h", 0, 4095).unwrap_err().to_string();
        assert_eq!(error, "f: 2h is out of range: set 0s to 4095s");
    }
}
