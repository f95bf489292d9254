//! Elements count the packets that are judged by them, and what they had counted is told when they go.

use felix::driver::nft::{Ensured, Nft};
use felix::nft::epoch::{Options, Revoked};
use felix::policy::counts::Packets;
use felix::policy::tables::{Answer, CauseId, Direction, Program, Subject, Tables, Verdict};

use crate::net::Probe;
use crate::policed::{FROM_R, OF_A, Policed, enforce};

const PORT: CauseId = CauseId(1);
const REST: CauseId = CauseId(2);
const RANGE: CauseId = CauseId(3);
const ALLOWED: CauseId = CauseId(70_000);
const DENIED: CauseId = CauseId(CauseId::LAST);

const WEB: Program = Program(0x10);

fn answer(verdict: Verdict, cause: CauseId) -> Answer {
    Answer {
        cause,
        ..Answer::plain(verdict)
    }
}

/// The tables with causes: of TCP 8080, UDP 5000-5099 and the rest of the program, and of what is fixed.
fn with_causes(tables: &Tables) -> Tables {
    let mut tables = tables.clone();
    let (ingress, egress) = (Subject::new(7, false, true), Subject::new(8, true, false));
    let denied = Program::fixed(answer(Verdict::Deny, DENIED));
    tables
        .defaults
        .insert((Direction::Ingress, ingress), denied);
    tables.defaults.insert((Direction::Egress, egress), denied);
    let allowed = Program::fixed(answer(Verdict::Allow, ALLOWED));
    let pair = (Direction::Egress, egress, OF_A);
    tables.pairs.insert(pair, allowed);
    let web = answer(Verdict::Allow, PORT);
    tables.ports.insert((WEB, 6, 8080), web);
    let range = answer(Verdict::Allow, RANGE);
    tables.port_ranges.insert((WEB, 17, 5000, 5099), range);
    let rest = answer(Verdict::Deny, REST);
    tables.programs_ranged.insert(WEB, rest);
    tables
}

fn count(policed: &Policed) -> Packets {
    let mut packets = policed.kernel.with(|nft| nft.packets().expect("counters"));
    // What no rule decides.
    packets.remove(&CauseId(0));
    packets
}

