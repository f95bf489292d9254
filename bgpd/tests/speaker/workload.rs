//! Peers that are pods on this node: nothing of theirs is taken unless a filter names it, and what is taken is told like what
//! the node itself originates.

use bgpd::config::filter::Action;
use bgpd::config::{Config, ImportPolicy, OriginKind, Pool};
use bgpd::policy::ImportRefusal;
use bgpd::speaker::{ConnId, Input};
use crds::net::Family;

use crate::bench::{Bench, announced, with_peers};
use crate::routes::{external, filter, import_by, inside};
use crate::sim::cidr;

/// A pod at 192.0.2.2 and a ToR at 192.0.2.3, which is told origins.
fn config() -> Config {
    let mut config = with_peers(2);
    for peer in &mut config.peers {
        peer.import = ImportPolicy::Pools;
    }
    config.peers[0].options.workload = true;
    config.pools = vec![Pool {
        cidr: cidr("10.244.0.0/16"),
        block_size: 26,
    }];
    config.import_ranges = vec![cidr("192.168.0.0/16")];
    config
}

fn bench(config: Config) -> Bench {
    let mut bench = Bench::started(config);
    bench.input(Input::Origin {
        prefix: cidr("10.244.7.0/26"),
        kind: OriginKind::Block,
        withdrawn: false,
    });
    bench.input(Input::OriginsComplete);
    for host in [2, 3] {
        bench.join(host, &[Family::V4]);
    }
    bench
}

#[test]
fn a_pod_cannot_take_what_belongs_to_others() {
    let mut bench = bench(config());
    for (prefix, refusal) in [
        ("10.244.1.0/26", ImportRefusal::Workload),
        ("192.168.3.1/32", ImportRefusal::Workload),
        ("10.251.0.0/24", ImportRefusal::Workload),
        ("10.244.7.1/32", ImportRefusal::InsideOwn),
    ] {
        let outputs = bench.announce_with(2, &external(2, &[]), &[cidr(prefix)]);
        assert_eq!(bench.refusal(prefix), Some(refusal), "{prefix}");
        assert_eq!(announced(&outputs, ConnId::In(3)), []);
    }
}

#[test]
fn what_a_filter_names_is_told_to_tors_and_theirs_to_nobody() {
    let mut config = config();
    let theirs = filter(inside("10.251.0.0/16"), vec![], Action::Accept);
    import_by(&mut config, 2, "theirs", theirs);
    let mut bench = bench(config);
    let routed = cidr("10.251.1.0/24");
    let outputs = bench.announce_with(2, &external(2, &[]), &[routed]);
    assert_eq!(announced(&outputs, ConnId::In(3)), [routed]);
    // Anything else of the pod is refused as before; a ToR's route is no origin, not even for the pod.
    bench.announce_with(2, &external(2, &[]), &[cidr("10.244.1.0/26")]);
    assert_eq!(
        bench.refusal("10.244.1.0/26"),
        Some(ImportRefusal::Workload)
    );
    let outputs = bench.announce_with(3, &external(3, &[]), &[cidr("10.244.9.0/26")]);
    assert_eq!(announced(&outputs, ConnId::In(2)), []);
}
