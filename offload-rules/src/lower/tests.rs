//! Tests of steering and of what leads to a flow: on the state of walk A.

use std::net::IpAddr;

use super::*;
use crate::{
    MacAddr, VifId,
    flow::FlowKey,
    forwarding::{
        NexthopKind, Snapshot, State, VlanTag,
        testing::{base, composite, encap, ipsec, label, nexthop, receive, route, tag, vif_id, vlan, vrf_id},
    },
};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn state() -> State {
    let mut state = base();
    // Flows are looked up behind the label.
    let behind = state.nexthops.iter_mut().find(|nexthop| nexthop.id.get() == 513).unwrap();
    behind.policy = true;
    state
}

fn snapshot(state: State) -> Snapshot {
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    snapshot.with_device_mac(vif_id(1), MAC).with_device_mac(vif_id(2), MAC)
}

fn from_tenant() -> (Arrival, FlowKey) {
    let arrival = Arrival {
        port: vif_id(2),
        vif: vif_id(3),
        sealed_on: None,
        eth_dst: MAC,
        tags: [Some(tag(300)), None],
        pcp_dei: 0,
        tunnel: None,
        tos: 0,
        ttl: 64,
    };
    (arrival, key(vif_id(3), 40_000, 443))
}

fn key(vif: VifId, sport: u16, dport: u16) -> FlowKey {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    FlowKey::new(vrf_id(18), vif, address("192.168.100.100"), address("192.168.1.100"), 17, sport, dport)
}

fn from_tunnel() -> (Arrival, FlowKey) {
    let tunnel = TunnelArrival {
        source: "10.101.9.245".parse().unwrap(),
        destination: "10.101.10.39".parse().unwrap(),
        udp_port: 6635,
        label: label(279),
        label_ttl: 63,
    };
    let arrival = Arrival {
        port: vif_id(1),
        vif: vif_id(1),
        sealed_on: None,
        eth_dst: MAC,
        tags: [None, None],
        pcp_dei: 0,
        tunnel: Some(tunnel),
        tos: 0,
        ttl: 63,
    };
    (arrival, key(VifId::TUNNEL, 443, 40_000))
}

#[test]
fn what_arrives_as_before_leads_to_its_flow() {
    let snapshot = snapshot(state());
    for (arrival, key) in [from_tenant(), from_tunnel()] {
        assert!(still_leads(&snapshot, &arrival, &key));
    }
}

