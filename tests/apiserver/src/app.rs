//! One API request: who may ask, what is asked, which verb answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::body::Sent;
use crate::calls::Calls;
use crate::registry::{Catalog, Registry};
use crate::request::{Form, Options, Target};
use crate::status::ApiError;
use crate::store::{Key, Store};
use crate::tokens::Tokens;
use crate::view::View;
use crate::{discovery, openapi, read, watch};

/// Everything requests share.
#[derive(Debug)]
pub struct App {
    /// The objects.
    pub store: Store,
    /// The kinds.
    pub registry: Registry,
    /// Cancelled when the server stops: watches end.
    pub stopping: CancellationToken,
    pub(crate) token: String,
    calls: Calls,
    pub(crate) tokens: Tokens,
    /// Held while an object is read, judged and written, so that checks across objects (the namespace exists,
    /// the name is free) still hold when the write happens.
    gate: Mutex<()>,
    /// The namespaces and definitions (collection, key) whose deletion may now go on.
    pub(crate) unfinished: Mutex<BTreeSet<(String, Key)>>,
}

/// The answer to a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) code: StatusCode,
    /// JSON text.
    pub(crate) body: Bytes,
    /// What to warn the client of.
    pub(crate) warnings: Vec<String>,
}

/// One request that writes.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) target: &'a Target,
    pub(crate) options: &'a Options,
    pub(crate) view: &'a View,
    pub(crate) sent: &'a Sent,
}

impl App {
    /// An app over a store whose clients show `token`; serves the custom kinds defined in the store.
    pub(crate) fn new(
        store: Store,
        token: String,
        calls: Calls,
        tokens: Tokens,
    ) -> Result<Self, ApiError> {
        let app = Self {
            store,
            registry: Registry::default(),
            stopping: CancellationToken::new(),
            token,
            calls,
            tokens,
            gate: Mutex::new(()),
            unfinished: Mutex::default(),
        };
        app.alone(|| app.bootstrap())?;
        Ok(app)
    }

    /// Runs a write alone, and then what follows from it.
    pub(crate) fn alone<T>(&self, write: impl FnOnce() -> T) -> T {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let result = write();
        self.finish_deletions();
        result
    }
}

/// Answers any request.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = answer(app, request)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    tracing::debug!(%method, %uri, code = response.status().as_u16(), "request");
    response
}

async fn answer(app: Arc<App>, request: Request) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    if let "/healthz" | "/livez" | "/readyz" = path.as_str() {
        return Ok("ok".into_response());
    }
    if !is_authorized(request.headers(), &app.token) {
        return Err(ApiError::unauthorized());
    }
    let catalog = app.registry.catalog();
    if path == "/openapi/v2" && wants_protobuf_openapi(request.headers()) {
        return Ok(empty_protobuf_openapi());
    }
    if let Some(document) = fixed(&path, &catalog) {
        return match *request.method() {
            Method::GET | Method::HEAD => Ok(json_response(StatusCode::OK, document.to_string())),
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    let target = Target::parse(&path, &catalog).ok_or_else(ApiError::no_resource)?;
    let options = Options::parse(request.uri().query().unwrap_or_default(), &target.resource)?;
    app.calls
        .note(request.method(), request.headers(), &target, options.watch);
    let view = View::new(
        Arc::clone(&target.resource),
        Form::of(request.headers()),
        options.include,
    );
    let reviews = target.resource.kind == "TokenReview" && target.resource.custom.is_none();
    if reviews && request.method() != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    if request.method() == Method::GET {
        return match &target.name {
            None if options.watch => Ok(watch::respond(app, target, options, view)),
            None => Ok(json_response(
                StatusCode::OK,
                read::list(&app.store, &target, &options, &view)?,
            )),
            Some(name) => Ok(json_response(
                StatusCode::OK,
                read::get(&app.store, &target, name, &view)?,
            )),
        };
    }
    let method = request.method().clone();
    let sent = Sent::read(request).await?;
    let call = Call {
        target: &target,
        options: &options,
        view: &view,
        sent: &sent,
    };
    let written = match (method, &target.name) {
        (Method::POST, None) if reviews => app.review_token(&call)?,
        (Method::POST, None) => app.create(&call)?,
        (Method::POST, Some(name)) => app.create_subresource(&call, name)?,
        (Method::PUT, Some(name)) => app.update(&call, name, None)?,
        (Method::PATCH, Some(name)) => {
            app.update(&call, name, Some(sent.patch_format(&target.resource)?))?
        }
        (Method::DELETE, Some(name)) => app.delete(&call, name)?,
        (Method::DELETE, None) => app.delete_collection(&call)?,
        _ => return Err(ApiError::method_not_allowed()),
    };
    let mut response = json_response(written.code, written.body);
    for warning in &written.warnings {
        // Quotes are escaped as RFC 9110 wants them in the warning's text.
        let text = format!(
            "299 - \"{}\"",
            warning.replace('\\', "\\\\").replace('"', "\\\"")
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(response)
}

fn json_response(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn is_authorized(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    shown
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|shown| shown.trim() == token)
}

/// The form in which kubectl wants OpenAPI v2. Versions before 1.29 read it before every apply and fail on JSON,
/// though all they need is in OpenAPI v3.
const PROTOBUF_OPENAPI: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn wants_protobuf_openapi(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("com.github.proto-openapi.spec.v2"))
}

/// No bytes at all are a message without fields.
fn empty_protobuf_openapi() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let content_type = HeaderValue::from_static(PROTOBUF_OPENAPI);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// The documents that do not depend on objects.
fn fixed(path: &str, catalog: &Catalog) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        })),
        ["openapi", "v2"] => Some(openapi::v2(catalog.resources())),
        ["openapi", "v3"] => Some(openapi::index(catalog.resources())),
        ["openapi", "v3", "api", version] => openapi::document("", version, catalog.resources()),
        ["openapi", "v3", "apis", group, version] => {
            openapi::document(group, version, catalog.resources())
        }
        _ => discovery::document(path, catalog),
    }
}
