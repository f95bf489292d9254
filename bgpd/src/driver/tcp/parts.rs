//! Writing several pieces with one call.

use std::io::{self, IoSlice};

use bytes::{Buf as _, Bytes};
use tokio::net::TcpStream;

/// Bytes to be written in their order, and how many of them have been.
pub(super) struct Parts<'a> {
    all: &'a mut Vec<Bytes>,
    done: usize,
}

/// Parts that are written with one call.
const PARTS: usize = 64;

impl<'a> Parts<'a> {
    pub(super) fn new(all: &'a mut Vec<Bytes>) -> Self {
        Self { all, done: 0 }
    }

    /// Writes some without waiting; None: everything has been.
    pub(super) fn try_write(&mut self, stream: &TcpStream) -> Option<io::Result<usize>> {
        let rest = self.all.get(self.done..).filter(|it| !it.is_empty())?;
        let slices: Vec<IoSlice<'_>> = rest.iter().take(PARTS).map(|it| IoSlice::new(it)).collect();
        let written = stream.try_write_vectored(&slices);
        if let Ok(count) = &written {
            let mut count = *count;
            while let Some(part) = self.all.get_mut(self.done) {
                if part.len() > count {
                    part.advance(count);
                    break;
                }
                count -= part.len();
                self.done += 1;
            }
        }
        Some(written)
    }

    /// Leaves what has not been written.
    pub(super) fn finish(self) {
        self.all.drain(..self.done);
    }
}
