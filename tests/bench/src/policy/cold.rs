//! A cold start, in a process of its own: its memory is that of the start alone.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::netns;

use super::cluster::{self, Size};
use super::node::Node;
use crate::usage;

/// felix's time and the kernel's in milliseconds, elements, and memory in MiB.
pub(crate) fn run(size: Size) -> Result<[f64; 4]> {
    let output = Command::new(std::env::current_exe()?)
        .args([
            "policy-cold",
            &size.pods.to_string(),
            &size.policies.to_string(),
        ])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a cold start: {}", said.trim());
    serde_json::from_slice(&output.stdout).context("reading the figures of a cold start")
}

/// What the process does: prints the four figures.
pub(crate) fn measure(pods: u32, policies: u32) -> Result<()> {
    let figures = netns::run_in_new(move || Ok(start(Size { pods, policies })))??;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn start(size: Size) -> Result<[f64; 4]> {
    let mut node = Node::new()?;
    let start = Instant::now();
    let cost = node.change(|engine| cluster::fill(engine, size))?;
    let felix = start.elapsed().saturating_sub(cost.commit);
    let elements = node.engine.tables().entries();
    let memory =
        usage::peak_rss(nix::unistd::getpid().as_raw()).context("reading the memory in use")?;
    Ok([
        felix.as_secs_f64() * 1e3,
        cost.commit.as_secs_f64() * 1e3,
        f64::from(u32::try_from(elements)?),
        memory,
    ])
}
