//! The real `margay-bgpd` and a BMP station that comes late, goes away and comes again.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::felix::wait_for_speaker;
use support::{BGPD, Namespace, PATIENCE, Process};

const CONFIG: &str = "
asNumber: 65001
routerID: 192.0.2.1
peers:
- {peerIP: 192.0.2.9, asNumber: 65002}
bmpStations:
- {name: collector, address: '127.0.0.1:11019'}
";

/// The kinds of the messages that arrive.
fn kinds(mut stream: TcpStream) -> Receiver<u8> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut head = [0; 6];
        while stream.read_exact(&mut head).is_ok() {
            assert_eq!(head[0], 3, "the version");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; usize::try_from(length).unwrap() - head.len()];
            stream.read_exact(&mut body).unwrap();
            if sender.send(head[5]).is_err() {
                return;
            }
        }
    });
    receiver
}

fn accept(listener: &TcpListener) -> TcpStream {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                assert!(std::time::Instant::now() < end, "nobody connects");
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_station_is_connected_to_and_again_when_it_was_away() {
    let node = Namespace::new("bmp");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bgpd.yaml"), CONFIG).unwrap();
    let mut command = node.command(BGPD);
    command.arg("--config").arg(dir.path().join("bgpd.yaml"));
    command.arg("--run-dir").arg(dir.path().join("run"));
    command.arg("--state-dir").arg(dir.path().join("state"));
    let _bgpd = Process::start(command, dir.path().join("bgpd.log"));
    wait_for_speaker(&dir.path().join("run/bgpd.sock"));
    // It comes late.
    let listener = node.inside(|| TcpListener::bind("127.0.0.1:11019").unwrap());
    listener.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        let stream = accept(&listener);
        let messages = kinds(stream.try_clone().unwrap());
        assert_eq!(messages.recv_timeout(PATIENCE), Ok(4), "initiation first");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let stream = accept(&listener);
    let messages = kinds(stream);
    assert_eq!(messages.recv_timeout(PATIENCE), Ok(4));
    let text = CONFIG.split("bmpStations").next().unwrap();
    let new = dir.path().join("new.yaml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, dir.path().join("bgpd.yaml")).unwrap();
    assert_eq!(messages.recv_timeout(PATIENCE), Ok(5), "termination last");
    assert!(
        messages.recv_timeout(PATIENCE).is_err(),
        "it is closed then"
    );
}
