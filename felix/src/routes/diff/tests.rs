use super::*;
use crate::routes::model::{BGP_METRIC, BLOCK_METRIC, MAIN_TABLE, WORKLOAD_METRIC};

const SWEEP: Sweep = Sweep {
    workloads: true,
    bgp: true,
};

fn key(prefix: &str, metric: u32) -> Key {
    Key {
        table: MAIN_TABLE,
        prefix: prefix.parse().expect("prefix"),
        metric,
    }
}

fn leg(ifindex: u32) -> Leg {
    Leg {
        gateway: format!("10.9.{ifindex}.1").parse().expect("address"),
        ifindex,
        onlink: false,
    }
}

fn bgp(interfaces: &[u32]) -> Route {
    let legs = Legs::new(interfaces.iter().map(|ifindex| (leg(*ifindex), 1))).expect("legs");
    Route::Bgp { legs, source: None }
}

/// Does what the kernel does with these ops.
pub(in crate::routes) fn done(have: &Kernel, ops: &[Op]) -> Kernel {
    let mut kernel = have.clone();
    for op in ops {
        match op.clone() {
            Op::AddNexthop(id, nexthop) => {
                assert_eq!(kernel.nexthops.insert(id, nexthop), None, "{op}")
            }
            Op::ReplaceNexthop(id, nexthop) => {
                assert!(kernel.nexthops.insert(id, nexthop).is_some(), "{op}")
            }
            Op::AddRoute(key, entry) => {
                assert!(!kernel.foreign.contains_key(&key), "{op}");
                assert_eq!(kernel.routes.insert(key, entry), None, "{op}");
            }
            Op::ReplaceRoute(key, entry) => {
                assert!(kernel.routes.insert(key, entry).is_some(), "{op}")
            }
            Op::DeleteRoute(key, protocol) => {
                assert_eq!(
                    kernel.routes.remove(&key).map(|entry| entry.protocol),
                    Some(protocol),
                    "{op}"
                );
            }
            Op::DeleteNexthop(id) => {
                assert!(kernel.nexthops.remove(&id).is_some(), "{op}");
                let refers = |via| matches!(via, Via::Nexthop { id: other, .. } if other == id);
                assert!(
                    !kernel.routes.values().any(|entry| refers(entry.via)),
                    "{op} takes routes along"
                );
                let groups = kernel.nexthops.values();
                let mut members = groups.filter_map(|nexthop| match nexthop {
                    Nexthop::Group(members) => Some(members),
                    _ => None,
                });
                assert!(
                    !members.any(|members| members.contains_key(&id)),
                    "{op} takes a member along"
                );
            }
        }
    }
    kernel
}

fn step(have: &Kernel, want: &BTreeMap<Key, Route>) -> (Kernel, Vec<String>) {
    let plan = diff(have, want, SWEEP);
    let after = done(have, &plan.ops);
    assert_eq!(diff(&after, want, SWEEP).ops, [], "one pass does all");
    (after, plan.ops.iter().map(ToString::to_string).collect())
}

#[test]
fn nexthops_come_before_routes_and_go_after_them() {
    let want = [
        (
            key("10.1.0.1/32", WORKLOAD_METRIC),
            Route::Workload {
                ifindex: 9,
                source: None,
            },
        ),
        (key("10.1.0.0/26", BLOCK_METRIC), Route::Unreachable),
        (key("10.2.0.0/26", BGP_METRIC), bgp(&[2, 3])),
        (key("10.3.0.0/26", BGP_METRIC), bgp(&[2, 3])),
        (key("10.4.0.0/26", BGP_METRIC), bgp(&[3])),
    ];
    let (kernel, ops) = step(&Kernel::default(), &want.into());
    assert_eq!(
        ops,
        [
            "add nexthop 1828716544 via 10.9.2.1 dev #2",
            "add nexthop 1828716545 via 10.9.3.1 dev #3",
            "add nexthop 1828716546 group 1828716544,1/1828716545,1",
            "add route 10.1.0.0/26 metric 64 unreachable",
            "add route 10.1.0.1/32 metric 32 dev #9",
            "add route 10.2.0.0/26 metric 128 nhid 1828716546",
            "add route 10.3.0.0/26 metric 128 nhid 1828716546",
            "add route 10.4.0.0/26 metric 128 nhid 1828716545",
        ]
    );
    let (kernel, ops) = step(&kernel, &BTreeMap::new());
    assert_eq!(ops.len(), 8);
    assert!(
        ops[..5].iter().all(|op| op.starts_with("delete route")),
        "{ops:?}"
    );
    assert_eq!(ops[5], "delete nexthop 1828716546");
    assert_eq!(kernel, Kernel::default());
}

#[test]
fn a_leg_that_comes_or_goes_changes_the_group_and_no_route() {
    let routes = |interfaces: &[u32]| -> BTreeMap<_, _> {
        (0..100)
            .map(|i| (key(&format!("10.2.{i}.0/26"), BGP_METRIC), bgp(interfaces)))
            .collect()
    };
    let (kernel, _) = step(&Kernel::default(), &routes(&[2, 3]));
    let (kernel, ops) = step(&kernel, &routes(&[2, 4]));
    assert_eq!(
        ops,
        [
            "add nexthop 1828716547 via 10.9.4.1 dev #4",
            "replace nexthop 1828716546 group 1828716544,1/1828716547,1",
            "delete nexthop 1828716545",
        ]
    );
    let (kernel, ops) = step(&kernel, &routes(&[2]));
    assert_eq!(
        ops,
        [
            "replace nexthop 1828716546 group 1828716544,1",
            "delete nexthop 1828716547"
        ]
    );
    let (_, ops) = step(&kernel, &routes(&[2, 3, 4]));
    assert_eq!(ops.len(), 3, "{ops:?}");
}

