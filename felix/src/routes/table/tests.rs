use proptest::prelude::*;

use super::*;
use crate::routes::diff::tests::done;
use crate::routes::model::{FIRST_NEXTHOP, Nexthop};
use crate::routes::want::{self, BgpLeg};

const SWEEP: Sweep = Sweep {
    workloads: true,
    bgp: true,
};

fn prefix(number: u8) -> crds::net::Cidr {
    format!("10.2.{number}.0/26").parse().expect("prefix")
}

fn legs(interfaces: impl IntoIterator<Item = u32>) -> Vec<BgpLeg> {
    let leg = |ifindex: u32| BgpLeg {
        address: format!("10.9.{ifindex}.1").parse().expect("address"),
        ifindex: Some(ifindex),
        onlink: false,
        weight: 1,
    };
    interfaces.into_iter().map(leg).collect()
}

fn running(interfaces: impl IntoIterator<Item = u32>) -> Connected {
    Connected {
        running: interfaces.into_iter().collect(),
        ..Connected::default()
    }
}

/// A table, the kernel as it would be, and what is wanted.
struct World {
    table: Table,
    kernel: Kernel,
    wants: Wants,
    changed: Changed,
    sweep: Sweep,
}

impl World {
    fn new() -> Self {
        let mut table = Table::default();
        table.read(Kernel::default());
        table.link(running([2, 3, 4]));
        Self {
            table,
            kernel: Kernel::default(),
            wants: Wants::default(),
            changed: Changed::All,
            sweep: SWEEP,
        }
    }

    fn want(&mut self, number: u8, legs: Vec<BgpLeg>) {
        let prefix = prefix(number);
        match legs.is_empty() {
            true => self.wants.bgp.remove(&prefix),
            false => self.wants.bgp.insert(prefix, legs),
        };
        self.changed.add(want::bgp(prefix));
    }

    /// Sees to groups only; what was done.
    fn fail_over(&mut self) -> Vec<String> {
        let ops = self.table.fail_over();
        let texts = ops.iter().map(ToString::to_string).collect();
        self.kernel = done(&self.kernel, &ops);
        self.table.done(ops);
        texts
    }

    /// Brings the kernel in step; what was done.
    fn settle(&mut self) -> Vec<String> {
        let changed = std::mem::take(&mut self.changed);
        let plan = self.table.plan(&self.wants, &changed, self.sweep);
        let texts = plan.ops.iter().map(ToString::to_string).collect();
        self.kernel = done(&self.kernel, &plan.ops);
        self.table.done(plan.ops);
        assert_eq!(*self.table.kernel(), self.kernel);
        // The whole difference finds nothing that the step has left.
        let wanted = self.wants.routes(self.table.connected()).routes;
        assert_eq!(*self.table.wanted(), wanted);
        let left = diff(&self.kernel, &wanted, self.sweep);
        assert_eq!(left.ops, [], "after {texts:?}");
        let conflicts: Vec<Conflict> = self.table.conflicts().collect();
        assert_eq!(conflicts, left.conflicts);
        texts
    }
}

#[test]
fn an_uplink_that_fails_is_one_change_of_a_group() {
    let mut world = World::new();
    for number in 0..200 {
        world.want(number, legs([2, 3]));
    }
    assert_eq!(world.settle().len(), 203);
    world.table.link(running([2, 4]));
    assert_eq!(
        world.fail_over(),
        ["replace nexthop 1828716546 group 1828716544,1"]
    );
    assert_eq!(world.settle(), ["delete nexthop 1828716545"]);
    world.table.link(running([4]));
    assert_eq!(world.fail_over(), [""; 0], "nothing would be left");
    world.table.link(running([2, 4]));
    // What bgpd says afterwards is known already.
    for number in 0..200 {
        world.want(number, legs([2]));
    }
    assert_eq!(world.settle(), [""; 0]);
}

