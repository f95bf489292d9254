//! RFC 7606, and what it leaves to NOTIFICATIONs.

use super::*;

/// The only problem of an UPDATE whose prefixes are withdrawn for it.
fn withdrawn_for(dialect: Dialect, attributes: &str) -> (u8, ProblemKind) {
    let update = Update::decode(&body("", attributes, NLRI), dialect).unwrap();
    assert!(update.announced.is_empty());
    assert_eq!(update.withdrawn, [cidr("10.1.0.0/24")]);
    let worst: Vec<_> = update
        .problems
        .iter()
        .filter(|it| it.reaction == Reaction::TreatAsWithdraw)
        .collect();
    let [problem] = worst[..] else {
        panic!("{:?}", update.problems)
    };
    (problem.code, problem.kind)
}

/// The only problem of an UPDATE whose prefixes stay, and their attributes.
fn discarded_from(dialect: Dialect, more: &str) -> (u8, ProblemKind, Attributes) {
    let update = Update::decode(&with(more), dialect).unwrap();
    let [problem] = &update.problems[..] else {
        panic!("{:?}", update.problems)
    };
    assert_eq!(problem.reaction, Reaction::DiscardAttribute);
    let [(attributes, prefixes)] = &update.announced[..] else {
        panic!("{update:?}")
    };
    assert_eq!(*prefixes, [cidr("10.1.0.0/24")]);
    (problem.code, problem.kind, attributes.clone())
}

#[test]
fn rfc7606_attributes_that_withdraw() {
    let origin_path = |more: &str| [ORIGIN, PATH, HOP, more].concat();
    let cases = [
        (
            ["40 01 02 0000", PATH, HOP].concat(),
            1,
            ProblemKind::Length,
        ),
        (["40 01 01 03", PATH, HOP].concat(), 1, ProblemKind::Value),
        (["c0 01 01 00", PATH, HOP].concat(), 1, ProblemKind::Flags),
        ([PATH, HOP].concat(), 1, ProblemKind::Missing),
        ([ORIGIN, HOP].concat(), 2, ProblemKind::Missing),
        ([ORIGIN, PATH].concat(), 3, ProblemKind::Missing),
        (
            [ORIGIN, "40 02 06 09 01 0000fde9", HOP].concat(),
            2,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, "40 02 06 02 02 0000fde9", HOP].concat(),
            2,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, "40 02 02 02 00", HOP].concat(),
            2,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, "40 02 06 02 01 00000000", HOP].concat(),
            2,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, "40 02 06 03 01 0000fde9", HOP].concat(),
            2,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, PATH, "40 03 03 c00002"].concat(),
            3,
            ProblemKind::Length,
        ),
        (
            [ORIGIN, PATH, "40 03 04 e0000001"].concat(),
            3,
            ProblemKind::Value,
        ),
        (
            [ORIGIN, PATH, "40 03 04 00000000"].concat(),
            3,
            ProblemKind::Value,
        ),
        (origin_path("80 04 03 000000"), 4, ProblemKind::Length),
        (origin_path("40 04 04 00000000"), 4, ProblemKind::Flags),
        (origin_path("c0 08 00"), 8, ProblemKind::Length),
        (origin_path("c0 08 05 0000000000"), 8, ProblemKind::Length),
        (
            origin_path("c0 10 07 00000000000000"),
            16,
            ProblemKind::Length,
        ),
        (
            origin_path("c0 20 0b 0000000000000000000000"),
            32,
            ProblemKind::Length,
        ),
        (origin_path("c0 08 20 00000000"), 0, ProblemKind::Truncated),
        (origin_path("c0"), 0, ProblemKind::Truncated),
        (origin_path("40 06 00 c0 06"), 0, ProblemKind::Truncated),
        (origin_path("c0 06 00"), 6, ProblemKind::Flags),
    ];
    for (attributes, code, kind) in cases {
        assert_eq!(
            withdrawn_for(EBGP, &attributes),
            (code, kind),
            "{attributes}"
        );
    }
    let internal = [
        ("40 05 03 000000", 5),
        ("80 09 03 000000", 9),
        ("80 0a 00", 10),
        ("80 0a 05 0000000000", 10),
    ];
    for (more, code) in internal {
        assert_eq!(
            withdrawn_for(IBGP, &origin_path(more)),
            (code, ProblemKind::Length),
            "{more}"
        );
    }
}

