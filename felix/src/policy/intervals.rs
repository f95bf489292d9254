//! Sets of addresses as disjoint intervals, both families in one code path.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The addresses from first to last, of one family.
pub(super) type Span = (IpAddr, IpAddr);

/// Number of an address inside its family.
const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of the same family as `like`, `None` beyond the family's last.
fn address(like: IpAddr, bits: u128) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(bits)
            .ok()
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address after this one.
pub(super) fn next(of: IpAddr) -> Option<IpAddr> {
    bits(of).checked_add(1).and_then(|bits| address(of, bits))
}

/// The address before this one.
pub(super) fn previous(of: IpAddr) -> Option<IpAddr> {
    bits(of).checked_sub(1).and_then(|bits| address(of, bits))
}

/// First and last address of a block; host bits do not matter.
pub(crate) fn span(block: IpNetwork) -> Span {
    (block.network(), block.broadcast())
}

/// The block without the exceptions, as disjoint spans in order.
pub(super) fn subtract(block: Span, exceptions: &[Span]) -> Vec<Span> {
    let mut exceptions = exceptions.to_vec();
    exceptions.sort_unstable();
    let (mut from, last) = block;
    let mut rest = Vec::new();
    for (first, end) in exceptions {
        if first.is_ipv4() != from.is_ipv4() || end < from || first > last {
            continue;
        }
        if let Some(before) = previous(first).filter(|&before| before >= from && first > from) {
            rest.push((from, before));
        }
        match next(end) {
            Some(after) if after <= last => from = after,
            _ => return rest,
        }
    }
    rest.push((from, last));
    rest
}

/// Cuts overlapping spans so that every piece lies in the same sets everywhere, and joins neighbours that do. Pieces in
/// no set are left out.
pub(super) fn partition<K: Copy + Ord>(
    sets: impl IntoIterator<Item = (Span, K)>,
) -> Vec<(Span, Vec<K>)> {
    let mut edges: Vec<(IpAddr, bool, K)> = Vec::new();
    for ((first, last), set) in sets {
        edges.push((first, true, set));
        // A set that reaches the end of the family has no edge there: the family's end closes it.
        if let Some(after) = next(last) {
            edges.push((after, false, set));
        }
    }
    edges.sort_unstable();
    let mut pieces: Vec<(Span, Vec<K>)> = Vec::new();
    // A set may cover a place more than once, by overlapping blocks of one list.
    let mut open: Vec<K> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, opens, set)) = edges.next() {
        if opens {
            let place = open.partition_point(|other| *other < set);
            open.insert(place, set);
        } else if let Ok(place) = open.binary_search(&set) {
            open.remove(place);
        }
        let following = edges.peek().map(|&(at, ..)| at);
        if following == Some(at) {
            continue;
        }
        let last = match following.filter(|next| next.is_ipv4() == at.is_ipv4()) {
            Some(following) => previous(following),
            None => address(
                at,
                if at.is_ipv4() {
                    u128::from(u32::MAX)
                } else {
                    u128::MAX
                },
            ),
        };
        if let (Some(last), false) = (last, open.is_empty()) {
            let members: Vec<K> = open
                .iter()
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            match pieces.last_mut() {
                Some(((_, end), same)) if next(*end) == Some(at) && *same == members => *end = last,
                _ => pieces.push(((at, last), members)),
            }
        }
        if following.is_some_and(|next| next.is_ipv4() != at.is_ipv4()) {
            open.clear();
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Span {
        span(text.parse().unwrap())
    }

    fn text(spans: impl IntoIterator<Item = Span>) -> Vec<String> {
        spans
            .into_iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect()
    }

    #[test]
    fn subtraction_leaves_the_parts_around() {
        let all = net("0.0.0.0/0");
        assert_eq!(text(subtract(all, &[])), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(
            text(subtract(all, &[net("0.0.0.0/1"), net("255.0.0.0/8")])),
            ["128.0.0.0-254.255.255.255"]
        );
        assert_eq!(
            text(subtract(
                net("10.0.0.0/8"),
                &[net("10.2.0.0/16"), net("10.2.3.0/24"), net("10.9.0.0/16")]
            )),
            [
                "10.0.0.0-10.1.255.255",
                "10.3.0.0-10.8.255.255",
                "10.10.0.0-10.255.255.255"
            ]
        );
        assert!(subtract(net("10.0.0.0/8"), &[net("10.0.0.0/8")]).is_empty());
        assert_eq!(
            text(subtract(net("::/0"), &[net("8000::/1")])),
            ["::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
    }

    #[test]
    fn partition_is_disjoint_and_joins_equals() {
        let pieces = partition([
            (net("0.0.0.0/0"), 1),
            (net("10.0.0.0/8"), 2),
            (net("10.1.0.0/16"), 2),
            (net("::/0"), 3),
            (net("ffff::/16"), 4),
        ]);
        let members: Vec<_> = pieces.iter().map(|(_, members)| members.clone()).collect();
        assert_eq!(
            text(pieces.into_iter().map(|(span, _)| span)),
            [
                "0.0.0.0-9.255.255.255",
                "10.0.0.0-10.255.255.255",
                "11.0.0.0-255.255.255.255",
                "::-fffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]
        );
        assert_eq!(members, [vec![1], vec![1, 2], vec![1], vec![3], vec![3, 4]]);
    }

    #[test]
    fn partition_leaves_gaps_out() {
        let pieces = partition([
            (net("10.0.0.0/24"), 1),
            (net("10.0.2.0/24"), 1),
            (net("10.0.3.0/24"), 1),
        ]);
        assert_eq!(
            text(pieces.into_iter().map(|(span, _)| span)),
            ["10.0.0.0-10.0.0.255", "10.0.2.0-10.0.3.255"]
        );
    }
}
