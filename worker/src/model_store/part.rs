//! The part of a file that is already downloaded, and what identifies its content.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::fs::{self, File};

use super::{ModelStoreError, durable};
use crate::outbound::ResumeFrom;

/// The part and its mark.
const PART: &str = "model.onnx.part";
const MARK: &str = "model.onnx.part.json";

/// Time after which a part that does not grow is abandoned: an interrupted download is continued within minutes, or when
/// its user tries again.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A file that is being downloaded. Only the holder of the directory's lock may use it.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    mark: PathBuf,
}

/// The content that the stored part is of.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    location: String,
    validator: String,
}

impl Part {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join(PART),
            mark: directory.join(MARK),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a download from `location` continues; none if nothing of it is stored.
    pub(super) async fn stored(&self, location: &str) -> Option<ResumeFrom> {
        let text = fs::read(&self.mark).await.ok()?;
        let mark: Mark = serde_json::from_slice(&text).ok()?;
        let offset = fs::metadata(&self.path).await.ok()?.len();
        (mark.location == location && offset > 0).then_some(ResumeFrom {
            offset,
            validator: mark.validator,
        })
    }

    /// Opens the part to append to it at `offset`. At 0 it is emptied first, and marked if the content has a validator.
    pub(super) async fn open(
        &self,
        offset: u64,
        location: &str,
        validator: Option<String>,
    ) -> Result<File, ModelStoreError> {
        if offset > 0 {
            let opened = File::options().append(true).open(&self.path).await;
            return opened.map_err(ModelStoreError::file("open", &self.path));
        }
        // Without a mark, whatever is stored after a crash is not continued.
        remove(&self.mark)
            .await
            .map_err(ModelStoreError::file("remove", &self.mark))?;
        let file = File::create(&self.path).await;
        let file = file.map_err(ModelStoreError::file("create", &self.path))?;
        if let Some(validator) = validator {
            let mark = Mark {
                location: location.to_owned(),
                validator,
            };
            let text = serde_json::to_vec(&mark).expect("two strings always serialize");
            let written = fs::write(&self.mark, text).await;
            written.map_err(ModelStoreError::file("write", &self.mark))?;
        }
        Ok(file)
    }

    /// Whether there is a part, and nothing was added to it for [`ABANDONED_AFTER`].
    pub(super) async fn is_abandoned(&self, now: SystemTime) -> bool {
        let modified = async { fs::metadata(&self.path).await?.modified() };
        let age = modified.await.ok().and_then(|at| now.duration_since(at).ok());
        age.is_some_and(|age| age >= ABANDONED_AFTER)
    }

    /// Removes the part.
    pub(super) async fn discard(&self) -> Result<(), ModelStoreError> {
        for path in [&self.mark, &self.path] {
            remove(path)
                .await
                .map_err(ModelStoreError::file("remove", path))?;
        }
        Ok(())
    }

    /// Renames the complete part to its final name, so that it is there after a crash of the machine.
    pub(super) async fn publish(self, destination: &Path) -> Result<(), ModelStoreError> {
        let renamed = fs::rename(&self.path, destination).await;
        renamed.map_err(ModelStoreError::file("create", destination))?;
        remove(&self.mark)
            .await
            .map_err(ModelStoreError::file("remove", &self.mark))?;
        durable::sync_directory_of(destination).map_err(ModelStoreError::file("sync", destination))
    }
}

/// Removes a file; a missing one is no error.
async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn only_a_marked_part_of_the_same_address_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let part = Part::in_directory(directory.path());
        assert_eq!(part.stored("a").await, None);
        let mut file = part.open(0, "a", Some("v1".to_owned())).await.unwrap();
        assert_eq!(part.stored("a").await, None, "nothing is stored yet");
        file.write_all(b"0123").await.unwrap();
        file.flush().await.unwrap();
        let stored = ResumeFrom {
            offset: 4,
            validator: "v1".to_owned(),
        };
        assert_eq!(part.stored("a").await, Some(stored));
        assert_eq!(part.stored("b").await, None);
        let mut file = part.open(4, "a", Some("v1".to_owned())).await.unwrap();
        file.write_all(b"4").await.unwrap();
        file.flush().await.unwrap();
        assert_eq!(std::fs::read(part.path()).unwrap(), b"01234");
        drop(part.open(0, "a", None).await.unwrap());
        assert_eq!(std::fs::read(part.path()).unwrap(), b"");
        std::fs::write(part.path(), "01").unwrap();
        assert_eq!(part.stored("a").await, None, "the server has no validator");
    }
}
