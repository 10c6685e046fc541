//! The tasks that this process takes to the queue, and those that it looks at again later. No I/O and no clock.

use std::collections::HashMap;
use std::time::Duration;

use separation_contract::message::TaskId;
use tokio::time::Instant;

use crate::task_store::Incoming;

/// Maximum number of one client's tasks whose song is to be fetched, those that wait for a slot included. The others
/// stay in the store.
const MAX_FETCHES_PER_CLIENT: usize = 64;

/// Maximum number of tasks whose song is staged. They do not wait for slow servers, only for the brokers.
const MAX_STAGED: usize = 1024;

/// How long a task that was to be looked at again is remembered if it is not listed any more.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The tasks in progress and those to look at again later.
#[derive(Default)]
pub(super) struct Jobs {
    running: HashMap<TaskId, Running>,
    /// Running jobs of tasks whose song is to be fetched, by client.
    fetches: HashMap<String, usize>,
    /// Running jobs of other tasks.
    staged: usize,
    /// When tasks are looked at again.
    later: HashMap<TaskId, Instant>,
}

/// A job in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// It knows all that is stored.
    Current,
    /// The record of its task was stored meanwhile.
    Outdated,
}

/// Whether a job begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// It begins.
    New,
    /// It begins, and is a repeated look at a task that could not be taken up before.
    Repeated,
    /// It does not: the task is in progress, or to be looked at later, or there are too many jobs.
    No,
}

impl Jobs {
    /// Begins the job of a task whose record was stored just now, unless it is in progress or there are too many.
    pub(super) fn begin_accepted(&mut self, incoming: &Incoming) -> Begin {
        self.later.remove(&incoming.id);
        match self.running.get_mut(&incoming.id) {
            Some(running) => {
                *running = Running::Outdated;
                Begin::No
            }
            None => self.begin(incoming, Begin::New),
        }
    }

    /// Begins the job of a listed task.
    pub(super) fn begin_listed(&mut self, incoming: &Incoming, now: Instant) -> Begin {
        if self.running.contains_key(&incoming.id) {
            return Begin::No;
        }
        match self.later.get(&incoming.id) {
            Some(time) if now < *time => Begin::No,
            Some(_) => self.begin(incoming, Begin::Repeated),
            None => self.begin(incoming, Begin::New),
        }
    }

    fn begin(&mut self, incoming: &Incoming, begin: Begin) -> Begin {
        let (count, limit) = match incoming.is_staged {
            true => (&mut self.staged, MAX_STAGED),
            false => {
                let fetches = self.fetches.entry(incoming.client.clone()).or_default();
                (fetches, MAX_FETCHES_PER_CLIENT)
            }
        };
        if *count >= limit {
            return Begin::No;
        }
        *count += 1;
        self.running.insert(incoming.id.clone(), Running::Current);
        begin
    }

    /// Ends a job. `pause` is that before its task is looked at again, if there is something left to do. Returns whether
    /// the job is to begin again instead, because its task's record was stored meanwhile.
    pub(super) fn end(&mut self, incoming: &Incoming, pause: Option<Duration>, now: Instant) -> bool {
        let ended = self.running.remove(&incoming.id);
        if pause.is_some() && ended == Some(Running::Outdated) {
            self.running.insert(incoming.id.clone(), Running::Current);
            return true;
        }
        if incoming.is_staged {
            self.staged -= 1;
        } else if let Some(count) = self.fetches.get_mut(&incoming.client) {
            *count -= 1;
            if *count == 0 {
                self.fetches.remove(&incoming.client);
            }
        }
        self.later.retain(|_, time| now < *time + REMEMBERED);
        match pause {
            Some(pause) => self.later.insert(incoming.id.clone(), now + pause),
            None => self.later.remove(&incoming.id),
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(client: &str, number: usize) -> Incoming {
        Incoming {
            id: TaskId::parse(&format!("{client}-{number}")).unwrap(),
            client: client.to_owned(),
            is_staged: false,
            accepted_at: 0,
        }
    }

    #[test]
    fn links_of_one_client_hold_up_neither_other_clients_nor_staged_songs() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        for number in 0..MAX_FETCHES_PER_CLIENT {
            assert_eq!(jobs.begin_listed(&link("a", number), now), Begin::New);
        }
        let further = link("a", MAX_FETCHES_PER_CLIENT);
        assert_eq!(jobs.begin_listed(&further, now), Begin::No);
        assert_eq!(jobs.begin_accepted(&further), Begin::No);
        assert_eq!(jobs.begin_listed(&link("b", 0), now), Begin::New);
        let staged = Incoming {
            is_staged: true,
            ..further.clone()
        };
        assert_eq!(jobs.begin_accepted(&staged), Begin::New);
        assert!(!jobs.end(&staged, None, now));
        assert!(!jobs.end(&link("a", 0), None, now));
        assert_eq!(
            jobs.begin_listed(&further, now),
            Begin::New,
            "there is room again"
        );
    }

    #[test]
    fn a_task_that_cannot_be_taken_up_is_looked_at_again_after_its_pause() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        let (task, pause) = (link("a", 0), Duration::from_secs(30));
        assert_eq!(jobs.begin_listed(&task, now), Begin::New);
        assert!(!jobs.end(&task, Some(pause), now));
        assert_eq!(jobs.begin_listed(&task, now + pause / 2), Begin::No);
        assert_eq!(jobs.begin_listed(&task, now + pause), Begin::Repeated);
        assert!(!jobs.end(&task, Some(pause), now + pause));
        assert_eq!(jobs.begin_accepted(&task), Begin::New, "its record is stored now");
        assert_eq!(jobs.begin_accepted(&task), Begin::No, "it is in progress");
        assert!(jobs.end(&task, Some(pause), now), "it may have read no record");
        assert!(!jobs.end(&task, None, now));
        assert_eq!(jobs.begin_listed(&task, now), Begin::New);
    }
}
