//! The bootstrap file of a node, `/etc/margay/node.yaml`: what lets a node reach an API server that is behind BGP.
//!
//! It is a configuration file like any other (see [`super::file`]) that says only what is true of this node before
//! anybody can be asked:
//!
//! ```yaml
//! asNumber: 4200000001
//! routerID: 192.0.2.11
//! peers:                                  # at least one
//! - {name: tor-1, peerIP: 198.51.100.0, asNumber: 65011}
//! - {name: tor-2, peerIP: 198.51.100.2, asNumber: 65012}
//! origins:                                # the node's own addresses, which are on lo
//! - {prefix: 192.0.2.11/32, kind: node}
//! import: {ranges: [192.0.2.0/24]}        # where the API server and the other nodes are
//! ```
//!
//! bgpd starts from it without the API. What the API then says is added to it: a BGPPeer with the address of a peer here
//! takes its place (with the same fields nothing happens to the session), the node's AS number and identifier are those of
//! its objects. Peers, ranges and origins that only the file names stay in force, for they are the way to the API: they go
//! when the file is changed and bgpd starts again. The same holds for a peer whose password in the API was never read: it may
//! be read over this very session.

use super::file::{self, File, FileError};
use super::{Config, Origin, OriginKind};

/// What a bootstrap file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    config: Config,
}

/// Reads the text of a bootstrap file.
///
/// # Errors
///
/// Names the field and the fix, or the place in the text.
pub fn parse(text: &str) -> Result<Bootstrap, FileError> {
    let File { config, .. } = file::parse(text)?;
    let refuse = |field: &str, problem: String| FileError::Value {
        field: field.to_owned(),
        problem,
    };
    if config.peers.is_empty() {
        let problem = "nobody leads to the API server: name the ToRs".to_owned();
        return Err(refuse("peers", problem));
    }
    if !config.pools.is_empty() {
        let problem = "pools are objects of the API: remove the field".to_owned();
        return Err(refuse("pools", problem));
    }
    for (index, Origin { prefix, kind }) in config.origins.iter().enumerate() {
        let field = format!("origins[{index}]");
        if *kind != OriginKind::Node {
            let problem =
                format!("{prefix} is no address of the node: add kind: node, or remove it");
            return Err(refuse(&field, problem));
        }
        if !prefix.is_host() {
            let problem = format!("{prefix} is no single address: write it with /32 or /128");
            return Err(refuse(&field, problem));
        }
    }
    Ok(Bootstrap { config })
}

