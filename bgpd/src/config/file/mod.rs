//! The configuration file: the fields of the custom resources, in one YAML document.
//!
//! The document is read into JSON first. Fields that its schema does not have are refused; then each part is read once
//! as the spec of the custom resource it stands for and once as what only a file has.

mod document;
pub mod schema;

use std::net::Ipv4Addr;

use crds::bgp_configuration::{BGPConfigurationSpec, Configuration};
use crds::bgp_filter::BGPFilterSpec;
use crds::bgp_peer::{self, BGPPeerSpec};
use crds::ip_pool::IPPoolSpec;
use crds::net::Cidr;
use crds::{BGPConfiguration, BGPPeer, FieldError, IPPool};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::document::{Connect, Document, FilterOwn, PeerOwn};
use super::objects::{Asked, asked, general, name_filters};
use super::{
    Config, Drain, DynamicPeers, ExportClass, Filter, ImportPolicy, Origin, OriginKind, Password,
    Peer, Pool,
};
use crate::Millis;

/// Bytes a key of TCP MD5 may have.
const PASSWORD_MAX: usize = 80;

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

/// Reads the text of a file.
///
/// # Errors
///
/// Names the field and the fix, or the place in the text.
pub fn parse(text: &str) -> Result<File, FileError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| FileError::Syntax(Box::new(e)))?;
    if !value.is_object() {
        let problem = "there is nothing in it: give asNumber, routerID and peers";
        return Err(FileError::value("the file", problem));
    }
    if let Some((field, meant)) = schema::unknown(&value) {
        let name = field.rsplit('.').next().unwrap_or_default();
        let problem = match meant {
            _ if document::OBJECTS_ONLY.contains(&name) => {
                "it is for objects of the Kubernetes API: leave it out".to_owned()
            }
            Some(meant) => format!("it is unknown: write {meant}"),
            None => "it is unknown: leave it out".to_owned(),
        };
        return Err(FileError::value(field, problem));
    }
    let document: Document = part("", &value)?;
    let spec: BGPConfigurationSpec = part("", &value)?;
    let configuration = Configuration::try_from(&BGPConfiguration::new(crds::SINGLETON, spec))
        .map_err(FileError::inside(""))?;
    let router_id = identifier("routerID", &document.router_id)?;
    let mut config = Config::new(configuration.as_number, router_id);
    general(&mut config, &configuration);
    config.cluster_id = document
        .cluster_id
        .as_deref()
        .map(|text| identifier("clusterID", text))
        .transpose()?;
    for (index, entry) in document.filters.iter().enumerate() {
        add_filter(&mut config, &format!("filters[{index}]"), entry)?;
    }
    config.drain = match document.drain {
        document::Drain::No => Drain::No,
        document::Drain::Services => Drain::Services,
        document::Drain::Everything => Drain::Everything,
    };
    for (index, entry) in document.peers.iter().enumerate() {
        let at = format!("peers[{index}]");
        add_peer(&mut config, &at, entry, &configuration)?;
    }
    config.pools = pools(document.pools)?;
    config.origins = origins(document.origins)?;
    Ok(File {
        config,
        wait_for_felix: document.wait_for_felix,
    })
}

/// Reads a part of the document; an error names the field.
fn part<T: DeserializeOwned>(at: &str, value: &Value) -> Result<T, FileError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let field = match (at, inner.as_str()) {
            ("", ".") => "the file".to_owned(),
            (at, ".") => at.to_owned(),
            ("", inner) => inner.to_owned(),
            (at, inner) => format!("{at}.{inner}"),
        };
        FileError::value(field, plain(&error.inner().to_string()))
    })
}

/// Says "a whole number" where the reader says which kind of integer.
fn plain(said: &str) -> String {
    let kinds = ["i64", "i32", "u64", "u32", "u16", "u8"];
    kinds.iter().fold(said.to_owned(), |said, kind| {
        match said.strip_suffix(&format!("expected {kind}")) {
            Some(rest) => format!("{rest}expected a whole number"),
            None => said,
        }
    })
}

/// An identifier of BGP: any IPv4 address but 0.0.0.0.
fn identifier(field: &str, text: &str) -> Result<Ipv4Addr, FileError> {
    text.parse()
        .ok()
        .filter(|id: &Ipv4Addr| !id.is_unspecified())
        .ok_or_else(|| {
            let problem =
                format!("{text:?} is no router id: give one of the machine's IPv4 addresses");
            FileError::value(field, problem)
        })
}

/// Adds a filter.
fn add_filter(config: &mut Config, at: &str, entry: &Value) -> Result<(), FileError> {
    let FilterOwn { name } = part(at, entry)?;
    let spec: BGPFilterSpec = part(at, entry)?;
    let filter = Filter::try_from(&spec).map_err(FileError::inside(at))?;
    if name.is_empty() || config.filters.contains_key(&name) {
        let problem = format!("{name:?} is not a name of its own: write another");
        return Err(FileError::value(format!("{at}.name"), problem));
    }
    config.filters.insert(name, filter);
    Ok(())
}

