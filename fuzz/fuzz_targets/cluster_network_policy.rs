#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corpus::run("cluster_network_policy", bytes));
