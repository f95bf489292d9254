use std::sync::Arc;

use serde_json::{Value, json};

use super::{builtin, document, index};
use crate::registry::Registry;
use crate::resource::ResourceInfo;

/// The built-in kinds and one custom kind.
fn resources() -> Vec<Arc<ResourceInfo>> {
    let registry = Registry::default();
    registry.set_definitions([&json!({"spec": {
        "group": "example.org", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "description": "A thing.", "properties": {"spec": {"type": "object", "properties": {
                "size": {"type": "integer", "description": "How large."}}}}}}}],
    }})]);
    registry.catalog().resources().to_vec()
}

#[test]
fn the_index_names_a_document_for_every_group_and_version() {
    let resources = resources();
    let index = index(&resources);
    let paths = index["paths"].as_object().unwrap();
    for path in [
        "api/v1",
        "apis/networking.k8s.io/v1",
        "apis/apiextensions.k8s.io/v1",
        "apis/example.org/v1",
    ] {
        let url = paths[path]["serverRelativeURL"].as_str().unwrap();
        assert!(
            url.starts_with(&format!("/openapi/v3/{path}?hash=")),
            "{url}"
        );
    }
    assert_eq!(
        index,
        super::index(&resources),
        "the hash is that of the content"
    );
    assert!(document("example.org", "v2", &resources).is_none());
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(
                    fields
                        .get("$ref")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let resources = resources();
    for resource in &resources {
        let document = document(&resource.group, &resource.version, &resources).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{}: {reference}",
                resource.kind
            );
        }
    }
}

#[test]
fn kinds_are_found_by_path_and_say_that_fields_are_validated() {
    let resources = resources();
    for resource in &resources {
        let document = document(&resource.group, &resource.version, &resources).unwrap();
        let root = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        let list = &document["paths"][format!("{root}/{}", resource.plural)]["get"];
        assert_eq!(
            list["x-kubernetes-group-version-kind"]["kind"],
            resource.kind.as_str()
        );
        let scope = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let patch =
            &document["paths"][format!("{root}{scope}/{}/{{name}}", resource.plural)]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"]["kind"],
            resource.kind.as_str()
        );
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(
            parameters
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let own = schemas.values().find(|schema| {
            schema["x-kubernetes-group-version-kind"][0]["kind"] == resource.kind.as_str()
        });
        let own = own.unwrap_or_else(|| panic!("{} has no schema", resource.kind));
        assert!(own["properties"]["metadata"].is_object());
    }
}

#[test]
fn a_custom_kind_has_its_authors_schema() {
    let document = document("example.org", "v1", &resources()).unwrap();
    let thing = &document["components"]["schemas"]["org.example.v1.Thing"];
    assert_eq!(thing["description"], "A thing.");
    assert_eq!(
        thing["properties"]["spec"]["properties"]["size"]["description"],
        "How large."
    );
    assert_eq!(thing["properties"]["kind"]["type"], "string");
}

#[test]
fn every_built_in_kind_and_field_is_described() {
    for resource in resources()
        .iter()
        .filter(|resource| resource.custom.is_none())
    {
        assert!(
            builtin::all().contains_key(&resource.kind),
            "kinds.txt has no {}",
            resource.kind
        );
    }
    for (name, schema) in builtin::all() {
        assert_ne!(schema["description"], "", "{name}");
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            assert_ne!(property["description"], "", "{name}.{field}");
        }
    }
}
