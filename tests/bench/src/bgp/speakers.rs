//! What is measured: ours, those of Debian, the relay; how each is configured and started.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::ends::End;
use super::first;
use crate::ground::{Ground, Namespace};

/// A program that speaks BGP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Speaker {
    /// Ours.
    Margay,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd alone.
    Frr,
    /// The same, with the limit of its input queue raised.
    FrrQueue,
    /// GoBGP.
    Gobgp,
    /// The relay without a table.
    Null,
}

/// What it shall be.
#[derive(Debug)]
pub(crate) struct Role<'a> {
    pub(crate) asn: u32,
    pub(crate) id: Ipv4Addr,
    pub(crate) peers: &'a [End],
    /// Peers of its own AS are its reflector clients.
    pub(crate) reflector: bool,
    /// Graceful restart with all peers.
    pub(crate) restart: bool,
    /// Seconds.
    pub(crate) hold: u16,
    /// Its best routes go into the kernel, those of equal peers together.
    pub(crate) kernel: bool,
}

/// A running one.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    ground: &'a Ground,
    names: Vec<&'static str>,
    /// One, or with the program that writes to the kernel two.
    pub(crate) pids: Vec<i32>,
    /// Just before it was started.
    pub(crate) since: Instant,
}

impl Speaker {
    pub(crate) const ALL: [Self; 6] = [
        Self::Margay,
        Self::Bird,
        Self::Frr,
        Self::FrrQueue,
        Self::Gobgp,
        Self::Null,
    ];

    /// As it is called in tables and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Margay => "margay-bgpd",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::FrrQueue => "frr-queue",
            Self::Gobgp => "gobgp",
            Self::Null => "null",
        }
    }

    /// Its program.
    pub(crate) fn program(self) -> Result<PathBuf> {
        let debian = |name: &str, package: &str| {
            find(name).with_context(|| format!("no {name}: apt-get install {package}"))
        };
        match self {
            Self::Margay => Ok(lab::bin_dir()?.join("margay-bgpd")),
            Self::Bird => debian("bird", "bird2"),
            Self::Frr | Self::FrrQueue => debian("/usr/lib/frr/bgpd", "frr"),
            Self::Gobgp => debian("gobgpd", "gobgpd"),
            Self::Null => Ok(std::env::current_exe()?),
        }
    }

    /// What it says its version is.
    pub(crate) fn version(self) -> Result<String> {
        if self == Self::Null {
            return Ok(String::new());
        }
        let program = self.program()?;
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .with_context(|| format!("run {}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let first = text.lines().next().unwrap_or_default();
        Ok(first.trim().to_owned())
    }

    /// Why it cannot be measured, although its program is there.
    pub(crate) fn hindrance(self, ground: &Ground, kernel: bool) -> Result<Option<String>> {
        if self == Self::Margay && kernel && !writer()?.is_file() {
            return Ok(Some(
                "margay-fib is not built beside margay-bgpd".to_owned(),
            ));
        }
        if self != Self::FrrQueue {
            return Ok(None);
        }
        let command = "bgp input-queue-limit";
        let file = ground.path("frr-queue.check");
        fs::write(&file, format!("{command} 400\nrouter bgp 1\n"))?;
        let output = Command::new(self.program()?)
            .args(["-C", "-Z", "-n", "-S", "-f"])
            .arg(&file)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let unknown = String::from_utf8_lossy(&said).contains("No such command");
        Ok(unknown.then(|| format!("this version knows no '{command}': its queue has no limit")))
    }

    /// Starts it; `again`: with what an earlier life left.
    pub(crate) fn start<'a>(
        self,
        ground: &'a Ground,
        within: &Namespace,
        role: &Role<'_>,
        again: bool,
    ) -> Result<Running<'a>> {
        let dir = ground.path("speaker");
        if !again {
            // The last one's.
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir)?;
        }
        let at = |name: &str| dir.join(name).display().to_string();
        let file = at("config");
        let text = match self {
            Self::Margay => margay(role),
            Self::Bird => bird(role),
            Self::Frr => frr(role, None),
            Self::FrrQueue => frr(role, Some(4_000_000)),
            Self::Gobgp => gobgp(role),
            Self::Null => String::new(),
        };
        fs::write(&file, text)?;
        let args: Vec<String> = match self {
            Self::Margay => arguments(&dir, &file),
            Self::Bird => ["-f", "-c", &file, "-s", &at("ctl")]
                .into_iter()
                .chain(again.then_some("-R"))
                .map(str::to_owned)
                .collect(),
            // Without zebra, its sockets here, as the user that started it.
            Self::Frr | Self::FrrQueue => [
                "-f",
                &file,
                "-Z",
                "-n",
                "-S",
                "-i",
                &at("pid"),
                "--vty_socket",
                &dir.display().to_string(),
                "--log",
                "stdout",
                "--log-level",
                "warnings",
            ]
            .map(str::to_owned)
            .to_vec(),
            Self::Gobgp => [
                "-f",
                &file,
                "-t",
                "toml",
                "-l",
                "warn",
                "--api-hosts",
                "127.0.0.1:50051",
                "--pprof-disable",
            ]
            .map(str::to_owned)
            .to_vec(),
            Self::Null => ["bgp-relay".to_owned(), role.asn.to_string()].to_vec(),
        };
        let since = Instant::now();
        let mut running = Running {
            ground,
            names: Vec::new(),
            pids: Vec::new(),
            since,
        };
        running.start(self.name(), &self.program()?, &args, within)?;
        if self == Self::Margay && role.kernel {
            let args = ["--run-dir", &at("run"), "--log", "warn"].map(str::to_owned);
            running.start("margay-fib", &writer()?, &args, within)?;
        }
        Ok(running)
    }
}

