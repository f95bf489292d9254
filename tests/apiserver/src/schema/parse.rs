//! From the JSON of `openAPIV3Schema` to a [`Node`], refusing what is not structural.

use regex::Regex;
use serde_json::{Map, Value};

use super::format::Format;
use super::node::{Additional, Checks, ListType, Node, Type};
use super::{fill, prune, rules, validate};
use crate::cel::Rule;
use crate::field::sentence;

/// Where in a custom object a schema is, for the rules that depend on it.
#[derive(Clone, Copy)]
struct Place {
    /// The whole custom object.
    root: bool,
    /// Below `allOf`, `anyOf`, `oneOf` or `not`, where only value checks are allowed.
    nested: bool,
    /// Whether a value here can be matched with its predecessor in an update.
    correlatable: bool,
}

pub(super) fn schema(json: &Value) -> Result<Node, String> {
    let place = Place {
        root: true,
        nested: false,
        correlatable: true,
    };
    let node = node("openAPIV3Schema", json, place)?;
    if node.kind != Some(Type::Object) {
        return Err("openAPIV3Schema.type: Invalid value: must be object at the root".to_owned());
    }
    Ok(node)
}

fn node(path: &str, json: &Value, place: Place) -> Result<Node, String> {
    let fields = json
        .as_object()
        .ok_or_else(|| format!("{path}: Invalid value: must be a schema, a JSON object"))?;
    let at = |name: &str| format!("{path}.{name}");
    for forbidden in [
        "$ref",
        "definitions",
        "dependencies",
        "id",
        "patternProperties",
        "additionalItems",
    ] {
        if fields.contains_key(forbidden) {
            return Err(format!(
                "{}: Forbidden: {forbidden} is not supported",
                at(forbidden)
            ));
        }
    }
    if flag(path, fields, "uniqueItems")? {
        return Err(format!(
            "{}: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic; \
             use x-kubernetes-list-type: set",
            at("uniqueItems")
        ));
    }
    let mut node = Node {
        kind: kind(path, fields)?,
        int_or_string: flag(path, fields, "x-kubernetes-int-or-string")?,
        nullable: flag(path, fields, "nullable")?,
        preserve_unknown: flag(path, fields, "x-kubernetes-preserve-unknown-fields")?,
        embedded: flag(path, fields, "x-kubernetes-embedded-resource")?,
        checks: checks(path, fields)?,
        ..Node::default()
    };
    shape(path, fields, &mut node, place)?;
    if place.nested {
        for forbidden in [
            "type",
            "default",
            "nullable",
            "additionalProperties",
            "x-kubernetes-validations",
        ] {
            let int_or_string_branch = forbidden == "type";
            if fields.contains_key(forbidden) && !int_or_string_branch {
                return Err(format!(
                    "{}: Forbidden: must not be set below allOf, anyOf, oneOf or not",
                    at(forbidden)
                ));
            }
        }
        return Ok(node);
    }
    if node.kind.is_none() && !node.int_or_string && !node.preserve_unknown {
        return Err(format!(
            "{}: Required value: must not be empty for specified fields",
            at("type")
        ));
    }
    if node.kind.is_some() && node.int_or_string {
        return Err(format!(
            "{}: Invalid value: must be empty when x-kubernetes-int-or-string is true",
            at("type")
        ));
    }
    list_type(path, fields, &mut node)?;
    compile_rules(path, fields, &mut node, place)?;
    if let Some(default) = fields.get("default") {
        check_default(&at("default"), &node, default)?;
        node.default = Some(default.clone());
    }
    Ok(node)
}

fn kind(path: &str, fields: &Map<String, Value>) -> Result<Option<Type>, String> {
    let Some(json) = fields.get("type") else {
        return Ok(None);
    };
    Ok(match json.as_str() {
        Some("") => None,
        Some("object") => Some(Type::Object),
        Some("array") => Some(Type::Array),
        Some("string") => Some(Type::String),
        Some("integer") => Some(Type::Integer),
        Some("number") => Some(Type::Number),
        Some("boolean") => Some(Type::Boolean),
        _ => {
            return Err(format!(
                "{path}.type: Unsupported value: {json}: supported values: \"array\", \"boolean\", \"integer\", \
                 \"number\", \"object\", \"string\""
            ));
        }
    })
}

