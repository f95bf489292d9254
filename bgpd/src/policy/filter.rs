//! Filters, compiled: which of a peer's routes they take or tell, and with what changes.
//!
//! ```text
//!  config::Filter (by name) ─► Chain::new ─► judge(prefix, attributes, context) ─► Judged
//!                                            trace(…) ─► the same, with every step
//! ```

mod condition;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use super::community::Communities;
use crate::config::Filter;
use crate::config::filter::{Action, Change, PeerType, Rule, Source};
use crate::nexthop::NextHop;
use crate::wire::Attributes;
use crate::wire::attribute::community;
use condition::{Condition, Held};

/// Whether routes are learnt or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Learnt: [`Filter::import`].
    Import,
    /// Told: [`Filter::export`].
    Export,
}

/// The filters of one peer and direction, in order. Equal chains judge alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain {
    filters: Vec<Compiled>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Compiled {
    name: String,
    /// None: there is no filter of that name.
    rules: Option<Vec<CompiledRule>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CompiledRule {
    name: String,
    /// All of them have to hold; the cheapest first.
    conditions: Vec<Condition>,
    changes: Vec<Edit>,
    action: Action,
}

/// A change, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Edit {
    Add(Communities),
    Remove(Communities),
    Replace(Communities),
    Prepend(Option<u32>, u8),
    Med(Option<u32>),
    LocalPref(u32),
    NextHop(NextHop),
}

/// What filters know of a route beside its prefix and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Where it comes from.
    pub source: Source,
    /// Type of the peer it comes from, or goes to.
    pub peer_type: PeerType,
    /// The AS that peer knows this speaker by.
    pub asn: u32,
}

/// A rule of a chain, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Which filter of the chain.
    pub filter: u16,
    /// Which of its rules; None: the filter does not exist, which rejects everything.
    pub rule: Option<u16>,
}

/// What the filters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The rule takes the route.
    Accept {
        /// The rule.
        step: Step,
        /// Prefixes are among its conditions, and this one is named there. A default route only by itself.
        named: bool,
        /// BLACKHOLE is among the communities it asks for (RFC 7999).
        blackhole: bool,
    },
    /// The rule does not.
    Reject(Step),
    /// No rule decides.
    Undecided,
}

/// What the filters say, and what they make of the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Whether the route is taken.
    pub verdict: Verdict,
    /// The attributes with all changes; None: there was none.
    pub changed: Option<Attributes>,
    /// MULTI_EXIT_DISC was set, so the rules about learnt ones do not hold.
    pub med_set: bool,
    /// The next hop was set, so none of ours takes its place.
    pub next_hop_set: bool,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    /// Name of the filter.
    pub filter: String,
    /// Name of the rule, or its number from 1.
    pub rule: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The filter does not exist: everything is rejected.
    Undefined,
    /// That condition does not hold.
    Missed(&'static str),
    /// All conditions hold.
    Matched {
        /// Changes made, in words.
        changes: Vec<String>,
        /// What follows.
        action: Action,
    },
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter {}", self.filter)?;
        let action = match &self.outcome {
            Outcome::Undefined => return f.write_str(": there is none of that name, rejected"),
            Outcome::Missed(condition) => {
                return write!(f, " rule {}: {condition} does not match", self.rule);
            }
            Outcome::Matched { changes, action } => {
                write!(f, " rule {}: ", self.rule)?;
                for change in changes {
                    write!(f, "{change}, ")?;
                }
                action
            }
        };
        f.write_str(match action {
            Action::Accept => "accepted",
            Action::Reject => "rejected",
            Action::Next => "next",
        })
    }
}

