//! Which selectors can select an object at all, without trying them: by a label that it must have.
//!
//! Most selectors say that some label has one of a few values. Kept by such a label, those that may select an object are
//! found by the object's labels, and the objects that a selector may select by the selector's.

use std::collections::{BTreeSet, HashMap};

use crds::selector::{Expr, Selector, Test};

use super::labels::{self, LabelSelector};
use super::model::{
    EndpointSelector, NamespaceSelector, Peer, PeerList, PodSelector, Scope, Selection,
};
use super::selecting::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};

/// What an object has at least one of, if a selector selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Nothing in particular.
    Anything,
    /// One of these labels; with a value where one is given.
    Labels(BTreeSet<(String, Option<String>)>),
}

impl Anchor {
    fn value(key: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let label = |value: String| (key.to_owned(), Some(value));
        Self::Labels(values.into_iter().map(Into::into).map(label).collect())
    }

    fn key(key: &str) -> Self {
        Self::Labels([(key.to_owned(), None)].into())
    }

    /// How many objects it leaves, roughly: labels with values before labels, few before many.
    fn rank(&self) -> (bool, usize, usize) {
        match self {
            Self::Anything => (true, 0, 0),
            Self::Labels(labels) => {
                let bare = labels.iter().filter(|(_, value)| value.is_none());
                (false, bare.count(), labels.len())
            }
        }
    }

    /// Of a condition that asks for both.
    fn and(self, other: Self) -> Self {
        if other.rank() < self.rank() {
            other
        } else {
            self
        }
    }

    /// Of a condition that asks for either.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Labels(mut labels), Self::Labels(more)) => {
                labels.extend(more);
                Self::Labels(labels)
            }
            _ => Self::Anything,
        }
    }

    /// Of nothing at all.
    const fn nothing() -> Self {
        Self::Labels(BTreeSet::new())
    }

    fn of_expr(expr: &Expr) -> Self {
        match expr {
            Expr::All | Expr::Not(_) => Self::Anything,
            Expr::Has(key) => Self::key(key),
            Expr::Test { key, test } => match test {
                Test::Equals(value) => Self::value(key, [value]),
                Test::In(values) => Self::value(key, values),
                Test::Contains(_) | Test::StartsWith(_) | Test::EndsWith(_) => Self::key(key),
                Test::Differs(_) | Test::NotIn(_) => Self::Anything,
            },
            Expr::And(parts) => {
                let parts = parts.iter().map(Self::of_expr);
                parts.fold(Self::Anything, Self::and)
            }
            Expr::Or(parts) => {
                let parts = parts.iter().map(Self::of_expr);
                parts.fold(Self::nothing(), Self::or)
            }
        }
    }

    fn of_labels(selector: &LabelSelector) -> Self {
        let tests = selector.requirements().map(|it| match &it.test {
            labels::Test::In(values) => Self::value(&it.key, values),
            labels::Test::Exists => Self::key(&it.key),
            labels::Test::NotIn(_) | labels::Test::DoesNotExist => Self::Anything,
        });
        tests.fold(Self::Anything, Self::and)
    }

    fn of_pods(selector: &PodSelector) -> Self {
        let namespace = match &selector.namespaces {
            NamespaceSelector::Named(name) => Self::value(NAMESPACE_LABEL, [name]),
            NamespaceSelector::Labels(_) => Self::Anything,
        };
        Self::of_labels(&selector.pods).and(namespace)
    }

    fn of_endpoints(selector: &EndpointSelector) -> Self {
        let scope = match &selector.scope {
            Scope::Namespace(name) => Self::value(NAMESPACE_LABEL, [name]),
            Scope::Anywhere | Scope::Namespaces(_) | Scope::Global => Self::Anything,
        };
        let accounts = match &selector.service_accounts {
            Some(accounts) if !accounts.names.is_empty() => {
                Self::value(SERVICE_ACCOUNT_LABEL, &accounts.names)
            }
            _ => Self::Anything,
        };
        Self::of(&selector.labels).and(scope).and(accounts)
    }

    /// Of a selector by labels.
    pub(super) fn of(selector: &Selector) -> Self {
        Self::of_expr(selector.expr())
    }

    /// Of the endpoints that a policy selects.
    pub(super) fn of_selection(selection: &Selection) -> Self {
        match selection {
            Selection::Pods(selector) => Self::of_pods(selector),
            Selection::Endpoints(selector) => Self::of_endpoints(selector),
        }
    }

    /// Of what the selectors of a list select; its blocks and other peers have no labels.
    pub(super) fn of_list(list: &PeerList) -> Self {
        let parts = list.iter().map(|peer| match peer {
            Peer::Pods(selector) => Self::of_pods(selector),
            Peer::Endpoints(selector) => Self::of_endpoints(selector),
            Peer::Nodes(_) | Peer::Service { .. } | Peer::Net { .. } => Self::nothing(),
        });
        parts.fold(Self::nothing(), Self::or)
    }
}

