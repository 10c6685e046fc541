//! The record that a worker commits as metadata of a partition's offset: `name=value` pairs separated by `;`.
//!
//! It describes the message at that offset. Each field has one writer and named readers. Fields of later versions are
//! kept and ignored. Parsing never fails: malformed fields count as absent.

use std::fmt;
use std::time::Duration;

/// Longest record that is written, in bytes. By default, brokers refuse more than 4,096 (`offset.metadata.max.bytes`).
pub const MAX_METADATA_BYTES: usize = 512;

/// Longest name of a dependency in a [`Hold`], in bytes.
const MAX_DEPENDENCY_BYTES: usize = 64;

/// The metadata of a committed offset. A worker of an older version reads a record with any field besides `attempt` as
/// attempt 0, so a rolling update never counts too many crashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetMetadata {
    /// Number of attempts at the message; written and read by processors and uploaders.
    pub attempt: u32,
    /// The worker was asked to stop: the platform may kill it before the message is done. Written by workers, read by
    /// workers and the operator.
    pub draining: bool,
    /// When processing started, in Unix seconds; read by the operator and the API.
    pub start: Option<u64>,
    /// Progress of the work, 0 to 100; read by the operator and the API.
    pub percent: Option<u8>,
    /// The dependency that refuses the worker; read by the operator.
    pub held: Option<Hold>,
    /// How long the message before this one took its worker, until its commit; none if it failed or was a duplicate.
    /// Written by workers in seconds with one decimal, read by the operator and the API.
    pub last: Option<Duration>,
    /// The message is in the dead-letter topic; written and read by workers, so that it is published there only once.
    pub dead_lettered: bool,
    /// Fields of other versions, unchanged.
    others: Vec<(String, String)>,
}

/// A dependency that refuses a worker, written as `s3:403@1763683200`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The dependency and its error code: `s3:403`, `s3:NoSuchBucket`, `volume:EACCES`, `kafka:29`, `model:missing`.
    dependency: String,
    /// Time of the first refusal, in Unix seconds.
    pub since: u64,
}

impl Hold {
    /// A refusal by `dependency` since a time in Unix seconds. Characters that the record cannot contain are replaced
    /// by `-`; the name is cut to 64 bytes.
    #[must_use]
    pub fn new(dependency: &str, since: u64) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
        let dependency = dependency
            .chars()
            .map(|c| if plain(c) { c } else { '-' })
            .take(MAX_DEPENDENCY_BYTES)
            .collect();
        Self { dependency, since }
    }

    /// The dependency and its error code, such as `s3:403`.
    #[must_use]
    pub fn dependency(&self) -> &str {
        &self.dependency
    }

    fn parse(text: &str) -> Option<Self> {
        let (dependency, since) = text.rsplit_once('@')?;
        (!dependency.is_empty()).then_some(())?;
        Some(Self::new(dependency, since.parse().ok()?))
    }
}

impl OffsetMetadata {
    /// A record with only the number of attempts.
    #[must_use]
    pub fn attempt(attempt: u32) -> Self {
        Self {
            attempt,
            ..Self::default()
        }
    }

    /// A record with only the time of the last message.
    #[must_use]
    pub fn last(last: Option<Duration>) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    /// Parses a record. Metadata of other programs gives an empty record.
    #[must_use]
    pub fn parse(metadata: &str) -> Self {
        let mut read = Self::default();
        for field in metadata.split(';') {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            match key {
                "attempt" => read.attempt = value.parse().unwrap_or(0),
                "draining" => read.draining = value == "1",
                "start" => read.start = value.parse().ok(),
                "percent" => read.percent = value.parse().ok().filter(|percent| *percent <= 100),
                "held" => read.held = Hold::parse(value),
                "last" => read.last = parse_seconds(value),
                "letter" => read.dead_lettered = value == "1",
                _ => read.others.push((key.to_owned(), value.to_owned())),
            }
        }
        read
    }
}

fn parse_seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// At most [`MAX_METADATA_BYTES`]; empty if no field is set. Fields of other versions are omitted if they do not fit.
impl fmt::Display for OffsetMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = [
            (self.attempt > 0).then(|| format!("attempt={}", self.attempt)),
            self.draining.then(|| "draining=1".to_owned()),
            self.start.map(|start| format!("start={start}")),
            self.percent.map(|percent| format!("percent={percent}")),
            self.held
                .as_ref()
                .map(|held| format!("held={}@{}", held.dependency, held.since)),
            self.last.map(|last| format!("last={:.1}", last.as_secs_f64())),
            self.dead_lettered.then(|| "letter=1".to_owned()),
        ];
        let others = self
            .others
            .iter()
            .map(|(key, value)| Some(format!("{key}={value}")));
        let mut written = 0;
        for field in own.into_iter().chain(others).flatten() {
            let separator = if written > 0 { ";" } else { "" };
            if written + separator.len() + field.len() > MAX_METADATA_BYTES {
                continue;
            }
            write!(f, "{separator}{field}")?;
            written += separator.len() + field.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_parsed_as_it_is_written() {
        let record = OffsetMetadata {
            attempt: 2,
            draining: true,
            start: Some(1_763_683_200),
            percent: Some(40),
            held: Some(Hold::new("s3:403", 1_763_683_100)),
            last: Some(Duration::from_millis(77_500)),
            dead_lettered: true,
            others: vec![("later".to_owned(), "1".to_owned())],
        };
        let text = "attempt=2;draining=1;start=1763683200;percent=40;held=s3:403@1763683100;last=77.5;letter=1;later=1";
        assert_eq!(record.to_string(), text);
        assert_eq!(OffsetMetadata::parse(text), record);
    }

    #[test]
    fn a_record_with_only_an_attempt_equals_that_of_the_previous_version() {
        assert_eq!(OffsetMetadata::attempt(3).to_string(), "attempt=3");
        assert_eq!(OffsetMetadata::attempt(0).to_string(), "");
    }

    #[test]
    fn metadata_of_other_programs_gives_an_empty_record() {
        for text in [
            "",
            "attempt=",
            "attempt=-1",
            "NO_METADATA",
            "held=s3",
            "percent=101",
            "last=-1",
            "last=NaN",
            ";;=",
        ] {
            let mut read = OffsetMetadata::parse(text);
            read.others.clear();
            assert_eq!(read, OffsetMetadata::default(), "{text}");
        }
    }

    #[test]
    fn a_dependency_never_breaks_the_record() {
        let hold = Hold::new("s3:a;b=c@d é", 1);
        assert_eq!(hold.dependency(), "s3:a-b-c-d--");
        assert_eq!(Hold::parse("s3:a-b-c-d--@1"), Some(hold));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_record_that_fits(text in ".{0,2000}") {
            let written = OffsetMetadata::parse(&text).to_string();
            prop_assert!(written.len() <= MAX_METADATA_BYTES);
        }
    }
}
