//! What others do: a chain for each pod, and in it a jump to a chain for each policy, with verdicts carried in a mark.

use std::fmt::Write as _;

/// A ruleset for `nft -f`: `policies` policies select each of these interfaces, for what they send (`from`) and for what
/// they are sent (`to`). Each has a rule for each of its peers. The last one lets the flow through that is measured, so that
/// all are looked at, as they are for every flow that is denied.
pub(crate) fn ruleset(
    from: &[&str],
    to: &[&str],
    policies: u32,
    port: u16,
    peers: &[&str],
) -> String {
    let mut text = String::from("table inet chains {\n");
    for policy in 0..policies {
        for (number, peer) in peers.iter().enumerate() {
            let other = format!("10.99.{number}.{}", policy % 250 + 1);
            let address = if policy + 1 == policies {
                peer
            } else {
                other.as_str()
            };
            let _ = writeln!(
                text,
                " set peer{policy}_{number} {{ type ipv4_addr; elements = {{ {address} }} }}"
            );
        }
        for (direction, field) in [("from", "daddr"), ("to", "saddr")] {
            let _ = writeln!(text, " chain policy{policy}_{direction} {{");
            for number in 0..peers.len() {
                let _ = writeln!(
                    text,
                    "  ip {field} @peer{policy}_{number} udp dport {port} counter meta mark set meta mark or 0x10000 return"
                );
            }
            text.push_str(" }\n");
        }
    }
    for (direction, interfaces) in [("from", from), ("to", to)] {
        for interface in interfaces {
            let _ = writeln!(text, " chain {direction}_{interface} {{");
            text.push_str("  ct state established,related counter accept\n");
            text.push_str("  meta mark set meta mark and 0xfffeffff\n");
            for policy in 0..policies {
                let _ = writeln!(text, "  jump policy{policy}_{direction}");
                text.push_str("  meta mark and 0x10000 == 0x10000 counter return\n");
            }
            text.push_str("  counter drop\n }\n");
        }
    }
    text.push_str(" chain forward {\n  type filter hook forward priority 0;\n  ct state invalid counter drop\n");
    for (direction, field, interfaces) in [("from", "iifname", from), ("to", "oifname", to)] {
        if !interfaces.is_empty() {
            let elements: Vec<_> = interfaces
                .iter()
                .map(|interface| format!("{interface} : jump {direction}_{interface}"))
                .collect();
            let _ = writeln!(text, "  {field} vmap {{ {} }}", elements.join(", "));
        }
    }
    text.push_str("  counter accept\n }\n}\n");
    text
}

/// Nothing but connection tracking.
pub(crate) const TRACKING: &str = "table inet tracking {\n chain forward {\n  type filter hook forward priority 0;\n  ct state invalid drop\n }\n}\n";

/// Connection tracking and a check of sources, as felix's table has it.
pub(crate) fn sources(interface: &str, address: &str) -> String {
    format!(
        "{TRACKING}table inet sources {{\n set known {{ type ifname . ipv4_addr; elements = {{ \"{interface}\" . {address} }} }}\n \
         chain prerouting {{\n  type filter hook prerouting priority -300;\n  iifname != \"mgy*\" return\n  \
         iifname . ip saddr @known accept\n  counter drop\n }}\n}}\n"
    )
}