#[test]
fn a_link_that_fails_and_comes_back_before_a_look_has_its_legs_again() {
    let mut world = World::new();
    world.want(1, legs([2, 4]));
    world.settle();
    world.table.link(running([4]));
    assert_eq!(world.fail_over().len(), 1);
    world.table.link(running([2, 4]));
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn a_route_over_an_interface_that_came_since_asks_for_a_look() {
    let mut world = World::new();
    world.want(1, legs([2, 3]));
    assert!(!world.table.lacks_link(&world.wants, &world.changed));
    world.settle();
    world.want(2, legs([7]));
    assert!(world.table.lacks_link(&world.wants, &world.changed));
    world.table.link(running([2, 3, 4, 7]));
    assert!(!world.table.lacks_link(&world.wants, &world.changed));
    assert!(!world.settle().is_empty());
}

#[test]
fn a_route_that_changes_costs_no_look_at_the_others() {
    let mut world = World::new();
    for number in 0..200 {
        world.want(number, legs([2, 3]));
    }
    world.settle();
    world.want(7, legs([3, 4]));
    let ops = world.settle();
    assert_eq!(ops.len(), 3, "a leg, a group, the route: {ops:?}");
    world.want(7, legs([2, 3]));
    let ops = world.settle();
    assert_eq!(
        ops,
        [
            "replace nexthop 1828716548 group 1828716544,1/1828716545,1",
            "delete nexthop 1828716547"
        ],
        "its own group is led where it goes now"
    );
}

#[test]
fn what_others_did_is_seen_when_the_kernel_is_read() {
    let mut world = World::new();
    for number in 0..3 {
        world.want(number, legs([2]));
    }
    world.settle();
    let key = want::bgp(prefix(1));
    world.kernel.routes.remove(&key);
    world.kernel.foreign.insert(key, 4);
    world.kernel.routes.remove(&want::bgp(prefix(2)));
    world.table.read(world.kernel.clone());
    assert_eq!(world.settle().len(), 1);
    assert_eq!(world.table.conflicts().count(), 1);
    world.want(1, legs([]));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.table.conflicts().count(), 0);
}

#[test]
fn a_link_that_vanishes_takes_objects_and_routes_along() {
    let mut world = World::new();
    world.want(0, legs([2, 3]));
    world.want(1, legs([3]));
    world.settle();
    world.kernel.nexthops.remove(&(FIRST_NEXTHOP + 1));
    let rest = Nexthop::Group([(FIRST_NEXTHOP, 1)].into());
    world.kernel.nexthops.insert(FIRST_NEXTHOP + 2, rest);
    world.kernel.routes.remove(&want::bgp(prefix(1)));
    world.table.read(world.kernel.clone());
    world.table.link(running([2]));
    world.settle();
    world.table.link(running([2, 3]));
    world.settle();
    assert_eq!(world.kernel.routes.len(), 2);
}

#[derive(Debug, Clone)]
enum Turn {
    Want(u8, Vec<u32>),
    Block(u8, bool),
    Links(Vec<u32>, bool),
    Sweep(bool),
    Read,
    Foreign(u8, bool),
    Settle,
}

fn turn() -> impl Strategy<Value = Turn> {
    let some = || proptest::sample::subsequence(vec![2_u32, 3, 4], 0..=3);
    prop_oneof![
        6 => (0..12_u8, some()).prop_map(|(number, legs)| Turn::Want(number, legs)),
        1 => (0..4_u8, any::<bool>()).prop_map(|(number, there)| Turn::Block(number, there)),
        2 => (some(), any::<bool>()).prop_map(|(links, urgent)| Turn::Links(links, urgent)),
        1 => any::<bool>().prop_map(Turn::Sweep),
        1 => Just(Turn::Read),
        1 => (0..12_u8, any::<bool>()).prop_map(|(number, there)| Turn::Foreign(number, there)),
        4 => Just(Turn::Settle),
    ]
}

proptest! {
    #[test]
    fn steps_end_where_the_whole_difference_does(turns in prop::collection::vec(turn(), 0..60)) {
        let mut world = World::new();
        for turn in turns {
            match turn {
                Turn::Want(number, interfaces) => world.want(number, legs(interfaces)),
                Turn::Block(number, there) => {
                    match there {
                        true => world.wants.blocks.insert(prefix(number)),
                        false => world.wants.blocks.remove(&prefix(number)),
                    };
                    world.changed.add(want::block(prefix(number)));
                }
                Turn::Links(interfaces, urgent) => {
                    world.table.link(running(interfaces));
                    if urgent {
                        world.fail_over();
                    }
                }
                Turn::Sweep(bgp) => world.sweep.bgp = bgp,
                Turn::Read => world.table.read(world.kernel.clone()),
                Turn::Foreign(number, there) => {
                    let key = want::bgp(prefix(number));
                    if !there {
                        world.kernel.foreign.remove(&key);
                    } else if !world.kernel.routes.contains_key(&key) {
                        world.kernel.foreign.insert(key, 4);
                    }
                    world.table.read(world.kernel.clone());
                }
                Turn::Settle => {
                    world.settle();
                }
            }
        }
        world.settle();
    }
}