impl Bootstrap {
    /// The configuration to start with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds to a configuration of the API what only the file says. Tells what the two disagree about.
    pub fn add_to(&self, config: &mut Config) -> Vec<String> {
        let mut problems = Vec::new();
        for peer in &self.config.peers {
            match config.peers.iter_mut().find(|known| known.key == peer.key) {
                None => config.peers.push(peer.clone()),
                Some(known) if known.options.withheld => {
                    problems.push(format!(
                        "bootstrap file: the password of peer {} that the API asks for is not known: its session goes on as the file says",
                        peer.key
                    ));
                    *known = peer.clone();
                }
                Some(known) if known.remote_asn != peer.remote_asn => problems.push(format!(
                    "bootstrap file: peer {} has AS {} there and {} in the API, which holds: correct the file before the node boots again",
                    peer.key, peer.remote_asn, known.remote_asn
                )),
                Some(_) => {}
            }
        }
        if config.asn != self.config.asn {
            problems.push(format!(
                "bootstrap file: asNumber is {} there and {} in the API, which holds: correct the file before the node boots again",
                self.config.asn, config.asn
            ));
        }
        for range in &self.config.import_ranges {
            if !config.import_ranges.contains(range) {
                config.import_ranges.push(*range);
            }
        }
        for origin in &self.config.origins {
            if config
                .origins
                .iter()
                .all(|known| known.prefix != origin.prefix)
            {
                config.origins.push(*origin);
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Peer, PeerKey, diff};

    const FILE: &str = "
asNumber: 4200000001
routerID: 192.0.2.11
peers:
- {name: tor-1, peerIP: 198.51.100.0, asNumber: 65011}
- {name: tor-2, peerIP: 198.51.100.2, asNumber: 65012}
origins:
- {prefix: 192.0.2.11/32, kind: node}
import: {ranges: [192.0.2.0/24]}
";

    fn of_api(peers: &[(&str, u32)]) -> Config {
        let mut config = Config::new(4_200_000_001, "192.0.2.11".parse().unwrap());
        let peers = peers.iter().map(|(address, asn)| {
            let mut peer = Peer::new(address.parse().unwrap(), *asn);
            peer.name = "an object".to_owned();
            peer
        });
        config.peers = peers.collect();
        config
    }

    #[test]
    fn the_file_is_enough_to_start_with() {
        let bootstrap = parse(FILE).unwrap();
        let config = bootstrap.config();
        assert_eq!((config.asn, config.peers.len()), (4_200_000_001, 2));
        assert_eq!(config.origins[0].kind, OriginKind::Node);
    }

    #[test]
    fn errors_name_the_field() {
        for (wrong, right, said) in [
            ("asNumber: 4200000001", "asNumber: 0", "asNumber"),
            ("routerID: 192.0.2.11", "routerID: none", "routerID"),
            ("routerID: 192.0.2.11", "routerId: 192.0.2.11", "routerId"),
            ("peerIP: 198.51.100.2", "peerIP: 198.51.100.256", "peers[1]"),
            ("192.0.2.11/32", "192.0.2.0/24", "origins[0]"),
            ("kind: node", "kind: block", "origins[0]"),
            (
                "- {prefix: 192.0.2.11/32, kind: node}",
                "- 192.0.2.11/32",
                "origins[0]",
            ),
            ("import:", "pools: [{cidr: 10.0.0.0/8}]\nimport:", "pools"),
            ("192.0.2.0/24", "192.0.2.0/33", "import.ranges[0]"),
        ] {
            let text = FILE.replace(wrong, right);
            assert_ne!(text, FILE, "{wrong}");
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{right}: {error}");
        }
        let error = parse("asNumber: 1\nrouterID: 192.0.2.11\n").unwrap_err();
        assert!(error.to_string().starts_with("peers: "), "{error}");
    }

    #[test]
    fn the_same_peers_in_the_api_change_no_session() {
        let bootstrap = parse(FILE).unwrap();
        let mut config = of_api(&[("198.51.100.0", 65011), ("198.51.100.2", 65012)]);
        assert_eq!(bootstrap.add_to(&mut config), Vec::<String>::new());
        let changes = diff(bootstrap.config(), &config);
        let costly = changes.values().filter(|change| {
            **change != crate::config::PeerChange::Changed(crate::config::Cost::Nothing)
        });
        assert_eq!(costly.count(), 0, "{changes:?}");
        assert_eq!(config.origins, bootstrap.config().origins);
    }

    #[test]
    fn a_password_that_nobody_can_read_does_not_close_the_way_to_it() {
        let bootstrap = parse(FILE).unwrap();
        let mut config = of_api(&[("198.51.100.0", 65011), ("198.51.100.9", 65019)]);
        for peer in &mut config.peers {
            peer.options.withheld = true;
        }
        let problems = bootstrap.add_to(&mut config);
        assert!(problems[0].contains("198.51.100.0"), "{problems:?}");
        let withheld = config.peers.iter().map(|it| it.options.withheld);
        assert_eq!(withheld.collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn the_way_to_the_api_stays_whatever_the_api_says() {
        let bootstrap = parse(FILE).unwrap();
        let mut config = of_api(&[("198.51.100.2", 65999)]);
        config.asn = 64512;
        let problems = bootstrap.add_to(&mut config);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let of = |address: &str| PeerKey::Address(address.parse().unwrap());
        let kept: Vec<_> = config
            .peers
            .iter()
            .map(|peer| (peer.key.clone(), peer.remote_asn))
            .collect();
        assert_eq!(
            kept,
            [(of("198.51.100.2"), 65999), (of("198.51.100.0"), 65011)]
        );
        assert_eq!(config.import_ranges.len(), 1);
    }
}
