//! Decisions as tables: what is seen, and what follows.

use std::num::NonZeroU32;

use super::scene::{SECOND, Scene};
use super::*;

#[test]
fn from_zero_to_all_in_one_write() {
    let scene = Scene::new()
        .bounds(0..=100)
        .work([1; 24])
        .gives(Reason::NeedMet, 24);
    scene.gives(Reason::NeedMet, 24);
}

#[test]
fn out_is_capped_exactly_by_max_and_by_partitions_with_work() {
    Scene::new().work([9; 24]).gives(Reason::CappedByMax, 8);
    Scene::new()
        .work([9, 9, 0, 9])
        .gives(Reason::CappedByPartitions, 3);
    Scene::new()
        .work([8, 0])
        .bounds(0..=1)
        .gives(Reason::CappedByMax, 1);
    Scene::new()
        .bounds(0..=64)
        .work([1; 63])
        .running(62)
        .after(60)
        .gives(Reason::NeedMet, 63);
    Scene::new().bounds(0..=4).work([0; 4]).gives(Reason::NeedMet, 0);
}

#[test]
fn what_is_said_of_a_role_without_pods_does_not_depend_on_whether_its_members_were_read() {
    let idle = Scene::new().bounds(0..=4).work([0; 4]);
    let mut unread = idle;
    unread.observation.group = GroupReading::NotRead;
    let said = unread.look().explanation;
    assert_eq!(said, unread.members().look().explanation);
    assert_eq!(said.pods.activity, Some(Activity::default()));
}

#[test]
fn the_minimum_may_exceed_the_work() {
    Scene::new().bounds(2..=8).gives(Reason::AtMinimum, 2);
    Scene::new().bounds(2..=8).unknown().gives(Reason::AtMinimum, 2);
    Scene::new()
        .bounds(2..=8)
        .unknown()
        .running(3)
        .gives(Reason::HeldUnknownLag, 3);
}

#[test]
fn targets_are_exact() {
    let one = NonZeroU32::MIN;
    let three = NonZeroU32::new(3).expect("not 0");
    let per = Target::TasksPerReplica;
    let within = |within: u32, task: u32| Target::DrainWithin {
        within_seconds: NonZeroU32::new(within).expect("not 0"),
        task_seconds: NonZeroU32::new(task).expect("not 0"),
    };
    for (target, work, need) in [
        (per(one), 0, 0),
        (per(one), 7, 7),
        (per(three), 1, 1),
        (per(three), 3, 1),
        (per(three), 4, 2),
        (per(one), u128::MAX, u32::MAX),
        (within(600, 90), 0, 0),
        (within(600, 90), 1, 1),
        (within(600, 90), 6, 1),
        (within(600, 90), 7, 2),
        (within(600, 90), 100, 15),
        (within(1, u32::MAX), u128::MAX, u32::MAX),
    ] {
        assert_eq!(target.need(work), need, "{target:?} {work}");
    }
    assert_eq!(within(600, 90).waiting_time(13, 2), Some(630 * SECOND));
    assert_eq!(per(one).waiting_time(13, 2), None);
}

#[test]
fn what_is_not_known_never_lowers_and_never_reads_as_zero() {
    let three = Scene::new().running(3);
    for hours in 0..24 {
        three
            .clone()
            .unknown()
            .after(hours * 3600)
            .gives(Reason::HeldUnknownLag, 3);
        three
            .clone()
            .partial([0, 0])
            .after(hours * 3600)
            .gives(Reason::HeldPartialLag, 3);
    }
    Scene::new().unknown().gives(Reason::HeldUnknownLag, 0);
}

#[test]
fn what_is_partly_known_may_raise() {
    Scene::new()
        .partial([5, 5])
        .running(1)
        .after(9)
        .gives(Reason::CappedByPartitions, 2);
    Scene::new()
        .partial([5, 5])
        .running(2)
        .after(9)
        .gives(Reason::HeldPartialLag, 2);
}

#[test]
fn a_reading_that_is_too_old_counts_as_none() {
    let mut scene = Scene::new().work([1; 8]).running(3).after(60);
    scene.observation.lag.at = Moment::from_millis(1_000_000);
    scene.gives(Reason::HeldUnknownLag, 3);
}

