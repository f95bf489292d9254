//! Everything that reaches the plugin or felix's socket for it: configurations, frames, replies.

#![no_main]

use cni::conf::Conf;
use cni::frame::{self, Reply, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Conf::parse(data);
    let _ = Conf::parse_add(data);
    let _ = frame::read::<Reply>(&mut &*data);
    if let Ok(request) = frame::decode::<Request>(data) {
        let again = frame::encode(&request).expect("a request that was read is not too long");
        assert_eq!(frame::read::<Request>(&mut again.as_slice()).expect("what was written is read"), request);
    }
});
