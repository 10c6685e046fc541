//! The record that a worker commits as metadata beside a partition's offset: `key=value` pairs separated by `;`.
//!
//! It describes the message at that offset. Each field has one writer and named readers. Fields of later versions are
//! kept and ignored. Reading never fails: what cannot be read counts as absent.

use std::fmt;

/// Longest record that is written, in bytes. Brokers refuse more than 4,096 (`offset.metadata.max.bytes`).
pub const MAX_METADATA_BYTES: usize = 512;

/// Longest name of a dependency in a [`Hold`], in bytes.
const MAX_DEPENDENCY_BYTES: usize = 64;

/// The record beside a committed offset. A worker of an older version reads a record with any field beside `attempt`
/// as attempt 0, so that a rolling update never counts too many crashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetMetadata {
    /// How often work on the message was started; written by processors and uploaders, read by them.
    pub attempt: u32,
    /// The worker had been asked to stop: the platform may end it before the message is done. Written by workers, read
    /// by them and by the operator.
    pub draining: bool,
    /// When work on the message started, in Unix seconds; read by operator and API.
    pub start: Option<u64>,
    /// Progress of the work, 0 to 100; read by the API.
    pub percent: Option<u8>,
    /// What refuses the worker; read by the operator.
    pub held: Option<Hold>,
    /// How long the worker's last message took, in seconds; read by the operator.
    pub last: Option<u64>,
    /// The message is in the dead-letter topic; written by workers, read by them so that no second one is published.
    pub letter: bool,
    /// Fields of other versions, as they were read.
    others: Vec<(String, String)>,
}

/// A dependency that refuses a worker, written as `s3:403@1763683200`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The dependency and its code: `s3:403`, `s3:NoSuchBucket`, `volume:EACCES`, `kafka:29`, `model:missing`.
    dependency: String,
    /// Since when, in Unix seconds.
    pub since: u64,
}

impl Hold {
    /// A refusal by `dependency` since a time in Unix seconds. Characters that the record cannot hold become `-`; what
    /// is longer than 64 bytes is cut off.
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

    /// The dependency and its code, such as `s3:403`.
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
    /// The record of a message whose work was started so often, with nothing else known of it.
    #[must_use]
    pub fn attempt(attempt: u32) -> Self {
        Self {
            attempt,
            ..Self::default()
        }
    }

    /// Reads a record. Texts of other programs give the empty record.
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
                "last" => read.last = value.parse().ok(),
                "letter" => read.letter = value == "1",
                _ => read.others.push((key.to_owned(), value.to_owned())),
            }
        }
        read
    }
}

/// At most [`MAX_METADATA_BYTES`]; empty where nothing is known. Fields of other versions are left out where they do not
/// fit.
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
            self.last.map(|last| format!("last={last}")),
            self.letter.then(|| "letter=1".to_owned()),
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
    fn a_record_is_read_as_it_is_written() {
        let record = OffsetMetadata {
            attempt: 2,
            draining: true,
            start: Some(1_763_683_200),
            percent: Some(40),
            held: Some(Hold::new("s3:403", 1_763_683_100)),
            last: Some(77),
            letter: true,
            others: vec![("later".to_owned(), "1".to_owned())],
        };
        let text = "attempt=2;draining=1;start=1763683200;percent=40;held=s3:403@1763683100;last=77;letter=1;later=1";
        assert_eq!(record.to_string(), text);
        assert_eq!(OffsetMetadata::parse(text), record);
    }

    #[test]
    fn a_record_of_an_attempt_alone_is_that_of_the_version_before() {
        assert_eq!(OffsetMetadata::attempt(3).to_string(), "attempt=3");
        assert_eq!(OffsetMetadata::attempt(0).to_string(), "");
    }

    #[test]
    fn texts_of_other_programs_give_the_empty_record() {
        for text in [
            "",
            "attempt=",
            "attempt=-1",
            "NO_METADATA",
            "held=s3",
            "percent=101",
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
