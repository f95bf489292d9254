//! What must hold, whatever happened.

use super::*;

impl World {
    pub(super) fn check_given(&self, n: usize, address: IpAddr) {
        let (seed, name) = (self.seed, &self.nodes[n].name);
        for node in &self.nodes {
            let twice = node.evidence().contains(&address);
            let excused = node.name != *name && self.lost.iter().any(|cidr| cidr.contains(address));
            assert!(
                !twice || excused,
                "seed {seed}: {name} gives {address}, which {} uses",
                node.name
            );
        }
        let ipam = self.nodes[n].ipam.as_ref().unwrap();
        let block = ipam
            .blocks()
            .find(|block| block.cidr.contains(address))
            .unwrap();
        assert!(
            matches!(block.state, State::Owned { .. }),
            "seed {seed}: {address} of a block that is {}",
            block.state
        );
        match self.api.get(&block.cidr) {
            Some(object) if object.owner.node == *name => {}
            _ => assert!(
                self.lost.contains(&block.cidr),
                "seed {seed}: {name} gives {address} of a block it does not own"
            ),
        }
    }

    pub(super) fn check_announced(&self) {
        for (i, one) in self.nodes.iter().enumerate() {
            for other in &self.nodes[i + 1..] {
                let both: Vec<_> = one.announced.intersection(&other.announced).collect();
                let excused = both.iter().all(|cidr| self.lost.contains(*cidr));
                assert!(
                    excused,
                    "seed {}: {} and {} announce {both:?}",
                    self.seed, one.name, other.name
                );
            }
        }
    }

    /// After settling: what people are shown is what is.
    pub(super) fn check_mirrors(&self) {
        for node in &self.nodes {
            let ipam = node.ipam.as_ref().unwrap();
            let shown: BTreeSet<IpAddr> = ipam
                .blocks()
                .flat_map(|b| b.allocations)
                .map(|a| a.address.parse().unwrap())
                .collect();
            for address in node.evidence() {
                let covered = ipam.blocks().any(|block| block.cidr.contains(address));
                assert!(
                    !covered || shown.contains(&address),
                    "seed {}: {} hides {address}",
                    self.seed,
                    node.name
                );
                assert!(
                    covered || !self.lost.is_empty(),
                    "seed {}: {} lost the block of {address}",
                    self.seed,
                    node.name
                );
            }
            for block in ipam
                .blocks()
                .filter(|block| matches!(block.state, State::Owned { .. }))
            {
                let object = &self.api[&block.cidr];
                let mirror: Vec<_> = object.allocations.iter().map(|(_, a)| a.clone()).collect();
                assert_eq!(
                    mirror, block.allocations,
                    "seed {}: mirror of {}",
                    self.seed, block.cidr
                );
                assert!(node.announced.contains(&block.cidr), "seed {}", self.seed);
            }
        }
    }

    /// After every container is gone: nothing is left but the block each node keeps ready.
    pub(super) fn check_clean(&self) {
        let seed = self.seed;
        let mut known = BTreeSet::new();
        for node in &self.nodes {
            let ipam = node.ipam.as_ref().unwrap();
            assert_eq!(
                (ipam.attachments().count(), ipam.held()),
                (0, 0),
                "seed {seed}: {} leaks",
                node.name
            );
            let blocks: Vec<BlockStatus> = ipam.blocks().collect();
            let of = |family| {
                blocks
                    .iter()
                    .filter(|block| block.cidr.family() == family)
                    .count()
            };
            assert_eq!(
                (of(Family::V4), of(Family::V6)),
                (1, 1),
                "seed {seed}: {} has {blocks:?}",
                node.name
            );
            for block in blocks {
                assert!(
                    matches!(block.state, State::Owned { .. }) && block.allocations.is_empty(),
                    "seed {seed}: {block:?}"
                );
                assert_eq!(self.api[&block.cidr].owner.node, node.name, "seed {seed}");
                known.insert(block.cidr);
            }
            let replay = journal::replay(&node.log, &node.boot_id());
            assert!(replay.is_complete(), "seed {seed}: {:?}", replay.damaged);
            assert_eq!(
                (
                    replay.attachments.len(),
                    replay.holds.len(),
                    replay.blocks.len()
                ),
                (0, 0, 2),
                "seed {seed}"
            );
        }
        assert_eq!(
            self.api.keys().copied().collect::<BTreeSet<_>>(),
            known,
            "seed {seed}: objects without an owner"
        );
    }
}
