//! The staging manifest: which stems are complete, and what they were made from.

use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};

use super::AttemptId;

/// The layout of manifests that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// The largest manifest that is read; a real one has under 1 KiB but for the lengths of paths and links.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Which song it was: one that is replaced under the same name differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputIdentity {
    /// Its bytes.
    pub size: u64,
    /// Time of change and size of a file, or an object's ETag.
    pub tag: String,
}

/// A stem that waits to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedStem {
    /// Path or `s3://` address.
    pub path: String,
    /// Its bytes.
    pub size: u64,
}

/// Says that a task's stems are complete. Written last, so that what it names is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingManifest {
    version: u32,
    /// The task.
    pub task_uuid: TaskId,
    /// The try that made the stems.
    pub attempt: String,
    /// What they were made from.
    pub input: InputIdentity,
    /// Hash of the model that made them.
    pub model: String,
    /// The vocals.
    pub vocals: StagedStem,
    /// The instrumental.
    pub instrumental: StagedStem,
}

impl StagingManifest {
    pub(crate) fn new(
        task: &TaskId,
        attempt: AttemptId,
        input: InputIdentity,
        model: &str,
        vocals: StagedStem,
        instrumental: StagedStem,
    ) -> Self {
        Self {
            version: VERSION,
            task_uuid: task.clone(),
            attempt: attempt.to_string(),
            input,
            model: model.to_owned(),
            vocals,
            instrumental,
        }
    }

    /// Whether these stems are what `model` makes of `input`; of an input that is gone, only the model can be compared.
    pub fn fits(&self, input: Option<&InputIdentity>, model: &str) -> bool {
        self.model == model && input.is_none_or(|input| *input == self.input)
    }

    /// Reads a manifest of `task`; anything else counts as none, for what it would save can be made again.
    pub(crate) fn read(task: &TaskId, bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| tracing::warn!(task_uuid = %task, %error, "A staging manifest cannot be read and is ignored"))
            .ok()?;
        let ours = manifest.version == VERSION && manifest.task_uuid == *task;
        ours.then_some(manifest)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always become JSON")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(size: u64, tag: &str, model: &str) -> StagingManifest {
        let stem = |name: &str| StagedStem {
            path: format!("/output/t1/a/{name}"),
            size,
        };
        let input = InputIdentity {
            size,
            tag: tag.into(),
        };
        StagingManifest::new(
            &TaskId::parse("t1").unwrap(),
            AttemptId::new(),
            input,
            model,
            stem("t1_vocals.wav"),
            stem("t1_instrumental.wav"),
        )
    }

    proptest! {
        #[test]
        fn a_manifest_is_read_as_it_was_written(size: u64, tag in ".{0,40}", model in "[0-9a-f]{64}") {
            let written = manifest(size, &tag, &model);
            let read = StagingManifest::read(&written.task_uuid, &written.to_json());
            prop_assert_eq!(read.as_ref(), Some(&written));
            prop_assert!(written.fits(Some(&written.input), &model));
            prop_assert!(written.fits(None, &model));
        }

        #[test]
        fn no_bytes_make_reading_fail(bytes: Vec<u8>) {
            let _ = StagingManifest::read(&TaskId::parse("t1").unwrap(), &bytes);
        }
    }

    #[test]
    fn a_manifest_of_another_song_model_task_or_version_does_not_count() {
        let written = manifest(7, "a", "m");
        let other = InputIdentity {
            size: 7,
            tag: "b".into(),
        };
        assert!(!written.fits(Some(&other), "m"));
        assert!(!written.fits(None, "n"));
        assert_eq!(
            StagingManifest::read(&TaskId::parse("t2").unwrap(), &written.to_json()),
            None
        );
        let newer = StagingManifest {
            version: 2,
            ..written.clone()
        };
        assert_eq!(StagingManifest::read(&written.task_uuid, &newer.to_json()), None);
    }
}
