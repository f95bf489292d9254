//! The node runner's records of sandboxes: one file each, written before the plugin is called and removed
//! after its DEL, so that a runner that was killed finds everything it made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::Plan;
use crate::responder::Transport;

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// 64 hex digits, new for every sandbox.
    pub container_id: String,
    /// Name of its network namespace.
    pub netns: String,
    /// It uses its node's network: there is nothing to attach.
    pub host_network: bool,
    /// Its addresses, the primary one first; empty until ADD succeeded.
    pub addresses: Vec<IpAddr>,
    /// The ports its responder answers on.
    pub ports: Vec<(Transport, u16)>,
    /// The result of ADD, which the first DEL gets back.
    pub result: Option<Value>,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Sandbox {
    /// Writes the record, whole or not at all.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let file = self.file(dir);
        let draft = file.with_extension("draft");
        fs::write(&draft, serde_json::to_vec(self)?)?;
        fs::rename(draft, file)
    }

    /// Removes the record.
    pub fn forget(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_file(self.file(dir)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn file(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.json", self.container_id))
    }
}

/// The sandboxes recorded in a node's directory.
pub fn load(dir: &Path) -> Vec<Sandbox> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .filter_map(|p| serde_json::from_slice(&fs::read(p).ok()?).ok())
        .collect()
}

/// The attached sandboxes of all nodes by `namespace/pod`.
pub fn attached(plan: &Plan) -> BTreeMap<String, Sandbox> {
    plan.nodes
        .iter()
        .flat_map(|n| load(&plan.pods_dir(&n.name)))
        .filter(|s| !s.addresses.is_empty())
        .map(|s| (format!("{}/{}", s.namespace, s.pod), s))
        .collect()
}
