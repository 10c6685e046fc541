//! Two and more replicas with clocks of their own, frozen at any moment, over a network that delays and loses: never do
//! two of them lead at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::election::{Basis, Election, Record, Step};
use crate::settings::LeaseTimings;

/// What a network and a scheduler may do.
#[derive(Debug, Clone)]
struct World {
    seed: u64,
    /// The longest way of a request or an answer, in milliseconds.
    longest_way: u64,
    /// Of a hundred requests or answers, so many are lost.
    lost: u8,
    replicas: Vec<Place>,
}

/// One replica's machine.
#[derive(Debug, Clone)]
struct Place {
    /// What its clock shows when the world begins, in milliseconds.
    clock: u64,
    /// By how much its clock is fast, in parts of a thousand.
    fast: i64,
    /// When it is frozen, and for how long, in milliseconds.
    frozen: Vec<(u64, u64)>,
    /// When it is killed.
    killed: Option<u64>,
}

const LASTS: u64 = 300_000;

/// More than there are events.
const LATE: u64 = 1 << 40;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A replica's timer, or a time limit of its request; of this try.
    Timer { replica: usize, try_: u64 },
    /// A request reaches the server.
    Arrives {
        replica: usize,
        try_: u64,
        request: Request,
    },
    /// An answer reaches a replica.
    Answered {
        replica: usize,
        try_: u64,
        answer: Answer,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    Look,
    Create,
    Replace { version: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Lease(Option<(usize, u64)>),
    Written(u64),
    Refused,
}

struct Replica {
    place: Place,
    election: Election,
    base: Instant,
    /// The try under way, or the one that the timer waits for.
    try_: u64,
    busy: bool,
    asked: Instant,
}

struct Run {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    lease: Option<(usize, u64)>,
    version: u64,
    chance: fastrand::Rng,
    replicas: Vec<Replica>,
    world: World,
    /// When each time of leading began, and whose it is.
    begun: Vec<(u64, usize)>,
}

fn name(replica: usize) -> Arc<str> {
    format!("replica-{replica}").into()
}

impl Place {
    /// When a thing that is due at `at` really happens: not while the replica is frozen.
    fn awake(&self, at: u64) -> Option<u64> {
        let mut at = at;
        for (from, length) in &self.frozen {
            if (*from..from + length).contains(&at) {
                at = from + length;
            }
        }
        self.killed.is_none_or(|killed| at < killed).then_some(at)
    }

    fn clock(&self, now: u64) -> Duration {
        let drift = i64::try_from(now).expect("small") * self.fast / 1_000;
        Duration::from_millis(
            (self.clock + now)
                .checked_add_signed(drift)
                .expect("after its start"),
        )
    }
}

impl Run {
    fn new(world: World) -> Self {
        let base = Instant::now();
        let replicas = world.replicas.iter().enumerate().map(|(index, place)| Replica {
            place: place.clone(),
            election: Election::new(name(index), LeaseTimings::default()),
            base,
            try_: 0,
            busy: false,
            asked: base,
        });
        let mut run = Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            lease: None,
            version: 0,
            chance: fastrand::Rng::with_seed(world.seed),
            replicas: replicas.collect(),
            world,
            begun: Vec::new(),
        };
        for replica in 0..run.replicas.len() {
            let at = run.chance.u64(0..3_000);
            run.timer(replica, at);
        }
        run
    }

    fn clock(&self, replica: usize) -> Instant {
        let replica = &self.replicas[replica];
        replica.base + replica.place.clock(self.now)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        // As with `tokio::time::timeout`: an answer that came while frozen is seen before the limit that passed.
        let late = if matches!(event, Event::Timer { .. }) {
            LATE
        } else {
            0
        };
        self.events.push(Reverse((at, late + self.order, event)));
    }

    fn timer(&mut self, replica: usize, at: u64) {
        let Some(at) = self.replicas[replica].place.awake(at) else {
            return;
        };
        let try_ = self.replicas[replica].try_;
        self.at(at, Event::Timer { replica, try_ });
    }

    fn holders(&self) -> Vec<usize> {
        let holds = |replica: &usize| {
            let now = self.clock(*replica);
            let held = self.replicas[*replica].election.standing(now).held;
            held.is_some_and(|held| now < held.until)
        };
        let alive = |replica: &usize| {
            let killed = self.replicas[*replica].place.killed;
            killed.is_none_or(|killed| self.now < killed)
        };
        (0..self.replicas.len())
            .filter(|replica| alive(replica) && holds(replica))
            .collect()
    }

    /// Runs to the end; the two that led at a time, if any did.
    fn run(&mut self) -> Option<Vec<usize>> {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > LASTS {
                break;
            }
            self.now = at;
            let before = self.holders();
            self.happens(event);
            let after = self.holders();
            // A time of leading begins with an event, and ends by itself.
            if after.len() > 1 {
                return Some(after);
            }
            if let Some(new) = after.iter().find(|new| !before.contains(new)) {
                self.begun.push((self.now, *new));
            }
        }
        None
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Timer { replica, try_ } if self.replicas[replica].try_ == try_ => {
                if self.replicas[replica].busy {
                    // No answer in time.
                    self.end_try(replica);
                } else {
                    self.begin_try(replica);
                }
            }
            Event::Arrives {
                replica,
                try_,
                request,
            } => {
                let answer = self.serve(replica, &request);
                if let Some(at) = self.way()
                    && let Some(at) = self.replicas[replica].place.awake(at)
                {
                    self.at(
                        at,
                        Event::Answered {
                            replica,
                            try_,
                            answer,
                        },
                    );
                }
            }
            Event::Answered {
                replica,
                try_,
                answer,
            } if self.replicas[replica].try_ == try_ => self.answered(replica, &answer),
            Event::Timer { .. } | Event::Answered { .. } => {}
        }
    }

    fn serve(&mut self, replica: usize, request: &Request) -> Answer {
        match (request, self.lease) {
            (Request::Look, lease) => Answer::Lease(lease),
            (Request::Create, None) => self.write(replica),
            (Request::Replace { version }, Some((_, current))) if *version == current => self.write(replica),
            _ => Answer::Refused,
        }
    }

    fn write(&mut self, replica: usize) -> Answer {
        self.version += 1;
        self.lease = Some((replica, self.version));
        Answer::Written(self.version)
    }

    fn begin_try(&mut self, replica: usize) {
        let now = self.clock(replica);
        self.replicas[replica].asked = now;
        self.replicas[replica].election.expire(now);
        if self.replicas[replica].election.must_look() {
            self.send(replica, Request::Look);
        } else {
            self.step(replica);
        }
    }

    fn step(&mut self, replica: usize) {
        let now = self.clock(replica);
        let version = |version: &str| version.parse().expect("a number");
        let request = match self.replicas[replica].election.step(now) {
            Step::Wait => return self.end_try(replica),
            Step::Acquire(Basis::Absent) | Step::Renew(Basis::Absent) => Request::Create,
            Step::Acquire(Basis::Version(basis)) | Step::Renew(Basis::Version(basis)) => Request::Replace {
                version: version(&basis),
            },
        };
        self.replicas[replica].election.unsure();
        self.replicas[replica].asked = now;
        self.send(replica, request);
    }

    fn send(&mut self, replica: usize, request: Request) {
        self.replicas[replica].try_ += 1;
        self.replicas[replica].busy = true;
        let try_ = self.replicas[replica].try_;
        if let Some(at) = self.way() {
            self.at(
                at,
                Event::Arrives {
                    replica,
                    try_,
                    request,
                },
            );
        }
        let limit = LeaseTimings::default().request_timeout().as_millis();
        self.timer(replica, self.now + u64::try_from(limit).expect("small"));
    }

    fn answered(&mut self, replica: usize, answer: &Answer) {
        let now = self.clock(replica);
        let record = |(holder, version): (usize, u64)| Record {
            holder: Some(name(holder)),
            duration: Some(LeaseTimings::default().duration()),
            version: version.to_string().into(),
        };
        match answer {
            Answer::Lease(lease) => {
                self.replicas[replica].election.saw(lease.map(record), now);
                self.step(replica);
            }
            Answer::Written(version) => {
                let asked = self.replicas[replica].asked;
                self.replicas[replica]
                    .election
                    .wrote(record((replica, *version)), asked);
                self.end_try(replica);
            }
            Answer::Refused => self.end_try(replica),
        }
    }

    fn end_try(&mut self, replica: usize) {
        let now = self.clock(replica);
        let chance = self.chance.f64();
        let one = &mut self.replicas[replica];
        one.try_ += 1;
        one.busy = false;
        one.election.expire(now);
        let next = one.election.next_try(one.asked, now, chance);
        let wait = u64::try_from((next - now).as_millis()).expect("small") + 1;
        self.timer(replica, self.now + wait);
    }

    /// When something that is sent now arrives.
    fn way(&mut self) -> Option<u64> {
        let lost = self.chance.u8(0..100) < self.world.lost;
        let takes = self.chance.u64(1..=self.world.longest_way);
        (!lost).then_some(self.now + takes)
    }
}

