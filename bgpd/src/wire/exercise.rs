//! What fuzzing and property tests share: every decoder on any bytes, and the way there and back.

use super::{
    Attributes, Dialect, HEADER, MAX_MESSAGE, Message, Notification, Open, RouteRefresh, Update,
    decode_stream, update,
};

/// Feeds bytes to every decoder, and writes and reads again what was understood: what fuzzing and tests call.
///
/// # Panics
///
/// If a decoder panics, or if what was read and written again reads differently.
pub fn decoders(bytes: &[u8]) {
    for (four_octet_as, internal) in [(true, false), (true, true), (false, false), (false, true)] {
        let dialect = Dialect {
            four_octet_as,
            internal,
        };
        let (messages, _) = decode_stream(bytes, dialect);
        // Most random bytes have no header; their contents are tried as each kind of message.
        let bodies = [
            Open::decode(bytes).map(Message::Open),
            Update::decode(bytes, dialect).map(Message::Update),
            RouteRefresh::decode(bytes).map(Message::RouteRefresh),
            Ok(Message::Notification(Notification::decode(bytes))),
        ];
        for message in messages.into_iter().chain(bodies.into_iter().flatten()) {
            again(&message, dialect);
        }
    }
}

/// Writes a message and reads it again; it has to be the same, as far as it can be written.
pub(super) fn again(message: &Message, dialect: Dialect) {
    match message {
        Message::Update(update) => {
            for (attributes, prefixes) in &update.announced {
                let Some(family) = prefixes.first().map(|prefix| prefix.family()) else {
                    continue;
                };
                let Ok(messages) = update::announce(attributes, family, prefixes, dialect) else {
                    continue;
                };
                let read: Vec<_> = messages
                    .iter()
                    .flat_map(|it| updates(it, dialect))
                    .collect();
                assert!(
                    read.iter().all(|it| it.problems.is_empty()),
                    "we write what we accept: {read:?}"
                );
                let announced = read.into_iter().flat_map(|it| it.announced);
                let mut all = Vec::new();
                for (read, prefixes) in announced {
                    assert_eq!(read, written(attributes, dialect));
                    all.extend(prefixes);
                }
                assert_eq!(all, *prefixes);
            }
        }
        Message::Open(open) => {
            let bytes = open.encode();
            let (messages, error) = decode_stream(&bytes, dialect);
            assert!(matches!(messages[..], [Message::Open(_)]), "{error:?}");
        }
        Message::Notification(notification) => {
            let (messages, _) = decode_stream(&notification.encode(), dialect);
            let data = &notification.data[..notification.data.len().min(MAX_MESSAGE - HEADER - 2)];
            let cut = Notification {
                data: data.to_vec(),
                ..notification.clone()
            };
            assert_eq!(messages, [Message::Notification(cut)]);
        }
        Message::Keepalive | Message::RouteRefresh(_) => {}
    }
}

fn updates(bytes: &[u8], dialect: Dialect) -> Vec<Update> {
    let (messages, error) = decode_stream(bytes, dialect);
    assert_eq!(error, None);
    let update = |message| {
        if let Message::Update(it) = message {
            Some(it)
        } else {
            None
        }
    };
    messages.into_iter().filter_map(update).collect()
}

/// What the attributes are after a way through a session: whatever it does not carry is gone.
pub(super) fn written(attributes: &Attributes, dialect: Dialect) -> Attributes {
    let mut it = attributes.clone();
    if !dialect.internal {
        it.local_pref = None;
        it.originator_id = None;
        it.cluster_list.clear();
    }
    it
}
