//! The links of a dual-ToR fabric: every node has one to each ToR of its rack and its address on `lo`, every ToR one to
//! the spine, the spine one to the API server.
//!
//! ```text
//!                     api
//!                      │
//!        ╭─────────┬─ spine ─┬─────────╮
//!     tor-a1    tor-a2     tor-b1    tor-b2
//!        │ ╲     ╱ │          │ ╲     ╱ │
//!        n1        n2         n3        n4 …      eth0 to the first ToR, eth1 to the second
//! ```

use anyhow::Result;

use super::ip_batch;
use crate::plan::{Dual, Node, Plan, Spine, Tor, Uplink, spine_end};

/// The ToRs' interface to the spine.
pub const SPINE_LINK: &str = "spine";
/// The spine's interface to the API server, and the name of the API server's namespace.
pub const API: &str = "api";

/// Makes the links and gives them, and `lo` of everybody, their addresses.
pub(super) fn connect(plan: &Plan) -> Result<()> {
    if let Some(spine) = &plan.spine {
        ip_batch(&plan.netns(&spine.name), &spine_commands(plan, spine))?;
        for (place, tor) in plan.tors.iter().enumerate() {
            let end = ends_up(&tor.name, spine_end(place));
            ip_batch(&plan.netns(&spine.name), &end)?;
            ip_batch(&plan.netns(&tor.name), &tor_commands(tor))?;
        }
    }
    if let Some(api) = plan.api_address() {
        ip_batch(&plan.netns(API), &api_commands(plan, api))?;
    }
    for node in &plan.nodes {
        connect_node(plan, node)?;
    }
    Ok(())
}

/// Connects a node whose namespace is there and has no links.
pub fn connect_node(plan: &Plan, node: &Node) -> Result<()> {
    for link in &node.uplinks {
        ip_batch(&plan.netns(&link.tor), &port_commands(plan, node, link))?;
    }
    ip_batch(&plan.netns(&node.name), &node_commands(node))
}

/// RFC 3021 and RFC 6164: a /31 and a /127 between two machines.
fn ends_up(interface: &str, end: Dual) -> Vec<String> {
    vec![
        format!("addr add {}/31 dev {interface}", end.v4),
        format!("addr add {}/127 dev {interface} nodad", end.v6),
        format!("link set {interface} up"),
    ]
}

fn own_address(address: Dual) -> Vec<String> {
    vec![
        format!("addr add {}/32 dev lo", address.v4),
        format!("addr add {}/128 dev lo nodad", address.v6),
    ]
}

fn spine_commands(plan: &Plan, spine: &Spine) -> Vec<String> {
    let mut commands = own_address(spine.address);
    for tor in &plan.tors {
        commands.push(format!(
            "link add {} type veth peer name {SPINE_LINK} netns {}",
            tor.name,
            plan.netns(&tor.name)
        ));
    }
    commands.push(format!(
        "link add {API} type veth peer name eth0 netns {}",
        plan.netns(API)
    ));
    commands.extend(ends_up(API, spine.api_link));
    commands
}

fn tor_commands(tor: &Tor) -> Vec<String> {
    let mut commands = own_address(tor.address);
    commands.extend(ends_up(SPINE_LINK, tor.link));
    commands
}

/// The API server's own router is the spine, whatever it wants to reach.
fn api_commands(plan: &Plan, address: Dual) -> Vec<String> {
    let mut commands = ends_up("eth0", address);
    if let Some(spine) = &plan.spine {
        commands.push(format!("route add 0.0.0.0/0 via {}", spine.api_link.v4));
        commands.push(format!("route add ::/0 via {}", spine.api_link.v6));
    }
    commands
}

fn port_commands(plan: &Plan, node: &Node, link: &Uplink) -> Vec<String> {
    let mut commands = vec![format!(
        "link add {} type veth peer name {} netns {}",
        node.name,
        link.interface,
        plan.netns(&node.name)
    )];
    commands.extend(ends_up(&node.name, link.far));
    commands
}

fn node_commands(node: &Node) -> Vec<String> {
    let mut commands = own_address(node.address);
    for link in &node.uplinks {
        commands.extend(ends_up(&link.interface, link.near));
    }
    commands
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::{DEFAULT_DIR, Fabric};

    #[test]
    fn a_node_has_a_link_to_each_tor_of_its_rack_and_no_default_route() {
        let plan = Plan::with_fabric(Path::new(DEFAULT_DIR), 3, Fabric::DualTor);
        let n3 = plan.node("n3").unwrap();
        let tors: Vec<&str> = n3.uplinks.iter().map(|link| link.tor.as_str()).collect();
        assert_eq!(tors, ["tor-b1", "tor-b2"]);
        let port = port_commands(&plan, n3, &n3.uplinks[1]).join("\n");
        assert!(
            port.contains("link add n3 type veth peer name eth1 netns margay-n3"),
            "{port}"
        );
        let node = node_commands(n3).join("\n");
        assert!(node.contains("addr add 172.30.2.13/32 dev lo"), "{node}");
        assert!(!node.contains("route"), "{node}");
    }
}
