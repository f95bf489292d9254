//! Where DELs wait while felix is away: one file for each attachment.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::key::AttachmentKey;

/// Leaves a DEL for felix. The file appears whole or not at all, and once for however many DELs of the same key.
pub fn leave(dir: &Path, key: &AttachmentKey) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = key.host_interface();
    let draft = dir.join(format!(".{name}.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(key)?)?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(&name))
    };
    write().inspect_err(|_| {
        // The draft may not exist; the error that matters is the first one.
        let _ = fs::remove_file(&draft);
    })
}

/// Takes every DEL that waits: `take` is called for each, and the file goes once it returned. A file that cannot be
/// understood is put aside under `.bad`, and reported.
pub fn drain(dir: &Path, mut take: impl FnMut(AttachmentKey)) -> io::Result<Vec<String>> {
    let mut bad = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bad),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.extension().is_some() {
            continue;
        }
        match fs::read(&path)
            .map_err(|e| e.to_string())
            .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
        {
            Ok(key) => {
                take(key);
                fs::remove_file(&path)?;
            }
            Err(error) => {
                fs::rename(&path, path.with_extension("bad"))?;
                bad.push(format!("{}: {error}; put aside as .bad", path.display()));
            }
        }
    }
    Ok(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("spool");
        let key = AttachmentKey {
            network: "n".into(),
            container_id: "c".into(),
            interface: "eth0".into(),
        };
        leave(&dir, &key).unwrap();
        leave(&dir, &key).unwrap();
        fs::write(dir.join("mgyjunk"), b"junk").unwrap();
        let mut taken = Vec::new();
        let bad = drain(&dir, |k| taken.push(k)).unwrap();
        assert_eq!(taken, [key]);
        assert_eq!(bad.len(), 1, "{bad:?}");
        let bad = drain(&dir, |k| taken.push(k)).unwrap();
        assert_eq!((taken.len(), bad.len()), (1, 0));
    }

    #[test]
    fn no_directory_is_an_empty_spool() {
        assert!(
            drain(Path::new("/nonexistent/spool"), |_| panic!("nothing waits"))
                .unwrap()
                .is_empty()
        );
    }
}
