use super::*;

const IDLE: (u32, Option<u64>) = (0, None);

/// The end offset of each partition in each reading.
const END: i64 = 100;

fn partitions(read: &[(u32, Option<u64>)]) -> BTreeMap<i32, PartitionReading> {
    let read = read.iter().map(|(queued, rest)| PartitionReading {
        end: END,
        queued: *queued,
        rest: rest.map(Duration::from_secs),
    });
    (0..).zip(read).collect()
}

/// Queued messages and the rest of the running one for each partition from 0 on, and the partitions of each member. A
/// message takes 30 s.
fn reading(read: &[(u32, Option<u64>)], members: &[&[i32]]) -> GroupReading {
    GroupReading {
        partitions: partitions(read),
        members: Some(members.iter().map(|partitions| partitions.to_vec()).collect()),
        duration: Duration::from_secs(30),
    }
}

/// Choices in a row, whichever of several equal candidates has its turn first.
#[track_caller]
fn check(read: &[(u32, Option<u64>)], members: &[&[i32]], expected: &[(&[i32], PlacementKind)]) {
    for first_turn in 0..12 {
        let mut chooser = Chooser::new(first_turn);
        let now = Instant::now();
        chooser.update(reading(read, members), now);
        for (partitions, kind) in expected {
            let (partition, chosen) = chooser.choose(now).expect("a partition");
            assert_eq!(chosen, *kind, "turn {first_turn}");
            assert!(
                partitions.contains(&partition),
                "turn {first_turn}: {partition} is not one of {partitions:?}"
            );
        }
    }
}

#[test]
fn a_message_is_placed_on_an_idle_member_and_the_next_one_on_another() {
    use PlacementKind::{Idle, Shortest};
    let members: [&[i32]; 3] = [&[0, 1], &[2, 3], &[4, 5]];
    // The first member runs a message, also if its other partition is empty.
    let busy = [(0, Some(5)), IDLE, IDLE, IDLE, IDLE, IDLE];
    check(
        &busy,
        &members,
        &[(&[2, 3, 4, 5], Idle), (&[2, 3, 4, 5], Idle), (&[1], Shortest)],
    );
    // A member that has not begun its message is not idle.
    let queued = [(1, None), IDLE, (1, None), IDLE, IDLE, IDLE];
    check(&queued, &members, &[(&[4, 5], Idle), (&[1, 3, 4, 5], Shortest)]);
}

#[test]
fn without_an_idle_member_a_message_is_placed_where_it_is_expected_to_begin_first() {
    use PlacementKind::Shortest;
    let members: [&[i32]; 2] = [&[0, 1], &[2, 3]];
    // 40 s against 5 s and a queued message of 30 s.
    let read = [(0, Some(40)), IDLE, (1, Some(5)), IDLE];
    // Then 40 s against 65 s, and 70 s against 65 s.
    check(
        &read,
        &members,
        &[(&[3], Shortest), (&[1], Shortest), (&[3], Shortest)],
    );
    // A message that ends now still runs.
    let read = [(0, Some(0)), IDLE, (0, Some(1)), IDLE];
    check(&read, &members, &[(&[1], Shortest)]);
}

#[test]
fn twenty_messages_in_one_reading_are_placed_on_twenty_members() {
    let assigned: Vec<[i32; 2]> = (0..20).map(|member| [2 * member, 2 * member + 1]).collect();
    let members: Vec<&[i32]> = assigned.iter().map(|partitions| &partitions[..]).collect();
    let mut chooser = Chooser::new(7);
    let now = Instant::now();
    chooser.update(reading(&[IDLE; 40], &members), now);
    let mut chosen: Vec<i32> = (0..20)
        .map(|_| chooser.choose(now).expect("a partition").0 / 2)
        .collect();
    chosen.sort_unstable();
    assert_eq!(chosen, Vec::from_iter(0..20));
}

#[test]
fn without_members_messages_are_spread_over_all_partitions_from_any_on() {
    use PlacementKind::RoundRobin;
    let mut first = std::collections::BTreeSet::new();
    for first_turn in 0..4 {
        let mut chooser = Chooser::new(first_turn);
        let now = Instant::now();
        chooser.update(reading(&[IDLE; 4], &[]), now);
        let chosen: Vec<_> = (0..4).filter_map(|_| chooser.choose(now)).collect();
        first.insert(chosen[0].0);
        let mut partitions: Vec<i32> = chosen.iter().map(|(partition, _)| *partition).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2, 3]);
        assert!(chosen.iter().all(|(_, kind)| *kind == RoundRobin), "{chosen:?}");
    }
    assert_eq!(first.len(), 4, "a process begins at the turn that it is given");
    // Members without a partition of the topic receive nothing.
    check(&[IDLE, (1, None)], &[&[], &[7]], &[(&[0], RoundRobin)]);
}

#[test]
fn nothing_is_chosen_without_a_partition() {
    let mut chooser = Chooser::new(0);
    assert_eq!(chooser.choose(Instant::now()), None);
}

#[test]
fn a_choice_counts_until_a_reading_includes_its_message() {
    let members: [&[i32]; 2] = [&[0], &[1]];
    let idle = || reading(&[IDLE, IDLE], &members);
    let mut chooser = Chooser::new(0);
    let begun = Instant::now();
    chooser.update(idle(), begun);
    let (first, _) = chooser.choose(begun).expect("a partition");
    // It is still being published.
    chooser.update(idle(), begun + Duration::from_secs(1));
    let (second, _) = chooser
        .choose(begun + Duration::from_secs(1))
        .expect("a partition");
    assert_ne!(first, second);
    // The next reading includes the first message, and not the second one.
    for (partition, offset) in [(first, END - 1), (second, END)] {
        chooser.published(Position { partition, offset });
    }
    let later = begun + Duration::from_secs(2);
    chooser.update(idle(), later);
    assert_eq!(chooser.choose(later), Some((first, PlacementKind::Idle)));
}

#[test]
fn a_choice_whose_message_is_never_published_is_forgotten() {
    let mut chooser = Chooser::new(0);
    let begun = Instant::now();
    chooser.update(reading(&[IDLE], &[&[0]]), begun);
    assert_eq!(chooser.choose(begun), Some((0, PlacementKind::Idle)));
    chooser.update(reading(&[IDLE], &[&[0]]), begun + PLACED_LIMIT);
    assert_eq!(
        chooser.choose(begun + PLACED_LIMIT),
        Some((0, PlacementKind::Idle))
    );
}

#[test]
fn during_a_rebalance_members_have_their_partitions_of_before() {
    let mut chooser = Chooser::new(0);
    let now = Instant::now();
    let busy = [(0, Some(5)), IDLE];
    chooser.update(reading(&busy, &[&[0], &[1]]), now);
    let rebalancing = GroupReading {
        members: None,
        ..reading(&busy, &[])
    };
    chooser.update(rebalancing, now);
    assert_eq!(chooser.choose(now), Some((1, PlacementKind::Idle)));
    chooser.update(reading(&busy, &[]), now);
    let (_, kind) = chooser.choose(now).expect("a partition");
    assert_eq!(kind, PlacementKind::RoundRobin);
}
