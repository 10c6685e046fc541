//! Both kinds of staging, with helpers that inspect them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use separation_contract::message::TaskId;
use separation_testbed::S3Server;
use separation_worker::model::Provenance;
use separation_worker::settings::{DeleteInput, ObjectAddress, S3Credentials, S3Settings, StagingSettings};
use separation_worker::storage::{
    AttemptId, AttemptScratch, InputIdentity, S3, Scratch, Staging, StagingManifest, StemFiles, StorageError,
    StoredStems,
};
use tempfile::TempDir;

/// Timeout of background work.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// One kind of staging.
pub(crate) struct StagingArea {
    pub(crate) staging: Staging,
    pub(crate) s3: S3,
    pub(crate) bucket: String,
    pub(crate) scratch: AttemptScratch,
    directory: TempDir,
    in_objects: bool,
}

impl StagingArea {
    pub(crate) async fn directories() -> Self {
        Self::new(false).await
    }

    pub(crate) async fn objects() -> Self {
        Self::new(true).await
    }

    async fn new(in_objects: bool) -> Self {
        let bucket = new_bucket().await;
        let s3 = S3::connect(&s3_settings(&bucket).await).await;
        let directory = tempfile::tempdir().unwrap();
        let prefix = in_objects.then(|| format!("s3://{bucket}/staging"));
        let settings = settings(directory.path(), prefix.as_deref(), &[&bucket]);
        let scratch = Scratch::open(Some(&directory.path().join("scratch")), 64 << 20).unwrap();
        Self {
            staging: Staging::open(&settings, Some(s3.clone())).await.unwrap(),
            s3,
            bucket,
            scratch: scratch.begin(AttemptId::new()).await.unwrap(),
            directory,
            in_objects,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Stem files as a processor writes them.
    pub(crate) fn stems(&self, content: &str) -> (PathBuf, PathBuf) {
        let (vocals, instrumental) = (
            self.scratch.path().join("v.wav"),
            self.scratch.path().join("i.wav"),
        );
        // New files each time, because each attempt has its own.
        let _ = (std::fs::remove_file(&vocals), std::fs::remove_file(&instrumental));
        std::fs::write(&vocals, format!("vocals {content}")).unwrap();
        std::fs::write(&instrumental, format!("instrumental {content}")).unwrap();
        (vocals, instrumental)
    }

    pub(crate) async fn store(
        &self,
        name: &str,
        attempt: AttemptId,
        content: &str,
    ) -> Result<StoredStems, StorageError> {
        let (vocals, instrumental) = self.stems(content);
        self.store_files(name, attempt, &vocals, &instrumental).await
    }

    pub(crate) async fn store_files(
        &self,
        name: &str,
        attempt: AttemptId,
        vocals: &Path,
        instrumental: &Path,
    ) -> Result<StoredStems, StorageError> {
        let stems = StemFiles { vocals, instrumental };
        self.staging
            .store(&task(name), attempt, stems, &identity(), ("model", &provenance()))
            .await
    }

    /// Stores stems and publishes their manifest.
    pub(crate) async fn publish(&self, name: &str, content: &str) -> StagingManifest {
        let stored = self.store(name, AttemptId::new(), content).await.unwrap();
        self.staging.publish_manifest(&stored).await.unwrap();
        stored.manifest().clone()
    }

    /// Stores a song and returns its path.
    pub(crate) async fn put(&self, name: &str, content: &'static str) -> String {
        let song = stream::iter([Ok::<_, std::io::Error>(Bytes::from(content))]);
        self.staging.put_input(&task(name), song, 1_000).await.unwrap()
    }

    pub(crate) async fn read(&self, path: &str) -> Option<String> {
        let bytes = match path.parse::<ObjectAddress>() {
            Ok(address) => self.s3.read_small(&address, 4 << 20).await.ok()?.to_vec(),
            Err(_) => std::fs::read(path).ok()?,
        };
        Some(String::from_utf8(bytes).unwrap())
    }

    pub(crate) async fn overwrite(&self, path: &str, content: &str) {
        match path.parse::<ObjectAddress>() {
            Ok(address) => self
                .s3
                .write_small(&address, content.to_owned(), None)
                .await
                .unwrap(),
            Err(_) => std::fs::write(path, content).unwrap(),
        }
    }

    pub(crate) async fn delete(&self, path: &str) {
        match path.parse::<ObjectAddress>() {
            Ok(address) => self.s3.delete(&address).await.unwrap(),
            Err(_) => std::fs::remove_file(path).unwrap(),
        }
    }

    /// All staged files or objects, without empty directories.
    pub(crate) async fn all_files(&self) -> Vec<String> {
        if self.in_objects {
            let all = ObjectAddress {
                bucket: self.bucket.clone(),
                key: "staging/".into(),
            };
            let objects = self.s3.list(&all, 10_000).await.unwrap();
            return objects.into_iter().map(|object| object.key).collect();
        }
        let mut pending = vec![self.path("temp"), self.path("output")];
        let mut files = Vec::new();
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    files.push(path.display().to_string());
                }
            }
        }
        files
    }
}

/// Settings of staging below `directory`, or else below the prefix `s3_staging`.
pub(crate) fn settings(
    directory: &Path,
    s3_staging: Option<&str>,
    input_buckets: &[&str],
) -> StagingSettings {
    StagingSettings {
        temp_dir: directory.join("temp"),
        output_dir: directory.join("output"),
        s3_staging: s3_staging.map(|prefix| prefix.parse().unwrap()),
        input_buckets: input_buckets.iter().map(|&bucket| bucket.to_owned()).collect(),
        delete_input: DeleteInput::Never,
    }
}

/// Runs a test on both kinds of staging.
pub(crate) async fn on_both(promise: impl AsyncFn(&StagingArea)) {
    promise(&StagingArea::directories().await).await;
    promise(&StagingArea::objects().await).await;
}

pub(crate) fn task(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

pub(crate) fn identity() -> InputIdentity {
    InputIdentity {
        size: 7,
        tag: "t".into(),
    }
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        sha256: "ab".into(),
        license: Some("MIT".into()),
        ..Provenance::default()
    }
}

pub(crate) async fn new_bucket() -> String {
    let bucket = format!("b{}", AttemptId::new());
    let server = S3Server::shared().await.unwrap();
    server.create_bucket(&bucket).await.unwrap();
    bucket
}

/// Settings of workers for the real server.
pub(crate) async fn s3_settings(bucket: &str) -> S3Settings {
    let server = S3Server::shared().await.unwrap();
    S3Settings {
        endpoint: Some(server.endpoint().parse().unwrap()),
        credentials: Some(S3Credentials {
            access_key: server.access_key().into(),
            secret_key: server.secret_key().into(),
            session_token: None,
        }),
        region: None,
        bucket: Some(bucket.into()),
        stems_prefix: String::new(),
        public_domain: Some("https://cdn.example".into()),
        public_endpoint: None,
        path_style: true,
    }
}
