//! The result of ADD.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::link::{self, Mac};

/// What ADD made.
#[derive(Debug)]
pub struct Attached<'a> {
    /// Name of the veth's host side.
    pub host_interface: &'a str,
    /// Name of the pod's interface.
    pub interface: &'a str,
    /// MAC address of the pod's interface.
    pub mac: Mac,
    /// The pod's namespace.
    pub netns: &'a Path,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// MTU of both sides, in bytes.
    pub mtu: u32,
}

impl Attached<'_> {
    /// The result in version 1.0.0 or 1.1.0 (CNI SPEC section 5 "Success"); 1.1.0 adds the interfaces' MTU.
    pub fn to_json(&self, cni_version: &str) -> String {
        let mut host = json!({ "name": self.host_interface, "mac": link::HOST_MAC.to_string() });
        let mut pod =
            json!({ "name": self.interface, "mac": self.mac.to_string(), "sandbox": self.netns });
        if cni_version != "1.0.0" {
            host["mtu"] = self.mtu.into();
            pod["mtu"] = self.mtu.into();
        }
        let ips: Vec<Value> = self.addresses.iter().map(|address| ip(*address)).collect();
        let routes: Vec<Value> = self
            .addresses
            .iter()
            .map(|address| route(*address))
            .collect();
        json!({
            "cniVersion": cni_version,
            "interfaces": [host, pod],
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
        .to_string()
    }
}

fn ip(address: IpAddr) -> Value {
    let len = if address.is_ipv4() { 32 } else { 128 };
    json!({ "address": format!("{address}/{len}"), "gateway": link::gateway(address), "interface": 1 })
}

fn route(address: IpAddr) -> Value {
    let dst = if address.is_ipv4() {
        "0.0.0.0/0"
    } else {
        "::/0"
    };
    json!({ "dst": dst, "gw": link::gateway(address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [IpAddr; 2] = [
        IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1)),
        IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    ];

    fn attached() -> Attached<'static> {
        Attached {
            host_interface: "mgy0123456789ab",
            interface: "eth0",
            mac: Mac([2, 0, 0, 0, 0, 1]),
            netns: Path::new("/run/netns/x"),
            addresses: &ADDRESSES,
            mtu: 1500,
        }
    }

    #[test]
    fn version_1_0_0_byte_for_byte() {
        assert_eq!(
            attached().to_json("1.0.0"),
            concat!(
                r#"{"cniVersion":"1.0.0","interfaces":[{"name":"mgy0123456789ab","mac":"02:6d:67:79:00:01"},"#,
                r#"{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/x"}],"#,
                r#""ips":[{"address":"10.244.0.1/32","gateway":"169.254.1.1","interface":1},"#,
                r#"{"address":"fd00::1/128","gateway":"fe80::1","interface":1}],"#,
                r#""routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}],"dns":{}}"#
            )
        );
    }

    #[test]
    fn version_1_1_0_tells_the_mtu() {
        let json: Value = serde_json::from_str(&attached().to_json("1.1.0")).unwrap();
        assert_eq!(json["interfaces"][0]["mtu"], 1500);
        assert_eq!(json["interfaces"][1]["mtu"], 1500);
    }
}
