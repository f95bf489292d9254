//! Our own kinds: tiers, policies of namespaces and of the cluster, sets, service accounts, services, and status.

use e2e::suite::{self, list, text, until};

use crate::world::{CLIENTS, Policies, SERVERS};

const BLUE: &str = "blue/cli1 blue/cli2 blue/cli3";
const RED: &str = "red/cli1 red/cli3";
/// The servers of this test.
const SUBJECT: &str =
    "selector: app == 'srv', namespaceSelector: kubernetes.io/metadata.name == '{red}'";
/// The pods of the other namespace.
const FROM_BLUE: &str = "{ namespaceSelector: kubernetes.io/metadata.name == '{blue}' }";

#[test]
fn tiers_are_asked_in_order_and_pass_goes_on_to_the_next() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "tiers");
    let first = p.cluster("tier", "first", "{ order: 10, defaultAction: Deny }");
    let second = p.cluster("tier", "second", "{ order: 20, defaultAction: Deny }");
    let deny = p.cluster(
        "globalnetworkpolicy",
        "deny",
        &format!("{{ tier: {}, {SUBJECT}, ingress: [{{ action: Deny, source: {FROM_BLUE} }}, {{ action: Pass }}] }}", second.name),
    );
    p.expect(&[
        (BLUE, SERVERS, "tcp/80 icmp", false),
        (RED, SERVERS, "tcp/80 icmp", true),
    ]);
    let allow = p.cluster(
        "globalnetworkpolicy",
        "allow",
        &format!(
            "{{ tier: {}, {SUBJECT}, ingress: [{{ action: Allow, protocol: TCP, source: {{ selector: role == 'a' }} }}, {{ action: Pass }}] }}",
            first.name
        ),
    );
    p.expect(&[
        ("blue/cli1", SERVERS, "tcp/80", true),
        ("blue/cli1", SERVERS, "udp/80 icmp", false),
        ("blue/cli2 blue/cli3", SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80 icmp", true),
    ]);
    // The other way round the word is with the other.
    first.becomes("{ order: 30, defaultAction: Deny }");
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80", true),
    ]);
    drop(deny);
    p.expect(&[(CLIENTS, SERVERS, "tcp/80 icmp", true)]);
    drop((allow, first, second));
}

#[test]
fn what_no_rule_decides_the_tier_does() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "tierdef");
    let tier = p.cluster("tier", "t", "{ order: 10 }");
    let spec = format!(
        "{{ tier: {}, {SUBJECT}, ingress: [{{ action: Allow, source: {FROM_BLUE} }}] }}",
        tier.name
    );
    let policy = p.cluster("globalnetworkpolicy", "p", &spec);
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", true),
        (RED, SERVERS, "tcp/80", false),
        // Whom no policy of the tier selects it does not concern.
        ("blue/cli1", RED, "tcp/80", true),
    ]);
    tier.becomes("{ order: 10, defaultAction: Pass }");
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
    drop((policy, tier));
}

#[test]
fn policies_of_a_tier_are_asked_in_order_among_kubernetes_own() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "order");
    p.apply("red", "k8s", "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ namespaceSelector: {} }] }] }");
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
    let deny = |order: &str| {
        format!(
            "{{ {order}, selector: app == 'srv', ingress: [{{ action: Deny, source: {FROM_BLUE} }}] }}"
        )
    };
    // A NetworkPolicy of Kubernetes is at 1000.
    p.namespaced("red", "p", &deny("order: 1001"));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
    p.namespaced("red", "p", &deny("order: 999.5"));
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80", true),
    ]);
    p.namespaced("red", "p", &deny("tier: default"));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
}

