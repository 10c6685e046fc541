//! Optional: drains this process once its parent process has exited.

use std::time::Duration;

use clap::Args;
use separation_contract::environment as env;

use crate::service::Shutdown;

/// Polling interval of the parent process.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ParentArguments {
    /// Shut down gracefully once the parent process with this ID has exited
    #[arg(long, env = env::PARENT_PROCESS, value_name = "PID", hide = true)]
    parent_process: Option<u32>,
}

impl ParentArguments {
    /// Drains once the parent process has exited. Call within a runtime.
    pub(super) fn follow(self, shutdown: &Shutdown) {
        let Some(parent) = self.parent_process else { return };
        let drain = shutdown.drain.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(POLL_INTERVAL);
            // An orphaned process gets another parent.
            while std::os::unix::process::parent_id() == parent {
                interval.tick().await;
            }
            tracing::info!(
                parent,
                "The parent process has exited, initiating graceful shutdown..."
            );
            drain.cancel();
        });
    }
}
