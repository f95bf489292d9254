//! OPEN (RFC 4271 section 4.2).

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::cursor::Cursor;
use super::frame::{self, MessageType};
use super::notification::OpenError;
use super::{Capability, Notification};

/// The 2-octet AS that stands for one that needs four (RFC 6793).
pub const AS_TRANS: u16 = 23456;

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
/// Both the length and the first type that announce parameters with 2-octet lengths (RFC 9072).
const EXTENDED: u8 = 255;

/// An OPEN of version 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The 2-octet AS field.
    pub as_field: u16,
    /// Hold time offered, seconds.
    pub hold_time: u16,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// What the sender can do, in its order.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN from a speaker in `asn`; the 4-octet AS capability is added.
    pub fn new(
        asn: u32,
        hold_time: u16,
        router_id: Ipv4Addr,
        mut capabilities: Vec<Capability>,
    ) -> Self {
        capabilities.push(Capability::FourOctetAs(asn));
        Self {
            as_field: u16::try_from(asn).unwrap_or(AS_TRANS),
            hold_time,
            router_id,
            capabilities,
        }
    }

    /// The sender's AS: that of the capability when it has one.
    pub fn asn(&self) -> u32 {
        self.four_octet_as()
            .unwrap_or_else(|| u32::from(self.as_field))
    }

    /// The AS in the 4-octet AS capability.
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
    }

    /// Reads the body.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::open(OpenError::Unspecific, &[]);
        let mut cursor = Cursor::new(body);
        if cursor.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::open(
                OpenError::UnsupportedVersion,
                &[0, VERSION],
            ));
        }
        let as_field = cursor.u16().ok_or_else(malformed)?;
        let hold_time = cursor.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from(cursor.u32().ok_or_else(malformed)?);
        let length = cursor.u8().ok_or_else(malformed)?;
        let extended = length == EXTENDED && cursor.rest().first() == Some(&EXTENDED);
        let length = if extended {
            cursor.u8();
            cursor.u16().ok_or_else(malformed)?
        } else {
            u16::from(length)
        };
        if usize::from(length) != cursor.len() {
            return Err(malformed());
        }
        let mut capabilities = Vec::new();
        while !cursor.is_empty() {
            let kind = cursor.u8().ok_or_else(malformed)?;
            let length = if extended {
                cursor.u16()
            } else {
                cursor.u8().map(u16::from)
            };
            let value = length
                .and_then(|length| cursor.take(usize::from(length)))
                .ok_or_else(malformed)?;
            if kind != CAPABILITIES {
                return Err(Notification::open(OpenError::UnsupportedParameter, &[]));
            }
            let mut inner = Cursor::new(value);
            while !inner.is_empty() {
                capabilities.push(Capability::decode(&mut inner).ok_or_else(malformed)?);
            }
        }
        Ok(Self {
            as_field,
            hold_time,
            router_id,
            capabilities,
        })
    }

    /// The whole message: each capability in a parameter of its own, which every speaker understands.
    pub fn encode(&self) -> Bytes {
        let mut parameters = Vec::new();
        for capability in &self.capabilities {
            let mut value = Vec::new();
            capability.encode(&mut value);
            let Ok(length) = u8::try_from(value.len()) else {
                continue;
            };
            // Parameters share one length octet; 255 would announce RFC 9072's form.
            if parameters.len() + value.len() + 2 >= usize::from(EXTENDED) {
                break;
            }
            parameters.extend_from_slice(&[CAPABILITIES, length]);
            parameters.extend_from_slice(&value);
        }
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.as_field.to_be_bytes());
        body.extend_from_slice(&self.hold_time.to_be_bytes());
        body.extend_from_slice(&self.router_id.octets());
        body.push(u8::try_from(parameters.len()).unwrap_or(0));
        body.extend_from_slice(&parameters);
        frame::message(MessageType::Open, &body)
    }
}
