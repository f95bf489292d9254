//! What people ask of the speaker over the API, understood and answered.

use api::v1;
use crds::net::Cidr;

use super::status;
use crate::Millis;
use crate::config::{Drain, PeerKey};
use crate::speaker::{DrainRequest, Page, RouteFilter, RouteInfo, Speaker};
use crate::wire::attribute::community;

/// What is to be explained.
#[derive(Debug)]
pub(crate) struct ExplainQuery {
    /// The prefix, or the /32 or /128 of an address.
    prefix: Cidr,
    /// An address was given: the longest prefix that holds it.
    longest: bool,
    peer: Option<PeerKey>,
}

/// What is to be drained.
#[derive(Debug)]
pub(crate) struct DrainOrder {
    peer: Option<PeerKey>,
    everything: bool,
    force: bool,
    undo: bool,
    pub(crate) show: bool,
}

pub(crate) fn route_filter(request: &v1::ListRoutesRequest) -> Result<RouteFilter, String> {
    let mut filter = RouteFilter::default();
    if let Ok(address) = request.prefix.parse() {
        filter.around = Some(Cidr::host(address));
    } else if !request.prefix.is_empty() {
        let prefix = request.prefix.parse().map_err(|e| format!("prefix: {e}"))?;
        match v1::PrefixMatch::try_from(request.r#match) {
            Ok(v1::PrefixMatch::Exact) => filter.prefix = Some(prefix),
            Ok(v1::PrefixMatch::Longer) => filter.inside = Some(prefix),
            Ok(v1::PrefixMatch::Shorter) => filter.around = Some(prefix),
            Err(_) => return Err(format!("match: {} is not known", request.r#match)),
        }
    }
    match request.neighbor.as_str() {
        "local" => filter.local = true,
        name => filter.neighbor = peer(name),
    }
    filter.origin_as = Some(request.origin_as).filter(|asn| *asn != 0);
    filter.community = Some(canonical(&request.community)).filter(|it| !it.is_empty());
    Ok(filter)
}

pub(crate) fn explain_query(request: &v1::ExplainRequest) -> Result<ExplainQuery, String> {
    let (prefix, longest) = match request.prefix.parse() {
        Ok(address) => (Cidr::host(address), true),
        Err(_) => {
            let prefix = request.prefix.parse().map_err(|e| format!("prefix: {e}"))?;
            (prefix, false)
        }
    };
    Ok(ExplainQuery {
        prefix,
        longest,
        peer: peer(&request.neighbor),
    })
}

pub(crate) fn drain_order(request: &v1::DrainRequest) -> Result<DrainOrder, String> {
    let peer = peer(&request.neighbor);
    if peer.is_some() && (request.everything || request.force) {
        return Err(
            "neighbor: all routes leave over it anyway, without everything and force".into(),
        );
    }
    Ok(DrainOrder {
        peer,
        everything: request.everything || request.force,
        force: request.force,
        undo: request.undo,
        show: request.show,
    })
}

/// An address, or the name of an interface; None: all.
pub(crate) fn peer(text: &str) -> Option<PeerKey> {
    match text.parse() {
        Ok(address) => Some(PeerKey::Address(address)),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(PeerKey::Interface(text.to_owned())),
    }
}

/// What to do when nobody has that address.
pub(crate) fn no_neighbor(peer: &PeerKey) -> String {
    format!("{peer} is not a neighbour: `margayctl bgp neighbors` lists their addresses")
}

/// A community as paths show it: well-known ones by name.
fn canonical(text: &str) -> String {
    let halves = text
        .split_once(':')
        .and_then(|(high, low)| Some((high.parse::<u16>().ok()?, low.parse::<u16>().ok()?)));
    match halves {
        Some((high, low)) => community::text(u32::from(high) << 16 | u32::from(low)),
        None => text.to_ascii_lowercase(),
    }
}

/// Prefixes looked at for one answer: a few milliseconds of the speaker's time.
const PAGE_MAX: usize = 4096;

/// The part of an answer that is asked for.
pub(crate) fn page(after: &str, limit: u32) -> Result<Page, String> {
    let after = match after {
        "" => None,
        text => Some(text.parse().map_err(|e| format!("after: {e}"))?),
    };
    let limit = usize::try_from(limit).unwrap_or(PAGE_MAX);
    let limit = if limit == 0 { PAGE_MAX } else { limit };
    Ok(Page {
        after,
        limit: limit.min(PAGE_MAX),
    })
}

/// An answer in parts.
pub(crate) fn listed((routes, next): (Vec<RouteInfo>, Option<Cidr>)) -> v1::ListRoutesResponse {
    v1::ListRoutesResponse {
        routes: routes.into_iter().map(status::route).collect(),
        next: next.map(|it| it.to_string()).unwrap_or_default(),
    }
}

pub(crate) fn explain(speaker: &Speaker, query: &ExplainQuery, now: Millis) -> v1::ExplainResponse {
    let ExplainQuery {
        prefix,
        longest,
        peer,
    } = query;
    let found = match longest {
        true => speaker.prefixes_around(*prefix).first().copied(),
        false => Some(*prefix),
    };
    let explained = found.and_then(|it| speaker.explain(it, peer.as_ref(), now));
    let mut notes = Vec::new();
    if explained.is_none() {
        notes.push(format!(
            "no path to {prefix} is known: nobody announces it, or import refused it, which is kept and explained only where \
             the peer has keepRejectedRoutes: true"
        ));
    }
    for neighbor in speaker.neighbors(now) {
        let of_family = neighbor
            .families
            .iter()
            .find(|it| it.family == prefix.family());
        let lost = of_family.map_or(0, |it| it.not_kept);
        if lost > 0 && peer.as_ref().is_none_or(|it| *it == neighbor.key) {
            notes.push(format!(
                "{}: {lost} refused routes were not kept, it may be one of them: keepRejectedRoutes keeps all",
                neighbor.key
            ));
        }
    }
    let Some(explained) = explained else {
        return v1::ExplainResponse {
            notes,
            ..Default::default()
        };
    };
    let path = |it: crate::speaker::ExplainedPath| v1::ExplainedPath {
        route: Some(status::route(it.route)),
        import_steps: it.import,
        decision: it.decision,
    };
    let export = |it: crate::speaker::ExplainedExport| v1::ExplainedExport {
        neighbor: it.neighbor.to_string(),
        name: it.name,
        steps: it.steps,
        told: it.told.map(status::route),
    };
    v1::ExplainResponse {
        prefix: explained.prefix.to_string(),
        paths: explained.paths.into_iter().map(path).collect(),
        exports: explained.exports.into_iter().map(export).collect(),
        notes,
    }
}

/// What an order makes of what was asked for before.
///
/// # Errors
///
/// When it can change nothing.
pub(crate) fn drain(speaker: &Speaker, order: &DrainOrder) -> Result<DrainRequest, String> {
    let mut request = speaker.drain_request().clone();
    match &order.peer {
        Some(peer) if order.undo => {
            request.peers.remove(peer);
        }
        Some(peer) => {
            if !speaker.neighbors(0).iter().any(|it| it.key == *peer) {
                return Err(no_neighbor(peer));
            }
            request.peers.insert(peer.clone());
        }
        None if order.undo => {
            if speaker.drained_by_configuration() && request.node == Drain::No {
                return Err("the Node's annotation margay.io/drain drains it: remove that".into());
            }
            (request.node, request.force) = (Drain::No, false);
        }
        None => {
            request.force = order.force;
            request.node = match order.everything {
                true => Drain::Everything,
                false => Drain::Services,
            };
        }
    }
    Ok(request)
}

/// What is being drained, and how far it has come.
pub(crate) fn drains(speaker: &Speaker, now: Millis) -> Vec<String> {
    let of = |(what, left): (String, Option<Millis>)| match left {
        Some(left) => format!("{what}: withdrawn in {} s", left.div_ceil(1000)),
        None => format!("{what}: withdrawn"),
    };
    speaker.drains(now).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn routes_are_asked_for_by_prefix_address_neighbour_as_or_community() {
        let filter = |edit: fn(&mut v1::ListRoutesRequest)| {
            let mut request = v1::ListRoutesRequest::default();
            edit(&mut request);
            route_filter(&request)
        };
        let eight = Some(cidr("10.0.0.0/8"));
        assert_eq!(
            filter(|it| it.prefix = "10.0.0.0/8".into()).unwrap().prefix,
            eight
        );
        let longer = |it: &mut v1::ListRoutesRequest| {
            it.prefix = "10.0.0.0/8".into();
            it.r#match = v1::PrefixMatch::Longer.into();
        };
        assert_eq!(filter(longer).unwrap().inside, eight);
        let host = filter(|it| it.prefix = "10.0.0.7".into()).unwrap();
        assert_eq!(host.around, Some(cidr("10.0.0.7/32")));
        assert!(filter(|it| it.neighbor = "local".into()).unwrap().local);
        let neighbor = filter(|it| it.neighbor = "192.0.2.1".into())
            .unwrap()
            .neighbor;
        assert_eq!(neighbor.unwrap().to_string(), "192.0.2.1");
        assert_eq!(filter(|it| it.origin_as = 7).unwrap().origin_as, Some(7));
        let community = filter(|it| it.community = "65535:65281".into())
            .unwrap()
            .community;
        assert_eq!(community.as_deref(), Some("no-export"));
        let bad = filter(|it| it.prefix = "banana".into()).unwrap_err();
        assert!(bad.starts_with("prefix"), "{bad}");
    }

    #[test]
    fn one_neighbour_is_drained_whole_or_not_at_all() {
        let request = v1::DrainRequest {
            neighbor: "192.0.2.1".into(),
            force: true,
            ..Default::default()
        };
        assert!(drain_order(&request).is_err());
        let forced = v1::DrainRequest {
            force: true,
            ..Default::default()
        };
        assert!(drain_order(&forced).unwrap().everything);
    }
}
