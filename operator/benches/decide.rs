//! Times one decision; prints microseconds as a JSON object. For `cargo xtask bench`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use separation_operator::decide::{
    CostAnnotation, Estimates, GroupReading, History, Lag, LagByPartition, LagReading, Member, MemberWork,
    Mode, Moment, Observation, PartitionQueue, Pod, PodState, Policy, Queue, ReplicaLimits, RunningTask,
    Target, Workload, decide,
};

const PARTITIONS: i32 = 1_000;
const PODS: i32 = 100;
const ROUNDS: usize = 9;
const DECISIONS: u32 = 20_000;

fn main() {
    let policy = Policy {
        limits: ReplicaLimits::new(0..=1_000).expect("limits"),
        target: Target::TasksPerReplica(NonZeroU32::MIN),
        mode: Mode::Auto,
        stabilization: Duration::from_secs(120),
        last_replica_stabilization: Duration::from_secs(120),
        cooldown: Duration::from_secs(1),
        rebalance_hold: Duration::from_secs(25),
        stale_after: Duration::from_secs(10),
    };
    let scaling_up = observation(GroupReading::NotRead, 0);
    let busy = observation(members(), PODS);
    let start_deadline = Policy {
        target: Target::StartDeadline {
            deadline: Duration::from_secs(60),
        },
        ..policy
    };
    let queued = with_queue(observation(members(), PODS));
    let report = serde_json::json!({
        "partitions": PARTITIONS,
        "pods": PODS,
        "scaling_up_us": microseconds(&policy, &scaling_up),
        "with_members_us": microseconds(&policy, &busy),
        "start_deadline_us": microseconds(&start_deadline, &queued),
    });
    #[expect(clippy::print_stdout, reason = "the one thing that this program prints")]
    {
        println!("{report}");
    }
}

/// With pods, every tenth partition has a message; without pods, every partition has one.
fn observation(group: GroupReading, pods: i32) -> Observation {
    let step = if pods == 0 { 1 } else { 10 };
    let set: Arc<str> = "vocals-processor-7c9d8b6f5".into();
    let pods = (0..pods).map(|pod| Pod {
        name: name(pod).as_str().into(),
        state: PodState::Ready,
        cost_annotation: CostAnnotation::Absent,
        replica_set: Arc::clone(&set),
        created: None,
    });
    let pods: Vec<Pod> = pods.collect();
    Observation {
        lag: LagReading {
            at: Moment::from_millis(1_000),
            lag: Lag::Known(LagByPartition::from_messages(
                (0..PARTITIONS).map(|partition| u64::from(partition % step == 0)),
            )),
        },
        group,
        workload: Workload {
            replicas: u32::try_from(pods.len()).unwrap_or(u32::MAX),
            pods,
            status: None,
        },
        conflict: None,
        refusal: None,
        estimates: Estimates::default(),
        queue: None,
    }
}

/// Every tenth partition has a running message and a queued one; the queued ones arrived in ten readings.
fn with_queue(observation: Observation) -> Observation {
    let read_at = observation.lag.at;
    let has_messages = |partition: i32| partition % 10 == 0;
    let partitions = (0..PARTITIONS)
        .filter(|partition| has_messages(*partition))
        .map(|partition| {
            let arrival = u64::try_from(partition % 100 / 10).unwrap_or(0);
            PartitionQueue {
                partition,
                arrivals: vec![(Moment::default(), 1), (Moment::from_millis(100 * arrival), 1)],
                running: Some(RunningTask {
                    since: Moment::default(),
                    percent: u8::try_from(partition % 100).ok(),
                }),
            }
        });
    let messages = (0..PARTITIONS).map(|partition| 2 * u64::from(has_messages(partition)));
    Observation {
        lag: LagReading {
            at: read_at,
            lag: Lag::Known(LagByPartition::from_messages(messages)),
        },
        queue: Some(Queue {
            partitions: partitions.collect(),
        }),
        ..observation
    }
}

fn members() -> GroupReading {
    let each = PARTITIONS / PODS;
    let members = (0..PODS).map(|pod| Member {
        pod: name(pod).as_str().into(),
        work: MemberWork::Partitions((pod * each..(pod + 1) * each).collect()),
    });
    GroupReading::Stable {
        at: Moment::from_millis(1_000),
        members: members.collect(),
    }
}

fn name(pod: i32) -> String {
    format!("vocals-processor-7c9d8b6f5-{pod:05}")
}

/// The median of some rounds.
fn microseconds(policy: &Policy, observation: &Observation) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..DECISIONS {
                std::hint::black_box(decide(
                    policy,
                    std::hint::black_box(observation),
                    History::default(),
                    Moment::from_millis(2_000),
                ));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(DECISIONS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
