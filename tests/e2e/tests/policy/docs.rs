//! The examples of the Kubernetes documentation of NetworkPolicy, each applied as it stands there; where the lab has
//! other addresses than the page, those are put in. A server in the policy's namespace and clients all over the cluster:
//!
//! ```text
//!                     n1                      n2                  n3 (other rack)
//!  app  (default)     db: role=db, frontend                       frontend2
//!  mine (myproject)                           job: role=client    job3
//!  else                                       job: role=client
//! ```

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use e2e::suite::{self, Pod, Row, Suite, World, namespace};
use lab::plan::Rack;

/// TCP 6379 is what the server of the page's first example answers on, 5978 what it may reach; 32000 to 32768 are the
/// ports of the example of a range.
const PORTS: &[(&str, u16, &str)] = &[
    ("", 6379, "TCP"),
    ("", 5978, "TCP"),
    ("", 31999, "TCP"),
    ("", 32000, "TCP"),
    ("", 32768, "TCP"),
    ("", 32769, "TCP"),
    ("", 6379, "UDP"),
    ("", 32000, "UDP"),
];
/// What everybody answers to, one of each.
const ANY: &str = "tcp/6379 udp/6379 icmp";
const OTHERS: &str = "app/frontend app/frontend2 mine/job mine/job3 else/job";

struct Page<'a> {
    suite: &'a Suite,
    world: World<'a>,
}

impl<'a> Page<'a> {
    fn open(suite: &'a Suite, prefix: &'a str) -> Self {
        let world = World { prefix };
        let [app, mine, other] = ["app", "mine", "else"].map(|short| world.ns(short));
        suite.create(&[
            namespace(&app, &[("namespace", "backend")]),
            namespace(
                &mine,
                &[("project", "myproject"), ("namespace", "frontend")],
            ),
            namespace(&other, &[]),
        ]);
        let pod = |namespace, name, node, labels| Pod {
            namespace,
            name,
            node,
            labels,
            ports: PORTS,
        };
        suite.run_pods(&[
            pod(&app, "db", "n1", &[("role", "db")]),
            pod(&app, "frontend", "n1", &[("role", "frontend")]),
            pod(&app, "frontend2", "n3", &[("role", "frontend")]),
            pod(&mine, "job", "n2", &[("role", "client")]),
            pod(&mine, "job3", "n3", &[]),
            pod(&other, "job", "n2", &[("role", "client")]),
        ]);
        Self { suite, world }
    }

    /// kubectl apply, in the namespace `app`.
    #[track_caller]
    fn apply(&self, yaml: &str) {
        let yaml = self.world.text(yaml);
        self.suite.apply_text(&yaml.replace(
            "namespace: default",
            &format!("namespace: {}", self.world.ns("app")),
        ));
    }

