//! Network namespaces under /run/netns, as `ip netns` keeps them: a file with the namespace bound to it.
//!
//! A namespace belongs to a thread, so everything done inside one is done on a thread of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces are.
pub const DIR: &str = "/run/netns";

/// The file of a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Makes a namespace of that name, with its loopback up.
pub fn create(name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(DIR)?;
    let target = path(name);
    File::create_new(&target)?;
    let bound = on_thread({
        let target = target.clone();
        move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        }
    });
    if bound.is_err() {
        // Nothing can be bound to it: only the empty file is left.
        let _ = fs::remove_file(&target);
    }
    bound.map(|()| target)
}

/// Removes a named namespace; one that is not there is no error. The kernel destroys it once no process
/// or socket uses it.
pub fn delete(name: &str) -> io::Result<()> {
    let target = path(name);
    // A crash may leave the file without a mount, and a repeated run several mounts on top of each other.
    while umount2(&target, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_file(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The names of all namespaces.
pub fn list() -> io::Result<Vec<String>> {
    match fs::read_dir(DIR) {
        Ok(entries) => entries
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Moves the calling thread into the namespace.
pub fn enter(netns: &Path) -> io::Result<()> {
    let file = File::open(netns)?;
    setns(&file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Runs `f` in the namespace, on a thread of its own, and returns what it returned.
pub fn run_in<T: Send + 'static>(
    netns: &Path,
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let netns = netns.to_owned();
    on_thread(move || {
        enter(&netns)?;
        f()
    })
}

/// Runs `f` in a new namespace without a name, its loopback up, which goes when `f` returns.
pub fn run_in_new<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        loopback_up()?;
        f()
    })
}

/// Writes sysctls (`net/ipv4/ip_forward`) in the namespace.
pub fn sysctls(netns: &Path, values: &[(&str, &str)]) -> io::Result<()> {
    let values: Vec<(String, String)> = values
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    run_in(netns, move || {
        for (key, value) in values {
            fs::write(Path::new("/proc/sys").join(&key), value)
                .map_err(|e| io::Error::new(e.kind(), format!("{key}: {e}")))?;
        }
        Ok(())
    })
}

fn on_thread<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    thread::Builder::new()
        .name("netns".into())
        .spawn(f)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}

/// Sets the loopback of the current namespace up, by the classic ioctl: `ip` would cost a process per pod.
fn loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and SIOCSIFFLAGS reads an ifreq, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
