//! Tests of decisions: observations and the expected reason and replicas.

use std::num::NonZeroU32;
use std::time::Duration;

use super::scene::{SECOND, Scene};
use super::*;

#[test]
fn scale_up_from_zero_takes_one_write() {
    let scene = Scene::new()
        .limits(0..=100)
        .lag([1; 24])
        .expect(Reason::BacklogCovered, 24);
    scene.expect(Reason::BacklogCovered, 24);
}

#[test]
fn scale_up_is_limited_by_max_replicas_and_by_partitions_with_messages() {
    Scene::new().lag([9; 24]).expect(Reason::LimitedByMaxReplicas, 8);
    Scene::new()
        .lag([9, 9, 0, 9])
        .expect(Reason::LimitedByPartitions, 3);
    Scene::new()
        .lag([8, 0])
        .limits(0..=1)
        .expect(Reason::LimitedByMaxReplicas, 1);
    Scene::new()
        .limits(0..=64)
        .lag([1; 63])
        .running(62)
        .after(60)
        .expect(Reason::BacklogCovered, 63);
    Scene::new()
        .limits(0..=4)
        .lag([0; 4])
        .expect(Reason::BacklogCovered, 0);
}

#[test]
fn explanation_without_pods_is_the_same_with_and_without_a_member_reading() {
    let idle = Scene::new().limits(0..=4).lag([0; 4]);
    let mut unread = idle;
    unread.observation.group = GroupReading::NotRead;
    let explanation = unread.decision().explanation;
    assert_eq!(explanation, unread.members().decision().explanation);
    assert_eq!(explanation.pods.activity, Some(Activity::default()));
}

#[test]
fn min_replicas_may_exceed_the_need() {
    Scene::new().limits(2..=8).expect(Reason::AtMinimum, 2);
    Scene::new().limits(2..=8).unknown().expect(Reason::AtMinimum, 2);
    Scene::new()
        .limits(2..=8)
        .unknown()
        .running(3)
        .expect(Reason::HeldUnknownLag, 3);
}

#[test]
fn targets_are_exact() {
    let one = NonZeroU32::MIN;
    let three = NonZeroU32::new(3).expect("not 0");
    let per = Target::TasksPerReplica;
    let drain_within = |within: u32, task: u32| Target::DrainDeadline {
        within_seconds: NonZeroU32::new(within).expect("not 0"),
        task_seconds: NonZeroU32::new(task).expect("not 0"),
    };
    for (target, lag, need) in [
        (per(one), 0, 0),
        (per(one), 7, 7),
        (per(three), 1, 1),
        (per(three), 3, 1),
        (per(three), 4, 2),
        (per(one), u128::MAX, u32::MAX),
        (drain_within(600, 90), 0, 0),
        (drain_within(600, 90), 1, 1),
        (drain_within(600, 90), 6, 1),
        (drain_within(600, 90), 7, 2),
        (drain_within(600, 90), 100, 15),
        (drain_within(1, u32::MAX), u128::MAX, u32::MAX),
    ] {
        assert_eq!(target.need(lag), Some(need), "{target:?} {lag}");
    }
    assert_eq!(completion_time(90 * SECOND, 13, 2), 630 * SECOND);
}

#[test]
fn unknown_or_partial_lag_never_lowers_replicas() {
    let three = Scene::new().running(3);
    for hours in 0..24 {
        three
            .clone()
            .unknown()
            .after(hours * 3600)
            .expect(Reason::HeldUnknownLag, 3);
        three
            .clone()
            .partial([0, 0])
            .after(hours * 3600)
            .expect(Reason::HeldPartialLag, 3);
    }
    Scene::new().unknown().expect(Reason::HeldUnknownLag, 0);
}

#[test]
fn partial_lag_may_raise_replicas() {
    Scene::new()
        .partial([5, 5])
        .running(1)
        .after(9)
        .expect(Reason::LimitedByPartitions, 2);
    Scene::new()
        .partial([5, 5])
        .running(2)
        .after(9)
        .expect(Reason::HeldPartialLag, 2);
}

#[test]
fn a_stale_reading_counts_as_unknown_lag() {
    let mut scene = Scene::new().lag([1; 8]).running(3).after(60);
    scene.observation.lag.at = Moment::from_millis(1_000_000);
    scene.expect(Reason::HeldUnknownLag, 3);
}

