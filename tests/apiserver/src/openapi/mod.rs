//! OpenAPI documents made from the kinds served.
//!
//! kubectl reads version 3: the index first, then the document of the group and version it needs. It finds the
//! kind of a resource by the `get` of its path (`kubectl explain`), and that the server validates fields by a
//! parameter of its `patch` (`kubectl apply --validate`).

pub(crate) mod builtin;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::resource::ResourceInfo;

/// `/openapi/v3`: where the document of each group and version is. `serverRelativeURL` carries a hash of the
/// document, as clients cache by it.
pub fn index(resources: &[Arc<ResourceInfo>]) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let path = base(&resource.group, &resource.version);
        if paths.contains_key(&path) {
            continue;
        }
        let Some(document) = document(&resource.group, &resource.version, resources) else {
            continue;
        };
        let mut hasher = DefaultHasher::new();
        document.to_string().hash(&mut hasher);
        let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`: `resources` are all that are served, of any group.
/// `None` if nothing is served in that group and version.
pub fn document(group: &str, version: &str, resources: &[Arc<ResourceInfo>]) -> Option<Value> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in resources {
        if resource.group != group || resource.version != version {
            continue;
        }
        let name = schema_name(resource);
        let gvk = json!({"group": group, "version": version, "kind": resource.kind});
        let mut schema = match &resource.custom {
            Some(custom) => custom_schema(&custom.schema_json),
            None => builtin::schema(&resource.kind),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        builtin::collect(&schema, &mut schemas);
        schemas.insert(name.clone(), schema);
        add_paths(resource, &name, &gvk, &mut paths);
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2`, as small as kubectl allows.
pub fn v2(_resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": {}, "definitions": {}})
}

/// Where a group and version is served, without the leading slash.
fn base(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// The group backwards, the version, the kind: `io.margay.v1.IPPool`.
fn schema_name(resource: &ResourceInfo) -> String {
    let group = if resource.group.is_empty() {
        "core.api.k8s.io"
    } else {
        &resource.group
    };
    let backwards: Vec<&str> = group.split('.').rev().collect();
    format!(
        "{}.{}.{}",
        backwards.join("."),
        resource.version,
        resource.kind
    )
}

/// An author's schema with the head every object has.
fn custom_schema(written: &Value) -> Value {
    let mut schema = written.clone();
    let head = builtin::head();
    let mut properties = head.as_object().cloned().unwrap_or_default();
    for (name, property) in written["properties"].as_object().into_iter().flatten() {
        properties
            .entry(name.clone())
            .or_insert_with(|| property.clone());
    }
    schema["properties"] = Value::Object(properties);
    schema
}

fn add_paths(resource: &ResourceInfo, schema: &str, gvk: &Value, paths: &mut Map<String, Value>) {
    let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
    let operation = |action: &str, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|name| {
                json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
            })
            .collect();
        json!({
            "operationId": format!("{action}{}", resource.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        })
    };
    let with_body = |action: &str, parameters: &[&str], content: &[&str]| {
        let mut operation = operation(action, parameters);
        let content: Map<String, Value> = content
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({"schema": reference})))
            .collect();
        operation["requestBody"] = json!({"content": content, "required": true});
        operation
    };
    let path_parameters = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            })
            .collect()
    };
    let root = format!("/{}", base(&resource.group, &resource.version));
    let plural = &resource.plural;
    let writing = ["dryRun", "fieldManager", "fieldValidation"];
    let json_body = ["application/json"];
    let (collection, outer): (String, &[&str]) = if resource.namespaced {
        paths.insert(
            format!("{root}/{plural}"),
            json!({"get": operation("list", &["labelSelector", "fieldSelector", "watch"])}),
        );
        (
            format!("{root}/namespaces/{{namespace}}/{plural}"),
            &["namespace"],
        )
    } else {
        (format!("{root}/{plural}"), &[])
    };
    let object = format!("{collection}/{{name}}");
    paths.insert(
        collection,
        json!({
            "get": operation("list", &["labelSelector", "fieldSelector", "watch"]),
            "post": with_body("post", &writing, &json_body),
            "delete": operation("deletecollection", &["labelSelector", "fieldSelector"]),
            "parameters": path_parameters(outer),
        }),
    );
    // kubectl would compute strategic patches from these schemas if the patch named that format; it does better
    // from the types it was built with.
    let patches = [
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    let names: Vec<&str> = outer.iter().copied().chain(["name"]).collect();
    paths.insert(
        object,
        json!({
            "get": operation("get", &[]),
            "put": with_body("put", &writing, &json_body),
            "patch": with_body("patch", &["dryRun", "fieldManager", "fieldValidation", "force"], &patches),
            "delete": operation("delete", &["gracePeriodSeconds", "propagationPolicy"]),
            "parameters": path_parameters(&names),
        }),
    );
}
