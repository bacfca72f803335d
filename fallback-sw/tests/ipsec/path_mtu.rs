//! The path MTU of an IPsec tunnel: believed is only what quotes ESP that was really sent, and lately (RFC 4301 §8.2.1, RFC 5927).

use fallback_sw::{
    node::{machine::MachineConfig, sequences::Sequences},
    packet::Packet,
};
use offload_engine::protocol::{Report, Request, SaMode};

use crate::{
    common::{
        Node,
        engine::with_engine,
        packets::{Frame, icmp, udp},
        snapshot, vif,
        walk_a::{altered, from_client},
    },
    net::{
        CE1_MAC, CE1_UP, CE1_WAN, CLIENT, LAN, NAT_T, Net, Pair, RE_WAN, SERVER, TUNNELS, WAN, ce1, ce2, re, to, tunnel,
    },
};

/// Largest tenant packet that CE1's tunnel takes at first: its MTU of 1400 less 32.
const AT_FIRST: usize = 1368;
/// The same over a path of 1000: 1000 − 28 − 32 = 940 of text, 2 of trailer, 32 of MPLS over UDP.
const OVER_1000: usize = 938 - 32;

/// CE1 with one tunnel, whose outer packets have DF set.
fn alone() -> String {
    let df = format!(r#"{NAT_T}, "df": "DF_SET""#);
    altered(&ce1(), &[("\"outboundSas\": [18]", "\"outboundSas\": []"), (NAT_T, &df)])
}

fn edge() -> Node {
    Node::new(&alone())
}

/// A tenant packet of this length, DF set.
fn packet(len: usize) -> Vec<u8> {
    from_client(&udp(CLIENT, SERVER, 5000, 53, &vec![0; len - 28]).df().ip())
}

/// The ESP packet that a packet of the client becomes.
fn sealed(node: &mut Node) -> Vec<u8> {
    let sent = node.receive(LAN, &packet(1200));
    let ip = Frame::read(sent[0].packet.data()).ip();
    assert!(ip.df && ip.octets.len() > 1200);
    ip.octets
}

/// An error of a router on the way, whose second word tells an MTU. It quotes as much as RFC 1812 §4.3.2.3 asks.
fn error(kind: (u8, u8), mtu: u16, about: &[u8]) -> Vec<u8> {
    let [a, b] = mtu.to_be_bytes();
    to(CE1_MAC, &icmp("203.0.113.9", CE1_WAN, kind.0, kind.1, [0, 0, a, b], &about[..about.len().min(548)]).ip())
}

fn needed(mtu: u16, about: &[u8]) -> Vec<u8> {
    error((3, 4), mtu, about)
}

/// The largest tenant packet with DF that goes into the tunnel: what CE1 tells is true.
fn largest(node: &mut Node) -> usize {
    let sent = node.receive(LAN, &packet(1500));
    let answer = Frame::read(sent[0].packet.data()).ip();
    assert_eq!(answer.icmp(), (3, 4));
    let told = usize::from(u16::from_be_bytes([answer.body[6], answer.body[7]]));
    let sent = node.receive(LAN, &packet(told));
    assert_eq!(Frame::read(sent[0].packet.data()).ip().proto, 17);
    told
}

/// Hands an error to CE1: believed, or refused and counted as what it is.
#[track_caller]
fn expect(node: &mut Node, error: &[u8], believed: bool) {
    let before = (node.machine.account().consumed, refused(node));
    assert!(node.receive(WAN, error).is_empty());
    let after = (node.machine.account().consumed - before.0, refused(node) - before.1);
    assert_eq!(after, if believed { (1, 0) } else { (0, 1) });
}

fn refused(node: &Node) -> u64 {
    node.drops(offload_rules::DropReason::IcmpQuoteNotSent)
}

#[test]
fn what_quotes_esp_that_was_sent_lowers_the_tunnel_for_ten_minutes() {
    let mut node = edge();
    let esp = sealed(&mut node);
    assert_eq!(largest(&mut node), AT_FIRST);
    expect(&mut node, &needed(1000, &esp), true);
    assert_eq!(largest(&mut node), OVER_1000);
    // A larger one raises nothing and prolongs nothing (RFC 1191 §6.3).
    node.wait(300_000);
    let esp = Frame::read(node.receive(LAN, &packet(OVER_1000))[0].packet.data()).ip().octets;
    expect(&mut node, &needed(1000 - 1, &esp), true);
    assert_eq!(largest(&mut node), OVER_1000 - 4);
    node.wait(300_000);
    let esp = Frame::read(node.receive(LAN, &packet(OVER_1000 - 4))[0].packet.data()).ip().octets;
    assert_eq!(esp.len(), 996);
    expect(&mut node, &needed(998, &esp), false);
    node.wait(298_000);
    assert_eq!(largest(&mut node), OVER_1000 - 4);
    node.wait(3000);
    assert_eq!(largest(&mut node), AT_FIRST);
}

#[test]
fn one_forged_frag_needed_does_not_lower_a_tunnel() {
    let mut node = edge();
    let genuine = sealed(&mut node);
    let last = u32::from_be_bytes(genuine[32..36].try_into().unwrap());
    let with = |at: usize, octets: &[u8]| {
        let mut quote = genuine.clone();
        quote[at..at + octets.len()].copy_from_slice(octets);
        quote
    };
    let number = |number: u32| with(32, &number.to_be_bytes());
    for (what, quote, mtu) in [
        ("DF clear: a router would have fragmented it", with(6, &[0, 0]), 1000),
        ("a fragment", with(6, &[0x60, 0]), 1000),
        ("a later fragment, of what is not told", with(6, &[0x40, 9]), 1000),
        ("nobody's SPI", with(28, &[0xde, 0xad, 0xbe, 0xef]), 1000),
        ("an SPI of the other direction", with(28, &crate::net::CE1_DOWN[0].spi().to_be_bytes()), 1000),
        ("the number to come", number(last + 1), 1000),
        ("a number far ahead", number(last + 1_000_000), 1000),
        ("no number", number(0), 1000),
        ("a number as before a wrap", number(u32::MAX), 1000),
        ("a packet that fits", with(2, &[3, 232]), 1000),
        ("an MTU that no link has", genuine.clone(), 575),
        ("the smallest MTU of RFC 1191", genuine.clone(), 68),
        ("an MTU of one", genuine.clone(), 1),
        ("an MTU as long as the packet", genuine.clone(), genuine.len() as u16),
        ("an MTU longer than the packet", genuine.clone(), 9000),
        ("no more than the UDP header", genuine[..28].to_vec(), 1000),
        ("no number in the quote", genuine[..32].to_vec(), 1000),
    ] {
        let before = refused(&node);
        node.receive(WAN, &needed(mtu, &quote));
        // Of a later fragment in UDP nothing tells that it is ESP: it goes the way of other packets, which ends here, too.
        let dropped = refused(&node) - before + u64::from(what.starts_with("a later"));
        assert_eq!(dropped, 1, "{what}");
        assert_eq!(node.machine.control().snapshot().path_mtus().len(), 0, "{what}");
        assert_eq!(node.machine.account().consumed, 0, "{what}");
    }
    assert_eq!(largest(&mut node), AT_FIRST);
    expect(&mut node, &needed(1000, &genuine), true);
    assert_eq!(largest(&mut node), OVER_1000);
}

#[test]
fn bare_esp_is_verified_as_esp_in_udp_is() {
    let state = altered(
        &ce2(),
        &[
            ("\"outboundSas\": [50]", "\"outboundSas\": []"),
            (r#""inboundSas": [65]"#, r#""inboundSas": [65], "df": "DF_SET""#),
        ],
    );
    let mut node = Node::new(&state);
    let sent = node.receive(LAN, &from_client(&udp(SERVER, CLIENT, 53, 5000, &[0; 1000]).ip()));
    let esp = Frame::read(sent[0].packet.data()).ip();
    assert!(esp.proto == 50 && esp.df);
    let tell = |node: &mut Node, quote: &[u8]| {
        let packet = icmp("203.0.113.9", crate::net::CE2_WAN, 3, 4, [0, 0, 3, 232], &quote[..28]).ip();
        assert!(node.receive(WAN, &to(crate::net::CE2_MAC, &packet)).is_empty());
        node.machine.control().snapshot().path_mtus().len()
    };
    let mut ahead = esp.octets.clone();
    ahead[27] += 1;
    assert_eq!((tell(&mut node, &ahead), refused(&node)), (0, 1));
    let mut later = esp.octets.clone();
    later[7] = 9;
    assert_eq!((tell(&mut node, &later), refused(&node)), (0, 2));
    // Bare ESP has no marker of IKE: it is an SPI that nobody has.
    let mut marked = esp.octets.clone();
    marked[20..24].fill(0);
    assert_eq!((tell(&mut node, &marked), refused(&node)), (0, 3));
    assert_eq!((tell(&mut node, &esp.octets), refused(&node)), (1, 3));
}

#[test]
fn what_was_sent_long_ago_is_not_believed_any_more() {
    let mut node = edge();
    let old = sealed(&mut node);
    node.wait(5_000);
    expect(&mut node, &needed(1300 - 60, &old), true);
    let young = Frame::read(node.receive(LAN, &packet(1100))[0].packet.data()).ip().octets;
    node.wait(30_000);
    for quote in [&old, &young] {
        expect(&mut node, &needed(1000, quote), false);
    }
    let young = Frame::read(node.receive(LAN, &packet(1100))[0].packet.data()).ip().octets;
    expect(&mut node, &needed(1000, &young), true);
}

#[test]
fn what_an_earlier_life_has_sent_is_not_believed() {
    let mut node = edge();
    let old = sealed(&mut node);
    let kept = Sequences::from_text(&node.machine.control().sequences().to_text()).unwrap();
    let config = MachineConfig::default();
    let machine = fallback_sw::node::machine::Machine::started_again(config, snapshot(&alone()), kept).unwrap();
    let mut node = Node { machine, now: 1000 };
    expect(&mut node, &needed(1000, &old), false);
    // Nor what was passed over.
    let new = sealed(&mut node);
    let mut between = new.clone();
    between[34..36].copy_from_slice(&[0, 0]);
    expect(&mut node, &needed(1000, &between), false);
    expect(&mut node, &needed(1000, &new), true);
}

#[test]
fn a_router_that_tells_no_mtu_is_answered_with_the_next_plateau() {
    let mut node = edge();
    let esp = sealed(&mut node);
    assert!(esp.len() > 1006 && esp.len() < 1492);
    expect(&mut node, &needed(0, &esp), true);
    let mtu = node.machine.control().snapshot().path_mtu(RE_WAN[0].parse().unwrap());
    assert_eq!(mtu, Some(1006));
}

#[test]
fn no_other_error_ends_a_tunnel_or_makes_it_narrower() {
    let mut node = edge();
    let esp = sealed(&mut node);
    let mut forged = esp.clone();
    forged[28] ^= 1;
    for kind in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 9), (3, 10), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0)] {
        expect(&mut node, &error(kind, 1000, &esp), true);
        expect(&mut node, &error(kind, 1000, &forged), false);
    }
    assert_eq!(largest(&mut node), AT_FIRST);
    assert_eq!(node.machine.workers()[0].sas().iter().filter(|sa| sa.ended.is_some()).count(), 0);
    assert_eq!(node.flow_records(), 2);
}

