//! What others break on a node: the kernel's tables and routes, and the disk.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::fault::{Kind, Pod, Rig, Traffic, Watch, pictures, policy, same_as, scene, wait};

const SOON: Duration = Duration::from_secs(20);

/// Runs `act` on n1 until policy is as before within a second of it. A machine that has something else to do may be late
/// now and then.
fn tamper(rig: &Rig, what: &str, act: &[&str], before: &[e2e::fault::Picture]) {
    let soon = Duration::from_secs(1);
    let times = (0..3).map(|_| tamper_once(rig, what, act, before));
    let late: Vec<Duration> = times.take_while(|time| *time >= soon).collect();
    assert!(late.len() < 3, "{what}: {late:?}");
}

/// Runs `act` on n1 and tells how long policy in the kernel differs from what it was; prints how long anything does, and
/// how many forbidden packets got through.
fn tamper_once(rig: &Rig, what: &str, act: &[&str], before: &[e2e::fault::Picture]) -> Duration {
    let mut denied = Traffic::none();
    // Into n1, where it is tampered.
    for address in rig.sandbox("guarded").unwrap().addresses {
        denied.add_one(
            "c→guarded",
            &rig.netns("default/c").unwrap(),
            address,
            Kind::NewFlows,
        );
    }
    let rules = policy(rig, "n1").unwrap();
    rig.ask("n1", act).unwrap();
    let start = Instant::now();
    wait("policy to be as before", SOON, || {
        let now = policy(rig, "n1");
        Ok((!now.is_ok_and(|now| now == rules)).then(|| "not yet".to_owned()))
    })
    .unwrap();
    let enforced = start.elapsed();
    same_as(rig, before).unwrap();
    let repaired = start.elapsed();
    let through: usize = denied
        .stop()
        .unwrap()
        .iter()
        .map(|loss| loss.sent - loss.lost)
        .sum();
    println!(
        "{what}: policy as before after {} ms, all after {} ms, {through} forbidden packets got through",
        enforced.as_millis(),
        repaired.as_millis()
    );
    assert!(repaired < Duration::from_secs(30), "{what}: {repaired:?}");
    enforced
}

#[test]
fn what_others_break_in_the_kernel_is_repaired() {
    let rig = scene("tamper").unwrap();
    rig.run(&[Pod {
        name: "guarded",
        node: "n1",
    }])
    .unwrap();
    rig.apply(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: guard, namespace: default }
spec:
  podSelector: { matchLabels: { app: guarded } }
  policyTypes: [Ingress]
",
    )
    .unwrap();
    let netns = rig.netns("default/c").unwrap();
    wait("the policy", SOON, || {
        let mut probe = Traffic::none();
        for address in rig.sandbox("guarded")?.addresses {
            probe.add_one("c→guarded", &netns, address, Kind::NewFlows);
        }
        let open = probe.stop()?.iter().any(|loss| loss.lost < loss.sent);
        Ok(open.then(|| "c reaches guarded".to_owned()))
    })
    .unwrap();
    rig.felix_ready("n1").unwrap();
    let before = pictures(&rig).unwrap();
    let links = rig
        .ask("n1", &["sh", "-c", "ip -br link | grep -o '^mgy[0-9a-f]*'"])
        .unwrap();
    let link = links.lines().next().unwrap();
    let address = rig.sandbox("a").unwrap().addresses;
    let far = rig
        .json("n1", &["ip", "-j", "route", "show", "proto", "78"])
        .unwrap();
    let far = far[0]["dst"].as_str().unwrap().to_owned();
    let nexthop = rig
        .json("n1", &["ip", "-j", "nexthop", "show", "proto", "78"])
        .unwrap();
    let nexthop = nexthop[0]["id"].to_string();
    let block = rig
        .json(
            "n1",
            &[
                "ip",
                "-j",
                "route",
                "show",
                "proto",
                "77",
                "type",
                "unreachable",
            ],
        )
        .unwrap();
    let block = block[0]["dst"].as_str().unwrap().to_owned();
    let (v4, v6) = (format!("{}/32", address[0]), format!("{}/128", address[1]));
    let cases: Vec<(&str, Vec<&str>)> = vec![
        (
            "flush table",
            vec!["nft", "flush", "table", "inet", "margay"],
        ),
        (
            "delete table",
            vec!["nft", "delete", "table", "inet", "margay"],
        ),
        ("flush ruleset", vec!["nft", "flush", "ruleset"]),
        (
            "flush a chain",
            vec!["nft", "flush", "chain", "inet", "margay", "forward"],
        ),
        (
            "a rule with another meaning",
            vec![
                "sh",
                "-c",
                "nft replace rule inet margay act handle $(nft -a list chain inet margay act | sed -n 's/.*goto deny # handle //p') accept",
            ],
        ),
        (
            "a chain more",
            vec![
                "nft",
                "add chain inet margay more { type filter hook forward priority -5; policy drop; }",
            ],
        ),
        (
            "another policy of a chain",
            vec!["nft", "chain inet margay input { policy drop; }"],
        ),
        (
            "a table asleep",
            vec!["nft", "add table inet margay { flags dormant; }"],
        ),
        (
            "flush a set",
            vec!["nft", "flush", "set", "inet", "margay", "workload4"],
        ),
        (
            "an element more",
            vec![
                "nft",
                "add",
                "element",
                "inet",
                "margay",
                "peer4",
                "{ 192.0.2.7 : 0:7 }",
            ],
        ),
        ("group 0", vec!["ip", "link", "set", link, "group", "0"]),
        (
            "another group",
            vec!["ip", "link", "set", link, "group", "7"],
        ),
        (
            "link down and up",
            vec!["sh", "-c", "ip link set $0 down; ip link set $0 up", link],
        ),
        (
            "workload route",
            vec!["ip", "route", "del", &v4, "proto", "77"],
        ),
        (
            "workload route IPv6",
            vec!["ip", "-6", "route", "del", &v6, "proto", "77"],
        ),
        (
            "block route",
            vec!["ip", "route", "del", "unreachable", &block, "proto", "77"],
        ),
        ("BGP route", vec!["ip", "route", "del", &far, "proto", "78"]),
        ("nexthop", vec!["ip", "nexthop", "del", "id", &nexthop]),
        (
            "all BGP routes",
            vec![
                "sh",
                "-c",
                "ip route show proto 78 | while read -r to _; do ip route del $to proto 78; done",
            ],
        ),
        (
            "all nexthops",
            vec!["ip", "nexthop", "flush", "proto", "78"],
        ),
    ];
    for (what, act) in &cases {
        tamper(&rig, what, act, &before);
    }
    rig.finish().unwrap();
}

