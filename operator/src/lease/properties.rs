//! Property: two or more replicas with their own clocks, frozen at any moment, over a network that delays and loses
//! messages, never lead at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::election::{Election, ElectionAction, Precondition, Record};
use crate::settings::LeaseTimings;

/// A network and its replicas.
#[derive(Debug, Clone)]
struct Network {
    seed: u64,
    /// The longest delay of a request or a response, in milliseconds.
    max_latency: u64,
    /// Percentage of requests and responses that are lost.
    lost: u8,
    replicas: Vec<Machine>,
}

/// One replica's machine.
#[derive(Debug, Clone)]
struct Machine {
    /// Its clock at the start, in milliseconds.
    clock: u64,
    /// How fast its clock runs, in parts per thousand too fast.
    drift_per_mille: i64,
    /// Freezes: start and length, in milliseconds.
    frozen: Vec<(u64, u64)>,
    /// When it is killed, in milliseconds.
    killed: Option<u64>,
}

const RUN_LENGTH: u64 = 300_000;

/// Larger than the number of events.
const LATE: u64 = 1 << 40;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NetworkEvent {
    /// A replica's timer, or the timeout of its request.
    Timer { replica: usize, attempt: u64 },
    /// A request reaches the server.
    Arrives {
        replica: usize,
        attempt: u64,
        request: LeaseRequest,
    },
    /// A response reaches a replica.
    Responded {
        replica: usize,
        attempt: u64,
        response: LeaseResponse,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LeaseRequest {
    Read,
    Create,
    Replace { version: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LeaseResponse {
    Lease(Option<(usize, u64)>),
    Written(u64),
    Refused,
}

struct SimulatedReplica {
    machine: Machine,
    election: Election,
    base: Instant,
    /// The current attempt, or the one that the timer starts.
    attempt: u64,
    busy: bool,
    requested_at: Instant,
}

struct Run {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, NetworkEvent)>>,
    order: u64,
    lease: Option<(usize, u64)>,
    version: u64,
    rng: fastrand::Rng,
    replicas: Vec<SimulatedReplica>,
    network: Network,
    /// The start of each term, and its replica.
    terms: Vec<(u64, usize)>,
}

fn name(replica: usize) -> Arc<str> {
    format!("replica-{replica}").into()
}

impl Machine {
    /// When an event that is due at `at` happens: after any freeze; `None` if the replica is killed before.
    fn awake_at(&self, at: u64) -> Option<u64> {
        let mut at = at;
        for (from, length) in &self.frozen {
            if (*from..from + length).contains(&at) {
                at = from + length;
            }
        }
        self.killed.is_none_or(|killed| at < killed).then_some(at)
    }

    fn clock(&self, now: u64) -> Duration {
        let drift = i64::try_from(now).expect("small") * self.drift_per_mille / 1_000;
        Duration::from_millis(
            (self.clock + now)
                .checked_add_signed(drift)
                .expect("after its start"),
        )
    }
}

impl Run {
    fn new(network: Network) -> Self {
        let base = Instant::now();
        let replicas = network
            .replicas
            .iter()
            .enumerate()
            .map(|(index, machine)| SimulatedReplica {
                machine: machine.clone(),
                election: Election::new(name(index), LeaseTimings::default()),
                base,
                attempt: 0,
                busy: false,
                requested_at: base,
            });
        let mut run = Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            lease: None,
            version: 0,
            rng: fastrand::Rng::with_seed(network.seed),
            replicas: replicas.collect(),
            network,
            terms: Vec::new(),
        };
        for replica in 0..run.replicas.len() {
            let at = run.rng.u64(0..3_000);
            run.timer(replica, at);
        }
        run
    }

    fn clock(&self, replica: usize) -> Instant {
        let replica = &self.replicas[replica];
        replica.base + replica.machine.clock(self.now)
    }

    fn at(&mut self, at: u64, event: NetworkEvent) {
        self.order += 1;
        // As with `tokio::time::timeout`: a response that arrived during a freeze is handled before the timeout.
        let late = if matches!(event, NetworkEvent::Timer { .. }) {
            LATE
        } else {
            0
        };
        self.events.push(Reverse((at, late + self.order, event)));
    }

    fn timer(&mut self, replica: usize, at: u64) {
        let Some(at) = self.replicas[replica].machine.awake_at(at) else {
            return;
        };
        let attempt = self.replicas[replica].attempt;
        self.at(at, NetworkEvent::Timer { replica, attempt });
    }

    fn holders(&self) -> Vec<usize> {
        let is_leading = |replica: &usize| {
            let now = self.clock(*replica);
            let held = self.replicas[*replica].election.state(now).held;
            held.is_some_and(|held| now < held.until)
        };
        let alive = |replica: &usize| {
            let killed = self.replicas[*replica].machine.killed;
            killed.is_none_or(|killed| self.now < killed)
        };
        (0..self.replicas.len())
            .filter(|replica| alive(replica) && is_leading(replica))
            .collect()
    }

    /// Runs to the end, or until several replicas lead at the same time; returns those.
    fn run(&mut self) -> Option<Vec<usize>> {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > RUN_LENGTH {
                break;
            }
            self.now = at;
            let before = self.holders();
            self.handle(event);
            let after = self.holders();
            // A term begins with an event, and ends by itself.
            if after.len() > 1 {
                return Some(after);
            }
            if let Some(new) = after.iter().find(|new| !before.contains(new)) {
                self.terms.push((self.now, *new));
            }
        }
        None
    }

    fn handle(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Timer { replica, attempt } if self.replicas[replica].attempt == attempt => {
                if self.replicas[replica].busy {
                    // The request timed out.
                    self.end_attempt(replica);
                } else {
                    self.begin_attempt(replica);
                }
            }
            NetworkEvent::Arrives {
                replica,
                attempt,
                request,
            } => {
                let response = self.serve(replica, &request);
                if let Some(at) = self.delivery_time()
                    && let Some(at) = self.replicas[replica].machine.awake_at(at)
                {
                    self.at(
                        at,
                        NetworkEvent::Responded {
                            replica,
                            attempt,
                            response,
                        },
                    );
                }
            }
            NetworkEvent::Responded {
                replica,
                attempt,
                response,
            } if self.replicas[replica].attempt == attempt => self.responded(replica, &response),
            NetworkEvent::Timer { .. } | NetworkEvent::Responded { .. } => {}
        }
    }

    fn serve(&mut self, replica: usize, request: &LeaseRequest) -> LeaseResponse {
        match (request, self.lease) {
            (LeaseRequest::Read, lease) => LeaseResponse::Lease(lease),
            (LeaseRequest::Create, None) => self.write(replica),
            (LeaseRequest::Replace { version }, Some((_, current))) if *version == current => {
                self.write(replica)
            }
            _ => LeaseResponse::Refused,
        }
    }

    fn write(&mut self, replica: usize) -> LeaseResponse {
        self.version += 1;
        self.lease = Some((replica, self.version));
        LeaseResponse::Written(self.version)
    }

    fn begin_attempt(&mut self, replica: usize) {
        let now = self.clock(replica);
        self.replicas[replica].requested_at = now;
        self.replicas[replica].election.expire(now);
        if self.replicas[replica].election.must_read() {
            self.send(replica, LeaseRequest::Read);
        } else {
            self.step(replica);
        }
    }

    fn step(&mut self, replica: usize) {
        let now = self.clock(replica);
        let version = |version: &str| version.parse().expect("a number");
        let request = match self.replicas[replica].election.next_action(now) {
            ElectionAction::Wait => return self.end_attempt(replica),
            ElectionAction::Acquire(Precondition::Absent) | ElectionAction::Renew(Precondition::Absent) => {
                LeaseRequest::Create
            }
            ElectionAction::Acquire(Precondition::Version(precondition))
            | ElectionAction::Renew(Precondition::Version(precondition)) => LeaseRequest::Replace {
                version: version(&precondition),
            },
        };
        self.replicas[replica].election.mark_uncertain();
        self.replicas[replica].requested_at = now;
        self.send(replica, request);
    }

    fn send(&mut self, replica: usize, request: LeaseRequest) {
        self.replicas[replica].attempt += 1;
        self.replicas[replica].busy = true;
        let attempt = self.replicas[replica].attempt;
        if let Some(at) = self.delivery_time() {
            self.at(
                at,
                NetworkEvent::Arrives {
                    replica,
                    attempt,
                    request,
                },
            );
        }
        let limit = LeaseTimings::default().request_timeout().as_millis();
        self.timer(replica, self.now + u64::try_from(limit).expect("small"));
    }

    fn responded(&mut self, replica: usize, response: &LeaseResponse) {
        let now = self.clock(replica);
        let record = |(holder, version): (usize, u64)| Record {
            holder: Some(name(holder)),
            duration: Some(LeaseTimings::default().duration()),
            version: version.to_string().into(),
        };
        match response {
            LeaseResponse::Lease(lease) => {
                self.replicas[replica]
                    .election
                    .record_read(lease.map(record), now);
                self.step(replica);
            }
            LeaseResponse::Written(version) => {
                let requested_at = self.replicas[replica].requested_at;
                self.replicas[replica]
                    .election
                    .record_write(record((replica, *version)), requested_at);
                self.end_attempt(replica);
            }
            LeaseResponse::Refused => self.end_attempt(replica),
        }
    }

    fn end_attempt(&mut self, replica: usize) {
        let now = self.clock(replica);
        let random = self.rng.f64();
        let one = &mut self.replicas[replica];
        one.attempt += 1;
        one.busy = false;
        one.election.expire(now);
        let next = one.election.next_attempt(one.requested_at, now, random);
        let wait = u64::try_from((next - now).as_millis()).expect("small") + 1;
        self.timer(replica, self.now + wait);
    }

    /// When a message that is sent now arrives; `None` if it is lost.
    fn delivery_time(&mut self) -> Option<u64> {
        let lost = self.rng.u8(0..100) < self.network.lost;
        let takes = self.rng.u64(1..=self.network.max_latency);
        (!lost).then_some(self.now + takes)
    }
}

