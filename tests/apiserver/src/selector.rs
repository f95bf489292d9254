//! Label and field selectors of list and watch requests.

use serde_json::Value;

use crate::resource::ResourceInfo;

/// A parsed `labelSelector`: all requirements must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>5`.
    pub fn parse(text: &str) -> Result<Self, String> {
        split(text)
            .into_iter()
            .map(|term| {
                requirement(term).ok_or_else(|| format!("unable to parse requirement: {term:?}"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the object's labels fit.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| value(key).and_then(|text| text.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                value(key).is_some_and(|have| values.iter().any(|want| want == have))
            }
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|have| values.iter().all(|want| want != have))
            }
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Absent(key) => value(key).is_none(),
            Requirement::Greater(key, than) => number(key).is_some_and(|have| have > *than),
            Requirement::Less(key, than) => number(key).is_some_and(|have| have < *than),
        })
    }

    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits at the commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    if terms == [""] { Vec::new() } else { terms }
}

fn requirement(term: &str) -> Option<Requirement> {
    let is_key = |key: &str| {
        !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
    };
    if let Some(key) = term.strip_prefix('!') {
        return is_key(key.trim()).then(|| Requirement::Absent(key.trim().to_owned()));
    }
    let end = term
        .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>'))
        .unwrap_or(term.len());
    let (key, rest) = (term[..end].to_owned(), term[end..].trim());
    if !is_key(&key) {
        return None;
    }
    let one = |value: &str| is_value(value.trim()).then(|| value.trim().to_owned());
    if rest.is_empty() {
        Some(Requirement::Exists(key))
    } else if let Some(value) = rest.strip_prefix("!=") {
        Some(Requirement::NotIn(key, vec![one(value)?]))
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Some(Requirement::In(key, vec![one(value)?]))
    } else if let Some(value) = rest.strip_prefix('>') {
        Some(Requirement::Greater(key, value.trim().parse().ok()?))
    } else if let Some(value) = rest.strip_prefix('<') {
        Some(Requirement::Less(key, value.trim().parse().ok()?))
    } else {
        let (operator, list) = rest.split_once('(')?;
        let values: Option<Vec<String>> = list.strip_suffix(')')?.split(',').map(one).collect();
        match operator.trim() {
            "in" => Some(Requirement::In(key, values?)),
            "notin" => Some(Requirement::NotIn(key, values?)),
            _ => None,
        }
    }
}

fn is_value(value: &str) -> bool {
    value.len() <= 63
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A parsed `fieldSelector`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads `metadata.name=a,spec.nodeName!=b`; only fields the kind supports are accepted.
    pub fn parse(text: &str, resource: &ResourceInfo) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) =
                term.split_once("==").or_else(|| term.split_once('='))
            {
                (path, true, value)
            } else {
                return Err(format!(
                    "invalid selector: {text:?}; can't understand {term:?}"
                ));
            };
            if !supported(resource, path) {
                return Err(format!("field label not supported: {path}"));
            }
            terms.push((path.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(terms))
    }

    /// Whether the object's fields fit; an absent field is the empty string.
    pub fn matches(&self, object: &Value) -> bool {
        self.0
            .iter()
            .all(|(path, equal, want)| (field(object, path) == *want) == *equal)
    }

    /// The one name selected, if the selector asks for one.
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|(path, equal, _)| *equal && path == "metadata.name")
            .map(|(_, _, value)| value.as_str())
    }

    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn field(object: &Value, path: &str) -> String {
    // "source" and "reportingComponent" of an event are each one of two places, as in the real server.
    let path = if path == "source" {
        "source.component"
    } else {
        path
    };
    let found = path
        .split('.')
        .try_fold(object, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn supported(resource: &ResourceInfo, path: &str) -> bool {
    if path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced) {
        return true;
    }
    if let Some(custom) = &resource.custom {
        return custom.selectable_fields.iter().any(|field| field == path);
    }
    let fields: &[&str] = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    };
    fields.contains(&path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_select_as_kubectl_says() {
        let object =
            json!({"metadata": {"labels": {"app": "web", "tier": "a", "n": "7", "x.io/y": ""}}});
        for (text, fits) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=b", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db),tier notin (b,c)", true),
            ("app in (db)", false),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>6", true),
            ("n<7", false),
            ("x.io/y=", true),
            ("other notin (a)", true),
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches(&object),
                fits,
                "{text}"
            );
        }
        for bad in ["app in web", "a b", "=x", "a in (b", "a=b c", ",", "n>x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
