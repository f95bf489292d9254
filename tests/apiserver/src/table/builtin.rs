//! The columns of the built-in kinds.

use serde_json::Value;

use super::{Cell, Column, age, plain, pod};

type Make = fn(&Value, i64) -> Value;

/// The columns of a kind; name and age for those that have none of their own.
pub(super) fn columns(kind: &str) -> Vec<Column<'static>> {
    let mut columns = match kind {
        "Event" => Vec::new(),
        _ => vec![name()],
    };
    let shown: &[(&'static str, Make)] = match kind {
        "Pod" => &[
            ("Ready", pod::ready),
            ("Status", pod::status),
            ("Restarts", pod::restarts),
            ("Age", created),
        ],
        "Node" => &[
            ("Status", node_status),
            ("Roles", node_roles),
            ("Age", created),
            ("Version", |node, _| {
                text(&node["status"]["nodeInfo"]["kubeletVersion"], "")
            }),
        ],
        "Namespace" => &[
            ("Status", |object, _| text(&object["status"]["phase"], "")),
            ("Age", created),
        ],
        "Service" => &[
            ("Type", |service, _| text(&service["spec"]["type"], "")),
            ("Cluster-IP", |service, _| {
                text(&service["spec"]["clusterIP"], NONE)
            }),
            ("External-IP", external_ip),
            ("Port(s)", service_ports),
            ("Age", created),
        ],
        "EndpointSlice" => &[
            ("AddressType", |slice, _| text(&slice["addressType"], "")),
            ("Ports", |slice, _| {
                joined(items(&slice["ports"]), |port| {
                    text(&port["port"], "*").into_string()
                })
            }),
            ("Endpoints", |slice, _| {
                let addresses: Vec<Value> = items(&slice["endpoints"])
                    .iter()
                    .flat_map(|endpoint| items(&endpoint["addresses"]).to_vec())
                    .collect();
                joined(&addresses, plain)
            }),
            ("Age", created),
        ],
        "ConfigMap" => &[("Data", data_size), ("Age", created)],
        "Secret" => &[
            ("Type", |secret, _| text(&secret["type"], "")),
            ("Data", data_size),
            ("Age", created),
        ],
        "ServiceAccount" => &[
            ("Secrets", |account, _| {
                items(&account["secrets"]).len().into()
            }),
            ("Age", created),
        ],
        "Event" => &[
            ("Last Seen", last_seen),
            ("Type", |event, _| text(&event["type"], "")),
            ("Reason", |event, _| text(&event["reason"], "")),
            ("Object", event_object),
            ("Message", event_message),
        ],
        "Lease" => &[
            ("Holder", |lease, _| {
                text(&lease["spec"]["holderIdentity"], "")
            }),
            ("Age", created),
        ],
        "NetworkPolicy" => &[("Pod-Selector", pod_selector), ("Age", created)],
        "CustomResourceDefinition" | "Role" | "ClusterRole" => &[("Created At", |object, _| {
            text(&object["metadata"]["creationTimestamp"], "")
        })],
        "RoleBinding" | "ClusterRoleBinding" => &[
            ("Role", |binding, _| {
                let role = &binding["roleRef"];
                let (kind, name) = (plain(&role["kind"]), plain(&role["name"]));
                format!("{kind}/{name}").into()
            }),
            ("Age", created),
        ],
        _ => &[("Age", created)],
    };
    let wide: &[(&'static str, Make)] = match kind {
        "Pod" => &[
            ("IP", pod::ip),
            ("Node", |pod, _| text(&pod["spec"]["nodeName"], NONE)),
            ("Nominated Node", |pod, _| {
                text(&pod["status"]["nominatedNodeName"], NONE)
            }),
            ("Readiness Gates", pod::readiness_gates),
        ],
        "Node" => &[
            ("Internal-IP", |node, _| address(node, "InternalIP")),
            ("External-IP", |node, _| address(node, "ExternalIP")),
            ("OS-Image", |node, _| node_info(node, "osImage")),
            ("Kernel-Version", |node, _| node_info(node, "kernelVersion")),
            ("Container-Runtime", |node, _| {
                node_info(node, "containerRuntimeVersion")
            }),
        ],
        "Service" => &[("Selector", |service, _| {
            labels(&service["spec"]["selector"])
        })],
        "RoleBinding" | "ClusterRoleBinding" => &[
            ("Users", |binding, _| subjects(binding, "User")),
            ("Groups", |binding, _| subjects(binding, "Group")),
            ("ServiceAccounts", |binding, _| {
                subjects(binding, "ServiceAccount")
            }),
        ],
        "Event" => &[
            ("Subobject", |event, _| {
                text(&event["involvedObject"]["fieldPath"], "")
            }),
            ("Source", |event, _| {
                let component = text(&event["source"]["component"], "").into_string();
                let host = text(&event["source"]["host"], "").into_string();
                let parts: Vec<&str> = [component.as_str(), host.as_str()]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect();
                if parts.is_empty() {
                    return text(&event["reportingComponent"], "");
                }
                parts.join(", ").into()
            }),
            ("First Seen", |event, now| {
                let first = [&event["firstTimestamp"], &event["eventTime"]];
                first
                    .into_iter()
                    .find_map(Value::as_str)
                    .map_or_else(|| "<unknown>".to_owned(), |t| age::since(t, now))
                    .into()
            }),
            ("Count", |event, _| {
                event["count"]
                    .as_i64()
                    .or_else(|| event["series"]["count"].as_i64())
                    .unwrap_or(1)
                    .into()
            }),
            ("Name", |event, _| text(&event["metadata"]["name"], "")),
        ],
        _ => &[],
    };
    for (list, priority) in [(shown, 0), (wide, 1)] {
        columns.extend(
            list.iter()
                .map(|(name, make)| column(name, priority, *make)),
        );
    }
    columns
}

const NONE: &str = "<none>";

/// The name, in the format that lets `kubectl` put the kind before it.
pub(super) fn name() -> Column<'static> {
    Column {
        format: "name",
        ..column("Name", 0, |object, _| text(&object["metadata"]["name"], ""))
    }
}

