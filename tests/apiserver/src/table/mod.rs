//! `meta.k8s.io/v1` Table: the columns kubectl prints.

mod age;
mod builtin;
mod path;
mod pod;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::resource::ResourceInfo;
use path::Path;

/// How much of each object a table's row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata; the default.
    #[default]
    Metadata,
    /// The object.
    Object,
}

/// One column: what its head says and how a cell is made of an object.
struct Column<'r> {
    name: &'r str,
    kind: &'r str,
    format: &'r str,
    description: &'r str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: i64,
    cell: Cell<'r>,
}

/// Where a cell's text comes from.
enum Cell<'r> {
    /// A function of the object and the time.
    Made(fn(&Value, i64) -> Value),
    /// A path into the object; the column's type says how its value is shown.
    Path(Option<Path>, &'r str),
}

/// The objects as a Table without list metadata; `now` is seconds since the epoch, for ages.
pub fn render(
    resource: &ResourceInfo,
    objects: &[&Value],
    include: IncludeObject,
    now: i64,
) -> Value {
    let columns = columns(resource);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| c.cell.show(object, now)).collect();
            json!({"cells": cells, "object": carried(object, include)})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn carried(object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        }),
        IncludeObject::Object => object.clone(),
    }
}

fn columns(resource: &ResourceInfo) -> Vec<Column<'_>> {
    let Some(custom) = &resource.custom else {
        return builtin::columns(&resource.kind);
    };
    let mut columns = vec![builtin::name()];
    if custom.columns.is_empty() {
        columns.push(builtin::age());
    }
    for column in &custom.columns {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        columns.push(Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            cell: Cell::Path(Path::parse(text("jsonPath")).ok(), text("type")),
        });
    }
    columns
}

impl Cell<'_> {
    fn show(&self, object: &Value, now: i64) -> Value {
        match self {
            Cell::Made(make) => make(object, now),
            Cell::Path(None, _) => Value::Null,
            Cell::Path(Some(path), kind) => {
                let found = path.find(object);
                let Some(first) = found.first().filter(|value| !value.is_null()) else {
                    return Value::Null;
                };
                match *kind {
                    "date" => first
                        .as_str()
                        .map_or(Value::Null, |text| age::since(text, now).into()),
                    "integer" => first.as_i64().map_or(Value::Null, Value::from),
                    "number" => first.as_f64().map_or(Value::Null, Value::from),
                    "boolean" => first.as_bool().map_or(Value::Null, Value::from),
                    _ => {
                        let all: Vec<String> = found.iter().map(|value| plain(value)).collect();
                        all.join(" ").into()
                    }
                }
            }
        }
    }
}

/// A value as text, strings without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
