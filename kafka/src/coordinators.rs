//! Requests about groups, each sent to the group's coordinator.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FindCoordinatorRequest;

use crate::address::Address;
use crate::broker::Broker;
use crate::limits::MAX_RESPONSE_BYTES;
use crate::protocol::{Request, text};
use crate::{Cluster, Deadline, ReadError, ReadErrorKind};

/// Groups in one request, if their responses are small.
const MAX_GROUPS_PER_REQUEST: usize = 100;

/// The expected response to one request: half of what is allowed, because some groups exceed the expectation.
const EXPECTED_BYTES_PER_RESPONSE: usize = MAX_RESPONSE_BYTES / 2;

/// Groups in one FindCoordinator request.
const GROUPS_PER_LOOKUP: usize = 500;

/// The attempts for a group in one reading, each with the wait before it.
const ATTEMPT_DELAYS: [Duration; 3] = [Duration::ZERO, Duration::ZERO, Duration::from_millis(100)];

/// Why a request about a group failed.
#[derive(Debug, Clone)]
pub(crate) enum CoordinatorError {
    /// Another coordinator, or a retry, may succeed.
    Retriable(ReadError),
    /// A retry cannot succeed.
    Final(ReadError),
}

impl CoordinatorError {
    /// Classifies an error code; `None` for code 0.
    pub(crate) fn from_code(code: i16) -> Option<Self> {
        let error = ResponseError::try_from_code(code)?;
        let why = ReadError::from_code(code);
        Some(match error {
            ResponseError::NotCoordinator
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::CoordinatorLoadInProgress => Self::Retriable(why),
            _ => Self::Final(why),
        })
    }

    /// A response without the requested group.
    pub(crate) fn group_omitted() -> Self {
        Self::Final(ReadError::malformed("the broker's response omits the group"))
    }

    pub(crate) fn into_error(self) -> ReadError {
        match self {
            Self::Retriable(why) | Self::Final(why) => why,
        }
    }
}

type CoordinatorResponse<A> = (Arc<Broker>, Vec<usize>, Result<A, ReadError>);

