//! What the members of a group have been told, by prefix.

use crds::net::Family;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::prefixes::side;
use super::super::{Best, PrefixId, SetId, SourceId};

const PAGE: usize = 256;

/// The best path that each prefix was told with, in pages that exist where there is one.
#[derive(Debug, Default)]
pub(super) struct Told {
    pages: Vec<Option<Box<Page>>>,
    counts: HashMap<SourceId, [usize; 2], RandomState>,
    all: [usize; 2],
}

#[derive(Debug)]
struct Page {
    cells: [Best; PAGE],
    len: usize,
}

const NOTHING: Best = Best {
    from: SourceId::LOCAL,
    set: SetId::NONE,
};

impl Told {
    pub(super) fn get(&self, id: PrefixId) -> Option<Best> {
        let (page, cell) = (id.index() / PAGE, id.index() % PAGE);
        let page = self.pages.get(page)?.as_ref()?;
        Some(page.cells[cell]).filter(|it| *it != NOTHING)
    }

    /// Notes what a prefix has been told with; what it was told with before.
    pub(super) fn set(&mut self, id: PrefixId, family: Family, now: Option<Best>) -> Option<Best> {
        let (at, cell) = (id.index() / PAGE, id.index() % PAGE);
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
        }
        let page = self.pages[at].get_or_insert_with(|| {
            Box::new(Page {
                cells: [NOTHING; PAGE],
                len: 0,
            })
        });
        let before = std::mem::replace(&mut page.cells[cell], now.unwrap_or(NOTHING));
        let before = Some(before).filter(|it| *it != NOTHING);
        page.len = page.len + usize::from(now.is_some()) - usize::from(before.is_some());
        if page.len == 0 {
            self.pages[at] = None;
        }
        let side = side(family);
        if before.map(|it| it.from) != now.map(|it| it.from) {
            if let Some(now) = now {
                self.counts.entry(now.from).or_default()[side] += 1;
                self.all[side] += 1;
            }
            if let Some(before) = before
                && let Some(counts) = self.counts.get_mut(&before.from)
            {
                counts[side] -= 1;
                self.all[side] -= 1;
                if *counts == [0, 0] {
                    self.counts.remove(&before.from);
                }
            }
        }
        before
    }

    /// How many prefixes of a family have been told.
    pub(super) fn count(&self, family: Family) -> usize {
        self.all[side(family)]
    }

    /// How many of them with a path of that source.
    pub(super) fn count_from(&self, source: SourceId, family: Family) -> usize {
        self.counts
            .get(&source)
            .map_or(0, |counts| counts[side(family)])
    }

    /// Everything told, in the order of numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PrefixId, Best)> {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(at, page)| {
            let cells = page.iter().flat_map(|page| page.cells.iter().enumerate());
            cells
                .filter(|(_, cell)| **cell != NOTHING)
                .filter_map(move |(index, cell)| {
                    let number = u32::try_from(at * PAGE + index).ok()?;
                    Some((PrefixId(number), *cell))
                })
        })
    }
}