#[test]
fn each_flow_is_counted_by_the_element_that_decides() {
    let policed = Policed::new();
    let tables = with_causes(&policed.tables);
    enforce(&policed.kernel, &policed.tables, &tables, false);
    assert_eq!(count(&policed), Packets::new());
    let gone = policed.kernel.with(|nft| nft.gone());
    assert_eq!(gone, Packets::new(), "nothing was counted yet");
    // Both families, so that each is two flows; more packets of a flow are none.
    let both = 2;
    policed.expect("r", "a", &[(Probe::Tcp(8080), true)]);
    policed.expect("r", "a", &[(Probe::Tcp(8080), true)]);
    policed.expect("r", "a", &[(Probe::Udp(5001), true)]);
    let mut expected = Packets::from([(PORT, 2 * both), (RANGE, both)]);
    assert_eq!(count(&policed), expected);
    // A pod's egress, and then the other one's ingress.
    policed.expect("b", "a", &[(Probe::Tcp(8080), true)]);
    expected.insert(ALLOWED, both);
    *expected.entry(PORT).or_default() += both;
    assert_eq!(count(&policed), expected);
    // What is denied is tried again: at least once.
    policed.expect("r", "a", &[(Probe::Udp(6001), false)]);
    policed.expect("b", "r", &[(Probe::Udp(6001), false)]);
    let counted = count(&policed);
    for (cause, least) in [(REST, both), (DENIED, both)] {
        assert!(
            counted.get(&cause).is_some_and(|it| *it >= least),
            "{counted:?}"
        );
    }
    for (cause, packets) in &expected {
        assert_eq!(counted.get(cause), Some(packets), "{cause:?}");
    }

    // What goes tells what it had counted; what stays goes on.
    let mut want = tables.clone();
    want.ports
        .insert((WEB, 6, 8080), answer(Verdict::Allow, CauseId(9)));
    enforce(&policed.kernel, &tables, &want, false);
    let gone = policed.kernel.with(|nft| nft.gone());
    assert_eq!(gone, Packets::from([(PORT, 3 * both)]));
    let mut left = counted.clone();
    left.remove(&PORT);
    assert_eq!(count(&policed), left);
    assert_eq!(policed.kernel.with(|nft| nft.gone()), Packets::new());

    // Counters are state: what is there is still what is wanted, and another life takes it up as it is.
    let there = policed.kernel.with(|nft| nft.read().expect("elements"));
    assert_eq!(
        there,
        Tables {
            links: Default::default(),
            ..want.clone()
        }
    );
    assert!(policed.kernel.with(|nft| nft.intact().expect("rules")));
    let (ensured, packets) = policed.kernel.namespace.run(|| {
        let mut next = Nft::open().expect("netlink");
        let ensured = next.take_up().expect("table");
        (ensured, next.packets().expect("counters"))
    });
    assert_eq!(ensured, Ensured::Adopted);
    for (cause, packets) in &packets {
        assert!(
            left.get(cause) == Some(packets) || cause.0 == 0,
            "{cause:?}"
        );
    }

    // All at once: by a reload, and by other rules.
    policed
        .kernel
        .with(|nft| nft.reload(&want).expect("reload"));
    let mut gone = policed.kernel.with(|nft| nft.gone());
    gone.remove(&CauseId(0));
    gone.retain(|_, packets| *packets > 0);
    assert_eq!(gone, left);
    policed.expect("r", "a", &[(Probe::Udp(5001), true)]);
    policed.kernel.with(|nft| {
        nft.set_options(Options {
            revoked: Revoked::Drop,
            ..nft.options()
        });
        assert_eq!(nft.ensure_table().expect("table"), Ensured::Replaced);
        assert_eq!(nft.gone().get(&RANGE), Some(&both));
    });
    assert_eq!(count(&policed), Packets::new());

    // An operator who wants none.
    policed.kernel.with(|nft| {
        nft.set_options(Options {
            counters: false,
            ..nft.options()
        });
        assert_eq!(nft.ensure_table().expect("table"), Ensured::Replaced);
    });
    policed.expect("r", "a", &[(Probe::Udp(5001), true)]);
    assert_eq!(count(&policed), Packets::new());
    let ensured = policed.kernel.namespace.run(|| {
        let mut next = Nft::open().expect("netlink");
        (next.take_up().expect("table"), next.options().counters)
    });
    assert_eq!(ensured, (Ensured::Adopted, false));
}

#[test]
fn a_very_large_change_loses_no_count() {
    let policed = Policed::new();
    let mut tables = with_causes(&policed.tables);
    for port in 10_000..13_000 {
        tables
            .ports
            .insert((WEB, 6, port), answer(Verdict::Allow, PORT));
    }
    enforce(&policed.kernel, &policed.tables, &tables, false);
    policed.kernel.with(|nft| nft.gone());
    policed.expect(
        "r",
        "a",
        &[(Probe::Tcp(8080), true), (Probe::Udp(5001), true)],
    );
    let mut want = tables.clone();
    want.ports.retain(|(_, _, port), _| *port == 1);
    let key = (Direction::Ingress, Subject::new(7, false, true), FROM_R);
    assert!(want.pairs.contains_key(&key));
    enforce(&policed.kernel, &tables, &want, false);
    let gone = policed.kernel.with(|nft| nft.gone());
    assert_eq!(gone.get(&PORT), Some(&2));
    assert_eq!(gone.get(&RANGE).copied().unwrap_or_default(), 0);
    assert_eq!(count(&policed), Packets::from([(RANGE, 2)]));
}
