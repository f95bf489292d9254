//! Which kinds are served: the built-in ones and those of the CustomResourceDefinitions in the store.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use tokio::sync::watch;

use crate::resource::{Custom, ResourceInfo};
use crate::schema::Schema;

/// All kinds served at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    resources: Vec<Arc<ResourceInfo>>,
    by_path: HashMap<(String, String, String), usize>,
}

impl Catalog {
    fn new(custom: impl IntoIterator<Item = Arc<ResourceInfo>>) -> Self {
        let resources: Vec<_> = builtin().into_iter().map(Arc::new).chain(custom).collect();
        let path = |r: &ResourceInfo| (r.group.clone(), r.version.clone(), r.plural.clone());
        let by_path = resources
            .iter()
            .enumerate()
            .map(|(at, resource)| (path(resource), at))
            .collect();
        Self { resources, by_path }
    }

    /// All kinds, built-in first.
    pub fn resources(&self) -> &[Arc<ResourceInfo>] {
        &self.resources
    }

    /// The kind served at this path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceInfo>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&path).map(|&at| &self.resources[at])
    }

    /// The (group, version) pairs served, each once, in the order of the kinds.
    pub fn group_versions(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for resource in &self.resources {
            let pair = (resource.group.as_str(), resource.version.as_str());
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }
}

/// The current [`Catalog`], replaced as a whole when a definition changes.
#[derive(Debug)]
pub struct Registry {
    current: RwLock<Arc<Catalog>>,
    changes: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            current: RwLock::new(Arc::new(Catalog::new([]))),
            changes: watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// The kinds served now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the kinds of these CustomResourceDefinitions beside the built-in ones, and no others.
    pub fn set_definitions<'a>(&self, definitions: impl IntoIterator<Item = &'a Value>) {
        let custom = definitions.into_iter().flat_map(served);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Catalog::new(custom));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Tells of every change of the catalog.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The kinds a CustomResourceDefinition (checked when it was written) serves, one per version.
fn served(definition: &Value) -> Vec<Arc<ResourceInfo>> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect::<Vec<_>>()
    };
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] == true)
        .filter_map(|version| {
            let schema_json = version["schema"]["openAPIV3Schema"].clone();
            let schema = Schema::parse(&schema_json).ok()?;
            let fields = version["selectableFields"].as_array().into_iter().flatten();
            let selectable_fields = fields
                .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
                .collect();
            let columns = version["additionalPrinterColumns"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            Some(Arc::new(ResourceInfo {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&names["kind"]),
                plural: text(&names["plural"]),
                singular: text(&names["singular"]),
                list_kind: text(&names["listKind"]),
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                status: version["subresources"]["status"].is_object(),
                custom: Some(Arc::new(Custom {
                    schema_json,
                    schema,
                    columns,
                    selectable_fields,
                })),
            }))
        })
        .collect()
}

fn builtin() -> Vec<ResourceInfo> {
    const NAMESPACED: bool = true;
    const CLUSTER: bool = false;
    const STATUS: bool = true;
    const PLAIN: bool = false;
    // group (all are v1), kind, plural, short names, categories, scope, whether there is a status subresource
    type Row = (
        &'static str,
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        bool,
        bool,
    );
    const ROWS: &[Row] = &[
        ("", "Namespace", "namespaces", &["ns"], &[], CLUSTER, STATUS),
        ("", "Node", "nodes", &["no"], &[], CLUSTER, STATUS),
        ("", "Pod", "pods", &["po"], &["all"], NAMESPACED, STATUS),
        (
            "",
            "Service",
            "services",
            &["svc"],
            &["all"],
            NAMESPACED,
            STATUS,
        ),
        (
            "",
            "Endpoints",
            "endpoints",
            &["ep"],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "",
            "ConfigMap",
            "configmaps",
            &["cm"],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        ("", "Secret", "secrets", &[], &[], NAMESPACED, PLAIN),
        (
            "",
            "ServiceAccount",
            "serviceaccounts",
            &["sa"],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        ("", "Event", "events", &["ev"], &[], NAMESPACED, PLAIN),
        (
            "events.k8s.io",
            "Event",
            "events",
            &["ev"],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        // Nothing is stored of these: they are answered at once.
        (
            "authentication.k8s.io",
            "TokenReview",
            "tokenreviews",
            &[],
            &[],
            CLUSTER,
            PLAIN,
        ),
        (
            "coordination.k8s.io",
            "Lease",
            "leases",
            &[],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            "endpointslices",
            &[],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            "networkpolicies",
            &["netpol"],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRole",
            "clusterroles",
            &[],
            &[],
            CLUSTER,
            PLAIN,
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            "clusterrolebindings",
            &[],
            &[],
            CLUSTER,
            PLAIN,
        ),
        (
            "rbac.authorization.k8s.io",
            "Role",
            "roles",
            &[],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            "rolebindings",
            &[],
            &[],
            NAMESPACED,
            PLAIN,
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            &["crd", "crds"],
            &["api-extensions"],
            CLUSTER,
            STATUS,
        ),
    ];
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    ROWS.iter()
        .map(
            |&(group, kind, plural, short_names, categories, namespaced, status)| ResourceInfo {
                group: group.to_owned(),
                version: "v1".to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                singular: kind.to_lowercase(),
                list_kind: format!("{kind}List"),
                short_names: owned(short_names),
                categories: owned(categories),
                namespaced,
                status,
                custom: None,
            },
        )
        .collect()
}
