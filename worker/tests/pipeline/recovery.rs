//! Finished work is not repeated, in whichever order processor and uploader finish.

use separation_testbed::eventually;

use crate::rig::{Rig, STEP_TIMEOUT, killed_at};

#[tokio::test]
async fn a_task_that_was_uploaded_before_its_processor_could_commit_is_not_separated_again() {
    let rig = Rig::new(1).await;
    let _uploader = rig.uploader().start().unwrap();
    let task = rig.submit(1).await;
    let mark = rig.directory.path().join("mark");
    let killed = killed_at(rig.processor(), "published", &mark).start().unwrap();
    killed.wait_exit(STEP_TIMEOUT).await.unwrap();
    let tasks = [task].into();
    rig.wait_for_webhooks(&tasks).await;
    eventually("the staging cleaned", STEP_TIMEOUT, async || {
        std::fs::read_dir(&rig.site.stems).unwrap().count() == 0
    })
    .await;
    let song = std::fs::read_dir(&rig.site.songs).unwrap().count();
    assert_eq!(
        song, 1,
        "the song is deleted after the commit, which did not happen"
    );
    let next = rig.processor().start().unwrap();
    next.wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    let messages = next.messages().unwrap();
    assert!(
        !messages.iter().any(|message| message == "Separated"),
        "{messages:?}"
    );
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 1, "no second result is published");
    eventually("the song deleted", STEP_TIMEOUT, async || {
        std::fs::read_dir(&rig.site.songs).unwrap().count() == 0
    })
    .await;
    for task in &tasks {
        assert_eq!(rig.webhooks(task).len(), 1);
    }
}

#[tokio::test]
async fn a_task_that_is_published_twice_is_separated_once() {
    let rig = Rig::new(1).await;
    let task = rig.submit(1).await;
    let processor = rig.processor().env("DELETE_INPUT", "never").start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    let tasks = [task.clone()].into();
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    let topic = &rig.site.task_topic;
    let first = rig.kafka.consume_all(topic).await.unwrap().remove(0);
    rig.kafka.publish(topic, &task, first.text(), &[]).await.unwrap();
    processor
        .wait_for_logs("Offset committed successfully", 2, STEP_TIMEOUT)
        .await
        .unwrap();
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    let messages = processor.messages().unwrap();
    let separated = messages.iter().filter(|message| *message == "Separated");
    assert_eq!(separated.count(), 1, "{messages:?}");
    assert_eq!(rig.webhooks(&task).len(), 1);
}

#[tokio::test]
async fn a_failed_task_succeeds_when_it_is_posted_again() {
    let rig = Rig::new(1).await;
    let (task, path) = rig.site.put_song(b"not yet a song").unwrap();
    let message = separation_testbed::task_message(&task, path.to_str().unwrap(), &rig.hooks.url("/hook"));
    let post = async || {
        rig.kafka
            .publish(&rig.site.task_topic, &task, message.to_string(), &[])
            .await
            .unwrap();
    };
    post().await;
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.wait_for_webhooks(&[task.clone()].into()).await;
    std::fs::write(&path, separation_testbed::tiny_song(1)).unwrap();
    post().await;
    eventually("a webhook of the success", STEP_TIMEOUT, async || {
        rig.webhooks(&task)
            .last()
            .is_some_and(|(_, body)| body["status"] == "success")
    })
    .await;
    rig.wait_until_committed().await;
    let manifest = rig.manifest(&task).await.expect("a manifest");
    assert_eq!(manifest["status"], "success");
}

#[tokio::test]
async fn old_files_of_killed_processes_are_removed_at_the_start() {
    let rig = Rig::new(1).await;
    let attempt = uuid::Uuid::new_v4().simple().to_string();
    let old = rig.site.songs.join(format!(".t1_input.wav.{attempt}.part"));
    let new = rig.site.songs.join(format!(".t2_input.wav.{attempt}.part"));
    let others = rig.site.songs.join(".t1_input.wav.part");
    for file in [&old, &new, &others] {
        std::fs::write(file, "half a song").unwrap();
    }
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 3600);
    for file in [&old, &others] {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(two_days_ago).unwrap();
    }
    let _processor = rig.processor().start().unwrap();
    eventually("the old leftover removed", STEP_TIMEOUT, async || !old.exists()).await;
    assert!(new.exists() && others.exists());
}

#[tokio::test]
async fn two_tasks_may_name_one_song() {
    let rig = Rig::new(1).await;
    let album = rig.site.songs.join("album.wav");
    std::fs::write(&album, separation_testbed::tiny_song(1)).unwrap();
    let (first, first_song) = rig.site.put_song(&separation_testbed::tiny_song(2)).unwrap();
    let mut tasks = std::collections::BTreeSet::from([first.clone()]);
    // The song of a task that is posted later, and one song twice.
    let mut posts = Vec::new();
    for song in [&first_song, &album, &album] {
        let task = uuid::Uuid::new_v4().to_string();
        tasks.insert(task.clone());
        posts.push((task, song));
    }
    posts.push((first, &first_song));
    for (task, song) in posts {
        let message =
            separation_testbed::task_message(&task, song.to_str().unwrap(), &rig.hooks.url("/hook"));
        let topic = &rig.site.task_topic;
        rig.kafka
            .publish(topic, &task, message.to_string(), &[])
            .await
            .unwrap();
    }
    let _processor = rig.processor().start().unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert!(album.exists());
    eventually("the first task's own song deleted", STEP_TIMEOUT, async || {
        !first_song.exists()
    })
    .await;
}
