//! What pools, pods and operators want beside policy: translation of sources, extra sources, Services that do not loop,
//! limits, DSCP, floating addresses. A pure machine: it is told what there is, and says which rules and elements of
//! `inet margay` ([`crate::nft::terms`]), queues and announcements follow.

pub mod annotations;
mod elements;
mod floating;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::felix_configuration as chosen;
use crds::ip_pool::Pool;
use crds::net::{Cidr, Family};

use self::annotations::{Asked, Problem, SOURCES, Shape, Way};
use crate::nft::terms::{Elements, Rules, Services};

/// A pod that asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Those of its annotations that [`annotations::concerns`] names.
    pub annotations: BTreeMap<String, String>,
}

/// What a pod of any node says about floating addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    /// The pod as "namespace/name".
    pub pod: String,
    /// The addresses that it asks for.
    pub addresses: Vec<IpAddr>,
}

/// A pod that asks for a floating address; the first in order has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    created: i64,
    pod: String,
    uid: String,
}

/// What the kernel shall have, and the fabric be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Which rules there are.
    pub rules: Rules,
    /// Elements of their sets.
    pub elements: Elements,
    /// Queues of host interfaces: what their pods get.
    pub queues: BTreeMap<String, Shape>,
    /// Host interfaces whose pods may have any source.
    pub unfiltered: BTreeSet<String>,
    /// Host interfaces by the floating addresses of their pods.
    pub floating: BTreeMap<IpAddr, String>,
}

/// Something for a pod's owner to read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Which annotation is not in force, and why.
    pub message: String,
}

/// The host interface of a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    uid: String,
    pod: String,
    addresses: Vec<IpAddr>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Terms {
    chosen: chosen::Terms,
    pools: BTreeMap<String, Pool>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Where what leaves the cluster comes from unless something else was chosen, by family.
    own: [Option<IpAddr>; 2],
    /// Pods of this node that ask for something, by uid.
    pods: BTreeMap<String, (Asking, Asked, Vec<Problem>)>,
    links: BTreeMap<String, Link>,
    /// Pods of all nodes that ask for floating addresses, by uid.
    claims: BTreeMap<String, Claim>,
    /// Who asks for a floating address.
    holders: BTreeMap<IpAddr, BTreeSet<Holder>>,
    /// Some pod here had limits once: the rules stay for this life, so that they do not come and go with pods.
    limited: bool,
    /// Some pod's connections were counted once, likewise.
    counted: bool,
    told: BTreeSet<Complaint>,
    complaints: Vec<Complaint>,
    /// What was wanted is old.
    dirty: bool,
    wanted: Wanted,
}

impl Terms {
    /// What the kernel shall have, as of the last [`Terms::settle`].
    #[must_use]
    pub const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What an operator chose.
    pub fn choose(&mut self, chosen: chosen::Terms) {
        if self.chosen != chosen {
            self.chosen = chosen;
            self.dirty = true;
        }
    }

    /// A pool came, changed, or is gone.
    pub fn pool(&mut self, name: &str, pool: Option<&Pool>) {
        self.dirty |= match pool {
            Some(pool) => self.pools.insert(name.to_owned(), pool.clone()).as_ref() != Some(pool),
            None => self.pools.remove(name).is_some(),
        };
    }

    /// A node has these addresses, or is gone.
    pub fn node(&mut self, name: &str, addresses: Option<&[IpAddr]>) {
        self.dirty |= match addresses {
            Some(all) => self.nodes.insert(name.to_owned(), all.to_vec()).as_deref() != Some(all),
            None => self.nodes.remove(name).is_some(),
        };
    }

