//! The body of an upload: a form with a song in it, read as it comes, never held.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;
use crate::outbound::DownloadLimits;

/// The most that may come between two pieces of the song, headers of fields and other fields: a reader that waits for
/// the end of a header holds it all.
const MAX_UNCLAIMED_BYTES: u64 = 64 * 1024;

/// A form that is being read.
pub(super) struct Form {
    parts: Multipart,
    watch: Watch,
    limits: DownloadLimits,
}

/// What the watched body and the readers of its fields know of each other.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    /// What came since the song's last piece.
    unclaimed_bytes: u64,
    /// Why the body ended early.
    problem: Option<Problem>,
}

impl Watch {
    fn with<T>(&self, act: impl FnOnce(&mut Watched) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Form {
    /// Begins to read a request's form.
    pub(super) async fn of(request: Request, limits: DownloadLimits) -> Result<Self, Problem> {
        let watch = Watch::default();
        let (parts, body) = request.into_parts();
        let body = Body::from_stream(watched(body, limits, watch.clone()));
        let parts = Multipart::from_request(Request::from_parts(parts, body), &())
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "Content-Type must be multipart/form-data",
                )
            })?;
        Ok(Self { parts, watch, limits })
    }

    /// The next field, nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<FormField<'_>>, Problem> {
        let watch = self.watch.clone();
        let field = self.parts.next_field().await;
        let field = field.map_err(|error| explain(&watch, &error))?;
        let max_bytes = self.limits.max_bytes;
        Ok(field.map(|field| FormField {
            field,
            watch,
            max_bytes,
        }))
    }
}

/// A field of a form.
pub(super) struct FormField<'f> {
    field: Field<'f>,
    watch: Watch,
    max_bytes: u64,
}

impl<'f> FormField<'f> {
    pub(super) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// A short text.
    pub(super) async fn text(self) -> Result<String, Problem> {
        let text = self.field.text().await;
        text.map_err(|error| explain(&self.watch, &error))
    }

    /// A song, piece by piece.
    pub(super) fn song(self) -> BoxStream<'f, Result<Bytes, Problem>> {
        let Self {
            field,
            watch,
            max_bytes,
        } = self;
        let mut received_bytes = 0;
        let pieces = field.map(move |piece| {
            let piece = piece.map_err(|error| explain(&watch, &error))?;
            watch.with(|watched| watched.unclaimed_bytes = 0);
            received_bytes += piece.len() as u64;
            if received_bytes > max_bytes {
                let too_large = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The audio is too large");
                return Err(too_large.because(format!("it has more than {max_bytes} bytes")));
            }
            Ok(piece)
        });
        pieces.boxed()
    }
}

/// The body, ended when it is too slow or when too much of it belongs to no song.
fn watched(
    body: Body,
    limits: DownloadLimits,
    watch: Watch,
) -> BoxStream<'static, Result<Bytes, axum::Error>> {
    let deadline = Instant::now() + limits.total;
    let pieces = stream::unfold(Some(body.into_data_stream()), move |body| {
        let watch = watch.clone();
        async move {
            let mut body = body?;
            let end = |problem| {
                watch.with(|watched| watched.problem = Some(problem));
                Some((Err(axum::Error::new("the form broke off")), None))
            };
            let until = deadline.min(Instant::now() + limits.idle);
            let Ok(piece) = timeout_at(until, body.next()).await else {
                let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "The upload is too slow");
                return end(problem);
            };
            let piece = match piece? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), None)),
            };
            let unclaimed = watch.with(|watched| {
                let before = watched.unclaimed_bytes;
                watched.unclaimed_bytes += piece.len() as u64;
                before
            });
            if unclaimed > MAX_UNCLAIMED_BYTES {
                let problem = Problem::new(StatusCode::BAD_REQUEST, "The form cannot be read");
                return end(problem.because("its headers or other fields are too large"));
            }
            Some((Ok(piece), Some(body)))
        }
    });
    pieces.boxed()
}

fn explain(watch: &Watch, error: &MultipartError) -> Problem {
    let known = watch.with(|watched| watched.problem.take());
    known.unwrap_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "The form cannot be read").because(error.body_text())
    })
}
