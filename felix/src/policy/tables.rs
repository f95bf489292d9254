//! The data of the table `inet margay`: which elements its maps hold, and how they differ from one compile to the next.
//!
//! A packet is judged per direction in five lookups. The other side's address gives its [`Class`] (`peers`, else the
//! interval of `nets` around it, else [`Class::NONE`]). The class and the [`Subject`] of our side's interface give a
//! [`Program`] (`pairs`, else `defaults`, else deny). One with [`Program::FIXED`] is an answer already; any other is asked in
//! this order and the first answer counts: `ports`, `icmp`, `programs`, `port_ranges`, `protos`,
//! `programs_ranged`, else deny. A program that looks at the source port is exchanged for another first: by `sources`,
//! else `source_rest`.
//!
//! A host endpoint has no device group: interface and class give its program in `hosts`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Which of a flow's two judgements: that of the pod which opens it, or that of the pod it is opened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The subject opens the flow.
    Egress,
    /// The flow is opened to the subject.
    Ingress,
}

impl Direction {
    /// Both directions, in order.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// As policies and answers of the API name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }

    /// The bit of a [`Subject`] which says that policies select it in this direction.
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::Egress => 1,
            Self::Ingress => 2,
        }
    }
}

/// Where packets of a host endpoint are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostHook {
    /// Opened to the node itself.
    LocalIn,
    /// Opened by the node itself.
    LocalOut,
    /// Forwarded, where it comes in.
    ForwardIn,
    /// Forwarded, where it goes out.
    ForwardOut,
    /// Coming in, before the destination is translated.
    PreDnat,
    /// Coming in, before connections are tracked: every packet by itself.
    RawIn,
    /// Sent by the node itself, before connections are tracked: every packet by itself.
    RawOut,
}

impl HostHook {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::LocalIn,
        Self::LocalOut,
        Self::ForwardIn,
        Self::ForwardOut,
        Self::PreDnat,
        Self::RawIn,
        Self::RawOut,
    ];

    /// Whether packets are judged there before connections are tracked.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        matches!(self, Self::RawIn | Self::RawOut)
    }
}

/// What is there while some host endpoint has rows: without it packets are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// Rows of the hooks that judge flows.
    Flows,
    /// Rows of the hooks that judge single packets, before connections are tracked.
    Packets,
}

/// A port that no policy of host endpoints closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failsafe {
    /// Ingress: of the node. Egress: elsewhere.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub port: u16,
    /// First address from, or to, which it is open.
    pub first: IpAddr,
    /// The last one. Intervals of one port are disjoint.
    pub last: IpAddr,
}

/// Equivalence class of peer addresses: those which no rule in use on this node tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u32);

impl Class {
    /// Of the addresses which no rule mentions.
    pub const NONE: Self = Self(0);
    /// The lowest number given to any other class.
    pub const FIRST: u32 = 0x10;
}

/// Device group of a host veth: the magic byte, a number, and in the two lowest bits the directions in which policies
/// select the pod behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(pub u32);

impl Subject {
    /// Top byte of every device group that is ours.
    pub const MAGIC: u32 = 0x6d00_0000;
    /// Mask of the top byte.
    pub const MAGIC_MASK: u32 = 0xff00_0000;
    /// The lowest number given to a subject.
    pub const FIRST: u32 = 1;
    /// The highest number that fits beside the magic byte.
    pub const LAST: u32 = (1 << 22) - 1;
    /// From here on numbers are not given to subjects: a link has one for a moment, on its way from one to another.
    pub const BRIDGES: u32 = Self::LAST - 4095;

    /// The subject with this number, isolated in the given directions.
    #[must_use]
    pub const fn new(number: u32, egress: bool, ingress: bool) -> Self {
        let bits = (if egress { 1 } else { 0 }) | (if ingress { 2 } else { 0 });
        Self(Self::MAGIC | (number & Self::LAST) << 2 | bits)
    }

    /// The number between the magic byte and the direction bits.
    #[must_use]
    pub const fn number(self) -> u32 {
        (self.0 & !Self::MAGIC_MASK) >> 2
    }

