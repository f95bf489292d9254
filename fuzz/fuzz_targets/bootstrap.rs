//! A node's bootstrap file: never a panic, and bgpd and felix agree on the node's addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let addresses = crds::bootstrap::node_addresses(text);
    if let Ok(bootstrap) = bgpd::config::bootstrap::parse(text) {
        let origins = &bootstrap.config().origins;
        let of_bgpd: Vec<_> = origins.iter().map(|origin| origin.prefix.first()).collect();
        assert_eq!(addresses, Ok(of_bgpd));
    }
});
