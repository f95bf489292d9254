//! WHERE of `lab exec` and `from` of `lab probe`: a node, a ToR or a pod, and what its network namespace is.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::netns;
use crate::plan::Plan;
use crate::pods;

/// A node, a ToR or a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `n1`
    Node(String),
    /// `tor-a`, or another router.
    Tor(String),
    /// `NAMESPACE/POD`
    Pod(String),
}

impl Place {
    /// Reads WHERE; a name that is no node or ToR of the plan is an error that lists those there are.
    pub fn parse(plan: &Plan, text: &str) -> Result<Self> {
        let owned = text.to_owned();
        if plan.node(text).is_some() {
            return Ok(Self::Node(owned));
        }
        if plan.routers().any(|router| router == text) {
            return Ok(Self::Tor(owned));
        }
        match text.split_once('/') {
            Some((ns, pod)) if !ns.is_empty() && !pod.is_empty() && !pod.contains('/') => {
                Ok(Self::Pod(owned))
            }
            _ => {
                let names: Vec<&str> = plan
                    .nodes
                    .iter()
                    .map(|n| n.name.as_str())
                    .chain(plan.routers())
                    .collect();
                bail!("{text:?} is neither {} nor NAMESPACE/POD", names.join(", "))
            }
        }
    }

    /// The file of its network namespace.
    pub fn netns(&self, plan: &Plan) -> Result<PathBuf> {
        let name = match self {
            Self::Node(name) | Self::Tor(name) => plan.netns(name),
            Self::Pod(name) => match pods::attached(plan).remove(name) {
                Some(sandbox) => sandbox.netns,
                None => bail!("no running pod {name}"),
            },
        };
        Ok(netns::path(&name))
    }

    /// What a command run there finds in its environment.
    pub fn env(&self, plan: &Plan, bin_dir: &std::path::Path) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let with = |dir: PathBuf| format!("{}:{path}", dir.display());
        let text = |p: PathBuf| p.display().to_string();
        let vars = match self {
            Self::Node(node) => vec![
                ("PATH", with(bin_dir.to_owned())),
                ("NODE_NAME", node.clone()),
                ("MARGAY_RUN_DIR", text(plan.run_dir(node))),
                ("MARGAY_STATE_DIR", text(plan.node_state_dir(node))),
                ("MARGAY_BOOTSTRAP", text(plan.bootstrap_file(node))),
                ("MARGAY_BOOT_ID_FILE", text(plan.boot_id_file(node))),
                ("MARGAY_CNI_CONF_DIR", text(plan.cni_conf_dir(node))),
                ("KUBECONFIG", text(plan.node_kubeconfig())),
            ],
            Self::Tor(tor) => vec![("PATH", with(plan.tor_dir(tor).join("bin")))],
            Self::Pod(_) => vec![],
        };
        vars.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn where_is_a_node_a_tor_or_a_pod() {
        let plan = Plan::new(Path::new("/x"), 3);
        let parse = |t: &str| Place::parse(&plan, t).map_err(|e| e.to_string());
        assert_eq!(parse("n3"), Ok(Place::Node("n3".into())));
        assert_eq!(parse("tor-b"), Ok(Place::Tor("tor-b".into())));
        assert_eq!(parse("shop/web-1"), Ok(Place::Pod("shop/web-1".into())));
        assert_eq!(
            parse("n4"),
            Err("\"n4\" is neither n1, n2, n3, tor-a, tor-b nor NAMESPACE/POD".into())
        );
        assert!(parse("a/b/c").is_err());
    }
}
