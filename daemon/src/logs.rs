//! Log options, and logs on standard error: text lines or JSON.

use std::io::stderr;

use clap::{Args, ValueEnum};
use separation_contract::environment as env;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::log_line::OneLine;

/// Options for logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArguments {
    /// Log level: error, warn, info or debug, or a filter per module, such as info,hyper=debug
    #[arg(long, env = env::LOG_LEVEL, default_value = "info", value_name = "FILTER")]
    pub log_level: String,
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
enum LogFormat {
    /// One text line per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Log filter and format.
#[derive(Debug)]
pub struct LogSettings {
    filter: EnvFilter,
    format: LogFormat,
}

impl LogArguments {
    /// Validates the options.
    ///
    /// # Errors
    /// When the filter is invalid.
    pub fn settings(&self) -> Result<LogSettings, ParseError> {
        Ok(LogSettings {
            filter: EnvFilter::builder().parse(&self.log_level)?,
            format: self.log_format,
        })
    }
}

impl LogSettings {
    /// Starts logging, once per process.
    pub fn start(self) {
        let lines = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_writer(|| OneLine(stderr()));
        // A second call in the process of a test has no effect.
        let _ = match self.format {
            LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
    }
}
