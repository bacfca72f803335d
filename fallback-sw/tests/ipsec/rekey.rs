//! New SAs in the place of old ones while packets flow, and a node that is started again.

use std::collections::BTreeSet;

use fallback_sw::node::machine::{Machine, MachineConfig};

use crate::{
    common::{
        Node,
        packets::{Frame, Ip, udp},
        snapshot,
    },
    net::{CE1_DOWN, CE1_UP, CE1_WAN, CLIENT, NAT_T, Net, Pair, RE_WAN, SERVER, TUNNELS, ce1, tunnel},
};

/// CE1's first tunnel with these SAs.
pub fn at_ce1(outbound: &[Pair], inbound: &[Pair]) -> String {
    tunnel(TUNNELS[0], CE1_WAN, RE_WAN[0], (outbound, inbound), NAT_T)
}

/// The other end of it.
pub fn at_re(outbound: &[Pair], inbound: &[Pair]) -> String {
    tunnel(11, RE_WAN[0], CE1_WAN, (outbound, inbound), NAT_T)
}

pub fn delta(vif: &str, sas: &[String], remove: &[Pair]) -> String {
    let remove: Vec<_> = remove.iter().map(|pair| pair.0.to_string()).collect();
    format!(r#"{{"vifs": [{vif}], "sas": [{}], "removeSas": [{}]}}"#, sas.join(","), remove.join(","))
}

/// Make before break: the new one is received before anybody sends with it, and the old one until nobody does.
fn rekey(net: &mut Net, (old_up, old_down): (Pair, Pair), (up, down): (Pair, Pair), mut between: impl FnMut(&mut Net)) {
    net.re.change(&delta(&at_re(&[old_down], &[old_up, up]), &[up.inbound()], &[]));
    between(net);
    net.ce1.change(&delta(&at_ce1(&[old_up], &[old_down, down]), &[down.inbound()], &[]));
    between(net);
    net.ce1.change(&delta(&at_ce1(&[up], &[old_down, down]), &[up.outbound()], &[old_up]));
    between(net);
    net.re.change(&delta(&at_re(&[down], &[old_up, up]), &[down.outbound()], &[old_down]));
    between(net);
    net.ce1.change(&delta(&at_ce1(&[up], &[down]), &[], &[old_down]));
    net.re.change(&delta(&at_re(&[down], &[up]), &[], &[old_up]));
    between(net);
}

#[test]
fn fifty_rekeys_under_a_stream_lose_and_double_nothing() {
    let mut net = Net::default();
    let mut old = (CE1_UP[0], CE1_DOWN[0]);
    let (mut number, mut seen) = (0_u32, BTreeSet::new());
    let mut stream = |net: &mut Net| {
        for port in 5000..5004 {
            number += 1;
            let there = net.to_server(&udp(CLIENT, SERVER, port, 53, &number.to_be_bytes()).ip());
            assert!(seen.insert(there.body[8..12].to_vec()), "{number} twice");
            net.to_client(&udp(SERVER, CLIENT, 53, port, &number.to_be_bytes()).ip());
        }
    };
    for round in 0..50 {
        let new = (Pair(0x100 + round), Pair(0x200 + round));
        rekey(&mut net, old, new, &mut stream);
        old = new;
    }
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
    net.nothing_in_the_clear();
    assert_eq!(net.ce1.machine.control().rekeys(crate::common::vif(TUNNELS[0])), 50);
    // No number was sent twice under one key.
    let unique: BTreeSet<_> = net.wire.iter().map(esp_header).collect();
    assert_eq!(unique.len(), net.wire.len());
}

/// Index and sequence number.
fn esp_header(ip: &Ip) -> Vec<u8> {
    if ip.proto == 17 { ip.body[8..16].to_vec() } else { ip.body[..8].to_vec() }
}

#[test]
fn a_packet_of_the_old_sa_that_was_under_way_is_still_opened() {
    let mut net = Net::altered(&[("\"outboundSas\": [18]", "\"outboundSas\": []")]);
    let late = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"late").ip());
    let up = Pair(0x100);
    net.re.change(&delta(&at_re(&[CE1_DOWN[0]], &[CE1_UP[0], up]), &[up.inbound()], &[]));
    net.ce1.change(&delta(&at_ce1(&[up], &[CE1_DOWN[0]]), &[up.outbound()], &[CE1_UP[0]]));
    let early = net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"new").ip());
    assert_eq!(&early.body[8..], b"new");
    assert_eq!(net.carry(late).len(), 1);
}

#[test]
fn an_sa_that_a_tunnel_takes_back_goes_on_with_numbers_and_window() {
    let mut net = Net::altered(&[("\"outboundSas\": [18]", "\"outboundSas\": []")]);
    let numbers = |net: &mut Net| {
        let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
        let header = esp_header(&Frame::read(sent[0].packet.data()).ip());
        u32::from_be_bytes(header[4..].try_into().unwrap())
    };
    assert_eq!([numbers(&mut net), numbers(&mut net)], [1, 2]);
    net.ce1.change(&delta(&at_ce1(&[], &[]), &[], &[]));
    net.ce1.change(&delta(&at_ce1(&[CE1_UP[0]], &[CE1_DOWN[0]]), &[], &[]));
    assert_eq!(numbers(&mut net), 3);
    // Taken out of the state and put back: passes over what was reserved.
    net.ce1.change(&delta(&at_ce1(&[], &[]), &[], &[CE1_UP[0], CE1_DOWN[0]]));
    net.ce1.change(&delta(&at_ce1(&[CE1_UP[0]], &[CE1_DOWN[0]]), &[CE1_UP[0].outbound(), CE1_DOWN[0].inbound()], &[]));
    assert_eq!(numbers(&mut net), (1 << 22) + 1);
}

#[test]
fn a_restarted_node_skips_all_numbers_that_it_may_have_used() {
    let state = ce1();
    let mut highest = 0;
    let mut sequences = fallback_sw::node::sequences::Sequences::default();
    for _ in 0..3 {
        let machine = Machine::started_again(MachineConfig::default(), snapshot(&state), sequences).unwrap();
        let mut node = Node { machine, now: 1000 };
        for port in 0..20 {
            let packet = udp(CLIENT, SERVER, 6000 + port, 53, b"x").ip();
            let sent = node.receive(crate::net::LAN, &crate::common::walk_a::from_client(&packet));
            let number = esp_header(&Frame::read(sent[0].packet.data()).ip());
            assert!(u32::from_be_bytes(number[4..].try_into().unwrap()) > 0);
        }
        let used = node.machine.workers()[0].sas();
        let lowest = used.iter().filter(|sa| sa.reserved_until > 0).map(|sa| sa.sequence - sa.packets).min().unwrap();
        assert!(lowest > highest, "{lowest} after {highest}");
        highest = used.iter().filter(|sa| sa.reserved_until > 0).map(|sa| sa.sequence - 1).max().unwrap();
        // What is on disk is all that outlives it.
        let kept = node.machine.control().sequences().to_text();
        sequences = fallback_sw::node::sequences::Sequences::from_text(&kept).unwrap();
    }
}

#[test]
fn the_ledger_holds_no_key_and_is_refused_when_it_is_damaged() {
    let net = Net::default();
    let text = net.ce1.machine.control().sequences().to_text();
    assert_eq!(text.lines().count(), 2);
    for pair in CE1_UP {
        assert!(!text.contains(&pair.key()[..16]));
    }
    let damaged = text.replacen(' ', "", 1);
    assert!(fallback_sw::node::sequences::Sequences::from_text(&damaged).is_err());
}
