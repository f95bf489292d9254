//! What the engine is told about everything that is neither a pod nor a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::engine::Engine;
use super::intervals::{Span, partition, span};
use super::lists::ListId;
use super::model::{Peer, PeerList};
use super::selecting::{Inherited, Labelled};
use crate::feed::{HostEndpoint, NetworkSet, NodeAddresses, ServiceAccount, ServiceBackends};

/// Names something with single addresses that is no pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OtherId {
    /// By namespace and name.
    Service(String, String),
    Node(String),
    Host(String),
}

/// Something with single addresses that is no pod.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) object: Object,
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The active lists it is in.
    pub(super) lists: BTreeSet<ListId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Service(ServiceBackends),
    Node(NodeAddresses),
    Host(HostEndpoint),
}

/// Namespace and name of a network set.
pub(super) type SetKey = (Option<String>, String);

/// A network set as of the last compile, and as it is now.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) now: NetworkSet,
    /// Its addresses, disjoint and in order, as of the last compile.
    pub(super) spans: Vec<Span>,
    /// The active lists it is in, as of the last compile.
    pub(super) lists: BTreeSet<ListId>,
}

/// Everything with addresses that is no pod.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) sets: BTreeMap<SetKey, Set>,
    entries: BTreeMap<OtherId, Other>,
    by_address: BTreeMap<IpAddr, BTreeSet<OtherId>>,
    /// Host endpoints of this node.
    local_hosts: BTreeSet<OtherId>,
}

impl Object {
    fn addresses(&self) -> BTreeSet<IpAddr> {
        match self {
            Self::Service(service) => service.ports.iter().map(|it| it.0).collect(),
            Self::Node(node) => node.addresses.iter().copied().collect(),
            Self::Host(host) => host.addresses.iter().copied().collect(),
        }
    }

    /// Whether a list contains its addresses.
    pub(super) fn listed(&self, list: &PeerList, inherited: &Inherited) -> bool {
        list.iter().any(|peer| match (self, peer) {
            (Self::Service(service), Peer::Service { namespace, name }) => {
                service.name == *name && service.namespace == *namespace
            }
            (Self::Node(node), Peer::Nodes(selector)) => selector.matches(&node.labels),
            (Self::Host(host), Peer::Endpoints(_)) => list.selects(Labelled::Host(host), inherited),
            _ => false,
        })
    }
}

impl Set {
    /// Its addresses now.
    pub(super) fn spans_now(&self) -> Vec<Span> {
        let nets = self.now.nets.iter().map(|&net| (span(net), ()));
        partition(nets).into_iter().map(|(span, _)| span).collect()
    }
}

impl Others {
    pub(super) fn get(&self, id: &OtherId) -> Option<&Other> {
        self.entries.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &OtherId) -> Option<&mut Other> {
        self.entries.get_mut(id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Other> {
        self.entries.values_mut()
    }

    /// All of them.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.entries.values().map(|other| &other.object)
    }

    /// Every address that one of them has.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    /// Those with this address.
    pub(super) fn at(&self, address: IpAddr) -> impl Iterator<Item = &Other> {
        let ids = self.by_address.get(&address).into_iter().flatten();
        ids.filter_map(|id| self.entries.get(id))
    }

    /// Addresses that something has, from first to last.
    pub(super) fn addresses(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.by_address
            .range(first..=last)
            .map(|(&address, _)| address)
    }

    /// Every host endpoint.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostEndpoint> {
        self.entries
            .values()
            .filter_map(|other| match &other.object {
                Object::Host(host) => Some(host),
                _ => None,
            })
    }

    /// The host endpoints of this node, by name.
    pub(super) fn local_hosts(&self) -> impl Iterator<Item = &HostEndpoint> {
        let ids = self.local_hosts.iter();
        ids.filter_map(|id| match &self.entries.get(id)?.object {
            Object::Host(host) => Some(host),
            _ => None,
        })
    }

