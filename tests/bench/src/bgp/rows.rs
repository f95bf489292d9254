//! What is measured: the rows of the table, and the work that yields them.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::ends::End;
use super::feed::{Shape, Speaks};
use super::speakers::{Role, Speaker};

/// The AS of the speaker that is measured.
pub(crate) const ASN: u32 = 64_511;
/// Senders are on this network, receivers on the next.
const NETWORK: u32 = 0xC612_0000;
/// One network from the next.
pub(crate) const NEXT: u32 = 0x1_0000;

/// A piece of work: one start of a speaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    /// Of each sender.
    pub(crate) routes: u32,
    pub(crate) senders: u32,
    /// Peers that only listen; without any, every sender receives too.
    pub(crate) receivers: u32,
    /// All peers are reflector clients; otherwise every peer has an AS of its own.
    pub(crate) reflector: bool,
    /// Single routes through the loaded table.
    pub(crate) pings: u32,
    pub(crate) end: Ending,
    /// Whom the ratios are to.
    pub(crate) rival: Rival,
    pub(crate) speakers: &'static [Speaker],
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Routes from senders to receivers.
    Routes,
    /// Sessions without routes.
    Idle,
    /// BFD sessions, with ours on either side.
    Bfd,
    /// From the start of the program to its first OPEN.
    Start,
    /// From a start after `kill -9`, with graceful restart, until the receivers have all routes and the End-of-RIB.
    Restart,
    /// From the first byte until the kernel has all routes.
    Kernel,
    /// From an uplink's loss of carrier until nothing is sent to it any more, with the same routes from two peers.
    Failover,
}

/// What happens after the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Nothing,
    /// Everything is withdrawn by UPDATEs.
    Withdraw,
    /// The senders' connections close.
    Flap,
}

/// To whom ours is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    Named(Speaker),
    /// Whoever of the others needed the least CPU.
    Best,
}

/// What a row shows of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Load,
    Ping,
    End,
}

/// A row that can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    pub(crate) part: Part,
    /// What is aimed at: time, CPU and memory as shares of the rival's.
    pub(crate) target: [Option<f64>; 3],
}

use Speaker::{Bird, Frr, FrrQueue, Gobgp, Margay, Null};

const WORKS: [Work; 14] = [
    SINGLE,
    Work {
        name: "single-1m",
        routes: 1_000_000,
        pings: 0,
        end: Ending::Withdraw,
        speakers: &[Margay, Bird, Null],
        ..SINGLE
    },
    Work {
        name: "shared-1m",
        shape: Shape::Shared,
        routes: 1_000_000,
        pings: 0,
        end: Ending::Nothing,
        speakers: &[Margay, Bird, Null],
        ..SINGLE
    },
    Work {
        name: "unique-100k",
        shape: Shape::Unique,
        pings: 0,
        end: Ending::Nothing,
        speakers: &[Margay, Bird, Null],
        ..SINGLE
    },
    Work {
        name: "fanout-10k",
        routes: 10_000,
        pings: 0,
        ..FANOUT
    },
    FANOUT,
    MESH,
    Work {
        name: "mesh-400x256",
        routes: 256,
        senders: 400,
        speakers: &[Margay, Bird, Frr],
        ..MESH
    },
    Work {
        name: "restart-10k",
        kind: Kind::Restart,
        routes: 10_000,
        ..QUIET
    },
    Work {
        name: "kernel-10k",
        kind: Kind::Kernel,
        routes: 10_000,
        ..QUIET
    },
    Work {
        name: "failover-10k",
        kind: Kind::Failover,
        routes: 10_000,
        ..QUIET
    },
    Work {
        name: "idle-1000",
        kind: Kind::Idle,
        shape: Shape::Shared,
        senders: 1000,
        receivers: 0,
        ..QUIET
    },
    Work {
        name: "bfd-200",
        kind: Kind::Bfd,
        shape: Shape::Shared,
        senders: 200,
        receivers: 0,
        speakers: &[Margay],
        ..QUIET
    },
    QUIET,
];

const QUIET: Work = Work {
    name: "start",
    kind: Kind::Start,
    routes: 0,
    pings: 0,
    end: Ending::Nothing,
    speakers: &[Margay, Bird],
    ..SINGLE
};

const SINGLE: Work = Work {
    name: "single-100k",
    kind: Kind::Routes,
    shape: Shape::Internet,
    routes: 100_000,
    senders: 1,
    receivers: 1,
    reflector: false,
    pings: 200,
    end: Ending::Flap,
    rival: Rival::Named(Bird),
    speakers: &[Margay, Bird, Frr, FrrQueue, Gobgp, Null],
};

const FANOUT: Work = Work {
    name: "fanout-100k",
    receivers: 50,
    reflector: true,
    end: Ending::Nothing,
    rival: Rival::Named(Frr),
    speakers: &[Margay, Bird, Frr, Null],
    ..SINGLE
};

