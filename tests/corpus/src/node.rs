//! What reaches a node from its own side: the runtime, the kernel, its files.

use std::collections::BTreeMap;

use cni::conf::Conf;
use cni::frame::{self, Reply, Request};
use felix::nft::build;
use felix::nft::decode::{Elements, Inspection};
use felix::routes::model::Kernel;
use felix::{nla, routes::wire};
use ipam::journal::{Record, replay, write_all};

/// Everything that reaches the plugin or felix's socket for it: configurations, frames, replies.
pub(crate) fn cni(bytes: &[u8]) {
    let _ = Conf::parse(bytes);
    let _ = Conf::parse_add(bytes);
    let _ = frame::read::<Reply>(&mut &*bytes);
    if let Ok(request) = frame::decode::<Request>(bytes) {
        let again = frame::encode(&request).unwrap_or_default();
        let read = frame::read::<Request>(&mut again.as_slice()).ok();
        assert_eq!(read, Some(request), "what was written is read");
    }
}

/// Any JSON object of strings are annotations of a pod: what is not understood is named, and the rest leads to the same
/// elements each time.
pub(crate) fn annotations(bytes: &[u8]) {
    let Ok(said) = serde_json::from_slice::<BTreeMap<String, String>>(bytes) else {
        return;
    };
    let (asked, problems) = felix::terms::annotations::parse(&said);
    for problem in &problems {
        assert!(said.contains_key(&problem.annotation), "{problem}");
    }
    let only: BTreeMap<_, _> = said
        .into_iter()
        .filter(|(name, _)| !problems.iter().any(|it| it.annotation == *name))
        .collect();
    let (again, none) = felix::terms::annotations::parse(&only);
    assert_eq!((again, none), (asked, Vec::new()), "each is read by itself");
}

/// Any bytes are a log, and what was understood of it survives being written anew.
pub(crate) fn journal(bytes: &[u8]) {
    let first = replay(bytes, "boot");
    for damage in &first.damaged {
        assert!(damage.offset + damage.length <= bytes.len());
    }
    let Some(header) = first.header.clone().filter(|_| !first.void) else {
        return;
    };
    let blocks = first.blocks.values().cloned().map(Record::Own);
    let holds = first.holds.values().cloned().map(Record::Hold);
    let attachments = first.attachments.values().cloned().map(Record::Attach);
    let records = blocks.chain(attachments).chain(holds);
    let again = replay(&write_all(&header, records), "boot");
    assert!(again.is_complete());
    assert_eq!(
        (again.blocks, again.holds, again.attachments),
        (first.blocks, first.holds, first.attachments)
    );
}

/// Any datagram of the kernel: routes, next hops, links and addresses; our table of nftables; bgpd's look at it.
pub(crate) fn netlink(bytes: &[u8]) {
    let (mut kernel, mut links) = (Kernel::default(), BTreeMap::new());
    let mut table = Inspection::default();
    for message in nla::messages(bytes) {
        wire::take_route(&mut kernel, &message);
        wire::take_nexthop(&mut kernel, &message);
        wire::take_link(&mut links, &message);
        let _ = wire::read_address(message.payload);
        table.table(message.payload);
        table.set(message.payload);
        table.rule(message.payload);
        for set in build::SETS {
            let mut elements = Elements::of(set);
            elements.message(message.payload);
            let count = elements.finish().len();
            assert!(count <= message.payload.len());
        }
    }
    bgpd::driver::exercise::kernel(bytes);
}