fn machines(killed: bool) -> impl Strategy<Value = Machine> {
    let frozen = prop::collection::vec((0..RUN_LENGTH, 1..30_000_u64), 0..10);
    let killed = if killed {
        prop::option::of(0..RUN_LENGTH).boxed()
    } else {
        Just(None).boxed()
    };
    (0..1_000_000_000_u64, -10..=10_i64, frozen, killed).prop_map(
        |(clock, drift_per_mille, mut frozen, killed)| {
            frozen.sort_unstable();
            Machine {
                clock: clock + 1_000_000,
                drift_per_mille,
                frozen,
                killed,
            }
        },
    )
}

fn networks() -> impl Strategy<Value = Network> {
    let replicas = prop::collection::vec(machines(true), 2..=4);
    // Mostly networks on which a replica leads, sometimes one too slow for that.
    let max_latency = prop_oneof![1..50_u64, 50..3_000_u64, 50..3_000_u64, 3_000..20_000_u64];
    let lost = prop_oneof![Just(0_u8), 0..10_u8, 0..60_u8];
    (any::<u64>(), max_latency, lost, replicas).prop_map(|(seed, max_latency, lost, replicas)| Network {
        seed,
        max_latency,
        lost,
        replicas,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn two_replicas_never_lead_at_the_same_time(network in networks()) {
        let mut run = Run::new(network);
        let leaders = run.run();
        prop_assert!(leaders.is_none(), "{leaders:?} at {} ms", run.now);
    }

    #[test]
    fn a_standby_leads_within_twenty_seconds_of_its_leaders_death(
        seed in any::<u64>(),
        clocks in (machines(false), machines(false)),
        killed in 30_000..60_000_u64,
    ) {
        let never_frozen = |machine: Machine| Machine { frozen: Vec::new(), ..machine };
        let network = Network {
            seed,
            max_latency: 200,
            lost: 0,
            replicas: vec![never_frozen(clocks.0), never_frozen(clocks.1)],
        };
        let mut run = Run::new(network.clone());
        run.run();
        let leader = run.terms.first().expect("one leads").1;
        let mut network = network;
        network.replicas[leader].killed = Some(killed);
        let mut run = Run::new(network);
        prop_assert!(run.run().is_none());
        let next = run.terms.iter().find(|(_, replica)| *replica != leader);
        let (at, _) = next.expect("the other leads");
        prop_assert!(*at >= killed && at - killed <= 20_000, "{} ms", at - killed);
    }
}
