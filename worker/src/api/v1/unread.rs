//! The part of a request's body that a refusal leaves unread. Browsers and other clients that send the whole body before
//! they read the response see a broken connection instead of the refusal unless that part is read too.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

/// Time limit for reading and dropping the rest of a body: 100 MB at 10 MB/s.
const DISCARD_LIMIT: Duration = Duration::from_secs(10);

/// The body of a request, shared with its reader.
pub(super) struct UnreadBody {
    body: Arc<Mutex<BodyDataStream>>,
    /// Whether the client waits for permission before it sends the body; then nothing is on its way.
    is_expected: bool,
}

/// The same request, and its body for [`UnreadBody::discard`].
pub(super) fn share_body(request: Request) -> (Request, UnreadBody) {
    let is_expected = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body.into_data_stream()));
    let reader = Arc::clone(&body);
    let read = Body::from_stream(stream::poll_fn(move |cx| poll(&reader, cx)));
    (Request::from_parts(parts, read), UnreadBody { body, is_expected })
}

impl UnreadBody {
    /// Reads the rest, within a time limit, and drops it.
    pub(super) async fn discard(self) {
        if self.is_expected {
            return;
        }
        let rest = stream::poll_fn(move |cx| poll(&self.body, cx));
        let read = rest
            .take_while(|piece| std::future::ready(piece.is_ok()))
            .for_each(|_| std::future::ready(()));
        // Slower clients see a broken connection.
        let _ = tokio::time::timeout(DISCARD_LIMIT, read).await;
    }
}

fn poll(body: &Mutex<BodyDataStream>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
    let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
    body.poll_next_unpin(cx)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn body(read: &Arc<AtomicUsize>) -> Body {
        let read = Arc::clone(read);
        Body::from_stream(stream::iter(0..100).map(move |_| {
            read.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))
        }))
    }

    #[tokio::test]
    async fn the_rest_of_a_body_is_read_unless_the_client_waits_before_it_sends_it() {
        let read = Arc::new(AtomicUsize::new(0));
        let (request_with_body, rest) = share_body(Request::post("/v1/tasks").body(body(&read)).unwrap());
        let mut pieces = request_with_body.into_body().into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "piece");
        drop(pieces);
        rest.discard().await;
        assert_eq!(read.load(Ordering::Relaxed), 100);

        read.store(0, Ordering::Relaxed);
        let waiting = Request::post("/v1/tasks").header(header::EXPECT, "100-continue");
        let (_, rest) = share_body(waiting.body(body(&read)).unwrap());
        rest.discard().await;
        assert_eq!(read.load(Ordering::Relaxed), 0);
    }
}
