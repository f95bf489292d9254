//! What a lab looks like: names, addresses, AS numbers, files. Pure: a function of the directory, the number of nodes and
//! the kind of fabric, so that every command, and `down` after a crash, computes the same.

mod dual;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use dual::spine_end;

/// Where a lab lives unless `--dir` says otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/margay-lab";
/// The name of the lab that lives there.
pub const DEFAULT_NAME: &str = "margay";
/// Most nodes a lab can have: the addresses .11 to .250 of a rack's segment.
pub const MAX_NODES: u8 = 200;
/// Pods' IPv4 pool and its block size.
pub const POOL_V4: (&str, u8) = ("10.244.0.0/16", 26);
/// Pods' IPv6 pool and its block size.
pub const POOL_V6: (&str, u8) = ("fd00:10:244::/64", 122);
/// What a ToR takes from the nodes of its rack: everything the cluster may ever use, at any length.
/// Wider than the pools, so that a /32 or a second pool is seen rather than hidden by a filter.
pub const CLUSTER_SPACE: [&str; 2] = ["10.240.0.0/12", "fd00:10::/32"];
/// Every infrastructure prefix of the fabric: rack segments and the link between the ToRs.
pub const FABRIC_SPACE: [&str; 2] = ["172.30.0.0/16", "fd00:30::/32"];

/// How nodes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fabric {
    /// A ToR for each rack, one segment behind it; nodes have their address on their uplink.
    #[default]
    SingleTor,
    /// Two ToRs for each rack, a link from every node to both of them, and a spine; nodes have their address on `lo`.
    DualTor,
}

/// BFD's interval between packets, milliseconds, and how many may be missed.
pub const BFD: (u32, u32) = (100, 3);

/// A rack: its ToRs and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rack {
    /// The first rack.
    A,
    /// The second rack.
    B,
}

impl Rack {
    /// Both racks, in order.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other rack.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// 1 or 2, as it appears in addresses and AS numbers.
    const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

impl fmt::Display for Rack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// An IPv4 and an IPv6 address of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dual {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Dual {
    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A top-of-rack router.
#[derive(Debug, Clone)]
pub struct Tor {
    /// `tor-a` or `tor-b`; with two of them in a rack `tor-a1`, `tor-a2` …
    pub name: String,
    /// The rack it serves.
    pub rack: Rack,
    /// Its AS.
    pub asn: u32,
    /// Its own addresses, the IPv4 one is its router id: on the rack's segment, or on `lo` where there is none.
    pub address: Dual,
    /// Its addresses on the link to the other ToR, or to the spine.
    pub link: Dual,
    /// Prefixes of both families which all nodes and ToRs of the rack have their addresses in.
    pub segment: [String; 2],
}

/// The router that the ToRs of a dual-ToR fabric have in common.
#[derive(Debug, Clone)]
pub struct Spine {
    /// `spine`.
    pub name: String,
    /// Its AS.
    pub asn: u32,
    /// Its addresses, on `lo`.
    pub address: Dual,
    /// Its addresses on the link to the API server.
    pub api_link: Dual,
}

/// A node's link to a ToR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The node's interface.
    pub interface: String,
    /// The ToR's name.
    pub tor: String,
    /// The ToR's AS.
    pub tor_asn: u32,
    /// The node's addresses on it.
    pub near: Dual,
    /// The ToR's.
    pub far: Dual,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// `n1`, `n2` …
    pub name: String,
    /// The rack it is in.
    pub rack: Rack,
    /// Its own private AS (RFC 6996, 4 octets).
    pub asn: u32,
    /// Its addresses: on its uplink, or on `lo` where it has several.
    pub address: Dual,
    /// Its links to ToRs.
    pub uplinks: Vec<Uplink>,
}