/// How long ago the object was created.
pub(super) fn age() -> Column<'static> {
    column("Age", 0, created)
}

fn column(name: &'static str, priority: i64, make: Make) -> Column<'static> {
    let kind = match name {
        "Data" | "Secrets" | "Count" => "integer",
        _ => "string",
    };
    Column {
        name,
        kind,
        format: "",
        description: "",
        priority,
        cell: Cell::Made(make),
    }
}

/// A value as text, or `fallback` if there is none.
fn text(value: &Value, fallback: &str) -> Value {
    match value {
        Value::Null => fallback.into(),
        Value::String(text) if text.is_empty() => fallback.into(),
        other => plain(other).into(),
    }
}

/// The text of a cell.
trait IntoText {
    fn into_string(self) -> String;
}

impl IntoText for Value {
    fn into_string(self) -> String {
        plain(&self)
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// At most three items, and how many there are beyond.
fn joined(items: &[Value], show: impl Fn(&Value) -> String) -> Value {
    const SHOWN: usize = 3;
    if items.is_empty() {
        return "<unset>".into();
    }
    let mut text = items
        .iter()
        .take(SHOWN)
        .map(show)
        .collect::<Vec<_>>()
        .join(",");
    if items.len() > SHOWN {
        text.push_str(&format!(" + {} more...", items.len() - SHOWN));
    }
    text.into()
}

fn created(object: &Value, now: i64) -> Value {
    match object["metadata"]["creationTimestamp"].as_str() {
        Some(time) => age::since(time, now).into(),
        None => "<unknown>".into(),
    }
}

fn node_status(node: &Value, _now: i64) -> Value {
    let ready = items(&node["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready.and_then(|condition| condition["status"].as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(node: &Value, _now: i64) -> Value {
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role.to_owned());
        } else if key == "kubernetes.io/role" {
            roles.push(plain(value));
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort();
    if roles.is_empty() {
        return NONE.into();
    }
    roles.join(",").into()
}

fn node_info(node: &Value, field: &str) -> Value {
    text(&node["status"]["nodeInfo"][field], "<unknown>")
}

fn address(node: &Value, kind: &str) -> Value {
    items(&node["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == kind)
        .map_or_else(|| NONE.into(), |address| text(&address["address"], NONE))
}

fn external_ip(service: &Value, _now: i64) -> Value {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return text(&spec["externalName"], NONE);
    }
    let mut addresses: Vec<String> = items(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str()))
        .map(str::to_owned)
        .collect();
    addresses.extend(items(&spec["externalIPs"]).iter().map(plain));
    if !addresses.is_empty() {
        return addresses.join(",").into();
    }
    if spec["type"] == "LoadBalancer" {
        "<pending>".into()
    } else {
        NONE.into()
    }
}

fn service_ports(service: &Value, _now: i64) -> Value {
    let ports: Vec<String> = items(&service["spec"]["ports"])
        .iter()
        .map(|port| {
            let node = match port["nodePort"].as_i64() {
                Some(node) if node > 0 => format!(":{node}"),
                _ => String::new(),
            };
            let protocol = text(&port["protocol"], "TCP").into_string();
            format!("{}{node}/{protocol}", plain(&port["port"]))
        })
        .collect();
    if ports.is_empty() {
        return NONE.into();
    }
    ports.join(",").into()
}

fn data_size(object: &Value, _now: i64) -> Value {
    ["data", "binaryData"]
        .iter()
        .filter_map(|field| object[*field].as_object())
        .map(serde_json::Map::len)
        .sum::<usize>()
        .into()
}

fn last_seen(event: &Value, now: i64) -> Value {
    let time = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["deprecatedLastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    time.into_iter()
        .find_map(Value::as_str)
        .map_or_else(|| "<unknown>".to_owned(), |t| age::since(t, now))
        .into()
}

fn event_object(event: &Value, _now: i64) -> Value {
    let about = if event["involvedObject"].is_object() {
        &event["involvedObject"]
    } else {
        &event["regarding"]
    };
    let kind = text(&about["kind"], "").into_string().to_lowercase();
    let name = text(&about["name"], "").into_string();
    format!("{kind}/{name}").into()
}

fn event_message(event: &Value, _now: i64) -> Value {
    let message = if event["message"].is_string() {
        &event["message"]
    } else {
        &event["note"]
    };
    text(message, "").into_string().trim().into()
}

/// `a=b,c=d`.
fn labels(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    if pairs.is_empty() {
        return NONE.into();
    }
    pairs.join(",").into()
}

/// A label selector in the notation of `kubectl -l`.
fn pod_selector(policy: &Value, _now: i64) -> Value {
    let selector = &policy["spec"]["podSelector"];
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    for expression in items(&selector["matchExpressions"]) {
        let key = plain(&expression["key"]);
        let mut values: Vec<String> = items(&expression["values"]).iter().map(plain).collect();
        values.sort();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    parts.sort();
    if parts.is_empty() {
        return NONE.into();
    }
    parts.join(",").into()
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let names: Vec<String> = items(&binding["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match subject["namespace"].as_str() {
            Some(namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", plain(&subject["name"]))
            }
            _ => plain(&subject["name"]),
        })
        .collect();
    names.join(", ").into()
}
