//! Which selectors select what: labels, and what is inherited from namespaces and service accounts.

use std::collections::BTreeMap;

use crds::selector::{Expr, Selector};

use super::model::{
    EndpointSelector, NamespaceSelector, Peer, PeerList, PodSelector, Scope, Selection,
    ServiceAccounts,
};
use crate::feed::{HostEndpoint, Identity, Labels, NetworkSet};

/// Automatic label of everything in a namespace: its name.
pub const NAMESPACE_LABEL: &str = "margay.io/namespace";
/// Automatic label of pods: the name of their service account.
pub const SERVICE_ACCOUNT_LABEL: &str = "margay.io/serviceaccount";
/// Automatic label of namespaces and service accounts: their own name.
pub const NAME_LABEL: &str = "margay.io/name";

/// What labels are inherited from.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// By namespace and name.
    pub(super) service_accounts: BTreeMap<(String, String), Labels>,
}

/// Something with labels that a selector may select.
#[derive(Debug, Clone, Copy)]
pub(super) enum Labelled<'a> {
    Pod(&'a Identity),
    Set(&'a NetworkSet),
    Host(&'a HostEndpoint),
}

impl<'a> Labelled<'a> {
    fn namespace(self) -> Option<&'a str> {
        match self {
            Self::Pod(pod) => Some(&pod.namespace),
            Self::Set(set) => set.namespace.as_deref(),
            Self::Host(_) => None,
        }
    }

    /// Its own label, or the automatic one of that name.
    fn label(self, key: &str) -> Option<&'a str> {
        let labels = match self {
            Self::Pod(pod) if key == SERVICE_ACCOUNT_LABEL => return Some(&pod.service_account),
            Self::Pod(pod) => &pod.labels,
            Self::Set(set) => &set.labels,
            Self::Host(host) => &host.labels,
        };
        match self.namespace() {
            Some(namespace) if key == NAMESPACE_LABEL => Some(namespace),
            _ => labels.get(key),
        }
    }
}

impl Identity {
    /// Its own labels and the automatic ones.
    pub(super) fn every_label(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().chain([
            (NAMESPACE_LABEL, &*self.namespace),
            (SERVICE_ACCOUNT_LABEL, &*self.service_account),
        ])
    }
}

/// Whether the labels of an object, and its name as a label, match.
fn named_matches(selector: &Selector, name: &str, labels: Option<&Labels>) -> bool {
    selector.holds(&|key| {
        if key == NAME_LABEL {
            return Some(name);
        }
        labels?.get(key)
    })
}

impl PodSelector {
    /// Whether it selects this pod. A namespace that is not known matches by name only, or when every namespace does.
    fn selects(&self, pod: &Identity, inherited: &Inherited) -> bool {
        let namespace = match &self.namespaces {
            NamespaceSelector::Named(name) => **name == *pod.namespace,
            NamespaceSelector::Labels(selector) => {
                match inherited.namespaces.get(&*pod.namespace) {
                    Some(labels) => selector.matches(labels),
                    None => selector.is_empty(),
                }
            }
        };
        namespace && !pod.host_network && self.pods.matches(&pod.labels)
    }
}

impl EndpointSelector {
    /// Whether it selects this. A namespace that is not known matches by name only, or when every namespace does.
    fn selects(&self, it: Labelled<'_>, inherited: &Inherited) -> bool {
        let scope = match (&self.scope, it.namespace()) {
            (Scope::Anywhere, _) | (Scope::Global, None) => true,
            (Scope::Global, Some(_)) | (_, None) => false,
            (Scope::Namespace(name), Some(namespace)) => name == namespace,
            (Scope::Namespaces(selector), Some(namespace)) => {
                match inherited.namespaces.get(namespace) {
                    Some(labels) => named_matches(selector, namespace, Some(labels)),
                    None => *selector.expr() == Expr::All,
                }
            }
        };
        let account = |accounts: &ServiceAccounts| match it {
            Labelled::Pod(pod) => accounts.select(pod, inherited),
            Labelled::Set(_) | Labelled::Host(_) => false,
        };
        let hidden = matches!(it, Labelled::Pod(pod) if pod.host_network);
        scope
            && !hidden
            && self.service_accounts.as_ref().is_none_or(account)
            && self.labels.holds(&|key| it.label(key))
    }
}

impl ServiceAccounts {
    fn select(&self, pod: &Identity, inherited: &Inherited) -> bool {
        let name = &*pod.service_account;
        let account = (pod.namespace.to_string(), name.to_owned());
        (self.names.is_empty() || self.names.contains(name))
            && named_matches(&self.labels, name, inherited.service_accounts.get(&account))
    }
}

impl Selection {
    /// Whether it selects this.
    pub(super) fn selects(&self, it: Labelled<'_>, inherited: &Inherited) -> bool {
        match (self, it) {
            (Self::Pods(selector), Labelled::Pod(pod)) => selector.selects(pod, inherited),
            (Self::Pods(_), _) | (_, Labelled::Set(_)) => false,
            (Self::Endpoints(selector), it) => selector.selects(it, inherited),
        }
    }
}

impl PeerList {
    /// Whether one of its selectors selects this.
    pub(super) fn selects(&self, it: Labelled<'_>, inherited: &Inherited) -> bool {
        self.iter().any(|peer| match (peer, it) {
            (Peer::Pods(selector), Labelled::Pod(pod)) => selector.selects(pod, inherited),
            (Peer::Endpoints(selector), it) => selector.selects(it, inherited),
            _ => false,
        })
    }
}