    /// Whether the device group is one of ours.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        self.0 & Self::MAGIC_MASK == Self::MAGIC
    }

    /// Whether policies select the pod in this direction; where they do not, nothing is looked up.
    #[must_use]
    pub const fn isolated(self, direction: Direction) -> bool {
        self.0 & direction.bit() != 0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({:#x})", self.0)
    }
}

/// A function from protocol and port (or ICMP type and code) to a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program(pub u32);

impl Program {
    /// Allows everything, for no reason that is counted.
    pub const ALLOW: Self = Self::fixed(Answer::ALLOW);
    /// Denies everything, for no reason that is counted.
    pub const DENY: Self = Self::fixed(Answer::DENY);
    /// The lowest number given to any other program.
    pub const FIRST: u32 = 0x10;
    /// Bit of the number of a program that first asks for the source port: `sources`, else `source_rest`, gives the
    /// program to ask.
    pub const REFINED: u32 = 0x8000_0000;
    /// Bit of the number of a program that first asks for the address of our own side: `owns`, else `own_rest`, gives the
    /// program to ask. Of host endpoints only.
    pub const OWNED: u32 = 0x4000_0000;
    /// Bit of the number of a program that answers the same to everything: the rest of the number is that answer's.
    pub const FIXED: u32 = 0x1000_0000;
    /// The highest number that can be given to a program, without the bits above.
    pub const LAST: u32 = Self::FIXED - 1;

    /// The program which gives this answer to everything, if the answer is plain.
    #[must_use]
    pub const fn fixed(answer: Answer) -> Self {
        Self(Self::FIXED | answer.number())
    }

    /// What it answers to everything; `None` when it has to be asked.
    #[must_use]
    pub fn answer(self) -> Option<Answer> {
        let fixed = !self.is_refined() && !self.is_owned() && self.0 & Self::FIXED != 0;
        fixed.then(|| Answer::from_number(self.0 & !Self::FIXED))?
    }

    /// Whether our own address comes first.
    #[must_use]
    pub const fn is_owned(self) -> bool {
        self.0 & Self::REFINED == 0 && self.0 & Self::OWNED != 0
    }

    /// Whether the source port comes first.
    #[must_use]
    pub const fn is_refined(self) -> bool {
        self.0 & Self::REFINED != 0
    }
}

/// Whether a flow may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The flow may pass in this direction.
    Allow,
    /// The flow may not.
    Deny,
    /// Nothing is said about the packet: it is tracked, and judged as what it belongs to. Before connections are tracked
    /// only.
    Pass,
}

/// Number of what led to an answer, for the counters of rules. 0: nothing that is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CauseId(pub u32);

impl CauseId {
    /// The lowest number given to anything.
    pub const FIRST: u32 = 1;
    /// The highest one: it has to fit between the bits of an answer and those of a program.
    pub const LAST: u32 = (1 << 20) - 1;
    const SHIFT: u32 = 8;
}

/// The answer of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// Whether the flow may pass.
    pub verdict: Verdict,
    /// A rule with action Log matched on the way.
    pub log: bool,
    /// Policies under audit would have it otherwise.
    pub audit: bool,
    /// What led to it: packets are counted by it.
    pub cause: CauseId,
}

impl Answer {
    /// The flow may pass, and nothing is noted.
    pub const ALLOW: Self = Self::plain(Verdict::Allow);
    /// The flow may not pass.
    pub const DENY: Self = Self::plain(Verdict::Deny);
    /// Bit of the number of an answer which allows.
    pub const ALLOW_BIT: u32 = 1;
    /// Bit of the number of an answer which denies.
    pub const DENY_BIT: u32 = 2;
    /// Bit of the number of an answer with [`Self::log`].
    pub const LOG_BIT: u32 = 4;
    /// Bit of the number of an answer with [`Self::audit`].
    pub const AUDIT_BIT: u32 = 8;

    /// Nothing is said.
    pub const PASS: Self = Self::plain(Verdict::Pass);
    /// Bit of the number of an answer which says nothing; that it allows is said with it, as no rule denies.
    pub const PASS_BIT: u32 = 16;
    /// The bits above, and those beside them that are never set; the others are its cause.
    pub const BITS: u32 = (1 << CauseId::SHIFT) - 1;

    /// Nothing but a verdict.
    #[must_use]
    pub const fn plain(verdict: Verdict) -> Self {
        Self {
            verdict,
            log: false,
            audit: false,
            cause: CauseId(0),
        }
    }

    /// The value in the kernel's maps.
    #[must_use]
    pub const fn number(self) -> u32 {
        let verdict = match self.verdict {
            Verdict::Allow => Self::ALLOW_BIT,
            Verdict::Deny => Self::DENY_BIT,
            Verdict::Pass => Self::ALLOW_BIT | Self::PASS_BIT,
        };
        let log = if self.log { Self::LOG_BIT } else { 0 };
        let audit = if self.audit { Self::AUDIT_BIT } else { 0 };
        self.cause.0 << CauseId::SHIFT | verdict | log | audit
    }

