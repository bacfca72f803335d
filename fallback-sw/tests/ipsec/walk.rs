//! Packets from end to end.

use crate::{
    common::packets::{ACK, SYN, echo_request, segment, syn, udp},
    net::{CLIENT, LAN, Net, SERVER, TUNNELS},
};

#[test]
fn a_packet_goes_through_both_tunnels_and_the_answer_comes_back() {
    let mut net = Net::default();
    let there = net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"question").ip());
    assert_eq!((there.src.to_string().as_str(), there.ports(), there.ttl), (CLIENT, (5000, 53), 63 - 1));
    assert_eq!(&there.body[8..], b"question");
    let back = net.to_client(&udp(SERVER, CLIENT, 53, 5000, b"answer").ip());
    assert_eq!((back.src.to_string().as_str(), &back.body[8..]), (SERVER, &b"answer"[..]));
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
    net.nothing_in_the_clear();
    // From CE1 in UDP, from the regional edge to CE2 bare, and back.
    let protos: Vec<u8> = net.wire.iter().map(|ip| ip.proto).collect();
    assert_eq!(protos, [17, 50, 50, 17]);
}

#[test]
fn later_packets_of_a_flow_run_its_program_at_both_ends() {
    let mut net = Net::default();
    for i in 0..10 {
        net.to_server(&udp(CLIENT, SERVER, 5000, 53, &[i]).ip());
    }
    for node in [&net.ce1, &net.ce2] {
        let account = node.machine.counters().0.account;
        assert_eq!((account.flow_hits, account.slow_path), (9, 1));
    }
    // The regional edge knows no flow of a tenant: the outer packet is routed.
    assert_eq!(net.re.flow_records(), 0);
}

#[test]
fn a_tcp_connection_is_clamped_to_what_fits_into_both_encapsulations() {
    let mut net = Net::default();
    let options = [2, 4, 0x05, 0xb4];
    let open = crate::common::packets::segment_with_options(CLIENT, SERVER, (4000, 80), SYN, (1000, 0), &options, &[]);
    let seen = net.to_server(&open.ip());
    let mss = u16::from_be_bytes([seen.body[22], seen.body[23]]);
    // The tunnel's MTU of 1400 is less than what 1500 leaves for ESP; 32 octets of MPLS over UDP, 40 of TCP and IPv4.
    assert_eq!(mss, 1400 - 32 - 40);
    net.to_client(&segment(SERVER, CLIENT, (80, 4000), SYN | ACK, (7000, 1001), &[]).ip());
    // A segment of that size fits unfragmented.
    let full = segment(CLIENT, SERVER, (4000, 80), ACK, (1001, 7001), &vec![1; usize::from(mss)]).df();
    assert_eq!(net.to_server(&full.ip()).octets.len(), 1368);
    assert!(net.wire.iter().all(|ip| ip.octets.len() <= 1500 && !ip.more && ip.offset == 0));
}

#[test]
fn without_a_limit_of_the_tunnel_the_largest_packet_fills_the_underlay() {
    let mut net = Net::altered(&[("\"mtu\": 1400", "\"mtu\": 9000")]);
    // 1500 − 28 − 32 = 1440 of text, two of which are the trailer; 32 for MPLS over UDP.
    let fits = udp(CLIENT, SERVER, 5000, 53, &[0; 1438 - 32 - 28]).df().ip();
    assert_eq!(net.from_client(&fits).len(), 1);
    let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, &[0; 1438 - 32 - 27]).df().ip());
    let answer = crate::common::packets::Frame::read(sent[0].packet.data()).ip();
    assert_eq!((u32::from(sent[0].port.get()), answer.icmp()), (LAN, (3, 4)));
    assert_eq!(u16::from_be_bytes([answer.body[6], answer.body[7]]), 1438 - 32);
}

#[test]
fn what_may_be_fragmented_is_fragmented_before_it_is_sealed() {
    let mut net = Net::default();
    let large = udp(CLIENT, SERVER, 5000, 53, &[7; 3000]).ip();
    let sent = net.from_client(&large);
    assert_eq!(sent.len(), 3);
    let arrived = net.carry(sent);
    assert_eq!(arrived.iter().map(|(_, ip)| ip.body.len()).sum::<usize>(), 3008);
    assert!(net.wire.iter().all(|ip| ip.offset == 0 && !ip.more));
}

/// How CE1 spreads 100,000 flows when its tunnels have these weights; no member may be off by more than 2 % of its share.
#[track_caller]
fn spreads(weights: [u32; 2]) {
    const FLOWS: u64 = 100_000;
    let changed = format!("\"nexthop\": 85, \"weight\": {}", weights[0]);
    let mut net = Net::altered(&[("\"nexthop\": 85, \"weight\": 100", &changed)]);
    // Flows are let in at 10,000 a second and interface; time passes.
    for (i, port) in (1024..51_024).flat_map(|port| [(0, port), (1, port)]).enumerate() {
        net.from_client(&udp(CLIENT, SERVER, port.1, 53 + port.0, b"x").ip());
        if i % 1000 == 999 {
            net.ce1.wait(200);
        }
    }
    assert_eq!(net.ce1.all_drops(), []);
    let sent = TUNNELS.map(|vif| net.ce1.vif_packets(vif).1);
    assert_eq!(sent.iter().sum::<u64>(), FLOWS);
    for (sent, weight) in sent.into_iter().zip(weights) {
        let wanted = FLOWS as f64 * f64::from(weight) / f64::from(weights[0] + weights[1]);
        let off = (sent as f64 - wanted).abs() / wanted;
        assert!(off < 0.02, "weight {weight}: {sent} flows, {wanted} wanted, off by {:.2} %", 100.0 * off);
    }
}

