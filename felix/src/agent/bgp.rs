//! felix's end of the contract with bgpd: what we originate, what bgpd found best.
//!
//! Both directions are a snapshot, its end, then differences. The end of a stream takes nothing back: best routes that a
//! new stream does not name go only at the end of its snapshot.

use std::collections::{BTreeMap, BTreeSet};

use api::v1::{
    Ack, BgpdMessage, DataplaneReport, EndOfSnapshot, FelixMessage, Hello, LegsMoved, OriginKind,
    OriginUpdate, RouteUpdate, bgpd_message, felix_message,
};
use crds::net::Cidr;

use crate::routes::want::BgpLeg;

/// Version of the contract that we speak; one up and one down are taken.
const VERSION: u32 = 1;

/// State of the contract.
#[derive(Debug)]
pub struct Bgp {
    hello: Hello,
    report: DataplaneReport,
    connected: bool,
    /// Of the stream's last message that we sent.
    sent: u64,
    /// Of bgpd's last message that we took.
    taken: u64,
    /// The newest of those that we said is in the kernel.
    acked: u64,
    /// Why each is originated, and whether no pod has an address of it.
    origins: BTreeMap<Cidr, (OriginKind, bool)>,
    /// Withdrawn prefixes and the generation whose ack says that bgpd has told its peers.
    withdrawn: BTreeMap<Cidr, u64>,
    best: BTreeMap<Cidr, Vec<BgpLeg>>,
    /// Best routes of an earlier stream which this one has not named yet.
    stale: BTreeSet<Cidr>,
    complete: bool,
    problem: Option<String>,
}

/// What a message of bgpd's changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing to do.
    Nothing,
    /// These prefixes have other best routes, or none any more.
    Routes(Vec<Cidr>),
    /// The snapshot is complete: routes of earlier lives may be swept. These prefixes lost their routes with it.
    Complete(Vec<Cidr>),
    /// bgpd's peers have been told that these prefixes are gone.
    Withdrawn(Vec<Cidr>),
}

impl Bgp {
    /// A contract without a stream yet. `instance` names this life of felix; `boot_id` is the kernel's; `preserved` says
    /// for IPv4 and IPv6 whether BGP routes outlived the restart.
    #[must_use]
    pub fn new(instance: String, boot_id: String, preserved: [bool; 2]) -> Self {
        let [preserved_ipv4, preserved_ipv6] = preserved;
        Self {
            hello: Hello {
                version: VERSION,
                instance,
            },
            report: DataplaneReport {
                boot_id,
                preserved_ipv4,
                preserved_ipv6,
            },
            connected: false,
            sent: 0,
            taken: 0,
            acked: 0,
            origins: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            best: BTreeMap::new(),
            stale: BTreeSet::new(),
            complete: false,
            problem: None,
        }
    }

    /// Is a stream up?
    #[must_use]
    pub const fn connected(&self) -> bool {
        self.connected
    }

