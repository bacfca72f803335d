use proptest::prelude::*;

use super::*;

const H: Hysteresis = Hysteresis { factor_percent: 150, residence_ms: 1000, window_ms: 0 };

fn full(rates: &[u64]) -> Placement<u32> {
    let mut placement = Placement::new(rates.len(), H);
    for (id, rate) in rates.iter().enumerate() {
        placement.offer(id as u32, *rate, 0);
    }
    while placement.admit(0).is_some() {}
    placement
}

#[test]
fn free_places_go_to_the_hottest_first() {
    let mut placement = Placement::new(2, H);
    for (id, rate) in [(1, 10), (2, 30), (3, 20)] {
        placement.offer(id, rate, 0);
    }
    assert_eq!(placement.admit(0), Some(Admission { admit: 2, evict: None }));
    assert_eq!(placement.admit(0), Some(Admission { admit: 3, evict: None }));
    assert_eq!(placement.admit(0), None);
    assert_eq!(placement.standing(1), Some((Standing::Waiting, 10)));
}

#[test]
fn a_candidate_must_beat_the_coldest_by_a_factor_and_the_coldest_must_have_had_its_time() {
    let mut placement = full(&[100, 200]);
    placement.offer(7, 149, 0);
    assert_eq!(placement.admit(5000), None, "not by enough");
    placement.update(7, 150, 5000);
    assert_eq!(placement.admit(999), None, "too early");
    assert_eq!(placement.admit(1000), Some(Admission { admit: 7, evict: Some(0) }));
    assert_eq!(placement.standing(0), Some((Standing::Waiting, 100)));
    // The one that went does not come back at the same rates.
    assert_eq!(placement.admit(100_000), None);
}

#[test]
fn flows_that_carry_nothing_do_not_take_turns() {
    let mut placement = full(&[0]);
    placement.offer(7, 0, 0);
    assert_eq!(placement.admit(100_000), None);
}

#[test]
fn what_the_nic_would_not_take_waits_again_and_what_is_removed_frees_its_place() {
    let mut placement = full(&[100]);
    placement.give_back(0, 10);
    assert_eq!((placement.placed(), placement.waiting()), (0, 1));
    assert_eq!(placement.admit(10), Some(Admission { admit: 0, evict: None }));
    assert!(placement.remove(0));
    assert!(!placement.remove(0));
    assert_eq!((placement.placed(), placement.waiting()), (0, 0));
}

#[test]
fn when_there_are_fewer_places_than_thought_the_coldest_leave() {
    let mut placement = full(&[300, 100, 200]);
    assert_eq!(placement.surplus(0), None);
    placement.set_capacity(1);
    assert_eq!(placement.surplus(0), Some(1));
    assert_eq!(placement.surplus(0), Some(2));
    assert_eq!(placement.surplus(0), None);
    assert_eq!(placement.coldest(), Some((0, 300)));
    assert_eq!(placement.hottest_waiting(), Some((2, 200)));
}

#[test]
fn a_table_without_places_admits_nobody() {
    let mut placement = Placement::new(0, H);
    placement.offer(1, u64::MAX, 0);
    assert_eq!(placement.admit(1_000_000), None);
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u8, u64),
    Update(u8, u64),
    Remove(u8),
    GiveBack(u8),
    Admit,
    Capacity(usize),
    Surplus,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<u8>(), 0..1000u64).prop_map(|(id, rate)| Step::Offer(id, rate)),
        (any::<u8>(), 0..1000u64).prop_map(|(id, rate)| Step::Update(id, rate)),
        any::<u8>().prop_map(Step::Remove),
        any::<u8>().prop_map(Step::GiveBack),
        Just(Step::Admit),
        Just(Step::Admit),
        (0..20usize).prop_map(Step::Capacity),
        Just(Step::Surplus),
    ]
}

proptest! {
    #[test]
    fn every_flow_is_in_one_place_and_never_more_than_there_are_get_one(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let mut placement = Placement::new(8, Hysteresis { window_ms: 500, ..H });
        for (i, step) in steps.into_iter().enumerate() {
            let now = i as u64 * 300;
            match step {
                Step::Offer(id, rate) => placement.offer(id, rate, now),
                Step::Update(id, rate) => placement.update(id, rate, now),
                Step::Remove(id) => _ = placement.remove(id),
                Step::GiveBack(id) => placement.give_back(id, now),
                Step::Capacity(n) => placement.set_capacity(n),
                Step::Surplus => _ = placement.surplus(now),
                Step::Admit => {
                    let before = placement.placed();
                    let admission = placement.admit(now);
                    if let Some(Admission { admit, evict }) = admission {
                        prop_assert_eq!(placement.standing(admit).unwrap().0, Standing::Placed);
                        prop_assert!(evict.is_some() || placement.placed() <= placement.capacity());
                        if let Some(evicted) = evict {
                            prop_assert_eq!(placement.placed(), before);
                            let (hot, cold) = (placement.standing(admit).unwrap().1, placement.standing(evicted).unwrap().1);
                            prop_assert!(hot * 100 >= cold * 150 && hot > cold);
                        }
                    }
                }
            }
            prop_assert_eq!(placement.entries.len(), placement.placed() + placement.waiting());
            for (rate, id) in placement.placed.iter().chain(&placement.waiting) {
                prop_assert_eq!(placement.entries[id].rate.value(), *rate);
            }
        }
    }
}
