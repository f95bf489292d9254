//! The real `margayctl policy` about files: no daemon, no cluster.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const CLUSTER: &str = "\
kind: Namespace
apiVersion: v1
metadata: {name: shop, labels: {tier: front}}
---
kind: Namespace
apiVersion: v1
metadata: {name: db}
---
kind: Pod
apiVersion: v1
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: []}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
kind: Pod
apiVersion: v1
metadata: {namespace: db, name: pg, labels: {app: pg}}
spec: {containers: [{name: c, ports: [{name: pg, containerPort: 5432}]}]}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
";

const POLICIES: &str = "\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {namespace: db, name: clients, generation: 2}
spec:
  podSelector: {matchLabels: {app: pg}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {tier: front}}
    ports:
    - {port: pg}
";

fn margayctl(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_margayctl"))
        .current_dir(dir)
        .args(["policy"])
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn files() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("cluster.yaml"), CLUSTER).unwrap();
    std::fs::write(tmp.path().join("policies.yaml"), POLICIES).unwrap();
    tmp
}

fn explain(dir: &Path, more: &[&str]) -> Output {
    let flow = [
        "explain",
        "--from",
        "shop/web",
        "--to",
        "db/pg",
        "-f",
        "cluster.yaml,policies.yaml",
    ];
    margayctl(dir, &[&flow, more].concat())
}

#[test]
fn an_allowed_flow_is_exit_code_0_and_says_which_rule() {
    let tmp = files();
    let answer = explain(tmp.path(), &["--port", "pg"]);
    assert_eq!(
        stdout(&answer),
        "\
ALLOWED  shop/web (10.0.0.1) -> db/pg (10.0.0.2), TCP 5432

egress of shop/web: ALLOWED  no policy selects it for egress, so everything may pass

ingress of db/pg: ALLOWED  ingress[0] of NetworkPolicy db/clients (tier default) allows it
  tier default: decided
    NetworkPolicy db/clients (order 1000, generation 2)
    > ingress[0] Allow all pods of namespaces with tier=front; TCP port named pg: matched
"
    );
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
}

#[test]
fn a_denied_flow_is_exit_code_3_and_says_what_to_do() {
    let tmp = files();
    let answer = explain(tmp.path(), &["--port", "80"]);
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    let text = stdout(&answer);
    assert!(
        text.starts_with("DENIED  shop/web (10.0.0.1) -> db/pg"),
        "{text}"
    );
    assert!(
        text.contains("because TCP 80 is not TCP port named pg"),
        "{text}"
    );
    assert!(text.contains("is the port right?"), "{text}");
    assert!(text.contains("    port: 80\n"), "{text}");
    // The rule it advises does what it says.
    let rule = text.split("selects db/pg):\n").nth(1).unwrap();
    let indented: String = rule
        .lines()
        .map(|it| format!("{}\n", it.trim_end()))
        .collect();
    let policies = format!(
        "{POLICIES}{}",
        indented.replace("\n    ", "\n  ").replacen("    ", "  ", 1)
    );
    std::fs::write(tmp.path().join("policies.yaml"), policies).unwrap();
    let answer = explain(tmp.path(), &["--port", "80"]);
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
}

const HOSTS: &str = "\
kind: Node
apiVersion: v1
metadata: {name: n1, labels: {role: edge}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
kind: Pod
apiVersion: v1
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {nodeName: n1, containers: []}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
kind: HostEndpoint
apiVersion: margay.io/v1
metadata: {name: n1-eth0, labels: {role: edge}}
spec: {node: n1, interfaceName: eth0}
---
kind: GlobalNetworkPolicy
apiVersion: margay.io/v1
metadata: {name: edge, generation: 1}
spec:
  order: 5
  selector: role == 'edge'
  applyOnForward: true
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [25]}}
  - {action: Allow}
";

