//! What follows from a change: a namespace or a definition that is deleted takes its objects with it, a
//! definition that changes changes what is served. All of it happens before the request is answered, except
//! what waits for finalizers and for the nodes of pods: then the last of them goes on with it.

use std::sync::PoisonError;

use serde_json::{Value, json};

use crate::app::App;
use crate::body::DeleteOptions;
use crate::clock;
use crate::crd;
use crate::delete::key_of;
use crate::resource::ResourceInfo;
use crate::status::ApiError;
use crate::store::Key;
use crate::write::is_deleted;

/// Seconds an Event is kept.
const EVENT_LIFE: i64 = 3600;

impl App {
    /// Serves what the store defines, makes the namespaces that are always there and ends what a kill
    /// interrupted.
    pub(crate) fn bootstrap(&self) -> Result<(), ApiError> {
        self.serve_definitions();
        for name in ["default", "kube-system"] {
            if self.store.get("namespaces", &Key::new("", name)).is_none() {
                self.make(
                    "",
                    "namespaces",
                    json!({
                        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
                    }),
                )?;
            }
        }
        for collection in ["namespaces", crd::COLLECTION] {
            for object in self.store.list(collection, None).0 {
                self.note_deletion(collection, &object.value);
            }
        }
        Ok(())
    }

    /// After an object was made or changed.
    pub(crate) fn settle_change(
        &self,
        resource: &ResourceInfo,
        object: &Value,
    ) -> Result<(), ApiError> {
        let collection = resource.collection();
        if collection == crd::COLLECTION {
            self.serve_definitions();
        }
        if collection == "namespaces" && !is_deleted(object) {
            self.make_service_account(&key_of(object).name)?;
        }
        self.note_deletion(&collection, object);
        Ok(())
    }

    /// After an object went away.
    pub(crate) fn settle_removal(&self, resource: &ResourceInfo, object: &Value) {
        if resource.collection() == crd::COLLECTION {
            self.serve_definitions();
        }
        if resource.custom.is_some()
            && let Some(definition) = self.store.get(crd::COLLECTION, &crd::key(resource))
        {
            self.note_deletion(crd::COLLECTION, &definition.value);
        }
        if resource.namespaced
            && let Some(namespace) = self
                .store
                .get("namespaces", &Key::new("", key_of(object).namespace))
        {
            self.note_deletion("namespaces", &namespace.value);
        }
    }

    /// Remembers that the deletion of a namespace or definition may go on. It does not at once: it deletes
    /// objects, each of which would come here again.
    fn note_deletion(&self, collection: &str, object: &Value) {
        if is_deleted(object) && matches!(collection, "namespaces" | crd::COLLECTION) {
            let mut unfinished = self
                .unfinished
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            unfinished.insert((collection.to_owned(), key_of(object)));
        }
    }

    /// Brings the deletions noted as far as they go (under the gate).
    pub(crate) fn finish_deletions(&self) {
        let next = || {
            self.unfinished
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_first()
        };
        while let Some((collection, key)) = next() {
            if let Err(error) = self.finish(&collection, &key) {
                tracing::error!(%collection, name = %key.name, %error, "cannot finish a deletion");
            }
        }
    }

    /// Removes the Events nobody has repeated for an hour; `now` is seconds since the epoch.
    pub(crate) fn expire_events(&self, now: i64) {
        let catalog = self.registry.catalog();
        let Some(resource) = catalog.find("", "v1", "events") else {
            return;
        };
        for event in self.store.list("events", None).0 {
            let last = [
                &event.value["lastTimestamp"],
                &event.value["metadata"]["creationTimestamp"],
            ];
            let last = last
                .into_iter()
                .find_map(|time| clock::parse(time.as_str()?));
            if last.is_some_and(|last| now - last > EVENT_LIFE) {
                let key = key_of(&event.value);
                match self.alone(|| self.remove(resource, &key, &DeleteOptions::default())) {
                    Err(error) if error.code != 404 => {
                        tracing::warn!(%error, "cannot remove an old Event")
                    }
                    _ => {}
                }
            }
        }
    }

    fn serve_definitions(&self) {
        let (definitions, _) = self.store.list(crd::COLLECTION, None);
        self.registry
            .set_definitions(definitions.iter().map(|object| &object.value));
    }

    fn finish(&self, collection: &str, key: &Key) -> Result<(), ApiError> {
        let Some(current) = self.store.get(collection, key) else {
            return Ok(());
        };
        let is_empty = match collection {
            "namespaces" => self.empty(|resource| resource.namespaced, Some(&key.name))?,
            _ => self.empty(
                |resource| resource.custom.is_some() && crd::key(resource) == *key,
                None,
            )?,
        };
        if !is_empty {
            return Ok(());
        }
        let mut value = current.value.clone();
        if collection == "namespaces" {
            value["spec"]["finalizers"] = json!([]);
        } else if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != crd::FINALIZER);
        }
        if value == current.value {
            return Ok(());
        }
        let catalog = self.registry.catalog();
        let resource = catalog
            .resources()
            .iter()
            .find(|r| r.collection() == collection);
        match resource {
            Some(resource) => self.put(resource, key, &current, value, false).map(drop),
            None => Ok(()),
        }
    }

    /// Deletes the objects of the kinds `is_meant`, in one namespace or all; says whether none is left.
    fn empty(
        &self,
        is_meant: impl Fn(&ResourceInfo) -> bool,
        namespace: Option<&str>,
    ) -> Result<bool, ApiError> {
        let mut is_empty = true;
        let catalog = self.registry.catalog();
        for resource in catalog
            .resources()
            .iter()
            .filter(|resource| is_meant(resource))
        {
            let collection = resource.collection();
            for object in self.store.list(&collection, namespace).0 {
                if !is_deleted(&object.value) {
                    let removed =
                        self.remove(resource, &key_of(&object.value), &DeleteOptions::default());
                    removed.map(drop).or_else(|error| {
                        if error.code == 404 {
                            Ok(())
                        } else {
                            Err(error)
                        }
                    })?;
                }
            }
            is_empty &= self.store.list(&collection, namespace).0.is_empty();
        }
        Ok(is_empty)
    }

    fn make_service_account(&self, namespace: &str) -> Result<(), ApiError> {
        if self
            .store
            .get("serviceaccounts", &Key::new(namespace, "default"))
            .is_some()
        {
            return Ok(());
        }
        self.make("", "serviceaccounts", json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace},
        }))
    }

    fn make(&self, group: &str, plural: &str, object: Value) -> Result<(), ApiError> {
        match self.registry.catalog().find(group, "v1", plural) {
            Some(resource) => self.insert(resource, object, false, |_| Ok(())).map(drop),
            None => Err(ApiError::no_resource()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Calls;
    use crate::store::Store;
    use crate::tokens::Tokens;

    #[test]
    fn old_events_go() {
        let app = App::new(
            Store::open(None, 100).unwrap(),
            "token".to_owned(),
            Calls::default(),
            Tokens::default(),
        )
        .unwrap();
        for (name, last) in [("old", 0), ("new", 5000)] {
            let event = json!({
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
                "involvedObject": {"kind": "Namespace", "name": "default", "namespace": "default"},
                "lastTimestamp": clock::format(last),
            });
            app.alone(|| app.make("", "events", event)).unwrap();
        }
        app.expire_events(5000);
        let (left, _) = app.store.list("events", None);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].value["metadata"]["name"], "new");
    }
}