    /// The answer with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        const PASSED: u32 = Answer::ALLOW_BIT | Answer::PASS_BIT;
        let cause = CauseId(number >> CauseId::SHIFT);
        if cause.0 > CauseId::LAST {
            return None;
        }
        let verdict = match number & Self::BITS & !(Self::LOG_BIT | Self::AUDIT_BIT) {
            Self::ALLOW_BIT => Verdict::Allow,
            Self::DENY_BIT => Verdict::Deny,
            PASSED => Verdict::Pass,
            _ => return None,
        };
        Some(Self {
            verdict,
            log: number & Self::LOG_BIT != 0,
            audit: number & Self::AUDIT_BIT != 0,
            cause,
        })
    }
}

/// A change of one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit<K, V> {
    /// Key of the element.
    pub key: K,
    /// The value it had, `None` when there was no such element.
    pub old: Option<V>,
    /// The value it gets, `None` when the element goes.
    pub new: Option<V>,
}

/// Records `value` under `key`, remembering what was there before the first write since the last drain.
fn put<K: Ord + Clone, V: Clone + PartialEq>(
    now: &mut BTreeMap<K, V>,
    before: &mut BTreeMap<K, Option<V>>,
    key: K,
    value: Option<V>,
) {
    if now.get(&key) == value.as_ref() {
        return;
    }
    let old = match value {
        Some(value) => now.insert(key.clone(), value),
        None => now.remove(&key),
    };
    before.entry(key).or_insert(old);
}

fn drain<K: Ord, V: Clone + PartialEq>(
    now: &BTreeMap<K, V>,
    before: &mut BTreeMap<K, Option<V>>,
) -> impl Iterator<Item = Edit<K, V>> {
    std::mem::take(before).into_iter().filter_map(|(key, old)| {
        let new = now.get(&key).cloned();
        (old != new).then_some(Edit { key, old, new })
    })
}

fn difference<K: Ord + Clone, V: Clone + PartialEq>(
    have: &BTreeMap<K, V>,
    want: &BTreeMap<K, V>,
) -> Vec<Edit<K, V>> {
    let gone = have
        .iter()
        .filter(|(key, _)| !want.contains_key(key))
        .map(|(key, old)| Edit {
            key: key.clone(),
            old: Some(old.clone()),
            new: None,
        });
    let set = want.iter().filter_map(|(key, new)| {
        let old = have.get(key);
        (old != Some(new)).then(|| Edit {
            key: key.clone(),
            old: old.cloned(),
            new: Some(new.clone()),
        })
    });
    gone.chain(set).collect()
}

