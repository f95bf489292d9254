//! `Pod`: what a kubelet would stumble over, and what may change in a pod that exists.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::network_policy::{PROTOCOLS, port_number};
use super::{items, meta, names, one_of, require, text};
use crate::field::{FieldError, child, index};

pub(super) fn validate(pod: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &pod["spec"];
    let containers = items(spec, "containers").count();
    if containers == 0 {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let volumes = volumes(spec, errors);
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (position, container) in items(spec, list) {
            let path = index(&child("spec", list), position);
            self::container(container, &path, &volumes, errors);
            if let Some(name) = text(container, "name")
                && !names.insert(name)
            {
                errors.push(FieldError::duplicate(
                    child(&path, "name"),
                    &container["name"],
                ));
            }
        }
    }
    one_of(
        spec,
        "restartPolicy",
        &["Always", "Never", "OnFailure"],
        "spec",
        errors,
    );
    one_of(
        spec,
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        "spec",
        errors,
    );
    meta::labels(&spec["nodeSelector"], "spec.nodeSelector", errors);
    for field in ["nodeName", "serviceAccountName"] {
        if let Some(name) = text(spec, field)
            && let Some(problem) = names::dns_subdomain(name)
        {
            errors.push(FieldError::invalid(
                child("spec", field),
                &spec[field],
                problem,
            ));
        }
    }
    if let Some(grace) = spec["terminationGracePeriodSeconds"].as_i64()
        && grace < 0
    {
        errors.push(FieldError::invalid(
            "spec.terminationGracePeriodSeconds",
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
    for (position, toleration) in items(spec, "tolerations") {
        let path = index("spec.tolerations", position);
        one_of(toleration, "operator", &["Equal", "Exists"], &path, errors);
        one_of(
            toleration,
            "effect",
            &["NoExecute", "NoSchedule", "PreferNoSchedule"],
            &path,
            errors,
        );
        if toleration["operator"] == "Exists" && text(toleration, "value").is_some() {
            errors.push(FieldError::invalid(
                child(&path, "operator"),
                &toleration["operator"],
                "value must be empty when `operator` is 'Exists'",
            ));
        }
    }
    for (position, alias) in items(spec, "hostAliases") {
        address(
            &alias["ip"],
            &format!("spec.hostAliases[{position}].ip"),
            errors,
        );
    }
    for (position, own) in items(&pod["status"], "podIPs") {
        address(&own["ip"], &format!("status.podIPs[{position}].ip"), errors);
    }
    if let Some(old) = old {
        unchanged(spec, &old["spec"], errors);
    }
}

fn address(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let parsed = value.as_str().map(str::parse::<IpAddr>);
    if !matches!(parsed, Some(Ok(_))) {
        errors.push(FieldError::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}

fn volumes<'v>(spec: &'v Value, errors: &mut Vec<FieldError>) -> BTreeSet<&'v str> {
    let mut names = BTreeSet::new();
    for (position, volume) in items(spec, "volumes") {
        let path = child(&index("spec.volumes", position), "name");
        match text(volume, "name") {
            None => errors.push(FieldError::required(path, "")),
            Some(name) => {
                if let Some(problem) = names::dns_label(name) {
                    errors.push(FieldError::invalid(&path, &volume["name"], problem));
                }
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(path, &volume["name"]));
                }
            }
        }
    }
    names
}

fn container(
    container: &Value,
    path: &str,
    volumes: &BTreeSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    require(container, "name", path, errors);
    require(container, "image", path, errors);
    if let Some(name) = text(container, "name")
        && let Some(problem) = names::dns_label(name)
    {
        errors.push(FieldError::invalid(
            child(path, "name"),
            &container["name"],
            problem,
        ));
    }
    one_of(
        container,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        path,
        errors,
    );
    let mut port_names = BTreeSet::new();
    for (position, port) in items(container, "ports") {
        let path = index(&child(path, "ports"), position);
        let at = child(&path, "containerPort");
        match &port["containerPort"] {
            Value::Null => errors.push(FieldError::required(at, "")),
            number => port_number(number, &at, errors),
        }
        if port["hostPort"].as_i64().is_some_and(|n| n != 0) {
            port_number(&port["hostPort"], &child(&path, "hostPort"), errors);
        }
        one_of(port, "protocol", &PROTOCOLS, &path, errors);
        if let Some(name) = text(port, "name") {
            let at = child(&path, "name");
            if let Some(problem) = names::port_name(name) {
                errors.push(FieldError::invalid(at, &port["name"], problem));
            } else if !port_names.insert(name) {
                errors.push(FieldError::duplicate(at, &port["name"]));
            }
        }
    }
    for (position, variable) in items(container, "env") {
        require(
            variable,
            "name",
            &index(&child(path, "env"), position),
            errors,
        );
    }
    for (position, mount) in items(container, "volumeMounts") {
        let path = index(&child(path, "volumeMounts"), position);
        require(mount, "mountPath", &path, errors);
        match text(mount, "name") {
            None => errors.push(FieldError::required(child(&path, "name"), "")),
            Some(name) if !volumes.contains(name) => errors.push(FieldError::invalid(
                child(&path, "name"),
                &mount["name"],
                "must be the name of a volume of the pod",
            )),
            Some(_) => {}
        }
    }
}

/// A pod that exists keeps its spec, but for images, deadlines, tolerations added, and its node being found.
fn unchanged(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if old.is_null() {
        return;
    }
    let kept: Vec<&Value> = items(old, "tolerations").map(|(_, t)| t).collect();
    let now: Vec<&Value> = items(spec, "tolerations").map(|(_, t)| t).collect();
    if !kept.iter().all(|toleration| now.contains(toleration)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    let mut comparable = spec.clone();
    let Some(fields) = comparable.as_object_mut() else {
        return;
    };
    let free = [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ];
    for field in free {
        match old.get(field) {
            Some(before) => fields.insert(field.to_owned(), before.clone()),
            None => fields.shift_remove(field),
        };
    }
    if text(old, "nodeName").is_none() {
        match old.get("nodeName") {
            Some(before) => fields.insert("nodeName".to_owned(), before.clone()),
            None => fields.shift_remove("nodeName"),
        };
    }
    for list in ["containers", "initContainers"] {
        let before: Vec<Value> = items(old, list).map(|(_, c)| c["image"].clone()).collect();
        let Some(now) = fields.get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for (container, image) in now.iter_mut().zip(before) {
            if container.is_object() {
                container["image"] = image;
            }
        }
    }
    if comparable != *old {
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`, \
                 `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to \
                 existing tolerations), `spec.terminationGracePeriodSeconds`; changed: {}",
                changed(&comparable, old)
            ),
        ));
    }
}

fn changed(now: &Value, before: &Value) -> String {
    let empty = serde_json::Map::new();
    let (now, before) = (
        now.as_object().unwrap_or(&empty),
        before.as_object().unwrap_or(&empty),
    );
    let names: BTreeSet<&str> = now
        .keys()
        .chain(before.keys())
        .filter(|name| now.get(*name) != before.get(*name))
        .map(String::as_str)
        .collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}
