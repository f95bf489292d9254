//! Any text is a selector that prints as itself, or an error inside the text.
#![no_main]

use std::collections::BTreeMap;

use crds::selector::Selector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Selector>() {
        Ok(selector) => {
            selector.matches(&BTreeMap::new());
            assert_eq!(
                selector.to_string().parse::<Selector>().as_ref(),
                Ok(&selector)
            );
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.position)),
    }
});
