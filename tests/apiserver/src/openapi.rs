//! OpenAPI documents made from the kinds served.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::ResourceInfo;

/// `/openapi/v3`: where the document of each group and version is. `serverRelativeURL` carries a hash of the
/// document, as clients cache by it.
pub fn index(_resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"paths": {}})
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`: `resources` are all that are served, of any group.
/// `None` if nothing is served in that group and version.
pub fn document(_group: &str, _version: &str, _resources: &[Arc<ResourceInfo>]) -> Option<Value> {
    None
}

/// `/openapi/v2`, as small as kubectl allows.
pub fn v2(_resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": {}, "definitions": {}})
}
