//! From changes of the policy tables to the steps which bring the kernel there.
//!
//! The device group of a link cannot change in the same transaction as the sets, so there are three steps. What no
//! packet can reach yet comes first: the rows of new programs and subjects, and the addresses of new pods. Then links
//! get their groups. Then everything else, additions and removals together with the bump of the epoch, in one
//! transaction. Whoever is judged in between is judged as before or as after, never by a mixture: `bridge` says how.

use std::collections::BTreeSet;

use super::bridge::Bridges;
use super::model::Element;
use super::rows;
use crate::policy::tables::{Change, Edit, Program, Subject, Tables};

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Every set is emptied first, apart from those of the ruleset itself.
    pub flush: bool,
    /// Elements that go.
    pub delete: Vec<Element>,
    /// Elements that come, after those.
    pub add: Vec<Element>,
    /// Live connections are judged again.
    pub bump: bool,
}

impl Batch {
    /// Nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same in pieces of at most this many elements, for a batch of which no packet sees anything.
    pub fn pieces(&self, most: usize) -> impl Iterator<Item = Self> {
        let piece = |delete: &[Element], add: &[Element]| Self {
            delete: delete.to_vec(),
            add: add.to_vec(),
            ..Self::default()
        };
        let deletions = self.delete.chunks(most).map(move |part| piece(part, &[]));
        deletions.chain(self.add.chunks(most).map(move |part| piece(&[], part)))
    }

    fn push(&mut self, step: rows::Move) {
        self.delete.extend(step.old);
        self.add.extend(step.new);
    }
}

/// The steps, in the order in which they are to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Phases {
    /// Nothing refers to these yet.
    pub add: Batch,
    /// Device groups to set; [`UNPROGRAMMED`] takes a link out of policy, and it is denied.
    pub links: Vec<(String, Subject)>,
    /// Those of them that were in none of our groups before: the interface may be new.
    pub appeared: BTreeSet<String>,
    /// The rest.
    pub commit: Batch,
    /// Device groups to set then: of links that came there over a bridge.
    pub relinks: Vec<(String, Subject)>,
    /// The bridges, which no link uses any more.
    pub sweep: Batch,
    /// A bump cannot wait: an address came here whose last owner may have left connections behind.
    pub urgent: bool,
}

/// Device group of a link whose pod is not (or no longer) known: the kernel's default.
pub const UNPROGRAMMED: Subject = Subject(0);
/// Device group of links that are about to be removed. It is no subject's, so they are denied, too.
pub const DOOMED: Subject = Subject(0x006d_dead);

impl Phases {
    /// Nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty()
            && self.links.is_empty()
            && self.commit.is_empty()
            && self.sweep.is_empty()
    }
}

/// Steps for these changes, which led to the tables `after`. `narrowing`: some connection allowed before may be forbidden
/// now. A link that leaves policy narrows, too.
#[must_use]
pub fn plan(changes: &[Change], after: &Tables, narrowing: bool) -> Phases {
    let fresh = Fresh::of(changes, after);
    let bridges = Bridges::of(changes, after, &fresh.subjects);
    let mut phases = Phases::default();
    phases.commit.bump = narrowing;
    for change in changes {
        if let Change::Workload(Edit { new: Some(_), .. }) = change {
            phases.urgent |= narrowing;
        }
        let edit = match change {
            Change::Link(edit) => edit,
            // A bridge brings the rows itself.
            change if bridges.builds(change) => continue,
            change => {
                let phase = if fresh.unreachable(change) {
                    &mut phases.add
                } else {
                    &mut phases.commit
                };
                rows::of(change)
                    .into_iter()
                    .for_each(|step| phase.push(step));
                continue;
            }
        };
        let subject = edit.new.unwrap_or(UNPROGRAMMED);
        phases.commit.bump |= edit.new.is_none();
        if edit.old.is_none() {
            phases.appeared.insert(edit.key.clone());
        }
        match bridges.via(edit) {
            Some(bridge) => {
                phases.links.push((edit.key.clone(), bridge));
                phases.relinks.push((edit.key.clone(), subject));
            }
            None => phases.links.push((edit.key.clone(), subject)),
        }
    }
    for (phase, changes) in [
        (&mut phases.add, bridges.built()),
        (&mut phases.commit, bridges.crossed(after)),
        (&mut phases.sweep, bridges.removed(after)),
    ] {
        let steps = changes.iter().filter_map(rows::of);
        steps.for_each(|step| phase.push(step));
    }
    phases
}

