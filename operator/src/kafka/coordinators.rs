//! Questions about groups, each asked of the broker that coordinates it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FindCoordinatorRequest;

use super::broker::{Address, Broker};
use super::protocol::{Question, text};
use super::{Cluster, Deadline, Unread};

/// Groups in one question. A group of 100 members is described in some 50 kB, and an answer may have 16 MiB.
const GROUPS_PER_QUESTION: usize = 100;

/// Groups whose coordinators are looked for in one question.
const KEYS_PER_QUESTION: usize = 500;

/// How often a group is asked about in one reading, and the wait before each time.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::ZERO, Duration::from_millis(100)];

/// Why a question about a group has no answer.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// Another coordinator may know, or this one a moment later.
    AskAgain(Unread),
    /// Nothing will change it.
    Final(Unread),
}

impl Refusal {
    /// What an error code means; none where it is no error.
    pub(super) fn of(code: i16) -> Option<Self> {
        let error = ResponseError::try_from_code(code)?;
        let why = Unread::said(code);
        Some(match error {
            ResponseError::NotCoordinator
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::CoordinatorLoadInProgress => Self::AskAgain(why),
            _ => Self::Final(why),
        })
    }

    pub(super) fn why(self) -> Unread {
        match self {
            Self::AskAgain(why) | Self::Final(why) => why,
        }
    }
}

type Asked<A> = (Arc<Broker>, Vec<usize>, Result<A, Unread>);

impl Cluster {
    /// Asks about groups, many at once, each of its coordinator. `question` gets the positions of some groups; `read` gives
    /// the answer for one of them.
    pub(super) async fn ask_coordinators<Q, T>(
        &self,
        groups: &[Arc<str>],
        deadline: &Deadline,
        question: impl Fn(&[usize]) -> Q + Send + Sync,
        read: impl Fn(usize, &Q::Answer) -> Result<T, Refusal> + Send + Sync,
    ) -> Vec<Result<T, Refusal>>
    where
        Q: Question + Send,
        T: Send,
    {
        let unasked = || Err(Refusal::AskAgain(Unread::unreachable("no time was left to ask")));
        let mut found: Vec<_> = groups.iter().map(|_| unasked()).collect();
        let mut due: Vec<usize> = (0..groups.len()).collect();
        // Who did not answer is not asked a second time; a group may have somebody else by then.
        let mut absent: HashMap<usize, Address> = HashMap::new();
        for wait in TRIES {
            if due.is_empty() || deadline.left() <= wait {
                break;
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let by_coordinator = self.find(groups, &due, &mut found, deadline).await;
            let mut asked = Vec::new();
            for (broker, positions) in by_coordinator {
                let positions: Vec<_> = positions
                    .into_iter()
                    .filter(|position| absent.get(position) != Some(broker.address()))
                    .collect();
                for chunk in positions.chunks(GROUPS_PER_QUESTION) {
                    asked.push(ask(
                        Arc::clone(&broker),
                        chunk.to_vec(),
                        question(chunk),
                        *deadline,
                    ));
                }
            }
            for (broker, positions, answer) in join_all(asked).await {
                for position in positions {
                    found[position] = match &answer {
                        Ok(answer) => read(position, answer),
                        Err(why) => {
                            absent.insert(position, broker.address().clone());
                            Err(Refusal::AskAgain(why.clone()))
                        }
                    };
                }
            }
            due.retain(|position| matches!(found[*position], Err(Refusal::AskAgain(_))));
            let mut routes = self.routes();
            for position in &due {
                routes.forget_coordinator(&groups[*position]);
            }
        }
        found
    }

    /// Who coordinates the groups at these positions. Where nobody does, `found` says why.
    async fn find<T>(
        &self,
        groups: &[Arc<str>],
        due: &[usize],
        found: &mut [Result<T, Refusal>],
        deadline: &Deadline,
    ) -> Vec<(Arc<Broker>, Vec<usize>)> {
        let mut by_coordinator: HashMap<Address, (Arc<Broker>, Vec<usize>)> = HashMap::new();
        let mut put = |broker: Arc<Broker>, position: usize| {
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
                    Some(broker) => put(broker, *position),
                    None => unknown.push(*position),
                }
            }
        }
        for chunk in unknown.chunks(KEYS_PER_QUESTION) {
            let keys = chunk.iter().map(|position| text(&groups[*position]));
            let question = FindCoordinatorRequest::default().with_coordinator_keys(keys.collect());
            let answer = match self.ask_any(&question, deadline).await {
                Ok(answer) => answer,
                Err(why) => {
                    for position in chunk {
                        found[*position] = Err(Refusal::AskAgain(why.clone()));
                    }
                    continue;
                }
            };
            let answers: HashMap<_, _> = answer
                .coordinators
                .iter()
                .map(|coordinator| (coordinator.key.as_str(), coordinator))
                .collect();
            for position in chunk {
                let group = &groups[*position];
                let Some(coordinator) = answers.get(&**group) else {
                    found[*position] = Err(Refusal::Final(Unread::new(
                        "the broker said nothing about the group",
                    )));
                    continue;
                };
                if let Some(refusal) = Refusal::of(coordinator.error_code) {
                    found[*position] = Err(refusal);
                    continue;
                }
                let address = Address {
                    host: coordinator.host.to_string(),
                    port: u16::try_from(coordinator.port).unwrap_or(0),
                };
                put(self.at(&address), *position);
                self.routes().learn_coordinator(group, address);
            }
        }
        by_coordinator.into_values().collect()
    }
}

async fn ask<Q: Question>(
    broker: Arc<Broker>,
    positions: Vec<usize>,
    question: Q,
    deadline: Deadline,
) -> Asked<Q::Answer> {
    let answer = broker.ask(&question, &deadline).await;
    (broker, positions, answer)
}
