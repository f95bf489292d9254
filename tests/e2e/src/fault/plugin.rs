//! The real plugin, called by hand.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{bin_dir, netns};
use serde_json::Value;

use super::rig::Rig;

/// One call.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// On which node.
    pub node: &'a str,
    /// ADD, DEL …
    pub verb: &'a str,
    /// The sandbox.
    pub container: &'a str,
    /// Name of its namespace, empty for none.
    pub netns: &'a str,
    /// CNI_ARGS.
    pub args: &'a str,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whether it succeeded.
    pub ok: bool,
    /// What it printed: a result or an error.
    pub out: Value,
    /// How long it took.
    pub took: Duration,
}

/// Calls the plugin with the configuration that felix wrote.
pub fn call(rig: &Rig, call: &Call<'_>) -> Result<Answer> {
    let file = rig
        .plan()
        .cni_conf_dir(call.node)
        .join("10-margay.conflist");
    let list: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    let path = if call.netns.is_empty() {
        String::new()
    } else {
        netns::path(call.netns).display().to_string()
    };
    let start = Instant::now();
    let bins = bin_dir()?;
    let mut child = Command::new(bins.join("margay"))
        .env("CNI_COMMAND", call.verb)
        .env("CNI_PATH", &bins)
        .env("CNI_CONTAINERID", call.container)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", call.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the plugin")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&conf)?)?;
    }
    let output = child.wait_with_output()?;
    Ok(Answer {
        ok: output.status.success(),
        out: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        took: start.elapsed(),
    })
}
