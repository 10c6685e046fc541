//! Objects of one kind as the API server last told of them. Pure: events in, names of what changed out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many deletions of one kind are remembered.
const MOST_TOMBSTONES: usize = 4_096;

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
    /// A request for an object was answered with 404: it is gone, at a version that is not known.
    Missing(K),
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
    deleted: Tombstones<K>,
    /// The newest version of anything.
    newest: Version,
    /// What was told since a restart.
    listed: Option<BTreeSet<K>>,
    is_whole: bool,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            deleted: Tombstones::default(),
            newest: Version::default(),
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
                self.insert(key.clone(), value);
                vec![key]
            }
            Change::ListedAll => {
                self.is_whole = true;
                let Some(listed) = self.listed.take() else {
                    return Vec::new();
                };
                let gone = self.objects.keys().filter(|key| !listed.contains(*key));
                let gone: Vec<K> = gone.cloned().collect();
                for key in &gone {
                    self.remove(key, self.newest);
                }
                gone
            }
            Change::Applied(key, value) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                let version = value.version();
                let newer = |known: Version| known > version && version != Version::default();
                let known = self.objects.get(&key).map(Versioned::version);
                // An answer to a write that came before a deletion does not undo it.
                let deleted = self.deleted.version(&key);
                let is_deleted = |at: Version| at >= version && version != Version::default();
                if known.is_some_and(newer) || deleted.is_some_and(is_deleted) {
                    return Vec::new();
                }
                self.insert(key.clone(), value);
                vec![key]
            }
            Change::Deleted(key, version) => {
                let known = self.objects.get(&key).map(Versioned::version);
                if known.is_some_and(|known| known > version && version != Version::default()) {
                    return Vec::new();
                }
                self.newest = self.newest.max(version);
                self.remove(&key, version);
                known.map(|_| key).into_iter().collect()
            }
            Change::Missing(key) => {
                let Some(known) = self.objects.get(&key).map(Versioned::version) else {
                    return Vec::new();
                };
                self.remove(&key, known);
                vec![key]
            }
        }
    }

    fn insert(&mut self, key: K, value: V) {
        self.newest = self.newest.max(value.version());
        self.deleted.forget(&key);
        self.objects.insert(key, value);
    }

    fn remove(&mut self, key: &K, version: Version) {
        self.objects.remove(key);
        self.deleted.remember(key, version);
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

/// Versions at which objects were deleted, the newest ones: an answer to a write comes within seconds of it.
#[derive(Debug)]
struct Tombstones<K> {
    versions: BTreeMap<K, Version>,
    /// Their keys, the oldest first. A key may be in here that is remembered no longer.
    order: VecDeque<K>,
}

impl<K> Default for Tombstones<K> {
    fn default() -> Self {
        Self {
            versions: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Ord + Clone> Tombstones<K> {
    fn version(&self, key: &K) -> Option<Version> {
        self.versions.get(key).copied()
    }

    fn remember(&mut self, key: &K, version: Version) {
        if self.versions.insert(key.clone(), version).is_none() {
            self.order.push_back(key.clone());
        }
        while self.order.len() > MOST_TOMBSTONES {
            if let Some(oldest) = self.order.pop_front() {
                self.versions.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, key: &K) {
        self.versions.remove(key);
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
    fn an_answer_to_a_write_does_not_undo_a_later_deletion() {
        let mut mirror = filled(&[("a", 5), ("b", 5)]);
        // The watch is faster than the answer to the write before it.
        assert_eq!(mirror.take(Change::Deleted("a", Version(8))), ["a"]);
        assert!(mirror.take(Change::Applied("a", 7)).is_empty());
        assert!(!mirror.objects().contains_key("a"));
        // Another object of that name.
        assert_eq!(mirror.take(Change::Applied("a", 9)), ["a"]);
        // A write was answered with 404 before the watch told of the deletion.
        assert_eq!(mirror.take(Change::Missing("b")), ["b"]);
        assert!(mirror.take(Change::Missing("b")).is_empty());
        assert!(mirror.take(Change::Applied("b", 4)).is_empty());
        assert!(mirror.take(Change::Deleted("b", Version(11))).is_empty());
        assert!(mirror.take(Change::Applied("b", 10)).is_empty());
        // What a list no longer has was deleted before the newest version that it has.
        mirror.take(Change::Restarted);
        mirror.take(Change::Listed("c", 20));
        assert_eq!(mirror.take(Change::ListedAll), ["a"]);
        assert!(mirror.take(Change::Applied("a", 19)).is_empty());
        assert_eq!(mirror.objects().keys().copied().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn as_many_deletions_are_remembered_as_are_of_use() {
        let mut mirror: Mirror<usize, u64> = Mirror::default();
        for (key, version) in (1..3 * MOST_TOMBSTONES).zip(1..) {
            for key in [0, key] {
                mirror.take(Change::Applied(key, 2 * version));
                assert_eq!(mirror.take(Change::Deleted(key, Version(2 * version + 1))), [key]);
            }
        }
        assert!(mirror.deleted.versions.len() <= MOST_TOMBSTONES);
        assert!(mirror.deleted.order.len() <= MOST_TOMBSTONES);
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
        assert_eq!(mirror.take(Change::Applied("a", 0)), ["a"]);
    }
}