    /// Has any stream's snapshot been complete? Before, no route of an earlier life may go.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.complete
    }

    /// What is wrong with the stream, for people.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The best legs of a prefix.
    #[must_use]
    pub fn legs(&self, prefix: &Cidr) -> Option<&[BgpLeg]> {
        self.best.get(prefix).map(Vec::as_slice)
    }

    /// Prefixes with a best route.
    pub fn prefixes(&self) -> impl Iterator<Item = &Cidr> {
        self.best.keys()
    }

    /// Number of prefixes with a best route.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.best.len()
    }

    /// A stream is up: everything that bgpd must know, in order.
    pub fn connect(&mut self) -> Vec<FelixMessage> {
        self.connected = true;
        self.sent = 0;
        self.taken = 0;
        self.acked = 0;
        self.stale = self.best.keys().copied().collect();
        // Whatever this life found when it started: what a bgpd before said is in the kernel now, and stays.
        if self.complete {
            self.report.preserved_ipv4 = true;
            self.report.preserved_ipv6 = true;
        }
        let mut messages = vec![
            message(felix_message::Body::Hello(self.hello.clone())),
            message(felix_message::Body::Dataplane(self.report.clone())),
        ];
        let origins: Vec<_> = self
            .origins
            .iter()
            .map(|(prefix, kind)| (*prefix, *kind))
            .collect();
        messages.extend(
            origins
                .into_iter()
                .map(|(prefix, kind)| self.origin(prefix, kind, false)),
        );
        // What was being withdrawn is absent from this snapshot: its end withdraws it, and no message before.
        self.sent += 1;
        for generation in self.withdrawn.values_mut() {
            *generation = self.sent;
        }
        messages.push(message(felix_message::Body::EndOfSnapshot(EndOfSnapshot {
            generation: self.sent,
        })));
        messages
    }

    /// The stream ended. Nothing is known of prefixes that were being withdrawn: a bgpd that lives on goes on announcing
    /// them, and the next stream tells it.
    pub const fn disconnect(&mut self) {
        self.connected = false;
    }

    /// Is there a prefix of which it is not known yet that the peers were told?
    #[must_use]
    pub fn withdrawing(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    /// There was no bgpd for so long that no peer can still hold what it announced.
    pub fn forget_withdrawn(&mut self) -> Change {
        Change::Withdrawn(std::mem::take(&mut self.withdrawn).into_keys().collect())
    }

    /// Announces a prefix, from now on and on every stream to come. `idle`: no pod has an address of it.
    pub fn announce(&mut self, prefix: Cidr, kind: OriginKind, idle: bool) -> Option<FelixMessage> {
        self.withdrawn.remove(&prefix);
        let known = self.origins.insert(prefix, (kind, idle)) == Some((kind, idle));
        (self.connected && !known).then(|| self.origin(prefix, (kind, idle), false))
    }

    /// Withdraws a prefix. It is [`Change::Withdrawn`] once bgpd has told its peers; at once when it never was announced.
    pub fn withdraw(&mut self, prefix: Cidr) -> (Option<FelixMessage>, Change) {
        let Some(kind) = self.origins.remove(&prefix) else {
            return match self.withdrawn.contains_key(&prefix) {
                true => (None, Change::Nothing),
                false => (None, Change::Withdrawn(vec![prefix])),
            };
        };
        let message = self.connected.then(|| self.origin(prefix, kind, true));
        self.withdrawn.insert(prefix, self.sent);
        (message, Change::Nothing)
    }

    /// Prefixes that are originated.
    pub fn origins(&self) -> impl Iterator<Item = &Cidr> {
        self.origins.keys()
    }

    /// What to answer when everything bgpd said so far is in the kernel; nothing when it was answered already.
    pub fn ack(&mut self) -> Option<FelixMessage> {
        if !self.connected || self.taken <= self.acked {
            return None;
        }
        self.acked = self.taken;
        Some(message(felix_message::Body::Ack(Ack {
            generation: self.taken,
            error: String::new(),
        })))
    }

    /// Takes a message of bgpd's.
    pub fn take(&mut self, message: BgpdMessage) -> Change {
        match message.body {
            Some(bgpd_message::Body::Hello(hello)) => {
                let understood = hello.version.abs_diff(VERSION) <= 1;
                self.problem = (!understood).then(|| {
                    format!("bgpd speaks version {} of the contract, felix {VERSION}: upgrade the older", hello.version)
                });
                Change::Nothing
            }
            Some(bgpd_message::Body::Route(update)) => self.route(update),
            Some(bgpd_message::Body::Moved(moved)) => self.moved(&moved),
            Some(bgpd_message::Body::EndOfSnapshot(end)) => {
                self.taken = self.taken.max(end.generation);
                self.complete = true;
                let gone: Vec<Cidr> = std::mem::take(&mut self.stale).into_iter().collect();
                for prefix in &gone {
                    self.best.remove(prefix);
                }
                Change::Complete(gone)
            }
            Some(bgpd_message::Body::Ack(ack)) => {
                let told = |generation: &mut u64| *generation <= ack.generation;
                let done: Vec<Cidr> = self
                    .withdrawn
                    .extract_if(.., |_, generation| told(generation))
                    .map(|(p, _)| p)
                    .collect();
                match done.is_empty() {
                    true => Change::Nothing,
                    false => Change::Withdrawn(done),
                }
            }
            // The driver's: it is not about routes.
            Some(bgpd_message::Body::Advertise(_)) | None => Change::Nothing,
        }
    }

    fn route(&mut self, update: RouteUpdate) -> Change {
        self.taken = self.taken.max(update.generation);
        let Ok(prefix) = update.prefix.parse::<Cidr>() else {
            self.problem = Some(format!(
                "bgpd named a prefix that is none: {:?}",
                update.prefix
            ));
            return Change::Nothing;
        };
        let legs: Option<Vec<BgpLeg>> = update.legs.iter().map(leg).collect();
        let Some(legs) = legs else {
            self.problem = Some(format!("bgpd gave {prefix} a next hop that is none"));
            return Change::Nothing;
        };
        self.stale.remove(&prefix);
        let changed = match legs.is_empty() {
            true => self.best.remove(&prefix).is_some(),
            false => self.best.insert(prefix, legs.clone()).as_ref() != Some(&legs),
        };
        match changed {
            true => Change::Routes(vec![prefix]),
            false => Change::Nothing,
        }
    }

    /// What is said of each prefix follows; whoever does not take this part of the contract is told no less.
    fn moved(&mut self, moved: &LegsMoved) -> Change {
        self.taken = self.taken.max(moved.generation);
        let legs = |legs: &[api::v1::Leg]| legs.iter().map(leg).collect::<Option<Vec<_>>>();
        let (Some(from), Some(to)) = (legs(&moved.from), legs(&moved.to)) else {
            self.problem = Some("bgpd gave ways with a next hop that is none".to_owned());
            return Change::Nothing;
        };
        if to.is_empty() || from == to {
            return Change::Nothing;
        }
        let mut prefixes = Vec::new();
        for (prefix, legs) in &mut self.best {
            if *legs == from {
                legs.clone_from(&to);
                prefixes.push(*prefix);
            }
        }
        match prefixes.is_empty() {
            true => Change::Nothing,
            false => Change::Routes(prefixes),
        }
    }

    fn origin(
        &mut self,
        prefix: Cidr,
        (kind, idle): (OriginKind, bool),
        withdrawn: bool,
    ) -> FelixMessage {
        self.sent += 1;
        let update = OriginUpdate {
            generation: self.sent,
            prefix: prefix.to_string(),
            kind: kind.into(),
            withdrawn,
            idle,
        };
        message(felix_message::Body::Origin(update))
    }
}

