//! Any bytes as a BFD packet, and as what the peer of a session sends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bgpd::bfd::exercise::any(bytes));
