//! Waiting for an event with a deadline, in place of sleeping.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What a condition can answer: `bool`, `Option<T>`, or a `Result` of one, whose error counts as "not yet".
pub trait Answer {
    /// What is known once the condition holds.
    type Value;

    /// The value, or why there is none yet.
    ///
    /// # Errors
    /// The reason, for the message when the deadline has passed.
    fn settle(self) -> Result<Self::Value, Option<String>>;
}

impl Answer for bool {
    type Value = ();

    fn settle(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Answer for Option<T> {
    type Value = T;

    fn settle(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<A: Answer> Answer for anyhow::Result<A> {
    type Value = A::Value;

    fn settle(self) -> Result<A::Value, Option<String>> {
        match self {
            Ok(answer) => answer.settle(),
            Err(error) => Err(Some(format!("{error:#}"))),
        }
    }
}

/// Waits until `condition` holds and gives what it found; it is looked at every 50 ms.
///
/// ```no_run
/// # async fn example(kafka: &separation_testbed::Kafka) {
/// use std::time::Duration;
/// use separation_testbed::eventually;
/// let records = eventually("three results", Duration::from_secs(10), async || {
///     let records = kafka.consume_all("results").await?;
///     anyhow::Ok((records.len() == 3).then_some(records))
/// })
/// .await;
/// # drop(records);
/// # }
/// ```
///
/// # Panics
/// When it does not hold `within` that time, with `what` was waited for and the last error.
pub async fn eventually<A: Answer>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> A,
) -> A::Value {
    let deadline = Instant::now() + within;
    loop {
        let reason = match condition().await.settle() {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        if Instant::now() >= deadline {
            let reason = reason.map_or_else(String::new, |reason| format!("; last error: {reason}"));
            panic!("no {what} within {within:?}{reason}");
        }
        tokio::time::sleep(POLL).await;
    }
}
