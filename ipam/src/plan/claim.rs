//! Claiming blocks before they are needed and releasing those that are not.

use std::collections::BTreeSet;

use crds::ip_pool::{Pool, block_sizes};
use crds::net::{Cidr, Family};

use crate::Millis;
use crate::error::AllocateError;
use crate::ownership::State;
use crate::pool::candidate;

use super::entry::{Call, Entry};
use super::{Ipam, Output};

/// How long a block is empty before it is released: BGP should not see every lull.
const IDLE: Millis = 60_000;
/// After so many claims lost to others, listing every block is cheaper than guessing on.
const CONFLICTS: usize = 3;
/// How often all blocks are listed at most, when no pool has a free one.
const SURVEY_EVERY: Millis = 30_000;

/// What is known of other nodes' blocks: conflicts met, and the last list of all.
#[derive(Debug, Default)]
pub(super) struct Survey {
    elsewhere: BTreeSet<Cidr>,
    conflicts: usize,
    sent: bool,
    answered: Option<Millis>,
}

impl Survey {
    pub(super) fn conflict(&mut self, cidr: Cidr) {
        if self.elsewhere.insert(cidr) {
            self.conflicts += 1;
        }
    }

    pub(super) fn free(&mut self, cidr: Cidr) {
        self.elsewhere.remove(&cidr);
    }

    /// Whether an address of the prefix is in a block of another node.
    fn has(&self, cidr: Cidr) -> bool {
        let inside = self
            .elsewhere
            .range(cidr..=Cidr::host(cidr.last()))
            .next()
            .is_some();
        let lengths = *block_sizes(cidr.family()).start()..cidr.prefix_len();
        let mut wider = lengths.filter_map(|length| Cidr::new(cidr.first(), length).ok());
        inside || wider.any(|wider| self.elsewhere.contains(&wider))
    }

    fn may_ask(&self, now: Millis) -> bool {
        !self.sent && self.answered.is_none_or(|at| at + SURVEY_EVERY <= now)
    }
}

impl Ipam {
    pub(super) fn surveyed(&mut self, blocks: BTreeSet<Cidr>, now: Millis) {
        let ours = |cidr: &Cidr| {
            let state = self.entries.get(cidr).map(|entry| &entry.state);
            matches!(
                state,
                Some(State::Owned { .. } | State::Releasing { .. } | State::Missing)
            )
        };
        let elsewhere = blocks.into_iter().filter(|cidr| !ours(cidr)).collect();
        self.survey = Survey {
            elsewhere,
            conflicts: 0,
            sent: false,
            answered: Some(now),
        };
    }

    pub(super) fn survey_failed(&mut self, now: Millis) {
        self.survey.sent = false;
        self.survey.conflicts = 0;
        self.survey.answered = Some(now);
    }

    pub(super) fn survey_timeout(&self) -> Option<Millis> {
        let starved = Family::ALL
            .into_iter()
            .any(|family| self.lacks_block(family) && self.next_claim(family).is_none());
        let wants = self.synced && !self.survey.sent && starved;
        wants.then(|| self.survey.answered.map_or(0, |at| at + SURVEY_EVERY))
    }

    /// Claims a block of each family that runs short of addresses, one at a time.
    pub(super) fn claim(&mut self, now: Millis) {
        for family in Family::ALL {
            if !self.lacks_block(family) || self.survey.sent {
                continue;
            }
            let guessing = self.survey.conflicts >= CONFLICTS;
            match self.next_claim(family) {
                Some((cidr, pool)) if !guessing => {
                    self.enter(cidr, &pool, State::Pending, now);
                }
                Some(_) => self.ask_survey(),
                None if self.survey.may_ask(now) => self.ask_survey(),
                None => {}
            }
        }
    }

    fn ask_survey(&mut self) {
        self.survey.sent = true;
        self.outputs.push_back(Output::Survey);
    }

