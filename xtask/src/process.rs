//! Runs other programs; errors contain the command line.

use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program that shares our terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = started(command.status(), command)?;
    expect_success(status, command)
}

/// A program that runs beside us; it ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    command: Command,
}

/// Starts a program that shares our output.
pub(crate) fn start(mut command: Command) -> Result<Running> {
    let child = started(command.stdin(Stdio::null()).spawn(), &command)?;
    Ok(Running { child, command })
}

impl Running {
    /// Waits for the end of the program, and fails unless it succeeded.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for a program")?;
        expect_success(status, &self.command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing once the program has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program and returns its output; its standard error goes to ours.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let (printed, status) = read_with_status(command)?;
    expect_success(status, command)?;
    Ok(printed)
}

/// The same for a program with output even when it fails.
pub(crate) fn read_with_status(command: &mut Command) -> Result<(String, ExitStatus)> {
    let output = started(command.stderr(Stdio::inherit()).output(), command)?;
    let printed = String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` did not print UTF-8", line(command)))?;
    Ok((printed, output.status))
}

/// Runs a program and keeps everything it printed, whether it succeeded or not.
pub(crate) fn observe(command: &mut Command) -> Result<Output> {
    started(command.stdin(Stdio::null()).output(), command)
}

/// Whether a program can be started and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command line, without the environment, as a user would type it.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn started<T>(result: io::Result<T>, command: &Command) -> Result<T> {
    result.with_context(|| format!("cannot start `{}`", line(command)))
}

/// Fails on any exit status except success.
pub(crate) fn expect_success(status: ExitStatus, command: &Command) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_user_would_type_it() {
        let mut command = Command::new("cp");
        command.args(["--no-clobber", "it's mine.wav", ""]);
        assert_eq!(line(&command), r"cp --no-clobber 'it'\''s mine.wav' ''");
    }

    #[test]
    fn a_failure_names_the_command() {
        let failed = run(&mut Command::new("false")).unwrap_err();
        assert_eq!(failed.to_string(), "`false` failed (exit status: 1)");
        let missing = run(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot start `no-such-program`");
    }

    #[test]
    fn the_output_of_a_program_is_returned() {
        assert_eq!(
            read(Command::new("echo").arg("two words")).unwrap(),
            "two words\n"
        );
    }
}