/// Selectors by the labels that they ask for.
#[derive(Debug)]
pub(super) struct Selectors<T> {
    anchored: HashMap<String, Under<T>>,
    /// Those without an anchor.
    rest: BTreeSet<T>,
}

/// What is kept under one key.
#[derive(Debug)]
struct Under<T> {
    values: HashMap<String, BTreeSet<T>>,
    /// Whatever the value.
    any: BTreeSet<T>,
}

impl<T> Default for Under<T> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            any: BTreeSet::new(),
        }
    }
}

impl<T> Default for Selectors<T> {
    fn default() -> Self {
        Self {
            anchored: HashMap::new(),
            rest: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Clone> Selectors<T> {
    /// Keeps one under its anchor.
    pub(super) fn insert(&mut self, anchor: &Anchor, it: &T) {
        let Anchor::Labels(labels) = anchor else {
            self.rest.insert(it.clone());
            return;
        };
        for (key, value) in labels {
            let under = self.anchored.entry(key.clone()).or_default();
            let those = match value {
                Some(value) => under.values.entry(value.clone()).or_default(),
                None => &mut under.any,
            };
            those.insert(it.clone());
        }
    }

    /// Forgets one that was kept under this anchor.
    pub(super) fn remove(&mut self, anchor: &Anchor, it: &T) {
        let Anchor::Labels(labels) = anchor else {
            self.rest.remove(it);
            return;
        };
        for (key, value) in labels {
            let Some(under) = self.anchored.get_mut(key) else {
                continue;
            };
            match value {
                Some(value) => take(&mut under.values, value, it),
                None => {
                    under.any.remove(it);
                }
            }
            if under.any.is_empty() && under.values.is_empty() {
                self.anchored.remove(key);
            }
        }
    }

    /// Those that may select an object with these labels.
    pub(super) fn of<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeSet<T> {
        let mut found = self.rest.clone();
        for (key, value) in labels {
            if let Some(under) = self.anchored.get(key) {
                found.extend(under.any.iter().cloned());
                found.extend(under.values.get(value).into_iter().flatten().cloned());
            }
        }
        found
    }
}

/// Objects by their labels.
#[derive(Debug)]
pub(super) struct Objects<T> {
    by_label: HashMap<String, HashMap<String, BTreeSet<T>>>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self {
            by_label: HashMap::new(),
        }
    }
}

impl<T: Ord + Clone> Objects<T> {
    /// Keeps an object under its labels.
    pub(super) fn insert<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        it: &T,
    ) {
        for (key, value) in labels {
            if !self.by_label.contains_key(key) {
                self.by_label.insert(key.to_owned(), HashMap::new());
            }
            let Some(values) = self.by_label.get_mut(key) else {
                continue;
            };
            match values.get_mut(value) {
                Some(objects) => {
                    objects.insert(it.clone());
                }
                None => {
                    values.insert(value.to_owned(), [it.clone()].into());
                }
            }
        }
    }

    /// Forgets an object with these labels.
    pub(super) fn remove<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        it: &T,
    ) {
        for (key, value) in labels {
            if let Some(values) = self.by_label.get_mut(key) {
                take(values, value, it);
                if values.is_empty() {
                    self.by_label.remove(key);
                }
            }
        }
    }

