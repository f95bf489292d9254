//! A cluster from a seed: as many pods and policies as asked for, with peers that a few labels tell apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use felix::feed::{Identity, Labels, LocalEndpoint};
use felix::policy::{Engine, k8s};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

/// Pods of this node.
pub(crate) const LOCAL: u32 = 200;
/// Policies that select a pod of this node.
pub(crate) const HERE: u32 = 100;
/// Kinds of pods there are: pods of one kind have the same labels.
const KINDS: u32 = 500;
const NAMESPACES: u32 = 50;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Pods, of all nodes.
    pub(crate) pods: u32,
    /// Policies, most of them about other nodes' pods.
    pub(crate) policies: u32,
}

impl Size {
    /// With a policy for every ten pods.
    pub(crate) const fn of(pods: u32) -> Self {
        Self {
            pods,
            policies: if pods / 10 < HERE { HERE } else { pods / 10 },
        }
    }
}

/// The IPv4 and the IPv6 address of a pod.
pub(crate) fn addresses(number: u32) -> Vec<IpAddr> {
    let v4 = Ipv4Addr::from_bits(0x0a80_0000 + number);
    let v6 = Ipv6Addr::from_bits(0xfd00_0080 << 96 | u128::from(number));
    vec![v4.into(), v6.into()]
}

/// A pod of a kind.
pub(crate) fn pod(number: u32, kind: u32) -> Identity {
    let labels = [
        ("app", format!("k{kind}")),
        ("shard", format!("s{}", number % 7)),
    ];
    Identity {
        uid: format!("uid-{number}").into(),
        namespace: namespace(kind).into(),
        name: format!("pod-{number}").into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        service_account: "default".into(),
        created: 1_700_000_000,
        addresses: addresses(number).into(),
        named_ports: [].into(),
        host_network: false,
    }
}

/// The kind of the pod with this number, in a cluster as it is made. Pods of this node come first and have the first
/// kinds.
pub(crate) const fn kind(number: u32) -> u32 {
    if number < LOCAL {
        number % HERE
    } else {
        number % KINDS
    }
}

/// Its attachment, and the name of its interface.
pub(crate) fn endpoint(number: u32) -> (String, LocalEndpoint) {
    let kind = kind(number);
    let endpoint = LocalEndpoint {
        uid: format!("uid-{number}"),
        namespace: namespace(kind),
        pod: format!("pod-{number}"),
        addresses: addresses(number),
    };
    (format!("mgy{number:012x}"), endpoint)
}

fn namespace(kind: u32) -> String {
    format!("ns{}", kind % NAMESPACES)
}

/// The policy with this number: the first [`HERE`] select a kind that this node has, the others none of those.
pub(crate) fn policy(number: u32) -> Result<NetworkPolicy> {
    let kind = if number < HERE {
        number
    } else {
        HERE + number % (KINDS - HERE)
    };
    let from = |at: u32| format!("k{}", (number * 13 + at * 37) % KINDS);
    let mut peers: Vec<Value> = (0..3)
        .map(|at| json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": from(at) } } }))
        .collect();
    peers.push(json!({ "ipBlock": { "cidr": format!("192.168.{}.0/24", number % 256) } }));
    policy_of(
        &format!("np-{number}"),
        &namespace(kind),
        json!({ "matchLabels": { "app": format!("k{kind}") } }),
        json!({
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": peers, "ports": ports(number) }],
            "egress": [{ "to": peers, "ports": ports(number + 1) }],
        }),
    )
}

fn ports(number: u32) -> Value {
    json!([
        { "protocol": "TCP", "port": 80 + number % 20 },
        { "protocol": "UDP", "port": 9000, "endPort": 9100 + number % 20 },
    ])
}

/// A policy with these rules.
pub(crate) fn policy_of(
    name: &str,
    namespace: &str,
    selector: Value,
    rules: Value,
) -> Result<NetworkPolicy> {
    let mut spec = rules;
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("podSelector".to_owned(), selector);
    }
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": namespace, "generation": 1 },
        "spec": spec,
    });
    serde_json::from_value(object).context("a policy of the benchmark")
}

/// That many peers of one address each, none of them a pod's, at most 128 Ki.
pub(crate) fn blocks(count: u32) -> Vec<Value> {
    let block = |at: u32| {
        let cidr = format!(
            "172.{}.{}.{}/32",
            16 + (at >> 15),
            at >> 7 & 255,
            (at & 127) << 1
        );
        json!({ "ipBlock": { "cidr": cidr } })
    };
    (0..count).map(block).collect()
}

/// Tells the engine of a policy, as felix does.
pub(crate) fn tell(engine: &mut Engine, object: &NetworkPolicy) -> Result<()> {
    engine.apply_policy(k8s::parse(object).context("a policy of the benchmark")?);
    Ok(())
}

/// Tells the engine of everything.
pub(crate) fn fill(engine: &mut Engine, size: Size) -> Result<()> {
    for number in 0..NAMESPACES {
        let name = format!("ns{number}");
        let labels: Labels = [("kubernetes.io/metadata.name".to_owned(), name.clone())].into();
        engine.apply_namespace(&name, labels);
    }
    for number in 0..size.policies {
        tell(engine, &policy(number)?)?;
    }
    for number in 0..size.pods {
        engine.apply_identity(pod(number, kind(number)));
    }
    for number in 0..LOCAL.min(size.pods) {
        let (name, endpoint) = endpoint(number);
        engine.set_local(&name, endpoint);
    }
    Ok(())
}
