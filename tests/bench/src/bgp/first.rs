//! Going before everything else on the machine: a measurement beside a build would otherwise measure the build.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

/// Where the kernel groups processes by session, only the group's priority counts against other sessions.
const GROUP: &str = "autogroup";
/// What this process's session had before.
static BEFORE: OnceLock<String> = OnceLock::new();

/// This process and what it starts from now on, until [`restore`].
pub(crate) fn go() -> Result<()> {
    let pid = std::process::id();
    let output = Command::new("renice")
        .args(["-n", "-20", "-p", &pid.to_string()])
        .output()?;
    if !output.status.success() {
        bail!("renice: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = fs::read_to_string(format!("/proc/{pid}/{GROUP}")).unwrap_or_default();
    if let Some(nice) = group_nice(&text) {
        BEFORE.get_or_init(|| nice.to_owned());
        let_go(pid)?;
    }
    Ok(())
}

/// A process that was started in a session of its own.
pub(crate) fn let_go(pid: u32) -> Result<()> {
    let file = format!("/proc/{pid}/{GROUP}");
    if group_nice(&fs::read_to_string(&file).unwrap_or_default()).is_some() {
        fs::write(file, "-20")?;
    }
    Ok(())
}

/// Gives the session back what it had: the shell that started us is in it too.
pub(crate) fn restore() {
    if let Some(nice) = BEFORE.get() {
        // Nothing is left to do about it, and the run is over.
        let _ = fs::write(format!("/proc/self/{GROUP}"), nice);
    }
}

/// `/autogroup-4694 nice 0`
fn group_nice(text: &str) -> Option<&str> {
    let (_, nice) = text.trim().rsplit_once(" nice ")?;
    Some(nice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_says_its_priority() {
        assert_eq!(group_nice("/autogroup-4694 nice -3\n"), Some("-3"));
        assert_eq!(group_nice(""), None);
    }
}
