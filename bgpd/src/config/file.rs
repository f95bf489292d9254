//! The configuration file: the fields of the custom resources, in one YAML document.

use std::net::Ipv4Addr;

use crds::bgp_configuration::{BGPConfigurationSpec, Configuration, Import};
use crds::bgp_peer::{BGPPeerSpec, PeerFamily};
use crds::ip_pool::IPPoolSpec;
use crds::net::Cidr;
use crds::{BGPConfiguration, BGPPeer, FieldError, IPPool};
use serde::Deserialize;

use super::{
    Config, ExportClass, ImportPolicy, MULTIPATH, Origin, OriginKind, Peer, Pool, from_objects,
};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What the speaker shall be.
    pub config: Config,
    /// Sessions wait for felix, which brings the origins.
    pub wait_for_felix: bool,
}

/// Why a file is not understood.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not the YAML of a configuration; the text shows the place.
    #[error("{0}")]
    Syntax(Box<serde_saphyr::Error>),
    /// A value cannot be.
    #[error("{field}: {problem}")]
    Value {
        /// Path of the field, as `peers[1].peerIP`.
        field: String,
        /// What is wrong and, where there is one, the fix.
        problem: String,
    },
}

impl FileError {
    fn value(field: impl Into<String>, problem: impl ToString) -> Self {
        Self::Value {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The error in one line; the place is quoted rather than drawn.
    pub fn brief(&self, text: &str) -> String {
        let Self::Syntax(error) = self else {
            return self.to_string();
        };
        let said = error.without_snippet().to_string();
        let said = said.trim_start_matches("error: ");
        let at = error
            .location()
            .and_then(|at| usize::try_from(at.line()).ok());
        match at.and_then(|line| text.lines().nth(line.saturating_sub(1))) {
            Some(line) => format!("{said} in `{}`", line.trim()),
            None => said.to_owned(),
        }
    }

    /// An error of an object that was made from part `at` of the file.
    fn inside(at: &str) -> impl Fn(FieldError) -> Self {
        move |FieldError { field, problem, .. }| {
            let field = field.trim_start_matches("spec.");
            let dot = if at.is_empty() { "" } else { "." };
            Self::Value {
                field: format!("{at}{dot}{field}"),
                problem,
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    as_number: i64,
    #[serde(rename = "routerID")]
    router_id: String,
    #[serde(default = "listen_port")]
    listen_port: i32,
    #[serde(default = "hold_time")]
    hold_time_seconds: i32,
    keepalive_seconds: Option<i32>,
    #[serde(default = "multipath")]
    multipath: u8,
    #[serde(default)]
    import: Ranges,
    #[serde(default)]
    peers: Vec<FilePeer>,
    #[serde(default)]
    pools: Vec<FilePool>,
    #[serde(default)]
    origins: Vec<FileOrigin>,
    #[serde(default)]
    wait_for_felix: bool,
}

fn listen_port() -> i32 {
    179
}

fn hold_time() -> i32 {
    90
}

fn multipath() -> u8 {
    MULTIPATH
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranges {
    #[serde(default)]
    ranges: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilePeer {
    name: Option<String>,
    #[serde(rename = "peerIP")]
    peer_ip: String,
    as_number: i64,
    local_as_number: Option<i64>,
    hold_time: Option<i32>,
    local_address: Option<String>,
    families: Option<Vec<PeerFamily>>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    export: FileExport,
    #[serde(default)]
    import: FileImport,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileExport {
    #[default]
    Origins,
    Reflect,
    Transit,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileImport {
    #[default]
    Pools,
    All,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilePool {
    cidr: String,
    block_size: Option<i32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileOrigin {
    Block(String),
    Kind(KindOrigin),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindOrigin {
    prefix: String,
    kind: FileKind,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileKind {
    Block,
    Borrowed,
    Service,
    Node,
}

/// Reads the text of a file.
///
/// # Errors
///
/// Names the field and the fix, or the place in the text.
pub fn parse(text: &str) -> Result<File, FileError> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|e| FileError::Syntax(Box::new(e)))?;
    let configuration = Configuration::try_from(&BGPConfiguration::new(
        crds::SINGLETON,
        BGPConfigurationSpec {
            as_number: document.as_number,
            node_to_node_mesh_enabled: false,
            listen_port: document.listen_port,
            hold_time_seconds: document.hold_time_seconds,
            keepalive_seconds: document.keepalive_seconds,
            import: Some(Import {
                ranges: document.import.ranges,
            }),
        },
    ))
    .map_err(FileError::inside(""))?;
    let router_id: Ipv4Addr = document
        .router_id
        .parse()
        .ok()
        .filter(|id: &Ipv4Addr| !id.is_unspecified())
        .ok_or_else(|| {
            let problem = format!(
                "{:?} is no router id: give one of the node's IPv4 addresses",
                document.router_id
            );
            FileError::value("routerID", problem)
        })?;
    if document.multipath == 0 {
        return Err(FileError::value(
            "multipath",
            "0 paths carry nothing: set 1 to 255",
        ));
    }
    let peers = peers(document.peers, &configuration)?;
    let mut pools = Vec::new();
    for (index, pool) in document.pools.into_iter().enumerate() {
        let spec = IPPoolSpec {
            cidr: pool.cidr,
            block_size: pool.block_size,
            disabled: false,
            disable_bgp_export: false,
            node_selector: "all()".to_owned(),
        };
        let pool = crds::ip_pool::Pool::try_from(&IPPool::new("file", spec))
            .map_err(FileError::inside(&format!("pools[{index}]")))?;
        pools.push(Pool {
            cidr: pool.cidr,
            block_size: pool.block_size,
        });
    }
    let mut origins: Vec<Origin> = Vec::new();
    for (index, origin) in document.origins.into_iter().enumerate() {
        let (text, kind) = match origin {
            FileOrigin::Block(prefix) => (prefix, OriginKind::Block),
            FileOrigin::Kind(origin) => {
                let kind = match origin.kind {
                    FileKind::Block => OriginKind::Block,
                    FileKind::Borrowed => OriginKind::Borrowed,
                    FileKind::Service => OriginKind::Service,
                    FileKind::Node => OriginKind::Node,
                };
                (origin.prefix, kind)
            }
        };
        let field = format!("origins[{index}]");
        let prefix: Cidr = text.parse().map_err(|e| FileError::value(&field, e))?;
        if origins.iter().any(|known| known.prefix == prefix) {
            return Err(FileError::value(
                field,
                format!("{prefix} is listed twice: remove one"),
            ));
        }
        origins.push(Origin { prefix, kind });
    }
    let config = Config {
        router_id,
        asn: configuration.as_number,
        listen_port: configuration.listen_port,
        hold_time: configuration.hold_time,
        peers,
        pools,
        import_ranges: configuration.import_ranges,
        origins,
        multipath: document.multipath,
        ..Config::new(configuration.as_number, router_id)
    };
    Ok(File {
        config,
        wait_for_felix: document.wait_for_felix,
    })
}

fn peers(entries: Vec<FilePeer>, configuration: &Configuration) -> Result<Vec<Peer>, FileError> {
    let mut peers: Vec<Peer> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = format!("peers[{index}]");
        let name = entry.name.unwrap_or_else(|| entry.peer_ip.clone());
        let spec = BGPPeerSpec {
            node: None,
            node_selector: None,
            peer_ip: entry.peer_ip,
            as_number: entry.as_number,
            hold_time: entry.hold_time,
            local_address: entry.local_address,
            families: entry.families,
            passive: entry.passive,
        };
        let peer = crds::bgp_peer::Peer::try_from(&BGPPeer::new(&name, spec))
            .map_err(FileError::inside(&at))?;
        let local_asn = match entry.local_as_number {
            None => None,
            Some(given) => Some(
                u32::try_from(given)
                    .ok()
                    .filter(|asn| *asn != 0)
                    .ok_or_else(|| {
                        let problem = format!("{given} is no AS number: set 1 to 4294967295");
                        FileError::value(format!("{at}.localAsNumber"), problem)
                    })?,
            ),
        };
        let peer = Peer {
            local_asn,
            export: match entry.export {
                FileExport::Origins => ExportClass::Origins,
                FileExport::Reflect => ExportClass::Reflect,
                FileExport::Transit => ExportClass::Transit,
            },
            import: match entry.import {
                FileImport::Pools => ImportPolicy::Pools,
                FileImport::All => ImportPolicy::All,
            },
            ..from_objects(&peer, configuration)
        };
        if let Some(first) = peers.iter().position(|known| known.key == peer.key) {
            let problem = format!(
                "{} is the address of peers[{first}] too: remove one",
                peer.key
            );
            return Err(FileError::value(format!("{at}.peerIP"), problem));
        }
        peers.push(peer);
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerKey;

    const GOOD: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
peers:
- name: tor-a
  peerIP: 192.0.2.254:1179
  asNumber: 64601
  families: [ipv4, ipv6]
  holdTime: 9
  export: transit
- peerIP: 2001:db8::1
  asNumber: 64602
pools:
- cidr: 10.244.0.0/16
- cidr: fd00:10:244::/48
  blockSize: 120
origins:
- 10.244.0.0/26
- prefix: 192.0.2.1/32
  kind: node
";

    #[test]
    fn a_file_says_what_the_objects_would() {
        let File {
            config,
            wait_for_felix,
        } = parse(GOOD).unwrap();
        assert!(!wait_for_felix);
        assert_eq!(config.asn, 4_200_000_001);
        assert_eq!((config.listen_port, config.hold_time), (179, 90));
        let [tor_a, six] = &config.peers[..] else {
            panic!("{:?}", config.peers)
        };
        assert_eq!(
            (tor_a.name.as_str(), tor_a.port, tor_a.hold_time),
            ("tor-a", 1179, Some(9))
        );
        assert_eq!(tor_a.families.len(), 2);
        assert_eq!(tor_a.export, ExportClass::Transit);
        assert_eq!(six.name, "2001:db8::1");
        assert_eq!(six.key, PeerKey::Address("2001:db8::1".parse().unwrap()));
        let sizes: Vec<u8> = config.pools.iter().map(|p| p.block_size).collect();
        assert_eq!(sizes, [26, 120]);
        let kinds: Vec<OriginKind> = config.origins.iter().map(|o| o.kind).collect();
        assert_eq!(kinds, [OriginKind::Block, OriginKind::Node]);
    }

    #[test]
    fn an_error_fits_into_one_line() {
        let text = GOOD.replacen("64601", "many", 1);
        let brief = parse(&text).unwrap_err().brief(&text);
        assert!(
            brief.ends_with("in `asNumber: many`") && !brief.contains('\n'),
            "{brief}"
        );
    }

    #[test]
    fn an_error_names_the_field_and_the_fix() {
        let cases = [
            ("64601", "0", "peers[0].asNumber", "set 1 to"),
            (
                "192.0.2.254:1179",
                "tor-a",
                "peers[0].peerIP",
                "write it as",
            ),
            ("2001:db8::1", "192.0.2.254", "peers[1].peerIP", "peers[0]"),
            (
                "10.244.0.0/16",
                "10.244.1.0/16",
                "pools[0].cidr",
                "write 10.244.0.0/16",
            ),
            (
                "192.0.2.1/32",
                "10.244.0.0/26",
                "origins[1]",
                "listed twice",
            ),
            (
                "routerID: 192.0.2.1",
                "routerID: 0.0.0.0",
                "routerID",
                "IPv4 addresses",
            ),
            ("4200000001", "0", "asNumber", "set 1 to"),
            ("peers:", "nonsense: 1\npeers:", "nonsense", "unknown"),
            ("holdTime: 9", "holdTime: 2", "peers[0].holdTime", "3"),
            ("families: [ipv4, ipv6]", "families: [ipx]", "ipx", "ipv4"),
        ];
        for (from, to, field, fix) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = parse(&text).expect_err(to).to_string();
            assert!(
                error.contains(field) && error.contains(fix),
                "{to}: {error}"
            );
        }
    }
}
