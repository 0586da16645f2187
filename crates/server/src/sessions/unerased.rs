//! Erased sessions of which the shared tier may still have a copy, because it was away when they were erased.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::SessionKey;

/// What is still to be removed from the shared tier. It would expire there by itself, but not soon enough.
#[derive(Debug, Default)]
pub(super) struct Unerased {
    versions: Mutex<HashMap<SessionKey, u64>>,
}

impl Unerased {
    pub(super) fn add(&self, key: SessionKey, version: u64) {
        self.versions().insert(key, version);
    }

    pub(super) fn take(&self) -> HashMap<SessionKey, u64> {
        std::mem::take(&mut *self.versions())
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<SessionKey, u64>> {
        // Inserting and taking are whole.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
