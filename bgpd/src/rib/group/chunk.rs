//! Messages for the members of a group, written once.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::super::{PrefixId, SourceId};

/// Bytes, and how many messages they are.
pub(super) type Messages = (Bytes, usize);

/// One step of a group: what its members are told, as bytes.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Withdrawals for most members.
    pub(super) withdrawals: Messages,
    /// Those for members of whose own paths some are in it.
    pub(super) special: BTreeMap<SourceId, Messages>,
    pub(super) announcements: Bytes,
    pub(super) runs: Vec<Run>,
    /// Prefixes announced.
    pub(super) announced: Vec<PrefixId>,
    /// Prefixes withdrawn, whose numbers are held for as long as the chunk exists.
    pub(super) gone: Vec<PrefixId>,
}

/// Announcements of paths from one source.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) from: SourceId,
    pub(super) bytes: Range<usize>,
    pub(super) messages: usize,
}

impl Chunk {
    /// Whether nobody is told anything by it.
    pub(super) fn is_empty(&self) -> bool {
        self.announced.is_empty() && self.gone.is_empty()
    }

    pub(super) fn size(&self) -> usize {
        self.withdrawals.0.len() + self.announcements.len()
    }

    /// What that member is told, in order, and in how many messages. A peer frees what is gone before it takes what is
    /// new; its own paths do not go back to it.
    pub(super) fn give(&self, member: SourceId, mut send: impl FnMut(Bytes)) -> usize {
        let (withdrawals, messages) = self.special.get(&member).unwrap_or(&self.withdrawals);
        let mut messages = *messages;
        if !withdrawals.is_empty() {
            send(withdrawals.clone());
        }
        let mut open: Option<Range<usize>> = None;
        for run in self.runs.iter().filter(|run| run.from != member) {
            messages += run.messages;
            open = match open {
                Some(range) if range.end == run.bytes.start => Some(range.start..run.bytes.end),
                Some(range) => {
                    send(self.announcements.slice(range));
                    Some(run.bytes.clone())
                }
                None => Some(run.bytes.clone()),
            };
        }
        if let Some(range) = open {
            send(self.announcements.slice(range));
        }
        messages
    }
}
