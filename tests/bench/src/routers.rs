//! The routers of the BGP benchmark: what is measured, and the BIRDs on both sides of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::bird::{control, show};

use crate::ground::{Ground, Namespace};

/// Addresses and AS numbers: the origin, both sides of what is measured, the receiver. 198.18.0.0/15 is for benchmarks
/// (RFC 2544).
pub(crate) const ORIGIN: (&str, u32) = ("198.18.1.1", 64510);
pub(crate) const MIDDLE: (&str, &str, u32) = ("198.18.1.2", "198.18.2.2", 64511);
pub(crate) const RECEIVER: (&str, u32) = ("198.18.2.1", 64512);
/// Routes that share their attributes, as those of a rack do.
const ALIKE: u32 = 64;
/// Longest wait for a session or for routes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands between the two BIRDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Middle {
    /// Ours.
    Bgpd,
    /// The peer.
    Bird,
    /// Nothing: the floor of the other two.
    Nothing,
}

/// A running BIRD or bgpd.
#[derive(Debug)]
pub(crate) struct Router<'a> {
    ground: &'a Ground,
    name: String,
    /// Its process.
    pub(crate) pid: i32,
    control: PathBuf,
}

impl<'a> Router<'a> {
    /// Starts a BIRD and waits until it has read its configuration.
    pub(crate) fn bird(
        ground: &'a Ground,
        name: &str,
        within: &Namespace,
        config: &str,
    ) -> Result<Self> {
        let file = ground.path(&format!("{name}.conf"));
        let control = ground.path(&format!("{name}.ctl"));
        fs::write(&file, config)?;
        let program = find("bird").context("no BIRD: apt-get install bird2")?;
        let (file, socket) = (text(&file)?, text(&control)?);
        let pid = ground.start(name, &program, &["-f", "-c", file, "-s", socket], within)?;
        let router = Self {
            ground,
            name: name.to_owned(),
            pid,
            control,
        };
        router.wait("its answer", || Ok(router.ask("show status").is_ok()))?;
        Ok(router)
    }

    /// Starts bgpd from a file.
    pub(crate) fn bgpd(ground: &'a Ground, within: &Namespace) -> Result<Self> {
        let name = "middle";
        let file = ground.path("bgpd.yaml");
        fs::write(&file, bgpd_config())?;
        let program = lab::bin_dir()?.join("margay-bgpd");
        let (run, state) = (ground.path("run"), ground.path("state"));
        let pid = ground.start(
            name,
            &program,
            &[
                "--config",
                text(&file)?,
                "--run-dir",
                text(&run)?,
                "--state-dir",
                text(&state)?,
            ],
            within,
        )?;
        Ok(Self {
            ground,
            name: name.to_owned(),
            pid,
            control: PathBuf::new(),
        })
    }

    /// BIRD's answer to a command.
    pub(crate) fn ask(&self, command: &str) -> Result<String> {
        control::ask(&self.control, command)
            .with_context(|| format!("ask {}: {command}", self.name))
    }

    /// Waits until BIRD's only session is Established.
    pub(crate) fn wait_established(&self) -> Result<()> {
        self.wait("its session", || {
            let sessions = show::sessions(&self.ask("show protocols")?);
            Ok(sessions.iter().any(|session| session.established))
        })
    }

    /// Waits until BIRD has imported exactly so many routes; when that was seen.
    pub(crate) fn wait_routes(&self, count: u32, pause: Duration) -> Result<Instant> {
        let what = format!("{count} routes");
        self.wait_with(&what, pause, || {
            Ok(imported(&self.ask("show protocols all peer")?) == Some(count))
        })?;
        Ok(Instant::now())
    }

    fn wait(&self, what: &str, true_now: impl FnMut() -> Result<bool>) -> Result<()> {
        self.wait_with(what, Duration::from_millis(20), true_now)
    }

