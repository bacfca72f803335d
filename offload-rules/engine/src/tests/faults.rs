//! Each fault that a NIC is known for.

use offload_rules::{
    lower::{FailureClass, NotOffloaded},
    place::Hysteresis,
};

use super::{Bed, Kind, PLAIN, Toy, id, install, install_as};
use crate::{
    Config, ProbeResult,
    protocol::{Report, Request, Tier},
};

const fn failed(class: FailureClass) -> Option<(Tier, Option<NotOffloaded>)> {
    Some((Tier::Software, Some(NotOffloaded::Failed(class))))
}

#[test]
fn a_refused_insert_leaves_the_flow_in_software_and_is_tried_again() {
    for at_once in [false, true] {
        let mut bed = Bed::new();
        bed.settle();
        if at_once {
            bed.nic.lock().unwrap().refuse = [libc::EIO].into();
        } else {
            bed.nic.lock().unwrap().script = [Some(libc::EIO)].into();
        }
        bed.ask(install(id(1)));
        bed.settle();
        assert_eq!(bed.state(id(1)), failed(FailureClass::Device));
        assert_eq!(bed.nic.lock().unwrap().rules.len(), 0, "no half is left");
        bed.run(1_000);
        assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
        bed.assert_healthy();
    }
}

#[test]
fn when_the_second_half_fails_the_first_one_goes() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().script = [None, Some(libc::EBUSY)].into();
    bed.ask(install(id(1)));
    bed.settle();
    assert_eq!(bed.state(id(1)), failed(FailureClass::Busy));
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 0);
    assert!(!bed.told.iter().any(|report| matches!(report, Report::State { tier: Tier::Hardware, .. })));
    bed.run(1_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn attempts_get_rarer() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().refuse = vec![libc::EIO; 1000].into();
    bed.ask(install(id(1)));
    bed.run(60_000);
    let tried = 1000 - bed.nic.lock().unwrap().refuse.len();
    assert!((8..=30).contains(&tried), "{tried} rules tried in a minute");
    bed.nic.lock().unwrap().refuse.clear();
    bed.run(60_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn an_insert_that_is_late_by_500_ms_is_waited_for() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 500;
    bed.ask(install(id(1)));
    bed.run(400);
    assert_eq!(bed.tier(id(1)), Some(Tier::Pending));
    bed.run(200);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    let status = bed.engine.status(bed.now);
    assert!(status.latency_p99 >= 500, "{}", status.latency_p99);
    bed.assert_healthy();
}

#[test]
fn flows_do_not_wait_for_canaries_longer_than_the_time_for_them() {
    let config = Config::default();
    let toy = Toy { canaries: (20..120).collect(), ..Toy::default() };
    let mut bed = Bed::with(config, toy);
    {
        // One at a time, half a second each.
        let mut nic = bed.nic.lock().unwrap();
        (nic.depth, nic.delay) = (1, 500);
    }
    bed.ask(install(id(1)));
    bed.run(config.probe - 100);
    assert_eq!(bed.tier(id(1)), Some(Tier::Pending));
    // What is under way ends, then the two rules of the flow come.
    bed.run(2_500);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    let shapes = bed.engine.status(bed.now).shapes;
    let tried = shapes.iter().filter(|shape| shape.probe == Some(ProbeResult::Works)).count();
    assert!((1..5).contains(&tried), "{tried}");
    assert!(!shapes.iter().any(|shape| shape.probe == Some(ProbeResult::Waiting) || shape.refused.is_some()));
    bed.assert_healthy();
}

#[test]
fn a_driver_that_takes_long_for_each_rule_leaves_the_engine_after_each() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().slice = Some(1);
    (1..=3).for_each(|flow| bed.ask(install(id(flow))));
    for created in 0..=6 {
        bed.poll(0);
        assert_eq!(bed.nic.lock().unwrap().created, created);
    }
    bed.settle();
    assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)));
    bed.assert_healthy();
}

