//! Well-known communities (RFC 1997 and others), and standard communities as text.

/// The session is about to go: the route is the last to be used (RFC 8326).
pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
/// The route outlived its session by far: the last to be used (RFC 9494).
pub const LLGR_STALE: u32 = 0xffff_0006;
/// The route is not to outlive its session that long (RFC 9494).
pub const NO_LLGR: u32 = 0xffff_0007;
/// Traffic to the prefix is to be dropped (RFC 7999).
pub const BLACKHOLE: u32 = 0xffff_029a;
/// Not to be announced outside of the AS.
pub const NO_EXPORT: u32 = 0xffff_ff01;
/// Not to be announced at all.
pub const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Not to be announced outside of the confederation's member.
pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// Not to be announced to peers that are neither customers nor providers (RFC 3765); carried, not acted on.
pub const NOPEER: u32 = 0xffff_ff04;

/// Communities with names, as people write and read them.
pub const NAMES: [(u32, &str); 8] = [
    (GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (LLGR_STALE, "llgr-stale"),
    (NO_LLGR, "no-llgr"),
    (BLACKHOLE, "blackhole"),
    (NO_EXPORT, "no-export"),
    (NO_ADVERTISE, "no-advertise"),
    (NO_EXPORT_SUBCONFED, "no-export-subconfed"),
    (NOPEER, "no-peer"),
];

/// The community's name, or its halves: `65000:1`.
pub fn text(it: u32) -> String {
    NAMES.iter().find(|(known, _)| *known == it).map_or_else(
        || format!("{}:{}", it >> 16, it & 0xffff),
        |(_, name)| (*name).to_owned(),
    )
}

/// The community of that name.
pub fn named(name: &str) -> Option<u32> {
    NAMES
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(it, _)| *it)
}
