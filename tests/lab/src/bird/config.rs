//! The configuration of a ToR's BIRD, as a careful network engineer would write it: sessions of one family
//! each, everything filtered in both directions, limits on what a host may announce.

use std::fmt::Write as _;

use super::dual;
use crate::fabric::{RACK_BRIDGE, TOR_LINK};
use crate::plan::{CLUSTER_SPACE, FABRIC_SPACE, Fabric, Node, Plan, Tor};

/// Name of BIRD's protocol for the session with a node (or `tor`) in a family: `n1_v4`.
pub fn session(peer: &str, family: u8) -> String {
    format!("{}_v{family}", peer.replace('-', "_"))
}

/// Every router's name and its bird.conf.
pub fn all(plan: &Plan) -> Vec<(&str, String)> {
    let tors = plan.tors.iter().enumerate().map(|(place, tor)| {
        let text = match plan.fabric {
            Fabric::SingleTor => render(plan, tor),
            Fabric::DualTor => dual::tor(plan, place, tor),
        };
        (tor.name.as_str(), text)
    });
    let spines = plan.spine.iter();
    tors.chain(spines.map(|it| (it.name.as_str(), dual::spine(plan, it))))
        .collect()
}

/// bird.conf of the one ToR of a rack.
pub fn render(plan: &Plan, tor: &Tor) -> String {
    let mut text = head(tor);
    for (i, family) in [4_u8, 6].into_iter().enumerate() {
        text += &kernel(tor, family);
        text += &filters(tor, family, i);
    }
    let other = plan.tor(tor.rack.other());
    text += "\ntemplate bgp spine {\n  graceful restart on;\n  connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 3;\n}\n";
    for family in [4, 6] {
        let (local, remote) = pick(family, tor.link, other.link);
        let _ = write!(
            text,
            "\nprotocol bgp {name} from spine {{\n  description \"{other}\";\n  local {local} as {asn};\n  neighbor {remote} as {remote_asn};\n  interface \"{TOR_LINK}\";\n  ipv{family} {{\n    import keep filtered on;\n    import filter from_tor_v{family};\n    export filter to_tor_v{family};\n    next hop self;\n  }};\n}}\n",
            name = session(&other.name, family),
            other = other.name,
            asn = tor.asn,
            remote_asn = other.asn,
        );
    }
    text += "\ntemplate bgp host {\n  graceful restart aware;\n  enforce first as on;\n  connect delay time 2;\n  connect retry time 3;\n  error wait time 1, 3;\n}\n";
    for node in plan.nodes_in(tor.rack) {
        for family in [4, 6] {
            text += &node_session(tor, node, family);
        }
    }
    text
}

fn head(tor: &Tor) -> String {
    format!(
        "# {name}: routes between the pods of rack {rack}, those of the other rack, and itself.
router id {id};
hostname \"{name}\";
log stderr all;
debug protocols {{ states }};
timeformat protocol iso short ms;

protocol device {{
  scan time 5;
}}

protocol direct {{
  ipv4;
  ipv6;
  interface \"{RACK_BRIDGE}\", \"{TOR_LINK}\";
}}
",
        name = tor.name,
        rack = tor.rack,
        id = tor.address.v4,
    )
}

/// The ToR forwards by the kernel; its own packets carry its address on the rack, which is announced.
fn kernel(tor: &Tor, family: u8) -> String {
    let (own, _) = pick(family, tor.address, tor.address);
    format!(
        "
protocol kernel kernel_v{family} {{
  merge paths on limit 16;
  graceful restart on;
  scan time 10;
  ipv{family} {{
    import none;
    export filter {{
      if source != RTS_BGP then reject;
      krt_prefsrc = {own};
      accept;
    }};
  }};
}}
"
    )
}

fn filters(tor: &Tor, family: u8, index: usize) -> String {
    let cluster = CLUSTER_SPACE[index];
    let fabric = FABRIC_SPACE[index];
    let segment = &tor.segment[index];
    format!(
        "
# From a host: what the cluster may use, at any length, and only the host's own: no transit.
filter from_host_v{family} {{
  if net !~ [ {cluster}+ ] then reject \"outside the cluster's space: \", net;
  if bgp_path.len > 1 then reject \"transit: \", net;
  accept;
}}

# To a host: pods everywhere, and how to reach the other rack and the routers.
filter to_host_v{family} {{
  if net ~ [ {segment} ] then reject;
  if net ~ [ {cluster}+, {fabric}+ ] then accept;
  reject;
}}

filter from_tor_v{family} {{
  if net ~ [ {segment}+ ] then reject \"our own segment: \", net;
  if net ~ [ {cluster}+, {fabric}+ ] then accept;
  reject;
}}

filter to_tor_v{family} {{
  if net ~ [ {cluster}+, {segment} ] then accept;
  reject;
}}
"
    )
}

fn node_session(tor: &Tor, node: &Node, family: u8) -> String {
    let (local, remote) = pick(family, tor.address, node.address);
    format!(
        "
protocol bgp {name} from host {{
  description \"{node}\";
  local {local} as {asn};
  neighbor {remote} as {remote_asn};
  interface \"{RACK_BRIDGE}\";
  ipv{family} {{
    import keep filtered on;
    import limit 1000 action block;
    import filter from_host_v{family};
    export filter to_host_v{family};
  }};
}}
",
        name = session(&node.name, family),
        node = node.name,
        asn = tor.asn,
        remote_asn = node.asn,
    )
}

fn pick(family: u8, local: crate::plan::Dual, remote: crate::plan::Dual) -> (String, String) {
    if family == 4 {
        (local.v4.to_string(), remote.v4.to_string())
    } else {
        (local.v6.to_string(), remote.v6.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Rack;

    #[test]
    fn a_tor_has_two_sessions_per_node_of_its_rack_and_two_with_the_other_tor() {
        let plan = Plan::new(Path::new("/x"), 4);
        let text = render(&plan, plan.tor(Rack::A));
        let sessions: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("protocol bgp ")?.split(' ').next())
            .collect();
        assert_eq!(
            sessions,
            ["tor_b_v4", "tor_b_v6", "n1_v4", "n1_v6", "n2_v4", "n2_v6"]
        );
        assert!(
            text.contains("neighbor 172.30.1.12 as 4200000002;"),
            "{text}"
        );
        assert!(
            text.contains("neighbor fd00:30:1::12 as 4200000002;"),
            "{text}"
        );
    }

    #[test]
    fn every_channel_is_filtered_both_ways() {
        let plan = Plan::new(Path::new("/x"), 3);
        for tor in &plan.tors {
            let text = render(&plan, tor);
            assert!(!text.contains("import all") && !text.contains("export all"));
            let filters = |what| text.matches(what).count();
            assert_eq!(
                filters("    import filter "),
                text.matches("\nprotocol bgp ").count()
            );
            assert_eq!(
                filters("    import filter ") + 2,
                filters("    export filter ")
            );
        }
    }
}
