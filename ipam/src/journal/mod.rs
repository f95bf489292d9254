//! The attachment log: what this node owns and whom it gave which address.
//!
//! One record a line: eight hexadecimal digits of a CRC-32 (IEEE 802.3) over the JSON text, a space, the text, a newline. The
//! first record is the [`Header`]. Records are only appended; a fresh log made by [`write_all`] replaces the file as a whole.
//!
//! What reading makes of an imperfect file:
//! - a last line without its newline is *torn*: the write was cut short, so nobody was answered on its strength. Cut it off;
//! - a line whose checksum or text is wrong is *damaged*: reported with its offset, and the log counts as incomplete, because
//!   an address may be in use that it does not know;
//! - a header of another boot makes the log *void* for attachments: no sandbox survives a reboot.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::ipam_block::Owner;
use crds::net::Cidr;
use serde::{Deserialize, Serialize};

use crate::attachment::{Attachment, Key, Pod};

#[cfg(test)]
mod tests;

/// Version of the format that is written. A log of the next version is read too, without the kinds of records it adds.
pub const VERSION: u32 = 1;

/// First record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// /proc/sys/kernel/random/boot_id when it was written.
    pub boot_id: String,
    /// Who this node was.
    pub owner: Owner,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Record {
    /// Begins the log.
    Header(Header),
    /// A block became ours.
    Own(OwnedBlock),
    /// A block is ours no longer.
    Disown {
        /// Its prefix.
        cidr: Cidr,
    },
    /// Addresses were given out.
    Attach(Attachment),
    /// They are free.
    Detach {
        /// Of whom.
        key: Key,
    },
    /// An address is held back because it may be in use, by whom is in doubt.
    Hold(Hold),
    /// It is not held back any more.
    Unhold {
        /// Which.
        address: IpAddr,
    },
    /// A kind of record of a later version.
    #[serde(other)]
    Unknown,
}

/// A block this node owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedBlock {
    /// Its prefix.
    pub cidr: Cidr,
    /// Name of its pool.
    pub pool: String,
    /// uid of the object.
    pub epoch: String,
}

/// An address that is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which.
    pub address: IpAddr,
    /// Who had it, where that is known.
    #[serde(default)]
    pub key: Key,
    /// The pod who had it.
    #[serde(default)]
    pub pod: Pod,
}

/// Appends a record to `out` in the log's format.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let text = serde_json::to_string(record).expect("records hold only strings, numbers and lists");
    out.extend_from_slice(format!("{:08x} {text}\n", crc32(text.as_bytes())).as_bytes());
}

/// A whole log: the header, then the records.
pub fn write_all(header: &Header, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&Record::Header(header.clone()), &mut out);
    for record in records {
        encode(&record, &mut out);
    }
    out
}

/// What a log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The header, if it could be read.
    pub header: Option<Header>,
    /// The log is of another boot: attachments and holds were dropped, blocks are still ours.
    pub void: bool,
    /// Blocks owned.
    pub blocks: BTreeMap<Cidr, OwnedBlock>,
    /// Attachments alive.
    pub attachments: BTreeMap<Key, Attachment>,
    /// Addresses held back.
    pub holds: BTreeMap<IpAddr, Hold>,
    /// Lines that could not be read.
    pub damaged: Vec<Damage>,
    /// Where a line begins that was cut short.
    pub torn: Option<usize>,
    /// Lines read.
    pub records: usize,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line of {length} bytes at byte {offset}: {problem}")]
pub struct Damage {
    /// Where it begins, bytes.
    pub offset: usize,
    /// Its length without the newline, bytes.
    pub length: usize,
    /// Why.
    pub problem: DamageKind,
}

/// Why a line could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// The checksum is of another text.
    #[error("checksum does not match")]
    Checksum,
    /// The checksum is right, the text is no record.
    #[error("not a record")]
    Syntax,
    /// The first line is no header, or a header stands elsewhere.
    #[error("header missing or misplaced")]
    Header,
    /// Written by a version that is too new.
    #[error("version {0} of the log is not known here")]
    Version(u32),
}

impl Replay {
    /// Whether the log tells of everything that may be in use.
    pub fn is_complete(&self) -> bool {
        self.void || (self.header.is_some() && self.damaged.is_empty() && self.torn.is_none())
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Header(_) | Record::Unknown => {}
            Record::Own(block) => {
                self.blocks.insert(block.cidr, block);
            }
            Record::Disown { cidr } => {
                self.blocks.remove(&cidr);
            }
            Record::Attach(attachment) => {
                // An address given out again was freed before, even if that line is lost.
                self.attachments.retain(|_, old| {
                    !old.addresses
                        .iter()
                        .any(|a| attachment.addresses.contains(a))
                });
                self.holds
                    .retain(|address, _| !attachment.addresses.contains(address));
                self.attachments.insert(attachment.key.clone(), attachment);
            }
            Record::Detach { key } => {
                self.attachments.remove(&key);
            }
            Record::Hold(hold) => {
                self.holds.insert(hold.address, hold);
            }
            Record::Unhold { address } => {
                self.holds.remove(&address);
            }
        }
    }
}

/// Reads a log on a system booted under `boot_id`. Any bytes give a result; an empty log is one without a header.
pub fn replay(bytes: &[u8], boot_id: &str) -> Replay {
    let mut replay = Replay::default();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let Some(length) = rest.iter().position(|b| *b == b'\n') else {
            replay.torn = Some(offset);
            break;
        };
        let decoded = decode(&rest[..length]).and_then(|record| match record {
            Record::Header(header) if header.version > VERSION + 1 => {
                Err(DamageKind::Version(header.version))
            }
            Record::Header(header) if offset == 0 => {
                replay.header = Some(header.clone());
                Ok(Record::Header(header))
            }
            Record::Header(_) => Err(DamageKind::Header),
            _ if offset == 0 => Err(DamageKind::Header),
            other => Ok(other),
        });
        match decoded {
            Ok(record) => {
                replay.records += 1;
                replay.apply(record);
            }
            Err(problem) => replay.damaged.push(Damage {
                offset,
                length,
                problem,
            }),
        }
        offset += length + 1;
    }
    if replay
        .header
        .as_ref()
        .is_some_and(|header| header.boot_id != boot_id)
    {
        replay.void = true;
        replay.attachments.clear();
        replay.holds.clear();
    }
    replay
}

fn decode(line: &[u8]) -> Result<Record, DamageKind> {
    let (sum, text) = line.split_at_checked(9).ok_or(DamageKind::Checksum)?;
    if sum != format!("{:08x} ", crc32(text)).as_bytes() {
        return Err(DamageKind::Checksum);
    }
    serde_json::from_slice(text).map_err(|_| DamageKind::Syntax)
}

/// CRC-32 of IEEE 802.3, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        let mut seed = 0u32;
        while index < 256 {
            let mut value = seed;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    0xedb8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
            seed += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| {
        let index = crc.to_le_bytes()[0] ^ byte;
        TABLE[usize::from(index)] ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
}
