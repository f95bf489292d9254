//! Which processes a lab consists of and how each is started.

use std::path::Path;

use anyhow::{Result, bail};

use crate::fabric::dual::API;
use crate::netns;
use crate::options::{Parts, State};
use crate::plan::Plan;
use crate::process::Program;

/// The API server's process.
pub const APISERVER: &str = "apiserver";
/// The scheduler's process.
pub const SCHEDULER: &str = "scheduler";

/// The processes on every node, in the order they are started.
pub const ON_NODE: [&str; 3] = ["bgpd", "felix", "runner"];
/// What runs on some nodes only, and on which: two, as its Deployment has it.
pub const CONTROLLER: (&str, [&str; 2]) = ("controller", ["n1", "n2"]);

/// The processes on a node, in the order they are started.
pub fn on_node(node: &str) -> impl Iterator<Item = &'static str> {
    let (controller, places) = CONTROLLER;
    let controller = places.contains(&node).then_some(controller);
    ON_NODE.into_iter().chain(controller)
}

/// The name of a process of a place: `n1` and `felix` make `n1.felix`.
pub fn name(place: &str, what: &str) -> String {
    format!("{place}.{what}")
}

/// Names of all processes a lab should have.
pub(crate) fn expected(plan: &Plan, parts: Parts) -> Vec<String> {
    let mut names: Vec<String> = plan.routers().map(|it| name(it, "bird")).collect();
    if parts >= Parts::ControlPlane {
        names.push(APISERVER.to_owned());
        names.push(SCHEDULER.to_owned());
    }
    if parts == Parts::Everything {
        for node in &plan.nodes {
            names.extend(on_node(&node.name).map(|what| name(&node.name, what)));
        }
    }
    names
}

/// The process that `kill` and `start` mean by `what` and an optional place.
pub(crate) fn find(plan: &Plan, what: &str, place: Option<&str>) -> Result<String> {
    match (what, place) {
        (APISERVER | SCHEDULER, None) => Ok(what.to_owned()),
        (APISERVER | SCHEDULER, Some(_)) => bail!("{what} runs once, not on a node"),
        ("bird", Some(router)) if plan.routers().any(|it| it == router) => Ok(name(router, what)),
        (what, Some(node)) if plan.node(node).is_some() && on_node(node).any(|it| it == what) => {
            Ok(name(node, what))
        }
        (what, _) if what == "bird" || what == CONTROLLER.0 || ON_NODE.contains(&what) => {
            bail!(
                "{what} of which {}?",
                if what == "bird" { "router" } else { "node" }
            )
        }
        _ => bail!(
            "no process {what:?}: felix, bgpd, runner, controller, bird, apiserver, scheduler"
        ),
    }
}

