//! Songs and task records in the staging, manifests in the bucket of finished stems.

use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use separation_contract::message::TaskId;

use super::traits::TaskFiles;
use crate::storage::{FinalManifest, Finals, Staging};
use crate::work::WorkError;

/// Songs and task records in the staging, manifests in the bucket of finished stems.
#[derive(Debug, Clone)]
pub struct StagedFiles {
    staging: Staging,
    finals: Option<Finals>,
}

impl StagedFiles {
    /// Without `finals`, no task is ever reported as done.
    pub fn new(staging: Staging, finals: Option<Finals>) -> Self {
        Self { staging, finals }
    }
}

impl TaskFiles for StagedFiles {
    fn put_input<'a>(
        &'a self,
        task: &'a TaskId,
        song: BoxStream<'a, io::Result<Bytes>>,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<String, WorkError>> {
        Box::pin(async move { Ok(self.staging.put_input(task, song, limit_bytes).await?) })
    }

    fn input_path(&self, task: &TaskId) -> Result<String, WorkError> {
        Ok(self.staging.input_path(task)?)
    }

    fn delete_input<'a>(
        &'a self,
        task: &'a TaskId,
        audio_path: &'a str,
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move {
            self.staging.delete_input(task, audio_path).await?;
            Ok(())
        })
    }

    fn put_record<'a>(&'a self, task: &'a TaskId, record: Vec<u8>) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move { Ok(self.staging.put_record(task, &record).await?) })
    }

    fn record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Vec<u8>>, WorkError>> {
        Box::pin(async move { Ok(self.staging.record(task).await?) })
    }

    fn delete_record<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move { Ok(self.staging.delete_record(task).await?) })
    }

    fn is_separated<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<bool, WorkError>> {
        Box::pin(async move { Ok(self.staging.find(task).await?.is_some()) })
    }

    fn manifest<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<FinalManifest>, WorkError>> {
        Box::pin(async move {
            match &self.finals {
                Some(finals) => Ok(finals.manifest(task).await?),
                None => Ok(None),
            }
        })
    }

    fn erase<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(async move {
            let audio_path = self.staging.input_path(task)?;
            self.staging.delete_input(task, &audio_path).await?;
            Ok(self.staging.remove(task).await?)
        })
    }
}
