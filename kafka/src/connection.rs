//! One connection to one broker: requests are sent in order, and responses arrive in the same order.
//!
//! A separate task reads and writes, so that a caller whose future is dropped never leaves half a request on the wire.
//! It ends at the first protocol error, and when the last handle to the connection is dropped.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use kafka_protocol::messages::ApiVersionsRequest;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::address::Address;
use crate::connector::Connector;
use crate::error::no_broker;
use crate::handshake::{Frames, Handshake, Transport, connection_error};
use crate::limits::MAX_RESPONSE_BYTES;
use crate::protocol::{self, Encoder, Request};
use crate::{Deadline, ReadError, sasl};

/// The most requests queued to be sent, and the most that await their responses.
const MAX_IN_FLIGHT: usize = 16;

/// Time without a response after which the connection is closed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for one address of a host, before the next one is tried.
const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 3;

/// The largest frame accepted while no response is due.
const MAX_UNREQUESTED_BYTES: usize = 1_024;

/// The share of a SASL session's lifetime after which a new connection authenticates again.
const SESSION_LIFETIME_USED: f64 = 0.8;

/// An open, authenticated connection. It closes when the last copy is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    requests: mpsc::Sender<Outgoing>,
    status: Arc<ConnectionStatus>,
    encoder: Encoder,
    /// When the authentication must be renewed; `None` if it does not expire.
    authenticated_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct ConnectionStatus {
    /// Why the connection ended.
    why: OnceLock<ReadError>,
    /// Since when the next response is due.
    response_due_since: Mutex<Option<Instant>>,
    found_malformed: Notify,
}

#[derive(Debug)]
struct Outgoing {
    frame: BytesMut,
    max_response_bytes: usize,
    /// Not sent from this instant on: a commit of a process that was frozen must not arrive after its lease expired.
    not_after: Instant,
    response: oneshot::Sender<Bytes>,
}

struct Pending {
    correlation_id: i32,
    sent: Instant,
    max_response_bytes: usize,
    response: oneshot::Sender<Bytes>,
}

impl Connection {
    /// Connects, sets up TLS, requests the versions that the broker supports, and authenticates.
    pub(crate) async fn open(address: &Address, connector: &Connector) -> Result<Self, ReadError> {
        let stream = connect_tcp(address)
            .await
            .map_err(|cause| no_broker(&address.host, &cause))?;
        let transport: Box<dyn Transport> = match &connector.encryption {
            Some(encryption) => Box::new(encryption.connect(&address.host, stream).await?),
            None => Box::new(stream),
        };
        let (reader, writer) = tokio::io::split(transport);
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(MAX_RESPONSE_BYTES)
            .new_codec();
        let mut handshake = Handshake {
            frames: FramedRead::new(reader, codec),
            writer,
            next_correlation_id: 0,
            encoder: Encoder::new(connector.client_id.clone()),
        };
        let supported = handshake.send(&ApiVersionsRequest::default()).await;
        let supported = supported.map_err(|error| no_broker(&address.host, &error.why))?;
        if supported.error_code != 0 {
            return Err(ReadError::from_code(supported.error_code));
        }
        handshake.encoder = handshake.encoder.with_versions(&supported.api_keys);
        let session_lifetime = match &connector.sasl {
            Some(sasl) => sasl::authenticate(&mut handshake, sasl).await?,
            None => None,
        };
        Ok(handshake.into_connection(session_lifetime))
    }

