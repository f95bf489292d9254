//! Calls plugins as a runtime does: a whole configuration list, results handed on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::usage;

/// The interface in the pod.
const IFNAME: &str = "eth0";

/// A network that pods are attached to.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// The configuration list.
    pub(crate) list: Value,
    /// Where its plugins are.
    pub(crate) bin_dir: PathBuf,
}

/// One attachment, as the runtime names it.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) container_id: String,
    pub(crate) netns: PathBuf,
    /// CNI_ARGS.
    pub(crate) args: String,
}

impl Network {
    /// ADD by every plugin of the list; the last result.
    pub(crate) fn add(&self, attachment: &Attachment) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in self.plugins()? {
            let child = self.start("ADD", plugin, attachment, &result)?;
            result = serde_json::from_slice(&finish(child, "ADD")?)?;
        }
        Ok(result)
    }

    /// DEL by every plugin of the list, the last one first.
    pub(crate) fn del(&self, attachment: &Attachment, result: &Value) -> Result<()> {
        for plugin in self.plugins()?.iter().rev() {
            finish(self.start("DEL", plugin, attachment, result)?, "DEL")?;
        }
        Ok(())
    }

    /// ADD; the most memory that the list's first plugin had, in MiB, where the kernel told.
    pub(crate) fn weigh(&self, attachment: &Attachment) -> Result<(Value, Option<f64>)> {
        let [plugin] = self.plugins()? else {
            bail!("a list with one plugin was expected");
        };
        let mut child = self.spawn("ADD", plugin, attachment)?;
        // It waits for its configuration now, so there is time to be told of its end.
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT)?;
        feed(&mut child, &self.conf(plugin, &Value::Null))?;
        let mut peak = None;
        loop {
            match waitpid(pid, None)? {
                // Its last breath: the memory is still there.
                WaitStatus::PtraceEvent(..) => {
                    peak = usage::peak_rss(pid.as_raw());
                    ptrace::cont(pid, None)?;
                }
                WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
                WaitStatus::Exited(_, 0) => break,
                other => bail!("ADD ended with {other:?}"),
            }
        }
        let output = child.stdout.take().context("the plugin has no output")?;
        Ok((serde_json::from_reader(output)?, peak))
    }

    /// How long it takes only to run the list's first plugin: VERSION does nothing else.
    pub(crate) fn version(&self) -> Result<Duration> {
        let kind = &self.plugins()?[0]["type"];
        let start = Instant::now();
        let mut child = Command::new(self.bin_dir.join(kind.as_str().context("no type")?))
            .env("CNI_COMMAND", "VERSION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        feed(&mut child, &serde_json::json!({ "cniVersion": "1.0.0" }))?;
        finish(child, "VERSION")?;
        Ok(start.elapsed())
    }

    fn plugins(&self) -> Result<&[Value]> {
        match self.list["plugins"].as_array().map(Vec::as_slice) {
            Some(plugins @ [_, ..]) => Ok(plugins),
            _ => bail!("the configuration list has no plugins"),
        }
    }

    fn conf(&self, plugin: &Value, previous: &Value) -> Value {
        let mut conf = plugin.clone();
        conf["name"] = self.list["name"].clone();
        conf["cniVersion"] = self.list["cniVersion"].clone();
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        conf
    }

    fn start(
        &self,
        verb: &str,
        plugin: &Value,
        attachment: &Attachment,
        previous: &Value,
    ) -> Result<Child> {
        let mut child = self.spawn(verb, plugin, attachment)?;
        feed(&mut child, &self.conf(plugin, previous))?;
        Ok(child)
    }

    fn spawn(&self, verb: &str, plugin: &Value, attachment: &Attachment) -> Result<Child> {
        let kind = plugin["type"].as_str().context("a plugin has no type")?;
        Command::new(self.bin_dir.join(kind))
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.bin_dir)
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", IFNAME)
            .env("CNI_ARGS", &attachment.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the plugin {kind}"))
    }
}

/// The name of the interface on the host's side, by a result.
pub(crate) fn host_interface(result: &Value) -> Option<&str> {
    let interfaces = result["interfaces"].as_array()?;
    let host = interfaces
        .iter()
        .find(|i| i["sandbox"].as_str().unwrap_or_default().is_empty())?;
    host["name"].as_str()
}

/// How long it takes to run the smallest program there is.
pub(crate) fn exec_floor() -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new(Path::new("/bin/true")).status()?;
    if !status.success() {
        bail!("/bin/true failed");
    }
    Ok(start.elapsed())
}

fn feed(child: &mut Child, conf: &Value) -> Result<()> {
    let mut stdin = child.stdin.take().context("the plugin has no input")?;
    Ok(stdin.write_all(&serde_json::to_vec(conf)?)?)
}

fn finish(child: Child, verb: &str) -> Result<Vec<u8>> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let log = String::from_utf8_lossy(&output.stderr);
        bail!("{verb}: {}: {} {}", output.status, said.trim(), log.trim());
    }
    Ok(output.stdout)
}
