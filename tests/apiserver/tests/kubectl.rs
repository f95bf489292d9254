//! What people do with the real kubectl.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod common;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use common::{Api, LIMIT, pod, widget, widget_definition};

#[tokio::test]
async fn objects_are_created_shown_changed_and_deleted() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    assert_eq!(
        kubectl.ok("create ns shop").await,
        "namespace/shop created\n"
    );
    let made = kubectl
        .ok("run web -n shop --image=registry.invalid/web:1 --port=80 --labels=app=web")
        .await;
    assert_eq!(made, "pod/web created\n");
    assert!(kubectl.ok("get pods -A").await.contains("shop        web"));
    let wide = kubectl.ok("get po -n shop -o wide").await;
    assert!(
        wide.starts_with("NAME   READY   STATUS    RESTARTS   AGE"),
        "{wide}"
    );
    assert!(wide.contains("web    0/1     Pending"), "{wide}");
    assert_eq!(kubectl.ok("get po,cm -n shop -o name").await, "pod/web\n");
    kubectl.ok("label pod web -n shop tier=front").await;
    kubectl.ok("annotate pod web -n shop note=mine").await;
    kubectl
        .ok("patch pod web -n shop -p '{\"metadata\":{\"labels\":{\"app\":null}}}'")
        .await;
    kubectl
        .ok("patch pod web -n shop --type=merge -p '{\"metadata\":{\"labels\":{\"m\":\"1\"}}}'")
        .await;
    let add = "[{\"op\":\"add\",\"path\":\"/metadata/labels/j\",\"value\":\"2\"}]";
    kubectl
        .ok(&format!("patch pod web -n shop --type=json -p '{add}'"))
        .await;
    let labels = kubectl
        .ok("get pod web -n shop -o jsonpath='{.metadata.labels}'")
        .await;
    assert_eq!(labels, r#"{"j":"2","m":"1","tier":"front"}"#);
    assert!(
        kubectl
            .ok("get pods -n shop -l tier=front,m!=2")
            .await
            .contains("web")
    );
    assert!(
        kubectl
            .ok("get pods -n shop --field-selector spec.nodeName=n1")
            .await
            .contains("No resources found")
    );
    let json: Value =
        serde_json::from_str(&kubectl.ok("get pod web -n shop -o json").await).unwrap();
    assert_eq!(json["metadata"]["annotations"]["note"], "mine");
    assert!(
        kubectl
            .ok("get pod web -n shop -o yaml")
            .await
            .contains("image: registry.invalid/web:1")
    );
    let described = kubectl.ok("describe pod web -n shop").await;
    assert!(described.contains("Name:             web"), "{described}");
    assert!(kubectl.ok("describe ns shop").await.contains("Active"));
    assert!(
        kubectl
            .ok("get pod web -n shop --show-labels")
            .await
            .contains("j=2,m=1,tier=front")
    );
    assert_eq!(
        kubectl.ok("delete pod web -n shop").await,
        "pod \"web\" deleted\n"
    );
    assert_eq!(
        kubectl.ok("delete ns shop").await,
        "namespace \"shop\" deleted\n"
    );
    let gone = kubectl.fails("get ns shop").await;
    assert_eq!(
        gone,
        "Error from server (NotFound): namespaces \"shop\" not found\n"
    );
}

#[tokio::test]
async fn what_kubectl_makes_itself_is_understood() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    for (command, kind) in [
        ("create configmap a --from-literal=k=v", "cm"),
        ("create secret generic a --from-literal=k=v", "secret"),
        ("create serviceaccount a", "sa"),
        ("create service clusterip a --tcp=80:8080", "svc"),
        ("create role a --verb=get,list --resource=pods", "role"),
        (
            "create rolebinding a --role=a --serviceaccount=default:a",
            "rolebinding",
        ),
        (
            "create clusterrole a --verb=get --resource=nodes",
            "clusterrole",
        ),
        (
            "create clusterrolebinding a --clusterrole=a --user=me",
            "clusterrolebinding",
        ),
    ] {
        kubectl.ok(command).await;
        assert!(
            kubectl
                .ok(&format!("get {kind} a"))
                .await
                .starts_with("NAME"),
            "{command}"
        );
    }
    let path = |kind: &str, path: &str| format!("get {kind} a -o jsonpath='{{{path}}}'");
    assert_eq!(kubectl.ok(&path("cm", ".data.k")).await, "v");
    assert_eq!(kubectl.ok(&path("secret", ".data.k")).await, "dg==");
    assert_eq!(
        kubectl.ok(&path("svc", ".spec.ports[0].targetPort")).await,
        "8080"
    );
    assert_eq!(
        kubectl.ok(&path("role", ".rules[0].verbs")).await,
        r#"["get","list"]"#
    );
    assert_eq!(
        kubectl.ok(&path("rolebinding", ".subjects[0].name")).await,
        "a"
    );
    kubectl
        .ok("delete cm,secret,sa,svc,role,rolebinding a")
        .await;
}

