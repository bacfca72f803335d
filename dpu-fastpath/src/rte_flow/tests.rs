//! Rules as the octets that drivers read. Offsets are of DPDK's structures and of the headers on the wire, not of this crate.

use dpdk_sys::{rte_flow_action_type as act, rte_flow_field_id as field, rte_flow_item_type as kind};
use offload_engine::Failure;
use offload_rules::{
    Label, MacAddr, VifId,
    lower::{Action, Field, Item, Layout, NicProfile, Rule, Table},
};

use super::{
    actions::{Actions, Conf},
    items::{Entry, Pattern},
    name_tables::NameTables,
    stages::Stages,
    style::{FieldStyle, PortStyle, Style, TtlStyle},
    translation::{Domain, Translation},
};
use crate::{
    port::{PortRegistry, StartedPort},
    security::Sessions,
};

mod dialects;
mod ipsec;
mod staged;

const ROUTER: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x01, 0x00]);
const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
const OUTER: [u8; 46] = [0xa5; 46];

fn vif(number: u32) -> VifId {
    VifId::new(number).unwrap()
}

fn ports() -> PortRegistry {
    PortRegistry::new([
        (vif(3), StartedPort { ethdev: 5, queues: 2 }),
        (vif(4), StartedPort { ethdev: 0x0106, queues: 4 }),
    ])
}

fn translate(rule: &Rule, style: Style) -> Result<Translation, Failure> {
    translate_with(rule, style, &Sessions::default())
}

fn translate_with(rule: &Rule, style: Style, sessions: &Sessions) -> Result<Translation, Failure> {
    let mut stages = Stages::default();
    stages.prepare(rule);
    ports().with(|ports| Translation::new(rule, style, NameTables { ports, sessions, stages: &stages }))
}

/// An established TCP connection of a tenant, to a tunnel.
fn to_tunnel() -> Rule {
    Rule {
        table: Table::Tenant,
        priority: 2,
        items: vec![
            Item::Port(vif(3)),
            Item::Eth { dst: Some(ROUTER), has_vlan: Some(true) },
            Item::Vlan { tpid: 0x8100, tci: Field { spec: 0xe064, mask: 0x0fff }, has_more: Some(false) },
            Item::Ipv4 {
                src: Some([10, 1, 2, 3].into()),
                dst: Some([192, 0, 2, 9].into()),
                proto: Some(6),
                tos: Field { spec: 0xb8, mask: 0xff },
                ttl: Some(64),
                no_options: true,
                whole: true,
                max_len: Some(1472),
            },
            Item::Tcp { sport: Some(40000), dport: Some(443), flags: Field { spec: 0xff, mask: 0x17 } },
        ],
        actions: vec![
            Action::PopVlan,
            Action::Count,
            Action::SetTtl { version: 4, ttl: 63 },
            Action::Reformat { off: vec![0; 14], on: OUTER.to_vec() },
            Action::Port(vif(4)),
        ],
    }
}

/// A UDP flow that comes out of a tunnel, to a tenant.
fn from_tunnel() -> Rule {
    Rule {
        table: Table::Tunnel,
        priority: 3,
        items: vec![
            Item::Port(vif(4)),
            Item::Eth { dst: Some(ROUTER), has_vlan: Some(false) },
            Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true },
            Item::Ipv4 {
                src: Some([198, 51, 100, 1].into()),
                dst: Some([198, 51, 100, 2].into()),
                proto: Some(17),
                tos: Field { spec: 0, mask: 1 },
                ttl: None,
                no_options: true,
                whole: true,
                max_len: None,
            },
            Item::Udp { sport: None, dport: Some(6635), no_checksum: true },
            Item::Mpls { label: Label::new(0xabcde).unwrap(), bottom: true, ttl: Some(62) },
            Item::Ipv6 {
                src: Some("2001:db8::1".parse().unwrap()),
                dst: Some("2001:db8::2".parse().unwrap()),
                proto: Some(17),
                tos: Field { spec: 0xa5, mask: 0xff },
                ttl: Some(9),
                whole: true,
                max_len: Some(1400),
            },
            Item::Udp { sport: Some(53), dport: Some(5353), no_checksum: false },
        ],
        actions: vec![
            Action::Reformat { off: vec![0; 46], on: vec![0; 14] },
            Action::Count,
            Action::PushVlan { tpid: 0x88a8, tci: 0x6123 },
            Action::SetMacs { dst: HOST, src: ROUTER },
            Action::SetTtl { version: 6, ttl: 8 },
            Action::Port(vif(3)),
        ],
    }
}

