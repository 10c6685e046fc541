//! A TCP proxy with fault injection, between a client and Kafka, S3 or a webhook receiver.

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

/// Maximum bytes of one read: with a delay, the bytes that are delayed together.
const BLOCK_BYTES: usize = 64 * 1024;
/// No byte limit before connections are reset.
const NO_LIMIT: u64 = u64::MAX;

/// How the proxy treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Delays every block by this time, in both directions.
    Delay(Duration),
    /// Keeps connections open and forwards nothing.
    Stall,
    /// Forwards requests and withholds responses.
    Withhold,
    /// Does not listen.
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
    /// A counter: incrementing it ends every earlier connection.
    cuts: watch::Sender<u64>,
    /// Bytes that clients may still send before all connections are reset.
    left_bytes: AtomicU64,
    connections: AtomicU64,
    /// Bytes to replace in the next response that contains them.
    replacement: Mutex<Option<Replacement>>,
}

/// A replacement of bytes in a response.
#[derive(Debug)]
pub struct Replacement {
    /// Bytes that precede them, by at most [`Self::WITHIN_BYTES`].
    pub after: Vec<u8>,
    /// The bytes to replace.
    pub from: Vec<u8>,
    /// Their replacement, of the same length.
    pub to: Vec<u8>,
}

impl Replacement {
    /// How far after [`Self::after`] the bytes may begin.
    pub const WITHIN_BYTES: usize = 16;

    /// Applies the replacement; returns whether the block had the bytes.
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
    /// Listens on a free port of loopback and forwards to `upstream`, which need not be listening yet.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, upstream).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// If the address is not local, or has no free port.
    pub async fn start_at(address: Ipv4Addr, upstream: SocketAddr) -> Result<Self> {
        // A port from our own range, because it is released and bound again when the proxy refuses
        // connections.
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

    /// The proxy's address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards normally: ends [`Self::delay`], [`Self::stall`], [`Self::withhold_responses`], [`Self::refuse`]
    /// and [`Self::cut_after`].
    pub fn forward(&self) {
        self.shared.left_bytes.store(NO_LIMIT, Ordering::Relaxed);
        self.set(Mode::Forward);
    }

    /// Delays every block of at most 64 KiB by this time.
    pub fn delay(&self, delay: Duration) {
        self.set(Mode::Delay(delay));
    }

    /// Stops forwarding: connections stay open.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// Forwards requests and withholds responses.
    pub fn withhold_responses(&self) {
        self.set(Mode::Withhold);
    }

    /// Resets all connections and refuses new ones.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.cut();
    }

    /// Resets all connections once; new ones are served.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Resets all connections, once, after clients have sent this many further bytes.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.left_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Replaces bytes in the next response that contains them, once.
    pub fn replace_once(&self, replacement: Replacement) {
        assert_eq!(
            replacement.from.len(),
            replacement.to.len(),
            "responses keep their length"
        );
        *self
            .shared
            .replacement
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(replacement);
    }

    /// Whether the replacement of [`Self::replace_once`] has been made.
    pub fn has_replaced(&self) -> bool {
        let replacement = self.shared.replacement.lock();
        replacement.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Number of connections accepted so far.
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

/// Accepts connections while the mode allows it; the listener is closed while it refuses.
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
                // Another process may have taken the port for a moment.
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

/// Serves one connection until either side closes it or it is reset.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(mut upstream) = TcpStream::connect(shared.upstream).await else {
        return reset(&client);
    };
    for stream in [&client, &upstream] {
        // Without it, small messages are only slower.
        let _ = stream.set_nodelay(true);
    }
    let was_cut = {
        let (client_reads, client_writes) = client.split();
        let (upstream_reads, upstream_writes) = upstream.split();
        let up = pump(client_reads, upstream_writes, &shared, true);
        let down = pump(upstream_reads, client_writes, &shared, false);
        tokio::select! {
            // An error in one direction ends both, like the end of the peer's process.
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
        wait_until_forwarding(&mut mode, counted).await;
        let length = from.read(&mut block).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        wait_until_forwarding(&mut mode, counted).await;
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

/// Waits until the mode allows forwarding requests, or responses.
async fn wait_until_forwarding(mode: &mut watch::Receiver<Mode>, from_client: bool) {
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

    /// How many of these bytes may pass; the limit is removed once it is reached.
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

/// Makes closing the connection send a reset instead of an orderly close.
fn reset(stream: &TcpStream) {
    // If it is refused, the connection closes in order, which also ends it.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_replaced_only_after_the_preceding_bytes() {
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
