//! Our speaker and a peer on one link; where a test asks for it, a third speaker beyond one of them.

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
/// What the peer originates too, where it is asked for, but not after a restart.
pub(crate) const EXTRA: &str = "10.244.1.64/26";
/// Where the third speaker is, and the router identifier of whoever reflects.
pub(crate) const THIRD: &str = "198.51.100.2";
pub(crate) const CLUSTER: &str = "10.0.0.9";

/// What the peer runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

/// Who is between the other two.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Center {
    Us,
    Peer,
}

/// A third speaker, one of ours, which has a session with the one in the center only.
#[derive(Clone, Copy)]
pub(crate) struct Third {
    pub(crate) beyond: Center,
    /// Its AS; that of the others: the one in the center reflects between its clients.
    pub(crate) asn: u32,
    /// What it originates.
    pub(crate) prefix: &'static str,
}

/// What a test asks for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup {
    /// Key of both sessions.
    pub(crate) password: Option<&'static str>,
    /// The peer demands the greatest TTL.
    pub(crate) gtsm: bool,
    /// The peer restarts gracefully, and says that it went on forwarding.
    pub(crate) graceful: bool,
    /// The peer originates [`EXTRA`] too.
    pub(crate) extra: bool,
    /// The peer tells several paths and takes them.
    pub(crate) add_path: bool,
    /// The link has no IPv4 addresses: routes of both families go over one session.
    pub(crate) only_six: bool,
    /// BFD watches both sessions.
    pub(crate) bfd: bool,
    pub(crate) third: Option<Third>,
    /// More of our configuration, for both sessions and for the speaker.
    pub(crate) peer: &'static str,
    pub(crate) speaker: &'static str,
}

/// A session as the peer has to configure it.
pub(crate) struct Session {
    pub(crate) name: &'static str,
    pub(crate) local: &'static str,
    pub(crate) remote: &'static str,
    pub(crate) asn: u32,
    pub(crate) four: bool,
    pub(crate) six: bool,
}

impl Setup {
    /// All three are in one AS.
    pub(crate) fn is_internal(&self) -> bool {
        self.third.is_some_and(|it| it.asn == OUR_AS)
    }

    /// The peer reflects.
    pub(crate) fn peer_reflects(&self) -> bool {
        self.is_internal() && self.third.is_some_and(|it| it.beyond == Center::Peer)
    }

    pub(crate) fn their_as(&self) -> u32 {
        match self.is_internal() {
            true => OUR_AS,
            false => THEIR_AS,
        }
    }

    /// IPv4 prefixes that the peer originates without attributes.
    pub(crate) fn more(&self) -> &'static [&'static str] {
        if self.extra { &[EXTRA] } else { &[] }
    }

    /// The sessions that the peer has.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let six = Session {
            name: "node6",
            local: "2001:db8::254",
            remote: "2001:db8::1",
            asn: OUR_AS,
            four: self.only_six,
            six: true,
        };
        if self.only_six {
            return vec![six];
        }
        let four = Session {
            name: "node4",
            local: "192.0.2.254",
            remote: "192.0.2.1",
            asn: OUR_AS,
            four: true,
            six: false,
        };
        let third = self.third.filter(|it| it.beyond == Center::Peer);
        let third = third.map(|it| Session {
            name: "third",
            local: "198.51.100.1",
            remote: THIRD,
            asn: it.asn,
            four: true,
            six: false,
        });
        [four, six].into_iter().chain(third).collect()
    }
}

/// A path of ours as the peer has it.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) as_path: Vec<u32>,
    /// Standard and large ones, as `64601:7` and `64601:8:9`.
    pub(crate) communities: BTreeSet<String>,
    pub(crate) next_hop: String,
    pub(crate) originator: Option<String>,
    pub(crate) clusters: Vec<String>,
}

/// Somebody else's speaker, at 192.0.2.254 and 2001:db8::254.
pub(crate) trait Router {
    /// The paths to a prefix that it has by BGP.
    fn paths(&self, prefix: &str) -> Vec<Seen>;
    /// Asks us for all routes again.
    fn ask_again(&self);
    /// Ends without a word.
    fn kill(&mut self);
    /// Starts as after a restart through which it went on forwarding, without [`EXTRA`].
    fn start_again(&mut self);
    /// What it says about the restarts of our IPv4 session, in its words.
    fn restarts(&self) -> String;
}

pub(crate) struct Rig {
    router: Box<dyn Router>,
    third: Option<(Process, Namespace)>,
    bgpd: Process,
    node: Namespace,
    dir: tempfile::TempDir,
    sessions: usize,
}