/// Declares the maps once: as fields of [`Tables`], as variants of [`Change`], and as what the ledger remembers.
macro_rules! maps {
    ($($(#[$doc:meta])+ $field:ident, $variant:ident, $put:ident: $key:ty => $value:ty;)+) => {
        /// The elements of every map.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tables {
            $($(#[$doc])+ pub $field: BTreeMap<$key, $value>,)+
        }

        /// A change of one element of one map.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Change {
            $($(#[$doc])+ $variant(Edit<$key, $value>),)+
        }

        impl Tables {
            /// What to change to get from these elements to the wanted ones.
            #[must_use]
            pub fn diff(&self, want: &Self) -> Vec<Change> {
                let mut changes = Vec::new();
                $(changes.extend(difference(&self.$field, &want.$field).into_iter().map(Change::$variant));)+
                changes
            }

            /// Number of entries of all maps.
            #[must_use]
            pub fn entries(&self) -> usize {
                0 $(+ self.$field.len())+
            }

            /// Makes the change. What the element was before is not checked.
            pub fn apply(&mut self, change: Change) {
                match change {
                    $(Change::$variant(edit) => match edit.new {
                        Some(value) => { self.$field.insert(edit.key, value); }
                        None => { self.$field.remove(&edit.key); }
                    },)+
                }
            }
        }

        /// Tables which remember, for every element touched since the last drain, what it was.
        #[derive(Debug, Default)]
        pub(super) struct Ledger {
            tables: Tables,
            before: Before,
        }

        #[derive(Debug, Default)]
        struct Before {
            $($field: BTreeMap<$key, Option<$value>>,)+
        }

        impl Ledger {
            $(pub(super) fn $put(&mut self, key: $key, value: Option<$value>) {
                put(&mut self.tables.$field, &mut self.before.$field, key, value);
            })+

            /// The changes since the last drain, in the order of the maps and of their keys.
            pub(super) fn drain(&mut self) -> Vec<Change> {
                let mut changes = Vec::new();
                $(changes.extend(drain(&self.tables.$field, &mut self.before.$field).map(Change::$variant));)+
                changes
            }
        }
    };
}

maps! {
    /// Interface and source address of a local pod: all other sources are spoofed. The value is the pod's
    /// `namespace/name`, which the kernel keeps as a comment.
    workloads, Workload, put_workload: (String, IpAddr) => String;
    /// Class of a single address, where it is not that of the interval around it.
    peers, Peer, put_peer: IpAddr => Class;
    /// Class of the addresses from first to last; intervals are disjoint.
    nets, Net, put_net: (IpAddr, IpAddr) => Class;
    /// What a subject and a class may do, where it is not the subject's default.
    pairs, Pair, put_pair: (Direction, Subject, Class) => Program;
    /// What a subject and any class without a pair may do.
    defaults, Default, put_default: (Direction, Subject) => Program;
    /// Answer of a program on a protocol and port.
    ports, Port, put_port: (Program, u8, u16) => Answer;
    /// Answer of a program on a protocol and the ports from first to last; ranges are disjoint.
    port_ranges, PortRange, put_port_range: (Program, u8, u16, u16) => Answer;
    /// Answer of a program on an ICMP protocol and `type << 8 | code`.
    icmp, Icmp, put_icmp: (Program, u8, u16) => Answer;
    /// Answer of a program on a protocol.
    protos, Proto, put_proto: (Program, u8) => Answer;
    /// Answer of a program on the rest, when it has neither ranges nor protocols.
    programs, Program, put_program: Program => Answer;
    /// Answer of a program on the rest, when it has ranges or protocols.
    programs_ranged, ProgramRanged, put_program_ranged: Program => Answer;
    /// Program for a protocol and the source ports from first to last, of a refined program; ranges are disjoint.
    sources, Source, put_source: (Program, u8, u16, u16) => Program;
    /// Program of a refined program for all other source ports.
    source_rest, SourceRest, put_source_rest: Program => Program;
    /// Program for own addresses from first to last, of an owned program; intervals are disjoint.
    owns, Own, put_own: (Program, IpAddr, IpAddr) => Program;
    /// Program of an owned program for all other own addresses.
    own_rest, OwnRest, put_own_rest: Program => Program;
    /// Program of a host interface and a class; without a class that of all others, without an interface that of all
    /// which have no row of their own.
    hosts, Host, put_host: (HostHook, Option<String>, Option<Class>) => Program;
    /// There while some host endpoint has rows.
    guard, Guard, put_guard: Guard => ();
    /// Ports that no policy of host endpoints closes.
    failsafes, Failsafe, put_failsafe: Failsafe => ();
    /// Device group of a local pod's host veth, by interface name.
    links, Link, put_link: String => Subject;
}

impl Tables {
    /// The answers of all programs that have to be asked.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        let exact = self.ports.values().chain(self.icmp.values());
        let ranged = self.port_ranges.values().chain(self.protos.values());
        let rest = self.programs.values().chain(self.programs_ranged.values());
        exact.chain(ranged).chain(rest).copied()
    }
}

impl Ledger {
    pub(super) const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The value of a pair at the last drain.
    pub(super) fn pair_before(&self, key: &(Direction, Subject, Class)) -> Option<Program> {
        let before = self.before.pairs.get(key).copied();
        before.unwrap_or_else(|| self.tables.pairs.get(key).copied())
    }

    /// The value of a default at the last drain.
    pub(super) fn default_before(&self, key: &(Direction, Subject)) -> Option<Program> {
        let before = self.before.defaults.get(key).copied();
        before.unwrap_or_else(|| self.tables.defaults.get(key).copied())
    }

    /// Classes before and now of the blocks written since the last drain.
    pub(super) fn moved_nets(&self) -> impl Iterator<Item = (Option<Class>, Option<Class>)> {
        let before = self.before.nets.iter();
        before.map(|(span, old)| (*old, self.tables.nets.get(span).copied()))
    }

    /// Single addresses written since the last drain, with their classes before and now.
    pub(super) fn moved_peers(
        &self,
    ) -> impl Iterator<Item = (IpAddr, Option<Class>, Option<Class>)> {
        let before = self.before.peers.iter();
        before.map(|(&at, old)| (at, *old, self.tables.peers.get(&at).copied()))
    }

    /// Keys of the pairs written since the last drain.
    pub(super) fn touched_pairs(&self) -> impl Iterator<Item = (Direction, Subject, Class)> {
        self.before.pairs.keys().copied()
    }

    /// Keys of the defaults written since the last drain.
    pub(super) fn touched_defaults(&self) -> impl Iterator<Item = (Direction, Subject)> {
        self.before.defaults.keys().copied()
    }
}
