//! Places between two stages, where a test ends or holds the process. Empty unless the feature `fault-injection` is on,
//! which no shipped build has.

/// A place between two stages.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub async fn point(_name: &'static str) {}

/// A limit, or the one in milliseconds that a test names in a variable.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn limit(_variable: &str, limit: std::time::Duration) -> std::time::Duration {
    limit
}

/// A limit, or the one in milliseconds that a test names in a variable.
#[cfg(feature = "fault-injection")]
pub fn limit(variable: &str, limit: std::time::Duration) -> std::time::Duration {
    let named = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    named.map_or(limit, std::time::Duration::from_millis)
}

/// Says which task the places that follow belong to.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn begin(_task: &str) {}

/// The task that is worked on: a process has one at a time.
#[cfg(feature = "fault-injection")]
static TASK: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

/// Says which task the places that follow belong to.
#[cfg(feature = "fault-injection")]
pub fn begin(task: &str) {
    let mut running = TASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    task.clone_into(&mut running);
}

/// Whether the running task is the one that is to meet its fault.
#[cfg(feature = "fault-injection")]
fn is_meant() -> bool {
    let running = TASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::env::var("SEPARATION_FAULT_TASK").map_or(true, |task| task == *running)
}

/// A place between two stages.
///
/// - `SEPARATION_HOLD` names places, comma separated, where the work waits as long as the file `SEPARATION_HOLD_WHILE`
///   exists, or for `SEPARATION_HOLD_MS`.
/// - `SEPARATION_FAULT` names the place where the process ends as `kill -9` does. With `SEPARATION_FAULT_MARK`, only as
///   long as that file is not there; it is made first, so that the next process lives. With `SEPARATION_FAULT_TASK`,
///   only while that task is worked on.
#[cfg(feature = "fault-injection")]
pub async fn point(name: &'static str) {
    use std::env::{var, var_os};
    use std::path::PathBuf;
    use std::time::Duration;

    if var("SEPARATION_HOLD").is_ok_and(|places| places.split(',').any(|place| place == name)) {
        if let Some(file) = var_os("SEPARATION_HOLD_WHILE").map(PathBuf::from) {
            tracing::info!(place = name, "Held");
            while file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if let Some(time) = var("SEPARATION_HOLD_MS").ok().and_then(|text| text.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
    }
    if var("SEPARATION_FAULT").is_ok_and(|place| place == name) && is_meant() {
        if let Some(mark) = var_os("SEPARATION_FAULT_MARK")
            && std::fs::File::create_new(mark).is_err()
        {
            return;
        }
        let own = rustix::process::getpid();
        // Whoever cannot end itself goes on, and the test says so.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        std::future::pending::<()>().await;
    }
}
