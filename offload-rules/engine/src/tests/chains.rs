//! Rules that need others. That none is ever in the NIC without all that it needs, the scripted NIC checks at each step.

use std::sync::Arc;

use offload_rules::{
    lower::{FailureClass, NotOffloaded, Rule},
    place::Hysteresis,
};

use super::{
    Bed, Kind, PLAIN, Toy,
    chain::{GUARD, LATE_GUARD, OWN, STAGE},
    direction, first_stage, guard, id, install, install_as, steering, unfinished, vif,
};
use crate::{
    Config, MismatchKind, ProbeResult,
    protocol::{OffloadId, Request, Tier},
};

const fn failed(class: FailureClass) -> Option<(Tier, Option<NotOffloaded>)> {
    Some((Tier::Software, Some(NotOffloaded::Failed(class))))
}

fn kind(chain: u8) -> Kind {
    Kind { chain, ..PLAIN }
}

impl Bed {
    fn held(&self) -> usize {
        self.nic.lock().unwrap().rules.len()
    }

    fn holds(&self, rule: &Rule) -> bool {
        self.nic.lock().unwrap().rules.values().any(|held| held.rule == *rule)
    }

    fn ask_for(&mut self, flow: u32, chain: u8) {
        self.ask(install_as(id(flow), kind(chain), 1000));
    }

    fn remove(&mut self, flow: u32) {
        self.ask(Request::Remove { id: id(flow) });
    }

    /// One direction alone.
    fn ask_for_one(&mut self, flow: u32, chain: u8) {
        let directions = Arc::new([Some(direction(flow, false, kind(chain))), None]);
        self.ask(Request::Install { id: id(flow), directions, rate: 1000 });
    }
}

#[test]
fn a_rule_is_begun_when_what_it_needs_is_live_and_leaves_before_it() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 10;
    bed.ask_for_one(1, GUARD | STAGE | OWN);
    let mut seen = Vec::new();
    for _ in 0..5 {
        bed.poll(0);
        assert_eq!(bed.tier(id(1)), Some(Tier::Pending));
        bed.poll(10);
        seen.push(bed.held());
    }
    assert_eq!(seen, [1, 2, 3, 4, 5], "one at a time");
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
    bed.remove(1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        bed.poll(0);
        bed.poll(10);
        seen.push(bed.held());
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    bed.assert_healthy();
}

#[test]
fn equal_rules_that_several_flows_need_are_one_and_go_with_the_last() {
    let mut bed = Bed::new();
    (1..=3).for_each(|flow| bed.ask_for(flow, STAGE));
    bed.settle();
    // A stage of two rules on each of the two ports.
    assert_eq!(bed.held(), 3 * 2 + 4);
    let needed = bed.engine.rules().find(|rule| *rule.rule == first_stage(vif(1))).unwrap();
    assert_eq!((needed.needed_by, needed.flow), (3, None));
    bed.remove(1);
    bed.remove(2);
    bed.settle();
    assert_eq!(bed.held(), 2 + 4);
    bed.remove(3);
    bed.settle();
    assert_eq!(bed.held(), 0);
    assert_eq!(bed.nic.lock().unwrap().created, 10);
    bed.assert_healthy();
}

#[test]
fn a_flow_is_listed_with_what_its_rules_need_in_the_order_of_the_nic() {
    let mut bed = Bed::new();
    bed.ask_for(1, GUARD | OWN);
    bed.settle();
    let rules = bed.engine.rules_of(id(1));
    let listed: Vec<_> = rules.iter().map(|rule| (rule.flow.unwrap().1, rule.needed_by)).collect();
    assert_eq!(listed, [(0, 2), (0, 1), (0, 0), (1, 2), (1, 1), (1, 0)]);
    assert!(rules.iter().all(|rule| rule.live));
    assert_eq!(*rules[0].rule, guard());
}

#[test]
fn a_chain_may_share_a_rule_that_needs_more_or_less_than_it_says() {
    for (first, second) in [(GUARD | STAGE, STAGE), (STAGE, GUARD | STAGE), (STAGE | LATE_GUARD, GUARD | STAGE)] {
        let mut bed = Bed::new();
        bed.ask_for(1, first);
        bed.settle();
        bed.ask_for(2, second);
        bed.settle();
        assert_eq!(bed.held(), 2 * 2 + 5, "{first} {second}");
        assert_eq!((bed.tier(id(1)), bed.tier(id(2))), (Some(Tier::Hardware), Some(Tier::Hardware)));
        bed.assert_healthy();
        let created = bed.nic.lock().unwrap().created;
        bed.ask_for(2, second);
        bed.settle();
        assert_eq!(bed.nic.lock().unwrap().created, created, "asked again, nothing is touched");
        bed.remove(1);
        bed.settle();
        bed.assert_healthy();
        bed.remove(2);
        bed.settle();
        assert_eq!(bed.held(), 0);
    }
}