/// The names, addresses and files of one lab.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names the lab's namespaces; derived from the directory.
    pub name: String,
    /// Everything the lab keeps on disk.
    pub dir: PathBuf,
    /// How nodes are connected.
    pub fabric: Fabric,
    /// BFD on every session of [`Fabric::DualTor`].
    pub bfd: bool,
    /// The ToRs, rack by rack.
    pub tors: Vec<Tor>,
    /// The spine, if the fabric has one.
    pub spine: Option<Spine>,
    /// n1 … in order.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// The plan of a lab with `nodes` nodes in `dir` (absolute), one ToR for each rack.
    pub fn new(dir: &Path, nodes: u8) -> Self {
        Self::with_fabric(dir, nodes, Fabric::SingleTor)
    }

    /// The plan of a lab with `nodes` nodes in `dir` (absolute).
    pub fn with_fabric(dir: &Path, nodes: u8, fabric: Fabric) -> Self {
        let nodes = (1..=nodes).map(|i| node(i, fabric)).collect();
        let (tors, spine) = match fabric {
            Fabric::SingleTor => (Rack::ALL.into_iter().map(tor).collect(), None),
            Fabric::DualTor => (dual::tors(), Some(dual::spine())),
        };
        Self {
            name: name_of(dir),
            dir: dir.to_owned(),
            fabric,
            bfd: false,
            tors,
            spine,
            nodes,
        }
    }

    /// The ToR of a rack, the first one if there are two.
    pub fn tor(&self, rack: Rack) -> &Tor {
        let mut of_rack = self.tors.iter().filter(|t| t.rack == rack);
        of_rack
            .next()
            .expect("invariant: every fabric has a ToR for each rack")
    }

    /// Names of all routers.
    pub fn routers(&self) -> impl Iterator<Item = &str> {
        let tors = self.tors.iter().map(|t| t.name.as_str());
        tors.chain(self.spine.iter().map(|s| s.name.as_str()))
    }

    /// The nodes of a rack.
    pub fn nodes_in(&self, rack: Rack) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |n| n.rack == rack)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Addresses of a node or ToR by name.
    pub fn address_of(&self, name: &str) -> Option<Dual> {
        let spine = self.spine.iter().find(|s| s.name == name);
        self.node(name)
            .map(|n| n.address)
            .or_else(|| self.tors.iter().find(|t| t.name == name).map(|t| t.address))
            .or_else(|| spine.map(|s| s.address))
    }

    /// Addresses of the API server, where it is behind the fabric.
    pub fn api_address(&self) -> Option<Dual> {
        (self.fabric == Fabric::DualTor).then(dual::api_address)
    }

    /// The network namespace of a node, a ToR or (`pod-ID`) a pod.
    pub fn netns(&self, what: &str) -> String {
        format!("{}{what}", self.netns_prefix())
    }

    fn netns_prefix(&self) -> String {
        if self.name == DEFAULT_NAME {
            "margay-".to_owned()
        } else {
            format!("margay-{}-", self.name)
        }
    }

    /// Whether a namespace of that name belongs to this lab. The whole name must fit, so that
    /// `margay-x1-n1` of a lab `x1` is not taken for one of the lab `margay`.
    pub fn owns_netns(&self, netns: &str) -> bool {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        netns
            .strip_prefix(&self.netns_prefix())
            .is_some_and(|rest| match rest.split_once('-') {
                Some(("tor", rack)) => matches!(rack, "a" | "b" | "a1" | "a2" | "b1" | "b2"),
                Some(("pod", id)) => id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()),
                Some(_) => false,
                None => {
                    matches!(rest, "spine" | "api") || rest.strip_prefix('n').is_some_and(digits)
                }
            })
    }

    /// Where the API server should listen: the usual port for the default lab, for others one by their name, below
    /// the ports the kernel gives to clients. So labs made at the same time do not meet, and a server that was
    /// killed finds its port free.
    pub fn api_port(&self) -> u16 {
        if self.name == DEFAULT_NAME {
            return 6443;
        }
        let hash = self
            .name
            .bytes()
            .fold(0_u32, |h, b| (h * 31 + u32::from(b)) % 10_000);
        20_000 + u16::try_from(hash).unwrap_or_default()
    }

    /// The admin kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.api_dir().join("kubeconfig")
    }

    /// The kubeconfig of the nodes, which names the API server where they find it.
    pub fn node_kubeconfig(&self) -> PathBuf {
        match self.fabric {
            Fabric::SingleTor => self.kubeconfig(),
            Fabric::DualTor => self.api_dir().join("kubeconfig-of-nodes"),
        }
    }

    /// A node's bootstrap file; missing where the API server needs no route.
    pub fn bootstrap_file(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("node.yaml")
    }

    /// Where a node's boot id is: namespaces share the machine's, and one node alone may be rebooted.
    pub fn boot_id_file(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("boot_id")
    }

    /// The API server's data.
    pub fn api_dir(&self) -> PathBuf {
        self.dir.join("api")
    }

    /// The description of the lab.
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// Logs of all processes.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Records of running processes.
    pub fn processes(&self) -> PathBuf {
        self.dir.join("processes")
    }

    /// Files of a ToR: bird.conf, bird.ctl, bin/birdc.
    pub fn tor_dir(&self, tor: &str) -> PathBuf {
        self.dir.join("tors").join(tor)
    }

    /// Which calls the API server's clients have made, by kind.
    pub fn calls(&self) -> PathBuf {
        self.api_dir().join("calls")
    }

    /// Files of a node.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// The token by which a node's felix is known to the controller.
    pub fn controller_token(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("controller-token")
    }

    /// The run directory of a node's daemons.
    pub fn run_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("run")
    }

    /// The state directory of a node's daemons.
    pub fn node_state_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("state")
    }

    /// A node's CNI configuration directory.
    pub fn cni_conf_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("cni")
    }

    /// The runner's records of the sandboxes on a node.
    pub fn pods_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("pods")
    }
}

/// The lab's name: `margay` for the default directory, otherwise `l` and a hash of the directory.
fn name_of(dir: &Path) -> String {
    if dir == Path::new(DEFAULT_DIR) {
        return DEFAULT_NAME.to_owned();
    }
    // FNV-1a, 32 bits: stable between builds, unlike std's hasher.
    let hash = dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
        });
    format!("l{hash:08x}")
}

