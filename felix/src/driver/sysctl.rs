//! Kernel settings of network interfaces, below `/proc/sys/net`, in the network namespace of the calling thread.

use std::io;
use std::path::{Path, PathBuf};

/// Settings of a workload's interface: packets are routed, nobody but the pod itself answers for its address, and what
/// a pod claims about routes is not believed.
const WORKLOAD: [(&str, &str, &str); 9] = [
    ("ipv4", "forwarding", "1"),
    ("ipv4", "proxy_arp", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "route_localnet", "0"),
    ("ipv6", "forwarding", "1"),
    ("ipv6", "proxy_ndp", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
];

/// Sets up a workload's interface. Without IPv6 in the kernel its settings are left out; a read-only `/proc/sys` fails
/// only where a setting is not as it should be.
pub fn workload(interface: &str) -> io::Result<()> {
    for (family, setting, value) in WORKLOAD {
        match set(&path(family, interface, setting), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && family == "ipv6" => {}
            result => result?,
        }
    }
    Ok(())
}

/// Lets packets of a workload's interface have sources that are not routed there. The larger of the value for all interfaces
/// and the interface's own holds: 2 lets in what is routed anywhere.
pub fn any_source(interface: &str) -> io::Result<()> {
    let all = number(&path("ipv4", "all", "rp_filter"))?;
    let own = if all == 0 { "0" } else { "2" };
    set(&path("ipv4", interface, "rp_filter"), own)
}

/// What lets the node route at all, in both families. Interfaces which learn their routes from router advertisements would
/// stop to on a router (`accept_ra` 1), unless they are told to go on (2).
pub fn forwarding() -> io::Result<Vec<(PathBuf, &'static str)>> {
    let mut settings = vec![("/proc/sys/net/ipv4/ip_forward".into(), "1")];
    let all = path("ipv6", "all", "forwarding");
    match std::fs::read_to_string(&all) {
        Ok(value) if value.trim() == "1" => return Ok(settings),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(settings),
        Err(error) => return Err(error),
    }
    for interface in std::fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let accept = interface?.path().join("accept_ra");
        if std::fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
            settings.push((accept, "2"));
        }
    }
    settings.push((all, "1"));
    Ok(settings)
}

/// The value of a setting that is a small number.
pub fn number(path: &Path) -> io::Result<u8> {
    let text = std::fs::read_to_string(path)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no number")))
}

/// Where a setting of an interface is.
pub fn path(family: &str, interface: &str, setting: &str) -> PathBuf {
    // A path, unlike a dotted name, is unambiguous for an interface with a dot in its name.
    ["/proc/sys/net", family, "conf", interface, setting]
        .iter()
        .collect()
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    write(path, value)
}

/// Gives a setting a value.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