    fn wait_with(
        &self,
        what: &str,
        pause: Duration,
        mut true_now: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !true_now().unwrap_or(false) {
            if Instant::now() > deadline {
                let log = self.ground.log(&self.name);
                bail!("{}: waited {PATIENCE:?} for {what}\n{log}", self.name);
            }
            std::thread::sleep(pause);
        }
        Ok(())
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.ground.stop(&self.name) {
            eprintln!("end {}: {error:#}", self.name);
        }
    }
}

/// `Routes:         100000 imported, 0 exported, 100000 preferred`
fn imported(text: &str) -> Option<u32> {
    let line = text
        .lines()
        .find_map(|l| l.trim_start().strip_prefix("Routes:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A BIRD that keeps `routes` routes back until `enable feed`, and one more until `enable one`.
pub(crate) fn origin_config(routes: u32) -> String {
    let (address, asn) = ORIGIN;
    let (peer, _, peer_asn) = MIDDLE;
    let mut text = head(address)
        + &session("peer", address, asn, peer, peer_asn)
        + "protocol static one { disabled; ipv4; route 100.64.0.0/26 blackhole; }\n"
        + "protocol static feed {\n  disabled;\n  ipv4;\n";
    for i in 0..routes {
        let [_, b, c, d] = (i * 64).to_be_bytes();
        let group = i / ALIKE;
        let _ = writeln!(
            text,
            "  route 20.{b}.{c}.{d}/26 blackhole {{ bgp_community.add(({asn}, {group})); }};"
        );
    }
    text + "}\n"
}

/// A BIRD that only listens, to whom it is told.
pub(crate) fn receiver_config(own: (&str, u32), peer: (&str, u32)) -> String {
    head(own.0) + &session("peer", own.0, own.1, peer.0, peer.1)
}

/// A BIRD between the two.
pub(crate) fn middle_config() -> String {
    let (left, right, asn) = MIDDLE;
    head(right)
        + &session("origin", left, asn, ORIGIN.0, ORIGIN.1)
        + &session("receiver", right, asn, RECEIVER.0, RECEIVER.1)
}

fn head(id: &str) -> String {
    format!("router id {id};\nlog stderr {{ warning, error, fatal, bug }};\nprotocol device {{}}\n")
}

fn session(name: &str, local: &str, asn: u32, peer: &str, peer_asn: u32) -> String {
    format!(
        "protocol bgp {name} {{
  local {local} as {asn};
  neighbor {peer} as {peer_asn};
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv4 {{ import all; export all; next hop self; }};
}}
"
    )
}

fn bgpd_config() -> String {
    let (_, right, asn) = MIDDLE;
    let peer = |name: &str, (address, asn): (&str, u32)| {
        format!(
            "- {{name: {name}, peerIP: {address}, asNumber: {asn}, import: all, export: transit}}\n"
        )
    };
    format!("asNumber: {asn}\nrouterID: {right}\npeers:\n")
        + &peer("origin", ORIGIN)
        + &peer("receiver", RECEIVER)
}

/// The full path of a program, also where an ordinary user's PATH does not look.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_differ_and_attributes_are_shared() {
        let text = origin_config(100_000);
        let routes: Vec<&str> = text.lines().filter(|l| l.starts_with("  route")).collect();
        assert_eq!(routes.len(), 100_000);
        assert!(routes[0].starts_with("  route 20.0.0.0/26 "));
        assert!(routes[1].starts_with("  route 20.0.0.64/26 "));
        assert!(routes[99_999].starts_with("  route 20.97.167.192/26 "));
        assert!(routes[63].ends_with("(64510, 0)); };") && routes[64].ends_with("(64510, 1)); };"));
    }

    #[test]
    fn bgpd_understands_its_file() {
        let text = bgpd_config();
        assert!(text.contains("peerIP: 198.18.1.1, asNumber: 64510, import: all, export: transit"));
    }

    #[test]
    fn bird_counts() {
        let text =
            "  Channel ipv4\n    Routes:         1000 imported, 0 exported, 1000 preferred\n";
        assert_eq!(imported(text), Some(1000));
        assert_eq!(imported("peer BGP down"), None);
    }
}
