//! The kubelet's part against the embedded API server, with a plugin that writes down how it was called.
//! Needs root, and the binary `apiserver` where the other ones are.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, Options, Parts, bin_dir, netns};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Answers ADD with an address of its own each time; fails while `fail` exists.
const PLUGIN: &str = r#"#!/bin/sh
cd "$(dirname "$0")" && exec 9>lock && flock 9
printf '%s|%s|%s|%s|%s|%s\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS" "$(cat)" >> calls
test "$CNI_COMMAND" = ADD || exit 0
if test -e fail; then
  echo '{"cniVersion":"1.1.0","code":11,"msg":"not now"}'
  exit 1
fi
echo x >> added
n=$(wc -l < added)
echo "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"fd00:10:244::$n/128\"},{\"address\":\"10.244.0.$n/32\"}]}"
"#;

/// A call of the plugin.
#[derive(Debug, Clone)]
struct Call {
    verb: String,
    container: String,
    netns: String,
    ifname: String,
    args: String,
    conf: Value,
}

struct Bench {
    lab: Lab,
    bins: TempDir,
}

impl Bench {
    fn new(what: &str) -> Self {
        let bins = TempDir::new().unwrap();
        let built = bin_dir().unwrap();
        for binary in ["lab", "apiserver"] {
            let path = built.join(binary);
            assert!(
                path.exists(),
                "{} is missing: cargo build --bins",
                path.display()
            );
            symlink(path, bins.path().join(binary)).unwrap();
        }
        let plugin = bins.path().join("recorder");
        fs::write(&plugin, PLUGIN).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Lab::up(&Options {
            dir: PathBuf::from(format!("/tmp/lab-{}-{what}", std::process::id())),
            nodes: 1,
            parts: Parts::ControlPlane,
            bin_dir: Some(bins.path().to_owned()),
            report: |_| (),
            ..Options::default()
        })
        .unwrap();
        Self { lab, bins }
    }

    fn configure(&self) {
        let list = json!({
            "cniVersion": "1.1.0", "name": "recorded",
            "plugins": [{ "type": "recorder", "capabilities": { "portMappings": true } }],
        });
        let file = self
            .lab
            .plan()
            .cni_conf_dir("n1")
            .join("10-recorded.conflist");
        fs::write(file, list.to_string()).unwrap();
    }

    fn calls(&self, verb: &str) -> Vec<Call> {
        let text = fs::read_to_string(self.bins.path().join("calls")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let parts: Vec<&str> = line.splitn(6, '|').collect();
                Call {
                    verb: parts[0].into(),
                    container: parts[1].into(),
                    netns: parts[2].into(),
                    ifname: parts[3].into(),
                    args: parts[4].into(),
                    conf: serde_json::from_str(parts[5]).unwrap(),
                }
            })
            .filter(|c| c.verb == verb)
            .collect()
    }

    fn create_pod(&self, name: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": { "containers": [{ "name": "c", "image": "x", "ports": [
                { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 53, "protocol": "UDP" } ] }] },
        });
        self.lab
            .kubectl(&["create", "-f", "-"], &pod.to_string())
            .unwrap();
    }

    fn pod(&self, name: &str) -> Option<Value> {
        let text = self
            .lab
            .kubectl(
                &["get", "pod", name, "-o", "json", "--ignore-not-found"],
                "",
            )
            .unwrap();
        serde_json::from_str(&text).ok()
    }

    fn phase(&self, name: &str) -> Option<String> {
        Some(self.pod(name)?["status"]["phase"].as_str()?.to_owned())
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            if Instant::now() > deadline {
                let log = self.lab.log_files("n1", Some("runner")).unwrap();
                let log = fs::read_to_string(&log[0]).unwrap_or_default();
                panic!("waited for {what}; the runner's log:\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn running(&self, name: &str) {
        self.until(&format!("{name} to run"), || {
            self.phase(name).as_deref() == Some("Running")
        });
    }

    fn sandboxes(&self) -> Vec<String> {
        let prefix = self.lab.plan().netns("pod-");
        let mut names = netns::list().unwrap();
        names.retain(|n| n.starts_with(&prefix));
        names
    }
}

#[test]
fn the_plugin_is_called_as_containerd_calls_it() {
    let bench = Bench::new("calls");
    bench.lab.start("runner", Some("n1")).unwrap();
    bench.create_pod("web");
    bench.until("the node to be reported not ready", || {
        let log = bench.lab.log_files("n1", Some("runner")).unwrap();
        fs::read_to_string(&log[0])
            .unwrap()
            .contains("no CNI configuration")
    });
    assert_eq!(
        bench.phase("web").as_deref().unwrap_or("Pending"),
        "Pending"
    );
    assert!(bench.sandboxes().is_empty());

    bench.configure();
    bench.running("web");
    let status = bench.calls("STATUS");
    assert_eq!(
        (status[0].container.as_str(), status[0].netns.as_str()),
        ("", "")
    );
    let add = bench.calls("ADD");
    assert_eq!(add.len(), 1, "{add:?}");
    let pod = bench.pod("web").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let id = &add[0].container;
    assert_eq!(id.len(), 64);
    assert_eq!(add[0].ifname, "eth0");
    assert_eq!(
        add[0].args,
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
             K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}"
        )
    );
    let conf = &add[0].conf;
    assert_eq!(
        (&conf["name"], &conf["cniVersion"]),
        (&json!("recorded"), &json!("1.1.0"))
    );
    assert_eq!(conf["runtimeConfig"]["portMappings"][0]["HostPort"], 8080);
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["status"]["podIP"], "10.244.0.1", "IPv4 first");
    assert_eq!(pod["status"]["podIPs"][1]["ip"], "fd00:10:244::1");
    assert_eq!(pod["status"]["hostIP"], "172.30.1.11");
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    assert!(
        pod["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(ready)
    );
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);

    // The responder answers on the declared ports, in the pod's namespace.
    let sockets = bench.lab.exec("default/web", &["ss", "-Hlntu"]).unwrap();
    let sockets = String::from_utf8(sockets.stdout).unwrap();
    assert!(
        sockets.contains(":80 ") && sockets.contains(":53 "),
        "{sockets}"
    );

    bench
        .lab
        .kubectl(&["delete", "pod", "web", "--timeout=20s"], "")
        .unwrap();
    bench.until("three DELs", || bench.calls("DEL").len() == 3);
    let del = bench.calls("DEL");
    assert!(del.iter().all(|c| c.container == *id));
    assert_eq!(del[0].netns, add[0].netns);
    assert_eq!(
        del[0].conf["prevResult"]["ips"][0]["address"],
        "fd00:10:244::1/128"
    );
    for later in &del[1..] {
        assert_eq!(later.netns, "");
        assert!(later.conf.get("prevResult").is_none());
    }
    assert!(bench.sandboxes().is_empty());
}