    /// Whether fewer than a quarter of a block's addresses are free, none is on its way, and another block is allowed.
    fn lacks_block(&self, family: Family) -> bool {
        let Some(pool) = self.pools_of(family).next() else {
            return false;
        };
        !self.is_claiming(family)
            && self.block_count(family) < self.configuration.max_blocks_per_node
            && self.available(family) < (block_addresses(pool) / 4).max(1)
    }

    /// A block is on its way, or on its way back.
    fn is_claiming(&self, family: Family) -> bool {
        self.entries.iter().any(|(cidr, entry)| {
            let awaited = match entry.state {
                State::Pending => true,
                State::Missing => {
                    entry.block.available() > 0 && self.pool_in_force(&entry.pool, *cidr).is_some()
                }
                _ => false,
            };
            awaited && cidr.family() == family
        })
    }

    fn block_count(&self, family: Family) -> u32 {
        let count = self
            .entries
            .keys()
            .filter(|cidr| cidr.family() == family)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn available(&self, family: Family) -> u32 {
        self.usable(family)
            .map(|(_, entry)| u32::from(entry.block.available()))
            .sum()
    }

    /// The block to claim next, and the name of its pool.
    fn next_claim(&self, family: Family) -> Option<(Cidr, String)> {
        let taken =
            |cidr: Cidr| self.survey.has(cidr) || self.entries.keys().any(|own| own.overlaps(cidr));
        self.pools_of(family).find_map(|pool| {
            // A larger block, of a pool that was made anew with smaller ones, takes many candidates.
            let known = self.survey.elsewhere.iter().chain(self.entries.keys());
            let limit = known
                .filter(|cidr| pool.cidr.overlaps(**cidr))
                .map(|cidr| cidr.subnets(pool.block_size).max(1));
            let limit = usize::try_from(limit.sum::<u128>()).unwrap_or(usize::MAX);
            Some((
                candidate(pool, &self.owner.node, limit, taken)?,
                pool.name.clone(),
            ))
        })
    }

    /// Why a family has no address to give.
    pub(super) fn why_none(&self, family: Family) -> AllocateError {
        let Some(pool) = self.pools_of(family).last() else {
            return AllocateError::NoPool(family);
        };
        let max = self.configuration.max_blocks_per_node;
        if self.is_claiming(family) || self.survey.sent {
            AllocateError::Claiming(family)
        } else if self.block_count(family) >= max {
            AllocateError::BlockLimit { family, max }
        } else if self.next_claim(family).is_some() || self.survey.answered.is_none() {
            AllocateError::Claiming(family)
        } else {
            AllocateError::Exhausted {
                pool: pool.name.clone(),
            }
        }
    }

    /// Begins to release blocks that were empty for long and are not needed.
    pub(super) fn release(&mut self, now: Millis) {
        while let Some(cidr) = self.entries.iter().find_map(|(cidr, entry)| {
            let due = self.release_time(*cidr, entry)? <= now;
            due.then_some(*cidr)
        }) {
            let withdrawing = self.withdraw(cidr);
            let Some(entry) = self.entries.get_mut(&cidr) else {
                return;
            };
            if let State::Owned { epoch } = &entry.state {
                entry.state = State::Releasing {
                    epoch: epoch.clone(),
                    withdrawn: !withdrawing,
                };
            }
        }
    }

    /// When a block is released if nothing changes; None while it is needed: half a block must stay free without it, so that
    /// it is not claimed again at once.
    pub(super) fn release_time(&self, cidr: Cidr, entry: &Entry) -> Option<Millis> {
        let since = entry.empty_since?;
        if !entry.confirmed
            || !matches!(entry.state, State::Owned { .. })
            || entry.call != Call::Idle
        {
            return None;
        }
        if self.pool_in_force(&entry.pool, cidr).is_some() {
            let others = self.available(cidr.family()) - u32::from(entry.block.available());
            let reserve = self
                .pools_of(cidr.family())
                .next()
                .map_or(1, |pool| (block_addresses(pool) / 2).max(1));
            if others < reserve {
                return None;
            }
        }
        Some(since + IDLE)
    }
}

fn block_addresses(pool: &Pool) -> u32 {
    1 << (pool.cidr.family().bits() - pool.block_size).min(16)
}