#[test]
fn any_worker_may_be_told_of_what_another_one_has_sealed() {
    let config = MachineConfig { workers: 3, ..MachineConfig::default() };
    for queue in 0..3 {
        let mut node = Node::with(&alone(), config);
        let esp = sealed(&mut node);
        let mut ahead = esp.clone();
        ahead[35] += 40;
        for (quote, paths, drops) in [(&ahead, 0, 1), (&esp, 1, 1)] {
            node.now += 1;
            node.machine.receive(vif(WAN), queue, &mut vec![Packet::from_frame(&needed(1000, quote))], node.now);
            node.check_account();
            assert_eq!(node.machine.control().snapshot().path_mtus().len(), paths);
            assert_eq!(refused(&node), drops);
        }
        assert_eq!(largest(&mut node), OVER_1000);
    }
}

#[test]
fn after_a_rekey_what_the_old_sa_has_sent_counts_for_a_while() {
    for workers in [1, 3] {
        for (wait, believed) in [(1000, true), (25_000, false)] {
            let mut node = Node::with(&alone(), MachineConfig { workers, ..MachineConfig::default() });
            let old = sealed(&mut node);
            let up = Pair(0x100);
            let more = format!(r#"{NAT_T}, "df": "DF_SET""#);
            let vif = tunnel(TUNNELS[0], CE1_WAN, RE_WAN[0], (&[up], &crate::net::CE1_DOWN[..1]), &more);
            let sa = up.outbound_with(r#", "worker": 1"#);
            let removed = CE1_UP[0].0;
            node.change(&format!(r#"{{"vifs": [{vif}], "sas": [{sa}], "removeSas": [{removed}]}}"#));
            node.wait(wait);
            let new = sealed(&mut node);
            assert_ne!(old[28..32], new[28..32], "another SPI");
            let mut ahead = old.clone();
            ahead[35] += 1;
            expect(&mut node, &needed(1000, &ahead), false);
            expect(&mut node, &needed(1100, &old), believed);
            expect(&mut node, &needed(1000, &new), true);
        }
    }
}

#[test]
fn what_a_nic_has_sealed_counts_as_far_as_it_has_told() {
    let mut node = Node::with(&alone(), with_engine());
    node.wait(100);
    let software = sealed(&mut node);
    let requests = node.machine.take_offload_requests();
    let offered = requests.into_iter().find_map(|request| match request {
        Request::Offer { offer, sa, numbers, .. } if sa.id.get() == CE1_UP[0].0 => Some((offer, numbers)),
        _ => None,
    });
    let (offer, numbers) = offered.unwrap();
    let quote = |number: u64| {
        let mut quote = software.clone();
        quote[32..36].copy_from_slice(&(number as u32).to_be_bytes());
        quote
    };
    expect(&mut node, &needed(1200, &quote(numbers.start)), false);
    node.report(Report::SaHeld { offer, mode: SaMode::Protocol, session: 4, port: vif(WAN) });
    node.report(Report::SaCounted { offer, packets: 50_000, bytes: 60_000_000, refused: 0 });
    expect(&mut node, &needed(1200, &quote(numbers.start + 49_999)), true);
    // Since the report it has sent as many again, at most twice.
    expect(&mut node, &needed(1190, &quote(numbers.start + 120_000)), true);
    expect(&mut node, &needed(1180, &quote(numbers.start + 200_000)), false);
    expect(&mut node, &needed(1180, &quote(numbers.end - 1)), false);
    expect(&mut node, &needed(1180, &quote(numbers.end)), false);
    for _ in 0..3 {
        node.wait(10_000);
        node.report(Report::SaCounted { offer, packets: 10, bytes: 12_000, refused: 0 });
    }
    expect(&mut node, &needed(1180, &quote(numbers.start + 49_999)), false);
    expect(&mut node, &needed(1180, &quote(numbers.start + 50_029)), true);
}

#[test]
fn an_error_about_ike_is_the_hosts_and_one_about_esp_is_the_nodes() {
    const HOST: u32 = 3;
    let policy =
        (r#""name": "wan", "type": "PHYSICAL","#, r#""name": "wan", "type": "PHYSICAL", "flags": {"policy": true},"#);
    let host = (r#""name": "host", "type": "HOST","#, r#""name": "host", "type": "HOST", "flags": {"policy": true},"#);
    let mut net = Net::with(&altered(&alone(), &[policy, host]), &re(), &ce2(), MachineConfig::default());
    let node = &mut net.ce1;
    let marked = [&[0; 4][..], b"an IKE message of some length"].concat();
    for (port, payload) in [(4500, &marked[..]), (500, &b"IKE"[..])] {
        let ike = udp(CE1_WAN, RE_WAN[0], port, port, payload).ip();
        let frame = crate::common::packets::eth([2, 0, 0, 0, 0, 0x33], [2, 0, 0, 0, 0, 0x34], &ike);
        let sent = node.receive(HOST, &frame);
        assert_eq!(sent.len(), 1, "{:?}", node.all_drops());
        let routed = Frame::read(sent[0].packet.data()).ip().octets;
        let sent = node.receive(WAN, &error((3, 1), 0, &routed));
        assert_eq!(sent.len(), 1, "{:?}", node.all_drops());
        assert_eq!(u32::from(sent[0].port.get()), HOST);
    }
    let esp = sealed(node);
    expect(node, &needed(1000, &esp), true);
    assert_eq!(largest(node), OVER_1000);
}

#[test]
fn of_a_tunnel_with_df_clear_no_quote_with_df_set_was_sent() {
    let mut node = Node::new(&altered(&alone(), &[("DF_SET", "DF_CLEAR")]));
    let sent = node.receive(LAN, &packet(1200));
    let mut quote = Frame::read(sent[0].packet.data()).ip().octets;
    assert_eq!(quote[6] & 0x40, 0);
    expect(&mut node, &needed(1000, &quote), false);
    quote[6] |= 0x40;
    expect(&mut node, &needed(1000, &quote), false);
    assert_eq!(largest(&mut node), AT_FIRST);
}

#[test]
fn no_error_from_an_address_of_the_node_itself_lowers_a_tunnel() {
    let mut node = edge();
    let esp = sealed(&mut node);
    let told = icmp(CE1_WAN, CE1_WAN, 3, 4, [0, 0, 3, 232], &esp[..548]).ip();
    assert!(node.receive(WAN, &to(CE1_MAC, &told)).is_empty());
    let dropped: u64 = node.all_drops().iter().map(|(_, packets)| packets).sum();
    assert_eq!((node.machine.account().consumed, dropped), (0, 1));
    assert_eq!(largest(&mut node), AT_FIRST);
}
