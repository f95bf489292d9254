//! Kernel settings of an interface, in the namespace of the calling thread.

use std::io;
use std::path::PathBuf;

/// Writes `/proc/sys/net/FAMILY/conf/INTERFACE/NAME` unless that is its value already. The names of interfaces may hold
/// dots, so no dotted form is used.
///
/// Some settings (`disable_ipv6`, `forwarding`) are under the kernel's lock of all links, and a write that finds it held
/// does not wait for it but is started again, over and over: with eight plugins at once, 260 times per attachment.
pub fn set(family: &str, interface: &str, name: &str, value: &str) -> io::Result<()> {
    let path: PathBuf = ["/proc/sys/net", family, "conf", interface, name]
        .iter()
        .collect();
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("writing {value} to {}: {error}", path.display()),
        )
    })
}
