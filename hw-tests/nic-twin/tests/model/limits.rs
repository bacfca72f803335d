//! Profiles, capacity, faults and delays.

use std::time::Duration;

use nic_twin::model::{
    Action, Attr, Cause, Command, EAGAIN, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTSUP, Fault, Frame, Item,
    ItemKind as K, Nic, Outcome, Profile,
};

use crate::kit::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn set(nic: &mut Nic, line: &str) {
    nic.control(Command::parse(line).unwrap().unwrap());
}

fn drop_all(nic: &mut Nic) -> Result<nic_twin::model::Inserted, nic_twin::model::FlowError> {
    insert(nic, INGRESS, &[plain(K::Eth)], &[Action::Drop])
}

#[test]
fn every_profile_has_its_name_and_can_steer_udp_to_a_queue() {
    let names: Vec<_> = Profile::names().collect();
    let known = ["twin", "mlx5-hws", "mlx5-sws", "bnxt", "sfc", "nfp", "cnxk", "ice", "iavf", "ixgbe", "txgbe"];
    assert_eq!(names, known);
    for name in names {
        let mut nic = nic_of(name);
        insert(&mut nic, INGRESS, &[plain(K::Eth), plain(K::Ipv4), plain(K::Udp)], &[Action::Queue(2)]).unwrap();
        assert_eq!(delivered(receive(&mut nic, &udp4(A, B, [1, 2])).0).queue, 2, "{name}");
    }
    assert!(Profile::named("connectx").is_none());
}

#[test]
fn hardware_steering_wants_modify_field_and_counts_not_in_group_0() {
    let mut nic = nic_of("mlx5-hws");
    let attr = Attr { group: 1, ..TRANSFER };
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    let out = Action::RepresentedPort(1);
    let single = insert(&mut nic, attr, &items, &[Action::DecTtl, out]).unwrap_err();
    assert_eq!((single.errno, single.cause), (ENOTSUP, Cause::Action(0)));
    let root = insert(&mut nic, TRANSFER, &items, &[Action::Count(0), out]).unwrap_err();
    assert_eq!(root.errno, ENOTSUP, "no counters in group 0");
    let marked = insert(&mut nic, attr, &items, &[Action::Mark(1), out]).unwrap_err();
    assert_eq!(marked.errno, ENOTSUP, "no marks in the switch");
}

#[test]
fn a_profile_refuses_fields_ranges_groups_and_attributes_that_it_lacks() {
    let length = fields(20, &[(2, &[0, 60])]);
    let checksum = fields(8, &[(6, &[0, 0])]);
    let error = |profile: &str, attr: Attr, items: &[Item]| {
        insert(&mut nic_of(profile), attr, items, &[Action::Drop]).unwrap_err().errno
    };
    assert_eq!(error("mlx5-hws", INGRESS, &[plain(K::Eth), item(K::Ipv4, &length)]), ENOTSUP);
    assert_eq!(error("mlx5-sws", INGRESS, &[plain(K::Eth), plain(K::Ipv4), item(K::Udp, &checksum)]), ENOTSUP);
    let range = Item { kind: K::Udp, spec: Some(&[0, 1]), last: Some(&[0, 9]), mask: Some(&[0xff, 0xff]) };
    assert_eq!(error("mlx5-sws", INGRESS, &[plain(K::Eth), plain(K::Ipv4), range]), ENOTSUP);
    assert_eq!(error("ice", INGRESS, &[plain(K::Eth), plain(K::Ipv4), plain(K::Udp), plain(K::Mpls)]), ENOTSUP);
    assert_eq!(error("sfc", Attr { group: 1, ..TRANSFER }, &[plain(K::Eth)]), ENOTSUP);
    assert_eq!(error("nfp", Attr { priority: 1, ..INGRESS }, &[plain(K::Eth)]), ENOTSUP);
    assert_eq!(error("cnxk", TRANSFER, &[plain(K::Eth)]), ENOTSUP);
    assert_eq!(error("twin", Attr::default(), &[plain(K::Eth)]), EINVAL);
    assert_eq!(error("twin", Attr { ingress: true, ..TRANSFER }, &[plain(K::Eth)]), EINVAL);
    let mut ixgbe = nic_of("ixgbe");
    assert_eq!(
        insert(&mut ixgbe, INGRESS, &[plain(K::Eth)], &[Action::Count(0), Action::Drop]).unwrap_err().errno,
        ENOTSUP
    );
    let mut nfp = nic_of("nfp");
    drop_all(&mut nfp).unwrap();
    assert_eq!(drop_all(&mut nfp).unwrap_err().errno, EEXIST);
    assert_eq!(nfp.insert(7, &INGRESS, &[], &[Action::Drop], T0).unwrap_err().errno, ENODEV);
}

/// ixgbe_flow.c:1429 and 1455 (DPDK 22.11.11): QUEUE or DROP, then MARK. txgbe_flow.c:1404: nothing else supported.
#[test]
fn ixgbe_marks_behind_the_queue_and_txgbe_not_at_all() {
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    let ask = |profile: &str, actions: &[Action]| insert(&mut nic_of(profile), INGRESS, &items, actions).err();
    let errno = |error: Option<nic_twin::model::FlowError>| error.map(|error| error.errno);
    assert_eq!(errno(ask("ixgbe", &[Action::Queue(1), Action::Mark(7)])), None);
    assert_eq!(errno(ask("ixgbe", &[Action::Mark(7), Action::Queue(1)])), Some(EINVAL));
    assert_eq!(errno(ask("iavf", &[Action::Mark(7), Action::Queue(1)])), None);
    assert_eq!(errno(ask("iavf", &[Action::Mark(7), Action::Count(0), Action::Queue(1)])), Some(ENOTSUP));
    assert_eq!(errno(ask("txgbe", &[Action::Queue(1), Action::Mark(7)])), Some(ENOTSUP));
}

