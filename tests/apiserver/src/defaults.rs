//! Defaults of the built-in kinds: the fields the real server fills in and clients rely on.

use serde_json::{Value, json};

use crate::clock;

/// Fills in what an object of a built-in kind leaves out; `old` is the object it replaces.
pub(crate) fn apply(object: &mut Value, old: Option<&Value>, kind: &str) {
    match kind {
        "Namespace" => namespace(object, old),
        "Pod" => pod(object, old),
        "Node" => node(object),
        "Service" => service(object),
        "NetworkPolicy" => network_policy(object),
        "EndpointSlice" => each(object, "ports", |port| {
            default(port, "protocol", "TCP");
            default(port, "name", "");
        }),
        "Secret" => secret(object),
        "Role" | "ClusterRole" if object["rules"].is_null() => object["rules"] = json!([]),
        "RoleBinding" | "ClusterRoleBinding" => {
            if let Some(role) = object.get_mut("roleRef").filter(|role| role.is_object()) {
                default(role, "apiGroup", "rbac.authorization.k8s.io");
            }
            each(object, "subjects", |subject| {
                let group = if subject["kind"] == "ServiceAccount" {
                    ""
                } else {
                    "rbac.authorization.k8s.io"
                };
                default(subject, "apiGroup", group);
            });
        }
        _ => {}
    }
}

/// Says in a pod's status that it has a node.
pub(crate) fn scheduled(pod: &mut Value) {
    let mut conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": clock::timestamp(),
    }));
    pod["status"]["conditions"] = conditions.into();
}

fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object[field].is_null() {
        object[field] = value.into();
    }
}

/// Changes the objects of the list `field`, if there is one.
fn each(object: &mut Value, field: &str, change: impl Fn(&mut Value)) {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    for item in list.into_iter().flatten().filter(|item| item.is_object()) {
        change(item);
    }
}

fn namespace(object: &mut Value, old: Option<&Value>) {
    let name = object["metadata"]["name"].clone();
    // Policies select namespaces by this label, so it is always there and always right.
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    if old.is_none() {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }
}

fn pod(object: &mut Value, old: Option<&Value>) {
    if !object["spec"].is_object() {
        return;
    }
    let spec = &mut object["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
        ("serviceAccountName", json!("default")),
        ("enableServiceLinks", json!(true)),
    ] {
        default(spec, field, value);
    }
    for field in ["containers", "initContainers"] {
        each(spec, field, container);
    }
    if old.is_none() {
        object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
        if object["spec"]["nodeName"].is_string() {
            scheduled(object);
        }
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let is_latest =
        !image.rsplit('/').next().unwrap_or_default().contains(':') || image.ends_with(":latest");
    let policy = if is_latest && !image.contains('@') {
        "Always"
    } else {
        "IfNotPresent"
    };
    default(container, "imagePullPolicy", policy);
    default(container, "resources", json!({}));
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| default(port, "protocol", "TCP"));
}

fn node(object: &mut Value) {
    default(object, "spec", json!({}));
    let capacity = object["status"]["capacity"].clone();
    if !capacity.is_null() {
        default(&mut object["status"], "allocatable", capacity);
    } else if object["status"].is_null() {
        object["status"] = json!({});
    }
}

fn service(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    let spec = &mut object["spec"];
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    each(spec, "ports", |port| {
        default(port, "protocol", "TCP");
        let number = port["port"].clone();
        default(port, "targetPort", number);
    });
    default(spec, "internalTrafficPolicy", "Cluster");
    default(object, "status", json!({"loadBalancer": {}}));
}

fn network_policy(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    let spec = &mut object["spec"];
    default(spec, "podSelector", json!({}));
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let has_egress = spec["egress"]
            .as_array()
            .is_some_and(|rules| !rules.is_empty());
        spec["policyTypes"] = if has_egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| {
            each(rule, "ports", |port| default(port, "protocol", "TCP"))
        });
    }
}

fn secret(object: &mut Value) {
    default(object, "type", "Opaque");
    // stringData is write-only: it goes into data, encoded.
    let Some(plain) = object
        .as_object_mut()
        .and_then(|fields| fields.shift_remove("stringData"))
    else {
        return;
    };
    for (name, value) in plain.as_object().into_iter().flatten() {
        object["data"][name] =
            crate::base64::encode(value.as_str().unwrap_or_default().as_bytes()).into();
    }
}
