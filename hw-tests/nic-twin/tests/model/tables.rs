//! Groups, priorities, counters, ageing, handles.

use std::time::Duration;

use nic_twin::model::{
    Action, AgeOwner, AgeUpdate, Aged, Attr, DropReason, EBUSY, EINVAL, ENOENT, Frame, Hits, Item, ItemKind as K, Nic,
    Outcome, RuleId,
};

use crate::kit::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn at(group: u32, priority: u32) -> Attr {
    Attr { group, priority, ..INGRESS }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_lower_priority_number_wins_whatever_the_order_of_insertion() {
    let mut nic = nic();
    let broad = [plain(K::Eth)];
    let narrow = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    insert(&mut nic, at(0, 5), &broad, &mark(5)).unwrap();
    let best = insert(&mut nic, at(0, 1), &narrow, &mark(1)).unwrap().id;
    insert(&mut nic, at(0, 3), &narrow, &mark(3)).unwrap();
    let frame = udp4(A, B, [1, 2]);
    assert_eq!(mark_of(&mut nic, &frame), Some(1));
    nic.destroy(best).unwrap();
    assert_eq!(mark_of(&mut nic, &frame), Some(3));
    assert_eq!(mark_of(&mut nic, &tcp4(A, B, [1, 2])), Some(5));
}

#[test]
fn a_jump_leads_to_the_group_and_a_miss_there_to_the_application() {
    let mut nic = nic();
    insert(&mut nic, at(2, 0), &[plain(K::Eth), plain(K::Ipv4), plain(K::Udp)], &mark(2)).unwrap();
    let frame = udp4(A, B, [1, 2]);
    assert_eq!(mark_of(&mut nic, &frame), None, "only group 0 is met without a jump");
    insert(&mut nic, at(0, 0), &[plain(K::Eth)], &[Action::Jump(2)]).unwrap();
    assert_eq!(mark_of(&mut nic, &frame), Some(2));
    let missed = delivered(receive(&mut nic, &tcp4(A, B, [1, 2])).0);
    assert_eq!((missed.mark, missed.steered), (None, false));
}

#[test]
fn passthru_goes_on_with_the_next_rule() {
    let mut nic = nic();
    insert(&mut nic, at(0, 0), &[plain(K::Eth)], &[Action::Mark(9), Action::PassThru]).unwrap();
    insert(&mut nic, at(0, 0), &[plain(K::Eth)], &[Action::Flag, Action::PassThru]).unwrap();
    insert(&mut nic, at(0, 1), &[plain(K::Eth)], &[Action::Queue(2)]).unwrap();
    let delivery = delivered(receive(&mut nic, &udp4(A, B, [1, 2])).0);
    assert_eq!((delivery.mark, delivery.queue, delivery.steered), (Some(9), 2, true));
}

#[test]
fn transfer_rules_come_before_ingress_rules_of_the_port() {
    let mut nic = nic();
    insert(&mut nic, INGRESS, &[plain(K::Eth)], &mark(1)).unwrap();
    insert(&mut nic, TRANSFER, &[plain(K::Eth), plain(K::Ipv4), plain(K::Udp)], &[Action::RepresentedPort(1)]).unwrap();
    assert_eq!(receive(&mut nic, &udp4(A, B, [1, 2])).0, Outcome::Forward { port: 1 });
    assert_eq!(mark_of(&mut nic, &tcp4(A, B, [1, 2])), Some(1));
    let mut other = Frame::new(&tcp4(A, B, [1, 2]));
    assert_eq!(delivered(nic.process(1, &mut other, T0)).mark, None, "ingress rules are of one port");
}

#[test]
fn an_isolated_port_gives_the_application_only_what_rules_direct_to_it() {
    let mut nic = nic();
    nic.set_isolated(0, true);
    insert(&mut nic, INGRESS, &[plain(K::Eth), plain(K::Ipv4), plain(K::Udp)], &mark(1)).unwrap();
    assert_eq!(mark_of(&mut nic, &udp4(A, B, [1, 2])), Some(1));
    assert_eq!(receive(&mut nic, &tcp4(A, B, [1, 2])).0, Outcome::Drop(DropReason::Isolated));
}

#[test]
fn counters_count_packets_and_octets_and_can_be_reset() {
    let mut nic = nic();
    let actions = [Action::Count(1), Action::Count(2), Action::Drop];
    let id = insert(&mut nic, INGRESS, &[plain(K::Eth)], &actions).unwrap().id;
    let frame = udp4(A, B, [1, 2]);
    for _ in 0..3 {
        receive(&mut nic, &frame);
    }
    let hits = Hits { packets: 3, bytes: 3 * frame.len() as u64 };
    assert_eq!(nic.query_count(id, None, true, T0), Ok(hits));
    assert_eq!(nic.query_count(id, Some(1), false, T0), Ok(Hits::default()));
    assert_eq!(nic.query_count(id, Some(2), false, T0), Ok(hits));
    assert_eq!(nic.query_count(id, Some(3), false, T0).unwrap_err().errno, EINVAL);
}

#[test]
fn counters_show_what_they_were_at_the_last_refresh() {
    let mut nic = nic_of("mlx5-sws");
    let id = insert(&mut nic, INGRESS, &[plain(K::Eth)], &[Action::Count(0), Action::Drop]).unwrap().id;
    let pass = |nic: &mut Nic, ms| nic.process(0, &mut Frame::new(&udp4(A, B, [1, 2])), Duration::from_millis(ms));
    let shown = |nic: &mut Nic, ms| nic.query_count(id, None, false, Duration::from_millis(ms)).unwrap().packets;
    pass(&mut nic, 100);
    assert_eq!(shown(&mut nic, 499), 0);
    assert_eq!(shown(&mut nic, 500), 1);
    pass(&mut nic, 600);
    assert_eq!(shown(&mut nic, 999), 1);
    pass(&mut nic, 1100);
    assert_eq!(shown(&mut nic, 1200), 2, "what came after the tick is not shown");
}

#[test]
fn a_flow_ages_out_once_and_again_after_a_packet() {
    let mut nic = nic();
    let actions = [Action::Age { timeout: 10, context: Some(0x55) }, Action::Drop];
    let id = insert(&mut nic, INGRESS, &[plain(K::Eth)], &actions).unwrap().id;
    let mut told = Vec::new();
    let pass = |nic: &mut Nic, s| {
        nic.process(0, &mut Frame::new(&udp4(A, B, [1, 2])), seconds(s));
    };
    pass(&mut nic, 8);
    assert_eq!(nic.aged_count(0, seconds(17)), 0, "the packet moved the deadline");
    assert_eq!(nic.query_age(id, seconds(17)).unwrap().seconds_since_hit, 9);
    assert_eq!((nic.aged_count(0, seconds(18)), nic.aged_count(1, seconds(18))), (1, 0));
    assert!(nic.query_age(id, seconds(18)).unwrap().aged);
    nic.aged(0, seconds(19), 8, &mut told);
    nic.aged(0, seconds(20), 8, &mut told);
    assert_eq!(told, [Aged { context: Some(0x55), owner: AgeOwner::Rule(id.0) }]);
    pass(&mut nic, 21);
    nic.aged(0, seconds(30), 8, &mut told);
    assert_eq!(told.len(), 1);
    nic.aged(0, seconds(31), 8, &mut told);
    assert_eq!(told.len(), 2);
    nic.destroy(id).unwrap();
    nic.aged(0, seconds(99), 8, &mut told);
    assert_eq!(told.len(), 2);
}

#[test]
fn indirect_actions_are_shared_and_outlive_their_rules() {
    let mut nic = nic();
    let count = nic.create_indirect(0, &Action::Count(0), T0).unwrap();
    let age = nic.create_indirect(0, &Action::Age { timeout: 5, context: None }, T0).unwrap();
    let rules: Vec<RuleId> = [K::Udp, K::Tcp]
        .map(|l4| {
            let actions = [Action::Indirect(count), Action::Indirect(age), Action::Drop];
            insert(&mut nic, INGRESS, &[plain(K::Eth), plain(K::Ipv4), plain(l4)], &actions).unwrap().id
        })
        .to_vec();
    receive(&mut nic, &udp4(A, B, [1, 2]));
    receive(&mut nic, &tcp4(A, B, [1, 2]));
    assert_eq!(nic.query_indirect_count(count, false, T0).unwrap().packets, 2);
    assert_eq!(nic.query_count(rules[0], None, false, T0).unwrap().packets, 2);
    assert_eq!(nic.destroy_indirect(count).unwrap_err().errno, EBUSY);
    nic.update_age(age, AgeUpdate { timeout: Some(2), touch: false }, T0).unwrap();
    assert!(nic.query_indirect_age(age, seconds(2)).unwrap().aged);
    assert_eq!(nic.aged_count(0, seconds(2)), 1);
    nic.update_age(age, AgeUpdate { timeout: Some(0), touch: false }, T0).unwrap();
    assert_eq!(nic.aged_count(0, seconds(99)), 0, "a timeout of 0 stops ageing");
    for id in rules {
        nic.destroy(id).unwrap();
    }
    nic.destroy_indirect(count).unwrap();
    assert_eq!(nic.query_indirect_count(count, false, T0).unwrap_err().errno, ENOENT);
    let next = nic.create_indirect(0, &Action::Count(0), T0).unwrap();
    assert_ne!(next, count, "a handle is never another action's");
    assert_eq!(nic.query_indirect_count(next, false, T0), Ok(Hits::default()));
}

#[test]
fn a_rule_made_again_after_its_destruction_begins_anew() {
    let mut nic = nic();
    let items = [plain(K::Eth)];
    let actions = [Action::Count(0), Action::Drop];
    let first = insert(&mut nic, INGRESS, &items, &actions).unwrap().id;
    receive(&mut nic, &udp4(A, B, [1, 2]));
    nic.destroy(first).unwrap();
    assert!(matches!(receive(&mut nic, &udp4(A, B, [1, 2])).0, Outcome::ToSoftware(_)));
    let second = insert(&mut nic, INGRESS, &items, &actions).unwrap().id;
    assert_ne!(first, second);
    assert_eq!(nic.destroy(first).unwrap_err().errno, ENOENT);
    assert_eq!(nic.query_count(second, None, false, T0), Ok(Hits::default()));
    receive(&mut nic, &udp4(A, B, [1, 2]));
    assert_eq!(nic.query_count(second, None, false, T0).unwrap().packets, 1);
}

#[test]
fn a_flush_takes_the_rules_of_one_port_only() {
    let mut nic = nic();
    let dropped: &[Action] = &[Action::Drop];
    let zero = nic.insert(0, &INGRESS, &[plain(K::Eth)], dropped, T0).unwrap().id;
    let one = nic.insert(1, &INGRESS, &[plain(K::Eth)], dropped, T0).unwrap().id;
    nic.flush(0);
    assert_eq!(nic.destroy(zero).unwrap_err().errno, ENOENT);
    assert_eq!(nic.rules_of(1).collect::<Vec<_>>(), [one]);
    assert_eq!(nic.rule_count(), 1);
}

#[test]
fn many_rules_of_one_key_that_differ_in_ranges_stay_apart() {
    let mut nic = nic();
    let mut ids = Vec::new();
    for band in 0..10u16 {
        let (from, to) = ((band * 100).to_be_bytes(), (band * 100 + 99).to_be_bytes());
        let (spec, last) = ([0, 0, from[0], from[1]], [0, 0, to[0], to[1]]);
        let ports = Item { kind: K::Udp, spec: Some(&spec), last: Some(&last), mask: Some(&[0, 0, 0xff, 0xff]) };
        let items = [plain(K::Eth), plain(K::Ipv4), ports];
        ids.push(insert(&mut nic, INGRESS, &items, &mark(band.into())).unwrap().id);
    }
    for port in [0, 99, 100, 555, 999] {
        assert_eq!(mark_of(&mut nic, &udp4(A, B, [1, port])), Some(u32::from(port / 100)));
    }
    assert_eq!(mark_of(&mut nic, &udp4(A, B, [1, 1000])), None);
    for gone in [5, 9, 0] {
        nic.destroy(ids[gone]).unwrap();
    }
    for band in 0..10u16 {
        let left = ![5, 9, 0].contains(&band);
        assert_eq!(mark_of(&mut nic, &udp4(A, B, [1, band * 100])), left.then_some(band.into()), "band {band}");
    }
}
