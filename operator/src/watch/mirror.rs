//! Objects of one kind as the API server last told of them. Pure: events in, names of what changed out.

use std::collections::{BTreeMap, BTreeSet};

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<K, V> {
    /// Everything will be told again.
    Restarted,
    /// An object, told again after a restart.
    Listed(K, V),
    /// Everything was told again.
    ListedAll,
    /// An object is there, or is different.
    Applied(K, V),
    /// An object is gone; with the version at which it went.
    Deleted(K, Version),
}

/// An object's version. Versions of one kind grow (Kubernetes 1.35 promises it); one that is no number compares as the
/// oldest, and is then always replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(u64);

impl Version {
    /// That of an object's metadata.
    pub fn of(resource_version: Option<&str>) -> Self {
        Self(resource_version.and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// Has a version.
pub trait Versioned {
    /// Its version.
    fn version(&self) -> Version;
}

/// Objects of one kind, by key.
#[derive(Debug)]
pub struct Mirror<K, V> {
    objects: BTreeMap<K, V>,
    /// What was told since a restart.
    listed: Option<BTreeSet<K>>,
    is_whole: bool,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: None,
            is_whole: false,
        }
    }
}

impl<K: Ord + Clone, V: Versioned> Mirror<K, V> {
    /// Takes in what a watch says, and gives the keys of what may be different now.
    pub fn take(&mut self, change: Change<K, V>) -> Vec<K> {
        match change {
            Change::Restarted => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Change::Listed(key, value) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                // A list is the truth, whatever the versions say: a server may have been restored from a backup.
                self.objects.insert(key.clone(), value);
                vec![key]
            }
            Change::ListedAll => {
                self.is_whole = true;
                let Some(listed) = self.listed.take() else {
                    return Vec::new();
                };
                let gone: Vec<K> = self
                    .objects
                    .keys()
                    .filter(|key| !listed.contains(*key))
                    .cloned()
                    .collect();
                self.objects.retain(|key, _| listed.contains(key));
                gone
            }
            Change::Applied(key, value) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                let older = self.objects.get(&key).is_some_and(|known| {
                    known.version() > value.version() && value.version() != Version::default()
                });
                if older {
                    return Vec::new();
                }
                self.objects.insert(key.clone(), value);
                vec![key]
            }
            Change::Deleted(key, version) => {
                let newer = self
                    .objects
                    .get(&key)
                    .is_some_and(|known| known.version() > version && version != Version::default());
                if newer || self.objects.remove(&key).is_none() {
                    return Vec::new();
                }
                vec![key]
            }
        }
    }

    /// Whether everything was told at least once.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The objects, by key.
    pub fn objects(&self) -> &BTreeMap<K, V> {
        &self.objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Versioned for u64 {
        fn version(&self) -> Version {
            Version(*self)
        }
    }

    fn filled(values: &[(&'static str, u64)]) -> Mirror<&'static str, u64> {
        let mut mirror = Mirror::default();
        mirror.take(Change::Restarted);
        for (key, value) in values {
            mirror.take(Change::Listed(*key, *value));
        }
        mirror.take(Change::ListedAll);
        mirror
    }

    #[test]
    fn what_is_not_told_again_is_gone() {
        let mut mirror = filled(&[("a", 1), ("b", 2)]);
        assert!(mirror.is_whole());
        assert!(mirror.take(Change::Restarted).is_empty());
        assert_eq!(mirror.take(Change::Listed("b", 2)), ["b"]);
        // Our own write, answered while the list is being told.
        assert_eq!(mirror.take(Change::Applied("c", 9)), ["c"]);
        assert_eq!(mirror.objects().len(), 3);
        assert_eq!(mirror.take(Change::ListedAll), ["a"]);
        assert_eq!(mirror.objects().keys().copied().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn an_answer_to_a_write_is_not_undone_by_an_older_event() {
        let mut mirror = filled(&[("a", 5)]);
        assert_eq!(mirror.take(Change::Applied("a", 7)), ["a"]);
        assert!(mirror.take(Change::Applied("a", 6)).is_empty());
        assert_eq!(mirror.objects()["a"], 7);
        assert!(mirror.take(Change::Deleted("a", Version(6))).is_empty());
        assert_eq!(mirror.take(Change::Deleted("a", Version(8))), ["a"]);
        assert!(mirror.take(Change::Deleted("a", Version(8))).is_empty());
    }

    #[test]
    fn a_list_is_the_truth_even_with_smaller_versions() {
        let mut mirror = filled(&[("a", 500)]);
        mirror.take(Change::Restarted);
        mirror.take(Change::Listed("a", 3));
        mirror.take(Change::ListedAll);
        assert_eq!(mirror.objects()["a"], 3);
    }

    #[test]
    fn versions_that_are_no_numbers_always_replace() {
        assert_eq!(Version::of(None), Version::of(Some("x")));
        let mut mirror = filled(&[("a", 5)]);
        assert_eq!(mirror.take(Change::Applied("a", 0)), ["a"]);
        assert_eq!(mirror.take(Change::Deleted("a", Version::default())), ["a"]);
    }
}