#[test]
fn a_policy_of_a_namespace_says_protocols_ports_and_addresses() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "words");
    let rule = |rule: &str| format!("{{ selector: app == 'srv', ingress: [{rule}] }}");
    let all = "tcp/80 tcp/8080 tcp/9000 udp/80 icmp";
    for (what, allowed, denied) in [
        (
            "{ action: Allow, protocol: TCP }",
            "tcp/80 tcp/8080 tcp/9000",
            "udp/80 icmp",
        ),
        ("{ action: Allow, protocol: 17 }", "udp/80", "tcp/80 icmp"),
        (
            "{ action: Allow, notProtocol: TCP }",
            "udp/80 icmp",
            "tcp/80 tcp/8080",
        ),
        (
            "{ action: Allow, protocol: TCP, destination: { ports: [80, '8000:8080'] } }",
            "tcp/80 tcp/8080",
            "tcp/9000 udp/80 icmp",
        ),
        (
            "{ action: Allow, protocol: TCP, destination: { notPorts: [80, '8000:8080'] } }",
            "tcp/9000",
            "tcp/80 tcp/8080 udp/80 icmp",
        ),
        (
            "{ action: Deny, protocol: TCP, destination: { ports: [8080] } }, { action: Log }, { action: Allow }",
            "tcp/80 udp/80 icmp",
            "tcp/8080",
        ),
        (
            "{ action: Allow, source: { notNets: [10.0.0.0/8, 'fd00::/8', 172.16.0.0/12, 192.168.0.0/16] } }",
            "",
            all,
        ),
    ] {
        p.namespaced("red", "p", &rule(what));
        p.expect(&[
            ("red/cli1 blue/cli2", SERVERS, allowed, true),
            ("red/cli1 blue/cli2", SERVERS, denied, false),
        ]);
    }
    // Each family for itself.
    p.namespaced("red", "p", &rule("{ action: Allow, ipVersion: 6 }"));
    suite.expect_family(p.world, "red/cli1", "red/srv1", "tcp/80", [false, true]);
    p.namespaced(
        "red",
        "p",
        &rule("{ action: Allow, protocol: ICMP, icmp: { type: 8 } }"),
    );
    suite.expect_family(p.world, "red/cli1", "red/srv1", "icmp", [true, false]);
    p.namespaced(
        "red",
        "p",
        &rule("{ action: Allow, protocol: ICMPv6, notICMP: { type: 8 } }"),
    );
    suite.expect_family(p.world, "red/cli1", "red/srv3", "icmp", [false, true]);
}

#[test]
fn selectors_look_where_the_policy_is_unless_it_says_where() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "scope");
    for (source, allowed) in [
        ("{ selector: role == 'a' }", "red/cli1"),
        ("{ selector: \"role in {'a', 'b',} && !has(zone)\" }", RED),
        (
            "{ selector: role == 'a', namespaceSelector: has(team) }",
            "red/cli1 blue/cli1",
        ),
        ("{ namespaceSelector: margay.io/name == '{blue}' }", BLUE),
        (
            "{ notSelector: role == 'a' }",
            "red/cli3 blue/cli2 blue/cli3",
        ),
        ("{ serviceAccounts: { names: [default] } }", RED),
        ("{ serviceAccounts: { names: [other] } }", ""),
        ("{ namespaceSelector: global() }", ""),
    ] {
        p.namespaced(
            "red",
            "p",
            &format!(
                "{{ selector: app == 'srv', ingress: [{{ action: Allow, source: {source} }}] }}"
            ),
        );
        let of = |wanted: bool| {
            let all = CLIENTS.split_whitespace();
            let some = all.filter(|it| allowed.split_whitespace().any(|a| a == *it) == wanted);
            some.collect::<Vec<_>>().join(" ")
        };
        p.expect(&[
            (&of(true), SERVERS, "tcp/80", true),
            (&of(false), SERVERS, "tcp/80", false),
        ]);
    }
}

#[test]
fn sets_are_selected_by_their_labels() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "sets");
    let nets = |pod: &str| {
        format!(
            "{{ nets: [{}] }}",
            quoted(&suite.addresses(&p.world.place(pod)))
        )
    };
    let world = p.world;
    let set = |spec: &str| {
        suite.apply_text(&format!(
            "{{ apiVersion: margay.io/v1, kind: NetworkSet, metadata: {{ name: s, namespace: {}, labels: {{ kind: partner }} }}, spec: {spec} }}",
            world.ns("red")
        ));
    };
    set(&nets("blue/cli1"));
    p.namespaced("red", "p", "{ selector: app == 'srv', ingress: [{ action: Allow, source: { selector: kind == 'partner' } }] }");
    let one = |allowed: &str, denied: &str| {
        p.expect(&[
            (allowed, SERVERS, "tcp/80", true),
            (denied, SERVERS, "tcp/80", false),
        ]);
    };
    one("blue/cli1", "blue/cli2 blue/cli3 red/cli1 red/cli3");
    set(&nets("blue/cli2"));
    one("blue/cli2", "blue/cli1 blue/cli3 red/cli1 red/cli3");
    // One of the cluster is looked for with global().
    let label = format!("global-{}", world.prefix);
    let global = p.cluster_labelled(
        "globalnetworkset",
        "g",
        &[("kind", &label)],
        &nets("blue/cli3"),
    );
    p.namespaced(
        "red",
        "p",
        &format!("{{ selector: app == 'srv', ingress: [{{ action: Allow, source: {{ selector: kind == '{label}', namespaceSelector: global() }} }}] }}"),
    );
    one("blue/cli3", "blue/cli1 blue/cli2 red/cli1 red/cli3");
    drop(global);
    one("", CLIENTS);
}

