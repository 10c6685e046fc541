use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::server::{Server, ServerMode};
use super::*;
use crate::settings::{LeaseSettings, LeaseTimings};

/// The longest time from the leader's end to the standby's leadership.
const MAX_TAKEOVER: Duration = Duration::from_secs(20);

struct Replica {
    leadership: Leadership,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(server: &Server, identity: &str) -> Self {
        let settings = LeaseSettings {
            name: "operator".into(),
            namespace: "system".into(),
            identity: identity.into(),
            timings: LeaseTimings::default(),
        };
        let (leadership, elector) = elector(server.client(), settings);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(elector.run(async {
            let _ = stopped.await;
        }));
        Self {
            leadership,
            stop,
            task,
        }
    }

    fn is_leading(&self) -> bool {
        self.leadership.is_leading(Instant::now().into_std())
    }

    /// Waits until it leads, or no longer leads; returns how long that took.
    async fn wait_until_leading_is(&mut self, is_leading: bool) -> Duration {
        let start = Instant::now();
        let wait = async {
            while self.is_leading() != is_leading {
                self.leadership.changed().await.expect("it runs");
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("it changes");
        start.elapsed()
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("it ends");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_leads_and_the_others_know_the_leader() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let mut other = Replica::start(&server, "other");
    other.leadership.changed().await.expect("it runs");
    assert_eq!(other.leadership.leader().as_deref(), Some("one"));
    sleep(Duration::from_secs(120)).await;
    assert!(one.is_leading() && !other.is_leading());
    assert_eq!(one.leadership.leader().as_deref(), Some("one"));
    let deadline = one.leadership.deadline().expect("it leads");
    assert!(deadline > Instant::now().into_std() + Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_standby_leads_within_20_s_after_the_leader_was_killed_at_any_time() {
    let mut longest = Duration::ZERO;
    for tenths in 0..24 {
        let server = Server::default();
        let mut one = Replica::start(&server, "one");
        one.wait_until_leading_is(true).await;
        let mut other = Replica::start(&server, "other");
        sleep(Duration::from_millis(20_000 + tenths * 100)).await;
        one.task.abort();
        longest = longest.max(other.wait_until_leading_is(true).await);
        assert_eq!(server.holder().as_deref(), Some("other"));
    }
    assert!(longest <= MAX_TAKEOVER, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_acquired_at_the_next_read() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let mut other = Replica::start(&server, "other");
    other.leadership.changed().await.expect("it runs");
    one.stop().await;
    assert_eq!(server.holder().as_deref(), Some(""));
    let took = other.wait_until_leading_is(true).await;
    assert!(took <= Duration::from_millis(2_400), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_briefly_unreachable_api_server_does_not_end_the_term() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let term = one.leadership.term(Instant::now().into_std());
    for mode in [
        ServerMode::Unreachable,
        ServerMode::NoResponse,
        ServerMode::Unavailable,
    ] {
        server.set_mode(mode);
        sleep(Duration::from_millis(3_500)).await;
        server.set_mode(ServerMode::Healthy);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(one.leadership.term(Instant::now().into_std()), term, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_at_its_deadline_and_begins_another_term_later() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let term = one.leadership.term(Instant::now().into_std());
    sleep(Duration::from_secs(11)).await;
    server.set_mode(ServerMode::Unreachable);
    let deadline = one.leadership.deadline().expect("it leads");
    let lasted = one.wait_until_leading_is(false).await;
    assert!(Instant::now().into_std() >= deadline);
    assert!(lasted <= Duration::from_secs(14), "{lasted:?}");
    assert_eq!(one.leadership.deadline(), None);
    server.set_mode(ServerMode::Healthy);
    one.wait_until_leading_is(true).await;
    assert_ne!(one.leadership.term(Instant::now().into_std()), term);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_recreated_by_its_holder() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let other = Replica::start(&server, "other");
    sleep(Duration::from_secs(5)).await;
    server.delete();
    sleep(Duration::from_secs(30)).await;
    assert!(one.is_leading() && !other.is_leading());
    assert_eq!(server.holder().as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_canceled_by_the_shutdown_is_found_and_released() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    let before = server.writes();
    server.set_mode(ServerMode::NoResponse);
    let renewed = async {
        while server.writes() == before {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(5), renewed).await.expect("it renews");
    server.set_mode(ServerMode::Healthy);
    one.stop().await;
    assert_eq!(server.holder().as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_an_unreachable_api_server_ends_in_time() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.wait_until_leading_is(true).await;
    server.set_mode(ServerMode::Unreachable);
    let leadership = one.leadership.clone();
    timeout(Duration::from_secs(10), one.stop())
        .await
        .expect("it ends");
    assert!(!leadership.is_leading(Instant::now().into_std()));
}

#[tokio::test(start_paused = true)]
async fn a_process_without_an_election_always_leads_and_is_never_woken_again() {
    let mut leadership = Leadership::always("me");
    leadership.changed().await.expect("it begins");
    assert!(leadership.is_leading(Instant::now().into_std() + Duration::from_secs(1_000_000)));
    let woken = timeout(Duration::from_secs(1_000), leadership.changed()).await;
    assert!(woken.is_err());
}
