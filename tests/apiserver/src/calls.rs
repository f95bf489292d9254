//! Which calls clients make: what the rules of RBAC have to allow.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

use crate::request::Target;

/// A kind of call, as RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Called {
    /// The client's program, by its User-Agent up to the version; empty: it did not say.
    pub agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// API group, empty for the core.
    pub group: String,
    /// Plural of the kind, and the subresource after a slash.
    pub resource: String,
    /// Namespace, empty for all and for kinds without.
    pub namespace: String,
}

/// Notes each kind of call once, one line of JSON for each.
#[derive(Debug, Default)]
pub(crate) struct Calls(Option<Mutex<(BTreeSet<Called>, File)>>);

impl Calls {
    /// Notes in a file what is not yet there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let known = read(path)?.into_iter().collect();
        Ok(Self(Some(Mutex::new((known, file)))))
    }

    pub(crate) fn note(&self, method: &Method, headers: &HeaderMap, target: &Target, watch: bool) {
        let Some(noted) = &self.0 else { return };
        let called = called(method, headers, target, watch);
        let (known, file) = &mut *noted.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&called) {
            return;
        }
        let line = serde_json::to_string(&called).unwrap_or_default();
        if let Err(error) = writeln!(file, "{line}") {
            tracing::warn!(%error, "cannot note a call");
        }
        known.insert(called);
    }
}

/// The calls noted in a file.
pub fn read(path: &Path) -> io::Result<Vec<Called>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(io::Error::other)
}

fn called(method: &Method, headers: &HeaderMap, target: &Target, watch: bool) -> Called {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(['/', ' ']).next())
        .unwrap_or_default();
    let one = target.name.is_some();
    let verb = match *method {
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    };
    let plural = target.resource.plural.to_string();
    Called {
        agent: agent.to_owned(),
        verb: verb.to_owned(),
        group: target.resource.group.to_string(),
        resource: match &target.subresource {
            None => plural,
            Some(subresource) => format!("{plural}/{subresource}"),
        },
        namespace: target.namespace.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn each_kind_of_call_is_noted_once_and_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls");
        let catalog = Registry::default().catalog();
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "margay-felix/0.1.0".parse().unwrap());
        for _ in 0..2 {
            let calls = Calls::open(&path).unwrap();
            for (method, path, watch) in [
                (Method::GET, "/api/v1/pods", true),
                (Method::GET, "/api/v1/pods", false),
                (Method::GET, "/api/v1/namespaces/x/pods/a", false),
                (Method::GET, "/api/v1/namespaces/x/pods/b", false),
                (Method::PATCH, "/api/v1/nodes/n1/status", false),
            ] {
                let target = Target::parse(path, &catalog).unwrap();
                calls.note(&method, &headers, &target, watch);
            }
        }
        let said =
            |it: Called| format!("{} {} {} {}", it.agent, it.verb, it.resource, it.namespace);
        let noted: Vec<String> = read(&path).unwrap().into_iter().map(said).collect();
        assert_eq!(
            noted,
            [
                "margay-felix watch pods ",
                "margay-felix list pods ",
                "margay-felix get pods x",
                "margay-felix patch nodes/status ",
            ]
        );
    }
}
