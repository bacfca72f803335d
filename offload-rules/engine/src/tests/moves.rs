//! Moves that nothing goes wrong in.

use std::sync::Arc;

use offload_rules::lower::{Action, Item, NotOffloaded, Rule, Table, Unsupported};

use super::{Bed, Kind, PLAIN, Toy, direction, id, install, install_as, steering, vif};
use crate::{
    Config, ProbeResult,
    protocol::{Report, Request, Tier},
};

#[test]
fn a_pair_is_in_hardware_only_when_both_rules_are_in() {
    let mut bed = Bed::new();
    bed.settle();
    bed.nic.lock().unwrap().depth = 1;
    bed.ask(install(id(1)));
    bed.poll(0);
    bed.poll(0);
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 1, "one half is in");
    assert_eq!(bed.state(id(1)), Some((Tier::Pending, Some(NotOffloaded::Pending))));
    bed.settle();
    assert_eq!(bed.state(id(1)), Some((Tier::Hardware, None)));
    bed.assert_healthy();
}

#[test]
fn a_denied_flow_has_one_rule() {
    let mut bed = Bed::new();
    bed.ask(Request::Install { id: id(1), directions: Arc::new([Some(direction(1, false, PLAIN)), None]), rate: 0 });
    bed.settle();
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 1);
    bed.assert_healthy();
}

#[test]
fn what_cannot_be_forwarded_is_marked_and_says_why() {
    let mut bed = Bed::new();
    bed.ask(install_as(id(1), Kind { full: false, ..PLAIN }, 1));
    bed.ask(install_as(id(2), Kind { full: false, partial: false, ..PLAIN }, 1));
    bed.settle();
    let why = NotOffloaded::Unsupported(Unsupported::Encap);
    assert_eq!(bed.state(id(1)), Some((Tier::Partial, Some(why))));
    assert_eq!(bed.state(id(2)), Some((Tier::Software, Some(why))));
    assert_eq!(bed.engine.reasons().get(&why), Some(&2));
    bed.hit(1, false, 9);
    bed.run(2_000);
    assert_eq!(bed.counted(id(1)), [0, 0], "software sees marked packets and counts them itself");
    bed.assert_healthy();
}

#[test]
fn one_direction_is_marked_where_the_other_cannot_be() {
    let mut bed = Bed::new();
    let unmarkable = direction(1, true, Kind { full: false, partial: false, ..PLAIN });
    let pair = [Some(direction(1, false, Kind { full: false, ..PLAIN })), Some(unmarkable)];
    bed.ask(Request::Install { id: id(1), directions: Arc::new(pair), rate: 1 });
    bed.settle();
    assert_eq!(bed.state(id(1)), Some((Tier::Partial, Some(NotOffloaded::Unsupported(Unsupported::Encap)))));
    assert!(bed.told.contains(&Report::Marked { id: id(1), directions: [true, false] }), "{:?}", bed.told);
    assert_eq!(bed.engine.rules_of(id(1)).len(), 1);
    bed.assert_healthy();
    bed.ask(Request::Remove { id: id(1) });
    bed.settle();
    assert_eq!((bed.gone(id(1)), bed.nic.lock().unwrap().rules.len()), (1, 0));
}

#[test]
fn a_replacement_is_in_before_the_old_rules_go_and_counts_go_on() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.hit(1, false, 5);
    bed.ask(install_as(id(1), Kind { version: 2, ..PLAIN }, 1000));
    for _ in 0..20 {
        bed.poll(0);
        let both = bed.nic.lock().unwrap().rules.len();
        assert!(both >= 2, "never neither: {both}");
        assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    }
    bed.hit(1, false, 3);
    bed.hit(1, true, 2);
    bed.settle();
    bed.ask(Request::Remove { id: id(1) });
    bed.settle();
    assert_eq!(bed.counted(id(1)), [8, 2]);
    assert_eq!(bed.gone(id(1)), 1);
    bed.assert_healthy();
    assert_eq!(bed.engine.status(bed.now).flows, 0);
}

#[test]
fn of_several_replacements_the_last_one_wins() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().delay = 50;
    for version in 1..=9 {
        bed.ask(install_as(id(1), Kind { version, ..PLAIN }, 1000));
        bed.poll(10);
    }
    bed.run(3_000);
    let rules = bed.engine.rules_of(id(1));
    assert_eq!(rules.len(), 2);
    assert!(rules.iter().all(|rule| rule.rule.to_string().contains("ttl_value 9")), "{rules:?}");
    bed.assert_healthy();
}

