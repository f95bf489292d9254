//! ADD and DEL beside those of ptp + host-local, the smallest routed attachment that others have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use lab::process::Processes;
use lab::{Lab, api, bin_dir, netns};
use serde_json::{Value, json};

use crate::attach::{Attachment, Network, exec_floor, host_interface};
use crate::ground::{Ground, Namespace};
use crate::pods::{self, NAMESPACE};
use crate::report::{Samples, Table};
use crate::usage;

/// Where Debian and others put plugins.
const REFERENCE: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Operations at once in the second part.
const AT_ONCE: usize = 8;
/// So many in a row of one kind before it is the other's turn.
const TURN: usize = 25;
/// Attachments before the first that counts.
const WARM_UP: usize = 5;

/// One of the two that are compared.
struct Side {
    network: Network,
    /// The namespace that plugins run in: the node.
    host: PathBuf,
    attachments: Vec<Attachment>,
    results: Vec<Value>,
    adds: Samples,
    dels: Samples,
    /// Until the interface had gone too.
    gone: Samples,
    /// Of processes that ended: the plugins.
    cpu: [Duration; 2],
    /// Of the agent behind the plugin, if there is one.
    agent: Option<i32>,
    agent_cpu: [Duration; 2],
    /// Wall time of all turns.
    wall: [Duration; 2],
    /// MiB.
    peak: f64,
}

/// A verb, as an index.
const ADD: usize = 0;
const DEL: usize = 1;

/// Runs the benchmark in a lab, with `n` attachments, and prints it.
pub(crate) fn run(ground: &Ground, lab: &Lab, n: u32) -> Result<()> {
    let n = usize::try_from(n)?;
    // What the API knows of pods on this node is attached here, and not by the lab.
    lab.kill("runner", Some("n1"))?;
    let pods = pods::block_on(make_pods(lab, n + WARM_UP))?;
    let host = ground.namespace("host")?;
    let namespaces: Vec<Namespace> = (0..2 * (n + WARM_UP))
        .map(|i| pod_namespace(ground, i))
        .collect::<Result<_>>()?;
    let (first, second) = namespaces.split_at(n + WARM_UP);
    let mut ours = ours(lab, first, &pods)?;
    let mut theirs = theirs(ground, &host, second)?;

    let title = format!(
        "CNI, IPv4 and IPv6, one at a time, {n} attachments: ours with felix, its route and a NetworkPolicy in force \
         before it returns; theirs has no policy"
    );
    warm_up(&mut ours)?;
    warm_up(&mut theirs)?;
    for side in [&mut ours, &mut theirs] {
        side.attachments.truncate(n);
    }
    let versions = [
        floor(|| ours.network.version()),
        floor(|| theirs.network.version()),
    ];
    phase(ADD, &mut ours, &mut theirs, 1, 1)?;
    in_force(lab, &ours)?;
    phase(DEL, &mut ours, &mut theirs, 1, 1)?;
    let mut table = figures(&title, &ours, &theirs);
    let [ours_version, theirs_version] = versions;
    table.row(
        "exec floor (VERSION), median ms",
        &[ours_version?, theirs_version?],
    );
    table.row("plugin peak RSS, MiB", &[ours.peak, theirs.peak]);
    let agent = ours.agent.and_then(usage::peak_rss).unwrap_or(f64::NAN);
    table.row("agent peak RSS, MiB", &[agent]);
    table.print();
    println!(
        "  ptp looks every 50 ms whether its IPv6 address has settled, which shows in its worst or, on a busy machine, \
         in all\n  floor of running any program (/bin/true): {:.2} ms",
        floor(exec_floor)?
    );

    for side in [&mut ours, &mut theirs] {
        side.forget();
    }
    for verb in [ADD, DEL] {
        phase(verb, &mut ours, &mut theirs, TURN, AT_ONCE)?;
    }
    let title = format!("CNI, {AT_ONCE} at once, {n} attachments");
    figures(&title, &ours, &theirs).print();
    Ok(())
}

/// All attachments of both, by turns. What the agent does between its turns is for them too.
fn phase(
    verb: usize,
    ours: &mut Side,
    theirs: &mut Side,
    turn: usize,
    at_once: usize,
) -> Result<()> {
    let n = ours.attachments.len();
    let before = ours.agent_cpu()?;
    for start in (0..n).step_by(turn) {
        let range = start..(start + turn).min(n);
        ours.in_turn(verb, range.clone(), at_once)?;
        theirs.in_turn(verb, range, at_once)?;
    }
    ours.agent_cpu[verb] = ours.agent_cpu()? - before;
    Ok(())
}

