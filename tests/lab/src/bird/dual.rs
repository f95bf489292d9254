//! BIRD's configuration of the routers of a dual-ToR fabric: every router in an AS of its own, equal paths merged,
//! graceful restart both ways, sessions that end with their link.

use std::fmt::Write as _;

use super::config::session;
use crate::fabric::dual::{API, SPINE_LINK};
use crate::plan::{BFD, CLUSTER_SPACE, Dual, FABRIC_SPACE, Plan, Spine, Tor, spine_end};

/// What the links between machines are numbered from: nobody needs to reach them from afar.
const LINKS: [&str; 2] = ["172.30.64.0/18", "fd00:30:64::/48"];

/// One session of one family.
struct Session<'a> {
    /// The other side's name.
    peer: &'a str,
    interface: &'a str,
    template: &'a str,
    local: Dual,
    asn: u32,
    remote: Dual,
    remote_asn: u32,
    /// Names of the filters, without the family.
    filters: [&'a str; 2],
}

/// bird.conf of a ToR.
pub fn tor(plan: &Plan, place: usize, tor: &Tor) -> String {
    let own = "routes between the nodes of its rack and the spine";
    let mut text = head(&tor.name, own, tor.address, &["lo"]);
    for (index, family) in [4_u8, 6].into_iter().enumerate() {
        text += &kernel(tor.address, family);
        text += &tor_filters(tor, family, index);
    }
    text += &templates(plan);
    if let Some(spine) = &plan.spine {
        text += &sessions(&Session {
            peer: &spine.name,
            interface: SPINE_LINK,
            template: "core",
            local: tor.link,
            asn: tor.asn,
            remote: spine_end(place),
            remote_asn: spine.asn,
            filters: ["from_spine", "to_spine"],
        });
    }
    for node in &plan.nodes {
        for link in node.uplinks.iter().filter(|link| link.tor == tor.name) {
            text += &sessions(&Session {
                peer: &node.name,
                interface: &node.name,
                template: "host",
                local: link.far,
                asn: tor.asn,
                remote: link.near,
                remote_asn: node.asn,
                filters: ["from_host", "to_host"],
            });
        }
    }
    text
}

/// bird.conf of the spine.
pub fn spine(plan: &Plan, spine: &Spine) -> String {
    let own = "routes between the ToRs, and to the API server";
    let mut text = head(&spine.name, own, spine.address, &["lo", API]);
    for (index, family) in [4_u8, 6].into_iter().enumerate() {
        text += &kernel(spine.address, family);
        let (cluster, fabric) = (CLUSTER_SPACE[index], FABRIC_SPACE[index]);
        let _ = write!(
            text,
            "
filter both_ways_v{family} {{
  if net ~ [ {cluster}+, {fabric}+ ] then accept;
  reject;
}}
"
        );
    }
    text += &templates(plan);
    for (place, tor) in plan.tors.iter().enumerate() {
        text += &sessions(&Session {
            peer: &tor.name,
            interface: &tor.name,
            template: "core",
            local: spine_end(place),
            asn: spine.asn,
            remote: tor.link,
            remote_asn: tor.asn,
            filters: ["both_ways", "both_ways"],
        });
    }
    text
}

/// A link that has no carrier ends its sessions at once; a peer that restarts is given time, so are we.
/// A host's BFD ends when its daemon does, which is no failure of the link: the routes stay as for a restart.
fn templates(plan: &Plan) -> String {
    let (interval, multiplier) = BFD;
    let (protocol, core, host) = if plan.bfd {
        let protocol = format!(
            "
protocol bfd {{
  interface \"*\" {{ interval {interval} ms; multiplier {multiplier}; }};
}}
"
        );
        (protocol, "\n  bfd on;", "\n  bfd graceful;")
    } else {
        (String::new(), "", "")
    };
    let common = "
  graceful restart on;
  check link on;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 3;";
    format!(
        "{protocol}
template bgp core {{{common}{core}
}}

template bgp host {{{common}{host}
  enforce first as on;
}}
"
    )
}

