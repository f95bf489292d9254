//! Any text is a configuration, or an error in one line that names its place.
#![no_main]

use bgpd::config::file::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(file) => {
            let json = serde_json::to_string(&file.config).expect("a configuration is kept as JSON");
            assert_eq!(
                serde_json::from_str::<bgpd::config::Config>(&json).expect("what is kept is read"),
                file.config
            );
        }
        Err(error) => assert!(!error.brief(text).is_empty()),
    }
});
