//! Any bytes as a peer's stream and as the body of each kind of message; what is understood is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bgpd::wire::exercise::decoders(bytes));