/// How to start a process by its name.
pub(crate) fn program(plan: &Plan, state: &State, process: &str) -> Result<Program> {
    let bin = |name: &str| state.bin_dir.join(name);
    let text = |path: &Path| path.display().to_string();
    let (place, what) = process.split_once('.').unwrap_or((process, process));
    let mut program = Program {
        name: process.to_owned(),
        path: bin("lab"),
        args: vec!["--dir".to_owned(), text(&plan.dir)],
        // Backtraces of panics, not of errors: those say themselves what happened.
        env: [("RUST_BACKTRACE", "1"), ("RUST_LIB_BACKTRACE", "0")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec(),
        netns: Some(netns::path(&plan.netns(place))),
    };
    match what {
        "bird" => {
            let dir = plan.tor_dir(place);
            program.path = crate::checks::find("bird").unwrap_or_else(|| "bird".into());
            program.args = [
                "-f",
                "-c",
                &text(&dir.join("bird.conf")),
                "-s",
                &text(&dir.join("bird.ctl")),
            ]
            .map(str::to_owned)
            .to_vec();
        }
        APISERVER => {
            program.path = bin("apiserver");
            program.netns = None;
            program.args = vec![
                "--dir".to_owned(),
                text(&plan.api_dir()),
                "--data".to_owned(),
                text(&plan.api_dir().join("data")),
                "--calls".to_owned(),
                text(&plan.calls()),
            ];
            let port = state.api_port;
            let listen = format!("127.0.0.1:{port}");
            let mut listens = vec![listen.clone()];
            let of = |place: &str| text(&netns::path(&plan.netns(place)));
            match plan.api_address() {
                None => {
                    let nodes = plan.nodes.iter();
                    listens.extend(nodes.map(|node| format!("{listen}@{}", of(&node.name))));
                }
                Some(address) => listens.push(format!("{}:{port}@{}", address.v4, of(API))),
            }
            for listen in listens {
                program.args.extend(["--listen".to_owned(), listen]);
            }
        }
        SCHEDULER => {
            program.netns = None;
            program.args.push("run-scheduler".to_owned());
        }
        "runner" => program
            .args
            .extend(["run-node".to_owned(), place.to_owned()]),
        "felix" | "bgpd" => {
            program.path = bin(&format!("margay-{what}"));
            program.args = [
                "--node-name",
                place,
                "--run-dir",
                &text(&plan.run_dir(place)),
                "--state-dir",
                &text(&plan.node_state_dir(place)),
            ]
            .map(str::to_owned)
            .to_vec();
            program.env.extend(
                [
                    ("KUBECONFIG", plan.node_kubeconfig()),
                    ("MARGAY_CNI_CONF_DIR", plan.cni_conf_dir(place)),
                    ("MARGAY_BOOTSTRAP", plan.bootstrap_file(place)),
                    ("MARGAY_BOOT_ID_FILE", plan.boot_id_file(place)),
                    ("MARGAY_CONTROLLER_TOKEN", plan.controller_token(place)),
                ]
                .map(|(key, path)| (key.to_owned(), text(&path))),
            );
        }
        "controller" => {
            let address = plan.node(place).map(|node| node.address);
            let addresses = address.iter().flat_map(|it| it.both());
            let addresses: Vec<String> = addresses.map(|it| it.to_string()).collect();
            program.path = bin("margay-controller");
            program.args = ["--advertise", &addresses.join(","), "--lease-seconds", "5"]
                .map(str::to_owned)
                .to_vec();
            let kubeconfig = text(&plan.node_kubeconfig());
            program.env.push(("KUBECONFIG".to_owned(), kubeconfig));
        }
        _ => bail!("no process {process:?}"),
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> (Plan, State) {
        let state = State {
            nodes: 3,
            fabric: crate::plan::Fabric::SingleTor,
            bfd: false,
            parts: Parts::Everything,
            bin_dir: "/bins".into(),
            kubectl: None,
            api_port: 6443,
        };
        (Plan::new(Path::new("/x"), 3), state)
    }

    #[test]
    fn every_expected_process_can_be_started() {
        let (plan, state) = lab();
        let names = expected(&plan, Parts::Everything);
        assert_eq!(names.len(), 2 + 2 + 9 + 2);
        for name in names {
            assert_eq!(program(&plan, &state, &name).unwrap().name, name);
        }
        assert!(program(&plan, &state, "n1.kubelet").is_err());
    }

    #[test]
    fn the_api_server_listens_in_every_node() {
        let (plan, state) = lab();
        let args = program(&plan, &state, APISERVER).unwrap().args.join(" ");
        assert_eq!(args.matches("--listen").count(), 4, "{args}");
        assert!(
            args.contains(&format!("127.0.0.1:6443@/run/netns/{}", plan.netns("n3"))),
            "{args}"
        );
    }

    #[test]
    fn behind_the_fabric_the_api_server_listens_in_no_node() {
        let (mut plan, state) = lab();
        plan = Plan::with_fabric(&plan.dir, 3, crate::plan::Fabric::DualTor);
        let args = program(&plan, &state, APISERVER).unwrap().args.join(" ");
        assert_eq!(args.matches("--listen").count(), 2, "{args}");
        let address = format!("172.30.0.101:6443@/run/netns/{}", plan.netns("api"));
        assert!(args.contains(&address), "{args}");
    }

    #[test]
    fn processes_are_found_by_what_and_where() {
        let (plan, _) = lab();
        let find = |what, place| find(&plan, what, place).map_err(|e| e.to_string());
        assert_eq!(find("felix", Some("n2")), Ok("n2.felix".into()));
        assert_eq!(find("bird", Some("tor-a")), Ok("tor-a.bird".into()));
        assert_eq!(find("apiserver", None), Ok("apiserver".into()));
        assert_eq!(find("felix", None), Err("felix of which node?".into()));
        assert!(find("felix", Some("tor-a")).is_err());
        assert_eq!(find("controller", Some("n2")), Ok("n2.controller".into()));
        assert!(find("controller", Some("n3")).is_err());
        assert!(find("apiserver", Some("n1")).is_err());
        assert!(find("etcd", None).unwrap_err().contains("scheduler"));
    }
}