    /// Those with this label.
    pub(super) fn with(&self, key: &str, value: &str) -> impl Iterator<Item = &T> {
        let values = self.by_label.get(key);
        values
            .and_then(|values| values.get(value))
            .into_iter()
            .flatten()
    }

    /// Those that a selector with this anchor may select; `None`: any.
    pub(super) fn under(&self, anchor: &Anchor) -> Option<BTreeSet<T>> {
        let Anchor::Labels(labels) = anchor else {
            return None;
        };
        let mut found = BTreeSet::new();
        for (key, value) in labels {
            let Some(values) = self.by_label.get(key) else {
                continue;
            };
            match value {
                Some(value) => found.extend(values.get(value).into_iter().flatten().cloned()),
                None => found.extend(values.values().flatten().cloned()),
            }
        }
        Some(found)
    }
}

fn take<T: Ord>(values: &mut HashMap<String, BTreeSet<T>>, value: &str, it: &T) {
    if let Some(those) = values.get_mut(value) {
        those.remove(it);
        if those.is_empty() {
            values.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn anchor(text: &str) -> Anchor {
        Anchor::of(&text.parse().unwrap())
    }

    fn labels(labels: &[(&str, Option<&str>)]) -> Anchor {
        let label =
            |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        Anchor::Labels(labels.iter().map(label).collect())
    }

    #[test]
    fn an_anchor_is_the_label_that_leaves_least() {
        for text in [
            "all()",
            "a != 'x'",
            "a not in {'x'}",
            "!has(a)",
            "a == 'x' || b != 'y'",
        ] {
            assert_eq!(anchor(text), Anchor::Anything, "{text}");
        }
        assert_eq!(anchor("a == 'x' && has(b)"), labels(&[("a", Some("x"))]));
        assert_eq!(
            anchor("b in {'y', 'z'} && a == 'x'"),
            labels(&[("a", Some("x"))])
        );
        assert_eq!(anchor("a contains 'x' && b != 'y'"), labels(&[("a", None)]));
        assert_eq!(
            anchor("a == 'x' || has(b)"),
            labels(&[("a", Some("x")), ("b", None)])
        );
    }

    #[test]
    fn what_is_removed_is_forgotten() {
        let (x, any) = (anchor("a == 'x' || has(b)"), anchor("all()"));
        let mut selectors = Selectors::default();
        selectors.insert(&x, &1);
        selectors.insert(&any, &2);
        assert_eq!(selectors.of([("a", "x")]), [1, 2].into());
        assert_eq!(selectors.of([("a", "y")]), [2].into());
        selectors.remove(&x, &1);
        selectors.remove(&any, &2);
        assert!(selectors.of([("a", "x"), ("b", "")]).is_empty());
        assert!(selectors.anchored.is_empty());

        let mut objects = Objects::default();
        objects.insert([("a", "x"), ("b", "y")], &1);
        assert_eq!(objects.under(&x), Some([1].into()));
        assert_eq!(objects.under(&any), None);
        objects.remove([("a", "x"), ("b", "y")], &1);
        assert_eq!(objects.under(&x), Some(BTreeSet::new()));
        assert!(objects.by_label.is_empty());
    }

    fn selector() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("all()".to_owned()),
            "has\\([abc]\\)",
            "[abc] (==|!=|contains|starts with|ends with) '[xyz]'",
            "[abc] (in|not in) \\{('[xyz]')?\\}",
        ];
        leaf.prop_recursive(4, 16, 2, |inner| {
            prop_oneof![
                inner.clone().prop_map(|it| format!("!({it})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) || ({b})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_that_is_selected_is_missed(
            text in selector(), has in proptest::collection::btree_map("[abc]", "[xyz]{1,2}", 0..3),
        ) {
            let selector: Selector = text.parse().unwrap();
            let anchor = Anchor::of(&selector);
            let has: BTreeMap<String, String> = has;
            let labels = || has.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let mut selectors = Selectors::default();
            selectors.insert(&anchor, &());
            let mut objects = Objects::default();
            objects.insert(labels(), &());
            if selector.matches(&has) {
                prop_assert!(!selectors.of(labels()).is_empty(), "{text}");
                prop_assert!(objects.under(&anchor).is_none_or(|found| !found.is_empty()), "{text}");
            }
        }
    }
}
