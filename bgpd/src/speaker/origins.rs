//! What this speaker originates, from its configuration and from felix.

use std::collections::BTreeMap;

use crds::net::Cidr;

use super::{Output, Speaker};
use crate::Millis;
use crate::config::{Advertisement, Config, Origin, OriginKind};
use crate::nexthop::NextHop;
use crate::policy::Own;
use crate::rib::SourceId;
use crate::wire::Attributes;

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
    /// felix says that no pod has an address of it.
    idle: bool,
    /// Named by felix, but not yet in the snapshot that is being sent.
    unconfirmed: bool,
}

impl Named {
    /// What it is: felix knows better than a file, where nobody says that a pod would be cut off.
    fn own(&self) -> Option<Own> {
        let of_felix = self.felix.map(|kind| (kind, self.idle));
        let (kind, idle) = of_felix.or_else(|| Some((self.config?, true)))?;
        Some(Own { kind, idle })
    }

    fn is_gone(&self) -> bool {
        self.config.is_none() && self.felix.is_none()
    }
}

impl Origins {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// What a prefix is originated as; None: it is not.
    pub(super) fn own(&self, prefix: Cidr) -> Option<Own> {
        self.all.get(&prefix)?.own()
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = Cidr> {
        self.all.keys().copied()
    }

    /// Takes those of the configuration. Returns prefixes that came, went or are another kind now.
    pub(super) fn configure(&mut self, origins: &[Origin]) -> Vec<Cidr> {
        let mut wanted: BTreeMap<Cidr, OriginKind> =
            origins.iter().map(|it| (it.prefix, it.kind)).collect();
        let mut changes = Vec::new();
        self.all.retain(|prefix, named| {
            let before = named.own();
            named.config = wanted.remove(prefix);
            if named.own() != before {
                changes.push(*prefix);
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
            changes.push(prefix);
        }
        changes
    }

    /// A snapshot of felix begins.
    pub(super) fn begin(&mut self) {
        for named in self.all.values_mut() {
            named.unconfirmed = named.felix.is_some();
        }
    }

    /// One origin of felix. Returns whether the prefix came, went or is another kind now.
    pub(super) fn set(&mut self, prefix: Cidr, kind: Option<OriginKind>) -> bool {
        let before = self.own(prefix);
        let named = self.all.entry(prefix).or_default();
        named.felix = kind;
        named.idle &= kind.is_some();
        named.unconfirmed = false;
        if named.is_gone() {
            self.all.remove(&prefix);
        }
        self.own(prefix) != before
    }

    /// Whether a pod has an address of an origin of felix. Returns whether that was not known.
    pub(super) fn set_idle(&mut self, prefix: Cidr, idle: bool) -> bool {
        match self.all.get_mut(&prefix) {
            Some(named) if named.felix.is_some() => {
                std::mem::replace(&mut named.idle, idle) != idle
            }
            _ => false,
        }
    }

    /// The snapshot is complete. Returns prefixes that are gone or another kind, as it did not name them.
    pub(super) fn finish(&mut self) -> Vec<Cidr> {
        self.complete = true;
        let mut changes = Vec::new();
        self.all.retain(|prefix, named| {
            let before = named.own();
            if std::mem::take(&mut named.unconfirmed) {
                (named.felix, named.idle) = (None, false);
            }
            if named.own() != before {
                changes.push(*prefix);
            }
            !named.is_gone()
        });
        changes
    }
}

impl Speaker {
    /// Takes the origins that the configuration names.
    pub(super) fn take_origins(&mut self, now: Millis, out: &mut Vec<Output>) {
        for prefix in self.origins.configure(&self.config.origins) {
            self.originate(prefix, now, out);
        }
    }

    /// Originates everything again, with the communities that the configuration gives now.
    pub(super) fn advertise_again(&mut self, now: Millis, out: &mut Vec<Output>) {
        let prefixes: Vec<Cidr> = self.origins.prefixes().collect();
        for prefix in prefixes {
            self.originate(prefix, now, out);
        }
    }

    /// A prefix is originated now, in another way, or no longer.
    pub(super) fn originate(&mut self, prefix: Cidr, now: Millis, out: &mut Vec<Output>) {
        let own = self.origins.own(prefix);
        let attributes = own.map(|own| own_attributes(&self.config, prefix, own));
        let set = attributes.and_then(|it| self.rib.sets.intern(&it));
        if let Some(set) = set {
            self.rib
                .insert(SourceId::LOCAL, 0, prefix, set, Ok(None), now);
            self.rib.sets.drop_one(set);
        } else {
            self.rib.withdraw(SourceId::LOCAL, 0, prefix);
        }
        if self.importer.own(prefix, own.is_some()) {
            self.judge_again(Some(prefix));
            if own.is_none() {
                self.ask_again(now, out, |_, unkept| unkept.inside_own);
            }
        }
    }
}

/// What the speaker says of an own prefix; export adds the next hop.
fn own_attributes(config: &Config, prefix: Cidr, own: Own) -> Attributes {
    let nowhere = std::net::IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED);
    let mut attributes = Attributes::new(NextHop::from(nowhere));
    attributes.mark = own.mark();
    let of = |it: &&Advertisement| it.prefix.covers(prefix);
    for advertisement in config.advertisements.iter().filter(of) {
        attributes.communities.extend(&advertisement.communities);
        attributes
            .large_communities
            .extend(&advertisement.large_communities);
    }
    attributes.communities.sort_unstable();
    attributes.communities.dedup();
    attributes.large_communities.sort_unstable();
    attributes.large_communities.dedup();
    attributes
}