/// Adds the peer, or the range of peers, of an entry.
fn add_peer(
    config: &mut Config,
    at: &str,
    entry: &Value,
    configuration: &Configuration,
) -> Result<(), FileError> {
    let own: PeerOwn = part(at, entry)?;
    let mut shared = entry.clone();
    if let Some(map) = shared.as_object_mut() {
        // A file has the password itself where an object says in which Secret it is.
        map.remove("password");
    }
    let spec: BGPPeerSpec = part(at, &shared)?;
    let said = [
        spec.peer_ip.as_deref(),
        spec.interface.as_deref(),
        spec.peer_range.as_ref().map(|range| range.cidr.as_str()),
    ];
    let name = own.name.clone();
    let name = name.unwrap_or_else(|| said.into_iter().flatten().next().unwrap_or(at).to_owned());
    let object =
        bgp_peer::Peer::try_from(&BGPPeer::new(&name, spec)).map_err(FileError::inside(at))?;
    for (index, name) in object.filters.iter().enumerate() {
        if !config.filters.contains_key(name) {
            let problem = format!("{name} is not among the filters: add it there, or remove it");
            return Err(FileError::value(format!("{at}.filters[{index}]"), problem));
        }
    }
    let Some(asked) = asked(&object, configuration, |_| None) else {
        let problem = "the peer is missing: set peerIP, interface or peerRange";
        return Err(FileError::value(at, problem));
    };
    match asked {
        Asked::Peer(mut peer) => {
            name_filters(&mut peer, &object.filters, &config.filters);
            finish(&mut peer, at, own)?;
            if let Some(first) = config.peers.iter().position(|known| known.key == peer.key) {
                let field = match peer.key.address() {
                    Some(_) => "peerIP",
                    None => "interface",
                };
                let problem = format!(
                    "{} is also that of {}, before it: remove one",
                    peer.key, config.peers[first].name
                );
                return Err(FileError::value(format!("{at}.{field}"), problem));
            }
            config.peers.push(peer);
        }
        Asked::Dynamic(DynamicPeers {
            range,
            limit,
            mut template,
        }) => {
            name_filters(&mut template, &object.filters, &config.filters);
            finish(&mut template, at, own)?;
            if config.dynamic.iter().any(|known| known.range == range) {
                let problem = format!("{range} is also that of an entry before it: remove one");
                return Err(FileError::value(format!("{at}.peerRange.cidr"), problem));
            }
            config.dynamic.push(DynamicPeers {
                range,
                limit,
                template,
            });
        }
    }
    Ok(())
}

/// Adds what only a file says.
fn finish(peer: &mut Peer, at: &str, own: PeerOwn) -> Result<(), FileError> {
    peer.export = match own.export {
        document::Export::Origins => ExportClass::Origins,
        document::Export::Reflect => ExportClass::Reflect,
        document::Export::Transit => ExportClass::Transit,
    };
    peer.import = match own.import {
        document::Import::Pools => ImportPolicy::Pools,
        document::Import::All => ImportPolicy::All,
    };
    if let Some(document::Password { value }) = own.password {
        if value.is_empty() || value.len() > PASSWORD_MAX {
            let problem = format!(
                "it has {} bytes: give 1 to {PASSWORD_MAX} of them",
                value.len()
            );
            return Err(FileError::value(format!("{at}.password.value"), problem));
        }
        peer.options.password = Some(Password(value));
    }
    peer.options.cluster_id = own
        .cluster_id
        .as_deref()
        .map(|text| identifier(&format!("{at}.clusterID"), text))
        .transpose()?;
    if let Some(connect) = own.connect {
        waits(peer, at, &connect)?;
    }
    Ok(())
}

fn waits(peer: &mut Peer, at: &str, connect: &Connect) -> Result<(), FileError> {
    let timers = &mut peer.timers;
    for (name, given, timer) in [
        ("timeoutMillis", connect.timeout_millis, &mut timers.connect),
        (
            "retryMinMillis",
            connect.retry_min_millis,
            &mut timers.retry_min,
        ),
        (
            "retryMaxMillis",
            connect.retry_max_millis,
            &mut timers.retry_max,
        ),
    ] {
        let Some(given) = given else { continue };
        if !(100..=600_000).contains(&given) {
            let problem = format!("{given} is out of range: set 100 to 600000");
            return Err(FileError::value(format!("{at}.connect.{name}"), problem));
        }
        *timer = Millis::from(given);
    }
    if timers.retry_min > timers.retry_max {
        let problem = format!(
            "{} is more than retryMaxMillis, {}: lower it",
            timers.retry_min, timers.retry_max
        );
        return Err(FileError::value(
            format!("{at}.connect.retryMinMillis"),
            problem,
        ));
    }
    Ok(())
}

fn pools(entries: Vec<document::Pool>) -> Result<Vec<Pool>, FileError> {
    let mut pools = Vec::new();
    for (index, pool) in entries.into_iter().enumerate() {
        let spec = IPPoolSpec {
            cidr: pool.cidr,
            block_size: pool.block_size,
            disabled: false,
            disable_bgp_export: false,
            nat_outgoing: false,
            node_selector: "all()".to_owned(),
        };
        let pool = crds::ip_pool::Pool::try_from(&IPPool::new("file", spec))
            .map_err(FileError::inside(&format!("pools[{index}]")))?;
        pools.push(Pool {
            cidr: pool.cidr,
            block_size: pool.block_size,
        });
    }
    Ok(pools)
}

fn origins(entries: Vec<document::Origin>) -> Result<Vec<Origin>, FileError> {
    let mut origins: Vec<Origin> = Vec::new();
    for (index, origin) in entries.into_iter().enumerate() {
        let (text, kind) = match origin {
            document::Origin::Block(prefix) => (prefix, OriginKind::Block),
            document::Origin::Kind(origin) => {
                let kind = match origin.kind {
                    document::Kind::Block => OriginKind::Block,
                    document::Kind::Borrowed => OriginKind::Borrowed,
                    document::Kind::Service => OriginKind::Service,
                    document::Kind::Node => OriginKind::Node,
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
    Ok(origins)
}

#[cfg(test)]
mod tests;
