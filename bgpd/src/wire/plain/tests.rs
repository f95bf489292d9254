use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{ExportClass, NextHopMode};
use crate::policy::export::{self, To};
use crate::policy::{Drained, filter};
use crate::rib::Source;
use crate::wire::attribute::pack;
use crate::wire::tests::random::{any_attributes, prefixes};
use crate::wire::writer::Announcer;
use crate::wire::{AsPath, Attributes, HEADER, update};

const NEXT_HOP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// What is read where it lies has to be what is read by taking it apart.
fn same(body: &Bytes, dialect: Dialect) {
    let Some(plain) = Plain::of(body, dialect) else {
        return;
    };
    let update = plain.decode().unwrap();
    assert_eq!(update.problems, []);
    assert_eq!(update.end_of_rib, None);
    assert_eq!(plain.withdrawn().collect::<Vec<_>>(), update.withdrawn);
    let Some(fields) = plain.fields() else {
        return assert_eq!(update.announced, []);
    };
    let [(attributes, prefixes)] = update.announced.as_slice() else {
        panic!("{:?}", update.announced);
    };
    assert_eq!(plain.announced().collect::<Vec<_>>(), *prefixes);
    let (mut packed, mut expected) = (Vec::new(), Vec::new());
    fields.pack(&mut packed);
    pack(attributes, &mut expected);
    assert_eq!(packed, expected);
    let next_hop = fields.next_hop().map(IpAddr::V4);
    assert_eq!(next_hop, Some(attributes.next_hop.address));
    assert_eq!(fields.path().first(), attributes.as_path.first());
    assert_eq!(fields.path().length(), attributes.as_path.length());
    let asns: Vec<u32> = fields.path().asns().collect();
    assert_eq!(asns, attributes.as_path.asns().collect::<Vec<_>>());
    let again = Fields::of(&packed).unwrap();
    assert_eq!(again.number(Field::Med), attributes.med);
    assert_eq!(again.number(Field::LocalPref), attributes.local_pref);
    let communities: Vec<u32> = again.list(Field::Communities).collect();
    assert_eq!(communities, attributes.communities);
}

fn bodies(attributes: &Attributes, prefixes: &[Cidr], dialect: Dialect) -> Vec<Bytes> {
    let announced = update::announce(attributes, Family::V4, prefixes, dialect);
    let withdrawn = update::withdraw(Family::V4, prefixes);
    let all = announced.unwrap_or_default().into_iter().chain(withdrawn);
    all.map(|message| message.slice(HEADER..)).collect()
}

#[test]
fn what_is_usual_is_plain() {
    let mut attributes = Attributes::new(NEXT_HOP.into());
    attributes.as_path = AsPath::sequence([65001, 65002]);
    attributes.communities = vec![1, 2];
    let prefixes = [Cidr::new([10, 0, 0, 0].into(), 8).unwrap()];
    for internal in [false, true] {
        for body in bodies(&attributes, &prefixes, Dialect::plain(internal)) {
            assert!(Plain::of(&body, Dialect::plain(internal)).is_some());
            same(&body, Dialect::plain(internal));
        }
    }
    let end_of_rib = update::end_of_rib(Family::V4).slice(HEADER..);
    assert_eq!(Plain::of(&end_of_rib, Dialect::plain(false)), None);
}

/// What is written of attributes where they lie has to be what is written of them taken apart.
fn told(attributes: &Attributes, source: &Source, to: &To) {
    let dialect = Dialect::plain(to.internal);
    let prefix = Cidr::new([10, 0, 0, 0].into(), 8).unwrap();
    let mut packed = Vec::new();
    pack(attributes, &mut packed);
    let fields = Fields::of(&packed).unwrap();
    let mut bytes = Vec::new();
    let learnt = (&fields, attributes.next_hop);
    let quick = export::write_plain(Family::V4, learnt, source, to, &mut bytes).unwrap();
    let quick = quick.map(|next_hop| Announcer::of(bytes, next_hop, Family::V4, dialect));
    let slow = export::export(prefix, attributes, source, to);
    let slow = slow.map(|told| Announcer::new(&told, Family::V4, dialect));
    assert_eq!(quick, slow);
}

prop_compose! {
    fn usual()(it in any_attributes()) -> Attributes {
        Attributes { next_hop: NEXT_HOP.into(), unknown: Vec::new(), ..it }
    }
}

proptest! {
    #[test]
    fn it_reads_what_an_update_says(
        attributes in usual(),
        prefixes in prefixes(Family::V4),
        internal: bool,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let dialect = Dialect::plain(internal);
        for body in bodies(&attributes, &prefixes, dialect) {
            assert!(Plain::of(&body, dialect).is_some());
            same(&body, dialect);
            let mut body = body.to_vec();
            for (place, byte) in &damage {
                let place = place.index(body.len());
                body[place] = *byte;
            }
            same(&body.into(), dialect);
        }
    }

    #[test]
    fn it_says_what_export_says(
        attributes in usual(),
        well_known in vec(0xffff_ff01..0xffff_ff08_u32, 0..2),
        (internal, client, to_internal, long_lived) in any::<(bool, bool, bool, bool)>(),
        (class, next_hop) in (0..3_usize, 0..3_usize),
        reachable: bool,
    ) {
        let mut attributes = attributes;
        attributes.communities.extend(well_known);
        let source = Source {
            address: Some(NEXT_HOP),
            internal,
            client,
            router_id: [192, 0, 2, 9].into(),
            ifindex: None,
            workload: false,
        };
        let to = To {
            class: [ExportClass::Origins, ExportClass::Reflect, ExportClass::Transit][class],
            internal: to_internal,
            local_asn: 65001,
            cluster_id: [192, 0, 2, 8].into(),
            next_hop_v4: reachable.then(|| OWN.into()),
            next_hop_v6: None,
            extended_next_hop: false,
            next_hop: [NextHopMode::Auto, NextHopMode::Itself, NextHopMode::Keep][next_hop],
            filters: std::sync::Arc::new(filter::Chain::default()),
            require_policy: false,
            drained: Drained::default(),
            long_lived,
        };
        told(&attributes, &source, &to);
    }
}
