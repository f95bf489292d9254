//! The JSON Schema of the file, published for editors and used to find fields that do not exist.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::document::{OBJECTS_ONLY, Whole};

/// Where the schema is found.
const ID: &str = "https://margay.io/schemas/bgpd.schema.json";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<Whole>();
    tidy(&mut schema);
    schema.insert("$id".to_owned(), ID.into());
    schema.insert("title".to_owned(), "margay-bgpd".into());
    schema.to_value()
});

/// The schema as a document.
///
/// # Errors
///
/// Never in practice: it is plain JSON.
pub fn text() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&*SCHEMA)? + "\n")
}

/// The schema.
pub(super) fn value() -> &'static Value {
    &SCHEMA
}

/// Removes what only the Kubernetes API understands, and lets objects have no other fields.
fn tidy(schema: &mut Schema) {
    let formats = ["int32", "int64", "uint8", "uint16", "uint32"];
    if let Some(map) = schema.as_object_mut() {
        map.retain(|key, _| !key.starts_with("x-kubernetes-"));
        if map
            .get("format")
            .and_then(Value::as_str)
            .is_some_and(|f| formats.contains(&f))
        {
            map.remove("format");
        }
        map.remove("default");
        if map.get("type").is_none_or(|kind| kind != "null")
            && let Some(Value::Object(properties)) = map.get_mut("properties")
        {
            properties.retain(|name, _| !OBJECTS_ONLY.contains(&name.as_str()));
            map.insert("additionalProperties".to_owned(), false.into());
        }
    }
    transform_subschemas(&mut tidy, schema);
}

/// A field that does not exist: its path, and what was probably meant.
pub(super) fn unknown(value: &Value) -> Option<(String, Option<String>)> {
    walk(value, &[value_schema()], String::new())
}

fn value_schema() -> &'static Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value().as_object().unwrap_or(&EMPTY)
}

/// The schemas `schema` offers: itself and its alternatives.
fn alternatives<'a>(schema: &'a Map<String, Value>, into: &mut Vec<&'a Map<String, Value>>) {
    into.push(schema);
    for key in ["anyOf", "oneOf", "allOf"] {
        let inner = schema
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for schema in inner.filter_map(Value::as_object) {
            alternatives(schema, into);
        }
    }
}

fn walk(
    value: &Value,
    schemas: &[&Map<String, Value>],
    path: String,
) -> Option<(String, Option<String>)> {
    let mut all = Vec::new();
    for schema in schemas {
        alternatives(schema, &mut all);
    }
    match value {
        Value::Array(items) => {
            let schemas: Vec<_> = all
                .iter()
                .filter_map(|schema| schema.get("items")?.as_object())
                .collect();
            items
                .iter()
                .enumerate()
                .filter(|_| !schemas.is_empty())
                .find_map(|(index, item)| walk(item, &schemas, format!("{path}[{index}]")))
        }
        Value::Object(map) => {
            let known: Vec<(&String, &Map<String, Value>)> = all
                .iter()
                .filter_map(|schema| schema.get("properties")?.as_object())
                .flatten()
                .filter_map(|(name, schema)| Some((name, schema.as_object()?)))
                .collect();
            if known.is_empty() {
                // Not an object by its schema; reading it says so better.
                return None;
            }
            let dot = if path.is_empty() { "" } else { "." };
            map.iter().find_map(|(name, value)| {
                let at = format!("{path}{dot}{name}");
                let schemas: Vec<_> = known
                    .iter()
                    .filter(|(known, _)| *known == name)
                    .map(|(_, schema)| *schema)
                    .collect();
                if schemas.is_empty() {
                    let meant = nearest(name, known.iter().map(|(known, _)| known.as_str()));
                    return Some((at, meant));
                }
                walk(value, &schemas, at)
            })
        }
        _ => None,
    }
}

/// The name that differs least, if that is a slip of the keyboard.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
        .min()
        .map(|(_, known)| known.to_owned())
}

/// Letters inserted, removed or replaced to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let known = ["asNumber", "peerIP", "holdTime"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("asnumber").as_deref(), Some("asNumber"));
        assert_eq!(nearest("peerIp").as_deref(), Some("peerIP"));
        assert_eq!(nearest("holdtimes").as_deref(), Some("holdTime"));
        assert_eq!(nearest("nonsense"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_published_schema_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bgpd.schema.json");
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text().unwrap(),
            "docs/bgpd.schema.json is stale: run margay-bgpd --schema > docs/bgpd.schema.json"
        );
    }

    #[test]
    fn the_schema_has_the_fields_of_objects_and_none_that_need_others() {
        let peer = &value()["properties"]["peers"]["items"]["properties"];
        for field in ["peerIP", "asNumber", "export", "bfd", "name"] {
            assert!(peer.get(field).is_some(), "{field}");
        }
        assert!(peer.get("nodeSelector").is_none());
        assert_eq!(peer["password"]["properties"]["secretKeyRef"], Value::Null);
        assert!(!text().unwrap().contains("x-kubernetes"));
    }
}