#[test]
fn host_endpoints_on_the_way_are_told_with_what_is_assumed() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("hosts.yaml"), HOSTS).unwrap();
    let explain = |more: &[&str]| {
        let flow = ["explain", "--from", "shop/web", "--to", "203.0.113.7"];
        margayctl(tmp.path(), &[&flow, more, &["-f", "hosts.yaml"]].concat())
    };
    let answer = explain(&["--port", "25"]);
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    assert_eq!(
        stdout(&answer),
        "\
DENIED  shop/web (10.0.0.1) -> 203.0.113.7, TCP 25

egress of shop/web: ALLOWED  no policy selects it for egress, so everything may pass
  not selecting shop/web:
    GlobalNetworkPolicy edge: it selects endpoints with role == 'edge'

applyOnForward out of node n1: DENIED  egress[0] of GlobalNetworkPolicy edge (tier default) denies it
  host endpoint n1-eth0 (assumed, as the node has no other: --interface says otherwise)
  tier default: decided
    GlobalNetworkPolicy edge (order 5, generation 1)
    > egress[0] Deny any address; all TCP and TCP 25: matched
      egress[1] Allow any address; any traffic: not asked

ingress of 203.0.113.7: ALLOWED  it is no pod: no policy is asked

What to do
  - egress[0] of GlobalNetworkPolicy edge denies it. If it should pass, change that rule, or let a rule ahead of it allow it: higher up in the same policy, or in a policy of tier default with a lower order.
"
    );
    let answer = explain(&["--port", "25", "--interface", "eth1"]);
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert!(stdout(&answer).contains("note: the interface by which it passes n1"));
    let answer = explain(&["--port", "80", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let hook = &document["flows"][0]["on_the_way"][0];
    assert_eq!(hook["hook"], "applyOnForward out", "{document}");
    assert_eq!(hook["judgement"]["endpoint"], "n1-eth0");
}

#[test]
fn json_has_the_fields_of_the_api() {
    let tmp = files();
    let answer = explain(tmp.path(), &["--port", "80", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(document["allowed"], false);
    let rule = &document["flows"][0]["ingress"]["tiers"][0]["policies"][0]["rules"][0];
    assert_eq!(rule["outcome"], "no match");
}

#[test]
fn the_table_of_a_node_is_what_nft_reads() {
    let tmp = files();
    let bound = CLUSTER.replace("spec: {containers", "spec: {nodeName: n1, containers");
    std::fs::write(tmp.path().join("cluster.yaml"), bound).unwrap();
    let render = |more: &[&str]| {
        let files = ["render", "-f", "cluster.yaml,policies.yaml"];
        margayctl(tmp.path(), &[&files, more].concat())
    };
    let text = stdout(&render(&["--node", "n1"]));
    assert!(text.starts_with("table inet margay {"), "{text}");
    assert!(text.contains("\"mgy000000000000\" . 10.0.0.2"), "{text}");
    assert!(text.contains("is db/pg: device group 0x6d"), "{text}");
    let json = render(&["--node", "n1", "-o", "json"]);
    let document = felix::nft::json::Document::parse(&stdout(&json)).unwrap();
    let elements = |name: &str| {
        let sets = document.nftables.iter().filter_map(|it| match it {
            felix::nft::json::Object::Set(set) | felix::nft::json::Object::Map(set) => Some(set),
            _ => None,
        });
        let mut named = sets.filter(|set| set.name == name);
        named.next().map(|set| set.elem.len())
    };
    assert_eq!(elements("workload4"), Some(2), "{document:?}");
    assert_eq!(elements("default_in"), Some(1), "{document:?}");
    // A table is that of one node, and of one that the files have.
    for (more, status) in [(&["--node", "n9"][..], 1), (&[], 1)] {
        let answer = render(more);
        assert_eq!(answer.status.code(), Some(status), "{answer:?}");
    }
}

#[test]
fn wrong_questions_have_answers() {
    let tmp = files();
    let said = |args: &[&str]| {
        let answer = explain(tmp.path(), args);
        let text = String::from_utf8(answer.stderr).unwrap();
        (answer.status.code(), text)
    };
    let (code, text) = said(&["--port", "http"]);
    assert_eq!(
        (code, text.contains("it has pg")),
        (Some(1), true),
        "{text}"
    );
    let (code, text) = said(&[]);
    assert_eq!(
        (code, text.contains("--port is needed")),
        (Some(1), true),
        "{text}"
    );
    let (code, text) = said(&["--port", "1", "--protocol", "tpc"]);
    assert_eq!(
        (code, text.contains("none of tcp")),
        (Some(2), true),
        "{text}"
    );
    let (code, text) = said(&["--port", "1", "-f", "missing.yaml"]);
    assert_eq!(
        (code, text.contains("missing.yaml")),
        (Some(1), true),
        "{text}"
    );
}

#[test]
fn a_change_says_who_loses_and_who_gains() {
    let tmp = files();
    let new = POLICIES.replace("{tier: front}", "{tier: back}");
    std::fs::write(tmp.path().join("new.yaml"), new).unwrap();
    let against = ["--against", "cluster.yaml,policies.yaml"];
    let change = ["what-if", "-f", "new.yaml"];
    let answer = margayctl(tmp.path(), &[&change[..], &against].concat());
    assert_eq!(
        stdout(&answer),
        "\
1 pair would lose flows, 0 pairs would gain some, of 2 pods and the world outside

allowed -> denied
FROM      TO     TRAFFIC   PAIRS  BECAUSE
shop/web  db/pg  TCP 5432  1      no rule of db/clients allows it, and what the policies of tier default do not allow is denied
"
    );
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");

    let gone = ["what-if", "--delete", "networkpolicy/db/clients"];
    let answer = margayctl(tmp.path(), &[&gone[..], &against].concat());
    let text = stdout(&answer);
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert!(text.contains("denied -> allowed"), "{text}");
    assert!(
        text.contains("TCP 0-5431, TCP 5433-65535, all UDP"),
        "{text}"
    );
    assert!(
        text.contains("203.0.113.1"),
        "the world outside gains, too: {text}"
    );

    let gone = ["what-if", "--delete", "networkpolicy/db/nothing"];
    let answer = margayctl(tmp.path(), &[&gone[..], &against].concat());
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
}

#[test]
fn what_does_nothing_is_listed_with_the_reason() {
    let tmp = files();
    let more = "\
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {namespace: shop, name: nobody}
spec: {podSelector: {matchLabels: {app: gone}}}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {namespace: shop, name: rules}
spec:
  podSelector: {}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: gone}}}]}
  - {ports: [{port: nameless}]}
  - {from: [{ipBlock: {cidr: 10.0.0.0/8}}]}
  - {from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}
