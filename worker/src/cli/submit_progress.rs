//! Progress of posted songs: a bar on a terminal, else a line for each change. On standard error.

use std::collections::HashMap;
use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use super::printing::{escaped, line_err};

pub(super) struct SubmitProgress {
    /// The last line printed for each song.
    last_lines: HashMap<String, String>,
    bar: Option<ProgressBar>,
}

impl SubmitProgress {
    pub(super) fn start(songs: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:20} {pos} of {len}  {wide_msg}");
            let bar = ProgressBar::new(songs as u64);
            bar.set_style(style.expect("the template is valid"));
            bar.tick();
            bar
        });
        Self {
            last_lines: HashMap::new(),
            bar,
        }
    }

    pub(super) fn update(&mut self, name: &str, text: &str) {
        if self.last_lines.get(name).is_some_and(|last| last == text) {
            return;
        }
        self.last_lines.insert(name.to_owned(), text.to_owned());
        match &self.bar {
            Some(bar) => bar.set_message(escaped(&format!("{name}: {text}")).into_owned()),
            None => line_err(&format!("{name}: {text}")),
        }
    }

    /// Counts one ended song; `print` prints its report above the bar.
    pub(super) fn finish_one<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.suspend(print)
            }
            None => print(),
        }
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
