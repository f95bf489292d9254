//! The life of a block: what the API says about it, and what is asked of the API.

use std::collections::BTreeSet;

use crds::ipam_block::{Block as SeenBlock, Owner};
use crds::net::Cidr;

use crate::Millis;
use crate::journal::{OwnedBlock, Record};
use crate::ownership::{Quarantine, Standing, State};
use crate::pool;

use super::entry::{Call, Entry};
use super::{Ipam, Output};

/// First and longest wait between two tries of a Create or Delete.
const RETRY: Millis = 500;
const RETRY_MAX: Millis = 30_000;
/// How often it is tried to get back a block that another owner holds while attachments live in it.
const RECLAIM: Millis = 60_000;

impl Ipam {
    pub(super) fn listed(&mut self, blocks: Vec<SeenBlock>, now: Millis) {
        let present: BTreeSet<Cidr> = blocks.iter().map(|block| block.cidr).collect();
        let absent: Vec<Cidr> = self
            .entries
            .keys()
            .filter(|cidr| !present.contains(cidr))
            .copied()
            .collect();
        for cidr in absent {
            self.vanished(cidr, now);
        }
        // What a log of an earlier boot claims was not entered.
        let unknown = |cidr: &&Cidr| !present.contains(cidr) && !self.entries.contains_key(cidr);
        for cidr in self
            .logged
            .keys()
            .filter(unknown)
            .copied()
            .collect::<Vec<_>>()
        {
            self.disown(cidr);
        }
        blocks.iter().for_each(|block| self.seen(block, now));
        self.synced = true;
    }

    pub(super) fn seen(&mut self, block: &SeenBlock, now: Millis) {
        match Standing::of(&block.owner, &self.owner) {
            Standing::Foreign => self.foreign(block.cidr, &block.owner, now),
            standing => self.own(block, standing, now),
        }
    }

    pub(super) fn gone(&mut self, cidr: Cidr, uid: &str, now: Millis) {
        self.survey.free(cidr);
        let stale = match self.entries.get(&cidr).map(|entry| &entry.state) {
            Some(State::Owned { epoch }) => epoch != uid,
            _ => false,
        };
        if !stale {
            self.vanished(cidr, now);
        }
    }

    /// There is no object of that prefix under this node's name.
    fn vanished(&mut self, cidr: Cidr, now: Millis) {
        let Some(entry) = self.entries.get_mut(&cidr) else {
            return;
        };
        match &entry.state {
            State::Owned { .. } => entry.state = State::Missing,
            // A former node of our name held it.
            State::Quarantined(Quarantine::OtherOwner(owner)) if owner.node == self.owner.node => {
                entry.call.wait(now);
            }
            // The answer to the call that is out, or the next one, tells.
            State::Pending | State::Missing | State::Releasing { .. } | State::Quarantined(_) => {}
        }
    }