#[tokio::test]
async fn applied_objects_follow_their_files() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "np", "namespace": "default", "labels": {"a": "b", "c": "d"}},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
        },
    });
    let np = "networkpolicy.networking.k8s.io/np";
    assert_eq!(
        kubectl.apply(&policy).await.unwrap(),
        format!("{np} created\n")
    );
    assert_eq!(
        kubectl.apply(&policy).await.unwrap(),
        format!("{np} unchanged\n")
    );
    policy["spec"]["ingress"][0]["ports"][0]["port"] = 81.into();
    policy["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .shift_remove("c");
    let diff = kubectl
        .run("diff -f -", Some(&policy.to_string()))
        .await
        .unwrap_err();
    assert!(diff.contains("+    - port: 81"), "{diff}");
    let dry = kubectl
        .run("apply --dry-run=server -f -", Some(&policy.to_string()))
        .await
        .unwrap();
    assert_eq!(dry, format!("{np} configured (server dry run)\n"));
    assert_eq!(
        kubectl.apply(&policy).await.unwrap(),
        format!("{np} configured\n")
    );
    let live: Value = serde_json::from_str(&kubectl.ok("get netpol np -o json").await).unwrap();
    assert_eq!(
        live["spec"]["ingress"][0]["ports"],
        json!([{"port": 81, "protocol": "TCP"}])
    );
    assert_eq!(live["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(live["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(live["metadata"]["generation"], 2);
    assert!(
        kubectl
            .ok("describe netpol np")
            .await
            .contains("To Port: 81/TCP")
    );
    let refused = kubectl
        .run("apply --server-side -f -", Some(&policy.to_string()))
        .await
        .unwrap_err();
    assert!(
        refused.contains("server-side apply is not served here"),
        "{refused}"
    );
    kubectl
        .run("delete -f -", Some(&policy.to_string()))
        .await
        .unwrap();
}

#[tokio::test]
async fn custom_kinds_are_as_good_as_built_in_ones() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    let applied = kubectl
        .apply(&widget_definition("Namespaced"))
        .await
        .unwrap();
    assert_eq!(
        applied,
        "customresourcedefinition.apiextensions.k8s.io/widgets.test.margay.io created\n"
    );
    kubectl
        .ok("wait --for=condition=Established crd/widgets.test.margay.io --timeout=20s")
        .await;
    kubectl
        .apply(&widget("w", json!({"size": 7})))
        .await
        .unwrap();
    let table = kubectl.ok("get wd").await;
    assert!(
        table.starts_with("NAME   SIZE   READY\nw      7"),
        "{table}"
    );
    let wait = kubectl
        .command("wait --for=jsonpath='{.status.ready}'=yes widget/w --timeout=20s")
        .spawn()
        .unwrap();
    kubectl
        .ok("patch wd w --subresource=status --type=merge -p '{\"status\":{\"ready\":\"yes\"}}'")
        .await;
    let waited = tokio::time::timeout(LIMIT, wait.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(waited.status.success(), "{waited:?}");
    assert!(
        kubectl
            .ok("get widgets.test.margay.io w -o wide")
            .await
            .contains("yes")
    );
    assert!(kubectl.ok("describe widget w").await.contains("Size:    7"));
    let explained = kubectl.ok("explain widget.spec").await;
    assert!(
        explained.contains("What is wanted.") && explained.contains("How big."),
        "{explained}"
    );
    let refused = kubectl
        .apply(&widget("v", json!({"size": 0})))
        .await
        .unwrap_err();
    assert!(
        refused.contains("The Widget \"v\" is invalid: spec.size: Invalid value: 0"),
        "{refused}"
    );
    let refused = kubectl
        .apply(&widget("v", json!({"size": 1, "sise": 1})))
        .await
        .unwrap_err();
    assert!(refused.contains("unknown field \"spec.sise\""), "{refused}");
    let odd = widget("v", json!({"size": 1, "x": 1})).to_string();
    let warned = kubectl
        .run("apply --validate=warn -f -", Some(&odd))
        .await
        .unwrap();
    assert!(
        warned.contains("Warning: unknown field \"spec.x\""),
        "{warned}"
    );
    kubectl.ok("delete crd widgets.test.margay.io").await;
    // kubectl remembers the kind for a while; the server does not.
    let gone = kubectl.fails("get widgets").await;
    assert!(
        gone.contains("could not find the requested resource"),
        "{gone}"
    );
}

#[tokio::test]
async fn mistakes_in_built_in_kinds_are_named() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "np"},
        "spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "banana"}}]}]},
    });
    let refused = kubectl.apply(&policy).await.unwrap_err();
    assert!(
        refused.contains("The NetworkPolicy \"np\" is invalid"),
        "{refused}"
    );
    assert!(
        refused.contains("spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"banana\""),
        "{refused}"
    );
    let refused = kubectl.apply(&pod("Capital")).await.unwrap_err();
    assert!(
        refused.contains("metadata.name: Invalid value: \"Capital\""),
        "{refused}"
    );
    let refused = kubectl.fails("label ns default a=b%").await;
    assert!(refused.contains("label"), "{refused}");
}