#[test]
fn in_only_after_stabilising_and_a_second_look_at_marked_pods() {
    let scene = Scene::new().work([1, 1, 0, 0]).running(4).after(60);
    let scene = scene
        .gives(Reason::Stabilising, 4)
        .after(60)
        .gives(Reason::Stabilising, 4);
    let (scene, decision) = scene.after(60).decided();
    assert_eq!(decision.reason(), Reason::MarkingIdle);
    assert_eq!(decision.plan, [Write::Annotate(vec!["p2".into(), "p3".into()])]);
    // The same reading once more confirms nothing.
    let scene = scene.gives(Reason::MarkingIdle, 4);
    let (scene, decision) = scene.after(2).decided();
    assert_eq!((decision.reason(), decision.desired()), (Reason::ScalingIn, 2));
    let left: Vec<_> = scene
        .observation
        .workload
        .live()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(left, ["p0", "p1"]);
    scene.after(2).gives(Reason::NeedMet, 2);
}

#[test]
fn a_pod_that_takes_a_task_after_it_was_marked_loses_its_mark_and_stays() {
    let scene = Scene::new().work([1, 1, 0, 0]).running(4);
    let scene = scene
        .gives(Reason::Stabilising, 4)
        .after(119)
        .gives(Reason::Stabilising, 4);
    let scene = scene.after(2).gives(Reason::MarkingIdle, 4);
    // p3's partition has a message now: three are needed.
    let (scene, decision) = scene.work([1, 1, 0, 1]).after(2).decided();
    assert_eq!(decision.reason(), Reason::MarkingIdle);
    assert_eq!(decision.plan, [Write::Unannotate(vec!["p3".into()])]);
    let (scene, decision) = scene.after(2).decided();
    assert_eq!((decision.reason(), decision.desired()), (Reason::ScalingIn, 3));
    let left: Vec<_> = scene
        .observation
        .workload
        .live()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(left, ["p0", "p1", "p3"]);
}

#[test]
fn until_kubernetes_has_chosen_who_goes_marks_stay_and_nobody_else_goes() {
    let (marked, _) = Scene::new()
        .work([1, 1, 1, 0, 0, 0, 0, 0])
        .running(5)
        .gives(Reason::Stabilising, 5)
        .after(120)
        .gives(Reason::MarkingIdle, 5)
        .after(2)
        .decided();
    // Two were taken away, and all five are still there; meanwhile one more worker has finished.
    let mut slow = marked.clone();
    slow.observation.workload.pods = Scene::new().running(5).observation.workload.pods;
    for pod in &mut slow.observation.workload.pods[3..] {
        pod.marked = Marked::Yes;
    }
    assert_eq!(slow.observation.workload.replicas, 3);
    let decision = slow.clone().after(2).look();
    assert_eq!((decision.desired(), decision.plan), (3, vec![]));
    let slow = slow
        .work([1, 1, 0, 0, 0, 0, 0, 0])
        .after(2)
        .gives(Reason::Stabilising, 3);
    let decision = slow.after(120).look();
    assert_eq!((decision.reason(), decision.plan), (Reason::Settling, vec![]));
    // It has chosen: what still carries a mark loses it.
    let mut chosen = marked.after(2);
    chosen.observation.workload.pods[2].marked = Marked::Yes;
    let left = chosen.observation.workload.pods[2].name.clone();
    assert_eq!(chosen.look().plan, [Write::Unannotate(vec![left])]);
}

