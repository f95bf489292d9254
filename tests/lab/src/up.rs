//! `lab up`: one step after the other, each with a line, each waited for.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::bird::config;
use crate::command::Lab;
use crate::options::{Options, Parts, State, bin_dir, check_nodes, resolve_dir};
use crate::plan::Plan;
use crate::{api, bootstrap, checks, down, fabric, programs};

pub(crate) fn up(options: &Options, keep: bool) -> Result<Lab> {
    check_nodes(options.nodes)?;
    let dir = resolve_dir(&options.dir)?;
    let bin_dir = match &options.bin_dir {
        Some(dir) => dir.clone(),
        None => bin_dir()?,
    };
    checks::check(&bin_dir, options.parts)?;
    if down::down(&dir)? {
        (options.report)("took down what was left of an earlier lab");
    }
    let plan = Plan::with_fabric(&dir, options.nodes, options.fabric);
    let state = State {
        nodes: options.nodes,
        fabric: options.fabric,
        bfd: options.bfd,
        parts: options.parts,
        bin_dir,
        kubectl: checks::find("kubectl"),
        api_port: free_port(&plan)?,
    };
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    // The kubeconfig is in it.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    state.save(&plan)?;
    let lab = Lab::of(&dir, state, !keep);
    let steps = Steps {
        lab: &lab,
        start: Instant::now(),
        report: options.report,
    };
    steps.run()?;
    Ok(lab)
}

struct Steps<'a> {
    lab: &'a Lab,
    start: Instant,
    report: fn(&str),
}

impl Steps<'_> {
    fn run(&self) -> Result<()> {
        let plan = &self.lab.plan;
        self.directories()?;
        fabric::create_namespaces(plan)?;
        fabric::connect(plan)?;
        self.done(&format!(
            "two racks, {} nodes: namespaces {} … {}",
            plan.nodes.len(),
            plan.netns(&plan.tors[0].name),
            plan.nodes
                .last()
                .map_or_else(String::new, |n| plan.netns(&n.name)),
        ));
        self.routers()?;
        if self.lab.state.parts == Parts::Fabric {
            return Ok(());
        }
        self.control_plane()?;
        if self.lab.state.parts == Parts::ControlPlane {
            return Ok(());
        }
        self.nodes()
    }

    fn directories(&self) -> Result<()> {
        let plan = &self.lab.plan;
        let mut dirs = vec![plan.logs(), plan.processes(), plan.api_dir()];
        dirs.extend(plan.routers().map(|name| plan.tor_dir(name).join("bin")));
        for node in &plan.nodes {
            dirs.extend([
                plan.run_dir(&node.name),
                plan.node_state_dir(&node.name),
                plan.cni_conf_dir(&node.name),
                plan.pods_dir(&node.name),
            ]);
        }
        for dir in dirs {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        for node in &plan.nodes {
            fs::set_permissions(plan.run_dir(&node.name), fs::Permissions::from_mode(0o700))?;
            bootstrap::install(plan, node)?;
        }
        Ok(())
    }

    fn routers(&self) -> Result<()> {
        let plan = &self.lab.plan;
        let mut birds = Vec::new();
        for (router, config) in config::all(plan) {
            let dir = plan.tor_dir(router);
            fs::write(dir.join("bird.conf"), config)?;
            birdc_shim(&dir)?;
            let name = programs::name(router, "bird");
            self.start(&name)?;
            birds.push(name);
        }
        let birds: Vec<&str> = birds.iter().map(String::as_str).collect();
        let between: Vec<String> = plan
            .routers()
            .flat_map(|router| [4, 6].map(|family| config::session(router, family)))
            .collect();
        self.lab
            .wait("the sessions between the routers", &birds, || {
                let mut down = Vec::new();
                for router in plan.routers() {
                    down.extend(
                        self.lab
                            .sessions(router)?
                            .into_iter()
                            .filter(|s| between.contains(&s.name) && !s.established)
                            .map(|s| format!("{router} {}: {}", s.name, s.info)),
                    );
                }
                Ok(none_or_list(down))
            })?;
        let routers: Vec<&str> = plan.routers().collect();
        self.done(&format!(
            "{}: BIRD, sessions with each other Established, IPv4 and IPv6",
            routers.join(", ")
        ));
        Ok(())
    }

    fn control_plane(&self) -> Result<()> {
        let lab = self.lab;
        self.start(programs::APISERVER)?;
        lab.wait_for_api()?;
        bootstrap::kubeconfig(&lab.plan, lab.state.api_port)?;
        let port = lab.state.api_port;
        self.done(&match lab.plan.api_address() {
            None => format!("API server on 127.0.0.1:{port}, here and on every node"),
            Some(address) => format!(
                "API server on 127.0.0.1:{port} here, on {}:{port} behind the fabric",
                address.v4
            ),
        });
        api::block_on(async {
            let client = api::client(&lab.kubeconfig()).await?;
            api::populate(&client, &lab.plan).await
        })
        .with_context(|| {
            let tail = lab.processes.log_tail(programs::APISERVER, 15);
            format!("fill the API; the end of the API server's log:\n{tail}")
        })?;
        self.start(programs::SCHEDULER)?;
        self.done("CRDs, nodes, pools, peers created; scheduler started");
        Ok(())
    }

    fn nodes(&self) -> Result<()> {
        let lab = self.lab;
        let plan = &lab.plan;
        let mut started = Vec::new();
        for node in &plan.nodes {
            for what in programs::on_node(&node.name) {
                let name = programs::name(&node.name, what);
                self.start(&name)?;
                started.push(name);
            }
        }
        self.done("felix, bgpd and the node runner started on every node, the controller on two");
        let on = |what: &str| -> Vec<&str> {
            let suffix = format!(".{what}");
            started
                .iter()
                .map(String::as_str)
                .filter(|n| n.ends_with(&suffix))
                .collect()
        };
        lab.wait("the nodes' BGP sessions", &on("bgpd"), || {
            sessions_missing(lab)
        })?;
        self.done(
            "every node: sessions with its ToRs Established in both families, as BIRD sees it",
        );
        lab.wait(
            "the nodes' blocks in BIRD",
            &[on("felix"), on("bgpd")].concat(),
            || blocks_missing(lab),
        )?;
        self.done("every node: its blocks known to all ToRs");
        lab.wait(
            "the nodes to be Ready",
            &[on("felix"), on("runner")].concat(),
            || {
                let nodes = api::block_on(async {
                    api::nodes(&api::client(&lab.kubeconfig()).await?).await
                })?;
                let waiting = nodes
                    .into_iter()
                    .filter(|n| !n.ready)
                    .map(|n| format!("{}: {}", n.name, n.reason.unwrap_or_default()))
                    .collect();
                Ok(none_or_list(waiting))
            },
        )?;
        self.done("every node Ready");
        Ok(())
    }

    fn start(&self, process: &str) -> Result<()> {
        let program = programs::program(&self.lab.plan, &self.lab.state, process)?;
        self.lab.processes.start(&program).map(|_| ())
    }

    fn done(&self, line: &str) {
        (self.report)(&format!(
            "{:5.1} s  {line}",
            self.start.elapsed().as_secs_f64()
        ));
    }
}