fn figures(title: &str, ours: &Side, theirs: &Side) -> Table {
    let mut table = Table::compared(title, &["margay", "ptp+host-local"]);
    let both = |figure: &dyn Fn(&Side) -> f64| [figure(ours), figure(theirs)];
    table.row("ADD median, ms", &both(&|s| s.adds.median()));
    table.row("ADD p99, ms", &both(&|s| s.adds.p99()));
    table.row("DEL median, ms", &both(&|s| s.dels.median()));
    table.row("DEL p99, ms", &both(&|s| s.dels.p99()));
    if ours.gone.len() > 0 {
        table.row(
            "DEL to interface gone, median ms",
            &both(&|s| s.gone.median()),
        );
    }
    table.row("ADD per second", &both(&|s| s.rate(ADD)));
    table.row("DEL per second", &both(&|s| s.rate(DEL)));
    table.row("plugin CPU per ADD, ms", &both(&|s| s.each(s.cpu[ADD])));
    table.row("plugin CPU per DEL, ms", &both(&|s| s.each(s.cpu[DEL])));
    table.row("agent CPU per ADD, ms", &[ours.each(ours.agent_cpu[ADD])]);
    table.row("agent CPU per DEL, ms", &[ours.each(ours.agent_cpu[DEL])]);
    table
}

impl Side {
    fn new(network: Network, host: PathBuf, attachments: Vec<Attachment>) -> Self {
        Self {
            network,
            host,
            attachments,
            results: Vec::new(),
            adds: Samples::default(),
            dels: Samples::default(),
            gone: Samples::default(),
            cpu: Default::default(),
            agent: None,
            agent_cpu: Default::default(),
            wall: Default::default(),
            peak: f64::NAN,
        }
    }

    /// Starts again with other containers in the same namespaces.
    fn forget(&mut self) {
        for attachment in &mut self.attachments {
            attachment.container_id.push('b');
        }
        let kept = Self::new(
            self.network.clone(),
            self.host.clone(),
            std::mem::take(&mut self.attachments),
        );
        *self = Self {
            agent: self.agent,
            ..kept
        };
    }

    /// ADD or DEL of a range of the attachments, some at once; returns when the kernel is quiet again.
    fn in_turn(
        &mut self,
        verb: usize,
        range: std::ops::Range<usize>,
        at_once: usize,
    ) -> Result<()> {
        let before = usage::cpu_of_children()?;
        let start = Instant::now();
        let done = self.call(verb, range.clone(), at_once)?;
        self.wall[verb] += start.elapsed();
        let mut samples = Samples::default();
        let mut results = Vec::new();
        for (took, result) in done {
            samples.add(took);
            results.push(result);
        }
        if verb == ADD {
            self.results.extend(results);
            self.adds.extend(samples);
        } else {
            self.dels.extend(samples);
            self.wait_until_gone(range)?;
            if at_once == 1 {
                self.gone.add(start.elapsed());
            }
        }
        self.cpu[verb] += usage::cpu_of_children()? - before;
        Ok(())
    }