impl Rig {
    pub(crate) fn new(kind: Kind, setup: &Setup) -> Self {
        let (node, peer) = (Namespace::new("node"), Namespace::new("peer"));
        // FRR takes no IPv6 session on an interface whose link-local address is not ready.
        for namespace in [&node, &peer] {
            let mut sysctl = namespace.command("sysctl");
            let no_wait = ["-qw", "net.ipv6.conf.default.accept_dad=0"];
            assert!(sysctl.args(no_wait).status().unwrap().success());
        }
        node.ip(&format!(
            "link add up0 type veth peer name up0 netns {}",
            peer.name
        ));
        for (namespace, last) in [(&node, "1"), (&peer, "254")] {
            namespace.ip("link set up0 up");
            if !setup.only_six {
                namespace.ip(&format!("addr add 192.0.2.{last}/24 dev up0"));
            }
            namespace.ip(&format!("-6 addr add 2001:db8::{last}/64 dev up0 nodad"));
        }
        let dir = tempfile::tempdir().unwrap();
        // Some of them give their rights away.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let theirs = dir.path().join("peer");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();

        std::fs::write(dir.path().join("bgpd.yaml"), configuration(setup)).unwrap();
        let bgpd = start(&node, dir.path(), "bgpd");
        let third = setup
            .third
            .map(|third| start_third(third, &node, &peer, setup, dir.path()));
        let router: Box<dyn Router> = match kind {
            Kind::Bird => Box::new(bird::Bird::start(peer, &theirs, setup)),
            Kind::Frr => Box::new(frr::Frr::start(peer, &theirs, setup)),
            Kind::Gobgp => Box::new(gobgp::Gobgp::start(peer, &theirs, setup)),
            Kind::Openbgpd => Box::new(openbgpd::Openbgpd::start(peer, &theirs, setup)),
        };
        let beyond_us = setup.third.is_some_and(|it| it.beyond == Center::Us);
        let rig = Self {
            router,
            third,
            bgpd,
            node,
            dir,
            sessions: if setup.only_six { 1 } else { 2 } + usize::from(beyond_us),
        };
        wait_for_speaker(&rig.socket());
        rig
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/bgpd.sock")
    }

    pub(crate) fn neighbors(&self) -> Vec<v1::Neighbor> {
        neighbors(&self.socket())
    }

    /// The session over IPv4.
    pub(crate) fn four(&self) -> Option<v1::Neighbor> {
        self.neighbors().into_iter().find(|it| it.name == "four")
    }

    /// Waits for all sessions.
    pub(crate) fn established(&self) {
        wait_for("all sessions", || self.is_established().then_some(()));
    }

    pub(crate) fn is_established(&self) -> bool {
        let all = self.neighbors();
        let up = all.iter().filter(|it| it.state == "Established").count();
        up == self.sessions
    }

    /// Waits until the peer has a route of ours.
    pub(crate) fn peer_sees(&self, prefix: &str) -> Seen {
        self.peer_sees_paths(prefix, 1).remove(0)
    }

    /// Waits until the peer has that many paths to a prefix.
    pub(crate) fn peer_sees_paths(&self, prefix: &str, count: usize) -> Vec<Seen> {
        wait_for(
            &format!("the peer to have {count} paths to {prefix}"),
            || {
                let paths = self.router.paths(prefix);
                (paths.len() == count).then_some(paths)
            },
        )
    }

    /// Whether the peer has a route of ours now.
    pub(crate) fn peer_has(&self, prefix: &str) -> bool {
        !self.router.paths(prefix).is_empty()
    }

    /// Waits until we have a route of the peer's.
    pub(crate) fn we_see(&self, prefix: &str) -> v1::Route {
        self.we_see_paths(prefix, 1).remove(0)
    }

    /// Waits until we have that many paths to a prefix.
    pub(crate) fn we_see_paths(&self, prefix: &str, count: usize) -> Vec<v1::Route> {
        wait_for(&format!("us to have {count} paths to {prefix}"), || {
            Some(routes(&self.socket(), prefix)).filter(|it| it.len() == count)
        })
    }

    /// The third speaker's session and routes are behind this socket.
    pub(crate) fn third(&self) -> PathBuf {
        assert!(self.third.is_some());
        self.dir.path().join("third-run/bgpd.sock")
    }

    /// The third speaker's routes go.
    pub(crate) fn end_third(&mut self) {
        if let Some((process, _)) = &mut self.third {
            process.kill();
        }
    }

    pub(crate) fn router(&mut self) -> &mut dyn Router {
        &mut *self.router
    }

    pub(crate) fn bgpd(&mut self) -> &mut Process {
        &mut self.bgpd
    }

    /// Our next life.
    pub(crate) fn start_again(&mut self) {
        self.bgpd = start(&self.node, self.dir.path(), "bgpd");
        wait_for_speaker(&self.socket());
    }

