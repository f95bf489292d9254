//! The fabric: a namespace per router and node. With one ToR for each rack, a bridge per rack in its ToR's namespace, a
//! veth from every node to it, and a link between the ToRs; with two, see [`dual`]. No default route on any node.
//!
//! ```text
//!  n1 ─eth0╮                              ╭eth0─ n3
//!  n2 ─eth0┴─ rack (bridge) tor-a ─uplink─ tor-b (bridge) rack ┴─eth0─ n4 …
//! ```

pub mod dual;

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns;
use crate::plan::{Fabric, Node, Plan, Rack, Tor};

/// The ToRs' interface to their rack.
pub const RACK_BRIDGE: &str = "rack";
/// The ToRs' interface to each other.
pub const TOR_LINK: &str = "uplink";
/// The nodes' interface to their rack.
pub const NODE_UPLINK: &str = "eth0";

/// In every namespace, before any link exists. DAD would hold addresses back for a second, and nobody else
/// is on these segments.
const COMMON: [(&str, &str); 7] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

/// Layer-4 hashing over equal paths, links without carrier avoided, addresses kept while a link is down.
const ROUTER: [(&str, &str); 8] = [
    ("net/ipv4/conf/default/ignore_routes_with_linkdown", "1"),
    ("net/ipv6/conf/default/ignore_routes_with_linkdown", "1"),
    ("net/ipv6/conf/all/keep_addr_on_down", "1"),
    ("net/ipv6/conf/default/keep_addr_on_down", "1"),
    ("net/ipv4/fib_multipath_hash_policy", "1"),
    ("net/ipv6/fib_multipath_hash_policy", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// As a distribution may have it, strict reverse path filtering included: what several uplinks need is felix' to set.
const HOST: [(&str, &str); 2] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "1"),
];

/// Makes every namespace of the fabric, with its sysctls.
pub fn create_namespaces(plan: &Plan) -> Result<()> {
    for name in plan.routers() {
        create_namespace(plan, name, &ROUTER)?;
    }
    for node in &plan.nodes {
        create_node(plan, node)?;
    }
    if plan.fabric == Fabric::DualTor {
        create_namespace(plan, dual::API, &ROUTER)?;
    }
    Ok(())
}

/// Makes the namespace of a node.
pub fn create_node(plan: &Plan, node: &Node) -> Result<()> {
    let settings: &[_] = match plan.fabric {
        Fabric::SingleTor => &ROUTER,
        Fabric::DualTor => &HOST,
    };
    create_namespace(plan, &node.name, settings)
}

/// Makes the links of a node whose namespace is there and has none.
pub fn connect_node(plan: &Plan, node: &Node) -> Result<()> {
    match plan.fabric {
        Fabric::SingleTor => {
            let tor = plan.tor(node.rack);
            ip_batch(&plan.netns(&tor.name), &port_commands(plan, node))?;
            ip_batch(&plan.netns(&node.name), &node_commands(node))
        }
        Fabric::DualTor => dual::connect_node(plan, node),
    }
}

fn create_namespace(plan: &Plan, name: &str, more: &[(&str, &str)]) -> Result<()> {
    let path = netns::create(&plan.netns(name))
        .with_context(|| format!("make the namespace {}", plan.netns(name)))?;
    let values = [COMMON.as_slice(), more].concat();
    netns::sysctls(&path, &values).with_context(|| format!("sysctls in {name}"))
}

/// Makes the links and gives them their addresses.
pub fn connect(plan: &Plan) -> Result<()> {
    if plan.fabric == Fabric::DualTor {
        return dual::connect(plan);
    }
    for tor in &plan.tors {
        ip_batch(&plan.netns(&tor.name), &tor_commands(tor))?;
    }
    let [a, b] = Rack::ALL.map(|r| plan.tor(r));
    ip_batch(
        &plan.netns(&a.name),
        &[format!(
            "link add {TOR_LINK} type veth peer name {TOR_LINK} netns {}",
            plan.netns(&b.name)
        )],
    )?;
    for tor in [a, b] {
        ip_batch(&plan.netns(&tor.name), &link_commands(tor))?;
    }
    for node in &plan.nodes {
        connect_node(plan, node)?;
    }
    Ok(())
}

fn tor_commands(tor: &Tor) -> Vec<String> {
    vec![
        format!("link add {RACK_BRIDGE} type bridge forward_delay 0 mcast_snooping 0"),
        format!("addr add {}/24 dev {RACK_BRIDGE}", tor.address.v4),
        format!("addr add {}/64 dev {RACK_BRIDGE} nodad", tor.address.v6),
        format!("link set {RACK_BRIDGE} up"),
    ]
}

fn port_commands(plan: &Plan, node: &Node) -> Vec<String> {
    let port = &node.name;
    vec![
        format!(
            "link add {port} type veth peer name {NODE_UPLINK} netns {}",
            plan.netns(port)
        ),
        format!("link set {port} master {RACK_BRIDGE} up"),
    ]
}

/// RFC 3021 and RFC 6164: a /31 and a /127 between routers.
fn link_commands(tor: &Tor) -> Vec<String> {
    vec![
        format!("addr add {}/31 dev {TOR_LINK}", tor.link.v4),
        format!("addr add {}/127 dev {TOR_LINK} nodad", tor.link.v6),
        format!("link set {TOR_LINK} up"),
    ]
}

fn node_commands(node: &Node) -> Vec<String> {
    vec![
        format!("addr add {}/24 dev {NODE_UPLINK}", node.address.v4),
        format!("addr add {}/64 dev {NODE_UPLINK} nodad", node.address.v6),
        format!("link set {NODE_UPLINK} up"),
    ]
}

fn ip_batch(netns: &str, commands: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.join("\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "ip -n {netns} -batch: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_node_has_a_port_of_its_racks_bridge() {
        let plan = Plan::new(Path::new(crate::plan::DEFAULT_DIR), 3);
        let text = port_commands(&plan, &plan.nodes[2]).join("\n");
        assert!(
            text.contains("link add n3 type veth peer name eth0 netns margay-n3"),
            "{text}"
        );
        assert!(text.contains("link set n3 master rack up"), "{text}");
    }

    #[test]
    fn nothing_adds_a_default_route() {
        let plan = Plan::new(Path::new(crate::plan::DEFAULT_DIR), 9);
        let all = plan
            .tors
            .iter()
            .flat_map(|t| [tor_commands(t), link_commands(t)])
            .chain(plan.nodes.iter().map(node_commands))
            .flatten();
        assert!(all.into_iter().all(|c| !c.contains("route")));
    }
}