#[test]
fn busy_pods_are_a_floor() {
    // Partition 0 has all the work, so that one worker would do; but p0 to p2 hold a task each as they say themselves.
    let mut scene = Scene::new().work([2, 0, 0, 0]).running(4);
    let holds = [Holds::Task, Holds::Task, Holds::Task, Holds::NoTask];
    if let GroupReading::Stable { members, .. } = &mut scene.observation.group {
        members
            .iter_mut()
            .zip(holds)
            .for_each(|(member, holds)| member.holds = holds);
    }
    let scene = scene
        .gives(Reason::Stabilising, 4)
        .after(120)
        .gives(Reason::MarkingIdle, 4);
    let (scene, decision) = scene.after(2).decided();
    assert_eq!((decision.desired(), decision.explanation.bound), (3, Bound::Busy));
    // Whoever becomes idle later follows without stabilising anew.
    let mut scene = scene.after(2).gives(Reason::HeldBusy, 3);
    if let GroupReading::Stable { members, .. } = &mut scene.observation.group {
        members[2].holds = Holds::NoTask;
    }
    let scene = scene
        .after(2)
        .gives(Reason::HeldBusy, 3)
        .after(2)
        .gives(Reason::MarkingIdle, 3);
    scene
        .after(2)
        .gives(Reason::ScalingIn, 2)
        .after(2)
        .gives(Reason::HeldBusy, 2);
}

#[test]
fn ready_pods_outside_the_group_may_hold_a_task() {
    let mut scene = Scene::new().work([0; 4]).running(2);
    scene.observation.group = GroupReading::Stable {
        at: scene.now,
        members: Vec::new(),
    };
    let scene = scene
        .gives(Reason::Stabilising, 2)
        .after(120)
        .gives(Reason::HeldBusy, 2);
    // Those that are not ready have not joined yet, and go.
    let scene = scene
        .state(0..2, PodState::NotReady)
        .after(2)
        .gives(Reason::HeldBusy, 2);
    scene
        .after(2)
        .gives(Reason::MarkingIdle, 2)
        .after(2)
        .gives(Reason::ScalingIn, 0);
}

#[test]
fn nothing_goes_while_kubernetes_would_take_a_busy_pod_first() {
    let scene = Scene::new()
        .work([1, 0, 0])
        .running(3)
        .state(0..1, PodState::NotReady);
    let scene = scene
        .gives(Reason::Stabilising, 3)
        .after(120)
        .gives(Reason::HeldBusy, 3);
    scene.after(2).gives(Reason::HeldBusy, 3);
}

#[test]
fn without_members_nobody_goes() {
    let mut scene = Scene::new().running(3);
    scene.observation.group = GroupReading::NotRead;
    let (scene, decision) = scene.decided();
    assert_eq!(decision.members, MembersWanted::Yes);
    let mut scene = scene.after(120).gives(Reason::HeldUnknownMembers, 3);
    scene.observation.group = GroupReading::Rebalancing { at: scene.now };
    scene.after(1_000).gives(Reason::Rebalancing, 3);
}

#[test]
fn a_scale_in_goes_to_the_most_that_was_needed_while_it_stabilised() {
    let scene = Scene::new()
        .work([1, 1, 0, 0, 0, 0])
        .running(6)
        .gives(Reason::Stabilising, 6);
    let scene = scene
        .work([1, 1, 1, 1, 0, 0])
        .after(60)
        .gives(Reason::Stabilising, 6);
    let scene = scene
        .work([1, 0, 0, 0, 0, 0])
        .after(60)
        .gives(Reason::MarkingIdle, 6);
    let scene = scene.after(2).gives(Reason::ScalingIn, 4);
    // One merged step; what is left over stabilises anew.
    scene.after(2).gives(Reason::Stabilising, 4);
}

#[test]
fn a_need_that_returns_or_is_not_known_starts_the_clock_again() {
    let low = Scene::new()
        .work([1, 0, 0])
        .running(3)
        .gives(Reason::Stabilising, 3)
        .after(119);
    let scene = low.clone().work([1, 1, 1]).gives(Reason::NeedMet, 3);
    scene
        .work([1, 0, 0])
        .after(2)
        .gives(Reason::Stabilising, 3)
        .after(119)
        .gives(Reason::Stabilising, 3);
    let scene = low.unknown().gives(Reason::HeldUnknownLag, 3);
    scene
        .work([1, 0, 0])
        .after(2)
        .gives(Reason::Stabilising, 3)
        .after(119)
        .gives(Reason::Stabilising, 3);
}

