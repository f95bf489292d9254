//! What each command shows of an answer.

use std::fmt::Write as _;

use api::v1;

use crate::query::NodeAndSpeaker;
use crate::table::{Cell, Screen, Table, Tone, duration};

pub(crate) fn status(both: &NodeAndSpeaker, screen: Screen) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<12}{}", text.trim_end());
    };
    let yes_no = |yes: bool, good: &str, bad: &str| {
        if yes {
            screen.paint(good, Tone::Good)
        } else {
            screen.paint(bad, Tone::Bad)
        }
    };
    let away = screen.paint("does not answer", Tone::Bad);
    match &both.felix {
        None => line("felix", away.clone()),
        Some(felix) => {
            line("node", felix.node.clone());
            line(
                "felix",
                format!(
                    "{}, API {}, bgpd {}, up {}, version {}",
                    yes_no(felix.synced, "in step", "not in step yet"),
                    yes_no(felix.api_connected, "connected", "away"),
                    yes_no(felix.bgpd_connected, "connected", "away"),
                    duration(felix.uptime_seconds),
                    felix.version,
                ),
            );
            line(
                "holds",
                format!(
                    "{}, {}, {}",
                    counted(felix.endpoints, "endpoint", "endpoints"),
                    counted(felix.blocks, "block", "blocks"),
                    counted(felix.policies, "policy", "policies"),
                ),
            );
            line(
                "kernel",
                format!(
                    "{}, {}, {}",
                    counted(felix.workload_routes, "workload route", "workload routes"),
                    counted(felix.bgp_routes, "BGP route", "BGP routes"),
                    counted(felix.nft_elements, "set element", "set elements"),
                ),
            );
            line(
                "latency",
                format!(
                    "ADD {:.1}/{:.1} ms, policy {:.1}/{:.1} ms (p50/p99)",
                    felix.add_p50_ms, felix.add_p99_ms, felix.policy_p50_ms, felix.policy_p99_ms
                ),
            );
            if felix.policy_events_left_out > 0 {
                line(
                    "events",
                    format!(
                        "{} packets of policy were too many to be told of",
                        felix.policy_events_left_out
                    ),
                );
            }
        }
    }
    match &both.bgpd {
        None => line("bgpd", away),
        Some(bgpd) => {
            let all_up = bgpd.neighbors_established == bgpd.neighbors_configured;
            let tone = if all_up { Tone::Good } else { Tone::Warn };
            line(
                "bgpd",
                format!(
                    "AS {}, router id {}, {}, {}, {}, up {}, version {}",
                    bgpd.asn,
                    bgpd.router_id,
                    screen.paint(
                        &format!(
                            "{} of {} sessions established",
                            bgpd.neighbors_established, bgpd.neighbors_configured
                        ),
                        tone
                    ),
                    counted(bgpd.origins, "origin", "origins"),
                    counted(bgpd.routes, "route", "routes"),
                    duration(bgpd.uptime_seconds),
                    bgpd.version,
                ),
            );
            for drain in &bgpd.drains {
                line("drained", screen.paint(drain, Tone::Warn));
            }
        }
    }
    if both.problems.is_empty() {
        line("problems", "none".to_owned());
    } else {
        for problem in &both.problems {
            line("problem", screen.paint(problem, Tone::Bad));
        }
    }
    out
}

pub(crate) fn neighbors(neighbors: &[v1::Neighbor], wide: bool, screen: Screen) -> String {
    if neighbors.is_empty() {
        return "bgpd has no peer configured: apply a BGPPeer that selects this node, or list peers in the file\n".to_owned();
    }
    let mut heading = vec![
        "NEIGHBOR", "NAME", "AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "SENT",
    ];
    if wide {
        heading.extend([
            "ROUTER-ID",
            "LOCAL-AS",
            "HOLD",
            "EOR",
            "UPS",
            "MSGS-IN",
            "MSGS-OUT",
            "BFD",
            "CAPABILITIES",
        ]);
    }
    heading.push("LAST-ERROR");
    let mut table = Table::new(&heading);
    for nbr in neighbors {
        let tone = match nbr.state.as_str() {
            "Established" => Tone::Good,
            "Idle" => Tone::Bad,
            _ => Tone::Warn,
        };
        let mut row: Vec<Cell> = vec![
            nbr.address.as_str().into(),
            nbr.name.as_str().into(),
            nbr.peer_asn.into(),
            Cell::toned(nbr.state.as_str(), tone),
            duration(nbr.state_seconds).into(),
            per_family(nbr, |f| f.received),
            per_family(nbr, |f| f.accepted),
            per_family(nbr, |f| f.advertised),
        ];
        if wide {
            let eor: Vec<&str> = nbr
                .families
                .iter()
                .filter(|f| f.end_of_rib)
                .map(|f| f.family.as_str())
                .collect();
            row.extend([
                nbr.peer_router_id.as_str().into(),
                nbr.local_asn.into(),
                nbr.hold_seconds.into(),
                eor.join(",").into(),
                nbr.established_count.into(),
                nbr.messages_received.into(),
                nbr.messages_sent.into(),
                nbr.bfd.as_str().into(),
                nbr.capabilities.join(",").into(),
            ]);
        }
        let why = match nbr.problem.as_str() {
            "" => nbr.last_error.as_str(),
            problem => problem,
        };
        row.push(why.into());
        table.row(row);
    }
    table.render(screen)
}

