//! A connection before it is shared: API versions and authentication.

use std::io;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::ReadError;
use super::protocol::{self, Request};

pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub(super) type Frames = FramedRead<ReadHalf<Box<dyn Transport>>, LengthDelimitedCodec>;

/// A connection before it is shared: one request at a time.
pub(super) struct Handshake {
    pub(super) frames: Frames,
    pub(super) writer: WriteHalf<Box<dyn Transport>>,
    pub(super) next_correlation_id: i32,
}

impl Handshake {
    pub(super) async fn send<Q: Request>(&mut self, request: &Q) -> Result<Q::Response, ReadError> {
        let mut frame = protocol::encode(request)?;
        protocol::set_correlation_id(&mut frame, self.next_correlation_id);
        self.writer
            .write_all(&frame)
            .await
            .map_err(|error| connection_error(&error))?;
        self.writer
            .flush()
            .await
            .map_err(|error| connection_error(&error))?;
        self.frames
            .decoder_mut()
            .set_max_frame_length(request.max_response_bytes());
        let response = match self.frames.next().await {
            Some(Ok(response)) => response.freeze(),
            Some(Err(error)) => return Err(connection_error(&error)),
            None => return Err(ReadError::unreachable("the broker closed the connection")),
        };
        if protocol::correlation_id(&response) != Some(self.next_correlation_id) {
            return Err(ReadError::new("unexpected correlation id"));
        }
        self.next_correlation_id += 1;
        protocol::decode::<Q>(response)
    }
}

/// The error for a connection that failed.
pub(super) fn connection_error(error: &io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::InvalidData {
        return ReadError::new("the response is larger than the request allows");
    }
    ReadError::unreachable(format!("connection error: {error}"))
}
