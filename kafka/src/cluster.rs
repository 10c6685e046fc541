//! A cluster, and the requests that any of its brokers can answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use crate::address::Address;
use crate::broker::Broker;
use crate::connector::Connector;
use crate::protocol::{Request, text};
use crate::routes::Routes;
use crate::{ClusterSettings, Deadline, ReadError, TokenCache, Topic};

/// Topics in one request: the response must stay within its limit even at the most partitions for each topic.
pub(crate) const TOPICS_PER_REQUEST: usize = 8;

/// One cluster with one set of credentials. Share it: it opens one connection per broker, and one to a bootstrap server
/// until the brokers are known.
pub struct Cluster {
    pub(crate) connector: Arc<Connector>,
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
    /// Checks settings; no connection is opened before the first request.
    ///
    /// # Errors
    /// When an address, a certificate, a private key or a SASL setting is invalid, or tokens come from outside
    /// ([`crate::TokenOrigin::External`]).
    pub fn new(settings: &ClusterSettings) -> Result<Self, ReadError> {
        Self::open(settings, None)
    }

    /// [`new`](Self::new) with tokens of `tokens`, whatever their origin in the settings. Other clients may share the
    /// cache.
    ///
    /// # Errors
    /// When an address, a certificate, a private key or a SASL setting is invalid.
    pub fn with_cache(settings: &ClusterSettings, tokens: TokenCache) -> Result<Self, ReadError> {
        Self::open(settings, Some(tokens))
    }

    fn open(settings: &ClusterSettings, tokens: Option<TokenCache>) -> Result<Self, ReadError> {
        let bootstrap: Result<Vec<_>, _> = settings
            .bootstrap_servers
            .split(',')
            .map(Address::parse)
            .collect();
        Ok(Self {
            connector: Arc::new(Connector::new(settings, tokens)?),
            bootstrap: bootstrap?,
            routes: Mutex::default(),
        })
    }

    /// Requests sent to brokers so far; a request about several groups is one, also if the broker gets one for each.
    pub fn requests_sent(&self) -> u64 {
        self.connector.requests_sent()
    }

    /// Connections open now.
    pub fn connections_open(&self) -> u64 {
        self.routes().connected_count()
    }

    /// Connection attempts so far.
    pub fn connections_opened(&self) -> u64 {
        self.connector.connections_opened()
    }

    /// Describes topics. The map has an entry for each name.
    pub async fn topics(
        &self,
        names: &[Arc<str>],
        deadline: &Deadline,
    ) -> BTreeMap<Arc<str>, Result<Topic, ReadError>> {
        let mut found = BTreeMap::new();
        for chunk in names.chunks(TOPICS_PER_REQUEST) {
            let topics = chunk.iter().map(|name| {
                MetadataRequestTopic::default()
                    .with_name(Some(kafka_protocol::messages::TopicName(text(name))))
            });
            let request = MetadataRequest::default()
                .with_topics(Some(topics.collect()))
                .with_allow_auto_topic_creation(false);
            match self.send_to_any(&request, deadline).await {
                Ok(response) => {
                    found.extend(self.routes().record_metadata(&response));
                    for name in chunk {
                        let missing = || Err(ReadError::malformed("the broker's response omits the topic"));
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

    /// Sends a request to one broker after another until one answers.
    pub(crate) async fn send_to_any<Q: Request>(
        &self,
        request: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Response, ReadError> {
        self.send_until(request, deadline, |_| true).await
    }

    /// The same until one answers with a response that `is_final`; without such a response, returns the last one.
    pub(crate) async fn send_until<Q: Request>(
        &self,
        request: &Q,
        deadline: &Deadline,
        is_final: fn(&Q::Response) -> bool,
    ) -> Result<Q::Response, ReadError> {
        let brokers = self.routes().brokers_in_order(&self.bootstrap, &self.connector);
        let (mut why, mut last) = (None, None);
        for broker in brokers {
            if deadline.remaining().is_zero() {
                break;
            }
            match broker.send(request, deadline).await {
                Ok(response) if is_final(&response) => return Ok(response),
                Ok(response) => last = Some(response),
                // Brokers are tried in order of how likely they answer, so the first error explains most.
                Err(error) => why = why.or(Some(error)),
            }
        }
        last.ok_or_else(|| {
            why.unwrap_or_else(|| ReadError::timed_out("the deadline passed before the request was sent"))
        })
    }

    pub(crate) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broker_at(&self, address: &Address) -> Arc<Broker> {
        self.routes().broker_at(address, &self.connector)
    }
}
