//! Progress on standard error: on a terminal, a status line for each role and each running song; elsewhere, a line for
//! each change. Results are printed to standard output.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use separation_operator::decide::{Explanation, PodCounts};
use separation_operator::plan::Role;

/// Interval of the spinners.
const SPINNER_INTERVAL: Duration = Duration::from_millis(120);

/// The display; may be shared between tasks.
pub(super) struct Display {
    state: Mutex<DisplayState>,
}

struct DisplayState {
    /// `None` if standard error is not a terminal.
    bars: Option<MultiProgress>,
    roles: HashMap<Role, ProgressBar>,
    songs: HashMap<String, ProgressBar>,
    last_texts: HashMap<String, String>,
}

impl Display {
    /// A display on standard error.
    pub(super) fn start() -> Self {
        Self {
            state: Mutex::new(DisplayState {
                bars: stderr().is_terminal().then(MultiProgress::new),
                roles: HashMap::new(),
                songs: HashMap::new(),
                last_texts: HashMap::new(),
            }),
        }
    }

    /// Prints a line to standard error.
    pub(super) fn print_line(&self, text: &str) {
        let state = self.lock();
        match &state.bars {
            // It also prints to standard error.
            Some(bars) => drop(bars.println(text)),
            None => drop(writeln!(stderr().lock(), "{text}")),
        }
    }

    /// Prints a result to standard output; a closed pipe is ignored.
    pub(super) fn print_result(&self, text: &str) {
        let state = self.lock();
        let print = || drop(writeln!(stdout().lock(), "{text}"));
        match &state.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    /// Shows a role's status line.
    pub(super) fn show_role(&self, role: Role, explanation: &Explanation) {
        let text = status_line(role, explanation);
        let mut state = self.lock();
        if let Some(bar) = state.role_bar(role) {
            bar.set_message(text);
        } else if state.has_changed(role.name(), &text) {
            drop(writeln!(stderr().lock(), "{text}"));
        }
    }

    /// Shows a song's progress.
    pub(super) fn show_song(&self, name: &str, status: &str) {
        let mut state = self.lock();
        if !state.has_changed(name, status) {
            return;
        }
        let text = format!("{name}: {status}");
        if let Some(bar) = state.song_bar(name) {
            bar.set_message(text);
        } else {
            drop(writeln!(stderr().lock(), "{text}"));
        }
    }

    /// Removes a finished song.
    pub(super) fn finish_song(&self, name: &str) {
        if let Some(bar) = self.lock().songs.remove(name) {
            bar.finish_and_clear();
        }
    }

    /// Removes all status lines.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let bars: Vec<_> = state.songs.drain().map(|(_, bar)| bar).collect();
        let bars = bars.into_iter().chain(state.roles.drain().map(|(_, bar)| bar));
        bars.for_each(|bar| bar.finish_and_clear());
    }

    fn lock(&self) -> MutexGuard<'_, DisplayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DisplayState {
    fn has_changed(&mut self, subject: &str, text: &str) -> bool {
        self.last_texts
            .insert(subject.to_owned(), text.to_owned())
            .as_deref()
            != Some(text)
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
            bar.enable_steady_tick(SPINNER_INTERVAL);
            bar
        }))
    }
}

/// `processor: lag 7, desired 3, busy 2, draining 0 (LimitedByMaxReplicas: 7 messages …)`.
fn status_line(role: Role, explanation: &Explanation) -> String {
    let lag = match explanation.lag {
        Some(lag) if lag.missing == 0 => lag.messages.to_string(),
        Some(lag) => format!("{}+", lag.messages),
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

    use separation_operator::decide::{
        Estimates, GroupReading, History, Lag, LagByPartition, LagReading, Mode, Moment, Observation, Policy,
        ReplicaLimits, Target, Workload, decide,
    };

    use super::*;

    #[test]
    fn a_status_line_has_the_numbers_and_the_reason() {
        let policy = Policy {
            limits: ReplicaLimits::new(0..=2).unwrap(),
            target: Target::TasksPerReplica(NonZeroU32::MIN),
            mode: Mode::Auto,
            stabilization: Duration::ZERO,
            last_replica_stabilization: Duration::ZERO,
            cooldown: Duration::ZERO,
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
                refusal: None,
                estimates: Estimates::default(),
                queue: None,
            };
            let decision = decide(&policy, &observation, History::default(), at);
            status_line(Role::Processor, &decision.explanation)
        };
        assert_eq!(
            line(Lag::Known(LagByPartition::from_messages([1, 1, 1]))),
            "processor: lag 3, desired 2, busy 0, draining 0 (LimitedByMaxReplicas: 3 messages on 3 of 3 partitions need \
             3 replicas; limited by maxReplicas (2))"
        );
        let unknown = line(Lag::Unknown {
            why: "Kafka is unreachable".into(),
        });
        assert!(
            unknown.starts_with("processor: lag unknown, desired 0, busy 0, draining 0 (HeldUnknownLag"),
            "{unknown}"
        );
    }
}
