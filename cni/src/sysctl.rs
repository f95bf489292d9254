//! Kernel settings of an interface, in the namespace of the calling thread.

use std::io;
use std::path::PathBuf;

/// Writes `/proc/sys/net/FAMILY/conf/INTERFACE/NAME`. The names of interfaces may hold dots, so no dotted form is used.
pub fn set(family: &str, interface: &str, name: &str, value: &str) -> io::Result<()> {
    let path: PathBuf = ["/proc/sys/net", family, "conf", interface, name]
        .iter()
        .collect();
    std::fs::write(&path, value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("writing {value} to {}: {error}", path.display()),
        )
    })
}