    /// Puts something in place of what was there; returns the addresses of which it may change something.
    fn put(&mut self, id: &OtherId, object: Option<Object>) -> BTreeSet<IpAddr> {
        let before = self.entries.remove(id);
        let wanted = object.as_ref().map(Object::addresses).unwrap_or_default();
        let held = before
            .as_ref()
            .map(|it| it.addresses.clone())
            .unwrap_or_default();
        for address in held.difference(&wanted) {
            if let Some(ids) = self.by_address.get_mut(address) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        for &address in wanted.difference(&held) {
            self.by_address
                .entry(address)
                .or_default()
                .insert(id.clone());
        }
        let touched = match (before.as_ref().map(|it| &it.object), &object) {
            (Some(Object::Service(old)), Some(Object::Service(new))) => {
                let (old, new): (BTreeSet<_>, BTreeSet<_>) =
                    (old.ports.iter().collect(), new.ports.iter().collect());
                old.symmetric_difference(&new).map(|it| it.0).collect()
            }
            (Some(Object::Host(old)), Some(Object::Host(new)))
                if old.named_ports != new.named_ports =>
            {
                held.union(&wanted).copied().collect()
            }
            _ => held.symmetric_difference(&wanted).copied().collect(),
        };
        match &object {
            Some(Object::Host(host)) if host.local => self.local_hosts.insert(id.clone()),
            _ => self.local_hosts.remove(id),
        };
        if let Some(object) = object {
            let other = Other {
                object,
                addresses: wanted,
                lists: before.map(|it| it.lists).unwrap_or_default(),
            };
            self.entries.insert(id.clone(), other);
        }
        touched
    }
}

impl Engine {
    /// A service account came or changed.
    pub fn apply_service_account(&mut self, account: ServiceAccount) {
        let key = (account.namespace.clone(), account.name.clone());
        let accounts = &mut self.index.inherited.service_accounts;
        if accounts.get(&key) != Some(&account.labels) {
            accounts.insert(key, account.labels);
            self.touch_service_account(&account.namespace, &account.name);
        }
    }

    /// A service account is gone.
    pub fn delete_service_account(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if self.index.inherited.service_accounts.remove(&key).is_some() {
            self.touch_service_account(namespace, name);
        }
    }

    fn touch_service_account(&mut self, namespace: &str, name: &str) {
        let pods = self.index.in_namespace(namespace).filter(|uid| {
            let pod = self.index.resident(uid);
            pod.is_some_and(|pod| *pod.identity.service_account == *name)
        });
        for uid in pods.cloned().collect::<Vec<_>>() {
            self.touch_pod(uid);
        }
    }

    /// A network set came or changed.
    pub fn apply_network_set(&mut self, set: NetworkSet) {
        let key = (set.namespace.clone(), set.name.clone());
        if let Some(known) = self.others.sets.get_mut(&key) {
            if known.now == set {
                return;
            }
            known.now = set;
        } else {
            let new = Set {
                now: set,
                spans: Vec::new(),
                lists: BTreeSet::new(),
            };
            self.others.sets.insert(key.clone(), new);
        }
        self.dirty.sets.insert(key);
    }

    /// A network set is gone.
    pub fn delete_network_set(&mut self, namespace: Option<&str>, name: &str) {
        let key = (namespace.map(str::to_owned), name.to_owned());
        if let Some(set) = self.others.sets.remove(&key) {
            self.dirty.sets.remove(&key);
            self.dirty.gone_sets.push(set);
        }
    }

    /// The network sets of a namespace may be selected by other lists now.
    pub(super) fn touch_sets(&mut self, namespace: &str) {
        let first = (Some(namespace.to_owned()), String::new());
        let sets = self.others.sets.range(first..);
        let inside = sets.take_while(|((of, _), _)| of.as_deref() == Some(namespace));
        self.dirty.sets.extend(inside.map(|(key, _)| key.clone()));
    }

    fn put_other(&mut self, id: OtherId, object: Option<Object>) {
        if self.others.get(&id).map(|it| &it.object) == object.as_ref() {
            return;
        }
        let before = self.others.get(&id).map(|it| &it.object);
        let mut hosts = before.into_iter().chain(&object);
        self.dirty.hosts |= hosts.any(|it| matches!(it, Object::Host(host) if host.local));
        let touched = self.others.put(&id, object);
        self.dirty.addresses.extend(touched);
        self.dirty.others.insert(id);
    }

    /// The backends of a service, all of them.
    pub fn apply_service(&mut self, service: ServiceBackends) {
        let id = OtherId::Service(service.namespace.clone(), service.name.clone());
        self.put_other(id, Some(Object::Service(service)));
    }

    /// A service has no backends any more.
    pub fn delete_service(&mut self, namespace: &str, name: &str) {
        let id = OtherId::Service(namespace.to_owned(), name.to_owned());
        self.put_other(id, None);
    }

    /// A node came or changed.
    pub fn apply_node(&mut self, node: NodeAddresses) {
        self.put_other(OtherId::Node(node.name.clone()), Some(Object::Node(node)));
    }

    /// A node is gone.
    pub fn delete_node(&mut self, name: &str) {
        self.put_other(OtherId::Node(name.to_owned()), None);
    }

    /// Some interface of this node is a host endpoint.
    #[must_use]
    pub fn is_host_endpoint(&self) -> bool {
        self.others.local_hosts().next().is_some()
    }

    /// A host endpoint came or changed, of this node or of another.
    pub fn apply_host_endpoint(&mut self, endpoint: HostEndpoint) {
        let id = OtherId::Host(endpoint.name.clone());
        self.put_other(id, Some(Object::Host(endpoint)));
    }

    /// A host endpoint is gone.
    pub fn delete_host_endpoint(&mut self, name: &str) {
        self.put_other(OtherId::Host(name.to_owned()), None);
    }
}
