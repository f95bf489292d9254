//! Two connections at once (RFC 4271 section 6.8).

use std::net::Ipv4Addr;

/// One side of a session: its BGP identifier and AS.
pub type Side = (Ipv4Addr, u32);

/// Whether the connection that this side made is kept, not the one that the peer made: the side with the higher
/// identifier decides, and with equal identifiers the one with the higher AS (RFC 6286 section 2.3).
pub fn keep_own(own: Side, peer: Side) -> bool {
    own > peer
}
