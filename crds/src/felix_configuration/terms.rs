//! What an operator chooses beside policy: translation of sources, extra sources, Services that loop, floating addresses.

use std::net::IpAddr;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::FelixConfigurationSpec;
use crate::error::FieldError;
use crate::net::{Cidr, Family};

/// The part of a `FelixConfiguration` that is not about policy, understood; the default is what holds without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Destinations that pods of pools with natOutgoing reach by their own addresses, beside all pools.
    pub nodes_excluded: bool,
    /// Sources of what leaves such pools, by family: `None` is the node's.
    pub nat_address: [Option<IpAddr>; 2],
    /// Source ports TCP, UDP and SCTP get then, first and last.
    pub nat_ports: Option<(u16, u16)>,
    /// Pods may have the annotation for extra sources.
    pub spoofing: bool,
    /// What becomes of packets to a Service that nobody translated.
    pub service_loops: ServiceLoops,
    /// Addresses of Services.
    pub service_cidrs: Vec<Cidr>,
    /// Pods may have the annotation for floating addresses.
    pub floating: bool,
}

/// What becomes of packets to a Service that nobody translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceLoops {
    /// They are dropped.
    #[default]
    Drop,
    /// The sender is told.
    Reject,
    /// They are routed like any other.
    Pass,
}

impl TryFrom<&FelixConfigurationSpec> for Terms {
    type Error = FieldError;

    fn try_from(spec: &FelixConfigurationSpec) -> Result<Self, FieldError> {
        let nodes_excluded = choice(
            "natOutgoingExclusions",
            spec.nat_outgoing_exclusions.as_deref(),
            &[("IPPoolsOnly", false), ("IPPoolsAndHostIPs", true)],
        )?;
        let mut nat_address = [None, None];
        if let Some(text) = &spec.nat_outgoing_address {
            let address: IpAddr = text.parse().ok().filter(usable).ok_or_else(|| {
                let problem = format!("{text:?} is no address that packets can come from: write it as 192.0.2.1 or 2001:db8::1");
                FieldError::new("spec.natOutgoingAddress", problem)
            })?;
            nat_address[usize::from(Family::of(address) == Family::V6)] = Some(address);
        }
        let nat_ports = spec.nat_port_range.as_deref().map(ports).transpose()?;
        let spoofing = choice(
            "workloadSourceSpoofing",
            spec.workload_source_spoofing.as_deref(),
            &[("Disabled", false), ("Any", true)],
        )?;
        let service_loops = choice(
            "serviceLoopPrevention",
            spec.service_loop_prevention.as_deref(),
            &[
                ("Drop", ServiceLoops::Drop),
                ("Reject", ServiceLoops::Reject),
                ("Disabled", ServiceLoops::Pass),
            ],
        )?;
        let cidrs = spec.service_cidrs.iter().flatten().map(|text| {
            let cidr: Result<Cidr, _> = text.parse();
            cidr.map_err(|error| FieldError::new("spec.serviceCIDRs", error))
        });
        let floating = choice(
            "floatingIPs",
            spec.floating_ips.as_deref(),
            &[("Disabled", false), ("Enabled", true)],
        )?;
        Ok(Self {
            nodes_excluded,
            nat_address,
            nat_ports,
            spoofing,
            service_loops,
            service_cidrs: cidrs.collect::<Result<_, _>>()?,
            floating,
        })
    }
}

/// What was said, or the default.
fn choice<T: Copy + Default>(
    field: &str,
    said: Option<&str>,
    choices: &[(&str, T)],
) -> Result<T, FieldError> {
    let Some(said) = said else {
        return Ok(T::default());
    };
    let found = choices.iter().find(|(name, _)| *name == said);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let problem = format!("{said:?} is none of {}", names.join(", "));
        FieldError::new(format!("spec.{field}"), problem)
    })
}

const fn usable(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

fn ports(text: &str) -> Result<(u16, u16), FieldError> {
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|it| plain && *it > 0)
    };
    let range = text.split_once(':').and_then(|(first, last)| {
        let range = (number(first)?, number(last)?);
        (range.0 <= range.1).then_some(range)
    });
    range.ok_or_else(|| {
        let problem = format!("{text:?} is no range of ports: write it as 32768:60999");
        FieldError::new("spec.natPortRange", problem)
    })
}

pub(super) fn exclusions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["IPPoolsOnly", "IPPoolsAndHostIPs"] })
}

pub(super) fn spoofing(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Disabled", "Any"] })
}

pub(super) fn service_loops(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Drop", "Reject", "Disabled"] })
}

pub(super) fn floating(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Disabled", "Enabled"] })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<Terms, FieldError> {
        Terms::try_from(&serde_json::from_value::<FelixConfigurationSpec>(spec).unwrap())
    }

    #[test]
    fn choices_are_read() {
        assert_eq!(read(json!({})), Ok(Terms::default()));
        let found = read(json!({
            "natOutgoingExclusions": "IPPoolsAndHostIPs", "natOutgoingAddress": "2001:db8::1", "natPortRange": "1024:1024",
            "workloadSourceSpoofing": "Any", "serviceLoopPrevention": "Reject", "serviceCIDRs": ["10.96.0.0/12"],
            "floatingIPs": "Enabled",
        }));
        let want = Terms {
            nodes_excluded: true,
            nat_address: [None, Some("2001:db8::1".parse().unwrap())],
            nat_ports: Some((1024, 1024)),
            spoofing: true,
            service_loops: ServiceLoops::Reject,
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            floating: true,
        };
        assert_eq!(found, Ok(want));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        for (field, value) in [
            ("natOutgoingExclusions", json!("None")),
            ("natOutgoingAddress", json!("0.0.0.0")),
            ("natOutgoingAddress", json!("192.0.2.0/24")),
            ("natPortRange", json!("0:10")),
            ("natPortRange", json!("20:10")),
            ("natPortRange", json!("+1:10")),
            ("natPortRange", json!("1:65536")),
            ("workloadSourceSpoofing", json!("any")),
            ("serviceLoopPrevention", json!("")),
            ("serviceCIDRs", json!(["10.96.0.1/12"])),
            ("floatingIPs", json!("On")),
        ] {
            let error = read(json!({ field: value })).unwrap_err();
            assert_eq!(error.field, format!("spec.{field}"), "{value}");
        }
    }
}
