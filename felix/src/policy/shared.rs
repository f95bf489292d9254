//! Equal values, kept once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Values that somebody has, and how many have each.
#[derive(Debug)]
pub(super) struct Shared<T: ?Sized>(HashMap<Arc<T>, usize>);

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// The value that is kept for equal ones. Whoever has it says so again to [`forget`](Self::forget).
    pub(super) fn share(&mut self, it: Arc<T>) -> Arc<T> {
        let entry = self.0.entry(it);
        let kept = Arc::clone(entry.key());
        *entry.or_default() += 1;
        kept
    }

    /// One less has it.
    pub(super) fn forget(&mut self, it: &T) {
        if let Some(count) = self.0.get_mut(it) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(it);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_while_somebody_has_it() {
        let mut shared: Shared<str> = Shared::default();
        let one = shared.share(Arc::from("x"));
        let two = shared.share(Arc::from("x"));
        assert!(Arc::ptr_eq(&one, &two));
        shared.forget("x");
        assert_eq!(shared.0.len(), 1);
        shared.forget("x");
        assert!(shared.0.is_empty());
    }
}