#[test]
fn the_same_request_again_touches_nothing() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.ask(install(id(1)));
    bed.settle();
    assert_eq!(bed.nic.lock().unwrap().created, 2);
    let answers = bed.told.iter().filter(|report| matches!(report, Report::State { tier: Tier::Hardware, .. }));
    assert_eq!(answers.count(), 2, "but it is answered");
}

#[test]
fn the_last_counts_are_told_before_a_flow_is_gone() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.hit(1, true, 7);
    bed.ask(Request::Remove { id: id(1) });
    bed.settle();
    assert_eq!(bed.told.last(), Some(&Report::Gone { id: id(1) }));
    assert_eq!(bed.counted(id(1)), [0, 7]);
    let unknown = id(77);
    bed.ask(Request::Remove { id: unknown });
    bed.settle();
    assert_eq!(bed.gone(unknown), 1, "a flow without rules is answered, too");
}

#[test]
fn counters_are_told_as_differences_with_the_time_of_the_reading() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    bed.hit(1, false, 5);
    bed.run(1_000);
    bed.hit(1, false, 1);
    let before = bed.now;
    bed.run(1_000);
    bed.run(5_000);
    assert_eq!(bed.counted(id(1)), [6, 0]);
    let last = bed.told.iter().rev().find_map(|report| match report {
        Report::Counted { last_hit, bytes, .. } => Some((*last_hit, *bytes)),
        _ => None,
    });
    let (last_hit, bytes) = last.unwrap();
    assert!(last_hit > before && last_hit <= before + 1_000, "{last_hit} after {before}");
    assert_eq!(bytes, 100);
}

#[test]
fn off_drains_and_on_installs_again_by_itself() {
    let toy = Toy::default();
    *toy.steering.lock().unwrap() = vec![steering(1)];
    let mut bed = Bed::with(Config::default(), toy);
    bed.ask(install(id(1)));
    bed.settle();
    bed.hit(1, false, 4);
    bed.engine.set_enabled(false, bed.now);
    bed.settle();
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 0, "steering too");
    assert_eq!(bed.state(id(1)), Some((Tier::Software, Some(NotOffloaded::Off))));
    assert_eq!(bed.counted(id(1)), [4, 0]);
    bed.ask(install(id(2)));
    bed.settle();
    assert_eq!(bed.state(id(2)), Some((Tier::Software, Some(NotOffloaded::Off))));
    bed.assert_healthy();
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    assert_eq!((bed.tier(id(1)), bed.tier(id(2))), (Some(Tier::Hardware), Some(Tier::Hardware)));
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 5);
    bed.assert_healthy();
}

