//! Size: fragmentation before encapsulation, frag needed and packet too big, the path MTU of tunnels, MSS.

use etherparse::{TcpHeader, TcpOptionElement};

use crate::common::{
    Node,
    packets::{ACK, Ip, PSH, Packet, SYN, Tunnelled, entry, icmp, mpls_udp, segment_with_options, udp},
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, GATEWAY1, GATEWAY1_6, GATEWAY2, LABEL1, LABEL2, LAN1, SERVER, SERVER6, TUNNEL1,
        TUNNEL2, UNDERLAYS, WalkA, from_client, from_underlay, only,
    },
};
use fallback_sw::node::machine::Sent;

/// A UDP packet of `len` octets in all.
fn of_len(src: &str, dst: &str, len: usize) -> Packet {
    let headers = if src.contains(':') { 48 } else { 28 };
    let payload: Vec<u8> = (0..len - headers).map(|i| (i * 7) as u8).collect();
    udp(src, dst, 7, 7, &payload)
}

fn tunnelled(sent: &[Sent]) -> Vec<Tunnelled> {
    sent.iter().map(|s| Tunnelled::read(crate::common::packets::Frame::read(s.packet.data()).ip())).collect()
}

/// The body that fragments make.
fn reassembled<'a>(parts: impl Iterator<Item = &'a Ip>) -> Vec<u8> {
    let mut body = Vec::new();
    for ip in parts {
        assert_eq!(ip.offset, body.len());
        body.extend_from_slice(&ip.body);
    }
    body
}

/// MTU in a "fragmentation needed" or "packet too big".
fn mtu_of(error: &Ip) -> u32 {
    u32::from_be_bytes(error.body[4..8].try_into().unwrap())
}

/// The MTU that CE1 answers a packet of the client with, DF set.
fn told_mtu(node: &mut Node, len: usize) -> Option<u32> {
    let (_, frame) = only(node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, len).df().ip())));
    let ip = frame.ip();
    (ip.proto == 1).then(|| mtu_of(&ip))
}

#[test]
fn what_may_be_fragmented_is_fragmented_before_encapsulation() {
    for len in [1469, 1470, 1500, 2940, 9000] {
        let mut node = Node::new(CE1);
        let original = of_len(CLIENT, SERVER, len).id(900);
        let sent = node.receive(LAN1, &from_client(&original.ip()));
        let parts = tunnelled(&sent);
        assert!(parts.len() >= 2 && parts.iter().all(|part| part.outer.octets.len() <= 1500));
        for part in &parts {
            let headers = (part.label, part.ttl, part.checksum, part.outer.df, part.outer.more, part.outer.offset);
            assert_eq!(headers, (LABEL2, 63, 0, false, false, 0), "the outer packet is whole");
            assert_eq!((part.inner.id, part.inner.ttl, part.inner.df), (900, 63, false));
            assert_eq!((part.sport, sent[0].port), (parts[0].sport, sent[0].port), "one flow, one way");
        }
        let mut outer_ids: Vec<u32> = parts.iter().map(|part| part.outer.id).collect();
        outer_ids.dedup();
        assert_eq!(outer_ids.len(), 1, "all outer packets of a flow have its identification");
        assert!(parts[..parts.len() - 1].iter().all(|part| part.inner.more) && !parts[parts.len() - 1].inner.more);
        assert_eq!(reassembled(parts.iter().map(|part| &part.inner)), Ip::read(&original.ip()).body);
        let account = node.machine.account();
        assert_eq!((account.received, account.forwarded, account.originated), (1, 1, parts.len() as u64 - 1));
        assert_eq!(node.all_drops(), []);
    }
}

#[test]
fn what_just_fits_is_not_fragmented() {
    for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut walk = WalkA::default();
        let (_, tunnelled) = walk.up(&of_len(src, dst, 1468).df().ip());
        assert_eq!((tunnelled.outer.octets.len(), tunnelled.inner.octets.len()), (1500, 1468));
        walk.nothing_dropped();
    }
}

#[test]
fn a_fragment_that_is_too_large_is_fragmented_again() {
    let mut node = Node::new(CE1);
    let whole = of_len(CLIENT, SERVER, 3000);
    let mut parts = tunnelled(&node.receive(LAN1, &from_client(&whole.part(0, 1480).ip())));
    assert_eq!(parts.len(), 2);
    parts.extend(tunnelled(&node.receive(LAN1, &from_client(&whole.part(1480, 2980).ip()))));
    assert_eq!(parts.len(), 4);
    assert_eq!(reassembled(parts.iter().map(|part| &part.inner)), Ip::read(&whole.ip()).body);
    assert_eq!(parts.iter().map(|part| part.inner.more).collect::<Vec<_>>(), [true, true, true, false]);
}