#[test]
fn rfc7606_attributes_that_are_discarded() {
    let cases = [
        (EBGP, "40 06 01 00", 6, ProblemKind::Length),
        (EBGP, "c0 07 06 0064 01020304", 7, ProblemKind::Length),
        (EBGP, "c0 07 08 00000000 01020304", 7, ProblemKind::Value),
        (OLD, "c0 07 08 00000064 01020304", 7, ProblemKind::Length),
        (OLD, "c0 11 03 020100", 17, ProblemKind::Value),
        (OLD, "c0 12 07 00000064 010203", 18, ProblemKind::Length),
        (EBGP, "40 01 01 00", 1, ProblemKind::Duplicate),
        (EBGP, "40 05 04 000000c8", 5, ProblemKind::NotAllowed),
        (EBGP, "40 05 01 00", 5, ProblemKind::NotAllowed),
        (EBGP, "80 09 04 01010101", 9, ProblemKind::NotAllowed),
        (EBGP, "80 0a 04 01010101", 10, ProblemKind::NotAllowed),
        (EBGP, "c0 11 06 02 01 0000fde9", 17, ProblemKind::NotAllowed),
    ];
    let plain = |dialect| {
        let path = if dialect == OLD {
            "40 02 04 02 01 fde9"
        } else {
            PATH
        };
        let body = body("", &[ORIGIN, path, HOP].concat(), NLRI);
        Update::decode(&body, dialect).unwrap().announced[0]
            .0
            .clone()
    };
    for (dialect, more, code, kind) in cases {
        if dialect == OLD {
            let body = body(
                "",
                &[ORIGIN, "40 02 04 02 01 fde9", HOP, more].concat(),
                NLRI,
            );
            let update = Update::decode(&body, OLD).unwrap();
            assert_eq!(
                (update.problems[0].code, update.problems[0].kind),
                (code, kind),
                "{more}"
            );
            assert_eq!(update.announced[0].0, plain(OLD), "{more}");
            continue;
        }
        assert_eq!(
            discarded_from(dialect, more),
            (code, kind, plain(dialect)),
            "{more}"
        );
    }
}

#[test]
fn errors_that_end_the_session() {
    let code = |body: &[u8]| Update::decode(body, EBGP).map_err(|it| (it.code, it.subcode));
    let reach = "80 0e 11 0001 01 04 c0000201 00 18 0a0100 18 0a0200";
    // Lengths that contradict each other.
    assert_eq!(code(&bytes("0005 0000")), Err((3, 1)));
    assert_eq!(code(&bytes("0000 0005 00")), Err((3, 1)));
    assert_eq!(code(&bytes("00")), Err((3, 1)));
    // Prefixes longer than addresses, or cut off.
    assert_eq!(code(&body("21 0a010000 00", "", "")), Err((3, 10)));
    assert_eq!(
        code(&body("", &[ORIGIN, PATH, HOP].concat(), "18 0a01")),
        Err((3, 10))
    );
    // The same list twice; a next hop of an impossible length; a cut-off prefix; no AFI.
    assert_eq!(code(&body("", &[reach, reach].concat(), "")), Err((3, 1)));
    assert_eq!(
        code(&body("", "80 0e 09 0002 01 04 c0000201 00", "")),
        Err((3, 9))
    );
    assert_eq!(code(&body("", "80 0f 05 0002 01 40 20", "")), Err((3, 9)));
    assert_eq!(code(&body("", "80 0f 01 00", "")), Err((3, 9)));
    // A well-known attribute nobody knows.
    let unknown = Update::decode(&with("40 63 01 00"), EBGP).unwrap_err();
    assert_eq!(
        (unknown.code, unknown.subcode, unknown.data),
        (3, 2, bytes("40 63 01 00"))
    );
    // A bad attribute, and no prefix to withdraw for it.
    assert_eq!(code(&body("", "40 01 01 09", "")), Err((3, 1)));
    assert_eq!(
        code(&body("", reach, "")),
        Ok(Update::decode(&body("", reach, ""), EBGP).unwrap())
    );
}

