//! Peers from a range.

use crate::rig::Rig;
use crate::support::wait_for;

#[test]
fn a_range_with_one_key_takes_as_many_as_it_may() {
    let rig = Rig::new();
    let mut theirs = String::from(
        "router id 192.0.2.254;\nprotocol static { ipv4; route 10.244.1.0/26 blackhole; }\n",
    );
    for (name, host, key) in [
        ("one", 129, "rack"),
        ("two", 130, "rack"),
        ("three", 131, "rack"),
        ("four", 132, "other"),
    ] {
        rig.tor.ip(&format!("addr add 192.0.2.{host}/24 dev up0"));
        // BIRD has one session with one address.
        let own = host - 100;
        rig.node.ip(&format!("addr add 192.0.2.{own}/24 dev up0"));
        theirs += &format!(
            "protocol bgp {name} from fast {{ local 192.0.2.{host} as 64601; neighbor 192.0.2.{own} as 4200000001; \
             password \"{key}\"; ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
        );
    }
    let config = |more: &str| {
        format!(
            "asNumber: 4200000001\nrouterID: 192.0.2.1\nholdTimeSeconds: 9\npeers:\n\
             - {{name: rack, peerRange: {{cidr: 192.0.2.128/25, limit: 2}}, password: {{value: rack}}}}\n\
             {more}pools:\n- {{cidr: 10.244.0.0/16}}\norigins: [10.244.0.0/26]\n"
        )
    };
    let bgpd = rig.bgpd(&rig.node, "bgpd", &config(""));
    let bird = rig.bird(&rig.tor, "bird", &theirs);
    bgpd.wait_established(&["rack", "rack"]);
    for neighbor in bgpd.neighbors() {
        assert_eq!(neighbor.range, "192.0.2.128/25");
        assert_eq!(neighbor.peer_asn, 64601);
    }
    bird.wait_route("10.244.0.0/26");
    wait_for("one too many to be told so", || {
        let log = bird.log();
        log.contains("Out of Resources").then_some(())
    });
    assert!(
        !bird.ask("show protocols four").contains("Established"),
        "the wrong key"
    );

    // One goes, and its place is taken; who is configured by itself takes no place.
    let up: Vec<&str> = ["one", "two", "three"]
        .into_iter()
        .filter(|it| {
            bird.ask(&format!("show protocols {it}"))
                .contains("Established")
        })
        .collect();
    assert_eq!(up.len(), 2);
    bird.ask(&format!("disable {}", up[0]));
    wait_for("the third to come up", || {
        let names = ["one", "two", "three"].into_iter();
        let now: Vec<&str> = names
            .filter(|it| {
                bird.ask(&format!("show protocols {it}"))
                    .contains("Established")
            })
            .collect();
        (now.len() == 2 && !now.contains(&up[0])).then_some(())
    });
    bgpd.configure(&config(
        "- {name: own, peerIP: 192.0.2.132, asNumber: 64601, localAddress: 192.0.2.32, password: {value: other}, connect: {retryMinMillis: 100, retryMaxMillis: 500}}\n",
    ));
    bgpd.wait_established(&["own", "rack", "rack"]);
}
