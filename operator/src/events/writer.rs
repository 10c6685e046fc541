//! Writes events one after the other, at a rate that does not load the API server.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{EventText, EventType};
use crate::lease::{api_error_text, fenced};
use crate::metrics::Metrics;
use crate::names::FIELD_MANAGER;

/// Capacity of the queue: one event for each role of five hundred pools, if Kafka becomes unreachable for all of them.
const QUEUE_CAPACITY: usize = 1_000;

/// Twenty events a second: events of a thousand roles are written within a minute.
const WRITE_INTERVAL: Duration = Duration::from_millis(50);

/// Timeout of one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest prefix of an event's name; the API server adds six characters, and its limit is 253.
const MAX_NAME_PREFIX: usize = 200;

/// Queues events to be written; cheap to clone.
#[derive(Debug, Clone)]
pub struct EventWriter {
    queue: mpsc::Sender<(ObjectReference, EventText)>,
    metrics: Metrics,
}

/// Writes queued events.
pub struct EventTask {
    queue: mpsc::Receiver<(ObjectReference, EventText)>,
    client: Client,
    instance: String,
    metrics: Metrics,
}

/// The queue of events and the task that writes them. `client` must be fenced; `instance` is this replica's identity.
pub fn event_writer(
    client: Client,
    instance: impl Into<String>,
    metrics: &Metrics,
) -> (EventWriter, EventTask) {
    let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
    let writer = EventWriter {
        queue: sender,
        metrics: metrics.clone(),
    };
    let task = EventTask {
        queue,
        client,
        instance: instance.into(),
        metrics: metrics.clone(),
    };
    (writer, task)
}

impl EventWriter {
    /// Queues an event about a pool. If the queue is full, the event is counted and dropped: the status has the same
    /// text.
    pub fn queue(&self, pool: ObjectReference, text: EventText) {
        if self.queue.try_send((pool, text)).is_err() {
            self.metrics.event_dropped();
        }
    }
}

impl EventTask {
    /// Writes until all [`EventWriter`]s are dropped.
    pub async fn run(mut self) {
        let mut next = Instant::now();
        let mut last_failure = None;
        while let Some((about, text)) = self.queue.recv().await {
            sleep_until(next).await;
            next = Instant::now() + WRITE_INTERVAL;
            let failed = self.write(&about, &text).await.err();
            if failed.is_some() {
                self.metrics.event_dropped();
            }
            // A repeated failure is logged once.
            if failed.is_some() && failed != last_failure {
                tracing::warn!(error = failed.as_deref(), "Could not write an event");
            }
            last_failure = failed;
        }
    }

    async fn write(&self, about: &ObjectReference, text: &EventText) -> Result<(), String> {
        let event = event(about, text, &self.instance, Timestamp::now());
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match timeout(WRITE_TIMEOUT, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                // A replica that no longer leads drops its events.
                match fenced(&error) {
                    Some(_) => Ok(()),
                    None => Err(api_error_text(&error)),
                }
            }
            Err(_) => Err(format!("no response within {} s", WRITE_TIMEOUT.as_secs())),
        }
    }
}

