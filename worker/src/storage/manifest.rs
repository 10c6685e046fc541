//! The staging manifest: which stems are complete, and their song and model.

use separation_contract::message::TaskId;
use serde::{Deserialize, Serialize};

use super::AttemptId;
use crate::model::Provenance;

/// Version of the manifests' format.
pub(crate) const VERSION: u32 = 1;

/// Maximum size of a manifest that is read; without long paths and links a manifest has under 1 KiB.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Identity of a song: changes when the song is replaced under the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputIdentity {
    /// Size in bytes.
    pub size: u64,
    /// Modification time and size of a file, or an object's `ETag`.
    pub tag: String,
}

/// A staged stem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedStem {
    /// Path or `s3://` address.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// Publishes a task's stems. Written after the stems, so they exist when it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingManifest {
    version: u32,
    /// The task.
    pub task_uuid: TaskId,
    /// The attempt that produced the stems.
    pub attempt: String,
    /// The song that was separated.
    pub input: InputIdentity,
    /// Fingerprint of the model.
    pub model: String,
    /// License and origin of the model; older workers did not write them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
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
        (model, provenance): (&str, &Provenance),
        [vocals, instrumental]: [StagedStem; 2],
    ) -> Self {
        Self {
            version: VERSION,
            task_uuid: task.clone(),
            attempt: attempt.to_string(),
            input,
            model: model.to_owned(),
            provenance: Some(provenance.clone()),
            vocals,
            instrumental,
        }
    }

    /// Whether these stems came from `input` and `model`; without an input, compares only the model.
    pub fn matches(&self, input: Option<&InputIdentity>, model: &str) -> bool {
        self.model == model && input.is_none_or(|input| *input == self.input)
    }

    /// Parses a manifest of `task`. An invalid one counts as none, because the stems can be produced again.
    pub(crate) fn read(task: &TaskId, bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| tracing::warn!(task_uuid = %task, %error, "Ignoring a staging manifest that is not valid"))
            .ok()?;
        let ours = manifest.version == VERSION && manifest.task_uuid == *task;
        ours.then_some(manifest)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialize")
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
            (model, &Provenance::default()),
            ["t1_vocals.wav", "t1_instrumental.wav"].map(stem),
        )
    }

    proptest! {
        #[test]
        fn a_manifest_is_parsed_as_it_was_written(size: u64, tag in ".{0,40}", model in "[0-9a-f]{64}") {
            let written = manifest(size, &tag, &model);
            let read = StagingManifest::read(&written.task_uuid, &written.to_json());
            prop_assert_eq!(read.as_ref(), Some(&written));
            prop_assert!(written.matches(Some(&written.input), &model));
            prop_assert!(written.matches(None, &model));
        }

        #[test]
        fn arbitrary_bytes_never_panic_the_parser(bytes: Vec<u8>) {
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
        assert!(!written.matches(Some(&other), "m"));
        assert!(!written.matches(None, "n"));
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
