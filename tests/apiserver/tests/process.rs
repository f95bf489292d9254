//! The server as a process: killed and started again, and listening in other network namespaces.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use common::{LIMIT, config_map, definitions, eventually, object, pod, widget_definition};

/// Starts the binary and waits until it says that it listens.
async fn start(dir: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
    command
        .arg("--dir")
        .arg(dir)
        .arg("--data")
        .arg(dir.join("data"))
        .args(more);
    let mut child = command
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(
        line.as_deref()
            .is_some_and(|line| line.starts_with("listening on https://")),
        "{line:?}"
    );
    child
}

/// A port nobody uses, for a server that must come back at the same.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_killed_server_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("--listen={}", free_address());
    let mut server = start(dir.path(), &[&listen]).await;
    let kubeconfig = dir.path().join("kubeconfig");
    for file in ["kubeconfig", "token", "ca.key", "data"] {
        let mode = std::fs::metadata(dir.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let written = std::fs::read(&kubeconfig).unwrap();
    let client = common::client(&kubeconfig).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (reader, writer) = reflector::store();
    let following = watcher(maps.clone(), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    let following = tokio::spawn(following.for_each(|_| async {}));
    definitions(&client)
        .create(
            &PostParams::default(),
            &object(widget_definition("Cluster")),
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        // Kill it in the middle of writes: what was answered must be there, whatever was not.
        let mut answered = Vec::new();
        let writes = async {
            for n in 0.. {
                match maps
                    .create(
                        &PostParams::default(),
                        &config_map(&format!("m{round}-{n}")),
                    )
                    .await
                {
                    Ok(made) => answered.push(made),
                    Err(_) => break,
                }
            }
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.start_kill().unwrap();
            server.wait().await.unwrap();
        };
        // Requests to a dead server would be tried again for long.
        tokio::select! { () = writes => {}, () = kill => {} }
        server.wait().await.unwrap();
        server = start(dir.path(), &[&listen]).await;
        assert!(!answered.is_empty(), "round {round}");
        for made in &answered {
            assert_eq!(maps.get(&made.name_any()).await.unwrap(), *made);
        }
        seen.extend(answered);
    }
    assert_eq!(
        std::fs::read(&kubeconfig).unwrap(),
        written,
        "same CA, token and address"
    );
    let newest = maps
        .create(&PostParams::default(), &config_map("last"))
        .await
        .unwrap();
    let version = |map: &ConfigMap| map.resource_version().unwrap().parse::<u64>().unwrap();
    assert!(seen.iter().all(|map| version(map) < version(&newest)));
    // A watch goes on where it was before the kills.
    let params = WatchParams::default().timeout(60);
    let events = maps
        .watch(&params, &seen[0].resource_version().unwrap())
        .await
        .unwrap();
    let mut events = std::pin::pin!(events);
    loop {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) if map.name_any() == "last" => break,
            WatchEvent::Added(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        definitions(&client)
            .get_opt("widgets.test.margay.io")
            .await
            .unwrap()
            .is_some()
    );
    eventually("the reflector has everything", async || {
        (reader.len() == maps.list(&ListParams::default()).await.unwrap().items.len()).then_some(())
    })
    .await;
    following.abort();
    server.kill().await.unwrap();
}

#[tokio::test]
async fn it_listens_in_other_network_namespaces() {
    let name = format!("b-api-{}", std::process::id());
    let ip = |words: &[&str]| {
        let output = std::process::Command::new("ip")
            .args(words)
            .output()
            .expect("ip (iproute2) is installed");
        assert!(
            output.status.success(),
            "ip {words:?}: {} (this test needs root and network namespaces)",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    ip(&["netns", "add", &name]);
    let dir = tempfile::tempdir().unwrap();
    let outcome = tokio::spawn({
        let (name, dir) = (name.clone(), dir.path().to_owned());
        async move {
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            let address = free_address();
            let inside = format!("--listen={address}@/run/netns/{name}");
            let mut server = start(&dir, &[&inside]).await;
            let kubectl = |inside: bool| {
                let words = ["netns", "exec", &name, "kubectl"];
                let words = if inside { &words[..] } else { &words[3..] };
                let mut command = Command::new(if inside { "ip" } else { "kubectl" });
                command
                    .args(if inside { words } else { &[] })
                    .args(["get", "ns", "-o", "name"]);
                command
                    .arg("--request-timeout=5s")
                    .env("KUBECONFIG", dir.join("kubeconfig"))
                    .env("HOME", &dir);
                command.output()
            };
            let output = kubectl(true).await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                text.contains("namespace/default"),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(
                !kubectl(false).await.unwrap().status.success(),
                "it does not listen here"
            );
            server.kill().await.unwrap();
        }
    })
    .await;
    ip(&["netns", "del", &name]);
    outcome.unwrap();
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apiserver"));
        let output = command
            .arg("--dir")
            .arg(dir.path())
            .args(words)
            .output()
            .await
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = run(&["--listen=6443"]).await;
    assert!(error.contains("\"6443\" is not ADDRESS:PORT"), "{error}");
    let error = run(&["--listen=127.0.0.1:0@/run/netns/nowhere"]).await;
    assert!(
        error.contains("cannot listen on 127.0.0.1:0@/run/netns/nowhere: No such file"),
        "{error}"
    );
    std::fs::write(dir.path().join("bad"), "nonsense\n").unwrap();
    let file = dir.path().join("bad");
    let error = run(&["--listen=127.0.0.1:0", "--data", file.to_str().unwrap()]).await;
    assert!(error.contains("bad is damaged at byte 0"), "{error}");
}

#[tokio::test]
async fn bursts_are_quick() {
    let api = common::Api::start().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client().await);
    let mut watches = Vec::new();
    for _ in 0..20 {
        let params = WatchParams::default().timeout(60);
        watches.push(Box::pin(pods.watch(&params, "0").await.unwrap()));
    }
    let began = Instant::now();
    let create = async |n: usize| {
        pods.create(&PostParams::default(), &object(pod(&format!("p{n}"))))
            .await
            .unwrap();
    };
    stream::iter(0..1000).for_each_concurrent(16, create).await;
    let created = began.elapsed();
    for watch in &mut watches {
        for _ in 0..1000 {
            let event = tokio::time::timeout(LIMIT, watch.try_next())
                .await
                .unwrap()
                .unwrap();
            assert!(matches!(event, Some(WatchEvent::Added(_))));
        }
    }
    let told = began.elapsed();
    let began = Instant::now();
    assert_eq!(
        pods.list(&ListParams::default()).await.unwrap().items.len(),
        1000
    );
    let listed = began.elapsed();
    pods.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    println!(
        "1000 pods: created in {created:?}, told 20 watches by {told:?}, listed in {listed:?}"
    );
    // Far above what it takes on an idle machine, far below what it would take with a copy for every watch.
    assert!(
        created < Duration::from_secs(20) && told < Duration::from_secs(30),
        "{created:?} {told:?}"
    );
    assert!(listed < Duration::from_secs(2), "{listed:?}");
}
