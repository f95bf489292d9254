//! DELETE of one object and of collections: preconditions, grace, finalizers.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::app::{App, Call, Written};
use crate::body::DeleteOptions;
use crate::clock;
use crate::resource::ResourceInfo;
use crate::status::{self, ApiError};
use crate::store::{Key, Object};
use crate::write::{is_deleted, is_free_to_go, not_stored, store_error};

/// What became of an object somebody asked to delete.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is gone; this was its last state.
    Gone(Arc<Object>),
    /// It waits for its finalizers or for its node.
    Pending(Arc<Object>),
}

impl App {
    /// DELETE of one object.
    pub(crate) fn delete(&self, call: &Call<'_>, name: &str) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        if call.target.subresource.is_some() {
            return Err(ApiError::method_not_allowed());
        }
        let options = call
            .sent
            .delete_options(call.options.grace_period, call.options.dry_run)?;
        let key = Key::new(call.target.namespace(), name);
        let body = match self.alone(|| self.remove(resource, &key, &options))? {
            Outcome::Pending(object) => call.view.object(&object),
            // Pods answer with themselves, everything else with a Status, as the real server does.
            Outcome::Gone(object) if resource.collection() == "pods" => call.view.object(&object),
            Outcome::Gone(object) => {
                let uid = object.value["metadata"]["uid"].as_str().unwrap_or_default();
                status::success(resource, name, uid).to_string().into()
            }
        };
        Ok(Written {
            code: StatusCode::OK,
            body,
            warnings: Vec::new(),
        })
    }

    /// DELETE of all objects the selectors fit.
    pub(crate) fn delete_collection(&self, call: &Call<'_>) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        let options = call
            .sent
            .delete_options(call.options.grace_period, call.options.dry_run)?;
        let (mut objects, revision) = self
            .store
            .list(&resource.collection(), call.target.namespace.as_deref());
        objects.retain(|object| {
            call.options.labels.matches(&object.value) && call.options.fields.matches(&object.value)
        });
        for object in &objects {
            let key = key_of(&object.value);
            match self.alone(|| self.remove(resource, &key, &options)) {
                Err(error) if error.code != 404 => return Err(error),
                _ => {}
            }
        }
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), revision.to_string().into());
        Ok(Written {
            code: StatusCode::OK,
            body: call.view.list(&objects, metadata),
            warnings: Vec::new(),
        })
    }

    /// Deletes an object, or marks it as to be deleted (under the gate).
    pub(crate) fn remove(
        &self,
        resource: &ResourceInfo,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Outcome, ApiError> {
        let collection = resource.collection();
        let old = self
            .store
            .get(&collection, key)
            .ok_or_else(|| ApiError::not_found(resource, &key.name))?;
        check_preconditions(&old.value, resource, &key.name, options)?;
        if collection == "namespaces" && matches!(key.name.as_str(), "default" | "kube-system") {
            return Err(ApiError::forbidden(
                resource,
                &key.name,
                "this namespace may not be deleted",
            ));
        }
        let mut object = old.value.clone();
        mark(
            &mut object,
            grace(&collection, &old.value, options.grace_period),
        );
        if is_free_to_go(&object) {
            if options.dry_run {
                return Ok(Outcome::Gone(old));
            }
            let gone = self.store.remove(&collection, key, old.revision, object);
            let gone = gone.map_err(|error| store_error(error, resource, &key.name))?;
            self.settle_removal(resource, &gone.value);
            return Ok(Outcome::Gone(gone));
        }
        if object == old.value {
            return Ok(Outcome::Pending(old));
        }
        if options.dry_run {
            return Ok(Outcome::Pending(not_stored(object)));
        }
        let marked = self.store.replace(&collection, key, old.revision, object);
        let marked = marked.map_err(|error| store_error(error, resource, &key.name))?;
        self.settle_change(resource, &marked.value)?;
        Ok(Outcome::Pending(marked))
    }
}

/// The key of a stored object.
pub(crate) fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}

fn check_preconditions(
    object: &Value,
    resource: &ResourceInfo,
    name: &str,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let wanted = [
        ("UID", "uid", &options.uid),
        (
            "ResourceVersion",
            "resourceVersion",
            &options.resource_version,
        ),
    ];
    for (label, field, wanted) in wanted {
        let have = object["metadata"][field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != have) {
            let problem = format!(
                "Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {have}"
            );
            return Err(ApiError::conflict(resource, name, &problem));
        }
    }
    Ok(())
}

/// Seconds a deleted object is given. Only pods that run on a node take any: their node ends them and then
/// deletes them with none.
fn grace(collection: &str, object: &Value, asked: Option<i64>) -> i64 {
    let is_bound = object["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let is_over = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if collection != "pods" || !is_bound || is_over {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    asked.or(own).unwrap_or(30).max(0)
}

/// Marks an object as to be deleted; one that is may only get less time.
fn mark(object: &mut Value, grace: i64) {
    let given = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if is_deleted(object) && given.is_none_or(|given| given <= grace) {
        return;
    }
    let since = object["metadata"]["deletionTimestamp"]
        .as_str()
        .and_then(clock::parse);
    let asked_at = since.map_or_else(clock::now, |ends| ends - given.unwrap_or(0));
    object["metadata"]["deletionTimestamp"] = clock::format(asked_at + grace).into();
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if object["kind"] == "Namespace" && object["apiVersion"] == "v1" {
        object["status"]["phase"] = "Terminating".into();
    }
}
