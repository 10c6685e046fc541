//! One connection to one broker: questions go out one after the other, and answers come back in their order.
//!
//! A task of its own reads and writes, so that somebody who gives up waiting never leaves half a question behind. It ends
//! at the first thing that should not be, and when nobody holds the connection any more.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::broker::{Address, Connector};
use super::limits::LONGEST_ANSWER_BYTES;
use super::protocol::{self, Question};
use super::{Deadline, Unread, login};

/// Questions that wait to be sent, and as many that wait for their answers.
const QUESTIONS_IN_FLIGHT: usize = 16;

/// A broker that is silent for so long is asked on a new connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The time for one address of a host; the next one is tried after it.
const TCP_WITHIN: Duration = Duration::from_secs(1);

/// Addresses of a host that are tried.
const MOST_ADDRESSES: usize = 3;

/// The longest answer while none is owed.
const UNASKED_BYTES: usize = 1_024;

/// What is reported of an address where no Kafka broker answers. It is the same for a name that cannot be resolved, a closed
/// port, a filtered one and another service: whoever can write a pool must not learn from it what the operator can reach.
const NO_BROKER: &str = "no Kafka broker answers; fix: check the address, and whether the port wants TLS (kafka.tls) or \
                         credentials (kafka.sasl); the operator's debug log has the cause";

/// A login is renewed, by a new connection, when this part of its time is over.
const LOGIN_USED: f64 = 0.8;

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Frames = FramedRead<ReadHalf<Box<dyn Transport>>, LengthDelimitedCodec>;

/// A connection that greeted its broker. It closes when the last copy is dropped.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    questions: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    /// When the login ends.
    good_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Why it ended.
    why: OnceLock<Unread>,
    /// Since when the broker owes the next answer.
    silent_since: Mutex<Option<Instant>>,
    distrusted: Notify,
}

#[derive(Debug)]
struct Outgoing {
    frame: BytesMut,
    longest_answer: usize,
    /// From here on it is not sent: a commit of a process that was frozen must not arrive after its lease.
    not_after: Instant,
    answer: oneshot::Sender<Bytes>,
}

struct Pending {
    correlation: i32,
    sent: Instant,
    longest_answer: usize,
    answer: oneshot::Sender<Bytes>,
}

/// A connection before it is shared: one question, one answer.
pub(super) struct Greeting {
    frames: Frames,
    writer: WriteHalf<Box<dyn Transport>>,
    asked: i32,
}

impl Connection {
    /// Connects, encrypts, checks what the broker speaks, and logs in.
    pub(super) async fn open(address: &Address, connector: &Connector) -> Result<Self, Unread> {
        let stream = reach(address)
            .await
            .map_err(|cause| no_broker(&address.host, &cause))?;
        let transport: Box<dyn Transport> = match &connector.encryption {
            Some(encryption) => Box::new(encryption.connect(&address.host, stream).await?),
            None => Box::new(stream),
        };
        let (reader, writer) = tokio::io::split(transport);
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(LONGEST_ANSWER_BYTES)
            .new_codec();
        let mut greeting = Greeting {
            frames: FramedRead::new(reader, codec),
            writer,
            asked: 0,
        };
        let spoken = greeting.ask(&ApiVersionsRequest::default()).await;
        check_versions(&spoken.map_err(|why| no_broker(&address.host, &why.0))?)?;
        let good_for = match &connector.sasl {
            Some(sasl) => login::log_in(&mut greeting, sasl).await?,
            None => None,
        };
        Ok(greeting.share(good_for))
    }

    /// Whether questions can be sent.
    pub(super) fn is_usable(&self) -> bool {
        let ended = self.questions.is_closed() || self.shared.why.get().is_some();
        !ended && self.good_until.is_none_or(|end| Instant::now() < end)
    }

