//! What the engines of mlx5 refuse of whole rules: as DPDK's own driver has answered the same questions (22.11.11 and 24.11.8).

use nic_twin::model::{
    Action, Attr, E2BIG, EINVAL, ENOTSUP, FieldId, Item, ItemKind as K, Modify, ModifyOp, Nic, Outcome, Place,
};

use crate::kit::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const GROUP: Attr = Attr { group: 1, ..TRANSFER };
const ENGINES: [&str; 2] = ["mlx5-sws", "mlx5-hws"];

/// Port 0 is a wire, port 1 a function of the same switch, port 2 of another.
fn nic_of_ports(profile: &str) -> Nic {
    let mut nic = nic_of(profile);
    for (port, function, domain) in [(0, false, 1), (1, true, 1), (2, true, 2)] {
        nic.add_port(port, 1);
        nic.set_place(port, Place { function, domain: Some(domain) });
    }
    nic
}

fn ttl(profile: &str) -> Action<'static> {
    if profile == "mlx5-sws" {
        return Action::SetTtl(63);
    }
    let value = Some([63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Action::ModifyField(Modify { op: ModifyOp::Set, field: FieldId::Ipv4Ttl, level: 0, offset: 0, width: 8, value })
}

/// An item's fields: where, spec and mask.
fn masked(size: usize, set: &[(usize, u8, u8)]) -> (Vec<u8>, Vec<u8>) {
    let (mut spec, mut mask) = (vec![0; size], vec![0; size]);
    for (at, value, bits) in set {
        (spec[*at], mask[*at]) = (*value, *bits);
    }
    (spec, mask)
}

/// Errno of the refusal; 0 where it is taken.
fn errno(nic: &mut Nic, attr: Attr, items: &[Item], actions: &[Action]) -> i32 {
    insert(nic, attr, items, actions).map_or_else(|error| error.errno, |_| 0)
}

#[test]
fn a_reformat_is_one_action_in_two_and_stands_where_the_packet_needs_it() {
    let ethernet = eth(0x0800, &[]);
    let tunnel = mpls_udp(0x0011_8140, &[])[..46].to_vec();
    let out = Action::RepresentedPort(1);
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    for name in ENGINES {
        let mut nic = nic_of(name);
        let (off, on) = (Action::RawDecap(&ethernet), Action::RawEncap(&tunnel));
        let (out_off, out_on) = (Action::RawDecap(&tunnel), Action::RawEncap(&ethernet));
        let count = Action::Count(0);
        let mut is = |taken: bool, actions: &[Action]| {
            assert_eq!(errno(&mut nic, GROUP, &items, actions) == 0, taken, "{name} {actions:?}");
        };
        is(true, &[count, ttl(name), off, on, out]);
        is(true, &[out_off, out_on, count, ttl(name), out]);
        is(false, &[off, count, ttl(name), on, out]);
        is(false, &[out_off, count, ttl(name), out_on, out]);
        is(false, &[off, on, count, ttl(name), out]);
        is(false, &[count, ttl(name), out_off, out_on, out]);
        is(false, &[out_off, on, out]);
        is(false, &[out_off, out_on, count, ttl(name), off, on, out_off, out]);
    }
}

#[test]
fn tags_are_pushed_before_fields_by_one_engine_and_after_by_the_other() {
    let out = Action::RepresentedPort(1);
    let items = [plain(K::Eth), plain(K::Ipv4)];
    let push = [Action::PushVlan(0x8100), Action::SetVlanVid(5), Action::SetVlanPcp(0)];
    for (name, first) in [("mlx5-hws", true), ("mlx5-sws", false)] {
        let mut nic = nic_of(name);
        let before = [&push[..], &[ttl(name), out]].concat();
        let behind = [&[ttl(name)][..], &push, &[out]].concat();
        assert_eq!(errno(&mut nic, GROUP, &items, &before) == 0, first, "{name}");
        assert_eq!(errno(&mut nic, GROUP, &items, &behind) == 0, !first, "{name}");
        let alone = errno(&mut nic, GROUP, &items, &[Action::SetVlanPcp(0), out]);
        assert_eq!(alone, ENOTSUP, "{name}: a priority without a push");
    }
    let ingress = Attr { group: 1, ..INGRESS };
    let received = [&push[..], &[Action::Queue(0)]].concat();
    assert_eq!(errno(&mut nic_of("mlx5-sws"), ingress, &items, &received), ENOTSUP);
    assert_eq!(errno(&mut nic_of("mlx5-hws"), ingress, &items, &received), 0);
}

#[test]
fn a_second_tag_is_not_matched_and_hws_knows_one_tag_type() {
    let tag = masked(8, &[(0, 0, 0x0f), (1, 5, 0xff), (4, 0, 1)]);
    for name in ENGINES {
        let eth_of = |tpid: u16| {
            let [high, low] = tpid.to_be_bytes();
            masked(20, &[(12, high, 0xff), (13, low, 0xff), (14, 1, 1)])
        };
        let customer = eth_of(0x8100);
        let mut nic = nic_of(name);
        insert(&mut nic, INGRESS, &[item(K::Eth, &customer), item(K::Vlan, &tag), plain(K::Ipv4)], &mark(7)).unwrap();
        let one = vlan(0x8100, 5, &udp4(A, B, [1, 2]));
        let two = vlan(0x8100, 5, &vlan(0x8100, 6, &udp4(A, B, [1, 2])));
        assert_eq!(mark_of(&mut nic, &one), Some(7), "{name}");
        assert_eq!(mark_of(&mut nic, &two), Some(7), "{name}: has_more_vlan 0 is dropped without a word");
        let service = eth_of(0x88a8);
        let mut nic = nic_of(name);
        insert(&mut nic, INGRESS, &[item(K::Eth, &service), item(K::Vlan, &tag), plain(K::Ipv4)], &mark(7)).unwrap();
        assert_eq!(mark_of(&mut nic, &one), (name == "mlx5-hws").then_some(7), "{name}");
    }
}

#[test]
fn integrity_stands_beside_nothing_in_software_steering() {
    let check = masked(16, &[(8, 0x24, 0x24)]);
    let whole = masked(20, &[(6, 0, 0x3f), (7, 0, 0xff)]);
    let address = fields(20, &[(16, &B)]);
    let port = fields(2, &[(0, &[1, 0])]);
    let jump = [Action::Jump(2)];
    let mut nic = nic_of_ports("mlx5-sws");
    let alone = [item(K::RepresentedPort, &port), item(K::Integrity, &check), plain(K::Eth), item(K::Ipv4, &whole)];
    assert_eq!(errno(&mut nic, GROUP, &alone, &jump), 0);
    let beside = [alone[0], alone[1], alone[2], item(K::Ipv4, &address)];
    assert_eq!(errno(&mut nic, GROUP, &beside, &jump), ENOTSUP);
    let wire = fields(2, &[(0, &[0, 0])]);
    let of_wire = [item(K::RepresentedPort, &wire), alone[1], alone[2], alone[3]];
    assert_eq!(errno(&mut nic, GROUP, &of_wire, &jump), ENOTSUP);
    assert_eq!(errno(&mut nic_of_ports("mlx5-hws"), GROUP, &beside, &jump), 0);
}

#[test]
fn hardware_steering_holds_no_two_addresses_of_ipv6() {
    let both = fields(44, &[(8, &[0xff; 32])]);
    let items = [plain(K::Eth), item(K::Ipv6, &both)];
    assert_eq!(errno(&mut nic_of("mlx5-hws"), GROUP, &items, &[Action::Drop]), E2BIG);
    assert_eq!(errno(&mut nic_of("mlx5-sws"), GROUP, &items, &[Action::Drop]), 0);
}

#[test]
fn a_switch_leads_to_its_own_ports_and_from_wire_to_wire_to_nowhere() {
    for name in ENGINES {
        let from = |port: u8| fields(2, &[(0, &[port, 0])]);
        let mut nic = nic_of_ports(name);
        let (wire, function) = (from(0), from(1));
        let to = |port| [Action::RepresentedPort(port)];
        assert_eq!(
            errno(&mut nic, GROUP, &[item(K::RepresentedPort, &function), plain(K::Eth)], &to(2)),
            EINVAL,
            "{name}"
        );
        let root = [item(K::RepresentedPort, &wire), plain(K::Eth)];
        insert(&mut nic, TRANSFER, &root, &to(0)).unwrap();
        let frame = udp4(A, B, [1, 2]);
        assert!(matches!(receive(&mut nic, &frame).0, Outcome::Drop(_)), "{name}: taken, and dropped in silence");
        let mut nic = nic_of_ports(name);
        insert(&mut nic, TRANSFER, &root, &to(1)).unwrap();
        assert_eq!(receive(&mut nic, &frame).0, Outcome::Forward { port: 1 }, "{name}");
    }
    let tunnel = mpls_udp(0x0011_8140, &[])[..46].to_vec();
    let ethernet = eth(0x0800, &[]);
    let off = [Action::RawDecap(&tunnel), Action::RawEncap(&ethernet), Action::RepresentedPort(0)];
    let function = fields(2, &[(0, &[1, 0])]);
    let items = [item(K::RepresentedPort, &function), plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    assert_eq!(
        errno(&mut nic_of_ports("mlx5-sws"), GROUP, &items, &off),
        EINVAL,
        "on the transmit half no tunnel comes off"
    );
}
