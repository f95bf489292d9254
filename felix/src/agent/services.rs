//! Who is behind a Service: the sum of its EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::feed::ServiceBackends;

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The Service it belongs to; None: to none.
    pub service: Option<String>,
    /// Address, IP protocol number and port of every endpoint.
    pub ports: Vec<(IpAddr, u8, u16)>,
}

/// Every slice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    /// By namespace and name.
    slices: BTreeMap<(String, String), Slice>,
    /// Slices by namespace and Service.
    members: BTreeMap<(String, String), Vec<String>>,
}

/// What became of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// It has these backends.
    Has(ServiceBackends),
    /// The Service of that namespace and name has no slice any more.
    Gone(String, String),
}

impl Services {
    /// A slice came or changed. It may have gone over to another Service.
    pub(crate) fn came(&mut self, slice: Slice) -> Vec<Changed> {
        let key = (slice.namespace.clone(), slice.name.clone());
        if self.slices.get(&key) == Some(&slice) {
            return Vec::new();
        }
        let before = self.forget(&key);
        let now = slice.service.clone();
        if let Some(service) = &now {
            let service = (key.0.clone(), service.clone());
            self.members.entry(service).or_default().push(key.1.clone());
        }
        self.slices.insert(key.clone(), slice);
        let other = before.filter(|before| now.as_ref() != Some(before));
        let touched = other.into_iter().chain(now);
        touched.map(|service| self.state(&key.0, service)).collect()
    }

    /// A slice is gone.
    pub(crate) fn went(&mut self, namespace: String, name: String) -> Option<Changed> {
        let key = (namespace, name);
        let service = self.forget(&key)?;
        Some(self.state(&key.0, service))
    }

    /// Takes a slice out; the Service it was of.
    fn forget(&mut self, key: &(String, String)) -> Option<String> {
        let service = self.slices.remove(key)?.service?;
        let of = (key.0.clone(), service.clone());
        if let Some(members) = self.members.get_mut(&of) {
            members.retain(|name| *name != key.1);
            if members.is_empty() {
                self.members.remove(&of);
            }
        }
        Some(service)
    }

    fn state(&self, namespace: &str, service: String) -> Changed {
        let of = (namespace.to_owned(), service);
        let Some(members) = self.members.get(&of) else {
            return Changed::Gone(of.0, of.1);
        };
        let slices = members
            .iter()
            .filter_map(|name| self.slices.get(&(of.0.clone(), name.clone())));
        let mut ports: Vec<_> = slices.flat_map(|slice| slice.ports.clone()).collect();
        ports.sort_unstable();
        ports.dedup();
        Changed::Has(ServiceBackends {
            namespace: of.0,
            name: of.1,
            ports,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: Option<&str>, ports: &[u16]) -> Slice {
        let port = |port: &u16| (IpAddr::from([10, 0, 0, 1]), 6, *port);
        Slice {
            namespace: "shop".into(),
            name: name.into(),
            service: service.map(str::to_owned),
            ports: ports.iter().map(port).collect(),
        }
    }

    fn has(name: &str, ports: &[u16]) -> Changed {
        let Slice { ports, .. } = slice("", None, ports);
        Changed::Has(ServiceBackends {
            namespace: "shop".into(),
            name: name.into(),
            ports,
        })
    }

    #[test]
    fn a_service_is_the_sum_of_its_slices() {
        let mut services = Services::default();
        assert_eq!(
            services.came(slice("a", Some("web"), &[80])),
            [has("web", &[80])]
        );
        assert_eq!(services.came(slice("a", Some("web"), &[80])), []);
        let both = [has("web", &[80, 81])];
        assert_eq!(services.came(slice("b", Some("web"), &[81, 80])), both);
        assert_eq!(services.came(slice("c", None, &[9])), []);
        let moved = [has("web", &[80]), has("api", &[81])];
        assert_eq!(services.came(slice("b", Some("api"), &[81])), moved);
        let went = |services: &mut Services, name: &str| services.went("shop".into(), name.into());
        let gone = Changed::Gone("shop".into(), "web".into());
        assert_eq!(went(&mut services, "a"), Some(gone));
        assert_eq!(went(&mut services, "a"), None);
        assert_eq!(went(&mut services, "c"), None);
    }
}