impl Chain {
    /// The filters of these names. A name that no filter has stands for one that rejects everything: what cannot be
    /// judged is not let through.
    pub fn new(filters: &BTreeMap<String, Filter>, names: &[String], direction: Direction) -> Self {
        let compiled = |name: &String| {
            let rules = filters.get(name).map(|filter| match direction {
                Direction::Import => &filter.import,
                Direction::Export => &filter.export,
            });
            let compile = |rules: &Vec<Rule>| rules.iter().zip(1_u32..).map(compile).collect();
            Compiled {
                name: name.clone(),
                rules: rules.map(compile),
            }
        };
        Self {
            filters: names.iter().map(compiled).collect(),
        }
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether they say anything of routes of that family: a filter that does not exist does, it rejects them.
    pub fn is_about(&self, family: Family) -> bool {
        let about = |rule: &CompiledRule| rule.conditions.iter().all(|it| it.is_about(family));
        self.filters
            .iter()
            .any(|it| it.rules.as_ref().is_none_or(|it| it.iter().any(about)))
    }

    /// Whether verdicts depend on more of the prefix than its family. If not, one holds for all routes of a family
    /// with the same attributes and context.
    pub fn looks_at_prefix(&self) -> bool {
        self.rules()
            .flat_map(|rule| &rule.conditions)
            .any(Condition::looks_at_prefix)
    }

    /// Whether some rule changes routes.
    pub fn makes_changes(&self) -> bool {
        self.rules().any(|rule| !rule.changes.is_empty())
    }

    /// What the filters say.
    pub fn judge(&self, prefix: Cidr, attributes: &Attributes, context: Context) -> Judged {
        self.run(prefix, attributes, context, |_, _| ())
    }

    /// What the filters say, and every rule on the way there.
    pub fn trace(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        context: Context,
    ) -> (Judged, Vec<TraceStep>) {
        let mut steps = Vec::new();
        let judged = self.run(prefix, attributes, context, |step, outcome| {
            let (filter, rule) = self.names(step);
            steps.push(TraceStep {
                filter: filter.to_owned(),
                rule: rule.to_owned(),
                outcome: match outcome {
                    Looked::Undefined => Outcome::Undefined,
                    Looked::Missed(condition) => Outcome::Missed(condition.name()),
                    Looked::Matched(rule) => Outcome::Matched {
                        changes: rule.changes.iter().map(ToString::to_string).collect(),
                        action: rule.action,
                    },
                },
            });
        });
        (judged, steps)
    }

    /// A step in words: `filter tor rule 2`.
    pub fn words(&self, step: Step) -> String {
        match (self.names(step), step.rule) {
            ((filter, _), None) => format!("filter {filter}, which does not exist"),
            ((filter, rule), Some(_)) => format!("filter {filter} rule {rule}"),
        }
    }

    /// Names of the filter and the rule of a step; empty when it is none of this chain.
    fn names(&self, step: Step) -> (&str, &str) {
        let Some(filter) = self.filters.get(usize::from(step.filter)) else {
            return ("", "");
        };
        let rule = step
            .rule
            .and_then(|at| filter.rules.as_ref()?.get(usize::from(at)));
        (&filter.name, rule.map_or("", |rule| &rule.name))
    }

    fn rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.filters
            .iter()
            .filter_map(|it| it.rules.as_ref())
            .flatten()
    }

