//! Invalid fields of a pool, collected while it is validated.

/// An invalid field of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {problem}; fix: {fix}")]
pub struct Problem {
    /// Path of the field, such as `spec.kafka.sasl`.
    pub field: String,
    /// Why the value is invalid.
    pub problem: String,
    /// How to correct it.
    pub fix: String,
}

/// All invalid fields of a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Problems found so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) problems: Vec<Problem>,
}

impl Checks {
    /// Records a problem and returns none.
    pub(super) fn refuse<T>(
        &mut self,
        field: &str,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<T> {
        self.problems.push(Problem {
            field: format!("spec.{field}"),
            problem: problem.into(),
            fix: fix.into(),
        });
        None
    }

    /// Converts an integer, or records that it is out of range.
    pub(super) fn integer<T: TryFrom<i64>>(
        &mut self,
        field: &str,
        value: i64,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.or_else(|| {
            let (min, max) = range.into_inner();
            let fix = format!("choose {min} to {max}");
            self.refuse(field, format!("{value} is out of range"), fix)
        })
    }
}
