//! How far songs are that were posted: a bar on a terminal, a line for each change elsewhere. On standard error.

use std::collections::HashMap;
use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use super::printing::{escaped, line_err};

pub(super) struct SubmitProgress {
    /// What was last said of each song.
    said: HashMap<String, String>,
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
            said: HashMap::new(),
            bar,
        }
    }

    pub(super) fn update(&mut self, name: &str, words: &str) {
        if self.said.get(name).is_some_and(|said| said == words) {
            return;
        }
        self.said.insert(name.to_owned(), words.to_owned());
        match &self.bar {
            Some(bar) => bar.set_message(escaped(&format!("{name}: {words}")).into_owned()),
            None => line_err(&format!("{name}: {words}")),
        }
    }

    /// One song is over; `print` says so, above the bar.
    pub(super) fn over<T>(&self, print: impl FnOnce() -> T) -> T {
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
