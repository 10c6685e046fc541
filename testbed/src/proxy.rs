//! A TCP proxy that misbehaves on request: between a client and Kafka, S3 or a webhook's receiver.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{background, ports};

/// What one read takes at most: with a delay, what travels at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// No connection is cut after a number of bytes.
const NO_LIMIT: u64 = u64::MAX;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Every block travels this much later, in both directions.
    Delay(Duration),
    /// Connections stay open, and nothing travels.
    Stall,
    /// What clients send arrives; what is answered does not.
    Withhold,
    /// Nobody listens.
    Refuse,
}

/// A listening proxy; it and its connections end when this is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts up: every connection from before ends.
    cuts: watch::Sender<u64>,
    /// How many bytes clients may still send before everything is cut.
    left_bytes: AtomicU64,
    connections: AtomicU64,
    /// Bytes to replace in the next answer that has them.
    replacement: Mutex<Option<Replacement>>,
}

/// Bytes to replace in an answer.
#[derive(Debug)]
pub struct Replacement {
    /// What comes before them, at most [`Self::WITHIN_BYTES`] earlier.
    pub after: Vec<u8>,
    /// The bytes.
    pub from: Vec<u8>,
    /// As many others.
    pub to: Vec<u8>,
}

impl Replacement {
    /// How far after [`Self::after`] the bytes may begin.
    pub const WITHIN_BYTES: usize = 16;

    /// Gives whether the block had the bytes.
    fn apply(&self, block: &mut [u8]) -> bool {
        let starts = |text: &[u8], wanted: &[u8]| -> Vec<usize> {
            let windows = text.windows(wanted.len()).enumerate();
            windows
                .filter(|(_, window)| *window == wanted)
                .map(|(at, _)| at)
                .collect()
        };
        for at in starts(block, &self.after) {
            let begin = at + self.after.len();
            let end = (begin + Self::WITHIN_BYTES + self.from.len()).min(block.len());
            if let Some(found) = starts(&block[begin..end], &self.from).first() {
                let begin = begin + found;
                block[begin..begin + self.to.len()].copy_from_slice(&self.to);
                return true;
            }
        }
        false
    }
}

