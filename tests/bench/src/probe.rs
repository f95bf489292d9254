//! Asks a pod's responder over UDP, always with a new flow, without a pause between two questions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::netns;

/// Longest time that an answer takes; between namespaces it takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_millis(20);
/// Between two questions while nobody answers yet.
const PAUSE: Duration = Duration::from_micros(500);
/// So many unanswered questions in a row are a denial and no accident.
const DENIED: usize = 5;
/// When to give up.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks until there is an answer; when that came.
pub(crate) fn first_answer(from: &Path, to: SocketAddr) -> Result<Instant> {
    let answered = netns::run_in(from, move || {
        let deadline = Instant::now() + LIMIT;
        let socket = socket(to)?;
        socket.set_nonblocking(true)?;
        let mut buffer = [0; 64];
        while Instant::now() < deadline {
            // No route yet, or a refusal of an earlier question: the next one may do better.
            let _ = socket.send(b"?");
            std::thread::sleep(PAUSE);
            if socket.recv(&mut buffer).is_ok() {
                return Ok(Some(Instant::now()));
            }
        }
        Ok(None)
    })?;
    match answered {
        Some(at) => Ok(at),
        None => bail!("{to} gave no answer for 10 s"),
    }
}

/// Asks until nothing is answered any more; when the first question was put that got no answer.
pub(crate) fn first_denial(from: &Path, to: SocketAddr) -> Result<Instant> {
    let denied = netns::run_in(from, move || {
        let deadline = Instant::now() + LIMIT;
        let mut unanswered: Vec<Instant> = Vec::new();
        while Instant::now() < deadline {
            let asked = Instant::now();
            if answers(to)? {
                unanswered.clear();
            } else {
                unanswered.push(asked);
            }
            if unanswered.len() == DENIED {
                return Ok(Some(unanswered[0]));
            }
        }
        Ok(None)
    })?;
    match denied {
        Some(at) => Ok(at),
        None => bail!("{to} still answers after 10 s"),
    }
}

fn answers(to: SocketAddr) -> io::Result<bool> {
    let socket = socket(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    match socket.send(b"?").and_then(|_| socket.recv(&mut [0; 64])) {
        Ok(_) => Ok(true),
        Err(e) => match e.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ConnectionRefused => Ok(false),
            _ => Err(e),
        },
    }
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_silence() {
        let responder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = responder.local_addr().unwrap();
        let one = std::thread::spawn(move || {
            let (_, peer) = responder.recv_from(&mut [0; 8]).unwrap();
            responder.send_to(b"name\n", peer).unwrap();
            responder
        });
        assert!(answers(to).unwrap());
        let _silent = one.join().unwrap();
        assert!(!answers(to).unwrap());
    }
}
