//! Faults around the workers lose no tasks.

use separation_scenarios::{Outcome, System, sixty_tasks_under_faults};
use separation_testbed::ClusterOptions;

use crate::is_skipped;

#[tokio::test]
async fn sixty_tasks_survive_every_fault_around_them() {
    if is_skipped() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let result = sixty_tasks_under_faults(&system, |line| println!("{line}"))
        .await
        .unwrap();
    assert_eq!(result.outcome, Outcome::default(), "{}", result.log);
    let processors = result.max_processors;
    assert!(
        (2..=4).contains(&processors),
        "{processors} processors at one time"
    );
}
