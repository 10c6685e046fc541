//! Counts failed requests to the API server, by verb, resource and kind of failure.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use tower::layer::layer_fn;
use tower::{BoxError, Layer, Service};

use crate::lease::Fenced;
use crate::metrics::Metrics;

/// Resources that the operator requests; others share one label.
const RESOURCES: [&str; 7] = [
    "separationpools",
    "deployments",
    "pods",
    "secrets",
    "events",
    "services",
    "serviceaccounts",
];

/// A service that counts its failures.
#[derive(Debug, Clone)]
pub struct CountFailures<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> CountFailures<S> {
    /// A layer that counts the failures of a service in `metrics`.
    pub fn layer(metrics: &Metrics) -> impl Layer<S, Service = Self> {
        layer_fn(|inner| Self {
            inner,
            metrics: metrics.clone(),
        })
    }
}

impl<S, B> Service<Request<Body>> for CountFailures<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let progress = RequestInProgress::new(&self.metrics, request.method(), request.uri());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into);
            progress.complete(match &response {
                Ok(response) => failure_of(response.status()),
                Err(error) if error.is::<Fenced>() => Some("fenced"),
                Err(_) => Some("network"),
            });
            response
        })
    }
}

/// A request in progress. One that is dropped before its response counts as unanswered.
struct RequestInProgress {
    metrics: Metrics,
    verb: &'static str,
    resource: &'static str,
    /// The class of its failure; none for success.
    failure: Option<&'static str>,
}

impl RequestInProgress {
    fn new(metrics: &Metrics, method: &Method, uri: &Uri) -> Self {
        let (verb, resource) = verb_and_resource(method, uri);
        Self {
            metrics: metrics.clone(),
            verb,
            resource,
            failure: Some("unanswered"),
        }
    }

    fn complete(mut self, failure: Option<&'static str>) {
        self.failure = failure;
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        if let Some(failure) = self.failure {
            self.metrics.api_failed(self.verb, self.resource, failure);
        }
    }
}

/// Verb and resource of a request, from its method and path: `/apis/apps/v1/namespaces/media/deployments/NAME`.
fn verb_and_resource(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let mut path = uri.path().trim_start_matches('/').split('/');
    // The group is missing in paths of the core API.
    let before_resource = if path.next() == Some("api") { 1 } else { 2 };
    let mut path = path.skip(before_resource).peekable();
    if path.next_if_eq(&"namespaces").is_some() {
        path.next();
    }
    let resource = path.next().unwrap_or_default();
    let has_name = path.next().is_some();
    let is_watch = uri.query().is_some_and(|query| query.contains("watch="));
    let verb = match *method {
        Method::POST => "create",
        Method::PATCH => "patch",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ if has_name => "get",
        _ if is_watch => "watch",
        _ => "list",
    };
    let known = RESOURCES.into_iter().find(|known| *known == resource);
    (verb, known.unwrap_or("other"))
}

/// The failure class of a status; none for success.
fn failure_of(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 | 403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        410 => "gone",
        429 => "throttled",
        400..500 => "invalid",
        500.. => "server",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[track_caller]
    fn check(method: &Method, uri: &str, expected: (&str, &str)) {
        assert_eq!(
            verb_and_resource(method, &uri.parse().expect("a URI")),
            expected,
            "{uri}"
        );
    }

    #[test]
    fn verb_and_resource_follow_from_method_and_path() {
        let deployments = "/apis/apps/v1/namespaces/media/deployments";
        check(
            &Method::PATCH,
            &format!("{deployments}/vocals-processor?fieldManager=x"),
            ("patch", "deployments"),
        );
        check(&Method::GET, &format!("{deployments}/v"), ("get", "deployments"));
        check(
            &Method::GET,
            &format!("{deployments}?limit=250"),
            ("list", "deployments"),
        );
        check(
            &Method::GET,
            "/apis/separation.dev/v1beta1/separationpools?watch=true&resourceVersion=5",
            ("watch", "separationpools"),
        );
        check(
            &Method::PATCH,
            "/apis/separation.dev/v1beta1/namespaces/media/separationpools/v/status",
            ("patch", "separationpools"),
        );
        check(
            &Method::GET,
            "/api/v1/namespaces/media/secrets/kafka-user",
            ("get", "secrets"),
        );
        check(&Method::GET, "/api/v1/pods", ("list", "pods"));
        check(
            &Method::DELETE,
            "/api/v1/namespaces/media/serviceaccounts/vocals-api",
            ("delete", "serviceaccounts"),
        );
        check(
            &Method::POST,
            "/apis/events.k8s.io/v1/namespaces/media/events",
            ("create", "events"),
        );
        check(&Method::GET, "/version", ("list", "other"));
    }

    #[tokio::test]
    async fn failed_and_unanswered_requests_are_counted() {
        let metrics = Metrics::new();
        let service = service_fn(|request: Request<Body>| async move {
            let response = |status| {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                Ok::<_, BoxError>(response)
            };
            match request.uri().path().rsplit('/').next() {
                Some("absent") => response(404),
                Some("fenced") => Err(Fenced::NotSent.into()),
                Some("broken") => Err("connection reset".into()),
                Some("silent") => std::future::pending().await,
                _ => response(200),
            }
        });
        let send = async |name: &str| {
            let path = format!("/api/v1/namespaces/media/pods/{name}");
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let counting = CountFailures::layer(&metrics).layer(service);
            let response = counting.oneshot(request);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), response).await;
        };
        for name in ["absent", "fenced", "broken", "silent", "there"] {
            send(name).await;
        }
        let text = String::from_utf8(metrics.text()).expect("text");
        let counts: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("separation_operator_api_errors_total"))
            .collect();
        let expected = ["fenced", "network", "not_found", "unanswered"];
        let expected: Vec<_> = expected
            .iter()
            .map(|class| format!(r#"{{class="{class}",resource="pods",verb="get"}} 1"#))
            .collect();
        assert_eq!(counts, expected);
    }
}
