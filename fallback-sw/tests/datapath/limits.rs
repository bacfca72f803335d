//! Limits: what is full is full for newcomers only.

use crate::common::{
    Node,
    packets::{ACK, RST, SYN, icmp_error, segment, syn, udp},
    records::out_of_tunnel,
    walk_a::{CE1, CLIENT, LAN1, SERVER, UNDERLAYS, altered, from_client, only, workers},
};

fn with_settings(settings: &str) -> Node {
    Node::altered(CE1, &[(r#""generation": "1","#, &format!(r#""generation": "1", "settings": {{{settings}}},"#))])
}

fn udp_from(sport: u16) -> Vec<u8> {
    from_client(&udp(CLIENT, SERVER, sport, 9, b"x").ip())
}

/// Opens a TCP connection from this port.
fn open(node: &mut Node, sport: u16) {
    let up = |flags, seq, ack| from_client(&segment(CLIENT, SERVER, (sport, 80), flags, (seq, ack), &[]).ip());
    assert_eq!(node.receive(LAN1, &up(SYN, 100, 0)).len(), 1, "SYN from {sport}: {:?}", node.all_drops());
    let answer = segment(SERVER, CLIENT, (80, sport), SYN | ACK, (500, 101), &[]);
    assert_eq!(node.receive(UNDERLAYS[0], &out_of_tunnel(&answer)).len(), 1);
    assert_eq!(node.receive(LAN1, &up(ACK, 101, 501)).len(), 1);
}

fn data(sport: u16) -> Vec<u8> {
    from_client(&segment(CLIENT, SERVER, (sport, 80), ACK, (101, 501), b"data").ip())
}

#[test]
fn a_full_flow_table_refuses_new_flows_and_carries_the_established_on() {
    let mut node = with_settings(r#""maxFlows": 64"#);
    let capacity = node.machine.workers()[0].flows().capacity();
    let pairs = capacity as u16 / 2;
    for sport in 1..=pairs {
        assert_eq!(node.receive(LAN1, &udp_from(sport)).len(), 1, "{sport} of {pairs}");
    }
    assert_eq!(node.flow_records(), capacity);
    for sport in 1000..1020 {
        assert_eq!(node.receive(LAN1, &udp_from(sport)).len(), 0);
    }
    assert_eq!(node.all_drops(), [("Flow Table Full", 20)]);
    for sport in 1..=pairs {
        assert_eq!(node.receive(LAN1, &udp_from(sport)).len(), 1);
    }
    // Time makes room.
    node.wait(301_000);
    assert_eq!(node.receive(LAN1, &udp_from(1000)).len(), 1);
    assert_eq!((node.flow_records(), node.all_drops()), (2, vec![("Flow Table Full", 20)]));
}

#[test]
fn dead_and_closed_pairs_make_room_and_established_ones_do_not() {
    let mut node = with_settings(r#""maxFlows": 64, "halfOpenPercentPerVif": 100"#);
    let pairs = node.machine.workers()[0].flows().capacity() as u16 / 2;
    for sport in 1..=pairs {
        open(&mut node, sport);
    }
    assert_eq!(node.receive(LAN1, &udp_from(1000)).len(), 0);
    assert_eq!(node.all_drops(), [("Flow Table Full", 1)]);
    // One is reset: exactly one newcomer finds room.
    let reset = from_client(&segment(CLIENT, SERVER, (7, 80), RST, (101, 0), &[]).ip());
    assert_eq!(node.receive(LAN1, &reset).len(), 1);
    assert_eq!(node.receive(LAN1, &udp_from(1000)).len(), 1);
    assert_eq!(node.receive(LAN1, &udp_from(1001)).len(), 0);
    assert_eq!(node.all_drops(), [("Flow Table Full", 2)]);
    assert!(!node.has_flow(7) && node.has_flow(1000));
    for sport in (1..=pairs).filter(|sport| *sport != 7) {
        assert_eq!(node.letters(sport), "SSrEEr");
        assert_eq!(node.receive(LAN1, &data(sport)).len(), 1);
    }
}

#[test]
fn denied_flows_make_room_for_traffic_and_never_fill_the_table() {
    let lists = r#""generation": "1", "settings": {"maxFlows": 64},
      "acls": [{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 666, "last": 666}}]}],"#;
    let flags = r#""flags": {"policy": true}"#;
    let mut node =
        Node::altered(CE1, &[(r#""generation": "1","#, lists), (flags, &format!(r#"{flags}, "ingressAcls": [5]"#))]);
    for sport in 1..=200 {
        assert_eq!(node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, sport, 666, b"x").ip())).len(), 0);
    }
    let capacity = node.machine.workers()[0].flows().capacity();
    assert!(node.flow_records() <= capacity - capacity / 8, "{} of {capacity}", node.flow_records());
    // The second packet of a denied flow that is remembered is dropped by its flow.
    node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, 1, 666, b"x").ip()));
    assert_eq!(node.all_drops(), [("Policy Deny", 200), ("Flow Action Drop", 1)]);
    for sport in 1..=capacity as u16 / 2 {
        assert_eq!(node.receive(LAN1, &udp_from(sport)).len(), 1, "{sport}");
    }
    assert_eq!(node.all_drops(), [("Policy Deny", 200), ("Flow Action Drop", 1)]);
}

