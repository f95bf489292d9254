//! Frames between the plugin and felix, on felix's CNI socket: a big-endian u32 length, then JSON.
//!
//! One connection serves one operation. For ADD it carries two requests, [`Request::Add`] then [`Request::Ready`]; when it
//! ends between them, felix takes the attachment back.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::CniError;
use crate::key::AttachmentKey;

/// Version of these frames; a receiver takes one up and one down.
pub const VERSION: u32 = 1;

/// Longest frame, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// What is sent: a version and a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`] of the sender.
    pub v: u32,
    /// The request or reply.
    pub body: T,
}

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Reserve addresses for an attachment. Refused for a key that is attached, until a DEL.
    Add {
        /// The attachment.
        key: AttachmentKey,
        /// The pod, as the runtime names it in CNI_ARGS.
        pod: Pod,
    },
    /// The veth is in place: bring route and policy into force, then answer.
    Ready {
        /// The attachment.
        key: AttachmentKey,
        /// MAC address of the pod's interface, as "aa:bb:cc:dd:ee:ff".
        mac: String,
    },
    /// Take everything of the attachment away. Succeeds for a key that is not known.
    Del {
        /// The attachment.
        key: AttachmentKey,
    },
    /// Can an ADD be served now?
    Status,
}

/// The pod of an attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID; empty when the runtime does not tell it.
    pub uid: String,
}

/// What felix answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Add`].
    Reserved {
        /// One address for each family of the node's pools.
        addresses: Vec<IpAddr>,
        /// MTU for both sides of the veth, in bytes.
        mtu: u32,
    },
    /// To [`Request::Ready`], [`Request::Del`] and [`Request::Status`].
    Done,
    /// The request failed; nothing of it remains.
    Failed {
        /// Why, as the runtime shall see it.
        error: CniError,
    },
}

/// A frame as bytes, length included.
pub fn encode<T: Serialize>(body: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(&Envelope { v: VERSION, body })?;
    let len = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MAX_LEN);
    let len = len.ok_or_else(|| {
        invalid(format!(
            "frame of {} bytes is longer than {MAX_LEN}",
            json.len()
        ))
    })?;
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Length of the body that follows these four bytes, if it is one we take.
pub fn body_len(header: [u8; 4]) -> io::Result<usize> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len > MAX_LEN {
        return Err(invalid(format!(
            "frame of {len} bytes announced, at most {MAX_LEN} are taken"
        )));
    }
    Ok(len)
}

/// Decodes the body of a frame.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let envelope: Envelope<serde_json::Value> = serde_json::from_slice(body)?;
    if envelope.v.abs_diff(VERSION) > 1 {
        return Err(invalid(format!(
            "frame version {} is not understood, ours is {VERSION}",
            envelope.v
        )));
    }
    Ok(serde_json::from_value(envelope.body)?)
}

/// Reads one frame.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut header = [0; 4];
    from.read_exact(&mut header)?;
    let mut body = vec![0; body_len(header)?];
    from.read_exact(&mut body)?;
    decode(&body)
}

/// Writes one frame.
pub fn write<T: Serialize>(to: &mut impl Write, body: &T) -> io::Result<()> {
    to.write_all(&encode(body)?)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add() -> Request {
        Request::Add {
            key: AttachmentKey {
                network: "margay".into(),
                container_id: "c1".into(),
                interface: "eth0".into(),
            },
            pod: Pod {
                namespace: "default".into(),
                name: "web".into(),
                uid: "u".into(),
            },
        }
    }

    #[test]
    fn round_trip() {
        let frame = encode(&add()).unwrap();
        assert_eq!(read::<Request>(&mut frame.as_slice()).unwrap(), add());
    }

    #[test]
    fn next_version_is_read_and_the_one_after_refused() {
        let body = |v| serde_json::to_vec(&Envelope { v, body: add() }).unwrap();
        assert!(decode::<Request>(&body(VERSION + 1)).is_ok());
        assert!(
            decode::<Request>(&body(VERSION + 2))
                .unwrap_err()
                .to_string()
                .contains("version")
        );
    }

    #[test]
    fn a_huge_length_is_refused_before_memory_is_taken() {
        let error = read::<Request>(&mut [0xff, 0xff, 0xff, 0xff].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_request(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Request>(&bytes);
            let _ = read::<Reply>(&mut bytes.as_slice());
        }
    }
}
