//! Tests of decisions about pods: plans that are executed write by write, pods of two ReplicaSets, outdated views of
//! pods.

use super::scene::{self, Scene};
use super::*;

#[test]
fn more_work_during_a_scale_down_raises_replicas_and_removes_annotations_without_a_cooldown() {
    let scene = Scene::new().lag([1, 1, 0, 0]).running(4);
    let scene = scene
        .expect(Reason::Stabilizing, 4)
        .after(120)
        .expect(Reason::SelectingIdlePods, 4);
    let (scene, decision) = scene.lag([1; 6]).after(2).executed();
    let annotated = vec!["p2".into(), "p3".into()];
    assert_eq!(
        decision.plan,
        [Write::SetReplicas(6), Write::Unannotate(annotated.clone())]
    );
    // Both were executed, one by one, and the status did not change in between.
    assert_eq!(scene.observation.workload.replicas, 6);
    assert_eq!(fleet::annotated(&scene.observation.workload).count(), 0);
    scene.clone().expect(Reason::BacklogCovered, 6);
    // A write that was not executed is decided again: it starts no cooldown.
    let mut failed = scene;
    failed.observation.workload.replicas = 4;
    failed.history = decision.history;
    assert_eq!(failed.after(1).decision().plan, [Write::SetReplicas(6)]);
}

#[test]
fn nothing_is_removed_while_pods_of_two_replica_sets_exist() {
    // Eight workers with tasks; an update has replaced two of them with pods that cannot start; six are needed.
    let scene = Scene::new()
        .lag([1, 1, 1, 1, 1, 1, 0, 0])
        .running(8)
        .state(6..8, PodState::NotReady)
        .updated(6..8)
        .members();
    let mut scene = scene
        .expect(Reason::Stabilizing, 8)
        .after(120)
        .expect(Reason::HeldByRollout, 8);
    for _ in 0..3 {
        scene = scene.after(2).expect(Reason::HeldByRollout, 8);
    }
    let scene = scene.after(24 * 3_600).expect(Reason::HeldByRollout, 8);
    // Scale-up still works.
    scene
        .clone()
        .limits(0..=9)
        .lag([1; 9])
        .after(9)
        .expect(Reason::BacklogCovered, 9);
    // The update is rolled back, and idle pods are removed.
    let mut undone = scene;
    for pod in &mut undone.observation.workload.pods {
        pod.replica_set = "set-1".into();
    }
    undone.observation.workload.status = Some(scene::status(&undone.observation.workload));
    undone
        .after(2)
        .expect(Reason::SelectingIdlePods, 8)
        .after(2)
        .expect(Reason::ScalingDown, 6);
}

#[test]
fn replicas_refused_by_a_quota_stay_during_a_rolling_update() {
    let mut scene = Scene::new().lag([1; 6]).running(6);
    scene.observation.workload.replicas = 8;
    scene.observation.workload.status = Some(PodStatus {
        observed: true,
        replicas: 6,
        updated: 0,
    });
    scene
        .expect(Reason::Stabilizing, 8)
        .after(120)
        .expect(Reason::HeldByRollout, 8);
}

#[test]
fn no_scale_down_before_the_controller_has_observed_the_newest_spec() {
    let mut scene = Scene::new().lag([1, 0, 0]).running(3);
    scene.observation.workload.status = Some(PodStatus {
        observed: false,
        replicas: 3,
        updated: 3,
    });
    scene
        .expect(Reason::Stabilizing, 3)
        .after(120)
        .expect(Reason::CoolingDown, 3);
}

#[test]
fn replicas_of_members_without_a_known_pod_are_not_missing() {
    let mut scene = Scene::new().lag([1, 1, 1, 0, 0, 0, 0, 0]).running(8);
    scene.observation.workload.pods.clear();
    let scene = scene.expect(Reason::Stabilizing, 8).after(120);
    let (mut scene, decision) = scene.executed();
    assert_eq!(
        (decision.reason(), decision.plan),
        (Reason::HeldUnknownPods, vec![])
    );
    let message = decision.explanation.to_string();
    assert!(
        message.contains("group member p0 and 7 more have no known pod"),
        "{message}"
    );
    // One pod is known, and two members have no known pod: once their sessions end, replicas without pods are removed.
    scene.observation.workload = Scene::new().running(1).observation.workload;
    scene.observation.workload.replicas = 8;
    let mut scene = scene.after(2).expect(Reason::HeldUnknownPods, 8).members();
    scene.observation.lag.lag = Lag::Known(LagByPartition::from_messages([1, 0, 0, 0, 0, 0, 0, 0]));
    scene.after(2).expect(Reason::ScalingDown, 3);
}

#[test]
fn no_scale_down_while_the_status_counts_unknown_pods() {
    let mut scene = Scene::new().lag([1, 0, 0]).running(2);
    scene.observation.workload.replicas = 3;
    scene.observation.workload.status = Some(PodStatus {
        observed: true,
        replicas: 3,
        updated: 3,
    });
    let scene = scene.expect(Reason::Stabilizing, 3).after(120);
    let (mut scene, decision) = scene.executed();
    assert_eq!(decision.reason(), Reason::HeldUnknownPods);
    let message = decision.explanation.to_string();
    assert!(
        message.contains("the Deployment reports 3 pods, and 2 are known"),
        "{message}"
    );
    scene.observation.workload.status = Some(scene::status(&scene.observation.workload));
    scene.after(2).expect(Reason::ScalingDown, 2);
}

#[test]
fn if_one_of_two_members_with_the_same_name_holds_a_task_the_pod_is_busy() {
    for work in [
        [MemberWork::Task, MemberWork::NoTask],
        [MemberWork::NoTask, MemberWork::Task],
    ] {
        let mut scene = Scene::new().lag([0, 0]).running(1);
        scene.observation.group = GroupReading::Stable {
            at: scene.now,
            members: work
                .map(|work| Member {
                    pod: "p0".into(),
                    work,
                })
                .into(),
        };
        let scene = scene.expect(Reason::Stabilizing, 1).after(120);
        scene
            .expect(Reason::HeldBusy, 1)
            .after(2)
            .expect(Reason::HeldBusy, 1);
    }
}

#[test]
fn an_overdue_pod_counts_as_draining_only_while_it_is_a_member() {
    let overdue = |mut scene: Scene| {
        for pod in &mut scene.observation.workload.pods {
            pod.state = PodState::Overdue;
        }
        scene
    };
    let scene = overdue(Scene::new().limits(0..=1).lag([9]).draining(0..1));
    // The members are unknown, or the pod is a member.
    scene.clone().expect(Reason::HeldDraining, 0);
    let mut member = scene.clone();
    member.observation.group = GroupReading::Stable {
        at: member.now,
        members: vec![Member {
            pod: "p0".into(),
            work: MemberWork::Partitions(vec![0]),
        }],
    };
    member.expect(Reason::HeldDraining, 0);
    let mut left = scene;
    left.observation.group = GroupReading::Stable {
        at: left.now,
        members: Vec::new(),
    };
    left.expect(Reason::LimitedByMaxReplicas, 1);
}

#[test]
fn a_draining_worker_that_covers_the_backlog_is_named() {
    let decision = Scene::new().lag([1]).draining(0..1).decision();
    assert_eq!(
        (decision.reason(), decision.desired()),
        (Reason::BacklogCovered, 0)
    );
    let message = decision.explanation.to_string();
    assert!(
        message.contains("1 draining worker will finish one message each: 0 replicas"),
        "{message}"
    );
}
