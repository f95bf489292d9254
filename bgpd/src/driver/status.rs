//! The speaker's state as the API's messages.

use std::collections::BTreeMap;

use api::v1;
use crds::net::{Cidr, Family};

use super::ask;
use super::bfd::Listing;
use crate::Millis;
use crate::bfd;
use crate::fsm::{MessageCounts, PeerRestart};
use crate::rib::PATHS_MAX;
use crate::speaker::{FamilyCount, NeighborInfo, RouteInfo, Speaker};

/// What the driver knows beside the speaker.
#[derive(Debug)]
pub(crate) struct Facts {
    /// "file" or "kubernetes".
    pub(crate) source: &'static str,
    /// Why the newest configuration is not in force.
    pub(crate) complaint: String,
    /// The stream with felix.
    pub(crate) felix: Option<u64>,
}

pub(crate) fn speaker(speaker: &Speaker, facts: &Facts, now: Millis) -> v1::Speaker {
    let summary = speaker.summary();
    v1::Speaker {
        asn: summary.asn,
        router_id: summary.router_id.to_string(),
        config_source: facts.source.to_owned(),
        config_error: facts.complaint.clone(),
        felix_connected: facts.felix.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now / 1000,
        neighbors_configured: count(summary.neighbors_configured),
        neighbors_established: count(summary.neighbors_established),
        origins: count(summary.origins),
        routes: count(summary.routes),
        drains: ask::drains(speaker, now),
    }
}

/// Every peer; `keys` says which TCP MD5 keys the listener does not have, and why.
pub(crate) fn neighbors(
    speaker: &Speaker,
    keys: &BTreeMap<Cidr, String>,
    now: Millis,
) -> Vec<v1::Neighbor> {
    let neighbors = speaker.neighbors(now).into_iter();
    neighbors.map(|info| neighbor(info, keys)).collect()
}

fn neighbor(info: NeighborInfo, keys: &BTreeMap<Cidr, String>) -> v1::Neighbor {
    let key = info.key.address().and_then(|address| {
        let around = keys.iter().filter(|(prefix, _)| prefix.contains(address));
        around.max_by_key(|(prefix, _)| prefix.prefix_len())
    });
    let problem = match (&info.hindrance, key) {
        (Some(hindrance), _) => hindrance.to_string(),
        (None, Some((_, problem))) => problem.clone(),
        (None, None) if info.surplus_paths > 0 => format!(
            "{} paths were not taken: more than {PATHS_MAX} to one prefix",
            info.surplus_paths
        ),
        (None, None) => String::new(),
    };
    v1::Neighbor {
        problem,
        range: info.range.map(|it| it.to_string()).unwrap_or_default(),
        name: info.name,
        address: info.key.to_string(),
        peer_asn: info.remote_asn,
        local_asn: info.local_asn,
        state: info.state.to_string(),
        state_seconds: info.state_millis / 1000,
        hold_seconds: info.hold_time.into(),
        peer_router_id: info.router_id.map(|id| id.to_string()).unwrap_or_default(),
        families: info
            .families
            .iter()
            .map(|it| family(it, info.restart.as_ref()))
            .collect(),
        established_count: info.established_count,
        last_error: info.last_error.map(|e| e.to_string()).unwrap_or_default(),
        messages_received: info.messages_received,
        messages_sent: info.messages_sent,
        capabilities: info.capabilities,
        announced: info.announced,
        received: Some(message_counts(info.received)),
        sent: Some(message_counts(info.sent)),
        restart: info.restart.map(|it| v1::PeerRestart {
            restarted: it.restarted,
            notifications: it.notifications,
            time_seconds: it.time / 1000,
        }),
        retry_seconds: info.retry_millis.map(|it| it.div_ceil(1000)),
        bfd: info
            .bfd
            .map(|it| it.state().to_string())
            .unwrap_or_default(),
    }
}

pub(crate) fn bfd_sessions(listing: &Listing) -> v1::ListBfdSessionsResponse {
    let refused = listing.refused.iter();
    v1::ListBfdSessionsResponse {
        sessions: listing.sessions.iter().map(bfd_session).collect(),
        refused: refused
            .map(|(reason, count)| (reason.to_string(), *count))
            .collect(),
        problem: listing.problem.clone(),
    }
}

fn bfd_session(info: &bfd::Info) -> v1::BfdSession {
    let settings = &info.settings;
    v1::BfdSession {
        peer: info.peer.to_string(),
        remote: settings.remote.to_string(),
        local: settings.local.map(|it| it.to_string()).unwrap_or_default(),
        interface: match &settings.path {
            bfd::Path::SingleHop { interface, .. } => interface.clone(),
            bfd::Path::Multihop { .. } => String::new(),
        },
        state: info.state.to_string(),
        state_millis: info.age / 1000,
        diagnostic: info.diagnostic.to_string(),
        remote_state: info.remote_state.to_string(),
        remote_diagnostic: info.remote_diagnostic.to_string(),
        discriminator: info.discriminator,
        remote_discriminator: info.remote_discriminator,
        transmit_micros: info.transmit_interval,
        detection_micros: info.detection_time,
        received: info.counts.received,
        sent: info.counts.sent,
        up_count: info.counts.up,
        failed_count: info.counts.failed,
    }
}

fn message_counts(counts: MessageCounts) -> v1::MessageCounts {
    v1::MessageCounts {
        open: counts.open,
        update: counts.update,
        notification: counts.notification,
        keepalive: counts.keepalive,
        refresh: counts.refresh,
    }
}

fn family(counts: &FamilyCount, restart: Option<&PeerRestart>) -> v1::FamilyCount {
    let family = match counts.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    v1::FamilyCount {
        family: family.to_owned(),
        negotiated: counts.negotiated,
        received: count(counts.received),
        accepted: count(counts.accepted),
        advertised: count(counts.advertised),
        end_of_rib: counts.end_of_rib,
        not_kept: counts.not_kept,
        stale: count(counts.stale),
        stale_stage: counts
            .stale_stage
            .map(|it| it.to_string())
            .unwrap_or_default(),
        stale_seconds: counts.stale_millis / 1000,
        limit: counts.limit.map(|it| it.max),
        over_limit_action: counts
            .limit
            .map(|it| it.action.to_string())
            .unwrap_or_default(),
        over_limit: counts.over_limit,
        preserved: restart.is_some_and(|it| it.preserved.contains(counts.family)),
    }
}

pub(crate) fn route(info: RouteInfo) -> v1::Route {
    v1::Route {
        reason: info.reason(),
        prefix: info.prefix.to_string(),
        neighbor: info
            .neighbor
            .map_or_else(|| "local".to_owned(), |key| key.to_string()),
        next_hop: info
            .next_hop
            .map(|address| address.to_string())
            .unwrap_or_default(),
        as_path: info.as_path,
        origin: info.origin.to_owned(),
        local_pref: info.local_pref,
        med: info.med,
        best: info.best,
        multipath: info.multipath,
        communities: info.communities,
        age_seconds: info.age_millis / 1000,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
