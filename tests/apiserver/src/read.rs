//! GET of one object and of lists.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::request::{Options, Target};
use crate::status::ApiError;
use crate::store::{Key, Store, TooOld};
use crate::view::View;

/// One object.
pub(crate) fn get(
    store: &Store,
    target: &Target,
    name: &str,
    view: &View,
) -> Result<Bytes, ApiError> {
    match target.subresource.as_deref() {
        None => {}
        Some("status") if target.resource.status => {}
        Some(_) => return Err(ApiError::no_resource()),
    }
    let key = Key::new(target.namespace(), name);
    let object = store.get(&target.resource.collection(), &key);
    object
        .map(|object| view.object(&object))
        .ok_or_else(|| ApiError::not_found(&target.resource, name))
}

/// A list, or the part of it that `limit` and `continue` ask for.
///
/// A continued list is the same list: the store still knows how it was at the first part's revision, or
/// answers 410.
pub(crate) fn list(
    store: &Store,
    target: &Target,
    options: &Options,
    view: &View,
) -> Result<Bytes, ApiError> {
    let collection = target.resource.collection();
    let namespace = target.namespace.as_deref();
    let (at, after) = if options.continuation.is_empty() {
        (wanted_revision(store, options)?, None)
    } else {
        let (revision, after) = parse_token(&options.continuation).ok_or_else(|| {
            ApiError::bad_request("continue key is not valid: not a token of this server")
        })?;
        (Some(revision), Some(after))
    };
    let (mut objects, revision) = match at {
        None => store.list(&collection, namespace),
        Some(revision) => {
            let objects = store.list_at(&collection, namespace, revision).map_err(|TooOld { oldest }| {
                ApiError::expired(format!(
                    "The provided continue parameter or resource version is too old: {revision} ({oldest}). \
                     Start a new list without it."
                ))
            })?;
            (objects, revision)
        }
    };
    objects.retain(|object| {
        options.labels.matches(&object.value) && options.fields.matches(&object.value)
    });
    if let Some(after) = after {
        objects.retain(|object| key_of(&object.value) > after);
    }
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    if options.limit > 0 && objects.len() > options.limit {
        let remaining = objects.len() - options.limit;
        objects.truncate(options.limit);
        let last = objects.last().map(|object| key_of(&object.value));
        metadata.insert(
            "continue".into(),
            last.map(|key| token(revision, &key)).into(),
        );
        if options.labels.is_empty() && options.fields.is_empty() {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
    }
    Ok(view.list(&objects, metadata))
}

/// The revision that must be listed; `None` is the current one, which is at least as new as any asked for.
fn wanted_revision(store: &Store, options: &Options) -> Result<Option<u64>, ApiError> {
    let Some(asked) = options.resource_version.filter(|&asked| asked > 0) else {
        return Ok(None);
    };
    let current = store.revision();
    if asked > current {
        return Err(ApiError::too_large_revision(asked, current));
    }
    Ok((options.version_match == "Exact").then_some(asked))
}

fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}

fn token(revision: u64, last: &Key) -> String {
    format!("{revision}:{}:{}", last.namespace, last.name)
}

fn parse_token(token: &str) -> Option<(u64, Key)> {
    let mut parts = token.splitn(3, ':');
    let revision = parts.next()?.parse().ok()?;
    Some((revision, Key::new(parts.next()?, parts.next()?)))
}