fn find(pattern: &Pattern, kind: kind::Type, nth: usize) -> &Entry {
    pattern.entries().iter().filter(|entry| entry.kind == kind).nth(nth).unwrap()
}

/// Checks that these octets, and no others up to the end of the structure, are matched.
fn assert_matches(entry: &Entry, matched: &[(usize, &[u8], &[u8])]) {
    let (mut spec, mut mask) = ([0_u8; 64], [0_u8; 64]);
    for (offset, value, bits) in matched {
        spec[*offset..offset + value.len()].copy_from_slice(value);
        mask[*offset..offset + bits.len()].copy_from_slice(bits);
    }
    assert_eq!(entry.spec.octets(), spec, "spec of item {}", entry.kind);
    assert_eq!(entry.mask.octets(), mask, "mask of item {}", entry.kind);
}

fn kinds(actions: &Actions) -> Vec<act::Type> {
    actions.entries().iter().map(|entry| entry.kind).collect()
}

#[test]
fn a_tcp_flow_to_a_tunnel_has_the_octets_of_its_headers() {
    let rule = translate(&to_tunnel(), Style::default()).unwrap();
    let attr = rule.place.attr();
    assert_eq!((attr.group, attr.priority, attr.transfer(), attr.ingress()), (1, 2, 1, 0));
    let order: Vec<_> = rule.pattern.entries().iter().map(|entry| entry.kind).collect();
    assert_eq!(
        order,
        [
            kind::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT,
            kind::RTE_FLOW_ITEM_TYPE_ETH,
            kind::RTE_FLOW_ITEM_TYPE_VLAN,
            kind::RTE_FLOW_ITEM_TYPE_IPV4,
            kind::RTE_FLOW_ITEM_TYPE_TCP,
        ]
    );
    let port = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT, 0);
    assert_matches(port, &[(0, &5_u16.to_ne_bytes(), &[0xff, 0xff])]);
    let eth = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_ETH, 0);
    assert_matches(eth, &[(0, &ROUTER.0, &[0xff; 6]), (12, &[0x81, 0x00], &[0xff, 0xff]), (14, &[1], &[1])]);
    let vlan = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_VLAN, 0);
    assert_matches(vlan, &[(0, &[0x00, 0x64], &[0x0f, 0xff]), (4, &[0], &[1])]);
    let ipv4 = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_IPV4, 0);
    assert_matches(
        ipv4,
        &[
            (0, &[0x05, 0xb8], &[0x0f, 0xff]),
            (2, &[0, 0], &[0xff, 0xff]),
            (6, &[0, 0], &[0x3f, 0xff]),
            (8, &[64, 6], &[0xff, 0xff]),
            (12, &[10, 1, 2, 3, 192, 0, 2, 9], &[0xff; 8]),
        ],
    );
    let mut last = ipv4.spec.octets().to_vec();
    last[2..4].copy_from_slice(&1472_u16.to_be_bytes());
    assert_eq!(ipv4.last.as_ref().unwrap().octets(), last, "a range in the length only");
    let tcp = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_TCP, 0);
    assert_matches(tcp, &[(0, &[0x9c, 0x40, 0x01, 0xbb], &[0xff; 4]), (13, &[0x17], &[0x17])]);
    assert!(tcp.last.is_none());
}