    /// Whether requests can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        let ended = self.requests.is_closed() || self.status.why.get().is_some();
        !ended && self.authenticated_until.is_none_or(|end| Instant::now() < end)
    }

    /// How long the next response has been due; zero if none is.
    pub(crate) fn response_due_for(&self) -> Duration {
        let since = *self
            .status
            .response_due_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// When the broker supports no version of the request, the connection ended, or the response is malformed.
    pub(crate) async fn send<Q: Request>(
        &self,
        request: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Response, ReadError> {
        let (version, frames) = self.encoder.encode(request)?;
        let exchanges: Vec<_> = frames
            .into_iter()
            .map(|(frame, max_response_bytes)| self.exchange(frame, max_response_bytes, *deadline))
            .collect();
        // At most `MAX_IN_FLIGHT` are sent before their responses arrive.
        let responses = try_join_all(exchanges).await?;
        protocol::decode(request, version, responses).inspect_err(|why| {
            // After one malformed response, later ones on this connection are not trusted.
            let _ = self.status.why.set(why.clone());
            self.status.found_malformed.notify_one();
        })
    }

    async fn exchange(
        &self,
        frame: BytesMut,
        max_response_bytes: usize,
        deadline: Deadline,
    ) -> Result<Bytes, ReadError> {
        let (response, response_receiver) = oneshot::channel();
        let ended = || {
            let why = self.status.why.get().cloned();
            why.unwrap_or_else(|| ReadError::unreachable("the connection ended"))
        };
        let outgoing = Outgoing {
            frame,
            max_response_bytes,
            not_after: Instant::from_std(deadline.at()),
            response,
        };
        if self.requests.send(outgoing).await.is_err() {
            return Err(ended());
        }
        response_receiver.await.map_err(|_| ended())
    }
}

impl Handshake {
    fn into_connection(self, session_lifetime: Option<Duration>) -> Connection {
        let (requests, to_send) = mpsc::channel(MAX_IN_FLIGHT);
        let status = Arc::new(ConnectionStatus::default());
        let encoder = self.encoder.clone();
        tokio::spawn(run(self, to_send, Arc::clone(&status)));
        Connection {
            requests,
            status,
            encoder,
            authenticated_until: session_lifetime
                .map(|length| Instant::now() + length.mul_f64(SESSION_LIFETIME_USED)),
        }
    }
}

async fn connect_tcp(address: &Address) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let mut why = "the name has no address".to_owned();
    for socket_address in found.take(MAX_ADDRESSES) {
        match timeout(TCP_CONNECT_TIMEOUT, TcpStream::connect(socket_address)).await {
            Ok(Ok(stream)) => {
                // Without it the connection is only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no connection within {} s", TCP_CONNECT_TIMEOUT.as_secs()),
        }
    }
    Err(why)
}

async fn run(handshake: Handshake, mut to_send: mpsc::Receiver<Outgoing>, status: Arc<ConnectionStatus>) {
    let (sent, mut pending) = mpsc::channel(MAX_IN_FLIGHT);
    let mut awaited = None;
    let Handshake {
        mut frames,
        mut writer,
        next_correlation_id,
        ..
    } = handshake;
    let why = tokio::select! {
        why = write(&mut writer, &mut to_send, sent, next_correlation_id) => why,
        why = read(&mut frames, &mut pending, &mut awaited, &status) => why,
        () = status.found_malformed.notified() => ReadError::malformed("malformed response"),
    };
    // Set before the pending senders are dropped, so that waiting callers find the reason.
    let _ = status.why.set(why);
}

async fn write(
    writer: &mut WriteHalf<Box<dyn Transport>>,
    to_send: &mut mpsc::Receiver<Outgoing>,
    sent: mpsc::Sender<Pending>,
    mut correlation_id: i32,
) -> ReadError {
    while let Some(outgoing) = to_send.recv().await {
        let Outgoing {
            mut frame,
            max_response_bytes,
            not_after,
            response,
        } = outgoing;
        if response.is_closed() || Instant::now() >= not_after {
            continue;
        }
        protocol::set_correlation_id(&mut frame, correlation_id);
        let pending = Pending {
            correlation_id,
            sent: Instant::now(),
            max_response_bytes,
            response,
        };
        // Before its bytes, so that the reader knows a request before its response can arrive.
        if sent.send(pending).await.is_err() {
            break;
        }
        correlation_id = correlation_id.wrapping_add(1);
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return connection_error(&error);
        }
    }
    ReadError::unreachable("the connection was closed")
}

async fn read(
    frames: &mut Frames,
    pending: &mut mpsc::Receiver<Pending>,
    awaited: &mut Option<Pending>,
    status: &ConnectionStatus,
) -> ReadError {
    let mut last_response = Instant::now();
    loop {
        let since = awaited.as_ref().map(|awaited| awaited.sent.max(last_response));
        *status
            .response_due_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
        let max_bytes = awaited
            .as_ref()
            .map_or(MAX_UNREQUESTED_BYTES, |awaited| awaited.max_response_bytes);
        frames.decoder_mut().set_max_frame_length(max_bytes);
        tokio::select! {
            // First: a request is recorded before its bytes are sent, and sets the size limit of its response.
            biased;
            Some(next) = pending.recv(), if awaited.is_none() => *awaited = Some(next),
            frame = frames.next() => {
                let response = match frame {
                    Some(Ok(response)) => response.freeze(),
                    Some(Err(error)) => return connection_error(&error),
                    None => return ReadError::unreachable("the broker closed the connection"),
                };
                let is_expected = |request: &mut Pending| protocol::correlation_id(&response) == Some(request.correlation_id);
                // On an error the sender stays in `awaited`, so that it is dropped only after the reason is set.
                let Some(request) = awaited.take_if(is_expected) else {
                    return ReadError::malformed("unexpected correlation id");
                };
                last_response = Instant::now();
                // The caller may have given up.
                let _ = request.response.send(response);
                *awaited = pending.try_recv().ok();
            }
            () = sleep_until(since.unwrap_or(last_response) + RESPONSE_TIMEOUT), if since.is_some() => {
                return ReadError::timed_out(format!("no response within {} s", RESPONSE_TIMEOUT.as_secs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::advance;

    use super::*;

    /// A frame with its length, API key, version and room for a correlation id, and one byte that identifies it.
    fn outgoing(last: u8, not_after: Instant) -> (Outgoing, oneshot::Receiver<Bytes>) {
        let (response, response_receiver) = oneshot::channel();
        let mut frame = BytesMut::zeroed(12);
        frame.extend([last]);
        let outgoing = Outgoing {
            frame,
            max_response_bytes: 0,
            not_after,
            response,
        };
        (outgoing, response_receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_sent_after_its_deadline() {
        let (ours, mut broker) = duplex(64);
        let transport: Box<dyn Transport> = Box::new(ours);
        let (_reader, mut writer) = tokio::io::split(transport);
        let (requests, mut to_send) = mpsc::channel(2);
        let (sent, mut pending) = mpsc::channel(2);
        // The process is frozen past the first request's deadline while both are queued.
        let now = Instant::now();
        let (late, _late) = outgoing(1, now + Duration::from_secs(5));
        let (timely, _timely) = outgoing(2, now + Duration::from_secs(15));
        requests.send(late).await.expect("a listener");
        requests.send(timely).await.expect("a listener");
        drop(requests);
        advance(Duration::from_secs(10)).await;
        write(&mut writer, &mut to_send, sent, 0).await;
        drop(writer);
        let mut received = [0; 13];
        broker.read_exact(&mut received).await.expect("one frame");
        assert_eq!(received[12], 2);
        assert_eq!(
            pending.recv().await.map(|pending| pending.correlation_id),
            Some(0)
        );
        assert!(pending.recv().await.is_none());
    }
}