#[test]
fn steering_follows_the_snapshot_and_flows_wait_for_it() {
    let toy = Toy::default();
    *toy.steering.lock().unwrap() = vec![steering(1), steering(2)];
    let mut bed = Bed::with(Config::default(), toy);
    bed.nic.lock().unwrap().script = [Some(libc::EIO), None].into();
    bed.ask(install(id(1)));
    bed.poll(0);
    bed.poll(0);
    bed.poll(0);
    assert_ne!(bed.tier(id(1)), Some(Tier::Hardware));
    bed.run(1_000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
    *bed.toy.steering.lock().unwrap() = vec![steering(2), steering(3)];
    bed.engine.adopt(&std::sync::Arc::new(offload_rules::forwarding::Snapshot::empty()), bed.now);
    bed.settle();
    bed.assert_healthy();
    let nic = bed.nic.lock().unwrap();
    let held: Vec<_> = nic.rules.values().map(|held| &held.rule).collect();
    assert!(held.contains(&&steering(3)) && !held.contains(&&steering(1)), "{held:?}");
    assert_eq!(held.len(), 4);
}

/// Where packets of a port go that nothing else in their table takes.
fn last(port: u32) -> Rule {
    let actions = vec![Action::Rss];
    Rule { table: Table::Tunnel, priority: 9, items: vec![Item::Port(vif(port))], actions }
}

fn leads_to_last(port: u32) -> Rule {
    let actions = vec![Action::Jump(Table::Tunnel)];
    Rule { table: Table::Steering, priority: 1, items: vec![Item::Port(vif(port))], actions }
}

/// The driver's tables lose what meets no rule.
#[test]
fn a_rule_leads_to_a_table_only_while_the_last_rule_there_is_in_the_nic() {
    let toy = Toy::default();
    *toy.steering.lock().unwrap() = vec![leads_to_last(1), leads_to_last(2), last(1), last(2)];
    let mut bed = Bed::with(Config::default(), toy);
    {
        let mut nic = bed.nic.lock().unwrap();
        nic.needs_of = Some(|rule| match (rule.items.first(), rule.leads_to().next()) {
            (Some(Item::Port(port)), Some(Table::Tunnel)) => vec![last(port.get().into())],
            _ => Vec::new(),
        });
        nic.delay = 3;
        nic.script = [Some(libc::EIO), None, None, Some(libc::EIO)].into();
    }
    let rules = |bed: &Bed| bed.nic.lock().unwrap().rules.len();
    bed.run(10_000);
    assert_eq!(rules(&bed), 4);
    let all = bed.toy.steering.lock().unwrap().clone();
    // A port goes and comes back.
    let one = [all[0].clone(), all[2].clone()];
    for wanted in [one.to_vec(), all.clone()] {
        *bed.toy.steering.lock().unwrap() = wanted.clone();
        bed.engine.adopt(&std::sync::Arc::new(offload_rules::forwarding::Snapshot::empty()), bed.now);
        bed.run(1_000);
        assert_eq!(rules(&bed), wanted.len());
    }
    bed.nic.lock().unwrap().stuck = [libc::EBUSY, libc::EBUSY].into();
    for (enabled, left) in [(false, 0), (true, 4)] {
        bed.engine.set_enabled(enabled, bed.now);
        bed.run(10_000);
        assert_eq!(rules(&bed), left);
    }
    bed.assert_healthy();
}

#[test]
fn a_start_removes_what_an_earlier_life_has_left_and_probes_each_shape() {
    let toy = Toy { canaries: vec![6, 17, 47, 132], ..Toy::default() };
    let mut bed = Bed::with(Config::default(), toy);
    {
        let mut nic = bed.nic.lock().unwrap();
        nic.invalid.insert(47, libc::ENOTSUP);
        nic.refused.insert(132, libc::EINVAL);
    }
    bed.ask(install_as(id(1), Kind { shape: 132, partial: false, ..PLAIN }, 1));
    bed.ask(install(id(2)));
    bed.settle();
    let status = bed.engine.status(bed.now);
    let found: Vec<_> =
        status.shapes.iter().map(|shape| (shape.shape.as_str(), shape.probe.clone().unwrap())).collect();
    assert_eq!(bed.nic.lock().unwrap().flushes, 1);
    assert!(
        matches!(
            &found[..],
            [
                ("6", ProbeResult::Works),
                ("17", ProbeResult::Works),
                ("47", ProbeResult::Refused(_)),
                ("132", ProbeResult::Refused(_))
            ] | [("132", _), ..]
        ),
        "{found:?}"
    );
    assert_eq!(bed.state(id(1)), Some((Tier::Software, Some(NotOffloaded::Unsupported(Unsupported::Probe)))));
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
    bed.assert_healthy();
}

#[test]
fn the_number_of_desired_flows_is_bounded() {
    let mut bed = Bed::with(Config { max_flows: 2, ..Config::default() }, Toy::default());
    (1..=3).for_each(|n| bed.ask(install(id(n))));
    bed.settle();
    assert_eq!(bed.tier(id(2)), Some(Tier::Hardware));
    assert_eq!(bed.state(id(3)), Some((Tier::Software, Some(NotOffloaded::Placement))));
    assert_eq!(bed.engine.status(bed.now).flows, 2);
}

#[test]
fn no_more_is_in_flight_than_the_queue_holds() {
    let mut bed = Bed::new();
    {
        let mut nic = bed.nic.lock().unwrap();
        (nic.depth, nic.delay) = (3, 10);
    }
    (1..=20).for_each(|n| bed.ask(install(id(n))));
    for _ in 0..100 {
        bed.poll(10);
    }
    assert_eq!(bed.nic.lock().unwrap().busiest, 3);
    assert_eq!(bed.engine.status(bed.now).hardware, 20);
    bed.assert_healthy();
}
