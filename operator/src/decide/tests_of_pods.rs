//! Decisions as tables: plans that are carried out write by write, pods of two ReplicaSets, and views of pods that are behind.

use super::scene::{self, Scene};
use super::*;

#[test]
fn more_work_during_a_scale_down_raises_replicas_and_removes_annotations_without_a_cooldown() {
    let scene = Scene::new().work([1, 1, 0, 0]).running(4);
    let scene = scene
        .gives(Reason::Stabilising, 4)
        .after(120)
        .gives(Reason::MarkingIdle, 4);
    let (scene, decision) = scene.work([1; 6]).after(2).decided();
    let annotated = vec!["p2".into(), "p3".into()];
    assert_eq!(
        decision.plan,
        [Write::SetReplicas(6), Write::Unannotate(annotated.clone())]
    );
    // Both were carried out, one by one, and the status did not change in between.
    assert_eq!(scene.observation.workload.replicas, 6);
    assert_eq!(fleet::marked(&scene.observation.workload).count(), 0);
    scene.clone().gives(Reason::NeedMet, 6);
    // A write that was not carried out is decided again: no cooldown begins with it.
    let mut failed = scene;
    failed.observation.workload.replicas = 4;
    failed.history = decision.history;
    assert_eq!(failed.after(1).look().plan, [Write::SetReplicas(6)]);
}

#[test]
fn nothing_is_removed_while_pods_of_two_replica_sets_exist() {
    // Eight workers with tasks; an update has replaced two of them with pods that cannot start; six are needed.
    let scene = Scene::new()
        .work([1, 1, 1, 1, 1, 1, 0, 0])
        .running(8)
        .state(6..8, PodState::NotReady)
        .updated(6..8)
        .members();
    let mut scene = scene
        .gives(Reason::Stabilising, 8)
        .after(120)
        .gives(Reason::HeldByRollout, 8);
    for _ in 0..3 {
        scene = scene.after(2).gives(Reason::HeldByRollout, 8);
    }
    let scene = scene.after(24 * 3_600).gives(Reason::HeldByRollout, 8);
    // More are added as ever.
    scene
        .clone()
        .bounds(0..=9)
        .work([1; 9])
        .after(9)
        .gives(Reason::NeedMet, 9);
    // The update is undone, and what is idle goes.
    let mut undone = scene;
    for pod in &mut undone.observation.workload.pods {
        pod.replica_set = "set-1".into();
    }
    undone.observation.workload.status = Some(scene::status(&undone.observation.workload));
    undone
        .after(2)
        .gives(Reason::MarkingIdle, 8)
        .after(2)
        .gives(Reason::ScalingIn, 6);
}

#[test]
fn replicas_whose_pods_a_quota_refuses_in_a_rolling_update_are_not_taken_back() {
    let mut scene = Scene::new().work([1; 6]).running(6);
    scene.observation.workload.replicas = 8;
    scene.observation.workload.status = Some(PodStatus {
        observed: true,
        replicas: 6,
        updated: 0,
    });
    scene
        .gives(Reason::Stabilising, 8)
        .after(120)
        .gives(Reason::HeldByRollout, 8);
}

#[test]
fn nothing_is_removed_before_the_controller_has_acted_on_the_newest_spec() {
    let mut scene = Scene::new().work([1, 0, 0]).running(3);
    scene.observation.workload.status = Some(PodStatus {
        observed: false,
        replicas: 3,
        updated: 3,
    });
    scene
        .gives(Reason::Stabilising, 3)
        .after(120)
        .gives(Reason::Settling, 3);
}

#[test]
fn replicas_of_members_whose_pods_are_not_known_are_not_missing() {
    let mut scene = Scene::new().work([1, 1, 1, 0, 0, 0, 0, 0]).running(8);
    scene.observation.workload.pods.clear();
    let scene = scene.gives(Reason::Stabilising, 8).after(120);
    let (mut scene, decision) = scene.decided();
    assert_eq!(
        (decision.reason(), decision.plan),
        (Reason::HeldUnknownPods, vec![])
    );
    let said = decision.explanation.to_string();
    assert!(
        said.contains("group member p0 and 7 more have no known pod"),
        "{said}"
    );
    // One pod is known of three, and two members are not: their session ends, and replicas without pods go.
    scene.observation.workload = Scene::new().running(1).observation.workload;
    scene.observation.workload.replicas = 8;
    let mut scene = scene.after(2).gives(Reason::HeldUnknownPods, 8).members();
    scene.observation.lag.lag = Lag::Known(Work::of([1, 0, 0, 0, 0, 0, 0, 0]));
    scene.after(2).gives(Reason::ScalingIn, 3);
}

#[test]
fn pods_that_the_status_counts_and_nobody_has_seen_hold_a_scale_down() {
    let mut scene = Scene::new().work([1, 0, 0]).running(2);
    scene.observation.workload.replicas = 3;
    scene.observation.workload.status = Some(PodStatus {
        observed: true,
        replicas: 3,
        updated: 3,
    });
    let scene = scene.gives(Reason::Stabilising, 3).after(120);
    let (mut scene, decision) = scene.decided();
    assert_eq!(decision.reason(), Reason::HeldUnknownPods);
    let said = decision.explanation.to_string();
    assert!(
        said.contains("the Deployment reports 3 pods, and 2 are known"),
        "{said}"
    );
    scene.observation.workload.status = Some(scene::status(&scene.observation.workload));
    scene.after(2).gives(Reason::ScalingIn, 2);
}

#[test]
fn of_two_members_with_one_name_either_may_hold_a_task() {
    for holds in [[Holds::Task, Holds::NoTask], [Holds::NoTask, Holds::Task]] {
        let mut scene = Scene::new().work([0, 0]).running(1);
        scene.observation.group = GroupReading::Stable {
            at: scene.now,
            members: holds
                .map(|holds| Member {
                    pod: "p0".into(),
                    holds,
                })
                .into(),
        };
        let scene = scene.gives(Reason::Stabilising, 1).after(120);
        scene
            .gives(Reason::HeldBusy, 1)
            .after(2)
            .gives(Reason::HeldBusy, 1);
    }
}

#[test]
fn a_pod_whose_deletion_is_overdue_holds_its_place_only_while_it_is_a_member() {
    let overdue = |mut scene: Scene| {
        for pod in &mut scene.observation.workload.pods {
            pod.state = PodState::Overdue;
        }
        scene
    };
    let scene = overdue(Scene::new().bounds(0..=1).work([9]).draining(0..1));
    // Its members are not known, or it is one.
    scene.clone().gives(Reason::HeldDraining, 0);
    let mut member = scene.clone();
    member.observation.group = GroupReading::Stable {
        at: member.now,
        members: vec![Member {
            pod: "p0".into(),
            holds: Holds::Partitions(vec![0]),
        }],
    };
    member.gives(Reason::HeldDraining, 0);
    let mut left = scene;
    left.observation.group = GroupReading::Stable {
        at: left.now,
        members: Vec::new(),
    };
    left.gives(Reason::CappedByMax, 1);
}

#[test]
fn a_draining_worker_that_finishes_all_there_is_is_named() {
    let decision = Scene::new().work([1]).draining(0..1).look();
    assert_eq!((decision.reason(), decision.desired()), (Reason::NeedMet, 0));
    let said = decision.explanation.to_string();
    assert!(
        said.contains("1 draining worker will finish one message each: 0 workers"),
        "{said}"
    );
}
