//! Songs and stems in shared folders and in a real object store: one behaviour, checked on both.

mod blame;
mod faults;
mod objects;
pub(crate) mod place;

use std::os::unix::fs::symlink;

use bytes::Bytes;
use futures_util::stream;
use separation_worker::error::ErrorClass;
use separation_worker::storage::{AttemptId, StagingManifest, StemFiles, StemSource, StorageError};

use place::{Place, identity, on_both, task};

async fn found(place: &Place, name: &str) -> Option<StagingManifest> {
    place.staging.find(&task(name)).await.unwrap()
}

#[tokio::test]
async fn stems_are_found_once_their_manifest_is_shown() {
    on_both(async |place| {
        assert_eq!(found(place, "t1").await, None);
        let stored = place.store("t1", AttemptId::new(), "1").await.unwrap();
        assert_eq!(found(place, "t1").await, None);
        place.staging.show(&stored).await.unwrap();

        let manifest = found(place, "t1").await.unwrap();
        assert_eq!(&manifest, stored.manifest());
        assert!(manifest.fits(Some(&identity()), "model"));
        assert_eq!(place.read(&manifest.vocals.path).await.unwrap(), "vocals 1");
        assert_eq!(
            place.read(&manifest.instrumental.path).await.unwrap(),
            "instrumental 1"
        );
        assert!(
            manifest.vocals.path.ends_with("/t1_vocals.wav"),
            "{}",
            manifest.vocals.path
        );
        assert_eq!(found(place, "t2").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_manifest_without_both_whole_stems_counts_as_none() {
    on_both(async |place| {
        let cut = place.show("cut", "1").await;
        place.overwrite(&cut.vocals.path, "voc").await;
        assert_eq!(found(place, "cut").await, None);

        let gone = place.show("gone", "1").await;
        place.delete(&gone.instrumental.path).await;
        assert_eq!(found(place, "gone").await, None);

        let broken = place.show("broken", "1").await;
        let manifest = broken
            .vocals
            .path
            .replace(&format!("{}/broken_vocals.wav", broken.attempt), "manifest.json");
        assert!(place.read(&manifest).await.unwrap().starts_with("{\"version\":1"));
        place.overwrite(&manifest, "{\"version\":").await;
        assert_eq!(found(place, "broken").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_try_overwrites_nothing_of_another() {
    on_both(async |place| {
        let (zombie, worker) = (AttemptId::new(), AttemptId::new());
        let _ = place.store("t1", zombie, "stale").await.unwrap();
        let stored = place.store("t1", worker, "fresh").await.unwrap();
        place.staging.show(&stored).await.unwrap();
        place.staging.discard_attempt(&task("t1"), zombie).await.unwrap();
        place.staging.discard_attempt(&task("t1"), zombie).await.unwrap();

        let manifest = found(place, "t1").await.unwrap();
        assert_eq!(place.read(&manifest.vocals.path).await.unwrap(), "vocals fresh");
        assert_eq!(place.everything().await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn storing_again_after_a_failure_goes_on() {
    on_both(async |place| {
        let attempt = AttemptId::new();
        let (vocals, instrumental) = place.stems("1");
        std::fs::remove_file(&instrumental).unwrap();
        let stems = StemFiles {
            vocals: &vocals,
            instrumental: &instrumental,
        };
        let failed = place
            .staging
            .store(&task("t1"), attempt, stems, &identity(), "model")
            .await;
        assert!(matches!(failed, Err(StorageError::Missing { .. })), "{failed:?}");
        let stored = place.store("t1", attempt, "1").await.unwrap();
        place.staging.show(&stored).await.unwrap();
        place.staging.show(&stored).await.unwrap();
        assert_eq!(found(place, "t1").await.as_ref(), Some(stored.manifest()));
    })
    .await;
}

#[tokio::test]
async fn removing_a_task_takes_all_its_tries_and_nothing_else() {
    on_both(async |place| {
        let _ = place
            .store("t1", AttemptId::new(), "left by a killed worker")
            .await
            .unwrap();
        place.show("t1", "1").await;
        place.show("t10", "10").await;
        place.show("inputs", "a task may be called so").await;
        let song = place.put("t1", "song").await;
        for _ in 0..2 {
            place.staging.remove(&task("t1")).await.unwrap();
            place.staging.remove(&task("inputs")).await.unwrap();
        }
        assert_eq!(found(place, "t1").await, None);
        assert!(found(place, "t10").await.is_some());
        assert_eq!(place.read(&song).await.as_deref(), Some("song"));
        assert_eq!(
            place.everything().await.len(),
            4,
            "{:?}",
            place.everything().await
        );
    })
    .await;
}

#[tokio::test]
async fn a_song_is_read_as_it_was_stored_until_it_is_deleted() {
    on_both(async |place| {
        let path = place.put("t1", "song").await;
        assert!(path.ends_with("/t1_input.wav"), "{path}");
        let before = place.staging.input(&path).await.unwrap();
        let staged = place.staging.stage_in(&path, &place.scratch).await.unwrap();
        assert_eq!(std::fs::read_to_string(&staged.path).unwrap(), "song");
        assert_eq!(before.as_ref(), Some(&staged.identity));
        assert_eq!(staged.identity.size, 4);

        place.put("t1", "another song").await;
        let after = place.staging.input(&path).await.unwrap();
        assert_ne!(before, after);

        for _ in 0..2 {
            assert!(place.staging.delete_input(&task("t1"), &path).await.unwrap());
        }
        assert_eq!(place.staging.input(&path).await.unwrap(), None);
        let gone = place.staging.stage_in(&path, &place.scratch).await.unwrap_err();
        assert!(matches!(gone, StorageError::Missing { .. }), "{gone}");
        assert_eq!(gone.class(), ErrorClass::Permanent);
        assert!(gone.to_string().contains(&path), "{gone}");
    })
    .await;
}

#[tokio::test]
async fn a_task_deletes_its_own_input_and_no_input_that_other_tasks_may_name() {
    on_both(async |place| {
        let of_another = place.put("t2", "song").await;
        let longer = place.put("t1_x", "song").await;
        for path in [&of_another, &longer] {
            assert!(!place.staging.delete_input(&task("t1"), path).await.unwrap());
            assert_eq!(place.read(path).await.as_deref(), Some("song"), "{path}");
        }
        let own = place.put("t1", "song").await;
        assert!(place.staging.delete_input(&task("t1"), &own).await.unwrap());
        assert_eq!(place.read(&own).await, None);
    })
    .await;
}

#[tokio::test]
async fn nothing_appears_of_a_song_that_is_too_long_or_breaks_off() {
    on_both(async |place| {
        let chunk = || Ok(Bytes::from(vec![1; 1 << 20]));
        // Longer than a part, so that an upload in parts has begun.
        let long = stream::iter(
            (0..40)
                .map(|_| chunk())
                .collect::<Vec<Result<Bytes, std::io::Error>>>(),
        );
        let refused = place
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
        let refused = place
            .staging
            .put_input(&task("t1"), broken, 30 << 20)
            .await
            .unwrap_err();
        assert!(matches!(refused, StorageError::Stream(_)), "{refused}");
        assert_eq!(place.everything().await, Vec::<String>::new());

        let whole = stream::iter((0..20).map(|_| chunk()));
        let path = place
            .staging
            .put_input(&task("t1"), whole, 30 << 20)
            .await
            .unwrap();
        assert_eq!(
            place.staging.input(&path).await.unwrap().map(|input| input.size),
            Some(20 << 20)
        );
    })
    .await;
}

#[tokio::test]
async fn only_songs_and_stems_where_they_belong_are_read() {
    on_both(async |place| {
        std::fs::create_dir_all(place.path("temp")).unwrap();
        std::fs::create_dir_all(place.path("output")).unwrap();
        std::fs::write(place.path("secret.wav"), "secret").unwrap();
        let _ = symlink(place.path("secret.wav"), place.path("temp/link.wav"));
        let here = |name: &str| place.path(name).display().to_string();
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
            format!("s3://{}", place.bucket),
            format!("s3://{}/folder/", place.bucket),
            format!("s3://{}/../x", place.bucket),
        ];
        for path in refused {
            for error in [
                place.staging.stage_in(&path, &place.scratch).await.unwrap_err(),
                place.staging.input(&path).await.unwrap_err(),
                place.staging.stem(&path).await.unwrap_err(),
            ] {
                assert!(matches!(error, StorageError::Refused { .. }), "{path:?}: {error}");
                assert_eq!(error.class(), ErrorClass::Permanent);
                assert!(error.to_string().contains(" must "), "{error}");
            }
            assert!(!place.staging.delete_input(&task("t1"), &path).await.unwrap());
        }
        let elsewhere = here("t1_input.wav");
        std::fs::write(&elsewhere, "of another program").unwrap();
        let refused = place
            .staging
            .delete_input(&task("t1"), &elsewhere)
            .await
            .unwrap_err();
        assert!(matches!(refused, StorageError::Refused { .. }), "{refused}");
        assert!(place.path("t1_input.wav").exists());
        assert!(place.path("secret.wav").exists());
    })
    .await;
}

#[tokio::test]
async fn a_shared_song_is_used_where_it_is() {
    let place = Place::folders().await;
    let path = place.put("t1", "song").await;
    let staged = place.staging.stage_in(&path, &place.scratch).await.unwrap();
    let shared = staged.shared.as_ref().expect("a shared file");
    assert_eq!(shared.resolved(), std::fs::canonicalize(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&staged.path).unwrap(), "song");
    assert_eq!(std::fs::read_dir(place.scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_song_in_a_bucket_may_not_fill_the_scratch_space_and_stays_there() {
    let place = Place::folders().await;
    let path = format!("s3://{}/albums/long song.wav", place.bucket);
    place.overwrite(&path, "song").await;
    std::fs::write(place.scratch.path().join("full"), vec![0; (64 << 20) - 3]).unwrap();
    let error = place.staging.stage_in(&path, &place.scratch).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { .. }), "{error}");
    std::fs::remove_file(place.scratch.path().join("full")).unwrap();
    let staged = place.staging.stage_in(&path, &place.scratch).await.unwrap();
    assert_eq!(std::fs::read_to_string(staged.path).unwrap(), "song");

    assert!(!place.staging.delete_input(&task("t1"), &path).await.unwrap());
    assert_eq!(
        place.read(&path).await.as_deref(),
        Some("song"),
        "what callers named is theirs"
    );
}

#[tokio::test]
async fn stems_of_another_make_are_read_and_removed_by_their_names() {
    on_both(async |place| {
        std::fs::create_dir_all(place.path("output")).unwrap();
        let path = place.path("output/t1_vocals.wav").display().to_string();
        let other = place.path("output/t2_vocals.wav").display().to_string();
        std::fs::write(&path, "vocals").unwrap();
        std::fs::write(&other, "vocals").unwrap();
        let stem = place.staging.stem(&path).await.unwrap();
        assert!(matches!(stem, StemSource::File { size: 6, .. }), "{stem:?}");
        for named in [&path, &path, &other] {
            place
                .staging
                .remove_foreign_stem(&task("t1"), named)
                .await
                .unwrap();
        }
        assert_eq!(
            (place.read(&path).await, place.read(&other).await),
            (None, Some("vocals".into()))
        );
    })
    .await;
}

#[tokio::test]
async fn a_link_in_place_of_a_tasks_folder_is_not_followed() {
    let place = Place::folders().await;
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    std::fs::write(place.path("elsewhere/manifest.json"), "{}").unwrap();
    symlink(place.path("elsewhere"), place.path("output/t1")).unwrap();
    let refused = place.store("t1", AttemptId::new(), "1").await.unwrap_err();
    assert!(matches!(refused, StorageError::Refused { .. }), "{refused}");
    place.staging.remove(&task("t1")).await.unwrap_err();
    assert_eq!(std::fs::read_dir(place.path("elsewhere")).unwrap().count(), 1);
}
