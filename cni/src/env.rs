//! The CNI_ environment variables.

use std::path::PathBuf;

use crate::error::{CniError, Code};
use crate::frame::Pod;

/// What the runtime asks, checked. CNI SPEC 1.1.0, section 2 "Parameters".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID; empty for VERSION and STATUS.
    pub container_id: String,
    /// CNI_IFNAME; empty for VERSION and STATUS.
    pub interface: String,
    /// CNI_NETNS; `None` when unset or empty, as a repeated DEL has it.
    pub netns: Option<PathBuf>,
    /// The pod of CNI_ARGS.
    pub pod: Pod,
}

/// The verbs served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Say which versions are spoken.
    Version,
    /// Say whether ADD can be served.
    Status,
}

impl Invocation {
    /// Checks the variables that `var` looks up.
    pub fn parse(var: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let command = match var("CNI_COMMAND").unwrap_or_default().as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "VERSION" => Command::Version,
            "STATUS" => Command::Status,
            other => {
                return Err(bad(
                    "CNI_COMMAND",
                    format!("{other:?} is not served; ADD, DEL, STATUS and VERSION are"),
                ));
            }
        };
        let mut call = Self {
            command,
            container_id: String::new(),
            interface: String::new(),
            netns: None,
            pod: Pod::default(),
        };
        if matches!(command, Command::Version | Command::Status) {
            return Ok(call);
        }
        call.container_id = container_id(var("CNI_CONTAINERID").unwrap_or_default())?;
        call.interface = interface(var("CNI_IFNAME").unwrap_or_default())?;
        call.netns = var("CNI_NETNS")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        if command == Command::Add && call.netns.is_none() {
            return Err(bad(
                "CNI_NETNS",
                "is not set; ADD needs the path of the container's network namespace",
            ));
        }
        call.pod = pod(&var("CNI_ARGS").unwrap_or_default());
        Ok(call)
    }
}

/// The rule of the reference library: a letter or digit, then letters, digits, `_`, `.`, `-`.
fn container_id(id: String) -> Result<String, CniError> {
    let head = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let tail = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    match head && tail && id.len() <= 255 {
        true => Ok(id),
        false => Err(bad(
            "CNI_CONTAINERID",
            format!("{id:?} must be 1 to 255 of [a-zA-Z0-9_.-], starting with a letter or digit"),
        )),
    }
}

/// What the kernel takes for a name (net/core/dev.c, dev_valid_name).
fn interface(name: String) -> Result<String, CniError> {
    let chars = name
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    match chars && (1..=15).contains(&name.len()) && name != "." && name != ".." {
        true => Ok(name),
        false => Err(bad(
            "CNI_IFNAME",
            format!("{name:?} must be 1 to 15 visible characters without '/' and ':'"),
        )),
    }
}

/// CNI_ARGS is `K=V;K=V` in any order; keys that are not ours are ignored, as containerd's IgnoreUnknown asks.
fn pod(args: &str) -> Pod {
    let mut pod = Pod::default();
    for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
        let field = match key.to_ascii_uppercase().as_str() {
            "K8S_POD_NAMESPACE" => &mut pod.namespace,
            "K8S_POD_NAME" => &mut pod.name,
            "K8S_POD_UID" => &mut pod.uid,
            _ => continue,
        };
        value.clone_into(field);
    }
    pod
}

fn bad(variable: &str, problem: impl Into<String>) -> CniError {
    CniError::new(
        Code::BadEnvironment,
        format!("bad environment variable {variable}"),
        problem.into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_UID=u;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web",
        ),
    ];

    fn parse(change: &[(&str, Option<&str>)]) -> Result<Invocation, CniError> {
        Invocation::parse(|name| {
            let changed = change.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            changed
                .unwrap_or_else(|| ADD.iter().find(|(n, _)| *n == name).map(|(_, v)| *v))
                .map(str::to_owned)
        })
    }

    #[test]
    fn a_good_add() {
        let call = parse(&[]).unwrap();
        assert_eq!(call.command, Command::Add);
        assert_eq!(
            call.pod,
            Pod {
                namespace: "ns".into(),
                name: "web".into(),
                uid: "u".into()
            }
        );
    }

    #[test]
    fn a_repeated_del_has_an_empty_netns() {
        let call = parse(&[("CNI_COMMAND", Some("DEL")), ("CNI_NETNS", Some(""))]).unwrap();
        assert_eq!(call.netns, None);
    }

    #[test]
    fn each_bad_variable_is_named() {
        for (variable, value) in [
            ("CNI_COMMAND", None),
            ("CNI_COMMAND", Some("GC")),
            ("CNI_CONTAINERID", None),
            ("CNI_CONTAINERID", Some("-x")),
            ("CNI_CONTAINERID", Some("a/b")),
            ("CNI_IFNAME", Some("")),
            ("CNI_IFNAME", Some("..")),
            ("CNI_IFNAME", Some("a b")),
            ("CNI_IFNAME", Some("sixteen-letters-")),
            ("CNI_NETNS", None),
        ] {
            let error = parse(&[(variable, value)]).unwrap_err();
            assert_eq!(error.code, Code::BadEnvironment, "{variable}={value:?}");
            assert!(error.msg.contains(variable), "{error}");
        }
    }
}
