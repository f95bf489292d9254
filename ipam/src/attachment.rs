//! What holds addresses: an interface of a sandbox.

use std::net::IpAddr;

use crds::ipam_block::Allocation;
use crds::net::Family;
use serde::{Deserialize, Serialize};

/// Identity of an attachment. Never the pod's name or uid: a sandbox made again keeps both, and a late DEL must not hit its successor.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Name of the CNI network.
    pub network: String,
    /// Container id of the sandbox.
    pub container: String,
    /// Interface inside the sandbox.
    pub ifname: String,
}

/// The pod an attachment was made for; empty fields are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its metadata.uid.
    pub uid: String,
}

/// A wish for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who holds them.
    pub key: Key,
    /// For which pod.
    pub pod: Pod,
    /// Host side of its veth.
    pub host_interface: String,
    /// One address is given of each.
    pub families: Vec<Family>,
}

/// A live attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its identity.
    pub key: Key,
    /// One address for each family asked for, in the order of the request.
    pub addresses: Vec<IpAddr>,
    /// The pod it was made for.
    pub pod: Pod,
    /// Host side of its veth.
    pub host_interface: String,
}

/// The line about one address in the mirror of a block.
pub(crate) fn mirrored(address: IpAddr, key: &Key, pod: &Pod) -> Allocation {
    Allocation {
        address: address.to_string(),
        network: key.network.clone(),
        container_id: key.container.clone(),
        interface: key.ifname.clone(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
    }
}

/// Who held an address according to the mirror.
pub(crate) fn from_mirror(allocation: &Allocation) -> (Key, Pod) {
    let key = Key {
        network: allocation.network.clone(),
        container: allocation.container_id.clone(),
        ifname: allocation.interface.clone(),
    };
    let pod = Pod {
        namespace: allocation.namespace.clone(),
        name: allocation.pod.clone(),
        uid: allocation.pod_uid.clone(),
    };
    (key, pod)
}
