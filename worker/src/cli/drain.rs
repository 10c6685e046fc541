//! `separation-worker drain`: drains the worker on this machine and waits until it runs no task. Needs no shell, so it
//! can be a pod's preStop hook.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use separation_contract::environment as env;

use super::failure::Failure;
use super::http::http_client;
use crate::service::Activity;

/// Polling interval.
const INTERVAL: Duration = Duration::from_millis(200);

/// Time limit of one response.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Consecutive failures after which the worker counts as stuck; a worker on a busy machine responds late.
const MAX_FAILURES: u32 = 25;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-worker drain                         # the worker on this machine's ADMIN_ADDR
  separation-worker drain --addr 127.0.0.1:9090
  separation-worker drain --wait 600              # give up after ten minutes, exit 1")]
pub(super) struct DrainArguments {
    /// Address of the worker's admin endpoint, on this machine
    #[arg(long, env = env::ADMIN_ADDR, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    addr: SocketAddr,
    /// Give up after this many seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

/// Drains the worker, and returns once it is idle or has exited.
pub(super) fn run(arguments: &DrainArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let client = http_client(ANSWER_LIMIT)?;
    runtime.block_on(async {
        let drained = drain(&client, own_address(arguments.addr));
        match arguments.wait {
            None => drained.await?,
            Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), drained)
                .await
                .with_context(|| format!("a task was still running after {seconds} s"))??,
        }
        Ok(())
    })
}

/// The address at which to call a worker that listens on `addr`.
fn own_address(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

async fn drain(client: &reqwest::Client, addr: SocketAddr) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut failures = 0;
    loop {
        interval.tick().await;
        let answer = client.post(format!("http://{addr}/drain")).send().await;
        let activity = match answer {
            Err(error) if error.is_connect() => return Ok(()),
            Err(error) => Err(error),
            Ok(answer) => match answer.error_for_status() {
                Err(error) => return Err(error).context("the worker refused to drain"),
                Ok(answer) => answer.json::<Activity>().await,
            },
        };
        match activity {
            Ok(Activity::Draining { task: None } | Activity::Stopped) => return Ok(()),
            Ok(_) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures > MAX_FAILURES {
                    return Err(error).with_context(|| format!("no response from the worker at {addr}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_on_all_addresses_is_called_on_loopback() {
        for (listens, called) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("127.0.0.1:9", "127.0.0.1:9"),
        ] {
            let listens = listens.parse().expect("an address");
            assert_eq!(own_address(listens).to_string(), called);
        }
    }
}