#[test]
fn oversize_with_df_is_answered_from_the_gateway_with_mtu_and_header() {
    for (original, gateway, kind, quoted) in [
        (of_len(CLIENT, SERVER, 1469).df(), GATEWAY1, (3, 4), 548),
        (of_len(CLIENT, SERVER, 9000).df(), GATEWAY1, (3, 4), 548),
        (of_len(CLIENT6, SERVER6, 1469), GATEWAY1_6, (2, 0), 1232),
    ] {
        let mut node = Node::new(CE1);
        let (port, frame) = only(node.receive(LAN1, &from_client(&original.ip())));
        let error = frame.ip();
        assert_eq!((port, error.src, error.dst), (LAN1, gateway.parse().unwrap(), original.src));
        assert_eq!((error.icmp(), mtu_of(&error)), (kind, 1468));
        // As it was received: TTL not decremented.
        assert_eq!(error.quoted(), &original.ip()[..quoted]);
        assert_eq!(node.all_drops(), [("Packet Too Big", 1)]);
    }
}

#[test]
fn the_answer_from_the_far_edge_goes_back_through_the_tunnel() {
    let small = (r#""parent": 1,"#, r#""parent": 1, "mtu": 1400,"#);
    let mut walk = WalkA { ce2: Node::altered(CE2, &[small]), ..WalkA::default() };
    let original = of_len(CLIENT, SERVER, 1450).df();
    let (port, up) = walk.up(&original.ip());
    let (back, frame) = only(walk.ce2.receive(port, &from_underlay(port, &up.outer.octets)));
    let down = Tunnelled::read(frame.ip());
    assert_eq!(
        (down.label, down.outer.src, down.outer.dst),
        (LABEL1, TUNNEL2.parse().unwrap(), TUNNEL1.parse().unwrap())
    );
    let (out, frame) = only(walk.ce1.receive(back, &from_underlay(back, &down.outer.octets)));
    let error = frame.ip();
    assert_eq!((out, error.src, error.dst), (LAN1, GATEWAY2.parse().unwrap(), original.src));
    assert_eq!((error.icmp(), mtu_of(&error)), ((3, 4), 1400));
    assert_eq!(error.quoted(), &up.inner.octets[..548]);
    assert_eq!(walk.ce1.all_drops(), []);
    assert_eq!(walk.ce2.all_drops(), [("Packet Too Big", 1)]);
    // What may be fragmented is, on the VLAN too.
    let (port, up) = walk.up(&of_len(CLIENT, SERVER, 1450).ip());
    assert_eq!(walk.ce2.receive(port, &from_underlay(port, &up.outer.octets)).len(), 2);
}

#[test]
fn a_vif_that_does_not_fragment_answers_instead() {
    let flag = |mac: &str| format!(r#""mac": "{mac}", "flags": {{"noFragment": true}},"#);
    let (a, b) = ("02:00:00:00:41:11", "02:00:00:00:41:09");
    let plain = |mac: &str| format!(r#""mac": "{mac}","#);
    let mut node = Node::altered(CE1, &[(&plain(a), &flag(a)), (&plain(b), &flag(b))]);
    let original = of_len(CLIENT, SERVER, 1500);
    let (port, frame) = only(node.receive(LAN1, &from_client(&original.ip())));
    let error = frame.ip();
    assert_eq!((port, error.icmp(), mtu_of(&error)), (LAN1, (3, 4), 1468));
    assert_eq!(node.all_drops(), [("Packet Too Big", 1)]);
    assert_eq!(node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, 1468).ip())).len(), 1);
}

/// "Fragmentation needed" about an outer packet, as a router of the underlay sends it.
fn frag_needed(to: &str, mtu: u16, about: &[u8]) -> Vec<u8> {
    let [a, b] = mtu.to_be_bytes();
    icmp("172.28.13.1", to, 3, 4, [0, 0, a, b], &about[..28.min(about.len())]).ip()
}

fn outer(src: &str, dst: &str) -> Vec<u8> {
    mpls_udp(src, dst, (50_000, 6635), &[entry(LABEL2, 0, true, 63)], &[0x45; 1400]).ip()
}

