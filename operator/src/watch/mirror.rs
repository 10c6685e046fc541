//! A cache of the objects of one kind, updated by watch events and by responses to the operator's own writes. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most deletions of one kind that are remembered.
const MAX_TOMBSTONES: usize = 4_096;

/// A watch event, or the result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<K, V> {
    /// A new list begins.
    Restarted,
    /// An object of the list.
    Listed(K, V),
    /// The list is complete.
    ListedAll,
    /// An object was created or changed.
    Applied(K, V),
    /// An object was deleted, at this version.
    Deleted(K, Version),
    /// A request for an object was answered with 404: it was deleted, at an unknown version.
    Missing(K),
}

/// An object's resourceVersion. Versions of one kind increase (guaranteed since Kubernetes 1.35); one that is not a
/// number compares as the oldest, and is always replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(u64);

impl Version {
    /// Parses `metadata.resourceVersion`.
    pub fn parse(resource_version: Option<&str>) -> Self {
        Self(resource_version.and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// An object with a resourceVersion.
pub trait Versioned {
    /// The object's resourceVersion.
    fn version(&self) -> Version;
}

/// Objects of one kind, by key.
#[derive(Debug)]
pub struct Mirror<K, V> {
    objects: BTreeMap<K, V>,
    deleted: Tombstones<K>,
    /// The newest version of any object.
    newest: Version,
    /// Keys seen since a restart, until the list is complete.
    listed: Option<BTreeSet<K>>,
    is_listed: bool,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            deleted: Tombstones::default(),
            newest: Version::default(),
            listed: None,
            is_listed: false,
        }
    }
}

impl<K: Ord + Clone, V: Versioned> Mirror<K, V> {
    /// Applies a change, and returns the keys of the objects that may have changed.
    pub fn apply(&mut self, change: Change<K, V>) -> Vec<K> {
        match change {
            Change::Restarted => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Change::Listed(key, value) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                // A list is authoritative even with older versions: etcd may have been restored from a backup.
                self.insert(key.clone(), value);
                vec![key]
            }
            Change::ListedAll => {
                self.is_listed = true;
                let Some(listed) = self.listed.take() else {
                    return Vec::new();
                };
                let removed = self.objects.keys().filter(|key| !listed.contains(*key));
                let removed: Vec<K> = removed.cloned().collect();
                for key in &removed {
                    self.remove(key, self.newest);
                }
                removed
            }
            Change::Applied(key, value) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                let version = value.version();
                let newer = |known: Version| known > version && version != Version::default();
                let known = self.objects.get(&key).map(Versioned::version);
                // The response to a write before a deletion must not undo the deletion.
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

    /// Whether a list was complete at least once.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// The objects, by key.
    pub fn objects(&self) -> &BTreeMap<K, V> {
        &self.objects
    }
}

/// Versions of the most recent deletions; enough, because the response to a write arrives within seconds.
#[derive(Debug)]
struct Tombstones<K> {
    versions: BTreeMap<K, Version>,
    /// Their keys, oldest first. It may contain keys that are no longer remembered.
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
        while self.order.len() > MAX_TOMBSTONES {
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
        mirror.apply(Change::Restarted);
        for (key, value) in values {
            mirror.apply(Change::Listed(*key, *value));
        }
        mirror.apply(Change::ListedAll);
        mirror
    }

    #[test]
    fn an_object_missing_from_a_new_list_is_removed() {
        let mut mirror = filled(&[("a", 1), ("b", 2)]);
        assert!(mirror.is_listed());
        assert!(mirror.apply(Change::Restarted).is_empty());
        assert_eq!(mirror.apply(Change::Listed("b", 2)), ["b"]);
        // The response to the operator's own write arrives during the list.
        assert_eq!(mirror.apply(Change::Applied("c", 9)), ["c"]);
        assert_eq!(mirror.objects().len(), 3);
        assert_eq!(mirror.apply(Change::ListedAll), ["a"]);
        assert_eq!(mirror.objects().keys().copied().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn a_response_to_a_write_is_not_undone_by_an_older_event() {
        let mut mirror = filled(&[("a", 5)]);
        assert_eq!(mirror.apply(Change::Applied("a", 7)), ["a"]);
        assert!(mirror.apply(Change::Applied("a", 6)).is_empty());
        assert_eq!(mirror.objects()["a"], 7);
        assert!(mirror.apply(Change::Deleted("a", Version(6))).is_empty());
        assert_eq!(mirror.apply(Change::Deleted("a", Version(8))), ["a"]);
        assert!(mirror.apply(Change::Deleted("a", Version(8))).is_empty());
    }

    #[test]
    fn a_response_to_a_write_does_not_undo_a_later_deletion() {
        let mut mirror = filled(&[("a", 5), ("b", 5)]);
        // The deletion's event arrives before the response to an earlier write.
        assert_eq!(mirror.apply(Change::Deleted("a", Version(8))), ["a"]);
        assert!(mirror.apply(Change::Applied("a", 7)).is_empty());
        assert!(!mirror.objects().contains_key("a"));
        // Another object of the same name.
        assert_eq!(mirror.apply(Change::Applied("a", 9)), ["a"]);
        // A write was answered with 404 before the deletion's event arrived.
        assert_eq!(mirror.apply(Change::Missing("b")), ["b"]);
        assert!(mirror.apply(Change::Missing("b")).is_empty());
        assert!(mirror.apply(Change::Applied("b", 4)).is_empty());
        assert!(mirror.apply(Change::Deleted("b", Version(11))).is_empty());
        assert!(mirror.apply(Change::Applied("b", 10)).is_empty());
        // An object that is missing from a list was deleted before the list's newest version.
        mirror.apply(Change::Restarted);
        mirror.apply(Change::Listed("c", 20));
        assert_eq!(mirror.apply(Change::ListedAll), ["a"]);
        assert!(mirror.apply(Change::Applied("a", 19)).is_empty());
        assert_eq!(mirror.objects().keys().copied().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn the_number_of_remembered_deletions_is_limited() {
        let mut mirror: Mirror<usize, u64> = Mirror::default();
        for (key, version) in (1..3 * MAX_TOMBSTONES).zip(1..) {
            for key in [0, key] {
                mirror.apply(Change::Applied(key, 2 * version));
                assert_eq!(
                    mirror.apply(Change::Deleted(key, Version(2 * version + 1))),
                    [key]
                );
            }
        }
        assert!(mirror.deleted.versions.len() <= MAX_TOMBSTONES);
        assert!(mirror.deleted.order.len() <= MAX_TOMBSTONES);
    }

    #[test]
    fn a_list_is_authoritative_even_with_smaller_versions() {
        let mut mirror = filled(&[("a", 500)]);
        mirror.apply(Change::Restarted);
        mirror.apply(Change::Listed("a", 3));
        mirror.apply(Change::ListedAll);
        assert_eq!(mirror.objects()["a"], 3);
    }

    #[test]
    fn objects_with_non_numeric_versions_are_always_replaced() {
        assert_eq!(Version::parse(None), Version::parse(Some("x")));
        let mut mirror = filled(&[("a", 5)]);
        assert_eq!(mirror.apply(Change::Applied("a", 0)), ["a"]);
        assert_eq!(mirror.apply(Change::Deleted("a", Version::default())), ["a"]);
        assert_eq!(mirror.apply(Change::Applied("a", 0)), ["a"]);
    }
}
