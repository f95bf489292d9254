//! Who has the last word: rules, policies, tiers, and the NetworkPolicies between them.

use e2e::suite;

use crate::world::{Object, Policies};

const ALL: &str = "red/cli blue/cli";
const SRV: &str = "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: { matchLabels: { app: srv } } } }";

/// A policy for ingress of `red/srv`.
fn spec(tier: &str, priority: u32, rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|(action, team)| {
            format!(
                "{{ action: {action}, from: [{{ namespaces: {{ matchLabels: {{ kubernetes.io/metadata.name: {{{team}}} }} }} }}] }}"
            )
        })
        .collect();
    let rules = rules.join(", ");
    format!("{{ tier: {tier}, priority: {priority}, subject: {SRV}, ingress: [{rules}] }}")
}

fn policy<'a>(p: &'a Policies<'a>, name: &str, spec: &str) -> Object<'a> {
    p.cluster("clusternetworkpolicy", name, spec)
}

fn network_policy(p: &Policies<'_>, from: &str) {
    p.apply(
        "red",
        "np",
        &format!("{{ podSelector: {{ matchLabels: {{ app: srv }} }}, ingress: [{from}] }}"),
    );
}

const FROM_BLUE: &str =
    "{ from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }] }";

#[track_caller]
fn reach(p: &Policies<'_>, red: bool, blue: bool) {
    p.expect(&[
        ("red/cli", "red/srv", "tcp/80 icmp", red),
        ("blue/cli", "red/srv", "tcp/80 icmp", blue),
    ]);
}

#[test]
fn rules_are_asked_from_top_to_bottom() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnptop");
    let it = policy(
        &p,
        "p",
        &spec("Admin", 5, &[("Accept", "blue"), ("Deny", "blue")]),
    );
    network_policy(&p, "");
    reach(&p, false, true);
    it.becomes(&spec("Admin", 5, &[("Deny", "blue"), ("Accept", "blue")]));
    reach(&p, false, false);
    it.becomes(&spec(
        "Admin",
        5,
        &[("Pass", "blue"), ("Accept", "blue"), ("Accept", "red")],
    ));
    reach(&p, true, false);
}

#[test]
fn policies_are_asked_by_priority_and_those_of_one_priority_by_name() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpname");
    let accept = policy(&p, "b", &spec("Admin", 7, &[("Accept", "blue")]));
    let deny = policy(&p, "c", &spec("Admin", 7, &[("Deny", "blue")]));
    network_policy(&p, "");
    reach(&p, false, true);
    let first = policy(&p, "a", &spec("Admin", 7, &[("Deny", "blue")]));
    reach(&p, false, false);
    // Numbers, not texts: 10 is after 7. 0 and 1000 are the ends.
    first.becomes(&spec("Admin", 10, &[("Deny", "blue")]));
    reach(&p, false, true);
    first.becomes(&spec("Admin", 0, &[("Deny", "blue")]));
    reach(&p, false, false);
    first.becomes(&spec("Admin", 1000, &[("Deny", "blue")]));
    reach(&p, false, true);
    drop((accept, deny));
}

#[test]
fn accept_in_admin_is_final_whatever_comes_after() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpaccept");
    network_policy(&p, "");
    let baseline = policy(
        &p,
        "z",
        &spec("Baseline", 5, &[("Deny", "blue"), ("Deny", "red")]),
    );
    reach(&p, false, false);
    let admin = policy(&p, "a", &spec("Admin", 5, &[("Accept", "blue")]));
    reach(&p, false, true);
    drop((admin, baseline));
}

#[test]
fn deny_in_admin_is_final_whatever_comes_after() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpdeny");
    network_policy(&p, FROM_BLUE);
    let baseline = policy(
        &p,
        "z",
        &spec("Baseline", 5, &[("Accept", "blue"), ("Accept", "red")]),
    );
    reach(&p, false, true);
    let admin = policy(&p, "a", &spec("Admin", 5, &[("Deny", "blue")]));
    reach(&p, false, false);
    drop((admin, baseline));
}

#[test]
fn pass_in_admin_leaves_it_to_network_policies() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnppass");
    let admin = policy(
        &p,
        "a",
        &spec("Admin", 5, &[("Pass", "blue"), ("Pass", "red")]),
    );
    // The rest of the tier is not asked, whatever its priority.
    let rest = policy(
        &p,
        "b",
        &spec("Admin", 6, &[("Accept", "red"), ("Deny", "blue")]),
    );
    network_policy(&p, FROM_BLUE);
    reach(&p, false, true);
    drop((admin, rest));
}

