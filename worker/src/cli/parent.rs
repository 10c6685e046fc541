//! Ending with the process that started this one, where that is asked for.

use std::time::Duration;

use clap::Args;
use separation_contract::environment as env;

use crate::service::Shutdown;

/// Time between two looks whether it still runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ParentArguments {
    /// End in order once this process, which started this one, is gone
    #[arg(long, env = env::PARENT_PROCESS, value_name = "PID", hide = true)]
    parent_process: Option<u32>,
}

impl ParentArguments {
    /// Drains once the process is gone. To be called within a runtime.
    pub(super) fn follow(self, shutdown: &Shutdown) {
        let Some(parent) = self.parent_process else { return };
        let drain = shutdown.drain.clone();
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK_INTERVAL);
            // Whoever loses its parent gets another one.
            while std::os::unix::process::parent_id() == parent {
                looks.tick().await;
            }
            tracing::info!(
                parent,
                "The process that started this one is gone, initiating graceful shutdown..."
            );
            drain.cancel();
        });
    }
}
