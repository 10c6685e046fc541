//! A cluster, and the questions that any of its brokers can answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use super::broker::{Address, Broker, Connector};
use super::protocol::{Question, text};
use super::routes::Routes;
use super::{ClusterSettings, Deadline, Topic, Unread};

/// Topics in one question: their answer must fit, however many partitions they may have.
pub(super) const TOPICS_PER_QUESTION: usize = 8;

/// One cluster, with one login. Share it: it makes one connection per broker, and one more until it knows them.
pub struct Cluster {
    pub(super) connector: Arc<Connector>,
    bootstrap: Vec<Address>,
    routes: Mutex<Routes>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Checks settings; no connection is made before the first question.
    ///
    /// # Errors
    /// When an address, a certificate or a key is none.
    pub fn new(settings: &ClusterSettings) -> Result<Self, Unread> {
        let bootstrap: Result<Vec<_>, _> = settings.bootstrap_servers.split(',').map(Address::of).collect();
        Ok(Self {
            connector: Arc::new(Connector::new(settings)?),
            bootstrap: bootstrap?,
            routes: Mutex::default(),
        })
    }

    /// Questions that were sent to brokers so far.
    pub fn questions(&self) -> u64 {
        self.connector.asked()
    }

    /// Connections that are open now.
    pub fn connections_open(&self) -> u64 {
        self.routes().connected()
    }

    /// Connections that were opened so far, or tried.
    pub fn connections_opened(&self) -> u64 {
        self.connector.opened()
    }

    /// Describes topics. Each is there by its name, described or not.
    pub async fn topics(
        &self,
        names: &[Arc<str>],
        deadline: &Deadline,
    ) -> BTreeMap<Arc<str>, Result<Topic, Unread>> {
        let mut found = BTreeMap::new();
        for chunk in names.chunks(TOPICS_PER_QUESTION) {
            let topics = chunk.iter().map(|name| {
                MetadataRequestTopic::default()
                    .with_name(Some(kafka_protocol::messages::TopicName(text(name))))
            });
            let question = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false);
            match self.ask_any(&question, deadline).await {
                Ok(answer) => {
                    found.extend(self.routes().learn(&answer));
                    for name in chunk {
                        let missing = || Err(Unread::new("the broker said nothing about it"));
                        found.entry(Arc::clone(name)).or_insert_with(missing);
                    }
                }
                Err(why) => {
                    found.extend(chunk.iter().map(|name| (Arc::clone(name), Err(why.clone()))));
                }
            }
        }
        found
    }

    /// Puts a question to one broker after the other until one answers.
    pub(super) async fn ask_any<Q: Question>(
        &self,
        question: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Answer, Unread> {
        let brokers = self.routes().any(&self.bootstrap, &self.connector);
        let mut why = None;
        for broker in brokers {
            if deadline.left().is_zero() {
                break;
            }
            match broker.ask(question, deadline).await {
                Ok(answer) => return Ok(answer),
                // The first is the one that was most likely to answer.
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| Unread::unreachable("no time was left to ask")))
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn at(&self, address: &Address) -> Arc<Broker> {
        self.routes().at(address, &self.connector)
    }
}
