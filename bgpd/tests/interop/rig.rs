//! Our speaker and a peer on one link.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::v1;

use crate::support::felix::wait_for_speaker;
use crate::support::{BGPD, Namespace, Process, wait_for};
use crate::{bird, frr, gobgp, openbgpd};

pub(crate) const OUR_AS: u32 = 4_200_000_001;
pub(crate) const THEIR_AS: u32 = 64601;
/// What we originate.
pub(crate) const OURS: [&str; 2] = ["10.244.0.0/26", "fd00:10:244::/122"];
/// What the peer originates; the first with communities 64601:7 and 64601:8:9.
pub(crate) const THEIRS: [&str; 2] = ["10.244.1.0/26", "fd00:10:244:1::/122"];

/// What the peer runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

/// What a test asks for.
#[derive(Default)]
pub(crate) struct Setup {
    /// Key of both sessions.
    pub(crate) password: Option<&'static str>,
    /// The peer demands the greatest TTL.
    pub(crate) gtsm: bool,
    /// More of our configuration, for both sessions and for the speaker.
    pub(crate) peer: &'static str,
    pub(crate) speaker: &'static str,
}

/// A route of ours as the peer has it.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) as_path: Vec<u32>,
    /// Standard and large ones, as `64601:7` and `64601:8:9`.
    pub(crate) communities: BTreeSet<String>,
}

/// Somebody else's speaker, at 192.0.2.254 and 2001:db8::254.
pub(crate) trait Router {
    /// The route to a prefix, if it has one.
    fn sees(&self, prefix: &str) -> Option<Seen>;
    /// Asks us for all routes again.
    fn ask_again(&self);
}

pub(crate) struct Rig {
    router: Box<dyn Router>,
    _bgpd: Process,
    _node: Namespace,
    dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(kind: Kind, setup: &Setup) -> Self {
        let (node, tor) = (Namespace::new("node"), Namespace::new("peer"));
        // FRR takes no IPv6 session on an interface whose link-local address is not ready.
        for namespace in [&node, &tor] {
            let mut sysctl = namespace.command("sysctl");
            let no_wait = ["-qw", "net.ipv6.conf.default.accept_dad=0"];
            assert!(sysctl.args(no_wait).status().unwrap().success());
        }
        node.ip(&format!(
            "link add up0 type veth peer name up0 netns {}",
            tor.name
        ));
        for (namespace, last) in [(&node, "1"), (&tor, "254")] {
            namespace.ip("link set up0 up");
            namespace.ip(&format!("addr add 192.0.2.{last}/24 dev up0"));
            namespace.ip(&format!("-6 addr add 2001:db8::{last}/64 dev up0 nodad"));
        }
        let dir = tempfile::tempdir().unwrap();
        // Some of them give their rights away.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let theirs = dir.path().join("peer");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();

        let Setup { peer, speaker, .. } = setup;
        let config = format!(
            "
asNumber: {OUR_AS}
routerID: 192.0.2.1
peers:
- {{name: four, peerIP: 192.0.2.254, asNumber: {THEIR_AS}{peer}}}
- {{name: six, peerIP: '2001:db8::254', asNumber: {THEIR_AS}{peer}}}
pools:
- {{cidr: 10.244.0.0/16}}
- {{cidr: 'fd00:10:244::/48'}}
origins: ['{}', '{}']
{speaker}
",
            OURS[0], OURS[1]
        );
        std::fs::write(dir.path().join("bgpd.yaml"), config).unwrap();
        let mut command = node.command(BGPD);
        command.arg("--config").arg(dir.path().join("bgpd.yaml"));
        command.arg("--run-dir").arg(dir.path().join("run"));
        command.arg("--state-dir").arg(dir.path().join("state"));
        let bgpd = Process::start(command, dir.path().join("bgpd.log"));
        let router: Box<dyn Router> = match kind {
            Kind::Bird => Box::new(bird::Bird::start(tor, &theirs, setup)),
            Kind::Frr => Box::new(frr::Frr::start(tor, &theirs, setup)),
            Kind::Gobgp => Box::new(gobgp::Gobgp::start(tor, &theirs, setup)),
            Kind::Openbgpd => Box::new(openbgpd::Openbgpd::start(tor, &theirs, setup)),
        };
        let rig = Self {
            router,
            _bgpd: bgpd,
            _node: node,
            dir,
        };
        wait_for_speaker(&rig.socket());
        rig
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/bgpd.sock")
    }

    pub(crate) fn neighbors(&self) -> Vec<v1::Neighbor> {
        let socket = self.socket();
        block_on(async {
            let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                .await
                .ok()?;
            let answer = bgpd.list_neighbors(v1::ListNeighborsRequest {}).await;
            Some(answer.ok()?.into_inner().neighbors)
        })
        .unwrap_or_default()
    }

    /// Waits for both sessions.
    pub(crate) fn established(&self) {
        wait_for("both sessions", || {
            let all = self.neighbors();
            let up = all.iter().filter(|it| it.state == "Established").count();
            (up == 2).then_some(())
        });
    }

    /// Waits until the peer has a route of ours.
    pub(crate) fn peer_sees(&self, prefix: &str) -> Seen {
        wait_for(&format!("the peer to have {prefix}"), || {
            self.router.sees(prefix)
        })
    }

    /// Waits until we have a route of the peer's.
    pub(crate) fn we_see(&self, prefix: &str) -> v1::Route {
        let socket = self.socket();
        wait_for(&format!("us to have {prefix}"), || {
            block_on(async {
                let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                    .await
                    .ok()?;
                let asked = v1::ListRoutesRequest {
                    prefix: prefix.to_owned(),
                    ..v1::ListRoutesRequest::default()
                };
                let answer = bgpd.list_routes(asked).await.ok()?.into_inner();
                answer.routes.into_iter().next()
            })
        })
    }

    pub(crate) fn ask_again(&self) {
        self.router.ask_again();
    }
}

/// Waits for a file that a router makes when it is ready.
pub(crate) fn wait_for_file(path: &Path) {
    wait_for(&path.display().to_string(), || path.exists().then_some(()));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