#[test]
fn a_bad_flag_on_a_list_of_prefixes_withdraws_them() {
    let reach = "c0 0e 0d 0001 01 04 c0000201 00 18 0a0200";
    let update = Update::decode(&body("", &[ORIGIN, PATH, reach].concat(), ""), EBGP).unwrap();
    assert_eq!(update.withdrawn, [cidr("10.2.0.0/24")]);
    assert_eq!(update.problems[0].kind, ProblemKind::Flags);
}

#[test]
fn other_families_are_left_alone() {
    let flow = "80 0e 06 0001 85 00 00 03";
    let update = Update::decode(&body("", &[flow, ORIGIN, PATH].concat(), ""), EBGP).unwrap();
    assert!(update.announced.is_empty() && update.withdrawn.is_empty());
    assert_eq!(update.problems[0].kind, ProblemKind::Family);
}

#[test]
fn withdrawals_alone_need_no_session_to_end() {
    // RFC 7606 section 5.2: what is meant is clear while there is no other attribute.
    let flagged = "c0 0f 07 0001 01 18 0a0200";
    let update = Update::decode(&body("", flagged, ""), EBGP).unwrap();
    assert_eq!(update.withdrawn, [cidr("10.2.0.0/24")]);
    assert_eq!(update.problems[0].kind, ProblemKind::Flags);
    for more in [ORIGIN, "40 01 01 09", "c0 08 20 00"] {
        let error = Update::decode(&body("", &[flagged, more].concat(), ""), EBGP).unwrap_err();
        assert_eq!((error.code, error.subcode), (3, 1), "{more}");
    }
}

#[test]
fn next_hop_counts_for_the_prefixes_beside_it_only() {
    // RFC 4760 section 3.
    let reach = "80 0e 0d 0001 01 04 c0000202 00 18 0a0200";
    for hop in ["40 03 04 e0000001", "40 03 03 c00002", "c0 03 04 c0000201"] {
        let attributes = [ORIGIN, PATH, hop, reach].concat();
        let update = Update::decode(&body("", &attributes, ""), EBGP).unwrap();
        assert_eq!(update.problems, [], "{hop}");
        let [(attributes, prefixes)] = &update.announced[..] else {
            panic!("{update:?}")
        };
        assert_eq!(attributes.next_hop, next_hop("192.0.2.2"));
        assert_eq!(*prefixes, [cidr("10.2.0.0/24")]);
        let both = body("", &[ORIGIN, PATH, hop, reach].concat(), NLRI);
        let update = Update::decode(&both, EBGP).unwrap();
        assert_eq!(update.problems[0].code, 3, "{hop}");
        assert!(update.announced.is_empty(), "{hop}");
    }
}

#[test]
fn next_hops_that_no_neighbour_can_have() {
    for hop in [
        "7f000001", "7fffffff", "f0000001", "ffffffff", "e0000001", "00000000",
    ] {
        let attributes = [ORIGIN, PATH, "40 03 04 ", hop].concat();
        assert_eq!(withdrawn_for(EBGP, &attributes), (3, ProblemKind::Value));
    }
    let loopback = "80 0e 19 0002 01 10 00000000000000000000000000000001 00 18 200000";
    let update = Update::decode(&body("", &[ORIGIN, PATH, loopback].concat(), ""), EBGP).unwrap();
    assert_eq!(update.withdrawn, [cidr("2000::/24")]);
}
