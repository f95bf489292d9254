use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::path::Path;
use super::{IncludeObject, render};
use crate::resource::{Custom, ResourceInfo};
use crate::schema::Schema;

/// 2026-11-22T06:32:53Z.
const NOW: i64 = 1_795_329_173;

fn resource(kind: &str, columns: Option<Vec<Value>>) -> ResourceInfo {
    let schema_json = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    ResourceInfo {
        group: String::new(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: String::new(),
        singular: String::new(),
        list_kind: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        status: false,
        custom: columns.map(|columns| {
            Arc::new(Custom {
                schema: Schema::parse(&schema_json).unwrap(),
                schema_json,
                columns,
                selectable_fields: Vec::new(),
            })
        }),
    }
}

/// The cells as `HEAD=text`, wide ones after a bar.
fn row(resource: &ResourceInfo, object: Value) -> String {
    let table = render(resource, &[&object], IncludeObject::None, NOW);
    assert_eq!(table["rows"][0]["object"], Value::Null);
    let heads = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(heads.len(), cells.len());
    let mut text = String::new();
    let mut wide = false;
    for (head, cell) in heads.iter().zip(cells) {
        if head["priority"] != 0 && !wide {
            wide = true;
            text.push_str("| ");
        }
        let cell = cell
            .as_str()
            .map_or_else(|| cell.to_string(), str::to_owned);
        text.push_str(&format!("{}={cell} ", head["name"].as_str().unwrap()));
    }
    text.trim_end().to_owned()
}

fn meta(name: &str) -> Value {
    json!({"name": name, "creationTimestamp": "2026-11-22T06:31:53Z"})
}

#[test]
fn pods_show_their_life() {
    let pod = |spec: Value, status: Value| {
        row(
            &resource("Pod", None),
            json!({"metadata": meta("p"), "spec": spec, "status": status}),
        )
    };
    let running = json!({"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "2026-11-22T06:32:43Z"}}});
    assert_eq!(
        pod(
            json!({"nodeName": "n1", "containers": [{}]}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "containerStatuses": [running]})
        ),
        "Name=p Ready=1/1 Status=Running Restarts=2 (10s ago) Age=60s | IP=10.0.0.1 Node=n1 Nominated Node=<none> Readiness Gates=<none>"
    );
    for (status, want) in [
        (
            json!({"phase": "Pending"}),
            "Ready=0/1 Status=Pending Restarts=0",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            "Status=Evicted",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            "Status=ContainerCreating",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "Status=CrashLoopBackOff Restarts=3 ",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "Status=ExitCode:3",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            "Status=Signal:9",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "Status=Completed",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}),
            "Status=Init:0/1",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            "Status=Init:ImagePullBackOff",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}),
            "Status=Init:ExitCode:1",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "Status=SchedulingGated",
        ),
    ] {
        let text = pod(
            json!({"containers": [{}], "initContainers": [{}]}),
            status.clone(),
        );
        assert!(text.contains(want), "{status}: {text}");
    }
    let mut going = json!({"metadata": meta("p"), "spec": {"containers": [{}]}, "status": {"phase": "Running"}});
    going["metadata"]["deletionTimestamp"] = "2026-11-22T06:31:53Z".into();
    assert!(row(&resource("Pod", None), going).contains("Status=Terminating"));
}

