//! ADD: a failed one leaves nothing.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::del;
use crate::client::Client;
use crate::conf::Conf;
use crate::env::Invocation;
use crate::error::{CniError, Code};
use crate::frame::{Reply, Request};
use crate::key::AttachmentKey;
use crate::link::{self, HOST_MAC, Mac, Netlink};
use crate::netns::NetNs;
use crate::result::Attached;
use crate::sysctl;

pub(super) fn add(call: &Invocation, conf: &Conf) -> Result<String, CniError> {
    let key = AttachmentKey {
        network: conf.name.clone(),
        container_id: call.container_id.clone(),
        interface: call.interface.clone(),
    };
    let path = call.netns.as_deref().unwrap_or_else(|| Path::new(""));
    let netns = open(path)?;
    refuse_taken(&netns, &call.interface)?;

    let mut felix = Client::connect(&conf.socket)?;
    let reply = felix.call(&Request::Add {
        key: key.clone(),
        pod: call.pod.clone(),
    })?;
    let Reply::Reserved { addresses, mtu } = reply else {
        return Err(CniError::new(
            Code::Decode,
            "felix gave an unexpected answer",
            format!("{reply:?}"),
        ));
    };
    let plugged = plug(&key, &netns, &addresses, mtu).map_err(|error| kernel(&key, &error));
    let attached = plugged.and_then(|mac| {
        felix.call(&Request::Ready {
            key: key.clone(),
            mac: mac.to_string(),
        })?;
        Ok(mac)
    });
    drop(felix);
    match attached {
        Ok(mac) => {
            let host_interface = key.host_interface();
            let attached = Attached {
                host_interface: &host_interface,
                interface: &key.interface,
                mac,
                netns: path,
                addresses: &addresses,
                mtu,
            };
            Ok(attached.to_json(&conf.cni_version))
        }
        Err(error) => {
            // Whatever of it was made goes again; the error that is told is the one that mattered.
            let _ = del::detach(&key, conf);
            let _ = Netlink::open().and_then(|mut here| here.delete(&key.host_interface()));
            Err(error)
        }
    }
}

fn open(path: &Path) -> Result<NetNs, CniError> {
    let missing = |e: io::Error| {
        let details = format!("CNI_NETNS {}: {e}", path.display());
        CniError::new(
            Code::UnknownContainer,
            "the container's network namespace cannot be opened",
            details,
        )
    };
    let netns = NetNs::open(path).map_err(missing)?;
    if netns.is_own().map_err(missing)? {
        let details = format!("CNI_NETNS {} is the host's own namespace", path.display());
        return Err(CniError::new(
            Code::BadEnvironment,
            "a pod on the host's network needs no attachment",
            details,
        ));
    }
    Ok(netns)
}

/// An interface that is there before ADD is somebody else's: nothing may be changed.
fn refuse_taken(netns: &NetNs, interface: &str) -> Result<(), CniError> {
    match netns.run(|| Netlink::open()?.link(interface)) {
        Ok(_) => {
            let details =
                format!("interface {interface} exists already in the container's namespace");
            Err(CniError::new(
                Code::BadEnvironment,
                "CNI_IFNAME is taken",
                details,
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let details = format!("{error}; is CNI_NETNS a network namespace?");
            Err(CniError::new(
                Code::UnknownContainer,
                "the container's network namespace cannot be entered",
                details,
            ))
        }
    }
}

/// Makes the veth with all that belongs to its two sides, and sets both up.
fn plug(key: &AttachmentKey, netns: &NetNs, addresses: &[IpAddr], mtu: u32) -> io::Result<Mac> {
    let host = key.host_interface();
    let mut here = Netlink::open()?;
    here.add_veth(&host, &key.interface, netns, mtu)?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        sysctl::set("ipv6", &host, "accept_ra", "0")?;
        sysctl::set("ipv6", &host, "accept_dad", "0")?;
        sysctl::set("ipv6", &host, "disable_ipv6", "0")?;
    }
    // No router of the node's stands in this link's way: sources are checked per interface by felix's rules, which know
    // the address; the kernel's own check would drop an asymmetric node's traffic.
    sysctl::set("ipv4", &host, "rp_filter", "0")?;
    let mac = netns.run(|| configure(&key.interface, addresses))?;
    let (ifindex, _) = here.link(&host)?;
    here.set_up(ifindex)?;
    Ok(mac)
}

/// The pod's side.
fn configure(interface: &str, addresses: &[IpAddr]) -> io::Result<Mac> {
    let mut pod = Netlink::open()?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        // A runtime may have switched IPv6 off for all interfaces to come.
        sysctl::set("ipv6", interface, "disable_ipv6", "0")?;
        sysctl::set("ipv6", interface, "accept_ra", "0")?;
        sysctl::set("ipv6", interface, "accept_dad", "0")?;
    }
    let (loopback, _) = pod.link("lo")?;
    pod.set_up(loopback)?;
    let (ifindex, mac) = pod.link(interface)?;
    pod.set_up(ifindex)?;
    for address in addresses {
        let gateway = link::gateway(*address);
        pod.add_address(ifindex, *address)?;
        pod.add_neighbour(ifindex, gateway, HOST_MAC)?;
        if gateway.is_ipv4() {
            pod.add_route(ifindex, gateway, true)?;
        }
        pod.add_route(ifindex, gateway, false)?;
    }
    Ok(mac)
}

fn kernel(key: &AttachmentKey, error: &io::Error) -> CniError {
    CniError::new(
        Code::Kernel,
        "the kernel refused the pod's interface",
        format!("{key}: {error}"),
    )
}
