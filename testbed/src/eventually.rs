//! Waits for an event with a deadline, instead of sleeping.

use std::time::{Duration, Instant};

/// Interval between checks of a condition.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Results of a condition: `bool`, `Option<T>`, or a `Result` of one, whose error counts as "not yet".
pub trait Condition {
    /// The value once the condition holds.
    type Value;

    /// Returns the value, or why there is none yet.
    ///
    /// # Errors
    /// The reason, for the message after the deadline.
    fn evaluate(self) -> Result<Self::Value, Option<String>>;
}

impl Condition for bool {
    type Value = ();

    fn evaluate(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn evaluate(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<C: Condition> Condition for anyhow::Result<C> {
    type Value = C::Value;

    fn evaluate(self) -> Result<C::Value, Option<String>> {
        match self {
            Ok(condition) => condition.evaluate(),
            Err(error) => Err(Some(format!("{error:#}"))),
        }
    }
}

/// Waits until `condition` holds and returns its value; checks every 50 ms.
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
/// If it does not hold `within` that time, with `what` was expected and the last error.
pub async fn eventually<C: Condition>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let deadline = Instant::now() + within;
    loop {
        let reason = match condition().await.evaluate() {
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
