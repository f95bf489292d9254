//! The definitions of the kinds and the manifests under deploy/crds, made from the types so that they cannot drift.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::{Number, Value};

use crate::{
    BGPConfiguration, BGPFilter, BGPPeer, FelixConfiguration, GlobalNetworkPolicy,
    GlobalNetworkSet, HostEndpoint, IPAMBlock, IPAMConfiguration, IPPool, NetworkPolicy,
    NetworkSet, Tier,
};

/// One manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the file: `margay.io_ippools.yaml`.
    pub file: String,
    /// Its whole content.
    pub yaml: String,
}

/// Why a definition cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Not representable as JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not representable as YAML.
    #[error("{0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The definitions of every kind, in the order of their names.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        BGPConfiguration::crd(),
        BGPFilter::crd(),
        BGPPeer::crd(),
        FelixConfiguration::crd(),
        GlobalNetworkPolicy::crd(),
        GlobalNetworkSet::crd(),
        HostEndpoint::crd(),
        IPAMBlock::crd(),
        IPAMConfiguration::crd(),
        IPPool::crd(),
        NetworkPolicy::crd(),
        NetworkSet::crd(),
        Tier::crd(),
    ];
    crds.iter_mut().for_each(tidied);
    crds
}

/// Removes from a definition what is for Rust's sake only.
pub(crate) fn tidied(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        if let Some(schema) = schema.and_then(|it| it.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
}

/// Every manifest, the same bytes each time.
pub fn manifests() -> Result<Vec<Manifest>, GenerateError> {
    all_crds().iter().map(manifest).collect()
}

fn manifest(crd: &CustomResourceDefinition) -> Result<Manifest, GenerateError> {
    let mut value = serde_json::to_value(crd)?;
    write_whole_numbers(&mut value);
    let yaml = serde_saphyr::to_string(&value)?;
    Ok(Manifest {
        file: format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural),
        yaml: format!(
            "# Written by crdgen from the crate crds: change the types, then run crdgen.\n{yaml}"
        ),
    })
}

/// Removes what the derived schema says for Rust's sake only: integer formats OpenAPI does not define, which the API
/// server warns about, and `nullable`, under which a CEL rule would have to expect null wherever it finds a field.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.format = schema
        .format
        .take()
        .filter(|format| !format.starts_with("uint"));
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|map| map.values_mut())
    {
        tidy(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => tidy(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
}

/// Bounds are floating-point in the definition's type; `maximum: 65535` reads better than `65535.0`.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) => {
            let text = number.to_string();
            if let Some(whole) = text
                .strip_suffix(".0")
                .and_then(|whole| whole.parse::<i64>().ok())
            {
                *number = Number::from(whole);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
