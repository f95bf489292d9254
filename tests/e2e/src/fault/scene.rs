//! A small cluster under watch: pods in both racks, a policy, and traffic that is allowed and traffic that is not.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::picture::{Picture, picture};
use super::rig::{Pod, Rig, wait};
use super::traffic::{Kind, Traffic};

/// Only `a` may speak to `b`.
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-a, namespace: default }
spec:
  podSelector: { matchLabels: { app: b } }
  policyTypes: [Ingress]
  ingress:
  - from: [{ podSelector: { matchLabels: { app: a } } }]
";

/// Traffic with what is expected of it.
#[derive(Debug)]
pub struct Watch {
    allowed: Traffic,
    denied: Traffic,
}

impl Watch {
    /// Starts it: `a` and `b` in different racks both ways, `c` to `a` in one rack; `c` to `b` is forbidden.
    pub fn start(rig: &Rig) -> Result<Self> {
        Self::without(rig, "")
    }

    /// The same without the traffic of one pod.
    pub fn without(rig: &Rig, pod: &str) -> Result<Self> {
        let all = [("a", "b"), ("b", "a"), ("c", "a")];
        let pairs: Vec<_> = all
            .into_iter()
            .filter(|(from, to)| ![*from, *to].contains(&pod))
            .collect();
        let mut watch = Self::allowed(rig, &pairs)?;
        if pod != "b" {
            watch.deny(rig)?;
        }
        Ok(watch)
    }

    /// The same with the allowed traffic of these pairs.
    pub fn between(rig: &Rig, pairs: &[(&str, &str)]) -> Result<Self> {
        let mut watch = Self::allowed(rig, pairs)?;
        watch.deny(rig)?;
        Ok(watch)
    }

    fn allowed(rig: &Rig, pairs: &[(&str, &str)]) -> Result<Self> {
        let mut allowed = Traffic::none();
        for (from, to) in pairs {
            let target = rig.sandbox(to)?;
            let netns = rig.netns(&format!("default/{from}"))?;
            allowed.add(&format!("{from}→{to}"), &netns, &target.addresses);
        }
        Ok(Self {
            allowed,
            denied: Traffic::none(),
        })
    }

    fn deny(&mut self, rig: &Rig) -> Result<()> {
        let netns = rig.netns("default/c")?;
        for address in rig.sandbox("b")?.addresses {
            self.denied.add_one("c→b", &netns, address, Kind::NewFlows);
        }
        Ok(())
    }

    /// Ends it at once: whether everything allowed gets through.
    pub fn reached(self) -> Result<bool> {
        self.denied.stop_soon()?;
        self.allowed.stop_soon()
    }

    /// Ends it: no sender that lost something was without answers for as long as `limit`, by the gap between two of them or
    /// by the number of those lost, and nothing forbidden got through.
    pub fn within(self, during: &str, limit: Duration) -> Result<()> {
        let denied = self.denied.stop();
        for loss in self.allowed.stop()? {
            println!("{during}: {loss}");
            let short = loss.gap < limit && loss.time() < limit;
            ensure!(loss.lost == 0 || short, "{during}: {loss}");
        }
        closed(during, denied?)
    }

    /// Ends it: nothing was lost, and nothing forbidden got through.
    pub fn unharmed(self, during: &str) -> Result<()> {
        let denied = self.denied.stop();
        self.allowed.stop_unharmed(during)?;
        closed(during, denied?)
    }

    /// Ends it: what was lost came back within `patience`, and nothing forbidden got through.
    pub fn recovered(self, during: &str, patience: Duration) -> Result<()> {
        let denied = self.denied.stop();
        for loss in self.allowed.stop()? {
            println!("{during}: {loss}");
            ensure!(loss.gap < patience, "{during}: {loss}");
        }
        closed(during, denied?)
    }
}

fn closed(during: &str, losses: Vec<super::Loss>) -> Result<()> {
    for loss in losses {
        ensure!(
            loss.sent > 0 && loss.sent == loss.lost,
            "{during}: forbidden, and yet answered: {loss}"
        );
    }
    Ok(())
}

/// A lab with pods `a` on n1, `c` on n2, `b` on n3 and the policy in force.
pub fn scene(what: &str) -> Result<Rig> {
    scene_of(Rig::up(what)?)
}

/// The same in a lab that is there.
pub fn scene_of(rig: Rig) -> Result<Rig> {
    let pods = [("a", "n1"), ("c", "n2"), ("b", "n3")];
    rig.run(&pods.map(|(name, node)| Pod { name, node }))?;
    rig.apply(POLICY)?;
    wait("the policy", Duration::from_secs(20), || {
        let mut probe = Traffic::none();
        for address in rig.sandbox("b")?.addresses {
            probe.add_one("c→b", &rig.netns("default/c")?, address, Kind::NewFlows);
        }
        std::thread::sleep(Duration::from_millis(20));
        let losses = probe.stop()?;
        let open = losses.iter().any(|loss| loss.lost < loss.sent);
        Ok(open.then(|| "c reaches b".to_owned()))
    })?;
    wait("c to reach a", Duration::from_secs(20), || {
        let mut probe = Traffic::none();
        for (from, to) in [("a", "b"), ("b", "a"), ("c", "a")] {
            let netns = rig.netns(&format!("default/{from}"))?;
            probe.add(from, &netns, &rig.sandbox(to)?.addresses);
        }
        let losses = probe.stop()?;
        let bad = losses.iter().find(|loss| loss.lost > 0);
        Ok(bad.map(ToString::to_string))
    })?;
    for node in ["n1", "n2", "n3"] {
        rig.felix_ready(node)?;
    }
    Ok(rig)
}

/// The pictures of every node.
pub fn pictures(rig: &Rig) -> Result<Vec<Picture>> {
    rig.plan()
        .nodes
        .iter()
        .map(|node| picture(rig, &node.name))
        .collect()
}

/// Waits until every node looks as it did before.
pub fn same_as(rig: &Rig, before: &[Picture]) -> Result<()> {
    wait("the same state as before", Duration::from_secs(40), || {
        let mut differences = Vec::new();
        for (node, before) in rig.plan().nodes.iter().zip(before) {
            let now = picture(rig, &node.name)?;
            if now != *before {
                differences.push(format!("{} was\n{before:#?}\nand is\n{now:#?}", node.name));
            }
        }
        Ok((!differences.is_empty()).then(|| differences.join("\n")))
    })
}