/// Properties, additional properties and items.
fn shape(
    path: &str,
    fields: &Map<String, Value>,
    node: &mut Node,
    place: Place,
) -> Result<(), String> {
    let below = Place {
        root: false,
        ..place
    };
    if let Some(properties) = object(path, fields, "properties")? {
        for (name, json) in properties {
            // The server owns the head of the object; an author may only narrow the metadata's name.
            if place.root && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            let mut child = self::node(&format!("{path}.properties[{name}]"), json, below)?;
            child.preserve_unknown |= place.root && name == "metadata";
            node.has_rules |= child.has_rules;
            node.properties.push((name.clone(), child));
        }
    }
    match fields.get("additionalProperties") {
        None | Some(Value::Bool(false)) => {}
        Some(_) if !node.properties.is_empty() => {
            return Err(format!(
                "{path}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
            ));
        }
        Some(Value::Bool(true)) => node.additional = Additional::Any,
        Some(json) => {
            let child = self::node(&format!("{path}.additionalProperties"), json, below)?;
            node.has_rules |= child.has_rules;
            node.additional = Additional::Of(Box::new(child));
        }
    }
    let keyed = fields.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("map");
    match fields.get("items") {
        Some(Value::Array(_)) => {
            return Err(format!(
                "{path}.items: Forbidden: items must be a schema object and not an array"
            ));
        }
        Some(json) => {
            let below = Place {
                correlatable: place.correlatable && keyed,
                ..below
            };
            let child = self::node(&format!("{path}.items"), json, below)?;
            node.has_rules |= child.has_rules;
            node.items = Some(Box::new(child));
        }
        None if node.kind == Some(Type::Array) && !place.nested => {
            return Err(format!("{path}.items: Required value: must be specified"));
        }
        None => {}
    }
    if node.embedded && (node.kind != Some(Type::Object)) {
        return Err(format!(
            "{path}.type: Invalid value: must be object if x-kubernetes-embedded-resource is true"
        ));
    }
    Ok(())
}

fn list_type(path: &str, fields: &Map<String, Value>, node: &mut Node) -> Result<(), String> {
    let at = format!("{path}.x-kubernetes-list-type");
    let keys: Vec<String> = fields
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .map(|keys| {
            keys.iter()
                .filter_map(|k| k.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    node.list_type = match fields.get("x-kubernetes-list-type").and_then(Value::as_str) {
        None | Some("atomic") => ListType::Atomic,
        Some(_) if node.kind != Some(Type::Array) => {
            return Err(format!("{at}: Invalid value: must only be used on arrays"));
        }
        Some("set") => ListType::Set,
        Some("map") => {
            if keys.is_empty() {
                return Err(format!(
                    "{path}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
                ));
            }
            for key in &keys {
                if node
                    .items
                    .as_ref()
                    .is_none_or(|i| i.property(key).is_none())
                {
                    return Err(format!(
                        "{path}.x-kubernetes-list-map-keys: Invalid value: {key:?}: entries must all be names of item properties"
                    ));
                }
            }
            ListType::Map(keys)
        }
        Some(other) => {
            return Err(format!(
                "{at}: Unsupported value: {other:?}: supported values: \"atomic\", \"map\", \"set\""
            ));
        }
    };
    Ok(())
}

fn compile_rules(
    path: &str,
    fields: &Map<String, Value>,
    node: &mut Node,
    place: Place,
) -> Result<(), String> {
    let list = match fields.get("x-kubernetes-validations") {
        None => return Ok(()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(format!(
                "{path}.x-kubernetes-validations: Invalid value: must be a list"
            ));
        }
    };
    let mut compiled = Vec::new();
    for (number, json) in list.iter().enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{number}]");
        let rule = Rule::compile(json, node, place.root).map_err(|p| format!("{at}.{p}"))?;
        if rule.uses_old_self() && !place.correlatable {
            return Err(format!(
                "{at}.rule: Invalid value: {:?}: oldSelf cannot be used on the uncorrelatable portion of the schema \
                 (items of a list that is not x-kubernetes-list-type: map)",
                rule.source()
            ));
        }
        compiled.push(rule);
    }
    node.has_rules |= !compiled.is_empty();
    node.rules = compiled;
    Ok(())
}

/// A default must itself be what the schema wants.
fn check_default(at: &str, node: &Node, default: &Value) -> Result<(), String> {
    if default.is_null() && !node.nullable {
        return Err(format!(
            "{at}: Invalid value: null: the field is not nullable"
        ));
    }
    let mut pruned = default.clone();
    let unknown = prune::below(node, &mut pruned);
    if let Some(field) = unknown.first() {
        return Err(format!(
            "{at}: Invalid value: {default}: unknown field {field}"
        ));
    }
    fill::defaults(node, &mut pruned);
    let mut errors = validate::values(node, &pruned);
    rules::check(node, &pruned, None, &mut errors);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{at}: Invalid value: {default}: {}",
            sentence(&errors)
        ))
    }
}

