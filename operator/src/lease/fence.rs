//! Passes writes to the API server only while this replica leads.
//!
//! It is the outermost layer of the client, and checks the deadline each time a request's future is polled: when the
//! request starts, after a connection was opened, after credentials were refreshed, before a retry. A process that was
//! frozen with a request in flight therefore abandons it when it resumes. `poll_ready` must never fail because of the
//! lease: the client could not be used again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::client::Body;
use tokio::time::{Instant, timeout_at};
use tower::layer::layer_fn;
use tower::{BoxError, Layer, Service};

use super::{Leadership, Term};

/// Why a write did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The write was not sent.
    #[error("not sent: this replica does not lead")]
    NotSent,
    /// The lease expired while the write was in flight: whether it was applied is unknown.
    #[error("abandoned in flight: this replica no longer leads")]
    Abandoned,
}

/// The fence's error, if the fence refused or abandoned the request.
pub fn fenced(error: &kube::Error) -> Option<Fenced> {
    match error {
        kube::Error::Service(error) => error.downcast_ref::<Fenced>().copied(),
        _ => None,
    }
}

/// Passes writes only while this replica leads.
#[derive(Debug, Clone)]
pub struct Fence<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Fence<S> {
    /// A layer that puts the fence in front of a service.
    pub fn layer(leadership: Leadership) -> impl Layer<S, Service = Self> {
        layer_fn(move |inner| Self {
            inner,
            leadership: leadership.clone(),
        })
    }
}

impl<S, B> Service<Request<Body>> for Fence<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if reads(request.method()) {
            let response = self.inner.call(request);
            return Box::pin(async { response.await.map_err(Into::into) });
        }
        let Some(term) = self.leadership.term(Instant::now().into_std()) else {
            return Box::pin(std::future::ready(Err(Fenced::NotSent.into())));
        };
        Box::pin(guarded(self.inner.call(request), self.leadership.clone(), term))
    }
}

/// Whether a method is a read. Every other one counts as a write, even one that changes nothing, such as an access
/// review.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

async fn guarded<T, E: Into<BoxError>>(
    request: impl Future<Output = Result<T, E>>,
    leadership: Leadership,
    term: Term,
) -> Result<T, BoxError> {
    let mut request = pin!(request);
    let deadline = || leadership.until(term, Instant::now().into_std());
    while let Some(until) = deadline() {
        let step = poll_fn(|context| match deadline() {
            Some(_) => request.as_mut().poll(context).map(Some),
            None => Poll::Ready(None),
        });
        match timeout_at(until.into(), step).await {
            Ok(Some(response)) => return response.map_err(Into::into),
            Ok(None) => break,
            // The lease was renewed, or has expired: the loop's condition checks.
            Err(_) => {}
        }
    }
    Err(Fenced::Abandoned.into())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
    use kube::client::ClientBuilder;
    use tokio::sync::{Notify, watch};
    use tokio::time::advance;
    use tower::service_fn;

    use super::*;
    use crate::lease::{ElectionState, Held};

    /// A server of pods that responds on a signal.
    #[derive(Clone, Default)]
    struct Pods {
        sent: Arc<Mutex<Vec<Method>>>,
        /// Signals that the connection is open and the request may be sent.
        connected: Arc<Notify>,
        respond: Arc<Notify>,
    }

    impl Pods {
        fn client(&self, leadership: Leadership) -> Api<Pod> {
            let pods = self.clone();
            let service = service_fn(move |request: Request<Body>| {
                let pods = pods.clone();
                async move {
                    pods.connected.notified().await;
                    pods.sent.lock().expect("locked").push(request.method().clone());
                    pods.respond.notified().await;
                    let pod = r#"{"metadata": {"name": "p"}, "spec": {"containers": []}}"#;
                    Ok::<_, BoxError>(Response::new(Body::from(pod.as_bytes().to_vec())))
                }
            });
            let client = ClientBuilder::new(service, "default")
                .with_layer(&Fence::layer(leadership))
                .build();
            Api::default_namespaced(client)
        }

        fn let_through(&self) {
            self.connected.notify_one();
            self.respond.notify_one();
        }

        fn sent(&self) -> Vec<Method> {
            self.sent.lock().expect("locked").clone()
        }
    }

    fn state(term: u64, lasts: Duration) -> ElectionState {
        ElectionState {
            leader: None,
            held: Some(Held {
                term: Term(term),
                until: (Instant::now() + lasts).into_std(),
            }),
        }
    }

    fn leading() -> (watch::Sender<ElectionState>, Leadership) {
        let (sender, state) = watch::channel(state(1, Duration::from_secs(10)));
        (sender, Leadership::new(state))
    }

    async fn patch(pods: &Api<Pod>) -> Result<Pod, kube::Error> {
        let empty = Patch::Merge(serde_json::json!({}));
        pods.patch("p", &PatchParams::default(), &empty).await
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_lease_reads_pass_and_writes_do_not() {
        let (sender, leadership) = leading();
        sender.send_replace(ElectionState::default());
        let server = Pods::default();
        let pods = server.client(leadership);
        server.let_through();
        pods.get("p").await.expect("reads pass");
        let pod = Pod::default();
        let refused = [
            patch(&pods).await.err(),
            pods.create(&PostParams::default(), &pod).await.err(),
            pods.replace("p", &PostParams::default(), &pod).await.err(),
            pods.delete("p", &DeleteParams::default()).await.err(),
        ];
        for error in refused {
            assert_eq!(fenced(&error.expect("an error")), Some(Fenced::NotSent));
        }
        // The client can still be used.
        server.let_through();
        pods.get("p").await.expect("reads pass");
        assert_eq!(server.sent(), [Method::GET, Method::GET]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_the_lease_writes_pass_until_its_deadline() {
        let (_sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        server.let_through();
        patch(&pods).await.expect("writes pass");
        advance(Duration::from_secs(10)).await;
        server.let_through();
        let error = patch(&pods).await.expect_err("too late");
        assert_eq!(fenced(&error), Some(Fenced::NotSent));
        assert_eq!(server.sent(), [Method::PATCH]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_not_sent_after_a_freeze_past_the_deadline() {
        let (_sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let frozen = async {
            tokio::task::yield_now().await;
            // Both happen before another task runs, as when a frozen process resumes.
            server.let_through();
            advance(Duration::from_secs(60)).await;
        };
        let (written, ()) = tokio::join!(patch(&pods), frozen);
        assert_eq!(fenced(&written.expect_err("too late")), Some(Fenced::Abandoned));
        assert!(server.sent().is_empty(), "{:?}", server.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_continues_while_the_lease_is_renewed() {
        let (sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let renewals = async {
            for _ in 0..5 {
                advance(Duration::from_secs(5)).await;
                sender.send_replace(state(1, Duration::from_secs(10)));
            }
            server.let_through();
        };
        let (written, ()) = tokio::join!(patch(&pods), renewals);
        written.expect("it passes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_one_term_is_refused_in_another() {
        let (sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let another = async {
            tokio::task::yield_now().await;
            sender.send_replace(state(2, Duration::from_secs(10)));
            server.let_through();
        };
        let (written, ()) = tokio::join!(patch(&pods), another);
        assert_eq!(
            fenced(&written.expect_err("of another term")),
            Some(Fenced::Abandoned)
        );
        assert!(server.sent().is_empty(), "{:?}", server.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_in_flight_is_abandoned_at_the_deadline() {
        let (_sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let start = Instant::now();
        let error = patch(&pods).await.expect_err("no answer");
        assert_eq!(fenced(&error), Some(Fenced::Abandoned));
        assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    }
}
