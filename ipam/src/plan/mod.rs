//! The state machine over blocks, attachments and held addresses. The crate's page has the order of calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crds::ip_pool::Pool;
use crds::ipam_block::{Allocation, Block as SeenBlock, Owner};
use crds::ipam_configuration::Configuration;
use crds::net::{Cidr, Family};

use crate::Millis;
use crate::attachment::{Attachment, Key, Request};
use crate::error::AllocateError;
use crate::journal::{self, Header, Hold, OwnedBlock, Record, Replay};
use crate::ownership::{Quarantine, State};

mod claim;
mod entry;
mod hold;
mod life;
mod mirror;
#[cfg(test)]
mod tests;

use claim::Survey;
use entry::Entry;
use hold::Held;

/// What happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// The pools in force for this node (see [`crate::pool::in_force`]), all of them.
    Pools(Vec<Pool>),
    /// The configuration in force.
    Configuration(Configuration),
    /// Every block labelled with this node's name: the first list and each later one.
    Listed(Vec<SeenBlock>),
    /// Such a block was added or changed.
    Seen(SeenBlock),
    /// Such a block was deleted.
    Gone {
        /// Its prefix.
        cidr: Cidr,
        /// uid of the object that is gone.
        uid: String,
    },
    /// Every address that the kernel's workload routes and links, and the node's pods in the API, show in use.
    InUse(BTreeSet<IpAddr>),
    /// Answer to Create: done.
    Created {
        /// Its prefix.
        cidr: Cidr,
        /// uid of the new object.
        uid: String,
    },
    /// Answer to Create: there is this object already.
    Exists(SeenBlock),
    /// Answer to Create: not known to be done.
    CreateFailed {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Withdraw: no peer is told of the block any more and its unreachable route is removed.
    Withdrawn {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Delete: there is no object with that uid any more.
    Deleted {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Delete: not known to be done.
    DeleteFailed {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Mirror: written.
    Mirrored {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Mirror: not known to be written.
    MirrorFailed {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Answer to Survey: the prefixes of every block in the cluster.
    Surveyed(BTreeSet<Cidr>),
    /// Answer to Survey: not known.
    SurveyFailed,
    /// The time of [`Ipam::next_timeout`] has come.
    Tick,
}

/// What must be done outside, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Append to the log before anything behind it is done and before an ADD is answered.
    Log(Record),
    /// Create the object ([`SeenBlock::claim`]); answer Created, Exists (with the object found) or CreateFailed.
    Create {
        /// Its prefix.
        cidr: Cidr,
        /// Name of its pool.
        pool: String,
    },
    /// Delete the object with this uid as precondition; answer Deleted (also when it is not there, or has another uid) or DeleteFailed.
    Delete {
        /// Its prefix.
        cidr: Cidr,
        /// uid it must have.
        uid: String,
    },
    /// Write `status.allocations` and `status.used`; answer Mirrored or MirrorFailed.
    Mirror {
        /// Its prefix.
        cidr: Cidr,
        /// uid it must have.
        uid: String,
        /// Every address in use or held back, in order.
        allocations: Vec<Allocation>,
    },
    /// List every block of the cluster; answer Surveyed or SurveyFailed.
    Survey,
    /// The block is ours: put its unreachable route in place, then announce it, unless its pool says not to.
    Announce {
        /// Its prefix.
        cidr: Cidr,
        /// Name of its pool.
        pool: String,
    },
    /// Stop announcing it, wait, remove its unreachable route; answer Withdrawn.
    Withdraw {
        /// Its prefix.
        cidr: Cidr,
    },
    /// The block has another owner: tell the operator. Its Withdraw, if it was announced, comes before.
    Quarantined {
        /// Its prefix.
        cidr: Cidr,
        /// Why.
        reason: Quarantine,
    },
}

/// A block as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockStatus {
    /// Its prefix.
    pub cidr: Cidr,
    /// Name of its pool.
    pub pool: String,
    /// Where it stands.
    pub state: State,
    /// Whether it is announced.
    pub announced: bool,
    /// Number of addresses.
    pub size: u16,
    /// Addresses in use or held back, in order.
    pub allocations: Vec<Allocation>,
}

/// Addresses of one node.
#[derive(Debug)]
pub struct Ipam {
    owner: Owner,
    boot_id: String,
    pools: Vec<Pool>,
    configuration: Configuration,
    /// The node's blocks were listed.
    synced: bool,
    /// The log tells of everything in use.
    log_complete: bool,
    /// Blocks the log tells of.
    logged: BTreeMap<Cidr, OwnedBlock>,
    /// The last InUse; None before the first.
    in_use: Option<BTreeSet<IpAddr>>,
    entries: BTreeMap<Cidr, Entry>,
    attachments: BTreeMap<Key, Attachment>,
    held: BTreeMap<IpAddr, Held>,
    survey: Survey,
    outputs: VecDeque<Output>,
    /// Records logged since the log was last written anew.
    appended: usize,
}

impl Ipam {
    /// Nothing known yet. `boot_id` is /proc/sys/kernel/random/boot_id.
    pub fn new(owner: Owner, boot_id: impl Into<String>) -> Self {
        Self {
            owner,
            boot_id: boot_id.into(),
            pools: Vec::new(),
            configuration: Configuration::default(),
            synced: false,
            log_complete: false,
            logged: BTreeMap::new(),
            in_use: None,
            entries: BTreeMap::new(),
            attachments: BTreeMap::new(),
            held: BTreeMap::new(),
            survey: Survey::default(),
            outputs: VecDeque::new(),
            appended: 0,
        }
    }

    /// Takes up what the log says. Blocks owned in this boot are announced at once, so that a restart without the API costs
    /// nobody a route; addresses are given out only when the API was seen to agree.
    pub fn recover(&mut self, replay: Replay, now: Millis) {
        self.log_complete = replay.is_complete();
        let trusted = !replay.void
            && replay
                .header
                .as_ref()
                .is_some_and(|header| header.owner == self.owner);
        self.attachments = replay.attachments;
        for hold in replay.holds.into_values() {
            self.held.insert(
                hold.address,
                Held {
                    key: hold.key,
                    pod: hold.pod,
                    since: now,
                },
            );
        }
        self.logged = replay.blocks;
        for OwnedBlock { cidr, pool, epoch } in self.logged.clone().into_values() {
            if trusted && self.enter(cidr, &pool, State::Owned { epoch }, now) {
                self.announce(cidr);
            }
        }
    }

    /// Tells what happened.
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Pools(mut pools) => {
                pools.sort_by(|a, b| a.name.cmp(&b.name));
                self.pools = pools;
            }
            Input::Configuration(configuration) => self.configuration = configuration,
            Input::Listed(blocks) => self.listed(blocks, now),
            Input::Seen(block) => self.seen(&block, now),
            Input::Gone { cidr, uid } => self.gone(cidr, &uid, now),
            Input::InUse(addresses) => self.in_use(addresses, now),
            Input::Created { cidr, uid } => self.created(cidr, uid, now),
            Input::Exists(block) => self.exists(&block, now),
            Input::CreateFailed { cidr } | Input::DeleteFailed { cidr } => {
                self.call_failed(cidr, now)
            }
            Input::Withdrawn { cidr } => self.withdrawn(cidr),
            Input::Deleted { cidr } => self.deleted(cidr),
            Input::Mirrored { cidr } => self.mirrored(cidr, now),
            Input::MirrorFailed { cidr } => self.mirror_failed(cidr, now),
            Input::Surveyed(blocks) => self.surveyed(blocks, now),
            Input::SurveyFailed => self.survey_failed(now),
            Input::Tick => {}
        }
        self.advance(now);
    }

    /// Gives one address of each family asked for, or none and the reason. The same key gets the same addresses again.
    pub fn allocate(
        &mut self,
        request: &Request,
        now: Millis,
    ) -> Result<Vec<IpAddr>, AllocateError> {
        if let Some(attachment) = self.attachments.get(&request.key) {
            return Ok(attachment.addresses.clone());
        }
        if !self.synced || !(self.log_complete || self.in_use.is_some()) {
            return Err(AllocateError::NotSynced);
        }
        let mut picked: Vec<(Cidr, IpAddr)> = Vec::new();
        for (i, family) in request.families.iter().enumerate() {
            if !request.families[..i].contains(family) {
                picked.push(self.pick(*family)?);
            }
        }
        let addresses: Vec<IpAddr> = picked.iter().map(|(_, address)| *address).collect();
        for (cidr, address) in picked {
            self.take(cidr, address, now);
        }
        let attachment = Attachment {
            key: request.key.clone(),
            addresses: addresses.clone(),
            pod: request.pod.clone(),
            host_interface: request.host_interface.clone(),
        };
        self.attachments
            .insert(attachment.key.clone(), attachment.clone());
        self.log(Record::Attach(attachment));
        self.advance(now);
        Ok(addresses)
    }

    /// Frees what the key holds; None when it holds nothing, which is no error.
    pub fn free(&mut self, key: &Key, now: Millis) -> Option<Attachment> {
        let held: Vec<IpAddr> = self
            .held
            .iter()
            .filter(|(_, held)| held.key == *key)
            .map(|(a, _)| *a)
            .collect();
        if *key != Key::default() {
            held.into_iter()
                .for_each(|address| self.unhold(address, now));
        }
        let attachment = self.attachments.remove(key);
        if let Some(attachment) = &attachment {
            self.log(Record::Detach { key: key.clone() });
            attachment
                .addresses
                .iter()
                .for_each(|address| self.give_back(*address, now));
        }
        self.advance(now);
        attachment
    }

    /// Makes an attachment out of addresses that are held back, once it is found out whose they are. False, and nothing
    /// changes, unless all of them are held back and the key has none yet.
    pub fn adopt(&mut self, attachment: Attachment, now: Millis) -> bool {
        let held = |address: &IpAddr| self.held.contains_key(address);
        let known = self.attachments.contains_key(&attachment.key);
        if known || attachment.addresses.is_empty() || !attachment.addresses.iter().all(held) {
            return false;
        }
        for address in &attachment.addresses {
            // The record of the attachment ends the hold.
            self.held.remove(address);
            let blocks = self.entries.iter_mut();
            for (_, entry) in blocks.filter(|(cidr, _)| cidr.contains(*address)) {
                entry.mirror.touch(now);
            }
        }
        self.attachments
            .insert(attachment.key.clone(), attachment.clone());
        self.log(Record::Attach(attachment));
        self.advance(now);
        true
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Tick`]; may be past. None: only an input changes anything.
    pub fn next_timeout(&self) -> Option<Millis> {
        let entries = self
            .entries
            .iter()
            .filter_map(|(cidr, entry)| self.entry_timeout(*cidr, entry));
        entries.chain(self.survey_timeout()).min()
    }

    /// The whole log as it should be, to replace the file with.
    pub fn compact(&mut self) -> Vec<u8> {
        self.appended = 0;
        let header = Header {
            version: journal::VERSION,
            boot_id: self.boot_id.clone(),
            owner: self.owner.clone(),
        };
        let blocks = self.logged.values().cloned().map(Record::Own);
        let holds = self.held.iter().map(|(address, held)| {
            Record::Hold(Hold {
                address: *address,
                key: held.key.clone(),
                pod: held.pod.clone(),
            })
        });
        let attachments = self.attachments.values().cloned().map(Record::Attach);
        journal::write_all(&header, blocks.chain(holds).chain(attachments))
    }

    /// Whether most of the log is history, so that [`Ipam::compact`] is worth it.
    pub fn wants_compaction(&self) -> bool {
        self.appended > 1024 + 4 * (self.attachments.len() + self.held.len() + self.entries.len())
    }

    /// Whether the blocks are known and there is a usable one of each family that has a pool in force, and of any at all.
    pub fn is_ready(&self) -> bool {
        let has_block = |family| self.usable(family).next().is_some();
        let mut families = Family::ALL
            .into_iter()
            .filter(|family| self.pools_of(*family).next().is_some())
            .peekable();
        self.synced && families.peek().is_some() && families.all(has_block)
    }

    /// The live attachments, by key.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// The attachment of that key.
    pub fn attachment(&self, key: &Key) -> Option<&Attachment> {
        self.attachments.get(key)
    }

    /// Whether an address is held back since a log was lost.
    pub fn is_held(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address)
    }

    /// Number of addresses held back since a log was lost: while it is not 0, keep giving [`Input::InUse`].
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether no address of a block is in use or held back.
    pub fn is_idle(&self, block: Cidr) -> bool {
        self.entries
            .get(&block)
            .is_some_and(|entry| entry.block.used() == 0)
    }

    /// The blocks, by prefix.
    pub fn blocks(&self) -> impl Iterator<Item = BlockStatus> {
        self.entries.iter().map(|(cidr, entry)| BlockStatus {
            cidr: *cidr,
            pool: entry.pool.clone(),
            state: entry.state.clone(),
            announced: entry.announced,
            size: entry.block.size(),
            allocations: self.allocations(*cidr),
        })
    }

    /// Does whatever has become due or possible. Every call ends here.
    fn advance(&mut self, now: Millis) {
        if self.synced {
            self.restore_lost_blocks(now);
            self.claim(now);
            self.release(now);
        }
        self.send_calls(now);
        self.send_mirrors(now);
    }

    fn log(&mut self, record: Record) {
        match &record {
            Record::Own(block) => drop(self.logged.insert(block.cidr, block.clone())),
            Record::Disown { cidr } => drop(self.logged.remove(cidr)),
            _ => {}
        }
        self.appended += 1;
        self.outputs.push_back(Output::Log(record));
    }

    fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools
            .iter()
            .filter(move |pool| pool.cidr.family() == family)
    }

    /// The pool of that name, if it is in force and the block is (still) a piece of it.
    fn pool_in_force(&self, name: &str, cidr: Cidr) -> Option<&Pool> {
        self.pools
            .iter()
            .find(|pool| pool.name == name && pool.cidr.covers(cidr))
    }
}
