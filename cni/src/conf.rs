//! The network configuration on standard input.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{CniError, Code};

/// Versions of the CNI specification that are spoken, oldest first.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// The version of an answer when the caller's is not known.
pub const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// One of [`VERSIONS`]; results are written in it.
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// felix's socket for the plugin.
    pub socket: PathBuf,
    /// Where a DEL that felix cannot take is left for it.
    pub spool_dir: PathBuf,
}

/// As typed; all keys in lower case by then.
#[derive(Debug, Deserialize)]
struct Raw {
    cniversion: Option<String>,
    name: Option<String>,
    socket: Option<PathBuf>,
    spooldir: Option<PathBuf>,
    prevresult: Option<Value>,
}

impl Conf {
    /// Parses standard input. Keys match without case, because runtimes written in Go send them both ways.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let value: Value = serde_json::from_slice(stdin).map_err(|e| {
            CniError::new(
                Code::Decode,
                "the configuration on standard input is not JSON",
                e,
            )
        })?;
        let raw: Raw = serde_json::from_value(lower_keys(value)).map_err(|e| {
            CniError::new(
                Code::Decode,
                "the configuration on standard input has a bad field",
                e,
            )
        })?;
        let cni_version = raw.cniversion.unwrap_or_default();
        if !VERSIONS.contains(&cni_version.as_str()) {
            let details = format!(
                "cniVersion {cni_version:?}; {} are spoken",
                VERSIONS.join(" and ")
            );
            return Err(CniError::new(
                Code::IncompatibleVersion,
                "this version of CNI is not spoken",
                details,
            ));
        }
        let name = raw.name.unwrap_or_default();
        if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) {
            return Err(bad("name", "must be 1 to 255 characters without '/'"));
        }
        let socket = raw.socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
        let spool_dir = raw.spooldir.unwrap_or_else(|| DEFAULT_SPOOL.into());
        for (field, path) in [("socket", &socket), ("spoolDir", &spool_dir)] {
            if !path.is_absolute() {
                return Err(bad(field, format!("{path:?} must be an absolute path")));
            }
        }
        Ok(Self {
            cni_version,
            name,
            socket,
            spool_dir,
        })
    }

    /// For ADD: margay makes the interface, so it cannot stand behind another plugin of the list.
    pub fn parse_add(stdin: &[u8]) -> Result<Self, CniError> {
        let conf = Self::parse(stdin)?;
        let value: Value = serde_json::from_slice(stdin).unwrap_or_default();
        let raw: Option<Raw> = serde_json::from_value(lower_keys(value)).ok();
        match raw.and_then(|raw| raw.prevresult) {
            Some(_) => Err(bad(
                "prevResult",
                "is set: put margay first in the list of plugins",
            )),
            None => Ok(conf),
        }
    }
}

/// felix's socket unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/margay/cni.sock";
/// The spool directory unless the configuration says otherwise.
pub const DEFAULT_SPOOL: &str = "/var/lib/margay/spool";

/// The version to answer in, as far as it can be read from a bad configuration.
pub fn answer_version(stdin: &[u8]) -> String {
    let value: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let asked = lower_keys(value)
        .get("cniversion")
        .and_then(|v| v.as_str().map(str::to_owned));
    asked.unwrap_or_else(|| NEWEST.to_owned())
}

/// Lowers the keys of the outermost object: the only ones read here.
fn lower_keys(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(k, v)| (k.to_ascii_lowercase(), v))
                .collect(),
        ),
        other => other,
    }
}

fn bad(field: &str, problem: impl Into<String>) -> CniError {
    CniError::new(
        Code::BadConfiguration,
        format!("bad field {field} in the network configuration"),
        problem.into(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_match_without_case() {
        let conf =
            Conf::parse(br#"{"CniVersion":"1.0.0","NAME":"margay","Socket":"/s","spooldir":"/d"}"#)
                .unwrap();
        assert_eq!(conf.socket, PathBuf::from("/s"));
        assert_eq!(conf.spool_dir, PathBuf::from("/d"));
    }

    #[test]
    fn defaults() {
        let conf =
            Conf::parse(br#"{"cniVersion":"1.1.0","name":"margay","capabilities":{"x":true}}"#)
                .unwrap();
        assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn errors_have_the_right_code() {
        for (stdin, code) in [
            (&b"{"[..], Code::Decode),
            (b"[]", Code::Decode),
            (br#"{"cniVersion":7}"#, Code::Decode),
            (br#"{"name":"margay"}"#, Code::IncompatibleVersion),
            (
                br#"{"cniVersion":"0.4.0","name":"margay"}"#,
                Code::IncompatibleVersion,
            ),
            (br#"{"cniVersion":"1.1.0"}"#, Code::BadConfiguration),
            (
                br#"{"cniVersion":"1.1.0","name":"a/b"}"#,
                Code::BadConfiguration,
            ),
            (
                br#"{"cniVersion":"1.1.0","name":"m","socket":"x"}"#,
                Code::BadConfiguration,
            ),
        ] {
            let error = Conf::parse(stdin).unwrap_err();
            assert_eq!(
                error.code,
                code,
                "{}: {error}",
                String::from_utf8_lossy(stdin)
            );
        }
        let chained = br#"{"cniVersion":"1.1.0","name":"m","prevResult":{}}"#;
        assert_eq!(
            Conf::parse_add(chained).unwrap_err().code,
            Code::BadConfiguration
        );
        assert!(Conf::parse(chained).is_ok(), "DEL carries a prevResult");
    }

    #[test]
    fn the_answer_follows_the_question() {
        assert_eq!(answer_version(br#"{"cniVersion":"0.3.1"}"#), "0.3.1");
        assert_eq!(answer_version(b"junk"), NEWEST);
    }

    proptest! {
        #[test]
        fn any_input_is_an_error_or_a_configuration(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Conf::parse(&bytes);
            let _ = Conf::parse_add(&bytes);
        }
    }
}
