//! Why a prefix is used as it is: import, decision and export, step by step.

use std::collections::BTreeMap;

use crds::net::Cidr;
use serde::Serialize;

use super::show::route;
use super::{Page, RouteInfo, Speaker, learn};
use crate::Millis;
use crate::config::PeerKey;
use crate::policy::{ImportRefusal, export};
use crate::rib::{Path, PrefixId, SourceId};

/// Everything about one prefix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The prefix.
    pub prefix: Cidr,
    /// Its paths, the best first.
    pub paths: Vec<ExplainedPath>,
    /// What becomes of the best one towards each peer with a session.
    pub exports: Vec<ExplainedExport>,
}

/// One path: how import judged it, and how it fared against the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedPath {
    /// The path as it is used, or would be.
    pub route: RouteInfo,
    /// Each step of import, the deciding one last; none for own routes.
    pub import: Vec<String>,
    /// What the decision process says of it; empty when import refused it.
    pub decision: String,
}

/// What becomes of the best path towards one peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedExport {
    /// The peer.
    pub neighbor: PeerKey,
    /// Name of the object or entry that asks for it.
    pub name: String,
    /// Each step of export, the deciding one last.
    pub steps: Vec<String>,
    /// What it is told; None: nothing.
    pub told: Option<RouteInfo>,
}

impl Speaker {
    /// Why the prefix is used as it is; only what concerns `peer`, if one is given. None: no path to it is known.
    pub fn explain(
        &self,
        prefix: Cidr,
        peer: Option<&PeerKey>,
        now: Millis,
    ) -> Option<Explanation> {
        let id = self
            .rib
            .find(prefix)
            .filter(|it| self.rib.path_count(*it) > 0)?;
        let neighbors: BTreeMap<SourceId, &PeerKey> =
            self.peers.iter().map(|(key, it)| (it.id, key)).collect();
        let routes = self.paths(id, &neighbors, now);
        let received = self.rib.paths(id);
        let asked = |key: Option<&PeerKey>| peer.is_none() || peer == key;
        let mut paths: Vec<ExplainedPath> = routes
            .into_iter()
            .enumerate()
            .filter(|(_, it)| asked(it.neighbor.as_ref()))
            .map(|(index, route)| self.explain_path(&received[index], route))
            .collect();
        paths.sort_by_key(|it| {
            let (best, refused) = (it.route.best, it.route.refused.is_some());
            (
                !best,
                it.route.multipath,
                refused,
                it.route.neighbor.clone(),
            )
        });
        let exports = self
            .peers
            .keys()
            .filter(|key| asked(Some(key)))
            .filter_map(|key| self.explain_export(id, key))
            .collect();
        Some(Explanation {
            prefix,
            paths,
            exports,
        })
    }

    /// The prefixes with paths that hold an address, the longest first.
    pub fn prefixes_around(&self, address: Cidr) -> Vec<Cidr> {
        (0..=address.prefix_len())
            .rev()
            .filter_map(|length| Cidr::new(address.first(), length).ok())
            .filter(|it| {
                let id = self.rib.find(*it);
                id.is_some_and(|id| self.rib.path_count(id) > 0)
            })
            .collect()
    }

    /// What a peer with a session is told, ordered by prefix; None: there is no such peer.
    pub fn advertised(&self, key: &PeerKey) -> Option<Vec<RouteInfo>> {
        Some(self.advertised_on(Page::ALL, key)?.0)
    }

    /// What a peer with a session is told of the prefixes of a page, ordered by prefix, and where the next page begins;
    /// None: there is no such peer.
    pub fn advertised_on(
        &self,
        page: Page,
        key: &PeerKey,
    ) -> Option<(Vec<RouteInfo>, Option<Cidr>)> {
        let peer = self.peers.get(key)?;
        let mut told: Vec<RouteInfo> = Vec::new();
        let (ids, next) = self.page(page, |_| true);
        if let (Some(up), Some(_)) = (&peer.up, peer.session.negotiated()) {
            for id in ids {
                let best = || self.rib.best(id).filter(|best| best.from != peer.id);
                let several = self.groups.told_paths(peer.id, id, self.rib.family(id));
                for best in several.unwrap_or_else(|| best().into_iter().collect()) {
                    let Some(source) = self.rib.source(best.from) else {
                        continue;
                    };
                    let prefix = self.rib.prefix(id);
                    let attributes = self.rib.sets.get(best.set);
                    if let Ok(it) = export::export(prefix, &attributes, source, &up.to) {
                        told.push(route(prefix, Some(key.clone()), &it));
                    }
                }
            }
        }
        Some((told, next))
    }

    fn explain_path(&self, path: &Path, route: RouteInfo) -> ExplainedPath {
        let prefix = route.prefix;
        let peer = route.neighbor.as_ref().and_then(|key| self.peers.get(key));
        let mut import = Vec::new();
        if let Some(peer) = peer {
            let received = path.received.as_ref().unwrap_or(&path.attributes);
            let (importer, table) = (&self.importer, &self.table);
            let next_hop = learn::judge_next_hop(table, received.next_hop, peer.from());
            if next_hop != Err(ImportRefusal::OwnNextHop) {
                import = importer.trace(prefix, received, peer.from()).1;
            }
            let from = peer.from();
            let verdict = learn::judge(importer, table, prefix, received, from, next_hop);
            import.push(match verdict {
                Ok(_) => "taken".to_owned(),
                Err(refusal) => format!("refused: {}", refusal.words(&peer.policy.import)),
            });
        }
        let decision = match (&route.why_not_best, route.refused) {
            (_, Some(_)) => String::new(),
            (Some(why), None) if route.multipath => {
                format!("used with the best one, not the best: {why}")
            }
            (Some(why), None) => format!("not used: {why}"),
            (None, None) if route.multipath => "the best of several used together".to_owned(),
            (None, None) => "the best".to_owned(),
        };
        ExplainedPath {
            route,
            import,
            decision,
        }
    }

    fn explain_export(&self, id: PrefixId, key: &PeerKey) -> Option<ExplainedExport> {
        let peer = self.peers.get(key)?;
        let up = peer.up.as_ref()?;
        let prefix = self.rib.prefix(id);
        let best = self.rib.best(id);
        let source = best.as_ref().and_then(|best| self.rib.source(best.from));
        let (told, steps) = match (best, source) {
            (Some(best), Some(_)) if best.from == peer.id => {
                (None, vec!["not told: learnt from this peer".to_owned()])
            }
            (Some(best), Some(source)) => {
                let (told, mut steps) =
                    export::trace(prefix, &self.rib.sets.get(best.set), source, &up.to);
                steps.push(match &told {
                    Ok(_) => "told".to_owned(),
                    Err(refusal) => format!("not told: {}", refusal.words(&peer.policy.export)),
                });
                let told = told.ok();
                (told.map(|it| route(prefix, Some(key.clone()), &it)), steps)
            }
            _ => (None, vec!["not told: no path is used".to_owned()]),
        };
        Some(ExplainedExport {
            neighbor: key.clone(),
            name: peer.config.name.clone(),
            steps,
            told,
        })
    }
}
