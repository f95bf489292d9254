//! The pods of a policy test, and policies in their namespaces.

use std::time::Duration;

use e2e::suite::{Pod, Row, Suite, World, namespace};

/// Every client.
pub(crate) const CLIENTS: &str = "red/cli1 red/cli3 blue/cli1 blue/cli2 blue/cli3";
/// Both servers.
pub(crate) const SERVERS: &str = "red/srv1 red/srv3";

const PORTS: &[(&str, u16, &str)] = &[
    ("", 80, "TCP"),
    ("", 8080, "TCP"),
    ("", 8081, "TCP"),
    ("", 9000, "TCP"),
    ("", 80, "UDP"),
    ("", 5353, "UDP"),
];

/// The servers give the name `api` to different numbers.
const SRV1: &[(&str, u16, &str)] = &[
    ("", 80, "TCP"),
    ("api", 8080, "TCP"),
    ("", 8081, "TCP"),
    ("", 9000, "TCP"),
    ("", 80, "UDP"),
    ("dns", 5353, "UDP"),
];
const SRV3: &[(&str, u16, &str)] = &[
    ("", 80, "TCP"),
    ("", 8080, "TCP"),
    ("", 8081, "TCP"),
    ("api", 9000, "TCP"),
    ("dns", 80, "UDP"),
    ("", 5353, "UDP"),
];

/// The world of one test, and its policies.
pub(crate) struct Policies<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) world: World<'a>,
}

/// An object of the cluster that goes with the test, or before.
pub(crate) struct Object<'a> {
    policies: &'a Policies<'a>,
    /// Everything in front of its spec.
    head: String,
    kind: String,
    /// Its name.
    pub(crate) name: String,
}

impl Object<'_> {
    /// Gives it another spec.
    #[track_caller]
    pub(crate) fn becomes(&self, spec: &str) {
        let spec = self.policies.world.text(spec);
        let text = format!("{{ {}, spec: {spec} }}", self.head);
        self.policies.suite.apply_text(&text);
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let deleted =
            lab::Lab::kubectl(self.policies.suite, &["delete", &self.kind, &self.name], "");
        assert!(deleted.is_ok() || std::thread::panicking(), "{deleted:?}");
    }
}

impl<'a> Policies<'a> {
    pub(crate) fn new(suite: &'a Suite, prefix: &'a str) -> Self {
        let world = World { prefix };
        let (red, blue) = (world.ns("red"), world.ns("blue"));
        suite.create(&[
            namespace(&red, &[("team", "red"), ("env", "prod")]),
            namespace(&blue, &[("team", "blue"), ("env", "dev")]),
        ]);
        let pod = |namespace, name, node, labels, ports| Pod {
            namespace,
            name,
            node,
            labels,
            ports,
        };
        suite.run_pods(&[
            pod(&red, "srv1", "n1", &[("app", "srv"), ("zone", "one")], SRV1),
            pod(
                &red,
                "srv3",
                "n3",
                &[("app", "srv"), ("zone", "three")],
                SRV3,
            ),
            pod(&red, "cli1", "n1", &[("app", "cli"), ("role", "a")], PORTS),
            pod(&red, "cli3", "n3", &[("app", "cli"), ("role", "b")], PORTS),
            pod(&blue, "cli1", "n1", &[("app", "cli"), ("role", "a")], PORTS),
            pod(&blue, "cli2", "n2", &[("app", "cli"), ("role", "b")], PORTS),
            pod(&blue, "cli3", "n3", &[("app", "cli"), ("role", "c")], PORTS),
        ]);
        Self { suite, world }
    }

    /// With three pods only: `red/srv` on n1, `blue/cli` on n2 and `red/cli` on n3.
    pub(crate) fn few(suite: &'a Suite, prefix: &'a str) -> Self {
        let world = World { prefix };
        let (red, blue) = (world.ns("red"), world.ns("blue"));
        suite.create(&[
            namespace(&red, &[("team", "red"), ("world", prefix)]),
            namespace(&blue, &[("team", "blue"), ("world", prefix)]),
        ]);
        let pod = |namespace, name, node, labels, ports| Pod {
            namespace,
            name,
            node,
            labels,
            ports,
        };
        suite.run_pods(&[
            pod(&red, "srv", "n1", &[("app", "srv")], SRV1),
            pod(&blue, "cli", "n2", &[("app", "cli"), ("role", "b")], PORTS),
            pod(&red, "cli", "n3", &[("app", "cli"), ("role", "a")], PORTS),
        ]);
        Self { suite, world }
    }

    /// Applies a NetworkPolicy; `{red}` in it is that namespace's name.
    #[track_caller]
    pub(crate) fn apply(&self, short: &str, name: &str, spec: &str) {
        let ns = self.world.ns(short);
        let spec = self.world.text(spec);
        self.suite.apply_text(&format!(
            "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: {name}, namespace: {ns} }}, spec: {spec} }}"
        ));
    }

    /// Applies a NetworkPolicy of ours.
    #[track_caller]
    pub(crate) fn namespaced(&self, short: &str, name: &str, spec: &str) {
        let ns = self.world.ns(short);
        let spec = self.world.text(spec);
        self.suite.apply_text(&format!(
            "{{ apiVersion: margay.io/v1, kind: NetworkPolicy, metadata: {{ name: {name}, namespace: {ns} }}, spec: {spec} }}"
        ));
    }

    /// Applies an object of the cluster, named after the world.
    #[track_caller]
    pub(crate) fn cluster(&'a self, kind: &str, name: &str, spec: &str) -> Object<'a> {
        self.cluster_labelled(kind, name, &[], spec)
    }

    /// As [`Policies::cluster`], with labels.
    #[track_caller]
    pub(crate) fn cluster_labelled(
        &'a self,
        kind: &str,
        name: &str,
        labels: &[(&str, &str)],
        spec: &str,
    ) -> Object<'a> {
        let (version, proper) = match kind {
            "tier" => ("margay.io/v1", "Tier"),
            "globalnetworkpolicy" => ("margay.io/v1", "GlobalNetworkPolicy"),
            "globalnetworkset" => ("margay.io/v1", "GlobalNetworkSet"),
            "clusternetworkpolicy" => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
            other => panic!("{other} is no kind of the cluster"),
        };
        let name = format!("{}-{name}", self.world.prefix);
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        let object = Object {
            policies: self,
            head: format!(
                "apiVersion: {version}, kind: {proper}, metadata: {{ name: {name}, labels: {{ {} }} }}",
                labels.join(", ")
            ),
            kind: kind.to_owned(),
            name,
        };
        object.becomes(spec);
        object
    }

    #[track_caller]
    pub(crate) fn delete(&self, short: &str, name: &str) {
        let ns = self.world.ns(short);
        self.suite
            .kubectl(&["delete", "networkpolicy", "-n", &ns, name]);
    }

    #[track_caller]
    pub(crate) fn expect(&self, rows: &[Row<'_>]) -> Duration {
        self.suite.expect(self.world, rows)
    }
}
