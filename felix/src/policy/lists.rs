//! Peer lists: the predicates that tell peers apart. Equal lists of different rules are one.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::intervals::{Span, span, subtract};
use super::model::{Peer, PeerList, Term};

/// Names a peer list; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ListId(u32);

impl ListId {
    /// The list of every IPv4 address, which is always there: rules about our side may differ by family.
    pub(super) const IPV4: Self = Self(0);
}

/// Every list of every installed policy.
#[derive(Debug)]
pub(super) struct PeerLists {
    ids: HashMap<PeerList, ListId>,
    entries: BTreeMap<ListId, Entry>,
    next: u32,
}

#[derive(Debug)]
struct Entry {
    list: PeerList,
    /// Rules which have it.
    rules: usize,
}

impl Default for PeerLists {
    fn default() -> Self {
        let mut lists = Self {
            ids: HashMap::new(),
            entries: BTreeMap::new(),
            next: 0,
        };
        let all = IpNetwork::V4(Ipv4Network::from(Ipv4Addr::UNSPECIFIED));
        let all = IpNetwork::new(all.ip(), 0).unwrap_or(all);
        lists.acquire(&PeerList::new(vec![Peer::Net {
            cidr: all,
            except: Vec::new(),
        }]));
        lists
    }
}

impl PeerLists {
    /// Whether it may contain a pod by one family's address and not by the other's.
    pub(super) fn by_family(&self, id: ListId) -> bool {
        self.list(id)
            .is_some_and(|list| list.iter().any(|peer| !matches!(peer, Peer::Pods(_))))
    }

    pub(super) fn acquire(&mut self, list: &PeerList) -> ListId {
        let next = ListId(self.next);
        let id = *self.ids.entry(list.clone()).or_insert(next);
        if id == next {
            self.next += 1;
        }
        self.entries
            .entry(id)
            .or_insert_with(|| Entry {
                list: list.clone(),
                rules: 0,
            })
            .rules += 1;
        id
    }

    pub(super) fn acquire_terms(&mut self, terms: &[Term<PeerList>]) -> Vec<Term<ListId>> {
        let terms = terms.iter().map(|term| Term {
            negated: term.negated,
            any: self.acquire(&term.any),
        });
        terms.collect()
    }

    pub(super) fn release(&mut self, id: ListId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.rules -= 1;
            if entry.rules == 0 {
                self.ids.remove(&entry.list);
                self.entries.remove(&id);
            }
        }
    }

    /// The number of a list that some rule has.
    pub(super) fn id(&self, list: &PeerList) -> Option<ListId> {
        self.ids.get(list).copied()
    }

    pub(super) fn list(&self, id: ListId) -> Option<&PeerList> {
        self.entries.get(&id).map(|entry| &entry.list)
    }
}

impl PeerList {
    /// The addresses of its blocks. Exceptions are those of their own block only, so spans of two blocks may overlap.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for peer in self.iter() {
            if let Peer::Net { cidr, except } = peer {
                let except: Vec<_> = except.iter().copied().map(span).collect();
                spans.extend(subtract(span(*cidr), &except));
            }
        }
        spans
    }

    /// Whether it can contain anything but pods and blocks.
    pub(super) fn asks_beyond_pods(&self) -> bool {
        self.iter()
            .any(|peer| !matches!(peer, Peer::Net { .. } | Peer::Pods(_)))
    }
}
