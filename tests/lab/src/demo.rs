//! `lab demo`: pods in three namespaces, the routes they are reached by, and a policy.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::Lab;
use crate::plan::Rack;
use crate::probe::{Answer, Family, Probe, Protocol, Verdict};

/// Namespace, and the port its pods answer on.
const TIERS: [(&str, u16); 3] = [("front", 80), ("back", 8080), ("data", 5432)];
/// Which of a namespace's pods is in which rack.
const PODS: [(&str, Rack); 2] = [("one", Rack::A), ("two", Rack::B)];

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-from-back, namespace: data }
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: back } }
    ports:
    - { port: 5432, protocol: TCP }
";

/// Creates the pods, shows, applies the policy, shows again, and leaves everything there.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    heading("pods in three namespaces, in both racks");
    let mut objects = Vec::new();
    for (namespace, port) in TIERS {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": namespace, "labels": { "kubernetes.io/metadata.name": namespace } },
        }));
        objects.extend(PODS.map(|(name, rack)| pod(namespace, name, rack, port)));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    lab.apply(&list.to_string())?;
    // The demo may be run again: its policy must not be in force at the start.
    lab.kubectl(&["delete", "networkpolicy", "-n", "data", "--all"], "")?;
    for (namespace, _) in TIERS {
        lab.kubectl(
            &[
                "wait",
                "pods",
                "--all",
                "-n",
                namespace,
                "--for=condition=Ready",
                "--timeout=30s",
            ],
            "",
        )?;
    }
    for (namespace, _) in TIERS {
        print!(
            "{}",
            lab.kubectl(&["get", "pods", "-n", namespace, "-o", "wide"], "")?
        );
    }

    heading("sessions and routes, as the ToRs' BIRD sees them");
    for tor in lab.status().tors {
        print!("{}", tor.text());
    }

    heading("who reaches whom, without a policy");
    let before = settled(lab, |answers| {
        answers.iter().all(|a| a.verdict == Verdict::Allowed)
    })?;
    print!("{}", matrix(&before));

    heading("the same with this policy");
    print!("{}", POLICY.trim_start());
    lab.apply(POLICY)?;
    let after = settled(lab, |answers| {
        answers.iter().all(|a| a.verdict == expected(&a.probe))
    })?;
    println!();
    print!("{}", matrix(&after));

    heading("what to try next");
    let lab_cmd = std::env::current_exe()?;
    let lab_cmd = lab_cmd.display();
    println!(
        "\
export KUBECONFIG={kubeconfig}
kubectl get nodes,pods -A -o wide;  kubectl get ipamblocks,bgppeers
{lab_cmd} status
{lab_cmd} exec n1 -- margayctl status
{lab_cmd} exec n1 -- nft list table inet margay
{lab_cmd} exec tor-a -- birdc show route
{lab_cmd} exec front/one -- ip -br address
echo '[{{\"from\":\"front/one\",\"to\":\"data/two\",\"port\":5432}}]' | {lab_cmd} probe
kubectl delete networkpolicy -n data only-from-back
{lab_cmd} kill felix n1;  {lab_cmd} start felix n1
{lab_cmd} down",
        kubeconfig = lab.kubeconfig().display()
    );
    Ok(())
}

fn heading(text: &str) {
    println!("\n── {text} ──");
}

fn pod(namespace: &str, name: &str, rack: Rack, port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": namespace } },
        "spec": {
            "nodeSelector": { crate::objects::RACK_LABEL: rack.to_string() },
            "containers": [{ "name": "main", "image": "responder", "ports": [{ "containerPort": port }] }],
        },
    })
}

/// Every pod to every other pod's port, both families.
fn questions() -> Vec<Probe> {
    let pods = || {
        TIERS
            .into_iter()
            .flat_map(|t| PODS.map(|(name, _)| (format!("{}/{name}", t.0), t.1)))
    };
    let mut probes = Vec::new();
    for (from, _) in pods() {
        for (to, port) in pods().filter(|(to, _)| *to != from) {
            for family in Family::ALL {
                probes.push(Probe {
                    from: from.clone(),
                    to: to.clone(),
                    port,
                    protocol: Protocol::Tcp,
                    family: Some(family),
                });
            }
        }
    }
    probes
}

/// What the policy says of a question.
fn expected(probe: &Probe) -> Verdict {
    if probe.to.starts_with("data/") && !probe.from.starts_with("back/") {
        Verdict::Denied
    } else {
        Verdict::Allowed
    }
}

/// Asks until the answers are as they should be, or time is up.
fn settled(lab: &Lab, right: impl Fn(&[Answer]) -> bool) -> Result<Vec<Answer>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answers = lab.probe(&questions(), crate::probe::DEFAULT_TIMEOUT);
        if right(&answers) {
            return Ok(answers);
        }
        if Instant::now() > deadline {
            print!("{}", matrix(&answers));
            let details: Vec<String> = answers
                .iter()
                .filter_map(|a| {
                    Some(format!(
                        "{} → {}: {}",
                        a.probe.from,
                        a.probe.to,
                        a.detail.as_ref()?
                    ))
                })
                .collect();
            bail!(
                "this is not as it should be after 10 s\n{}",
                details.join("\n")
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Rows are sources, columns targets; a cell has a mark per family, IPv4 first.
fn matrix(answers: &[Answer]) -> String {
    let names: Vec<String> = TIERS
        .iter()
        .flat_map(|t| PODS.map(|(name, _)| format!("{}/{name}", t.0)))
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0) + 2;
    let mut out = format!("{:width$}", "from \\ to");
    for name in &names {
        out += &format!("{name:width$}");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    for from in &names {
        let mut line = format!("{from:width$}");
        for to in &names {
            let cell: Vec<&str> = answers
                .iter()
                .filter(|a| a.probe.from == *from && a.probe.to == *to)
                .map(|a| match a.verdict {
                    Verdict::Allowed => "yes",
                    Verdict::Denied => "no",
                    Verdict::Error => "?",
                })
                .collect();
            line += &format!("{:width$}", cell.join(" "));
        }
        out += line.trim_end();
        out.push('\n');
    }
    out += "(IPv4 and IPv6; each pod's own port)\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_a_cell_per_pair() {
        let answers: Vec<Answer> = questions()
            .into_iter()
            .map(|probe| Answer {
                verdict: expected(&probe),
                probe,
                ms: 1.0,
                detail: None,
            })
            .collect();
        assert_eq!(answers.len(), 6 * 5 * 2);
        let text = matrix(&answers);
        let row = |start: &str| -> Vec<String> {
            let line = text.lines().find(|l| l.starts_with(start)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect()
        };
        assert_eq!(row("back/one"), ["yes"; 10]);
        let front = row("front/one");
        assert_eq!(front.iter().filter(|c| *c == "no").count(), 4, "{text}");
    }
}
