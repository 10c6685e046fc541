//! Logs on standard error: lines for people, or JSON for machines.

use std::io::stderr;

use clap::{Args, ValueEnum};
use separation_contract::environment as env;
use separation_daemon::OneLine;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Options about logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogsArguments {
    /// What to log: error, warn, info, debug, or per part, as in info,rdkafka=debug
    #[arg(long, env = env::LOG_LEVEL, default_value = "info", value_name = "FILTER")]
    log_level: String,
    /// How to log
    #[arg(
        long,
        env = env::LOG_FORMAT,
        default_value = "text",
        value_enum,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl LogsArguments {
    /// Starts logging, once in a process.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn start(&self) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(&self.log_level)?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| OneLine(stderr()));
        // A second call, in a test's process, changes nothing.
        let _ = match self.log_format {
            LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        Ok(())
    }
}
