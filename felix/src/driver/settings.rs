//! Kernel settings of the node and of its uplinks: set where they are not as routing over several uplinks needs them, with
//! a record of what they were, so that [`restore`] can put them back. One that cannot be set is said in the status and in
//! the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state;
use super::sysctl::{self, path};

/// Name of the record in the state directory.
const RECORD: &str = "sysctls.json";
/// Version of its format; one up and one down are understood.
const VERSION: u32 = 1;

/// What was changed in this boot; a reboot undoes it by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    boot_id: String,
    changed: BTreeMap<PathBuf, Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    was: String,
    set: String,
}

/// What an uplink needs: where it is, when it is right as a pair of the values for all interfaces and for this one, what
/// it is set to otherwise, and what goes wrong without.
struct Need {
    family: &'static str,
    setting: &'static str,
    right: fn(all: u8, own: u8) -> bool,
    value: &'static str,
    why: &'static str,
}

const UPLINK: [Need; 5] = [
    Need {
        family: "ipv4",
        setting: "rp_filter",
        right: |all, own| all.max(own) != 1,
        value: "2",
        why: "packets that come back over another uplink are dropped",
    },
    Need {
        family: "ipv4",
        setting: "ignore_routes_with_linkdown",
        right: |_, own| own == 1,
        value: "1",
        why: "packets are sent into a link without carrier",
    },
    Need {
        family: "ipv6",
        setting: "ignore_routes_with_linkdown",
        right: |_, own| own == 1,
        value: "1",
        why: "packets are sent into a link without carrier",
    },
    Need {
        family: "ipv4",
        setting: "accept_redirects",
        right: |all, own| all == 0 || own == 0,
        value: "0",
        why: "a router's redirect overrides the routes",
    },
    Need {
        family: "ipv6",
        setting: "accept_redirects",
        right: |_, own| own == 0,
        value: "0",
        why: "a router's redirect overrides the routes",
    },
];

/// With an address on a loopback interface, in addition.
const UPLINK_OF_LOOPBACK: [Need; 2] = [
    Need {
        family: "ipv4",
        setting: "arp_announce",
        right: |all, own| all.max(own) == 2,
        value: "2",
        why: "a router may not answer who is asked for from the address on lo",
    },
    Need {
        family: "ipv4",
        setting: "arp_ignore",
        right: |all, own| all.max(own) >= 1,
        value: "1",
        why: "the address on lo is answered for on every link",
    },
];

/// Settings, and what became of them.
#[derive(Debug)]
pub struct Settings {
    file: PathBuf,
    record: Record,
    /// Uplinks that were looked at since the last [`Settings::look_again`].
    seen: BTreeSet<String>,
    problems: BTreeMap<PathBuf, String>,
}

impl Settings {
    /// Those whose record is in a state directory. A record of another boot is worth nothing.
    #[must_use]
    pub fn open(state_dir: &Path, boot_id: &str) -> Self {
        let file = state_dir.join(RECORD);
        let record = read(&file).filter(|record| record.boot_id == boot_id);
        let fresh = || Record {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            changed: BTreeMap::new(),
        };
        Self {
            record: record.unwrap_or_else(fresh),
            file,
            seen: BTreeSet::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Lets the node route, in both families, and choose among equal paths by flow.
    pub fn node(&mut self) -> io::Result<()> {
        for (path, value) in sysctl::forwarding()? {
            self.change(&path, value)?;
        }
        for family in ["ipv4", "ipv6"] {
            let path: PathBuf = ["/proc/sys/net", family, "fib_multipath_hash_policy"]
                .iter()
                .collect();
            // 3 is a choice of fields that somebody made.
            let right = |now: u8| matches!(now, 1 | 3);
            let why = "all flows between two hosts take the same uplink";
            self.need(&path, right, "1", why);
        }
        Ok(())
    }

    /// Sets uplinks up, each once. `loopback`: the node has its address on a loopback interface.
    pub fn uplinks(&mut self, names: &BTreeSet<&str>, loopback: bool) {
        for name in names {
            if !self.seen.insert((*name).to_owned()) {
                continue;
            }
            let more = UPLINK_OF_LOOPBACK.iter().filter(|_| loopback);
            for need in UPLINK.iter().chain(more) {
                let all = sysctl::number(&path(need.family, "all", need.setting)).unwrap_or(0);
                let path = path(need.family, name, need.setting);
                self.need(&path, |own| (need.right)(all, own), need.value, need.why);
            }
        }
    }

    /// Looks at every uplink again the next time: somebody may have changed them.
    pub fn look_again(&mut self) {
        self.seen.clear();
    }

    /// What is not as it must be.
    #[must_use]
    pub fn refused(&self) -> BTreeSet<String> {
        self.problems.values().cloned().collect()
    }

    fn need(&mut self, path: &Path, right: impl Fn(u8) -> bool, value: &str, why: &str) {
        let now = match sysctl::number(path) {
            Ok(now) => now,
            // The interface has just gone, or the kernel has no such family or setting.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.problems.remove(path);
                return;
            }
            Err(error) => return self.refuse(path, format!("{}: {error}", path.display())),
        };
        if right(now) {
            self.problems.remove(path);
        } else if let Err(error) = self.change(path, value) {
            let problem = format!(
                "{} is {now}, must be {value} and cannot be set ({error}): {why}",
                path.display()
            );
            self.refuse(path, problem);
        } else {
            tracing::info!(setting = %path.display(), was = now, now = value, "a kernel setting is changed");
            self.problems.remove(path);
        }
    }

    fn refuse(&mut self, path: &Path, problem: String) {
        if self.problems.get(path) != Some(&problem) {
            tracing::error!(problem, "a kernel setting is wrong");
        }
        self.problems.insert(path.to_owned(), problem);
    }

    /// Changes a setting; what it was is on disk before.
    fn change(&mut self, path: &Path, value: &str) -> io::Result<()> {
        let now = std::fs::read_to_string(path)?.trim().to_owned();
        if now == value {
            return Ok(());
        }
        let was = match self.record.changed.get(path) {
            Some(change) => change.was.clone(),
            None => now,
        };
        let set = value.to_owned();
        self.record
            .changed
            .insert(path.to_owned(), Change { was, set });
        if let Err(error) = self.save() {
            tracing::warn!(%error, file = %self.file.display(), "what the kernel's settings were cannot be kept: they will not be restored");
        }
        sysctl::write(path, value)
    }

    fn save(&self) -> io::Result<()> {
        state::replace(&self.file, &serde_json::to_vec_pretty(&self.record)?)
    }
}

fn read(file: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (record.version.abs_diff(VERSION) <= 1).then_some(record)
}

/// Puts back what was changed in this boot, and forgets it. A setting that somebody has changed since stays. Returns what
/// was put back, and what could not be.
pub fn restore(state_dir: &Path, boot_id: &str) -> (Vec<PathBuf>, Vec<io::Error>) {
    let file = state_dir.join(RECORD);
    let (mut restored, mut problems) = (Vec::new(), Vec::new());
    let record = read(&file).filter(|record| record.boot_id == boot_id);
    for (path, Change { was, set }) in record.into_iter().flat_map(|record| record.changed) {
        match std::fs::read_to_string(&path) {
            Ok(now) if now.trim() == set => match sysctl::write(&path, &was) {
                Ok(()) => restored.push(path),
                Err(error) => problems.push(error),
            },
            // Changed since, or the interface is gone.
            _ => {}
        }
    }
    if problems.is_empty()
        && let Err(error) = std::fs::remove_file(&file)
        && error.kind() != io::ErrorKind::NotFound
    {
        problems.push(error);
    }
    (restored, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, value: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, format!("{value}\n")).unwrap();
        path
    }

