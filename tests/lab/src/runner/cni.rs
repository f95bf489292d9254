//! Calls the plugin as containerd does: libcni's way with a configuration list, containerd's environment,
//! and the capital keys its runtimeConfig has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::warn;

use super::describe;
use crate::netns;
use crate::plan::Plan;
use crate::pods::Sandbox;

/// A call that takes longer is ended, as containerd ends it when its caller gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pod's interface.
const IFNAME: &str = "eth0";
/// The capability that hands over all annotations of the pod.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The network a node's pods are attached to.
#[derive(Debug, Clone)]
pub struct Network {
    conf_dir: PathBuf,
    bin_dir: PathBuf,
}

impl Network {
    /// The network of a node: the first list in its configuration directory.
    pub fn new(plan: &Plan, node: &str, bin_dir: PathBuf) -> Self {
        Self {
            conf_dir: plan.cni_conf_dir(node),
            bin_dir,
        }
    }

    /// ADD of every plugin of the list; the last result.
    pub async fn add(&self, sandbox: &Sandbox, pod: &Pod) -> Result<Value> {
        let list = self.list()?;
        let capabilities = capability_args(pod);
        let mut result = None;
        for plugin in plugins(&list) {
            let conf = plugin_conf(&list, plugin, &capabilities, result.as_ref());
            let out = self.call("ADD", &conf, sandbox, true).await?;
            result = Some(serde_json::from_slice(&out).context("the result of ADD is not JSON")?);
        }
        result.context("the configuration list has no plugins")
    }

    /// DEL of every plugin of the list, the last one first. Only the `first` one has the namespace and the result of
    /// ADD.
    pub async fn del(&self, sandbox: &Sandbox, first: bool) -> Result<()> {
        let list = self.list()?;
        let previous = sandbox.result.as_ref().filter(|_| first);
        for plugin in plugins(&list).iter().rev() {
            let conf = plugin_conf(&list, plugin, &Map::new(), previous);
            self.call("DEL", &conf, sandbox, first).await?;
        }
        Ok(())
    }

    /// STATUS of every plugin; what containerd 2 asks whenever a kubelet asks it.
    pub async fn status(&self) -> Result<()> {
        let list = self.list()?;
        if list["cniVersion"] != "1.1.0" {
            return Ok(());
        }
        for plugin in plugins(&list) {
            let conf = plugin_conf(&list, plugin, &Map::new(), None);
            let empty = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
            let env = empty.map(|key| (key, String::new())).to_vec();
            self.run("STATUS", &conf, env).await?;
        }
        Ok(())
    }

    /// What felix wrote. It does so when the node can take pods.
    fn list(&self) -> Result<Value> {
        let Some(file) = first_list(&self.conf_dir)? else {
            bail!("no CNI configuration in {} yet", self.conf_dir.display());
        };
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
    }

    /// Whether there is a network to attach pods to; a kubelet makes no sandbox before.
    pub fn configured(&self) -> Result<()> {
        self.list().map(|_| ())
    }

    async fn call(
        &self,
        verb: &str,
        conf: &Value,
        sandbox: &Sandbox,
        with_netns: bool,
    ) -> Result<Vec<u8>> {
        let netns = if with_netns {
            netns::path(&sandbox.netns).display().to_string()
        } else {
            String::new()
        };
        let env = vec![
            ("CNI_CONTAINERID", sandbox.container_id.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", IFNAME.to_owned()),
            ("CNI_ARGS", args(sandbox)),
        ];
        self.run(verb, conf, env).await
    }

    async fn run(&self, verb: &str, conf: &Value, env: Vec<(&str, String)>) -> Result<Vec<u8>> {
        let kind = conf["type"]
            .as_str()
            .context("a plugin in the list has no type")?;
        let mut child = Command::new(self.bin_dir.join(kind))
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.bin_dir)
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the plugin {kind}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails early does not read; its answer says why.
            let _ = stdin.write_all(&serde_json::to_vec(conf)?).await;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .with_context(|| format!("{verb} of {kind} took longer than {PATIENCE:?}"))??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !stderr.trim().is_empty() {
            warn!(plugin = kind, verb, "{}", stderr.trim());
        }
        if !output.status.success() {
            bail!(
                "{verb} of {kind}: {}",
                problem(&output.stdout, &output.status.to_string())
            );
        }
        Ok(output.stdout)
    }
}