fn places(killed: bool) -> impl Strategy<Value = Place> {
    let frozen = prop::collection::vec((0..LASTS, 1..30_000_u64), 0..10);
    let killed = if killed {
        prop::option::of(0..LASTS).boxed()
    } else {
        Just(None).boxed()
    };
    (0..1_000_000_000_u64, -10..=10_i64, frozen, killed).prop_map(|(clock, fast, mut frozen, killed)| {
        frozen.sort_unstable();
        Place {
            clock: clock + 1_000_000,
            fast,
            frozen,
            killed,
        }
    })
}

fn worlds() -> impl Strategy<Value = World> {
    let replicas = prop::collection::vec(places(true), 2..=4);
    // Mostly a network on which somebody leads, sometimes one on which hardly anybody does.
    let longest_way = prop_oneof![1..50_u64, 50..3_000_u64, 50..3_000_u64, 3_000..20_000_u64];
    let lost = prop_oneof![Just(0_u8), 0..10_u8, 0..60_u8];
    (any::<u64>(), longest_way, lost, replicas).prop_map(|(seed, longest_way, lost, replicas)| World {
        seed,
        longest_way,
        lost,
        replicas,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn never_do_two_lead_at_a_time(world in worlds()) {
        let mut run = Run::new(world);
        let together = run.run();
        prop_assert!(together.is_none(), "{together:?} at {} ms", run.now);
    }

    #[test]
    fn a_standby_leads_within_twenty_seconds_of_its_leaders_death(
        seed in any::<u64>(),
        clocks in (places(false), places(false)),
        killed in 30_000..60_000_u64,
    ) {
        let well = |place: Place| Place { frozen: Vec::new(), ..place };
        let world = World {
            seed,
            longest_way: 200,
            lost: 0,
            replicas: vec![well(clocks.0), well(clocks.1)],
        };
        let mut run = Run::new(world.clone());
        run.run();
        let leader = run.begun.first().expect("somebody leads").1;
        let mut world = world;
        world.replicas[leader].killed = Some(killed);
        let mut run = Run::new(world);
        prop_assert!(run.run().is_none());
        let next = run.begun.iter().find(|(_, replica)| *replica != leader);
        let (at, _) = next.expect("the other leads");
        prop_assert!(*at >= killed && at - killed <= 20_000, "{} ms", at - killed);
    }
}