    /// For how long the broker owes an answer.
    pub(super) fn silent_for(&self) -> Duration {
        let since = *self
            .shared
            .silent_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the connection ended, or the answer is none.
    pub(super) async fn ask<Q: Question>(
        &self,
        question: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Answer, Unread> {
        let (answer, answered) = oneshot::channel();
        let frame = protocol::encode(question)?;
        let ended = || {
            let why = self.shared.why.get().cloned();
            why.unwrap_or_else(|| Unread::unreachable("the connection ended"))
        };
        let outgoing = Outgoing {
            frame,
            longest_answer: question.longest_answer(),
            not_after: Instant::from_std(deadline.at()),
            answer,
        };
        if self.questions.send(outgoing).await.is_err() {
            return Err(ended());
        }
        let bytes = answered.await.map_err(|_| ended())?;
        protocol::decode::<Q>(bytes).inspect_err(|why| {
            // Who sends nonsense once is not believed in what follows.
            let _ = self.shared.why.set(why.clone());
            self.shared.distrusted.notify_one();
        })
    }
}

impl Greeting {
    pub(super) async fn ask<Q: Question>(&mut self, question: &Q) -> Result<Q::Answer, Unread> {
        let mut frame = protocol::encode(question)?;
        protocol::number(&mut frame, self.asked);
        self.writer
            .write_all(&frame)
            .await
            .map_err(|error| broken(&error))?;
        self.writer.flush().await.map_err(|error| broken(&error))?;
        self.frames
            .decoder_mut()
            .set_max_frame_length(question.longest_answer());
        let answer = match self.frames.next().await {
            Some(Ok(answer)) => answer.freeze(),
            Some(Err(error)) => return Err(broken(&error)),
            None => return Err(Unread::unreachable("the broker closed the connection")),
        };
        if protocol::correlation(&answer) != Some(self.asked) {
            return Err(Unread::new("unexpected correlation id"));
        }
        self.asked += 1;
        protocol::decode::<Q>(answer)
    }

    fn share(self, good_for: Option<Duration>) -> Connection {
        let (questions, to_send) = mpsc::channel(QUESTIONS_IN_FLIGHT);
        let shared = Arc::new(Shared::default());
        tokio::spawn(serve(self, to_send, Arc::clone(&shared)));
        Connection {
            questions,
            shared,
            good_until: good_for.map(|length| Instant::now() + length.mul_f64(LOGIN_USED)),
        }
    }
}

/// That no Kafka broker answers at an address; the cause is only logged.
pub(super) fn no_broker(host: &str, cause: &str) -> Unread {
    tracing::debug!(host, cause, "No Kafka broker answers");
    Unread::unreachable(NO_BROKER)
}

async fn reach(address: &Address) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let mut why = "the name has no address".to_owned();
    for socket_address in found.take(MOST_ADDRESSES) {
        match timeout(TCP_WITHIN, TcpStream::connect(socket_address)).await {
            Ok(Ok(stream)) => {
                // Only slower where it is refused.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no connection within {} s", TCP_WITHIN.as_secs()),
        }
    }
    Err(why)
}

fn check_versions(spoken: &ApiVersionsResponse) -> Result<(), Unread> {
    for (key, version) in protocol::ALL {
        // A broker without logins need not speak of them; one that wants ours answers for itself.
        if matches!(key, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate) {
            continue;
        }
        let range = spoken
            .api_keys
            .iter()
            .find(|spoken| spoken.api_key == *key as i16);
        let Some(range) = range else {
            return Err(Unread::new(format!(
                "the broker does not know {key:?}; fix: use Kafka 3.0 or later"
            )));
        };
        let (lowest, highest) = (range.min_version, range.max_version);
        if *version > highest {
            return Err(Unread::new(format!(
                "the broker speaks {key:?} up to version {highest}, and {version} is needed; fix: use Kafka 3.0 or later"
            )));
        }
        if *version < lowest {
            return Err(Unread::new(format!(
                "the broker speaks {key:?} from version {lowest}, and this operator speaks {version}; \
                 fix: use a later operator"
            )));
        }
    }
    Ok(())
}

async fn serve(greeting: Greeting, mut to_send: mpsc::Receiver<Outgoing>, shared: Arc<Shared>) {
    let (sent, mut pending) = mpsc::channel(QUESTIONS_IN_FLIGHT);
    let mut waiting = None;
    let Greeting {
        mut frames,
        mut writer,
        asked,
    } = greeting;
    let why = tokio::select! {
        why = write(&mut writer, &mut to_send, sent, asked) => why,
        why = read(&mut frames, &mut pending, &mut waiting, &shared) => why,
        () = shared.distrusted.notified() => Unread::new("malformed response"),
    };
    // Said before those who wait are let go.
    let _ = shared.why.set(why);
}

async fn write(
    writer: &mut WriteHalf<Box<dyn Transport>>,
    to_send: &mut mpsc::Receiver<Outgoing>,
    sent: mpsc::Sender<Pending>,
    mut correlation: i32,
) -> Unread {
    while let Some(outgoing) = to_send.recv().await {
        let Outgoing {
            mut frame,
            longest_answer,
            not_after,
            answer,
        } = outgoing;
        if answer.is_closed() || Instant::now() >= not_after {
            continue;
        }
        protocol::number(&mut frame, correlation);
        let pending = Pending {
            correlation,
            sent: Instant::now(),
            longest_answer,
            answer,
        };
        // Before its bytes, so that no answer comes to an unknown question.
        if sent.send(pending).await.is_err() {
            break;
        }
        correlation = correlation.wrapping_add(1);
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return broken(&error);
        }
    }
    Unread::unreachable("the connection was closed")
}

async fn read(
    frames: &mut Frames,
    pending: &mut mpsc::Receiver<Pending>,
    waiting: &mut Option<Pending>,
    shared: &Shared,
) -> Unread {
    let mut last_answer = Instant::now();
    loop {
        let since = waiting.as_ref().map(|waiting| waiting.sent.max(last_answer));
        *shared.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        let longest = waiting
            .as_ref()
            .map_or(UNASKED_BYTES, |waiting| waiting.longest_answer);
        frames.decoder_mut().set_max_frame_length(longest);
        tokio::select! {
            // First: a question is known before its bytes are sent, and sets how long its answer may be.
            biased;
            Some(next) = pending.recv(), if waiting.is_none() => *waiting = Some(next),
            frame = frames.next() => {
                let answer = match frame {
                    Some(Ok(answer)) => answer.freeze(),
                    Some(Err(error)) => return broken(&error),
                    None => return Unread::unreachable("the broker closed the connection"),
                };
                let is_owed = |asked: &mut Pending| protocol::correlation(&answer) == Some(asked.correlation);
                // Who waits is let go after it is said why, so stays where it is until then.
                let Some(asked) = waiting.take_if(is_owed) else {
                    return Unread::new("unexpected correlation id");
                };
                last_answer = Instant::now();
                // Nobody may be waiting any more.
                let _ = asked.answer.send(answer);
                *waiting = pending.try_recv().ok();
            }
            () = sleep_until(since.unwrap_or(last_answer) + ANSWER_WITHIN), if since.is_some() => {
                return Unread::unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
            }
        }
    }
}

fn broken(error: &io::Error) -> Unread {
    if error.kind() == io::ErrorKind::InvalidData {
        return Unread::new("the response is larger than the question allows");
    }
    Unread::unreachable(format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::advance;

    use super::*;

    /// A frame with its length, key, version and room for an id, and one byte that tells it from others.
    fn outgoing(last: u8, not_after: Instant) -> (Outgoing, oneshot::Receiver<Bytes>) {
        let (answer, answered) = oneshot::channel();
        let mut frame = BytesMut::zeroed(12);
        frame.extend([last]);
        let outgoing = Outgoing {
            frame,
            longest_answer: 0,
            not_after,
            answer,
        };
        (outgoing, answered)
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_not_sent_after_its_deadline() {
        let (ours, mut broker) = duplex(64);
        let transport: Box<dyn Transport> = Box::new(ours);
        let (_reader, mut writer) = tokio::io::split(transport);
        let (questions, mut to_send) = mpsc::channel(2);
        let (sent, mut pending) = mpsc::channel(2);
        // The process is frozen for longer than the first one's deadline while both wait to be sent.
        let now = Instant::now();
        let (late, _late) = outgoing(1, now + Duration::from_secs(5));
        let (timely, _timely) = outgoing(2, now + Duration::from_secs(15));
        questions.send(late).await.expect("a listener");
        questions.send(timely).await.expect("a listener");
        drop(questions);
        advance(Duration::from_secs(10)).await;
        write(&mut writer, &mut to_send, sent, 0).await;
        drop(writer);
        let mut received = [0; 13];
        broker.read_exact(&mut received).await.expect("one frame");
        assert_eq!(received[12], 2);
        assert_eq!(pending.recv().await.map(|pending| pending.correlation), Some(0));
        assert!(pending.recv().await.is_none());
    }
}