#[test]
fn the_other_kinds_have_their_columns() {
    for (kind, object, want) in [
        (
            "Node",
            json!({"metadata": {"name": "n", "creationTimestamp": "2026-11-22T06:31:53Z", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "fd00::1"}]}}),
            "Name=n Status=Ready,SchedulingDisabled Roles=control-plane Age=60s Version=v1.36.0 | Internal-IP=192.0.2.1 External-IP=<none> OS-Image=<unknown> Kernel-Version=<unknown> Container-Runtime=<unknown>",
        ),
        (
            "Node",
            json!({"metadata": meta("n")}),
            "Name=n Status=Unknown Roles=<none> Age=60s Version= | Internal-IP=<none> External-IP=<none> OS-Image=<unknown> Kernel-Version=<unknown> Container-Runtime=<unknown>",
        ),
        (
            "Namespace",
            json!({"metadata": meta("ns"), "status": {"phase": "Active"}}),
            "Name=ns Status=Active Age=60s",
        ),
        (
            "Service",
            json!({"metadata": meta("s"), "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}], "selector": {"a": "b"}}}),
            "Name=s Type=ClusterIP Cluster-IP=10.96.0.1 External-IP=<none> Port(s)=80/TCP,53:30053/UDP Age=60s | Selector=a=b",
        ),
        (
            "Service",
            json!({"metadata": meta("s"), "spec": {"type": "LoadBalancer"}}),
            "Name=s Type=LoadBalancer Cluster-IP=<none> External-IP=<pending> Port(s)=<none> Age=60s | Selector=<none>",
        ),
        (
            "EndpointSlice",
            json!({"metadata": meta("e"), "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2", "10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]}),
            "Name=e AddressType=IPv4 Ports=80 Endpoints=10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... Age=60s",
        ),
        (
            "ConfigMap",
            json!({"metadata": meta("c"), "data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
            "Name=c Data=3 Age=60s",
        ),
        (
            "Secret",
            json!({"metadata": meta("s"), "type": "Opaque", "data": {"a": ""}}),
            "Name=s Type=Opaque Data=1 Age=60s",
        ),
        (
            "ServiceAccount",
            json!({"metadata": meta("sa")}),
            "Name=sa Secrets=0 Age=60s",
        ),
        (
            "Event",
            json!({"metadata": meta("e.1"), "type": "Warning", "reason": "Failed", "message": " it broke\n", "count": 4, "lastTimestamp": "2026-11-22T06:32:50Z", "firstTimestamp": "2026-11-22T06:32:40Z",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.x"}, "source": {"component": "felix", "host": "n1"}}),
            "Last Seen=3s Type=Warning Reason=Failed Object=pod/p Message=it broke | Subobject=spec.x Source=felix, n1 First Seen=13s Count=4 Name=e.1",
        ),
        (
            "Lease",
            json!({"metadata": meta("l"), "spec": {"holderIdentity": "n1"}}),
            "Name=l Holder=n1 Age=60s",
        ),
        (
            "NetworkPolicy",
            json!({"metadata": meta("np"), "spec": {"podSelector": {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["b", "a"]}, {"key": "y", "operator": "DoesNotExist"}]}}}),
            "Name=np Pod-Selector=!y,app=db,x in (a,b) Age=60s",
        ),
        (
            "NetworkPolicy",
            json!({"metadata": meta("np"), "spec": {"podSelector": {}}}),
            "Name=np Pod-Selector=<none> Age=60s",
        ),
        (
            "CustomResourceDefinition",
            json!({"metadata": meta("x.y")}),
            "Name=x.y Created At=2026-11-22T06:31:53Z",
        ),
        (
            "ClusterRoleBinding",
            json!({"metadata": meta("b"), "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "ns"}]}),
            "Name=b Role=ClusterRole/r Age=60s | Users=u Groups= ServiceAccounts=ns/s",
        ),
        (
            "Odd",
            json!({"metadata": {"name": "o"}}),
            "Name=o Age=<unknown>",
        ),
    ] {
        assert_eq!(row(&resource(kind, None), object), want);
    }
}

#[test]
fn custom_columns_follow_their_paths_and_types() {
    let columns = vec![
        json!({"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"}),
        json!({"name": "Used", "type": "integer", "jsonPath": ".status.used"}),
        json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
        json!({"name": "Off", "type": "boolean", "jsonPath": ".spec.disabled"}),
        json!({"name": "Gone", "type": "string", "jsonPath": ".spec.nothing"}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        json!({"name": "Families", "type": "string", "jsonPath": ".spec.families[*]", "priority": 1}),
    ];
    let object = json!({"metadata": meta("p"), "spec": {"cidr": "10.0.0.0/8", "disabled": false, "families": ["v4", "v6"]},
        "status": {"used": 3, "conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}});
    assert_eq!(
        row(&resource("IPPool", Some(columns)), object.clone()),
        "Name=p CIDR=10.0.0.0/8 Used=3 Ready=True Off=false Gone=null Age=60s | Families=v4 v6"
    );
    assert_eq!(
        row(&resource("IPPool", Some(vec![])), object),
        "Name=p Age=60s"
    );
}

#[test]
fn rows_carry_what_was_asked_for() {
    let object = json!({"metadata": meta("p"), "spec": {"x": 1}});
    let resource = resource("ConfigMap", None);
    let carried =
        |include| render(&resource, &[&object], include, NOW)["rows"][0]["object"].clone();
    assert_eq!(carried(IncludeObject::None), Value::Null);
    assert_eq!(carried(IncludeObject::Object), object);
    assert_eq!(
        carried(IncludeObject::Metadata)["kind"],
        "PartialObjectMetadata"
    );
    assert_eq!(carried(IncludeObject::default())["metadata"]["name"], "p");
}

#[test]
fn paths_find_what_they_say() {
    let object = json!({"a": {"b.c": 1, "d": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}});
    for (path, want) in [
        (".a['b.c']", vec![json!(1)]),
        (r".a.b\.c", vec![json!(1)]),
        ("{.a.d[0].n}", vec![json!("x")]),
        ("$.a.d[-1].n", vec![json!("y")]),
        (".a.d[*].v", vec![json!(1), json!(2)]),
        (".a.d[?(@.n=='y')].v", vec![json!(2)]),
        (".a.d[?(@.v!=2)].n", vec![json!("x")]),
        (".a.d[5]", vec![]),
        (".a.x.y", vec![]),
    ] {
        let found: Vec<Value> = Path::parse(path)
            .unwrap()
            .find(&object)
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(found, want, "{path}");
    }
    for path in ["a", ".a[", ".a[?(n==1)]", ".a[x]", "..a", ".a[?(@.n)]"] {
        assert!(Path::parse(path).is_err(), "{path}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9:.T-]{0,10}".prop_map(Value::from),
        Just(json!("2026-11-22T06:31:53Z")),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let name = prop::sample::select(vec![
            "metadata",
            "name",
            "creationTimestamp",
            "labels",
            "spec",
            "status",
            "containers",
            "containerStatuses",
            "state",
            "terminated",
            "waiting",
            "conditions",
            "type",
            "ports",
            "endpoints",
            "addresses",
            "podSelector",
            "matchExpressions",
            "values",
            "key",
            "subjects",
            "restartCount",
            "podIPs",
            "phase",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|f| Value::Object(
                f.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_panics(object in any_json(), now in any::<i64>()) {
        for kind in ["Pod", "Node", "Service", "EndpointSlice", "Event", "NetworkPolicy", "RoleBinding", "Secret", "Lease"] {
            render(&resource(kind, None), &[&object], IncludeObject::Metadata, now);
        }
    }

    #[test]
    fn no_path_panics(path in "[a-z.\\[\\]'\"*?@()=!\\\\0-9-]{0,20}", object in any_json()) {
        if let Ok(path) = Path::parse(&path) {
            path.find(&object);
        }
    }
}
