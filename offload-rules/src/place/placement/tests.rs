use super::*;

fn two() -> Placement<u32> {
    let mut placement = Placement::new(Hysteresis::default());
    placement.place(1, 100, 0);
    placement.place(2, 200, 0);
    placement
}

#[test]
fn the_coldest_goes_for_one_that_carries_clearly_more() {
    let placement = two();
    assert_eq!(placement.victim(125, 5000), None, "a quarter more is not clearly more");
    assert_eq!(placement.victim(126, 5000), Some(1));
    assert!(placement.is_hot(126) && !placement.is_hot(125));
}

#[test]
fn whoever_has_just_come_stays_for_a_while() {
    let mut placement = two();
    placement.place(1, 100, 4500);
    assert_eq!(placement.victim(1000, 5499), None);
    assert_eq!(placement.victim(1000, 5500), Some(1));
}

#[test]
fn flows_without_traffic_do_not_take_turns() {
    let mut placement = Placement::new(Hysteresis { factor_percent: 0, residence_ms: 0 });
    placement.place(1, 0, 0);
    assert_eq!((placement.victim(0, 9), placement.victim(1, 9)), (None, Some(1)));
}

#[test]
fn rates_that_change_change_the_order() {
    let mut placement = two();
    placement.update(1, u64::MAX);
    assert_eq!(placement.victim(300, 5000), Some(2));
    placement.wait(3, 5, 0);
    placement.wait(4, 6, 0);
    assert_eq!(placement.next(), Some(4));
    placement.update(3, 7);
    placement.update(9, 1000);
    assert_eq!(placement.next(), Some(3));
}

#[test]
fn who_waits_has_no_place_and_who_is_forgotten_has_neither() {
    let mut placement = two();
    placement.wait(1, 100, 0);
    assert_eq!((placement.placed(), placement.waiting()), (1, 1));
    placement.forget(1);
    placement.forget(2);
    assert_eq!(
        (placement.placed(), placement.waiting(), placement.next(), placement.victim(1, 5000)),
        (0, 0, None, None)
    );
}
