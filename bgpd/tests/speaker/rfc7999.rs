//! RFC 7999 (BLACKHOLE): only where a filter asks for it, and never outside.

use bgpd::config::ExportClass;
use bgpd::config::filter::{Action, Match};
use bgpd::policy::ImportRefusal;
use bgpd::wire::attribute::community::{BLACKHOLE, NO_EXPORT};
use crds::net::Family;

use crate::bench::{Bench, with_peers};
use crate::routes::{carrying, external, filter, import_by, told, with_internal};
use crate::sim::cidr;

#[test]
fn it_is_refused_unless_the_rule_that_accepts_asks_for_it() {
    let refusal = |matches: Option<Match>| {
        let mut config = with_peers(1);
        if let Some(matches) = matches {
            import_by(
                &mut config,
                2,
                "in",
                filter(matches, vec![], Action::Accept),
            );
        }
        let mut bench = Bench::started(config);
        bench.join(2, &[Family::V4]);
        bench.announce_with(2, &external(2, &[BLACKHOLE]), &[cidr("10.2.0.1/32")]);
        bench.refusal("10.2.0.1/32")
    };
    assert_eq!(refusal(None), Some(ImportRefusal::Blackhole));
    assert_eq!(
        refusal(Some(Match::default())),
        Some(ImportRefusal::Blackhole)
    );
    assert_eq!(refusal(Some(carrying(BLACKHOLE))), None);
}

#[test]
fn it_stays_inside_the_as() {
    // 3 is outside, 4 inside.
    let mut config = with_internal(3, &[4]);
    for peer in &mut config.peers {
        peer.export = ExportClass::Transit;
    }
    let asked = filter(carrying(BLACKHOLE), vec![], Action::Accept);
    import_by(&mut config, 2, "in", asked);
    let mut bench = Bench::started(config);
    let conns: Vec<_> = (2..=4)
        .map(|host| bench.join(host, &[Family::V4]).0)
        .collect();
    let outputs = bench.announce_with(2, &external(2, &[BLACKHOLE]), &[cidr("10.2.0.1/32")]);
    assert_eq!(told(&outputs, conns[1], false), []);
    let inside = told(&outputs, conns[2], true);
    assert_eq!(inside[0].1.communities, [BLACKHOLE, NO_EXPORT]);
}
