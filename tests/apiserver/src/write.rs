//! POST, PUT and PATCH.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value;

use crate::app::{App, Call, Written};
use crate::body::{DeleteOptions, PatchFormat};
use crate::field::{FieldError, FieldErrorKind};
use crate::random;
use crate::resource::ResourceInfo;
use crate::status::ApiError;
use crate::store::{Key, Object, StoreError};
use crate::view::{from_stored, to_stored};
use crate::{admission, crd};

/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;

impl App {
    /// POST to a collection.
    pub(crate) fn create(&self, call: &Call<'_>) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        if resource.namespaced && call.target.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        if call.target.subresource.is_some() {
            return Err(ApiError::no_resource());
        }
        let mut object = call.sent.object()?;
        admission::identify(&mut object, resource, call.target.namespace.as_deref())?;
        if object["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|version| !version.is_empty())
        {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        to_stored(&mut object);
        self.alone(|| {
            let (object, unknown) =
                self.insert(resource, object, call.options.dry_run, |unknown| {
                    refuse_unknown(unknown, &call.options.field_validation)
                })?;
            Ok(written(StatusCode::CREATED, call, &object, &unknown))
        })
    }

    /// Adds an object (under the gate). `accept` may refuse it for the fields its schema does not know.
    pub(crate) fn insert(
        &self,
        resource: &ResourceInfo,
        mut object: Value,
        dry_run: bool,
        accept: impl Fn(&[String]) -> Result<(), ApiError>,
    ) -> Result<(Arc<Object>, Vec<String>), ApiError> {
        let text = |object: &Value, field: &str| {
            object["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, prefix) = (text(&object, "namespace"), text(&object, "generateName"));
        let is_generated = text(&object, "name").is_empty() && !prefix.is_empty();
        admission::begin(&mut object, resource, random::uid());
        for _ in 0..NAME_ATTEMPTS {
            if is_generated {
                object["metadata"]["name"] = random::name(&prefix).into();
            }
            let unknown = admission::judge(&mut object, None, resource)?;
            accept(&unknown)?;
            let name = text(&object, "name");
            self.check_place(resource, &namespace, &name)?;
            let (collection, key) = (
                resource.collection(),
                Key::new(namespace.as_str(), name.as_str()),
            );
            let exists = self.store.get(&collection, &key).is_some();
            if exists && is_generated {
                continue;
            }
            if exists {
                return Err(ApiError::already_exists(resource, &name));
            }
            if dry_run {
                return Ok((not_stored(object), unknown));
            }
            let stored = self
                .store
                .create(&collection, &key, object)
                .map_err(|e| store_error(e, resource, &name))?;
            self.settle_change(resource, &stored.value)?;
            return Ok((stored, unknown));
        }
        Err(ApiError::already_exists(resource, &prefix))
    }

    fn check_place(
        &self,
        resource: &ResourceInfo,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        if resource.custom.is_some()
            && let Some(definition) = self.store.get(crd::COLLECTION, &crd::key(resource))
            && is_deleted(&definition.value)
        {
            let problem = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::forbidden(resource, name, problem));
        }
        if !resource.namespaced {
            return Ok(());
        }
        match self.store.get("namespaces", &Key::new("", namespace)) {
            None => Err(ApiError::no_namespace(namespace)),
            Some(found) if is_deleted(&found.value) => {
                Err(ApiError::terminating(resource, name, namespace))
            }
            Some(_) => Ok(()),
        }
    }

    /// PUT, or PATCH if `format` is given.
    pub(crate) fn update(
        &self,
        call: &Call<'_>,
        name: &str,
        format: Option<PatchFormat>,
    ) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        let subresource = call.target.subresource.as_deref();
        match subresource {
            None => {}
            Some("status") if resource.status => {}
            Some("finalize") if resource.kind == "Namespace" => {}
            Some(_) => return Err(ApiError::no_resource()),
        }
        let (collection, key) = (
            resource.collection(),
            Key::new(call.target.namespace(), name),
        );
        self.alone(|| {
            let old = self
                .store
                .get(&collection, &key)
                .ok_or_else(|| ApiError::not_found(resource, name))?;
            let current = from_stored(&resource.api_version(), &old.value);
            let mut object = match format {
                None => call.sent.object()?,
                Some(format) => call.sent.patched(format, resource, &current)?,
            };
            admission::identify(&mut object, resource, call.target.namespace.as_deref())?;
            check_same(&object, &current, resource, name, format.is_some())?;
            let mut before = current.into_owned();
            to_stored(&mut object);
            to_stored(&mut before);
            admission::succeed(&mut object, &before, resource, subresource);
            let unknown = admission::judge(&mut object, Some(&before), resource)?;
            refuse_unknown(&unknown, &call.options.field_validation)?;
            admission::count(&mut object, &before, resource);
            let stored = self.put(resource, &key, &old, object, call.options.dry_run)?;
            Ok(written(StatusCode::OK, call, &stored, &unknown))
        })
    }

    /// Replaces `old` by a judged object (under the gate), or removes it if it was only waiting for this.
    pub(crate) fn put(
        &self,
        resource: &ResourceInfo,
        key: &Key,
        old: &Arc<Object>,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        if object == old.value {
            return Ok(Arc::clone(old));
        }
        if dry_run {
            return Ok(not_stored(object));
        }
        let collection = resource.collection();
        if is_free_to_go(&object) {
            let gone = self.store.remove(&collection, key, old.revision, object);
            let gone = gone.map_err(|error| store_error(error, resource, &key.name))?;
            self.settle_removal(resource, &gone.value);
            return Ok(gone);
        }
        let stored = self.store.replace(&collection, key, old.revision, object);
        let stored = stored.map_err(|error| store_error(error, resource, &key.name))?;
        self.settle_change(resource, &stored.value)?;
        Ok(stored)
    }

    /// POST to a subresource of a pod.
    pub(crate) fn create_subresource(
        &self,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        let subresource = call.target.subresource.as_deref();
        if resource.collection() == "serviceaccounts" && subresource == Some("token") {
            return self.make_token(call, name);
        }
        if resource.collection() != "pods" {
            return Err(ApiError::no_resource());
        }
        match subresource {
            Some("binding") => self.bind(call, name),
            Some("eviction") => {
                let eviction = call.sent.object()?;
                let grace_period = eviction["deleteOptions"]["gracePeriodSeconds"].as_i64();
                let options = DeleteOptions {
                    grace_period,
                    dry_run: call.options.dry_run,
                    ..Default::default()
                };
                let key = Key::new(call.target.namespace(), name);
                self.alone(|| self.remove(resource, &key, &options))?;
                Ok(success(StatusCode::CREATED))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn bind(&self, call: &Call<'_>, name: &str) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        let binding = call.sent.object()?;
        let Some(node) = binding["target"]["name"]
            .as_str()
            .filter(|node| !node.is_empty())
        else {
            let error = FieldError::new("target.name", FieldErrorKind::Required, None, "");
            return Err(ApiError::invalid(resource, name, &[error]));
        };
        let key = Key::new(call.target.namespace(), name);
        self.alone(|| {
            let old = self
                .store
                .get("pods", &key)
                .ok_or_else(|| ApiError::not_found(resource, name))?;
            let mut pod = old.value.clone();
            if is_deleted(&pod) {
                let problem = format!("pod {name} is being deleted, cannot be assigned to a host");
                return Err(ApiError::conflict(resource, name, &problem));
            }
            if let Some(assigned) = pod["spec"]["nodeName"]
                .as_str()
                .filter(|node| !node.is_empty())
            {
                let problem = format!("pod {name} is already assigned to node \"{assigned}\"");
                return Err(ApiError::conflict(resource, name, &problem));
            }
            pod["spec"]["nodeName"] = node.into();
            crate::defaults::scheduled(&mut pod);
            self.put(resource, &key, &old, pod, call.options.dry_run)?;
            Ok(success(StatusCode::CREATED))
        })
    }
}

/// Whether somebody has asked to delete the object.
pub(crate) fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether the object only waited for its last finalizer, and its grace period (of a pod) is over.
pub(crate) fn is_free_to_go(object: &Value) -> bool {
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    is_deleted(object)
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && is_empty(&object["metadata"]["finalizers"])
        && (object["kind"] != "Namespace"
            || object["apiVersion"] != "v1"
            || is_empty(&object["spec"]["finalizers"]))
}

pub(crate) fn store_error(error: StoreError, resource: &ResourceInfo, name: &str) -> ApiError {
    match error {
        StoreError::Exists => ApiError::already_exists(resource, name),
        StoreError::Conflict => ApiError::modified(resource, name),
        StoreError::Log(_) => ApiError::internal(error.to_string()),
    }
}

pub(crate) fn not_stored(value: Value) -> Arc<Object> {
    let json = value.to_string().into();
    Arc::new(Object {
        value,
        json,
        revision: 0,
    })
}

fn check_same(
    object: &Value,
    old: &Value,
    resource: &ResourceInfo,
    name: &str,
    is_patch: bool,
) -> Result<(), ApiError> {
    let field = |object: &Value, field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let sent = field(object, "name");
    if sent != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        )));
    }
    let (uid, own) = (field(object, "uid"), field(old, "uid"));
    if !uid.is_empty() && uid != own {
        let problem =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(ApiError::conflict(resource, name, &problem));
    }
    let version = field(object, "resourceVersion");
    if version.is_empty() || version == "0" {
        if !is_patch && resource.custom.is_some() {
            let detail = "must be specified for an update";
            let found = Some(Value::from("0x0"));
            let error = FieldError::new(
                "metadata.resourceVersion",
                FieldErrorKind::Invalid,
                found,
                detail,
            );
            return Err(ApiError::invalid(resource, name, &[error]));
        }
    } else if version != field(old, "resourceVersion") {
        return Err(ApiError::modified(resource, name));
    }
    Ok(())
}

fn refuse_unknown(unknown: &[String], validation: &str) -> Result<(), ApiError> {
    if validation != "Strict" || unknown.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    Err(ApiError::bad_request(format!(
        "strict decoding error: {}",
        listed.join(", ")
    )))
}

fn written(code: StatusCode, call: &Call<'_>, object: &Object, unknown: &[String]) -> Written {
    let warnings = match call.options.field_validation.as_str() {
        "Ignore" => Vec::new(),
        _ => unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect(),
    };
    Written {
        code,
        body: call.view.object(object),
        warnings,
    }
}

fn success(code: StatusCode) -> Written {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16(),
    });
    Written {
        code,
        body: status.to_string().into(),
        warnings: Vec::new(),
    }
}
