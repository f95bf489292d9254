//! Objects that claim what only one of them can have: the first by name has it, the others say so.

use std::collections::{BTreeMap, BTreeSet};

use crds::host_endpoint::Endpoint;

use super::Told;

/// The objects of a kind, as far as they claim anything.
#[derive(Debug, Default)]
pub(in crate::driver) struct Rivals {
    /// The last version of each, and the last that was understood.
    objects: BTreeMap<String, (Told, Option<Endpoint>)>,
}

impl Rivals {
    /// An object came or changed: those whose condition may be another now, itself among them.
    pub(in crate::driver) fn came(&mut self, name: &str, mut told: Told) -> Vec<Told> {
        let claim = told.claim.take();
        if told.problem.is_none() && claim.is_none() {
            return vec![told];
        }
        let before = self.objects.remove(name).and_then(|(_, claim)| claim);
        let nodes = [claim.as_ref(), before.as_ref()].map(|it| it.map(|it| it.node.clone()));
        let kept = claim.or(before);
        if kept.is_none() {
            return vec![told];
        }
        self.objects.insert(name.to_owned(), (told, kept));
        self.of_nodes(&nodes.into_iter().flatten().collect())
    }

    /// An object is there, while not all are known that may claim the same.
    pub(in crate::driver) fn listed(&mut self, name: &str, told: Told) -> Vec<Told> {
        match told.claim {
            Some(_) => {
                self.came(name, told);
                Vec::new()
            }
            None => self.came(name, told),
        }
    }

    /// These are all there are.
    pub(in crate::driver) fn all(&mut self, names: &BTreeSet<String>) -> Vec<Told> {
        self.objects.retain(|name, _| names.contains(name));
        let claims = self.objects.values().flat_map(|(_, claim)| claim);
        let nodes = claims.map(|it| it.node.clone()).collect();
        self.of_nodes(&nodes)
    }

    /// An object is gone: those whose condition may be another now.
    pub(in crate::driver) fn gone(&mut self, name: &str) -> Vec<Told> {
        let claim = self.objects.remove(name).and_then(|(_, claim)| claim);
        self.of_nodes(&claim.map(|it| it.node).into_iter().collect())
    }

    fn of_nodes(&self, nodes: &BTreeSet<String>) -> Vec<Told> {
        let of = self.objects.iter().filter_map(|(name, (told, claim))| {
            let claim = claim.as_ref().filter(|it| nodes.contains(&it.node))?;
            Some(Told {
                conflict: self.conflict(name, claim),
                ..told.clone()
            })
        });
        of.collect()
    }

    /// Which object has what this one claims, too.
    fn conflict(&self, name: &str, claim: &Endpoint) -> Option<String> {
        let earlier = self.objects.range(..name.to_owned());
        earlier
            .filter_map(|(winner, (_, other))| Some((winner, claim.contests(other.as_ref()?)?)))
            .map(|(winner, what)| {
                let node = &claim.node;
                format!(
                    "{what} of {node} is that of HostEndpoint {winner}, which is first by name: delete one, or name another interface"
                )
            })
            .next()
    }
}

#[cfg(test)]
mod tests {
    use crds::condition::ConditionStatus;
    use crds::{FieldError, HostEndpoint};
    use serde_json::{Value, json};

    use super::*;

    fn told(name: &str, spec: Value) -> Told {
        let object = json!({ "apiVersion": "margay.io/v1", "kind": "HostEndpoint", "metadata": { "name": name }, "spec": spec });
        let object: HostEndpoint = serde_json::from_value(object).expect("an object");
        let claim: Result<Endpoint, FieldError> = Endpoint::try_from(&object);
        let problem = claim.as_ref().err().map(ToString::to_string);
        Told::new(&object.metadata, None, problem).claiming(claim.ok())
    }

    /// Names of those told, with the object that each yields to.
    fn said(told: &[Told]) -> Vec<(String, String)> {
        let said = told.iter().map(|told| {
            let (status, reason, message) = told.wanted();
            let lost = reason == "Conflict";
            assert_eq!(lost, status == ConditionStatus::False, "{message}");
            let winner = message.split("HostEndpoint ").nth(1).unwrap_or_default();
            let winner = winner.split(',').next().unwrap_or_default();
            (told.key().1, winner.to_owned())
        });
        said.collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = of.iter();
        pairs
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_by_name_has_the_interface_and_the_others_name_it() {
        let eth0 = || json!({ "node": "n1", "interfaceName": "eth0" });
        let mut rivals = Rivals::default();
        let found = rivals.came("b", told("b", eth0()));
        assert_eq!(said(&found), pairs(&[("b", "")]));
        let found = rivals.came("a", told("a", eth0()));
        assert_eq!(said(&found), pairs(&[("a", ""), ("b", "a")]));
        let message = found[1].wanted().2.to_owned();
        assert!(
            message.starts_with("interface eth0 of n1 is that"),
            "{message}"
        );
        // Another node's, all interfaces, and another interface are no rivals.
        for (name, spec) in [
            ("c", json!({ "node": "n2", "interfaceName": "eth0" })),
            ("d", json!({ "node": "n1", "interfaceName": "*" })),
            ("e", json!({ "node": "n1", "interfaceName": "eth1" })),
        ] {
            let found = said(&rivals.came(name, told(name, spec)));
            assert!(
                found.contains(&(name.to_owned(), String::new())),
                "{found:?}"
            );
        }
        let found = rivals.came(
            "f",
            told("f", json!({ "node": "n1", "interfaceName": "*" })),
        );
        assert!(said(&found).contains(&("f".to_owned(), "d".to_owned())));
        // What is not understood leaves the last good version in force.
        let found = rivals.came("a", told("a", json!({ "node": "n1" })));
        assert!(said(&rivals.gone("nobody")).is_empty());
        assert_eq!(found[0].wanted().1, "NotUnderstood");
        assert_eq!(found[1].wanted().1, "Conflict");
        // Gone, or elsewhere: the next has it.
        let moved = json!({ "node": "n1", "interfaceName": "eth7" });
        assert!(
            said(&rivals.came("a", told("a", moved))).contains(&("b".to_owned(), String::new()))
        );
        rivals.came("a", told("a", eth0()));
        assert!(said(&rivals.gone("a")).contains(&("b".to_owned(), String::new())));
    }

    #[test]
    fn addresses_that_two_expect_are_of_one_interface() {
        let at = |addresses: &[&str]| json!({ "node": "n1", "expectedIPs": addresses });
        let mut rivals = Rivals::default();
        assert!(rivals.listed("a", told("a", at(&["192.0.2.1"]))).is_empty());
        rivals.listed("b", told("b", at(&["192.0.2.1", "192.0.2.2"])));
        rivals.listed("c", told("c", at(&["192.0.2.2"])));
        rivals.listed("d", told("d", at(&["192.0.2.3"])));
        let names = ["a", "b", "c"].map(str::to_owned).into();
        let found = rivals.all(&names);
        assert_eq!(said(&found), pairs(&[("a", ""), ("b", "a"), ("c", "b")]));
        let message = found[1].wanted().2.to_owned();
        assert!(
            message.starts_with("the interface with 192.0.2.1"),
            "{message}"
        );
    }
}
