//! What fuzzing and tests share: any bytes to whatever the driver reads.

use std::io::Write;

use api::v1;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;

use super::view::{self, View};
use super::{Line, Replay, grpc, replay, state};

/// Longest recording that is replayed: many inputs say nothing new.
const RECORDING: usize = 1 << 16;

/// A recording is replayed as far as it is one.
///
/// # Panics
///
/// If a line that was read is not the same after being written.
pub fn recording(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(RECORDING)];
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(read) = serde_json::from_slice::<Line>(line) else {
            continue;
        };
        let written = serde_json::to_vec(&read).unwrap_or_default();
        let again = serde_json::from_slice::<Line>(&written).map(|it| serde_json::to_vec(&it).ok());
        assert_eq!(
            again.ok().flatten(),
            Some(written),
            "what is recorded is read"
        );
    }
    // An error is an answer; nothing is said of it.
    let _ = replay::run(bytes, Replay::default(), &mut Silence);
}

/// What an earlier life kept: a configuration, and what is drained.
///
/// # Panics
///
/// If what was read is not the same after being kept again.
pub fn kept(bytes: &[u8]) {
    if let Ok(config) = state::read(bytes) {
        let again = state::text(&config).and_then(|it| state::read(&it));
        assert_eq!(again.ok(), Some(config), "what is kept is read");
    }
    if let Ok(request) = state::read_drain(bytes) {
        let again = state::drain_text(&request).and_then(|it| state::read_drain(&it));
        assert_eq!(again.ok(), Some(request), "what is kept is read");
    }
}

/// A message of felix's.
///
/// # Panics
///
/// If it is not understood, and nobody says why.
pub fn felix(message: v1::FelixMessage) {
    let _ = message.body.map(grpc::understand);
}

/// A message of the kernel's, and what follows from it.
///
/// # Panics
///
/// If what follows does not lead from what was known to what is.
pub fn kernel(bytes: &[u8]) {
    let mut view = View::default();
    let mut rest = bytes;
    while let Some(([a, b, c, d], _)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let (message, after) = rest.split_at(length.clamp(4, rest.len().max(4)).min(rest.len()));
        rest = after;
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            continue;
        };
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            let before = view.clone();
            view.apply(&message);
            let changes = view::diff(&before, &view);
            assert_eq!(changes.is_empty(), before == view);
        }
    }
}

/// Takes what is said and forgets it.
struct Silence;

impl Write for Silence {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