#[test]
fn a_flow_out_of_a_tunnel_matches_the_label_and_the_inner_headers() {
    let rule = translate(&from_tunnel(), Style::default()).unwrap();
    assert_eq!((rule.place.group, rule.port.ethdev), (2, 0x0106));
    let eth = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_ETH, 0);
    assert_matches(eth, &[(0, &ROUTER.0, &[0xff; 6]), (14, &[0], &[1])]);
    let integrity = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_INTEGRITY, 0);
    let mut bits = dpdk_sys::rte_flow_item_integrity__bindgen_ty_1__bindgen_ty_1::default();
    bits.set_l3_ok(1);
    bits.set_ipv4_csum_ok(1);
    let mut layout = dpdk_sys::rte_flow_item_integrity::default();
    layout.__bindgen_anon_1.__bindgen_anon_1 = bits;
    // SAFETY: both members of the union are plain 64 bits.
    let value = unsafe { layout.__bindgen_anon_1.value }.to_ne_bytes();
    assert_matches(integrity, &[(8, &value, &value)]);
    let outer = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_UDP, 0);
    assert_matches(outer, &[(2, &6635_u16.to_be_bytes(), &[0xff, 0xff]), (6, &[0, 0], &[0xff, 0xff])]);
    let mpls = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_MPLS, 0);
    assert_matches(mpls, &[(0, &[0xab, 0xcd, 0xe1, 62], &[0xff, 0xff, 0xf1, 0xff])]);
    let ipv6 = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_IPV6, 0);
    let addresses: Vec<u8> = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1], [0x20, 1, 0xd, 0xb8], [0; 4], [0; 4]]
        .concat()
        .into_iter()
        .chain([0, 0, 0, 2])
        .collect();
    assert_matches(
        ipv6,
        &[
            (0, &[0x0a, 0x50], &[0x0f, 0xf0]),
            (4, &[0, 0], &[0xff, 0xff]),
            (6, &[17, 9], &[0xff, 0xff]),
            (8, &addresses, &[0xff; 32]),
            // Behind the header: has_frag_ext is the third of its bits.
            (40, &[0], &[4]),
        ],
    );
    assert_eq!(&ipv6.last.as_ref().unwrap().octets()[4..6], 1400_u16.to_be_bytes());
    let inner = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_UDP, 1);
    assert_matches(inner, &[(0, &[0, 53, 0x14, 0xe9], &[0xff; 4])]);
}

#[test]
fn actions_keep_their_order_a_reformat_becomes_two_and_a_tag_three() {
    let rule = translate(&from_tunnel(), Style::default()).unwrap();
    assert_eq!(
        kinds(&rule.actions),
        [
            act::RTE_FLOW_ACTION_TYPE_RAW_DECAP,
            act::RTE_FLOW_ACTION_TYPE_RAW_ENCAP,
            act::RTE_FLOW_ACTION_TYPE_COUNT,
            act::RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN,
            act::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID,
            act::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_PCP,
            act::RTE_FLOW_ACTION_TYPE_SET_MAC_DST,
            act::RTE_FLOW_ACTION_TYPE_SET_MAC_SRC,
            act::RTE_FLOW_ACTION_TYPE_SET_TTL,
            act::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT,
        ]
    );
    let first: Vec<_> = rule
        .actions
        .entries()
        .iter()
        .filter_map(|entry| match &entry.conf {
            Conf::Own(blob) => Some(blob.octets()[..6].to_vec()),
            _ => None,
        })
        .collect();
    let [port_low, port_high] = 5_u16.to_ne_bytes();
    assert_eq!(
        first,
        [
            vec![0x88, 0xa8, 0, 0, 0, 0],
            vec![0x01, 0x23, 0, 0, 0, 0],
            vec![3, 0, 0, 0, 0, 0],
            HOST.0.to_vec(),
            ROUTER.0.to_vec(),
            vec![8, 0, 0, 0, 0, 0],
            vec![port_low, port_high, 0, 0, 0, 0],
        ]
    );
}

#[test]
fn what_drivers_get_points_to_the_storage_of_the_rule() {
    let rule = translate(&to_tunnel(), Style::default()).unwrap();
    let items = rule.pattern.raw();
    assert_eq!(items.last().unwrap().type_, kind::RTE_FLOW_ITEM_TYPE_END);
    assert_eq!(items.len(), 6);
    // SAFETY: the fourth item is IPv4, and `rule` is alive.
    let (spec, last) = unsafe {
        (&*items[3].spec.cast::<dpdk_sys::rte_flow_item_ipv4>(), &*items[3].last.cast::<dpdk_sys::rte_flow_item_ipv4>())
    };
    assert_eq!({ spec.hdr.dst_addr }, u32::from_ne_bytes([192, 0, 2, 9]));
    assert_eq!(({ spec.hdr.total_length }, { last.hdr.total_length }), (0, 1472_u16.to_be()));
    assert!(items[4].last.is_null());

    let actions = rule.actions.raw();
    let array = actions.array();
    assert_eq!(array.last().unwrap().type_, act::RTE_FLOW_ACTION_TYPE_END);
    // SAFETY: the fifth action is RAW_ENCAP, its header is of `rule`, and both are alive.
    let header = unsafe {
        let encap = &*array[4].conf.cast::<dpdk_sys::rte_flow_action_raw_encap>();
        assert!(encap.preserve.is_null());
        std::slice::from_raw_parts(encap.data, encap.size)
    };
    assert_eq!(header, OUTER);
}

