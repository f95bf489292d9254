//! What the lab needs from the machine; all that is missing is said at once, with what to do about it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::netns;
use crate::options::Parts;

/// Programs from Debian's packages.
const TOOLS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("bird", "bird2"),
    ("birdc", "bird2"),
    ("nft", "nftables"),
];
/// Only with an API server.
const KUBECTL: (&str, &str) = ("kubectl", "kubernetes-client");
/// Ours, from `make build`: of the control plane, and of the nodes.
const BINARIES: [&[&str]; 2] = [
    &["lab", "apiserver"],
    &[
        "margay-felix",
        "margay-bgpd",
        "margay-controller",
        "margay",
        "margayctl",
    ],
];

/// Fails with one line per missing thing.
pub(crate) fn check(bin_dir: &Path, parts: Parts) -> Result<()> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces: run it as root");
    }
    let kubectl = (parts >= Parts::ControlPlane).then_some(KUBECTL);
    for (tool, package) in TOOLS.into_iter().chain(kubectl) {
        if find(tool).is_none() {
            missing.push(format!("{tool}: apt-get install {package}"));
        }
    }
    let binaries = match parts {
        Parts::Fabric => &BINARIES[..0],
        Parts::ControlPlane => &BINARIES[..1],
        Parts::Everything => &BINARIES[..],
    };
    for binary in binaries.iter().copied().flatten() {
        if !bin_dir.join(binary).exists() {
            missing.push(format!("{}: make build", bin_dir.join(binary).display()));
        }
    }
    if let Err(problem) = kernel() {
        missing.push(problem);
    }
    if !missing.is_empty() {
        bail!("missing on this machine:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

/// The full path of a program, also where an ordinary user's PATH does not look.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(tool))
        .find(|p| p.is_file())
}

/// Tries what the lab and the daemons do, in a namespace that has no name and is thrown away.
fn kernel() -> Result<(), String> {
    const TRIES: [(&str, &str, &str); 5] = [
        (
            "veth (CONFIG_VETH)",
            "ip",
            "link add v0 type veth peer name v1",
        ),
        ("bridge (CONFIG_BRIDGE)", "ip", "link add b0 type bridge"),
        ("IPv6 (CONFIG_IPV6)", "ip", "-6 addr add fd00::1/64 dev lo"),
        (
            "nexthop objects (Linux 5.3)",
            "ip",
            "nexthop add id 1 blackhole",
        ),
        (
            "nf_tables (CONFIG_NF_TABLES_INET)",
            "nft",
            "add table inet margay-check",
        ),
    ];
    let failed = netns::run_in_new(|| {
        Ok(TRIES.into_iter().find_map(|(what, tool, args)| {
            // A missing tool has a line of its own.
            let output = Command::new(tool).args(args.split(' ')).output().ok()?;
            let said = String::from_utf8_lossy(&output.stderr);
            (!output.status.success()).then(|| format!("the kernel's {what}: {}", said.trim()))
        }))
    });
    match failed {
        Ok(None) => Ok(()),
        Ok(Some(problem)) => Err(problem),
        Err(e) => Err(format!(
            "the kernel's network namespaces (CONFIG_NET_NS): {e}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let empty = tempfile::tempdir().unwrap();
        let error = check(empty.path(), Parts::Everything)
            .unwrap_err()
            .to_string();
        for binary in BINARIES.concat() {
            let line = format!("{}: make build", empty.path().join(binary).display());
            assert!(error.lines().any(|l| l.trim() == line), "{error}");
        }
        assert!(check(empty.path(), Parts::Fabric).is_ok());
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }
}
