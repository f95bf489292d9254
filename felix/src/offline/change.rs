//! What a change would change, and what does nothing.

use std::collections::BTreeMap;

use api::v1;
use serde_json::Value;

use super::{Cluster, Document};
use crate::explain::table::Picture;
use crate::explain::{rule_at, summary};
use crate::feed::{Identity, LocalEndpoint};
use crate::nft::epoch::{Epoch, Options};
use crate::nft::terms::{self, Rules};
use crate::policy::explain::Asked;
use crate::policy::model::{PolicyKey, PolicyKind};
use crate::policy::tables::Direction;
use crate::policy::whatif::{Flip, flips};
use crate::translate;

/// Entries of an answer when nobody says how many.
const LIMIT: usize = 50;

impl Cluster {
    /// The flows whose verdict would change.
    ///
    /// # Errors
    /// A sentence about the object or name that makes no sense.
    pub fn what_if(&self, request: &v1::WhatIfRequest) -> Result<v1::WhatIfResponse, String> {
        let (services, hosts) = (self.services.clone(), self.hosts.clone());
        let mut after = Self::of(self.engine.fork(), services, hosts, &self.node);
        let mut documents = Vec::new();
        for (index, text) in request.objects.iter().enumerate() {
            let origin = format!("object {}", index + 1);
            let object: Value = serde_json::from_str(text)
                .map_err(|error| format!("{origin} is not JSON: {error}"))?;
            documents.extend(Document::unfold(&origin, object));
        }
        after.tell(documents);
        for name in &request.deleted {
            let key = key(name)?;
            if after.engine.policy(&key).is_none() {
                return Err(format!("there is no {} {key}", key.kind));
            }
            after.engine.delete_policy(&key);
        }
        let found = flips(&self.engine, &after.engine);
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => LIMIT,
            Ok(limit) => limit,
        };
        let pairs = |gained| {
            let flips = found.flips.iter().filter(|flip| flip.gained == gained);
            flips.map(|flip| whole(flip.pairs)).sum()
        };
        let mut notes = after.notes.clone();
        if found.skipped > 0 {
            notes.push(format!(
                "{} kinds of pairs were not looked at: there are too many",
                found.skipped
            ));
        }
        Ok(v1::WhatIfResponse {
            lost_pairs: pairs(false),
            gained_pairs: pairs(true),
            more: count(found.flips.len().saturating_sub(limit)),
            pods: count(found.pods),
            flips: found
                .flips
                .iter()
                .take(limit)
                .map(|flip| after.flip(flip))
                .collect(),
            notes,
        })
    }

    fn flip(&self, flip: &Flip) -> v1::Flip {
        v1::Flip {
            gained: flip.gained,
            from: flip.from.name.clone(),
            from_count: count(flip.from.count),
            to: flip.to.name.clone(),
            to_count: count(flip.to.count),
            pairs: whole(flip.pairs),
            traffic: flip.traffic.clone(),
            why: self.reason(flip),
        }
    }

    /// What decides about one of the flows, as things are here: the end that denies it, or the last that allows it.
    fn reason(&self, flip: &Flip) -> String {
        let (protocol, port) = flip.example;
        let family = |of: &std::net::IpAddr| {
            let mut others = flip.to.addresses.iter();
            let other = others.find(|it| it.is_ipv6() == of.is_ipv6())?;
            Some((*of, *other))
        };
        let Some((source, destination)) = flip.from.addresses.iter().find_map(family) else {
            return String::new();
        };
        let mut said = String::new();
        for (direction, party, own, peer) in [
            (Direction::Egress, &flip.from, source, destination),
            (Direction::Ingress, &flip.to, destination, source),
        ] {
            let asked = Asked {
                own,
                peer,
                protocol,
                port,
                source_port: 0,
            };
            let Some(explanation) = self.engine.explain(direction, &party.uid, &asked) else {
                continue;
            };
            let denied = explanation.verdict != crate::policy::tables::Verdict::Allow;
            if denied || !explanation.tiers.is_empty() || said.is_empty() {
                said = summary(&self.engine, &explanation);
            }
            if denied {
                break;
            }
        }
        said
    }

    /// What makes the table of the node on which these pods run. Host endpoints that are known by their addresses alone are
    /// on none of its interfaces: which, the files do not say.
    ///
    /// # Errors
    /// When no pod is bound to that node.
    pub fn picture(&mut self, node: &str) -> Result<Picture, String> {
        let bound = |pod: &&Identity| self.bound.get(&*pod.uid).is_some_and(|it| it == node);
        let pods = self.engine.pods().filter(|pod| !pod.host_network);
        let here: Vec<Identity> = pods.filter(bound).cloned().collect();
        let mut pods = BTreeMap::new();
        for (number, pod) in here.into_iter().enumerate() {
            // The name on a node comes from its sandbox, which no file has.
            let interface = format!("mgy{number:012}");
            pods.insert(interface.clone(), format!("{}/{}", pod.namespace, pod.name));
            let endpoint = LocalEndpoint {
                uid: pod.uid.to_string(),
                namespace: pod.namespace.to_string(),
                pod: pod.name.to_string(),
                addresses: pod.addresses.to_vec(),
            };
            self.engine.set_local(&interface, endpoint);
        }
        if pods.is_empty() {
            return Err(format!("no pod of the files runs on a node named {node:?}"));
        }
        for host in self.hosts.of_node(node, node) {
            self.engine.apply_host_endpoint(host);
        }
        let chosen = self.hosts.configuration(node);
        self.configure(&chosen);
        self.engine.compile();
        Ok(Picture {
            options: Options {
                terms: Rules {
                    hosts: self.engine.is_host_endpoint(),
                    ..Rules::default()
                },
                ..translate::ruleset(&chosen)
            },
            epoch: Epoch::FIRST,
            tables: self.engine.tables().clone(),
            terms: terms::Elements::default(),
            pods,
        })
    }

    /// Policies and rules that do nothing.
    #[must_use]
    pub fn unused(&self) -> v1::ListUnusedResponse {
        let (pods, policies, rules) = self.engine.size();
        let unused = self.engine.unused().into_iter().map(|it| v1::Unused {
            policy: it.key.to_string(),
            kind: it.key.kind.to_string(),
            rule: it
                .rule
                .map(|(direction, index)| rule_at(direction, index))
                .unwrap_or_default(),
            why: it.why,
        });
        v1::ListUnusedResponse {
            unused: unused.collect(),
            policies: count(policies),
            rules: count(rules),
            pods: count(pods),
            notes: self.notes.clone(),
        }
    }
}

