//! Random runs of a record's commits, with brokers that withhold, refuse and accept them, or whose responses get lost.

use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;

const POSITION: Position = Position {
    partition: 0,
    offset: 7,
};

const INTERVAL: Duration = Duration::from_millis(50);

/// The time that the message takes.
const TOOK: Duration = Duration::from_secs(7);

/// The fate of one try of a commit.
#[derive(Debug, Clone, Copy, Default)]
struct Try {
    /// Time until the brokers handle it, in milliseconds.
    handled_after: u64,
    /// Time from then until the response arrives, in milliseconds.
    withheld: u64,
    response: Response,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Response {
    #[default]
    Accepted,
    /// Not accepted, and a later try may be.
    Refused,
    /// Accepted, but the member learns nothing of it.
    Unknown,
    /// The record is too long for the brokers. A commit that is retried is shortened.
    TooLong,
    /// Another member owns the partition.
    PartitionLost,
}

/// A step of the processing, which waits for its commits.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Confirms the ownership before something is published; with a commit if that is not `fresh`.
    Confirm {
        fresh: bool,
    },
    DeadLetter,
}

/// A change that does not wait for its commit.
#[derive(Debug, Clone, Copy)]
enum Change {
    Progress,
    Hold(bool),
    Drain,
}

/// The coordinator of a group.
#[derive(Default)]
struct Coordinator {
    /// The next tries; later ones are accepted immediately.
    tries: RefCell<VecDeque<Try>>,
    accepted: RefCell<Vec<(Position, OffsetMetadata)>>,
    in_flight: Cell<usize>,
    lost: Cell<bool>,
    /// Whether publishing began, or a commit of progress was refused because of its length.
    progress_ended: Cell<bool>,
}

impl Coordinator {
    async fn handle(&self, position: Position, record: &OffsetMetadata) -> Result<CommitTry, CommitError> {
        if self.lost.get() {
            return Err(CommitError::Lost);
        }
        let before = self.in_flight.replace(self.in_flight.get() + 1);
        assert_eq!(before, 0, "two commits are in flight");
        let Try {
            handled_after,
            withheld,
            response,
        } = self.tries.borrow_mut().pop_front().unwrap_or_default();
        sleep(Duration::from_millis(handled_after)).await;
        if matches!(response, Response::Accepted | Response::Unknown) {
            self.accepted.borrow_mut().push((position, record.clone()));
        }
        sleep(Duration::from_millis(withheld)).await;
        self.in_flight.set(self.in_flight.get() - 1);
        if response == Response::PartitionLost {
            self.lost.set(true);
            return Err(CommitError::Lost);
        }
        Ok(match response {
            Response::Accepted => CommitTry::Accepted,
            Response::TooLong => CommitTry::RecordTooLong,
            _ => CommitTry::Failed,
        })
    }