#[test]
fn fields_are_modified_where_a_driver_wants_that() {
    let style = Style { field: FieldStyle::Modify, ..Style::default() };
    let rule = translate(&from_tunnel(), style).unwrap();
    let raw = rule.actions.raw();
    let masks = rule.actions.raw_masks();
    let mut fields = Vec::new();
    for (action, mask) in raw.array().iter().zip(masks.array()) {
        assert_eq!(action.type_, mask.type_);
        if action.type_ != act::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD {
            continue;
        }
        // SAFETY: both are MODIFY_FIELD, and `raw` and `masks` are alive; the source is a value.
        unsafe {
            let modify = &*action.conf.cast::<dpdk_sys::rte_flow_action_modify_field>();
            assert_eq!(modify.operation, dpdk_sys::rte_flow_modify_op::RTE_FLOW_MODIFY_SET);
            assert_eq!(modify.src.field, field::RTE_FLOW_FIELD_VALUE);
            fields.push((modify.dst.field, modify.width, modify.src.__bindgen_anon_1.value[..6].to_vec()));
            let mask = &*mask.conf.cast::<dpdk_sys::rte_flow_action_modify_field>();
            // mlx5_flow_hw.c, flow_hw_validate_action_modify_field: mask and action are compared.
            assert_eq!(
                (mask.operation, mask.dst.field, mask.src.field),
                (modify.operation, modify.dst.field, modify.src.field)
            );
            assert_eq!(mask.width, u32::MAX, "the width is the template's");
            assert_eq!(mask.src.__bindgen_anon_1.value, [0; 16], "the value is the rule's");
        }
    }
    assert_eq!(
        fields,
        [
            (field::RTE_FLOW_FIELD_MAC_DST, 48, HOST.0.to_vec()),
            (field::RTE_FLOW_FIELD_MAC_SRC, 48, ROUTER.0.to_vec()),
            (field::RTE_FLOW_FIELD_IPV6_HOPLIMIT, 8, vec![8, 0, 0, 0, 0, 0]),
        ]
    );
}

#[test]
fn rules_that_differ_in_values_only_share_a_template_table() {
    let one = translate(&to_tunnel(), Style::default()).unwrap();
    let mut other = to_tunnel();
    for item in &mut other.items {
        match item {
            Item::Ipv4 { src, max_len, .. } => {
                *src = Some([10, 9, 9, 9].into());
                *max_len = Some(1200);
            }
            Item::Tcp { sport, .. } => *sport = Some(1),
            _ => {}
        }
    }
    for action in &mut other.actions {
        match action {
            Action::Reformat { on, .. } => on.fill(1),
            Action::SetTtl { ttl, .. } => *ttl = 1,
            Action::Port(port) => *port = vif(3),
            _ => {}
        }
    }
    assert_eq!(translate(&other, Style::default()).unwrap().shape(), one.shape());
}

#[test]
fn rules_that_differ_in_what_they_match_or_do_have_tables_of_their_own() {
    let one = translate(&to_tunnel(), Style::default()).unwrap().shape();
    let variants: [fn(&mut Rule); 6] = [
        |rule| rule.priority = 3,
        |rule| rule.table = Table::Tunnel,
        |rule| rule.items[2] = Item::Vlan { tpid: 0x8100, tci: Field { spec: 0, mask: 0xffff }, has_more: Some(false) },
        |rule| rule.actions[3] = Action::Reformat { off: vec![0; 14], on: vec![0; 50] },
        |rule| rule.actions[4] = Action::Jump(Table::Tunnel),
        |rule| {
            rule.actions.remove(1);
        },
    ];
    for (number, change) in variants.into_iter().enumerate() {
        let mut rule = to_tunnel();
        change(&mut rule);
        assert_ne!(translate(&rule, Style::default()).unwrap().shape(), one, "variant {number}");
    }
    let jump = |table| Rule { actions: vec![Action::Jump(table)], ..to_tunnel() };
    let shape = |table| translate(&jump(table), Style::default()).unwrap().shape();
    assert_ne!(shape(Table::Tenant), shape(Table::Tunnel), "the group to jump to is the template's");
}

