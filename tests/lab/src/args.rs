//! The command line.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::options::{Options, Parts, resolve_dir};
use crate::plan::{DEFAULT_DIR, Fabric};
use crate::probe::{Answer, Probe, Protocol, Verdict};
use crate::{Lab, demo, runner, scheduler, status};

const EXAMPLES: &str = r#"Examples:
  lab up && lab demo                            two racks, three nodes; pods, routes, a policy
  lab up --fabric dual-tor                      two ToRs for each rack, a spine, an uplink to both ToRs
  lab up --nodes 6 --dir /tmp/other             a second lab beside it (MARGAY_LAB_DIR=/tmp/other for the rest)
  export KUBECONFIG=$(lab kubeconfig)           kubectl from here on
  lab exec tor-a -- birdc show route            on a router
  lab exec n1 -- margayctl status               on a node
  lab exec default/web -- ip address            in a pod
  lab kill felix n1; lab start felix n1         running pods do not notice
  lab logs n1 felix --follow
  echo '[{"from":"front/one","to":"data/two","port":5432,"family":"ipv6"},
         {"from":"tor-b","to":"10.244.0.7","protocol":"ICMP"}]' | lab probe -o json
  lab down                                      nothing is left

Exit codes: exec and kubectl give those of the command; status 1 when something is wrong; otherwise 0, 1 failed,
2 wrong usage."#;

