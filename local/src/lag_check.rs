//! The lag check period as an argument. Pools have whole seconds; here a reading costs little, and fractions are allowed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Shortest and longest period, in seconds.
const RANGE: RangeInclusive<f64> = 0.1..=300.0;

/// Parses a period in seconds, such as `0.5`.
///
/// # Errors
/// When it is not a number in the range; the text has the fix.
pub(crate) fn parse_period(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| RANGE.contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("choose {} to {} seconds", RANGE.start(), RANGE.end()))?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_may_be_fractions_of_a_second() {
        assert_eq!(parse_period("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_period("300"), Ok(Duration::from_secs(300)));
        for text in ["0", "0.09", "-1", "301", "NaN", "inf", "2s", ""] {
            assert_eq!(
                parse_period(text),
                Err("choose 0.1 to 300 seconds".to_owned()),
                "{text}"
            );
        }
    }
}
