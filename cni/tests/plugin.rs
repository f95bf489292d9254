//! The real plugin binary in real namespaces, against a felix that answers what the case wants.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use cni::error::{CniError, Code};
use cni::frame::{self, Reply, Request};
use cni::key::AttachmentKey;
use serde_json::Value;

/// A node's and a pod's namespace, and a directory; all gone when it drops.
struct Rig {
    node: String,
    pod: String,
    dir: tempfile::TempDir,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Rig {
    fn new() -> Self {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("mgycni-{role}-{}-{n}", std::process::id());
        let rig = Self {
            node: name("node"),
            pod: name("pod"),
            dir: tempfile::tempdir().unwrap(),
        };
        for netns in [&rig.node, &rig.pod] {
            must("ip", &["netns", "add", netns]);
        }
        rig
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("cni.sock")
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn conf(&self) -> String {
        serde_json::json!({
            "cniVersion": "1.1.0", "name": "margay", "type": "margay",
            "socket": self.socket(), "spoolDir": self.spool(),
            "runtimeConfig": {"portMappings": [{"HostPort": 1, "ContainerPort": 2}]},
        })
        .to_string()
    }

    /// Answers each request with what `answer` says, for as long as the test runs.
    fn felix(&self, answer: fn(&Request) -> Reply) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Ok(request) = frame::read::<Request>(&mut stream) {
                    frame::write(&mut stream, &answer(&request)).unwrap();
                }
            }
        });
    }

    fn call(&self, command: &str, netns: &str, stdin: &str) -> Output {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.node))
            .arg(env!("CARGO_BIN_EXE_margay"))
            .env_clear()
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
            ])
            .envs([("CNI_NETNS", netns), ("CNI_PATH", "/opt/cni/bin")])
            .env(
                "CNI_ARGS",
                "K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;K8S_POD_UID=u1;IgnoreUnknown=1",
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn add(&self) -> Output {
        self.call("ADD", &format!("/run/netns/{}", self.pod), &self.conf())
    }

    fn ip(&self, netns: &str, args: &[&str]) -> String {
        must("ip", &[&["-n", netns], args].concat())
    }

    fn nothing_is_left(&self) {
        assert!(
            !self.ip(&self.node, &["link"]).contains("mgy"),
            "{}",
            self.ip(&self.node, &["link"])
        );
        assert!(!self.ip(&self.pod, &["link"]).contains("eth0"));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for netns in [&self.node, &self.pod] {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {error} (root and iproute2 are needed)",
        args.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn addresses() -> Vec<IpAddr> {
    vec![
        "10.244.0.7".parse().unwrap(),
        "fd00:10:244::7".parse().unwrap(),
    ]
}

fn agreeable(request: &Request) -> Reply {
    match request {
        Request::Add { .. } => Reply::Reserved {
            addresses: addresses(),
            mtu: 1400,
        },
        _ => Reply::Done,
    }
}

fn fails_when_ready(request: &Request) -> Reply {
    match request {
        Request::Ready { .. } => Reply::Failed {
            error: CniError::new(Code::TryAgain, "not now", "the test wants it"),
        },
        other => agreeable(other),
    }
}

fn host_interface() -> String {
    AttachmentKey {
        network: "margay".into(),
        container_id: "c1".into(),
        interface: "eth0".into(),
    }
    .host_interface()
}

#[test]
fn add_makes_what_it_says() {
    let rig = Rig::new();
    rig.felix(agreeable);
    let output = rig.add();
    assert!(output.status.success(), "{output:?}");
    let result = json(&output);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"][0]["address"], "10.244.0.7/32");
    assert_eq!(result["ips"][1]["address"], "fd00:10:244::7/128");
    assert_eq!(result["interfaces"][0]["name"], host_interface());

    let link = rig.ip(&rig.pod, &["link", "show", "eth0"]);
    assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
    assert!(
        link.contains(result["interfaces"][1]["mac"].as_str().unwrap()),
        "{link}"
    );
    let addresses = rig.ip(&rig.pod, &["addr", "show", "eth0"]);
    assert!(
        addresses.contains("10.244.0.7/32") && addresses.contains("fd00:10:244::7/128"),
        "{addresses}"
    );
    assert!(!addresses.contains("tentative"), "{addresses}");
    let routes = rig.ip(&rig.pod, &["route"]);
    assert!(
        routes.contains("default via 169.254.1.1 dev eth0"),
        "{routes}"
    );
    let routes = rig.ip(&rig.pod, &["-6", "route"]);
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let neighbours = rig.ip(&rig.pod, &["neigh"]);
    assert_eq!(neighbours.matches("PERMANENT").count(), 2, "{neighbours}");
    let host = rig.ip(&rig.node, &["link", "show", &host_interface()]);
    assert!(
        host.contains("mtu 1400") && host.contains("02:6d:67:79:00:01"),
        "{host}"
    );
}

#[test]
fn a_failed_add_leaves_nothing() {
    let rig = Rig::new();
    rig.felix(fails_when_ready);
    let output = rig.add();
    assert!(!output.status.success());
    assert_eq!(json(&output)["code"], 11);
    rig.nothing_is_left();
}

#[test]
fn add_without_felix_says_try_again_and_changes_nothing() {
    let rig = Rig::new();
    let output = rig.add();
    assert!(!output.status.success());
    assert_eq!(json(&output)["code"], 11);
    assert!(
        json(&output)["details"]
            .as_str()
            .unwrap()
            .contains("margay-felix")
    );
    rig.nothing_is_left();
    assert!(
        !rig.spool().exists(),
        "nothing was attached, so nothing waits"
    );
}

#[test]
fn a_taken_interface_is_refused_before_felix_is_asked() {
    let rig = Rig::new();
    rig.felix(|_| panic!("felix must not be asked"));
    rig.ip(&rig.pod, &["link", "add", "eth0", "type", "bridge"]);
    let output = rig.add();
    assert_eq!(json(&output)["code"], 4);
    rig.ip(&rig.pod, &["link", "show", "eth0"]);
}

#[test]
fn del_succeeds_three_times_and_without_felix_it_spools() {
    let rig = Rig::new();
    rig.felix(agreeable);
    assert!(rig.add().status.success());
    std::fs::remove_file(rig.socket()).unwrap();
    let netns = format!("/run/netns/{}", rig.pod);
    for netns in [netns.as_str(), "", ""] {
        let output = rig.call("DEL", netns, &rig.conf());
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
    rig.nothing_is_left();
    let mut waiting = Vec::new();
    assert!(
        cni::spool::drain(&rig.spool(), |key| waiting.push(key))
            .unwrap()
            .is_empty()
    );
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].host_interface(), host_interface());
}

#[test]
fn bad_input_is_answered_with_its_code() {
    let rig = Rig::new();
    let netns = format!("/run/netns/{}", rig.pod);
    let old = r#"{"cniVersion":"0.4.0","name":"margay"}"#;
    for (command, netns, stdin, code) in [
        ("ADD", netns.as_str(), "{", 6),
        ("ADD", &netns, old, 1),
        ("ADD", "/run/netns/no-such", &rig.conf(), 3),
        ("ADD", "/etc/hostname", &rig.conf(), 3),
        ("ADD", "", &rig.conf(), 4),
        ("NONSENSE", &netns, &rig.conf(), 4),
        ("STATUS", "", &rig.conf(), 50),
    ] {
        let output = rig.call(command, netns, stdin);
        assert!(!output.status.success(), "{command} {stdin}");
        assert_eq!(json(&output)["code"], code, "{command} {stdin}: {output:?}");
    }
    rig.nothing_is_left();
    let version = json(&rig.call("VERSION", "", r#"{"cniVersion":"1.0.0"}"#));
    assert_eq!(
        version["supportedVersions"],
        serde_json::json!(["1.0.0", "1.1.0"])
    );
}

#[test]
fn the_host_s_own_namespace_is_refused() {
    let rig = Rig::new();
    let own = format!("/run/netns/{}", rig.node);
    assert!(Path::new(&own).exists());
    assert_eq!(json(&rig.call("ADD", &own, &rig.conf()))["code"], 4);
}
