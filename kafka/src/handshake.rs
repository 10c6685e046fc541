//! A connection before it is shared: API versions and authentication.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::ReadError;
use crate::protocol::{self, Encoder, Request};

pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub(crate) type Frames = FramedRead<ReadHalf<Box<dyn Transport>>, LengthDelimitedCodec>;

/// A connection before it is shared: one request at a time.
pub(crate) struct Handshake {
    pub(crate) frames: Frames,
    pub(crate) writer: WriteHalf<Box<dyn Transport>>,
    pub(crate) next_correlation_id: i32,
    pub(crate) encoder: Encoder,
}

impl Handshake {
    pub(crate) async fn send<Q: Request>(&mut self, request: &Q) -> Result<Q::Response, ReadError> {
        let (version, frames) = self.encoder.encode(request)?;
        let mut responses = Vec::new();
        for (frame, max_response_bytes) in frames {
            responses.push(self.exchange(frame, max_response_bytes).await?);
        }
        protocol::decode(request, version, responses)
    }

    async fn exchange(&mut self, mut frame: BytesMut, max_response_bytes: usize) -> Result<Bytes, ReadError> {
        protocol::set_correlation_id(&mut frame, self.next_correlation_id);
        self.writer
            .write_all(&frame)
            .await
            .map_err(|error| connection_error(&error))?;
        self.writer
            .flush()
            .await
            .map_err(|error| connection_error(&error))?;
        self.frames.decoder_mut().set_max_frame_length(max_response_bytes);
        let response = match self.frames.next().await {
            Some(Ok(response)) => response.freeze(),
            Some(Err(error)) => return Err(connection_error(&error)),
            None => return Err(ReadError::unreachable("the broker closed the connection")),
        };
        if protocol::correlation_id(&response) != Some(self.next_correlation_id) {
            return Err(ReadError::malformed("unexpected correlation id"));
        }
        self.next_correlation_id += 1;
        Ok(response)
    }
}

/// The error for a connection that failed.
pub(crate) fn connection_error(error: &io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::InvalidData {
        return ReadError::malformed("the response is larger than the request allows");
    }
    ReadError::unreachable(format!("connection error: {error}"))
}
