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
