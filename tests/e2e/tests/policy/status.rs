//! The condition Programmed: on how many nodes a policy is enforced, as kubectl shows it.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::suite::{self, Pod, Suite, namespace, until, until_within};
use serde_json::Value;

/// A new leader waits half a minute for nodes that do not report.
const TAKEOVER: Duration = Duration::from_secs(60);

/// A namespace with a pod on each of n1 and n2.
struct Two {
    suite: Suite,
    ns: &'static str,
}

impl Two {
    fn new(suite: Suite, ns: &'static str) -> Self {
        suite.create(&[namespace(ns, &[("team", ns)])]);
        let pod = |name, node| Pod {
            namespace: ns,
            name,
            node,
            labels: &[("app", "web")],
            ports: &[("", 80, "TCP")],
        };
        suite.run_pods(&[pod("one", "n1"), pod("two", "n2")]);
        Self { suite, ns }
    }

    /// Applies our NetworkPolicy `p`; the port makes an edit of it.
    #[track_caller]
    fn apply(&self, selector: &str, port: u16) {
        let ns = self.ns;
        self.suite.apply_text(&format!(
            "{{ apiVersion: margay.io/v1, kind: NetworkPolicy, metadata: {{ name: p, namespace: {ns} }}, spec: {{ selector: \"{selector}\", ingress: [{{ action: Allow, protocol: TCP, destination: {{ ports: [{port}] }} }}] }} }}"
        ));
    }

    fn policy(&self) -> Value {
        let kind = "networkpolicies.margay.io";
        self.suite.object(&["get", kind, "-n", self.ns, "p"])
    }

    /// Waits until its condition is so; the message has these words.
    #[track_caller]
    fn says(&self, status: &str, words: &str) -> Value {
        let what = format!("Programmed {status}: {words}");
        until_within(&what, TAKEOVER, || told(&self.policy(), status, words))
    }
}

/// The condition, if it is so.
fn told(object: &Value, status: &str, words: &str) -> Result<Value, String> {
    let conditions = suite::list(&object["status"]["conditions"]);
    let programmed = conditions.iter().find(|it| it["type"] == "Programmed");
    let programmed = programmed.ok_or_else(|| object["status"].to_string())?;
    let said = programmed["message"].as_str().unwrap_or_default();
    let current = programmed["observedGeneration"] == object["metadata"]["generation"];
    match current && programmed["status"] == status && said.contains(words) {
        true => Ok(programmed.clone()),
        false => Err(object["status"].to_string()),
    }
}

/// Notes every version of the policy that the API serves.
struct Versions {
    kubectl: Child,
    file: tempfile::NamedTempFile,
}