/// The kinds by the names people use for them.
const KINDS: [(&str, PolicyKind); 8] = [
    ("networkpolicy", PolicyKind::KubernetesNetworkPolicy),
    ("netpol", PolicyKind::KubernetesNetworkPolicy),
    ("clusternetworkpolicy", PolicyKind::ClusterNetworkPolicy),
    ("cnp", PolicyKind::ClusterNetworkPolicy),
    ("networkpolicy.margay.io", PolicyKind::NetworkPolicy),
    ("networkpolicies.margay.io", PolicyKind::NetworkPolicy),
    ("globalnetworkpolicy", PolicyKind::GlobalNetworkPolicy),
    ("gnp", PolicyKind::GlobalNetworkPolicy),
];

/// "KIND/namespace/name" or "KIND/name".
fn key(text: &str) -> Result<PolicyKey, String> {
    let mut parts = text.splitn(3, '/');
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let kind = KINDS.iter().find(|(name, _)| *name == kind);
    let (namespace, name) = match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => (namespace, name),
        (Some(name), None) => ("", name),
        (None, _) => ("", ""),
    };
    let Some((_, kind)) = kind.filter(|_| !name.is_empty()) else {
        return Err(format!(
            "{text:?} is not like networkpolicy/shop/web or globalnetworkpolicy/base"
        ));
    };
    Ok(PolicyKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        kind: *kind,
    })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn whole(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