fn checks(path: &str, fields: &Map<String, Value>) -> Result<Checks, String> {
    let pattern = text(path, fields, "pattern")?
        .map(|pattern| {
            Regex::new(pattern).map_err(|error| {
                format!(
                    "{path}.pattern: Invalid value: {pattern:?}: must be a valid regular expression, but isn't: {error}"
                )
            })
        })
        .transpose()?;
    let required = strings(path, fields, "required")?;
    let one_of_values = match fields.get("enum") {
        None => None,
        Some(Value::Array(values)) => Some(values.clone()),
        Some(_) => return Err(format!("{path}.enum: Invalid value: must be a list")),
    };
    let not = fields
        .get("not")
        .map(|json| nested(&format!("{path}.not"), json).map(Box::new))
        .transpose()?;
    Ok(Checks {
        required,
        one_of_values,
        pattern,
        format: text(path, fields, "format")?.and_then(Format::parse),
        minimum: number(path, fields, "minimum")?,
        exclusive_minimum: flag(path, fields, "exclusiveMinimum")?,
        maximum: number(path, fields, "maximum")?,
        exclusive_maximum: flag(path, fields, "exclusiveMaximum")?,
        multiple_of: number(path, fields, "multipleOf")?,
        min_length: count(path, fields, "minLength")?,
        max_length: count(path, fields, "maxLength")?,
        min_items: count(path, fields, "minItems")?,
        max_items: count(path, fields, "maxItems")?,
        min_properties: count(path, fields, "minProperties")?,
        max_properties: count(path, fields, "maxProperties")?,
        all_of: nested_list(path, fields, "allOf")?,
        any_of: nested_list(path, fields, "anyOf")?,
        one_of: nested_list(path, fields, "oneOf")?,
        not,
    })
}

fn nested(path: &str, json: &Value) -> Result<Node, String> {
    let place = Place {
        root: false,
        nested: true,
        correlatable: false,
    };
    node(path, json, place)
}

fn nested_list(path: &str, fields: &Map<String, Value>, name: &str) -> Result<Vec<Node>, String> {
    match fields.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(number, json)| nested(&format!("{path}.{name}[{number}]"), json))
            .collect(),
        Some(_) => Err(format!(
            "{path}.{name}: Invalid value: must be a list of schemas"
        )),
    }
}

fn object<'j>(
    path: &str,
    fields: &'j Map<String, Value>,
    name: &str,
) -> Result<Option<&'j Map<String, Value>>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(format!("{path}.{name}: Invalid value: must be an object")),
    }
}

fn flag(path: &str, fields: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(format!(
            "{path}.{name}: Invalid value: {other}: must be true or false"
        )),
    }
}

fn text<'j>(
    path: &str,
    fields: &'j Map<String, Value>,
    name: &str,
) -> Result<Option<&'j str>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!(
            "{path}.{name}: Invalid value: {other}: must be a string"
        )),
    }
}

fn strings(path: &str, fields: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    match fields.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| {
                item.as_str().map(str::to_owned).ok_or_else(|| {
                    format!("{path}.{name}: Invalid value: {item}: must be a string")
                })
            })
            .collect(),
        Some(_) => Err(format!(
            "{path}.{name}: Invalid value: must be a list of strings"
        )),
    }
}

fn number(path: &str, fields: &Map<String, Value>, name: &str) -> Result<Option<f64>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(other) => Err(format!(
            "{path}.{name}: Invalid value: {other}: must be a number"
        )),
    }
}

fn count(path: &str, fields: &Map<String, Value>, name: &str) -> Result<Option<usize>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| {
                format!(
                    "{path}.{name}: Invalid value: {value}: must be a whole number, not negative"
                )
            }),
    }
}
