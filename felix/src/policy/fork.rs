//! A second engine that knows what the first knows: for questions that take long, or begin with "what if".

use super::engine::Engine;
use super::tables::Direction;
use super::told::Object;

impl Engine {
    /// Another engine that was told the same, and has compiled nothing. What it says of flows and policies is the same.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut fork = Self::new();
        let inherited = &self.index.inherited;
        for (name, labels) in &inherited.namespaces {
            fork.apply_namespace(name, labels.clone());
        }
        fork.index.inherited.service_accounts = inherited.service_accounts.clone();
        for (_, pod) in self.index.residents() {
            fork.apply_identity(pod.identity.clone());
        }
        for (ifname, endpoint) in self.index.endpoints() {
            fork.set_local(ifname, endpoint.clone());
        }
        for set in self.others.sets.values() {
            fork.apply_network_set(set.now.clone());
        }
        for object in self.others.objects() {
            match object.clone() {
                Object::Service(service) => fork.apply_service(service),
                Object::Node(node) => fork.apply_node(node),
                Object::Host(host) => fork.apply_host_endpoint(host),
            }
        }
        for tier in self.tiers.values() {
            fork.apply_tier(tier.clone());
        }
        for (key, installed) in &self.policies {
            if !installed.closed {
                fork.apply_policy(installed.policy.clone());
            }
            debug_assert_eq!(*key, installed.policy.key);
        }
        for (key, refused) in &self.refused {
            fork.refuse_policy(key.clone(), refused.generation, refused.error.clone());
        }
        fork
    }

    /// Whether the namespace has been told of.
    #[must_use]
    pub fn knows_namespace(&self, name: &str) -> bool {
        self.index.inherited.namespaces.contains_key(name)
    }

    /// How many pods there are, how many policies, and how many rules those have.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        let rules = |direction| {
            self.policies
                .values()
                .filter_map(move |it| it.policy.rules(direction))
                .map(<[_]>::len)
                .sum::<usize>()
        };
        let rules = Direction::BOTH.into_iter().map(rules).sum();
        (self.index.residents().count(), self.policies.len(), rules)
    }
}