const MESH: Work = Work {
    name: "mesh-30x1k",
    kind: Kind::Routes,
    shape: Shape::Shared,
    routes: 1000,
    senders: 30,
    receivers: 0,
    reflector: true,
    pings: 0,
    end: Ending::Nothing,
    rival: Rival::Best,
    speakers: &[Margay, Bird, Frr, Null],
};

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 18] = [
    row("single-1m", "single-1m", Part::Load, [0.5, 0.5, 0.66]),
    row("single-100k", "single-100k", Part::Load, [0.6, 0.6, 1.0]),
    row("shared-1m", "shared-1m", Part::Load, [0.0; 3]),
    row("unique-100k", "unique-100k", Part::Load, [0.0; 3]),
    row("fanout-10k", "fanout-10k", Part::Load, [1.0, 0.5, 0.0]),
    row("fanout-100k", "fanout-100k", Part::Load, [1.0, 0.5, 0.0]),
    row("mesh-30x1k", "mesh-30x1k", Part::Load, [0.0, 0.5, 0.0]),
    row("mesh-400x256", "mesh-400x256", Part::Load, [0.0, 0.5, 0.0]),
    row("ping-1", "single-100k", Part::Ping, [0.5, 0.0, 0.0]),
    row("ping-50", "fanout-100k", Part::Ping, [0.5, 0.0, 0.0]),
    row("withdraw-1m", "single-1m", Part::End, [0.0, 0.5, 0.0]),
    row("flap-100k", "single-100k", Part::End, [0.0, 0.5, 0.0]),
    row("kernel-10k", "kernel-10k", Part::Load, [0.5, 0.0, 0.0]),
    row("failover-10k", "failover-10k", Part::Load, [0.5, 0.0, 0.0]),
    row("restart-10k", "restart-10k", Part::Load, [0.5, 0.0, 0.0]),
    row("idle-1000", "idle-1000", Part::Load, [0.0; 3]),
    row("bfd-200", "bfd-200", Part::Load, [0.0; 3]),
    row("start", "start", Part::Load, [0.0; 3]),
];

/// Zero: nothing is aimed at.
const fn row(name: &'static str, work: &'static str, part: Part, target: [f64; 3]) -> Row {
    let [time, cpu, memory] = target;
    let some = [time > 0.0, cpu > 0.0, memory > 0.0];
    Row {
        name,
        work,
        part,
        target: [
            if some[0] { Some(time) } else { None },
            if some[1] { Some(cpu) } else { None },
            if some[2] { Some(memory) } else { None },
        ],
    }
}

/// The rows of these names, or all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Row>> {
    let known = || ROWS.map(|row| row.name).join(" ");
    for name in names {
        if !ROWS.iter().any(|row| row.name == name) {
            bail!("no row is named {name}; there are: {}", known());
        }
    }
    let rows = ROWS.into_iter();
    Ok(rows
        .filter(|row| names.is_empty() || names.iter().any(|name| name == row.name))
        .collect())
}

/// The work behind these rows, each once, with `routes` instead of its own number.
pub(crate) fn works(rows: &[Row], routes: Option<u32>) -> Vec<Work> {
    let wanted = WORKS
        .iter()
        .filter(|work| rows.iter().any(|row| row.work == work.name));
    wanted
        .map(|work| {
            let part = |part| {
                rows.iter()
                    .any(|row| row.work == work.name && row.part == part)
            };
            Work {
                // Where there are routes at all.
                routes: routes.filter(|_| work.routes > 0).unwrap_or(work.routes),
                pings: if part(Part::Ping) { work.pings } else { 0 },
                end: if part(Part::End) {
                    work.end
                } else {
                    Ending::Nothing
                },
                ..*work
            }
        })
        .collect()
}

impl Work {
    /// All ends: senders first.
    pub(crate) fn ends(&self) -> Vec<End> {
        let senders = (0..self.senders).map(|i| (NETWORK, i, i));
        let receivers = (0..self.receivers).map(|i| (NETWORK + NEXT, i, self.senders + i));
        senders
            .chain(receivers)
            .map(|(network, i, number)| End {
                // 198.18.1.1 to 198.18.1.250, 198.18.2.1 …
                address: Ipv4Addr::from_bits(network + ((1 + i / 250) << 8) + 1 + i % 250),
                asn: if self.reflector {
                    ASN
                } else {
                    4_200_000_000 + number
                },
                to: Ipv4Addr::from_bits(network + 0xFF01),
                restart: self.kind == Kind::Restart,
            })
            .collect()
    }

    /// What the speaker shall be.
    pub(crate) const fn role<'a>(&self, ends: &'a [End]) -> Role<'a> {
        Role {
            asn: ASN,
            id: Ipv4Addr::from_bits(NETWORK + 0xFF01),
            peers: ends,
            reflector: self.reflector,
            restart: matches!(self.kind, Kind::Restart),
            kernel: self.writes(),
            // As it is by default, so that idling costs what it costs; elsewhere it stays out of the way.
            hold: if matches!(self.kind, Kind::Idle) {
                90
            } else {
                240
            },
        }
    }

    /// Routes go into the kernel.
    pub(crate) const fn writes(&self) -> bool {
        matches!(self.kind, Kind::Kernel | Kind::Failover)
    }

    /// How a sender speaks.
    pub(crate) const fn speaks(&self, end: &End) -> Speaks {
        Speaks {
            asn: end.asn,
            next_hop: end.address,
            internal: self.reflector,
        }
    }

    /// Bytes that the speaker adds to every set of attributes: ORIGINATOR_ID and CLUSTER_LIST, or its AS number.
    pub(crate) const fn added(&self) -> usize {
        if self.reflector { 14 } else { 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_work_and_only_what_was_asked_for() {
        assert_eq!(works(&chosen(&[]).unwrap(), None), WORKS);
        let rows = chosen(&["ping-1".to_owned()]).unwrap();
        let works = works(&rows, Some(500));
        assert_eq!(works.len(), 1);
        assert_eq!((works[0].routes, works[0].pings), (500, 200));
        assert_eq!(works[0].end, Ending::Nothing);
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }

    #[test]
    fn ends_have_addresses_of_their_own() {
        let ends = Work {
            senders: 400,
            ..SINGLE
        }
        .ends();
        assert_eq!(ends.len(), 401);
        assert_eq!(ends[250].address, Ipv4Addr::new(198, 18, 2, 1));
        assert_eq!(ends[400].address, Ipv4Addr::new(198, 19, 1, 1));
        assert_eq!(ends[400].to, Ipv4Addr::new(198, 19, 255, 1));
    }
}
