//! `separation-worker dead-letters`: lists and shows the messages that workers gave up, and publishes them again.
//!
//! Joins no consumer group, and removes nothing from a dead-letter topic.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::dead_letter::{CompleteLetter, DeadLetter, Replay, RoleTopics};
use super::failure::Failure;
use super::lag::RoleChoice;
use super::printing::{json_out, line_err, line_out};
use crate::kafka::{Header, Position, Producer, PublishError, TopicReader, start_tokens};
use crate::settings::{ConsumerArguments, KafkaArguments, KafkaSettings};
use crate::telemetry::TraceContext;

const EXAMPLES: &str = "\
Examples:
  separation-worker dead-letters list
  separation-worker dead-letters list --role uploader --json | jq .reason
  separation-worker dead-letters show 0@17
  separation-worker dead-letters replay 0@17 0@18
  separation-worker dead-letters replay --task 0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf --dry-run
  separation-worker dead-letters replay --all --role uploader

A replay publishes the message with its message key, value and trace to the topic that it was consumed from, which must be
that of the role. The dead letter stays in its topic, so another replay publishes it again. A task of the HTTP API v1 that
has ended stays as it ended: post it again instead.

Exit codes: 0 done, 1 a dead letter was not found, refused or not published, 2 invalid arguments.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeadLettersArguments {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List the dead letters of a role: position, time, task, reason
    List(ListArguments),
    /// Show a dead letter with its headers and its value
    Show(ShowArguments),
    /// Publish dead letters again, each to the topic that it was consumed from
    Replay(ReplayArguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ListArguments {
    /// Print one JSON object per dead letter
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ShowArguments {
    /// Position of the dead letter, as `list` prints it
    #[arg(value_name = "PARTITION@OFFSET", value_parser = parse_position)]
    position: Position,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("chosen").required(true).args(["positions", "task", "all"]))]
struct ReplayArguments {
    /// Positions of dead letters, as `list` prints them
    #[arg(value_name = "PARTITION@OFFSET", value_parser = parse_position)]
    positions: Vec<Position>,
    /// Replay the dead letters of this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Replay every dead letter
    #[arg(long)]
    all: bool,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per dead letter
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

#[derive(Debug, Args)]
struct SourceArguments {
    /// Role whose dead letters to read
    #[arg(long, value_enum, default_value = "processor", value_name = "ROLE")]
    role: RoleChoice,
    /// Topic to read instead of the role's dead-letter topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
}

/// A dead-letter topic.
struct Source {
    /// Renews tokens on a thread of its own: readers block.
    runtime: Runtime,
    kafka: KafkaSettings,
    group: String,
    topic: String,
    /// The topic that the role consumes.
    consumed: String,
}

/// A line about a replayed dead letter.
#[derive(Debug, Serialize)]
struct ReplayReport {
    position: String,
    task_uuid: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// `partition@offset` of the published message.
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(arguments: &DeadLettersArguments) -> Result<(), Failure> {
    match &arguments.command {
        DeadLettersCommand::List(arguments) => list(arguments),
        DeadLettersCommand::Show(arguments) => show(arguments),
        DeadLettersCommand::Replay(arguments) => replay(arguments),
    }
}

impl SourceArguments {
    fn settings(&self) -> Result<Source, Failure> {
        let consumer = self.consumer.settings(self.role.role())?;
        let kafka = self.kafka.settings()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let started = runtime.block_on(start_tokens(&kafka));
        started.context("cannot authenticate at Kafka")?;
        Ok(Source {
            runtime,
            kafka,
            group: consumer.group,
            topic: self.topic.clone().unwrap_or(consumer.dead_letter_topic),
            consumed: consumer.topic,
        })
    }
}

impl Source {
    /// A reader of these positions, and of all messages after them; of the complete topic if there are none.
    fn open(&self, positions: &[Position]) -> anyhow::Result<TopicReader> {
        let reader = if positions.is_empty() {
            TopicReader::open(&self.kafka, &self.group, &self.topic)
        } else {
            let mut from: BTreeMap<i32, i64> = BTreeMap::new();
            for position in positions {
                let first = from.entry(position.partition).or_insert(position.offset);
                *first = position.offset.min(*first);
            }
            TopicReader::open_at(&self.kafka, &self.group, &self.topic, &from)
        };
        Ok(reader?)
    }

    fn not_found(&self, position: Position) -> String {
        format!("topic {} has no message at {position}", self.topic)
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let source = arguments.source.settings()?;
    let mut reader = source.open(&[])?;
    let mut rows = Vec::new();
    while let Some(message) = reader.next_message().context("cannot list dead letters")? {
        let report = DeadLetter::new(message).report();
        if arguments.json {
            json_out(&report).context("cannot print")?;
            continue;
        }
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push([
            report.position,
            cell(report.time),
            cell(report.task_uuid),
            cell(report.reason),
        ]);
    }
    if arguments.json {
        return Ok(());
    }
    if rows.is_empty() {
        line_err(&format!("topic {} has no messages", source.topic));
        return Ok(());
    }
    for line in table(rows) {
        line_out(&line).context("cannot print")?;
    }
    Ok(())
}

/// Lines with aligned columns; the last one, which may be long, is not padded.
fn table(rows: Vec<[String; 4]>) -> Vec<String> {
    let header = ["POSITION", "TIME", "TASK", "REASON"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..3).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 4]| {
        let padded = row.iter().zip(&widths);
        let mut line: String = padded.map(|(cell, &width)| format!("{cell:width$}  ")).collect();
        line.push_str(&row[3]);
        line
    };
    rows.iter().map(line).collect()
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let source = arguments.source.settings()?;
    let position = arguments.position;
    let message = source
        .open(&[position])?
        .next_message()
        .with_context(|| format!("cannot read the dead letter at {position}"))?;
    let Some(message) = message.filter(|message| message.position == position) else {
        return Err(Failure::Work(anyhow!("{}", source.not_found(position))));
    };
    let letter = DeadLetter::new(message).complete();
    if arguments.json {
        return Ok(json_out(&letter).context("cannot print")?);
    }
    for line in lines(&letter) {
        line_out(&line).context("cannot print")?;
    }
    Ok(())
}

/// The fields, the headers and the value of a dead letter.
fn lines(letter: &CompleteLetter) -> Vec<String> {
    let report = &letter.report;
    let fields = [
        ("position", Some(&report.position)),
        ("time", report.time.as_ref()),
        ("task", report.task_uuid.as_ref()),
        ("message key", letter.key.as_ref()),
    ];
    let field = |(name, value): (&str, Option<&String>)| {
        format!("{name:13}{}", value.map_or("none", |value| value.as_str()))
    };
    let mut lines: Vec<String> = fields.into_iter().map(field).collect();
    lines.push("headers".to_owned());
    lines.extend(
        letter
            .headers
            .iter()
            .map(|(name, value)| format!("  {name}: {value}")),
    );
    lines.push("value".to_owned());
    lines.push(letter.value.clone().unwrap_or_else(|| "none".to_owned()));
    lines
}

fn replay(arguments: &ReplayArguments) -> Result<(), Failure> {
    let source = arguments.source.settings()?;
    let positions = &arguments.positions;
    let is_chosen = |letter: &DeadLetter| {
        arguments.all
            || positions.contains(&letter.position())
            || arguments.task.is_some() && arguments.task == letter.task()
    };
    let mut replayer = Replayer::new(&source, arguments)?;
    let mut reader = source.open(positions)?;
    let mut missing = positions.clone();
    while positions.is_empty() || !missing.is_empty() {
        let Some(message) = reader.next_message().context("cannot read dead letters")? else {
            break;
        };
        let letter = DeadLetter::new(message);
        if is_chosen(&letter) {
            missing.retain(|position| *position != letter.position());
            replayer.replay(&letter)?;
        }
    }
    for position in &missing {
        line_err(&source.not_found(*position));
    }
    if let Some(task) = arguments.task.as_ref().filter(|_| replayer.count() == 0) {
        line_err(&format!("topic {} has no message of task {task}", source.topic));
        return Err(Failure::Reported);
    }
    replayer.summarize();
    match missing.is_empty() && replayer.refused == 0 {
        true => Ok(()),
        false => Err(Failure::Reported),
    }
}

/// Publishes dead letters again, and reports each.
struct Replayer<'s> {
    source: &'s Source,
    /// None for a dry run.
    producer: Option<Producer>,
    json: bool,
    published: usize,
    refused: usize,
}

impl<'s> Replayer<'s> {
    fn new(source: &'s Source, arguments: &ReplayArguments) -> anyhow::Result<Self> {
        let producer = match arguments.dry_run {
            true => None,
            false => Some(Producer::new(&source.kafka).context("cannot create a Kafka client")?),
        };
        Ok(Self {
            source,
            producer,
            json: arguments.json,
            published: 0,
            refused: 0,
        })
    }

    /// Publishes a dead letter and waits for the broker, or reports that it cannot be published.
    fn replay(&mut self, letter: &DeadLetter) -> anyhow::Result<()> {
        let mut report = ReplayReport {
            position: letter.position().to_string(),
            task_uuid: letter.task(),
            status: "refused",
            topic: None,
            published_at: None,
            error: None,
        };
        let topics = RoleTopics {
            consumed: &self.source.consumed,
            dead_letters: &self.source.topic,
        };
        match letter.replay(topics) {
            Err(reason) => {
                self.refused += 1;
                report.error = Some(reason.to_string());
            }
            Ok(replay) => {
                report.topic = Some(replay.topic.to_owned());
                report.status = "would be published";
                if let Some(producer) = &self.producer {
                    let published = self.source.runtime.block_on(publish(producer, &replay));
                    let published_at = published.map_err(|error| stopped(letter.position(), error))?;
                    report.status = "published";
                    report.published_at = Some(published_at.to_string());
                }
                self.published += 1;
            }
        }
        self.print(&report)
    }

    fn print(&self, report: &ReplayReport) -> anyhow::Result<()> {
        if self.json {
            return json_out(report).context("cannot print");
        }
        let ReplayReport { position, status, .. } = report;
        let task = report.task_uuid.as_deref().unwrap_or("-");
        let topic = report.topic.as_ref().map(|topic| format!(" to {topic}"));
        let at = report.published_at.as_ref().map(|at| format!(" at {at}"));
        let error = report.error.as_ref().map(|error| format!(": {error}"));
        let [topic, at, error] = [topic, at, error].map(Option::unwrap_or_default);
        line_out(&format!("{position}  {task}  {status}{topic}{at}{error}")).context("cannot print")
    }

    fn count(&self) -> usize {
        self.published + self.refused
    }

    fn summarize(&self) {
        let (published, refused, topic) = (self.published, self.refused, &self.source.topic);
        line_err(&match self.producer {
            None => format!(
                "{published} would be published, {refused} refused; nothing was published (--dry-run)"
            ),
            Some(_) => format!(
                "{published} published, {refused} refused; all stay in {topic}: another replay publishes them again"
            ),
        });
    }
}

async fn publish(producer: &Producer, replay: &Replay<'_>) -> Result<Position, PublishError> {
    let headers = [Header {
        name: TraceContext::HEADER,
        value: replay.trace.child().to_string(),
    }];
    producer
        .publish(replay.topic, replay.key, replay.value, &headers)
        .await
}

/// The error that ends a replay. Those before it are published and reported.
fn stopped(position: Position, error: PublishError) -> anyhow::Error {
    let doubt = match error.may_be_stored() {
        true => "it may be published",
        false => "it is not published",
    };
    let context = format!(
        "the replay stopped at the dead letter at {position}, because its message was not confirmed ({doubt})"
    );
    anyhow::Error::new(error).context(context)
}

fn parse_position(text: &str) -> Result<Position, String> {
    let parts = text.split_once('@');
    let numbers: Option<(i32, i64)> =
        parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    match numbers {
        Some((partition @ 0.., offset @ 0..)) => Ok(Position { partition, offset }),
        _ => Err("not of the form PARTITION@OFFSET, such as 0@17".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        replay: ReplayArguments,
    }

    #[test]
    fn a_position_is_parsed_as_it_is_printed() {
        let position = Position {
            partition: 3,
            offset: 120,
        };
        assert_eq!(parse_position(&position.to_string()), Ok(position));
        for text in ["", "3", "3@", "@3", "-1@3", "3@-1", "3@x", "99999999999@1"] {
            assert!(parse_position(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dead_letters_to_replay_are_chosen_in_exactly_one_way() {
        let accepts = |options: &[&str]| Line::try_parse_from([&["replay"], options].concat()).is_ok();
        for options in [&["0@1"][..], &["0@1", "0@2"], &["--task", "a"], &["--all"]] {
            assert!(accepts(options), "{options:?}");
        }
        for options in [
            &[][..],
            &["--dry-run"],
            &["0@1", "--all"],
            &["--task", "a", "--all"],
            &["0@1", "--task", "a"],
        ] {
            assert!(!accepts(options), "{options:?}");
        }
    }

    #[test]
    fn the_columns_of_the_list_are_aligned() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        let rows = vec![
            row(["0@17", "-", "a", "not JSON"]),
            row(["10@1", "-", "b-2", "-"]),
        ];
        let expected = [
            "POSITION  TIME  TASK  REASON",
            "0@17      -     a     not JSON",
            "10@1      -     b-2   -",
        ];
        assert_eq!(table(rows), expected);
    }
}
