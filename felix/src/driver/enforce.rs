//! Policy in the kernel: the steps of a change, in their order, and new judgements of live connections, not too often.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context;

use super::netlink::Netlink;
use super::nft::{Ensured, Error, Nft};
use super::sysctl;
use crate::Millis;
use crate::nft::decode::Counters;
use crate::nft::diff::{Phases, UNPROGRAMMED};
use crate::nft::epoch::{Epoch, Options};
use crate::nft::pace::Pace;
use crate::nft::terms;
use crate::policy::counts::Packets;
use crate::policy::tables::{Subject, Tables};

/// Elements added in one transaction, when it may be several: less than 100 ms.
const PIECE: usize = 20_000;

/// The table, and the device groups of links.
#[derive(Debug)]
pub struct Enforcer {
    nft: Nft,
    pace: Pace,
    bumps: u64,
    clock: Instant,
    /// Interfaces whose settings are made: looking at them takes longer than the rest of a change.
    set_up: BTreeSet<String>,
    /// What the sets beside policy hold, as far as known.
    terms: Option<terms::Elements>,
}

impl Enforcer {
    /// Of the network namespace of this thread. Puts the fixed rules in place.
    pub fn open() -> anyhow::Result<(Self, Ensured)> {
        let mut nft = Nft::open().context("opening nftables")?;
        let ensured = nft.take_up().context("making the table inet margay")?;
        let enforcer = Self {
            nft,
            pace: Pace::default(),
            bumps: 0,
            clock: Instant::now(),
            set_up: BTreeSet::new(),
            terms: None,
        };
        Ok((enforcer, ensured))
    }

    /// Port of the socket; reports of what our own transactions change carry it.
    pub fn port(&self) -> std::io::Result<u32> {
        self.nft.port()
    }

    /// Puts the fixed rules in place where they are not.
    pub fn ensure_table(&mut self, options: Options) -> Result<Ensured, Error> {
        self.nft.set_options(options);
        self.terms = None;
        self.nft.ensure_table()
    }

    /// Makes the sets beside policy hold these elements; `true`: live connections must be judged again.
    pub fn hold(&mut self, wanted: &terms::Elements) -> Result<bool, Error> {
        let there = match self.terms.take() {
            Some(known) => known,
            None => self.nft.read_terms()?,
        };
        let mut step = there.step(wanted);
        let bump = std::mem::take(&mut step.bump);
        self.nft.apply(&step)?;
        self.terms = Some(wanted.clone());
        Ok(bump)
    }

    /// Options and epoch of the rules in force.
    #[must_use]
    pub const fn rules(&self) -> (Options, Epoch) {
        (self.nft.options(), self.nft.epoch())
    }

    /// The elements in force, without links.
    pub fn read(&mut self) -> Result<Tables, Error> {
        self.nft.read()
    }

    /// The table is there and has the rules it should have.
    pub fn intact(&mut self) -> Result<bool, Error> {
        self.nft.intact()
    }

    /// What has been dropped so far.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        self.nft.counters()
    }

    /// Packets that the elements in force have counted, by what led to their verdicts.
    pub fn packets(&mut self) -> Result<Packets, Error> {
        self.nft.packets()
    }

    /// The same of elements that are gone since this was last asked.
    pub fn gone(&mut self) -> Packets {
        self.nft.gone()
    }

    /// The first step: what nothing refers to yet, in transactions that do not hold others up for long.
    pub fn prepare(&mut self, phases: &Phases) -> anyhow::Result<()> {
        let mut pieces = phases.add.pieces(PIECE);
        pieces.try_for_each(|piece| self.nft.apply(&piece).context("adding policy"))
    }

    /// The others: links get their groups, then everything else together with a new judgement of live connections,
    /// which waits a little when there was one just now.
    pub fn commit(&mut self, phases: &Phases, netlink: &mut Netlink) -> anyhow::Result<()> {
        self.set_up(phases);
        set_groups(netlink, &phases.links)?;
        let now = self.now();
        if phases.commit.bump && !self.pace.grants(now, phases.urgent) {
            let mut later = phases.commit.clone();
            later.bump = false;
            self.nft.apply(&later).context("committing policy")?;
        } else {
            self.nft
                .apply(&phases.commit)
                .context("committing policy")?;
            if phases.commit.bump {
                self.bumped(now);
            }
        }
        set_groups(netlink, &phases.relinks)?;
        self.nft.apply(&phases.sweep).context("sweeping policy")
    }

    /// Settings of interfaces that this felix has not seen to yet.
    fn set_up(&mut self, phases: &Phases) {
        for (name, subject) in &phases.links {
            if *subject == UNPROGRAMMED {
                self.set_up.remove(name);
                continue;
            }
            if self.set_up.contains(name) && !phases.appeared.contains(name) {
                continue;
            }
            match sysctl::workload(name) {
                Ok(()) => {
                    self.set_up.insert(name.clone());
                }
                Err(error) => tracing::warn!(%error, name, "setting up a pod's host interface"),
            }
        }
    }

    /// When [`Enforcer::bump`] has something to do.
    #[must_use]
    pub fn bump_due(&self) -> Option<Instant> {
        let due = std::time::Duration::from_millis(self.pace.due()?);
        Some(self.clock + due)
    }

    /// Has live connections judged again for the changes which have waited for that, if it is time.
    pub fn bump(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        if self.pace.due().is_some_and(|due| due <= now) {
            self.nft.bump().context("judging live connections again")?;
            self.bumped(now);
        }
        Ok(())
    }

    /// How often live connections were judged again.
    #[must_use]
    pub const fn bumps(&self) -> u64 {
        self.bumps
    }

    const fn bumped(&mut self, now: Millis) {
        self.pace.bumped(now);
        self.bumps += 1;
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.clock.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

fn set_groups(netlink: &mut Netlink, links: &[(String, Subject)]) -> anyhow::Result<()> {
    netlink.set_groups(links).context("setting device groups")
}
