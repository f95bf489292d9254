//! `lab down`: kills, unmounts and removes everything of a lab, also of half a one.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Result, bail};

use crate::netns;
use crate::plan::Plan;
use crate::process::Processes;

/// Says whether there was anything. Goes on after errors, so that as little as possible is left.
pub(crate) fn down(dir: &Path) -> Result<bool> {
    let plan = Plan::new(dir, 0);
    if !is_lab(&plan)? {
        bail!(
            "{} is not empty and not a lab's: it is left alone",
            dir.display()
        );
    }
    let mut problems = Vec::new();
    let mut found = dir.exists();
    match Processes::new(plan.processes(), plan.logs(), &plan.name).kill_all() {
        Ok(killed) => found |= killed > 0,
        Err(e) => problems.push(format!("{e:#}")),
    }
    for name in netns::list()?.iter().filter(|n| plan.owns_netns(n)) {
        found = true;
        if let Err(e) = netns::delete(name) {
            problems.push(format!("remove the namespace {name}: {e}"));
        }
    }
    if let Err(e) = remove(&plan) {
        problems.push(format!("remove {}: {e}", dir.display()));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(found)
}

/// Whether the directory may be removed: it has a lab's description, or nothing in it, or is not there.
fn is_lab(plan: &Plan) -> io::Result<bool> {
    if plan.state_file().exists() {
        return Ok(true);
    }
    match fs::read_dir(&plan.dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// The description goes last: a removal that is interrupted can be repeated.
fn remove(plan: &Plan) -> io::Result<()> {
    let entries = match fs::read_dir(&plan.dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path == plan.state_file() {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    match fs::remove_file(plan.state_file()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::remove_dir(&plan.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_else_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = down(dir.path()).unwrap_err().to_string();
        assert!(error.contains("left alone"), "{error}");
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[test]
    fn down_of_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!down(&dir.path().join("none")).unwrap());
    }
}