    #[track_caller]
    fn expect(&self, rows: &[Row<'_>]) {
        self.suite.expect(self.world, rows);
    }
}

#[test]
fn the_network_policy_resource() {
    let suite = suite::shared();
    let page = Page::open(&suite, "page");
    let plan = suite.plan();
    let (n2, tor_b) = (plan.nodes[1].address, plan.tor(Rack::B).address);
    page.apply(&format!(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: test-network-policy
  namespace: default
spec:
  podSelector:
    matchLabels:
      role: db
  policyTypes:
  - Ingress
  - Egress
  ingress:
  - from:
    - ipBlock:
        cidr: 172.30.0.0/16
        except:
        - {}/32
    - ipBlock:
        cidr: fd00:30::/32
        except:
        - {}/128
    - namespaceSelector:
        matchLabels:
          project: myproject
    - podSelector:
        matchLabels:
          role: frontend
    ports:
    - protocol: TCP
      port: 6379
  egress:
  - to:
    - ipBlock:
        cidr: 10.244.0.0/16
    - ipBlock:
        cidr: fd00:10:244::/64
    ports:
    - protocol: TCP
      port: 5978
",
        tor_b.v4, tor_b.v6
    ));
    assert_eq!(plan.nodes[1].name, "n2", "{n2:?}");
    page.expect(&[
        // Pods labelled so in the namespace, every pod of the project's namespaces, and the block but for one address.
        (
            "app/frontend app/frontend2 mine/job mine/job3 n2 tor-a",
            "app/db",
            "tcp/6379",
            true,
        ),
        ("else/job tor-b", "app/db", "tcp/6379", false),
        (
            "app/frontend mine/job n2",
            "app/db",
            "tcp/5978 udp/6379 icmp",
            false,
        ),
        // Outwards one port, by address, whoever is there.
        ("app/db", OTHERS, "tcp/5978", true),
        ("app/db", OTHERS, "tcp/6379 udp/6379 icmp", false),
        ("app/db", "tor-a n2", "icmp", false),
        // Others are not selected.
        ("else/job mine/job", "app/frontend app/frontend2", ANY, true),
        ("app/frontend", "else/job", ANY, true),
    ]);
}

#[test]
fn selectors_in_one_element_and_in_two() {
    let suite = suite::shared();
    let page = Page::open(&suite, "elements");
    for (from, allowed, denied) in [
        // Pods with the label, in namespaces with the label.
        (
            "- namespaceSelector:\n        matchLabels:\n          project: myproject\n      podSelector:\n        matchLabels:\n          role: client",
            "mine/job",
            "mine/job3 else/job app/frontend",
        ),
        // Pods of such namespaces, or pods with the label in the policy's own.
        (
            "- namespaceSelector:\n        matchLabels:\n          project: myproject\n    - podSelector:\n        matchLabels:\n          role: client",
            "mine/job mine/job3",
            "else/job app/frontend",
        ),
    ] {
        page.apply(&format!(
            r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: elements
  namespace: default
spec:
  podSelector: {{}}
  ingress:
  - from:
    {from}
"
        ));
        page.expect(&[
            (allowed, "app/db", ANY, true),
            (denied, "app/db", ANY, false),
        ]);
    }
}

const DEFAULTS: [(&str, &str, bool, bool); 5] = [
    (
        "default-deny-ingress",
        "policyTypes: [Ingress]",
        false,
        true,
    ),
    (
        "allow-all-ingress",
        "policyTypes: [Ingress]\n  ingress:\n  - {}",
        true,
        true,
    ),
    ("default-deny-egress", "policyTypes: [Egress]", true, false),
    (
        "allow-all-egress",
        "policyTypes: [Egress]\n  egress:\n  - {}",
        true,
        true,
    ),
    (
        "default-deny-all",
        "policyTypes: [Ingress, Egress]",
        false,
        false,
    ),
];

#[track_caller]
fn default_policy(prefix: &str, name: &str) {
    let suite = suite::shared();
    let page = Page::open(&suite, prefix);
    let rule = DEFAULTS.iter().find(|(other, ..)| *other == name).unwrap();
    let (_, spec, ingress, egress) = rule;
    let policy = |name: &str, spec: &str| {
        page.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  podSelector: {{}}\n  {spec}\n"
        ));
    };
    if name.starts_with("allow") {
        // It means something where something else denies.
        let (_, deny, ..) = DEFAULTS
            .iter()
            .find(|(other, ..)| *other == name.replace("allow-all", "default-deny"))
            .unwrap();
        policy("deny", deny);
        let (inward, outward) = (!name.ends_with("ingress"), !name.ends_with("egress"));
        page.expect(&[
            ("mine/job", "app/db", ANY, inward),
            ("app/db", "mine/job", ANY, outward),
        ]);
    }
    policy(name, spec);
    page.expect(&[
        (
            "mine/job else/job n2 tor-b",
            "app/db app/frontend2",
            ANY,
            *ingress,
        ),
        ("app/db app/frontend2", "mine/job else/job", ANY, *egress),
        ("app/frontend2", "app/db", ANY, *ingress && *egress),
        // The node of a pod always may.
        ("n1", "app/db", ANY, true),
        ("mine/job else/job", "mine/job3", ANY, true),
    ]);
    suite.expect_sctp(page.world, "mine/job", "app/db", 7777, *ingress);
    suite.expect_sctp(page.world, "app/db", "mine/job", 7777, *egress);
}

#[test]
fn default_deny_all_ingress_traffic() {
    default_policy("denyin", "default-deny-ingress");
}

#[test]
fn allow_all_ingress_traffic() {
    default_policy("allowin", "allow-all-ingress");
}

