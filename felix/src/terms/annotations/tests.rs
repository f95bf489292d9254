use super::*;

fn read(said: &[(&str, &str)]) -> (Asked, Vec<Problem>) {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    parse(&said.iter().map(owned).collect())
}

#[test]
fn everything_that_can_be_asked_for_is_understood() {
    let (asked, problems) = read(&[
        (SOURCES, r#"["192.0.2.0/24", "2001:db8::/64"]"#),
        (FLOATING, r#"["198.51.100.7"]"#),
        ("qos.margay.io/ingressBandwidth", "10M"),
        ("kubernetes.io/ingress-bandwidth", "1G"),
        ("kubernetes.io/egress-bandwidth", "1.5M"),
        ("qos.margay.io/egressBurst", "8Mi"),
        ("qos.margay.io/egressPacketRate", "10k"),
        ("qos.margay.io/egressPacketBurst", "20"),
        ("qos.margay.io/ingressPacketRate", "7"),
        ("qos.margay.io/ingressMaxConnections", "1k"),
        ("qos.margay.io/egressMaxConnections", "65535"),
        ("qos.margay.io/dscp", "ef"),
    ]);
    assert_eq!(problems, []);
    let [to, from] = asked.limits;
    let shape = |rate, burst| Some(Shape { rate, burst });
    assert_eq!(to.bandwidth, shape(1_250_000, BURST), "ours counts");
    assert_eq!(from.bandwidth, shape(187_500, 1 << 20));
    assert_eq!(
        (to.packets, from.packets),
        (Some((7, 5)), Some((10_000, 20)))
    );
    assert_eq!((asked.sources.len(), asked.floating.len()), (2, 1));
    assert_eq!(asked.dscp, Some(46));
    assert_eq!(
        (to.connections, from.connections),
        (Some(1000), Some(65_535))
    );
    assert!(asked.is_limited() && asked.is_counted());
    assert!(
        !read(&[("qos.margay.io/egressPacketRate", "1")])
            .0
            .is_counted()
    );
}

#[test]
fn what_is_not_understood_is_named_and_leaves_the_rest_in_force() {
    for (name, value) in [
        (SOURCES, "192.0.2.0/24"),
        (SOURCES, r#"["192.0.2.1/24"]"#),
        (SOURCES, r#"[1]"#),
        (FLOATING, r#"["192.0.2.0/24"]"#),
        ("qos.margay.io/ingressBandwidth", "fast"),
        ("qos.margay.io/ingressBandwidth", "999"),
        ("qos.margay.io/ingressBandwidth", "2P"),
        ("qos.margay.io/ingressBandwidth", "-1M"),
        ("kubernetes.io/egress-bandwidth", ""),
        ("qos.margay.io/ingressBurst", "4M"),
        ("qos.margay.io/egressPacketRate", "0"),
        ("qos.margay.io/egressPacketRate", "1.5"),
        ("qos.margay.io/egressPacketBurst", "5"),
        ("qos.margay.io/egressMaxConnections", "0"),
        ("qos.margay.io/ingressMaxConnections", "65536"),
        ("qos.margay.io/ingressMaxConnections", "few"),
        ("qos.margay.io/maxConnections", "5"),
        ("qos.margay.io/dscp", "64"),
        ("qos.margay.io/dscp", "AF14"),
        ("qos.margay.io/dscp", "CS8"),
        ("qos.margay.io/ingressbandwidth", "10M"),
    ] {
        let (asked, problems) = read(&[(name, value), ("qos.margay.io/egressBandwidth", "1M")]);
        let [problem] = problems.as_slice() else {
            panic!("{name}={value}: {problems:?}");
        };
        assert_eq!(problem.annotation, name, "{value}");
        assert!(problem.to_string().starts_with("annotation "), "{problem}");
        assert_eq!(
            asked.limits[Way::Out as usize].bandwidth.map(|it| it.rate),
            Some(125_000)
        );
    }
}

#[test]
fn every_name_of_a_code_point_is_its_number() {
    for (name, number) in [
        ("DF", 0),
        ("CS0", 0),
        ("CS7", 56),
        ("AF11", 10),
        ("AF43", 38),
        ("VA", 44),
        ("LE", 1),
        ("0", 0),
        ("63", 63),
    ] {
        assert_eq!(dscp(name), Ok(number));
    }
}
