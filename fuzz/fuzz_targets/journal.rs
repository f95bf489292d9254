//! Any bytes are a log, and what was understood of it survives being written anew.
#![no_main]

use ipam::journal::{Record, replay, write_all};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let first = replay(bytes, "boot");
    assert!(
        first
            .damaged
            .iter()
            .all(|damage| damage.offset + damage.length <= bytes.len())
    );
    let Some(header) = first.header.clone().filter(|_| !first.void) else {
        return;
    };
    let blocks = first.blocks.values().cloned().map(Record::Own);
    let holds = first.holds.values().cloned().map(Record::Hold);
    let attachments = first.attachments.values().cloned().map(Record::Attach);
    let again = replay(
        &write_all(&header, blocks.chain(attachments).chain(holds)),
        "boot",
    );
    assert!(again.is_complete());
    assert_eq!(
        (again.blocks, again.holds, again.attachments),
        (first.blocks, first.holds, first.attachments)
    );
});
