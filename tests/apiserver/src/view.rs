//! How stored objects look to a client: in the API version of its path, whole, as metadata, or as a Table.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::request::Form;
use crate::resource::ResourceInfo;
use crate::store::{Event, Object, watch_line};
use crate::table::{self, IncludeObject};

/// One client's way of looking at one kind.
#[derive(Debug, Clone)]
pub struct View {
    resource: Arc<ResourceInfo>,
    api_version: String,
    form: Form,
    include: IncludeObject,
}

impl View {
    /// Objects of `resource` in `form`; `include` matters to tables only.
    pub fn new(resource: Arc<ResourceInfo>, form: Form, include: IncludeObject) -> Self {
        let api_version = resource.api_version();
        Self {
            resource,
            api_version,
            form,
            include,
        }
    }

    /// One object as JSON text.
    pub fn object(&self, object: &Object) -> Bytes {
        if self.is_stored_form(object) {
            object.json.clone()
        } else {
            self.value(&object.value)
        }
    }

    /// One object that is not (yet) in the store as JSON text.
    pub fn value(&self, object: &Value) -> Bytes {
        let object = from_stored(&self.api_version, object);
        let shown = match self.form {
            Form::Object => object.into_owned(),
            Form::Metadata => metadata_only(&object),
            Form::Table => {
                let mut table =
                    table::render(&self.resource, &[&object], self.include, clock::now());
                table["metadata"]["resourceVersion"] =
                    object["metadata"]["resourceVersion"].clone();
                table
            }
        };
        Bytes::from(shown.to_string())
    }

    /// A list as JSON text. `metadata` is that of the list: resourceVersion, continue, remainingItemCount.
    pub fn list(&self, objects: &[Arc<Object>], metadata: Map<String, Value>) -> Bytes {
        let (kind, api_version) = match self.form {
            Form::Table => {
                let values: Vec<_> = objects
                    .iter()
                    .map(|object| from_stored(&self.api_version, &object.value))
                    .collect();
                let values: Vec<&Value> = values.iter().map(AsRef::as_ref).collect();
                let mut table = table::render(&self.resource, &values, self.include, clock::now());
                table["metadata"] = Value::Object(metadata);
                return Bytes::from(table.to_string());
            }
            Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
            Form::Object => (self.resource.list_kind.as_str(), self.api_version.as_str()),
        };
        let head =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}).to_string();
        let size = objects
            .iter()
            .map(|object| object.json.len() + 1)
            .sum::<usize>();
        let mut out = Vec::with_capacity(head.len() + size + 16);
        out.extend_from_slice(head.trim_end_matches('}').as_bytes());
        out.extend_from_slice(b"},\"items\":[");
        for (at, object) in objects.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.object(object));
        }
        out.extend_from_slice(b"]}");
        Bytes::from(out)
    }

    /// The watch line of an event nobody filters.
    pub fn event(&self, event: &Event) -> Bytes {
        if self.is_stored_form(&event.object) {
            event.line()
        } else {
            watch_line(event.change.name(), &self.value(&event.object.value))
        }
    }

    /// A bookmark: nothing happened up to `revision` that was not told. The one after the initial objects says so.
    pub fn bookmark(&self, revision: u64, ends_initial_events: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": self.resource.kind, "apiVersion": self.api_version, "metadata": metadata});
        let shown = match self.form {
            Form::Object => object,
            Form::Metadata => metadata_only(&object),
            Form::Table => {
                let mut table = table::render(
                    &self.resource,
                    &[&object],
                    IncludeObject::Metadata,
                    clock::now(),
                );
                table["metadata"]["resourceVersion"] = revision.to_string().into();
                table
            }
        };
        watch_line("BOOKMARK", shown.to_string().as_bytes())
    }

    fn is_stored_form(&self, object: &Object) -> bool {
        self.form == Form::Object && object.value["apiVersion"] == self.api_version.as_str()
    }
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The fields of an Event that the two groups name differently: core, events.k8s.io.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The object in the version `api_version`. Custom versions differ in nothing else (conversion strategy None).
pub fn from_stored<'a>(api_version: &str, object: &'a Value) -> Cow<'a, Value> {
    if object["apiVersion"] == api_version {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    object["apiVersion"] = api_version.into();
    if api_version == "events.k8s.io/v1" {
        rename(&mut object, |core, new| (core, new));
    }
    Cow::Owned(object)
}

/// The inverse of [`from_stored`] for kinds stored in another form than they came; others stay as they are.
pub fn to_stored(object: &mut Value) {
    if object["apiVersion"] == "events.k8s.io/v1" {
        object["apiVersion"] = "v1".into();
        rename(object, |core, new| (new, core));
    }
}

fn rename(
    object: &mut Value,
    direction: fn(&'static str, &'static str) -> (&'static str, &'static str),
) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for (core, new) in EVENT_FIELDS {
        let (from, to) = direction(core, new);
        if let Some(value) = fields.shift_remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_two_forms() {
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Because",
            "note": "text", "regarding": {"kind": "Pod"}, "reportingController": "felix",
        });
        let mut stored = new.clone();
        to_stored(&mut stored);
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(
            (&stored["apiVersion"], &stored["message"]),
            (&json!("v1"), &json!("text"))
        );
        assert_eq!(*from_stored("events.k8s.io/v1", &stored), new);
        assert!(matches!(from_stored("v1", &stored), Cow::Borrowed(_)));
    }
}
