//! The table `inet margay` in the kernel. No other table is read or written.

use std::collections::BTreeSet;
use std::io;

use super::conntrack::Conntrack;
use super::socket::{self, NETFILTER, Refusal, Socket};
use crate::nft::build::{self, SETS, TABLE, TERMS};
use crate::nft::counted;
use crate::nft::decode::{self, Counters, Elements, Inspection};
use crate::nft::diff::Batch;
use crate::nft::encode::{self, Step, Transaction, request};
use crate::nft::epoch::{Epoch, Options};
use crate::nft::model::{Element, More, Quota, Set};
use crate::nft::rows;
use crate::nft::terms;
use crate::nla;
use crate::policy::counts::Packets;
use crate::policy::tables::Tables;

const GET_TABLE: u8 = 1;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_ELEMENT: u8 = 13;
const GET_GENERATION: u8 = 16;
const ACK: u16 = 4;
/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_DELSETELEM`, as the kernel repeats it to whoever asked for that.
const ELEMENT_GONE: u16 = 10 << 8 | 14;
/// Elements that a dump surely holds in its first message, so that nothing can change between two.
const ONE_MESSAGE: usize = 32;

/// Why the table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] socket::Error),
    /// The kernel refused a transaction; nothing of it was done.
    #[error("{step}: {refusal}")]
    Refused {
        /// The message that was refused, in words.
        step: String,
        /// What the kernel said.
        refusal: Refusal,
    },
    /// Others changed the ruleset each time the table was about to be made or changed.
    #[error("others keep changing the ruleset")]
    Contended,
    /// Somebody has changed the rules; nothing was done.
    #[error("somebody has changed the table inet margay")]
    Tampered,
}

impl Error {
    /// The kernel does not hold what it was thought to hold: read it, and apply the difference to that, or
    /// [`Nft::reload`].
    #[must_use]
    pub fn is_drift(&self) -> bool {
        matches!(self, Self::Tampered)
            || matches!(self, Self::Refused { refusal, .. }
            if matches!(refusal.errno, libc::ENOENT | libc::EEXIST | libc::EBUSY | libc::ENOTEMPTY))
    }
}

/// What [`Nft::ensure_table`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// No table: it was made, without elements.
    Created,
    /// The table this felix would make: left as it is, with its elements and its epoch.
    Adopted,
    /// One with other rules: replaced in one transaction, with the elements it had.
    Replaced,
}

/// The table of one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    conntrack: Conntrack,
    options: Options,
    /// The kernel refused rules that log.
    cannot_log: bool,
    epoch: Epoch,
    /// The kernel tells rules as felix reads them, so that they can be compared to the letter.
    legible: bool,
    /// Chains that a table of ours can have.
    chains: BTreeSet<String>,
    /// Of the whole ruleset, as of when our rules were last known to be as they should.
    generation: Option<u32>,
    /// What elements had counted that are gone.
    gone: Packets,
}

impl Nft {
    /// Of the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(NETFILTER)?,
            conntrack: Conntrack::open()?,
            options: Options::default(),
            cannot_log: false,
            epoch: Epoch::FIRST,
            legible: true,
            chains: build::chain_names(),
            generation: None,
            gone: Packets::new(),
        })
    }

    /// Port of the socket; reports of what our own transactions change carry it.
    pub fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// The epoch which connections are stamped with.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What of the rules was chosen, as far as this kernel can do it.
    #[must_use]
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Makes the table what [`build::table`] says for what an earlier life of felix was told, or by default: what is
    /// wanted now is not known before the cluster is.
    pub fn take_up(&mut self) -> Result<Ensured, Error> {
        self.options = self.inspect()?.options().unwrap_or_default();
        self.ensure_table()
    }

    /// Whether what is denied or noted is told by netlink log.
    #[must_use]
    pub const fn logs(&self) -> bool {
        !self.options.quiet
    }

    /// What [`Nft::ensure_table`] makes from now on.
    pub const fn set_options(&mut self, options: Options) {
        self.options = Options {
            quiet: options.quiet || self.cannot_log,
            ..options
        };
    }

    /// Makes the table what [`build::table`] says, and never leaves traffic without rules in doing so.
    pub fn ensure_table(&mut self) -> Result<Ensured, Error> {
        for _ in 0..TRIES {
            let generation = self.generation()?;
            let there = self.inspect()?;
            if let Some(epoch) = self.current(&there) {
                self.epoch = epoch;
                self.generation = Some(generation);
                return Ok(Ensured::Adopted);
            }
            let mut counted = Packets::new();
            let (elements, terms) = if there.comment.is_some() {
                counted = self.packets_of(|set| there.has(set))?;
                let terms = self.look_at_terms(|set| there.has(set))?;
                (self.read_sets(|set| there.has(set))?, terms)
            } else {
                (Tables::default(), terms::Elements::default())
            };
            let byte = self.options.mark;
            let epoch = match there.epoch() {
                Some((there, epoch)) if there == byte => {
                    self.conntrack.forget_before(byte, epoch.next())?;
                    epoch.next()
                }
                // Nobody stamps connections there now; those of an earlier table may carry any number.
                _ => {
                    self.conntrack.forget_all(byte)?;
                    Epoch::FIRST
                }
            };
            let mut transaction = Transaction::begin(self.socket.sequence(0), Some(generation));
            transaction.replace_table(&build::table(self.options, epoch));
            transaction.add(&rows::all(&elements).collect::<Vec<_>>());
            // Chains of elements lead to one that is there with the rules about connections only; one that somebody has
            // changed is made anew with what is wanted.
            let counts = self.options.terms.connections;
            let whole = |it: &&Element| !it.set.verdicts || counts && it.counting().is_some();
            let terms = terms.iter().filter(whole);
            transaction.add(&terms.cloned().collect::<Vec<_>>());
            match self.commit(transaction) {
                Ok(()) => {
                    self.lose(counted, &Packets::new());
                    self.epoch = epoch;
                    self.generation = Some(after(generation));
                    self.read_back(after(generation))?;
                    if let Some((given_back, _)) = there.epoch().filter(|(there, _)| *there != byte)
                    {
                        self.conntrack.forget_all(given_back)?;
                    }
                    return Ok(if there.comment.is_some() {
                        Ensured::Replaced
                    } else {
                        Ensured::Created
                    });
                }
                Err(Error::Refused { refusal, .. }) if refusal.errno == ERESTART => {}
                // Most likely a kernel that cannot log. Everything else works without.
                Err(Error::Refused { step, refusal }) if !self.options.quiet => {
                    tracing::warn!(step, %refusal, "the ruleset is refused: tried again without logging");
                    self.cannot_log = true;
                    self.options.quiet = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    /// Removes the table, and our stamp from every connection; `false` when there was none.
    pub fn remove_table(&mut self) -> Result<bool, Error> {
        let there = self.inspect()?;
        if there.comment.is_none() {
            return Ok(false);
        }
        let byte = there.options().unwrap_or(self.options).mark;
        let mut transaction = Transaction::begin(self.socket.sequence(0), None);
        transaction.drop_table(TABLE);
        self.commit(transaction)?;
        self.generation = None;
        self.conntrack.forget_all(byte)?;
        Ok(true)
    }

    /// The elements in force. Links are not among them: the group of an interface is not in the table.
    pub fn read(&mut self) -> Result<Tables, Error> {
        self.read_sets(|_| true)
    }

    /// The elements in force beside policy.
    pub fn read_terms(&mut self) -> Result<terms::Elements, Error> {
        self.look_at_terms(|_| true)
    }

    /// Makes the changes in one transaction, all or none, and only upon rules that are as they should be.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let epoch = if batch.bump {
            self.epoch.next()
        } else {
            self.epoch
        };
        if batch.bump {
            self.conntrack.forget_before(self.options.mark, epoch)?;
        }
        for attempt in 1..=TRIES {
            let generation = self.known_generation()?;
            // Others who never pause do not hold policy up: what they do to our rules in this moment their reports tell.
            let upon = (attempt < TRIES).then_some(generation);
            let mut transaction = Transaction::begin(self.socket.sequence(0), upon);
            let before = untold(batch).then(|| self.packets().ok()).flatten();
            transaction.batch(batch, self.options, epoch);
            match self.commit(transaction) {
                Ok(()) => {
                    self.epoch = epoch;
                    self.generation = upon.map(after);
                    // Policy does not wait for counters that cannot be read.
                    if let Some((before, left)) = before.zip(self.packets_left(batch)) {
                        self.lose(before, &left);
                    }
                    return Ok(());
                }
                // Most often kube-proxy, in a table of its own.
                Err(Error::Refused { refusal, .. }) if refusal.errno == ERESTART => {
                    self.generation = None;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    /// The generation of the ruleset with our rules as they should be.
    fn known_generation(&mut self) -> Result<u32, Error> {
        if let Some(generation) = self.generation {
            return Ok(generation);
        }
        let generation = self.generation()?;
        if !self.intact()? {
            return Err(Error::Tampered);
        }
        self.generation = Some(generation);
        Ok(generation)
    }

    /// Has live connections judged again.
    pub fn bump(&mut self) -> Result<(), Error> {
        self.apply(&Batch {
            bump: true,
            ..Batch::default()
        })
    }

    /// Replaces all elements by these in one transaction, whatever is there, and has live connections judged again.
    pub fn reload(&mut self, tables: &Tables) -> Result<(), Error> {
        self.apply(&Batch {
            flush: true,
            add: rows::all(tables).collect(),
            bump: true,
            ..Batch::default()
        })
    }

    /// Packets that the elements there have counted, by what led to their verdicts.
    pub fn packets(&mut self) -> Result<Packets, Error> {
        self.packets_of(|_| true)
    }

    /// What elements had counted that are gone since this was last asked. Each tells with the transaction that removes
    /// it; of a very large one, and when all are replaced, what was counted a moment before is taken.
    pub fn gone(&mut self) -> Packets {
        std::mem::take(&mut self.gone)
    }

    fn packets_of(&mut self, wanted: impl Fn(&Set) -> bool) -> Result<Packets, Error> {
        let mut packets = Packets::new();
        for set in SETS.iter().filter(|set| set.counter && wanted(set)) {
            let send = |flags, sequence| elements_of(set, flags, sequence);
            let counted = self.socket.dump(send, Packets::new, |packets, message| {
                counted::counted(message.payload, packets);
            })?;
            for (cause, count) in counted {
                *packets.entry(cause).or_default() += count;
            }
        }
        Ok(packets)
    }

    /// What is left after a batch that was not told of.
    fn packets_left(&mut self, batch: &Batch) -> Option<Packets> {
        untold(batch).then(|| self.packets().ok()).flatten()
    }

    fn lose(&mut self, before: Packets, left: &Packets) {
        for (cause, count) in before {
            let left = left.get(&cause).copied().unwrap_or_default();
            *self.gone.entry(cause).or_default() += count.saturating_sub(left);
        }
    }

    /// What has been dropped so far.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        Ok(self.inspect()?.counters)
    }

    /// The table is there and has the rules it should have.
    pub fn intact(&mut self) -> Result<bool, Error> {
        let there = self.inspect()?;
        Ok(self.current(&there) == Some(self.epoch))
    }

    fn current(&self, there: &Inspection) -> Option<Epoch> {
        if self.legible {
            there.current(self.options)
        } else {
            there.alike(self.options)
        }
    }

    /// Looks at what was just made. A kernel that tells rules in another way than felix knows must not be taken for one
    /// that somebody tampers with, again and again.
    fn read_back(&mut self, made: u32) -> Result<(), Error> {
        let there = self.inspect()?;
        let legible = there.current(self.options).is_some() || there.alike(self.options).is_none();
        // Whatever others have done since then is no matter of the kernel's.
        if self.generation()? == made && legible != self.legible {
            self.legible = legible;
            if !legible {
                tracing::error!(
                    "this kernel tells rules in another way than felix knows: rules with another meaning are not noticed"
                );
            }
        }
        Ok(())
    }

    fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = 0;
        let send = |sequence| request(GET_GENERATION, ACK, sequence).finish();
        self.socket.request(send, |message| {
            let id = message
                .payload
                .get(4..)
                .and_then(|attributes| nla::find(attributes, 1));
            generation = id.and_then(nla::be32).unwrap_or(generation);
        })?;
        Ok(generation)
    }

    fn inspect(&mut self) -> Result<Inspection, Error> {
        let of_table = |kind| {
            move |flags, sequence| {
                let mut message = request(kind, flags, sequence);
                message.string(1, TABLE);
                message.finish()
            }
        };
        let mut there = Inspection::default();
        match self.socket.request(
            |sequence| of_table(GET_TABLE)(ACK, sequence),
            |message| there.table(message.payload),
        ) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(there),
            Err(error) => return Err(error.into()),
        }
        let there = self.socket.dump(
            of_table(GET_SET),
            || there.clone(),
            |seen, message| seen.set(message.payload),
        )?;
        let mut there = self.socket.dump(
            of_table(GET_RULE),
            || there.clone(),
            |seen, message| seen.rule(message.payload),
        )?;
        // One by one: a dump of chains is one of everybody's. Of more than these, and without rules, the table's size tells.
        let seen: Vec<String> = there.rules.keys().cloned().collect();
        let seen = seen.iter().filter(|name| !self.chains.contains(*name));
        for name in self.chains.iter().chain(seen) {
            let send = |sequence| {
                let mut message = request(GET_CHAIN, ACK, sequence);
                message.string(1, TABLE);
                message.string(3, name);
                message.finish()
            };
            let take = |message: nla::Received<'_>| there.chain(message.payload);
            match self.socket.request(send, take) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                asked => asked?,
            }
        }
        Ok(there)
    }

    /// Reads until two looks agree. The kernel gives a hash that has grown its room a moment later, and goes on with a dump
    /// by counting: elements that have moved meanwhile are missed, and nothing says so.
    fn read_sets(&mut self, wanted: impl Fn(&Set) -> bool) -> Result<Tables, Error> {
        let mut before = self.look(&wanted)?;
        for _ in 0..20 {
            if before.entries() < ONE_MESSAGE {
                return Ok(before);
            }
            let now = self.look(&wanted)?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        Err(Error::Contended)
    }

    fn look(&mut self, wanted: impl Fn(&Set) -> bool) -> Result<Tables, Error> {
        let mut tables = Tables::default();
        for set in SETS
            .iter()
            .filter(|set| build::is_policy(set) && wanted(set))
        {
            for element in self.dump(set)? {
                if !rows::insert(&mut tables, &element) {
                    tracing::warn!(%element, "an element that felix did not make");
                }
            }
        }
        Ok(tables)
    }

    fn look_at_terms(&mut self, wanted: impl Fn(&Set) -> bool) -> Result<terms::Elements, Error> {
        let mut all = Vec::new();
        for set in TERMS.iter().filter(|set| wanted(set)) {
            all.extend(self.dump(set)?);
        }
        if all.iter().any(|element: &Element| element.set.verdicts) {
            // How many connections an element allows is in the rule of its chain.
            let there = self.inspect()?.counting;
            for element in all.iter_mut().filter(|it| it.set.verdicts) {
                let most = there.get(&element.chain()).copied().flatten();
                element.more = most.map(|most| More::Over(Quota::Connections(most)));
            }
        }
        Ok(all.into_iter().collect())
    }

    fn dump(&mut self, set: &'static Set) -> Result<Vec<Element>, Error> {
        let send = |flags, sequence| elements_of(set, flags, sequence);
        let dumped = self.socket.dump(
            send,
            || Elements::of(set),
            |elements, message| elements.message(message.payload),
        );
        Ok(dumped?.finish())
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), Error> {
        let (bytes, last, steps) = transaction.end();
        self.socket
            .sequence(u32::try_from(steps.len() + 2).unwrap_or(u32::MAX));
        let mut done = false;
        let mut refused = None;
        let mut gone = Packets::new();
        self.socket.exchange(&bytes, |message| {
            if message.kind == ELEMENT_GONE {
                counted::counted(message.payload, &mut gone);
                return;
            }
            match socket::refusal(&message) {
                Some(refusal) => {
                    refused.get_or_insert(refusal);
                }
                None => done |= message.sequence == last,
            }
        })?;
        self.lose(gone, &Packets::new());
        match refused {
            Some(refusal) => Err(Error::Refused {
                step: describe(&bytes, &steps, &refusal),
                refusal,
            }),
            None if done || steps.is_empty() => Ok(()),
            None => Err(socket::Error::from(io::Error::other(
                "the kernel did not answer a transaction",
            ))
            .into()),
        }
    }
}

/// Asks for the elements of a set.
fn elements_of(set: &Set, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = request(GET_ELEMENT, flags, sequence);
    message.string(1, TABLE);
    message.string(2, set.name);
    message.finish()
}

/// Whether elements that count go without telling what they had counted.
fn untold(batch: &Batch) -> bool {
    let counting = batch.delete.iter().filter(|it| it.set.counter);
    batch.flush || counting.count() > encode::TOLD
}

/// Transactions that are tried while others change their tables.
const TRIES: u8 = 20;

/// The generation that follows; there is no generation 0.
const fn after(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

/// Linux' own number, not in libc: the generation was no longer the one the transaction was made for.
const ERESTART: i32 = 85;

/// The refused message in words; the element itself, when the kernel says which.
fn describe(bytes: &[u8], steps: &[Step], refusal: &Refusal) -> String {
    let Some(step) = steps.iter().find(|step| step.sequence == refusal.sequence) else {
        return "commit".to_owned();
    };
    let element = refusal.offset.and_then(|offset| {
        let message = bytes.get(step.start..)?;
        let name = nla::text(nla::find(message.get(nla::HEADER + 4..)?, 2)?);
        let set = SETS.iter().find(|set| set.name == name)?;
        decode::first_element(set, message.get(usize::try_from(offset).ok()?..)?)
    });
    match element {
        Some(element) => format!("{} (at {})", step.what, element.text()),
        None => step.what.clone(),
    }
}
