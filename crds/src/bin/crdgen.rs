//! Writes `deploy/crds/*.yaml`; with `--check`, says which are stale instead and fails.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use crds::generate::{Manifest, manifests};

fn main() -> ExitCode {
    let mut check = false;
    let mut dir = PathBuf::from("deploy/crds");
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            "--help" | "-h" => {
                println!(
                    "crdgen [--check] [DIR]: write (or check) the custom resource definitions in DIR, deploy/crds by default"
                );
                return ExitCode::SUCCESS;
            }
            option if option.starts_with('-') => {
                eprintln!("crdgen: unknown option {option}; try --help");
                return ExitCode::from(2);
            }
            path => dir = PathBuf::from(path),
        }
    }
    let manifests = match manifests() {
        Ok(manifests) => manifests,
        Err(error) => return fail(&format!("a definition cannot be written: {error}")),
    };
    let done = if check {
        stale(&dir, &manifests)
    } else {
        write(&dir, &manifests)
    };
    match done {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => fail(&format!(
            "stale in {}, run crdgen: {}",
            dir.display(),
            stale.join(", ")
        )),
        Err(error) => fail(&format!("{}: {error}", dir.display())),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("crdgen: {message}");
    ExitCode::FAILURE
}

/// Writes what differs and removes manifests of kinds that are gone.
fn write(dir: &Path, manifests: &[Manifest]) -> io::Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    for name in stale(dir, manifests)? {
        match manifests.iter().find(|m| m.file == name) {
            Some(manifest) => fs::write(dir.join(&name), &manifest.yaml)?,
            None => fs::remove_file(dir.join(&name))?,
        }
    }
    Ok(Vec::new())
}

/// Files that are missing, differ, or belong to no kind.
fn stale(dir: &Path, manifests: &[Manifest]) -> io::Result<Vec<String>> {
    let mut stale = Vec::new();
    for manifest in manifests {
        match fs::read_to_string(dir.join(&manifest.file)) {
            Ok(found) if found == manifest.yaml => {}
            Ok(_) => stale.push(manifest.file.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                stale.push(manifest.file.clone())
            }
            Err(error) => return Err(error),
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(crds::GROUP) && name.ends_with(".yaml");
        if ours && !manifests.iter().any(|m| m.file == name) {
            stale.push(name);
        }
    }
    Ok(stale)
}
