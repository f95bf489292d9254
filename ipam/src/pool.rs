//! Which pools a node may use, and which block of a pool it tries next.

use std::collections::BTreeMap;

use crds::ip_pool::Pool;
use crds::net::Cidr;

/// The pools that are enabled and select a node with these labels, in the order they are used: by name.
pub fn in_force(
    pools: impl IntoIterator<Item = Pool>,
    labels: &BTreeMap<String, String>,
) -> Vec<Pool> {
    let usable = |pool: &Pool| !pool.disabled && pool.node_selector.matches(labels);
    let mut pools: Vec<Pool> = pools.into_iter().filter(usable).collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    pools
}

/// The block of the pool that the node should try to claim next; None when all are taken.
///
/// Each node walks the pool's blocks in an order of its own, which is a function of its name: nodes that claim at the same
/// moment rarely meet, and a node that lost its state finds its old blocks first. `taken` counts prefixes known to have an
/// owner; it is called at most `limit` + 1 times, where `limit` is how many prefixes `taken` can be true for.
pub fn candidate(
    pool: &Pool,
    node: &str,
    limit: usize,
    taken: impl Fn(Cidr) -> bool,
) -> Option<Cidr> {
    let count = pool.cidr.subnets(pool.block_size);
    let mask = count.checked_sub(1)?;
    let seed = format!("{node}\n{}", pool.cidr);
    let start = wide_hash(&seed, 0);
    // The number of blocks is a power of two, so that any odd step visits each exactly once.
    let step = wide_hash(&seed, 1) | 1;
    let tries = u128::try_from(limit)
        .unwrap_or(u128::MAX)
        .saturating_add(1)
        .min(count);
    let mut index = start & mask;
    for _ in 0..tries {
        let cidr = pool.cidr.subnet(pool.block_size, index)?;
        if !taken(cidr) {
            return Some(cidr);
        }
        index = index.wrapping_add(step) & mask;
    }
    None
}

/// The block of the pool that an address belongs to.
pub fn block_of(pool: &Pool, address: std::net::IpAddr) -> Option<Cidr> {
    pool.cidr
        .contains(address)
        .then(|| Cidr::new(address, pool.block_size).ok())
        .flatten()
}

/// 128 bits of FNV-1a with a finalizer; the same in every version, as the order of candidates must survive upgrades.
fn wide_hash(text: &str, salt: u64) -> u128 {
    u128::from(hash(text, salt * 2)) << 64 | u128::from(hash(text, salt * 2 + 1))
}

fn hash(text: &str, salt: u64) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in text.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pool(cidr: &str, block_size: u8) -> Pool {
        Pool {
            block_size,
            ..Pool::new("pods", cidr.parse().unwrap())
        }
    }

    fn walk(pool: &Pool, node: &str) -> Vec<Cidr> {
        let mut taken = BTreeSet::new();
        while let Some(cidr) = candidate(pool, node, taken.len(), |c| taken.contains(&c)) {
            assert!(
                taken.insert(cidr)
                    && pool.cidr.covers(cidr)
                    && cidr.prefix_len() == pool.block_size
            );
        }
        taken.into_iter().collect()
    }

    #[test]
    fn every_block_is_tried_exactly_once() {
        assert_eq!(walk(&pool("10.244.0.0/20", 26), "n1").len(), 64);
        assert_eq!(walk(&pool("fd00:10:244::/112", 122), "n1").len(), 1024);
        assert_eq!(walk(&pool("10.244.0.0/26", 26), "n1").len(), 1);
        assert_eq!(walk(&pool("10.244.0.0/27", 26), "n1").len(), 0);
    }

    #[test]
    fn huge_pools_have_candidates() {
        for cidr in ["fd00::/8", "::/0"] {
            let pool = pool(cidr, 128);
            let first = candidate(&pool, "n1", 0, |_| false).unwrap();
            let second = candidate(&pool, "n1", 1, |c| c == first).unwrap();
            assert_ne!(first, second);
        }
    }

    #[test]
    fn nodes_start_apart() {
        let pool = pool("10.244.0.0/16", 26);
        let first: BTreeSet<_> = (0..100)
            .map(|n| candidate(&pool, &format!("node-{n}"), 0, |_| false))
            .collect();
        assert!(
            first.len() > 90,
            "{} different first choices of 100 nodes in 1024 blocks",
            first.len()
        );
    }

    #[test]
    fn the_order_never_changes() {
        let pool = pool("10.244.0.0/16", 26);
        assert_eq!(
            candidate(&pool, "n1", 0, |_| false).unwrap().to_string(),
            "10.244.222.64/26"
        );
    }

    #[test]
    fn pools_in_force_are_enabled_and_select_the_node() {
        let named = |name: &str| Pool {
            name: name.to_owned(),
            ..pool("10.244.0.0/16", 26)
        };
        let elsewhere = Pool {
            node_selector: "rack == 'b'".parse().unwrap(),
            ..named("c")
        };
        let here = Pool {
            node_selector: "rack == 'a'".parse().unwrap(),
            ..named("b")
        };
        let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let used = in_force(
            [
                elsewhere,
                here,
                Pool {
                    disabled: true,
                    ..named("d")
                },
                named("a"),
            ],
            &labels,
        );
        assert_eq!(
            used.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
