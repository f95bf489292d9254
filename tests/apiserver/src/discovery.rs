//! `/api`, `/apis` and the resource lists below them (the forms before aggregated discovery).

use serde_json::{Value, json};

use crate::registry::Catalog;
use crate::resource::ResourceInfo;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// The discovery document at `path`, if it is one.
pub fn document(path: &str, catalog: &Catalog) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        ["apis"] => {
            let mut names: Vec<&str> = catalog.group_versions().iter().map(|pair| pair.0).collect();
            names.dedup();
            let mut groups: Vec<Value> = Vec::new();
            for name in names {
                if !name.is_empty() && groups.iter().all(|group| group["name"] != name) {
                    groups.extend(group(name, catalog));
                }
            }
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let mut document = group(name, catalog)?;
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Some(document)
        }
        ["api", version] => resources("", version, catalog),
        ["apis", group, version] => resources(group, version, catalog),
        _ => None,
    }
}

fn group(name: &str, catalog: &Catalog) -> Option<Value> {
    let mut versions: Vec<&str> = catalog
        .group_versions()
        .into_iter()
        .filter(|pair| pair.0 == name)
        .map(|pair| pair.1)
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

/// Orders versions as Kubernetes prefers them: v2 before v1 before v1beta2 before v1alpha1 before anything else.
fn rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let parsed = [("alpha", 1), ("beta", 2)]
        .into_iter()
        .find_map(|(word, stability)| {
            let (major, minor) = rest.split_once(word)?;
            Some((stability, number(major)?, number(minor)?))
        });
    parsed
        .or_else(|| Some((3, number(rest)?, 0)))
        .unwrap_or((0, 0, 0))
}

fn resources(group: &str, version: &str, catalog: &Catalog) -> Option<Value> {
    let mut entries: Vec<Value> = Vec::new();
    let served = catalog
        .resources()
        .iter()
        .filter(|r| r.group == group && r.version == version);
    for resource in served {
        entries.push(entry(resource));
        for (name, kind, verbs) in subresources(resource) {
            entries.push(json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            }));
        }
    }
    if entries.is_empty() {
        return None;
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries,
    }))
}

fn verbs(resource: &ResourceInfo) -> &'static [&'static str] {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("authentication.k8s.io", _) => &["create"],
        _ => &VERBS,
    }
}

fn entry(resource: &ResourceInfo) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    entry
}

/// The subresources of a kind: name, kind of what is sent there, verbs.
fn subresources(resource: &ResourceInfo) -> Vec<(&'static str, &str, &'static [&'static str])> {
    let mut found: Vec<(&str, &str, &[&str])> = Vec::new();
    if resource.status {
        found.push(("status", &resource.kind, &["get", "patch", "update"]));
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => {
            found.push(("binding", "Binding", &["create"]));
            found.push(("eviction", "Eviction", &["create"]));
        }
        ("", "ServiceAccount") => found.push(("token", "TokenRequest", &["create"])),
        ("", "Namespace") => found.push(("finalize", "Namespace", &["update"])),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_stable_and_higher_versions() {
        let mut versions = ["v1beta1", "foo", "v1", "v10", "v2", "v1alpha3", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha3", "foo"]
        );
    }
}
