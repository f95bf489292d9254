//! What this speaker originates, from its configuration and from felix.

use std::collections::BTreeMap;

use crds::net::Cidr;

use crate::config::{Origin, OriginKind};

/// All origins. A prefix that both sources name stays until both have dropped it.
#[derive(Debug, Default)]
pub(super) struct Origins {
    all: BTreeMap<Cidr, Named>,
    /// felix has sent a whole snapshot once.
    pub(super) complete: bool,
}

#[derive(Debug, Default)]
struct Named {
    config: Option<OriginKind>,
    felix: Option<OriginKind>,
    /// Named by felix, but not yet in the snapshot that is being sent.
    unconfirmed: bool,
}

impl Named {
    fn is_gone(&self) -> bool {
        self.config.is_none() && self.felix.is_none()
    }
}

impl Origins {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = Cidr> {
        self.all.keys().copied()
    }

    /// Takes those of the configuration. Returns prefixes that came and went.
    pub(super) fn configure(&mut self, origins: &[Origin]) -> Vec<(Cidr, bool)> {
        let mut wanted: BTreeMap<Cidr, OriginKind> =
            origins.iter().map(|it| (it.prefix, it.kind)).collect();
        let mut changes = Vec::new();
        self.all.retain(|prefix, named| {
            named.config = wanted.remove(prefix);
            if named.is_gone() {
                changes.push((*prefix, false));
            }
            !named.is_gone()
        });
        for (prefix, kind) in wanted {
            self.all.insert(
                prefix,
                Named {
                    config: Some(kind),
                    ..Named::default()
                },
            );
            changes.push((prefix, true));
        }
        changes
    }

    /// A snapshot of felix begins.
    pub(super) fn begin(&mut self) {
        for named in self.all.values_mut() {
            named.unconfirmed = named.felix.is_some();
        }
    }

    /// One origin of felix. Returns whether the prefix came or went.
    pub(super) fn set(&mut self, prefix: Cidr, kind: Option<OriginKind>) -> Option<bool> {
        let was = self.all.contains_key(&prefix);
        let named = self.all.entry(prefix).or_default();
        named.felix = kind;
        named.unconfirmed = false;
        let is = !named.is_gone();
        if !is {
            self.all.remove(&prefix);
        }
        (is != was).then_some(is)
    }

    /// The snapshot is complete. Returns prefixes that are gone, as it did not name them.
    pub(super) fn finish(&mut self) -> Vec<Cidr> {
        self.complete = true;
        let mut gone = Vec::new();
        self.all.retain(|prefix, named| {
            if std::mem::take(&mut named.unconfirmed) {
                named.felix = None;
            }
            if named.is_gone() {
                gone.push(*prefix);
            }
            !named.is_gone()
        });
        gone
    }
}