#[test]
fn pass_in_admin_leaves_it_to_baseline_where_no_network_policy_is() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpbelow");
    let admin = policy(
        &p,
        "a",
        &spec("Admin", 5, &[("Pass", "blue"), ("Pass", "red")]),
    );
    let baseline = policy(
        &p,
        "z",
        &spec("Baseline", 5, &[("Deny", "blue"), ("Accept", "red")]),
    );
    reach(&p, true, false);
    drop((admin, baseline));
}

#[test]
fn what_no_rule_of_admin_matches_is_left_to_what_comes_after() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpnone");
    let admin = policy(&p, "a", &spec("Admin", 5, &[("Accept", "blue")]));
    network_policy(&p, "");
    reach(&p, false, true);
    p.delete("red", "np");
    let baseline = policy(&p, "z", &spec("Baseline", 5, &[("Deny", "red")]));
    reach(&p, false, true);
    drop(baseline);
    reach(&p, true, true);
    drop(admin);
}

#[test]
fn baseline_is_for_pods_that_no_network_policy_selects_in_that_direction() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnplast");
    let baseline = policy(
        &p,
        "z",
        &spec("Baseline", 5, &[("Deny", "blue"), ("Accept", "red")]),
    );
    reach(&p, true, false);
    // What they do not allow, baseline cannot; what they allow, it cannot forbid.
    network_policy(&p, FROM_BLUE);
    reach(&p, false, true);
    // One for the other direction says nothing here.
    p.apply(
        "red",
        "np",
        "{ podSelector: { matchLabels: { app: srv } }, policyTypes: [Egress], egress: [{}] }",
    );
    reach(&p, true, false);
    drop(baseline);
}

#[test]
fn pass_in_baseline_is_the_end_and_allows() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpend");
    let first = policy(&p, "a", &spec("Baseline", 5, &[("Pass", "blue")]));
    let second = policy(
        &p,
        "b",
        &spec("Baseline", 6, &[("Deny", "blue"), ("Deny", "red")]),
    );
    reach(&p, false, true);
    drop(first);
    reach(&p, false, false);
    drop(second);
}

#[test]
fn a_tier_of_ours_comes_between_admin_and_network_policies() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnptier");
    let tier = p.cluster("tier", "t", "{ order: 5000, defaultAction: Pass }");
    let ours = p.cluster(
        "globalnetworkpolicy",
        "g",
        &format!(
            "{{ tier: {}, selector: app == 'srv', namespaceSelector: kubernetes.io/metadata.name == '{{red}}', ingress: [{{ action: Deny, source: {{ namespaceSelector: kubernetes.io/metadata.name == '{{blue}}' }} }}] }}",
            tier.name
        ),
    );
    network_policy(&p, FROM_BLUE);
    reach(&p, false, false);
    let admin = policy(&p, "a", &spec("Admin", 5, &[("Accept", "blue")]));
    reach(&p, false, true);
    admin.becomes(&spec("Admin", 5, &[("Pass", "blue")]));
    reach(&p, false, false);
    drop((admin, ours, tier));
}

#[test]
fn both_ends_are_judged_each_by_its_own_policies() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpends");
    let ingress = policy(&p, "in", &spec("Admin", 5, &[("Accept", "blue")]));
    reach(&p, true, true);
    let egress = policy(
        &p,
        "out",
        "{ tier: Admin, priority: 9, subject: { namespaces: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }, egress: [{ action: Deny, to: [{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {red} } } }] }] }",
    );
    reach(&p, true, false);
    // What was opened the other way is answered.
    p.expect(&[("red/srv", "blue/cli", "tcp/80 icmp", true)]);
    drop((ingress, egress));
    reach(&p, true, true);
}

#[test]
fn a_policy_without_rules_changes_nothing() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpempty");
    for tier in ["Admin", "Baseline"] {
        let it = policy(&p, "p", &spec(tier, 5, &[]));
        let rows = [
            (ALL, "red/srv", "tcp/80 udp/80 icmp", true),
            ("red/srv", ALL, "tcp/80 udp/80 icmp", true),
            ("tor-a", "red/srv", "tcp/80", true),
        ];
        p.expect(&rows);
        network_policy(&p, FROM_BLUE);
        reach(&p, false, true);
        p.delete("red", "np");
        drop(it);
    }
}

#[test]
fn a_deleted_policy_decides_nothing_any_more() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpgone");
    let one = policy(
        &p,
        "a",
        &spec("Admin", 5, &[("Deny", "blue"), ("Deny", "red")]),
    );
    let two = policy(&p, "b", &spec("Admin", 6, &[("Accept", "blue")]));
    let three = policy(&p, "c", &spec("Baseline", 5, &[("Deny", "red")]));
    reach(&p, false, false);
    drop(one);
    reach(&p, false, true);
    drop(three);
    reach(&p, true, true);
    drop(two);
    reach(&p, true, true);
}
