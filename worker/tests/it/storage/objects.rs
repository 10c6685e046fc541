//! The object store client: multipart uploads, copies, listings and memory.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use futures_util::{StreamExt as _, stream};
use separation_testbed::{S3Server, eventually};
use separation_worker::settings::ObjectAddress;
use separation_worker::storage::{S3, StorageError, TransferLimits};

use super::staging_area::{SOON, new_bucket, s3_settings};

/// The smallest parts that S3 allows, so that small objects have several.
const SMALL_PARTS: TransferLimits = TransferLimits {
    single_put_bytes: 6 << 20,
    part_bytes: 5 << 20,
    single_copy_bytes: 6 << 20,
    copy_part_bytes: 5 << 20,
};

/// Set in the child process of the test below: endpoint, bucket and file.
const CHILD: &str = "SEPARATION_TEST_UPLOAD";

async fn store() -> (S3, String) {
    let bucket = new_bucket().await;
    (
        S3::connect(&s3_settings(&bucket).await)
            .await
            .with_limits(SMALL_PARTS),
        bucket,
    )
}

fn at(bucket: &str, key: &str) -> ObjectAddress {
    ObjectAddress {
        bucket: bucket.into(),
        key: key.into(),
    }
}

/// Bytes that depend on their position, so that parts in the wrong order are detected.
fn content(size: usize) -> Vec<u8> {
    (0..size / 4)
        .flat_map(|index| (index as u32).to_le_bytes())
        .collect()
}

#[tokio::test]
async fn files_below_at_and_above_the_limit_of_one_request_arrive_complete() {
    let (s3, bucket) = store().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, back) = (directory.path().join("file"), directory.path().join("back"));
    for size in [0, 4, 6 << 20, (6 << 20) + 4, 17 << 20] {
        std::fs::write(&file, content(size)).unwrap();
        let address = at(&bucket, "a folder/ä+b.wav");
        s3.prepare_upload(&file, &address, "audio/wav")
            .await
            .unwrap()
            .publish()
            .await
            .unwrap();

        let head = s3.head(&address).await.unwrap().unwrap();
        assert_eq!(head.size, size as u64);
        assert_eq!(s3.download(&address, &back, 17 << 20).await.unwrap(), head);
        assert!(std::fs::read(&back).unwrap() == content(size), "{size} bytes");
        let server = S3Server::shared().await.unwrap();
        let content_type = server.content_type(&bucket, &address.key).await.unwrap();
        assert_eq!(content_type.as_deref(), Some("audio/wav"), "{size} bytes");
        assert_eq!(
            server.unfinished_uploads(&bucket).await.unwrap(),
            Vec::<String>::new()
        );
    }
}

#[tokio::test]
async fn small_and_large_objects_are_copied_server_side() {
    let (s3, bucket) = store().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, back) = (directory.path().join("file"), directory.path().join("back"));
    let (from, to) = (at(&bucket, "staging/ä b+c.wav"), at(&bucket, "t1_vocals.wav"));
    for size in [4, 17 << 20] {
        std::fs::write(&file, content(size)).unwrap();
        s3.prepare_upload(&file, &from, "text/plain")
            .await
            .unwrap()
            .publish()
            .await
            .unwrap();
        let prepared = s3
            .prepare_copy(&from, size as u64, &to, "audio/wav")
            .await
            .unwrap();
        prepared.publish().await.unwrap();
        s3.download(&to, &back, 17 << 20).await.unwrap();
        assert!(std::fs::read(&back).unwrap() == content(size), "{size} bytes");
        let server = S3Server::shared().await.unwrap();
        let content_type = server.content_type(&bucket, &to.key).await.unwrap();
        assert_eq!(content_type.as_deref(), Some("audio/wav"), "{size} bytes");
    }
}

#[tokio::test]
async fn an_object_that_is_not_published_never_appears_and_leaves_no_parts() {
    let (s3, bucket) = store().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    for size in [4, 17 << 20] {
        std::fs::write(&file, content(size)).unwrap();
        let prepared = s3
            .prepare_upload(&file, &at(&bucket, "t1"), "audio/wav")
            .await
            .unwrap();
        drop(prepared);
    }
    let server = S3Server::shared().await.unwrap();
    eventually("the upload is aborted", SOON, async || {
        anyhow::Ok(server.unfinished_uploads(&bucket).await?.is_empty())
    })
    .await;
    assert_eq!(s3.head(&at(&bucket, "t1")).await.unwrap(), None);
}