#[test]
fn a_group_that_is_still_wanted_is_not_changed_under_its_routes() {
    let mut want: BTreeMap<_, _> = [
        (key("10.2.0.0/26", BGP_METRIC), bgp(&[2, 3])),
        (key("10.3.0.0/26", BGP_METRIC), bgp(&[2, 3])),
    ]
    .into();
    let (kernel, _) = step(&Kernel::default(), &want);
    want.insert(key("10.3.0.0/26", BGP_METRIC), bgp(&[2]));
    let (_, ops) = step(&kernel, &want);
    assert_eq!(
        ops,
        ["replace route 10.3.0.0/26 metric 128 nhid 1828716544"]
    );
}

#[test]
fn nothing_is_removed_before_the_sweep_and_stale_routes_keep_their_legs() {
    let (kernel, _) = step(
        &Kernel::default(),
        &[
            (key("10.2.0.0/26", BGP_METRIC), bgp(&[2, 3])),
            (key("10.3.0.0/26", BGP_METRIC), bgp(&[2, 3])),
            (
                key("10.1.0.1/32", WORKLOAD_METRIC),
                Route::Workload {
                    ifindex: 9,
                    source: None,
                },
            ),
        ]
        .into(),
    );
    assert_eq!(diff(&kernel, &BTreeMap::new(), Sweep::default()).ops, []);
    let want = [(key("10.2.0.0/26", BGP_METRIC), bgp(&[2]))].into();
    let plan = diff(
        &kernel,
        &want,
        Sweep {
            workloads: true,
            bgp: false,
        },
    );
    let ops: Vec<_> = plan.ops.iter().map(ToString::to_string).collect();
    assert_eq!(
        ops,
        [
            "replace route 10.2.0.0/26 metric 128 nhid 1828716544",
            "delete route 10.1.0.1/32 metric 32 proto 77"
        ]
    );
}

#[test]
fn a_foreign_route_is_reported_and_left() {
    let mut have = Kernel::default();
    have.foreign.insert(key("10.2.0.0/26", BGP_METRIC), 4);
    have.foreign.insert(key("10.3.0.0/26", 0), 4);
    have.foreign_nexthops.insert(FIRST_NEXTHOP);
    let want = [
        (key("10.2.0.0/26", BGP_METRIC), bgp(&[2])),
        (key("10.3.0.0/26", BGP_METRIC), bgp(&[2])),
    ]
    .into();
    let plan = diff(&have, &want, SWEEP);
    assert_eq!(
        plan.conflicts,
        [Conflict {
            key: key("10.2.0.0/26", BGP_METRIC),
            protocol: 4
        }]
    );
    let ops: Vec<_> = plan.ops.iter().map(ToString::to_string).collect();
    assert_eq!(
        ops,
        [
            "add nexthop 1828716545 via 10.9.2.1 dev #2",
            "add route 10.3.0.0/26 metric 128 nhid 1828716545"
        ]
    );
}

#[test]
fn what_a_vanished_link_took_along_is_made_again() {
    let want = [
        (key("10.2.0.0/26", BGP_METRIC), bgp(&[2, 3])),
        (key("10.3.0.0/26", BGP_METRIC), bgp(&[3])),
    ]
    .into();
    let (mut kernel, _) = step(&Kernel::default(), &want);
    // The kernel drops the leg, shrinks the group, and drops the routes of the leg alone.
    kernel.nexthops.remove(&(FIRST_NEXTHOP + 1));
    kernel.nexthops.insert(
        FIRST_NEXTHOP + 2,
        Nexthop::Group([(FIRST_NEXTHOP, 1)].into()),
    );
    kernel.routes.remove(&key("10.3.0.0/26", BGP_METRIC));
    let (_, ops) = step(&kernel, &want);
    assert_eq!(ops.len(), 3, "{ops:?}");
    assert!(
        ops.contains(&"replace nexthop 1828716546 group 1828716544,1/1828716545,1".to_owned()),
        "{ops:?}"
    );
}

#[test]
fn weights_count_among_several_legs_and_not_for_one() {
    let of = |weights: &[(u32, u8)]| -> BTreeMap<_, _> {
        let legs = Legs::new(
            weights
                .iter()
                .map(|(ifindex, weight)| (leg(*ifindex), *weight)),
        )
        .expect("legs");
        [(
            key("10.2.0.0/26", BGP_METRIC),
            Route::Bgp { legs, source: None },
        )]
        .into()
    };
    let (kernel, _) = step(&Kernel::default(), &of(&[(2, 5)]));
    let (kernel, ops) = step(&kernel, &of(&[(2, 7)]));
    assert!(ops.is_empty(), "{ops:?}");
    let (kernel, _) = step(&kernel, &of(&[(2, 7), (3, 1)]));
    let (_, ops) = step(&kernel, &of(&[(2, 1), (3, 1)]));
    assert_eq!(
        ops,
        ["replace nexthop 1828716546 group 1828716544,1/1828716545,1"]
    );
}