#[test]
fn draining_workers_count_as_capacity_and_as_places() {
    // Three of five messages are being finished.
    Scene::new().work([1; 5]).draining(0..3).gives(Reason::NeedMet, 2);
    // They finish all of them: what more would do is not limited by anything.
    let (_, decision) = Scene::new().work([1; 5]).running(1).draining(1..5).decided();
    assert_eq!(
        (decision.reason(), decision.explanation.bound),
        (Reason::NeedMet, Bound::None)
    );
    assert_eq!(
        decision.explanation.to_string(),
        "5 messages on 5 of 5 partitions deserve 5 workers; 4 draining workers will finish one message each: 1 worker"
    );
    // Eight places, five of them still held.
    Scene::new()
        .work([9; 8])
        .draining(0..5)
        .gives(Reason::HeldDraining, 3);
    Scene::new()
        .work([9; 8])
        .running(3)
        .draining(3..8)
        .gives(Reason::HeldDraining, 3);
}

#[test]
fn pods_without_a_node_are_not_answered_with_more() {
    let scene = Scene::new()
        .work([1; 8])
        .running(4)
        .state(2..4, PodState::Unschedulable);
    scene.clone().gives(Reason::HeldUnschedulable, 4);
    scene.bounds(6..=8).gives(Reason::HeldUnschedulable, 6);
}

#[test]
fn while_a_dependency_refuses_a_worker_none_is_added() {
    let refused = |mut scene: Scene| {
        scene.observation.held = Some("the object store refuses a worker (s3:403)".into());
        scene
    };
    let scene = refused(Scene::new().work([9; 8]).running(2));
    scene
        .gives(Reason::HeldByDependency, 2)
        .after(3_600)
        .gives(Reason::HeldByDependency, 2);
    // The minimum is still reached, and one worker tries whether the refusal has ended.
    let scene = refused(Scene::new().work([9; 8]).running(2).bounds(4..=8));
    scene.gives(Reason::HeldByDependency, 4);
    let scene = refused(Scene::new().work([9; 8]));
    scene
        .gives(Reason::HeldByDependency, 1)
        .after(60)
        .gives(Reason::HeldByDependency, 1);
    refused(Scene::new().partial([5, 5]).running(1)).gives(Reason::HeldByDependency, 1);
    // Fewer still do.
    let scene = refused(Scene::new().work([1, 0, 0]).running(3));
    let scene = scene
        .gives(Reason::Stabilising, 3)
        .after(120)
        .gives(Reason::MarkingIdle, 3);
    let mut scene = scene.after(2).gives(Reason::ScalingIn, 1).work([9; 3]).after(9);
    scene = scene.gives(Reason::HeldByDependency, 1);
    scene.observation.held = None;
    scene.gives(Reason::CappedByPartitions, 3);
}

#[test]
fn pods_without_a_node_go_first() {
    let scene = Scene::new()
        .work([1, 1, 0, 0])
        .running(4)
        .state(1..2, PodState::Unschedulable);
    let scene = scene
        .members()
        .work([1, 0, 1, 0])
        .gives(Reason::Stabilising, 4)
        .after(120);
    let (_, decision) = scene.decided();
    assert_eq!(decision.plan, [Write::Annotate(vec!["p1".into(), "p3".into()])]);
}

#[test]
fn a_rebalance_holds_a_scale_out_for_a_while() {
    let mut scene = Scene::new().work([1; 8]).running(2).after(60);
    scene.observation.group = GroupReading::Rebalancing { at: scene.now };
    let scene = scene
        .gives(Reason::Rebalancing, 2)
        .after(24)
        .gives(Reason::Rebalancing, 2);
    scene.after(1).gives(Reason::NeedMet, 8);
}

#[test]
fn one_change_per_settle_time() {
    let scene = Scene::new().work([1, 1, 0]).gives(Reason::NeedMet, 2).after(1);
    scene
        .work([1, 1, 1])
        .gives(Reason::Settling, 2)
        .after(1)
        .gives(Reason::NeedMet, 3);
}

