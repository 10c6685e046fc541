//! What a person sees, on standard error: a status line for each role and a line for each running song on a terminal, and
//! a line for each change elsewhere. Results go to standard output.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::decide::{Explanation, PodCounts};
use crate::plan::Role;

/// How often spinners turn.
const TURN: Duration = Duration::from_millis(120);

/// The display, for whoever has something to say.
pub(super) struct Display {
    state: Mutex<State>,
}

struct State {
    /// None where nobody looks at a terminal.
    bars: Option<MultiProgress>,
    roles: HashMap<Role, ProgressBar>,
    songs: HashMap<String, ProgressBar>,
    said: HashMap<String, String>,
}

impl Display {
    /// A display on standard error.
    pub(super) fn start() -> Self {
        Self {
            state: Mutex::new(State {
                bars: stderr().is_terminal().then(MultiProgress::new),
                roles: HashMap::new(),
                songs: HashMap::new(),
                said: HashMap::new(),
            }),
        }
    }

    /// Says something once.
    pub(super) fn say(&self, text: &str) {
        let state = self.lock();
        match &state.bars {
            // It is standard error all the same.
            Some(bars) => drop(bars.println(text)),
            None => drop(writeln!(stderr().lock(), "{text}")),
        }
    }

    /// Prints a result; a reader that has gone away is no error.
    pub(super) fn print(&self, text: &str) {
        let state = self.lock();
        let print = || drop(writeln!(stdout().lock(), "{text}"));
        match &state.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// Says how a role stands.
    pub(super) fn role(&self, role: Role, explanation: &Explanation) {
        let text = status_line(role, explanation);
        let mut state = self.lock();
        if let Some(bar) = state.role_bar(role) {
            bar.set_message(text);
        } else if state.is_new(role.name(), &text) {
            drop(writeln!(stderr().lock(), "{text}"));
        }
    }

    /// Says how far a song is.
    pub(super) fn song(&self, name: &str, words: &str) {
        let mut state = self.lock();
        if !state.is_new(name, words) {
            return;
        }
        let text = format!("{name}: {words}");
        if let Some(bar) = state.song_bar(name) {
            bar.set_message(text);
        } else {
            drop(writeln!(stderr().lock(), "{text}"));
        }
    }

    /// A song is over.
    pub(super) fn song_over(&self, name: &str) {
        if let Some(bar) = self.lock().songs.remove(name) {
            bar.finish_and_clear();
        }
    }

    /// Clears what moves.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let bars: Vec<_> = state.songs.drain().map(|(_, bar)| bar).collect();
        let bars = bars.into_iter().chain(state.roles.drain().map(|(_, bar)| bar));
        bars.for_each(|bar| bar.finish_and_clear());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_new(&mut self, subject: &str, text: &str) -> bool {
        self.said.insert(subject.to_owned(), text.to_owned()).as_deref() != Some(text)
    }

    fn role_bar(&mut self, role: Role) -> Option<&ProgressBar> {
        let bars = self.bars.as_ref()?;
        Some(self.roles.entry(role).or_insert_with(|| {
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is valid");
            bars.add(ProgressBar::new_spinner().with_style(style))
        }))
    }

    fn song_bar(&mut self, name: &str) -> Option<&ProgressBar> {
        let bars = self.bars.as_ref()?;
        Some(self.songs.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is valid");
            let bar = bars.insert(0, ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(TURN);
            bar
        }))
    }
}

/// `processor: lag 7, desired 3, busy 2, draining 0 (CappedByMax: 7 messages …)`.
fn status_line(role: Role, explanation: &Explanation) -> String {
    let lag = match explanation.work {
        Some(work) if work.missing == 0 => work.messages.to_string(),
        Some(work) => format!("{}+", work.messages),
        None => "unknown".to_owned(),
    };
    let PodCounts {
        draining, activity, ..
    } = explanation.pods;
    let busy = activity.map_or_else(|| "unknown".to_owned(), |activity| activity.busy.to_string());
    format!(
        "{role}: lag {lag}, desired {}, busy {busy}, draining {draining} ({}: {explanation})",
        explanation.desired, explanation.reason
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::decide::{
        Bounds, GroupReading, History, Lag, LagReading, Mode, Moment, Observation, Policy, Target, Work,
        Workload, decide,
    };

    #[test]
    fn a_status_line_has_the_numbers_and_the_reason() {
        let policy = Policy {
            bounds: Bounds::new(0..=2).unwrap(),
            target: Target::TasksPerReplica(NonZeroU32::MIN),
            mode: Mode::Active,
            stabilisation: Duration::ZERO,
            settle: Duration::ZERO,
            rebalance_hold: Duration::ZERO,
            stale_after: Duration::from_secs(9),
        };
        let at = Moment::from_millis(1);
        let line = |lag| {
            let observation = Observation {
                lag: LagReading { at, lag },
                group: GroupReading::NotRead,
                workload: Workload::default(),
                conflict: None,
                held: None,
            };
            let decision = decide(&policy, &observation, History::default(), at);
            status_line(Role::Processor, &decision.explanation)
        };
        assert_eq!(
            line(Lag::Known(Work::of([1, 1, 1]))),
            "processor: lag 3, desired 2, busy 0, draining 0 (CappedByMax: 3 messages on 3 of 3 partitions deserve \
             3 workers; maxReplicas allows 2)"
        );
        let unknown = line(Lag::Unknown {
            why: "Kafka is away".into(),
        });
        assert!(
            unknown.starts_with("processor: lag unknown, desired 0, busy 0, draining 0 (HeldUnknownLag"),
            "{unknown}"
        );
    }
}
