//! How a link gets from one subject to another without a moment in which neither's rules are right.
//!
//! Links are regrouped before the commit that changes the classes of addresses. Meanwhile a link has its new subject
//! and addresses have their old classes, and a row for the two may be nowhere: what is allowed before and after would
//! be denied for that moment. So a link that is judged crosses over a subject which begins as a copy of its old one
//! and becomes its new one in the commit. That is the new subject itself where nobody has it yet and all links come to
//! it from one and the same; else a number that is used for the crossing only. A link that was denied until now gets
//! its new subject at once: a copy must not let it in.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::tables::{Change, Class, Direction, Edit, Program, Subject, Tables};

/// The crossings of one plan.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    /// From an old subject to a new one, over a number of its own.
    vias: BTreeMap<(Subject, Subject), Subject>,
    /// What each bridge, in the place of its new subject or beside it, is made of and becomes.
    bridges: BTreeMap<Subject, Subject>,
    pairs: BTreeMap<(Direction, Subject, Class), Program>,
    defaults: BTreeMap<(Direction, Subject), Program>,
}

impl Bridges {
    /// The crossings for these changes, which led to the tables `after`. `fresh`: subjects that no link has yet.
    pub(super) fn of(changes: &[Change], after: &Tables, fresh: &BTreeSet<Subject>) -> Self {
        let mut bridges = Self::default();
        let before = Before::of(changes, after);
        let mut origins: BTreeMap<Subject, BTreeSet<Option<Subject>>> = BTreeMap::new();
        for change in changes {
            if let Change::Link(edit) = change
                && let Some(new) = edit.new
            {
                let old = edit.old.filter(|old| old.is_ours());
                origins.entry(new).or_default().insert(old);
            }
        }
        let mut spare = (Subject::BRIDGES..=Subject::LAST)
            .rev()
            .filter(|number| !before.numbers.contains(number));
        for (new, olds) in origins {
            let alone = fresh.contains(&new) && olds.len() == 1;
            for old in olds.into_iter().flatten() {
                let bridge = if alone {
                    new
                } else if before.steady && !before.edited.contains(&new) {
                    // Its rows are what they will be, and so are the classes.
                    continue;
                } else if let Some(number) = spare.next() {
                    let [egress, ingress] = Direction::BOTH.map(|it| new.isolated(it));
                    let bridge = Subject::new(number, egress, ingress);
                    bridges.vias.insert((old, new), bridge);
                    bridge
                } else {
                    continue;
                };
                bridges.bridges.insert(bridge, new);
                bridges.copy(&before, old, bridge);
            }
        }
        bridges
    }

    /// Gives a bridge the rows that its old subject had.
    fn copy(&mut self, before: &Before<'_>, old: Subject, bridge: Subject) {
        for direction in Direction::BOTH {
            if !bridge.isolated(direction) {
                continue;
            }
            if !old.isolated(direction) {
                self.defaults.insert((direction, bridge), Program::ALLOW);
                continue;
            }
            let default = before.default(direction, old);
            self.defaults
                .extend(default.map(|program| ((direction, bridge), program)));
            let pairs = before.pairs(direction, old).into_iter();
            self.pairs
                .extend(pairs.map(|(class, program)| ((direction, bridge, class), program)));
        }
    }

    /// Whether the change is about a row of a subject that is its own bridge.
    pub(super) fn builds(&self, change: &Change) -> bool {
        match change {
            Change::Pair(edit) => self.bridges.contains_key(&edit.key.1),
            Change::Default(edit) => self.bridges.contains_key(&edit.key.1),
            _ => false,
        }
    }

    /// The bridge that a link crosses, when that is not its new subject.
    pub(super) fn via(&self, edit: &Edit<String, Subject>) -> Option<Subject> {
        self.vias.get(&(edit.old?, edit.new?)).copied()
    }

    /// Makes the bridges.
    pub(super) fn built(&self) -> Vec<Change> {
        changes(&Rows::default(), &self.rows())
    }

    /// Makes each of them what its new subject is.
    pub(super) fn crossed(&self, after: &Tables) -> Vec<Change> {
        changes(&self.rows(), &self.ends(after, |_, _| true))
    }