#[test]
fn paused_conflicting_and_advised_pools_are_not_changed() {
    let mut paused = Scene::new().work([1; 8]);
    paused.policy.mode = Mode::Paused;
    paused.gives(Reason::Paused, 0);

    let mut conflict = Scene::new().work([1; 8]);
    conflict.observation.conflict = Some("pool media/other takes from the same group".into());
    conflict.gives(Reason::Conflict, 0);

    let mut advised = Scene::new().work([1; 8]);
    advised.policy.mode = Mode::RecommendOnly;
    let (advised, decision) = advised.decided();
    assert_eq!(
        (decision.reason(), decision.desired()),
        (Reason::RecommendOnly, 8)
    );
    assert_eq!(
        (decision.explanation.under, decision.plan),
        (Reason::NeedMet, vec![])
    );
    assert_eq!(advised.observation.workload.replicas, 0);

    let mut advised = Scene::new()
        .work([1, 0, 0])
        .running(3)
        .gives(Reason::Stabilising, 3)
        .after(119);
    advised.policy.mode = Mode::RecommendOnly;
    let scene = advised.gives(Reason::RecommendOnly, 3).after(1);
    let decision = scene.look();
    assert_eq!(
        (decision.desired(), decision.explanation.under),
        (1, Reason::ScalingIn)
    );
}

#[test]
fn a_restart_changes_nothing_and_confirms_marks_anew() {
    let scene = Scene::new()
        .work([1, 0, 0])
        .running(3)
        .gives(Reason::Stabilising, 3)
        .after(119);
    let mut scene = scene
        .gives(Reason::Stabilising, 3)
        .after(1)
        .gives(Reason::MarkingIdle, 3)
        .after(2);
    scene.history = History::default();
    let (scene, decision) = scene.decided();
    assert_eq!(decision.reason(), Reason::Stabilising);
    let scene = scene
        .after(120)
        .gives(Reason::MarkingIdle, 3)
        .gives(Reason::MarkingIdle, 3);
    scene.after(2).gives(Reason::ScalingIn, 1);
}

#[test]
fn replicas_that_have_no_pod_can_be_taken_back() {
    let mut scene = Scene::new().work([1, 0, 0]).running(1);
    scene.observation.workload.replicas = 3;
    let scene = scene.gives(Reason::Stabilising, 3).after(120);
    scene.gives(Reason::ScalingIn, 1);
}

#[test]
fn every_reason_reads_as_a_sentence() {
    let busy = Scene::new()
        .work([1, 0, 0, 0])
        .running(4)
        .gives(Reason::Stabilising, 4)
        .after(120);
    let marked = busy.clone().gives(Reason::MarkingIdle, 4).after(2);
    let with = |change: fn(&mut Scene)| {
        let mut scene = Scene::new().work([1; 8]).running(2).after(9);
        change(&mut scene);
        scene
    };
    let scenes = [
        Scene::new(),
        Scene::new().work([1]),
        Scene::new().work([3, 0, 4]).running(2),
        Scene::new().work([9; 24]),
        Scene::new().bounds(2..=8),
        Scene::new().unknown().running(1),
        Scene::new().partial([1, 0]).running(3),
        with(|scene| scene.observation.group = GroupReading::Rebalancing { at: scene.now }),
        with(|scene| scene.history.last_change = Some(scene.now)),
        with(|scene| scene.observation.workload.pods[1].state = PodState::Unschedulable),
        with(|scene| scene.policy.mode = Mode::Paused),
        with(|scene| scene.policy.mode = Mode::RecommendOnly),
        with(|scene| {
            scene.observation.conflict = Some("pool media/other takes from the same group and topic".into());
        }),
        with(|scene| scene.observation.held = Some("the object store refuses a worker (s3:403)".into())),
        with(|scene| scene.observation.lag.at = Moment::default()),
        Scene::new().work([9; 8]).running(3).draining(3..8),
        Scene::new().work([1, 0]).running(2),
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
        busy.clone().work([3, 0, 0, 0]).state(0..1, PodState::NotReady),
        busy,
        marked,
    ];
    let mut said: Vec<String> = Vec::new();
    let mut met = BTreeSet::new();
    for scene in scenes {
        let decision = scene.look();
        met.insert(decision.reason());
        said.push(format!(
            "{} ({}): {}",
            decision.reason(),
            decision.explanation.bound,
            decision.explanation
        ));
    }
    assert_eq!(met.len(), Reason::ALL.len(), "{met:?}");
    insta::assert_snapshot!(said.join("\n"));
}