    /// The calls with their times and results, in the order of the attachments.
    fn call(
        &self,
        verb: usize,
        range: std::ops::Range<usize>,
        at_once: usize,
    ) -> Result<Vec<(Duration, Value)>> {
        let next = AtomicUsize::new(range.start);
        let work = || -> Result<Vec<(usize, Duration, Value)>> {
            // A child runs in the namespace of the thread that started it.
            netns::enter(&self.host)?;
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= range.end {
                    return Ok(done);
                }
                let attachment = &self.attachments[i];
                let start = Instant::now();
                let result = if verb == ADD {
                    self.network.add(attachment)?
                } else {
                    self.network.del(attachment, &self.results[i])?;
                    Value::Null
                };
                done.push((i, start.elapsed(), result));
            }
        };
        let mut all = thread::scope(|scope| -> Result<Vec<_>> {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for thread in threads {
                match thread.join() {
                    Ok(done) => all.extend(done?),
                    Err(_) => bail!("a thread panicked"),
                }
            }
            Ok(all)
        })?;
        all.sort_by_key(|(i, ..)| *i);
        Ok(all
            .into_iter()
            .map(|(_, took, result)| (took, result))
            .collect())
    }

    /// felix deletes the interface after its answer; the other one's turn is not to pay for that.
    fn wait_until_gone(&self, range: std::ops::Range<usize>) -> Result<()> {
        let names: Vec<String> = self.results[range]
            .iter()
            .filter_map(|result| host_interface(result).map(str::to_owned))
            .collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        let gone = netns::run_in(&self.host, move || {
            for name in &names {
                while nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
                    if Instant::now() > deadline {
                        return Ok(Some(name.clone()));
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(None)
        })?;
        match gone {
            Some(name) => bail!("the interface {name} is still there 10 s after DEL"),
            None => Ok(()),
        }
    }

    fn agent_cpu(&self) -> Result<Duration> {
        self.agent.map_or(Ok(Duration::ZERO), usage::cpu_of)
    }

    fn rate(&self, verb: usize) -> f64 {
        self.count() / self.wall[verb].as_secs_f64()
    }

    /// Milliseconds per attachment.
    fn each(&self, total: Duration) -> f64 {
        total.as_secs_f64() * 1e3 / self.count()
    }

    fn count(&self) -> f64 {
        u32::try_from(self.attachments.len()).map_or(f64::NAN, f64::from)
    }
}

/// Loads everything once, and weighs the plugin.
fn warm_up(side: &mut Side) -> Result<()> {
    let (network, host) = (side.network.clone(), side.host.clone());
    let from = side.attachments.len() - WARM_UP;
    let attachments = side.attachments[from..].to_vec();
    let weighed = thread::spawn(move || -> Result<f64> {
        netns::enter(&host)?;
        let mut peak = f64::NAN;
        for attachment in attachments {
            let (result, weight) = network.weigh(&attachment)?;
            network.del(&attachment, &result)?;
            peak = peak.max(weight.unwrap_or(f64::NAN));
        }
        Ok(peak)
    });
    side.peak = match weighed.join() {
        Ok(peak) => peak.context("the first attachment")?,
        Err(_) => bail!("a thread panicked"),
    };
    Ok(())
}

fn floor(run: impl Fn() -> Result<Duration>) -> Result<f64> {
    let mut samples = Samples::default();
    for _ in 0..20 {
        samples.add(run()?);
    }
    Ok(samples.median())
}

/// ptp waits out duplicate address detection, a second and more, unless the runtime has switched it off.
fn pod_namespace(ground: &Ground, i: usize) -> Result<Namespace> {
    let namespace = ground.namespace(&format!("p{i}"))?;
    netns::sysctls(
        &namespace.path(),
        &[("net/ipv6/conf/default/accept_dad", "0")],
    )?;
    Ok(namespace)
}

/// Pods of the API that are bound to n1, with a policy that concerns them.
async fn make_pods(lab: &Lab, n: usize) -> Result<Vec<Pod>> {
    let client = api::client(&lab.kubeconfig()).await?;
    pods::ensure_namespace(&client).await?;
    pods::create_policy(&client, "cni", &json!({ "app": "cni" })).await?;
    let api: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let mut made = Vec::new();
    for i in 0..n {
        let pod = pods::pod(&format!("cni-{i}"), "cni", json!({ "nodeName": "n1" }))?;
        made.push(api.create(&Default::default(), &pod).await?);
    }
    Ok(made)
}

fn ours(lab: &Lab, namespaces: &[Namespace], pods: &[Pod]) -> Result<Side> {
    let plan = lab.plan();
    let file = fs::read_dir(plan.cni_conf_dir("n1"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "conflist"))
        .context("felix has written no configuration list")?;
    let network = Network {
        list: serde_json::from_slice(&fs::read(file)?)?,
        bin_dir: bin_dir()?,
    };
    let attachments = namespaces.iter().zip(pods).enumerate();
    let attachments = attachments.map(|(i, (namespace, pod))| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let container_id = format!("margay-{i}");
        Attachment {
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={container_id};\
                 K8S_POD_UID={}",
                text(&pod.metadata.name),
                text(&pod.metadata.uid)
            ),
            container_id,
            netns: namespace.path(),
        }
    });
    let processes = Processes::new(plan.processes(), plan.logs(), &plan.name);
    let agent = processes.record("n1.felix").map(|record| record.pid);
    let mut side = Side::new(network, lab.netns("n1")?, attachments.collect());
    side.agent = agent;
    Ok(side)
}

fn theirs(ground: &Ground, host: &Namespace, namespaces: &[Namespace]) -> Result<Side> {
    let bin_dir = REFERENCE
        .into_iter()
        .map(Path::new)
        .find(|dir| dir.join("ptp").exists())
        .context("no plugin ptp: apt-get install containernetworking-plugins")?;
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [{
            "type": "ptp",
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "dataDir": ground.path("host-local"),
                "ranges": [[{ "subnet": "10.88.0.0/16" }], [{ "subnet": "fd00:88::/112" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        }],
    });
    let attachments = namespaces
        .iter()
        .enumerate()
        .map(|(i, namespace)| Attachment {
            container_id: format!("ptp-{i}"),
            netns: namespace.path(),
            args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=p".to_owned(),
        });
    let network = Network {
        list,
        bin_dir: bin_dir.to_owned(),
    };
    Ok(Side::new(network, host.path(), attachments.collect()))
}

/// Every pod has its routes, and its interface the group of its policy; otherwise the figures would be for less.
fn in_force(lab: &Lab, ours: &Side) -> Result<()> {
    let show = |argv: &[&str]| -> Result<String> {
        let output = lab.exec("n1", argv)?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let routes = show(&["ip", "-o", "route", "show", "proto", "77"])?
        + &show(&["ip", "-o", "-6", "route", "show", "proto", "77"])?;
    let links = show(&["ip", "-o", "link"])?;
    for result in &ours.results {
        let name = host_interface(result).context("a result without a host interface")?;
        let here = format!("dev {name} ");
        if routes.matches(&here).count() != 2 {
            bail!("{name} has not its two routes after ADD");
        }
        let link = links.lines().find(|line| line.contains(name));
        if link.is_none_or(|line| line.contains("group default")) {
            bail!("{name} has no policy after ADD");
        }
    }
    Ok(())
}