    /// The node's own addresses that are on no interface to the fabric.
    pub fn own<'a>(&mut self, addresses: impl Iterator<Item = &'a IpAddr>) {
        let mut own = [None, None];
        for address in addresses {
            own[place(Family::of(*address))].get_or_insert(*address);
        }
        self.dirty |= own != self.own;
        self.own = own;
    }

    /// A pod of this node asks for something, or for nothing.
    pub fn pod(&mut self, uid: &str, asking: Option<Asking>) {
        let Some(asking) = asking.filter(|it| !it.annotations.is_empty()) else {
            self.dirty |= self.pods.remove(uid).is_some();
            self.told.retain(|it| it.uid != uid);
            return;
        };
        if self
            .pods
            .get(uid)
            .is_some_and(|(before, ..)| *before == asking)
        {
            return;
        }
        let (asked, problems) = annotations::parse(&asking.annotations);
        self.pods.insert(uid.to_owned(), (asking, asked, problems));
        self.dirty = true;
    }

    /// A pod of this node, by uid and name, has this host interface and addresses; `None`: it has it no more.
    pub fn link(&mut self, interface: &str, pod: Option<(&str, String, &[IpAddr])>) {
        self.dirty |= match pod {
            Some((uid, pod, addresses)) => {
                let link = Link {
                    uid: uid.to_owned(),
                    pod,
                    addresses: addresses.to_vec(),
                };
                self.links.insert(interface.to_owned(), link.clone()) != Some(link)
            }
            None => self.links.remove(interface).is_some(),
        };
    }

    /// Works out what is wanted now; `true` when that may have changed.
    pub fn settle(&mut self) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        self.complain();
        let before = self.wanted.clone();
        let links = self.links.values();
        let asked = links.filter_map(|link| Some(&self.pods.get(&link.uid)?.1));
        for asked in asked {
            self.limited |= asked.is_limited();
            self.counted |= asked.is_counted();
        }
        self.wanted = Wanted {
            rules: self.rules(),
            elements: self.elements(),
            queues: self.queues(),
            unfiltered: self.unfiltered(),
            floating: self
                .floating()
                .map(|(address, name, _)| (address, name.clone()))
                .collect(),
        };
        self.wanted != before
    }

    /// What pods' owners have not been told yet.
    pub fn complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    fn complain(&mut self) {
        let mut all = Vec::new();
        for (uid, (asking, asked, problems)) in &self.pods {
            let refused = (!asked.sources.is_empty() && !self.chosen.spoofing).then(|| Problem {
                annotation: SOURCES.to_owned(),
                problem: "it needs workloadSourceSpoofing: Any in FelixConfiguration default"
                    .into(),
            });
            let floating = asked.floating.iter();
            let withheld = floating.filter_map(|address| self.withheld(uid, *address));
            let problems = problems.iter().cloned().chain(refused).chain(withheld);
            all.extend(problems.map(|problem| Complaint {
                namespace: asking.namespace.clone(),
                name: asking.name.clone(),
                uid: uid.clone(),
                message: problem.to_string(),
            }));
        }
        for complaint in all {
            if self.told.insert(complaint.clone()) {
                self.complaints.push(complaint);
            }
        }
    }

    fn rules(&self) -> Rules {
        let services = match self.chosen.service_loops {
            _ if self.chosen.service_cidrs.is_empty() => None,
            chosen::ServiceLoops::Drop => Some(Services::Drop),
            chosen::ServiceLoops::Reject => Some(Services::Reject),
            chosen::ServiceLoops::Pass => None,
        };
        let outgoing = self.pools.values().any(|pool| pool.nat_outgoing);
        Rules {
            outgoing: outgoing.then_some(self.chosen.nat_ports),
            floating: self.chosen.floating,
            services,
            limits: self.limited,
            hosts: false,
            connections: self.counted,
        }
    }

    /// Interfaces of pods with what they ask for.
    fn asked(&self) -> impl Iterator<Item = (&String, &Link, &Asked)> {
        let links = self.links.iter();
        links.filter_map(|(name, link)| Some((name, link, &self.pods.get(&link.uid)?.1)))
    }

    fn queues(&self) -> BTreeMap<String, Shape> {
        let shape = |asked: &Asked| asked.limits[Way::In as usize].bandwidth;
        self.asked()
            .filter_map(|(name, _, asked)| Some((name.clone(), shape(asked)?)))
            .collect()
    }

    fn unfiltered(&self) -> BTreeSet<String> {
        let spoofing = self.chosen.spoofing;
        self.asked()
            .filter(|(_, _, asked)| spoofing && !asked.sources.is_empty())
            .map(|(name, ..)| name.clone())
            .collect()
    }
}

const fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Prefixes without those inside others.
fn widest(prefixes: impl IntoIterator<Item = Cidr>) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = prefixes.into_iter().collect();
    sorted.sort_unstable();
    let mut kept: Vec<Cidr> = Vec::new();
    for prefix in sorted {
        if !kept.last().is_some_and(|last| last.covers(prefix)) {
            kept.push(prefix);
        }
    }
    kept
}
