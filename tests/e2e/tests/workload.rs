//! A pod that runs a router: BIRD in the pod's namespace peers with its node. What the filter names is a route of the node
//! by the pod's interface, and is told to the ToR; nothing else of the pod is taken.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::fault::{Rig, wait};
use e2e::suite::{list, text};

const SOON: Duration = Duration::from_secs(20);
const ROUTED: &str = "10.251.1.0/24";
/// Within a pool, and of no block.
const STOLEN: &str = "10.244.250.0/26";

const OBJECTS: &str = r"
apiVersion: v1
kind: Pod
metadata: { name: router, namespace: default, labels: { router: 'yes' } }
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  containers: [{ name: c, image: responder, ports: [{ containerPort: 80, protocol: TCP }] }]
---
apiVersion: margay.io/v1
kind: BGPFilter
metadata: { name: from-routers }
spec:
  importV4:
  - { name: theirs, cidr: 10.251.0.0/16, action: Accept }
---
apiVersion: margay.io/v1
kind: BGPPeer
metadata: { name: routers }
spec:
  localWorkloadSelector: router == 'yes'
  asNumber: 65201
  filters: [from-routers]
";

struct Bird(Child);

impl Bird {
    fn start(rig: &Rig, pod: IpAddr) -> Self {
        let node = rig.plan().node("n1").unwrap();
        let config = format!(
            "router id {pod};
             log stderr all;
             protocol device {{ }}
             protocol static {{ ipv4; route {ROUTED} blackhole; route {STOLEN} blackhole; }}
             protocol bgp node {{
               local {pod} as 65201;
               neighbor {} as {};
               multihop; connect delay time 1; connect retry time 1; error wait time 1, 2;
               ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
             }}",
            node.address.v4, node.asn
        );
        let dir = &rig.plan().dir;
        let [path, socket, log] = ["pod.conf", "pod.ctl", "pod.log"].map(|it| dir.join(it));
        fs::write(&path, config).unwrap();
        let [path, socket] = [path.to_str().unwrap(), socket.to_str().unwrap()];
        let mut command = rig
            .command("default/router", &["bird", "-f", "-c", path, "-s", socket])
            .unwrap();
        let log = File::create(log).unwrap();
        Self(command.stderr(Stdio::from(log)).spawn().unwrap())
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the node tells its ToR the prefix. The ToR of the lab takes nothing that is not of the node's own AS.
fn told(rig: &Rig, prefix: &str) -> anyhow::Result<bool> {
    let tor = rig.plan().tors[0].address.v4.to_string();
    let argv = ["margayctl", "bgp", "advertised", &tor, "-o", "json"];
    let routes = rig.json("n1", &argv)?;
    Ok(list(&routes["routes"])
        .iter()
        .any(|it| it["prefix"] == prefix))
}

#[test]
fn a_router_in_a_pod_leads_the_fabric_to_what_its_filter_names() {
    let rig = Rig::beside("workload").unwrap();
    rig.apply(OBJECTS).unwrap();
    rig.running(&["router"]).unwrap();
    let sandbox = rig.sandbox("router").unwrap();
    let pod = *sandbox.addresses.iter().find(|it| it.is_ipv4()).unwrap();
    let bird = Bird::start(&rig, pod);

    wait("the route by the pod", SOON, || {
        let argv = ["ip", "-j", "route", "show", ROUTED, "proto", "78"];
        let routes = rig.json("n1", &argv)?;
        let by_pod = list(&routes)
            .iter()
            .any(|it| it["gateway"] == pod.to_string() && text(&it["dev"]).starts_with("mgy"));
        Ok((!by_pod).then(|| routes.to_string()))
    })
    .unwrap();
    wait("the ToR to be told", SOON, || {
        Ok((!told(&rig, ROUTED)?).then(|| "it is not".to_owned()))
    })
    .unwrap();
    let why = rig
        .ask("n1", &["margayctl", "bgp", "explain", STOLEN])
        .unwrap();
    assert!(
        why.contains("refused: from a pod") && !why.contains("the best"),
        "{why}"
    );
    assert!(!told(&rig, STOLEN).unwrap());
    let status = rig
        .json("n1", &["margayctl", "status", "-o", "json"])
        .unwrap();
    assert_eq!(e2e::problems(&status["felix"]), [""; 0], "{status}");

    // Without the pod's router nobody leads there any more.
    drop(bird);
    wait("the route to be gone", SOON, || {
        let argv = ["ip", "-j", "route", "show", ROUTED, "proto", "78"];
        let routes = rig.json("n1", &argv)?;
        let left = list(&routes).len() + usize::from(told(&rig, ROUTED)?);
        Ok((left > 0).then(|| routes.to_string()))
    })
    .unwrap();
    rig.finish().unwrap();
}