#[test]
fn half_open_connections_have_a_share_for_each_vif() {
    let more = r#""vifs": [
      {"id": 101, "name": "lan2", "type": "VIRTUAL", "vrf": 18, "flags": {"policy": true, "noRpf": true}},"#;
    let mut node = Node::altered(
        CE1,
        &[
            (
                r#""generation": "1","#,
                r#""generation": "1", "settings": {"maxFlows": 128, "halfOpenPercentPerVif": 25},"#,
            ),
            (r#""vifs": ["#, more),
        ],
    );
    // A quarter of the table's pairs.
    let share = node.machine.workers()[0].flows().capacity() as u16 / 2 / 4;
    open(&mut node, 1);
    for sport in 0..share + 20 {
        let sent = node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 1000 + sport, 80).ip()));
        assert_eq!(sent.len(), usize::from(sport < share), "SYN {sport}");
    }
    assert_eq!(node.all_drops(), [("Half Open Limit", 20)]);
    // Established ones, other protocols, other vifs, repeated SYNs are not held up.
    assert_eq!(node.receive(LAN1, &data(1)).len(), 1);
    assert_eq!(node.receive(LAN1, &udp_from(5)).len(), 1);
    assert_eq!(node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 1000, 80).ip())).len(), 1);
    assert_eq!(node.receive(101, &from_client(&syn("192.168.100.101", SERVER, 1, 80).ip())).len(), 1);
    // One completes: one more may begin.
    let answer = segment(SERVER, CLIENT, (80, 1000), SYN | ACK, (500, 1001), &[]);
    assert_eq!(node.receive(UNDERLAYS[0], &out_of_tunnel(&answer)).len(), 1);
    let ack = from_client(&segment(CLIENT, SERVER, (1000, 80), ACK, (1001, 501), &[]).ip());
    assert_eq!(node.receive(LAN1, &ack).len(), 1);
    assert_eq!(node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 3000, 80).ip())).len(), 1);
    assert_eq!(node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 3001, 80).ip())).len(), 0);
    // After thirty seconds of silence all may begin anew.
    node.wait(31_000);
    for sport in 0..share {
        assert_eq!(node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 4000 + sport, 80).ip())).len(), 1);
    }
    assert_eq!(node.all_drops(), [("Half Open Limit", 21)]);
}

#[test]
fn a_later_states_lower_limit_lowers_the_half_open_share() {
    let mut node = with_settings(r#""maxFlows": 1024, "halfOpenPercentPerVif": 25"#);
    node.change(r#"{"settings": {"maxFlows": 128, "halfOpenPercentPerVif": 25}}"#);
    let opened = (0..100)
        .filter(|sport| !node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 1000 + sport, 80).ip())).is_empty());
    // A quarter of 64 pairs.
    assert_eq!(opened.count(), 16);
    assert_eq!(node.all_drops(), [("Half Open Limit", 84)]);
}

