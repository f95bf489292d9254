//! The store's file: a snapshot, then one line of JSON per change.
//!
//! A change is handed to the kernel before it is answered, so killing the process loses nothing; it is not
//! fsynced, so a crash of the machine may. A torn last line (killed while writing) was never answered and is
//! cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::Key;

/// A line of the file.
#[derive(Debug)]
pub(super) enum Record {
    /// All changes up to here are in the lines that follow, as objects.
    Snapshot { revision: u64 },
    /// An object became so, or went away.
    Change {
        revision: u64,
        collection: String,
        key: Key,
        object: Option<Value>,
    },
}

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes of all the changes since the last rewrite, and of that rewrite.
    written: usize,
    snapshot: usize,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    snapshot: Option<u64>,
    #[serde(default)]
    rev: u64,
    #[serde(default, rename = "in")]
    collection: String,
    #[serde(default)]
    ns: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    object: Option<Value>,
}

/// A log is rewritten when the changes outweigh the objects by this factor (and are not just a few).
const REWRITE_FACTOR: usize = 4;
const REWRITE_MINIMUM: usize = 4 << 20;

impl Log {
    /// Opens or creates the file and reads all of it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let mut records = Vec::new();
        let mut good = 0_usize;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let parsed: Line = serde_json::from_slice(&line).map_err(|error| {
                io::Error::other(format!(
                    "{} is damaged at byte {good}: {error}",
                    path.display()
                ))
            })?;
            records.push(match parsed.snapshot {
                Some(revision) => Record::Snapshot { revision },
                None => Record::Change {
                    revision: parsed.rev,
                    collection: parsed.collection,
                    key: Key::new(parsed.ns, parsed.name),
                    object: parsed.object,
                },
            });
            good += read;
        }
        file.set_len(u64::try_from(good).map_err(io::Error::other)?)?;
        Ok((
            Self {
                path: path.to_owned(),
                file,
                written: good,
                snapshot: 0,
            },
            records,
        ))
    }

    /// Writes a change; without an object it is a deletion.
    pub(super) fn append(
        &mut self,
        revision: u64,
        collection: &str,
        key: &Key,
        object: Option<&Bytes>,
    ) -> io::Result<()> {
        let line = encode(revision, collection, key, object);
        let before = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not stay in front of the next one.
            self.file.set_len(before)?;
            return Err(error);
        }
        self.written += line.len();
        Ok(())
    }

    /// Whether the file is worth rewriting.
    pub(super) fn is_due(&self) -> bool {
        self.written > REWRITE_MINIMUM && self.written > REWRITE_FACTOR * self.snapshot
    }

    /// Replaces the file by one with these objects, atomically.
    pub(super) fn rewrite<'a>(
        &mut self,
        revision: u64,
        objects: impl Iterator<Item = (u64, &'a str, &'a Key, &'a Bytes)>,
    ) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut out = BufWriter::new(
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?,
        );
        let mut size = 0;
        writeln!(out, "{{\"snapshot\":{revision}}}")?;
        for (revision, collection, key, object) in objects {
            let line = encode(revision, collection, key, Some(object));
            out.write_all(&line)?;
            size += line.len();
        }
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&self.path)?;
        (self.written, self.snapshot) = (0, size);
        Ok(())
    }
}

fn encode(revision: u64, collection: &str, key: &Key, object: Option<&Bytes>) -> Vec<u8> {
    // Names of kinds, namespaces and objects need no escapes: the server refuses those that would.
    let mut line = format!(
        "{{\"rev\":{revision},\"in\":\"{collection}\",\"ns\":\"{}\",\"name\":\"{}\"",
        key.namespace, key.name
    )
    .into_bytes();
    if let Some(object) = object {
        line.extend_from_slice(b",\"object\":");
        line.extend_from_slice(object);
    }
    line.extend_from_slice(b"}\n");
    line
}
