//! What fuzzing and property tests share: any bytes to the decoder and to a session.

use std::net::{IpAddr, Ipv4Addr};

use super::{Event, Input, Micros, Monitor, Output, Packet, Path, Received, Settings};
use crate::config::PeerKey;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Feeds bytes to the decoder, and, in pieces, to a session as what its peer sends.
///
/// Each piece begins with a byte that says how much time passes before it and whether it is made to name the session.
///
/// # Panics
///
/// If a decoder or the session panics, if what was read and written again reads differently, if a timer does not go
/// forward, or if the session says down without having said up.
pub fn any(bytes: &[u8]) {
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }
    let peer = PeerKey::Address(PEER);
    let mut monitor = Monitor::new(7);
    let mut now: Micros = 0;
    let settings = Settings {
        remote: PEER,
        local: None,
        path: Path::SingleHop {
            ifindex: 3,
            interface: "eth0".to_owned(),
        },
        transmit: 50_000,
        receive: 50_000,
        multiplier: 3,
    };
    let started = monitor.handle(Input::Start { peer, settings }, now);
    let Some(&Output::Open { discriminator, .. }) = started.first() else {
        panic!("a session that starts has a socket");
    };
    let mut up = false;
    for piece in bytes.chunks(25) {
        let Some((&how, packet)) = piece.split_first() else {
            continue;
        };
        let end = now + Micros::from(how >> 2) * 10_000;
        while let Some(due) = monitor.next_timeout().filter(|due| *due <= end) {
            now = now.max(due);
            judge(&monitor.handle(Input::Tick, now), &mut up);
            assert!(
                monitor.next_timeout().is_none_or(|next| next > now),
                "a tick leaves nothing that is due"
            );
        }
        now = end;
        let mut bytes = packet.to_vec();
        if how & 1 == 1 && bytes.len() >= 12 {
            bytes[0] = 0x20 | bytes[0] & 0x1f;
            bytes[1] &= 0xfa;
            bytes[2] |= 1;
            bytes[3] = 24;
            bytes[8..12].copy_from_slice(&discriminator.to_be_bytes());
        }
        let received = Received {
            bytes,
            source: PEER,
            destination: OWN,
            ifindex: 3,
            ttl: u8::MAX,
            multihop: false,
        };
        judge(&monitor.handle(Input::Packet(received), now), &mut up);
    }
}

fn judge(outputs: &[Output], up: &mut bool) {
    for output in outputs {
        match output {
            Output::Send { bytes, .. } => {
                let sent = Packet::decode(bytes);
                let sound = |it: Packet| !(it.independent || it.demand || it.poll && it.is_final);
                assert!(sent.is_ok_and(sound), "what is sent is sound: {sent:?}");
            }
            Output::Event { event, .. } => {
                assert_eq!(*up, *event != Event::Up, "up and down take turns");
                *up = *event == Event::Up;
            }
            Output::Open { .. } | Output::Close { .. } => {}
        }
    }
}
