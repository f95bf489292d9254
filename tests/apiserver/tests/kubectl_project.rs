//! The project's own definitions and policies through real kubectl: what people see of a mistake, of a table, of
//! the documentation.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use common::{Api, Kubectl, eventually};
use serde_json::{Value, json};

async fn project(api: &Api) -> Kubectl {
    let kubectl = api.kubectl();
    for definition in crds::all_crds() {
        kubectl.apply(&json!(definition)).await.unwrap();
    }
    eventually("the kinds are served", async || {
        let kinds = kubectl
            .ok("api-resources --api-group=margay.io -o name")
            .await;
        (kinds.lines().count() == crds::all_crds().len()).then_some(())
    })
    .await;
    kubectl
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "margay.io/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
}

fn policy(rule: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"podSelector": {}, "ingress": [rule]}})
}

#[tokio::test]
async fn a_bad_custom_object_is_refused_at_apply_by_field() {
    let api = Api::start().await;
    let kubectl = project(&api).await;
    for (spec, words) in [
        (
            json!({"cidr": "banana"}),
            "spec.cidr: Invalid value: \"banana\": ",
        ),
        (json!({"cidr": "10.0.0.1/8"}), "spec.cidr: Invalid value"),
        (json!({"cidr": 8}), "spec.cidr: Invalid value"),
        (json!({}), "spec.cidr: Required value"),
        (
            json!({"cidr": "10.0.0.0/8", "blokSize": 26}),
            "unknown field \"spec.blokSize\"",
        ),
    ] {
        let error = kubectl.apply(&pool("bad", spec.clone())).await.unwrap_err();
        assert!(error.contains(words), "{spec}: {error}");
    }
    assert!(kubectl.fails("get ippool bad").await.contains("not found"));
}

#[tokio::test]
async fn what_cannot_change_is_refused_by_every_patch() {
    let api = Api::start().await;
    let kubectl = project(&api).await;
    kubectl
        .apply(&pool("p", json!({"cidr": "10.0.0.0/8"})))
        .await
        .unwrap();
    for patch in [
        r#"patch ippool p --type merge -p '{"spec":{"cidr":"11.0.0.0/8"}}'"#,
        r#"patch ippool p --type json -p '[{"op":"replace","path":"/spec/cidr","value":"11.0.0.0/8"}]'"#,
    ] {
        let error = kubectl.fails(patch).await;
        assert!(
            error.contains("spec.cidr: Invalid value") && error.contains("cannot change"),
            "{error}"
        );
    }
    let error = kubectl
        .apply(&pool("p", json!({"cidr": "11.0.0.0/8"})))
        .await
        .unwrap_err();
    assert!(error.contains("cannot change"), "{error}");
    kubectl
        .ok(r#"patch ippool p --type merge -p '{"spec":{"disabled":true}}'"#)
        .await;
    assert_eq!(
        kubectl
            .ok("get ippool p -o jsonpath={.spec.disabled}")
            .await,
        "true"
    );
}

#[tokio::test]
async fn tables_and_documentation_are_those_of_the_definition() {
    let api = Api::start().await;
    let kubectl = project(&api).await;
    kubectl
        .apply(&pool("p", json!({"cidr": "10.0.0.0/8", "blockSize": 26})))
        .await
        .unwrap();
    let table = kubectl.ok("get ippools").await;
    let mut lines = table.lines();
    let heads: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(heads.first(), Some(&"NAME"));
    assert!(heads.contains(&"CIDR") && heads.contains(&"AGE"), "{table}");
    assert!(lines.next().unwrap().contains("10.0.0.0/8"), "{table}");
    let explained = kubectl.ok("explain ippool.spec").await;
    assert!(
        explained.contains("cidr\t<string> -required-"),
        "{explained}"
    );
    let explained = kubectl
        .ok("explain networkpolicy.spec.ingress.ports.port")
        .await;
    assert!(explained.contains("<IntOrString>"), "{explained}");
}

#[tokio::test]
async fn a_wrong_policy_is_refused_by_field() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    for (rule, words) in [
        (
            json!({"ports": [{"port": 90, "endPort": 80}]}),
            "spec.ingress[0].ports[0].endPort: Invalid value: 80",
        ),
        (
            json!({"ports": [{"port": 90, "endport": 99}]}),
            "unknown field \"spec.ingress[0].ports[0].endport\"",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            json!({"from": [{}]}),
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ),
    ] {
        let error = kubectl.apply(&policy(rule.clone())).await.unwrap_err();
        assert!(error.contains(words), "{rule}: {error}");
    }
    kubectl
        .apply(&policy(json!({"ports": [{"port": 80, "endPort": 90}]})))
        .await
        .unwrap();
    let types = kubectl
        .ok("get netpol p -o jsonpath={.spec.policyTypes}{.spec.ingress[0].ports[0].protocol}")
        .await;
    assert_eq!(types, "[\"Ingress\"]TCP");
}
