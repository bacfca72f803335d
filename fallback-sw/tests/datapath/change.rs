//! Changes of the forwarding state: flows are kept, replaced or removed, and no packet sees half a state.

use crate::common::{
    Node,
    packets::{ACK, Packet, Tunnelled, VRRP, eth, segment, udp},
    records::{out_of_tunnel, out_of_tunnel_on},
    vif,
    walk_a::{CE1, CLIENT, CLIENT_MAC, LAN1, SERVER, UNDERLAYS, from_client, only},
};
use fallback_sw::{node::decode, worker::Worker};
use offload_rules::forwarding::StateErrors;

fn frame(sport: u16) -> Vec<u8> {
    from_client(&udp(CLIENT, SERVER, sport, 9, b"payload").ip())
}

fn answer(sport: u16) -> Vec<u8> {
    out_of_tunnel(&udp(SERVER, CLIENT, 9, sport, b"answer"))
}

/// One packet of the flow: where it leaves and what it looks like in the tunnel.
#[track_caller]
fn up(node: &mut Node, sport: u16) -> (u32, Tunnelled) {
    let (port, frame) = only(node.receive(LAN1, &frame(sport)));
    (port, Tunnelled::read(frame.ip()))
}

/// What stays the same from packet to packet.
#[track_caller]
fn looks(node: &mut Node, sport: u16) -> (u32, std::net::IpAddr, u32, u16, Vec<u8>) {
    let (port, packet) = up(node, sport);
    (port, packet.outer.dst, packet.label, packet.sport, packet.inner.octets)
}

fn try_change(node: &mut Node, json: &str) -> Result<(), StateErrors> {
    let mut message: proto::v1::ForwardingDelta = proto::json::parse(json, "test delta").unwrap();
    message.base_generation = node.machine.control().snapshot().generation();
    message.generation = message.base_generation + 1;
    node.machine.apply_delta(decode::delta(&message).unwrap_or_else(|errors| panic!("{errors}")), node.now)
}

const LAN_ROUTE: &str = r#"{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 280}"#;

#[test]
fn flows_that_a_change_does_not_concern_are_kept_as_they_are() {
    let mut node = Node::new(CE1);
    let before: Vec<_> = (1..20).map(|sport| looks(&mut node, sport)).collect();
    let records = node.records();
    node.wait(5000);
    // In the same table, and somewhere else.
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "10.1.0.0/16", "nexthop": 489, "label": 999}]}"#);
    node.change(r#"{"vrfs": [{"id": 77}], "labels": [{"label": 777, "nexthop": 513}]}"#);
    let after: Vec<_> = (1..20).map(|sport| looks(&mut node, sport)).collect();
    assert_eq!(after, before);
    let kept = node.records();
    assert_eq!(kept.len(), records.len());
    for (new, old) in kept.iter().zip(&records) {
        assert_eq!((new.key, new.times, new.ecmp), (old.key, old.times, old.ecmp));
    }
    assert_eq!(node.all_drops(), []);
}

#[test]
fn a_flow_whose_bytes_differ_is_replaced_under_the_same_pair() {
    let mut node = Node::new(CE1);
    let before = looks(&mut node, 1);
    let record = node.flow(1);
    node.wait(5000);
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 555}]}"#);
    let after = looks(&mut node, 1);
    assert_eq!((before.2, after.2), (280, 555));
    assert_eq!((after.0, after.1, after.3, &after.4), (before.0, before.1, before.3, &before.4));
    let replaced = node.flow(1);
    assert_eq!((replaced.times.created, replaced.packets, replaced.ecmp), (record.times.created, 2, record.ecmp));
    assert!(replaced.times.changed > record.times.changed);
    assert_eq!(node.flow_records(), 2);
    // A more specific route takes over, and its removal restores the covering one with its label.
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.100/32", "nexthop": 489, "label": 600}]}"#);
    assert_eq!(looks(&mut node, 1).2, 600);
    node.change(r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.1.100/32"}]}"#);
    assert_eq!(looks(&mut node, 1).2, 555);
}

