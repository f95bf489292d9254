//! Strategic merge patch: a merge patch that knows which lists have keys, with directives beside the fields.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::strategy::{self, ListStrategy};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Kubernetes' strategic merge patch for an object of a builtin `kind`. The error says which part of the
/// patch is wrong.
pub fn apply_strategic(kind: &str, target: &Value, patch: &Value) -> Result<Value, String> {
    let fields = patch
        .as_object()
        .ok_or("a strategic merge patch must be a JSON object")?;
    let original = target.as_object().cloned().unwrap_or_default();
    let mut path = Vec::new();
    merge_object(kind, &mut path, original, fields).map(Value::Object)
}

fn merge_object<'p>(
    kind: &str,
    path: &mut Vec<&'p str>,
    mut object: Map<String, Value>,
    patch: &'p Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    match patch.get(DIRECTIVE).map(|d| d.as_str().unwrap_or("")) {
        None | Some("merge") => {}
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(path, other)),
    }
    if let Some(keep) = patch.get(RETAIN_KEYS) {
        let keep = list_of(path, RETAIN_KEYS, keep)?;
        object.retain(|name, _| keep.iter().any(|k| k == name));
    }
    for (name, change) in patch {
        if name.starts_with('$') {
            let known = name == DIRECTIVE
                || name == RETAIN_KEYS
                || name.starts_with(DELETE_PRIMITIVES)
                || name.starts_with(SET_ORDER);
            if !known {
                return Err(unknown_directive(path, name));
            }
            continue;
        }
        if change.is_null() {
            object.shift_remove(name);
            continue;
        }
        path.push(name);
        let have = object.get_mut(name).map(Value::take);
        let result = merge_value(kind, path, have, change, patch)?;
        path.pop();
        match result {
            Some(value) => {
                object.insert(name.clone(), value);
            }
            None => {
                object.shift_remove(name);
            }
        }
    }
    // Directives may name lists that the patch does not touch otherwise.
    for (directive, value) in patch {
        let field = directive
            .strip_prefix(DELETE_PRIMITIVES)
            .or_else(|| directive.strip_prefix(SET_ORDER));
        let Some(field) = field else { continue };
        if patch.get(field).is_some_and(|v| !v.is_null()) {
            continue;
        }
        let Some(Value::Array(items)) = object.get_mut(field) else {
            continue;
        };
        path.push(field);
        let wanted = list_of(path, directive, value)?;
        if directive.starts_with(DELETE_PRIMITIVES) {
            items.retain(|item| !wanted.contains(item));
        } else {
            let strategy = strategy::of(kind, path);
            let server = items.clone();
            *items = ordered(std::mem::take(items), &server, wanted, strategy);
        }
        path.pop();
    }
    Ok(object)
}

/// What a field becomes; `None` when the patch deletes it.
fn merge_value<'p>(
    kind: &str,
    path: &mut Vec<&'p str>,
    have: Option<Value>,
    change: &'p Value,
    siblings: &'p Map<String, Value>,
) -> Result<Option<Value>, String> {
    match change {
        Value::Object(fields) => {
            if fields.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return Ok(None);
            }
            let base = match have {
                Some(Value::Object(object)) => object,
                _ => Map::new(),
            };
            merge_object(kind, path, base, fields).map(|object| Some(Value::Object(object)))
        }
        Value::Array(items) => {
            let base = match have {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            merge_list(kind, path, base, items, siblings).map(|list| Some(Value::Array(list)))
        }
        plain => Ok(Some(plain.clone())),
    }
}