#[test]
fn scale_down_waits_for_stabilization_and_a_second_check_of_annotated_pods() {
    let scene = Scene::new().lag([1, 1, 0, 0]).running(4).after(60);
    let scene = scene
        .expect(Reason::Stabilizing, 4)
        .after(60)
        .expect(Reason::Stabilizing, 4);
    let (scene, decision) = scene.after(60).executed();
    assert_eq!(decision.reason(), Reason::SelectingIdlePods);
    assert_eq!(decision.plan, [Write::Annotate(vec!["p2".into(), "p3".into()])]);
    // Deciding again on the same reading confirms nothing.
    let scene = scene.expect(Reason::SelectingIdlePods, 4);
    let (scene, decision) = scene.after(2).executed();
    assert_eq!((decision.reason(), decision.desired()), (Reason::ScalingDown, 2));
    let left: Vec<_> = scene
        .observation
        .workload
        .live()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(left, ["p0", "p1"]);
    scene.after(2).expect(Reason::BacklogCovered, 2);
}

#[test]
fn an_annotated_pod_that_gets_a_task_loses_its_annotation_and_stays() {
    let scene = Scene::new().lag([1, 1, 0, 0]).running(4);
    let scene = scene
        .expect(Reason::Stabilizing, 4)
        .after(119)
        .expect(Reason::Stabilizing, 4);
    let scene = scene.after(2).expect(Reason::SelectingIdlePods, 4);
    // p3's partition has a message now: three are needed.
    let (scene, decision) = scene.lag([1, 1, 0, 1]).after(2).executed();
    assert_eq!(decision.reason(), Reason::SelectingIdlePods);
    assert_eq!(decision.plan, [Write::Unannotate(vec!["p3".into()])]);
    let (scene, decision) = scene.after(2).executed();
    assert_eq!((decision.reason(), decision.desired()), (Reason::ScalingDown, 3));
    let left: Vec<_> = scene
        .observation
        .workload
        .live()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(left, ["p0", "p1", "p3"]);
}

#[test]
fn annotations_stay_and_no_other_pod_is_removed_until_surplus_pods_are_deleted() {
    let (annotated, _) = Scene::new()
        .lag([1, 1, 1, 0, 0, 0, 0, 0])
        .running(5)
        .expect(Reason::Stabilizing, 5)
        .after(120)
        .expect(Reason::SelectingIdlePods, 5)
        .after(2)
        .executed();
    // Replicas were lowered by two, and all five pods still exist; meanwhile one more worker has finished.
    let mut slow = annotated.clone();
    slow.observation.workload.pods = Scene::new().running(5).observation.workload.pods;
    for pod in &mut slow.observation.workload.pods[3..] {
        pod.cost_annotation = CostAnnotation::Present;
    }
    assert_eq!(slow.observation.workload.replicas, 3);
    let decision = slow.clone().after(2).decision();
    assert_eq!((decision.desired(), decision.plan), (3, vec![]));
    let slow = slow
        .lag([1, 1, 0, 0, 0, 0, 0, 0])
        .after(2)
        .expect(Reason::Stabilizing, 3);
    let decision = slow.after(120).decision();
    assert_eq!((decision.reason(), decision.plan), (Reason::CoolingDown, vec![]));
    // Kubernetes has chosen: pods that are still annotated lose the annotation.
    let mut chosen = annotated.after(2);
    chosen.observation.workload.pods[2].cost_annotation = CostAnnotation::Present;
    let left = chosen.observation.workload.pods[2].name.clone();
    assert_eq!(chosen.decision().plan, [Write::Unannotate(vec![left])]);
}

#[test]
fn busy_pods_are_never_removed() {
    // Partition 0 has all messages, so that one worker is enough; but p0 to p2 report a task each.
    let mut scene = Scene::new().lag([2, 0, 0, 0]).running(4);
    let work = [
        MemberWork::Task,
        MemberWork::Task,
        MemberWork::Task,
        MemberWork::NoTask,
    ];
    if let GroupReading::Stable { members, .. } = &mut scene.observation.group {
        members
            .iter_mut()
            .zip(work)
            .for_each(|(member, work)| member.work = work);
    }
    let scene = scene
        .expect(Reason::Stabilizing, 4)
        .after(120)
        .expect(Reason::SelectingIdlePods, 4);
    let (scene, decision) = scene.after(2).executed();
    assert_eq!((decision.desired(), decision.explanation.limit), (3, Limit::Busy));
    // A pod that becomes idle later is removed without another stabilization.
    let mut scene = scene.after(2).expect(Reason::HeldBusy, 3);
    if let GroupReading::Stable { members, .. } = &mut scene.observation.group {
        members[2].work = MemberWork::NoTask;
    }
    let scene = scene
        .after(2)
        .expect(Reason::HeldBusy, 3)
        .after(2)
        .expect(Reason::SelectingIdlePods, 3);
    scene
        .after(2)
        .expect(Reason::ScalingDown, 2)
        .after(2)
        .expect(Reason::HeldBusy, 2);
}

