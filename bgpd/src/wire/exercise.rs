//! What fuzzing and property tests share: every decoder on any bytes, and the way there and back.

use bytes::Bytes;
use crds::net::{Cidr, Family};

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
    let plain = [(true, false), (true, true), (false, false), (false, true)].map(
        |(four_octet_as, internal)| Dialect {
            four_octet_as,
            ..Dialect::plain(internal)
        },
    );
    let paths = Dialect {
        paths_sent: Family::ALL.into_iter().collect(),
        paths_received: Family::ALL.into_iter().collect(),
        extended_message: true,
        ..Dialect::plain(true)
    };
    for dialect in plain.into_iter().chain([paths]) {
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
            for (attributes, paths) in update.announced_paths() {
                let paths: Vec<(Cidr, u32)> = paths.collect();
                let Some(family) = paths.first().map(|(prefix, _)| prefix.family()) else {
                    continue;
                };
                let Ok(messages) = announce(attributes, family, &paths, dialect) else {
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
                let mut all = Vec::new();
                for (read, paths) in read.iter().flat_map(Update::announced_paths) {
                    assert_eq!(*read, written(attributes, dialect));
                    all.extend(paths);
                }
                assert_eq!(all, paths);
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

fn announce(
    attributes: &Attributes,
    family: Family,
    paths: &[(Cidr, u32)],
    dialect: Dialect,
) -> Result<Vec<Bytes>, update::TooLong> {
    if dialect.paths_sent.contains(family) {
        let paths: Vec<(u32, Cidr)> = paths.iter().map(|(prefix, id)| (*id, *prefix)).collect();
        return update::announce_paths(attributes, family, &paths, dialect);
    }
    let prefixes: Vec<Cidr> = paths.iter().map(|(prefix, _)| *prefix).collect();
    update::announce(attributes, family, &prefixes, dialect)
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