    /// Processes a message with these steps, during these changes.
    async fn process(&self, steps: &[(u64, Step)], changes: &[(u64, Change)]) -> Result<(), CommitError> {
        let record = Record::new(self, POSITION, INTERVAL);
        let processing = async {
            record.load(OffsetMetadata::default(), None);
            record.start();
            record.write_changed().await?;
            for (delay, step) in steps {
                sleep(Duration::from_millis(*delay)).await;
                match step {
                    Step::Confirm { fresh } => {
                        self.progress_ended.set(true);
                        record
                            .confirm(Duration::from_secs(if *fresh { 60 } else { 0 }))
                            .await?;
                    }
                    Step::DeadLetter => {
                        record.record_dead_letter();
                        record.write_changed().await?;
                    }
                }
            }
            self.progress_ended.set(true);
            record.commit_next(POSITION.next(), Some(TOOK)).await
        };
        let changing = async {
            for (percent, (delay, change)) in (1..).zip(changes) {
                sleep(Duration::from_millis(*delay)).await;
                match change {
                    Change::Progress => record.progress(percent),
                    Change::Hold(true) => record.hold(Some(Hold::new("s3:403", 1))),
                    Change::Hold(false) => record.hold(None),
                    Change::Drain => record.drain(),
                }
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            ended = processing => ended,
            error = record.write_changes() => Err(error),
            never = changing => match never {},
        }
    }

    /// Checks that no accepted commit undoes an earlier one.
    fn check(&self) {
        let accepted = self.accepted.borrow();
        for pair in accepted.windows(2) {
            let [(before, old), (after, new)] = pair else {
                unreachable!("windows of two");
            };
            assert!(before.offset <= after.offset, "{accepted:?}");
            if before == after {
                let fields = |record: &OffsetMetadata| {
                    [
                        u8::from(record.draining),
                        u8::from(record.dead_lettered),
                        record.percent.unwrap_or(0),
                    ]
                };
                let kept = fields(old).iter().zip(fields(new)).all(|(old, new)| *old <= new);
                assert!(kept, "{accepted:?}");
            }
        }
    }
}

impl Commits for Coordinator {
    async fn commit(&self, position: Position, record: &OffsetMetadata) -> Result<(), CommitError> {
        while self.handle(position, record).await? != CommitTry::Accepted {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn commit_once(
        &self,
        position: Position,
        record: &OffsetMetadata,
    ) -> Result<CommitTry, CommitError> {
        assert!(!self.progress_ended.get(), "progress is committed after its end");
        let tried = self.handle(position, record).await?;
        if tried == CommitTry::RecordTooLong {
            self.progress_ended.set(true);
        }
        Ok(tried)
    }
}

/// Delays around the interval of progress, in milliseconds.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..10_u64, 0..120_u64]
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let response = prop_oneof![
        12 => Just(Response::Accepted),
        4 => Just(Response::Refused),
        4 => Just(Response::Unknown),
        1 => Just(Response::TooLong),
        1 => Just(Response::PartitionLost),
    ];
    let one = (delay(), delay(), response).prop_map(|(handled_after, withheld, response)| Try {
        handled_after,
        withheld,
        response,
    });
    prop::collection::vec(one, 0..12)
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        any::<bool>().prop_map(|fresh| Step::Confirm { fresh }),
        Just(Step::DeadLetter),
    ];
    prop::collection::vec((0..300_u64, step), 0..4)
}

fn changes() -> impl Strategy<Value = Vec<(u64, Change)>> {
    let change = prop_oneof![
        6 => Just(Change::Progress),
        2 => any::<bool>().prop_map(Change::Hold),
        1 => Just(Change::Drain),
    ];
    prop::collection::vec((delay(), change), 0..20)
}

fn paused_runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn accepted_commits_never_go_back_and_progress_ends_with_publishing(
        tries in tries(),
        steps in steps(),
        changes in changes(),
    ) {
        let coordinator = Coordinator {
            tries: RefCell::new(tries.into()),
            ..Coordinator::default()
        };
        let ended = paused_runtime().block_on(coordinator.process(&steps, &changes));
        coordinator.check();
        match ended {
            Ok(()) => {
                let accepted = coordinator.accepted.borrow();
                prop_assert_eq!(accepted.last(), Some(&(POSITION.next(), OffsetMetadata::last(Some(TOOK)))));
            }
            Err(error) => prop_assert!(matches!(error, CommitError::Lost), "{}", error),
        }
    }
}

#[test]
fn progress_is_committed_at_intervals() {
    let coordinator = Coordinator::default();
    let changes = [(7, Change::Progress); 100];
    let steps = [(700, Step::DeadLetter)];
    let ended = paused_runtime().block_on(coordinator.process(&steps, &changes));
    ended.expect("the partition is not lost");
    let accepted = coordinator.accepted.borrow();
    let commits = accepted.iter().filter(|(_, record)| record.percent.is_some());
    // 700 ms / 50 ms, and one with the dead letter.
    let commits = commits.count();
    assert!((10..=15).contains(&commits), "{commits}: {accepted:?}");
}