#[test]
fn ready_pods_outside_the_group_may_hold_a_task() {
    let mut scene = Scene::new().lag([0; 4]).running(2);
    scene.observation.group = GroupReading::Stable {
        at: scene.now,
        members: Vec::new(),
    };
    let scene = scene
        .expect(Reason::Stabilizing, 2)
        .after(120)
        .expect(Reason::HeldBusy, 2);
    // Pods that are not ready have not joined yet, and are removed.
    let scene = scene
        .state(0..2, PodState::NotReady)
        .after(2)
        .expect(Reason::HeldBusy, 2);
    scene
        .after(2)
        .expect(Reason::SelectingIdlePods, 2)
        .after(2)
        .expect(Reason::ScalingDown, 0);
}

#[test]
fn no_scale_down_while_kubernetes_would_delete_a_busy_pod_first() {
    let scene = Scene::new()
        .lag([1, 0, 0])
        .running(3)
        .state(0..1, PodState::NotReady);
    let scene = scene
        .expect(Reason::Stabilizing, 3)
        .after(120)
        .expect(Reason::HeldBusy, 3);
    scene.after(2).expect(Reason::HeldBusy, 3);
}

#[test]
fn no_scale_down_without_a_member_reading() {
    let mut scene = Scene::new().running(3);
    scene.observation.group = GroupReading::NotRead;
    let (scene, _) = scene.executed();
    let mut scene = scene.after(120).expect(Reason::HeldUnknownMembers, 3);
    scene.observation.group = GroupReading::Rebalancing { at: scene.now };
    scene.after(1_000).expect(Reason::Rebalancing, 3);
}

#[test]
fn scale_down_stops_at_the_highest_need_during_stabilization() {
    let scene = Scene::new()
        .lag([1, 1, 0, 0, 0, 0])
        .running(6)
        .expect(Reason::Stabilizing, 6);
    let scene = scene
        .lag([1, 1, 1, 1, 0, 0])
        .after(60)
        .expect(Reason::Stabilizing, 6);
    let scene = scene
        .lag([1, 0, 0, 0, 0, 0])
        .after(60)
        .expect(Reason::SelectingIdlePods, 6);
    let scene = scene.after(2).expect(Reason::ScalingDown, 4);
    // One merged step; the rest needs another stabilization.
    scene.after(2).expect(Reason::Stabilizing, 4);
}

#[test]
fn a_higher_or_unknown_need_restarts_stabilization() {
    let low = Scene::new()
        .lag([1, 0, 0])
        .running(3)
        .expect(Reason::Stabilizing, 3)
        .after(119);
    let scene = low.clone().lag([1, 1, 1]).expect(Reason::BacklogCovered, 3);
    scene
        .lag([1, 0, 0])
        .after(2)
        .expect(Reason::Stabilizing, 3)
        .after(119)
        .expect(Reason::Stabilizing, 3);
    let scene = low.unknown().expect(Reason::HeldUnknownLag, 3);
    scene
        .lag([1, 0, 0])
        .after(2)
        .expect(Reason::Stabilizing, 3)
        .after(119)
        .expect(Reason::Stabilizing, 3);
}

#[test]
fn draining_workers_count_as_capacity_and_toward_max_replicas() {
    // Three of five messages are being finished.
    Scene::new()
        .lag([1; 5])
        .draining(0..3)
        .expect(Reason::BacklogCovered, 2);
    // They finish all of them: no limit applied.
    let (_, decision) = Scene::new().lag([1; 5]).running(1).draining(1..5).executed();
    assert_eq!(
        (decision.reason(), decision.explanation.limit),
        (Reason::BacklogCovered, Limit::None)
    );
    assert_eq!(
        decision.explanation.to_string(),
        "5 messages on 5 of 5 partitions need 5 replicas; 4 draining workers will finish one message each: 1 replica"
    );
    // Five draining workers count toward the maximum of eight.
    Scene::new()
        .lag([9; 8])
        .draining(0..5)
        .expect(Reason::HeldDraining, 3);
    Scene::new()
        .lag([9; 8])
        .running(3)
        .draining(3..8)
        .expect(Reason::HeldDraining, 3);
}

#[test]
fn no_worker_is_added_while_pods_are_unschedulable() {
    let scene = Scene::new()
        .lag([1; 8])
        .running(4)
        .state(2..4, PodState::Unschedulable);
    scene.clone().expect(Reason::HeldUnschedulable, 4);
    scene.limits(6..=8).expect(Reason::HeldUnschedulable, 6);
}

