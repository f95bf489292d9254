//! Tokens of service accounts: `serviceaccounts/token` makes them, a TokenReview says whose they are. They are for telling
//! others who one is; this server itself takes the admin's token only.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{App, Call, Written};
use crate::field::{FieldError, FieldErrorKind};
use crate::status::ApiError;
use crate::store::Key;
use crate::{clock, random};

/// Who a token is for if it does not say.
const DEFAULT_AUDIENCE: &str = "https://kubernetes.default.svc";
/// Seconds a token lives: the shortest, the usual, the longest.
const LIVES: [i64; 3] = [600, 3600, 1 << 32];

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    token: String,
    namespace: String,
    account: String,
    account_uid: String,
    audiences: Vec<String>,
    /// Seconds since 1970.
    expires: i64,
    /// The object it is good as long as: kind, name, uid.
    bound: Option<(String, String, String)>,
}

/// Every token made, also before the server was last started.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<(HashMap<String, Claims>, Option<File>)>);

impl Tokens {
    /// Those of a file, and room for more; only its owner reads it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        let text = std::fs::read_to_string(path)?;
        let known = text.lines().map(serde_json::from_str::<Claims>);
        let known: Result<Vec<Claims>, _> = known.collect();
        let known = known.map_err(io::Error::other)?.into_iter();
        let known = known.map(|it| (it.token.clone(), it)).collect();
        Ok(Self(Mutex::new((known, Some(file)))))
    }

    fn keep(&self, claims: Claims) -> io::Result<()> {
        let (known, file) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file {
            writeln!(file, "{}", serde_json::to_string(&claims)?)?;
        }
        known.insert(claims.token.clone(), claims);
        Ok(())
    }

    fn find(&self, token: &str) -> Option<Claims> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.get(token).cloned()
    }
}

fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn created(body: &Value) -> Written {
    Written {
        code: StatusCode::CREATED,
        body: Bytes::from(body.to_string()),
        warnings: Vec::new(),
    }
}