#[test]
fn a_completion_after_its_time_is_undone() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 2_500;
    bed.ask(install(id(1)));
    bed.run(2_100);
    assert_eq!(bed.state(id(1)), failed(FailureClass::Timeout));
    bed.nic.lock().unwrap().delay = 0;
    bed.run(6_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 2, "late rules are gone");
    assert!(bed.engine.status(bed.now).totals.late >= 2);
    bed.assert_healthy();
}

#[test]
fn completions_that_never_come_end_in_a_flush() {
    let mut bed = Bed::new();
    bed.settle();
    {
        let mut nic = bed.nic.lock().unwrap();
        (nic.mute, nic.depth) = (true, 2);
    }
    bed.ask(install(id(1)));
    bed.run(9_000);
    bed.nic.lock().unwrap().mute = false;
    bed.nic.lock().unwrap().delay = 1;
    bed.run(120_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
    let mut bed = Bed::new();
    bed.settle();
    {
        let mut nic = bed.nic.lock().unwrap();
        (nic.mute, nic.depth) = (true, 2);
    }
    bed.ask(install(id(1)));
    bed.run(20_000);
    assert!(bed.engine.status(bed.now).totals.resets >= 1, "the queue was choked");
}

#[test]
fn a_shape_that_the_nic_has_never_taken_is_not_tried_again() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().refused.insert(6, libc::ENOTSUP);
    let kind = Kind { shape: 6, partial: false, ..PLAIN };
    bed.ask(install_as(id(1), kind, 1));
    bed.run(1_000);
    assert_eq!(bed.state(id(1)), failed(FailureClass::Shape));
    let tried = bed.engine.status(bed.now).totals.failed.shape;
    bed.ask(install_as(id(2), kind, 1));
    bed.run(60_000);
    assert_eq!(bed.state(id(2)), failed(FailureClass::Shape));
    assert_eq!(bed.engine.status(bed.now).totals.failed.shape, tried);
    // Off and on is the operator's way to have it looked at again.
    bed.nic.lock().unwrap().refused.clear();
    bed.engine.set_enabled(false, bed.now);
    bed.settle();
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
}

#[test]
fn a_shape_that_has_worked_survives_not_supported_when_full() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.nic.lock().unwrap().script = [Some(libc::ENOSYS), None].into();
    bed.ask(install(id(2)));
    bed.settle();
    assert_eq!(bed.state(id(2)), failed(FailureClass::Shape));
    bed.run(1_000);
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
}

#[test]
fn a_refused_shape_is_marked_where_that_is_possible() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().script = [Some(libc::EINVAL), Some(libc::EINVAL)].into();
    bed.ask(install(id(1)));
    bed.settle();
    assert_eq!(bed.state(id(1)), Some((Tier::Partial, Some(NotOffloaded::Failed(FailureClass::Shape)))));
    bed.assert_healthy();
}

#[test]
fn a_shape_of_which_a_rule_in_flight_turns_out_to_work_is_acquitted() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().script = [Some(libc::EINVAL), None].into();
    bed.ask(install(id(1)));
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert!(bed.engine.status(bed.now).shapes.iter().all(|shape| shape.refused.is_none()));
    bed.assert_healthy();
}