impl Cluster {
    /// Sends requests about groups to their coordinators, batched for each. `request` builds the request for the
    /// groups at some positions; `read` extracts the result of one of them; `response_bytes` is the expected size of a
    /// group's part of the response.
    pub(crate) async fn send_to_coordinators<Q, T>(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
        response_bytes: impl Fn(usize) -> usize + Send + Sync,
        request: impl Fn(&[usize]) -> Q + Send + Sync,
        read: impl Fn(usize, &Q::Response) -> Result<T, CoordinatorError> + Send + Sync,
    ) -> Vec<Result<T, CoordinatorError>>
    where
        Q: Request + Send,
        T: Send,
    {
        let not_sent = || {
            Err(CoordinatorError::Retriable(ReadError::timed_out(
                "the deadline passed before the request was sent",
            )))
        };
        let mut found: Vec<_> = groups.iter().map(|_| not_sent()).collect();
        let mut due: Vec<usize> = (0..groups.len()).collect();
        // A broker that failed for a group is not asked again for it, unless the group has another coordinator by then.
        let mut failed_at: HashMap<usize, Address> = HashMap::new();
        for wait in ATTEMPT_DELAYS {
            if due.is_empty() || deadline.remaining() <= wait {
                break;
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let by_coordinator = self.find_coordinators(groups, &due, &mut found, deadline).await;
            let mut sent = Vec::new();
            for (broker, positions) in by_coordinator {
                let positions: Vec<_> = positions
                    .into_iter()
                    .filter(|position| failed_at.get(position) != Some(broker.address()))
                    .collect();
                for batch in batches(&positions, &response_bytes) {
                    let request = request(&batch);
                    sent.push(send(Arc::clone(&broker), batch, request, *deadline));
                }
            }
            for (broker, positions, response) in join_all(sent).await {
                for position in positions {
                    found[position] = match &response {
                        Ok(response) => read(position, response),
                        Err(why)
                            if matches!(
                                why.kind,
                                ReadErrorKind::Unsupported | ReadErrorKind::NoCommonVersion
                            ) =>
                        {
                            Err(CoordinatorError::Final(why.clone()))
                        }
                        Err(why) => {
                            failed_at.insert(position, broker.address().clone());
                            Err(CoordinatorError::Retriable(why.clone()))
                        }
                    };
                }
            }
            due.retain(|position| matches!(found[*position], Err(CoordinatorError::Retriable(_))));
            let mut routes = self.routes();
            for position in &due {
                routes.forget_coordinator(&groups[*position]);
            }
        }
        found
    }

    /// The coordinators of the groups at these positions. `found` gets the error of each group without one.
    async fn find_coordinators<T>(
        &self,
        groups: &[Arc<str>],
        due: &[usize],
        found: &mut [Result<T, CoordinatorError>],
        deadline: &Deadline,
    ) -> Vec<(Arc<Broker>, Vec<usize>)> {
        let mut by_coordinator: HashMap<Address, (Arc<Broker>, Vec<usize>)> = HashMap::new();
        let mut add = |broker: Arc<Broker>, position: usize| {
            let address = broker.address().clone();
            let (_, positions) = by_coordinator
                .entry(address)
                .or_insert_with(|| (broker, Vec::new()));
            positions.push(position);
        };
        let mut unknown = Vec::new();
        {
            let mut routes = self.routes();
            for position in due {
                match routes.coordinator(&groups[*position], &self.connector) {
                    Some(broker) => add(broker, *position),
                    None => unknown.push(*position),
                }
            }
        }
        for chunk in unknown.chunks(GROUPS_PER_LOOKUP) {
            let keys = chunk.iter().map(|position| text(&groups[*position]));
            let request = FindCoordinatorRequest::default().with_coordinator_keys(keys.collect());
            let response = match self.send_to_any(&request, deadline).await {
                Ok(response) => response,
                Err(why) => {
                    for position in chunk {
                        found[*position] = Err(CoordinatorError::Retriable(why.clone()));
                    }
                    continue;
                }
            };
            let responses: HashMap<_, _> = response
                .coordinators
                .iter()
                .map(|coordinator| (coordinator.key.as_str(), coordinator))
                .collect();
            for position in chunk {
                let group = &groups[*position];
                let Some(coordinator) = responses.get(&**group) else {
                    found[*position] = Err(CoordinatorError::group_omitted());
                    continue;
                };
                if let Some(error) = CoordinatorError::from_code(coordinator.error_code) {
                    found[*position] = Err(error);
                    continue;
                }
                let address = Address {
                    host: coordinator.host.to_string(),
                    port: u16::try_from(coordinator.port).unwrap_or(0),
                };
                add(self.broker_at(&address), *position);
                self.routes().record_coordinator(group, address);
            }
        }
        by_coordinator.into_values().collect()
    }
}

async fn send<Q: Request>(
    broker: Arc<Broker>,
    positions: Vec<usize>,
    request: Q,
    deadline: Deadline,
) -> CoordinatorResponse<Q::Response> {
    let response = broker.send(&request, &deadline).await;
    (broker, positions, response)
}

/// Splits groups into requests whose expected responses are within the limit.
fn batches(positions: &[usize], response_bytes: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for position in positions {
        let own = response_bytes(*position);
        match batches.last_mut() {
            Some(batch)
                if batch.len() < MAX_GROUPS_PER_REQUEST && bytes + own <= EXPECTED_BYTES_PER_RESPONSE =>
            {
                batch.push(*position);
                bytes += own;
            }
            _ => {
                batches.push(vec![*position]);
                bytes = own;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_large_topics_are_split_so_that_responses_stay_within_the_limit() {
        let positions: Vec<usize> = (0..250).collect();
        let check = |group_bytes: usize, batch_sizes: &[usize]| {
            let batches = batches(&positions, |_| group_bytes);
            let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert!(
                sizes
                    .iter()
                    .all(|groups| *groups == 1 || groups * group_bytes < MAX_RESPONSE_BYTES)
            );
            assert_eq!(sizes[..batch_sizes.len()], *batch_sizes);
            assert_eq!(batches.concat(), positions);
        };
        check(100, &[100, 100, 50]);
        // Topics of 1,000 partitions, and one of 100,000 in each group.
        check(128_000, &[16, 16]);
        check(12_800_000, &[1, 1]);
    }
}
