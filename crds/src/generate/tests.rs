use std::fs;
use std::path::Path;

use super::*;

#[test]
fn manifests_on_disk_are_what_the_types_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    for manifest in manifests().unwrap() {
        let path = dir.join(&manifest.file);
        let found = fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; run crdgen", path.display()));
        assert!(
            found == manifest.yaml,
            "{} is stale: run crdgen",
            manifest.file
        );
    }
}

#[test]
fn manifests_read_back_as_the_definitions() {
    for (crd, manifest) in all_crds().iter().zip(manifests().unwrap()) {
        let mut want = serde_json::to_value(crd).unwrap();
        write_whole_numbers(&mut want);
        let found: Value = serde_saphyr::from_str(&manifest.yaml).unwrap();
        assert_eq!(found, want, "{}", manifest.file);
    }
}

/// Calls `check` with every schema node and its path.
fn walk(path: &str, schema: &JSONSchemaProps, check: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    check(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), property, check);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        walk(&format!("{path}[]"), item, check);
    }
}

fn for_every_node(check: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for crd in all_crds() {
        for version in &crd.spec.versions {
            let schema = version
                .schema
                .as_ref()
                .unwrap()
                .open_api_v3_schema
                .as_ref()
                .unwrap();
            walk(&crd.spec.names.kind, schema, check);
        }
    }
}

#[test]
fn every_rule_has_a_message() {
    let mut rules = 0;
    for_every_node(&mut |path, schema| {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            rules += 1;
            assert!(
                rule.message.as_ref().is_some_and(|m| m.len() > 20),
                "{path}: {}",
                rule.rule
            );
        }
    });
    assert!(rules >= 15, "only {rules} rules: did the derive drop them?");
}

#[test]
fn every_rule_is_valid_cel() {
    for_every_node(&mut |path, schema| {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            if let Err(error) = cel::Program::compile(&rule.rule) {
                panic!("{path}: {}: {error}", rule.rule);
            }
        }
    });
}

#[test]
fn strings_and_lists_are_bounded() {
    // The API server estimates what a rule may cost from these bounds, and refuses a definition that has none.
    for_every_node(&mut |path, schema| {
        let kind = schema.type_.as_deref();
        let free = schema.enum_.is_some() || schema.format.is_some();
        assert!(
            kind != Some("string") || free || schema.max_length.is_some(),
            "{path} has no maxLength"
        );
        assert!(
            kind != Some("array") || schema.max_items.is_some(),
            "{path} has no maxItems"
        );
    });
}

#[test]
fn schemas_hold_nothing_the_server_warns_about() {
    for_every_node(&mut |path, schema| {
        assert_eq!(schema.nullable, None, "{path}");
        let known = ["int32", "int64", "double", "date-time"].map(Some);
        assert!(
            schema.format.is_none() || known.contains(&schema.format.as_deref()),
            "{path}: format {:?}",
            schema.format
        );
    });
}

#[test]
fn kinds_have_their_scope_status_and_columns() {
    for crd in all_crds() {
        let namespaced = ["NetworkPolicy", "NetworkSet"].contains(&crd.spec.names.kind.as_str());
        let scope = if namespaced { "Namespaced" } else { "Cluster" };
        assert_eq!(crd.spec.scope, scope, "{}", crd.spec.names.kind);
        assert_eq!(crd.spec.group, crate::GROUP);
        for version in &crd.spec.versions {
            assert!(
                version
                    .subresources
                    .as_ref()
                    .is_some_and(|s| s.status.is_some()),
                "{}",
                crd.spec.names.kind
            );
            assert!(
                version
                    .additional_printer_columns
                    .as_ref()
                    .is_some_and(|c| c.len() > 1),
                "{}",
                crd.spec.names.kind
            );
        }
    }
}