pub(crate) fn bfd(answer: &v1::ListBfdSessionsResponse, wide: bool, screen: Screen) -> String {
    let mut text = String::new();
    if !answer.problem.is_empty() {
        text += &screen.paint(&answer.problem, Tone::Bad);
        text.push('\n');
    }
    if answer.sessions.is_empty() {
        return text + "no BFD session: no peer is configured with BFD\n";
    }
    let mut heading = vec![
        "PEER",
        "INTERFACE",
        "STATE",
        "SINCE",
        "SEND",
        "DETECT",
        "UPS",
        "FAILED",
    ];
    if wide {
        heading.extend([
            "LOCAL",
            "DISCR",
            "PEER-DISCR",
            "IN",
            "OUT",
            "DIAGNOSTIC",
            "PEER-STATE",
        ]);
    }
    heading.push("PEER-DIAGNOSTIC");
    let mut table = Table::new(&heading);
    for session in &answer.sessions {
        let tone = match session.state.as_str() {
            "Up" => Tone::Good,
            "Init" => Tone::Warn,
            _ => Tone::Bad,
        };
        let mut row: Vec<Cell> = vec![
            session.peer.as_str().into(),
            session.interface.as_str().into(),
            Cell::toned(session.state.as_str(), tone),
            duration(session.state_millis / 1000).into(),
            millis(session.transmit_micros.into()),
            millis(session.detection_micros),
            session.up_count.into(),
            session.failed_count.into(),
        ];
        if wide {
            row.extend([
                session.local.as_str().into(),
                session.discriminator.into(),
                session.remote_discriminator.into(),
                session.received.into(),
                session.sent.into(),
                session.diagnostic.as_str().into(),
                session.remote_state.as_str().into(),
            ]);
        }
        row.push(session.remote_diagnostic.as_str().into());
        table.row(row);
    }
    text += &table.render(screen);
    if !answer.refused.is_empty() {
        let mut refused: Vec<_> = answer.refused.iter().collect();
        refused.sort();
        let refused = refused.iter().map(|(why, count)| format!("{why} {count}"));
        text += &format!(
            "packets dropped: {}\n",
            refused.collect::<Vec<_>>().join(", ")
        );
    }
    text
}

/// `300ms`; empty for none.
fn millis(micros: u64) -> Cell {
    match micros {
        0 => Cell::default(),
        _ => format!("{}ms", micros.div_ceil(1000)).into(),
    }
}

/// `4:12 6:3`; only negotiated families.
fn per_family(nbr: &v1::Neighbor, number: impl Fn(&v1::FamilyCount) -> u32) -> Cell {
    nbr.families
        .iter()
        .filter(|f| f.negotiated)
        .map(|f| format!("{}:{}", f.family.trim_start_matches("ipv"), number(f)))
        .collect::<Vec<_>>()
        .join(" ")
        .into()
}

