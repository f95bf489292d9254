//! OpenAPI v3 documents of everything served.

use serde_json::{Value, json};

use crate::resource::ResourceInfo;

/// The body of `/openapi/v3`: one entry per group version.
pub fn index(_resources: &[&ResourceInfo]) -> Value {
    json!({"paths": {}})
}

/// The document of one group version, `/openapi/v3/apis/{group}/{version}` or `/openapi/v3/api/v1`.
/// `None` when nothing of it is served.
pub fn document(_resources: &[&ResourceInfo], _group: &str, _version: &str) -> Option<Value> {
    None
}
