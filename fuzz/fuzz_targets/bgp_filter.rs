//! Any JSON is a BGPFilter's spec that means something, or an error that names a field of it.
#![no_main]

use bgpd::config::Filter;
use crds::bgp_filter::BGPFilterSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<BGPFilterSpec>(bytes) else {
        return;
    };
    match Filter::try_from(&spec) {
        Ok(filter) => {
            let rules = spec.import_v4.len() + spec.import_v6.len();
            assert_eq!(filter.import.len(), rules);
            for prefix in filter.import.iter().flat_map(|rule| &rule.matches.prefixes) {
                assert!(prefix.min_len <= prefix.max_len);
            }
        }
        Err(error) => assert!(error.field.starts_with("spec."), "{error}"),
    }
});
