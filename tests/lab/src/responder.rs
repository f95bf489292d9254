//! What runs in a pod: answers on every declared port, both families, with the pod's name.
//!
//! TCP: the name and a newline at once, then again for every chunk that arrives, until the peer closes; so a
//! connection can be held open and tried. UDP: the name for every datagram. Costs two descriptors per port
//! and no process.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tracing::warn;

use crate::netns;

/// A transport protocol a responder speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The listeners of one pod; they end when this is dropped.
#[derive(Debug)]
pub struct Responder {
    tasks: JoinSet<()>,
}

impl Responder {
    /// Opens the ports in the namespace and answers on them. A port that is taken (two containers, or a pod
    /// on its host's network) is logged and left out.
    pub async fn start(name: &str, netns: &Path, ports: &[(Transport, u16)]) -> io::Result<Self> {
        let answer: Arc<[u8]> = format!("{name}\n").into_bytes().into();
        let wanted = ports.to_vec();
        let path = netns.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            netns::run_in(&path, move || {
                Ok(wanted
                    .into_iter()
                    .map(|(transport, port)| (transport, port, listen(transport, port)))
                    .collect::<Vec<_>>())
            })
        })
        .await
        .map_err(io::Error::other)??;
        let mut tasks = JoinSet::new();
        for (transport, port, socket) in opened {
            match socket {
                Ok(socket) => match transport {
                    Transport::Tcp => {
                        tasks.spawn(serve_tcp(
                            TcpListener::from_std(socket.into())?,
                            answer.clone(),
                        ));
                    }
                    Transport::Udp => {
                        tasks.spawn(serve_udp(
                            UdpSocket::from_std(socket.into())?,
                            answer.clone(),
                        ));
                    }
                },
                Err(error) => {
                    warn!(pod = name, ?transport, port, %error, "cannot answer on this port")
                }
            }
        }
        Ok(Self { tasks })
    }

    /// How many ports are answered on.
    pub fn ports(&self) -> usize {
        self.tasks.len()
    }
}

/// One socket for both families.
fn listen(transport: Transport, port: u16) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::IPV6, kind, None)?;
    socket.set_only_v6(false)?;
    socket.set_nonblocking(true)?;
    if transport == Transport::Tcp {
        socket.set_reuse_address(true)?;
    }
    let any = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
    socket.bind(&any.into())?;
    if transport == Transport::Tcp {
        socket.listen(1024)?;
    }
    Ok(socket)
}

async fn serve_tcp(listener: TcpListener, answer: Arc<[u8]>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, answer.clone()));
                }
                // Out of descriptors, or the peer has gone already: the next one may do better.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, answer: Arc<[u8]>) {
    let mut buffer = [0; 1024];
    while stream.write_all(&answer).await.is_ok() {
        match stream.read(&mut buffer).await {
            Ok(1..) => {}
            _ => break,
        }
    }
}

async fn serve_udp(socket: UdpSocket, answer: Arc<[u8]>) {
    let mut buffer = [0; 2048];
    loop {
        // An error here is the ICMP answer to an earlier datagram of ours; there is always a next one.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}