    pub(super) fn created(&mut self, cidr: Cidr, uid: String, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            entry.call = Call::Idle;
            entry.failures = 0;
            self.become_owner(cidr, uid, now);
        }
    }

    pub(super) fn exists(&mut self, block: &SeenBlock, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&block.cidr) {
            entry.call = Call::Idle;
            entry.failures = 0;
        }
        self.seen(block, now);
    }

    pub(super) fn call_failed(&mut self, cidr: Cidr, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            let wait = (RETRY << entry.failures.min(16)).min(RETRY_MAX);
            entry.failures += 1;
            entry.call = Call::Wait(now + wait);
        }
    }

    /// The object says that the block is ours.
    fn own(&mut self, block: &SeenBlock, standing: Standing, now: Millis) {
        let cidr = block.cidr;
        if !self.entries.contains_key(&cidr) {
            let state = self.state_of_unknown(block, standing);
            if !self.enter(cidr, &block.pool, state, now) {
                return;
            }
        }
        let Some(entry) = self.entries.get(&cidr) else {
            return;
        };
        if matches!(entry.state, State::Releasing { .. }) {
            return;
        }
        let ours_since_the_log = standing == Standing::Ours || self.is_logged(block);
        let covered = self.log_complete && ours_since_the_log;
        if !entry.confirmed && !covered {
            self.hold_mirrored(block, now);
        }
        self.become_owner(cidr, block.uid.clone(), now);
        self.compare_mirror(block, now);
    }

    /// What to make of an object of ours that this process has no block for. If the log does not know it either, we disowned it
    /// and the event or list is late, or a deletion is still on its way, or we died before a claim was logged: it must go.
    fn state_of_unknown(&self, block: &SeenBlock, standing: Standing) -> State {
        let log_tells = self.synced || (self.log_complete && standing == Standing::Ours);
        if log_tells && !self.is_logged(block) {
            State::Releasing {
                epoch: block.uid.clone(),
                withdrawn: true,
            }
        } else {
            State::Missing
        }
    }

    fn is_logged(&self, block: &SeenBlock) -> bool {
        self.logged
            .get(&block.cidr)
            .is_some_and(|logged| logged.epoch == block.uid)
    }

    fn become_owner(&mut self, cidr: Cidr, uid: String, now: Millis) {
        let Some(entry) = self.entries.get_mut(&cidr) else {
            return;
        };
        entry.confirmed = true;
        if entry.call != Call::Sent {
            entry.call = Call::Idle;
        }
        let owned = State::Owned { epoch: uid.clone() };
        if entry.state != owned {
            entry.state = owned;
            // A new object has an empty mirror.
            if !entry.is_empty() {
                entry.mirror.touch(now);
            }
            let pool = entry.pool.clone();
            self.log(Record::Own(OwnedBlock {
                cidr,
                pool,
                epoch: uid,
            }));
        }
        self.announce(cidr);
    }

    /// The object says that the block is another's.
    fn foreign(&mut self, cidr: Cidr, owner: &Owner, now: Millis) {
        self.survey.conflict(cidr);
        let Some(entry) = self.entries.get_mut(&cidr) else {
            self.disown(cidr);
            return;
        };
        if entry.state == State::Pending {
            if entry.call != Call::Sent {
                self.entries.remove(&cidr);
            }
            return;
        }
        entry.call.wait(now + RECLAIM);
        let quarantine = Quarantine::OtherOwner(owner.clone());
        let quarantined = State::Quarantined(quarantine.clone());
        if entry.state != quarantined {
            entry.state = quarantined;
            self.withdraw(cidr);
            self.disown(cidr);
            self.outputs.push_back(Output::Quarantined {
                cidr,
                reason: quarantine,
            });
        }
    }

    pub(super) fn announce(&mut self, cidr: Cidr) {
        if let Some(entry) = self.entries.get_mut(&cidr)
            && !entry.announced
        {
            entry.announced = true;
            let pool = entry.pool.clone();
            self.outputs.push_back(Output::Announce { cidr, pool });
        }
    }

    /// Stops announcing; false if it was not announced.
    pub(super) fn withdraw(&mut self, cidr: Cidr) -> bool {
        match self.entries.get_mut(&cidr) {
            Some(entry) if entry.announced => {
                entry.announced = false;
                self.outputs.push_back(Output::Withdraw { cidr });
                true
            }
            _ => false,
        }
    }

    pub(super) fn withdrawn(&mut self, cidr: Cidr) {
        if let Some(Entry {
            state: State::Releasing { withdrawn, .. },
            ..
        }) = self.entries.get_mut(&cidr)
        {
            *withdrawn = true;
        }
    }

    pub(super) fn deleted(&mut self, cidr: Cidr) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            entry.call = Call::Idle;
            if matches!(entry.state, State::Releasing { .. }) {
                // Not empty: something was seen to use an address while the answer was on its way.
                entry.state = State::Missing;
                if entry.is_empty() {
                    self.entries.remove(&cidr);
                }
            }
        }
    }

    /// Attachments whose block nobody told of (it was deleted while the node was away) get it back from the pool it was cut from.
    pub(super) fn restore_lost_blocks(&mut self, now: Millis) {
        let addresses = self
            .attachments
            .values()
            .flat_map(|attachment| &attachment.addresses);
        let homeless =
            addresses.filter(|address| !self.entries.keys().any(|cidr| cidr.contains(**address)));
        let lost: Vec<(Cidr, String)> = homeless
            .filter_map(|address| {
                self.pools
                    .iter()
                    .find_map(|pool| Some((pool::block_of(pool, *address)?, pool.name.clone())))
            })
            .collect();
        for (cidr, pool) in lost {
            self.enter(cidr, &pool, State::Missing, now);
        }
    }

    /// Sends the calls that are due and forgets blocks that are not worth one.
    pub(super) fn send_calls(&mut self, now: Millis) {
        for cidr in self.entries.keys().copied().collect::<Vec<_>>() {
            self.settle(cidr, now);
        }
    }

    fn settle(&mut self, cidr: Cidr, now: Millis) {
        let Some(entry) = self.entries.get(&cidr) else {
            return;
        };
        if entry.call == Call::Sent {
            return;
        }
        let due = entry.call.is_due(now);
        let empty = entry.is_empty();
        let useless = empty && self.pool_in_force(&entry.pool, cidr).is_none();
        match &entry.state {
            State::Pending | State::Missing if useless => self.forget(cidr),
            State::Quarantined(_) if empty => self.forget(cidr),
            State::Pending | State::Missing | State::Quarantined(_) if due => {
                let pool = entry.pool.clone();
                self.call(cidr, Output::Create { cidr, pool });
            }
            // Something was seen to use an address after all.
            State::Releasing { epoch, .. } if !empty => self.become_owner(cidr, epoch.clone(), now),
            State::Releasing {
                epoch,
                withdrawn: true,
            } if due => {
                let uid = epoch.clone();
                // Before the object goes: a log that claims a block somebody else has by then would announce it.
                self.disown(cidr);
                self.call(cidr, Output::Delete { cidr, uid });
            }
            _ => {}
        }
    }

    fn call(&mut self, cidr: Cidr, output: Output) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            entry.call = Call::Sent;
            self.outputs.push_back(output);
        }
    }

    fn forget(&mut self, cidr: Cidr) {
        self.withdraw(cidr);
        self.disown(cidr);
        self.entries.remove(&cidr);
    }

    /// Makes the log say that the block is not ours, if it says otherwise.
    fn disown(&mut self, cidr: Cidr) {
        if self.logged.contains_key(&cidr) {
            self.log(Record::Disown { cidr });
        }
    }

    pub(super) fn entry_timeout(&self, cidr: Cidr, entry: &Entry) -> Option<Millis> {
        let call = match entry.call {
            Call::Wait(until) if !matches!(entry.state, State::Owned { .. }) => Some(until),
            _ => None,
        };
        [call, self.release_time(cidr, entry), entry.mirror_time()]
            .into_iter()
            .flatten()
            .min()
    }
}