#[test]
fn in_a_full_table_a_clearly_busier_flow_replaces_the_coldest() {
    for known in [false, true] {
        let toy = Toy { capacity: known.then_some(4), ..Toy::default() };
        let mut bed = Bed::with(
            Config { hysteresis: Hysteresis { residence_ms: 0, ..Hysteresis::default() }, ..Config::default() },
            toy,
        );
        bed.nic.lock().unwrap().capacity = Some(4);
        bed.ask(install_as(id(1), PLAIN, 1_000));
        bed.ask(install_as(id(2), PLAIN, 2_000));
        bed.settle();
        bed.ask(install_as(id(3), PLAIN, 1));
        bed.settle();
        assert_eq!(bed.state(id(3)), Some((Tier::Software, Some(NotOffloaded::Placement))));
        bed.ask(install_as(id(4), PLAIN, 50_000));
        bed.settle();
        assert_eq!(bed.tier(id(4)), Some(Tier::Hardware));
        let loser = if bed.tier(id(1)) == Some(Tier::Software) { id(1) } else { id(2) };
        assert_eq!(bed.state(loser), Some((Tier::Software, Some(NotOffloaded::Placement))));
        assert_eq!(bed.engine.status(bed.now).totals.evicted, 1);
        bed.assert_healthy();
        // Room: the hottest of those who wait is next.
        bed.ask(Request::Remove { id: id(4) });
        bed.settle();
        assert_eq!(bed.tier(loser), Some(Tier::Hardware));
        assert_eq!(bed.tier(id(3)), Some(Tier::Software));
        bed.assert_healthy();
    }
}

#[test]
fn with_the_counter_pool_exhausted_the_flow_waits_in_software() {
    for errno in [libc::ENOMEM, libc::ENOSPC, libc::ENOENT] {
        let mut bed = Bed::new();
        bed.settle();
        bed.nic.lock().unwrap().script = vec![Some(errno); 2].into();
        bed.ask(install(id(1)));
        bed.settle();
        assert_eq!(bed.state(id(1)), failed(FailureClass::Capacity));
        bed.run(30_000);
        assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
        bed.assert_healthy();
    }
}

/// mlx5 says ENOMEM where rdma-core refuses a matcher, whatever for (mlx5_flow_dv.c, `flow_dv_matcher_create_cb`).
#[test]
fn no_room_for_a_new_shape_costs_no_other_flow_its_place() {
    let hysteresis = Hysteresis { residence_ms: 0, ..Hysteresis::default() };
    let mut bed = Bed::with(Config { hysteresis, ..Config::default() }, Toy::default());
    (1..=3).for_each(|flow| bed.ask(install_as(id(flow), PLAIN, 1_000)));
    bed.settle();
    bed.nic.lock().unwrap().refused.insert(6, libc::ENOMEM);
    bed.ask(install_as(id(9), Kind { shape: 6, partial: false, ..PLAIN }, 1_000_000));
    bed.settle();
    for _ in 0..2 {
        assert_eq!(bed.state(id(9)), failed(FailureClass::Capacity));
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)));
        let status = bed.engine.status(bed.now);
        assert_eq!((status.totals.evicted, status.full), (0, false));
        bed.run(60_000);
    }
    bed.nic.lock().unwrap().refused.clear();
    bed.run(60_000);
    assert_eq!(bed.tier(id(9)), Some(Tier::Hardware), "it was tried again");
    bed.assert_healthy();
}

#[test]
fn a_replacement_in_a_full_table_takes_the_room_of_the_old_rules() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().capacity = Some(2);
    bed.ask(install(id(1)));
    bed.settle();
    bed.ask(install_as(id(1), Kind { version: 2, ..PLAIN }, 1000));
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert!(bed.engine.rules_of(id(1)).iter().all(|rule| rule.rule.to_string().contains("ttl_value 2")));
    bed.assert_healthy();
}

#[test]
fn after_a_failed_replacement_the_stale_rules_do_not_stay() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.nic.lock().unwrap().script = [None, Some(libc::EIO)].into();
    bed.ask(install_as(id(1), Kind { version: 2, ..PLAIN }, 1000));
    bed.settle();
    assert_eq!(bed.state(id(1)), failed(FailureClass::Device));
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 0);
    bed.run(1_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
}

