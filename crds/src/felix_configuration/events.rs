//! How many events of policy an operator wants.

use super::FelixConfigurationSpec;
use crate::error::FieldError;

/// How many packets that are denied or noted become events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// In a second; 0: none at all.
    pub second: u32,
    /// At once.
    pub burst: u32,
}

impl Events {
    const MOST: u32 = 1000;
}

impl Default for Events {
    fn default() -> Self {
        Self {
            second: 50,
            burst: 50,
        }
    }
}

impl TryFrom<&FelixConfigurationSpec> for Events {
    type Error = FieldError;

    fn try_from(spec: &FelixConfigurationSpec) -> Result<Self, FieldError> {
        let default = Self::default();
        let number = |field: &str, said: Option<i32>, least: u32, default: u32| {
            let Some(said) = said else {
                return Ok(default);
            };
            let number = u32::try_from(said).ok();
            let number = number.filter(|it| (least..=Self::MOST).contains(it));
            number.ok_or_else(|| {
                let problem = format!("{said} is none of {least} to {}", Self::MOST);
                FieldError::new(format!("spec.{field}"), problem)
            })
        };
        Ok(Self {
            second: number("policyEventRate", spec.policy_event_rate, 0, default.second)?,
            burst: number(
                "policyEventBurst",
                spec.policy_event_burst,
                1,
                default.burst,
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<Events, FieldError> {
        Events::try_from(&serde_json::from_value::<FelixConfigurationSpec>(spec).unwrap())
    }

    #[test]
    fn rates_are_read_or_refused() {
        assert_eq!(read(json!({})), Ok(Events::default()));
        let (second, burst) = (0, 1000);
        let said = json!({ "policyEventRate": second, "policyEventBurst": burst });
        assert_eq!(read(said), Ok(Events { second, burst }));
        for (field, value) in [
            ("policyEventRate", -1),
            ("policyEventRate", 1001),
            ("policyEventBurst", 0),
            ("policyEventBurst", 1001),
        ] {
            let error = read(json!({ field: value })).unwrap_err();
            assert_eq!(error.field, format!("spec.{field}"), "{value}");
        }
    }
}