/// Changes a state, and says what was changed.
type Change = (&'static str, fn(&mut State));

#[test]
fn a_tenants_packet_misses_its_flow_when_anything_before_the_key_changed() {
    let changes: [Change; 7] = [
        ("policy", |s| s.vifs[2].flags.policy = false),
        ("VLAN", |s| s.vifs[2].kind = vlan(2, 301)),
        ("TPID", |s| {
            let outer = VlanTag { tpid: 0x88a8, vid: 300 };
            s.vifs[2].kind = crate::forwarding::VifKind::PhysicalVlan { parent: vif_id(2), outer, inner: None };
        }),
        ("second tag", |s| {
            let kind =
                crate::forwarding::VifKind::PhysicalVlan { parent: vif_id(2), outer: tag(300), inner: Some(tag(7)) };
            s.vifs[2].kind = kind;
        }),
        ("parent", |s| s.vifs[2].kind = vlan(1, 300)),
        ("MAC", |s| s.vifs[2].mac = Some(MacAddr([2, 0, 0, 0, 0, 1]))),
        ("VRF", |s| s.vifs[2].vrf = vrf_id(8)),
    ];
    let (arrival, key) = from_tenant();
    for (what, change) in changes {
        let mut state = state();
        change(&mut state);
        assert!(!still_leads(&snapshot(state), &arrival, &key), "{what}");
    }
    let here = snapshot(state());
    assert!(!still_leads(&here.with_vif_up(vif_id(2), false), &arrival, &key), "the device is down");
    assert!(!still_leads(&here.with_vif_up(vif_id(3), false), &arrival, &key), "the vif is down");
    assert!(!still_leads(&Snapshot::empty(), &arrival, &key), "the vif is gone");
}

#[test]
fn a_tunnels_packet_misses_its_flow_when_anything_before_the_key_changed() {
    let changes: [Change; 6] = [
        ("termination", |s| {
            s.nexthops.iter_mut().find(|n| n.id.get() == 100).unwrap().kind = receive(false, Vec::new(), &[]);
        }),
        ("route to the own address", |s| s.routes.retain(|r| r.nexthop.get() != 100)),
        ("label", |s| s.labels.clear()),
        ("policy behind the label", |s| {
            s.nexthops.iter_mut().find(|n| n.id.get() == 513).unwrap().policy = false;
        }),
        ("VRF behind the label", |s| {
            s.nexthops.iter_mut().find(|n| n.id.get() == 513).unwrap().kind =
                NexthopKind::VrfTranslate { vrf: vrf_id(8) };
        }),
        ("not valid", |s| s.nexthops.iter_mut().find(|n| n.id.get() == 513).unwrap().valid = false),
    ];
    let (arrival, key) = from_tunnel();
    for (what, change) in changes {
        let mut state = state();
        change(&mut state);
        assert!(!still_leads(&snapshot(state), &arrival, &key), "{what}");
    }
    let own = "10.101.10.39".parse().unwrap();
    let forged = Arrival { tunnel: arrival.tunnel.map(|t| TunnelArrival { source: own, ..t }), ..arrival };
    assert!(!still_leads(&snapshot(state()), &forged, &key), "the node's own source");
}

#[test]
fn a_tenants_flow_to_an_address_where_tunnels_end_is_one_no_more() {
    let mut state = state();
    state.nexthops.push(nexthop(101, receive(true, Vec::new(), &[])));
    state.routes.push(crate::forwarding::testing::route(18, "192.168.1.100/32", 101, None));
    let (arrival, key_) = from_tenant();
    let here = snapshot(state);
    assert!(still_leads(&here, &arrival, &key_));
    for port in [6635, 51234] {
        assert!(!still_leads(&here, &arrival, &key(vif_id(3), 40_000, port)));
    }
}

#[test]
fn a_priority_tag_is_no_tag() {
    let mut state = state();
    state.vifs[1].vrf = vrf_id(18);
    let (arrival, _) = from_tenant();
    let arrival = Arrival { vif: vif_id(2), tags: [Some(tag(0)), None], ..arrival };
    assert!(still_leads(&snapshot(state), &arrival, &key(vif_id(2), 40_000, 443)));
}

#[test]
fn the_largest_packet_is_what_the_device_takes_less_the_tunnel() {
    let mut state = state();
    state.vifs[2].mtu = 1400;
    let here = snapshot(state);
    assert_eq!(ingress_mtu(&here, &from_tenant().0), 1500, "the device does not know the MTU of the sub-interface");
    assert_eq!(ingress_mtu(&here, &from_tunnel().0), 1468);
}

#[test]
fn steering_sends_outer_packets_to_the_tunnel_group_and_others_on() {
    let twin = NicProfile::by_name("twin").unwrap();
    let rules = proactive(&snapshot(state()), &twin);
    let to = |table| rules.iter().filter(|rule| rule.actions == [Action::Jump(table)]).collect::<Vec<_>>();
    // The underlay has two vifs in the VRF with the address; two UDP ports.
    assert_eq!(to(Table::Tunnel).len(), 4);
    for rule in to(Table::Tunnel) {
        assert_eq!((rule.table, rule.priority), (Table::Steering, 0));
        assert!(matches!(
            rule.items.as_slice(),
            [
                Item::Port(_),
                Item::Eth { dst: None, has_vlan: Some(false) },
                Item::Ipv4 { src: None, dst: Some(dst), proto: Some(17), no_options: true, whole: true, .. },
                Item::Udp { sport: None, dport: Some(6635 | 51234), .. },
            ] if dst.octets() == [10, 101, 10, 39]
        ));
    }
    let ports: Vec<_> = to(Table::Tenant).iter().map(|rule| rule.items.clone()).collect();
    assert_eq!(ports, [[Item::Port(vif_id(1))], [Item::Port(vif_id(2))]], "not the sub-interface, not the host");
    // In a switch, what no flow has goes to software by itself.
    assert!(!rules.iter().any(|rule| rule.actions == [Action::Rss]));
}

#[test]
fn without_a_switch_each_group_ends_in_software_and_none_is_unfinished() {
    let twin = NicProfile::by_name("twin").unwrap().with_layout(Layout::Hairpin);
    let rules = proactive(&snapshot(state()), &twin);
    for port in [1, 2].map(vif_id) {
        for table in [Table::Tenant, Table::Tunnel, Table::Untagged, Table::Inner, Table::Source6, Table::Transit] {
            let last = rules.iter().filter(|rule| rule.table == table).max_by_key(|rule| rule.priority).unwrap();
            assert_eq!(last.actions, [Action::Rss], "{table}");
        }
        let of = |table| rules.iter().filter(move |rule| rule.table == table && rule.items[0] == Item::Port(port));
        assert_eq!(
            of(Table::EgressFirst).map(|rule| rule.actions.clone()).collect::<Vec<_>>(),
            [[Action::Jump(Table::Egress)]]
        );
        let left: Vec<_> = of(Table::Egress).collect();
        assert_eq!(
            (left.len(), left[0].items[1].clone(), left[0].actions.as_slice()),
            (1, Item::AnyToSend, [Action::Drop].as_slice())
        );
        assert!(left[0].priority > priority::STAGE);
    }
}

#[test]
fn a_nic_without_jumps_has_no_steering() {
    for name in ["bnxt", "sfc", "nfp", "cnxk", "ice", "ixgbe"] {
        assert!(proactive(&snapshot(state()), &NicProfile::by_name(name).unwrap()).is_empty(), "{name}");
    }
}

#[test]
fn the_route_to_a_tunnels_far_end_names_its_port_unless_it_spreads() {
    let mut state = state();
    state.nexthops.extend([
        nexthop(901, NexthopKind::Resolve { oif: vif_id(1), gateway: None }),
        nexthop(902, encap(2, "0200000000020200000000030800")),
        nexthop(903, composite(&[901, 902])),
        nexthop(904, composite(&[85, 86])),
        nexthop(905, NexthopKind::Drop),
    ]);
    let to = |last: u8| format!("203.0.113.{last}");
    let routes = (1..=5).map(|last| route(8, &format!("{}/32", to(last)), 900 + u32::from(last), None));
    state.routes.extend(routes);
    let snapshot = snapshot(state);
    let mut tunnel = ipsec(&[], &[], 8).tunnel().unwrap().clone();
    let mut found = |last| {
        tunnel.destination = to(last).parse().unwrap();
        underlay(&snapshot, &tunnel)
    };
    let [first, second] = [Some(vif_id(1)), Some(vif_id(2))];
    assert_eq!([1, 2, 3, 4, 5].map(&mut found), [first, second, None, first, None]);
    assert_eq!(found(6), first, "by the default route");
}
