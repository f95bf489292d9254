//! Sockets as BGP wants them: the options that the standard library has no words for.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use crds::net::{Cidr, Family};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::speaker::Hops;

/// Network control, DSCP CS6 (RFC 4594 section 3.1), as the byte in the header.
pub(crate) const CS6: u32 = 0xc0;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// The longest key of TCP MD5 (RFC 2385) that Linux takes, bytes.
pub(crate) const KEY_MAX: usize = 80;

/// `TCP_MD5SIG_FLAG_PREFIX`: the key is for a prefix.
const FLAG_PREFIX: u8 = 1;

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

/// A socket for every address of the family that is bound, but does not listen yet. Accepted sockets inherit its options.
pub(crate) fn bind(family: Family, port: u16) -> io::Result<Socket> {
    let socket = tcp(family)?;
    socket.set_reuse_address(true)?;
    // A peer that uses GTSM (RFC 5082) takes the answer to its SYN from nobody else.
    set_ttl(&socket, family, u8::MAX)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1)?;
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => {
            socket.set_only_v6(true)?;
            Ipv6Addr::UNSPECIFIED.into()
        }
    };
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}

/// Listens with a socket that [`bind`] made.
pub(crate) fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How a connection is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    /// Own address; the kernel's choice when unset.
    pub(crate) address: Option<IpAddr>,
    /// Own port; the kernel's choice when unset.
    pub(crate) port: Option<u16>,
    /// Where to.
    pub(crate) remote: SocketAddr,
    /// How far the peer may be.
    pub(crate) hops: Hops,
    /// Key of TCP MD5 (RFC 2385).
    pub(crate) key: Option<Vec<u8>>,
}

/// Connects to a peer.
pub(crate) async fn connect(dial: Dial) -> io::Result<TcpStream> {
    let family = Family::of(dial.remote.ip());
    let socket = tcp(family)?;
    limit(&socket, family, dial.hops)?;
    if let Some(key) = &dial.key {
        set_key(&socket, Cidr::host(dial.remote.ip()), Some(key)).map_err(|e| {
            io::Error::new(e.kind(), format!("the kernel refuses the TCP MD5 key: {e}"))
        })?;
    }
    if dial.address.is_some() || dial.port.is_some() {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = SocketAddr::new(dial.address.unwrap_or(any), dial.port.unwrap_or(0));
        match dial.port {
            // The same port again although the connection before has not been forgotten.
            Some(_) => socket.set_reuse_address(true)?,
            // The port is chosen together with the remote end: one source address does not run out of ports.
            None => set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1)?,
        }
        socket
            .bind(&local.into())
            .map_err(|e| io::Error::new(e.kind(), format!("cannot connect from {local}: {e}")))?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(dial.remote)
        .await
}

/// Says how far the peer of a connection may be (RFC 5082).
pub(crate) fn limit(socket: &impl AsRawFd, family: Family, hops: Hops) -> io::Result<()> {
    set_ttl(socket, family, hops.ttl)?;
    let least = libc::c_int::from(hops.least);
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        Family::V6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
    }
}

fn set_ttl(socket: &impl AsRawFd, family: Family, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    match family {
        Family::V4 => set(socket, libc::IPPROTO_IP, libc::IP_TTL, &ttl),
        Family::V6 => set(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &ttl),
    }
}

/// The kernel's `struct tcp_md5sig`.
#[repr(C)]
struct Md5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: libc::c_int,
    key: [u8; KEY_MAX],
}

/// Segments to and from the addresses are signed with the key from now on; None: they are not signed. A key for one address
/// comes before one for a range. Needs no capability.
pub(crate) fn set_key(socket: &impl AsRawFd, of: Cidr, key: Option<&[u8]>) -> io::Result<()> {
    let given = key.unwrap_or_default();
    let mut key = [0; KEY_MAX];
    key.get_mut(..given.len())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .copy_from_slice(given);
    let (name, flags, prefix_len) = match of.is_host() {
        true => (libc::TCP_MD5SIG, 0, 0),
        false => (libc::TCP_MD5SIG_EXT, FLAG_PREFIX, of.prefix_len()),
    };
    let md5 = Md5Sig {
        address: SockAddr::from(SocketAddr::new(of.first(), 0)).as_storage(),
        flags,
        prefix_len,
        key_len: u16::try_from(given.len()).map_err(io::Error::other)?,
        ifindex: 0,
        key,
    };
    match set(socket, libc::IPPROTO_TCP, name, &md5) {
        // There was none to take away.
        Err(e) if given.is_empty() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// The packet that an accepted connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syn {
    /// TTL or hop limit as it arrived.
    pub(crate) ttl: u8,
    /// It has an MD5 signature (RFC 2385). The kernel drops signed packets for which the listener has no key, and those whose
    /// signature is wrong: so the listener had the key, and the peer has it.
    pub(crate) signed: bool,
}

/// The SYN that an accepted connection began with; None: the kernel has not kept it.
pub(crate) fn syn(socket: &impl AsRawFd) -> Option<Syn> {
    let mut header = [0_u8; 512];
    let mut length = libc::socklen_t::try_from(header.len()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes to `header`, which is that long and outlives the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            header.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if code != 0 || length == 0 {
        return None;
    }
    header
        .get(..usize::try_from(length).ok()?)
        .and_then(read_syn)
}

/// Reads a SYN from its network header on.
fn read_syn(packet: &[u8]) -> Option<Syn> {
    let (ttl, tcp) = match packet.first()? >> 4 {
        4 => (packet.get(8)?, usize::from(packet[0] & 0xf) * 4),
        // Behind other headers no option is looked for: nobody signs such packets.
        6 => (packet.get(7)?, 40),
        _ => return None,
    };
    let is_tcp = packet[0] >> 4 == 4 || packet[6] == 6;
    let options = packet.get(tcp..).filter(|_| is_tcp).and_then(options);
    Some(Syn {
        ttl: *ttl,
        signed: options.is_some_and(|it| has_option(it, MD5_OPTION)),
    })
}

/// Kind of the option with an MD5 signature (RFC 2385 section 3.0).
const MD5_OPTION: u8 = 19;

/// The options of a TCP header.
fn options(tcp: &[u8]) -> Option<&[u8]> {
    let length = usize::from(tcp.get(12)? >> 4) * 4;
    tcp.get(20..length)
}

/// Whether an option of that kind is among them (RFC 9293 section 3.1).
fn has_option(mut options: &[u8], kind: u8) -> bool {
    loop {
        match *options {
            [] | [0, ..] => return false,
            [1, ref rest @ ..] => options = rest,
            [it, ..] if it == kind => return true,
            [_, length, ..] if length >= 2 => match options.get(usize::from(length)..) {
                Some(rest) => options = rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Runs this thread before all others of the program, and before most of the system: as real-time if that is allowed, else
/// with the best of the ordinary priorities that is. Without the capability SYS_NICE neither may be.
pub(crate) fn prefer_this_thread() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) } == 0 {
        return Ok(());
    }
    // SAFETY: it takes numbers only; on Linux 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an option to a value of the type that the kernel expects.
fn set<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let fd: RawFd = socket.as_raw_fd();
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes from `value`, which is exactly that long and outlives the call.
    let code = unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), length) };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