#[test]
fn a_failed_add_is_undone_and_tried_with_a_new_sandbox() {
    let bench = Bench::new("retry");
    bench.configure();
    fs::write(bench.bins.path().join("fail"), "").unwrap();
    bench.lab.start("runner", Some("n1")).unwrap();
    bench.create_pod("web");
    bench.until("two failed ADDs", || bench.calls("ADD").len() >= 2);
    assert_eq!(
        bench.phase("web").as_deref().unwrap_or("Pending"),
        "Pending"
    );
    fs::remove_file(bench.bins.path().join("fail")).unwrap();
    bench.running("web");
    let mut added: Vec<String> = bench
        .calls("ADD")
        .into_iter()
        .map(|c| c.container)
        .collect();
    let last = added.pop().unwrap();
    assert!(!added.contains(&last));
    for id in &added {
        let dels = bench
            .calls("DEL")
            .into_iter()
            .filter(|c| c.container == *id)
            .count();
        assert_eq!(dels, 3, "{id}");
    }
    assert_eq!(bench.sandboxes().len(), 1);
}

#[test]
fn a_runner_that_was_killed_finds_its_pods_again() {
    let bench = Bench::new("adopt");
    bench.configure();
    bench.lab.start("runner", Some("n1")).unwrap();
    for name in ["stays", "goes"] {
        bench.create_pod(name);
        bench.running(name);
    }
    bench.lab.kill("runner", Some("n1")).unwrap();
    bench.lab.kill("apiserver", None).unwrap();
    bench.lab.start("runner", Some("n1")).unwrap();
    // Without the API it can but keep what is there, and does.
    bench.until("the responder to be back", || {
        let sockets = bench.lab.exec("default/stays", &["ss", "-Hlnt"]).unwrap();
        String::from_utf8(sockets.stdout).unwrap().contains(":80 ")
    });
    bench.lab.start("apiserver", None).unwrap();
    bench.lab.kill("runner", Some("n1")).unwrap();
    bench
        .lab
        .kubectl(
            &["delete", "pod", "goes", "--force", "--grace-period=0"],
            "",
        )
        .unwrap();
    bench.lab.start("runner", Some("n1")).unwrap();
    bench.until("the sandbox of the deleted pod to go", || {
        bench.sandboxes().len() == 1
    });
    assert_eq!(bench.calls("ADD").len(), 2, "nothing was attached again");
    assert_eq!(bench.phase("stays").as_deref(), Some("Running"));
    bench.create_pod("new");
    bench.running("new");
}
