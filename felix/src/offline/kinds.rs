//! Policies of every kind, and what they refer to, out of files.

use crds::felix_configuration::Configuration;
use crds::host_endpoint::Endpoint;
use crds::network_set::Set;
use crds::tier::Stage;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::{Cluster, DEFAULT_NAMESPACE, typed};
use crate::agent::services::Changed;
use crate::policy::k8s::{self, PolicyError};
use crate::policy::model::{Policy, PolicyKey, PolicyKind};
use crate::policy::tables::Direction;
use crate::policy::{cluster, margay};
use crate::translate;

impl Cluster {
    /// Takes an object that policy looks at; `Ok(false)` when it is of another kind.
    pub(super) fn add_policy(
        &mut self,
        group: &str,
        kind: &str,
        mut object: Value,
    ) -> Result<bool, String> {
        let meta = &mut object["metadata"];
        let namespaced = matches!(
            kind,
            "NetworkPolicy" | "NetworkSet" | "ServiceAccount" | "EndpointSlice"
        );
        if namespaced && meta["namespace"].is_null() && meta.is_object() {
            meta["namespace"] = Value::from(DEFAULT_NAMESPACE);
        }
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let key = |kind| PolicyKey {
            namespace: text("namespace"),
            name: text("name"),
            kind,
        };
        let generation = meta["generation"].as_i64().unwrap_or_default();
        match (group, kind) {
            ("networking.k8s.io", "NetworkPolicy") => {
                let key = key(PolicyKind::KubernetesNetworkPolicy);
                self.policy(key, generation, k8s::parse(&typed(object)?))?;
            }
            ("margay.io", "NetworkPolicy") => {
                let key = key(PolicyKind::NetworkPolicy);
                let parsed = margay::network_policy(&typed(object)?);
                self.policy(key, generation, parsed)?;
            }
            ("margay.io", "GlobalNetworkPolicy") => {
                let key = key(PolicyKind::GlobalNetworkPolicy);
                let parsed = margay::global_network_policy(&typed(object)?);
                self.policy(key, generation, parsed)?;
            }
            ("policy.networking.k8s.io", "ClusterNetworkPolicy") => {
                let key = key(PolicyKind::ClusterNetworkPolicy);
                match cluster::parse(&typed(object)?) {
                    Ok((policy, None)) => self.engine.apply_policy(policy),
                    Ok((policy, Some(error))) => {
                        self.engine.apply_policy(policy);
                        self.policy(key, generation, Err(error))?;
                    }
                    Err(error) => self.policy(key, generation, Err(error))?,
                }
            }
            ("margay.io", "Tier") => {
                let object: crds::Tier = typed(object)?;
                let stage = Stage::try_from(&object).map_err(|it| format!("{kind}: {it}"))?;
                self.engine.apply_tier(margay::tier(stage));
            }
            ("margay.io", "NetworkSet") => {
                let object: crds::NetworkSet = typed(object)?;
                self.set(Set::try_from(&object).map_err(|it| format!("{kind}: {it}"))?);
            }
            ("margay.io", "GlobalNetworkSet") => {
                let object: crds::GlobalNetworkSet = typed(object)?;
                self.set(Set::try_from(&object).map_err(|it| format!("{kind}: {it}"))?);
            }
            ("margay.io", "HostEndpoint") => {
                let object: crds::HostEndpoint = typed(object)?;
                let said = Endpoint::try_from(&object).map_err(|it| format!("{kind}: {it}"))?;
                let made = self.hosts.made(&said, &self.node);
                self.engine.apply_host_endpoint(made);
                self.hosts.endpoint(said);
            }
            ("margay.io", "FelixConfiguration") => {
                let object: crds::FelixConfiguration = typed(object)?;
                Configuration::try_from(&object).map_err(|it| format!("{kind}: {it}"))?;
                let name = object.metadata.name.unwrap_or_default();
                self.hosts.chosen(name, Some(object.spec));
            }
            ("", "ServiceAccount") => {
                let account: ServiceAccount = typed(object)?;
                let account = translate::service_account(account);
                self.engine.apply_service_account(account);
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                let slice: EndpointSlice = typed(object)?;
                for changed in self.services.came(translate::slice(&slice)) {
                    match changed {
                        Changed::Has(service) => self.engine.apply_service(service),
                        Changed::Gone(namespace, name) => {
                            self.engine.delete_service(&namespace, &name);
                        }
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts in force what an operator chose, as far as the tables of a node tell it.
    pub(super) fn configure(&mut self, said: &Configuration) {
        for (direction, ports) in [
            (Direction::Ingress, &said.failsafe_inbound),
            (Direction::Egress, &said.failsafe_outbound),
        ] {
            let ports: Vec<_> = ports.iter().map(translate::failsafe).collect();
            self.engine.set_failsafes(direction, &ports);
        }
    }

    fn set(&mut self, set: Set) {
        self.engine.apply_network_set(translate::network_set(set));
    }

    fn policy(
        &mut self,
        key: PolicyKey,
        generation: i64,
        parsed: Result<Policy, PolicyError>,
    ) -> Result<(), String> {
        match parsed {
            Ok(policy) => {
                self.engine.apply_policy(policy);
                Ok(())
            }
            Err(error) => {
                let problem = format!("{} {key} is not understood: {error}", key.kind);
                self.engine.refuse_policy(key, generation, error);
                Err(problem)
            }
        }
    }
}
