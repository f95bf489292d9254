//! Objects of the tests.

use std::fmt;

use serde_json::{Value, json};

/// A namespace with labels, beside the one every namespace has.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::new();
    all.insert("kubernetes.io/metadata.name".into(), name.into());
    all.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))));
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": all } })
}

/// A pod to be made.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The node it runs on.
    pub node: &'a str,
    /// Its labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// Container ports: name (may be empty), number, protocol.
    pub ports: &'a [(&'a str, u16, &'a str)],
}

impl fmt::Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl<'a> Pod<'a> {
    /// A pod that answers on TCP and UDP port 80.
    pub const fn new(namespace: &'a str, name: &'a str, node: &'a str) -> Self {
        Self {
            namespace,
            name,
            node,
            labels: &[],
            ports: &[("", 80, "TCP"), ("", 80, "UDP")],
        }
    }

    /// As an object of the API.
    pub fn object(&self) -> Value {
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|(name, port, protocol)| {
                let mut object = json!({ "containerPort": port, "protocol": protocol });
                if !name.is_empty() {
                    object["name"] = json!(name);
                }
                object
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": self.namespace, "name": self.name, "labels": labels },
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": self.node },
                "containers": [{ "name": "main", "image": "responder", "ports": ports }],
            },
        })
    }
}
