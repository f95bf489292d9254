//! Any JSON is no NetworkPolicy, a policy, or an error that names the field.
#![no_main]

use felix::policy::k8s::check_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| check_json(json));