#[test]
fn after_a_reset_everything_is_installed_anew_and_counters_begin_again() {
    let mut bed = Bed::new();
    (1..=3).for_each(|n| bed.ask(install(id(n))));
    bed.settle();
    bed.hit(1, false, 10);
    bed.run(1_000);
    assert_eq!(bed.counted(id(1)), [10, 0]);
    bed.nic.lock().unwrap().reset();
    bed.poll(0);
    assert_eq!(bed.tier(id(1)), Some(Tier::Pending), "software forwards meanwhile");
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.hit(1, false, 4);
    bed.run(1_000);
    assert_eq!(bed.counted(id(1)), [14, 0]);
    assert_eq!(bed.engine.status(bed.now).totals.resets, 1);
    bed.assert_healthy();
}

#[test]
fn a_reset_in_the_middle_of_everything_leaves_nothing_behind() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().delay = 10;
    bed.ask(install(id(1)));
    bed.run(200);
    bed.ask(install_as(id(1), Kind { version: 2, ..PLAIN }, 1));
    bed.ask(install(id(2)));
    bed.poll(1);
    bed.ask(Request::Remove { id: id(2) });
    bed.poll(1);
    bed.nic.lock().unwrap().reset();
    bed.run(2_000);
    assert_eq!(bed.gone(id(2)), 1);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn nothing_is_offloaded_while_the_nic_cannot_be_flushed() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().flush_fails = 3;
    bed.ask(install(id(1)));
    bed.poll(0);
    assert_eq!(bed.state(id(1)), failed(FailureClass::Device));
    bed.run(5_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
}

#[test]
fn a_rule_deleted_behind_our_back_is_noticed_and_put_back() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    let token = bed.engine.rules_of(id(1))[0].token;
    bed.nic.lock().unwrap().steal(token);
    bed.run(2_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.engine.status(bed.now).totals.lost, 1);
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 2);
    bed.assert_healthy();
}

#[test]
fn a_rule_that_resists_destruction_is_retried_and_still_counted() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.nic.lock().unwrap().stuck = vec![libc::EIO; 5].into();
    bed.ask(Request::Remove { id: id(1) });
    bed.settle();
    assert_eq!(bed.gone(id(1)), 0);
    bed.hit(1, false, 3);
    bed.hit(1, true, 3);
    bed.run(60_000);
    assert_eq!(bed.gone(id(1)), 1);
    assert_eq!(bed.counted(id(1)), [3, 3]);
    bed.assert_healthy();
}

#[test]
fn a_last_counter_that_cannot_be_read_at_once_is_read_later() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.hit(1, false, 3);
    bed.nic.lock().unwrap().blind = vec![libc::EAGAIN; 2].into();
    bed.ask(Request::Remove { id: id(1) });
    bed.run(3_000);
    assert_eq!(bed.counted(id(1)), [3, 0]);
    assert_eq!(bed.gone(id(1)), 1);
}

#[test]
fn a_removal_while_the_insert_is_in_flight_destroys_what_comes() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 100;
    bed.ask(install(id(1)));
    bed.poll(0);
    bed.ask(Request::Remove { id: id(1) });
    bed.poll(50);
    assert_eq!(bed.gone(id(1)), 0, "not before its rules are");
    bed.run(500);
    assert_eq!(bed.gone(id(1)), 1);
    assert_eq!(bed.nic.lock().unwrap().created, 2);
    assert_eq!(bed.nic.lock().unwrap().destroyed, 2);
    bed.assert_healthy();
}

#[test]
fn a_removal_before_the_insert_has_begun_asks_the_nic_for_nothing() {
    let mut bed = Bed::new();
    bed.settle();
    bed.ask(install(id(1)));
    bed.ask(Request::Remove { id: id(1) });
    bed.settle();
    assert_eq!(bed.gone(id(1)), 1);
    assert_eq!(bed.nic.lock().unwrap().created, 0);
}

#[test]
fn a_new_life_of_the_same_flow_waits_until_its_old_rules_are_gone() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.nic.lock().unwrap().delay = 100;
    let reborn = crate::protocol::OffloadId { generation: 2, ..id(1) };
    bed.ask(Request::Remove { id: id(1) });
    bed.ask(install(reborn));
    bed.run(1_000);
    assert_eq!(bed.tier(reborn), Some(Tier::Hardware));
    assert_eq!(bed.engine.status(bed.now).totals.failed.total(), 0, "the NIC never saw a duplicate");
    bed.assert_healthy();
}

