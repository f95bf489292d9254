use serde_json::{Value, json};

use super::super::validate;
use super::{errors, has};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
}

#[test]
fn a_pod_needs_what_a_kubelet_needs() {
    for (spec, start) in [
        (json!({}), "spec.containers: Required value"),
        (
            json!({"containers": [{}]}),
            "spec.containers[0].name: Required value",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({"containers": [{"name": "A", "image": "i"}]}),
            "spec.containers[0].name: Invalid value: \"A\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 0}]}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 0: must be between 1 and 65535",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 65536}]}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 65536",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{}]}]}),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "protocol": "tcp"}]}]}),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]}]}),
            "spec.containers[0].ports[1].name: Duplicate value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "name": "Http"}]}]}),
            "spec.containers[0].ports[0].name: Invalid value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "env": [{}]}]}),
            "spec.containers[0].env[0].name: Required value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}),
            "spec.containers[0].volumeMounts[0].name: Invalid value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "hostAliases": [{"ip": "x"}]}),
            "spec.hostAliases[0].ip: Invalid value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "tolerations": [{"operator": "Maybe"}]}),
            "spec.tolerations[0].operator: Unsupported value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "volumes": [{"name": "v"}, {"name": "v"}]}),
            "spec.volumes[1].name: Duplicate value",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "terminationGracePeriodSeconds": -1}),
            "spec.terminationGracePeriodSeconds: Invalid value",
        ),
    ] {
        let found = errors("Pod", pod(spec.clone()));
        assert!(has(&found, start), "{spec}: {found:?}");
    }
    let fine = json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
        "volumeMounts": [{"name": "v", "mountPath": "/x"}]}], "volumes": [{"name": "v", "emptyDir": {}}], "nodeName": "n1"});
    assert_eq!(errors("Pod", pod(fine)), Vec::<String>::new());
}

#[test]
fn a_pods_spec_stays_but_for_a_few_fields() {
    let old =
        pod(json!({"containers": [{"name": "a", "image": "i:1"}], "tolerations": [{"key": "k"}]}));
    let change = |path: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(path.rsplit_once('/').unwrap().0)
            .and_then(|parent| match parent {
                Value::Object(fields) => Some(
                    fields
                        .entry(path.rsplit_once('/').unwrap().1)
                        .or_insert(Value::Null),
                ),
                Value::Array(items) => items.get_mut(0),
                _ => None,
            })
            .unwrap() = value;
        validate("Pod", &new, Some(&old))
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    for (path, value) in [
        ("/spec/containers/0/image", json!("i:2")),
        ("/spec/activeDeadlineSeconds", json!(5)),
        ("/spec/tolerations", json!([{"key": "k"}, {"key": "l"}])),
        ("/spec/nodeName", json!("n1")),
        ("/metadata/labels", json!({"a": "b"})),
        (
            "/status",
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
        ),
    ] {
        assert_eq!(change(path, value), Vec::<String>::new(), "{path}");
    }
    for (path, value, start) in [
        (
            "/spec/hostNetwork",
            json!(true),
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        ("/spec/containers/0/name", json!("b"), "spec: Forbidden"),
        (
            "/spec/containers",
            json!([{"name": "a", "image": "i:1"}, {"name": "b", "image": "i"}]),
            "spec: Forbidden",
        ),
        (
            "/spec/tolerations",
            json!([]),
            "spec.tolerations: Forbidden",
        ),
        (
            "/status",
            json!({"podIPs": [{"ip": "10.0.0"}]}),
            "status.podIPs[0].ip: Invalid value",
        ),
    ] {
        let found = change(path, value);
        assert!(has(&found, start), "{path}: {found:?}");
    }
    let mut bound = old.clone();
    bound["spec"]["nodeName"] = "n1".into();
    let mut moved = bound.clone();
    moved["spec"]["nodeName"] = "n2".into();
    assert!(
        validate("Pod", &moved, Some(&bound))[0]
            .to_string()
            .ends_with("changed: nodeName")
    );
}
