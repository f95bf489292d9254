//! The blocks of all lists and network sets in use, cut into disjoint pieces. A change costs what lies under it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::classes::ClassKey;
use super::intervals::{Span, next, partition, previous};
use super::lists::ListId;
use super::tables::Class;

/// How many blocks of each list lie over the same addresses.
type Counts = BTreeMap<ListId, u32>;

/// The pieces.
#[derive(Debug, Default)]
pub(super) struct Nets {
    /// Between two edges of blocks the same blocks lie over every address: first address → last, and counts.
    atoms: BTreeMap<IpAddr, (IpAddr, Counts)>,
    pieces: BTreeMap<IpAddr, Piece>,
    /// Where blocks came or went since the pieces were last cut.
    touched: Vec<Span>,
}

/// Addresses that the same lists contain.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) last: IpAddr,
    pub(super) lists: BTreeSet<ListId>,
    pub(super) class: Class,
}

/// What a cut changed.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// Pieces that are gone.
    pub(super) old: Vec<(Span, Class)>,
    /// Pieces that are there now in their place.
    pub(super) new: Vec<(Span, Class)>,
    /// Where the class of an address that nobody has is not what it was: before and after.
    pub(super) moved: Vec<(Span, Class, Class)>,
}

impl Nets {
    /// The piece around an address.
    pub(super) fn around(&self, address: IpAddr) -> Option<&Piece> {
        let (_, piece) = self.pieces.range(..=address).next_back()?;
        (piece.last >= address).then_some(piece)
    }

    /// The class of an address that nobody has.
    pub(super) fn class(&self, address: IpAddr) -> Class {
        self.around(address)
            .map_or(Class::NONE, |piece| piece.class)
    }

    /// One block of a list more.
    pub(super) fn add(&mut self, span: Span, list: ListId) {
        let (first, last) = span;
        self.split(first);
        if let Some(after) = next(last) {
            self.split(after);
        }
        let mut from = Some(first);
        let mut gaps = Vec::new();
        for (&start, (end, counts)) in self.atoms.range_mut(first..=last) {
            if let Some(gap) = from.filter(|&gap| gap < start) {
                gaps.extend(previous(start).map(|before| (gap, before)));
            }
            *counts.entry(list).or_default() += 1;
            from = next(*end);
        }
        if let Some(gap) = from.filter(|&gap| gap <= last && gap.is_ipv4() == last.is_ipv4()) {
            gaps.push((gap, last));
        }
        for (start, end) in gaps {
            self.atoms.insert(start, (end, Counts::from([(list, 1)])));
        }
        self.touched.push(span);
    }