#[test]
fn a_full_table_takes_a_rule_again_when_one_is_gone() {
    let mut nic = nic();
    set(&mut nic, "full_at=2");
    let first = drop_all(&mut nic).unwrap().id;
    drop_all(&mut nic).unwrap();
    assert_eq!(drop_all(&mut nic).unwrap_err().errno, ENOSPC);
    assert_eq!(nic.rule_count(), 2);
    nic.destroy(first).unwrap();
    drop_all(&mut nic).unwrap();
    set(&mut nic, "clear");
    drop_all(&mut nic).unwrap();
}

#[test]
fn counters_run_out_and_come_back() {
    let mut nic = nic();
    set(&mut nic, "counters=1");
    let counted: &[Action] = &[Action::Count(0), Action::Drop];
    let id = insert(&mut nic, INGRESS, &[plain(K::Eth)], counted).unwrap().id;
    assert_eq!(insert(&mut nic, INGRESS, &[plain(K::Eth)], counted).unwrap_err().errno, ENOMEM);
    assert_eq!(nic.create_indirect(0, &Action::Count(0), T0).unwrap_err().errno, ENOMEM);
    drop_all(&mut nic).unwrap();
    nic.destroy(id).unwrap();
    insert(&mut nic, INGRESS, &[plain(K::Eth)], counted).unwrap();
}

#[test]
fn inserts_fail_by_number_with_the_errno_asked_for() {
    let mut nic = nic();
    drop_all(&mut nic).unwrap();
    set(&mut nic, "fail=2");
    let results: Vec<_> = (0..3).map(|_| drop_all(&mut nic).map_err(|error| error.errno).map(|_| ())).collect();
    assert_eq!(results, [Ok(()), Err(ENOMEM), Ok(())]);
    set(&mut nic, "clear");
    set(&mut nic, "fail_every=3");
    set(&mut nic, "fail_errno=EAGAIN");
    let results: Vec<_> = (0..6).map(|_| drop_all(&mut nic).map_err(|error| error.errno).is_ok()).collect();
    assert_eq!(results, [true, true, false, true, true, false]);
    nic.control(Command::Set(Fault::Fail(1)));
    assert_eq!(drop_all(&mut nic).unwrap_err().errno, EAGAIN);
}

#[test]
fn a_slow_insert_takes_effect_when_it_says() {
    let mut nic = nic();
    set(&mut nic, "slow=50");
    let inserted = drop_all(&mut nic).unwrap();
    assert_eq!(inserted.at, Duration::from_millis(50));
    let mut frame = Frame::new(&udp4(A, B, [1, 2]));
    assert!(matches!(nic.process(0, &mut frame, Duration::from_millis(49)), Outcome::ToSoftware(_)));
    assert!(matches!(nic.process(0, &mut frame, Duration::from_millis(50)), Outcome::Drop(_)));
    nic.destroy(inserted.id).unwrap();
}

#[test]
fn a_rate_queues_inserts_up() {
    let mut nic = nic();
    set(&mut nic, "rate=1000");
    let at: Vec<_> = (0..3).map(|_| drop_all(&mut nic).unwrap().at.as_millis()).collect();
    assert_eq!(at, [1, 2, 3]);
    let later = nic.insert(0, &INGRESS, &[plain(K::Eth)], &[Action::Drop], Duration::from_secs(1)).unwrap();
    assert_eq!(later.at.as_millis(), 1001);
}

#[test]
fn a_dead_nic_takes_rules_and_ignores_them() {
    let mut nic = nic();
    set(&mut nic, "dead=1");
    let id = insert(&mut nic, INGRESS, &[plain(K::Eth)], &[Action::Count(0), Action::Drop]).unwrap().id;
    assert!(matches!(receive(&mut nic, &udp4(A, B, [1, 2])).0, Outcome::ToSoftware(_)));
    assert_eq!(nic.query_count(id, None, false, T0).unwrap().packets, 0);
}

#[test]
fn a_reset_loses_rules_and_handles_and_is_told() {
    let mut nic = nic();
    set(&mut nic, "reset_at=2");
    let rule = drop_all(&mut nic).unwrap().id;
    let shared = nic.create_indirect(0, &Action::Count(0), T0).unwrap();
    let frame = udp4(A, B, [1, 2]);
    assert!(matches!(receive(&mut nic, &frame).0, Outcome::Drop(_)));
    assert_eq!(nic.resets(), 0);
    assert!(matches!(receive(&mut nic, &frame).0, Outcome::ToSoftware(_)));
    assert_eq!((nic.resets(), nic.rule_count()), (1, 0));
    assert_eq!(nic.destroy(rule).unwrap_err().errno, ENOENT);
    assert_eq!(nic.destroy_indirect(shared).unwrap_err().errno, ENOENT);
    let again = drop_all(&mut nic).unwrap().id;
    assert_ne!(again, rule);
    assert!(matches!(receive(&mut nic, &frame).0, Outcome::Drop(_)));
}

#[test]
fn validation_changes_nothing_and_agrees_with_insertion() {
    let mut nic = nic();
    set(&mut nic, "fail=1");
    assert_eq!(nic.validate(0, &INGRESS, &[plain(K::Eth)], &[Action::Drop]), Ok(()));
    assert_eq!(nic.validate(0, &INGRESS, &[plain(K::Eth)], &[Action::Jump(0)]).unwrap_err().errno, EINVAL);
    assert!(drop_all(&mut nic).is_err(), "a passing validate promises nothing");
    assert!(matches!(receive(&mut nic, &udp4(A, B, [1, 2])).0, Outcome::ToSoftware(_)));
}
