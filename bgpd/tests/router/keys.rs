//! TCP MD5 (RFC 2385).

use std::fmt::Write as _;

use nix::sys::signal::Signal;

use crate::rig::Rig;
use crate::support::{BGPD, Namespace, Process, wait_for};

/// Six sessions with BIRD: over both families, made by it and made by us, and two for which it has another key.
const SESSIONS: [(&str, u8, bool, &str); 6] = [
    ("dial4", 11, false, "right"),
    ("dial6", 12, false, "right"),
    ("wait4", 13, true, "right"),
    ("wait6", 14, true, "right"),
    ("wrong4", 15, false, "other"),
    ("wrong6", 16, true, "other"),
];

/// Our end and theirs of a session: BIRD has one session with one address.
fn ends(name: &str, number: u8) -> (String, String) {
    match name.ends_with('6') {
        true => (
            format!("2001:db8::{number}"),
            format!("2001:db8::1{number}"),
        ),
        false => (format!("192.0.2.{number}"), format!("192.0.2.1{number}")),
    }
}

fn ours(wrong: &str) -> String {
    let mut text =
        "asNumber: 4200000001\nrouterID: 192.0.2.1\nholdTimeSeconds: 9\npeers:\n".to_owned();
    for (name, number, passive, _) in SESSIONS {
        let (own, address) = ends(name, number);
        let key = if name.starts_with("wrong") {
            wrong
        } else {
            "right"
        };
        writeln!(
            text,
            "- {{name: {name}, peerIP: '{address}', asNumber: 64601, localAddress: '{own}', passive: {passive}, password: {{value: {key}}}, \
             connect: {{timeoutMillis: 1000, retryMinMillis: 100, retryMaxMillis: 500}}}}"
        )
        .unwrap();
    }
    text
}

#[test]
fn sessions_come_up_with_the_right_key_only_whoever_connects() {
    let rig = Rig::new();
    let mut theirs = String::from("router id 192.0.2.254;\n");
    for (name, number, passive, key) in SESSIONS {
        let (own, address) = ends(name, number);
        let (rest, channel) = match name.ends_with('6') {
            true => ("/64 dev up0 nodad", "ipv6"),
            false => ("/24 dev up0", "ipv4"),
        };
        rig.node.ip(&format!("addr add {own}{rest}"));
        rig.tor.ip(&format!("addr add {address}{rest}"));
        // Who waits there connects here.
        let passive = if passive { "" } else { "passive;" };
        writeln!(
            theirs,
            "protocol bgp {name} from fast {{ local {address} as 64601; neighbor {own} as 4200000001; password \"{key}\"; \
             {passive} {channel} {{ import all; export none; }}; }}"
        )
        .unwrap();
    }
    let bird = rig.bird(&rig.tor, "bird", &theirs);
    let bgpd = rig.bgpd(&rig.node, "bgpd", &ours("right"));
    bgpd.wait_established(&["dial4", "dial6", "wait4", "wait6"]);
    let wrong = bgpd.wait_neighbor("wrong4", "an attempt that failed", |it| {
        it.state == "Active" || it.state == "Connect"
    });
    assert_eq!(wrong.messages_received, 0);
    assert!(!bird.ask("show protocols wrong6").contains("Established"));

    // A key of which nothing is known but its name in the recording.
    bgpd.configure(&ours("other"));
    bgpd.wait_established(&["dial4", "dial6", "wait4", "wait6", "wrong4", "wrong6"]);
    for (name, ..) in SESSIONS {
        assert_eq!(bgpd.neighbor(name).established_count, 1, "{name}");
    }
    let recorded = std::fs::read_to_string(bgpd.dir.join("run.jsonl")).unwrap();
    assert!(recorded.contains("password") && !recorded.contains("right"));
}

fn one(name: &str, own: &str, peer: &str, key: Option<&str>) -> String {
    let asns = if own == "192.0.2.1" {
        (65001, 65002)
    } else {
        (65002, 65001)
    };
    let key = key.map_or(String::new(), |it| format!("password: {{value: {it}}}, "));
    format!(
        "asNumber: {}\nrouterID: {own}\nholdTimeSeconds: 3\npeers:\n- {{name: {name}, peerIP: {peer}, asNumber: {}, {key}\
         connect: {{timeoutMillis: 1000, retryMinMillis: 100, retryMaxMillis: 500}}}}\n",
        asns.0, asns.1
    )
}

#[test]
fn a_key_changes_while_the_session_lives() {
    let rig = Rig::new();
    let here = |key| one("there", "192.0.2.1", "192.0.2.254", key);
    let there = |key| one("here", "192.0.2.254", "192.0.2.1", key);
    let a = rig.bgpd(&rig.node, "a", &here(Some("first")));
    let b = rig.bgpd(&rig.tor, "b", &there(Some("first")));
    a.wait_established(&["there"]);
    b.wait_established(&["here"]);

    // To another key, to none, and to one again; the second side follows when it notices its file.
    for key in [Some("second"), None, Some("third")] {
        a.configure(&here(key));
        b.configure(&there(key));
        for bgpd in [&a, &b] {
            wait_for("the configuration to be taken", || {
                let lines = bgpd.process.log().matches("new configuration").count();
                let wanted = [Some("second"), None, Some("third")]
                    .iter()
                    .position(|it| *it == key)?;
                (lines > wanted).then_some(())
            });
        }
        let heard = a.neighbor("there").messages_received;
        a.wait_neighbor("there", "messages with the new key", |it| {
            it.messages_received >= heard + 3
        });
        assert_eq!(a.neighbor("there").established_count, 1, "{key:?}");
    }

    // One side alone is not heard any more: the key is in force on the living connection.
    a.configure(&here(Some("fourth")));
    a.wait_neighbor("there", "down", |it| it.state != "Established");
    b.wait_neighbor("here", "down", |it| it.state != "Established");
    b.configure(&there(Some("fourth")));
    a.wait_neighbor("there", "up again", |it| it.established_count == 2);
}

#[test]
fn keys_and_hops_need_no_capability() {
    let rig = Rig::new();
    let dropped = |name: &str, namespace: &Namespace, config: &str| {
        let dir = rig.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("bgpd.yaml"), config).unwrap();
        // uid 0 with nothing but the right to listen on port 179.
        let mut command = namespace.command("setpriv");
        command.args([
            "--bounding-set=-all,+net_bind_service",
            "--inh-caps=-all,+net_bind_service",
        ]);
        command.arg("--no-new-privs");
        command.arg(BGPD);
        command.arg("--config").arg(dir.join("bgpd.yaml"));
        command.arg("--run-dir").arg(dir.join("run"));
        command.arg("--state-dir").arg(dir.join("state"));
        Process::start(command, dir.join("log"))
    };
    let config = |own, peer| {
        one("peer", own, peer, Some("secret"))
            .replace(
                "password",
                "localAddress: OWN, localPort: 1790, ttlSecurity: 1, password",
            )
            .replace("OWN", own)
    };
    let mut a = dropped("a", &rig.node, &config("192.0.2.1", "192.0.2.254"));
    let b = dropped("b", &rig.tor, &config("192.0.2.254", "192.0.2.1"));
    for process in [&a, &b] {
        wait_for("a session", || {
            process.log().contains("session established").then_some(())
        });
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", a.pid())).unwrap();
    let effective = status.lines().find(|it| it.starts_with("CapEff")).unwrap();
    assert!(effective.ends_with("\t0000000000000400"), "{effective}");
    a.signal(Signal::SIGTERM);
    assert_eq!(a.wait_exit(), Some(0));
}