#[test]
fn equal_weights_spread_100000_flows_evenly_within_two_percent() {
    spreads([100, 100]);
}

#[test]
fn weights_spread_100000_flows_over_two_tunnels_within_two_percent() {
    spreads([300, 100]);
}

/// Which tunnel of CE1 a flow takes: the one whose count moves.
fn tunnel_of(net: &mut Net, port: u16) -> u32 {
    let before = TUNNELS.map(|vif| net.ce1.vif_packets(vif).1);
    assert_eq!(net.from_client(&udp(CLIENT, SERVER, port, 53, b"x").ip()).len(), 1);
    let after = TUNNELS.map(|vif| net.ce1.vif_packets(vif).1);
    if after[0] > before[0] { TUNNELS[0] } else { TUNNELS[1] }
}

#[test]
fn a_tunnel_that_loses_its_sas_moves_only_its_own_flows_and_they_return() {
    let mut net = Net::default();
    let ports: Vec<u16> = (2000..2200).collect();
    let before: Vec<u32> = ports.iter().map(|port| tunnel_of(&mut net, *port)).collect();
    assert!(before.contains(&TUNNELS[0]) && before.contains(&TUNNELS[1]));
    let outside = |outbound: &str| {
        format!(
            r#"{{"vifs": [{{"id": 4111, "name": "tunnel4111", "type": "TUNNEL", "vrf": 8, "mtu": 1400, "tunnel": {{
                "source": "172.28.13.36", "destination": "103.135.56.40", "vrf": 2, "outboundSas": [{outbound}],
                "inboundSas": [33], "natT": {{}}}}}}]}}"#
        )
    };
    net.ce1.change(&outside(""));
    let during: Vec<u32> = ports.iter().map(|port| tunnel_of(&mut net, *port)).collect();
    assert!(during.iter().all(|vif| *vif == TUNNELS[1]));
    net.ce1.change(&outside("17"));
    let after: Vec<u32> = ports.iter().map(|port| tunnel_of(&mut net, *port)).collect();
    assert_eq!(after, before);
}

#[test]
fn the_route_of_the_outer_packet_decides_whether_a_tunnel_is_up() {
    let mut net = Net::default();
    net.ce1.change(r#"{"nexthops": [{"id": 9, "drop": {}}, {"id": 8, "invalid": true, "encap": {"oif": 1, "encapData": "0200000000ee0200000000c10800"}}],
        "routes": [{"vrf": 2, "prefix": "103.135.56.40/32", "nexthop": 8}]}"#);
    for port in 3000..3050 {
        assert_eq!(tunnel_of(&mut net, port), TUNNELS[1]);
    }
    assert_eq!(net.ce1.all_drops(), []);
}

#[test]
fn without_any_sa_nothing_leaves_and_nothing_is_in_the_clear() {
    let mut net = Net::altered(&[
        ("\"outboundSas\": [17]", "\"outboundSas\": []"),
        ("\"outboundSas\": [18]", "\"outboundSas\": []"),
    ]);
    assert!(net.from_client(&syn(CLIENT, SERVER, 4000, 80).ip()).is_empty());
    assert_eq!(net.ce1.all_drops(), [("Invalid NH", 1)]);
    // By a route that leads to the tunnel itself.
    net.ce1.change(r#"{"nexthops": [{"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245", "directNexthop": 85}}]}"#);
    assert!(net.from_client(&syn(CLIENT, SERVER, 4001, 80).ip()).is_empty());
    assert_eq!(net.ce1.all_drops(), [("Invalid NH", 1), ("No SA", 1)]);
}

#[test]
fn an_echo_to_the_gateway_behind_both_tunnels_is_answered_by_them() {
    let mut net = Net::default();
    // To the gateway itself there is no route but the one to the LAN's address: give one.
    net.ce1.change(r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.1/32", "nexthop": 489, "label": 280}]}"#);
    net.ce2.change(r#"{"nexthops": [{"id": 515, "vrf": 18, "resolve": {"oif": 100}}], "routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 515}]}"#);
    let sent = net.from_client(&echo_request(CLIENT, "192.168.1.1", 7, 1).ip());
    let arrived = net.carry(sent);
    assert_eq!(arrived.len(), 1, "{:?}", net.all_drops());
    assert_eq!(arrived[0].1.icmp(), (0, 0));
    net.nothing_in_the_clear();
}
