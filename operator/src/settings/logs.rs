//! Logs on standard error: text, or JSON.

use std::io::stderr;

use clap::{Args, ValueEnum};
use separation_contract::environment as env;
use separation_daemon::OneLine;
use tracing_subscriber::EnvFilter;

use super::SettingError;

/// Log options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArguments {
    /// Log level: error, warn, info, debug, or per module, as in info,separation_operator=debug
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
    /// Plain text lines
    Text,
    /// One JSON object per line
    Json,
}

/// Log filter and format.
#[derive(Debug)]
pub struct LogSettings {
    filter: EnvFilter,
    format: LogFormat,
}

impl LogArguments {
    pub(super) fn settings(&self) -> Result<LogSettings, SettingError> {
        let filter = EnvFilter::builder()
            .parse(&self.log_level)
            .map_err(|error| SettingError {
                option: "--log-level",
                problem: format!("{:?} is not a valid filter: {error}", self.log_level),
                fix: "use one such as info, or info,kube=debug".to_owned(),
            })?;
        Ok(LogSettings {
            filter,
            format: self.log_format,
        })
    }
}

impl LogSettings {
    /// Starts logging; called once in a process.
    pub fn start(self) {
        let lines = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_writer(|| OneLine(stderr()));
        // A second call, as in a test process, changes nothing.
        let _ = match self.format {
            LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
        };
    }
}
