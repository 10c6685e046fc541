//! Logs on standard error: text lines or JSON.

use std::io::stderr;

use clap::{Args, ValueEnum};
use separation_contract::environment as env;
use separation_daemon::OneLine;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Options for logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogsArguments {
    /// Log level: error, warn, info or debug, or a filter per module, such as info,rdkafka=debug
    #[arg(long, env = env::LOG_LEVEL, default_value = "info", value_name = "FILTER")]
    log_level: String,
    /// Log format
    #[arg(
        long,
        env = env::LOG_FORMAT,
        default_value = "text",
        value_enum,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

/// Log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One text line per event.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogsArguments {
    /// Starts logging, once per process.
    ///
    /// # Errors
    /// When the filter is invalid.
    pub fn start(&self) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(&self.log_level)?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| OneLine(stderr()));
        // A second call in the process of a test has no effect.
        let _ = match self.log_format {
            LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
        Ok(())
    }
}
