//! Sets of prefix numbers.

use super::PrefixId;

const WORD_BITS: usize = 64;
const PAGE_WORDS: usize = 16;
const PAGE_BITS: usize = WORD_BITS * PAGE_WORDS;

/// A set of numbers, one bit each, in pages that exist where there is a number.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    pages: Vec<Option<Box<Page>>>,
    len: usize,
    /// No page before it holds a number.
    first: usize,
}

#[derive(Debug, Default)]
struct Page {
    words: [u64; PAGE_WORDS],
    len: usize,
}

impl IdSet {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a number; returns whether it is new.
    pub(super) fn insert(&mut self, id: PrefixId) -> bool {
        let (at, word, bit) = place(id);
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
        }
        let page = self.pages[at].get_or_insert_default();
        let is_new = page.words[word] & bit == 0;
        if is_new {
            page.words[word] |= bit;
            page.len += 1;
            self.len += 1;
            self.first = self.first.min(at);
        }
        is_new
    }

    /// Removes a number; returns whether it was there.
    pub(super) fn remove(&mut self, id: PrefixId) -> bool {
        let (at, word, bit) = place(id);
        let Some(Some(page)) = self.pages.get_mut(at) else {
            return false;
        };
        let was = page.words[word] & bit != 0;
        if was {
            page.words[word] &= !bit;
            page.len -= 1;
            self.len -= 1;
            if page.len == 0 {
                self.pages[at] = None;
            }
        }
        was
    }

    pub(super) fn contains(&self, id: PrefixId) -> bool {
        let (at, word, bit) = place(id);
        matches!(self.pages.get(at), Some(Some(page)) if page.words[word] & bit != 0)
    }

    /// Takes the lowest number out.
    pub(super) fn pop_first(&mut self) -> Option<PrefixId> {
        if self.len == 0 {
            self.pages = Vec::new();
            self.first = 0;
            return None;
        }
        let at = (self.first..self.pages.len()).find(|at| self.pages[*at].is_some())?;
        self.first = at;
        let page = self.pages[at].as_mut()?;
        let word = page.words.iter().position(|word| *word != 0)?;
        let bit = page.words[word].trailing_zeros();
        page.words[word] &= page.words[word] - 1;
        page.len -= 1;
        self.len -= 1;
        if page.len == 0 {
            self.pages[at] = None;
        }
        number(at, word, bit)
    }

    /// All numbers in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = PrefixId> {
        self.pages.iter().enumerate().flat_map(|(at, page)| {
            let words = page.iter().flat_map(|page| page.words.iter().enumerate());
            words.flat_map(move |(word, bits)| {
                let mut bits = *bits;
                std::iter::from_fn(move || {
                    let bit = bits.trailing_zeros();
                    bits &= bits.checked_sub(1)?;
                    number(at, word, bit)
                })
            })
        })
    }
}

fn place(id: PrefixId) -> (usize, usize, u64) {
    let id = id.index();
    let (at, rest) = (id / PAGE_BITS, id % PAGE_BITS);
    (at, rest / WORD_BITS, 1 << (rest % WORD_BITS))
}

fn number(page: usize, word: usize, bit: u32) -> Option<PrefixId> {
    let low = u32::try_from(page * PAGE_BITS + word * WORD_BITS).ok()?;
    Some(PrefixId(low + bit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(steps in prop::collection::vec((0..5000u32, 0..4u8), 0..300)) {
            let (mut ids, mut model) = (IdSet::default(), BTreeSet::new());
            for (id, step) in steps {
                match step {
                    0 => prop_assert_eq!(ids.remove(PrefixId(id)), model.remove(&id)),
                    1 => prop_assert_eq!(ids.pop_first().map(|it| it.0), model.pop_first()),
                    _ => prop_assert_eq!(ids.insert(PrefixId(id)), model.insert(id)),
                }
                prop_assert_eq!(ids.is_empty(), model.is_empty());
                prop_assert_eq!(ids.contains(PrefixId(id)), model.contains(&id));
            }
            let all: Vec<u32> = ids.iter().map(|it| it.0).collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