";
    std::fs::write(tmp.path().join("more.yaml"), more).unwrap();
    let answer = margayctl(
        tmp.path(),
        &[
            "unused",
            "-f",
            "cluster.yaml,policies.yaml,more.yaml",
            "-o",
            "json",
        ],
    );
    let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let found: Vec<_> = document["unused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["policy"].as_str().unwrap(), it["rule"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("shop/nobody", ""),
            ("shop/rules", "ingress[0]"),
            ("shop/rules", "ingress[1]"),
            ("shop/rules", "ingress[3]"),
        ],
        "{document}"
    );
    let text = stdout(&margayctl(
        tmp.path(),
        &["unused", "-f", "cluster.yaml,policies.yaml"],
    ));
    assert!(text.starts_with("0 of 1 policies"), "{text}");
}

/// Everything that rules can name beside pods, as kubectl prints it.
const MORE: &str = "\
kind: List
apiVersion: v1
items:
- kind: Node
  apiVersion: v1
  metadata: {name: edge, labels: {role: edge}}
  status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}
- kind: EndpointSlice
  apiVersion: discovery.k8s.io/v1
  metadata: {namespace: shop, name: api-1, labels: {kubernetes.io/service-name: api}}
  addressType: IPv4
  endpoints: [{addresses: [198.51.100.1]}]
  ports: [{protocol: TCP, port: 8443}]
- kind: ClusterNetworkPolicy
  apiVersion: policy.networking.k8s.io/v1alpha2
  metadata: {name: no-edge}
  spec:
    tier: Admin
    priority: 1
    subject: {namespaces: {}}
    egress:
    - {name: edge, action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}
- kind: NetworkPolicy
  apiVersion: margay.io/v1
  metadata: {namespace: shop, name: out}
  spec:
    selector: all()
    types: [Egress]
    egress:
    - {action: Allow, destination: {services: {name: api}}}
    - {action: Allow, destination: {nets: [192.0.2.0/24]}}
    - {action: Allow, destination: {selector: who == 'nobody', namespaceSelector: global()}}
";

#[test]
fn files_may_have_nodes_services_and_sets() {
    let tmp = files();
    std::fs::write(tmp.path().join("more.yaml"), MORE).unwrap();
    let all = "cluster.yaml,more.yaml";
    let code = |to: &str, port: &str, files: &str| {
        let flow = ["explain", "--from", "shop/web", "--to", to];
        let answer = margayctl(
            tmp.path(),
            &[&flow[..], &["--port", port, "-f", files]].concat(),
        );
        assert!(answer.stderr.is_empty(), "{answer:?}");
        answer.status.code()
    };
    assert_eq!(
        code("198.51.100.1", "8443", all),
        Some(0),
        "behind the Service"
    );
    assert_eq!(code("198.51.100.1", "80", all), Some(3), "another port");
    assert_eq!(
        code("198.51.100.2", "8443", all),
        Some(3),
        "another address"
    );
    assert_eq!(code("192.0.2.10", "80", all), Some(3), "the node");
    assert_eq!(code("192.0.2.11", "80", all), Some(0), "no node's address");

    let unused = margayctl(tmp.path(), &["unused", "-f", all, "-o", "json"]);
    let unused: serde_json::Value = serde_json::from_slice(&unused.stdout).unwrap();
    let rules: Vec<_> = unused["unused"].as_array().unwrap().iter().collect();
    assert_eq!(rules.len(), 1, "{unused}");
    assert_eq!(rules[0]["rule"], "egress[2]", "{unused}");
}
