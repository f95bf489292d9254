//! Who is in the cluster, which of them are attached here, and whose every address is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::anchors::{Anchor, Objects};
use super::lists::ListId;
use super::selecting::{Inherited, NAMESPACE_LABEL};
use super::shared::Shared;
use crate::feed::{Identity, Labels, LocalEndpoint, NamedPort};

/// UID of a pod.
pub(super) type Uid = Arc<str>;
/// Name of a host veth.
pub(super) type Ifname = Arc<str>;

/// A pod that is known.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) identity: Identity,
    /// The active peer lists that select it by labels.
    pub(super) lists: BTreeSet<ListId>,
    /// The addresses it claims, in order.
    claimed: Arc<[IpAddr]>,
    /// Deleted, but still attached here.
    departed: bool,
}

/// What a change of claims did to addresses.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// Addresses whose owner may be another now.
    pub(super) touched: BTreeSet<IpAddr>,
    /// Addresses claimed by this pod and not before.
    pub(super) gained: Vec<IpAddr>,
    /// Addresses no longer claimed by it.
    pub(super) lost: Vec<IpAddr>,
}

/// Namespaces, pods, endpoints.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) inherited: Inherited,
    residents: BTreeMap<Uid, Box<Resident>>,
    alike: Alike,
    /// Pods by their labels, the automatic ones among them.
    labelled: Objects<Uid>,
    endpoints: BTreeMap<Ifname, LocalEndpoint>,
    attached: BTreeMap<Uid, BTreeSet<Ifname>>,
    /// Rarely several by one address.
    claims: BTreeSet<(IpAddr, Uid)>,
}

/// What pods have alike, each kept once: most are one of many that a template made.
#[derive(Debug, Default)]
struct Alike {
    names: Shared<str>,
    labels: Shared<[(Box<str>, Box<str>)]>,
    ports: Shared<[NamedPort]>,
}

impl Alike {
    fn share(&mut self, pod: &mut Identity) {
        let Identity {
            namespace,
            service_account,
            labels,
            named_ports,
            ..
        } = pod;
        *namespace = self.names.share(Arc::clone(namespace));
        *service_account = self.names.share(Arc::clone(service_account));
        *labels = Labels::of(self.labels.share(Arc::clone(labels.shared())));
        *named_ports = self.ports.share(Arc::clone(named_ports));
    }

    fn forget(&mut self, pod: &Identity) {
        self.names.forget(&pod.namespace);
        self.names.forget(&pod.service_account);
        self.labels.forget(pod.labels.shared());
        self.ports.forget(&pod.named_ports);
    }
}

impl Index {
    pub(super) fn resident(&self, uid: &str) -> Option<&Resident> {
        self.residents.get(uid).map(|pod| &**pod)
    }

    pub(super) fn resident_mut(&mut self, uid: &str) -> Option<&mut Resident> {
        self.residents.get_mut(uid).map(|pod| &mut **pod)
    }

    pub(super) fn residents(&self) -> impl Iterator<Item = (&Uid, &Resident)> {
        self.residents.iter().map(|(uid, pod)| (uid, &**pod))
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Uid> {
        self.labelled.with(NAMESPACE_LABEL, namespace)
    }

    /// The pods that a selector with this anchor may select.
    pub(super) fn under(&self, anchor: &Anchor) -> BTreeSet<Uid> {
        self.labelled
            .under(anchor)
            .unwrap_or_else(|| self.residents.keys().map(Arc::clone).collect())
    }

    pub(super) fn endpoint(&self, ifname: &str) -> Option<&LocalEndpoint> {
        self.endpoints.get(ifname)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&Ifname, &LocalEndpoint)> {
        self.endpoints.iter()
    }

    /// Endpoints of a pod.
    pub(super) fn attached(&self, uid: &str) -> impl Iterator<Item = &Ifname> {
        self.attached.get(uid).into_iter().flatten()
    }

    /// The pod an address belongs to. Of several claims the one attached here wins, then the newest, then the greatest
    /// UID; when it goes, the next in that order has the address again.
    pub(super) fn owner(&self, address: IpAddr) -> Option<(&Uid, &Resident)> {
        let claims = self.claimants(address);
        let residents = claims.filter_map(|uid| Some((uid, self.resident(uid)?)));
        residents.max_by_key(|(uid, pod)| {
            (
                self.attached.contains_key(*uid),
                pod.identity.created,
                Arc::clone(uid),
            )
        })
    }

    /// The pods that claim an address.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Uid> {
        let claims = self.claims.range((address, Uid::default())..);
        let claims = claims.take_while(move |(claimed, _)| *claimed == address);
        claims.map(|(_, uid)| uid)
    }

    /// Addresses that pods claim, from first to last.
    pub(super) fn claimed(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        let claims = self.claims.range((first, Uid::default())..);
        let claims = claims.take_while(move |(address, _)| *address <= last);
        let mut before = None;
        claims
            .map(|&(address, _)| address)
            .filter(move |&address| before.replace(address) != Some(address))
    }

