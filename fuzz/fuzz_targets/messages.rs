//! Kafka messages: any bytes give a task, a result or an error, and a parsed message round-trips.
//!
//! `cargo +nightly fuzz run messages -- -max_total_time=60`

#![no_main]

use libfuzzer_sys::fuzz_target;
use separation_contract::message::{Task, TaskResult, requeue_value};

fuzz_target!(|value: &[u8]| {
    if let Ok(task) = Task::parse(Some(value)) {
        let again = Task::parse(Some(task.to_json().as_bytes())).expect("a parsed task can be written");
        assert_eq!(
            (
                &again.task_uuid,
                &again.audio_path,
                &again.hook_url,
                again.retry_count,
                &again.v1
            ),
            (
                &task.task_uuid,
                &task.audio_path,
                &task.hook_url,
                task.retry_count,
                &task.v1
            )
        );
        let (count, text) = requeue_value(value).expect("a task is an object");
        let later = Task::parse(Some(text.as_bytes())).expect("a requeued task is still a task");
        assert_eq!(later.retry_count, count);
        assert_eq!(count, task.retry_count.saturating_add(1));
        assert!(!task.task_uuid.as_str().contains(['/', '\\', '\0']));
    }
    if let Ok(result) = TaskResult::parse(Some(value)) {
        assert_eq!(TaskResult::parse(Some(result.to_json().as_bytes())), Ok(result));
    }
    let _ = requeue_value(value);
});
