//! How often each rule has decided.

use std::time::Duration;

use e2e::suite::{self, Suite};
use lab::probe::{Family, Probe, Protocol, Verdict};
use serde_json::Value;

use crate::world::Policies;

/// What margayctl on n1 says that rules of a policy have counted.
fn counted(suite: &Suite, policy: &str, rule: &str) -> u64 {
    let all = suite.ctl("n1", &["policy", "counters"]);
    let rules = all["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let found = rules
        .iter()
        .find(|it| it["policy"] == policy && it["direction"] == "ingress" && it["rule"] == rule);
    let packets = found.and_then(|it| it["packets"].as_u64());
    packets.unwrap_or_else(|| panic!("{policy} {rule} in {all:#}"))
}

#[test]
fn connections_are_counted_for_the_rule_that_decides_and_denials_for_the_end() {
    const TIMES: u64 = 5;
    let suite = suite::shared();
    let p = Policies::few(&suite, "count");
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ podSelector: { matchLabels: { role: a } } }], ports: [{ port: 80 }] }, { from: [{ podSelector: { matchLabels: { role: a } } }], ports: [{ port: 9000 }] }] }",
    );
    p.expect(&[
        ("red/cli", "red/srv", "tcp/80", true),
        ("blue/cli", "red/srv", "tcp/80", false),
    ]);
    let policy = format!("{}/p", p.world.ns("red"));
    let now = || ["ingress[0]", "ingress[1]", ""].map(|rule| counted(&suite, &policy, rule));
    let send = |from: &str, expected: Verdict| {
        let probes = Family::ALL.map(|family| Probe {
            from: p.world.place(from),
            to: p.world.place("red/srv"),
            port: 80,
            protocol: Protocol::Tcp,
            family: Some(family),
        });
        for _ in 0..TIMES {
            for answer in suite.probe(&probes, Duration::from_secs(2)) {
                assert_eq!(answer.verdict, expected, "{answer:?}");
            }
        }
    };
    let before = now();
    assert!(before[0] > 0 && before[2] > 0, "{before:?}");
    send("red/cli", Verdict::Allowed);
    let allowed = now();
    let sent = TIMES * 2;
    // Others change policies meanwhile, and live flows are judged again: some are counted twice.
    assert!(allowed[0] >= before[0] + sent, "{before:?} {allowed:?}");
    assert_eq!(allowed[2], before[2], "nothing was denied");
    send("blue/cli", Verdict::Denied);
    let denied = now();
    assert!(denied[2] >= allowed[2] + sent, "{allowed:?} {denied:?}");
    assert_eq!(denied[1], 0, "nobody asked for that port");

    // The explanation says it beside the rule, on the node that enforces it.
    let [cli, srv] = ["red/cli", "red/srv"].map(|pod| p.world.place(pod));
    let argv = [
        "margayctl",
        "policy",
        "explain",
        "--from",
        &cli,
        "--to",
        &srv,
        "--port",
        "80",
        "-o",
        "json",
    ];
    let explained: Value =
        serde_json::from_str(&suite.run("n1", &argv)).unwrap_or_else(|e| panic!("{e}"));
    let rule = &explained["flows"][0]["ingress"]["tiers"][0]["policies"][0]["rules"][0];
    assert_eq!(rule["outcome"], "matched", "{explained:#}");
    assert!(rule["packets"].as_u64() >= Some(allowed[0]), "{rule}");

    // An edit keeps what a rule that stays has counted, and what is new begins with nothing.
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ ports: [{ port: 8081 }] }, { from: [{ podSelector: { matchLabels: { role: a } } }], ports: [{ port: 80 }] }] }",
    );
    suite::until("the edit in force", || {
        let listed = suite.ctl("n1", &["policy", "counters"]);
        let rules = listed["rules"].as_array().map_or(&[][..], Vec::as_slice);
        let new = rules.iter().any(|it| {
            it["policy"] == policy.as_str()
                && it["rule"] == "ingress[0]"
                && it["text"]
                    .as_str()
                    .is_some_and(|text| text.contains("8081"))
        });
        new.then_some(()).ok_or_else(|| listed.to_string())
    });
    assert_eq!(counted(&suite, &policy, "ingress[0]"), 0);
    assert!(counted(&suite, &policy, "ingress[1]") >= denied[0]);
    let zero = suite.run("n1", &["margayctl", "policy", "counters", "--zero"]);
    let named = |line: &&str| line.contains(&policy);
    let zero: Vec<&str> = zero.lines().filter(named).collect();
    assert_eq!(zero.len(), 1, "{zero:?}");
    assert!(zero[0].contains("ingress[0]"), "{zero:?}");
}