/// A Kubernetes network on one machine: two racks with real BIRD routers, nodes with the real daemons.
#[derive(Debug, Parser)]
#[command(name = "lab", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// Where the lab keeps its files; labs in different directories run side by side.
    #[arg(long, global = true, env = "MARGAY_LAB_DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the lab and wait until it works; one that is there is taken down first
    Up {
        /// How many nodes, spread over the racks two by two
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// One ToR for each rack, or two of them and a spine, with a link from every node to both
        #[arg(long, value_enum, default_value = "single-tor")]
        fabric: Fabric,
        /// With two ToRs for each rack: BFD on every session, 100 ms x 3
        #[arg(long)]
        bfd: bool,
        /// Only namespaces, links and ToRs; nothing runs on the nodes
        #[arg(long)]
        fabric_only: bool,
    },
    /// Remove every process, namespace and file of the lab
    Down,
    /// Show processes, sessions and routes as BIRD sees them, nodes and pods; fails if something is wrong
    Status {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    /// Print the path of the kubeconfig
    Kubeconfig,
    /// Run kubectl on the lab's API
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Run a command in the network namespace of a node, a ToR or a pod, with its exit code
    Exec {
        /// n1, tor-a or NAMESPACE/POD
        place: String,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Ask who reaches whom: a JSON array of {"from","to","port","protocol","family"} on standard input
    ///
    /// "from" is NAMESPACE/POD, a node or a ToR; "to" is one of these or an address. "protocol" is TCP (default), UDP
    /// or ICMP. "family" (ipv4, ipv6) picks the target's address; without it its first one is taken. Answers come in
    /// the same order with "verdict": "allowed", "denied" (nothing came back) or "error" (see "detail"), and "ms".
    Probe {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
        /// How long to wait for an answer
        #[arg(long, default_value_t = 250)]
        timeout_ms: u64,
    },
    /// Print the logs of a node, a ToR, apiserver or scheduler
    Logs {
        place: String,
        /// felix, bgpd, runner or bird; all of the place if left out
        process: Option<String>,
        /// Go on with what is added
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines of each
        #[arg(long, default_value_t = 1000)]
        tail: u32,
    },
    /// Kill (SIGKILL) felix, bgpd, runner or controller of a node, bird of a router, apiserver or scheduler
    Kill {
        process: String,
        place: Option<String>,
    },
    /// Start what was killed
    Start {
        process: String,
        place: Option<String>,
    },
    /// Create three namespaces of pods and show what a policy does to who reaches whom
    Demo,
    /// The kubelet's part on a node
    #[command(hide = true)]
    RunNode { node: String },
    /// Bind pods to nodes
    #[command(hide = true)]
    RunScheduler,
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<ExitCode> {
    let open = || Lab::open(&args.dir);
    match args.verb {
        Verb::Up {
            nodes,
            fabric,
            bfd,
            fabric_only,
        } => {
            let parts = if fabric_only {
                Parts::Fabric
            } else {
                Parts::Everything
            };
            let options = Options {
                dir: args.dir,
                nodes,
                fabric,
                bfd,
                parts,
                ..Options::default()
            };
            let lab = Lab::up_and_keep(&options).map_err(|e| match Lab::open(&options.dir) {
                Ok(_) => e.context("it is left for you to look at: lab status, lab logs, lab down"),
                Err(_) => e,
            })?;
            println!("the lab is up in {}", lab.plan().dir.display());
        }
        Verb::Down => {
            let dir = resolve_dir(&args.dir)?;
            let found = Lab::down(&dir)?;
            let what = if found {
                "removed the lab"
            } else {
                "there was no lab"
            };
            println!("{what} in {}", dir.display());
        }
        Verb::Status { output } => return print_status(&open()?, output),
        Verb::Kubeconfig => println!("{}", open()?.kubeconfig().display()),
        Verb::Kubectl { argv } => {
            return Err(open()?.kubectl_command()?.args(argv).exec()).context("run kubectl");
        }
        Verb::Exec { place, argv } => open()?.become_command(&place, &argv)?,
        Verb::Probe { output, timeout_ms } => {
            return probe(&open()?, output, Duration::from_millis(timeout_ms));
        }
        Verb::Logs {
            place,
            process,
            follow,
            tail,
        } => {
            let files = open()?.log_files(&place, process.as_deref())?;
            let mut command = Command::new("tail");
            command.args(["-n", &tail.to_string()]);
            if files.len() > 1 {
                command.arg("-v");
            }
            if follow {
                command.arg("-F");
            }
            return Err(command.arg("--").args(files).exec()).context("run tail");
        }
        Verb::Kill { process, place } => open()?.kill(&process, place.as_deref())?,
        Verb::Start { process, place } => {
            if !open()?.start(&process, place.as_deref())? {
                println!("it runs already");
            }
        }
        Verb::Demo => demo::run(&open()?)?,
        Verb::RunNode { node } => {
            let lab = open()?;
            daemon(runner::run(
                lab.plan.clone(),
                lab.state.bin_dir.clone(),
                &node,
            ))?;
        }
        Verb::RunScheduler => daemon(scheduler::run(&open()?.kubeconfig()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_status(lab: &Lab, output: Format) -> Result<ExitCode> {
    let status = lab.status();
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Text => print!("{}", status.text()),
    }
    Ok(if status.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn probe(lab: &Lab, output: Format, timeout: Duration) -> Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let probes: Vec<Probe> = serde_json::from_str(&text).context("standard input")?;
    let answers = lab.probe(&probes, timeout);
    match output {
        Format::Json => println!("{}", serde_json::to_string(&answers)?),
        Format::Text => print!("{}", table(&answers)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(answers: &[Answer]) -> String {
    let rows: Vec<[String; 6]> = answers
        .iter()
        .map(|a| {
            let verdict = match a.verdict {
                Verdict::Allowed => "allowed",
                Verdict::Denied => "denied",
                Verdict::Error => "error",
            };
            let what = match a.probe.protocol {
                Protocol::Tcp => format!("TCP {}", a.probe.port),
                Protocol::Udp => format!("UDP {}", a.probe.port),
                Protocol::Icmp => "ICMP".to_owned(),
            };
            [
                a.probe.from.clone(),
                a.probe.to.clone(),
                what,
                verdict.to_owned(),
                format!("{:.1}", a.ms),
                a.detail.clone().unwrap_or_default(),
            ]
        })
        .collect();
    status::table(&["FROM", "TO", "WHAT", "VERDICT", "MS", "DETAIL"], &rows)
}

/// Runs a long-lived part of the lab; its log is its standard error.
fn daemon(part: impl Future<Output = Result<()>>) -> Result<()> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn commands_keep_their_flags_to_themselves() {
        let args = Args::try_parse_from(["lab", "exec", "n1", "--", "ip", "-6", "route"]).unwrap();
        assert!(matches!(args.verb, Verb::Exec { argv, .. } if argv == ["ip", "-6", "route"]));
        let args =
            Args::try_parse_from(["lab", "kubectl", "get", "pods", "-A", "-o", "json"]).unwrap();
        assert!(matches!(args.verb, Verb::Kubectl { argv } if argv.len() == 5));
    }
}
