//! IPv6 over paths that are narrower than 1280 octets: fragmented below IPv6, and no host told less (RFC 8200 §5, RFC 8201 §4,
//! RFC 2473 §7.1).

use proptest::prelude::*;

use crate::common::{
    Node,
    packets::{
        ACK, Frame, Ip, SYN, Tunnelled, VRRP, entry, eth, icmp, icmp_error, mpls_udp, segment, segment_with_options,
        udp,
    },
    vif,
    walk_a::{
        CE1, CE2, CLIENT, CLIENT_MAC, CLIENT6, GATEWAY1_6, LABEL1, LAN1, LAN2, SERVER, SERVER6, TUNNEL1, TUNNEL2,
        UNDERLAY_MACS, UNDERLAYS, altered, from_client, from_server, from_underlay, only, workers,
    },
};
use crate::neighbours::{arp_frame, arp_octets};
use fallback_sw::{node::machine::Sent, packet::Packet};

/// A state whose underlay vifs have this MTU.
fn narrow(json: &str, mtu: u16) -> String {
    let vif = |name: &str| {
        (
            format!(r#""name": "{name}", "type": "PHYSICAL","#),
            format!(r#""name": "{name}", "type": "PHYSICAL", "mtu": {mtu},"#),
        )
    };
    let [(a, b), (c, d)] = ["wan0", "wan1"].map(vif);
    altered(json, &[(&a, &b), (&c, &d)])
}

/// A UDP packet of `len` octets in all, over IPv6 or IPv4.
fn of_len(src: &str, dst: &str, len: usize) -> Vec<u8> {
    let headers = if src.contains(':') { 48 } else { 28 };
    let payload: Vec<u8> = (0..len - headers).map(|i| (i * 7) as u8).collect();
    udp(src, dst, 7, 7, &payload).ip()
}

/// IPv4 packets in the underlay.
fn outside(sent: &[Sent]) -> Vec<Ip> {
    sent.iter().map(|sent| Frame::read(sent.packet.data()).ip()).collect()
}

/// What comes out of CE2 when it receives these in this order.
fn through(ce2: &mut Node, port: u32, outer: &[Ip]) -> Vec<Ip> {
    outer.iter().flat_map(|ip| outside(&ce2.receive(port, &from_underlay(port, &ip.octets)))).collect()
}

/// The packet as the other edge sends it: both have taken one off the hop limit.
fn two_hops_on(ip: &[u8]) -> Vec<u8> {
    let mut ip = ip.to_vec();
    ip[7] -= 2;
    ip
}

/// The MTU in a "packet too big", if that is what was sent.
fn told(sent: &[Sent]) -> Option<u32> {
    let ip = Frame::read(sent.first()?.packet.data()).ip();
    (ip.proto == 58 && ip.icmp() == (2, 0)).then(|| u32::from_be_bytes(ip.body[4..8].try_into().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn ipv6_of_1280_arrives_whole_by_any_path_and_no_host_is_told_less(
        mtu in 576u16..=1400, len in 48usize..=1500, count in 1usize..=2, swap: bool, policy: bool,
    ) {
        let state = narrow(CE1, mtu);
        let state = if policy { state } else { altered(&state, &[(r#""flags": {"policy": true},"#, "")]) };
        let mut node = Node::with(&state, workers(count));
        let mut ce2 = Node::with(CE2, workers(count));
        let original = of_len(CLIENT6, SERVER6, len);
        for round in 0..3 {
            let sent = node.receive(LAN1, &from_client(&original));
            let limit = usize::from(mtu - 32).max(1280);
            if len > limit {
                prop_assert_eq!((sent.len(), told(&sent)), (1, Some(limit as u32)));
                prop_assert_eq!(node.all_drops(), [("Packet Too Big", round + 1)]);
                continue;
            }
            let port = u32::from(sent[0].port.get());
            let mut outer = outside(&sent);
            prop_assert_eq!(outer.len() > 1, len + 32 > usize::from(mtu));
            prop_assert!(outer.iter().all(|ip| ip.octets.len() <= usize::from(mtu) && !ip.df && ip.proto == 17));
            if swap {
                outer.reverse();
            }
            let arrived = through(&mut ce2, port, &outer);
            prop_assert_eq!(arrived.len(), 1);
            prop_assert_eq!(&arrived[0].octets, &two_hops_on(&original));
            let account = node.machine.account();
            prop_assert_eq!((account.forwarded, account.originated), (round + 1, (round + 1) * (outer.len() as u64 - 1)));
            prop_assert!(node.all_drops().is_empty() && ce2.all_drops().is_empty());
        }
    }
}

#[test]
fn fragmented_outer_packets_differ_from_others_by_identification_alone() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let mut wide = Node::new(CE1);
    let original = of_len(CLIENT6, SERVER6, 1280);
    let plain = Tunnelled::read(outside(&wide.receive(LAN1, &from_client(&original)))[0].clone());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let parts = outside(&node.receive(LAN1, &from_client(&original)));
        // 976 is the largest multiple of eight that 1000 leaves behind the header.
        assert_eq!(parts.iter().map(|ip| (ip.offset, ip.more)).collect::<Vec<_>>(), [(0, true), (976, false)]);
        assert_eq!((parts[0].id, parts[0].tos, parts[0].ttl), (parts[1].id, 0, 64));
        let body = [&parts[0].body[..], &parts[1].body].concat();
        assert_eq!(body, plain.outer.body, "port of the flow, length, no checksum, label, packet");
        ids.push(parts[0].id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 4, "fragments of two packets never mix (RFC 6864 §4.3)");
    // What fits keeps the identification of the flow.
    let small = of_len(CLIENT6, SERVER6, 900);
    let outer = [(); 2].map(|()| outside(&node.receive(LAN1, &from_client(&small)))[0].id);
    assert_eq!(outer[0], outer[1]);
}

#[test]
fn over_a_narrow_path_ipv4_is_as_it_was() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let df = udp(CLIENT, SERVER, 7, 7, &[0; 1000]).df().ip();
    let (_, frame) = only(node.receive(LAN1, &from_client(&df)));
    assert_eq!((frame.ip().icmp(), &frame.ip().body[6..8]), ((3, 4), &968u16.to_be_bytes()[..]));
    let parts = outside(&node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, 1280))));
    assert!(parts.len() == 2 && parts.iter().all(|ip| !ip.more && ip.offset == 0), "fragmented before encapsulation");
}

#[test]
fn tcp_over_a_narrow_path_fits_into_whole_packets() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let syn = |mss: u16| {
        let [a, b] = mss.to_be_bytes();
        segment_with_options(CLIENT6, SERVER6, (4000, 80), SYN, (1, 0), &[2, 4, a, b], &[]).ip()
    };
    let (_, frame) = only(node.receive(LAN1, &from_client(&syn(1440))));
    // An MSS is no MTU: smaller segments are what a path of 968 takes without fragments.
    assert_eq!(Tunnelled::read(frame.ip()).inner.body[22..24], (968u16 - 60).to_be_bytes());
    // Who sends larger ones all the same gets them through.
    let full = segment(CLIENT6, SERVER6, (4000, 80), ACK, (2, 1), &[0; 1220]).ip();
    assert_eq!(node.receive(LAN1, &from_client(&full)).len(), 2);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn fragments_of_an_ipv6_host_go_through_a_narrow_path_like_other_packets() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let mut ce2 = Node::new(CE2);
    let whole = udp(CLIENT6, SERVER6, 7, 7, &[9; 2400]);
    let parts = [whole.part(0, 1232).ip(), whole.part(1232, 2408).ip()];
    for part in &parts {
        assert_eq!(part.len(), if part == &parts[0] { 1280 } else { 48 + 2408 - 1232 });
        let sent = node.receive(LAN1, &from_client(part));
        let port = u32::from(sent[0].port.get());
        let arrived = through(&mut ce2, port, &outside(&sent));
        assert_eq!(arrived.iter().map(|ip| ip.octets.clone()).collect::<Vec<_>>(), [two_hops_on(part)]);
    }
}

#[test]
fn an_icmp_error_rides_its_flow_through_a_narrow_path_whole() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let mut ce2 = Node::new(CE2);
    let down = of_len(SERVER6, CLIENT6, 1280);
    let packet = mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &[entry(LABEL1, 0, true, 63)], &down).ip();
    let (_, frame) = only(node.receive(UNDERLAYS[0], &from_underlay(UNDERLAYS[0], &packet)));
    let error = icmp_error(CLIENT6, SERVER6, 1, 4, &frame.ip().octets).ip();
    assert_eq!(error.len(), 1280);
    let sent = node.receive(LAN1, &from_client(&error));
    assert_eq!(sent.len(), 2);
    // CE2 has not seen the flow, but the packet is whole: it says so of it.
    through(&mut ce2, u32::from(sent[0].port.get()), &outside(&sent));
    assert_eq!(ce2.all_drops(), [("ICMP Error Unmatched", 1)]);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn what_the_node_itself_sends_over_a_narrow_path_arrives_whole() {
    let mut node = Node::new(&narrow(CE1, 1000));
    let mut ce2 = Node::new(CE2);
    // A server asks CE1's gateway, with packets of many lengths.
    for len in [100, 900, 1232, 1452] {
        let payload: Vec<u8> = (0..len - 48).map(|i| i as u8).collect();
        let request = icmp(SERVER6, GATEWAY1_6, 128, 0, [0, 7, 0, 7], &payload);
        let frame = from_server(&request.ip());
        let sent = ce2.receive(LAN2, &frame);
        let port = u32::from(sent[0].port.get());
        let answers = outside(&sent)
            .iter()
            .flat_map(|ip| node.receive(port, &from_underlay(port, &ip.octets)))
            .collect::<Vec<_>>();
        let arrived = through(&mut ce2, u32::from(answers[0].port.get()), &outside(&answers));
        let body: Vec<u8> = arrived.iter().flat_map(|ip| ip.body.clone()).collect();
        assert_eq!((body.len(), &body[8..]), (len - 40, &payload[..]), "{len}");
        assert_eq!(arrived.len(), if len > 1280 { 2 } else { 1 });
    }
}

#[test]
fn a_link_below_1280_is_reported_and_no_host_is_told_less() {
    let lan = r#""name": "lan", "type": "VIRTUAL","#;
    let mut node = Node::altered(CE1, &[(lan, &format!(r#"{lan} "mtu": 1000,"#))]);
    let toward = |len: usize| {
        let inner = of_len(SERVER6, CLIENT6, len);
        let packet = mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &[entry(LABEL1, 0, true, 63)], &inner).ip();
        from_underlay(UNDERLAYS[0], &packet)
    };
    for (len, answer, dropped) in
        [(1000, None, 0), (1001, Some((1, 3)), 1), (1280, Some((1, 3)), 2), (1281, Some((2, 0)), 3)]
    {
        let sent = node.receive(UNDERLAYS[0], &toward(len));
        assert_eq!(sent.len(), 1);
        match answer {
            None => assert_eq!(u32::from(sent[0].port.get()), LAN1),
            Some(kind) => {
                // Through the tunnel, from the gateway.
                let inner = Tunnelled::read(Frame::read(sent[0].packet.data()).ip()).inner;
                assert_eq!(inner.icmp(), kind, "{len}");
                if kind == (2, 0) {
                    assert_eq!(inner.body[4..8], 1280u32.to_be_bytes());
                }
            }
        }
        assert_eq!(node.drops(offload_rules::DropReason::PacketTooBig), dropped);
    }
}

#[test]
fn a_vif_that_does_not_fragment_leaves_outer_packets_whole_too() {
    let flag =
        |mac: &str| (format!(r#""mac": "{mac}","#), format!(r#""mac": "{mac}", "flags": {{"noFragment": true}},"#));
    let [(a, b), (c, d)] = ["02:00:00:00:41:11", "02:00:00:00:41:09"].map(flag);
    let mut node = Node::new(&altered(&narrow(CE1, 1000), &[(&a, &b), (&c, &d)]));
    let (_, frame) = only(node.receive(LAN1, &from_client(&of_len(CLIENT6, SERVER6, 1280))));
    assert_eq!(frame.ip().icmp(), (1, 3));
    assert_eq!(node.all_drops(), [("Packet Too Big", 1)]);
    assert_eq!(told(&node.receive(LAN1, &from_client(&of_len(CLIENT6, SERVER6, 1400)))), Some(1280));
}

#[test]
fn what_waits_for_the_underlays_neighbour_goes_on_in_fragments() {
    let resolve = |mac: &str, oif: u32| {
        (
            format!(r#""encap": {{"oif": {oif}, "encapData": "0200000000fe 02000000{mac} 0800"}}"#),
            format!(r#""resolve": {{"oif": {oif}}}"#),
        )
    };
    let [(a, b), (c, d)] = [("4111", 4111), ("4109", 4109)].map(|(mac, oif)| resolve(mac, oif));
    let peer = (TUNNEL2, "172.28.13.9");
    let only_one = (r#"{"nexthop": 86, "weight": 100}"#, r#"{"nexthop": 0}"#);
    let mut node = Node::new(&altered(&narrow(CE1, 1000), &[(&a, &b), (&c, &d), peer, only_one]));
    let sent = node.receive(LAN1, &from_client(&of_len(CLIENT6, SERVER6, 1280)));
    assert_eq!(Frame::read(sent[0].packet.data()).ethertype, 0x0806);
    let (own, peer) = ((UNDERLAY_MACS[0], "172.28.13.36"), ([2, 0, 0, 0, 0, 9], "172.28.13.9"));
    let reply = arp_frame(own.0, peer.0, None, &arp_octets(2, peer, own));
    let sent = node.receive(4111, &reply);
    assert_eq!(outside(&sent).iter().map(|ip| ip.offset).collect::<Vec<_>>(), [0, 976]);
    assert_eq!(node.all_drops(), []);
}

#[test]
fn fragments_that_come_to_another_worker_than_the_flow_are_put_together() {
    for queue in 0..3 {
        let mut node = Node::new(&narrow(CE1, 700));
        let mut ce2 = Node::with(CE2, workers(3));
        let original = of_len(CLIENT6, SERVER6, 1280);
        let sent = node.receive(LAN1, &eth(VRRP, CLIENT_MAC, &original));
        let port = u32::from(sent[0].port.get());
        for (i, ip) in outside(&sent).iter().enumerate() {
            let mut frames = vec![Packet::from_frame(&from_underlay(port, &ip.octets))];
            ce2.machine.receive(vif(port), queue + i, &mut frames, 2000);
        }
        let arrived = outside(&ce2.machine.take_sent());
        ce2.check_account();
        assert_eq!(arrived.iter().map(|ip| ip.octets.clone()).collect::<Vec<_>>(), [two_hops_on(&original)]);
    }
}

#[test]
fn check_warns_of_a_link_that_is_too_narrow_for_ipv6() {
    use offload_rules::classify::{Advice, advice};
    let of = |state: &str| advice(&crate::common::snapshot(state));
    assert_eq!(of(CE1), []);
    // Below an MPLS-over-UDP tunnel is a layer to fragment in.
    assert_eq!(of(&narrow(CE1, 1000)), []);
    let lan = r#""name": "lan", "type": "VIRTUAL","#;
    let state = |mtu: u16| altered(CE1, &[(lan, &format!(r#"{lan} "mtu": {mtu},"#))]);
    assert_eq!(of(&state(1280)), []);
    assert_eq!(of(&state(1279)), [Advice::TooNarrowForIpv6 { vif: vif(LAN1), mtu: 1279 }]);
    let text = of(&state(1000))[0].to_string();
    assert!(text.contains("vif 100 has an MTU of 1000") && text.contains("Raise the MTU to 1280"), "{text}");
    // By a route alone, too.
    let no_address = altered(&state(1000), &[(r#", "2001:db8:100::1/64"]"#, "]")]);
    assert_eq!(of(&no_address).len(), 1);
}
