//! Sockets as BGP wants them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crds::net::Family;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Network control, DSCP CS6 (RFC 4594 section 3.1), as the byte in the header.
const CS6: u32 = 0xc0;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// A socket with what both ends have in common.
fn tcp(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A message is small and complete; waiting for more only delays it.
    socket.set_tcp_nodelay(true)?;
    match family {
        Family::V4 => socket.set_tos_v4(CS6)?,
        Family::V6 => socket.set_tclass_v6(CS6)?,
    }
    Ok(socket)
}

/// Listens on every address of the family. Accepted sockets inherit the options.
pub(crate) fn listen(family: Family, port: u16) -> io::Result<TcpListener> {
    let socket = tcp(family)?;
    socket.set_reuse_address(true)?;
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => {
            socket.set_only_v6(true)?;
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to a peer, from `local` when it is given.
pub(crate) async fn connect(local: Option<IpAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp(Family::of(remote.ip()))?;
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(remote)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_listen_on_one_port_and_mark_their_packets() {
        let v4 = listen(Family::V4, 0).unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = listen(Family::V6, port).expect("IPv6 does not take IPv4's port");

        let local = IpAddr::from([127, 0, 0, 2]);
        let out = connect(Some(local), SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .unwrap();
        assert_eq!(out.local_addr().unwrap().ip(), local);
        assert!(out.nodelay().unwrap());
        assert_eq!(socket2::SockRef::from(&out).tos_v4().unwrap(), CS6);
        let (accepted, from) = v4.accept().await.unwrap();
        assert_eq!(from.ip(), local);
        assert_eq!(socket2::SockRef::from(&accepted).tos_v4().unwrap(), CS6);

        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let (out, accepted) = tokio::join!(connect(None, six), v6.accept());
        assert_eq!(
            out.unwrap().local_addr().unwrap(),
            accepted.unwrap().1,
            "the IPv6 listener took it"
        );
    }
}