#[tokio::test]
async fn a_watch_prints_changes_as_they_happen() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    kubectl.apply(&pod("a")).await.unwrap();
    let mut watch = kubectl.command("get pods -w --no-headers").spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert!(next().await.starts_with("a     0/1   Pending"));
    kubectl
        .ok("patch pod a --subresource=status -p '{\"status\":{\"phase\":\"Running\"}}'")
        .await;
    assert!(next().await.contains("Running"));
    kubectl.apply(&pod("b")).await.unwrap();
    assert!(next().await.starts_with("b "));
    watch.kill().await.unwrap();
}

#[tokio::test]
async fn deletion_waits_for_the_node() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    let mut bound = pod("a");
    bound["spec"]["nodeName"] = "n1".into();
    kubectl.apply(&bound).await.unwrap();
    let mut deletion = kubectl.command("delete pod a").spawn().unwrap();
    common::eventually("the pod is ending", async || {
        let stamp = kubectl
            .ok("get pod a -o jsonpath='{.metadata.deletionTimestamp}'")
            .await;
        (!stamp.is_empty()).then_some(())
    })
    .await;
    assert!(kubectl.ok("get pod a").await.contains("Terminating"));
    assert!(deletion.try_wait().unwrap().is_none(), "kubectl waits");
    kubectl.ok("delete pod a --grace-period=0 --force").await;
    assert!(
        tokio::time::timeout(LIMIT, deletion.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn strangers_and_the_future_are_turned_away() {
    let api = Api::start().await;
    let kubectl = api.kubectl();
    let refused = kubectl.fails("get ns --token=wrong").await;
    assert!(
        refused.contains("You must be logged in") || refused.contains("Unauthorized"),
        "{refused}"
    );
    let refused = kubectl
        .fails("get --raw /api/v1/pods?resourceVersion=99999")
        .await;
    assert!(
        refused.contains("Too large resource version: 99999"),
        "{refused}"
    );
    assert_eq!(kubectl.ok("get --raw /readyz").await, "ok");
    // Told beside a warning that the versions are far apart.
    let versions = kubectl.ok("version -o json").await;
    assert!(
        versions.contains("\"gitVersion\": \"v1.36.0\""),
        "{versions}"
    );
    assert!(
        kubectl
            .ok("api-resources")
            .await
            .contains("networkpolicies")
    );
    assert!(
        kubectl
            .ok("api-versions")
            .await
            .contains("coordination.k8s.io/v1")
    );
}
