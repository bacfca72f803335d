//! Walk A, both directions at both edges, written by hand from the dumps of the talk.

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    Label, MacAddr,
    lower::{Action, Chain, Field, Item, NicProfile, Rule, Stage, Table, lower, partial},
};

use crate::flow::{Flow, To, vif};

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ANY: Field<u8> = Field { spec: 0, mask: 0 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A rule that builds upon no other.
fn only(chain: Chain) -> Rule {
    assert_eq!(chain.needs, []);
    chain.rule
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    Some(text.parse().unwrap())
}

/// 192.168.100.100:40000 -> 192.168.1.100:443, TCP, DSCP 46, ECT(0).
fn first_edge() -> Flow {
    Flow { tos: 0xba, mtu: 1500, ..Flow::plain().tagged(200).tcp().to(To::Tunnel) }
}

#[test]
fn at_the_first_edge_the_tag_comes_off_and_the_tunnel_goes_on() {
    let twin = NicProfile::by_name("twin").unwrap();
    let rule = only(lower(&first_edge().direction(), &twin, false).unwrap());
    let expected = Rule {
        table: Table::Tenant,
        priority: 2,
        items: vec![
            Item::Port(vif(2)),
            Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true },
            Item::Eth { dst: Some(MacAddr(STATION)), has_vlan: Some(true) },
            Item::Vlan { tpid: 0x8100, tci: Field { spec: 200, mask: 0x0fff }, has_more: Some(false) },
            Item::Ipv4 {
                src: v4("192.168.100.100"),
                dst: v4("192.168.1.100"),
                proto: Some(6),
                tos: Field { spec: 0xba, mask: 0xff },
                ttl: Some(64),
                no_options: true,
                whole: true,
                max_len: Some(1500),
            },
            Item::Tcp { sport: Some(40_000), dport: Some(443), flags: Field { spec: 0x10, mask: 0x17 } },
        ],
        actions: vec![
            Action::Count,
            Action::SetTtl { version: 4, ttl: 63 },
            Action::Reformat {
                off: hex("000000000000 000000000000 8100 0000 0800"),
                // Ethernet; IPv4 with DSCP 46 and ECT(0), TTL 64, no length and no checksum; UDP; label 280, class 5, TTL 63.
                on: hex("000c299b6969 000c290ff4a1 0800
                     45ba 0000 1234 0000 4011 0000 0a650a27 0a6509f5
                     c123 19eb 0000 0000
                     00118b3f"),
            },
            Action::Port(vif(7)),
        ],
    };
    assert_eq!(rule, expected);
}

#[test]
fn at_the_second_edge_the_tunnel_comes_off_and_the_tag_goes_on() {
    let flow = Flow { tags_out: 1, ..Flow::plain().out_of_tunnel() };
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), true).unwrap());
    let expected = Rule {
        table: Table::Tunnel,
        priority: 3,
        items: vec![
            Item::Port(vif(2)),
            Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true },
            Item::Integrity { level: 2, ipv4_checksum_ok: true, l3_ok: true },
            Item::Eth { dst: Some(MacAddr(STATION)), has_vlan: Some(false) },
            Item::Ipv4 {
                src: v4("10.101.10.39"),
                dst: v4("10.101.9.245"),
                proto: Some(17),
                tos: Field { spec: 0, mask: 1 },
                ttl: None,
                no_options: true,
                whole: true,
                max_len: None,
            },
            Item::Udp { sport: None, dport: Some(6635), no_checksum: true },
            Item::Mpls { label: Label::new(280).unwrap(), bottom: true, ttl: Some(63) },
            Item::Ipv4 {
                src: v4("192.168.100.100"),
                dst: v4("192.168.1.100"),
                proto: Some(17),
                tos: ANY,
                ttl: Some(63),
                no_options: true,
                whole: true,
                max_len: Some(1500),
            },
            Item::Udp { sport: Some(40_000), dport: Some(443), no_checksum: false },
        ],
        actions: vec![
            Action::Reformat {
                off: hex("000000000000 000000000000 0800
                     4500 0000 0000 0000 4011 0000 00000000 00000000
                     0000 19eb 0000 0000
                     00000100"),
                on: hex("000c299b6969 000c290ff4a1 8100 012c 0800"),
            },
            Action::Count,
            Action::SetTtl { version: 4, ttl: 62 },
            Action::Port(vif(7)),
        ],
    };
    assert_eq!(rule, expected);
}

#[test]
fn between_tenants_a_tag_is_changed_in_place_and_its_priority_kept() {
    let flow = Flow { tags_out: 1, pcp_dei: 0xa, ..Flow::plain().tagged(200) };
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap());
    assert!(rule.items.contains(&Item::Vlan {
        tpid: 0x8100,
        tci: Field { spec: 0xa0c8, mask: 0xffff },
        has_more: Some(false)
    }));
    let macs = Action::SetMacs {
        dst: MacAddr([0, 0x0c, 0x29, 0x9b, 0x69, 0x69]),
        src: MacAddr([0, 0x0c, 0x29, 0x0f, 0xf4, 0xa1]),
    };
    let expected = [
        Action::Count,
        Action::SetVlan { tci: 0xa12c },
        macs.clone(),
        Action::SetTtl { version: 4, ttl: 63 },
        Action::Port(vif(7)),
    ];
    assert_eq!(rule.actions, expected);
}

