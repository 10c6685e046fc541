//! Programs that are given something, say something, and end.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs one to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails, with all that it said.
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
        .with_context(|| format!("{name} does not read what it is given"))?;
    drop(stdin);
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {name}"))?;
    let printed = String::from_utf8(output.stdout).with_context(|| format!("{name} printed no text"))?;
    ensure!(
        output.status.success(),
        "{}{printed}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}
