//! Which UPDATEs RFC 7606 lets end a session: read once more, by its sections 3, 5 and 7 and nothing else.

use crate::wire::Dialect;
use crds::net::Family;

/// Whether a session may end because of an UPDATE with this body.
pub(super) fn may_reset(body: &[u8], dialect: Dialect) -> bool {
    parts(body, dialect).unwrap_or(true)
}

/// None: what says where things begin and end contradicts itself, or prefixes cannot be read (sections 3 a, 5.3).
fn parts(body: &[u8], dialect: Dialect) -> Option<bool> {
    let v4_ids = dialect.paths_received.contains(Family::V4);
    let (withdrawn, rest) = counted(body)?;
    let (attributes, prefixes) = counted(rest)?;
    read_prefixes(withdrawn, 32, v4_ids)?;
    let mut some = read_prefixes(prefixes, 32, v4_ids)? > 0;
    let mut seen_lists = [false; 2];
    let (mut rest, mut bad_list, mut other_family) = (attributes, false, false);
    // Section 4: an attribute that does not end withdraws.
    while let Some((flags, kind, value, after)) = attribute(rest) {
        rest = after;
        match kind {
            14 | 15 => {
                let index = usize::from(kind - 14);
                // Section 3 g.
                bad_list |= std::mem::replace(&mut seen_lists[index], true);
                match list(kind, value, dialect) {
                    List::Bad => bad_list = true,
                    List::Other => other_family = true,
                    List::Of(count) => some |= kind == 14 && count > 0,
                }
            }
            // Section 3 e leaves an unrecognized well-known attribute to RFC 4271.
            1..=10 | 16 | 17 | 18 | 32 => {}
            _ if flags & 0x80 == 0 => return Some(true),
            _ => {}
        }
    }
    // Section 5.2: without any prefix nothing can be withdrawn instead.
    Some(bad_list || !some && !other_family && !attributes.is_empty())
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([high, low], rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
}

type Attribute<'a> = (u8, u8, &'a [u8], &'a [u8]);

fn attribute(bytes: &[u8]) -> Option<Attribute<'_>> {
    let ([flags, kind], rest) = bytes.split_first_chunk()?;
    let (value, after) = if flags & 0x10 != 0 {
        counted(rest)?
    } else {
        let (length, rest) = rest.split_first()?;
        rest.split_at_checked(usize::from(*length))?
    };
    Some((*flags, *kind, value, after))
}

/// How many prefixes there are; None: they cannot be read.
fn read_prefixes(mut bytes: &[u8], longest: u8, ids: bool) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        if ids {
            bytes = bytes.split_at_checked(4)?.1;
        }
        let (length, rest) = bytes.split_first()?;
        if *length > longest {
            return None;
        }
        bytes = rest.split_at_checked(usize::from(length.div_ceil(8)))?.1;
        count += 1;
    }
    Some(count)
}

enum List {
    /// Section 7.11, and RFC 4760 section 7.
    Bad,
    /// Of a family that is not spoken here.
    Other,
    Of(usize),
}

fn list(kind: u8, value: &[u8], dialect: Dialect) -> List {
    let Some(([high, low, safi], rest)) = value.split_first_chunk() else {
        return List::Bad;
    };
    let (family, longest) = match (u16::from_be_bytes([*high, *low]), safi) {
        (1, 1) => (Family::V4, 32),
        (2, 1) => (Family::V6, 128),
        _ if kind == 15 => return List::Other,
        _ => {
            let whole = rest
                .split_first()
                .is_some_and(|(length, rest)| rest.len() > usize::from(*length));
            return if whole { List::Other } else { List::Bad };
        }
    };
    let prefixes = if kind == 15 {
        rest
    } else {
        let Some((length, rest)) = rest.split_first() else {
            return List::Bad;
        };
        let lengths: &[u8] = match family {
            Family::V4 => &[4, 16, 32],
            Family::V6 => &[16, 32],
        };
        // One octet is reserved.
        match rest.split_at_checked(usize::from(*length) + 1) {
            Some((_, prefixes)) if lengths.contains(length) => prefixes,
            _ => return List::Bad,
        }
    };
    let ids = dialect.paths_received.contains(family);
    read_prefixes(prefixes, longest, ids).map_or(List::Bad, List::Of)
}
