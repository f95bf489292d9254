//! The CNI configuration that makes a kubelet call the plugin.

use std::io;
use std::path::Path;

use serde_json::json;

/// Name of the file; the runtime takes the first of the directory.
pub const FILE: &str = "10-margay.conflist";

/// Writes the file, whole, unless it says the same already.
pub fn write(dir: &Path, run_dir: &Path, state_dir: &Path) -> io::Result<()> {
    let text = render(run_dir, state_dir);
    let path = dir.join(FILE);
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    super::state::replace(&path, text.as_bytes())
}

fn render(run_dir: &Path, state_dir: &Path) -> String {
    let conflist = json!({
        "cniVersion": "1.1.0",
        "name": "margay",
        "plugins": [{
            "type": "margay",
            "socket": run_dir.join(api::paths::CNI_SOCKET),
            "spoolDir": state_dir.join(super::SPOOL_DIR),
        }],
    });
    format!("{conflist:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), Path::new("/r"), Path::new("/s")).unwrap();
        let text = std::fs::read(dir.path().join(FILE)).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let mut plugin = list["plugins"][0].clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        let conf = cni::conf::Conf::parse(&serde_json::to_vec(&plugin).unwrap()).unwrap();
        assert_eq!(conf.socket, Path::new("/r/cni.sock"));
        assert_eq!(conf.spool_dir, Path::new("/s/spool"));
    }
}