#[test]
fn no_worker_is_added_while_a_dependency_refuses_one() {
    let refused = |mut scene: Scene| {
        scene.observation.refusal = Some("the object store refuses a worker (s3:403)".into());
        scene
    };
    let scene = refused(Scene::new().lag([9; 8]).running(2));
    scene
        .expect(Reason::HeldByDependency, 2)
        .after(3_600)
        .expect(Reason::HeldByDependency, 2);
    // The minimum is still reached, and one worker checks whether the refusal has ended.
    let scene = refused(Scene::new().lag([9; 8]).running(2).limits(4..=8));
    scene.expect(Reason::HeldByDependency, 4);
    let scene = refused(Scene::new().lag([9; 8]));
    scene
        .expect(Reason::HeldByDependency, 1)
        .after(60)
        .expect(Reason::HeldByDependency, 1);
    refused(Scene::new().partial([5, 5]).running(1)).expect(Reason::HeldByDependency, 1);
    // Scale-down still works.
    let scene = refused(Scene::new().lag([1, 0, 0]).running(3));
    let scene = scene
        .expect(Reason::Stabilizing, 3)
        .after(120)
        .expect(Reason::SelectingIdlePods, 3);
    let mut scene = scene.after(2).expect(Reason::ScalingDown, 1).lag([9; 3]).after(9);
    scene = scene.expect(Reason::HeldByDependency, 1);
    scene.observation.refusal = None;
    scene.expect(Reason::LimitedByPartitions, 3);
}

#[test]
fn unschedulable_pods_are_removed_first() {
    let scene = Scene::new()
        .lag([1, 1, 0, 0])
        .running(4)
        .state(1..2, PodState::Unschedulable);
    let scene = scene
        .members()
        .lag([1, 0, 1, 0])
        .expect(Reason::Stabilizing, 4)
        .after(120);
    let (_, decision) = scene.executed();
    assert_eq!(decision.plan, [Write::Annotate(vec!["p1".into(), "p3".into()])]);
}

#[test]
fn a_rebalance_delays_a_scale_up_for_a_limited_time() {
    let mut scene = Scene::new().lag([1; 8]).running(2).after(60);
    scene.observation.group = GroupReading::Rebalancing { at: scene.now };
    let scene = scene
        .expect(Reason::Rebalancing, 2)
        .after(24)
        .expect(Reason::Rebalancing, 2);
    scene.after(1).expect(Reason::BacklogCovered, 8);
}

#[test]
fn replicas_change_at_most_once_per_cooldown() {
    let scene = Scene::new()
        .lag([1, 1, 0])
        .expect(Reason::BacklogCovered, 2)
        .after(1);
    scene
        .lag([1, 1, 1])
        .expect(Reason::CoolingDown, 2)
        .after(1)
        .expect(Reason::BacklogCovered, 3);
}

#[test]
fn paused_conflicting_and_recommend_only_pools_are_not_changed() {
    let mut paused = Scene::new().lag([1; 8]);
    paused.policy.mode = Mode::Paused;
    paused.expect(Reason::Paused, 0);

    let mut conflict = Scene::new().lag([1; 8]);
    conflict.observation.conflict = Some("pool media/other consumes the same group".into());
    conflict.expect(Reason::Conflict, 0);

    let mut advised = Scene::new().lag([1; 8]);
    advised.policy.mode = Mode::DryRun;
    let (advised, decision) = advised.executed();
    assert_eq!((decision.reason(), decision.desired()), (Reason::DryRun, 8));
    assert_eq!(
        (decision.explanation.decision_reason, decision.plan),
        (Reason::BacklogCovered, vec![])
    );
    assert_eq!(advised.observation.workload.replicas, 0);

    let mut advised = Scene::new()
        .lag([1, 0, 0])
        .running(3)
        .expect(Reason::Stabilizing, 3)
        .after(119);
    advised.policy.mode = Mode::DryRun;
    let scene = advised.expect(Reason::DryRun, 3).after(1);
    let decision = scene.decision();
    assert_eq!(
        (decision.desired(), decision.explanation.decision_reason),
        (1, Reason::ScalingDown)
    );
}

