//! What fails around workers is no loss.

use separation_scenarios::{Outcome, System, sixty_tasks_under_faults};
use separation_testbed::ClusterOptions;

use crate::is_left_out;

#[tokio::test]
async fn sixty_tasks_survive_all_that_can_fail_around_them() {
    if is_left_out() {
        return;
    }
    let system = System::start(ClusterOptions::default()).await.unwrap();
    let survival = sixty_tasks_under_faults(&system, |line| println!("{line}"))
        .await
        .unwrap();
    assert_eq!(survival.outcome, Outcome::default(), "{}", survival.log);
    let most = survival.most_processors;
    assert!((2..=4).contains(&most), "{most} processors at once");
}