#[test]
fn a_duplicate_of_a_living_flow_waits_in_software() {
    let mut bed = Bed::new();
    let twin = crate::protocol::OffloadId { generation: 2, ..id(1) };
    bed.ask(install(id(1)));
    bed.ask(install(twin));
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.state(twin), failed(FailureClass::Duplicate));
    bed.ask(Request::Remove { id: id(1) });
    bed.run(1_000);
    assert_eq!(bed.tier(twin), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn a_duplicate_that_is_not_ours_is_tried_again_later() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().script = [Some(libc::EEXIST)].into();
    bed.ask(install(id(1)));
    bed.settle();
    assert_eq!(bed.state(id(1)), failed(FailureClass::Duplicate));
    bed.run(1_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
}

#[test]
fn a_shape_that_several_flows_are_not_honoured_in_is_not_used_any_more() {
    let mut bed = Bed::new();
    (1..=5).for_each(|n| bed.ask(install(id(n))));
    bed.ask(install_as(id(9), Kind { shape: 6, ..PLAIN }, 1));
    bed.settle();
    for n in 1..=3 {
        bed.ask(Request::NotHonoured { id: id(n) });
        bed.ask(Request::NotHonoured { id: id(n) });
        bed.settle();
        assert_eq!(bed.state(id(n)), Some((Tier::Software, Some(NotOffloaded::NotHonoured))));
    }
    assert_eq!(bed.state(id(5)), Some((Tier::Software, Some(NotOffloaded::NotHonoured))), "nobody asked for this one");
    assert_eq!(bed.tier(id(9)), Some(Tier::Hardware), "another shape");
    let status = bed.engine.status(bed.now);
    assert_eq!(status.shapes.iter().find(|s| s.shape == "17").unwrap().refused, Some(NotOffloaded::NotHonoured));
    bed.run(60_000);
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 2);
    bed.assert_healthy();
}

#[test]
fn a_single_doubt_is_forgotten_when_the_nic_counts() {
    let mut bed = Bed::new();
    (1..=3).for_each(|n| bed.ask(install(id(n))));
    bed.settle();
    bed.ask(Request::NotHonoured { id: id(1) });
    bed.settle();
    bed.hit(2, false, 1);
    bed.run(20_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware), "tried again");
    let status = bed.engine.status(bed.now);
    assert_eq!((status.shapes[0].doubts, status.shapes[0].proven), (0, true));
}

#[test]
fn a_flow_that_became_hot_while_it_waited_gives_way_itself() {
    let toy = Toy { capacity: Some(2), ..Toy::default() };
    let hysteresis = Hysteresis { residence_ms: 0, ..Hysteresis::default() };
    let mut bed = Bed::with(Config { hysteresis, ..Config::default() }, toy);
    bed.ask(install_as(id(1), PLAIN, 1_000));
    bed.settle();
    bed.ask(install_as(id(2), PLAIN, 1));
    bed.settle();
    assert_eq!(bed.state(id(2)), Some((Tier::Software, Some(NotOffloaded::Placement))));
    bed.ask(Request::Rate { id: id(2), rate: 50_000 });
    bed.settle();
    assert_eq!((bed.tier(id(1)), bed.tier(id(2))), (Some(Tier::Software), Some(Tier::Hardware)));
    // The time at which it would have been tried passes.
    bed.poll(200);
    bed.settle();
    bed.ask(install_as(id(3), PLAIN, 1_000_000));
    bed.settle();
    assert_eq!((bed.tier(id(2)), bed.tier(id(3))), (Some(Tier::Software), Some(Tier::Hardware)));
    bed.assert_healthy();
}
