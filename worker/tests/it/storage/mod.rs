//! Songs and stems in shared directories and in a real object store: the same behavior, tested on both.

mod classify;
mod creates;
mod deletions;
pub(crate) mod faults;
mod objects;
pub(crate) mod staging_area;

use std::os::unix::fs::symlink;

use bytes::Bytes;
use futures_util::stream;
use separation_worker::error::ErrorClass;
use separation_worker::storage::{AttemptId, StagingManifest, StemSource, StorageError, StoredStems};

use staging_area::{StagingArea, identity, on_both, task};

async fn found(area: &StagingArea, name: &str) -> Option<StagingManifest> {
    area.staging.find(&task(name)).await.unwrap()
}

async fn store_without_instrumental(
    area: &StagingArea,
    name: &str,
    attempt: AttemptId,
) -> Result<StoredStems, StorageError> {
    let (vocals, instrumental) = area.stems("1");
    std::fs::remove_file(&instrumental).unwrap();
    area.store_files(name, attempt, &vocals, &instrumental).await
}

#[tokio::test]
async fn stems_are_found_once_their_manifest_is_published() {
    on_both(async |area| {
        assert_eq!(found(area, "t1").await, None);
        let stored = area.store("t1", AttemptId::new(), "1").await.unwrap();
        assert_eq!(found(area, "t1").await, None);
        area.staging.publish_manifest(&stored).await.unwrap();

        let manifest = found(area, "t1").await.unwrap();
        assert_eq!(&manifest, stored.manifest());
        assert!(manifest.matches(Some(&identity()), "model"));
        assert_eq!(area.read(&manifest.vocals.path).await.unwrap(), "vocals 1");
        assert_eq!(
            area.read(&manifest.instrumental.path).await.unwrap(),
            "instrumental 1"
        );
        assert!(
            manifest.vocals.path.ends_with("/t1_vocals.wav"),
            "{}",
            manifest.vocals.path
        );
        assert_eq!(found(area, "t2").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_manifest_without_both_complete_stems_counts_as_none() {
    on_both(async |area| {
        let truncated = area.publish("cut", "1").await;
        area.overwrite(&truncated.vocals.path, "voc").await;
        assert_eq!(found(area, "cut").await, None);

        let deleted = area.publish("deleted", "1").await;
        area.delete(&deleted.instrumental.path).await;
        assert_eq!(found(area, "deleted").await, None);

        let broken = area.publish("broken", "1").await;
        let manifest = broken
            .vocals
            .path
            .replace(&format!("{}/broken_vocals.wav", broken.attempt), "manifest.json");
        assert!(area.read(&manifest).await.unwrap().starts_with("{\"version\":1"));
        area.overwrite(&manifest, "{\"version\":").await;
        assert_eq!(found(area, "broken").await, None);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_overwrites_nothing_of_another() {
    on_both(async |area| {
        let (superseded, worker) = (AttemptId::new(), AttemptId::new());
        let _ = area.store("t1", superseded, "stale").await.unwrap();
        let stored = area.store("t1", worker, "fresh").await.unwrap();
        area.staging.publish_manifest(&stored).await.unwrap();
        area.staging
            .discard_attempt(&task("t1"), superseded)
            .await
            .unwrap();
        area.staging
            .discard_attempt(&task("t1"), superseded)
            .await
            .unwrap();

        let manifest = found(area, "t1").await.unwrap();
        assert_eq!(area.read(&manifest.vocals.path).await.unwrap(), "vocals fresh");
        assert_eq!(area.all_files().await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn storing_can_be_retried_after_a_failure() {
    on_both(async |area| {
        let attempt = AttemptId::new();
        let failed = store_without_instrumental(area, "t1", attempt).await;
        assert!(matches!(failed, Err(StorageError::Missing { .. })), "{failed:?}");
        let stored = area.store("t1", attempt, "1").await.unwrap();
        area.staging.publish_manifest(&stored).await.unwrap();
        area.staging.publish_manifest(&stored).await.unwrap();
        assert_eq!(found(area, "t1").await.as_ref(), Some(stored.manifest()));
    })
    .await;
}

#[tokio::test]
async fn a_failed_attempt_leaves_nothing_once_it_is_discarded() {
    on_both(async |area| {
        let attempt = AttemptId::new();
        store_without_instrumental(area, "t1", attempt).await.unwrap_err();
        for _ in 0..2 {
            area.staging.discard_attempt(&task("t1"), attempt).await.unwrap();
        }
        assert_eq!(area.all_files().await, Vec::<String>::new());
        assert!(!area.path("output/t1").exists());
    })
    .await;
}

#[tokio::test]
async fn stems_on_another_file_system_are_stored_complete() {
    on_both(async |area| {
        // On the file system of the directories, a stem is stored as a hard link.
        let elsewhere = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let elsewhere = elsewhere.unwrap();
        let stem = elsewhere.path().join("stem.wav");
        // More than the buffer of a copy.
        let content = "0123456789".repeat(300_000);
        std::fs::write(&stem, &content).unwrap();
        let stored = area
            .store_files("t1", AttemptId::new(), &stem, &stem)
            .await
            .unwrap();
        let manifest = stored.manifest();
        for stored in [&manifest.vocals, &manifest.instrumental] {
            assert_eq!(stored.size, 3_000_000);
            assert!(
                area.read(&stored.path).await.as_ref() == Some(&content),
                "{stored:?}"
            );
        }
        assert_eq!(area.all_files().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_record_is_read_as_it_was_last_stored_until_it_is_deleted() {
    on_both(async |area| {
        assert_eq!(area.staging.record(&task("t1")).await.unwrap(), None);
        for record in ["{}", "a longer record", "short"] {
            area.staging
                .put_record(&task("t1"), record.as_bytes())
                .await
                .unwrap();
            let found = area.staging.record(&task("t1")).await.unwrap();
            assert_eq!(found.as_deref(), Some(record.as_bytes()));
        }
        assert_eq!(area.staging.record(&task("t2")).await.unwrap(), None);
        assert_eq!(area.all_files().await.len(), 1);

        area.staging
            .put_record(&task("t1"), &[b'x'; (64 << 10) + 1])
            .await
            .unwrap();
        let too_large = area.staging.record(&task("t1")).await.unwrap();
        assert_eq!(too_large, None, "a record that is too large counts as none");
        for _ in 0..2 {
            area.staging.delete_record(&task("t1")).await.unwrap();
        }
        assert_eq!(area.all_files().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn removing_a_task_removes_all_its_attempts_and_nothing_else() {
    on_both(async |area| {
        let _ = area
            .store("t1", AttemptId::new(), "left by a killed worker")
            .await
            .unwrap();
        area.publish("t1", "1").await;
        area.publish("t10", "10").await;
        area.publish("inputs", "a valid task id").await;
        area.staging.put_record(&task("t1"), b"{}").await.unwrap();
        let song = area.put("t1", "song").await;
        for _ in 0..2 {
            area.staging.remove(&task("t1")).await.unwrap();
            area.staging.remove(&task("inputs")).await.unwrap();
        }
        assert_eq!(found(area, "t1").await, None);
        assert!(found(area, "t10").await.is_some());
        assert_eq!(area.read(&song).await.as_deref(), Some("song"));
        assert_eq!(area.all_files().await.len(), 4, "{:?}", area.all_files().await);
    })
    .await;
}

#[tokio::test]
async fn a_song_is_read_as_it_was_stored_until_it_is_deleted() {
    on_both(async |area| {
        let path = area.put("t1", "song").await;
        assert!(path.ends_with("/t1_input.wav"), "{path}");
        let before = area.staging.input(&path).await.unwrap();
        let staged = area.staging.stage_in(&path, &area.scratch).await.unwrap();
        assert_eq!(std::fs::read_to_string(&staged.path).unwrap(), "song");
        assert_eq!(before.as_ref(), Some(&staged.identity));
        assert_eq!(staged.identity.size, 4);

        area.put("t1", "another song").await;
        let after = area.staging.input(&path).await.unwrap();
        assert_ne!(before, after);

        for _ in 0..2 {
            assert!(area.staging.delete_input(&task("t1"), &path).await.unwrap());
        }
        assert_eq!(area.staging.input(&path).await.unwrap(), None);
        let missing = area.staging.stage_in(&path, &area.scratch).await.unwrap_err();
        assert!(matches!(missing, StorageError::Missing { .. }), "{missing}");
        assert_eq!(missing.class(), ErrorClass::Permanent);
        assert!(missing.to_string().contains(&path), "{missing}");
    })
    .await;
}

#[tokio::test]
async fn a_task_deletes_its_own_input_and_no_input_that_other_tasks_may_name() {
    on_both(async |area| {
        let of_another = area.put("t2", "song").await;
        let longer = area.put("t1_x", "song").await;
        for path in [&of_another, &longer] {
            assert!(!area.staging.delete_input(&task("t1"), path).await.unwrap());
            assert_eq!(area.read(path).await.as_deref(), Some("song"), "{path}");
        }
        let own = area.put("t1", "song").await;
        assert!(area.staging.delete_input(&task("t1"), &own).await.unwrap());
        assert_eq!(area.read(&own).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_song_that_is_too_long_or_incomplete_never_becomes_visible() {
    on_both(async |area| {
        let chunk = || Ok(Bytes::from(vec![1; 1 << 20]));
        // Longer than a part, so that a multipart upload has started.
        let long = stream::iter(
            (0..40)
                .map(|_| chunk())
                .collect::<Vec<Result<Bytes, std::io::Error>>>(),
        );
        let refused = area
            .staging
            .put_input(&task("t1"), long, 30 << 20)
            .await
            .unwrap_err();
        assert!(matches!(refused, StorageError::TooLarge { .. }), "{refused}");

        let broken = stream::iter((0..12).map(|index| {
            if index < 11 {
                chunk()
            } else {
                Err(std::io::Error::other("cut"))
            }
        }));
        let refused = area
            .staging
            .put_input(&task("t1"), broken, 30 << 20)
            .await
            .unwrap_err();
        assert!(matches!(refused, StorageError::Stream(_)), "{refused}");
        assert_eq!(area.all_files().await, Vec::<String>::new());

        let complete = stream::iter((0..20).map(|_| chunk()));
        let path = area
            .staging
            .put_input(&task("t1"), complete, 30 << 20)
            .await
            .unwrap();
        assert_eq!(
            area.staging.input(&path).await.unwrap().map(|input| input.size),
            Some(20 << 20)
        );
    })
    .await;
}

#[tokio::test]
async fn only_songs_and_stems_in_allowed_locations_are_read() {
    on_both(async |area| {
        std::fs::create_dir_all(area.path("temp")).unwrap();
        std::fs::create_dir_all(area.path("output")).unwrap();
        std::fs::write(area.path("secret.wav"), "secret").unwrap();
        let _ = symlink(area.path("secret.wav"), area.path("temp/link.wav"));
        let here = |name: &str| area.path(name).display().to_string();
        let refused = [
            here("secret.wav"),
            here("temp/link.wav"),
            here("temp/../secret.wav"),
            here("temp"),
            "/etc/passwd".into(),
            "/nowhere/at/all".into(),
            String::new(),
            "a\0b".into(),
            "s3://elsewhere/song.wav".into(),
            "s3://".into(),
            format!("s3://{}", area.bucket),
            format!("s3://{}/folder/", area.bucket),
            format!("s3://{}/../x", area.bucket),
        ];
        for path in refused {
            for error in [
                area.staging.stage_in(&path, &area.scratch).await.unwrap_err(),
                area.staging.input(&path).await.unwrap_err(),
                area.staging.stem(&path).await.unwrap_err(),
            ] {
                assert!(matches!(error, StorageError::Refused { .. }), "{path:?}: {error}");
                assert_eq!(error.class(), ErrorClass::Permanent);
                assert!(error.to_string().contains(" must "), "{error}");
            }
            assert!(!area.staging.delete_input(&task("t1"), &path).await.unwrap());
        }
        let foreign = here("t1_input.wav");
        std::fs::write(&foreign, "of another program").unwrap();
        let refused = area
            .staging
            .delete_input(&task("t1"), &foreign)
            .await
            .unwrap_err();
        assert!(matches!(refused, StorageError::Refused { .. }), "{refused}");
        assert!(area.path("t1_input.wav").exists());
        assert!(area.path("secret.wav").exists());
    })
    .await;
}

#[tokio::test]
async fn a_shared_song_is_used_in_place() {
    let area = StagingArea::directories().await;
    let path = area.put("t1", "song").await;
    let staged = area.staging.stage_in(&path, &area.scratch).await.unwrap();
    let shared = staged.shared.as_ref().expect("a shared file");
    assert_eq!(shared.resolved(), std::fs::canonicalize(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&staged.path).unwrap(), "song");
    assert_eq!(std::fs::read_dir(area.scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_song_in_a_bucket_may_not_exceed_the_scratch_limit_and_is_kept() {
    on_both(async |area| {
        let path = format!("s3://{}/albums/t1_input.wav", area.bucket);
        area.overwrite(&path, "song").await;
        std::fs::write(area.scratch.path().join("full"), vec![0; (64 << 20) - 3]).unwrap();
        let error = area.staging.stage_in(&path, &area.scratch).await.unwrap_err();
        assert!(matches!(error, StorageError::TooLarge { .. }), "{error}");
        std::fs::remove_file(area.scratch.path().join("full")).unwrap();
        let staged = area.staging.stage_in(&path, &area.scratch).await.unwrap();
        assert_eq!(std::fs::read_to_string(staged.path).unwrap(), "song");

        assert!(!area.staging.delete_input(&task("t1"), &path).await.unwrap());
        assert_eq!(
            area.read(&path).await.as_deref(),
            Some("song"),
            "songs outside the staging are not deleted"
        );
    })
    .await;
}

#[tokio::test]
async fn stems_of_uvr5_api_are_read_and_removed_by_their_names() {
    on_both(async |area| {
        std::fs::create_dir_all(area.path("output")).unwrap();
        let path = area.path("output/t1_vocals.wav").display().to_string();
        let other = area.path("output/t2_vocals.wav").display().to_string();
        std::fs::write(&path, "vocals").unwrap();
        std::fs::write(&other, "vocals").unwrap();
        let stem = area.staging.stem(&path).await.unwrap();
        assert!(matches!(stem, StemSource::File { size: 6, .. }), "{stem:?}");
        for named in [&path, &path, &other] {
            area.staging.remove_uvr5_stem(&task("t1"), named).await.unwrap();
        }
        assert_eq!(
            (area.read(&path).await, area.read(&other).await),
            (None, Some("vocals".into()))
        );
    })
    .await;
}

#[tokio::test]
async fn a_link_in_place_of_a_tasks_directory_is_not_followed() {
    let area = StagingArea::directories().await;
    std::fs::create_dir(area.path("elsewhere")).unwrap();
    std::fs::write(area.path("elsewhere/manifest.json"), "{}").unwrap();
    symlink(area.path("elsewhere"), area.path("output/t1")).unwrap();
    let refused = area.store("t1", AttemptId::new(), "1").await.unwrap_err();
    assert!(matches!(refused, StorageError::Refused { .. }), "{refused}");
    area.staging.remove(&task("t1")).await.unwrap_err();
    assert_eq!(std::fs::read_dir(area.path("elsewhere")).unwrap().count(), 1);
}