impl App {
    /// Makes a token of a service account.
    pub(crate) fn make_token(&self, call: &Call<'_>, name: &str) -> Result<Written, ApiError> {
        let resource = &call.target.resource;
        let mut request = call.sent.object()?;
        let namespace = call.target.namespace();
        let account = self
            .store
            .get("serviceaccounts", &Key::new(namespace, name));
        let account = account.ok_or_else(|| ApiError::not_found(resource, name))?;
        let spec = &request["spec"];
        let [shortest, usual, longest] = LIVES;
        let lives = spec["expirationSeconds"].as_i64().unwrap_or(usual);
        let mut errors = Vec::new();
        if !(shortest..=longest).contains(&lives) {
            errors.push(FieldError::invalid(
                "spec.expirationSeconds",
                &spec["expirationSeconds"],
                "may not be less than 10 minutes nor more than 2^32 seconds",
            ));
        }
        let audiences = match texts(&spec["audiences"]) {
            none if none.is_empty() => vec![DEFAULT_AUDIENCE.to_owned()],
            some => some,
        };
        let bound = &spec["boundObjectRef"];
        let bound = if bound.is_object() {
            let text = |field: &str| bound[field].as_str().unwrap_or_default();
            let (kind, at) = (text("kind"), text("name"));
            if !["Pod", "Node"].contains(&kind) {
                let path = "spec.boundObjectRef.kind";
                errors.push(FieldError::not_supported(
                    path,
                    &bound["kind"],
                    &["Node", "Pod"],
                ));
            }
            if at.is_empty() {
                let path = "spec.boundObjectRef.name";
                errors.push(FieldError::new(path, FieldErrorKind::Required, None, ""));
            }
            Some((kind.to_owned(), at.to_owned(), text("uid").to_owned()))
        } else {
            None
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource, name, &errors));
        }
        let bound = match bound {
            None => None,
            Some((kind, at, uid)) => {
                let object = self.bound(namespace, &kind, &at);
                let object = object.ok_or_else(|| ApiError::not_found(resource, &at))?;
                if !uid.is_empty() && uid != uid_of(&object) {
                    let problem =
                        "the UID in the bound object reference does not match the UID in record";
                    return Err(ApiError::conflict(resource, name, problem));
                }
                let uid = uid_of(&object).to_owned();
                Some((kind, at, uid))
            }
        };
        let claims = Claims {
            token: random::hex(32),
            namespace: namespace.to_owned(),
            account: name.to_owned(),
            account_uid: uid_of(&account.value).to_owned(),
            audiences: audiences.clone(),
            expires: clock::now().saturating_add(lives),
            bound,
        };
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = json!(lives);
        request["status"] = json!({
            "token": claims.token, "expirationTimestamp": clock::format(claims.expires),
        });
        if !call.options.dry_run {
            let kept = self.tokens.keep(claims);
            kept.map_err(|error| ApiError::bad_request(format!("the token is not kept: {error}")))?;
        }
        Ok(created(&request))
    }

    fn bound(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let (collection, key) = match kind {
            "Pod" => ("pods", Key::new(namespace, name)),
            _ => ("nodes", Key::new("", name)),
        };
        let found = self.store.get(collection, &key)?;
        Some(found.value.clone())
    }

    /// Says whose token it is.
    pub(crate) fn review_token(&self, call: &Call<'_>) -> Result<Written, ApiError> {
        let mut review = call.sent.object()?;
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            let problem = "token is required for TokenReview in authentication";
            return Err(ApiError::bad_request(problem));
        }
        let asked = texts(&review["spec"]["audiences"]);
        let status = self.whose(token, &asked);
        review["status"] = status.unwrap_or_else(|problem| json!({ "user": {}, "error": problem }));
        Ok(created(&review))
    }

    fn whose(&self, token: &str, asked: &[String]) -> Result<Value, &'static str> {
        if token == self.token {
            let groups = ["system:masters", "system:authenticated"];
            let user = json!({ "username": "admin", "groups": groups });
            return match asked.iter().any(|it| it != DEFAULT_AUDIENCE) {
                true => Err("token audiences do not match"),
                false => Ok(json!({ "authenticated": true, "user": user })),
            };
        }
        let claims = self.tokens.find(token).ok_or("invalid bearer token")?;
        if claims.expires <= clock::now() {
            return Err("service account token has expired");
        }
        let key = Key::new(&claims.namespace, &claims.account);
        let account = self.store.get("serviceaccounts", &key);
        if account.is_none_or(|it| uid_of(&it.value) != claims.account_uid) {
            return Err("the service account is not there any more");
        }
        let default = [DEFAULT_AUDIENCE.to_owned()];
        let asked = if asked.is_empty() { &default } else { asked };
        let common: Vec<&String> = asked
            .iter()
            .filter(|it| claims.audiences.contains(it))
            .collect();
        if common.is_empty() {
            return Err("token audiences do not match");
        }
        let mut extra = json!({});
        if let Some((kind, name, uid)) = &claims.bound {
            let object = self.bound(&claims.namespace, kind, name);
            let object = object.filter(|it| uid_of(it) == uid);
            let object =
                object.ok_or("the object that the token is bound to is not there any more")?;
            let what = kind.to_lowercase();
            extra[format!("authentication.kubernetes.io/{what}-name")] = json!([name]);
            extra[format!("authentication.kubernetes.io/{what}-uid")] = json!([uid]);
            if let (Some(node), "Pod") = (object["spec"]["nodeName"].as_str(), kind.as_str()) {
                extra["authentication.kubernetes.io/node-name"] = json!([node]);
            }
        }
        let Claims {
            namespace,
            account,
            account_uid,
            ..
        } = &claims;
        Ok(json!({
            "authenticated": true,
            "audiences": common,
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "uid": account_uid,
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated",
                ],
                "extra": extra,
            },
        }))
    }
}