#[test]
fn templates_say_masks_and_leave_values_to_the_rules() {
    let rule = translate(&to_tunnel(), Style::default()).unwrap();
    for (item, full) in rule.pattern.raw_template().iter().zip(rule.pattern.raw()) {
        assert_eq!(item.type_, full.type_);
        assert!(item.spec.is_null() && item.last.is_null());
        assert_eq!(item.mask.is_null(), item.type_ == kind::RTE_FLOW_ITEM_TYPE_END);
    }
    let masks = rule.actions.raw_masks();
    for mask in masks.array() {
        // From 23.11 mlx5 wants sizes masked; what is in the headers is each rule's.
        // SAFETY: the configurations are those of the types, and `masks` is alive.
        let masked = unsafe {
            match mask.type_ {
                act::RTE_FLOW_ACTION_TYPE_RAW_DECAP => {
                    let conf = &*mask.conf.cast::<dpdk_sys::rte_flow_action_raw_decap>();
                    (conf.data.is_null(), conf.size != 0)
                }
                act::RTE_FLOW_ACTION_TYPE_RAW_ENCAP => {
                    let conf = &*mask.conf.cast::<dpdk_sys::rte_flow_action_raw_encap>();
                    (conf.data.is_null(), conf.size != 0)
                }
                _ => (mask.conf.is_null(), true),
            }
        };
        assert_eq!(masked, (true, true), "every value of this rule is its own: {}", mask.type_);
    }
    let jump = Rule { actions: vec![Action::Jump(Table::Tenant)], ..to_tunnel() };
    let jump = translate(&jump, Style::default()).unwrap();
    let masks = jump.actions.raw_masks();
    // SAFETY: the action is JUMP, and `masks` is alive.
    let mask = unsafe { &*masks.array()[0].conf.cast::<dpdk_sys::rte_flow_action_jump>() };
    assert_eq!(mask.group, u32::MAX);
}

#[test]
fn rules_that_give_packets_to_a_queue_are_the_ports_own() {
    for fate in [Action::Queue(1), Action::Rss] {
        let rule = Rule { actions: vec![Action::Mark(0x12_3456), fate.clone()], ..to_tunnel() };
        let rule = translate(&rule, Style::default()).unwrap();
        let attr = rule.place.attr();
        assert_eq!((attr.transfer(), attr.ingress()), (0, 1));
        assert_eq!(rule.pattern.entries()[0].kind, kind::RTE_FLOW_ITEM_TYPE_ETH, "the port is not an item");
        let raw = rule.actions.raw();
        // SAFETY: the first action is MARK, and `rule` is alive.
        assert_eq!(unsafe { *raw.array()[0].conf.cast::<u32>() }, 0x12_3456);
        if fate == Action::Rss {
            // SAFETY: the second action is RSS; its queues are of `rule`, which is alive.
            let queues = unsafe {
                let rss = &*raw.array()[1].conf.cast::<dpdk_sys::rte_flow_action_rss>();
                std::slice::from_raw_parts(rss.queue, rss.queue_num as usize)
            };
            assert_eq!(queues, [0, 1], "as many as the port has");
        }
    }
    let drop = Rule { actions: vec![Action::Count, Action::Drop], ..to_tunnel() };
    let of = |transfer| translate(&drop, Style { transfer, ..Style::default() }).unwrap().place.domain;
    assert_eq!([of(true), of(false)], [Domain::Transfer, Domain::Ingress]);
}

#[test]
fn ports_are_named_the_old_way_where_a_driver_wants_that() {
    let style = Style { port_item: PortStyle::PortId, port_action: PortStyle::PortId, ..Style::default() };
    let rule = translate(&from_tunnel(), style).unwrap();
    let port = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_PORT_ID, 0);
    assert_matches(port, &[(0, &0x0106_u32.to_ne_bytes(), &[0xff; 4])]);
    let raw = rule.actions.raw();
    let [.., action, _] = raw.array() else { panic!("no actions") };
    assert_eq!(action.type_, act::RTE_FLOW_ACTION_TYPE_PORT_ID);
    // SAFETY: the action is PORT_ID, and `rule` is alive.
    let conf = unsafe { &*action.conf.cast::<dpdk_sys::rte_flow_action_port_id>() };
    assert_eq!((conf.id, conf.original()), (5, 0));
}

