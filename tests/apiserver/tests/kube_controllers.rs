//! What controllers written with kube-rs rely on.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod common;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview, TokenReviewStatus};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, ObjectReference, ServiceAccount,
};
use kube::Resource as _;
use kube::api::{
    Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams,
};
use kube::core::GroupVersionKind;
use kube::runtime::events::{EventType, Recorder, Reporter};
use serde_json::json;

use common::{code, config_map, definitions, object, widget, widget_definition, widgets};

#[tokio::test]
async fn recorded_events_are_seen_in_both_groups() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let node = Api::<Namespace>::all(client.clone())
        .get("default")
        .await
        .unwrap();
    let about: ObjectReference = node.object_ref(&());
    let recorder = Recorder::new(
        client.clone(),
        Reporter {
            controller: "felix".into(),
            instance: None,
        },
    );
    let event = kube::runtime::events::Event {
        type_: EventType::Warning,
        reason: "Odd".into(),
        note: Some("something is odd".into()),
        action: "Look".into(),
        secondary: None,
    };
    // The second time it is the same event, counted.
    for _ in 0..2 {
        recorder.publish(&event, &about).await.unwrap();
    }
    let core: Api<Event> = Api::all(client.clone());
    let found = core
        .list(&ListParams::default().fields("involvedObject.name=default,reason=Odd"))
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("something is odd"));
    assert_eq!(
        found.items[0]
            .series
            .as_ref()
            .and_then(|series| series.count),
        Some(2)
    );
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::all(client);
    let found = new.list(&ListParams::default()).await.unwrap();
    let regarding = found.items[0].regarding.as_ref().unwrap();
    assert_eq!(regarding.name.as_deref(), Some("default"));
}

