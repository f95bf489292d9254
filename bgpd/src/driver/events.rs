//! What the speaker has to say, for the log.

use tracing::{info, warn};

use crate::bfd;
use crate::config::OverLimit;
use crate::rib::PATHS_MAX;
use crate::speaker::SpeakerEvent;

pub(crate) fn log(event: &SpeakerEvent) {
    match event {
        SpeakerEvent::Established {
            peer,
            families,
            hold_time,
        } => {
            info!(%peer, ?families, hold_time, "session established");
        }
        SpeakerEvent::Down {
            peer,
            state,
            reason,
        } => info!(%peer, %state, %reason, "session down"),
        SpeakerEvent::UnknownPeer { remote } => {
            warn!(%remote, "connection refused: no peer has this address");
        }
        SpeakerEvent::RangeFull {
            remote,
            range,
            limit,
        } => {
            warn!(%remote, %range, limit, "connection refused: the range has no room for one more");
        }
        SpeakerEvent::NotReady { peer, state } => {
            info!(%peer, %state, "connection refused: the session is not ready for one");
        }
        SpeakerEvent::TooFar { remote, ttl, least } => {
            warn!(%remote, ttl, least, "connection refused: it comes from too far away");
        }
        SpeakerEvent::Held { peer, reason } => warn!(%peer, %reason, "session not started"),
        SpeakerEvent::Malformed {
            peer,
            problem,
            bytes,
        } => warn!(%peer, problem, bytes, "malformed UPDATE"),
        SpeakerEvent::NoNextHop { peer, family } => {
            warn!(%peer, %family, "nothing is announced: there is no own address for the next hop");
        }
        SpeakerEvent::TooLong { peer, prefix } => {
            warn!(%peer, %prefix, "route not announced: its attributes do not fit into a message");
        }
        SpeakerEvent::Kept {
            peer,
            family,
            millis,
        } => {
            warn!(%peer, %family, millis, "the session is lost: its routes are kept until it is back");
        }
        SpeakerEvent::KeptLonger {
            peer,
            family,
            millis,
        } => {
            warn!(%peer, %family, millis, "the session is not back: its routes are a last resort");
        }
        SpeakerEvent::Swept {
            peer,
            family,
            routes,
            reason,
        } => info!(%peer, %family, routes, %reason, "stale routes are gone"),
        SpeakerEvent::OverLimit {
            peer,
            family,
            max,
            action,
        } => {
            let done = match action {
                OverLimit::Warn => "all are taken",
                OverLimit::Drop => "further ones are dropped",
                OverLimit::TearDown { .. } => "the session ends",
            };
            warn!(%peer, %family, max, done, "more prefixes than the peer may announce");
        }
        SpeakerEvent::TooManyPaths { peer, prefix } => {
            warn!(%peer, %prefix, max = PATHS_MAX, "more paths to a prefix than are taken of a peer");
        }
        SpeakerEvent::EndOfRib { peer, family } => info!(%peer, %family, "End-of-RIB received"),
        SpeakerEvent::Bfd { peer, event } => match event {
            bfd::Event::Up => info!(%peer, "BFD session up"),
            bfd::Event::Down { diagnostic, .. } => warn!(%peer, %diagnostic, "BFD session down"),
            bfd::Event::AdminDown => info!(%peer, "BFD session ended by the peer"),
        },
        SpeakerEvent::DataplaneOverdue => {
            warn!("felix sent no report in time: sessions start without it")
        }
        SpeakerEvent::DeferralOver => {
            warn!("not every peer sent End-of-RIB in time: going on without")
        }
    }
}
