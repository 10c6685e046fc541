//! Free ports for servers that need a port number as an argument.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Below the range of ephemeral ports, so that no outgoing connection takes one of these between our check
/// and the server's start, or while a server restarts.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A free port of 127.0.0.1. No two calls in one process return the same.
pub(crate) fn free() -> Result<u16> {
    free_at(Ipv4Addr::LOCALHOST)
}

/// A free port of another local address.
pub(crate) fn free_at(address: Ipv4Addr) -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = start();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((address, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port of {address} from {FIRST} to {}", FIRST + COUNT - 1)
}

/// The port at which this process starts its search, different from that of other running processes.
fn start() -> u16 {
    static START: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    *START.get_or_init(|| {
        let nanoseconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos());
        let mixed = (u64::from(std::process::id()) << 32 | u64::from(nanoseconds))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 32;
        u16::try_from(mixed % u64::from(COUNT)).expect("below COUNT, which is a u16")
    })
}
