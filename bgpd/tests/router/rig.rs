//! Namespaces with cables between them, and the speakers in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api::v1;

use crate::support::felix::wait_for_speaker;
use crate::support::{BGPD, Namespace, Process, wait_for};

/// The node with our speaker, and the router it is cabled to: up0 on both sides, 192.0.2.1 and .254, 2001:db8::1 and ::254.
pub(crate) struct Rig {
    pub(crate) node: Namespace,
    pub(crate) tor: Namespace,
    pub(crate) dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (node, tor) = (Namespace::new("node"), Namespace::new("tor"));
        cable(&node, "up0", &tor, "up0");
        for (namespace, last) in [(&node, "1"), (&tor, "254")] {
            namespace.ip(&format!("addr add 192.0.2.{last}/24 dev up0"));
            namespace.ip(&format!("-6 addr add 2001:db8::{last}/64 dev up0 nodad"));
        }
        let dir = tempfile::tempdir().unwrap();
        Self { node, tor, dir }
    }

    /// Starts our speaker in a namespace.
    pub(crate) fn bgpd(&self, namespace: &Namespace, name: &str, config: &str) -> Bgpd {
        Bgpd::start(self.dir.path().join(name), namespace, config)
    }

    /// Starts a BIRD in a namespace; `config` comes after what all have.
    pub(crate) fn bird(&self, namespace: &Namespace, name: &str, config: &str) -> Bird {
        Bird::start(self.dir.path().join(name), namespace, config)
    }
}

/// A cable between two namespaces, up on both sides; its link-local addresses are there at once.
pub(crate) fn cable(a: &Namespace, on_a: &str, b: &Namespace, on_b: &str) {
    a.ip(&format!(
        "link add {on_a} type veth peer name {on_b} netns {}",
        b.name
    ));
    for (namespace, name) in [(a, on_a), (b, on_b)] {
        sysctl(namespace, &format!("net.ipv6.conf.{name}.accept_dad=0"));
        namespace.ip(&format!("link set {name} up"));
    }
}

pub(crate) fn sysctl(namespace: &Namespace, setting: &str) {
    let (name, value) = setting.split_once('=').unwrap();
    // The interface's own name has no dot here.
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    inside(namespace, "sh", &["-c", &format!("echo {value} > {path}")]);
}

/// Runs a command in a namespace; its output.
pub(crate) fn inside(namespace: &Namespace, program: &str, args: &[&str]) -> String {
    let output = namespace.command(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The addresses of a pod behind each end answer each other.
pub(crate) fn ping(namespace: &Namespace, from: &str, to: &str) {
    wait_for(&format!("{to} to answer {from}"), || {
        let mut ping = namespace.command("ping");
        ping.args(["-c1", "-W1", "-I", from, to]);
        ping.output().unwrap().status.success().then_some(())
    });
}

/// Our speaker.
pub(crate) struct Bgpd {
    pub(crate) process: Process,
    pub(crate) dir: PathBuf,
}

impl Bgpd {
    fn start(dir: PathBuf, namespace: &Namespace, config: &str) -> Self {
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("bgpd.yaml"), config).unwrap();
        let process = Self::process(&dir, namespace);
        let this = Self { process, dir };
        wait_for_speaker(&this.socket());
        this
    }

    fn process(dir: &Path, namespace: &Namespace) -> Process {
        let mut command = namespace.command(BGPD);
        command.arg("--config").arg(dir.join("bgpd.yaml"));
        command.arg("--run-dir").arg(dir.join("run"));
        command.arg("--state-dir").arg(dir.join("state"));
        command.arg("--record").arg(dir.join("run.jsonl"));
        Process::start(command, dir.join("log"))
    }

    /// Starts it again after its end.
    pub(crate) fn again(&mut self, namespace: &Namespace) {
        self.process = Self::process(&self.dir, namespace);
        wait_for_speaker(&self.socket());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("run/bgpd.sock")
    }

    /// Writes another configuration; it is noticed within a second.
    pub(crate) fn configure(&self, config: &str) {
        let new = self.dir.join("new.yaml");
        std::fs::write(&new, config).unwrap();
        std::fs::rename(new, self.dir.join("bgpd.yaml")).unwrap();
    }

    pub(crate) fn neighbors(&self) -> Vec<v1::Neighbor> {
        let socket = self.socket();
        block_on(async {
            let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                .await
                .ok()?;
            let request = v1::ListNeighborsRequest {};
            Some(bgpd.list_neighbors(request).await.ok()?.into_inner())
        })
        .map(|it| it.neighbors)
        .unwrap_or_default()
    }

    pub(crate) fn neighbor(&self, name: &str) -> v1::Neighbor {
        let found = self.neighbors().into_iter().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no neighbour {name}"))
    }

    /// Waits until exactly these sessions are up.
    pub(crate) fn wait_established(&self, names: &[&str]) {
        wait_for(&format!("sessions {names:?}"), || {
            let neighbors = self.neighbors();
            let up = neighbors.iter().filter(|it| it.state == "Established");
            let mut up: Vec<&str> = up.map(|it| it.name.as_str()).collect();
            up.sort_unstable();
            (up == names).then_some(())
        });
    }

    /// Waits until something about a neighbour is true.
    pub(crate) fn wait_neighbor(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&v1::Neighbor) -> bool,
    ) -> v1::Neighbor {
        wait_for(&format!("{name}: {what}"), || {
            Some(self.neighbor(name)).filter(|it| holds(it))
        })
    }
}

/// A real BIRD.
pub(crate) struct Bird {
    process: Process,
    socket: PathBuf,
}

impl Bird {
    fn start(dir: PathBuf, namespace: &Namespace, config: &str) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let all = format!(
            "log stderr all;\ndebug protocols {{ states, events }};\nprotocol device {{ scan time 1; }}\n\
             template bgp fast {{ local as 64601; connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 9; }}\n\
             {config}\n"
        );
        std::fs::write(dir.join("bird.conf"), all).unwrap();
        let socket = dir.join("bird.ctl");
        let mut bird = namespace.command("bird");
        bird.arg("-f");
        bird.arg("-c").arg(dir.join("bird.conf"));
        bird.arg("-s").arg(&socket);
        bird.arg("-P").arg(dir.join("bird.pid"));
        let process = Process::start(bird, dir.join("bird.log"));
        wait_for("BIRD to answer", || socket.exists().then_some(()));
        Self { process, socket }
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        birdc(&self.socket, command)
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until BIRD has a prefix; what it says of it.
    pub(crate) fn wait_route(&self, prefix: &str) -> String {
        wait_for(&format!("BIRD to have {prefix}"), || {
            let text = self.ask(&format!("show route for {prefix} all"));
            text.contains(&format!("{prefix} ")).then_some(text)
        })
    }
}

fn birdc(socket: &Path, command: &str) -> String {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(socket);
    // It fails when it has nothing to show, so its code says nothing.
    let output = birdc.args(command.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
