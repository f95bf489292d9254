//! The rules in `deploy/base` allow what the daemons really ask of the API, and nothing else: a lab in which they do
//! everything they know, and the kinds of calls that its API server noted.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use apiserver::calls::{self, Called};
use e2e::fault::{Pod, Rig, wait};
use e2e::suite::{list, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "margay-system";

/// What a rule allows: group, resource, verb, and the namespace if it is for one only.
type Allowed = BTreeSet<(String, String, String, Option<String>)>;

/// Calls that this lab does not provoke, and when they are made.
const RARE: [(&str, &str, &str); 4] = [
    // Another create of the same name was there first.
    ("margay-felix", "ipamblocks", "get"),
    // A block was empty for a minute.
    ("margay-felix", "ipamblocks", "delete"),
    // An ADD came long before the pod's object.
    ("margay-felix", "pods", "get"),
    // The same Event once more.
    ("margay-bgpd", "events", "patch"),
];

fn items(rig: &Rig, kind: &str) -> Vec<Value> {
    let found = rig.kubectl(&["get", kind, "-A", "-o", "json"], "").unwrap();
    list(&serde_json::from_str::<Value>(&found).unwrap()["items"]).to_vec()
}

/// What the bindings of a service account allow, once the manifests are applied.
fn allowed(rig: &Rig, account: &str) -> Allowed {
    let mut allowed = Allowed::new();
    for (bindings, roles) in [
        ("clusterrolebindings", "clusterroles"),
        ("rolebindings", "roles"),
    ] {
        let (bindings, roles) = (items(rig, bindings), items(rig, roles));
        let of = |it: &&Value| {
            let subjects = list(&it["subjects"]).iter();
            let mut ours = subjects.filter(|it| it["name"] == account);
            ours.any(|it| it["namespace"] == NAMESPACE && it["kind"] == "ServiceAccount")
        };
        for binding in bindings.iter().filter(of) {
            let same = |it: &&Value| {
                it["metadata"]["name"] == binding["roleRef"]["name"]
                    && it["metadata"]["namespace"] == binding["metadata"]["namespace"]
            };
            let role = roles.iter().find(same).expect("the role of a binding");
            let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
            for rule in list(&role["rules"]) {
                for group in list(&rule["apiGroups"]) {
                    for resource in list(&rule["resources"]) {
                        for verb in list(&rule["verbs"]) {
                            let (group, resource, verb) = (text(group), text(resource), text(verb));
                            assert!(![&group, &resource, &verb].iter().any(|it| *it == "*"));
                            allowed.insert((group, resource, verb, namespace.clone()));
                        }
                    }
                }
            }
        }
    }
    assert!(!allowed.is_empty(), "{account} may do nothing");
    allowed
}

fn permits(rule: &(String, String, String, Option<String>), call: &Called) -> bool {
    let (group, resource, verb, namespace) = rule;
    let here = namespace.as_ref().is_none_or(|it| {
        // In the lab the daemons run in no pod: their own namespace is that of the kubeconfig.
        *it == call.namespace || (it == NAMESPACE && call.namespace == "default")
    });
    here && (group, resource, verb) == (&call.group, &call.resource, &call.verb)
}

/// Makes the daemons do what they know.
fn provoke(rig: &Rig) {
    rig.apply(
        r"
apiVersion: v1
kind: Secret
metadata: { name: bgp-passwords, namespace: default }
stringData: { far: secret }
---
apiVersion: margay.io/v1
kind: BGPFilter
metadata: { name: nothing }
spec: { importV4: [{ action: Reject }] }
---
apiVersion: margay.io/v1
kind: BGPPeer
metadata: { name: far }
spec:
  node: n1
  peerIP: 172.30.1.200
  asNumber: 65200
  filters: [nothing]
  password: { secretKeyRef: { name: bgp-passwords, key: far } }
---
apiVersion: margay.io/v1
kind: BGPPeer
metadata: { name: pods }
spec: { node: n1, localWorkloadSelector: router == 'yes', asNumber: 65201 }
---
apiVersion: margay.io/v1
kind: IPPool
metadata: { name: not-understood }
spec: { cidr: 10.249.0.0/24, nodeSelector: all( }
---
apiVersion: margay.io/v1
kind: IPAMConfiguration
metadata: { name: default }
spec: {}
---
apiVersion: margay.io/v1
kind: Tier
metadata: { name: rbac }
spec: {}
---
apiVersion: margay.io/v1
kind: NetworkPolicy
metadata: { name: rbac, namespace: default }
spec: { selector: has(nothing) }
---
apiVersion: margay.io/v1
kind: GlobalNetworkPolicy
metadata: { name: rbac }
spec: { selector: has(nothing) }
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: { name: rbac }
spec: { tier: Admin, priority: 1, subject: { namespaces: { matchLabels: { no: body } } } }
---
apiVersion: margay.io/v1
kind: NetworkSet
metadata: { name: rbac, namespace: default }
spec: {}
---
apiVersion: margay.io/v1
kind: GlobalNetworkSet
metadata: { name: rbac }
spec: {}
---
apiVersion: margay.io/v1
kind: HostEndpoint
metadata: { name: rbac }
spec: { node: nowhere, interfaceName: eth0 }
---
apiVersion: margay.io/v1
kind: FelixConfiguration
metadata: { name: default }
spec: {}
",
    )
    .unwrap();
    let patch = |kind: &str, spec: &str| {
        let argv = ["patch", kind, "default", "--type", "merge", "-p", spec];
        rig.kubectl(&argv, "").unwrap();
    };
    patch(
        "bgpconfiguration",
        r#"{"spec":{"nodeToNodeMeshEnabled":true}}"#,
    );
    rig.kubectl(&["annotate", "node", "n1", "margay.io/drain=no"], "")
        .unwrap();
    rig.run(&[Pod {
        name: "a",
        node: "n1",
    }])
    .unwrap();
    // Nobody understands this, and the pod's owner is told.
    rig.kubectl(&["annotate", "pod", "a", "qos.margay.io/dscp=none"], "")
        .unwrap();
}

/// A manifest without its Deployments, which the lab's API server does not know.
fn rules(manifest: &str) -> String {
    let documents = manifest.split("\n---\n");
    let rules: Vec<&str> = documents
        .filter(|it| !it.contains("kind: Deployment"))
        .collect();
    rules.join("\n---\n")
}

#[test]
fn the_rules_allow_what_the_daemons_do_and_nothing_else() {
    let rig = Rig::beside("rbac").unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/base");
    for file in [
        "namespace.yaml",
        "felix-rbac.yaml",
        "bgpd-rbac.yaml",
        "controller.yaml",
    ] {
        let file = base.join(file);
        let rules = rules(&std::fs::read_to_string(file).unwrap());
        rig.kubectl(&["apply", "-f", "-"], &rules).unwrap();
    }
    provoke(&rig);
    let noted = || calls::read(&rig.plan().calls());
    for account in ["margay-felix", "margay-bgpd", "margay-controller"] {
        let rules = allowed(&rig, account);
        let rare = |rule: &(String, String, String, Option<String>)| {
            RARE.contains(&(account, rule.1.as_str(), rule.2.as_str()))
        };
        wait("every allowed call", SOON, || {
            let calls = noted()?;
            let own: Vec<&Called> = calls.iter().filter(|it| it.agent == account).collect();
            for call in &own {
                assert!(
                    rules.iter().any(|it| permits(it, call)),
                    "not allowed: {call:?}"
                );
            }
            let used = |rule: &&_| own.iter().any(|call| permits(rule, call));
            let idle: Vec<_> = rules.iter().filter(|it| !rare(it) && !used(it)).collect();
            Ok((!idle.is_empty()).then(|| format!("{account} never did {idle:?}")))
        })
        .unwrap();
    }
    rig.finish().unwrap();
}