/// Sessions of nodes that BIRD does not hold Established.
fn sessions_missing(lab: &Lab) -> Result<Option<String>> {
    let mut down = Vec::new();
    for tor in &lab.plan.tors {
        for session in lab.sessions(&tor.name)? {
            if !session.established {
                down.push(format!("{} {}: {}", tor.name, session.name, session.info));
            }
        }
    }
    Ok(none_or_list(down))
}

/// Nodes that have no block in a ToR's table, by family. A block is known by the AS it was originated in.
fn blocks_missing(lab: &Lab) -> Result<Option<String>> {
    let mut missing = Vec::new();
    for tor in &lab.plan.tors {
        let routes = lab.routes(&tor.name)?;
        for node in &lab.plan.nodes {
            for (family, colon) in [("IPv4", false), ("IPv6", true)] {
                let known = routes.iter().any(|r| {
                    r.best && r.origin_as == Some(node.asn) && r.prefix.contains(':') == colon
                });
                if !known {
                    missing.push(format!(
                        "{} has no {family} block of {}",
                        tor.name, node.name
                    ));
                }
            }
        }
    }
    Ok(none_or_list(missing))
}

fn none_or_list(mut items: Vec<String>) -> Option<String> {
    let more = items.len().saturating_sub(6);
    items.truncate(6);
    if more > 0 {
        items.push(format!("and {more} more"));
    }
    (!items.is_empty()).then(|| items.join("; "))
}

/// So that plain `birdc`, run on the ToR, talks to its BIRD.
fn birdc_shim(dir: &Path) -> Result<()> {
    let birdc = checks::find("birdc").context("birdc is not installed")?;
    let shim = dir.join("bin/birdc");
    let script = format!(
        "#!/bin/sh\nexec {} -s {} \"$@\"\n",
        birdc.display(),
        dir.join("bird.ctl").display()
    );
    fs::write(&shim, script)?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The next free port from the one the plan prefers on.
fn free_port(plan: &Plan) -> Result<u16> {
    let first = plan.api_port();
    (first..first + 1000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .with_context(|| format!("no free port on 127.0.0.1 from {first} on"))
}