pub(crate) fn routes(routes: &[v1::Route], wide: bool, screen: Screen) -> String {
    if routes.is_empty() {
        return "no route\n".to_owned();
    }
    let mut heading = vec!["", "PREFIX", "NEIGHBOR", "NEXT-HOP", "AS-PATH", "AGE"];
    if wide {
        heading.extend(["ORIGIN", "LOCAL-PREF", "MED", "COMMUNITIES"]);
    }
    heading.push("WHY-NOT-BEST");
    let mut table = Table::new(&heading);
    let mut before = "";
    for route in routes {
        // The best one comes first.
        let first = route.prefix != before;
        before = &route.prefix;
        let mark = match (route.best || route.multipath, first) {
            (true, true) => Cell::toned(">", Tone::Good),
            (true, false) => Cell::toned("=", Tone::Good),
            (false, _) => Cell::toned("x", Tone::Warn),
        };
        let path = route.as_path.iter().map(ToString::to_string);
        let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        let mut row: Vec<Cell> = vec![
            mark,
            route.prefix.as_str().into(),
            route.neighbor.as_str().into(),
            route.next_hop.as_str().into(),
            path.collect::<Vec<_>>().join(" ").into(),
            duration(route.age_seconds).into(),
        ];
        if wide {
            row.extend([
                route.origin.as_str().into(),
                number(route.local_pref).into(),
                number(route.med).into(),
                route.communities.join(",").into(),
            ]);
        }
        row.push(route.reason.as_str().into());
        table.row(row);
    }
    table.render(screen) + "> best   = equal cost, used with it   x not used\n"
}

pub(crate) fn blocks(blocks: &[v1::Block], wide: bool, screen: Screen) -> String {
    if blocks.is_empty() {
        return "this node owns no block: is there an enabled IPPool that selects it?\n".to_owned();
    }
    let mut table = Table::new(&["BLOCK", "POOL", "STATE", "USED", "FREE", "EPOCH"]);
    for block in blocks {
        let tone = match block.state.as_str() {
            "Owned" => Tone::Good,
            "Quarantined" => Tone::Bad,
            _ => Tone::Warn,
        };
        table.row(vec![
            block.cidr.as_str().into(),
            block.pool.as_str().into(),
            Cell::toned(block.state.as_str(), tone),
            block.used.into(),
            block.size.saturating_sub(block.used).into(),
            block.epoch.as_str().into(),
        ]);
    }
    let mut out = table.render(screen);
    if wide && blocks.iter().any(|b| !b.allocations.is_empty()) {
        let mut table = Table::new(&["ADDRESS", "POD", "INTERFACE", "CONTAINER", "POD-UID"]);
        for allocation in blocks.iter().flat_map(|b| &b.allocations) {
            table.row(vec![
                allocation.address.as_str().into(),
                allocation.pod.as_str().into(),
                allocation.interface.as_str().into(),
                allocation.container_id.as_str().into(),
                allocation.pod_uid.as_str().into(),
            ]);
        }
        out = out + "\n" + &table.render(screen);
    }
    out
}

pub(crate) fn endpoints(endpoints: &[v1::Endpoint], wide: bool, screen: Screen) -> String {
    if endpoints.is_empty() {
        return "no workload endpoint on this node\n".to_owned();
    }
    let mut heading = vec!["POD", "STATE", "INTERFACE", "ADDRESSES"];
    if wide {
        heading.extend([
            "CONTAINER",
            "POD-UID",
            "INGRESS-POLICIES",
            "EGRESS-POLICIES",
        ]);
    } else {
        heading.push("POLICIES");
    }
    let mut table = Table::new(&heading);
    for endpoint in endpoints {
        let tone = match endpoint.state.as_str() {
            "Ready" => Tone::Good,
            _ => Tone::Warn,
        };
        let mut row: Vec<Cell> = vec![
            endpoint.pod.as_str().into(),
            Cell::toned(endpoint.state.as_str(), tone),
            endpoint.interface.as_str().into(),
            endpoint.addresses.join(",").into(),
        ];
        if wide {
            row.extend([
                endpoint.container_id.as_str().into(),
                endpoint.pod_uid.as_str().into(),
                endpoint.ingress_policies.join(",").into(),
                endpoint.egress_policies.join(",").into(),
            ]);
        } else {
            row.push(
                format!(
                    "{} in, {} out",
                    endpoint.ingress_policies.len(),
                    endpoint.egress_policies.len()
                )
                .into(),
            );
        }
        table.row(row);
    }
    table.render(screen)
}

