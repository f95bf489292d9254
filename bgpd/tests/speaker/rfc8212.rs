//! RFC 8212: without a policy nothing is taken from external peers and nothing told to them.

use bgpd::config::filter::{Action, Match};
use bgpd::config::{Config, ExportClass, ImportPolicy, Pool};
use bgpd::policy::ImportRefusal;
use crds::net::Family;

use crate::bench::Bench;
use crate::routes::{export_by, external, filter, import_by, internal, told, with_internal};
use crate::sim::{cidr, origin};

/// 2 and 3 are outside, 4 inside.
fn config() -> Config {
    let mut config = with_internal(3, &[4]);
    config.require_policy = true;
    config.origins = vec![origin("10.1.0.0/26")];
    for peer in &mut config.peers {
        peer.export = ExportClass::Transit;
    }
    config
}

fn bench(config: Config) -> (Bench, Vec<Vec<(crds::net::Cidr, bgpd::wire::Attributes)>>) {
    let mut bench = Bench::started(config);
    let told = (2..=4)
        .map(|host| {
            let (conn, outputs) = bench.join(host, &[Family::V4]);
            told(&outputs, conn, host == 4)
        })
        .collect();
    (bench, told)
}

#[test]
fn an_external_peer_without_policy_is_told_nothing_and_nothing_is_taken() {
    let (mut bench, told) = bench(config());
    let counts: Vec<usize> = told.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 0, 1], "inside the AS no policy is needed");
    bench.announce(2, &[cidr("10.2.0.0/26")]);
    assert_eq!(bench.refusal("10.2.0.0/26"), Some(ImportRefusal::NoPolicy));
    bench.announce_inside(4, &internal(4, &[]), "10.4.0.0/26");
    let taken = bench.speaker.routes(&Default::default(), 0);
    assert!(
        taken
            .iter()
            .any(|it| it.prefix == cidr("10.4.0.0/26") && it.best)
    );
}

#[test]
fn a_policy_for_one_family_is_none_for_the_other() {
    use bgpd::config::Filter;
    let rule = "importV6: [{action: Accept}]\nexportV6: [{action: Accept}]";
    let spec: crds::bgp_filter::BGPFilterSpec = serde_saphyr::from_str(rule).unwrap();
    let mut config = config();
    config
        .filters
        .insert("v6".into(), Filter::try_from(&spec).unwrap());
    config.peers[0].options.import_filters = vec!["v6".into()];
    config.peers[0].options.export_filters = vec!["v6".into()];
    let (mut bench, told) = bench(config);
    assert_eq!(told[0].len(), 0);
    bench.announce(2, &[cidr("10.2.0.0/26")]);
    assert_eq!(bench.refusal("10.2.0.0/26"), Some(ImportRefusal::NoPolicy));
}

#[test]
fn filters_and_the_classes_that_choose_count_as_policy() {
    let mut config = config();
    let all = || filter(Match::default(), vec![], Action::Accept);
    import_by(&mut config, 2, "in", all());
    export_by(&mut config, 2, "out", all());
    config.peers[1].import = ImportPolicy::Pools;
    config.peers[1].export = ExportClass::Origins;
    config.pools = vec![Pool {
        cidr: cidr("10.3.0.0/16"),
        block_size: 26,
    }];
    let (mut bench, told) = bench(config);
    assert_eq!((told[0].len(), told[1].len()), (1, 1));
    bench.announce_with(2, &external(2, &[]), &[cidr("10.2.0.0/26")]);
    assert_eq!(bench.refusal("10.2.0.0/26"), None);
    bench.announce(3, &[cidr("10.3.0.0/26")]);
    let of_three = bench.speaker.routes(&Default::default(), 0);
    assert!(
        of_three
            .iter()
            .any(|it| it.prefix == cidr("10.3.0.0/26") && it.best)
    );
}
