//! What refuses workers, as they report in the metadata beside the offsets that their group committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use separation_contract::offset_metadata::{Hold, OffsetMetadata};

use super::coordinators::Refusal;
use super::groups::fetch_of;
use super::{Cluster, Deadline, TopicPartition};

/// Reports of one group's workers, by partition.
pub type Holds = BTreeMap<TopicPartition, Hold>;

impl Cluster {
    /// Reports of the workers of groups, for each group in turn. What could not be read reports nothing.
    pub async fn holds(&self, groups: &[(Arc<str>, Vec<TopicPartition>)], deadline: &Deadline) -> Vec<Holds> {
        let names: Vec<_> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
        let question = |positions: &[usize]| {
            let asked = positions
                .iter()
                .map(|position| fetch_of(&groups[*position].0, &groups[*position].1));
            OffsetFetchRequest::default().with_groups(asked.collect())
        };
        let read = |position: usize, answer: &OffsetFetchResponse| {
            let (group, partitions) = &groups[position];
            holds_in(answer, group, partitions)
        };
        let found = self.ask_coordinators(&names, deadline, question, read).await;
        found.into_iter().map(Result::unwrap_or_default).collect()
    }
}

fn holds_in(
    answer: &OffsetFetchResponse,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<Holds, Refusal> {
    let mut holds = Holds::new();
    for answered in answer
        .groups
        .iter()
        .filter(|answered| *answered.group_id.0 == *group)
    {
        if let Some(refusal) = Refusal::of(answered.error_code) {
            return Err(refusal);
        }
        for topic in &answered.topics {
            for found in &topic.partitions {
                let metadata = found.metadata.as_deref().unwrap_or_default();
                let Some(held) = OffsetMetadata::parse(metadata).held else {
                    continue;
                };
                let asked = partitions.iter().find(|partition| {
                    *partition.topic == *topic.name.0 && partition.partition == found.partition_index
                });
                holds.extend(asked.map(|partition| (partition.clone(), held)));
            }
        }
    }
    Ok(holds)
}
