//! `separation-worker lag`: lag and owner of each partition of a consumer group.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::printing::{json_out, write_out};
use crate::kafka::{GroupLag, PartitionLag, read_group_lag};
use crate::settings::{ConsumedRole, ConsumerArguments, KafkaArguments};

/// Time limit of the reading.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-worker lag
  separation-worker lag --role uploader --json
  separation-worker lag --bootstrap-servers kafka:9092 --group other_group --topic other_topic")]
pub(super) struct LagArguments {
    /// Role whose consumer group and topic to read
    #[arg(long, value_enum, default_value = "processor", value_name = "ROLE")]
    role: RoleChoice,
    /// Consumer group to read instead of the role's
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Topic to read instead of the role's
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleChoice {
    /// Tasks to separate
    Processor,
    /// Results to upload
    Uploader,
}

impl RoleChoice {
    pub(super) fn role(self) -> ConsumedRole {
        match self {
            Self::Processor => ConsumedRole::Processor,
            Self::Uploader => ConsumedRole::Uploader,
        }
    }
}

pub(super) fn run(arguments: &LagArguments) -> Result<(), Failure> {
    let kafka = arguments
        .kafka
        .settings()
        .map_err(|error| Failure::Usage(error.into()))?;
    let consumer = arguments
        .consumer
        .settings(arguments.role.role())
        .map_err(|error| Failure::Usage(error.into()))?;
    let group = arguments.group.as_deref().unwrap_or(&consumer.group);
    let topic = arguments.topic.as_deref().unwrap_or(&consumer.topic);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let lag = runtime
        .block_on(read_group_lag(&kafka, group, topic, LIMIT))
        .with_context(|| format!("cannot read the lag of {group} in {topic}"))
        .map_err(Failure::Work)?;
    let printed = if arguments.json {
        json_out(&lag)
    } else {
        write_out(&table(&lag))
    };
    printed.context("cannot print").map_err(Failure::Work)
}

/// The columns of `kafka-consumer-groups --describe`, without the consumer's random ID.
fn table(lag: &GroupLag) -> String {
    let mut rows = vec![
        [
            "GROUP",
            "TOPIC",
            "PARTITION",
            "CURRENT-OFFSET",
            "LOG-END-OFFSET",
            "LAG",
            "CLIENT-ID",
            "HOST",
        ]
        .map(str::to_owned),
    ];
    rows.extend(lag.partitions.iter().map(|row| cells(lag, row)));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let total = lag.total();
    text.push_str(&format!(
        "\ngroup {} is {}; total lag {total}\n",
        lag.group, lag.state
    ));
    text
}

fn cells(lag: &GroupLag, row: &PartitionLag) -> [String; 8] {
    let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
    let owner = row.owner.as_ref();
    [
        lag.group.clone(),
        lag.topic.clone(),
        row.partition.to_string(),
        number(row.committed),
        row.end.to_string(),
        number(row.lag),
        owner.map_or("-".to_owned(), |owner| owner.client_id.clone()),
        owner.map_or("-".to_owned(), |owner| owner.host.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::PartitionOwner;

    #[test]
    fn the_table_reads_like_kafkas_own() {
        let row = |partition, committed, owner| PartitionLag {
            partition,
            committed,
            start: 0,
            end: 150,
            lag: committed.map(|committed| 150 - committed),
            owner,
        };
        let owner = PartitionOwner {
            client_id: "vocals-processor-1".into(),
            host: "10.0.0.7".into(),
        };
        let lag = GroupLag {
            group: "uvr_processor_group".into(),
            state: "Stable".into(),
            topic: "uvr_tasks".into(),
            partitions: vec![row(0, Some(148), Some(owner)), row(1, None, None)],
        };
        let expected = "\
GROUP                TOPIC      PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CLIENT-ID           HOST
uvr_processor_group  uvr_tasks  0          148             150             2    vocals-processor-1  10.0.0.7
uvr_processor_group  uvr_tasks  1          -               150             -    -                   -

group uvr_processor_group is Stable; total lag 2
";
        assert_eq!(table(&lag), expected);
    }
}
