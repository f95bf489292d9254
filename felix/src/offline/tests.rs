use serde_json::json;

use super::*;

fn document(object: Value) -> Vec<Document> {
    Document::unfold("f.yaml", object)
}

fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|it| json!({"ip": it})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
           "spec": {"containers": []}, "status": {"podIPs": ips}})
}

fn ask(from: &str, to: &str, port: u32) -> v1::ExplainPolicyRequest {
    v1::ExplainPolicyRequest {
        from: from.into(),
        to: to.into(),
        protocol: 6,
        port,
        ..Default::default()
    }
}

#[test]
fn lists_are_unfolded_and_their_members_know_their_kind() {
    let list =
        json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]});
    let found = document(list);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].origin, "f.yaml, items[0]");
    assert_eq!(found[0].object["kind"], "Pod");
    assert_eq!(found[0].object["apiVersion"], "v1");
    assert_eq!(document(json!({"kind": "Pod"})).len(), 1);
}

#[test]
fn pods_need_neither_addresses_nor_a_namespace_object() {
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "only-shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}},
                 "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "shop"}}}]}]}});
    let mut documents = document(policy);
    documents.extend(document(pod("shop", "web", &[])));
    documents.extend(document(pod("", "db", &[])));
    documents.extend(document(pod("other", "web", &[])));
    let cluster = Cluster::load(documents);
    let allowed = |from| {
        cluster
            .explain(&ask(from, "default/db", 80))
            .unwrap()
            .allowed
    };
    assert!(allowed("shop/web"));
    assert!(!allowed("other/web"));
    assert!(cluster.notes()[0].starts_with("3 pods have no address"));
}

#[test]
fn an_object_that_is_not_understood_is_named_and_closes_what_it_selects() {
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "typo"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"protocol": "TPC", "port": 80}]}]}});
    let mut documents = document(policy);
    documents.extend(document(pod("shop", "web", &["10.0.0.1"])));
    documents.extend(document(
        json!({"kind": "Deployment", "apiVersion": "apps/v1"}),
    ));
    let cluster = Cluster::load(documents);
    let answer = cluster.explain(&ask("10.9.9.9", "shop/web", 80)).unwrap();
    assert!(!answer.allowed);
    assert!(
        answer.notes[0].contains("spec.ingress[0].ports[0].protocol"),
        "{:?}",
        answer.notes
    );
    assert!(
        answer.notes[1].contains("1 Deployment"),
        "{:?}",
        answer.notes
    );
    let ingress = answer.flows[0].ingress.as_ref().unwrap();
    assert!(
        ingress.summary.contains("not understood"),
        "{}",
        ingress.summary
    );
    assert!(
        answer.flows[0].advice[0].starts_with("Mend"),
        "{:?}",
        answer.flows[0].advice
    );
}

#[test]
fn a_node_reaches_its_own_pods_and_no_others() {
    let node = |name: &str, address: &str| {
        document(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}}),
        )
    };
    let mut bound = pod("shop", "web", &["10.0.0.1"]);
    bound["spec"]["nodeName"] = json!("n1");
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "nobody"}, "spec": {"podSelector": {}}});
    let mut documents = [node("n1", "192.0.2.1"), node("n2", "192.0.2.2")].concat();
    documents.extend(document(bound));
    documents.extend(document(policy));
    let cluster = Cluster::load(documents);
    let allowed = |from| cluster.explain(&ask(from, "shop/web", 80)).unwrap().allowed;
    assert!(allowed("192.0.2.1"));
    assert!(!allowed("192.0.2.2"));
}
