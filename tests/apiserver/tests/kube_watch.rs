//! What kube-rs clients rely on when they list and watch.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod common;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, VersionMatch, WatchEvent,
    WatchParams,
};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use serde_json::{Value, json};

use common::{LIMIT, code, config_map, definitions, eventually, object, pod, widget, widgets};

#[tokio::test]
async fn lists_are_selected_paged_and_repeatable() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for at in 0..7 {
        let mut pod = pod(&format!("p{at}"));
        pod["spec"]["nodeName"] = if at % 2 == 0 { "n1" } else { "n2" }.into();
        pods.create(&PostParams::default(), &object(pod))
            .await
            .unwrap();
    }
    let names = |list: &kube::core::ObjectList<Pod>| {
        list.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    let by = async |params: ListParams| names(&pods.list(&params).await.unwrap());
    assert_eq!(
        by(ListParams::default().fields("spec.nodeName=n2")).await,
        ["p1", "p3", "p5"]
    );
    assert_eq!(
        by(ListParams::default().labels("app in (p1,p2),app!=p2")).await,
        ["p1"]
    );
    assert_eq!(
        by(ListParams::default().fields("metadata.name=p4")).await,
        ["p4"]
    );
    assert_eq!(
        code(
            pods.list(&ListParams::default().fields("spec.nonsense=1"))
                .await
        )
        .0,
        400
    );

    let first = pods.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(names(&first), ["p0", "p1", "p2"]);
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    // What happens between two pages does not show in the later one.
    pods.delete("p5", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    pods.create(&PostParams::default(), &object(pod("p45")))
        .await
        .unwrap();
    let next = ListParams::default()
        .limit(9)
        .continue_token(first.metadata.continue_.as_deref().unwrap());
    let next = pods.list(&next).await.unwrap();
    assert_eq!(names(&next), ["p3", "p4", "p5", "p6"]);
    assert_eq!(
        next.metadata.resource_version,
        first.metadata.resource_version
    );
    assert_eq!(next.metadata.continue_, None);
    let at = first.metadata.resource_version.as_deref().unwrap();
    let exact = ListParams::default().at(at).matching(VersionMatch::Exact);
    assert_eq!(by(exact).await.len(), 7);
    assert!(
        by(ListParams::default().at(at))
            .await
            .contains(&"p45".to_owned()),
        "not older than"
    );
}

#[tokio::test]
async fn a_reflector_follows_either_way_of_listing() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for at in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("a{at}")))
            .await
            .unwrap();
    }
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let (reader, writer) = reflector::store();
        let events = watcher(maps.clone(), config)
            .default_backoff()
            .reflect(writer)
            .applied_objects();
        let following = tokio::spawn(events.for_each(|_| async {}));
        tokio::time::timeout(LIMIT, reader.wait_until_ready())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reader.len(), 5);
        maps.create(&PostParams::default(), &config_map("b"))
            .await
            .unwrap();
        eventually("the new one", async || (reader.len() == 6).then_some(())).await;
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        eventually("it is gone", async || (reader.len() == 5).then_some(())).await;
        following.abort();
    }
}

#[tokio::test]
async fn a_watch_tells_what_its_selector_sees() {
    let api = common::Api::start().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client().await);
    let start = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default()
        .fields("spec.nodeName=n1")
        .timeout(60);
    let mut events = std::pin::pin!(pods.watch(&params, &start).await.unwrap());
    pods.create(&PostParams::default(), &object(pod("a")))
        .await
        .unwrap();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"},
    });
    let bind = async || {
        let created: Result<Value, _> = pods
            .create_subresource("binding", "a", &PostParams::default(), &binding)
            .await;
        created
    };
    bind().await.unwrap();
    assert_eq!(code(bind().await), (409, "Conflict".into()));
    let ready = json!({"status": {"podIP": "10.0.0.1", "phase": "Running"}});
    pods.patch_status("a", &PatchParams::default(), &Patch::Merge(&ready))
        .await
        .unwrap();
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    pods.delete("a", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match tokio::time::timeout(LIMIT, events.try_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            WatchEvent::Added(pod) => {
                seen.push(format!("added {}", pod.spec.unwrap().node_name.unwrap()))
            }
            WatchEvent::Modified(pod) if pod.metadata.deletion_timestamp.is_some() => {
                seen.push("ending".into())
            }
            WatchEvent::Modified(pod) => {
                seen.push(format!("ip {}", pod.status.unwrap().pod_ip.unwrap()))
            }
            WatchEvent::Deleted(_) => seen.push("deleted".into()),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => panic!("{error}"),
        }
    }
    assert_eq!(seen, ["added n1", "ip 10.0.0.1", "ending", "deleted"]);
}

#[tokio::test]
async fn a_watch_of_the_forgotten_past_is_gone() {
    let api = common::Api::start_with(|config| config.history = 5).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    let mut at = Vec::new();
    for n in 0..8 {
        at.push(
            maps.create(&PostParams::default(), &config_map(&format!("a{n}")))
                .await
                .unwrap(),
        );
    }
    let version = |n: usize| at[n].resource_version().unwrap();
    let params = WatchParams::default().timeout(60);
    let mut events = std::pin::pin!(maps.watch(&params, &version(1)).await.unwrap());
    match events.try_next().await.unwrap() {
        Some(WatchEvent::Error(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"))
        }
        other => panic!("{other:?}"),
    }
    assert!(events.try_next().await.unwrap().is_none(), "the watch ends");
    let mut events = std::pin::pin!(maps.watch(&params, &version(2)).await.unwrap());
    for n in 3..8 {
        match events.try_next().await.unwrap() {
            Some(WatchEvent::Added(map)) => assert_eq!(map.name_any(), format!("a{n}")),
            other => panic!("{other:?}"),
        }
    }
    // A future revision is that of another life of the server.
    let mut events = std::pin::pin!(maps.watch(&params, "99999").await.unwrap());
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Error(status)) if status.code == 410)
    );
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    maps.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let params = WatchParams::default().initial_events().timeout(1);
    let events = maps.watch(&params, "").await.unwrap();
    let events: Vec<_> = events.try_collect().await.unwrap();
    let [
        WatchEvent::Added(map),
        WatchEvent::Bookmark(first),
        WatchEvent::Bookmark(last),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(map.name_any(), "a");
    assert_eq!(
        first.metadata.annotations["k8s.io/initial-events-end"],
        "true"
    );
    assert!(
        !last
            .metadata
            .annotations
            .contains_key("k8s.io/initial-events-end"),
        "the one at the end of the time"
    );
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let widgets = widgets(&client).await;
    widgets
        .create(
            &PostParams::default(),
            &object(widget("w", json!({"size": 1}))),
        )
        .await
        .unwrap();
    let events = widgets
        .watch(&WatchParams::default().timeout(60), "0")
        .await
        .unwrap();
    definitions(&client)
        .delete("widgets.test.margay.io", &DeleteParams::default())
        .await
        .unwrap();
    eventually("it is gone", async || {
        definitions(&client)
            .get_opt("widgets.test.margay.io")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    let events: Vec<_> = tokio::time::timeout(LIMIT, events.try_collect())
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(
            &events[..],
            [WatchEvent::Added(_), WatchEvent::Deleted(_), ..]
        ),
        "{events:?}"
    );
    assert_eq!(code(widgets.list(&ListParams::default()).await).0, 404);
    let widgets = self::widgets(&client).await;
    assert!(
        widgets
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}
