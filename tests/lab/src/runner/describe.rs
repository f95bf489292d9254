//! A pod as a sandbox, and a sandbox as a pod's status. Pure.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::plan::{Node, Plan};
use crate::pods::Sandbox;
use crate::responder::Transport;

/// A fresh sandbox for a pod.
pub fn sandbox(plan: &Plan, pod: &Pod, container_id: String) -> Sandbox {
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let netns = match node {
        Some(node) if host_network => plan.netns(node),
        _ => plan.netns(&format!("pod-{}", &container_id[..12])),
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Sandbox {
        namespace: text(&pod.metadata.namespace),
        pod: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        container_id,
        netns,
        host_network,
        addresses: Vec::new(),
        ports: ports(pod),
        result: None,
        created: now(),
    }
}

/// The present, as the API writes times.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The declared ports of all containers that a responder can answer on.
pub fn ports(pod: &Pod) -> Vec<(Transport, u16)> {
    let mut ports: Vec<_> = container_ports(pod)
        .filter_map(|port| {
            let transport = match port.protocol.as_deref() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some(_) => return None,
            };
            Some((transport, u16::try_from(port.container_port).ok()?))
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The ports of all containers as declared.
pub fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    pod.spec
        .iter()
        .flat_map(|s| &s.containers)
        .flat_map(|c| c.ports.iter().flatten())
}

/// The addresses in a result of ADD, IPv4 first as containerd reports them.
pub fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"]
        .as_array()
        .context("the result of ADD has no ips")?;
    let mut addresses = Vec::new();
    for ip in ips {
        let text = ip["address"]
            .as_str()
            .context("an ip in the result has no address")?;
        let network: IpNetwork = text.parse().with_context(|| format!("address {text:?}"))?;
        addresses.push(network.ip());
    }
    if addresses.is_empty() {
        bail!("the result of ADD has no ips");
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}

/// Whether the pod's status says already what the sandbox is.
pub fn reports(pod: &Pod, sandbox: &Sandbox) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let reported = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.parse().ok())
        .collect::<Option<Vec<IpAddr>>>();
    status.phase.as_deref() == Some("Running") && reported.as_ref() == Some(&sandbox.addresses)
}

/// The patch that makes the pod's status say what the sandbox is. The uid keeps it from a successor of the
/// same name.
pub fn status(node: &Node, pod: &Pod, sandbox: &Sandbox) -> Value {
    let now = now();
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": null });
    let containers: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(|s| &s.containers)
        .map(|c| {
            json!({
                "name": c.name,
                "image": c.image.clone().unwrap_or_default(),
                "imageID": "",
                "containerID": format!("lab://{}", sandbox.container_id),
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": { "running": { "startedAt": now } },
            })
        })
        .collect();
    let ips: Vec<Value> = sandbox
        .addresses
        .iter()
        .map(|a| json!({ "ip": a }))
        .collect();
    let host_ips: Vec<Value> = node
        .address
        .both()
        .iter()
        .map(|a| json!({ "ip": a }))
        .collect();
    json!({
        "metadata": { "uid": sandbox.uid },
        "status": {
            "phase": "Running",
            "hostIP": node.address.v4,
            "hostIPs": host_ips,
            "podIP": sandbox.addresses.first(),
            "podIPs": ips,
            "startTime": sandbox.created,
            "conditions": [
                condition("PodScheduled"),
                condition("PodReadyToStartContainers"),
                condition("Initialized"),
                condition("ContainersReady"),
                condition("Ready"),
            ],
            "containerStatuses": containers,
            "qosClass": "BestEffort",
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "web", "uid": "u-1" },
            "spec": {
                "nodeName": "n1",
                "containers": [
                    { "name": "a", "image": "web", "ports": [
                        { "containerPort": 80 }, { "containerPort": 53, "protocol": "UDP" },
                        { "containerPort": 9, "protocol": "SCTP" } ] },
                    { "name": "b", "ports": [{ "containerPort": 80, "name": "again" }] },
                ],
            },
        }))
        .unwrap()
    }

    fn made() -> (Plan, Sandbox) {
        let plan = Plan::new(Path::new(crate::plan::DEFAULT_DIR), 3);
        let sandbox = sandbox(&plan, &pod(), "0123456789abcdef".repeat(4));
        (plan, sandbox)
    }

    #[test]
    fn a_sandbox_has_the_declared_ports_once() {
        let (plan, sandbox) = made();
        assert_eq!(sandbox.ports, [(Transport::Tcp, 80), (Transport::Udp, 53)]);
        assert_eq!(sandbox.netns, "margay-pod-0123456789ab");
        assert!(plan.owns_netns(&sandbox.netns));
    }

    #[test]
    fn a_pod_on_the_host_network_is_in_its_nodes_namespace() {
        let mut pod = pod();
        pod.spec.as_mut().unwrap().host_network = Some(true);
        let (plan, _) = made();
        let sandbox = sandbox(&plan, &pod, "0".repeat(64));
        assert!(sandbox.host_network);
        assert_eq!(sandbox.netns, "margay-n1");
    }

    #[test]
    fn addresses_come_out_ipv4_first() {
        let result =
            json!({ "ips": [{ "address": "fd00::1/128" }, { "address": "10.244.0.1/32" }] });
        let read: Vec<String> = addresses(&result)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(read, ["10.244.0.1", "fd00::1"]);
        assert!(addresses(&json!({ "ips": [] })).is_err());
        assert!(addresses(&json!({})).is_err());
    }

    #[test]
    fn a_status_that_was_written_is_recognised() {
        let (plan, mut sandbox) = made();
        sandbox.addresses = vec!["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let mut pod = pod();
        assert!(!reports(&pod, &sandbox));
        let patch = status(&plan.nodes[0], &pod, &sandbox);
        assert_eq!(patch["metadata"]["uid"], "u-1");
        pod.status = Some(serde_json::from_value(patch["status"].clone()).unwrap());
        assert!(reports(&pod, &sandbox));
        sandbox.addresses.pop();
        assert!(!reports(&pod, &sandbox));
    }
}