#[test]
fn a_syn_flood_evicts_no_established_flow() {
    let mut node = with_settings(r#""maxFlows": 256, "halfOpenPercentPerVif": 50"#);
    for sport in 1..=20 {
        open(&mut node, sport);
    }
    for i in 0..5000u16 {
        node.receive(LAN1, &from_client(&syn(CLIENT, SERVER, 2000 + i, 80).ip()));
    }
    for sport in 1..=20 {
        assert_eq!(node.receive(LAN1, &data(sport)).len(), 1);
        assert_eq!(node.letters(sport), "SSrEEr");
    }
    open(&mut Node::new(CE1), 1);
    assert_eq!(node.all_drops(), [("Half Open Limit", 5000 - 64)]);
}

#[test]
fn new_flows_have_a_rate_for_each_vif() {
    let mut node = with_settings(r#""newFlowRatePerVif": 10"#);
    // A second's worth is there at the beginning.
    let accepted = (1..=50).filter(|sport| !node.receive(LAN1, &udp_from(*sport)).is_empty()).count() as u64;
    assert_eq!(accepted, 10);
    assert_eq!(node.all_drops(), [("New Flow Rate", 40)]);
    // Known flows are not counted, nor those of another vif.
    assert_eq!(node.receive(LAN1, &udp_from(1)).len(), 1);
    assert_eq!(node.receive(UNDERLAYS[0], &out_of_tunnel(&udp(SERVER, CLIENT, 70, 71, b"x"))).len(), 1);
    // With the millisecond that each frame takes: 551 ms since the first.
    node.wait(450);
    let accepted = (101..=150).filter(|sport| !node.receive(LAN1, &udp_from(*sport)).is_empty()).count();
    assert_eq!(accepted, 5);
}

#[test]
fn icmp_errors_have_a_rate_for_each_vif() {
    for count in [1, 2] {
        let state =
            altered(CE1, &[(r#""generation": "1","#, r#""generation": "1", "settings": {"icmpErrorRate": 10},"#)]);
        let mut node = Node::with(&state, workers(count));
        let expired = from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ttl(1).ip());
        let answered = (0..40).filter(|_| !node.receive(LAN1, &expired).is_empty()).count();
        // One flow, one worker: its share of the rate.
        assert_eq!(answered, 10 / count);
        assert_eq!(node.all_drops(), [("TTL Exceeded", 40)]);
        let expired = out_of_tunnel(&udp(SERVER, CLIENT, 1, 2, b"x").ttl(1));
        let (_, frame) = only(node.receive(UNDERLAYS[0], &expired));
        assert_eq!(frame.ethertype, 0x0800, "the other vif has a rate of its own");
    }
}

#[test]
fn errors_about_a_flow_keep_it_no_longer() {
    let mut node = Node::new(CE1);
    let about = |packet: &[u8]| out_of_tunnel(&icmp_error(SERVER, CLIENT, 3, 1, packet));
    let tcp = segment(CLIENT, SERVER, (7, 80), ACK, (101, 501), b"data").ip();
    let question = udp(CLIENT, SERVER, 8, 9, b"x").ip();
    for packet in [&tcp, &question] {
        assert_eq!(node.receive(LAN1, &from_client(packet)).len(), 1);
        assert_eq!(node.receive(UNDERLAYS[0], &about(packet)).len(), 1);
    }
    // A connection that was never answered is as short-lived as one that was never opened.
    node.wait(31_000);
    assert_eq!((node.has_flow(7), node.has_flow(8)), (false, true));
    node.wait(200_000);
    assert_eq!(node.receive(UNDERLAYS[0], &about(&question)).len(), 1);
    node.wait(80_000);
    assert!(!node.has_flow(8));
}