    /// Removes those that are not their new subject.
    pub(super) fn removed(&self, after: &Tables) -> Vec<Change> {
        let spare = self.ends(after, |bridge, new| bridge != new);
        changes(&spare, &Rows::default())
    }

    fn rows(&self) -> Rows {
        Rows {
            pairs: self.pairs.clone(),
            defaults: self.defaults.clone(),
        }
    }

    /// The rows of the bridges after the commit.
    fn ends(&self, after: &Tables, which: impl Fn(Subject, Subject) -> bool) -> Rows {
        let mut rows = Rows::default();
        for (&bridge, &new) in self.bridges.iter().filter(|it| which(*it.0, *it.1)) {
            for direction in Direction::BOTH {
                let default = after.defaults.get(&(direction, new));
                rows.defaults
                    .extend(default.map(|program| ((direction, bridge), *program)));
                let pairs = pairs(after, direction, new);
                rows.pairs
                    .extend(pairs.map(|(class, program)| ((direction, bridge, class), program)));
            }
        }
        rows
    }
}

#[derive(Debug, Default)]
struct Rows {
    pairs: BTreeMap<(Direction, Subject, Class), Program>,
    defaults: BTreeMap<(Direction, Subject), Program>,
}

fn changes(have: &Rows, want: &Rows) -> Vec<Change> {
    let tables = |rows: &Rows| Tables {
        pairs: rows.pairs.clone(),
        defaults: rows.defaults.clone(),
        ..Tables::default()
    };
    tables(have).diff(&tables(want))
}

fn pairs(
    tables: &Tables,
    direction: Direction,
    subject: Subject,
) -> impl Iterator<Item = (Class, Program)> {
    let range = (direction, subject, Class::NONE)..=(direction, subject, Class(u32::MAX));
    let pairs = tables.pairs.range(range);
    pairs.map(|(&(_, _, class), &program)| (class, program))
}

/// What a subject's pair with a class was.
type Was = (Class, Option<Program>);

/// The rows before the changes.
struct Before<'a> {
    after: &'a Tables,
    pairs: BTreeMap<(Direction, Subject), Vec<Was>>,
    defaults: BTreeMap<(Direction, Subject), Option<Program>>,
    /// Subjects of which a row changes.
    edited: BTreeSet<Subject>,
    /// Numbers for crossings that somebody has in the kernel: of a life that ended in the middle of one.
    numbers: BTreeSet<u32>,
    /// No address changes its class.
    steady: bool,
}

impl<'a> Before<'a> {
    fn of(changes: &[Change], after: &'a Tables) -> Self {
        let mut before = Self {
            after,
            pairs: BTreeMap::new(),
            defaults: BTreeMap::new(),
            edited: BTreeSet::new(),
            numbers: BTreeSet::new(),
            steady: true,
        };
        for change in changes {
            match change {
                Change::Pair(edit) => {
                    let (direction, subject, class) = edit.key;
                    let pairs = before.pairs.entry((direction, subject)).or_default();
                    pairs.push((class, edit.old));
                    before.edited.insert(subject);
                }
                Change::Default(edit) => {
                    before.defaults.insert(edit.key, edit.old);
                    before.edited.insert(edit.key.1);
                }
                Change::Peer(_) | Change::Net(_) => before.steady = false,
                Change::Link(edit) => before.edited.extend(edit.old),
                _ => {}
            }
        }
        let numbers = before.edited.iter().map(|subject| subject.number());
        before.numbers = numbers
            .filter(|number| *number >= Subject::BRIDGES)
            .collect();
        before
    }

    fn default(&self, direction: Direction, subject: Subject) -> Option<Program> {
        let key = (direction, subject);
        let changed = self.defaults.get(&key).copied();
        changed.unwrap_or_else(|| self.after.defaults.get(&key).copied())
    }

    fn pairs(&self, direction: Direction, subject: Subject) -> BTreeMap<Class, Program> {
        let mut rows: BTreeMap<_, _> = pairs(self.after, direction, subject).collect();
        for (class, old) in self.pairs.get(&(direction, subject)).into_iter().flatten() {
            match old {
                Some(program) => rows.insert(*class, *program),
                None => rows.remove(class),
            };
        }
        rows
    }
}
