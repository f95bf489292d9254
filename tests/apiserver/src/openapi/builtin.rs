//! The main fields of the built-in kinds, for `kubectl explain`. Fields that are not listed are served all the
//! same: every schema keeps unknown fields.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// The kinds and their parts, in the notation described there.
const KINDS: &str = include_str!("kinds.txt");

/// Where parts are named in a document.
const PREFIX: &str = "io.margay.apiserver.";

static SCHEMAS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| parse(KINDS));

/// The schema of a kind; parts of it are references, see [`collect`].
pub(super) fn schema(kind: &str) -> Value {
    let mut schema = SCHEMAS.get(kind).cloned().unwrap_or_else(|| {
        json!({"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true})
    });
    let mut properties = head().as_object().cloned().unwrap_or_default();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        properties.insert(name.clone(), property.clone());
    }
    schema["properties"] = Value::Object(properties);
    schema
}

/// The fields every object has.
pub(super) fn head() -> Value {
    json!({
        "apiVersion": {"type": "string", "description": "Group and version of the schema this object follows."},
        "kind": {"type": "string", "description": "What this object is."},
        "metadata": {
            "description": "Name, labels and what the server notes of the object.",
            "allOf": [{"$ref": reference("ObjectMeta")}],
        },
    })
}

/// Adds the parts a schema refers to, and theirs, to the components of a document.
pub(super) fn collect(schema: &Value, components: &mut Map<String, Value>) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str)
                && let Some(part) = name.strip_prefix("#/components/schemas/")
                && let Some(schema) = part.strip_prefix(PREFIX).and_then(|n| SCHEMAS.get(n))
                && !components.contains_key(part)
            {
                components.insert(part.to_owned(), schema.clone());
                collect(schema, components);
            }
            fields.values().for_each(|value| collect(value, components));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, components)),
        _ => {}
    }
}

fn reference(part: &str) -> String {
    format!("#/components/schemas/{PREFIX}{part}")
}

/// The schema of a kind with its parts in place and no unknown fields, for the kinds of which all fields are
/// listed.
pub(crate) fn whole(kind: &str) -> Option<Value> {
    const WHOLE: [&str; 8] = [
        "NetworkPolicy",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
    ];
    let schema = SCHEMAS.get(kind).filter(|_| WHOLE.contains(&kind))?;
    Some(in_place(schema))
}

fn in_place(part: &Value) -> Value {
    let mut schema = part.clone();
    if let Some(fields) = schema.as_object_mut() {
        fields.shift_remove("x-kubernetes-preserve-unknown-fields");
        for property in fields
            .get_mut("properties")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(Map::values_mut)
        {
            resolve(property);
        }
    }
    schema
}

/// Puts the part a property refers to in its place.
fn resolve(property: &mut Value) {
    let part = property["allOf"][0]["$ref"]
        .as_str()
        .and_then(|name| name.rsplit_once('.'))
        .and_then(|(_, name)| SCHEMAS.get(name));
    if let Some(part) = part {
        *property = in_place(part);
        return;
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = property.get_mut(below) {
            resolve(schema);
        }
    }
}

/// Reads the notation of `kinds.txt`.
fn parse(text: &str) -> HashMap<String, Value> {
    let mut schemas = HashMap::from([(
        "IntOrString".to_owned(),
        json!({
            "description": "A number or a name.", "x-kubernetes-int-or-string": true,
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }),
    )]);
    let mut current = String::new();
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (head, description) = line.split_once(": ").unwrap_or((line, ""));
        let Some(field) = head.strip_prefix("  ") else {
            current = head.to_owned();
            let schema = json!({
                "type": "object", "description": description, "properties": {},
                "x-kubernetes-preserve-unknown-fields": true,
            });
            schemas.insert(current.clone(), schema);
            continue;
        };
        let Some(schema) = schemas.get_mut(&current) else {
            continue;
        };
        let (name, kind) = field.split_once(' ').unwrap_or((field, "any"));
        let (kind, required) = kind.strip_suffix('!').map_or((kind, false), |k| (k, true));
        let mut property = of(kind);
        property["description"] = description.into();
        schema["properties"][name] = property;
        if required {
            match schema["required"].as_array_mut() {
                Some(list) => list.push(name.into()),
                None => schema["required"] = json!([name]),
            }
        }
    }
    schemas
}

/// The schema of a type: a JSON type, `time`, `int-or-string`, `any`, `[]T`, `map[T]`, or a part.
fn of(kind: &str) -> Value {
    if let Some(item) = kind.strip_prefix("[]") {
        return json!({"type": "array", "items": of(item)});
    }
    if let Some(value) = kind.strip_prefix("map[").and_then(|k| k.strip_suffix(']')) {
        return json!({"type": "object", "additionalProperties": of(value)});
    }
    match kind {
        "string" | "boolean" => json!({"type": kind}),
        "integer" => json!({"type": kind, "format": "int32"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "int-or-string" => json!({"allOf": [{"$ref": reference("IntOrString")}]}),
        "any" => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        part => json!({"allOf": [{"$ref": reference(part)}]}),
    }
}

#[cfg(test)]
pub(super) fn all() -> &'static HashMap<String, Value> {
    &SCHEMAS
}
