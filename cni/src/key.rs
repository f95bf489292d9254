//! The key of an attachment.

use serde::{Deserialize, Serialize};

/// What names one attachment of one container to one network.
///
/// Never the pod's name or UID: a sandbox made again keeps both, and a late DEL of the old one must not hit its successor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// Name of the network: `name` of the CNI configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface inside the pod.
    pub interface: String,
}

impl AttachmentKey {
    /// Name of the host side of the attachment's veth: `mgy` and 12 hex digits, 15 bytes (IFNAMSIZ less the NUL).
    pub fn host_interface(&self) -> String {
        format!("{HOST_PREFIX}{:012x}", self.hash() >> 16)
    }

    /// FNV-1a over the three parts, each ended by a byte that cannot occur in them, then mixed so that the upper bits,
    /// which name the interface, depend on every byte.
    fn hash(&self) -> u64 {
        let parts = [&self.network, &self.container_id, &self.interface];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in parts.into_iter().flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 29)
    }
}

impl std::fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.network, self.container_id, self.interface
        )
    }
}

/// What every host interface of ours starts with.
pub const HOST_PREFIX: &str = "mgy";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(network: &str, container_id: &str, interface: &str) -> AttachmentKey {
        AttachmentKey {
            network: network.into(),
            container_id: container_id.into(),
            interface: interface.into(),
        }
    }

    #[test]
    fn host_interface_is_stable_and_fits() {
        let name = key("margay", "0123abcd", "eth0").host_interface();
        assert_eq!(name.len(), 15);
        assert!(name.starts_with("mgy"));
        assert_eq!(name, key("margay", "0123abcd", "eth0").host_interface());
    }

    #[test]
    fn every_part_counts() {
        let base = key("a", "b", "c");
        for other in [
            key("ab", "", "c"),
            key("a", "bc", ""),
            key("x", "b", "c"),
            key("a", "b", "d"),
        ] {
            assert_ne!(base.host_interface(), other.host_interface(), "{other}");
        }
    }

    #[test]
    fn many_keys_do_not_collide() {
        let names: std::collections::BTreeSet<_> = (0..100_000)
            .map(|i| key("margay", &format!("c{i}"), "eth0").host_interface())
            .collect();
        assert_eq!(names.len(), 100_000);
    }
}
