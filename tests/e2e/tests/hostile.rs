//! Bytes and acts of somebody who means no good, or knows no better: nothing falls over, and nothing changes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::fault::bgp::{BadPeer, message, open, with_length};
use e2e::fault::{Pod, Watch, pictures, same_as, scene, wait};
use lab::netns;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// What is sent, before or after the session is up, and the code and subcode that answer.
struct Bad {
    what: &'static str,
    established: bool,
    bytes: Vec<u8>,
    answer: (u8, u8),
}

/// The AS number and the address of the bad peer of a case.
fn bad_peer(i: usize) -> (u16, IpAddr) {
    let i = u8::try_from(i).unwrap();
    (64_600 + u16::from(i), IpAddr::from([172, 30, 1, 100 + i]))
}

fn bad_messages() -> Vec<Bad> {
    let mut all = Vec::new();
    let mut add = |what, established, bytes, answer| {
        all.push(Bad {
            what,
            established,
            bytes,
            answer,
        });
    };
    // RFC 4271, section 6.1: the header.
    for up in [false, true] {
        let mut marker = message(4, &[]);
        marker[3] = 0;
        add("marker", up, marker, (1, 1));
        add(
            "garbage",
            up,
            b"GET / HTTP/1.1\r\nHost: bgp\r\n\r\n".to_vec(),
            (1, 1),
        );
        add("length below 19", up, with_length(4, 18, &[]), (1, 2));
        add("length above 4096", up, with_length(2, 4097, &[]), (1, 2));
        add("unknown type", up, message(9, &[]), (1, 3));
        add("KEEPALIVE with a body", up, message(4, &[0]), (1, 2));
    }
    // Section 6.2: OPEN, with the AS put right by the test.
    let id = [192, 0, 2, 1];
    add("OPEN without a body", false, message(1, &[]), (1, 2));
    add(
        "OPEN version 3",
        false,
        message(1, &open(3, 0, 90, id)),
        (2, 1),
    );
    add(
        "OPEN wrong AS",
        false,
        message(1, &open(4, 64_999, 90, id)),
        (2, 2),
    );
    add(
        "OPEN no identifier",
        false,
        message(1, &open(4, 0, 90, [0; 4])),
        (2, 3),
    );
    add(
        "OPEN hold time 1",
        false,
        message(1, &open(4, 0, 1, id)),
        (2, 6),
    );
    let mut cut = open(4, 0, 90, id);
    cut.truncate(cut.len() - 3);
    add("OPEN cut", false, message(1, &cut), (2, 0));
    // RFC 6608: not what the state expects.
    add(
        "UPDATE before OPEN",
        false,
        message(2, &[0, 0, 0, 0]),
        (5, 1),
    );
    add("OPEN again", true, message(1, &open(4, 0, 90, id)), (5, 3));
    // Section 6.3 and RFC 7606, where the session cannot be kept.
    add("UPDATE too short", true, message(2, &[0]), (1, 2));
    add(
        "UPDATE withdrawn too long",
        true,
        message(2, &[0, 200, 0, 0]),
        (3, 1),
    );
    add(
        "UPDATE attributes too long",
        true,
        message(2, &[0, 0, 0, 200]),
        (3, 1),
    );
    add(
        "UPDATE prefix of 33 bits",
        true,
        message(2, &[0, 6, 33, 10, 0, 0, 0, 0, 0, 0]),
        (3, 10),
    );
    add("NOTIFICATION too short", true, message(3, &[6]), (1, 2));
    all
}

