//! Counts handles, so that series are removed with the last one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of handles per label value: a pool that is recreated while its old handle still exists must not lose its
/// series when the old handle is dropped.
#[derive(Debug)]
pub(super) struct Handles<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Handles<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> Handles<K> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Adds a handle and returns its label: `rest` for a new label beyond `max`.
    pub(super) fn add(&self, key: K, max: usize, rest: K) -> K {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if handles.len() < max || handles.contains_key(&key) {
            key
        } else {
            rest
        };
        *handles.entry(key.clone()).or_default() += 1;
        key
    }

    /// Removes a handle. `last` is called under the lock, so that no handle is added in between.
    pub(super) fn remove(&self, key: &K, last: impl FnOnce()) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = handles.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                handles.remove(key);
                last();
            }
        }
    }
}
