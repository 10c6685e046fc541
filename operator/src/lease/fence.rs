//! Lets writes through to the API server only while we lead.
//!
//! It stands before everything else in the client, and looks at the clock each time something is about to happen to a
//! request: when it comes, after a connection was made, after a login was renewed, before it is tried again. A process
//! that was stopped with a request under way therefore gives it up when it goes on. What it must never do is to fail as
//! a whole: the client could not be used again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use kube::client::Body;
use tokio::time::{Instant, timeout_at};
use tower::layer::layer_fn;
use tower::{BoxError, Layer, Service};

use super::{Leadership, Term};

/// A write that did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// It was not sent.
    #[error("not sent: this replica does not lead")]
    NotSent,
    /// The lease ran out while it was under way: whether it was done is not known.
    #[error("given up while under way: this replica leads no more")]
    GivenUp,
}

/// Whether the fence stood in the way, and when.
pub fn fenced(error: &kube::Error) -> Option<Fenced> {
    match error {
        kube::Error::Service(error) => error.downcast_ref::<Fenced>().copied(),
        _ => None,
    }
}

/// Lets writes through only while we lead.
#[derive(Debug, Clone)]
pub struct Fence<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Fence<S> {
    /// A fence before a service that is open while we lead.
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
            let answer = self.inner.call(request);
            return Box::pin(async { answer.await.map_err(Into::into) });
        }
        let Some(term) = self.leadership.term(Instant::now().into_std()) else {
            return Box::pin(std::future::ready(Err(Fenced::NotSent.into())));
        };
        Box::pin(guarded(self.inner.call(request), self.leadership.clone(), term))
    }
}

/// What changes nothing. Everything else is a write, also where it only asks, as reviews of access do.
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
            Ok(Some(answer)) => return answer.map_err(Into::into),
            Ok(None) => break,
            // Renewed in the meantime, or over.
            Err(_) => {}
        }
    }
    Err(Fenced::GivenUp.into())
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
    use crate::lease::{Held, Standing};

    /// A server of pods that answers when it is told to.
    #[derive(Clone, Default)]
    struct Pods {
        sent: Arc<Mutex<Vec<Method>>>,
        /// A connection is made, then the request is sent.
        connected: Arc<Notify>,
        answered: Arc<Notify>,
    }

    impl Pods {
        fn client(&self, leadership: Leadership) -> Api<Pod> {
            let pods = self.clone();
            let service = service_fn(move |request: Request<Body>| {
                let pods = pods.clone();
                async move {
                    pods.connected.notified().await;
                    pods.sent.lock().expect("locked").push(request.method().clone());
                    pods.answered.notified().await;
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
            self.answered.notify_one();
        }

        fn sent(&self) -> Vec<Method> {
            self.sent.lock().expect("locked").clone()
        }
    }

    fn standing(term: u64, lasts: Duration) -> Standing {
        Standing {
            leader: None,
            held: Some(Held {
                term: Term(term),
                until: (Instant::now() + lasts).into_std(),
            }),
        }
    }

    fn leading() -> (watch::Sender<Standing>, Leadership) {
        let (sender, standing) = watch::channel(standing(1, Duration::from_secs(10)));
        (sender, Leadership::new(standing))
    }

    async fn patch(pods: &Api<Pod>) -> Result<Pod, kube::Error> {
        let empty = Patch::Merge(serde_json::json!({}));
        pods.patch("p", &PatchParams::default(), &empty).await
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_lease_reads_pass_and_writes_do_not() {
        let (sender, leadership) = leading();
        sender.send_replace(Standing::default());
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
        // The client works on.
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
    async fn a_write_that_a_freeze_caught_before_it_was_sent_is_not_sent() {
        let (_sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let frozen = async {
            tokio::task::yield_now().await;
            // Both happen before anybody runs again, as when a stopped process goes on.
            server.let_through();
            advance(Duration::from_secs(60)).await;
        };
        let (written, ()) = tokio::join!(patch(&pods), frozen);
        assert_eq!(fenced(&written.expect_err("too late")), Some(Fenced::GivenUp));
        assert!(server.sent().is_empty(), "{:?}", server.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_goes_on_while_the_lease_is_renewed() {
        let (sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let renewals = async {
            for _ in 0..5 {
                advance(Duration::from_secs(5)).await;
                sender.send_replace(standing(1, Duration::from_secs(10)));
            }
            server.let_through();
        };
        let (written, ()) = tokio::join!(patch(&pods), renewals);
        written.expect("it passes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_one_term_does_not_pass_in_another() {
        let (sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let another = async {
            tokio::task::yield_now().await;
            sender.send_replace(standing(2, Duration::from_secs(10)));
            server.let_through();
        };
        let (written, ()) = tokio::join!(patch(&pods), another);
        assert_eq!(
            fenced(&written.expect_err("of another term")),
            Some(Fenced::GivenUp)
        );
        assert!(server.sent().is_empty(), "{:?}", server.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_under_way_is_given_up_at_the_deadline() {
        let (_sender, leadership) = leading();
        let server = Pods::default();
        let pods = server.client(leadership);
        let start = Instant::now();
        let error = patch(&pods).await.expect_err("no answer");
        assert_eq!(fenced(&error), Some(Fenced::GivenUp));
        assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    }
}