#[test]
fn default_deny_all_egress_traffic() {
    default_policy("denyout", "default-deny-egress");
}

#[test]
fn allow_all_egress_traffic() {
    default_policy("allowout", "allow-all-egress");
}

#[test]
fn default_deny_all_ingress_and_all_egress_traffic() {
    default_policy("denyall", "default-deny-all");
}

#[test]
fn sctp_is_a_protocol_of_its_own() {
    let suite = suite::shared();
    let page = Page::open(&suite, "sctp");
    let only = |ports: &str| {
        page.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: sctp\n  namespace: default\nspec:\n  podSelector: {{}}\n  ingress:\n  - ports: {ports}\n"
        ));
    };
    let sctp = |port, allowed| {
        suite.expect_sctp(page.world, "app/frontend mine/job", "app/db", port, allowed)
    };
    // It isolates, and opens its own port, of its own protocol.
    only("[{ protocol: SCTP, port: 6379 }]");
    sctp(6379, true);
    sctp(6380, false);
    page.expect(&[("app/frontend mine/job", "app/db", ANY, false)]);
    only("[{ protocol: SCTP, port: 6000, endPort: 6378 }, { protocol: TCP, port: 6379 }]");
    sctp(6379, false);
    sctp(6100, true);
    page.expect(&[("app/frontend mine/job", "app/db", "tcp/6379", true)]);
    only("[{ protocol: SCTP }]");
    sctp(1, true);
    page.expect(&[("mine/job", "app/db", ANY, false)]);
    only("[{ protocol: TCP }]");
    sctp(6379, false);
}

#[test]
fn targeting_a_range_of_ports() {
    let suite = suite::shared();
    let page = Page::open(&suite, "range");
    page.apply(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: multi-port-egress
  namespace: default
spec:
  podSelector:
    matchLabels:
      role: db
  policyTypes:
  - Egress
  egress:
  - to:
    - ipBlock:
        cidr: 10.244.0.0/16
    - ipBlock:
        cidr: fd00:10:244::/64
    ports:
    - protocol: TCP
      port: 32000
      endPort: 32768
",
    );
    page.expect(&[
        (
            "app/db",
            "app/frontend mine/job3",
            "tcp/32000 tcp/32768",
            true,
        ),
        (
            "app/db",
            "app/frontend mine/job3",
            "tcp/31999 tcp/32769 udp/32000 icmp",
            false,
        ),
        ("app/frontend", "mine/job", "tcp/31999 udp/32000", true),
    ]);
    suite.expect_sctp(page.world, "app/db", "mine/job", 32000, false);
}

#[test]
fn targeting_multiple_namespaces_by_label() {
    let suite = suite::shared();
    let page = Page::open(&suite, "several");
    page.apply(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: egress-namespaces
  namespace: default
spec:
  podSelector:
    matchLabels:
      role: db
  policyTypes:
  - Egress
  egress:
  - to:
    - namespaceSelector:
        matchExpressions:
        - key: namespace
          operator: In
          values: ["frontend", "backend"]
"#,
    );
    let before = [
        ("app/db", "app/frontend2 mine/job mine/job3", ANY, true),
        ("app/db", "else/job", ANY, false),
        ("app/db", "n2 tor-a", "icmp", false),
    ];
    page.expect(&before);
    // The page: labels of namespaces can be changed, not their names.
    suite.kubectl(&[
        "label",
        "namespace",
        &page.world.ns("else"),
        "namespace=frontend",
    ]);
    page.expect(&[("app/db", "else/job", ANY, true)]);
    suite.kubectl(&["label", "namespace", &page.world.ns("else"), "namespace-"]);
    page.expect(&before);
}

#[test]
fn targeting_a_namespace_by_its_name() {
    let suite = suite::shared();
    let page = Page::open(&suite, "byname");
    page.apply(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: by-name
  namespace: default
spec:
  podSelector:
    matchLabels:
      role: db
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {else}
",
    );
    page.expect(&[
        ("else/job", "app/db", ANY, true),
        (
            "mine/job mine/job3 app/frontend app/frontend2",
            "app/db",
            ANY,
            false,
        ),
    ]);
}
