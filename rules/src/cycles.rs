//! Files that import one another, directly or through others.

use std::collections::BTreeSet;

use crate::imports::Imports;

/// Groups of files in which each one imports each other one, directly or through others; each group sorted.
#[must_use]
pub fn cycles(imports: &Imports) -> Vec<Vec<usize>> {
    let reached: Vec<(usize, BTreeSet<usize>)> = imports
        .keys()
        .map(|file| (*file, reached_from(*file, imports)))
        .collect();
    let mut groups = BTreeSet::new();
    for (file, reaches) in &reached {
        if !reaches.contains(file) {
            continue;
        }
        let group: Vec<usize> = reached
            .iter()
            .filter(|(other, back)| reaches.contains(other) && back.contains(file))
            .map(|(other, _)| *other)
            .collect();
        groups.insert(group);
    }
    groups.into_iter().collect()
}

fn reached_from(file: usize, imports: &Imports) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(next) = open.pop() {
        for used in imports.get(&next).into_iter().flatten() {
            if reached.insert(*used) {
                open.push(*used);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_import_one_another_are_one_group() {
        let imports: Imports = [
            (0, vec![1]),
            (1, vec![2]),
            (2, vec![1, 3]),
            (3, vec![]),
            (4, vec![0]),
        ]
        .map(|(file, used)| (file, used.into_iter().collect()))
        .into();
        assert_eq!(cycles(&imports), [[1, 2]]);
    }
}
