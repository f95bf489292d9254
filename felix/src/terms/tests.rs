use std::collections::BTreeMap;

use crds::felix_configuration::Terms as Chosen;
use crds::ip_pool::Pool;

use super::*;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn pool(cidr_text: &str, nat_outgoing: bool) -> Pool {
    Pool {
        nat_outgoing,
        ..Pool::new("p", cidr(cidr_text))
    }
}

fn listed(terms: &Terms) -> Vec<String> {
    let elements = terms.wanted().elements.iter();
    elements.map(ToString::to_string).collect()
}

fn asking(annotations: &[(&str, &str)]) -> Option<Asking> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let annotations: BTreeMap<_, _> = annotations.iter().map(owned).collect();
    Some(Asking {
        namespace: "shop".into(),
        name: "web".into(),
        annotations,
    })
}

#[test]
fn pools_with_nat_leave_by_the_interface_the_node_or_what_was_chosen() {
    let mut terms = Terms::default();
    terms.pool("a", Some(&pool("10.244.0.0/16", true)));
    terms.pool("b", Some(&pool("10.245.0.0/16", false)));
    terms.pool("c", Some(&pool("10.244.7.0/24", false)));
    terms.node("n1", Some(&["192.0.2.1".parse().unwrap()]));
    assert!(terms.settle() && !terms.settle());
    assert_eq!(terms.wanted().rules.outgoing, Some(None));
    let plain = [
        "nat_from4 { 10.244.0.0-10.244.255.255 }",
        "nat_not4 { 10.244.0.0-10.244.255.255 }",
        "nat_not4 { 10.245.0.0-10.245.255.255 }",
    ];
    assert_eq!(listed(&terms), plain);
    terms.own(["192.0.2.9".parse().unwrap()].iter());
    terms.choose(Chosen {
        nodes_excluded: true,
        nat_ports: Some((1, 2)),
        ..Chosen::default()
    });
    assert!(terms.settle());
    assert_eq!(terms.wanted().rules.outgoing, Some(Some((1, 2))));
    let all = listed(&terms);
    assert!(
        all.contains(&"nat_not4 { 192.0.2.1 }".to_owned()),
        "{all:?}"
    );
    assert!(
        all.contains(&"nat_to4 { 10.244.0.0-10.244.255.255 : 192.0.2.9 }".to_owned()),
        "{all:?}"
    );
    terms.pool("a", None);
    terms.settle();
    assert_eq!(
        (terms.wanted().rules.outgoing, listed(&terms).len()),
        (None, 0)
    );
}

#[test]
fn what_a_pod_asks_for_comes_and_goes_with_its_interface() {
    let mut terms = Terms::default();
    let said = [
        (SOURCES, r#"["192.0.2.0/24", "192.0.2.8/32"]"#),
        ("qos.margay.io/ingressBandwidth", "8M"),
        ("qos.margay.io/egressPacketRate", "10"),
        ("qos.margay.io/dscp", "46"),
        ("qos.margay.io/ingressMaxConnections", "9"),
        ("qos.margay.io/egressBandwidth", "?"),
    ];
    terms.pod("u", asking(&said));
    terms.pool("a", Some(&pool("10.244.0.0/16", false)));
    terms.settle();
    assert!(listed(&terms).is_empty() && !terms.wanted().rules.limits);
    let told: Vec<String> = terms
        .complaints()
        .into_iter()
        .map(|it| it.message)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().any(|it| it.contains("egressBandwidth: \"?\"")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|it| it.contains("workloadSourceSpoofing")),
        "{told:?}"
    );
    terms.link("mgya", Some(("u", "shop/web".into(), &[])));
    assert!(terms.settle() && terms.wanted().rules.limits);
    assert_eq!(terms.complaints(), [], "they were told");
    let want = [
        "limited { \"mgya\" comment \"shop/web\" }",
        "egress_packets { \"mgya\" limit rate over 10/second burst 5 packets comment \"shop/web\" }",
        "ingress_connections { \"mgya\" comment \"shop/web\" : jump ingress_connections_mgya }",
        "code_point { \"mgya\" comment \"shop/web\" : 0:2e }",
        "cluster4 { 10.244.0.0-10.244.255.255 }",
    ];
    assert_eq!(listed(&terms), want);
    assert_eq!(terms.wanted().queues["mgya"].rate, 1_000_000);
    terms.choose(Chosen {
        spoofing: true,
        ..Chosen::default()
    });
    terms.settle();
    let source = "source4 { \"mgya\" . 192.0.2.0-192.0.2.255 comment \"shop/web\" }";
    assert_eq!(listed(&terms)[0], source);
    assert!(terms.wanted().unfiltered.contains("mgya"));
    terms.link("mgya", None);
    terms.settle();
    assert!(listed(&terms).is_empty() && terms.wanted().queues.is_empty());
    assert!(terms.wanted().rules.limits, "for this life");
}