fn merge_list<'p>(
    kind: &str,
    path: &mut Vec<&'p str>,
    have: Vec<Value>,
    change: &'p [Value],
    siblings: &'p Map<String, Value>,
) -> Result<Vec<Value>, String> {
    let name = path.last().copied().unwrap_or_default();
    let order = siblings
        .get(&format!("{SET_ORDER}{name}"))
        .map(|order| list_of(path, SET_ORDER, order))
        .transpose()?;
    let strategy = strategy::of(kind, path);
    match strategy {
        ListStrategy::Atomic => Ok(change.iter().map(clean).collect()),
        ListStrategy::Set => {
            let mut result = have.clone();
            if let Some(drop) = siblings.get(&format!("{DELETE_PRIMITIVES}{name}")) {
                let drop = list_of(path, DELETE_PRIMITIVES, drop)?;
                result.retain(|item| !drop.contains(item));
            }
            for item in change {
                if !result.contains(item) {
                    result.push(item.clone());
                }
            }
            Ok(ordered(result, &have, order.unwrap_or(change), strategy))
        }
        ListStrategy::Keyed(key) => {
            let result = merge_keyed(kind, path, have.clone(), change, key)?;
            let Some(result) = result else {
                return Ok(change
                    .iter()
                    .filter(|item| item.get(DIRECTIVE).is_none())
                    .map(clean)
                    .collect());
            };
            Ok(ordered(result, &have, order.unwrap_or(change), strategy))
        }
    }
}

/// Merges a keyed list item by item; `None` if the patch replaces the list as a whole.
fn merge_keyed<'p>(
    kind: &str,
    path: &mut Vec<&'p str>,
    mut result: Vec<Value>,
    change: &'p [Value],
    key: &str,
) -> Result<Option<Vec<Value>>, String> {
    for item in change {
        let Value::Object(fields) = item else {
            return Err(format!("{}: {item} is not an object", path.join(".")));
        };
        let directive = fields.get(DIRECTIVE).map(|d| d.as_str().unwrap_or(""));
        match directive {
            Some("replace") => return Ok(None),
            None | Some("merge" | "delete") => {}
            Some(other) => return Err(unknown_directive(path, other)),
        }
        let Some(id) = fields.get(key) else {
            return Err(format!(
                "{}: {item} does not contain the merge key {key:?}",
                path.join(".")
            ));
        };
        let at = result.iter().position(|have| have.get(key) == Some(id));
        match (directive, at) {
            (Some("delete"), _) => result.retain(|have| have.get(key) != Some(id)),
            (_, Some(at)) => {
                let base = match result[at].take() {
                    Value::Object(object) => object,
                    _ => Map::new(),
                };
                result[at] = Value::Object(merge_object(kind, path, base, fields)?);
            }
            (_, None) => {
                result.push(Value::Object(merge_object(kind, path, Map::new(), fields)?));
            }
        }
    }
    Ok(Some(result))
}

/// Puts the items named in `order` into that order. The others, known to the server alone, keep their
/// place relative to those they preceded there; an item new to the server comes after them.
fn ordered(
    items: Vec<Value>,
    server: &[Value],
    order: &[Value],
    strategy: ListStrategy,
) -> Vec<Value> {
    let id = |item: &Value| -> Option<Value> {
        match strategy {
            ListStrategy::Keyed(key) => item.get(key).cloned(),
            ListStrategy::Set | ListStrategy::Atomic => Some(item.clone()),
        }
    };
    let place = |list: &[Value], item: &Value| {
        let wanted = id(item)?;
        list.iter().position(|i| id(i).as_ref() == Some(&wanted))
    };
    let (mut named, others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    let mut result = Vec::new();
    loop {
        let named_first = match (named.peek(), others.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => match (place(server, a), place(server, b)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
        };
        result.extend(if named_first {
            named.next()
        } else {
            others.next()
        });
    }
}

fn list_of<'p>(path: &[&str], directive: &str, value: &'p Value) -> Result<&'p [Value], String> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{}: {directive} must be a list", path.join(".")))
}

fn unknown_directive(path: &[&str], directive: &str) -> String {
    let place: Cow<'_, str> = if path.is_empty() {
        "the patch".into()
    } else {
        path.join(".").into()
    };
    format!("{place}: unknown patch directive {directive:?}")
}

/// A value of the patch that goes into the object as it is, without directives and nulls.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
        plain => plain.clone(),
    }
}

fn without_directives(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(name, value)| {
            let directive = *name == DIRECTIVE
                || *name == RETAIN_KEYS
                || name.starts_with(DELETE_PRIMITIVES)
                || name.starts_with(SET_ORDER);
            !directive && !value.is_null()
        })
        .map(|(name, value)| (name.clone(), clean(value)))
        .collect()
}
