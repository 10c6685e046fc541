//! Runs short programs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program to its end and returns its output.
///
/// # Errors
/// If it cannot be started or fails, with its complete output.
pub(crate) fn output(mut command: Command, input: &str) -> Result<String> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut stdin = child
        .stdin
        .take()
        .with_context(|| format!("{name} has no standard input"))?;
    stdin
        .write_all(input.as_bytes())
        .with_context(|| format!("{name} does not read its input"))?;
    drop(stdin);
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {name}"))?;
    let printed = String::from_utf8(output.stdout).with_context(|| format!("{name} did not print UTF-8"))?;
    ensure!(
        output.status.success(),
        "{}{printed}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}