#[test]
fn only_addresses_of_services_are_kept_from_looping_and_only_when_that_is_wanted() {
    let mut terms = Terms::default();
    let mut chosen = Chosen {
        service_cidrs: vec![cidr("10.96.0.0/12"), cidr("fd00:96::/108")],
        ..Chosen::default()
    };
    terms.choose(chosen.clone());
    terms.settle();
    assert_eq!(terms.wanted().rules.services, Some(Services::Drop));
    assert_eq!(listed(&terms).len(), 2);
    chosen.service_loops = chosen::ServiceLoops::Pass;
    terms.choose(chosen);
    terms.settle();
    assert_eq!(
        (terms.wanted().rules.services, listed(&terms).len()),
        (None, 0)
    );
}

#[test]
fn the_oldest_pod_has_a_floating_address_and_only_out_of_a_pool_that_gives_none() {
    let address: IpAddr = "10.250.0.7".parse().unwrap();
    let claim = |created, pod: &str| {
        Some(Claim {
            created,
            pod: pod.to_owned(),
            addresses: vec![address],
        })
    };
    let mut terms = Terms::default();
    let said = [(annotations::FLOATING, r#"["10.250.0.7"]"#)];
    terms.pod("u", asking(&said));
    terms.claim("u", claim(5, "shop/web"));
    terms.claim("v", claim(5, "shop/xen"));
    let own: IpAddr = "10.244.0.9".parse().unwrap();
    terms.link("mgya", Some(("u", "shop/web".into(), &[own])));
    let why = |terms: &mut Terms| {
        terms.settle();
        let told = terms.complaints().into_iter().map(|it| it.message);
        told.collect::<Vec<_>>().join("; ")
    };
    assert!(why(&mut terms).contains("floatingIPs: Enabled"));
    terms.choose(Chosen {
        floating: true,
        ..Chosen::default()
    });
    assert!(why(&mut terms).contains("in no IPPool"));
    terms.pool("f", Some(&pool("10.250.0.0/24", false)));
    assert!(why(&mut terms).contains("disabled: true"));
    let mut disabled = Pool {
        disabled: true,
        ..pool("10.250.0.0/24", false)
    };
    terms.pool("f", Some(&disabled));
    assert!(why(&mut terms).contains("blockSize to 32"));
    disabled.block_size = 32;
    terms.pool("f", Some(&disabled));
    assert_eq!(why(&mut terms), "");
    let want = [
        "floating4 { 10.250.0.7 : 10.244.0.9 }",
        "hairpin4 { 10.244.0.9 . 10.244.0.9 : 10.250.0.7 }",
    ];
    assert_eq!(listed(&terms), want);
    assert_eq!(terms.wanted().floating[&address], "mgya");
    terms.claim("older", claim(4, "zoo/z"));
    assert!(why(&mut terms).contains("zoo/z's"));
    assert!(listed(&terms).is_empty() && terms.wanted().floating.is_empty());
    terms.claim("older", None);
    why(&mut terms);
    assert_eq!(listed(&terms), want);
}
