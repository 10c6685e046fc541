//! Writes events, one after the other, at a pace that an API server does not feel.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{EventText, Weight};
use crate::lease::{api_error_text, fenced};
use crate::metrics::Metrics;
use crate::names::FIELD_MANAGER;

/// Events that may wait: one for each role of five hundred pools, when Kafka goes away under all of them.
const MOST_WAITING: usize = 1_000;

/// Twenty a second: those of a thousand roles are written within a minute.
const PACE: Duration = Duration::from_millis(50);

/// How long one may take.
const LONGEST_WRITE: Duration = Duration::from_secs(5);

/// The longest beginning of an event's name; the API server adds six characters, and 253 is its limit.
const LONGEST_NAME: usize = 200;

/// Takes events to be written; cheap to clone.
#[derive(Debug, Clone)]
pub struct EventWriter {
    queue: mpsc::Sender<(ObjectReference, EventText)>,
    metrics: Metrics,
}

/// Writes events that were taken.
pub struct EventTask {
    queue: mpsc::Receiver<(ObjectReference, EventText)>,
    client: Client,
    instance: String,
    metrics: Metrics,
}

/// What takes events, and the task that writes them. `client` is a fenced one, `instance` this replica's identity.
pub fn event_writer(
    client: Client,
    instance: impl Into<String>,
    metrics: &Metrics,
) -> (EventWriter, EventTask) {
    let (sender, queue) = mpsc::channel(MOST_WAITING);
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
    /// Takes an event about a pool. Where too many wait, it is counted and dropped: status says the same.
    pub fn say(&self, pool: ObjectReference, text: EventText) {
        if self.queue.try_send((pool, text)).is_err() {
            self.metrics.event_dropped();
        }
    }
}

impl EventTask {
    /// Writes until nobody is left who could say anything.
    pub async fn run(mut self) {
        let mut next = Instant::now();
        let mut trouble = None;
        while let Some((about, text)) = self.queue.recv().await {
            sleep_until(next).await;
            next = Instant::now() + PACE;
            let failed = self.write(&about, &text).await.err();
            if failed.is_some() {
                self.metrics.event_dropped();
            }
            // The same failure again and again is logged once.
            if failed.is_some() && failed != trouble {
                tracing::warn!(error = failed.as_deref(), "Could not write an event");
            }
            trouble = failed;
        }
    }

    async fn write(&self, about: &ObjectReference, text: &EventText) -> Result<(), String> {
        let event = event(about, text, &self.instance, Timestamp::now());
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match timeout(LONGEST_WRITE, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                // A replica that leads no more has nothing to say.
                match fenced(&error) {
                    Some(_) => Ok(()),
                    None => Err(api_error_text(&error)),
                }
            }
            Err(_) => Err(format!("no answer within {} s", LONGEST_WRITE.as_secs())),
        }
    }
}

fn event(about: &ObjectReference, text: &EventText, instance: &str, wall: Timestamp) -> Event {
    let pool = about.name.as_deref().unwrap_or(FIELD_MANAGER);
    let pool: String = pool.chars().take(LONGEST_NAME).collect();
    Event {
        metadata: ObjectMeta {
            // Not a dot, as in kube's own: the API server refuses it at the end of a prefix.
            generate_name: Some(format!("{pool}-")),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(wall)),
        type_: Some(
            match text.weight {
                Weight::Normal => "Normal",
                Weight::Warning => "Warning",
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
                          "storage": {"s3": {"bucket": "b"}, "work": {"s3Prefix": "w/"}}});
        let metadata = json!({"name": "vocals", "namespace": "media", "uid": "u-1"});
        let pool = json!({"apiVersion": "separation.dev/v1alpha1", "kind": "SeparationPool",
                          "metadata": metadata, "spec": spec});
        serde_json::from_value(pool).expect("a pool")
    }

    fn text(note: &str) -> EventText {
        EventText::new(Weight::Warning, "Conflict", "Decide", note.to_owned())
    }

    /// Paths and events.
    type Sent = Arc<Mutex<Vec<(String, Value)>>>;

    /// A client that keeps what it is sent, after so long.
    fn client(takes: Duration) -> (Client, Sent) {
        let sent = Sent::default();
        let kept = Arc::clone(&sent);
        let service = service_fn(move |request: Request<Body>| {
            let kept = Arc::clone(&kept);
            async move {
                tokio::time::sleep(takes).await;
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let event: Value = serde_json::from_slice(&body)?;
                kept.lock().expect("locked").push((path, event));
                Ok::<_, BoxError>(Response::new(Body::from(body)))
            }
        });
        (Client::new(service, "default"), sent)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_about_its_pool_and_in_its_namespace() {
        let (client, sent) = client(Duration::ZERO);
        let (writer, task) = event_writer(client, "operator-1_ab", &Metrics::new());
        writer.say(pool().object_ref(&()), text("somebody else"));
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
            ("/note", "somebody else"),
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
    async fn a_flood_is_written_at_its_pace_and_what_is_too_much_is_dropped() {
        let (client, sent) = client(Duration::ZERO);
        let metrics = Metrics::new();
        let (writer, task) = event_writer(client, "operator-1_ab", &metrics);
        for number in 0..MOST_WAITING + 7 {
            writer.say(pool().object_ref(&()), text(&number.to_string()));
        }
        drop(writer);
        let start = Instant::now();
        task.run().await;
        assert_eq!(sent.lock().expect("locked").len(), MOST_WAITING);
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
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = http::StatusCode::FORBIDDEN;
            Ok::<_, BoxError>(answer)
        });
        let metrics = Metrics::new();
        let client = Client::new(service, "default");
        let (writer, task) = event_writer(client, "operator-1_ab", &metrics);
        writer.say(pool().object_ref(&()), text("one"));
        drop(writer);
        task.run().await;
        let text = String::from_utf8(metrics.text()).expect("text");
        assert!(
            text.contains("separation_operator_events_dropped_total 1"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_holds_up_one_event_for_a_moment() {
        let (client, _) = client(Duration::from_secs(3_600));
        let (writer, task) = event_writer(client, "operator-1_ab", &Metrics::new());
        writer.say(pool().object_ref(&()), text("one"));
        writer.say(pool().object_ref(&()), text("two"));
        drop(writer);
        timeout(LONGEST_WRITE * 3, task.run()).await.expect("it gives up");
    }
}