    /// The one evaluation, for verdicts and for traces.
    fn run(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        context: Context,
        mut note: impl FnMut(Step, Looked<'_>),
    ) -> Judged {
        let mut route = Route {
            prefix,
            attributes: Cow::Borrowed(attributes),
            context,
            med_set: false,
            next_hop_set: false,
        };
        for (filter, at) in self.filters.iter().zip(0..) {
            let Some(rules) = &filter.rules else {
                let step = Step {
                    filter: at,
                    rule: None,
                };
                note(step, Looked::Undefined);
                return route.judged(Verdict::Reject(step));
            };
            for (rule, number) in rules.iter().zip(0..) {
                let step = Step {
                    filter: at,
                    rule: Some(number),
                };
                let mut held = Held::default();
                let missed = rule
                    .conditions
                    .iter()
                    .find(|it| !it.holds(&route, &mut held));
                if let Some(missed) = missed {
                    note(step, Looked::Missed(missed));
                    continue;
                }
                for edit in &rule.changes {
                    route.edit(edit);
                }
                note(step, Looked::Matched(rule));
                match rule.action {
                    Action::Next => {}
                    Action::Reject => return route.judged(Verdict::Reject(step)),
                    Action::Accept => {
                        return route.judged(Verdict::Accept {
                            step,
                            named: held.named,
                            blackhole: rule
                                .conditions
                                .iter()
                                .any(|it| it.asks_for(community::BLACKHOLE)),
                        });
                    }
                }
            }
        }
        route.judged(Verdict::Undecided)
    }
}

/// What came of a rule, before anybody puts it into words.
enum Looked<'a> {
    Undefined,
    Missed(&'a Condition),
    Matched(&'a CompiledRule),
}

/// A route on its way through a chain.
struct Route<'a> {
    prefix: Cidr,
    attributes: Cow<'a, Attributes>,
    context: Context,
    med_set: bool,
    next_hop_set: bool,
}

impl Route<'_> {
    fn judged(self, verdict: Verdict) -> Judged {
        let changed = match self.attributes {
            Cow::Borrowed(_) => None,
            Cow::Owned(changed) => Some(changed),
        };
        Judged {
            verdict,
            changed,
            med_set: self.med_set,
            next_hop_set: self.next_hop_set,
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let attributes = match edit {
            // An IPv6 prefix cannot be told with an IPv4 next hop; the other way it can (RFC 8950).
            Edit::NextHop(next_hop)
                if self.prefix.family() == Family::V6 && next_hop.address.is_ipv4() =>
            {
                return;
            }
            _ => self.attributes.to_mut(),
        };
        match edit {
            Edit::Add(communities) => communities.add(attributes),
            Edit::Remove(communities) => communities.remove(attributes),
            Edit::Replace(communities) => communities.replace(attributes),
            Edit::Prepend(asn, times) => {
                let asn = asn.unwrap_or(self.context.asn);
                for _ in 0..*times {
                    attributes.as_path = attributes.as_path.prepended(asn);
                }
            }
            Edit::Med(med) => {
                attributes.med = *med;
                self.med_set = true;
            }
            Edit::LocalPref(preference) => attributes.local_pref = Some(*preference),
            Edit::NextHop(next_hop) => {
                attributes.next_hop = *next_hop;
                self.next_hop_set = true;
            }
        }
    }
}

fn compile((rule, number): (&Rule, u32)) -> CompiledRule {
    CompiledRule {
        name: match rule.name.as_str() {
            "" => number.to_string(),
            name => name.to_owned(),
        },
        conditions: Condition::all(&rule.matches),
        changes: rule.changes.iter().map(Edit::new).collect(),
        action: rule.action,
    }
}

impl Edit {
    fn new(change: &Change) -> Self {
        match change {
            Change::AddCommunities(it) => Self::Add(Communities::new(it)),
            Change::RemoveCommunities(it) => Self::Remove(Communities::new(it)),
            Change::ReplaceCommunities(it) => Self::Replace(Communities::new(it)),
            Change::Prepend(asn, times) => Self::Prepend(*asn, *times),
            Change::Med(med) => Self::Med(*med),
            Change::LocalPref(preference) => Self::LocalPref(*preference),
            Change::NextHop(address) => Self::NextHop(NextHop::from(*address)),
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(it) => write!(f, "communities {it} added"),
            Self::Remove(it) => write!(f, "communities {it} removed"),
            Self::Replace(it) => write!(f, "communities replaced by {it}"),
            Self::Prepend(None, times) => write!(f, "own AS prepended {times} times"),
            Self::Prepend(Some(asn), times) => write!(f, "AS {asn} prepended {times} times"),
            Self::Med(None) => f.write_str("MED removed"),
            Self::Med(Some(med)) => write!(f, "MED set to {med}"),
            Self::LocalPref(preference) => write!(f, "LOCAL_PREF set to {preference}"),
            Self::NextHop(next_hop) => write!(f, "next hop set to {}", next_hop.address),
        }
    }
}

#[cfg(test)]
mod tests;