    /// Stores a pod; `None` if nothing about it is new.
    pub(super) fn insert(&mut self, mut identity: Identity) -> Option<Claimed> {
        let uid = Arc::clone(&identity.uid);
        if let Some(pod) = self.residents.get_mut(&uid) {
            pod.departed = false;
            if pod.identity == identity {
                return None;
            }
            if pod.identity.namespace == identity.namespace {
                self.labelled.remove(pod.identity.every_label(), &uid);
                self.alike.share(&mut identity);
                let before = std::mem::replace(&mut pod.identity, identity);
                self.alike.forget(&before);
                self.labelled.insert(pod.identity.every_label(), &uid);
                return Some(self.reclaim(&uid));
            }
            let mut claimed = self.remove(&uid);
            let again = self.insert_new(uid, identity);
            claimed.touched.extend(again.touched);
            claimed.gained = again.gained;
            return Some(claimed);
        }
        Some(self.insert_new(uid, identity))
    }

    fn insert_new(&mut self, uid: Uid, mut identity: Identity) -> Claimed {
        self.alike.share(&mut identity);
        self.labelled.insert(identity.every_label(), &uid);
        let pod = Resident {
            identity,
            lists: BTreeSet::new(),
            claimed: Arc::default(),
            departed: false,
        };
        self.residents.insert(Arc::clone(&uid), Box::new(pod));
        self.reclaim(&uid)
    }

    /// Removes a pod, unless it is attached here: then it stays until it is detached.
    pub(super) fn delete(&mut self, uid: &str) -> Claimed {
        if self.attached.contains_key(uid) {
            if let Some(pod) = self.residents.get_mut(uid) {
                pod.departed = true;
            }
            return Claimed::default();
        }
        self.remove(uid)
    }

    fn remove(&mut self, uid: &str) -> Claimed {
        let Some(pod) = self.residents.remove(uid) else {
            return Claimed::default();
        };
        self.labelled
            .remove(pod.identity.every_label(), &pod.identity.uid);
        for &address in &*pod.claimed {
            self.unclaim(address, &pod.identity.uid);
        }
        self.alike.forget(&pod.identity);
        Claimed {
            lost: pod.claimed.to_vec(),
            touched: pod.claimed.iter().copied().collect(),
            gained: Vec::new(),
        }
    }

    /// Stores an endpoint; `None` if nothing about it is new.
    pub(super) fn attach(&mut self, ifname: &Ifname, endpoint: LocalEndpoint) -> Option<Claimed> {
        let before = self.endpoints.get(ifname);
        if before == Some(&endpoint) {
            return None;
        }
        let mut claimed = match before {
            Some(before) if before.uid != endpoint.uid => self.detach(ifname).1,
            _ => Claimed::default(),
        };
        let uid = Uid::from(endpoint.uid.as_str());
        self.attached
            .entry(Arc::clone(&uid))
            .or_default()
            .insert(Arc::clone(ifname));
        self.endpoints.insert(Arc::clone(ifname), endpoint);
        let again = self.reclaim(&uid);
        claimed.touched.extend(again.touched);
        claimed.gained = again.gained;
        claimed.lost.extend(again.lost);
        Some(claimed)
    }

    /// Removes an endpoint, and its pod too if that was deleted already.
    pub(super) fn detach(&mut self, ifname: &str) -> (Option<LocalEndpoint>, Claimed) {
        let Some(endpoint) = self.endpoints.remove(ifname) else {
            return (None, Claimed::default());
        };
        if let Some(ifnames) = self.attached.get_mut(endpoint.uid.as_str()) {
            ifnames.remove(ifname);
            if ifnames.is_empty() {
                self.attached.remove(endpoint.uid.as_str());
            }
        }
        let uid = Uid::from(endpoint.uid.as_str());
        let departed = self.residents.get(&uid).is_some_and(|pod| pod.departed);
        let claimed = if departed {
            self.delete(&uid)
        } else {
            self.reclaim(&uid)
        };
        (Some(endpoint), claimed)
    }

    /// Makes a pod's claims what they should be: the addresses of its endpoints here, else those of the object.
    fn reclaim(&mut self, uid: &Uid) -> Claimed {
        let Some(pod) = self.residents.get_mut(uid) else {
            return Claimed::default();
        };
        let wanted: BTreeSet<IpAddr> = match self.attached.get(uid) {
            Some(ifnames) => {
                let endpoints = ifnames
                    .iter()
                    .filter_map(|ifname| self.endpoints.get(ifname));
                endpoints
                    .flat_map(|endpoint| endpoint.addresses.iter().copied())
                    .collect()
            }
            None if pod.identity.host_network => BTreeSet::new(),
            None => pod.identity.addresses.iter().copied().collect(),
        };
        let before: BTreeSet<IpAddr> = pod.claimed.iter().copied().collect();
        if before != wanted {
            let as_told = wanted.iter().eq(pod.identity.addresses.iter());
            pod.claimed = match as_told {
                true => Arc::clone(&pod.identity.addresses),
                false => wanted.iter().copied().collect(),
            };
        }
        let lost: Vec<_> = before.difference(&wanted).copied().collect();
        let gained: Vec<_> = wanted.difference(&before).copied().collect();
        for &address in &lost {
            self.unclaim(address, uid);
        }
        for &address in &gained {
            self.claims.insert((address, Arc::clone(uid)));
        }
        Claimed {
            touched: before.union(&wanted).copied().collect(),
            gained,
            lost,
        }
    }

    fn unclaim(&mut self, address: IpAddr, uid: &Uid) {
        self.claims.remove(&(address, Arc::clone(uid)));
    }
}

impl Resident {
    /// The addresses it claims, in order.
    pub(super) fn claimed(&self) -> &[IpAddr] {
        &self.claimed
    }
}
