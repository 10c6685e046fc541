//! Counts handles, so that series are removed with the last one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of handles per label value: a pool that is recreated while its old handle still exists must not lose its
/// series when the old handle is dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct Handles(Arc<Mutex<HashMap<String, usize>>>);

impl Handles {
    /// Adds a handle and returns its label: `rest` for a new label beyond `max`.
    pub(super) fn add(&self, mut key: String, max: usize, rest: &str) -> String {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if handles.len() >= max && !handles.contains_key(&key) {
            rest.clone_into(&mut key);
        }
        *handles.entry(key.clone()).or_default() += 1;
        key
    }

    /// Removes a handle. `last` is called under the lock, so that no handle is added in between.
    pub(super) fn remove(&self, key: &str, last: impl FnOnce()) {
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
