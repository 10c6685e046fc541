//! Fault injection points between two stages, where a test kills or pauses the process. No-ops unless the feature
//! `fault-injection` is enabled, which no shipped build does.

/// A fault injection point; does nothing in this build.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub async fn point(_name: &'static str) {}

/// `limit`, unless a test sets another one, in milliseconds, in the environment variable `variable`.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn limit(_variable: &str, limit: std::time::Duration) -> std::time::Duration {
    limit
}

/// `limit`, unless a test sets another one, in milliseconds, in the environment variable `variable`.
#[cfg(feature = "fault-injection")]
pub fn limit(variable: &str, limit: std::time::Duration) -> std::time::Duration {
    let named = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    named.map_or(limit, std::time::Duration::from_millis)
}

/// Sets the running task, to which the following fault points belong.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn begin(_task: &str) {}

/// The running task: a process runs one at a time.
#[cfg(feature = "fault-injection")]
static TASK: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

/// Sets the running task, to which the following fault points belong.
#[cfg(feature = "fault-injection")]
pub fn begin(task: &str) {
    let mut running = TASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    task.clone_into(&mut running);
}

/// Whether `SEPARATION_FAULT_TASK` is unset or names the running task.
#[cfg(feature = "fault-injection")]
fn is_target_task() -> bool {
    let running = TASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::env::var("SEPARATION_FAULT_TASK").map_or(true, |task| task == *running)
}

/// A fault injection point.
///
/// - `SEPARATION_HOLD` names points, comma separated, where the process pauses while the file `SEPARATION_HOLD_WHILE`
///   exists, or for `SEPARATION_HOLD_MS`.
/// - `SEPARATION_FAULT` names the point where the process is killed with SIGKILL. With `SEPARATION_FAULT_MARK`, only if
///   that file does not exist; it is created first, so that the next process survives. With `SEPARATION_FAULT_TASK`,
///   only while that task is running.
#[cfg(feature = "fault-injection")]
pub async fn point(name: &'static str) {
    use std::env::{var, var_os};
    use std::path::PathBuf;
    use std::time::Duration;

    if var("SEPARATION_HOLD").is_ok_and(|points| points.split(',').any(|point| point == name)) {
        if let Some(file) = var_os("SEPARATION_HOLD_WHILE").map(PathBuf::from) {
            tracing::info!(point = name, "Held");
            while file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if let Some(time) = var("SEPARATION_HOLD_MS").ok().and_then(|text| text.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
    }
    if var("SEPARATION_FAULT").is_ok_and(|point| point == name) && is_target_task() {
        if let Some(mark) = var_os("SEPARATION_FAULT_MARK")
            && std::fs::File::create_new(mark).is_err()
        {
            return;
        }
        let own = rustix::process::getpid();
        // If the kill fails, the process stays pending and the test fails.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        std::future::pending::<()>().await;
    }
}
