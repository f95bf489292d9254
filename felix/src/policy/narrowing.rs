//! Whether a compile may forbid what was allowed: the functions of before and after, compared where they can differ.

use super::compile::Moves;
use super::engine::Engine;
use super::function::{BySource, Function};
use super::tables::{Answer, Class, Direction, Program, Subject};

impl Engine {
    /// Asked when the rows are up to date and the functions of before are still there.
    pub(super) fn narrows(&self, moves: &Moves) -> bool {
        let stay = |class: Class| (class, class);
        let relinked = moves.subjects.iter().any(|&(old, new)| {
            let mut classes = self
                .lasting_classes()
                .map(stay)
                .chain(moves.classes.iter().copied());
            classes.any(|(before, after)| self.worse((old, before), (new, after)))
        });
        if relinked {
            return true;
        }
        let mut subjects = self
            .subjects
            .used()
            .filter(|(number, _)| self.subjects.lasting(*number))
            .map(|(number, key)| {
                Subject::new(number, !key.egress.is_empty(), !key.ingress.is_empty())
            });
        let reclassified = !moves.classes.is_empty()
            && subjects.any(|subject| {
                let mut moves = moves.classes.iter();
                moves.any(|&(before, after)| self.worse((subject, before), (subject, after)))
            });
        if reclassified {
            return true;
        }
        let edited = self.ledger.touched_defaults().any(|(_, subject)| {
            self.subjects.lasting(subject.number())
                && self
                    .lasting_classes()
                    .any(|class| self.worse((subject, class), (subject, class)))
        });
        edited
            || self.ledger.touched_pairs().any(|(_, subject, class)| {
                self.subjects.lasting(subject.number())
                    && self.classes.lasting(class.0)
                    && self.worse((subject, class), (subject, class))
            })
    }

    /// The classes that are what they were, that of addresses nobody mentions first.
    fn lasting_classes(&self) -> impl Iterator<Item = Class> {
        let used = self.classes.used().map(|(number, _)| number);
        let lasting = used.filter(|&number| self.classes.lasting(number));
        std::iter::once(Class::NONE).chain(lasting.map(Class))
    }

    fn worse(&self, before: (Subject, Class), after: (Subject, Class)) -> bool {
        Direction::BOTH.into_iter().any(|direction| {
            let old = self.program(direction, before, true);
            let new = self.program(direction, after, false);
            old != new && !self.covers(new, old)
        })
    }

    /// The program of a pair, as of the last compile or now.
    fn program(
        &self,
        direction: Direction,
        (subject, class): (Subject, Class),
        before: bool,
    ) -> Program {
        if !subject.isolated(direction) {
            return Program::ALLOW;
        }
        let (pair, default) = ((direction, subject, class), (direction, subject));
        let program = if before {
            self.ledger
                .pair_before(&pair)
                .or_else(|| self.ledger.default_before(&default))
        } else {
            let tables = self.ledger.tables();
            tables
                .pairs
                .get(&pair)
                .or_else(|| tables.defaults.get(&default))
                .copied()
        };
        program.unwrap_or(Program::DENY)
    }

    pub(super) fn covers(&self, new: Program, old: Program) -> bool {
        match (self.function(new), self.function(old)) {
            (Some(new), Some(old)) => new.covers(&old),
            _ => false,
        }
    }

    /// `None` of one that asks for our own address: another one may forbid more.
    fn function(&self, program: Program) -> Option<BySource<Function>> {
        if !program.is_refined() {
            return self.plain_function(program).map(BySource::plain);
        }
        let refined = self.refined.value(program.0 & !Program::REFINED)?;
        let denied = || Function::constant(Answer::DENY);
        Some(refined.map(|&inner| self.plain_function(inner).unwrap_or_else(denied)))
    }

    fn plain_function(&self, program: Program) -> Option<Function> {
        match program.answer() {
            Some(answer) => Some(Function::constant(answer)),
            None => self
                .programs
                .value(program.0)
                .map(|function| Function::clone(function)),
        }
    }
}