fn leg(leg: &api::v1::Leg) -> Option<BgpLeg> {
    Some(BgpLeg {
        address: leg.address.parse().ok()?,
        ifindex: (leg.ifindex != 0).then_some(leg.ifindex),
        onlink: leg.onlink,
        weight: u8::try_from(leg.weight.clamp(1, 255)).ok()?,
    })
}

const fn message(body: felix_message::Body) -> FelixMessage {
    FelixMessage { body: Some(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bgp() -> Bgp {
        Bgp::new("i".into(), "b".into(), [true, false])
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn route(generation: u64, prefix: &str, hops: &[&str]) -> BgpdMessage {
        let legs = hops.iter().map(|hop| api::v1::Leg {
            address: (*hop).into(),
            ifindex: 0,
            onlink: false,
            weight: 1,
        });
        let update = RouteUpdate {
            generation,
            prefix: prefix.into(),
            legs: legs.collect(),
        };
        BgpdMessage {
            body: Some(bgpd_message::Body::Route(update)),
        }
    }

    fn end(generation: u64) -> BgpdMessage {
        BgpdMessage {
            body: Some(bgpd_message::Body::EndOfSnapshot(EndOfSnapshot {
                generation,
            })),
        }
    }

    fn ack(generation: u64) -> BgpdMessage {
        BgpdMessage {
            body: Some(bgpd_message::Body::Ack(Ack {
                generation,
                error: String::new(),
            })),
        }
    }

    #[test]
    fn a_stream_opens_with_hello_report_origins_and_the_end() {
        let mut bgp = bgp();
        assert_eq!(
            bgp.announce(cidr("10.0.0.0/26"), OriginKind::Block, false),
            None,
            "no stream, nothing to send"
        );
        let kinds: Vec<_> = bgp.connect().into_iter().map(|m| m.body.unwrap()).collect();
        assert!(matches!(kinds[0], felix_message::Body::Hello(_)));
        assert!(
            matches!(&kinds[1], felix_message::Body::Dataplane(d) if d.preserved_ipv4 && !d.preserved_ipv6)
        );
        assert!(
            matches!(&kinds[2], felix_message::Body::Origin(o) if o.prefix == "10.0.0.0/26" && o.generation == 1)
        );
        assert!(matches!(&kinds[3], felix_message::Body::EndOfSnapshot(e) if e.generation == 2));
    }

    #[test]
    fn a_lost_stream_takes_nothing_back_and_the_next_one_s_end_does() {
        let mut bgp = bgp();
        bgp.connect();
        bgp.take(route(1, "10.1.0.0/26", &["192.0.2.1"]));
        bgp.take(route(2, "10.2.0.0/26", &["192.0.2.1"]));
        assert_eq!(bgp.take(end(2)), Change::Complete(vec![]));
        bgp.disconnect();
        assert_eq!(bgp.routes(), 2);
        bgp.connect();
        assert_eq!(
            bgp.take(route(1, "10.1.0.0/26", &["192.0.2.1"])),
            Change::Nothing,
            "the same as before"
        );
        assert_eq!(bgp.routes(), 2);
        assert_eq!(
            bgp.take(end(1)),
            Change::Complete(vec![cidr("10.2.0.0/26")])
        );
        assert_eq!(bgp.routes(), 1);
    }

    #[test]
    fn a_withdrawal_is_done_when_bgpd_says_so() {
        let mut bgp = bgp();
        bgp.announce(cidr("10.0.0.0/26"), OriginKind::Block, false);
        bgp.connect();
        let (message, change) = bgp.withdraw(cidr("10.0.0.0/26"));
        assert!(message.is_some());
        assert_eq!(change, Change::Nothing);
        assert_eq!(bgp.take(ack(2)), Change::Nothing, "the snapshot");
        assert_eq!(
            bgp.withdraw(cidr("10.0.0.0/26")),
            (None, Change::Nothing),
            "asking again makes nothing sooner"
        );
        assert_eq!(
            bgp.take(ack(3)),
            Change::Withdrawn(vec![cidr("10.0.0.0/26")])
        );
    }

    #[test]
    fn a_withdrawal_outlives_the_stream() {
        let (kept, gone) = (cidr("10.0.0.0/26"), cidr("10.0.1.0/26"));
        let mut bgp = bgp();
        bgp.announce(kept, OriginKind::Block, false);
        bgp.announce(gone, OriginKind::Block, false);
        bgp.connect();
        bgp.disconnect();
        assert_eq!(bgp.withdraw(gone), (None, Change::Nothing));
        assert!(bgp.withdrawing());
        assert_eq!(bgp.connect().len(), 4, "one origin is left");
        assert_eq!(bgp.take(ack(1)), Change::Nothing, "only the origin");
        assert_eq!(bgp.take(ack(2)), Change::Withdrawn(vec![gone]));
        bgp.withdraw(kept);
        bgp.disconnect();
        assert_eq!(bgp.forget_withdrawn(), Change::Withdrawn(vec![kept]));
    }

    #[test]
    fn ways_that_all_have_left_are_left_at_once() {
        let mut bgp = bgp();
        bgp.connect();
        bgp.take(route(1, "10.1.0.0/26", &["192.0.2.1", "192.0.2.2"]));
        bgp.take(route(2, "10.2.0.0/26", &["192.0.2.1", "192.0.2.2"]));
        bgp.take(route(3, "10.3.0.0/26", &["192.0.2.1"]));
        let legs = |hops: &[&str]| match route(0, "10.0.0.0/26", hops).body {
            Some(bgpd_message::Body::Route(update)) => update.legs,
            _ => Vec::new(),
        };
        let moved = |to: &[&str]| BgpdMessage {
            body: Some(bgpd_message::Body::Moved(LegsMoved {
                generation: 4,
                from: legs(&["192.0.2.1", "192.0.2.2"]),
                to: legs(to),
            })),
        };
        let both = vec![cidr("10.1.0.0/26"), cidr("10.2.0.0/26")];
        assert_eq!(bgp.take(moved(&["192.0.2.2"])), Change::Routes(both));
        assert_eq!(bgp.legs(&cidr("10.1.0.0/26")).map(<[_]>::len), Some(1));
        let update = route(5, "10.1.0.0/26", &["192.0.2.2"]);
        assert_eq!(bgp.take(update), Change::Nothing, "known by then");
        let update = route(6, "10.2.0.0/26", &["192.0.2.1"]);
        let Change::Routes(_) = bgp.take(update) else {
            panic!("it has others than most");
        };
        assert_eq!(bgp.take(moved(&[])), Change::Nothing);
    }

    #[test]
    fn what_is_in_the_kernel_is_said_once() {
        let mut bgp = bgp();
        bgp.connect();
        assert_eq!(bgp.ack(), None);
        bgp.take(route(1, "10.1.0.0/26", &["192.0.2.1"]));
        assert!(bgp.ack().is_some());
        assert_eq!(bgp.ack(), None);
        bgp.connect();
        bgp.take(route(1, "10.1.0.0/26", &["192.0.2.1"]));
        assert!(bgp.ack().is_some(), "a new stream counts anew");
    }

    #[test]
    fn a_prefix_announced_again_is_not_withdrawn_by_a_late_ack() {
        let mut bgp = bgp();
        bgp.announce(cidr("10.0.0.0/26"), OriginKind::Block, false);
        bgp.connect();
        bgp.withdraw(cidr("10.0.0.0/26"));
        assert!(
            bgp.announce(cidr("10.0.0.0/26"), OriginKind::Block, false)
                .is_some()
        );
        assert_eq!(bgp.take(ack(9)), Change::Nothing);
    }

    #[test]
    fn junk_from_bgpd_is_a_problem_and_changes_nothing() {
        let mut bgp = bgp();
        bgp.connect();
        assert_eq!(bgp.take(route(1, "not a prefix", &[])), Change::Nothing);
        assert!(bgp.problem().unwrap().contains("not a prefix"));
        assert_eq!(
            bgp.take(route(2, "10.0.0.0/26", &["nonsense"])),
            Change::Nothing
        );
        assert_eq!(bgp.routes(), 0);
    }
}