#[test]
fn frag_needed_about_mpls_over_udp_is_refused_whatever_it_quotes() {
    // DF is clear in all that the node sends (RFC 7510 §3): no router has reason to refuse it for its length.
    let mut node = Node::new(CE1);
    let (wan, frame) = only(node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, 1468).df().ip())));
    let sent = frame.ip().octets;
    let mut with_df = sent.clone();
    with_df[6] = 0x40;
    let fragment =
        mpls_udp(TUNNEL1, TUNNEL2, (50_000, 6635), &[entry(LABEL2, 0, true, 63)], &[0x45; 1400]).part(8, 800);
    let quotes = [sent.clone(), with_df, outer(TUNNEL1, TUNNEL2), fragment.ip()];
    let mut forged = 0;
    for quote in quotes {
        for mtu in [1400, 1300, 576, 575, 68, 1, 0] {
            for quoted in [28, 548] {
                let [a, b] = u16::to_be_bytes(mtu);
                let about = &quote[..quoted.min(quote.len())];
                let error = icmp("203.0.113.66", TUNNEL1, 3, 4, [0, 0, a, b], about).ip();
                assert_eq!(node.receive(wan, &from_underlay(wan, &error)).len(), 0);
                forged += 1;
                assert_eq!(node.all_drops(), [("ICMP Quote Not Sent", forged)]);
            }
        }
    }
    assert_eq!(node.machine.control().snapshot().path_mtus().len(), 0);
    assert_eq!(told_mtu(&mut node, 1468), None);
    assert_eq!(node.receive(LAN1, &from_client(&of_len(CLIENT6, SERVER6, 1280).ip())).len(), 1);
    assert_eq!(node.machine.account().consumed, 0);
}

#[test]
fn no_other_error_about_the_outer_packet_ends_or_lowers_a_tunnel() {
    let mut node = Node::new(CE1);
    let (wan, frame) = only(node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, 1000).ip())));
    let sent = frame.ip().octets;
    let mut used_up = 0;
    for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0)] {
        let error = icmp("203.0.113.66", TUNNEL1, kind, code, [0; 4], &sent[..548]).ip();
        assert_eq!(node.receive(wan, &from_underlay(wan, &error)).len(), 0);
        used_up += 1;
        assert_eq!(node.machine.account().consumed, used_up, "{kind}/{code}");
        assert_eq!(node.receive(LAN1, &from_client(&of_len(CLIENT, SERVER, 1468).df().ip())).len(), 1);
    }
    assert_eq!(node.all_drops(), []);
    assert_eq!(node.flow_records(), 2);
}

#[test]
fn frag_needed_about_no_tunnel_of_the_node_is_forwarded() {
    let about = outer(TUNNEL1, TUNNEL2);
    let tcp = crate::common::packets::segment(TUNNEL1, TUNNEL2, (6635, 6635), ACK, (1, 1), &[]).ip();
    let other_port = udp(TUNNEL1, TUNNEL2, 50_000, 4789, &[0; 20]).ip();
    let (wan, lan) = (UNDERLAYS[0], LAN1);
    for (what, port, ip, drops) in [
        ("another destination", wan, frag_needed(TUNNEL1, 1300, &outer(TUNNEL1, "10.9.9.9")), ("No Listener", 1)),
        ("another source", wan, frag_needed(TUNNEL1, 1300, &outer("10.9.9.9", TUNNEL2)), ("No Listener", 1)),
        ("not our protocol", wan, frag_needed(TUNNEL1, 1300, &tcp), ("No Listener", 1)),
        ("not our port", wan, frag_needed(TUNNEL1, 1300, &other_port), ("No Listener", 1)),
        ("from a tenant", lan, frag_needed(TUNNEL1, 1300, &about), ("ICMP Error Unmatched", 1)),
        (
            "from a tenant, with an address of the tenant's",
            lan,
            icmp(CLIENT, TUNNEL1, 3, 4, [0, 0, 5, 20], &about[..28]).ip(),
            ("ICMP Error Unmatched", 1),
        ),
    ] {
        let mut node = Node::new(CE1);
        let frame = if port == lan { from_client(&ip) } else { from_underlay(wan, &ip) };
        assert_eq!(node.receive(port, &frame).len(), 0, "{what}");
        assert_eq!(node.all_drops(), [drops], "{what}");
        assert_eq!(node.machine.control().snapshot().path_mtus().len(), 0, "{what}");
        assert_eq!(told_mtu(&mut node, 1468), None, "{what}");
        assert_eq!(node.machine.account().consumed, 0, "{what}");
    }
}

#[test]
fn a_forger_inside_the_tunnel_cannot_lower_its_mtu() {
    let mut node = Node::new(CE1);
    let forged = icmp(SERVER, TUNNEL1, 3, 4, [0, 0, 5, 20], &outer(TUNNEL1, TUNNEL2)[..28]).ip();
    let packet = mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &[entry(LABEL1, 0, true, 63)], &forged).ip();
    assert_eq!(node.receive(UNDERLAYS[0], &from_underlay(UNDERLAYS[0], &packet)).len(), 0);
    assert_eq!(node.machine.control().snapshot().path_mtus().len(), 0);
    assert_eq!(node.all_drops(), [("ICMP Error Unmatched", 1)]);
}

