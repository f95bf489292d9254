//! What a client sent: objects as JSON or YAML, patches, options of a deletion.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use serde_json::Value;

use crate::resource::ResourceInfo;
use crate::status::ApiError;
use crate::{patch, protobuf};

/// Bodies above this are refused.
const LIMIT: usize = 8 << 20;

/// A request's body.
#[derive(Debug)]
pub(crate) struct Sent {
    content_type: String,
    bytes: Bytes,
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchFormat {
    Json,
    Merge,
    Strategic,
}

/// `DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl Sent {
    pub(crate) async fn read(request: Request) -> Result<Self, ApiError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type = content_type
            .and_then(|value| value.split(';').next())
            .unwrap_or_default();
        let content_type = content_type.trim().to_ascii_lowercase();
        let bytes = to_bytes(request.into_body(), LIMIT)
            .await
            .map_err(|error| {
                ApiError::bad_request(format!(
                    "cannot read the request's body (at most {LIMIT} bytes): {error}"
                ))
            })?;
        Ok(Self {
            content_type,
            bytes,
        })
    }

    /// The body as a JSON object.
    pub(crate) fn object(&self) -> Result<Value, ApiError> {
        let value = match self.content_type.as_str() {
            "" | "application/json" => self.json()?,
            "application/yaml" => {
                let parsed = std::str::from_utf8(&self.bytes).map_err(|error| error.to_string());
                parsed
                    .and_then(|text| {
                        serde_saphyr::from_str(text).map_err(|error| error.to_string())
                    })
                    .map_err(|error| {
                        ApiError::bad_request(format!("error decoding YAML: {error}"))
                    })?
            }
            "application/vnd.kubernetes.protobuf" => {
                protobuf::decode(&self.bytes).map_err(|problem| {
                    ApiError::unsupported_media_type(format!(
                        "cannot read this object from protobuf ({problem}): send application/json"
                    ))
                })?
            }
            other => {
                return Err(ApiError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format ({other}) - accepted media types include: \
                     application/json, application/yaml"
                )));
            }
        };
        if !value.is_object() {
            return Err(ApiError::bad_request(
                "the body of the request is not an object",
            ));
        }
        Ok(value)
    }

    fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding JSON: {error}")))
    }

    /// Which kind of patch this is, as far as it is served for the kind.
    pub(crate) fn patch_format(&self, resource: &ResourceInfo) -> Result<PatchFormat, ApiError> {
        match self.content_type.as_str() {
            "application/json-patch+json" => Ok(PatchFormat::Json),
            "application/merge-patch+json" => Ok(PatchFormat::Merge),
            "application/strategic-merge-patch+json" if resource.custom.is_none() => {
                Ok(PatchFormat::Strategic)
            }
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(ApiError::unsupported_media_type(
                    "server-side apply is not served here: use kubectl apply without --server-side, or a merge patch",
                ))
            }
            other => {
                let strategic = if resource.custom.is_none() {
                    ", application/strategic-merge-patch+json"
                } else {
                    ""
                };
                Err(ApiError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format ({other}) - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json{strategic}"
                )))
            }
        }
    }

    /// What `target` becomes by this patch.
    pub(crate) fn patched(
        &self,
        format: PatchFormat,
        resource: &ResourceInfo,
        target: &Value,
    ) -> Result<Value, ApiError> {
        let patch = self.json()?;
        match format {
            PatchFormat::Json => patch::apply_json(target, &patch),
            PatchFormat::Merge => patch::apply_merge(target, &patch),
            PatchFormat::Strategic => patch::apply_strategic(&resource.kind, target, &patch),
        }
        .map_err(ApiError::bad_request)
    }

    /// The options of a deletion; `grace_period` and `dry_run` are those of the query.
    pub(crate) fn delete_options(
        &self,
        grace_period: Option<i64>,
        dry_run: bool,
    ) -> Result<DeleteOptions, ApiError> {
        let body = if self.bytes.is_empty() {
            Value::Null
        } else {
            self.object()?
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let conditions = &body["preconditions"];
        Ok(DeleteOptions {
            grace_period: body["gracePeriodSeconds"].as_i64().or(grace_period),
            uid: text(&conditions["uid"]),
            resource_version: text(&conditions["resourceVersion"]),
            dry_run: dry_run
                || body["dryRun"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|item| item == "All")),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(content_type: &str, text: &'static str) -> Sent {
        Sent {
            content_type: content_type.to_owned(),
            bytes: Bytes::from_static(text.as_bytes()),
        }
    }

    #[test]
    fn reads_json_and_yaml() {
        let want = json!({"kind": "Pod", "spec": {"on": true, "ports": [80], "text": "80"}});
        let yaml = "kind: Pod\nspec:\n  on: true\n  ports: [80]\n  text: \"80\"\n";
        assert_eq!(sent("application/yaml", yaml).object().unwrap(), want);
        let json = r#"{"kind": "Pod", "spec": {"on": true, "ports": [80], "text": "80"}}"#;
        assert_eq!(sent("application/json", json).object().unwrap(), want);
        for (content_type, text, code) in [
            ("application/json", "{", 400),
            ("application/json", "[]", 400),
            ("application/yaml", "a: [", 400),
            ("text/plain", "{}", 415),
            ("application/vnd.kubernetes.protobuf", "k8s", 415),
        ] {
            assert_eq!(
                sent(content_type, text).object().unwrap_err().code,
                code,
                "{content_type} {text}"
            );
        }
    }

    #[test]
    fn deletion_takes_options_from_body_and_query() {
        let body = r#"{"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "dryRun": ["All"]}"#;
        let options = sent("application/json", body)
            .delete_options(Some(5), false)
            .unwrap();
        assert_eq!(
            (
                options.grace_period,
                options.uid.as_deref(),
                options.dry_run
            ),
            (Some(0), Some("u"), true)
        );
        let options = sent("", "").delete_options(Some(5), false).unwrap();
        assert_eq!(
            (options.grace_period, options.uid, options.dry_run),
            (Some(5), None, false)
        );
    }
}
