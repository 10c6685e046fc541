//! Workers on spot nodes are evicted in the middle of tasks that do not end within the notice.

use std::time::Duration;

use separation_scenarios::{Notice, Outcome, System, evict_busy_workers};
use separation_testbed::ClusterOptions;

use crate::is_skipped;

/// Heartbeats are sent every 3 s.
const MAX_RESTART: Duration = Duration::from_secs(15);

#[tokio::test]
async fn an_idle_worker_starts_the_task_of_an_evicted_one_within_15_seconds() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let notices = [Notice::HalfMinute, Notice::TwoMinutes];
    let result = evict_busy_workers(&system, &notices, |line| println!("{line}"))
        .await
        .unwrap();
    assert_eq!(result.outcome, Outcome::default(), "{}", result.log);
    let restarts = result.restarts;
    assert!(
        restarts.iter().all(|restart| *restart <= MAX_RESTART),
        "{restarts:?}: {}",
        result.log
    );
}