#[test]
fn after_a_restart_pods_are_annotated_and_checked_again() {
    let scene = Scene::new()
        .lag([1, 0, 0])
        .running(3)
        .expect(Reason::Stabilizing, 3)
        .after(119);
    let mut scene = scene
        .expect(Reason::Stabilizing, 3)
        .after(1)
        .expect(Reason::SelectingIdlePods, 3)
        .after(2);
    scene.history = History::default();
    let (scene, decision) = scene.executed();
    assert_eq!(decision.reason(), Reason::Stabilizing);
    let scene = scene
        .after(120)
        .expect(Reason::SelectingIdlePods, 3)
        .expect(Reason::SelectingIdlePods, 3);
    scene.after(2).expect(Reason::ScalingDown, 1);
}

#[test]
fn replicas_without_a_pod_are_removed_without_a_check() {
    let mut scene = Scene::new().lag([1, 0, 0]).running(1);
    scene.observation.workload.replicas = 3;
    let scene = scene.expect(Reason::Stabilizing, 3).after(120);
    scene.expect(Reason::ScalingDown, 1);
}

#[test]
fn every_reason_reads_as_a_sentence() {
    let busy = Scene::new()
        .lag([1, 0, 0, 0])
        .running(4)
        .expect(Reason::Stabilizing, 4)
        .after(120);
    let annotated = busy.clone().expect(Reason::SelectingIdlePods, 4).after(2);
    let with = |change: fn(&mut Scene)| {
        let mut scene = Scene::new().lag([1; 8]).running(2).after(9);
        change(&mut scene);
        scene
    };
    let scenes = [
        Scene::new(),
        Scene::new().lag([1]),
        Scene::new().lag([3, 0, 4]).running(2),
        Scene::new().lag([9; 24]),
        Scene::new().limits(2..=8),
        Scene::new().unknown().running(1),
        Scene::new().partial([1, 0]).running(3),
        with(|scene| scene.observation.group = GroupReading::Rebalancing { at: scene.now }),
        with(|scene| scene.history.last_change = Some(scene.now)),
        with(|scene| scene.observation.workload.pods[1].state = PodState::Unschedulable),
        with(|scene| scene.policy.mode = Mode::Paused),
        with(|scene| scene.policy.mode = Mode::DryRun),
        with(|scene| {
            scene.observation.conflict = Some("pool media/other consumes the same group and topic".into());
        }),
        with(|scene| scene.observation.refusal = Some("the object store refuses a worker (s3:403)".into())),
        with(|scene| scene.observation.lag.at = Moment::default()),
        Scene::new().lag([9; 8]).running(3).draining(3..8),
        Scene::new().lag([1, 0]).running(2),
        {
            let mut scene = busy.clone();
            scene.observation.group = GroupReading::Unknown {
                at: scene.now,
                why: "the group's coordinator did not answer".into(),
            };
            scene
        },
        busy.clone().updated(2..4),
        {
            let mut scene = busy.clone();
            scene.observation.workload.pods.pop();
            scene
        },
        busy.clone().lag([3, 0, 0, 0]).state(0..1, PodState::NotReady),
        busy,
        annotated,
    ];
    let mut lines: Vec<String> = Vec::new();
    let mut reasons = BTreeSet::new();
    for scene in scenes {
        let decision = scene.decision();
        reasons.insert(decision.reason());
        lines.push(format!(
            "{} ({}): {}",
            decision.reason(),
            decision.explanation.limit,
            decision.explanation
        ));
    }
    assert_eq!(reasons.len(), Reason::ALL.len(), "{reasons:?}");
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_last_replica_stays_for_its_own_stabilization_window() {
    let mut scene = Scene::new().lag([0, 0, 0]).running(3);
    scene.policy.last_replica_stabilization = 600 * SECOND;
    let scene = scene.expect(Reason::Stabilizing, 3).after(120);
    let scene = scene.expect(Reason::SelectingIdlePods, 3).after(2);
    let scene = scene.expect(Reason::ScalingDown, 1).after(2);
    let scene = scene.expect(Reason::Stabilizing, 1).after(590);
    let scene = scene.expect(Reason::Stabilizing, 1).after(10);
    let scene = scene.expect(Reason::SelectingIdlePods, 1).after(2);
    scene.expect(Reason::ScalingDown, 0);
}

#[test]
fn a_shorter_window_of_the_last_replica_does_not_shorten_that_of_the_others() {
    let mut scene = Scene::new().lag([0, 0]).running(2);
    scene.policy.last_replica_stabilization = Duration::ZERO;
    let scene = scene.expect(Reason::Stabilizing, 2).after(119);
    scene.expect(Reason::Stabilizing, 2);
    let mut alone = Scene::new().lag([0]).running(1);
    alone.policy.last_replica_stabilization = Duration::ZERO;
    let alone = alone.expect(Reason::HeldBusy, 1).after(2);
    alone.expect(Reason::SelectingIdlePods, 1);
}