fn head(name: &str, what: &str, address: Dual, direct: &[&str]) -> String {
    let direct: Vec<String> = direct.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "# {name}: {what}.
router id {id};
hostname \"{name}\";
log stderr all;
debug protocols {{ states }};
timeformat protocol iso short ms;
graceful restart wait 30;

protocol device {{
  scan time 5;
}}

protocol direct {{
  ipv4;
  ipv6;
  interface {direct};
}}
",
        id = address.v4,
        direct = direct.join(", "),
    )
}

/// The router forwards by the kernel, over all equal paths; its own packets carry its own address.
fn kernel(own: Dual, family: u8) -> String {
    let own = pick(family, own);
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

fn tor_filters(tor: &Tor, family: u8, index: usize) -> String {
    let (cluster, fabric) = (CLUSTER_SPACE[index], FABRIC_SPACE[index]);
    let (links, segment) = (LINKS[index], &tor.segment[index]);
    let host = if family == 4 { "{32,32}" } else { "{128,128}" };
    format!(
        "
# From a host: what the cluster may use, at any length, and addresses of nodes of this rack; no transit.
filter from_host_v{family} {{
  if bgp_path.len > 1 then reject \"transit: \", net;
  if net ~ [ {cluster}+, {segment}{host} ] then accept;
  reject \"outside the cluster's space: \", net;
}}

# To a host: pods, nodes, routers and the API everywhere.
filter to_host_v{family} {{
  if net ~ [ {links}+ ] then reject;
  if net ~ [ {cluster}+, {fabric}+ ] then accept;
  reject;
}}

filter from_spine_v{family} {{
  if net ~ [ {cluster}+, {fabric}+ ] then accept;
  reject;
}}

filter to_spine_v{family} {{
  if net ~ [ {links}+ ] then reject;
  if net ~ [ {cluster}+, {segment}+ ] then accept;
  reject;
}}
"
    )
}

fn sessions(it: &Session<'_>) -> String {
    let mut text = String::new();
    for family in [4, 6] {
        let limit = match it.template {
            "host" => "\n    import limit 1000 action block;",
            _ => "",
        };
        let _ = write!(
            text,
            "
protocol bgp {name} from {template} {{
  description \"{peer}\";
  local {local} as {asn};
  neighbor {remote} as {remote_asn};
  interface \"{interface}\";
  ipv{family} {{
    import keep filtered on;{limit}
    import filter {import}_v{family};
    export filter {export}_v{family};
    next hop self;
  }};
}}
",
            name = session(it.peer, family),
            template = it.template,
            peer = it.peer,
            local = pick(family, it.local),
            asn = it.asn,
            remote = pick(family, it.remote),
            remote_asn = it.remote_asn,
            interface = it.interface,
            import = it.filters[0],
            export = it.filters[1],
        );
    }
    text
}

fn pick(family: u8, address: Dual) -> String {
    if family == 4 {
        address.v4.to_string()
    } else {
        address.v6.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Fabric;

    #[test]
    fn a_tor_speaks_with_the_spine_and_the_nodes_of_its_rack_over_their_own_links() {
        let plan = Plan::with_fabric(Path::new("/x"), 3, Fabric::DualTor);
        let text = tor(&plan, 1, &plan.tors[1]);
        let names: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("protocol bgp ")?.split(' ').next())
            .collect();
        assert_eq!(
            names,
            ["spine_v4", "spine_v6", "n1_v4", "n1_v6", "n2_v4", "n2_v6"]
        );
        let n1 = &plan.nodes[0].uplinks[1];
        for address in n1.near.both() {
            let line = format!("neighbor {address} as 4200000001;");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn no_channel_is_unfiltered() {
        let plan = Plan::with_fabric(Path::new("/x"), 3, Fabric::DualTor);
        let mut texts: Vec<String> = plan
            .tors
            .iter()
            .enumerate()
            .map(|(place, it)| tor(&plan, place, it))
            .collect();
        texts.extend(plan.spine.iter().map(|it| spine(&plan, it)));
        for text in texts {
            assert!(!text.contains("import all") && !text.contains("export all"));
            let count = |what| text.matches(what).count();
            assert_eq!(
                count("    import filter "),
                count("\nprotocol bgp "),
                "{text}"
            );
        }
    }
}
