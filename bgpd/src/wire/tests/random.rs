//! Any attributes, any prefixes, any bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

pub(in crate::wire) fn prefixes(family: Family) -> impl Strategy<Value = Vec<Cidr>> {
    let one = (any::<u128>(), 0..=family.bits()).prop_map(move |(bits, length)| {
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits >> 96).unwrap())),
            Family::V6 => IpAddr::V6(bits.into()),
        };
        Cidr::new(address, length).unwrap()
    });
    vec(one, 1..600)
}

prop_compose! {
    pub(in crate::wire) fn any_attributes()(
        path in vec(1..u32::MAX, 0..300),
        set in vec(1..u32::MAX, 0..3),
        med in any::<Option<u32>>(),
        local_pref in any::<Option<u32>>(),
        communities in vec(any::<u32>(), 0..80),
        large in vec(any::<[u32; 3]>(), 0..40),
        extended in vec(any::<[u8; 8]>(), 0..20),
        unknown in vec(any::<u8>(), 0..600),
        clusters in vec(any::<u32>(), 0..5),
        aggregator in proptest::option::of(1..u32::MAX),
    ) -> Attributes {
        let mut it = Attributes::new(next_hop("192.0.2.1"));
        it.as_path = AsPath::sequence(path);
        if !set.is_empty() {
            it.as_path.segments.push(Segment { kind: SegmentKind::Set, asns: set });
        }
        it.med = med;
        it.local_pref = local_pref;
        it.communities = communities;
        it.large_communities = large;
        it.extended_communities = extended;
        it.unknown = vec![UnknownAttribute { code: 200, value: unknown }];
        it.cluster_list = clusters.into_iter().map(Ipv4Addr::from).collect();
        it.aggregator = aggregator.map(|asn| Aggregator { asn, address: Ipv4Addr::LOCALHOST });
        it
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(
        attributes in any_attributes(),
        four in prefixes(Family::V4),
        six in prefixes(Family::V6),
        four_octet_as: bool,
        internal: bool,
    ) {
        let dialect = Dialect { four_octet_as, ..Dialect::plain(internal) };
        again(&Message::Update(Update { announced: vec![(attributes.clone(), four)], ..Update::default() }), dialect);
        let attributes = Attributes { next_hop: next_hop("2001:db8::1"), ..attributes };
        again(&Message::Update(Update { announced: vec![(attributes, six)], ..Update::default() }), dialect);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        exercise::decoders(&bytes);
    }

    #[test]
    fn no_damaged_message_panics(
        attributes in any_attributes(),
        prefixes in prefixes(Family::V4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for message in update::announce(&attributes, Family::V4, &prefixes, IBGP).unwrap_or_default() {
            let mut body = message[HEADER..].to_vec();
            for (place, byte) in &damage {
                let place = place.index(body.len());
                body[place] = *byte;
            }
            exercise::decoders(&body);
        }
    }
}