    /// One block less; it was added before.
    pub(super) fn remove(&mut self, span: Span, list: ListId) {
        let (first, last) = span;
        // Its edges may have been forgotten, where the same list went on behind them.
        self.split(first);
        if let Some(after) = next(last) {
            self.split(after);
        }
        let mut empty = Vec::new();
        for (&start, (_, counts)) in self.atoms.range_mut(first..=last) {
            if let Some(count) = counts.get_mut(&list) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&list);
                }
            }
            if counts.is_empty() {
                empty.push(start);
            }
        }
        for start in empty {
            self.atoms.remove(&start);
        }
        self.touched.push(span);
    }

    /// Makes an edge before this address.
    fn split(&mut self, at: IpAddr) {
        let Some((&start, (end, counts))) = self.atoms.range_mut(..at).next_back() else {
            return;
        };
        if let Some(before) = previous(at).filter(|_| *end >= at && start < at) {
            let rest = (*end, counts.clone());
            *end = before;
            self.atoms.insert(at, rest);
        }
    }

    /// Cuts anew where blocks came or went. The classes of both the old and the new pieces are held.
    pub(super) fn cut(&mut self, mut class: impl FnMut(ClassKey) -> Class) -> Cut {
        let mut cut = Cut::default();
        let touched = partition(
            std::mem::take(&mut self.touched)
                .into_iter()
                .map(|span| (span, ())),
        );
        // Two of them may have the piece between them in common.
        let regions = partition(touched.into_iter().map(|(span, _)| (self.region(span), ())));
        for (region, _) in regions {
            self.join_atoms(region);
            let old: Vec<_> = self
                .pieces
                .range(region.0..=region.1)
                .map(|(&first, piece)| (first, piece.clone()))
                .collect();
            let new = self.recut(region, &mut class);
            let same = old.len() == new.len()
                && old
                    .iter()
                    .zip(&new)
                    .all(|(a, b)| a.0 == b.0 && a.1.last == b.1.last && a.1.class == b.1.class);
            cut.old
                .extend(old.iter().map(|(first, it)| ((*first, it.last), it.class)));
            cut.new
                .extend(new.iter().map(|(first, it)| ((*first, it.last), it.class)));
            if same {
                continue;
            }
            cut.moved.extend(moved(&old, &new));
            for (first, _) in &old {
                self.pieces.remove(first);
            }
            self.pieces.extend(new);
        }
        cut
    }

    /// The span and the pieces that overlap it or touch its ends.
    fn region(&self, (first, last): Span) -> Span {
        let mut region = (first, last);
        let before = previous(first).unwrap_or(first);
        if let Some((&start, _)) = self
            .pieces
            .range(..=before)
            .next_back()
            .filter(|(_, it)| it.last >= before && before.is_ipv4() == it.last.is_ipv4())
        {
            region.0 = region.0.min(start);
        }
        let after = next(last).unwrap_or(last);
        if let Some((_, piece)) = self.pieces.range(..=after).next_back()
            && piece.last.is_ipv4() == last.is_ipv4()
        {
            region.1 = region.1.max(piece.last);
        }
        region
    }

    /// Forgets edges that no block has any more.
    fn join_atoms(&mut self, (first, last): Span) {
        let starts: Vec<_> = self.atoms.range(first..=last).map(|(&it, _)| it).collect();
        let mut open: Option<IpAddr> = None;
        for start in starts {
            let joined = open.and_then(|open| {
                let (end, counts) = self.atoms.get(&open)?;
                let (_, next_counts) = self.atoms.get(&start)?;
                (next(*end) == Some(start) && counts == next_counts).then_some(open)
            });
            match joined {
                Some(before) => {
                    if let Some((end, _)) = self.atoms.remove(&start)
                        && let Some((last, _)) = self.atoms.get_mut(&before)
                    {
                        *last = end;
                    }
                }
                None => open = Some(start),
            }
        }
    }

    fn recut(
        &self,
        (first, last): Span,
        class: &mut impl FnMut(ClassKey) -> Class,
    ) -> Vec<(IpAddr, Piece)> {
        let mut pieces: Vec<(IpAddr, IpAddr, BTreeSet<ListId>)> = Vec::new();
        for (&start, (end, counts)) in self.atoms.range(first..=last) {
            match pieces.last_mut() {
                Some((_, before, lists))
                    if next(*before) == Some(start) && lists.iter().eq(counts.keys()) =>
                {
                    *before = *end;
                }
                _ => pieces.push((start, *end, counts.keys().copied().collect())),
            }
        }
        let pieces = pieces.into_iter().map(|(start, last, lists)| {
            let class = class(ClassKey {
                lists: lists.clone(),
                ports: BTreeSet::new(),
            });
            (start, Piece { last, lists, class })
        });
        pieces.collect()
    }
}

fn moved(old: &[(IpAddr, Piece)], new: &[(IpAddr, Piece)]) -> Vec<(Span, Class, Class)> {
    let sided = |pieces: &[(IpAddr, Piece)], new: bool| {
        pieces
            .iter()
            .map(|(first, piece)| ((*first, piece.last), (new, piece.class)))
            .collect::<Vec<_>>()
    };
    let pieces = partition(sided(old, false).into_iter().chain(sided(new, true)));
    let pieces = pieces.into_iter().map(|(span, classes)| {
        let class = |new: bool| {
            let found = classes.iter().find(|(of, _)| *of == new);
            found.map_or(Class::NONE, |&(_, class)| class)
        };
        (span, class(false), class(true))
    });
    pieces
        .filter(|(_, before, after)| before != after)
        .collect()
}
