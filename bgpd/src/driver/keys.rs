//! Keys of TCP MD5 (RFC 2385): which addresses need one, and the listeners that have to know them.
//!
//! A listener gets its keys before it listens, so nobody connects without one in between. What the kernel refuses (one socket
//! holds some hundred keys, see net.core.optmem_max) is kept as the peer's problem and tried again with the next change.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::net::{Cidr, Family};
use socket2::Socket;
use tokio::net::TcpListener;
use tracing::warn;

use super::sock;
use crate::config::{Config, Password, PeerKey};

/// The keys of a configuration, and the listeners that know them.
#[derive(Default)]
pub(crate) struct Keys(Mutex<State>);

#[derive(Default)]
struct State {
    wanted: Wanted,
    /// By port, as the old one's end may come after the new one's begin.
    listening: BTreeMap<(u16, Family), Listening>,
}

/// A listener and its keys.
struct Listening {
    socket: Arc<TcpListener>,
    known: Known,
    /// What it does not know although it should, and why.
    refused: BTreeMap<Cidr, String>,
}

/// The keys that a socket has.
type Known = BTreeMap<Cidr, Password>;

/// Which addresses need which key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Of each single peer; one without a key needs none even within a range.
    peers: BTreeMap<IpAddr, Option<Password>>,
    ranges: BTreeMap<Cidr, Password>,
    /// Of peers on interfaces, and their addresses as far as they are known.
    interfaces: BTreeMap<String, Password>,
    routers: BTreeMap<String, Ipv6Addr>,
}

impl Wanted {
    fn of(config: &Config, routers: BTreeMap<String, Ipv6Addr>) -> Self {
        let interfaces = config.peers.iter().filter_map(|peer| match &peer.key {
            PeerKey::Interface(name) => Some((name.clone(), peer.options.password.clone()?)),
            PeerKey::Address(_) => None,
        });
        let interfaces = interfaces.collect();
        let peers = config.peers.iter().filter_map(|peer| {
            let address = peer.key.address()?;
            Some((address, peer.options.password.clone()))
        });
        let ranges = config.dynamic.iter().filter_map(|dynamic| {
            let password = dynamic.template.options.password.clone()?;
            Some((dynamic.range, password))
        });
        Self {
            peers: peers.collect(),
            ranges: ranges.collect(),
            interfaces,
            routers,
        }
    }

    /// The keys of peers on interfaces that are known.
    fn of_routers(&self) -> impl Iterator<Item = (IpAddr, &Password)> {
        let keys = self.interfaces.iter();
        keys.filter_map(|(name, key)| Some((IpAddr::V6(*self.routers.get(name)?), key)))
    }

    /// The keys of one family, as the kernel wants them.
    fn entries(&self, family: Family) -> Known {
        let peers = self.peers.iter();
        let of_peers = peers.filter_map(|(it, key)| Some((Cidr::host(*it), key.clone()?)));
        let of_ranges = self.ranges.iter().map(|(it, key)| (*it, key.clone()));
        let of_routers = self
            .of_routers()
            .map(|(it, key)| (Cidr::host(it), key.clone()));
        // A range of one address is that peer's, if there is one.
        of_ranges
            .chain(of_peers)
            .chain(of_routers)
            .filter(|(it, _)| it.family() == family)
            .collect()
    }

    /// The key of whoever is at the address, or, on the interface of such a peer, has any.
    fn key(&self, remote: IpAddr, interface: Option<&str>) -> Option<&Password> {
        if let Some(password) = interface.and_then(|it| self.interfaces.get(it)) {
            return Some(password);
        }
        if let Some(password) = self.peers.get(&remote) {
            return password.as_ref();
        }
        if let Some((_, password)) = self.of_routers().find(|(it, _)| *it == remote) {
            return Some(password);
        }
        let around = self
            .ranges
            .iter()
            .filter(|(range, _)| range.contains(remote));
        around
            .max_by_key(|(range, _)| range.prefix_len())
            .map(|(_, password)| password)
    }
}

impl State {
    /// Lets the listeners know the keys.
    fn enter(&mut self) {
        for ((_, family), listening) in &mut self.listening {
            let Listening {
                socket,
                known,
                refused,
            } = listening;
            *refused = enter(&**socket, known, self.wanted.entries(*family));
        }
    }
}

impl Keys {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the keys of a configuration; the listeners learn what differs.
    pub(crate) fn configure(&self, config: &Config) {
        let mut state = self.lock();
        let routers = std::mem::take(&mut state.wanted.routers);
        state.wanted = Wanted::of(config, routers);
        state.enter();
    }

    /// Takes the addresses of peers on interfaces; whether they are others than before.
    pub(crate) fn learn(&self, routers: BTreeMap<String, Ipv6Addr>) -> bool {
        let mut state = self.lock();
        let changed = state.wanted.routers != routers;
        if changed {
            state.wanted.routers = routers;
            state.enter();
        }
        changed
    }

    /// Lets a bound socket listen, with all its keys.
    pub(crate) fn listen(
        &self,
        family: Family,
        port: u16,
        socket: Socket,
    ) -> io::Result<Arc<TcpListener>> {
        let mut state = self.lock();
        let mut known = Known::new();
        let refused = enter(&socket, &mut known, state.wanted.entries(family));
        let socket = Arc::new(sock::listen(socket)?);
        let listening = Listening {
            socket: Arc::clone(&socket),
            known,
            refused,
        };
        state.listening.insert((port, family), listening);
        Ok(socket)
    }

    /// The listeners of a port are closed.
    pub(crate) fn forget(&self, port: u16) {
        self.lock().listening.retain(|(it, _), _| *it != port);
    }

