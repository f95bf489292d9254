//! The part of a node's bootstrap file that is not about BGP: the node's own addresses. bgpd, which reads all of it, is
//! the one to refuse what it does not understand.

use std::net::IpAddr;

use serde::Deserialize;

use crate::error::FieldError;
use crate::net::Cidr;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    origins: Vec<Origin>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Origin {
    Kind { prefix: String, kind: String },
    Other(serde::de::IgnoredAny),
}

/// The node's addresses: the origins of kind `node`, in the order of the file.
///
/// # Errors
///
/// When the text is no YAML, or such an origin is no single address.
pub fn node_addresses(text: &str) -> Result<Vec<IpAddr>, FieldError> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|e| FieldError::new("origins", e))?;
    let mut addresses = Vec::new();
    for (index, origin) in document.origins.into_iter().enumerate() {
        let prefix = match origin {
            Origin::Kind { prefix, kind } if kind == "node" => prefix,
            Origin::Kind { .. } | Origin::Other(_) => continue,
        };
        let at = |problem: String| FieldError::new(format!("origins[{index}].prefix"), problem);
        let prefix: Cidr = prefix
            .parse()
            .map_err(|e: crate::net::CidrError| at(e.to_string()))?;
        if !prefix.is_host() {
            return Err(at(format!(
                "{prefix} is no single address: write it with /32 or /128"
            )));
        }
        addresses.push(prefix.first());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_addresses_are_its_origins_of_kind_node() {
        let text = "asNumber: 1\norigins: [{prefix: 192.0.2.1/32, kind: node}, 10.0.0.0/26, {prefix: 'fd00::1/128', kind: node}]";
        let addresses: Vec<String> = node_addresses(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["192.0.2.1", "fd00::1"]);
        assert_eq!(node_addresses("asNumber: 1"), Ok(Vec::new()));
        let error = node_addresses("origins: [{prefix: 192.0.2.0/24, kind: node}]").unwrap_err();
        assert_eq!(error.field, "origins[0].prefix");
        assert!(node_addresses("origins: {").is_err());
    }
}
