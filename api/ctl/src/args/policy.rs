//! `margayctl policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  margayctl policy explain --from shop/web --to db/pg --port 5432
  margayctl policy explain --from shop/web --to dns/coredns --port 53 --protocol udp
  margayctl policy explain --from 203.0.113.7 --to shop/web --port http
  margayctl policy explain --from shop/web --to 10.0.0.1 --protocol icmp --icmp 8
  margayctl policy explain --from 203.0.113.7 --to shop/web --port 80 --interface eth0 -f cluster.yaml
  margayctl policy explain --from a --to b --port 80 -n shop -f pods.yaml,policies/
  kubectl get pods,ns,netpol -A -o yaml | margayctl policy explain --from a/x --to b/y --port 80 -f -

With -f nothing but the files is asked: no cluster, no daemon, no root. Without it felix on this node
answers from what it has in force.

Exit codes: 0 allowed, 3 denied, 1 failed, 2 wrong usage.";

const WHAT_IF_EXAMPLES: &str = "\
Examples:
  margayctl policy what-if -f new.yaml                  against what felix on this node knows
  margayctl policy what-if -f new.yaml --against pods.yaml,policies/
  margayctl policy what-if --delete networkpolicy/shop/web
  kubectl get pods,ns,netpol -A -o yaml | margayctl policy what-if -f new.yaml --against -

Pods that no policy tells apart are one line. Exit codes: 0 nothing is lost, 3 flows that are allowed now
would be denied, 1 failed, 2 wrong usage.";

const UNUSED_EXAMPLES: &str = "\
Examples:
  margayctl policy unused                               as felix on this node knows the cluster
  margayctl policy unused -f pods.yaml,policies/";

const COUNTERS_EXAMPLES: &str = "\
Examples:
  margayctl policy counters                             what was decided on this node since felix started
  margayctl policy counters --watch                     again every two seconds
  margayctl policy counters --zero                      rules in force here that nothing has matched so far
  margayctl policy counters -o json | jq '.rules[] | select(.action == \"Deny\")'

Counted is what is judged: the first packet of each flow, every further one of a flow that is denied, and one more of
each live flow when a change of policy has flows judged again.";

const RENDER_EXAMPLES: &str = "\
Examples:
  margayctl policy render                               the table that felix on this node wants in the kernel
  margayctl policy render -o json | jq .                the same as `nft -j -f` reads it
  margayctl policy render --node n1 -f cluster.yaml     what it would be on a node of these files
  margayctl policy render | unshare -rn nft -c -f -     does nft take it?

docs/policy.md says how to read it.";

const EVENTS_EXAMPLES: &str = "\
Examples:
  margayctl policy events                               what was denied or noted last on this node
  margayctl policy events --watch                       and what comes, until Ctrl-C
  margayctl policy events --watch --pod shop/web
  margayctl policy events --watch -o json | jq .        one document a line

The kernel hands over at most 100 packets a second of each kind, felix names at most 50 of them: a flood is a sample.";

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Policies this node enforces, with the generation in force
    List,
    /// Why a flow is allowed or denied: tier by tier, rule by rule, and what to do
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Which pairs of pods could talk and could not any more, or the other way round, with other policies
    #[command(after_help = WHAT_IF_EXAMPLES)]
    WhatIf {
        /// Objects that come, or take the place of those with their name
        #[arg(
            long = "file",
            short,
            value_name = "FILE",
            value_delimiter = ',',
            required_unless_present = "delete"
        )]
        files: Vec<PathBuf>,
        /// Policies that go
        #[arg(long, value_name = "KIND/NAMESPACE/NAME", value_delimiter = ',')]
        delete: Vec<String>,
        /// The cluster as these files have it, instead of as this node knows it
        #[arg(long, value_name = "FILE", value_delimiter = ',')]
        against: Vec<PathBuf>,
        /// Lines printed at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Denied packets, and those that Log rules and policies under audit note, with policy and rule
    #[command(visible_alias = "logs", after_help = EVENTS_EXAMPLES)]
    Events {
        /// Only with this pod at one end, NAMESPACE/NAME
        #[arg(long, value_name = "POD")]
        pod: Option<String>,
    },
    /// The table inet margay as it should be, on this node or on one of the files, as nft reads it
    #[command(after_help = RENDER_EXAMPLES)]
    Render {
        /// Name of the node whose table is wanted, with --file
        #[arg(long, value_name = "NAME", requires = "files")]
        node: Option<String>,
        #[command(flatten)]
        files: Files,
    },
    /// How many packets each rule has decided on this node, and what was decided without one
    #[command(after_help = COUNTERS_EXAMPLES)]
    Counters {
        /// Only rules that have decided nothing so far
        #[arg(long)]
        zero: bool,
    },
    /// Policies and rules that do nothing: they select nobody, match nobody or are never reached
    #[command(after_help = UNUSED_EXAMPLES)]
    Unused {
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Who opens the flow: a pod as NAMESPACE/NAME, or an address
    #[arg(long, value_name = "POD")]
    pub(crate) from: String,
    /// Who it is opened to: a pod as NAMESPACE/NAME, or an address
    #[arg(long, value_name = "POD")]
    pub(crate) to: String,
    /// Destination port: its number, or its name in the destination pod
    #[arg(long)]
    pub(crate) port: Option<String>,
    /// tcp, udp, sctp, udplite, icmp, or the number of an IP protocol
    #[arg(long, default_value = "tcp", value_parser = protocol)]
    pub(crate) protocol: u8,
    /// Type of the ICMP message, with its code behind a slash [default: echo request]
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = icmp, conflicts_with = "port")]
    pub(crate) icmp: Option<u16>,
    /// Source port [default: one that no rule names]
    #[arg(long, value_name = "PORT")]
    pub(crate) source_port: Option<u16>,
    /// Namespace of pods given without one
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// By which the flow passes nodes: an interface, or a host endpoint by its name or an address [default: by the
    /// node's routes; files have none, and what is assumed is said]
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    #[command(flatten)]
    pub(crate) files: Files,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Answer from these files instead of the node: YAML or JSON, directories of them, or - for standard input
    #[arg(long = "file", short, value_name = "FILE", value_delimiter = ',')]
    pub(crate) files: Vec<PathBuf>,
}

/// Numbers of the protocols that have a name here.
const PROTOCOLS: [(&str, u8); 6] = [
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("udplite", 136),
    ("icmp", 1),
    ("icmpv6", 58),
];

fn protocol(text: &str) -> Result<u8, String> {
    let name = text.to_ascii_lowercase();
    let named = PROTOCOLS.iter().find(|(known, _)| *known == name);
    match (named, text.parse()) {
        (Some(&(_, number)), _) | (None, Ok(number)) => Ok(number),
        (None, Err(_)) => Err(format!(
            "`{text}` is none of tcp, udp, sctp, udplite, icmp, and no number up to 255"
        )),
    }
}

fn icmp(text: &str) -> Result<u16, String> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    match (kind.parse(), code.parse()) {
        (Ok(kind), Ok(code)) => Ok(u16::from_be_bytes([kind, code])),
        _ => Err(format!(
            "`{text}` is no ICMP type like 8, or type and code like 3/4"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!(protocol("TCP").unwrap(), 6);
        assert_eq!(protocol("47").unwrap(), 47);
        assert!(protocol("tpc").unwrap_err().contains("none of tcp"));
        assert_eq!(icmp("3/4").unwrap(), 0x0304);
        assert_eq!(icmp("8").unwrap(), 0x0800);
        assert!(icmp("echo").is_err());
    }
}
