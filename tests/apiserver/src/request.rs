//! What a request asks for: the path's kind, namespace, name and subresource, the query's options, and the
//! form in which the client wants the answer.

use std::sync::Arc;

use axum::http::{HeaderMap, header};

use crate::registry::Catalog;
use crate::resource::ResourceInfo;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;
use crate::table::IncludeObject;

/// The object or collection a path names.
#[derive(Debug, Clone)]
pub struct Target {
    /// The kind.
    pub resource: Arc<ResourceInfo>,
    /// The namespace, if the path has one.
    pub namespace: Option<String>,
    /// The object, if the path has one.
    pub name: Option<String>,
    /// `status`, `binding`, …
    pub subresource: Option<String>,
}

impl Target {
    /// Reads `/api/v1/…` and `/apis/GROUP/VERSION/…` with at least a kind; `None` if nothing is served there.
    pub fn parse(path: &str, catalog: &Catalog) -> Option<Self> {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decode)
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // What follows the name of a namespace is a subresource of it or a kind in it.
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            _ => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        let resource = Arc::clone(catalog.find(group, version, plural)?);
        if resource.namespaced != namespace.is_some() && !(resource.namespaced && name.is_none()) {
            return None;
        }
        Some(Self {
            resource,
            namespace,
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    /// The namespace as the store has it: empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// The options in a request's query.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `labelSelector`.
    pub labels: LabelSelector,
    /// `fieldSelector`.
    pub fields: FieldSelector,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`; empty is none.
    pub continuation: String,
    /// `resourceVersion`.
    pub resource_version: Option<u64>,
    /// `resourceVersionMatch`; empty is none.
    pub version_match: String,
    /// `watch`.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<u64>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldValidation`: `Strict`, `Warn` or `Ignore`; empty is `Warn`.
    pub field_validation: String,
    /// `gracePeriodSeconds`.
    pub grace_period: Option<i64>,
    /// `includeObject` of a Table.
    pub include: IncludeObject,
}

impl Options {
    /// Reads a query for a kind.
    pub fn parse(query: &str, resource: &ResourceInfo) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name), decode(value.replace('+', " ")));
            options.set(&name, value, resource).map_err(|problem| {
                ApiError::bad_request(format!(
                    "invalid value of query parameter {name}: {problem}"
                ))
            })?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String, resource: &ResourceInfo) -> Result<(), String> {
        fn number<T: std::str::FromStr>(value: &str) -> Result<Option<T>, String> {
            if value.is_empty() {
                return Ok(None);
            }
            value
                .parse()
                .map(Some)
                .map_err(|_| format!("{value:?} is not a number"))
        }
        let truth = |value: &str| !matches!(value, "false" | "0");
        match name {
            "labelSelector" => self.labels = LabelSelector::parse(&value)?,
            "fieldSelector" => self.fields = FieldSelector::parse(&value, resource)?,
            "limit" => self.limit = number(&value)?.unwrap_or(0),
            "continue" => self.continuation = value,
            "resourceVersion" => self.resource_version = number(&value)?,
            "resourceVersionMatch" => self.version_match = value,
            "watch" => self.watch = truth(&value),
            "allowWatchBookmarks" => self.bookmarks = truth(&value),
            "sendInitialEvents" => self.initial_events = Some(truth(&value)),
            "timeoutSeconds" => self.timeout_seconds = number(&value)?,
            "dryRun" if value == "All" => self.dry_run = true,
            "dryRun" => return Err(format!("{value:?} is not \"All\"")),
            "fieldValidation" => self.field_validation = value,
            "gracePeriodSeconds" => self.grace_period = number(&value)?,
            "includeObject" => {
                self.include = match value.as_str() {
                    "None" => IncludeObject::None,
                    "Object" => IncludeObject::Object,
                    _ => IncludeObject::Metadata,
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The form in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// Rows of a Table.
    Table,
    /// Only apiVersion, kind and metadata.
    Metadata,
}

impl Form {
    /// The first form of the Accept header that is served; anything else (protobuf, say) gets JSON objects.
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for range in accept.flat_map(|value| value.split(',')) {
            let mut parameters = range.split(';').map(str::trim);
            if parameters.next() != Some("application/json") {
                continue;
            }
            let mut form = Self::Object;
            for parameter in parameters {
                match parameter {
                    "as=Table" => form = Self::Table,
                    "as=PartialObjectMetadata" | "as=PartialObjectMetadataList" => {
                        form = Self::Metadata
                    }
                    _ => {}
                }
            }
            return form;
        }
        Self::Object
    }
}

/// Undoes percent encoding.
fn decode(text: impl AsRef<str>) -> String {
    let bytes = text.as_ref().as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn reads_paths() {
        let catalog = Registry::default().catalog();
        let parse = |path: &str| {
            let target = Target::parse(path, &catalog)?;
            let part = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
            Some(format!(
                "{} {} {} {}",
                target.resource.plural,
                part(target.namespace),
                part(target.name),
                part(target.subresource)
            ))
        };
        for (path, want) in [
            ("/api/v1/pods", Some("pods - - -")),
            ("/api/v1/namespaces/x/pods", Some("pods x - -")),
            (
                "/api/v1/namespaces/x/pods/a%2db/status",
                Some("pods x a-b status"),
            ),
            ("/api/v1/namespaces", Some("namespaces - - -")),
            ("/api/v1/namespaces/x", Some("namespaces - x -")),
            (
                "/api/v1/namespaces/x/finalize",
                Some("namespaces - x finalize"),
            ),
            ("/api/v1/nodes/n1/status", Some("nodes - n1 status")),
            (
                "/apis/networking.k8s.io/v1/networkpolicies",
                Some("networkpolicies - - -"),
            ),
            ("/api/v1/namespaces/x/nodes", None),
            ("/api/v1/pods/a", None),
            ("/api/v2/pods", None),
            ("/apis/networking.k8s.io/v1", None),
        ] {
            assert_eq!(parse(path).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn reads_options() {
        let catalog = Registry::default().catalog();
        let pods = catalog.find("", "v1", "pods").unwrap();
        let query =
            "labelSelector=a+in+%28b%29&fieldSelector=spec.nodeName%3Dn1&watch=1&resourceVersion=7";
        let options = Options::parse(query, pods).unwrap();
        assert!(options.watch && options.resource_version == Some(7));
        assert!(!options.labels.is_empty() && !options.fields.is_empty());
        let error = Options::parse("fieldSelector=spec.foo%3D1", pods).unwrap_err();
        assert!(
            error
                .message
                .contains("field label not supported: spec.foo"),
            "{error}"
        );
        assert_eq!(Options::parse("limit=many", pods).unwrap_err().code, 400);
    }
}