/// How ours is started.
fn arguments(dir: &Path, file: &str) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let (run, state) = (at("run"), at("state"));
    let words = [
        "--config",
        file,
        "--run-dir",
        &run,
        "--state-dir",
        &state,
        "--log",
        "warn",
    ];
    words.map(str::to_owned).to_vec()
}

/// One of ours with that configuration, and its socket.
pub(crate) fn ours<'a>(
    ground: &'a Ground,
    within: &Namespace,
    name: &'static str,
    config: &str,
) -> Result<(Running<'a>, PathBuf)> {
    let dir = ground.path(&format!("{name}.d"));
    // The last one's.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir)?;
    let file = dir.join("config");
    fs::write(&file, config)?;
    let mut running = Running {
        ground,
        names: Vec::new(),
        pids: Vec::new(),
        since: Instant::now(),
    };
    let args = arguments(&dir, &file.display().to_string());
    running.start(name, &Speaker::Margay.program()?, &args, within)?;
    Ok((running, dir.join("run").join(api::paths::BGPD_SOCKET)))
}

impl Running<'_> {
    fn start(
        &mut self,
        name: &'static str,
        program: &Path,
        args: &[String],
        within: &Namespace,
    ) -> Result<()> {
        let nice = find("nice").context("no nice(1)")?;
        let program = program.display().to_string();
        // Before everything else on the machine, as the other ends are.
        let mut words = vec!["-n", "-20", &program];
        words.extend(args.iter().map(String::as_str));
        let pid = self.ground.start(name, &nice, &words, within)?;
        self.names.push(name);
        self.pids.push(pid);
        first::let_go(u32::try_from(pid)?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = self.ground.stop(name) {
                eprintln!("end {name}: {error:#}");
            }
        }
    }
}

fn margay(role: &Role<'_>) -> String {
    let mut text = format!(
        "asNumber: {}\nrouterID: {}\nholdTimeSeconds: {}\npeers:\n",
        role.asn, role.id, role.hold
    );
    let export = if role.reflector { "reflect" } else { "transit" };
    for (i, end) in role.peers.iter().enumerate() {
        let _ = writeln!(
            text,
            "- {{name: p{i}, peerIP: {}, asNumber: {}, passive: true, families: [ipv4], import: all, export: {export}}}",
            end.address, end.asn
        );
    }
    text
}

fn bird(role: &Role<'_>) -> String {
    let mut text = format!(
        "router id {};\nlog stderr {{ warning, error, fatal, bug }};\nprotocol device {{}}\n\
         template bgp end {{\n  hold time {};\n  passive;\n  graceful restart {};\n  \
         ipv4 {{ import all; export all; }};\n}}\n",
        role.id,
        role.hold,
        if role.restart { "on" } else { "aware" },
    );
    if role.kernel {
        text += "protocol kernel { merge paths on; ipv4 { import none; export all; }; }\n";
    }
    let client = if role.reflector { " rr client;" } else { "" };
    for (i, end) in role.peers.iter().enumerate() {
        let _ = writeln!(
            text,
            "protocol bgp p{i} from end {{ local {} as {}; neighbor {} as {};{client} }}",
            end.to, role.asn, end.address, end.asn
        );
    }
    text
}

fn frr(role: &Role<'_>, queue: Option<u32>) -> String {
    let mut text = String::from("hostname bench\n");
    if let Some(limit) = queue {
        let _ = writeln!(text, "bgp input-queue-limit {limit}");
    }
    let _ = write!(
        text,
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n timers bgp {} {}\n",
        role.asn,
        role.id,
        role.hold / 3,
        role.hold
    );
    for end in role.peers {
        let _ = write!(
            text,
            " neighbor {0} remote-as {1}\n neighbor {0} passive\n neighbor {0} advertisement-interval 0\n",
            end.address, end.asn
        );
    }
    text += " address-family ipv4 unicast\n";
    for end in role.peers {
        let _ = writeln!(text, "  neighbor {} activate", end.address);
        if role.reflector {
            let _ = writeln!(text, "  neighbor {} route-reflector-client", end.address);
        }
    }
    text + " exit-address-family\n"
}

fn gobgp(role: &Role<'_>) -> String {
    let mut text = format!(
        "[global.config]\n  as = {}\n  router-id = \"{}\"\n",
        role.asn, role.id
    );
    for end in role.peers {
        let _ = write!(
            text,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {}\n  \
             [neighbors.timers.config]\n    hold-time = {}\n    keepalive-interval = {}\n  \
             [neighbors.transport.config]\n    passive-mode = true\n  \
             [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"ipv4-unicast\"\n",
            end.address,
            end.asn,
            role.hold,
            role.hold / 3
        );
        if role.reflector {
            let _ = write!(
                text,
                "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    \
                 route-reflector-cluster-id = \"{}\"\n",
                role.id
            );
        }
    }
    text
}

/// What writes our routes where there is no felix.
fn writer() -> Result<PathBuf> {
    Ok(lab::bin_dir()?.join("margay-fib"))
}

/// The full path of a program, also where an ordinary user's PATH does not look.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}