#[test]
fn a_full_disk_refuses_new_pods_only() {
    let rig = scene("disk").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    rig.kill("felix", Some("n1")).unwrap();
    let plan = rig.plan();
    let state = plan.node_state_dir("n1");
    // Its state on a small disk, in a mount namespace of its own that goes with it.
    let script = format!(
        "cp -a {state}/. {dir}/kept && mount -t tmpfs -o size=256k none {state} && cp -a {dir}/kept/. {state} && \
         exec {bin} --node-name n1 --run-dir {run} --state-dir {state}",
        state = state.display(),
        dir = plan.node_dir("n1").display(),
        bin = lab::bin_dir().unwrap().join("margay-felix").display(),
        run = plan.run_dir("n1").display(),
    );
    std::fs::create_dir_all(plan.node_dir("n1").join("kept")).unwrap();
    let log = std::fs::File::create(plan.logs().join("n1.felix-small.log")).unwrap();
    let mut felix = rig
        .command(
            "n1",
            &[
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                &script,
            ],
        )
        .unwrap()
        .env("KUBECONFIG", rig.kubeconfig())
        .env("MARGAY_CNI_CONF_DIR", plan.cni_conf_dir("n1"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let problems = |rig: &Rig| {
        let status = rig.json("n1", &["margayctl", "status", "-o", "json"])?;
        anyhow::Ok(
            (status["felix"]["synced"] == true).then(|| status["felix"]["problems"].to_string()),
        )
    };
    wait("felix on the small disk", SOON, || {
        Ok(problems(&rig)?.is_none().then(|| "not synced".to_owned()))
    })
    .unwrap();
    let inside = Path::new("/proc")
        .join(felix.id().to_string())
        .join("root")
        .join(state.strip_prefix("/").unwrap());
    rig.run(&[Pod {
        name: "room",
        node: "n1",
    }])
    .unwrap();
    // Full to the last byte.
    let fill = || {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(inside.join("ballast"))?;
        while file.write_all(&[0; 64]).is_ok() {}
        std::io::Result::Ok(())
    };
    fill().unwrap();
    // The log's last page has room for some records.
    let many: Vec<String> = (0..24).map(|i| format!("more-{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let pods: Vec<Pod<'_>> = many.iter().map(|name| Pod { name, node: "n1" }).collect();
    rig.create(&pods).unwrap();
    wait("the reason of the refusal", SOON, || {
        let log = rig.log("n1", "runner");
        Ok((!log.contains("attachment log cannot be written")).then(|| "not said".to_owned()))
    })
    .unwrap();
    let said = problems(&rig).unwrap().unwrap_or_default();
    assert!(said.contains("log"), "margayctl says so, too: {said}");
    // A pod can go all the same.
    rig.delete(&["room"]).unwrap();
    rig.gone(&["room"]).unwrap();
    let there = rig.pods().unwrap();
    let running = there.values().filter(|p| p["status"]["phase"] == "Running");
    assert!(running.count() < 3 + many.len(), "all run without a log");
    std::fs::remove_file(inside.join("ballast")).unwrap();
    rig.running(&many).unwrap();
    rig.delete(&many).unwrap();
    rig.gone(&many).unwrap();
    // Back to the real disk, with the log as it is now.
    let log = std::fs::read(inside.join("attachments.log")).unwrap();
    felix.kill().unwrap();
    felix.wait().unwrap();
    std::fs::write(state.join("attachments.log"), log).unwrap();
    rig.start("felix", Some("n1")).unwrap();
    rig.felix_ready("n1").unwrap();
    same_as(&rig, &before).unwrap();
    watch.unharmed("a full disk").unwrap();
    rig.finish().unwrap();
}