    fn value(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    #[test]
    fn what_was_changed_is_restored_and_what_others_changed_since_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| file(dir.path(), name, "0"));
        let mut settings = Settings::open(dir.path(), "boot");
        settings.need(&one, |now| now == 1, "1", "x");
        settings.need(&two, |now| now == 1, "1", "x");
        settings.need(&three, |now| now == 0, "1", "x");
        drop(settings);
        // Another life changes it again: what it was at first counts.
        file(dir.path(), "one", "5");
        let mut settings = Settings::open(dir.path(), "boot");
        settings.need(&one, |now| now == 1, "1", "x");
        assert!(settings.refused().is_empty());
        file(dir.path(), "two", "7");
        let (restored, problems) = restore(dir.path(), "boot");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(restored, std::slice::from_ref(&one));
        assert_eq!([value(&one), value(&two), value(&three)], ["0", "7", "0"]);
        assert_eq!(restore(dir.path(), "boot").0, Vec::<PathBuf>::new());
    }

    #[test]
    fn a_record_of_another_boot_restores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let one = file(dir.path(), "one", "0");
        Settings::open(dir.path(), "boot").need(&one, |now| now == 1, "1", "x");
        assert_eq!(restore(dir.path(), "other").0, Vec::<PathBuf>::new());
        assert_eq!(value(&one), "1");
    }

    #[test]
    fn what_cannot_be_set_is_said_until_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        // A directory can be looked at and not be written.
        let wrong = dir.path().join("setting");
        std::fs::create_dir(&wrong).unwrap();
        let mut settings = Settings::open(dir.path(), "boot");
        settings.need(&wrong, |_| true, "1", "why");
        assert_eq!(settings.refused().len(), 1);
        std::fs::remove_dir(&wrong).unwrap();
        settings.need(&wrong, |_| true, "1", "why");
        assert!(settings.refused().is_empty(), "gone with its interface");
    }

    #[test]
    fn the_values_for_all_interfaces_count_too() {
        let right = |setting: &str, all, own| {
            let mut needs = UPLINK.iter().chain(&UPLINK_OF_LOOPBACK);
            let need = needs.find(|need| need.setting == setting).unwrap();
            (need.right)(all, own)
        };
        assert!(right("rp_filter", 0, 0) && right("rp_filter", 2, 1) && right("rp_filter", 1, 2));
        assert!(!right("rp_filter", 1, 0) && !right("rp_filter", 0, 1));
        assert!(right("accept_redirects", 0, 1) && !right("accept_redirects", 1, 1));
        assert!(right("arp_announce", 2, 0) && !right("arp_announce", 1, 0));
        assert!(right("arp_ignore", 1, 0) && !right("arp_ignore", 0, 0));
    }
}
