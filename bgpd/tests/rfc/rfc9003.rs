//! An operator's words in a shutdown.

use bgpd::fsm::State;
use bgpd::speaker::{Input, Output, SpeakerEvent};
use bgpd::wire::Notification;
use bgpd::wire::notification::Cease;

use crate::bench::{Bench, with_peers};
use crate::peers::{connect, info, join, notification, pass, with};

/// What people read after the peer has sent that.
fn shown(notification: &Notification) -> String {
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    let outputs = bench.bytes(conn, &notification.encode());
    let logged = outputs.iter().find_map(|it| match it {
        Output::Event(SpeakerEvent::Down { reason, .. }) => Some(reason.to_string()),
        _ => None,
    });
    let shown = info(&bench, 2).last_error.unwrap().to_string();
    assert_eq!(logged.as_ref(), Some(&shown));
    shown
}

fn raw(subcode: Cease, data: &[u8]) -> Notification {
    Notification {
        data: data.to_vec(),
        ..Notification::cease(subcode)
    }
}

#[test]
fn words_are_shown() {
    let words = "maintenance until 04:00, ticket 42, ask Åsa";
    for (subcode, name) in [
        (Cease::Shutdown, "administrative shutdown (6/2)"),
        (Cease::Reset, "administrative reset (6/4)"),
    ] {
        let it = Notification::cease_with(subcode, words);
        assert_eq!(shown(&it), format!("received Cease: {name} {words:?}"));
        assert_eq!(
            shown(&it.hard()),
            format!("received Cease: hard reset (6/9) for Cease: {name} {words:?}")
        );
    }
}

#[test]
fn a_peer_that_is_shut_down_hears_why_and_stays_down_until_it_is_not() {
    let mut bench = Bench::started(with_peers(2));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    let (other, _) = join(&mut bench, 3, 0, &with([]));
    let up = with_peers(2);
    let mut down = up.clone();
    down.peers[0].options.shutdown = Some("moving racks".to_owned());
    let outputs = bench.input(Input::Config(down));
    let told = Notification::cease_with(Cease::Shutdown, "moving racks");
    assert_eq!(notification(&outputs, conn), Some(told));
    assert!(outputs.contains(&Output::Close(conn)));
    assert!(!outputs.contains(&Output::Close(other)));
    assert_eq!(info(&bench, 2).state, State::Idle);
    assert_eq!(info(&bench, 3).state, State::Established);

    // Neither side brings it back.
    let (_, outputs) = connect(&mut bench, 2, 7);
    assert_eq!(info(&bench, 2).state, State::Idle, "{outputs:?}");
    let outputs = pass(&mut bench, 600_000, &[other]);
    assert!(
        !outputs
            .iter()
            .any(|it| matches!(it, Output::Connect { .. })),
        "{outputs:?}"
    );
    let hindrance = info(&bench, 2).hindrance.unwrap().to_string();
    assert_eq!(
        hindrance,
        "it is shut down: unset shutdown to have the session again"
    );

    bench.input(Input::Config(up));
    assert_eq!(info(&bench, 2).hindrance, None);
    join(&mut bench, 2, 1, &with([]));
    assert_eq!(info(&bench, 2).state, State::Established);
}

#[test]
fn words_cannot_command_a_terminal() {
    let it = Notification::cease_with(Cease::Shutdown, "a\x1b[2Jb\nc");
    assert_eq!(
        shown(&it),
        "received Cease: administrative shutdown (6/2) \"a\\u{1b}[2Jb\\nc\""
    );
}

#[test]
fn what_is_not_text_is_shown_as_bytes() {
    for data in [&[3, 0xff, 0xfe, 0xfd][..], &[9, b'a'][..], &[0xff][..]] {
        let text = shown(&raw(Cease::Shutdown, data));
        let hex = bgpd::wire::hex(data);
        assert_eq!(
            text,
            format!("received Cease: administrative shutdown (6/2) data {hex}")
        );
    }
    assert_eq!(
        shown(&raw(Cease::Shutdown, &[])),
        "received Cease: administrative shutdown (6/2)"
    );
}

#[test]
fn words_of_other_subcodes_are_bytes() {
    let text = shown(&raw(Cease::OtherChange, &[1, b'a']));
    assert_eq!(
        text,
        "received Cease: other configuration change (6/6) data 0161"
    );
}

#[test]
fn words_are_cut_between_characters() {
    let it = Notification::cease_with(Cease::Shutdown, &"ä".repeat(200));
    assert_eq!(it.data.len(), 1 + 254);
    assert_eq!(it.words(), Some("ä".repeat(127).as_str()));
    let it = Notification::cease_with(Cease::Shutdown, &"a".repeat(255));
    assert_eq!(it.data.len(), 256);
    let silent = Notification::cease_with(Cease::Shutdown, "");
    assert_eq!(silent, Notification::cease(Cease::Shutdown));
}