/// The error on standard output in words.
fn problem(stdout: &[u8], status: &str) -> String {
    let Ok(error) = serde_json::from_slice::<Value>(stdout) else {
        return format!("{status} and no CNI error on standard output");
    };
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let details = text("details");
    let colon = if details.is_empty() { "" } else { ": " };
    format!("code {}: {}{colon}{details}", error["code"], text("msg"))
}

/// containerd takes the first file by name.
fn first_list(dir: &Path) -> Result<Option<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("read {}", dir.display()))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "conflist"))
        .collect();
    files.sort();
    Ok(files.into_iter().next())
}

fn plugins(list: &Value) -> &[Value] {
    list["plugins"].as_array().map_or(&[], Vec::as_slice)
}

/// What libcni hands a plugin: its part of the list with the list's name and version, the arguments of the
/// capabilities it declares, and the result so far.
fn plugin_conf(
    list: &Value,
    plugin: &Value,
    capability_args: &Map<String, Value>,
    previous: Option<&Value>,
) -> Value {
    let mut conf = plugin.clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    let declared: Map<String, Value> = capability_args
        .iter()
        .filter(|(name, _)| plugin["capabilities"][name.as_str()] == true)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !declared.is_empty() {
        conf["runtimeConfig"] = declared.into();
    }
    if let Some(previous) = previous {
        conf["prevResult"] = previous.clone();
    }
    conf
}

/// As containerd's CRI service sends them: Go's field names, hence capitals.
fn capability_args(pod: &Pod) -> Map<String, Value> {
    let mappings: Vec<Value> = describe::container_ports(pod)
        .filter_map(|port| {
            Some(json!({
                "HostPort": port.host_port.filter(|p| *p > 0)?,
                "ContainerPort": port.container_port,
                "Protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                "HostIP": port.host_ip.as_deref().unwrap_or_default(),
            }))
        })
        .collect();
    let mut args = Map::new();
    if !mappings.is_empty() {
        args.insert("portMappings".to_owned(), mappings.into());
    }
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    args.insert(ANNOTATIONS.to_owned(), json!(annotations));
    args
}

fn args(sandbox: &Sandbox) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        sandbox.namespace, sandbox.pod, sandbox.container_id, sandbox.uid
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_what_libcni_would_give_it() {
        let list = json!({
            "cniVersion": "1.1.0",
            "name": "margay",
            "plugins": [{ "type": "margay", "capabilities": { "portMappings": true }, "socket": "/s" }],
        });
        let mut args = Map::new();
        args.insert("portMappings".into(), json!([{ "HostPort": 1 }]));
        args.insert("bandwidth".into(), json!({}));
        let conf = plugin_conf(
            &list,
            &list["plugins"][0],
            &args,
            Some(&json!({ "ips": [] })),
        );
        assert_eq!(
            conf,
            json!({
                "type": "margay", "capabilities": { "portMappings": true }, "socket": "/s",
                "name": "margay", "cniVersion": "1.1.0",
                "runtimeConfig": { "portMappings": [{ "HostPort": 1 }] },
                "prevResult": { "ips": [] },
            })
        );
    }

    #[test]
    fn port_mappings_have_gos_capitals() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "annotations": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "ports": [
                { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 } ] }] },
        }))
        .unwrap();
        let args = capability_args(&pod);
        assert_eq!(
            args["portMappings"],
            json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }])
        );
        assert_eq!(args[ANNOTATIONS], json!({ "a": "b" }));
    }

    #[test]
    fn errors_are_put_into_words() {
        let stdout =
            br#"{"cniVersion":"1.1.0","code":11,"msg":"felix is not there","details":"connect"}"#;
        assert_eq!(
            problem(stdout, "exit status: 1"),
            "code 11: felix is not there: connect"
        );
        assert!(problem(b"oops", "exit status: 1").contains("no CNI error"));
    }
}
