//! Which of several controllers leads: whoever holds a Lease, as other controllers of Kubernetes do it.
//!
//! Clocks of machines differ, so a lease counts as expired when it was *seen* unchanged for as long as it lasts.

use crate::Millis;

/// How long a lease lasts, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// `spec.leaseDurationSeconds`, in milliseconds.
    pub lease: Millis,
}

impl Timing {
    /// Between two looks at the lease, and two renewals of our own.
    #[must_use]
    pub const fn pause(self) -> Millis {
        self.lease / 5
    }

    /// A leader that could not renew for so long stops to lead, well before anybody else takes the lease.
    #[must_use]
    pub const fn deadline(self) -> Millis {
        self.lease * 2 / 3
    }
}

/// A Lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`; empty when it was given back.
    pub holder: String,
    /// `spec.leaseDurationSeconds`, in milliseconds.
    pub lasts: Millis,
}

/// What to do about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make it.
    Create,
    /// Write ourselves into it, if it still has that version: it changes hands.
    Take,
    /// Say that we are there, likewise.
    Renew,
    /// Look again after [`Timing::pause`].
    Wait,
}

/// One candidate's part.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// Version of the lease that another holds, and since when it has been seen so.
    observed: Option<(String, Millis)>,
    /// When the request was made that last got us the lease.
    held: Option<Millis>,
}

impl Election {
    /// A candidate whose identity nobody else has, not even an earlier life of it.
    #[must_use]
    pub const fn new(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            observed: None,
            held: None,
        }
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The lease was read; `None` when there is none.
    pub fn seen(&mut self, lease: Option<&Seen>, now: Millis) -> Step {
        let Some(lease) = lease else {
            self.observed = None;
            return Step::Create;
        };
        if lease.holder == self.identity {
            return Step::Renew;
        }
        // Somebody has it, whatever we believed.
        self.held = None;
        if lease.holder.is_empty() {
            return Step::Take;
        }
        match &self.observed {
            Some((version, since)) if *version == lease.version => {
                if now >= since.saturating_add(lease.lasts) {
                    return Step::Take;
                }
            }
            _ => self.observed = Some((lease.version.clone(), now)),
        }
        Step::Wait
    }

    /// A request to create, take or renew it, made at `asked`, was granted.
    pub fn granted(&mut self, asked: Millis) {
        self.held = Some(asked);
        self.observed = None;
    }

    /// Whether we lead.
    #[must_use]
    pub fn leads(&self, now: Millis) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// When we stop to lead unless a request is granted; `None` while we do not.
    #[must_use]
    pub fn leads_until(&self) -> Option<Millis> {
        self.held
            .map(|at| at.saturating_add(self.timing.deadline()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { lease: 15_000 };

    /// The API server's part: one lease, changed only by who knows its version.
    #[derive(Default)]
    struct Server {
        lease: Option<Seen>,
        writes: u32,
    }

    impl Server {
        fn write(&mut self, holder: &str, version: Option<&str>) -> bool {
            if self.lease.as_ref().map(|it| it.version.as_str()) != version {
                return false;
            }
            self.writes += 1;
            self.lease = Some(Seen {
                version: self.writes.to_string(),
                holder: holder.to_owned(),
                lasts: TIMING.lease,
            });
            true
        }
    }

    fn turn(server: &mut Server, who: &mut Election, now: Millis) {
        let lease = server.lease.clone();
        match who.seen(lease.as_ref(), now) {
            Step::Wait => {}
            Step::Create | Step::Take | Step::Renew => {
                let version = lease.as_ref().map(|it| it.version.as_str());
                if server.write(&who.identity, version) {
                    who.granted(now);
                }
            }
        }
    }

    fn candidates() -> [Election; 3] {
        ["a", "b", "c"].map(|name| Election::new(name.to_owned(), TIMING))
    }

    #[test]
    fn one_leads_at_a_time_whoever_is_cut_off() {
        let (mut server, mut all) = (Server::default(), candidates());
        let mut leaders = Vec::new();
        for now in (0..600_000).step_by(500) {
            for (at, who) in (0_u64..).zip(&mut all) {
                // Each is away for a minute in turn, then looks every 3 s with an offset.
                let away = (now / 60_000) % 4 == at;
                if !away && now % 3_000 == at * 500 {
                    turn(&mut server, who, now);
                }
            }
            let leading: Vec<_> = all.iter().filter(|it| it.leads(now)).collect();
            assert!(leading.len() <= 1, "at {now}: {leading:?}");
            leaders.extend(leading.first().map(|it| it.identity.clone()));
        }
        assert!(
            leaders.len() > 1_000,
            "somebody leads nearly always: {}",
            leaders.len()
        );
        leaders.dedup();
        assert!(leaders.len() >= 3, "{leaders:?}");
    }

    #[test]
    fn a_dead_leader_is_followed_when_its_lease_was_seen_unchanged_for_its_time() {
        let (mut server, [mut a, mut b, _]) = (Server::default(), candidates());
        turn(&mut server, &mut a, 0);
        assert!(a.leads(0));
        for now in (1_000..16_000).step_by(1_000) {
            turn(&mut server, &mut b, now);
            assert!(!b.leads(now), "at {now}");
        }
        turn(&mut server, &mut b, 16_000);
        assert!(b.leads(16_000) && !a.leads(16_000));
        // The dead returns, and finds that it leads no more.
        turn(&mut server, &mut a, 16_500);
        assert!(!a.leads(16_500));
    }

    #[test]
    fn a_lease_given_back_is_taken_at_once() {
        let (mut server, [mut a, mut b, _]) = (Server::default(), candidates());
        turn(&mut server, &mut a, 0);
        turn(&mut server, &mut b, 10);
        let version = server.lease.as_ref().map(|it| it.version.clone());
        assert!(server.write("", version.as_deref()));
        turn(&mut server, &mut b, 20);
        assert!(b.leads(20));
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_others_begin() {
        let (mut server, [mut a, ..]) = (Server::default(), candidates());
        turn(&mut server, &mut a, 0);
        assert!(a.leads(TIMING.deadline() - 1));
        assert!(!a.leads(TIMING.deadline()));
        assert!(TIMING.deadline() + TIMING.pause() < TIMING.lease);
    }
}