#[tokio::test]
async fn of_concurrent_writers_one_wins_each_round() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    maps.create(&PostParams::default(), &config_map("counter"))
        .await
        .unwrap();
    let raise = async |_: usize| {
        let mut tries = 0;
        loop {
            let mut map = maps.get("counter").await.unwrap();
            let data = map.data.as_mut().unwrap();
            let next = data["a"].parse::<u32>().unwrap() + 1;
            data.insert("a".into(), next.to_string());
            tries += 1;
            match maps.replace("counter", &PostParams::default(), &map).await {
                Ok(_) => break tries,
                Err(error) => assert_eq!(code(Err::<(), _>(error)).0, 409),
            }
        }
    };
    let tries: Vec<u32> = stream::iter(0..40)
        .map(raise)
        .buffer_unordered(8)
        .collect()
        .await;
    assert_eq!(maps.get("counter").await.unwrap().data.unwrap()["a"], "41");
    assert!(tries.iter().sum::<u32>() > 40, "somebody lost a round");
    // Patches without a resourceVersion all win.
    let patch = async |n: usize| {
        let patch = Patch::Merge(json!({"data": {format!("k{n}"): "x"}}));
        maps.patch("counter", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    stream::iter(0..40).for_each_concurrent(8, patch).await;
    assert_eq!(maps.get("counter").await.unwrap().data.unwrap().len(), 41);
}

#[tokio::test]
async fn only_one_creator_gets_a_lease() {
    let api = common::Api::start().await;
    let leases: Api<Lease> = Api::default_namespaced(api.client().await);
    let create = async |n: usize| {
        let lease =
            json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": format!("c{n}")}});
        leases
            .create(&PostParams::default(), &object(lease))
            .await
            .is_ok()
    };
    let wins: Vec<bool> = stream::iter(0..20)
        .map(create)
        .buffer_unordered(20)
        .collect()
        .await;
    assert_eq!(wins.iter().filter(|&&win| win).count(), 1);
}

#[tokio::test]
async fn one_kind_in_two_versions() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let mut definition = widget_definition("Cluster");
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v1beta1".into();
    second["storage"] = false.into();
    definition["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(second);
    definitions(&client)
        .create(&PostParams::default(), &object(definition))
        .await
        .unwrap();
    let kind = |version: &str| {
        let kind =
            ApiResource::from_gvk(&GroupVersionKind::gvk("test.margay.io", version, "Widget"));
        Api::<DynamicObject>::all_with(client.clone(), &kind)
    };
    let (old, new) = (kind("v1beta1"), kind("v1"));
    let mut sent = widget("w", json!({"size": 1}));
    sent["apiVersion"] = "test.margay.io/v1beta1".into();
    old.create(&PostParams::default(), &object(sent))
        .await
        .unwrap();
    let mut seen = new.get("w").await.unwrap();
    assert_eq!(
        seen.types.as_ref().unwrap().api_version,
        "test.margay.io/v1"
    );
    seen.data["spec"]["size"] = 2.into();
    new.replace("w", &PostParams::default(), &seen)
        .await
        .unwrap();
    let listed = old.list(&ListParams::default()).await.unwrap();
    assert_eq!(
        listed.items[0].types.as_ref().unwrap().api_version,
        "test.margay.io/v1beta1"
    );
    assert_eq!(listed.items[0].data["spec"]["size"], 2);
    let mut events = std::pin::pin!(old.watch(&WatchParams::default(), "0").await.unwrap());
    match events.next().await.unwrap().unwrap() {
        kube::api::WatchEvent::Added(widget) => {
            assert_eq!(widget.types.unwrap().api_version, "test.margay.io/v1beta1");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_changed_definition_judges_from_then_on() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let widgets = widgets(&client).await;
    let big = object(widget("big", json!({"size": 500})));
    assert_eq!(
        code(widgets.create(&PostParams::default(), &big).await).0,
        422
    );
    let definitions = definitions(&client);
    let mut changed = definitions.get("widgets.test.margay.io").await.unwrap();
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/maximum";
    *changed.data.pointer_mut(path).unwrap() = 1000.into();
    let changed = definitions
        .replace("widgets.test.margay.io", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    widgets.create(&PostParams::default(), &big).await.unwrap();
}

#[tokio::test]
async fn metadata_is_judged_for_every_kind() {
    let api = common::Api::start().await;
    let widgets = widgets(&api.client().await).await;
    for (metadata, want) in [
        (json!({"name": "Capital"}), "metadata.name"),
        (
            json!({"name": "w", "labels": {"a": "not a label"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "w", "annotations": {"a b": "c"}}),
            "metadata.annotations",
        ),
        (
            json!({"name": "w", "finalizers": ["not one"]}),
            "metadata.finalizers[0]",
        ),
    ] {
        let mut sent = widget("w", json!({"size": 1}));
        sent["metadata"] = metadata;
        let refused = widgets
            .create(&PostParams::default(), &object(sent))
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(want), "{refused}");
    }
}

#[tokio::test]
async fn openapi_v2_is_an_empty_message_to_those_who_want_protobuf() {
    let api = common::Api::start().await;
    let wanted = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let request = axum::http::Request::get("/openapi/v2").header("accept", wanted);
    let request = request.body(kube::client::Body::empty()).unwrap();
    let response = api.client().await.send(request).await.unwrap();
    // The type as kubectl asks for it is none that it can read in an answer.
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(
        content_type,
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    assert!(
        response
            .into_body()
            .collect_bytes()
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_token_says_whose_it_is_for_whom_and_on_which_node() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let params = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let felix = object(json!({"metadata": {"name": "felix"}}));
    accounts.create(&params, &felix).await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    let n1 = object(json!({"metadata": {"name": "n1"}}));
    nodes.create(&params, &n1).await.unwrap();
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let review = async |token: &str, audiences: &[&str]| -> TokenReviewStatus {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        let review = object(review);
        let answer = reviews.create(&PostParams::default(), &review).await;
        answer.unwrap().status.unwrap()
    };
    let request: TokenRequest = object(json!({"spec": {
        "audiences": ["controller"], "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n1"},
    }}));
    let made = accounts
        .create_token_request("felix", &params, &request)
        .await
        .unwrap();
    let token = made.status.unwrap().token.unwrap();
    let good = review(&token, &["controller", "other"]).await;
    assert_eq!(good.authenticated, Some(true));
    assert_eq!(good.audiences, Some(vec!["controller".to_owned()]));
    let user = good.user.unwrap();
    assert_eq!(
        user.username.as_deref(),
        Some("system:serviceaccount:default:felix")
    );
    assert_eq!(
        user.extra.unwrap()["authentication.kubernetes.io/node-name"],
        ["n1"]
    );
    // For nobody else, and no other text.
    for (token, audiences) in [
        (token.as_str(), &["other"][..]),
        (token.as_str(), &[]),
        ("made-up", &["controller"]),
    ] {
        let status = review(token, audiences).await;
        assert_ne!(status.authenticated, Some(true));
        assert!(!status.error.unwrap_or_default().is_empty());
    }
    let odd = async |spec: serde_json::Value| {
        let request: TokenRequest = object(json!({"spec": spec}));
        let params = PostParams::default();
        code(
            accounts
                .create_token_request("felix", &params, &request)
                .await,
        )
        .0
    };
    assert_eq!(
        odd(json!({"audiences": [], "expirationSeconds": 5})).await,
        422
    );
    let nowhere = json!({"kind": "Node", "name": "nowhere"});
    assert_eq!(
        odd(json!({"audiences": [], "boundObjectRef": nowhere})).await,
        404
    );
    // It is good as long as the node is there.
    nodes.delete("n1", &Default::default()).await.unwrap();
    assert_ne!(
        review(&token, &["controller"]).await.authenticated,
        Some(true)
    );
    let none = reviews.create(&params, &object(json!({"spec": {}}))).await;
    assert_eq!(code(none).0, 400);
    assert_eq!(code(reviews.list(&ListParams::default()).await).0, 405);
}

#[tokio::test]
async fn tokens_outlive_the_server() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client);
    let request: TokenRequest = object(json!({"spec": {"audiences": ["x"]}}));
    let params = PostParams::default();
    let made = accounts.create_token_request("default", &params, &request);
    let token = made.await.unwrap().status.unwrap().token.unwrap();
    let file = api.dir.path().join("service-account-tokens");
    assert!(std::fs::read_to_string(file).unwrap().contains(&token));
}