impl TcpProxy {
    /// Listens on a free port of loopback and forwards to `upstream`, which need not listen yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, upstream).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// When the address is not ours, or has no free port.
    pub async fn start_at(address: Ipv4Addr, upstream: SocketAddr) -> Result<Self> {
        // Of our own range, because the port is given back and taken again when the proxy refuses for a while.
        let address = SocketAddr::from((address, ports::free_at(address)?));
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Forward),
            cuts: watch::Sender::new(0),
            left_bytes: AtomicU64::new(NO_LIMIT),
            connections: AtomicU64::new(0),
            replacement: Mutex::new(None),
        });
        let listener = background::run(async move {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))
        })
        .await?;
        let listening = background::start(listen(listener, address, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            listening,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards as it should: ends [`Self::delay`], [`Self::stall`], [`Self::withhold_answers`], [`Self::refuse`] and [`Self::cut_after`].
    pub fn forward(&self) {
        self.shared.left_bytes.store(NO_LIMIT, Ordering::Relaxed);
        self.set(Mode::Forward);
    }

    /// Lets every block of at most 64 KiB arrive this much later.
    pub fn delay(&self, delay: Duration) {
        self.set(Mode::Delay(delay));
    }

    /// Stops reading: connections stay open, and nothing arrives any more.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// Goes on forwarding what clients send, and keeps the answers.
    pub fn withhold_answers(&self) {
        self.set(Mode::Withhold);
    }

    /// Resets all connections and refuses new ones.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.cut();
    }

    /// Resets all connections, once; new ones are served.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Resets all connections, once, after clients have sent this many bytes more.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.left_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Replaces bytes in the next answer that has them, once.
    pub fn replace_once(&self, replacement: Replacement) {
        assert_eq!(
            replacement.from.len(),
            replacement.to.len(),
            "answers keep their length"
        );
        *self
            .shared
            .replacement
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(replacement);
    }

    /// Whether what [`Self::replace_once`] names has been replaced.
    pub fn has_replaced(&self) -> bool {
        let replacement = self.shared.replacement.lock();
        replacement.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

/// Accepts as long as the mode lets it; the listener is gone while it refuses.
async fn listen(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    let mut listener = Some(listener);
    loop {
        let refuses = *mode.borrow_and_update() == Mode::Refuse;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None if refuses => std::future::pending().await,
                // Somebody else may have the port for a moment.
                None => {
                    tokio::time::sleep(crate::eventually::POLL).await;
                    Err(io::ErrorKind::AddrInUse.into())
                }
            }
        };
        tokio::select! {
            accepted = accepted => {
                if let Ok((client, _)) = accepted {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    background::start(serve(client, Arc::clone(&shared)));
                }
            }
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// One connection, until either side closes it or it is cut.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(mut upstream) = TcpStream::connect(shared.upstream).await else {
        return reset(&client);
    };
    for stream in [&client, &upstream] {
        // It only makes small messages slower where it is refused.
        let _ = stream.set_nodelay(true);
    }
    let was_cut = {
        let (client_reads, client_writes) = client.split();
        let (upstream_reads, upstream_writes) = upstream.split();
        let up = pump(client_reads, upstream_writes, &shared, true);
        let down = pump(upstream_reads, client_writes, &shared, false);
        tokio::select! {
            // An error of one direction ends both, as the end of the process at the other side would.
            result = async { tokio::try_join!(up, down) } => result.is_err(),
            _ = cuts.changed() => true,
        }
    };
    if was_cut {
        reset(&client);
        reset(&upstream);
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    shared: &Shared,
    counted: bool,
) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        until_it_passes(&mut mode, counted).await;
        let length = from.read(&mut block).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        until_it_passes(&mut mode, counted).await;
        let delay = match *mode.borrow() {
            Mode::Delay(delay) => Some(delay),
            _ => None,
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if counted {
            let passes = shared.pass(length);
            to.write_all(&block[..passes]).await?;
            if passes < length {
                shared.cuts.send_modify(|cuts| *cuts += 1);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        } else {
            shared.replace(&mut block[..length]);
            to.write_all(&block[..length]).await?;
        }
    }
}

/// Waits until blocks of a client, or answers, are forwarded.
async fn until_it_passes(mode: &mut watch::Receiver<Mode>, from_client: bool) {
    // The sender lives as long as the connection's shared state.
    let _ = mode
        .wait_for(|mode| match mode {
            Mode::Stall => false,
            Mode::Withhold => from_client,
            Mode::Forward | Mode::Delay(_) | Mode::Refuse => true,
        })
        .await;
}

impl Shared {
    fn replace(&self, block: &mut [u8]) {
        let mut replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if replacement
            .as_ref()
            .is_some_and(|replacement| replacement.apply(block))
        {
            *replacement = None;
        }
    }

    /// How many of these bytes may pass; once it is fewer, the limit is gone.
    fn pass(&self, length: usize) -> usize {
        let wanted = u64::try_from(length).unwrap_or(NO_LIMIT);
        let spend = |left: u64| match left {
            NO_LIMIT => None,
            left if left < wanted => Some(NO_LIMIT),
            left => Some(left - wanted),
        };
        match self
            .left_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
        {
            Ok(left) if left < wanted => usize::try_from(left).unwrap_or(length),
            _ => length,
        }
    }
}

/// Makes the end of a connection a reset rather than an orderly close.
fn reset(stream: &TcpStream) {
    // Where it is refused, the connection closes in order: still an end.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_replaced_where_they_follow_others() {
        let replacement = Replacement {
            after: b"topic".to_vec(),
            from: vec![0, 3],
            to: vec![9, 9],
        };
        let too_far = [&b"topic"[..], &[7; 17], &[0, 3]].concat();
        let mut block = [&too_far[..], b"topic", &[2, 0, 3, 0, 3]].concat();
        assert!(replacement.apply(&mut block));
        assert_eq!(block, [&too_far[..], b"topic", &[2, 9, 9, 0, 3]].concat());
        block.truncate(too_far.len());
        assert!(!replacement.apply(&mut block));
    }
}