/// Policies in the order in which they are asked.
pub(crate) fn policies(policies: &[v1::Policy], wide: bool, screen: Screen) -> String {
    if policies.is_empty() {
        return "no policy has to do with this node\n".to_owned();
    }
    let mut columns = vec![
        "POLICY",
        "KIND",
        "TIER",
        "ORDER",
        "TYPES",
        "ENDPOINTS",
        "GENERATION",
    ];
    if wide {
        columns.extend(["SEEN", "RULES", "ENFORCEMENT", "TIER ORDER"]);
    }
    columns.push("ERROR");
    let mut table = Table::new(&columns);
    for policy in policies {
        let types = match (policy.ingress, policy.egress) {
            (true, true) => "Ingress,Egress",
            (true, false) => "Ingress",
            (false, true) => "Egress",
            (false, false) => "",
        };
        let mut row: Vec<Cell> = vec![
            policy.name.as_str().into(),
            policy.kind.as_str().into(),
            policy.tier.as_str().into(),
            order(policy.order).into(),
            types.into(),
            policy.endpoints.into(),
            policy.generation.to_string().into(),
        ];
        if wide {
            let enforcement = if policy.audit { "Audit" } else { "Enforce" };
            row.extend([
                policy.newest_generation.to_string().into(),
                policy.rules.into(),
                enforcement.into(),
                order(policy.tier_order).into(),
            ]);
        }
        row.push(Cell::toned(policy.error.as_str(), Tone::Bad));
        table.row(row);
    }
    table.render(screen)
}

/// Whoever has no order comes last.
pub(crate) fn order(order: f64) -> String {
    match order.is_finite() {
        true => order.to_string(),
        false => "last".to_owned(),
    }
}

fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_say_which_path_is_used_and_why_the_others_are_not() {
        let path = |neighbor: &str, best, multipath, reason: &str| v1::Route {
            prefix: "10.244.1.0/26".into(),
            neighbor: neighbor.into(),
            next_hop: neighbor.into(),
            as_path: vec![64601, 4_200_000_003],
            best,
            multipath,
            reason: reason.into(),
            age_seconds: 61,
            ..Default::default()
        };
        let text = routes(
            &[
                path("192.0.2.1", true, true, ""),
                path("192.0.2.2", true, true, ""),
                path("192.0.2.3", false, false, "longer AS path"),
            ],
            false,
            Screen::default(),
        );
        assert_eq!(
            text,
            "\
\x20  PREFIX         NEIGHBOR   NEXT-HOP   AS-PATH           AGE    WHY-NOT-BEST
>  10.244.1.0/26  192.0.2.1  192.0.2.1  64601 4200000003  1m01s  -
=  10.244.1.0/26  192.0.2.2  192.0.2.2  64601 4200000003  1m01s  -
x  10.244.1.0/26  192.0.2.3  192.0.2.3  64601 4200000003  1m01s  longer AS path
> best   = equal cost, used with it   x not used
"
        );
    }

    #[test]
    fn neighbours_count_only_negotiated_families() {
        let family = |family: &str, negotiated, received| v1::FamilyCount {
            family: family.into(),
            negotiated,
            received,
            accepted: received,
            ..Default::default()
        };
        let text = neighbors(
            &[v1::Neighbor {
                name: "tor-a".into(),
                address: "192.0.2.1".into(),
                peer_asn: 64601,
                state: "Established".into(),
                state_seconds: 5,
                families: vec![family("ipv4", true, 3), family("ipv6", false, 0)],
                ..Default::default()
            }],
            false,
            Screen::default(),
        );
        assert_eq!(
            text,
            "\
NEIGHBOR   NAME   AS     STATE        SINCE  RECEIVED  ACCEPTED  SENT  LAST-ERROR
192.0.2.1  tor-a  64601  Established  5s     4:3       4:3       4:0   -
"
        );
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        assert!(neighbors(&[], false, Screen::default()).contains("BGPPeer"));
        assert!(blocks(&[], false, Screen::default()).contains("IPPool"));
    }

    #[test]
    fn status_names_what_is_away() {
        let both = NodeAndSpeaker {
            felix: None,
            bgpd: Some(v1::Speaker {
                asn: 4_200_000_001,
                router_id: "10.0.1.1".into(),
                neighbors_configured: 2,
                neighbors_established: 1,
                origins: 1,
                routes: 7,
                uptime_seconds: 75,
                version: "0.1.0".into(),
                drains: vec!["addresses of services: withdrawn in 12 s".into()],
                ..Default::default()
            }),
            problems: vec!["felix does not answer".into()],
        };
        assert_eq!(
            status(&both, Screen::default()),
            "\
felix       does not answer
bgpd        AS 4200000001, router id 10.0.1.1, 1 of 2 sessions established, 1 origin, 7 routes, up 1m15s, version 0.1.0
drained     addresses of services: withdrawn in 12 s
problem     felix does not answer
"
        );
    }
}