#[test]
fn a_need_that_fails_fails_all_that_wait_for_it_and_leaves_nothing() {
    for at_once in [false, true] {
        for (errno, class) in [(libc::EIO, FailureClass::Device), (libc::EBUSY, FailureClass::Busy)] {
            let mut bed = Bed::new();
            bed.settle();
            if at_once {
                bed.nic.lock().unwrap().refuse = [errno; 2].into();
            } else {
                bed.nic.lock().unwrap().script = [Some(errno); 2].into();
            }
            (1..=3).for_each(|flow| bed.ask_for(flow, STAGE));
            bed.settle();
            assert_eq!(bed.state(id(1)), failed(class));
            assert_eq!(bed.state(id(3)), failed(class));
            assert_eq!(bed.held(), 0);
            assert!(bed.engine.status(bed.now).totals.failed.total() <= 2, "only what the NIC has refused");
            bed.run(1_000);
            assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
            assert_eq!(bed.tier(id(3)), Some(Tier::Hardware));
            bed.assert_healthy();
        }
    }
}

#[test]
fn a_refused_rule_of_a_chain_removes_the_others_and_is_retried() {
    for nth in 0..8 {
        let mut bed = Bed::new();
        bed.settle();
        let well = std::iter::repeat_n(None, nth);
        bed.nic.lock().unwrap().script = well.chain([Some(libc::EIO)]).collect();
        bed.ask_for(1, STAGE | OWN);
        bed.settle();
        assert_eq!(bed.state(id(1)), failed(FailureClass::Device), "{nth}");
        assert_eq!(bed.held(), 0, "{nth}");
        bed.run(1_000);
        assert_eq!(bed.tier(id(1)), Some(Tier::Hardware), "{nth}");
        assert_eq!(bed.held(), 8);
        bed.assert_healthy();
    }
}

#[test]
fn a_refused_stage_condemns_only_the_shape_that_needs_it() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().closed.insert(first_stage(vif(1)).table, libc::ENOTSUP);
    bed.ask(install_as(id(1), Kind { shape: 6, ..kind(STAGE) }, 1));
    bed.ask(install_as(id(2), Kind { shape: 17, ..kind(OWN) }, 1));
    bed.settle();
    assert_eq!(bed.state(id(1)), Some((Tier::Partial, Some(NotOffloaded::Failed(FailureClass::Shape)))), "marked");
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
    assert!(!bed.holds(&unfinished(vif(1))));
    bed.assert_healthy();
}

#[test]
fn a_mark_may_need_rules_too() {
    let mut bed = Bed::new();
    bed.ask(install_as(id(1), Kind { full: false, ..kind(STAGE) }, 1));
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Partial));
    assert_eq!(bed.held(), 2 + 4);
    bed.assert_healthy();
    bed.ask(install_as(id(1), Kind { full: false, version: 2, ..kind(OWN) }, 1));
    bed.settle();
    assert_eq!(bed.held(), 2 + 2, "a mark leaves before its successor comes");
    bed.assert_healthy();
}

#[test]
fn a_late_prerequisite_is_undone_and_its_waiters_are_in_software() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 2_500;
    bed.ask_for(1, STAGE);
    bed.run(2_100);
    assert_eq!(bed.state(id(1)), failed(FailureClass::Timeout));
    bed.run(1_000);
    bed.nic.lock().unwrap().delay = 0;
    bed.run(6_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.held(), 2 + 4);
    assert!(bed.engine.status(bed.now).totals.late >= 2);
    bed.assert_healthy();
}

#[test]
fn a_completion_in_error_after_the_time_of_a_need_changes_nothing_more() {
    let mut bed = Bed::new();
    bed.settle();
    {
        let mut nic = bed.nic.lock().unwrap();
        (nic.delay, nic.script) = (2_500, vec![Some(libc::EIO); 2].into());
    }
    bed.ask_for(1, OWN);
    bed.run(2_100);
    assert_eq!(bed.state(id(1)), failed(FailureClass::Timeout));
    bed.nic.lock().unwrap().delay = 0;
    bed.run(6_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.held(), 4);
    bed.assert_healthy();
}

#[test]
fn a_removal_with_a_prerequisite_in_flight_undoes_it() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().delay = 100;
    bed.ask_for(1, STAGE | OWN);
    bed.poll(0);
    bed.remove(1);
    bed.poll(0);
    assert_eq!(bed.gone(id(1)), 1, "none of its own rules was begun");
    bed.run(500);
    assert_eq!(bed.held(), 0);
    assert_eq!(bed.nic.lock().unwrap().created, 2, "one on each port");
    bed.assert_healthy();
}