#[test]
fn what_a_list_denies_now_stops_and_what_it_permits_again_goes_on() {
    let lan = |lists: &str| {
        format!(
            r#"{{"id": 100, "name": "lan", "type": "VIRTUAL", "vrf": 18, "flags": {{"policy": true}},
              "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]{lists}}}"#
        )
    };
    let mut node = Node::new(CE1);
    up(&mut node, 1);
    up(&mut node, 2);
    let deny =
        r#"{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17, "sourcePorts": {"first": 1, "last": 1}}]}"#;
    node.change(&format!(r#"{{"acls": [{deny}], "vifs": [{}]}}"#, lan(r#", "ingressAcls": [5]"#)));
    assert_eq!(node.receive(LAN1, &frame(1)).len(), 0);
    assert_eq!(node.receive(LAN1, &frame(1)).len(), 0);
    assert_eq!(
        node.drops(offload_rules::DropReason::PolicyDeny) + node.drops(offload_rules::DropReason::FlowActionDrop),
        2
    );
    let denied = node.flow(1);
    let entry = denied.decided.acl.unwrap();
    assert_eq!((entry.acl.get(), entry.ace), (5, Some(1)));
    up(&mut node, 2);
    node.change(&format!(r#"{{"vifs": [{}]}}"#, lan("")));
    up(&mut node, 1);
    assert_eq!(node.receive(UNDERLAYS[0], &answer(1)).len(), 1);
    assert_eq!(node.flow_records(), 4);
}

#[test]
fn an_added_member_moves_no_flow() {
    let mut node = Node::new(CE1);
    let before: Vec<_> = (1..60).map(|sport| looks(&mut node, sport)).collect();
    node.change(
        r#"{"vifs": [{"id": 4107, "name": "wan2", "type": "PHYSICAL", "mac": "02:00:00:00:41:07", "vrf": 8}],
        "nexthops": [{"id": 87, "vrf": 8, "encap": {"oif": 4107, "encapData": "0200000000fe 020000004107 0800"}},
          {"id": 532, "vrf": 8, "composite": {"members": [
            {"nexthop": 85, "weight": 100}, {"nexthop": 86, "weight": 100}, {"nexthop": 87, "weight": 100}]}}]}"#,
    );
    let after: Vec<_> = (1..60).map(|sport| looks(&mut node, sport)).collect();
    assert_eq!(after, before);
    let new: Vec<u32> = (100..160).map(|sport| up(&mut node, sport).0).collect();
    assert!(new.contains(&4107), "new flows use it");
}

#[test]
fn a_lost_member_moves_its_own_flows_only_and_gets_them_back() {
    let mut node = Node::new(CE1);
    let before: Vec<_> = (1..60).map(|sport| looks(&mut node, sport)).collect();
    let members = |a: &str| {
        format!(r#"{{"nexthops": [{{"id": 532, "vrf": 8, "composite": {{"members": [{a}, {{"nexthop": 86}}]}}}}]}}"#)
    };
    let device_down = |node: &mut Node, up| {
        node.now += 1;
        node.machine.set_up(vif(4111), up, node.now);
    };
    for way in ["device", "hole"] {
        match way {
            "device" => device_down(&mut node, false),
            _ => node.change(&members("{}")),
        }
        for (sport, old) in (1..60).zip(&before) {
            let now = looks(&mut node, sport);
            assert_eq!(now.0, 4109, "{way}");
            assert_eq!((now.1, now.2, now.3), (old.1, old.2, old.3));
        }
        match way {
            "device" => device_down(&mut node, true),
            _ => node.change(&members(r#"{"nexthop": 85}"#)),
        }
        let after: Vec<_> = (1..60).map(|sport| looks(&mut node, sport)).collect();
        assert_eq!(after, before, "{way}");
    }
    assert_eq!((node.flow_records(), node.all_drops()), (118, vec![]));
}

#[test]
fn a_flow_follows_the_underlay_that_its_answers_come_by() {
    let mut node = Node::new(CE1);
    for sport in 1..20 {
        let (port, _) = up(&mut node, sport);
        let other = if port == UNDERLAYS[0] { UNDERLAYS[1] } else { UNDERLAYS[0] };
        node.wait(1500);
        let back = udp(SERVER, CLIENT, 9, sport, b"answer");
        assert_eq!(node.receive(other, &out_of_tunnel_on(other, &back)).len(), 1);
        assert_eq!(up(&mut node, sport).0, other);
    }
    assert_eq!(node.all_drops(), []);
}

#[test]
fn what_is_removed_stops_and_its_flows_go_without_a_packet() {
    for (what, delta, reason) in [
        ("the route", r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.1.0/24"}]}"#, "No Route"),
        (
            "the nexthop",
            r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.1.0/24"}, {"vrf": 18, "prefix": "2001:db8:1::/64"}],
              "removeNexthops": [489], "routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 0}]}"#,
            "No Route",
        ),
        ("its validity", r#"{"nexthops": [{"id": 532, "vrf": 8, "invalid": true, "drop": {}}]}"#, "Invalid NH"),
        (
            "the tenant's vif and VRF",
            r#"{"removeVifs": [100], "removeVrfs": [18], "removeLabels": [279], "removeNexthops": [513, 514, 515],
              "removeRoutes": [{"vrf": 18, "prefix": "192.168.100.100/32"}, {"vrf": 18, "prefix": "192.168.100.0/24"},
                {"vrf": 18, "prefix": "2001:db8:100::100/128"}, {"vrf": 18, "prefix": "2001:db8:100::/64"},
                {"vrf": 18, "prefix": "192.168.1.0/24"}, {"vrf": 18, "prefix": "2001:db8:1::/64"}]}"#,
            "Invalid IF",
        ),
    ] {
        let mut node = Node::new(CE1);
        for sport in 1..10 {
            up(&mut node, sport);
        }
        node.change(delta);
        // No traffic: the sweep finds them.
        node.machine.sweep(node.now);
        let initiators = (1..10).filter(|sport| node.has_flow(*sport)).count();
        assert_eq!(initiators, 0, "{what}");
        assert_eq!(node.receive(LAN1, &frame(1)).len(), 0, "{what}");
        assert_eq!(node.all_drops(), [(reason, 1)], "{what}");

        let mut node = Node::new(CE1);
        up(&mut node, 1);
        node.change(delta);
        assert_eq!(node.receive(LAN1, &frame(1)).len(), 0, "{what}");
        assert_eq!(
            (node.all_drops(), node.has_flow(1)),
            (vec![(reason, 1)], what.contains("vif")),
            "{what}, met first"
        );
    }
}

#[test]
fn the_sweep_brings_flows_up_to_the_state_without_their_packets() {
    let mut node = Node::new(CE1);
    up(&mut node, 1);
    let old = node.flow(1);
    node.wait(1000);
    node.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 555}]}"#);
    node.wait(200);
    let swept = node.flow(1);
    assert!(swept.times.changed > old.times.changed && swept.version != old.version);
    assert_eq!(swept.packets, 1);
    assert_eq!(up(&mut node, 1).1.label, 555);
}

#[test]
fn a_state_that_is_refused_changes_nothing() {
    let mut node = Node::new(CE1);
    let before = looks(&mut node, 1);
    let (generation, version) = {
        let snapshot = node.machine.control().snapshot();
        (snapshot.generation(), snapshot.version())
    };
    for delta in [
        r#"{"removeNexthops": [489]}"#,
        r#"{"removeVifs": [4111]}"#,
        r#"{"removeVrfs": [18]}"#,
        r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 555},
          {"vrf": 18, "prefix": "10.0.0.0/8", "nexthop": 12345}]}"#,
        r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489}]}"#,
    ] {
        assert!(try_change(&mut node, delta).is_err(), "{delta}");
        let snapshot = node.machine.control().snapshot();
        assert_eq!((snapshot.generation(), snapshot.version()), (generation, version), "{delta}");
        assert_eq!(looks(&mut node, 1), before, "{delta}");
    }
    assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]));
    assert!(try_change(&mut node, &format!(r#"{{"routes": [{LAN_ROUTE}]}}"#)).is_ok());
    assert_eq!(looks(&mut node, 1), before);
}

#[test]
fn no_packet_sees_half_a_change() {
    let mut node = Node::new(CE1);
    let tunnel = |dip: &str| {
        format!(
            r#"{{"id": 489, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "{dip}", "directNexthop": 532}}}}"#
        )
    };
    for round in 0..20u32 {
        let (dip, label) = if round % 2 == 0 { ("10.101.9.245", 280) } else { ("10.101.9.7", 700) };
        node.change(&format!(
            r#"{{"nexthops": [{}], "routes": [{{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": {label}}}]}}"#,
            tunnel(dip)
        ));
        // Flows of every age.
        for sport in 1..=round as u16 + 1 {
            let (_, packet) = up(&mut node, sport);
            assert_eq!((packet.outer.dst.to_string().as_str(), packet.label), (dip, label), "round {round}");
        }
    }
    assert_eq!((node.flow_records(), node.all_drops()), (40, vec![]));
}

#[test]
fn packets_that_wait_for_a_neighbour_follow_the_new_state() {
    let mut node = Node::new(CE1);
    let unresolved = out_of_tunnel(&udp(SERVER, "192.168.100.7", 1, 2, b"x"));
    assert_eq!(node.receive(UNDERLAYS[0], &unresolved).len(), 1);
    assert_eq!(node.machine.held(), 1);
    node.now += 1;
    node.machine.set_up(vif(LAN1), false, node.now);
    assert_eq!((node.machine.held(), node.all_drops()), (0, vec![("Interface Down", 1)]));
    node.check_account();
}

/// A LAN, and two ways to servers that only answers may come in by.
const TWO_WAYS: &str = r#"{
  "generation": "1",
  "vrfs": [{"id": 2}],
  "vifs": [
    {"id": 4, "name": "lan", "type": "VIRTUAL", "vrf": 2, "flags": {"policy": true}},
    {"id": 5, "name": "a", "type": "VIRTUAL", "vrf": 2, "flags": {"policy": true}, "ingressAcls": [1]},
    {"id": 6, "name": "b", "type": "VIRTUAL", "vrf": 2, "flags": {"policy": true}, "ingressAcls": [1]}
  ],
  "acls": [{"id": 1, "defaultAction": "DENY"}],
  "nexthops": [
    {"id": 104, "vrf": 2, "encap": {"oif": 4, "encapData": "0200000000aa 00005e000100 0800"}},
    {"id": 105, "vrf": 2, "encap": {"oif": 5, "encapData": "0200000000bb 00005e000100 0800"}},
    {"id": 106, "vrf": 2, "encap": {"oif": 6, "encapData": "0200000000cc 00005e000100 0800"}}
  ],
  "routes": [
    {"vrf": 2, "prefix": "10.0.4.0/24", "nexthop": 104},
    {"vrf": 2, "prefix": "10.9.0.0/16", "nexthop": 105}
  ]
}"#;

#[test]
fn answers_follow_a_route_that_moves_to_another_vif() {
    let lan = |ip: &Packet| eth(VRRP, CLIENT_MAC, &ip.ip());
    let request = lan(&segment("10.0.4.100", "10.9.0.1", (4000, 80), ACK, (100, 500), b"request"));
    let reply = lan(&segment("10.9.0.1", "10.0.4.100", (80, 4000), ACK, (500, 107), b"reply"));
    let mut node = Node::new(TWO_WAYS);
    assert_eq!(only(node.receive(4, &request)).0, 5);
    assert_eq!(only(node.receive(5, &reply)).0, 4);
    node.change(r#"{"routes": [{"vrf": 2, "prefix": "10.9.0.0/16", "nexthop": 106}]}"#);
    assert_eq!(only(node.receive(4, &request)).0, 6);
    assert_eq!(only(node.receive(6, &reply)).0, 4);
    assert_eq!((node.flow_records(), node.all_drops()), (2, vec![]));
    // Nobody speaks for the servers where they are no more, and nothing new begins where only answers may come.
    assert_eq!(node.receive(5, &reply).len(), 0);
    assert_eq!(node.receive(6, &lan(&udp("10.9.0.1", "10.0.4.100", 80, 4000, b"x"))).len(), 0);
    assert_eq!(node.all_drops(), [("Invalid Source", 1), ("Policy Deny", 1)]);
    assert_eq!(only(node.receive(6, &reply)).0, 4);
}

/// Changes of which most routes cover nothing: one is followed at once, the other one takes several ticks.
#[test]
fn of_many_changed_routes_each_that_covers_a_flow_is_followed() {
    for (nets, others) in [(64, 2000), (256, 20_000)] {
        let mut node = Node::new(TWO_WAYS);
        let servers: Vec<String> = (0..nets).map(|net| format!("10.9.{net}.1")).collect();
        for server in &servers {
            let request = udp("10.0.4.100", server, 1000, 80, b"x");
            assert_eq!(only(node.receive(4, &eth(VRRP, CLIENT_MAC, &request.ip()))).0, 5);
        }
        let derivations = |node: &Node| node.machine.workers().iter().map(Worker::derivations).sum::<u64>();
        let before = derivations(&node);
        let beside = (0..nets).map(|net| format!("10.9.{net}.2/32"));
        let elsewhere = (0..others).map(|n| format!("10.{}.{}.{}/32", 8 + n % 2 * 2, n >> 8, n & 255));
        let covering = servers.iter().filter(|server| server.len() % 2 == 0).map(|server| format!("{server}/32"));
        let covering: Vec<String> = covering.collect();
        let all = beside.chain(elsewhere).chain(covering.iter().cloned());
        let routes: Vec<String> =
            all.map(|prefix| format!(r#"{{"vrf": 2, "prefix": "{prefix}", "nexthop": 105}}"#)).collect();
        node.change(&format!(r#"{{"routes": [{}]}}"#, routes.join(",")));
        node.wait(1000);
        assert_eq!(derivations(&node) - before, 2 * covering.len() as u64, "{nets} networks");
    }
}