impl Versions {
    fn watch(two: &Two) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = "jsonpath={.metadata.generation}{\"|\"}{.status.conditions[?(@.type==\"Programmed\")].message}{\"\\n\"}";
        let kubectl = two
            .suite
            .kubectl_command()
            .expect("kubectl")
            .args(["get", "networkpolicies.margay.io", "-n", two.ns, "p"])
            .args(["--watch", "-o", path])
            .stdout(Stdio::from(file.reopen().expect("the file again")))
            .spawn()
            .expect("kubectl starts");
        let versions = Self { kubectl, file };
        until("the first version", || match versions.seen() {
            none if none.is_empty() => Err("nothing yet".to_owned()),
            _ => Ok(()),
        });
        versions
    }

    fn seen(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file.path()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        // It may have ended with the API server.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

#[test]
fn an_edit_is_told_when_it_is_in_force_everywhere() {
    let two = Two::new(suite::shared(), "status-edit");
    two.apply("app == 'web'", 80);
    two.says("True", "generation 1 enforced on 2 of 2 nodes");
    let versions = Versions::watch(&two);
    two.apply("app == 'web'", 81);
    two.says("True", "generation 2 enforced on 2 of 2 nodes");
    // Each node has it in force, and says so itself.
    for node in ["n1", "n2"] {
        let policies = two.suite.ctl(node, &["policy", "list"]);
        let name = format!("{}/p", two.ns);
        let mut own = suite::list(&policies["policies"]).iter();
        let own = own.find(|it| it["name"] == name.as_str());
        assert_eq!(own.map(|it| &it["generation"]), Some(&2.into()), "{node}");
    }
    let table = two
        .suite
        .kubectl(&["get", "mnp", "-n", two.ns, "-o", "wide"]);
    assert!(table.contains("PROGRAMMED"), "{table}");
    assert!(table.contains("2/2"), "{table}");
    assert!(
        table.contains("generation 2 enforced on 2 of 2 nodes"),
        "{table}"
    );
    // The first version, the edit, Accepted, and Programmed once or twice: not a write for each node.
    let seen = versions.seen();
    assert!(seen.len() <= 5, "{seen:#?}");
    // Nothing that it selects.
    two.apply("app == 'nobody'", 81);
    two.says("True", "generation 3 enforced on 0 of 0 nodes");
}

#[test]
fn a_cluster_network_policy_says_what_it_is_not_understood_for_and_where_it_is_enforced() {
    let two = Two::new(suite::shared(), "status-cnp");
    let apply = |protocol: &str| {
        two.suite.apply_text(&format!(
            "{{ apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{ name: status-cnp }}, spec: {{ tier: Admin, priority: 900, subject: {{ namespaces: {{ matchLabels: {{ team: {} }} }} }}, ingress: [{{ action: Accept, from: [{{ namespaces: {{}} }}], protocols: [{protocol}] }}] }} }}",
            two.ns
        ));
    };
    let says = |status: &str, words: &str| {
        until_within(words, TAKEOVER, || {
            told(
                &two.suite.object(&["get", "cnp", "status-cnp"]),
                status,
                words,
            )
        })
    };
    apply("{ tcp: { destinationPort: { number: 80 } } }");
    says("True", "generation 1 enforced on 2 of 2 nodes");
    // Of a later version of the API.
    apply("{}");
    says("False", "it is not accepted");
    let object = two.suite.object(&["get", "cnp", "status-cnp"]);
    let conditions = suite::list(&object["status"]["conditions"]);
    let accepted = conditions.iter().find(|it| it["type"] == "Accepted");
    let accepted = accepted.expect("the condition Accepted");
    assert_eq!(accepted["status"], "False");
    let message = suite::text(&accepted["message"]);
    assert!(
        message.contains("spec.ingress[0].protocols[0]"),
        "{message}"
    );
    two.suite.kubectl(&["delete", "cnp", "status-cnp"]);
}

#[test]
fn a_node_without_felix_is_named_and_one_that_the_kernel_refuses_too() {
    let two = Two::new(suite::alone(), "status-lag");
    two.apply("app == 'web'", 80);
    two.says("True", "generation 1 enforced on 2 of 2 nodes");
    two.suite.kill("felix", Some("n2")).expect("felix on n2");
    two.apply("app == 'web'", 81);
    two.says(
        "False",
        "generation 2 enforced on 1 of 2 nodes; waiting for n2 (not connected)",
    );
    two.suite.start("felix", Some("n2")).expect("felix on n2");
    two.says("True", "generation 2 enforced on 2 of 2 nodes");
    // A table that another program owns: the kernel lets nobody else change it.
    let mut owner = two
        .suite
        .command("n2", &["nft", "-i"])
        .expect("nft")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("nft starts");
    let seize = "delete table inet margay; add table inet margay { flags owner; }\n";
    let mut stdin = owner.stdin.take().expect("a pipe");
    stdin.write_all(seize.as_bytes()).expect("nft reads");
    until("n2 to be out of step", || {
        let status = two.suite.ctl("n2", &["status"]);
        let problems = status["felix"]["problems"].to_string();
        match problems.contains("not in step") {
            true => Ok(()),
            false => Err(problems),
        }
    });
    two.apply("app == 'web'", 82);
    let told = two.says("False", "generation 3 enforced on 1 of 2 nodes; n2: ");
    assert_eq!(told["reason"], "Failed");
    // The table goes with its owner.
    drop(stdin);
    owner.wait().expect("nft ends");
    two.says("True", "generation 3 enforced on 2 of 2 nodes");
    two.suite.wait_felix("n2");
}

#[test]
fn nobody_speaks_for_another_node() {
    let two = Two::new(suite::alone(), "status-token");
    two.apply("app == 'web'", 80);
    two.says("True", "generation 1 enforced on 2 of 2 nodes");
    let [of_one, of_two] = ["n1", "n2"].map(|node| two.suite.plan().controller_token(node));
    let kept = std::fs::read(&of_two).expect("the token of n2");
    let restart = |token: &[u8]| {
        two.suite.kill("felix", Some("n2")).expect("felix on n2");
        std::fs::write(&of_two, token).expect("another token");
        two.suite.start("felix", Some("n2")).expect("felix on n2");
        two.suite.wait_felix("n2");
    };
    restart(&std::fs::read(&of_one).expect("the token of n1"));
    two.apply("app == 'web'", 81);
    two.says(
        "False",
        "generation 2 enforced on 1 of 2 nodes; waiting for n2 (not connected)",
    );
    restart(b"made up");
    two.apply("app == 'web'", 82);
    two.says(
        "False",
        "generation 3 enforced on 1 of 2 nodes; waiting for n2",
    );
    restart(&kept);
    two.says("True", "generation 3 enforced on 2 of 2 nodes");
}

#[test]
fn another_controller_takes_over_and_nothing_flaps() {
    let two = Two::new(suite::alone(), "status-lead");
    two.apply("app == 'web'", 80);
    two.says("True", "generation 1 enforced on 2 of 2 nodes");
    let holder = || {
        let argv = ["get", "lease", "margay-controller", "-n", "default"];
        suite::text(&two.suite.object(&argv)["spec"]["holderIdentity"])
    };
    let place = || {
        let argv = ["get", "configmap", "margay-controller", "-n", "default"];
        suite::text(&two.suite.object(&argv)["data"]["addresses"])
    };
    let versions = Versions::watch(&two);
    let (before, led_at) = (holder(), place());
    // Whoever leads says so by its address.
    let leader = ["n1", "n2"].into_iter().find(|node| {
        let address = two.suite.plan().address_of(node);
        address.is_some_and(|it| led_at.contains(&it.v4.to_string()))
    });
    let leader = leader.expect("the leader is one of the two");
    two.suite
        .kill("controller", Some(leader))
        .expect("the leader");
    until_within("another leader", TAKEOVER, || match holder() {
        same if same == before => Err(same),
        _ => Ok(()),
    });
    until_within("another place", TAKEOVER, || match place() {
        same if same == led_at => Err(same),
        _ => Ok(()),
    });
    two.apply("app == 'web'", 81);
    two.says("True", "generation 2 enforced on 2 of 2 nodes");
    two.suite
        .start("controller", Some(leader))
        .expect("it starts");
    let seen = versions.seen();
    // Nodes that are not connected to the new one yet are counted when they are: it never becomes fewer.
    let of_two = seen.iter().filter(|it| it.contains("generation 2"));
    let enforced: Vec<bool> = of_two.map(|it| it.contains("2 of 2")).collect();
    assert!(
        enforced.is_sorted() && enforced.last() == Some(&true),
        "it said less after it had said more: {seen:#?}"
    );
    let of_one = seen.iter().filter(|it| it.starts_with("1|"));
    assert!(of_one.clone().all(|it| it.contains("2 of 2")), "{seen:#?}");
    assert!(seen.len() <= 5, "{seen:#?}");
}
