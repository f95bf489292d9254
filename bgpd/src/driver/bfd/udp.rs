//! UDP sockets as BFD wants them.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use crds::net::Family;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::bfd::{LENGTH, Path, Received, Settings};
use crate::driver::sock::CS6;

/// Ports that control packets go to: over one hop (RFC 5881 section 4) and over several (RFC 5883 section 5).
const SINGLE_HOP: u16 = 3784;
const MULTIHOP: u16 = 4784;

/// Ports they come from (RFC 5881 section 4).
const FIRST_SOURCE: u16 = 49152;

/// Kernel memory for packets that wait, bytes: thousands of them.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Longer packets than this are cut; only their first bytes count.
const LONGEST: usize = 128;

/// The kinds of packets that come to one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) family: Family,
    pub(super) multihop: bool,
}

impl Kind {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            family: Family::of(settings.remote),
            multihop: matches!(settings.path, Path::Multihop { .. }),
        }
    }

    pub(super) fn port(self) -> u16 {
        if self.multihop { MULTIHOP } else { SINGLE_HOP }
    }
}

fn udp(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where packets of one kind arrive.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    multihop: bool,
    space: Vec<u8>,
}

impl Listener {
    pub(super) fn open(kind: Kind) -> io::Result<Self> {
        let socket = udp(kind.family)?;
        match kind.family {
            Family::V4 => {
                setsockopt(&socket, Ipv4PacketInfo, &true)?;
                setsockopt(&socket, Ipv4RecvTtl, &true)?;
            }
            Family::V6 => {
                setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
                setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
            }
        }
        if !kind.multihop {
            // What comes from farther is dropped before it takes the place of a neighbour's packet.
            socket.attach_filter(&neighbours_only(kind.family))?;
        }
        // The kernel may grant less.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&SocketAddr::new(any(kind.family), kind.port()).into())?;
        Ok(Self {
            socket,
            multihop: kind.multihop,
            space: nix::cmsg_space!(libc::in6_pktinfo, libc::c_int, libc::c_int),
        })
    }

    /// The next packet; None: nothing waits. One that says nothing of its way is left out.
    pub(super) fn receive(&mut self) -> Result<Option<Received>, Errno> {
        let mut bytes = [0; LONGEST];
        loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let message = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut self.space),
                MsgFlags::MSG_DONTWAIT,
            );
            let message = match message {
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let (mut way, mut hops) = (None, None);
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                        let ifindex = u32::try_from(info.ipi_ifindex).ok();
                        way = ifindex.map(|ifindex| (IpAddr::from(address), ifindex));
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        way = Some((IpAddr::from(address), info.ipi6_ifindex));
                    }
                    ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                        hops = u8::try_from(ttl).ok();
                    }
                    _ => {}
                }
            }
            let source = message.address.as_ref().and_then(source);
            let length = message.bytes;
            if let (Some((destination, ifindex)), Some(ttl), Some(source)) = (way, hops, source) {
                return Ok(Some(Received {
                    bytes: bytes[..length.min(LONGEST)].to_vec(),
                    source,
                    destination,
                    ifindex,
                    ttl,
                    multihop: self.multihop,
                }));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn source(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
}

/// Takes packets with a TTL of 255 only (RFC 5881 section 5). The program sees the packet from its UDP header on, the
/// header before it at an offset of its own.
fn neighbours_only(family: Family) -> [SockFilter; 4] {
    let place = match family {
        Family::V4 => 8,
        Family::V6 => 7,
    };
    let network = u32::from_ne_bytes(libc::SKF_NET_OFF.to_ne_bytes());
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let load = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    [
        SockFilter::new(load, 0, 0, network.wrapping_add(place)),
        SockFilter::new(equal, 0, 1, u32::from(u8::MAX)),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, u32::MAX),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, 0),
    ]
}

/// Where the packets of one session leave.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    remote: SocketAddr,
    port: u16,
}

impl Sender {
    /// With a source port that no other session has, that one if it is free.
    pub(super) fn open(settings: &Settings, wanted: u16) -> io::Result<Self> {
        let kind = Kind::of(settings);
        let socket = udp(kind.family)?;
        match kind.family {
            Family::V4 => {
                socket.set_ttl_v4(u8::MAX.into())?;
                socket.set_tos_v4(CS6)?;
            }
            Family::V6 => {
                socket.set_unicast_hops_v6(u8::MAX.into())?;
                socket.set_tclass_v6(CS6)?;
            }
        }
        if let Path::SingleHop { interface, .. } = &settings.path {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        // Nothing is ever read from it: answers go to the well-known port.
        let drop = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
        socket.attach_filter(&[SockFilter::new(drop, 0, 0, 0)])?;
        let scope = settings.path.ifindex();
        let local = settings.local.unwrap_or_else(|| any(kind.family));
        let first = wanted.max(FIRST_SOURCE);
        for port in (first..=u16::MAX).chain(FIRST_SOURCE..first) {
            match socket.bind(&end(local, port, scope).into()) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                bound => {
                    bound?;
                    let remote = end(settings.remote, kind.port(), scope);
                    return Ok(Self {
                        socket,
                        remote,
                        port,
                    });
                }
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn send(&self, bytes: &[u8; LENGTH]) -> io::Result<()> {
        self.socket.send_to(bytes, &self.remote.into())?;
        Ok(())
    }
}

/// An end with the link that a link-local address needs.
fn end(address: IpAddr, port: u16, ifindex: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, ifindex.unwrap_or_default()).into()
        }
        address => SocketAddr::new(address, port),
    }
}
