use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::server::{Mode, Server};
use super::*;
use crate::settings::{LeaseSettings, LeaseTimings};

/// From the leader's end to its standby's first write.
const TAKEOVER: Duration = Duration::from_secs(20);

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

    fn holds(&self) -> bool {
        self.leadership.holds(Instant::now().into_std())
    }

    /// Waits until it leads, or leads no more; how long that took.
    async fn until_it_holds(&mut self, holds: bool) -> Duration {
        let start = Instant::now();
        let wait = async {
            while self.holds() != holds {
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
async fn the_first_one_leads_and_everybody_knows_who() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let mut other = Replica::start(&server, "other");
    other.leadership.changed().await.expect("it runs");
    assert_eq!(other.leadership.leader().as_deref(), Some("one"));
    sleep(Duration::from_secs(120)).await;
    assert!(one.holds() && !other.holds());
    assert_eq!(one.leadership.leader().as_deref(), Some("one"));
    let deadline = one.leadership.deadline().expect("it leads");
    assert!(deadline > Instant::now().into_std() + Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_standby_leads_soon_after_its_leader_was_killed_whenever_that_is() {
    let mut longest = Duration::ZERO;
    for tenths in 0..24 {
        let server = Server::default();
        let mut one = Replica::start(&server, "one");
        one.until_it_holds(true).await;
        let mut other = Replica::start(&server, "other");
        sleep(Duration::from_millis(20_000 + tenths * 100)).await;
        one.task.abort();
        longest = longest.max(other.until_it_holds(true).await);
        assert_eq!(server.holder().as_deref(), Some("other"));
    }
    assert!(longest <= TAKEOVER, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_at_the_next_look() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let mut other = Replica::start(&server, "other");
    other.leadership.changed().await.expect("it runs");
    one.stop().await;
    assert_eq!(server.holder().as_deref(), Some(""));
    let took = other.until_it_holds(true).await;
    assert!(took <= Duration::from_millis(2_400), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_moment_changes_nothing() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let term = one.leadership.term(Instant::now().into_std());
    for mode in [Mode::Away, Mode::Silent, Mode::Refusing] {
        server.answer_like(mode);
        sleep(Duration::from_millis(3_500)).await;
        server.answer_like(Mode::Well);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(one.leadership.term(Instant::now().into_std()), term, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_in_time_and_begins_another_term_later() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let term = one.leadership.term(Instant::now().into_std());
    sleep(Duration::from_secs(11)).await;
    server.answer_like(Mode::Away);
    let deadline = one.leadership.deadline().expect("it leads");
    let lasted = one.until_it_holds(false).await;
    assert!(Instant::now().into_std() >= deadline);
    assert!(lasted <= Duration::from_secs(14), "{lasted:?}");
    assert_eq!(one.leadership.deadline(), None);
    server.answer_like(Mode::Well);
    one.until_it_holds(true).await;
    assert_ne!(one.leadership.term(Instant::now().into_std()), term);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_deleted_is_made_anew_by_its_holder() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let other = Replica::start(&server, "other");
    sleep(Duration::from_secs(5)).await;
    server.delete();
    sleep(Duration::from_secs(30)).await;
    assert!(one.holds() && !other.holds());
    assert_eq!(server.holder().as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_cut_off_by_the_end_is_found_and_given_back() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    let before = server.writes();
    server.answer_like(Mode::Silent);
    let renewed = async {
        while server.writes() == before {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(5), renewed).await.expect("it renews");
    server.answer_like(Mode::Well);
    one.stop().await;
    assert_eq!(server.holder().as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_the_api_server_is_away_at_the_end() {
    let server = Server::default();
    let mut one = Replica::start(&server, "one");
    one.until_it_holds(true).await;
    server.answer_like(Mode::Away);
    let leadership = one.leadership.clone();
    timeout(Duration::from_secs(10), one.stop())
        .await
        .expect("it ends");
    assert!(!leadership.holds(Instant::now().into_std()));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_alone_always_leads_and_is_never_woken_again() {
    let mut leadership = Leadership::alone("me");
    leadership.changed().await.expect("it begins");
    assert!(leadership.holds(Instant::now().into_std() + Duration::from_secs(1_000_000)));
    let woken = timeout(Duration::from_secs(1_000), leadership.changed()).await;
    assert!(woken.is_err());
}
