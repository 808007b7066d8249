//! Calls under way at once: one counter for each key, there while it is above zero.

use std::num::NonZeroU32;

use super::key::{CellKey, CellMap, cell_of};

/// The counters of one rule. They know no cap, so that a rule whose cap changes keeps count of the calls under way.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: CellMap<u32>,
}

impl Slots {
    /// Whether one more would stay within the cap. Takes nothing.
    pub(super) fn peek(&self, key: CellKey, cap: NonZeroU32, max_keys: u32) -> bool {
        let cell = cell_of(&self.taken, key, max_keys);
        self.taken.get(&cell).is_none_or(|taken| *taken < cap.get())
    }

    /// Takes one for good; says under which key it must be given back.
    pub(super) fn take(&self, key: CellKey, max_keys: u32) -> CellKey {
        let cell = cell_of(&self.taken, key, max_keys);
        let mut taken = self.taken.entry(cell).or_default();
        *taken = taken.saturating_add(1);
        cell
    }

    pub(super) fn give_back(&self, cell: CellKey) {
        self.taken.remove_if_mut(&cell, |_, taken| {
            *taken = taken.saturating_sub(1);
            *taken == 0
        });
    }

    /// Gives memory back after many keys at once. Keys need no sweeping: they go with their last call.
    pub(super) fn sweep(&self) {
        if self.taken.capacity() / 4 > self.taken.len() {
            self.taken.shrink_to_fit();
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.taken.len()
    }
}
