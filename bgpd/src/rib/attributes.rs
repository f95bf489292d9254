//! Attribute sets, each held once: equal sets are the same allocation.

use std::collections::HashSet;
use std::sync::Arc;

use crate::wire::Attributes;

/// Holds every attribute set in use. Sets that nothing else holds any more are dropped when the number has doubled.
#[derive(Debug, Default)]
pub struct Interner {
    sets: HashSet<Arc<Attributes>>,
    sweep_at: usize,
}

/// Fewer sets than this are not worth a sweep.
const SWEEP_MIN: usize = 1024;

impl Interner {
    /// The one allocation of these attributes.
    pub fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(have) = self.sets.get(&attributes) {
            return have.clone();
        }
        if self.sets.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = self.sets.len() * 2;
        }
        let set = Arc::new(attributes);
        self.sets.insert(set.clone());
        set
    }

    /// Sets held now, unused ones included.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}