#[test]
fn service_accounts_are_selected_by_their_labels() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "accounts");
    p.namespaced(
        "red",
        "p",
        "{ selector: app == 'srv', ingress: [{ action: Allow, source: { namespaceSelector: all(), serviceAccounts: { selector: trusted == 'yes' } } }] }",
    );
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    let blue = p.world.ns("blue");
    suite.kubectl(&[
        "label",
        "serviceaccount",
        "-n",
        &blue,
        "default",
        "trusted=yes",
    ]);
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", true),
        (RED, SERVERS, "tcp/80", false),
    ]);
    suite.kubectl(&[
        "label",
        "serviceaccount",
        "-n",
        &blue,
        "default",
        "trusted-",
    ]);
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
}

#[test]
fn a_service_is_the_pods_and_ports_behind_it() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "services");
    let slice = |pod: &str| {
        for (index, address) in suite.addresses(&p.world.place(pod)).iter().enumerate() {
            let kind = if address.contains(':') {
                "IPv6"
            } else {
                "IPv4"
            };
            suite.apply_text(&format!(
                "{{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{ name: web-{index}, namespace: {}, labels: {{ kubernetes.io/service-name: web }} }}, addressType: {kind}, endpoints: [{{ addresses: ['{address}'] }}], ports: [{{ port: 8080 }}] }}",
                p.world.ns("red")
            ));
        }
    };
    slice("red/srv1");
    p.namespaced("red", "p", "{ selector: app == 'cli', egress: [{ action: Allow, destination: { services: { name: web } } }] }");
    p.expect(&[
        (RED, "red/srv1", "tcp/8080", true),
        (RED, "red/srv1", "tcp/80 udp/80 icmp", false),
        (RED, "red/srv3", "tcp/8080 tcp/80", false),
        (BLUE, SERVERS, "tcp/80", true),
    ]);
    slice("red/srv3");
    p.expect(&[
        (RED, "red/srv1", "tcp/8080", false),
        (RED, "red/srv3", "tcp/8080", true),
    ]);
}

#[test]
fn an_audited_policy_decides_nothing() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "audit");
    let spec = |enforcement: &str| {
        format!(
            "{{ selector: app == 'srv', enforcement: {enforcement}, ingress: [{{ action: Deny }}] }}"
        )
    };
    p.namespaced("red", "p", &spec("Enforce"));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    p.namespaced("red", "p", &spec("Audit"));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
}

#[test]
fn what_is_not_understood_is_closed_and_says_so() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "refused");
    let accepted = |want: &str, message: &str| {
        until("the condition Accepted", || {
            let argv = [
                "get",
                "networkpolicies.margay.io",
                "-n",
                &p.world.ns("red"),
                "p",
            ];
            let object = suite.object(&argv);
            let conditions = list(&object["status"]["conditions"]);
            let accepted = conditions.iter().find(|it| it["type"] == "Accepted");
            let good = accepted.is_some_and(|it| {
                it["status"] == want
                    && text(&it["message"]).contains(message)
                    && it["observedGeneration"] == object["metadata"]["generation"]
            });
            if good {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        });
    };
    // The schema cannot know: it is a text.
    let broken =
        "{ selector: app == 'srv', ingress: [{ action: Allow, source: { selector: role = } }] }";
    p.namespaced("red", "p", broken);
    p.expect(&[
        (CLIENTS, SERVERS, "tcp/80 icmp", false),
        ("blue/cli1", RED, "tcp/80", true),
    ]);
    accepted(
        "False",
        "spec.ingress[0].source.selector: selector is wrong at character 6",
    );
    p.namespaced(
        "red",
        "p",
        "{ selector: app == 'srv', ingress: [{ action: Allow, protocol: TCP }] }",
    );
    let good = [
        (CLIENTS, SERVERS, "tcp/80", true),
        (CLIENTS, SERVERS, "icmp", false),
    ];
    p.expect(&good);
    accepted("True", "");
    // Its last good version stays in force.
    p.namespaced("red", "p", broken);
    accepted("False", "spec.ingress[0].source.selector");
    p.expect(&good);
    // What the schema does know is refused at once.
    let ns = p.world.ns("red");
    let argv = ["apply", "-f", "-"];
    let refusal = suite.refusal(
        &argv,
        &format!("{{ apiVersion: margay.io/v1, kind: NetworkPolicy, metadata: {{ name: q, namespace: {ns} }}, spec: {{ ingress: [{{ action: Allow, source: {{ nets: [10.0.0.1/8] }} }}] }} }}"),
    );
    assert!(
        refusal.contains("spec.ingress[0].source.nets[0]"),
        "{refusal}"
    );
}

fn quoted(addresses: &[String]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|it| format!("'{it}'")).collect();
    addresses.join(", ")
}