#[test]
fn bad_bgp_is_answered_with_the_right_notification_and_hurts_no_other_session() {
    let rig = scene("badbgp").unwrap();
    let before = pictures(&rig).unwrap();
    let node: IpAddr = rig.plan().node("n1").unwrap().address.v4.into();
    let cases = bad_messages();
    let mut peers = Vec::new();
    for (i, _) in cases.iter().enumerate() {
        let (asn, address) = bad_peer(i);
        rig.ask(
            "tor-a",
            &["ip", "addr", "add", &format!("{address}/32"), "dev", "rack"],
        )
        .unwrap();
        peers.push(json!({
            "apiVersion": "margay.io/v1", "kind": "BGPPeer",
            "metadata": { "name": format!("bad-{i}") },
            "spec": { "node": "n1", "peerIP": address.to_string(), "asNumber": asn, "passive": true },
        }));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": peers });
    rig.kubectl(&["create", "-f", "-"], &list.to_string())
        .unwrap();
    let watch = Watch::start(&rig).unwrap();
    let mut wrong = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let (asn, address) = bad_peer(i);
        let mut peer = None;
        wait("bgpd to know the peer", SOON, || {
            let mut new = BadPeer::dial(&rig, "tor-a", address, node)?;
            if case.established {
                new.establish(asn, [192, 0, 2, 1])?;
            } else {
                // bgpd says who it is first.
                let (kind, _) = new.receive()?;
                anyhow::ensure!(kind == 1, "message {kind} instead of OPEN");
            }
            peer = Some(new);
            Ok(None)
        })
        .unwrap_or_else(|e| panic!("{}: {e:#}", case.what));
        let mut peer = peer.unwrap();
        let mut bytes = case.bytes.clone();
        if bytes[18] == 1 && bytes.len() > 24 && bytes[20..22] == [0, 0] {
            // The AS of this peer, in both places.
            bytes[20..22].copy_from_slice(&asn.to_be_bytes());
            if let Some(at) = bytes.windows(4).position(|w| w == [65, 4, 0, 0]) {
                bytes[at + 4..at + 6].copy_from_slice(&asn.to_be_bytes());
            }
        }
        peer.send(&bytes);
        let answer = peer.notification();
        let right = answer.as_ref().ok() == Some(&case.answer);
        if !right {
            let up = if case.established {
                "established"
            } else {
                "new"
            };
            wrong.push(format!(
                "{} ({up}): {answer:?} instead of {:?}",
                case.what, case.answer
            ));
        }
    }
    // A peer nobody configured gets no session at all.
    rig.ask(
        "tor-a",
        &["ip", "addr", "add", "172.30.1.99/32", "dev", "rack"],
    )
    .unwrap();
    if let Ok(mut stranger) = BadPeer::dial(&rig, "tor-a", IpAddr::from([172, 30, 1, 99]), node) {
        let heard = stranger.receive();
        assert!(!matches!(heard, Ok((1, _))), "an OPEN for a stranger");
    }
    assert_eq!(wrong, Vec::<String>::new());
    rig.sessions_up().unwrap();
    // The ToR tells the fabric of its addresses.
    rig.ask(
        "tor-a",
        &[
            "sh",
            "-c",
            "for a in $(ip -o -4 addr show dev rack | grep -o '172[0-9.]*/32'); do ip addr del $a dev rack; done",
        ],
    )
    .unwrap();
    rig.kubectl(&["delete", "-f", "-"], &list.to_string())
        .unwrap();
    watch.unharmed("bad BGP").unwrap();
    assert!(rig.alive("n1.bgpd"));
    same_as(&rig, &before).unwrap();
    rig.finish().unwrap();
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

#[test]
fn rubbish_on_the_sockets_changes_nothing() {
    let rig = scene("sockets").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    let run_dir = rig.plan().run_dir("n1");
    let cni = run_dir.join("cni.sock");
    let noise: Vec<u8> = (0..70_000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    let mut words = vec![
        noise.clone(),
        vec![0xff; 4],
        vec![0; 4],
        frame(b"not json"),
        frame(b"{}"),
        frame(b"null"),
        frame(br#"{"v":1}"#),
        frame(br#"{"v":99,"request":"Add"}"#),
        frame(&vec![b'['; 60_000]),
        frame(br#"{"v":1,"Add":{"key":{"network":"","container_id":"","interface":""},"pod":{}}}"#),
        // Half a frame, then the end.
        100_u32.to_be_bytes().to_vec(),
        vec![0, 0],
    ];
    words.push([frame(b"{}"), frame(b"{}"), noise].concat());
    for word in &words {
        let mut stream = UnixStream::connect(&cni).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let _ = stream.write_all(word);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !String::from_utf8_lossy(&answer).contains("Reserved"),
            "{answer:?}"
        );
    }
    for socket in ["felix.sock", "bgpd.sock"] {
        for word in &words {
            let mut stream = UnixStream::connect(run_dir.join(socket)).unwrap();
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            let _ = stream.write_all(word);
        }
    }
    // Many who say nothing, and hold on, while the plugin wants to work.
    let mut idle: Vec<UnixStream> = Vec::new();
    for _ in 0..400 {
        idle.extend(UnixStream::connect(&cni));
    }
    for _ in 0..1000 {
        drop(UnixStream::connect(&cni));
    }
    rig.run(&[Pod {
        name: "new",
        node: "n1",
    }])
    .unwrap();
    rig.delete(&["new"]).unwrap();
    rig.gone(&["new"]).unwrap();
    drop(idle);
    for process in ["n1.felix", "n1.bgpd"] {
        assert!(rig.alive(process));
    }
    rig.felix_ready("n1").unwrap();
    same_as(&rig, &before).unwrap();
    watch.unharmed("rubbish on the sockets").unwrap();
    assert!(!rig.log("n1", "felix").contains("panicked"));
    rig.finish().unwrap();
}

/// Runs the plugin with an environment and a standard input as they are; the error code it answers with.
fn code_of(env: &[(&str, &str)], stdin: &[u8]) -> Value {
    let mut child = Command::new(lab::bin_dir().unwrap().join("margay"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{env:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    answer["code"].clone()
}

#[test]
fn the_plugin_answers_bad_calls_with_the_right_code_and_changes_nothing() {
    let rig = scene("plugin").unwrap();
    let before = pictures(&rig).unwrap();
    let file = rig.plan().cni_conf_dir("n1").join("10-margay.conflist");
    let list: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    let good = conf.to_string();
    let with = |key: &str, value: Value| {
        let mut conf = conf.clone();
        conf[key] = value;
        conf.to_string()
    };
    let pod = netns::path(&rig.sandbox("a").unwrap().netns)
        .display()
        .to_string();
    let add = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "bad1"),
        ("CNI_NETNS", pod.as_str()),
        ("CNI_IFNAME", "eth7"),
        (
            "CNI_ARGS",
            "K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=u",
        ),
        ("CNI_PATH", "/bin"),
    ];
    let but = |key: &'static str, value: Option<&'static str>| -> Vec<(&str, &str)> {
        let kept = add.iter().copied().filter(|(k, _)| *k != key);
        kept.chain(value.map(|value| (key, value))).collect()
    };
    let cases = [
        (
            "unknown command",
            but("CNI_COMMAND", Some("MELT")),
            good.clone().into(),
            4,
        ),
        (
            "no container",
            but("CNI_CONTAINERID", None),
            good.clone().into(),
            4,
        ),
        (
            "a container with a path",
            but("CNI_CONTAINERID", Some("../../x")),
            good.clone().into(),
            4,
        ),
        (
            "no namespace",
            but("CNI_NETNS", None),
            good.clone().into(),
            4,
        ),
        (
            "no interface",
            but("CNI_IFNAME", None),
            good.clone().into(),
            4,
        ),
        (
            "an interface with a path",
            but("CNI_IFNAME", Some("../eth0")),
            good.clone().into(),
            4,
        ),
        (
            "an interface too long",
            but("CNI_IFNAME", Some("a234567890123456")),
            good.clone().into(),
            4,
        ),
        (
            "a namespace that is not there",
            but("CNI_NETNS", Some("/run/netns/none")),
            good.clone().into(),
            3,
        ),
        ("no configuration", add.to_vec(), Vec::new(), 6),
        ("garbage", add.to_vec(), b"\0\xff garbage".to_vec(), 6),
        (
            "half a configuration",
            add.to_vec(),
            good.as_bytes()[..good.len() / 2].to_vec(),
            6,
        ),
        (
            "an unknown version",
            add.to_vec(),
            with("cniVersion", json!("9.9.9")).into(),
            1,
        ),
        ("no name", add.to_vec(), with("name", json!("")).into(), 7),
        (
            "no felix there",
            add.to_vec(),
            with("socket", json!("/nonexistent/cni.sock")).into(),
            11,
        ),
        (
            "a file for a namespace",
            but("CNI_NETNS", Some("/etc/hostname")),
            good.clone().into(),
            3,
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(what, env, stdin, code)| {
            let answer = code_of(env, stdin);
            (answer != *code).then(|| format!("{what}: {answer} instead of {code}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    same_as(&rig, &before).unwrap();
    rig.finish().unwrap();
}