#[tokio::test]
async fn missing_and_too_large_objects_are_reported() {
    let (s3, bucket) = store().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let missing = s3.download(&at(&bucket, "none"), &file, 10).await.unwrap_err();
    assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");
    let missing = s3
        .prepare_copy(&at(&bucket, "none"), 1, &at(&bucket, "to"), "audio/wav")
        .await
        .unwrap();
    let missing = missing.publish().await.unwrap_err();
    assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");
    let missing = s3
        .prepare_upload(&file, &at(&bucket, "to"), "audio/wav")
        .await
        .unwrap_err();
    assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");

    s3.write_small(&at(&bucket, "a"), "0123456789", None)
        .await
        .unwrap();
    assert_eq!(s3.read_small(&at(&bucket, "a"), 10).await.unwrap(), "0123456789");
    for error in [
        s3.read_small(&at(&bucket, "a"), 9).await.unwrap_err(),
        s3.download(&at(&bucket, "a"), &file, 9).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, StorageError::TooLarge { limit_bytes: 9, .. }),
            "{error}"
        );
    }
    s3.delete(&at(&bucket, "a")).await.unwrap();
    s3.delete(&at(&bucket, "a")).await.unwrap();
}

#[tokio::test]
async fn listings_span_pages_and_end_at_their_limit() {
    let (s3, bucket) = store().await;
    let put = |key: String| {
        let address = at(&bucket, &key);
        let s3 = &s3;
        async move { s3.write_small(&address, "x", None).await.unwrap() }
    };
    let keys = (0..1_010)
        .map(|index| format!("many/{index:04}"))
        .chain(["manyfold".into()]);
    stream::iter(keys)
        .map(put)
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    let prefix = at(&bucket, "many/");
    let all = s3.list(&prefix, 10_000).await.unwrap();
    assert_eq!(
        (all.len(), all[1_009].key.as_str(), all[0].size),
        (1_010, "many/1009", 1)
    );
    assert_eq!(s3.list(&prefix, 1_005).await.unwrap().len(), 1_005);
    assert_eq!(s3.list(&prefix, 3).await.unwrap().len(), 3);
}

/// Uploads a file in a separate process and returns the growth of its memory, in KiB.
async fn growth_of_an_upload_kib(file: &Path, bucket: &str) -> u64 {
    let server = S3Server::shared().await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "storage::objects::memory_does_not_grow_with_the_file",
        "--nocapture",
    ]);
    child.env(
        CHILD,
        format!("{} {bucket} {}", server.endpoint(), file.display()),
    );
    let output = tokio::task::spawn_blocking(move || child.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let growth = text
        .lines()
        .find_map(|line| line.split_once("grew by ")?.1.parse().ok());
    growth.unwrap_or_else(|| panic!("{text}"))
}

/// Peak memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the child reports to its parent")]
async fn memory_does_not_grow_with_the_file() {
    if let Ok(order) = std::env::var(CHILD) {
        let parts: Vec<&str> = order.splitn(3, ' ').collect();
        let [endpoint, bucket, file] = parts[..] else {
            panic!("{order}")
        };
        let settings = separation_worker::settings::S3Settings {
            endpoint: Some(endpoint.parse().unwrap()),
            credentials: Some(separation_worker::settings::S3Credentials {
                access_key: "testbed-access".into(),
                secret_key: "testbed-secret".into(),
                session_token: None,
            }),
            region: None,
            bucket: None,
            stems_prefix: String::new(),
            public_domain: None,
            public_endpoint: None,
            path_style: true,
        };
        let s3 = S3::connect(&settings).await;
        s3.head(&at(bucket, "warm")).await.unwrap();
        let before = peak_kib();
        let prepared = s3
            .prepare_upload(Path::new(file), &at(bucket, "large"), "audio/wav")
            .await
            .unwrap();
        prepared.publish().await.unwrap();
        println!("grew by {}", peak_kib() - before);
        return;
    }
    let bucket = new_bucket().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sparse");
    let mut growth = Vec::new();
    for size in [20 << 20, 300 << 20] {
        File::create(&file).unwrap().set_len(size).unwrap();
        growth.push(growth_of_an_upload_kib(&file, &bucket).await);
    }
    assert!(
        growth[1] < growth[0] + 8 * 1024,
        "KiB for 20 and for 300 MiB: {growth:?}"
    );
    assert!(growth[1] < 32 * 1024, "KiB for 20 and for 300 MiB: {growth:?}");
}
