//! What can be chosen about a lab, and where its binaries are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::plan::{DEFAULT_DIR, Fabric, MAX_NODES, Plan};

/// How much of a lab is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parts {
    /// Namespaces, links and ToRs; nothing runs on the nodes.
    Fabric,
    /// Also the API server with its objects, and the scheduler; still nothing on the nodes.
    ControlPlane,
    /// Also the API server, and on every node felix, bgpd and the runner.
    Everything,
}

/// What `up` is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the lab keeps its files. Must not hold anything else: `down` removes it.
    pub dir: PathBuf,
    /// How many nodes, 1 to 200.
    pub nodes: u8,
    /// How they are connected.
    pub fabric: Fabric,
    /// BFD on every session of [`Fabric::DualTor`], 100 ms × 3.
    pub bfd: bool,
    /// How much is started.
    pub parts: Parts,
    /// Where the binaries are; `None`: see [`bin_dir`].
    pub bin_dir: Option<PathBuf>,
    /// Called with every step's line.
    pub report: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: DEFAULT_DIR.into(),
            nodes: 3,
            fabric: Fabric::SingleTor,
            bfd: false,
            parts: Parts::Everything,
            bin_dir: None,
            report: |line| println!("{line}"),
        }
    }
}

/// What is on disk about a lab, so that later commands know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) nodes: u8,
    #[serde(default)]
    pub(crate) fabric: Fabric,
    #[serde(default)]
    pub(crate) bfd: bool,
    pub(crate) parts: Parts,
    pub(crate) bin_dir: PathBuf,
    /// Which kubectl `lab kubectl` runs: the one found when the lab was made.
    pub(crate) kubectl: Option<PathBuf>,
    /// The API server's, on 127.0.0.1 of the machine and of every node.
    pub(crate) api_port: u16,
}

impl State {
    pub(crate) fn plan(&self, dir: &Path) -> Plan {
        Plan {
            bfd: self.bfd,
            ..Plan::with_fabric(dir, self.nodes, self.fabric)
        }
    }

    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let file = Plan::new(dir, 0).state_file();
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("read {}", file.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", file.display())),
        }
    }

    pub(crate) fn save(&self, plan: &Plan) -> Result<()> {
        fs::write(plan.state_file(), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

/// The directory as an absolute path without links, whether it exists or not, and short enough: sockets
/// live below it, and a socket's path has 107 bytes at most (unix(7)).
pub fn resolve_dir(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    let resolved = match (
        absolute.canonicalize(),
        absolute.parent(),
        absolute.file_name(),
    ) {
        (Ok(path), _, _) => path,
        (Err(_), Some(parent), Some(name)) => parent
            .canonicalize()
            .map_or_else(|_| absolute.clone(), |p| p.join(name)),
        _ => absolute,
    };
    if resolved.as_os_str().len() > 64 {
        bail!(
            "{} is too long: sockets below it need a path of at most 64 bytes",
            resolved.display()
        );
    }
    Ok(resolved)
}

pub(crate) fn check_nodes(nodes: u8) -> Result<()> {
    if !(1..=MAX_NODES).contains(&nodes) {
        bail!("--nodes {nodes}: must be 1 to {MAX_NODES}");
    }
    Ok(())
}

/// Where the daemons are: `MARGAY_BIN_DIR`, otherwise beside this binary (tests are one directory below).
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MARGAY_BIN_DIR") {
        return Ok(PathBuf::from(dir).canonicalize()?);
    }
    let exe = std::env::current_exe()?.canonicalize()?;
    let dir = exe.parent().context("the binary is in no directory")?;
    Ok(match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().unwrap_or(dir).to_owned(),
        _ => dir.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_resolved_before_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let through_link = resolve_dir(&dir.path().join("link/lab")).unwrap();
        assert_eq!(through_link, real.join("lab"));
        assert!(resolve_dir(&dir.path().join("x".repeat(70))).is_err());
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        assert!(check_nodes(0).is_err() && check_nodes(201).is_err());
        assert!(check_nodes(1).is_ok() && check_nodes(200).is_ok());
    }
}
