//! The prefixes of a rule, made ready to be looked up.

use std::net::IpAddr;

use crds::net::{Cidr, Family};

use crate::config::filter::PrefixMatch;

/// What a prefix is held by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// The rule is for the whole family, or for all but some prefixes of it.
    Family,
    /// The rule names prefixes, and this is among them. A default route has to be named by itself.
    Named,
}

/// A list of prefix conditions, of which one has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Prefixes {
    /// Families of which every prefix is meant.
    families: Vec<Family>,
    /// Networks by family and length, so that a prefix is looked up once for each length in use.
    levels: Vec<Level>,
    negated: Vec<Lengths>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Level {
    family: Family,
    length: u8,
    /// First address, least and greatest length; in order.
    nets: Vec<(u128, u8, u8)>,
}

/// Prefixes inside a prefix, of these lengths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lengths {
    cidr: Cidr,
    min: u8,
    max: u8,
}

impl Prefixes {
    /// Whether any prefix of that family is meant.
    pub(super) fn mean(&self, family: Family) -> bool {
        self.families.contains(&family)
            || self.levels.iter().any(|it| it.family == family)
            || self.negated.iter().any(|it| it.cidr.family() == family)
    }

    pub(super) fn new(matches: &[PrefixMatch]) -> Self {
        let mut prefixes = Self::default();
        for it in matches {
            let family = it.cidr.family();
            let (min, max) = (
                it.min_len.max(it.cidr.prefix_len()),
                it.max_len.min(family.bits()),
            );
            if it.negated {
                let cidr = it.cidr;
                prefixes.negated.push(Lengths { cidr, min, max });
            } else if min == 0 && max == family.bits() {
                prefixes.families.push(family);
            } else if min <= max {
                let level = prefixes.level(family, it.cidr.prefix_len());
                level.nets.push((bits(it.cidr.first()), min, max));
            }
        }
        for level in &mut prefixes.levels {
            level.nets.sort_unstable();
            level.nets.dedup();
        }
        prefixes.families.sort_unstable();
        prefixes.families.dedup();
        prefixes
    }

    fn level(&mut self, family: Family, length: u8) -> &mut Level {
        let same = |level: &Level| (level.family, level.length) == (family, length);
        let at = match self.levels.iter().position(same) {
            Some(at) => at,
            None => {
                let nets = Vec::new();
                self.levels.push(Level {
                    family,
                    length,
                    nets,
                });
                self.levels.len() - 1
            }
        };
        &mut self.levels[at]
    }

    /// Whether more than the family of a prefix matters.
    pub(super) fn look_at_prefix(&self) -> bool {
        !self.levels.is_empty() || !self.negated.is_empty()
    }

    /// Whether one of the conditions holds, and how; named prefixes first.
    pub(super) fn hold(&self, prefix: Cidr) -> Option<Hold> {
        let family = prefix.family();
        let (address, length) = (bits(prefix.first()), prefix.prefix_len());
        let mut found = None;
        for level in &self.levels {
            if level.family != family || level.length > length {
                continue;
            }
            let net = masked(address, family, level.length);
            let from = level.nets.partition_point(|(it, ..)| *it < net);
            let same = level.nets[from..].iter().take_while(|(it, ..)| *it == net);
            for (_, min, max) in same {
                if !(*min..=*max).contains(&length) {
                    continue;
                }
                if length > 0 || *max == 0 {
                    return Some(Hold::Named);
                }
                found = Some(Hold::Family);
            }
        }
        let all_but = |it: &Lengths| {
            it.cidr.family() == family
                && !(it.cidr.covers(prefix) && (it.min..=it.max).contains(&length))
        };
        if self.families.contains(&family) || self.negated.iter().any(all_but) {
            found = Some(Hold::Family);
        }
        found
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn masked(address: u128, family: Family, length: u8) -> u128 {
    let host = u32::from(family.bits() - length);
    address
        .checked_shr(host)
        .and_then(|net| net.checked_shl(host))
        .unwrap_or(0)
}
