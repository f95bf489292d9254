//! `lab probe`: does a packet get from here to there, and is it the right one who answers?
//!
//! | verdict | meaning |
//! | --- | --- |
//! | `allowed` | TCP: connected, and a pod asked by name said its own name. UDP: answered, likewise. ICMP: echo reply |
//! | `denied` | nothing came back within the time, or the sender's own policy refused the packet |
//! | `error` | anything else: no such pod, no route, refused by a closed port, the wrong pod answered; `detail` says what |
//!
//! The `to` of a probe may be a pod, a node or a ToR, whose address of the family asked for is taken
//! (`"family": "ipv4" | "ipv6"`; without it the pod's first address), or an address.

mod icmp;
mod run;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::netns;
use crate::place::Place;
use crate::plan::Plan;
use crate::pods;

/// How long a probe waits for an answer unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `namespace/pod`, `n1` or `tor-a`.
    pub from: String,
    /// `namespace/pod`, an address, `n1` or `tor-a`.
    pub to: String,
    /// Destination port; not used by ICMP.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub port: u16,
    /// TCP unless given.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which of the target's addresses; its first one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

/// What a probe sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// A connection.
    #[default]
    Tcp,
    /// A datagram that is to be answered.
    Udp,
    /// An echo request.
    Icmp,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn of(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

/// The answer to a probe: the probe and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What was asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// What came of it.
    pub verdict: Verdict,
    /// Milliseconds until the answer, or until it was given up.
    pub ms: f64,
    /// The reason of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What came of a probe; see the table in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It got through.
    Allowed,
    /// It was dropped.
    Denied,
    /// Something else is wrong.
    Error,
}

/// A probe with its names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    netns: PathBuf,
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    /// Who must answer: the name of the pod that was asked for.
    expect: Option<String>,
}

/// Asks all at once and returns the answers in the order of the questions.
pub fn probe(plan: &Plan, probes: &[Probe], timeout: Duration) -> Vec<Answer> {
    let attached = pods::attached(plan);
    let resolved: Vec<Result<Target, String>> =
        probes.iter().map(|p| resolve(plan, &attached, p)).collect();
    let outcomes = run::all(&resolved, timeout);
    probes
        .iter()
        .zip(outcomes)
        .map(|(probe, outcome)| Answer {
            probe: probe.clone(),
            verdict: outcome.verdict,
            ms: (outcome.took.as_secs_f64() * 1e5).round() / 100.0,
            detail: outcome.detail,
        })
        .collect()
}

fn resolve(
    plan: &Plan,
    attached: &std::collections::BTreeMap<String, pods::Sandbox>,
    probe: &Probe,
) -> Result<Target, String> {
    let from = Place::parse(plan, &probe.from).map_err(|e| format!("from: {e}"))?;
    let netns = match &from {
        Place::Node(name) | Place::Tor(name) => plan.netns(name),
        Place::Pod(name) => match attached.get(name) {
            Some(sandbox) => sandbox.netns.clone(),
            None => return Err(format!("from: no running pod {name}")),
        },
    };
    if probe.port == 0 && probe.protocol != Protocol::Icmp {
        return Err("port: must be 1 to 65535".to_owned());
    }
    let (addresses, expect) = if let Ok(address) = probe.to.parse::<IpAddr>() {
        (vec![address], None)
    } else {
        match Place::parse(plan, &probe.to).map_err(|e| format!("to: {e}, nor an address"))? {
            Place::Node(name) | Place::Tor(name) => (
                plan.address_of(&name)
                    .map_or_else(Vec::new, |d| d.both().to_vec()),
                None,
            ),
            Place::Pod(name) => match attached.get(&name) {
                Some(sandbox) => (sandbox.addresses.clone(), Some(name)),
                None => return Err(format!("to: no running pod {name}")),
            },
        }
    };
    let address = addresses
        .into_iter()
        .find(|a| probe.family.is_none_or(|f| f.of(a)))
        .ok_or_else(|| format!("to: {} has no address of that family", probe.to))?;
    Ok(Target {
        netns: netns::path(&netns),
        address,
        port: probe.port,
        protocol: probe.protocol,
        expect,
    })
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn read(json: &str) -> Result<Probe, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    fn sandbox() -> BTreeMap<String, pods::Sandbox> {
        let sandbox = pods::Sandbox {
            namespace: "shop".into(),
            pod: "web".into(),
            uid: "u".into(),
            container_id: "c".into(),
            netns: "margay-pod-0123456789ab".into(),
            host_network: false,
            addresses: vec![
                "10.244.0.1".parse().unwrap(),
                "fd00:10:244::1".parse().unwrap(),
            ],
            ports: vec![],
            result: None,
            created: String::new(),
        };
        BTreeMap::from([("shop/web".to_owned(), sandbox)])
    }

    #[test]
    fn questions_are_read() {
        let probe =
            read(r#"{"from":"n1","to":"shop/web","port":80,"protocol":"UDP","family":"ipv6"}"#)
                .unwrap();
        assert_eq!(
            (probe.port, probe.protocol, probe.family),
            (80, Protocol::Udp, Some(Family::Ipv6))
        );
        assert_eq!(
            read(r#"{"from":"n1","to":"10.0.0.1","port":80}"#)
                .unwrap()
                .protocol,
            Protocol::Tcp
        );
        assert!(
            read(r#"{"from":"n1","to":"10.0.0.1","prot":80}"#)
                .unwrap_err()
                .contains("prot")
        );
    }

    #[test]
    fn targets_are_resolved_by_family() {
        let plan = Plan::new(Path::new(crate::plan::DEFAULT_DIR), 3);
        let pods = sandbox();
        let mut probe = read(r#"{"from":"n1","to":"shop/web","port":80}"#).unwrap();
        let target = resolve(&plan, &pods, &probe).unwrap();
        assert_eq!(target.address.to_string(), "10.244.0.1");
        assert_eq!(target.netns, Path::new("/run/netns/margay-n1"));
        assert_eq!(target.expect.as_deref(), Some("shop/web"));
        probe.family = Some(Family::Ipv6);
        assert_eq!(
            resolve(&plan, &pods, &probe).unwrap().address.to_string(),
            "fd00:10:244::1"
        );
        probe.to = "tor-b".into();
        assert_eq!(
            resolve(&plan, &pods, &probe).unwrap().address.to_string(),
            "fd00:30:2::1"
        );
        probe.to = "10.1.1.1".into();
        assert!(
            resolve(&plan, &pods, &probe)
                .unwrap_err()
                .contains("family")
        );
    }

    #[test]
    fn what_cannot_be_resolved_says_which_end() {
        let plan = Plan::new(Path::new("/x"), 3);
        let pods = sandbox();
        let problem = |json| resolve(&plan, &pods, &read(json).unwrap()).unwrap_err();
        assert!(
            problem(r#"{"from":"a/b","to":"n1","port":1}"#).starts_with("from: no running pod")
        );
        assert!(problem(r#"{"from":"n1","to":"a/b","port":1}"#).starts_with("to: no running pod"));
        assert!(problem(r#"{"from":"n1","to":"n2"}"#).starts_with("port"));
        assert!(problem(r#"{"from":"n9","to":"n2","port":1}"#).starts_with("from: \"n9\""));
    }
}