    /// Puts another configuration in force.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.dir.path().join("bgpd.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        let new = self.dir.path().join("new.yaml");
        std::fs::write(&new, text.replace(from, to)).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

fn configuration(setup: &Setup) -> String {
    let (theirs, more, bfd) = (
        setup.their_as(),
        setup.peer,
        match setup.bfd {
            true => ", bfd: {transmitMillis: 100, receiveMillis: 100, multiplier: 3}",
            false => "",
        },
    );
    let mut peers = format!(
        "- {{name: six, peerIP: '2001:db8::254', asNumber: {theirs}{more}{bfd}{}}}\n",
        match setup.only_six {
            true => ", families: [ipv4, ipv6]",
            false => "",
        }
    );
    if !setup.only_six {
        peers.push_str(&format!(
            "- {{name: four, peerIP: 192.0.2.254, asNumber: {theirs}{more}{bfd}}}\n"
        ));
    }
    if let Some(third) = setup.third
        && third.beyond == Center::Us
    {
        let export = match setup.is_internal() {
            true => "reflect",
            false => "transit",
        };
        peers.push_str(&format!(
            "- {{name: third, peerIP: {THIRD}, asNumber: {}, import: all, export: {export}}}\n",
            third.asn
        ));
    }
    format!(
        "
asNumber: {OUR_AS}
routerID: 192.0.2.1
peers:
{peers}
pools:
- {{cidr: 10.244.0.0/16}}
- {{cidr: 'fd00:10:244::/48'}}
origins: ['{}', '{}']
{}
",
        OURS[0], OURS[1], setup.speaker
    )
}

/// One of our speakers; `name` is that of its files.
fn start(namespace: &Namespace, dir: &Path, name: &str) -> Process {
    let of = |word: &str| match name {
        "bgpd" => dir.join(word),
        _ => dir.join(format!("{name}-{word}")),
    };
    let mut command = namespace.command(BGPD);
    command
        .arg("--config")
        .arg(dir.join(format!("{name}.yaml")));
    command.arg("--run-dir").arg(of("run"));
    command.arg("--state-dir").arg(of("state"));
    Process::start(command, dir.join(format!("{name}.log")))
}

fn start_third(
    third: Third,
    node: &Namespace,
    peer: &Namespace,
    setup: &Setup,
    dir: &Path,
) -> (Process, Namespace) {
    let own = Namespace::new("third");
    let (center, other, asn, way) = match third.beyond {
        Center::Us => (node, peer, OUR_AS, "192.0.2.1"),
        Center::Peer => (peer, node, setup.their_as(), "192.0.2.254"),
    };
    center.ip(&format!(
        "link add down0 type veth peer name up0 netns {}",
        own.name
    ));
    for (namespace, link, address) in [(center, "down0", "198.51.100.1"), (&own, "up0", THIRD)] {
        namespace.ip(&format!("link set {link} up"));
        namespace.ip(&format!("addr add {address}/24 dev {link}"));
    }
    // Internal speakers leave next hops alone, so there have to be ways to them.
    other.ip(&format!("route add 198.51.100.0/24 via {way}"));
    own.ip("route add default via 198.51.100.1");
    let config = format!(
        "
asNumber: {}
routerID: {THIRD}
peers: [{{peerIP: 198.51.100.1, asNumber: {asn}, import: all, gracefulRestart: {{enabled: false}}}}]
origins: ['{}']
",
        third.asn, third.prefix
    );
    std::fs::write(dir.join("third.yaml"), config).unwrap();
    (start(&own, dir, "third"), own)
}

fn neighbors(socket: &Path) -> Vec<v1::Neighbor> {
    block_on(async {
        let mut bgpd = api::client::bgpd(socket, Duration::from_secs(5))
            .await
            .ok()?;
        let answer = bgpd.list_neighbors(v1::ListNeighborsRequest {}).await;
        Some(answer.ok()?.into_inner().neighbors)
    })
    .unwrap_or_default()
}

/// All paths that one of our speakers has to a prefix.
pub(crate) fn routes(socket: &Path, prefix: &str) -> Vec<v1::Route> {
    block_on(async {
        let mut bgpd = api::client::bgpd(socket, Duration::from_secs(5))
            .await
            .ok()?;
        let asked = v1::ListRoutesRequest {
            prefix: prefix.to_owned(),
            ..v1::ListRoutesRequest::default()
        };
        let answer = bgpd.list_routes(asked).await.ok()?.into_inner();
        Some(answer.routes)
    })
    .unwrap_or_default()
}

/// Waits for a file that a router makes when it is ready.
pub(crate) fn wait_for_file(path: &Path) {
    wait_for(&path.display().to_string(), || path.exists().then_some(()));
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