#[test]
fn a_replacement_shares_prerequisites_and_unneeded_ones_are_destroyed() {
    let mut bed = Bed::new();
    bed.ask_for(1, STAGE | OWN);
    bed.settle();
    bed.ask(install_as(id(1), Kind { version: 2, ..kind(STAGE) }, 1000));
    for _ in 0..20 {
        bed.poll(0);
        assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
        assert!(bed.held() >= 6, "never neither");
    }
    assert_eq!(bed.held(), 2 + 4);
    assert_eq!(bed.nic.lock().unwrap().created, 8 + 2);
    bed.assert_healthy();
}

#[test]
fn when_the_replacement_fails_both_go_with_all_that_they_need() {
    let mut bed = Bed::new();
    bed.ask_for(1, STAGE);
    bed.settle();
    bed.nic.lock().unwrap().script = [Some(libc::EIO)].into();
    bed.ask(install_as(id(1), Kind { version: 2, ..kind(STAGE | OWN) }, 1000));
    bed.settle();
    assert_eq!(bed.state(id(1)), failed(FailureClass::Device));
    assert_eq!(bed.held(), 0, "the old rules are stale");
    bed.run(1_000);
    assert_eq!(bed.held(), 8);
    bed.assert_healthy();
}

#[test]
fn a_flow_waits_until_a_need_on_its_way_out_is_gone() {
    let mut bed = Bed::new();
    bed.ask_for(1, STAGE);
    bed.settle();
    bed.nic.lock().unwrap().delay = 100;
    bed.remove(1);
    bed.run(200);
    assert!(bed.held() > 0);
    bed.ask_for(2, STAGE);
    bed.run(2_000);
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
    assert_eq!(bed.engine.status(bed.now).totals.failed.total(), 0, "the NIC never saw a duplicate");
    bed.assert_healthy();
}