/// mlx5 drops `has_more_vlan` 0 without a word: a tag is taken off first, and what follows is then seen as the first one.
#[test]
fn mlx5_pops_the_tag_and_looks_again_and_restores_it_on_a_miss() {
    let flow = Flow { tags_out: 1, pcp_dei: 0xa, ..Flow::plain().tagged(200) };
    let macs = Action::SetMacs {
        dst: MacAddr([0, 0x0c, 0x29, 0x9b, 0x69, 0x69]),
        src: MacAddr([0, 0x0c, 0x29, 0x0f, 0xf4, 0xa1]),
    };
    let ttl = Action::SetTtl { version: 4, ttl: 63 };
    let push = Action::PushVlan { tpid: 0x8100, tci: 0xa12c };
    let back = Action::PushVlan { tpid: 0x8100, tci: 0xa0c8 };
    let hws = [Action::Count, push.clone(), macs.clone(), ttl.clone(), Action::Port(vif(7))];
    let sws = [Action::Count, macs, ttl, push, Action::Port(vif(7))];
    for (name, actions) in [("mlx5-hws", hws), ("mlx5-sws", sws)] {
        let chain = lower(&flow.direction(), &NicProfile::by_name(name).unwrap(), false).unwrap();
        let begins = [
            Item::Port(vif(2)),
            Item::Eth { dst: Some(MacAddr(STATION)), has_vlan: Some(true) },
            Item::Vlan { tpid: 0x8100, tci: Field { spec: 0xa0c8, mask: 0xffff }, has_more: None },
        ];
        let stage = Stage::Matched(begins.as_slice().into());
        let [restore, first] = chain.needs.as_slice() else { panic!("{name}: {:?}", chain.needs) };
        assert_eq!(restore.table, Table::Untagged);
        assert_eq!(restore.items, [Item::Port(vif(2)), Item::Tag(stage.clone())]);
        assert_eq!(restore.actions, [back.clone(), Action::Jump(Table::Software)]);
        assert_eq!((first.table, first.items.as_slice()), (Table::Tenant, begins.as_slice()));
        let pop = [Action::PopVlan, Action::SetTag(stage.clone()), Action::Jump(Table::Untagged)];
        assert_eq!(first.actions, pop);
        assert_eq!(chain.rule.table, Table::Untagged);
        assert!(chain.rule.items.contains(&Item::Tag(stage)));
        assert!(chain.rule.items.contains(&Item::Eth { dst: None, has_vlan: Some(false) }));
        assert_eq!(chain.rule.actions, actions, "{name}");
        assert!(chain.rule.priority < restore.priority);
    }
}

#[test]
fn drop_eligibility_is_not_kept_so_such_a_tag_is_not_changed_in_place() {
    let flow = Flow { tags_out: 1, pcp_dei: 0xb, ..Flow::plain().tagged(200) };
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap());
    assert!(rule.actions.contains(&Action::PopVlan));
    assert!(rule.actions.contains(&Action::PushVlan { tpid: 0x8100, tci: 0xa12c }));
}

#[test]
fn between_tunnels_one_comes_off_and_the_other_goes_on_with_ipv6_inside() {
    let flow = Flow { tos: 0x01, ..Flow::plain().v6().out_of_tunnel().to(To::Tunnel) };
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap());
    let [
        Action::Reformat { off, on: between },
        Action::Count,
        Action::SetTtl { version: 6, ttl: 62 },
        Action::Reformat { off: ethernet, on },
        Action::Port(_),
    ] = rule.actions.as_slice()
    else {
        panic!("{:?}", rule.actions)
    };
    assert_eq!((off.len(), on.len()), (46, 46));
    assert_eq!((between[12..].to_vec(), ethernet[12..].to_vec()), (hex("86dd"), hex("86dd")));
    assert_eq!(on[12..16], [0x08, 0x00, 0x45, 0x01]);
    assert_eq!(on[42..], [0x00, 0x11, 0x81, 62]);
}

#[test]
fn ipv6_out_of_a_tunnel_leaves_with_its_ethertype_and_payload_length() {
    let flow = Flow { mtu: 1400, ..Flow::plain().v6().out_of_tunnel() };
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap());
    assert!(matches!(&rule.actions[0], Action::Reformat { on, .. } if *on == hex("000c299b6969 000c290ff4a1 86dd")));
    assert!(rule.items.iter().any(|item| matches!(item, Item::Ipv6 { max_len: Some(1360), .. })));
}

#[test]
fn a_denied_flow_is_counted_and_dropped() {
    let flow = Flow::plain().tagged(300).to(To::Drop);
    let rule = only(lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap());
    assert_eq!(rule.actions, [Action::Count, Action::Drop]);
    let expected = [
        Item::Port(vif(2)),
        Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true },
        Item::Eth { dst: Some(MacAddr(STATION)), has_vlan: Some(true) },
        Item::Vlan { tpid: 0x8100, tci: Field { spec: 300, mask: 0x0fff }, has_more: Some(false) },
        Item::Ipv4 {
            src: v4("192.168.100.100"),
            dst: v4("192.168.1.100"),
            proto: Some(17),
            tos: ANY,
            ttl: None,
            no_options: true,
            whole: true,
            max_len: None,
        },
        Item::Udp { sport: Some(40_000), dport: Some(443), no_checksum: false },
    ];
    assert_eq!(rule.items, expected);
}

#[test]
fn a_partial_rule_marks_counts_and_chooses_the_queue() {
    let direction = Flow { src: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), ..Flow::plain() }.direction();
    let rule = partial(&direction, 77, 3, &NicProfile::by_name("ice").unwrap()).unwrap();
    assert_eq!(rule.actions, [Action::Mark(77), Action::Count, Action::Queue(3)]);
    assert_eq!((rule.table, rule.priority), (Table::Flows, 0));
    // The 82599 does not count, and mlx5 not in its root group.
    for name in ["ixgbe", "mlx5-hws", "mlx5-sws"] {
        let rule = partial(&direction, 77, 3, &NicProfile::by_name(name).unwrap()).unwrap();
        assert_eq!(rule.actions, [Action::Mark(77), Action::Queue(3)], "{name}");
    }
}
