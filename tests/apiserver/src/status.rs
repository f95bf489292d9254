//! Errors as `metav1.Status` objects, worded as the Kubernetes API words them.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::resource::ResourceInfo;

/// An error answer: HTTP code, machine-readable reason, message and details.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `metav1.StatusDetails`; empty if there are none.
    pub details: Map<String, Value>,
}

impl ApiError {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
        }
    }

    fn about(mut self, resource: &ResourceInfo, name: &str, kind: &str) -> Self {
        self.details.insert("name".into(), name.into());
        if !resource.group.is_empty() {
            self.details
                .insert("group".into(), resource.group.as_str().into());
        }
        self.details.insert("kind".into(), kind.into());
        self
    }

    fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = if field.is_empty() {
            json!({"reason": reason, "message": message})
        } else {
            json!({"reason": reason, "message": message, "field": field})
        };
        self.details.insert("causes".into(), json!([cause]));
        self
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// 401: no or a wrong token.
    pub fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    /// 403: `problem` forbids it.
    pub fn forbidden(resource: &ResourceInfo, name: &str, problem: &str) -> Self {
        let message = format!(
            "{} \"{name}\" is forbidden: {problem}",
            qualified(resource, &resource.plural)
        );
        Self::plain(403, "Forbidden", message).about(resource, name, &resource.plural)
    }

    /// 403: nothing may be created in a namespace that is being deleted.
    pub fn terminating(resource: &ResourceInfo, name: &str, namespace: &str) -> Self {
        let problem = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(resource, name, &problem).with_cause(
            "NamespaceTerminating",
            &format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        )
    }

    /// 404: no such path.
    pub fn no_resource() -> Self {
        Self::plain(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 404: no such object.
    pub fn not_found(resource: &ResourceInfo, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" not found",
            qualified(resource, &resource.plural)
        );
        Self::plain(404, "NotFound", message).about(resource, name, &resource.plural)
    }

    /// 404: the object's namespace does not exist.
    pub fn no_namespace(namespace: &str) -> Self {
        let mut error = Self::plain(
            404,
            "NotFound",
            format!("namespaces \"{namespace}\" not found"),
        );
        error.details.insert("name".into(), namespace.into());
        error.details.insert("kind".into(), "namespaces".into());
        error
    }

    /// 405: the path exists, the verb does not.
    pub fn method_not_allowed() -> Self {
        Self::plain(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 409: an object of that name is there.
    pub fn already_exists(resource: &ResourceInfo, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists",
            qualified(resource, &resource.plural)
        );
        Self::plain(409, "AlreadyExists", message).about(resource, name, &resource.plural)
    }

    /// 409: `problem`, usually that the object has changed since it was read.
    pub fn conflict(resource: &ResourceInfo, name: &str, problem: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {problem}",
            qualified(resource, &resource.plural)
        );
        Self::plain(409, "Conflict", message).about(resource, name, &resource.plural)
    }

    /// 409: the object has changed since the client read it.
    pub fn modified(resource: &ResourceInfo, name: &str) -> Self {
        let problem = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, problem)
    }

    /// 410: the history asked for is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::plain(410, "Expired", message)
    }

    /// 415: a patch or body format that is not served.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::plain(415, "UnsupportedMediaType", message)
    }

    /// 422: fields are wrong.
    pub fn invalid(resource: &ResourceInfo, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = if let [only] = texts.as_slice() {
            only.clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!(
            "{} \"{name}\" is invalid: {listed}",
            qualified(resource, &resource.kind)
        );
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| {
                let field = if error.path.is_empty() {
                    "<nil>"
                } else {
                    &error.path
                };
                json!({"reason": error.kind.reason(), "message": error.message(), "field": field})
            })
            .collect();
        let mut error = Self::plain(422, "Invalid", message).about(resource, name, &resource.kind);
        error.details.insert("causes".into(), causes.into());
        error
    }

    /// 500: our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::plain(500, "InternalError", message)
    }

    /// 504: a resourceVersion from the future.
    pub fn too_large_revision(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut error = Self::plain(504, "Timeout", message).with_cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        );
        error.details.insert("retryAfterSeconds".into(), 1.into());
        error
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if !self.details.is_empty() {
            status["details"] = Value::Object(self.details.clone());
        }
        status["code"] = self.code.into();
        status
    }
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(self.to_value().to_string()));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        response
    }
}

/// The `Status` of something done to an object: what DELETE answers.
pub fn success(resource: &ResourceInfo, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    details["kind"] = resource.plural.as_str().into();
    details["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn qualified(resource: &ResourceInfo, word: &str) -> String {
    if resource.group.is_empty() {
        word.to_owned()
    } else {
        format!("{word}.{}", resource.group)
    }
}