#[test]
fn another_rule_with_the_match_of_a_need_keeps_its_flow_in_software() {
    let toy = Toy::default();
    let steering = Rule { actions: vec![offload_rules::lower::Action::Drop], ..first_stage(vif(1)) };
    *toy.steering.lock().unwrap() = vec![steering];
    let mut bed = Bed::with(Config::default(), toy);
    bed.ask_for(1, STAGE);
    bed.ask_for(2, OWN);
    bed.settle();
    assert_eq!(bed.state(id(1)), failed(FailureClass::Duplicate));
    assert_eq!((bed.tier(id(2)), bed.held()), (Some(Tier::Hardware), 1 + 4));
    bed.toy.steering.lock().unwrap().clear();
    bed.engine.adopt(&std::sync::Arc::new(offload_rules::forwarding::Snapshot::empty()), bed.now);
    bed.run(1_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn what_flows_need_counts_for_room() {
    for known in [false, true] {
        let toy = Toy { capacity: known.then_some(7), ..Toy::default() };
        let mut bed = Bed::with(Config::default(), toy);
        bed.nic.lock().unwrap().capacity = Some(7);
        bed.ask_for(1, OWN);
        bed.settle();
        bed.ask_for(2, OWN);
        bed.settle();
        assert_eq!(bed.state(id(2)), Some((Tier::Software, Some(NotOffloaded::Placement))));
        assert_eq!(bed.held(), 4);
        let created = bed.nic.lock().unwrap().created;
        bed.run(1_500);
        let more = bed.nic.lock().unwrap().created - created;
        assert!(more <= 12, "a half that does not fit is not tried over and over: {more}");
        if known {
            bed.ask(install(id(3)));
            bed.settle();
            assert_eq!(bed.tier(id(3)), Some(Tier::Hardware), "without needs, there is room");
        }
        bed.assert_healthy();
    }
}

#[test]
fn an_evicted_flow_makes_room_with_what_only_it_needs() {
    for known in [false, true] {
        let toy = Toy { capacity: known.then_some(10), ..Toy::default() };
        let hysteresis = Hysteresis { residence_ms: 0, ..Hysteresis::default() };
        let mut bed = Bed::with(Config { hysteresis, ..Config::default() }, toy);
        bed.nic.lock().unwrap().capacity = Some(10);
        for (flow, rate) in [(1, 1_000), (2, 2_000)] {
            bed.ask(install_as(id(flow), kind(GUARD | OWN), rate));
        }
        bed.settle();
        assert_eq!(bed.held(), 9);
        bed.ask(install_as(id(3), kind(GUARD | OWN), 50_000));
        bed.settle();
        assert_eq!(bed.tier(id(3)), Some(Tier::Hardware), "{known}");
        assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
        assert_eq!(bed.state(id(1)), Some((Tier::Software, Some(NotOffloaded::Placement))));
        assert_eq!(bed.engine.status(bed.now).totals.evicted, 1, "one pair was enough");
        assert_eq!(bed.held(), 9);
        bed.assert_healthy();
    }
}

#[test]
fn a_rule_that_cannot_be_destroyed_keeps_what_it_needs() {
    let mut bed = Bed::new();
    bed.ask_for_one(1, STAGE);
    bed.settle();
    bed.nic.lock().unwrap().stuck = vec![libc::EIO; 5].into();
    bed.remove(1);
    bed.settle();
    assert_eq!(bed.held(), 3);
    bed.hit(1, false, 3);
    bed.run(60_000);
    assert_eq!((bed.gone(id(1)), bed.held(), bed.counted(id(1))), (1, 0, [3, 0]));
    bed.assert_healthy();
}

#[test]
fn off_and_on_and_a_reset_take_needs_along() {
    let mut bed = Bed::new();
    (1..=2).for_each(|flow| bed.ask_for(flow, GUARD | STAGE | OWN));
    bed.settle();
    let all = bed.held();
    bed.engine.set_enabled(false, bed.now);
    bed.settle();
    assert_eq!(bed.held(), 0);
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    assert_eq!(bed.held(), all);
    bed.nic.lock().unwrap().delay = 10;
    bed.ask_for(3, STAGE | OWN);
    bed.remove(2);
    bed.poll(1);
    bed.nic.lock().unwrap().reset();
    bed.run(2_000);
    assert_eq!((bed.tier(id(1)), bed.tier(id(3)), bed.gone(id(2))), (Some(Tier::Hardware), Some(Tier::Hardware), 1));
    bed.assert_healthy();
}

#[test]
fn switched_off_steering_leaves_after_flows_and_prerequisites() {
    let toy = Toy::default();
    *toy.steering.lock().unwrap() = vec![steering(1), steering(2)];
    let mut bed = Bed::with(Config::default(), toy);
    bed.ask_for(1, STAGE | OWN);
    bed.settle();
    bed.nic.lock().unwrap().delay = 10;
    bed.engine.set_enabled(false, bed.now);
    for _ in 0..10 {
        bed.poll(0);
        bed.poll(10);
        let steered = [steering(1), steering(2)].iter().all(|rule| bed.holds(rule));
        assert!(steered || bed.held() < 2, "{} rules without steering", bed.held());
    }
    assert_eq!(bed.held(), 0);
    assert!(bed.engine.idle());
    bed.assert_healthy();
    // On again before all are gone: nothing is torn down that is wanted.
    bed.nic.lock().unwrap().delay = 0;
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    bed.nic.lock().unwrap().delay = 10;
    bed.engine.set_enabled(false, bed.now);
    bed.poll(0);
    bed.engine.set_enabled(true, bed.now);
    bed.run(1_000);
    assert!(bed.holds(&steering(1)) && bed.tier(id(1)) == Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn a_canary_is_tried_with_what_it_needs_and_refused_with_it() {
    let toy = Toy { canaries: vec![6, 17], canary_chain: STAGE | OWN, ..Toy::default() };
    let mut bed = Bed::with(Config::default(), toy.clone());
    bed.settle();
    let found = |bed: &Bed| -> Vec<_> {
        bed.engine.status(bed.now).shapes.iter().map(|shape| shape.probe.clone().unwrap()).collect()
    };
    assert_eq!(found(&bed), [ProbeResult::Works, ProbeResult::Works]);
    assert_eq!((bed.held(), bed.nic.lock().unwrap().created), (0, 2 + 2 + 2), "a stage was shared");
    let mut bed = Bed::with(Config::default(), toy);
    bed.nic.lock().unwrap().closed.insert(first_stage(vif(1)).table, libc::ENOTSUP);
    bed.settle();
    assert!(found(&bed).iter().all(|finding| matches!(finding, ProbeResult::Refused(_))), "{:?}", found(&bed));
    assert_eq!(bed.held(), 0);
    bed.assert_healthy();
}

#[test]
fn the_difference_names_a_need_that_is_not_there() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().mute = true;
    bed.ask_for(1, GUARD);
    bed.poll(0);
    let diff = bed.engine.diff();
    assert!(diff.iter().all(|mismatch| mismatch.kind == MismatchKind::Missing), "{diff:?}");
    assert!(diff.iter().any(|mismatch| *mismatch.rule == guard() && mismatch.flow.is_some()), "{diff:?}");
    bed.nic.lock().unwrap().mute = false;
    bed.settle();
    bed.assert_healthy();
}

#[test]
fn the_same_flow_in_another_life_may_take_its_needs_over() {
    let mut bed = Bed::new();
    bed.ask_for(1, OWN);
    bed.settle();
    let reborn = OffloadId { generation: 2, ..id(1) };
    bed.remove(1);
    bed.ask(install_as(reborn, kind(OWN), 1000));
    bed.run(1_000);
    assert_eq!((bed.gone(id(1)), bed.tier(reborn)), (1, Some(Tier::Hardware)));
    assert_eq!(bed.held(), 4);
    bed.assert_healthy();
}