fn tor(rack: Rack) -> Tor {
    let n = rack.number();
    Tor {
        name: format!("tor-{rack}"),
        rack,
        asn: 65000 + u32::from(n),
        address: Dual {
            v4: Ipv4Addr::new(172, 30, n, 1),
            v6: Ipv6Addr::new(0xfd00, 0x30, u16::from(n), 0, 0, 0, 0, 1),
        },
        link: Dual {
            v4: Ipv4Addr::new(172, 30, 0, n - 1),
            v6: Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, u16::from(n) - 1),
        },
        segment: [format!("172.30.{n}.0/24"), format!("fd00:30:{n}::/64")],
    }
}

fn node(i: u8, fabric: Fabric) -> Node {
    // Two and two, so that the default of three has two nodes in rack a and one in rack b.
    let rack = if (i - 1) % 4 < 2 { Rack::A } else { Rack::B };
    let r = u16::from(rack.number());
    let address = Dual {
        v4: Ipv4Addr::new(172, 30, rack.number(), 10 + i),
        v6: Ipv6Addr::new(0xfd00, 0x30, r, 0, 0, 0, 0, 0x10 + u16::from(i)),
    };
    let uplinks = match fabric {
        Fabric::SingleTor => {
            let tor = tor(rack);
            vec![Uplink {
                interface: "eth0".to_owned(),
                tor: tor.name,
                tor_asn: tor.asn,
                near: address,
                far: tor.address,
            }]
        }
        Fabric::DualTor => dual::uplinks(i, rack),
    };
    Node {
        name: format!("n{i}"),
        rack,
        asn: 4_200_000_000 + u32::from(i),
        address,
        uplinks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_are_two_in_rack_a_and_one_in_rack_b() {
        let plan = Plan::new(Path::new(DEFAULT_DIR), 3);
        let racks: Vec<Rack> = plan.nodes.iter().map(|n| n.rack).collect();
        assert_eq!(racks, [Rack::A, Rack::A, Rack::B]);
        assert_eq!(plan.nodes[2].asn, 4_200_000_003);
        assert_eq!(plan.nodes[2].address.v4, Ipv4Addr::new(172, 30, 2, 13));
        assert_eq!(plan.tor(Rack::B).name, "tor-b");
    }

    #[test]
    fn no_two_addresses_or_as_numbers_are_alike() {
        for fabric in [Fabric::SingleTor, Fabric::DualTor] {
            let plan = Plan::with_fabric(Path::new("/x"), MAX_NODES, fabric);
            let of_tors = plan.tors.iter().flat_map(|t| [t.address, t.link]);
            let of_spine = plan.spine.iter().flat_map(|s| [s.address, s.api_link]);
            let mut all: Vec<Dual> = plan.nodes.iter().map(|n| n.address).collect();
            all.extend(of_tors.chain(of_spine).chain(plan.api_address()));
            if fabric == Fabric::DualTor {
                let links = plan.nodes.iter().flat_map(|n| &n.uplinks);
                all.extend(links.flat_map(|link| [link.near, link.far]));
                all.extend((0..plan.tors.len()).map(spine_end));
            }
            let mut addresses: Vec<IpAddr> = all.into_iter().flat_map(Dual::both).collect();
            let count = addresses.len();
            addresses.sort();
            addresses.dedup();
            assert_eq!(addresses.len(), count);
            let mut numbers: Vec<u32> = plan.nodes.iter().map(|n| n.asn).collect();
            numbers.extend(plan.tors.iter().map(|t| t.asn));
            numbers.extend(plan.spine.iter().map(|s| s.asn));
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }

    #[test]
    fn labs_prefer_different_ports_below_the_ephemeral_ones() {
        assert_eq!(Plan::new(Path::new(DEFAULT_DIR), 3).api_port(), 6443);
        let ports: Vec<u16> = (0..50)
            .map(|i| Plan::new(Path::new(&format!("/tmp/lab-4711-{i}")), 3).api_port())
            .collect();
        assert!(ports.iter().all(|p| (20_000..30_000).contains(p)));
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 45, "{ports:?}");
    }

    #[test]
    fn a_lab_owns_only_its_own_namespaces() {
        let default = Plan::new(Path::new(DEFAULT_DIR), 3);
        let other = Plan::new(Path::new("/tmp/other"), 3);
        assert_eq!(default.netns("n1"), "margay-n1");
        for what in [
            "n1",
            "n12",
            "tor-a",
            "tor-b2",
            "spine",
            "api",
            "pod-0123456789ab",
        ] {
            assert!(default.owns_netns(&default.netns(what)), "{what}");
            assert!(other.owns_netns(&other.netns(what)), "{what}");
            assert!(!default.owns_netns(&other.netns(what)), "{what}");
            assert!(!other.owns_netns(&default.netns(what)), "{what}");
        }
        for foreign in [
            "margay-",
            "margay-n",
            "margay-tor-c",
            "margay-pod-xyz",
            "cni-1",
            "margay-mine",
        ] {
            assert!(!default.owns_netns(foreign), "{foreign}");
        }
    }
}
