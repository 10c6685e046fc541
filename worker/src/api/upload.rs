//! The multipart body of an upload, streamed, never held in memory.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, timeout_at};

use crate::outbound::DownloadLimits;

/// Maximum number of bytes between two pieces of the song (field headers and other fields): the multipart parser
/// buffers a header until its end.
const MAX_OVERHEAD_BYTES: u64 = 64 * 1024;

/// Why a form cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// Another content type.
    #[error("Content-Type must be multipart/form-data")]
    ContentType,
    /// The client sends too slowly.
    #[error("the upload is too slow")]
    TooSlow,
    /// The song is larger than this many bytes.
    #[error("the audio is larger than {0} bytes")]
    TooLarge(u64),
    /// Not a valid form, or one that ends early.
    #[error("the form cannot be read: {0}")]
    Invalid(String),
}

/// A multipart form that is being read.
pub(super) struct Form {
    parts: Multipart,
    shared: SharedBodyState,
    limits: DownloadLimits,
}

/// State shared by the limited body and the readers of its fields.
#[derive(Clone, Default)]
struct SharedBodyState(Arc<Mutex<BodyState>>);

#[derive(Default)]
struct BodyState {
    /// Bytes received since the song's last piece.
    overhead_bytes: u64,
    /// Why the body ended early.
    problem: Option<FormError>,
}

impl SharedBodyState {
    fn with<T>(&self, act: impl FnOnce(&mut BodyState) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Form {
    /// Starts to read a request's form.
    pub(super) async fn from_request(request: Request, limits: DownloadLimits) -> Result<Self, FormError> {
        let shared = SharedBodyState::default();
        let (parts, body) = request.into_parts();
        let body = Body::from_stream(limited_body(body, limits, shared.clone()));
        let parts = Multipart::from_request(Request::from_parts(parts, body), &()).await;
        let parts = parts.map_err(|_| FormError::ContentType)?;
        Ok(Self {
            parts,
            shared,
            limits,
        })
    }

    /// The next field; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<FormField<'_>>, FormError> {
        let shared = self.shared.clone();
        let field = self.parts.next_field().await;
        let field = field.map_err(|error| explain(&shared, &error))?;
        let max_bytes = self.limits.max_bytes;
        Ok(field.map(|field| FormField {
            field,
            shared,
            max_bytes,
        }))
    }
}

pub(super) struct FormField<'f> {
    field: Field<'f>,
    shared: SharedBodyState,
    max_bytes: u64,
}

impl<'f> FormField<'f> {
    pub(super) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// The name of the file that the value is, if the client gives one.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// The complete value as text; `MAX_OVERHEAD_BYTES` limits it.
    pub(super) async fn text(self) -> Result<String, FormError> {
        let text = self.field.text().await;
        text.map_err(|error| explain(&self.shared, &error))
    }

    /// The value as a stream of at most `max_bytes`.
    pub(super) fn song(self) -> BoxStream<'f, Result<Bytes, FormError>> {
        let Self {
            field,
            shared,
            max_bytes,
        } = self;
        let mut received_bytes = 0;
        let pieces = field.map(move |piece| {
            let piece = piece.map_err(|error| explain(&shared, &error))?;
            shared.with(|state| state.overhead_bytes = 0);
            received_bytes += piece.len() as u64;
            if received_bytes > max_bytes {
                return Err(FormError::TooLarge(max_bytes));
            }
            Ok(piece)
        });
        pieces.boxed()
    }
}

/// The body, ended early when it is too slow or when more than [`MAX_OVERHEAD_BYTES`] belong to no song.
fn limited_body(
    body: Body,
    limits: DownloadLimits,
    shared: SharedBodyState,
) -> BoxStream<'static, Result<Bytes, axum::Error>> {
    let deadline = Instant::now() + limits.total;
    let pieces = stream::unfold(Some(body.into_data_stream()), move |body| {
        let shared = shared.clone();
        async move {
            let mut body = body?;
            let end = |problem| {
                shared.with(|state| state.problem = Some(problem));
                Some((Err(axum::Error::new("the form ended early")), None))
            };
            let until = deadline.min(Instant::now() + limits.idle);
            let Ok(piece) = timeout_at(until, body.next()).await else {
                return end(FormError::TooSlow);
            };
            let piece = match piece? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), None)),
            };
            let overhead_bytes = shared.with(|state| {
                let before = state.overhead_bytes;
                state.overhead_bytes += piece.len() as u64;
                before
            });
            if overhead_bytes > MAX_OVERHEAD_BYTES {
                let problem = "its headers or other fields are too large";
                return end(FormError::Invalid(problem.to_owned()));
            }
            Some((Ok(piece), Some(body)))
        }
    });
    pieces.boxed()
}

fn explain(shared: &SharedBodyState, error: &MultipartError) -> FormError {
    let known = shared.with(|state| state.problem.take());
    known.unwrap_or_else(|| FormError::Invalid(error.body_text()))
}