fn event(about: &ObjectReference, text: &EventText, instance: &str, wall: Timestamp) -> Event {
    let pool = about.name.as_deref().unwrap_or(FIELD_MANAGER);
    let pool: String = pool.chars().take(MAX_NAME_PREFIX).collect();
    Event {
        metadata: ObjectMeta {
            // Not a dot, as in kube's recorder: the API server refuses one at the end of a prefix.
            generate_name: Some(format!("{pool}-")),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(wall)),
        type_: Some(
            match text.type_ {
                EventType::Normal => "Normal",
                EventType::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(text.reason.to_owned()),
        action: Some(text.action.to_owned()),
        note: Some(text.note.clone()),
        regarding: Some(about.clone()),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        // At most 128 bytes, and names are ASCII.
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::{BoxError, service_fn};

    use kube::Resource as _;

    use super::*;
    use crate::crd::SeparationPool;

    fn pool() -> SeparationPool {
        let spec = json!({"kafka": {"bootstrapServers": "k:1"},
                          "storage": {"stems": {"bucket": "bucket"}, "staging": {"s3": {}}}});
        let metadata = json!({"name": "vocals", "namespace": "media", "uid": "u-1"});
        let pool = json!({"apiVersion": "separation.dev/v1beta1", "kind": "SeparationPool",
                          "metadata": metadata, "spec": spec});
        serde_json::from_value(pool).expect("a pool")
    }

    fn text(note: &str) -> EventText {
        EventText::new(EventType::Warning, "Conflict", "Decide", note.to_owned())
    }

    /// Paths and events.
    type Sent = Arc<Mutex<Vec<(String, Value)>>>;

    /// A client that records each request after `delay`.
    fn client(delay: Duration) -> (Client, Sent) {
        let sent = Sent::default();
        let recorded = Arc::clone(&sent);
        let service = service_fn(move |request: Request<Body>| {
            let recorded = Arc::clone(&recorded);
            async move {
                tokio::time::sleep(delay).await;
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let event: Value = serde_json::from_slice(&body)?;
                recorded.lock().expect("locked").push((path, event));
                Ok::<_, BoxError>(Response::new(Body::from(body)))
            }
        });
        (Client::new(service, "default"), sent)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_about_its_pool_and_in_its_namespace() {
        let (client, sent) = client(Duration::ZERO);
        let (writer, task) = event_writer(client, "operator-1_ab", &Metrics::new());
        writer.queue(pool().object_ref(&()), text("another pool"));
        drop(writer);
        task.run().await;
        let sent = sent.lock().expect("locked");
        let (path, event) = &sent[0];
        assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/media/events");
        let expected = [
            ("/metadata/generateName", "vocals-"),
            ("/type", "Warning"),
            ("/reason", "Conflict"),
            ("/action", "Decide"),
            ("/note", "another pool"),
            ("/regarding/kind", "SeparationPool"),
            ("/regarding/uid", "u-1"),
            ("/reportingController", "separation-operator"),
            ("/reportingInstance", "operator-1_ab"),
        ];
        for (pointer, value) in expected {
            assert_eq!(event.pointer(pointer), Some(&json!(value)), "{pointer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_events_are_written_at_a_limited_rate_and_the_excess_is_dropped() {
        let (client, sent) = client(Duration::ZERO);
        let metrics = Metrics::new();
        let (writer, task) = event_writer(client, "operator-1_ab", &metrics);
        for number in 0..QUEUE_CAPACITY + 7 {
            writer.queue(pool().object_ref(&()), text(&number.to_string()));
        }
        drop(writer);
        let start = Instant::now();
        task.run().await;
        assert_eq!(sent.lock().expect("locked").len(), QUEUE_CAPACITY);
        let took = start.elapsed();
        assert!((49..=51).contains(&took.as_secs()), "{took:?}");
        let text = String::from_utf8(metrics.text()).expect("text");
        assert!(
            text.contains("separation_operator_events_dropped_total 7"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_the_api_server_refuses_counts_as_dropped() {
        let service = service_fn(|_: Request<Body>| async {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            Ok::<_, BoxError>(response)
        });
        let metrics = Metrics::new();
        let client = Client::new(service, "default");
        let (writer, task) = event_writer(client, "operator-1_ab", &metrics);
        writer.queue(pool().object_ref(&()), text("one"));
        drop(writer);
        task.run().await;
        let text = String::from_utf8(metrics.text()).expect("text");
        assert!(
            text.contains("separation_operator_events_dropped_total 1"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unresponsive_api_server_delays_each_event_by_the_write_timeout() {
        let (client, _) = client(Duration::from_secs(3_600));
        let (writer, task) = event_writer(client, "operator-1_ab", &Metrics::new());
        writer.queue(pool().object_ref(&()), text("one"));
        writer.queue(pool().object_ref(&()), text("two"));
        drop(writer);
        timeout(WRITE_TIMEOUT * 3, task.run()).await.expect("it gives up");
    }
}
