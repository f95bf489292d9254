//! Every decoder of the project as a function of any bytes.
//!
//! ```text
//!  fuzz/fuzz_targets/NAME.rs ──► run(NAME, bytes) ◄── cargo test: all of fuzz/corpus/NAME
//! ```
//!
//! A function panics when what must always hold does not. [`TARGETS`] is the list of them; `fuzz/` has one program each.

mod bgp;
mod node;
mod objects;

/// A name, and what is done with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: [Target; 19] = [
    ("annotations", node::annotations),
    ("bfd", bgpd::bfd::exercise::any),
    ("bgp_filter", objects::bgp_filter),
    ("bgp_message", bgpd::wire::exercise::decoders),
    ("bgp_objects", objects::bgp_objects),
    ("bgp_session", bgpd::speaker::exercise::life),
    ("bootstrap", objects::bootstrap),
    ("cluster_network_policy", felix::policy::cluster::check_json),
    ("cni", node::cni),
    ("config_file", bgp::config_file),
    ("grpc", bgp::grpc),
    ("journal", node::journal),
    ("kept", bgp::kept),
    ("margay_policy", felix::policy::margay::check_json),
    ("netlink", node::netlink),
    ("network_policy", felix::policy::k8s::check_json),
    ("recording", bgp::recording),
    ("selector", objects::selector),
    ("values", objects::values),
];

/// Gives bytes to a target.
///
/// # Panics
///
/// If there is none of that name, or if it panics.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(it, _)| *it == name);
    let Some((_, run)) = target else {
        panic!("{name} is no target");
    };
    run(bytes);
}
