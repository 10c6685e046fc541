//! Names of staged files.

use separation_contract::message::TaskId;
use separation_contract::names;

use crate::storage::AttemptId;

/// Name of the manifest in its task's directory.
pub(super) const MANIFEST: &str = "manifest.json";

/// Suffix of an incomplete file's name.
const PART: &str = ".part";

/// The temporary name of a file until it is complete; unique, so that concurrent writers of one file do not conflict.
pub(super) fn part_name(name: &str) -> String {
    format!(".{name}.{}{PART}", AttemptId::new())
}

/// Whether a file's name has the form of [`part_name`].
pub(super) fn is_part_name(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(PART));
    inner
        .and_then(|inner| inner.rsplit_once('.'))
        .is_some_and(|(name, attempt)| !name.is_empty() && AttemptId::is_valid(attempt))
}

/// The task to whose song the API gives this name; none for other files.
pub(super) fn task_of_input(name: &str) -> Option<TaskId> {
    let (task, _) = name.rsplit_once('_')?;
    let task = TaskId::parse(task).ok()?;
    (names::input_name(&task) == name).then_some(task)
}
