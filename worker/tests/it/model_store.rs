//! Models in a real object store.

use std::fs;
use std::path::{Path, PathBuf};

use separation_testbed::S3Server;
use separation_worker::model::sha256_of_file;
use separation_worker::model_store::{DownloadProgress, ModelStore, ModelStoreError};
use separation_worker::outbound;
use separation_worker::settings::{AddressNames, ModelAddress};
use separation_worker::storage::S3;

use crate::storage::staging_area::{new_bucket, s3_settings};

/// Not text, and not a protobuf message.
const CONTENT: [u8; 1_000] = [0xff; 1_000];

const KEY: &str = "models/a.onnx";

struct Bench {
    server: &'static S3Server,
    bucket: String,
    directory: tempfile::TempDir,
    store: ModelStore,
    address: ModelAddress,
}

impl Bench {
    async fn new() -> Self {
        let bucket = new_bucket().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("content");
        fs::write(&file, CONTENT).unwrap();
        let sha256 = sha256_of_file(&file).unwrap();
        let s3 = S3::connect(&s3_settings(&bucket).await).await;
        let store = ModelStore::new(
            directory.path().join("cache"),
            outbound::Client::new(&[]),
            Some(s3),
        );
        Self {
            server: S3Server::shared().await.unwrap(),
            address: ModelAddress::parse(
                &format!("s3://{bucket}/{KEY}"),
                Some(&sha256),
                AddressNames::PROCESSOR,
            )
            .unwrap(),
            bucket,
            directory,
            store,
        }
    }

    async fn put(&self, key: &str, content: &[u8]) {
        self.server
            .put(&self.bucket, key, content.to_vec())
            .await
            .unwrap();
    }

    async fn obtain(&self) -> Result<PathBuf, ModelStoreError> {
        self.store.obtain(&self.address, None, &mut |_| {}).await
    }

    /// The file, and the positions where its download began.
    async fn obtain_with_offsets(&self) -> (PathBuf, Vec<u64>) {
        let (mut offsets, mut last) = (Vec::new(), None);
        let mut report = |progress| {
            if let DownloadProgress::Receiving { done_bytes, .. } = progress {
                if last.is_none_or(|last| done_bytes < last) {
                    offsets.push(done_bytes);
                }
                last = Some(done_bytes);
            }
        };
        let path = self.store.obtain(&self.address, None, &mut report).await;
        (path.unwrap(), offsets)
    }

    /// The model's directory in the cache.
    fn cached(&self) -> PathBuf {
        let sha256 = self.address.sha256.as_str();
        self.directory.path().join("cache").join(sha256)
    }

    /// Stores a part of a download, whose bytes are not those of the content, as of the object with this `ETag`.
    fn interrupt(&self, etag: &str) {
        let mark = serde_json::json!({"location": self.address.location.to_string(), "validator": etag});
        fs::create_dir_all(self.cached()).unwrap();
        fs::write(self.cached().join("model.onnx.part.json"), mark.to_string()).unwrap();
        fs::write(self.cached().join("model.onnx.part"), [0; 400]).unwrap();
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[tokio::test]
async fn an_object_is_downloaded_with_its_sidecar() {
    let bench = Bench::new().await;
    let missing = bench.obtain().await.unwrap_err();
    assert!(matches!(missing, ModelStoreError::Missing { .. }), "{missing}");
    assert_eq!(missing.dependency().unwrap().name, "model:missing");
    bench.put(KEY, &CONTENT).await;
    bench.put("models/a.json", b"{\"license\": \"MIT\"}").await;
    let path = bench.obtain().await.unwrap();
    assert_eq!(read(&path), CONTENT);
    assert_eq!(read(&path.with_extension("json")), b"{\"license\": \"MIT\"}");
}

#[tokio::test]
async fn an_interrupted_download_continues_only_with_the_same_object() {
    let bench = Bench::new().await;
    bench.put(KEY, &CONTENT).await;
    bench.interrupt("\"another\"");
    let (path, offsets) = bench.obtain_with_offsets().await;
    assert_eq!(
        (read(&path), offsets),
        (CONTENT.to_vec(), vec![0]),
        "it starts again"
    );
    fs::remove_file(&path).unwrap();

    let s3 = S3::connect(&s3_settings(&bench.bucket).await).await;
    let object = format!("s3://{}/{KEY}", bench.bucket).parse().unwrap();
    let etag = s3.head(&object).await.unwrap().unwrap().etag;
    bench.interrupt(&etag);
    // The stored bytes are wrong, so it starts again after it was continued.
    let (path, offsets) = bench.obtain_with_offsets().await;
    assert_eq!((read(&path), offsets), (CONTENT.to_vec(), vec![400, 0]));
}