#[test]
fn a_ttl_is_decremented_where_a_driver_writes_no_other() {
    let style = Style::of(&NicProfile::by_name("bnxt").unwrap());
    assert_eq!(style.ttl, TtlStyle::Decrement);
    let rule = translate(&to_tunnel(), style).unwrap();
    let ttl = rule.actions.entries().iter().find(|entry| entry.kind == act::RTE_FLOW_ACTION_TYPE_DEC_TTL).unwrap();
    assert_eq!(ttl.conf, Conf::None);
    let mut other = to_tunnel();
    other.actions[2] = Action::SetTtl { version: 4, ttl: 62 };
    assert_eq!(translate(&other, style).unwrap_err().errno, libc::ENOTSUP);
}

#[test]
fn a_profile_says_how_its_driver_wants_rules() {
    let of = |name| Style::of(&NicProfile::by_name(name).unwrap());
    assert_eq!(of("twin"), Style::default());
    assert_eq!(of("mlx5-hws"), Style { field: FieldStyle::Modify, ..Style::default() });
    assert!(!of("ixgbe").transfer);
    for (layout, transfer) in [(Layout::Switch, true), (Layout::Hairpin, false), (Layout::Receive, false)] {
        let profile = NicProfile::by_name("mlx5-sws").unwrap().with_layout(layout);
        assert_eq!(Style::of(&profile).transfer, transfer, "{layout:?}");
    }
    // A NIC that does not match whether a tag follows is not asked to.
    let mut rule = from_tunnel();
    rule.items[1] = Item::Eth { dst: Some(ROUTER), has_vlan: None };
    let rule = translate(&rule, Style::default()).unwrap();
    let eth = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_ETH, 0);
    assert_matches(eth, &[(0, &ROUTER.0, &[0xff; 6])]);
}

#[test]
fn two_tags_name_the_type_of_each_other() {
    let mut rule = to_tunnel();
    rule.items[2] = Item::Vlan { tpid: 0x88a8, tci: Field { spec: 7, mask: 0x0fff }, has_more: Some(true) };
    rule.items.insert(3, Item::Vlan { tpid: 0x8100, tci: Field { spec: 8, mask: 0x0fff }, has_more: Some(false) });
    let rule = translate(&rule, Style::default()).unwrap();
    let eth = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_ETH, 0);
    assert_eq!(&eth.spec.octets()[12..14], [0x88, 0xa8]);
    let outer = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_VLAN, 0);
    assert_matches(outer, &[(0, &[0, 7], &[0x0f, 0xff]), (2, &[0x81, 0], &[0xff, 0xff]), (4, &[1], &[1])]);
}

#[test]
fn flags_of_tags_are_where_c_has_them() {
    for tagged in [false, true] {
        let mut rule = to_tunnel();
        rule.items[1] = Item::Eth { dst: None, has_vlan: Some(tagged) };
        rule.items[2] = Item::Vlan { tpid: 0x8100, tci: Field { spec: 0, mask: 0 }, has_more: Some(tagged) };
        let rule = translate(&rule, Style::default()).unwrap();
        let items = rule.pattern.raw();
        // SAFETY: the second item is Ethernet, the third a tag, and `rule` is alive.
        unsafe {
            assert_eq!(dpdk_sys::rte_flow_item_eth_has_vlan(items[1].spec.cast()), i32::from(tagged));
            assert_eq!(dpdk_sys::rte_flow_item_eth_has_vlan(items[1].mask.cast()), 1);
            assert_eq!(dpdk_sys::rte_flow_item_vlan_has_more(items[2].spec.cast()), i32::from(tagged));
            assert_eq!(dpdk_sys::rte_flow_item_vlan_has_more(items[2].mask.cast()), 1);
        }
    }
}

#[test]
fn a_rule_of_a_device_that_is_no_port_is_refused() {
    let map = ports();
    map.remove(vif(4));
    let sessions = Sessions::default();
    let stages = Stages::default();
    let translate = || {
        map.with(|ports| {
            let named = NameTables { ports, sessions: &sessions, stages: &stages };
            Translation::new(&to_tunnel(), Style::default(), named)
        })
    };
    let failure = translate().unwrap_err();
    assert_eq!(failure.errno, libc::ENODEV);
    assert!(failure.message.contains("vif 4"), "{failure}");
    map.insert(vif(4), StartedPort { ethdev: 9, queues: 1 });
    assert!(translate().is_ok());
}
