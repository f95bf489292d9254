use proptest::prelude::*;

use super::*;
use crate::registry::Registry;

fn resource(group: &str, plural: &str) -> std::sync::Arc<ResourceInfo> {
    std::sync::Arc::clone(
        Registry::default()
            .catalog()
            .find(group, "v1", plural)
            .unwrap(),
    )
}

#[test]
fn objects_for_another_path_are_refused() {
    let pods = resource("", "pods");
    let refused = |object: Value, namespace: Option<&str>| {
        let mut object = object;
        identify(&mut object, &pods, namespace).unwrap_err()
    };
    let error = refused(json!({"kind": "Service", "apiVersion": "v1"}), Some("x"));
    assert!(
        error.message.contains("cannot be handled as a Pod"),
        "{error}"
    );
    refused(json!({"kind": "Pod", "apiVersion": "v2"}), Some("x"));
    refused(json!({"metadata": {"namespace": "y"}}), Some("x"));
    refused(json!({"metadata": []}), Some("x"));
    let mut object = json!({"spec": {}, "metadata": {"name": "a", "managedFields": []}});
    identify(&mut object, &pods, Some("x")).unwrap();
    assert_eq!(
        object.to_string(),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"x"},"spec":{}}"#
    );
}

#[test]
fn a_client_writes_only_what_is_its_own() {
    let pods = resource("", "pods");
    let old = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "uid": "u", "generation": 3, "resourceVersion": "9"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
    });
    let sent = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "uid": "other", "labels": {"a": "b"}, "deletionTimestamp": "never"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Failed"},
    });
    let mut object = sent.clone();
    succeed(&mut object, &old, &pods, None);
    assert_eq!(object["status"]["phase"], "Running");
    assert_eq!(
        (
            &object["metadata"]["uid"],
            &object["metadata"]["generation"]
        ),
        (&json!("u"), &json!(3))
    );
    assert_eq!(object["metadata"]["labels"]["a"], "b");
    assert!(object["metadata"].get("deletionTimestamp").is_none());

    let mut object = sent;
    object["spec"]["nodeName"] = "n2".into();
    let mut status = object.clone();
    succeed(&mut object, &old, &pods, None);
    count(&mut object, &old, &pods);
    assert_eq!(object["metadata"]["generation"], 4);
    succeed(&mut status, &old, &pods, Some("status"));
    count(&mut status, &old, &pods);
    assert_eq!(
        (&status["status"]["phase"], &status["spec"]["nodeName"]),
        (&json!("Failed"), &json!("n1"))
    );
    assert_eq!(status["metadata"]["generation"], 3);
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/.%\"]{0,6}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "name",
        "namespace",
        "labels",
        "finalizers",
        "containers",
        "ports",
        "policyTypes",
        "ingress",
        "egress",
        "rules",
        "names",
        "versions",
        "schema",
        "kind",
        "plural",
        "group",
        "conditions",
        "capacity",
        "nodeName",
        "subjects",
    ]);
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_is_too_odd(
        at in any::<prop::sample::Index>(),
        parts in prop::collection::vec((prop::sample::select(vec![
            "metadata", "spec", "status", "data", "stringData", "rules", "subjects", "roleRef", "ports",
        ]), anything()), 0..6),
        old in anything(),
        subresource in prop::sample::select(vec![None, Some("status"), Some("finalize")]),
    ) {
        let catalog = Registry::default().catalog();
        let resource = at.get(catalog.resources());
        let mut object = Value::Object(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let namespace = resource.namespaced.then_some("x");
        let mut before = json!({"metadata": {"name": "a"}, "spec": old, "status": old});
        if identify(&mut object, resource, namespace).is_ok() && identify(&mut before, resource, namespace).is_ok() {
            let mut next = object.clone();
            begin(&mut object, resource, "uid".to_owned());
            let _judged = judge(&mut object, None, resource);
            succeed(&mut next, &before, resource, subresource);
            let _judged = judge(&mut next, Some(&before), resource);
            count(&mut next, &before, resource);
        }
    }
}