const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

fn mss_of(ip: &Ip) -> Option<u16> {
    let (header, _) = TcpHeader::from_slice(&ip.body).unwrap();
    header.options_iterator().flatten().find_map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    })
}

fn handshake(src: &str, dst: &str, flags: u8, options: &[u8]) -> Vec<u8> {
    let ports = if flags & ACK == 0 { (4000, 80) } else { (80, 4000) };
    let numbers = if flags & ACK == 0 { (100, 0) } else { (900, 101) };
    segment_with_options(src, dst, ports, flags, numbers, options, &[]).ip()
}

#[test]
fn mss_is_lowered_in_syn_and_syn_ack_with_a_right_checksum() {
    for (client, server, expected) in [(CLIENT, SERVER, 1428), (CLIENT6, SERVER6, 1408)] {
        // `up` and `down` check each checksum.
        let mut walk = WalkA::default();
        let (port, up) = walk.up(&handshake(client, server, SYN, &MSS_1460));
        assert_eq!(mss_of(&up.inner), Some(expected));
        let (_, frame) = only(walk.ce2.receive(port, &from_underlay(port, &up.outer.octets)));
        assert_eq!(mss_of(&frame.ip()), Some(expected));
        assert_eq!(mss_of(&walk.to_client(&handshake(server, client, SYN | ACK, &MSS_1460))), Some(expected));
        walk.nothing_dropped();
    }
}

#[test]
fn mss_is_only_lowered() {
    for (mss, expected) in [(1427u16, 1427), (1428, 1428), (1429, 1428), (536, 536), (88, 88), (65535, 1428)] {
        let mut walk = WalkA::default();
        let [a, b] = mss.to_be_bytes();
        let (_, up) = walk.up(&handshake(CLIENT, SERVER, SYN, &[2, 4, a, b]));
        assert_eq!(mss_of(&up.inner), Some(expected));
    }
}

#[test]
fn mss_is_found_at_any_offset_and_nothing_else_changes() {
    for nops in 0..=36 {
        let mut options = vec![1; nops];
        options.extend(MSS_1460);
        options.resize(options.len().next_multiple_of(4), 1);
        let original = handshake(CLIENT, SERVER, SYN, &options);
        let mut walk = WalkA::default();
        let (_, up) = walk.up(&original);
        let mut expected = Ip::read(&original).body;
        expected[20 + nops + 2..20 + nops + 4].copy_from_slice(&1428u16.to_be_bytes());
        expected[16..18].copy_from_slice(&up.inner.body[16..18]);
        assert_eq!(up.inner.body, expected, "{nops} octets before it");
    }
}

#[test]
fn segments_without_syn_and_syns_without_the_option_pass_untouched() {
    let mut walk = WalkA::default();
    for ip in [handshake(CLIENT, SERVER, SYN, &[]), handshake(CLIENT, SERVER, SYN, &[1, 1, 1, 0])] {
        let (_, up) = walk.up(&ip);
        assert_eq!(up.inner.body, Ip::read(&ip).body);
    }
    for flags in [ACK, ACK | PSH] {
        let ip = segment_with_options(CLIENT, SERVER, (4000, 80), flags, (101, 901), &MSS_1460, b"data").ip();
        let (_, up) = walk.up(&ip);
        assert_eq!(up.inner.body, Ip::read(&ip).body);
    }
    walk.nothing_dropped();
}

#[test]
fn mss_heeds_encmss_and_the_mtu_of_either_side() {
    let lan = r#""name": "lan", "type": "VIRTUAL","#;
    for (extra, expected) in
        [(r#""encMss": 100,"#, 1360), (r#""mtu": 1300,"#, 1260), (r#""mtu": 1300, "encMss": 60,"#, 1200)]
    {
        let mut node = Node::altered(CE1, &[(lan, &format!("{lan} {extra}"))]);
        let (_, frame) = only(node.receive(LAN1, &from_client(&handshake(CLIENT, SERVER, SYN, &MSS_1460))));
        assert_eq!(mss_of(&Tunnelled::read(frame.ip()).inner), Some(expected), "{extra}");
        // The answer, toward the vif that says so.
        let answer = handshake(SERVER, CLIENT, SYN | ACK, &MSS_1460);
        let packet = mpls_udp(TUNNEL2, TUNNEL1, (50_000, 6635), &[entry(LABEL1, 0, true, 63)], &answer).ip();
        let (_, frame) = only(node.receive(UNDERLAYS[0], &from_underlay(UNDERLAYS[0], &packet)));
        assert_eq!(mss_of(&frame.ip()), Some(expected), "{extra}");
    }
}