/// What no packet can reach before the changes are made.
struct Fresh<'a> {
    /// No link was in policy before: nobody is judged by anything.
    all: bool,
    programs: BTreeSet<Program>,
    subjects: BTreeSet<Subject>,
    links: BTreeSet<&'a str>,
    addresses: BTreeSet<std::net::IpAddr>,
}

impl<'a> Fresh<'a> {
    /// A program in use has a row in one of the two maps of final verdicts, a refined one in that of other source ports, a subject one default per direction in
    /// which it is isolated: one without such a row before the changes is new.
    fn of(changes: &'a [Change], after: &Tables) -> Self {
        let links = changes
            .iter()
            .filter(|change| matches!(change, Change::Link(_)));
        let new = links
            .clone()
            .all(|change| matches!(change, Change::Link(edit) if edit.old.is_none()));
        let mut fresh = Self {
            all: new && links.count() == after.links.len(),
            programs: BTreeSet::new(),
            subjects: BTreeSet::new(),
            links: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        let mut known = BTreeSet::new();
        for change in changes {
            match change {
                Change::Program(edit) | Change::ProgramRanged(edit) => {
                    match edit.old {
                        None => fresh.programs.insert(edit.key),
                        Some(_) => known.insert(edit.key),
                    };
                }
                Change::SourceRest(edit) => {
                    match edit.old {
                        None => fresh.programs.insert(edit.key),
                        Some(_) => known.insert(edit.key),
                    };
                }
                Change::Default(Edit {
                    key: (_, subject),
                    old: None,
                    ..
                }) => {
                    fresh.subjects.insert(*subject);
                }
                Change::Link(Edit { key, old: None, .. }) => {
                    fresh.links.insert(key);
                }
                _ => {}
            }
        }
        fresh.programs.retain(|program| !known.contains(program));
        for change in changes {
            if let Change::Workload(Edit {
                key: (interface, address),
                old: None,
                ..
            }) = change
                && fresh.links.contains(interface.as_str())
            {
                fresh.addresses.insert(*address);
            }
        }
        // An address that moves from one pod to another is in use by the first until the commit.
        for change in changes {
            if let Change::Workload(Edit {
                key: (_, address),
                old: Some(_),
                ..
            }) = change
            {
                fresh.addresses.remove(address);
            }
        }
        fresh
    }

    fn unreachable(&self, change: &Change) -> bool {
        if self.all {
            return true;
        }
        match change {
            Change::Workload(Edit {
                key: (_, address),
                old: None,
                ..
            })
            | Change::Peer(Edit {
                key: address,
                old: None,
                ..
            }) => self.addresses.contains(address),
            Change::Pair(Edit {
                key: (_, subject, _),
                old: None,
                ..
            })
            | Change::Default(Edit {
                key: (_, subject),
                old: None,
                ..
            }) => self.subjects.contains(subject),
            Change::Port(Edit {
                key: (program, ..),
                old: None,
                ..
            })
            | Change::Icmp(Edit {
                key: (program, ..),
                old: None,
                ..
            }) => self.programs.contains(program),
            Change::PortRange(Edit {
                key: (program, ..),
                old: None,
                ..
            }) => self.programs.contains(program),
            Change::Proto(Edit {
                key: (program, _),
                old: None,
                ..
            }) => self.programs.contains(program),
            Change::Program(Edit {
                key: program,
                old: None,
                ..
            })
            | Change::ProgramRanged(Edit {
                key: program,
                old: None,
                ..
            }) => self.programs.contains(program),
            Change::Source(Edit {
                key: (program, ..),
                old: None,
                ..
            }) => self.programs.contains(program),
            Change::SourceRest(Edit {
                key: program,
                old: None,
                ..
            }) => self.programs.contains(program),
            _ => false,
        }
    }
}

#[cfg(test)]
pub(super) fn fixture() -> Tables {
    use crate::policy::tables::{Answer, Class, Direction, Failsafe, Guard};
    let address = |text: &str| text.parse().expect("address");
    let web = Subject::new(4, false, true);
    let mut tables = Tables::default();
    for ip in ["10.1.0.1", "fd00:1::1"] {
        tables
            .workloads
            .insert(("mgy0000000000a1".into(), address(ip)), "a/web1".into());
        tables.peers.insert(address(ip), Class(0x12));
    }
    tables.links.insert("mgy0000000000a1".into(), web);
    for (first, last, class) in [
        ("0.0.0.0", "9.255.255.255", 0x10),
        ("10.0.0.0", "10.0.255.255", 0x11),
        ("10.1.0.0", "10.1.0.127", 0x12),
        ("224.0.0.0", "255.255.255.255", 0x13),
        ("::", "::ffff", 0x10),
        ("fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0x14),
    ] {
        tables
            .nets
            .insert((address(first), address(last)), Class(class));
    }
    tables
        .pairs
        .insert((Direction::Ingress, web, Class(0x12)), Program(0x11));
    tables.pairs.insert(
        (Direction::Egress, Subject::new(5, true, false), Class(0x12)),
        Program::ALLOW,
    );
    tables
        .defaults
        .insert((Direction::Ingress, web), Program(0x10));
    tables.defaults.insert(
        (Direction::Egress, Subject::new(5, true, false)),
        Program::DENY,
    );
    tables.ports.insert((Program(0x10), 6, 8080), Answer::ALLOW);
    tables.ports.insert((Program(0x10), 17, 53), Answer::ALLOW);
    tables
        .port_ranges
        .insert((Program(0x11), 17, 5000, 5999), Answer::ALLOW);
    tables
        .port_ranges
        .insert((Program(0x11), 17, 7000, 65535), Answer::DENY);
    tables
        .icmp
        .insert((Program(0x10), 1, 0x0800), Answer::ALLOW);
    tables.protos.insert((Program(0x11), 132), Answer::ALLOW);
    tables.programs.insert(Program(0x10), Answer::DENY);
    tables.programs_ranged.insert(Program(0x11), Answer::DENY);
    let refined = Program(Program::REFINED | 0x10);
    tables.source_rest.insert(refined, Program(0x11));
    let hook = crate::policy::tables::HostHook::LocalIn;
    let eth0 = || Some("eth0".to_owned());
    tables.hosts.insert((hook, eth0(), None), Program::DENY);
    tables
        .hosts
        .insert((hook, eth0(), Some(Class(0x12))), Program(0x11));
    tables.hosts.insert((hook, None, None), Program::ALLOW);
    tables
        .hosts
        .insert((hook, None, Some(Class(0x12))), Program(0x10));
    let owned = Program(Program::OWNED | 0x10);
    tables.own_rest.insert(owned, Program::ALLOW);
    for (first, last) in [
        ("10.0.0.0", "10.0.0.9"),
        ("10.0.0.11", "10.0.0.11"),
        ("fd00::", "fd00::9"),
    ] {
        let key = (owned, address(first), address(last));
        tables.owns.insert(key, Program(0x11));
    }
    let raw = crate::policy::tables::HostHook::RawIn;
    tables.hosts.insert((raw, None, None), Program(0x10));
    for guard in [Guard::Flows, Guard::Packets] {
        tables.guard.insert(guard, ());
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        for (first, last) in [
            ("10.0.0.0", "10.0.255.255"),
            ("10.9.0.1", "10.9.0.1"),
            ("::", "fd00::"),
        ] {
            let failsafe = Failsafe {
                direction,
                protocol: 6,
                port: 22,
                first: address(first),
                last: address(last),
            };
            tables.failsafes.insert(failsafe, ());
        }
    }
    tables.sources.insert((refined, 6, 0, 1023), Program::ALLOW);
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tables::{Answer, Class, Direction};

    fn names(elements: &[Element]) -> Vec<String> {
        elements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_first_pod_is_built_before_its_link_is_set() {
        let phases = plan(&Tables::default().diff(&fixture()), &fixture(), false);
        assert_eq!(
            phases.links,
            [("mgy0000000000a1".to_owned(), Subject::new(4, false, true))]
        );
        assert_eq!(phases.appeared, ["mgy0000000000a1".to_owned()].into());
        let added = names(&phases.add.add);
        for row in [
            "workload4 { \"mgy0000000000a1\" . 10.1.0.1 comment \"a/web1\" }",
            "peer4 { 10.1.0.1 : 0:12 }",
            "pair_in { 1828716562 . 0:12 : 0:11 }",
            "port { 0:10 . 6 . 8080 : 0:1 }",
            "port_range { 0:11 . 17 . 5000-5999 : 0:1 }",
        ] {
            assert!(added.iter().any(|line| line == row), "{row} in {added:#?}");
        }
        // Nobody is judged yet, by whatever it may be.
        assert_eq!(phases.add.add.len(), rows::all(&fixture()).count());
        assert!(phases.add.delete.is_empty());
        assert_eq!(phases.commit, Batch::default());
        let pieces: Vec<Batch> = phases.add.pieces(5).collect();
        assert!(pieces.iter().all(|piece| piece.add.len() <= 5));
        let together: Vec<Element> = pieces.into_iter().flat_map(|piece| piece.add).collect();
        assert_eq!(together, phases.add.add);
    }

    #[test]
    fn with_a_pod_in_policy_intervals_wait_for_the_commit() {
        let mut have = Tables::default();
        have.links
            .insert("mgy0000000000b2".into(), Subject::new(5, true, false));
        let mut want = fixture();
        want.links.extend(have.links.clone());
        let phases = plan(&have.diff(&want), &want, false);
        // They change the class of addresses in use.
        let intervals = |batch: &Batch| {
            let intervals = batch.add.iter().filter(|element| {
                element.set.interval && element.set.map && element.set.key.len() == 1
            });
            intervals.count()
        };
        assert_eq!(
            (intervals(&phases.add), intervals(&phases.commit)),
            (0, fixture().nets.len())
        );
    }

    #[test]
    fn what_packets_can_reach_changes_in_one_transaction_with_the_bump() {
        let have = fixture();
        let mut want = have.clone();
        let web = Subject::new(4, false, true);
        want.defaults
            .insert((Direction::Ingress, web), Program(0x20));
        want.programs.insert(Program(0x20), Answer::ALLOW);
        want.pairs
            .insert((Direction::Ingress, web, Class(0x13)), Program::DENY);
        want.ports.remove(&(Program(0x10), 6, 8080));
        want.peers
            .insert("10.9.0.9".parse().expect("address"), Class(0x13));
        let phases = plan(&have.diff(&want), &want, true);
        assert_eq!(names(&phases.add.add), ["program { 0:20 : 0:1 }"]);
        assert_eq!(
            names(&phases.commit.delete),
            [
                "default_in { 1828716562 : 0:10 }",
                "port { 0:10 . 6 . 8080 : 0:1 }"
            ]
        );
        assert_eq!(
            names(&phases.commit.add),
            [
                "peer4 { 10.9.0.9 : 0:13 }",
                "pair_in { 1828716562 . 0:13 : 1000:2 }",
                "default_in { 1828716562 : 0:20 }"
            ]
        );
        assert!(phases.commit.bump);
    }

    #[test]
    fn a_link_that_leaves_policy_is_cut_and_bumps() {
        let have = fixture();
        let mut want = have.clone();
        want.links.clear();
        let phases = plan(&have.diff(&want), &want, false);
        assert_eq!(phases.links, [("mgy0000000000a1".to_owned(), UNPROGRAMMED)]);
        assert!(
            phases.commit.bump && phases.commit.add.is_empty() && phases.commit.delete.is_empty()
        );
    }

    #[test]
    fn an_address_that_moves_between_pods_waits_for_the_commit() {
        let have = fixture();
        let mut want = have.clone();
        let ip: std::net::IpAddr = "10.1.0.1".parse().expect("address");
        want.workloads.remove(&("mgy0000000000a1".to_owned(), ip));
        want.workloads
            .insert(("mgy0000000000b2".to_owned(), ip), "b/web1".to_owned());
        want.links
            .insert("mgy0000000000b2".to_owned(), Subject::new(4, false, true));
        let phases = plan(&have.diff(&want), &want, true);
        assert!(phases.add.is_empty());
        assert_eq!(
            (phases.commit.delete.len(), phases.commit.add.len()),
            (1, 1)
        );
    }

    #[test]
    fn no_change_is_no_step() {
        assert!(plan(&fixture().diff(&fixture()), &fixture(), false).is_empty());
    }

    #[test]
    fn another_life_s_numbers_leave_no_gap_between_link_and_class() {
        let have = fixture();
        let (old, new) = (Subject::new(4, false, true), Subject::new(9, false, true));
        let mut want = have.clone();
        want.links.insert("mgy0000000000a1".into(), new);
        want.pairs.remove(&(Direction::Ingress, old, Class(0x12)));
        want.pairs
            .insert((Direction::Ingress, new, Class(0x19)), Program(0x11));
        want.defaults.remove(&(Direction::Ingress, old));
        want.defaults
            .insert((Direction::Ingress, new), Program(0x10));
        for class in want.peers.values_mut() {
            *class = Class(0x19);
        }
        let phases = plan(&have.diff(&want), &want, true);
        assert!(phases.appeared.is_empty(), "{phases:#?}");
        let bridge = format!("pair_in {{ {} . 0:12 : 0:11 }}", new.0);
        assert!(names(&phases.add.add).contains(&bridge), "{phases:#?}");
        assert!(
            names(&phases.commit.delete).contains(&bridge),
            "{phases:#?}"
        );
        let same = plan(&have.diff(&have), &have, true);
        assert!(same.add.is_empty() && same.commit.delete.is_empty());
    }
}