    /// The key that a connection with that address needs, on the interface if the address is link-local.
    pub(crate) fn of(&self, remote: IpAddr, interface: Option<&str>) -> Option<Password> {
        self.lock().wanted.key(remote, interface).cloned()
    }

    /// Why a key is not known to the listener, by its prefix.
    pub(crate) fn problems(&self) -> BTreeMap<Cidr, String> {
        let state = self.lock();
        let refused = state.listening.values().flat_map(|it| it.refused.clone());
        refused.collect()
    }
}

/// Makes the socket's keys those wanted; what the kernel refuses, and why.
fn enter(socket: &impl AsRawFd, known: &mut Known, wanted: Known) -> BTreeMap<Cidr, String> {
    let mut refused = BTreeMap::new();
    // What is gone first: it makes room.
    known.retain(|prefix, _| {
        wanted.contains_key(prefix) || sock::set_key(socket, *prefix, None).is_err()
    });
    for (prefix, password) in wanted {
        if known.get(&prefix) == Some(&password) {
            continue;
        }
        match sock::set_key(socket, prefix, Some(password.0.as_bytes())) {
            Ok(()) => {
                known.insert(prefix, password);
            }
            Err(e) => {
                let problem = explain(&e, known.len());
                warn!(%prefix, problem, "no connection with this TCP MD5 key can be accepted");
                refused.insert(prefix, problem);
            }
        }
    }
    refused
}

/// Why the kernel refuses a key, and what helps.
fn explain(error: &io::Error, known: usize) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => format!(
            "the listener holds no more than {known} TCP MD5 keys: raise the sysctl net.core.optmem_max and restart, or give \
             the peers of one range one password; until then the peer can only be connected to"
        ),
        Some(libc::ENOPROTOOPT) => "this kernel has no TCP MD5".to_owned(),
        Some(libc::EPERM) => "setting a TCP MD5 key needs the capability NET_ADMIN here".to_owned(),
        _ => format!("the kernel refuses the TCP MD5 key: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{DynamicPeers, Peer};

    fn config(peers: &[(&str, Option<&str>)], ranges: &[(&str, Option<&str>)]) -> Config {
        let peer = |address: &str, key: Option<&str>| {
            let mut peer = Peer::new(address.parse().unwrap(), 65000);
            peer.options.password = key.map(|it| Password(it.to_owned()));
            peer
        };
        let mut config = Config::new(65001, Ipv4Addr::new(192, 0, 2, 1));
        config.peers = peers.iter().map(|(it, key)| peer(it, *key)).collect();
        let dynamic = ranges.iter().map(|(range, key)| {
            let range: Cidr = range.parse().unwrap();
            DynamicPeers {
                range,
                limit: 10,
                template: peer(&range.first().to_string(), *key),
            }
        });
        config.dynamic = dynamic.collect();
        config
    }

    fn of(keys: &Keys, address: &str) -> Option<String> {
        keys.of(address.parse().unwrap(), None).map(|it| it.0)
    }

    #[test]
    fn a_peer_comes_before_its_range_and_a_small_range_before_a_large_one() {
        let keys = Keys::default();
        keys.configure(&config(
            &[("192.0.2.7", Some("seven")), ("192.0.2.8", None)],
            &[
                ("192.0.2.0/24", Some("range")),
                ("192.0.2.128/25", Some("half")),
                ("198.51.100.0/24", None),
            ],
        ));
        assert_eq!(of(&keys, "192.0.2.7").as_deref(), Some("seven"));
        assert_eq!(of(&keys, "192.0.2.8"), None);
        assert_eq!(of(&keys, "192.0.2.9").as_deref(), Some("range"));
        assert_eq!(of(&keys, "192.0.2.129").as_deref(), Some("half"));
        assert_eq!(of(&keys, "198.51.100.1"), None);
        assert_eq!(of(&keys, "2001:db8::1"), None);
    }

    #[test]
    fn on_the_interface_of_a_peer_with_a_key_nobody_is_without() {
        let keys = Keys::default();
        let mut config = config(&[], &[]);
        let mut peer = Peer::new("fe80::1".parse().unwrap(), 0);
        peer.key = PeerKey::Interface("eth0".to_owned());
        peer.options.password = Some(Password("unnumbered".to_owned()));
        config.peers.push(peer);
        keys.configure(&config);
        let key = |address: &str, on| keys.of(address.parse().unwrap(), on).map(|it| it.0);
        assert_eq!(key("fe80::9", Some("eth0")).as_deref(), Some("unnumbered"));
        assert_eq!(key("fe80::9", Some("eth1")), None);
    }

    #[tokio::test]
    async fn a_listener_that_is_full_says_so_and_takes_the_rest_when_there_is_room() {
        let addresses: Vec<String> = (0..1200_u32)
            .map(|n| Ipv4Addr::from(0xc612_0000 + n).to_string())
            .collect();
        let peers: Vec<_> = addresses
            .iter()
            .map(|it| (it.as_str(), Some("secret")))
            .collect();
        let keys = Keys::default();
        keys.configure(&config(&peers, &[]));
        let socket = sock::bind(Family::V4, 0).unwrap();
        let _listener = keys.listen(Family::V4, 0, socket).unwrap();
        let problems = keys.problems();
        assert!(
            problems.len() > 100 && problems.len() < 1100,
            "net.core.optmem_max is not its default: {}",
            problems.len()
        );
        let problem = &problems[&"198.18.4.175/32".parse().unwrap()];
        assert!(problem.contains("optmem_max"), "{problem}");

        keys.configure(&config(&peers[600..], &[]));
        assert_eq!(keys.problems().len(), 0);
        keys.configure(&config(&[], &[("198.18.0.0/15", Some("secret"))]));
        assert_eq!(keys.problems().len(), 0);
    }
}
