//! The contract between felix and the real `margay-bgpd`, where it is broken.

#![allow(clippy::unwrap_used)]

mod support;

use api::v1;
use api::v1::bgpd_message::Body as Told;
use api::v1::felix_message::Body as Say;
use support::felix::{Felix, wait_for_speaker};
use support::{BGPD, Namespace, Process};
use tonic::Code;

/// A speaker without peers.
struct Rig {
    bgpd: Process,
    _node: Namespace,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Namespace::new("alone");
        let config = dir.path().join("bgpd.yaml");
        std::fs::write(&config, "{asNumber: 65001, routerID: 192.0.2.1}").unwrap();
        let mut command = node.command(BGPD);
        command.arg("--config").arg(&config);
        command.arg("--run-dir").arg(dir.path().join("run"));
        let rig = Self {
            bgpd: Process::start(command, dir.path().join("bgpd.log")),
            _node: node,
            dir,
        };
        wait_for_speaker(&rig.socket());
        rig
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("run/bgpd.sock")
    }
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_known_hello_is_refused() {
    let mut rig = Rig::new();
    let mut rude = Felix::silent(&rig.socket()).await;
    rude.origin("10.244.0.0/26").await;
    let status = rude.ended().await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");

    let mut stranger = Felix::silent(&rig.socket()).await;
    stranger.hello(7).await;
    let status = stranger.ended().await;
    assert!(
        status.message().contains("neighbouring releases"),
        "{status}"
    );

    // One version up is understood.
    let mut newer = Felix::silent(&rig.socket()).await;
    newer.hello(2).await;
    newer.end_of_snapshot().await;
    newer.acked().await;
    assert!(rig.bgpd.is_running());
}

#[tokio::test]
async fn a_newer_felix_takes_over_from_an_older_one() {
    let rig = Rig::new();
    let mut older = Felix::connect(&rig.socket()).await;
    older.end_of_snapshot().await;
    older.acked().await;
    let mut newer = Felix::connect(&rig.socket()).await;
    let status = older.ended().await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
    newer.end_of_snapshot().await;
    newer.acked().await;
}

#[tokio::test]
async fn a_prefix_that_is_none_is_told_back_and_the_stream_goes_on() {
    let rig = Rig::new();
    let mut felix = Felix::connect(&rig.socket()).await;
    felix.origin("10.244.0.1/26").await;
    let error = felix
        .hear("the error", |body| match body {
            Told::Ack(ack) if ack.generation == 1 => Some(ack.error),
            _ => None,
        })
        .await;
    assert!(error.contains("10.244.0.0/26"), "{error}");
    felix.origin("10.244.0.0/26").await;
    felix.acked().await;
    // What felix could not take is only noted.
    felix
        .say(Say::Ack(v1::Ack {
            generation: 1,
            error: "no such device".into(),
        }))
        .await;
    felix.end_of_snapshot().await;
    felix.acked().await;
}

#[test]
fn a_second_speaker_on_the_same_socket_is_refused() {
    let mut rig = Rig::new();
    let output = std::process::Command::new(BGPD)
        .arg("--config")
        .arg(rig.dir.path().join("bgpd.yaml"))
        .arg("--run-dir")
        .arg(rig.dir.path().join("run"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is served by another process"), "{text}");
    assert!(rig.bgpd.is_running() && rig.socket().exists());
}
