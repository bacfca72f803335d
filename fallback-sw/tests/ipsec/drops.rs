//! Every way in which a packet of a tunnel can be wrong, by the name that the command line prints.

use fallback_sw::esp::{Key, OutboundConfig, OutboundSa, Tunnel};
use fallback_sw::{node::machine::MachineConfig, packet::Packet};
use offload_rules::DropReason;

use crate::{
    common::{
        account::{Moved, dropped},
        hex,
        packets::{Frame, plain, udp},
        walk_a::altered,
    },
    net::{
        CE1_UP, CE2_DOWN, CE2_MAC, CE2_UP, CE2_WAN, CLIENT, END1, END2, LAN, Net, Pair, RE_MAC, RE_WAN, SERVER,
        TUNNELS, WAN, ce1, ce2, re, to,
    },
};

/// The sender's side of a pair, by hand: numbers begin with `first`.
fn sealer(pair: Pair, first: u64, esn: bool) -> OutboundSa {
    let key = Key::new(&hex(&pair.key())).unwrap();
    let tunnel = Tunnel { source: RE_WAN[0].parse().unwrap(), destination: CE2_WAN.parse().unwrap(), udp: None };
    OutboundSa::new(&OutboundConfig { spi: pair.spi(), key, esn, first, tunnel })
}

/// An IP packet sealed for CE2.
fn sealed(sa: &mut OutboundSa, ip: &[u8]) -> Vec<u8> {
    let mut packet = Packet::from_frame(ip);
    sa.seal(&mut packet, 0, 1, false).unwrap();
    packet.data().to_vec()
}

fn inside() -> Vec<u8> {
    udp(END1, END2, 50_000, 9999, b"nobody listens").ip()
}

/// To CE2 with its ESP body replaced.
fn bare(body: &[u8]) -> Vec<u8> {
    plain(RE_WAN[0], CE2_WAN, 50, body).ip()
}

#[test]
fn an_index_that_no_sa_has_is_unknown() {
    let mut net = Net::default();
    let mut body = 0x1fff_u32.to_be_bytes().to_vec();
    body.extend([0; 60]);
    net.ce2.expect(WAN, &to(CE2_MAC, &bare(&body)), &dropped(DropReason::EspUnknownSpi));
    assert_eq!(net.ce2.all_drops(), [("Unknown SPI", 1)]);
    // Indices below 256 are nobody's.
    body[..4].copy_from_slice(&7_u32.to_be_bytes());
    net.ce2.expect(WAN, &to(CE2_MAC, &bare(&body)), &dropped(DropReason::EspUnknownSpi));
}

#[test]
fn an_index_of_another_end_is_unknown_here() {
    // The regional edge has two addresses: what belongs to one tunnel does not come to the other's end.
    let mut net = Net::default();
    let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
    let mut ip = Frame::read(sent[0].packet.data()).ip().octets;
    let other = if ip[19] == 40 { 41 } else { 40 };
    ip[19] = other;
    let sum = u16::from_be_bytes([ip[10], ip[11]]);
    let sum = if other == 41 { sum - 1 } else { sum + 1 };
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    net.re.expect(WAN, &to(RE_MAC, &ip), &dropped(DropReason::EspUnknownSpi));
}

#[test]
fn a_forged_packet_fails_authentication_and_moves_no_window() {
    let mut net = Net::default();
    let mut sa = sealer(CE2_DOWN[0], 5000, true);
    let good = sealed(&mut sa, &inside());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    net.ce2.expect(WAN, &to(CE2_MAC, &forged), &dropped(DropReason::EspAuthentication));
    let status = net.ce2.machine.workers()[0].sas();
    let sa = status.iter().find(|sa| sa.id.get() == CE2_DOWN[0].0).unwrap();
    assert_eq!((sa.sequence, sa.packets, sa.refused.authentication), (0, 0, 1));
    assert_eq!(net.ce2.all_drops(), [("ESP Authentication Failed", 1)]);
}

#[test]
fn a_repeated_packet_is_a_duplicate_and_one_left_of_the_window_old() {
    // Without extended numbers: with them, what is left of the window counts as far ahead (RFC 4303 §A2.1), and is not authentic.
    let sa = CE2_DOWN[0].inbound();
    let ce2 = altered(&ce2(), &[(&sa, &sa.replace("\"esn\": true", "\"esn\": false"))]);
    let mut net = Net::with(&ce1(), &re(), &ce2, MachineConfig::default());
    let mut sa = sealer(CE2_DOWN[0], 1, false);
    let first: Vec<_> = (0..3).map(|_| sealed(&mut sa, &inside())).collect();
    sa.skip_to(2000);
    let far = sealed(&mut sa, &inside());
    net.ce2.receive(WAN, &to(CE2_MAC, &first[1]));
    net.ce2.expect(WAN, &to(CE2_MAC, &first[1]), &dropped(DropReason::EspReplayDuplicate));
    // Reordered, but within the window.
    net.ce2.receive(WAN, &to(CE2_MAC, &first[0]));
    net.ce2.receive(WAN, &to(CE2_MAC, &far));
    net.ce2.expect(WAN, &to(CE2_MAC, &first[2]), &dropped(DropReason::EspReplayOld));
    let drops = net.ce2.all_drops();
    assert!(drops.contains(&("ESP Replay Duplicate", 1)) && drops.contains(&("ESP Replay Too Old", 1)), "{drops:?}");
}

#[test]
fn every_truncation_has_a_typed_drop() {
    let mut net = Net::default();
    let mut sa = sealer(CE2_DOWN[0], 1, true);
    let whole = sealed(&mut sa, &inside());
    for len in 0..whole.len() - 20 {
        let before = net.ce2.all_drops().iter().map(|(_, n)| n).sum::<u64>();
        assert!(net.ce2.receive(WAN, &to(CE2_MAC, &bare(&whole[20..20 + len]))).is_empty());
        let after = net.ce2.all_drops().iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(after, before + 1, "{len} octets");
    }
    let drops = net.ce2.all_drops();
    let names: Vec<_> = drops.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["ESP Authentication Failed", "ESP Truncated"]);
}

/// Authentic, but with an inside made by hand.
fn odd(sequence: u64, text: &[u8]) -> Vec<u8> {
    use aes_gcm_by_hand::seal;
    let pair = CE2_DOWN[0];
    bare(&seal(&hex(&pair.key()), pair.spi(), sequence, text))
}

/// ESP made step by step with another implementation of AES-GCM.
mod aes_gcm_by_hand {
    use aes_gcm::{
        Aes128Gcm, KeyInit,
        aead::{Aead, Payload},
    };

    pub(super) fn seal(material: &[u8], spi: u32, sequence: u64, text: &[u8]) -> Vec<u8> {
        let iv = sequence.to_be_bytes();
        let nonce: [u8; 12] = [&material[16..], &iv[..]].concat().try_into().unwrap();
        let aad = [&spi.to_be_bytes()[..], &sequence.to_be_bytes()].concat();
        let cipher = Aes128Gcm::new_from_slice(&material[..16]).unwrap();
        let sealed = cipher.encrypt(&nonce.into(), Payload { msg: text, aad: &aad }).unwrap();
        [&spi.to_be_bytes()[..], &(sequence as u32).to_be_bytes(), &iv, &sealed].concat()
    }
}

#[test]
fn wrong_padding_and_what_is_no_ip_are_told_apart() {
    let mut net = Net::default();
    let text = |tail: &[u8]| [&inside()[..], tail].concat();
    net.ce2.expect(WAN, &to(CE2_MAC, &odd(1, &text(&[1, 3, 2, 4]))), &dropped(DropReason::EspPadding));
    net.ce2.expect(WAN, &to(CE2_MAC, &odd(2, &text(&[255, 4]))), &dropped(DropReason::EspPadding));
    net.ce2.expect(WAN, &to(CE2_MAC, &odd(3, &text(&[0, 41]))), &dropped(DropReason::EspNotIp));
    net.ce2.expect(WAN, &to(CE2_MAC, &odd(4, &text(&[0, 6]))), &dropped(DropReason::EspNotIp));
    assert_eq!(net.ce2.all_drops(), [("ESP Invalid Padding", 2), ("ESP Not IP", 2)]);
    // A dummy packet (RFC 4303 §2.6) is used up without a word.
    let dummy = Moved { received: 1, consumed: 1, ..Moved::default() };
    net.ce2.expect(WAN, &to(CE2_MAC, &odd(5, &text(&[0, 59]))), &dummy);
}

#[test]
fn congestion_is_shown_inside_or_dropped_where_it_cannot_be() {
    let mut net = Net::default();
    for (inner, outer, expected) in [(0, 3, None), (2, 3, Some(3)), (2, 0, Some(2)), (1, 3, Some(3)), (0, 2, Some(0))] {
        let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").tos(0xb8 | inner).ip());
        let mut ip = Frame::read(sent[0].packet.data()).ip();
        // DSCP and ECN of the packet inside are outside, too.
        assert_eq!(ip.tos, 0xb8 | inner);
        let mut header = etherparse::Ipv4Header::from_slice(&ip.octets).unwrap().0;
        header.ecn = outer.try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        ip.octets[..20].copy_from_slice(&header.to_bytes());
        let before = net.re.drops(DropReason::EcnInvalid);
        let on = net.re.receive(WAN, &to(RE_MAC, &ip.octets));
        let arrived = net.carry(on);
        match expected {
            Some(expected) => assert_eq!(arrived[0].1.tos, 0xb8 | expected, "inner {inner} outer {outer}"),
            None => assert_eq!((arrived.len(), net.re.drops(DropReason::EcnInvalid)), (0, before + 1)),
        }
    }
}

#[test]
fn a_source_that_does_not_belong_behind_the_tunnel_is_refused() {
    let mut net = Net::default();
    let mut sa = sealer(CE2_DOWN[0], 1, true);
    // MPLS over UDP with a tenant's label, but not from the end that the route back leads to.
    let inner = udp(CLIENT, SERVER, 1, 2, b"x").ip();
    let entry = crate::common::packets::entry(280, 0, true, 63);
    let forged = crate::common::packets::mpls_udp("10.66.66.66", END2, (50_000, 6635), &[entry], &inner).ip();
    assert!(net.ce2.receive(WAN, &to(CE2_MAC, &sealed(&mut sa, &forged))).is_empty());
    assert_eq!(net.ce2.all_drops(), [("Invalid Source", 1)]);
    // One that claims an end of this node.
    let own = crate::common::packets::mpls_udp(END2, END2, (50_000, 6635), &[entry], &inner).ip();
    assert!(net.ce2.receive(WAN, &to(CE2_MAC, &sealed(&mut sa, &own))).is_empty());
    assert_eq!(net.ce2.all_drops(), [("Invalid Source", 1), ("Own Source", 1)]);
    // At the regional edge, whose tunnels have a reverse path each: CE1's end behind CE2's tunnel.
    let mut sa = sealer(CE2_UP[0], 1, true);
    let astray =
        to(RE_MAC, &plain(CE2_WAN, RE_WAN[0], 50, &sealed(&mut sa, &udp(END1, END2, 5, 6635, b"x").ip())[20..]).ip());
    net.re.receive(WAN, &astray);
    assert_eq!(net.re.all_drops(), [("Invalid Source", 1)]);
}

#[test]
fn plain_mpls_over_udp_from_the_wire_is_not_taken_for_a_tunnels() {
    let mut net = Net::default();
    let inner = udp(CLIENT, SERVER, 1, 2, b"x").ip();
    let entry = crate::common::packets::entry(280, 0, true, 63);
    let plain = crate::common::packets::mpls_udp(END1, END2, (50_000, 6635), &[entry], &inner).ip();
    assert!(net.ce2.receive(WAN, &to(CE2_MAC, &plain)).iter().all(|sent| u32::from(sent.port.get()) != LAN));
    assert_eq!(net.ce2.flow_records(), 0);
}

#[test]
fn what_comes_out_of_a_tunnel_counts_on_the_tunnel_and_the_wire() {
    let mut net = Net::default();
    net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
    let tunnels: u64 = TUNNELS.iter().map(|vif| net.ce2.vif_packets(*vif).0).sum();
    assert_eq!((tunnels, net.ce2.vif_packets(WAN).0), (1, 1));
    let status = net.re.machine.workers()[0].sas();
    let opened: u64 = status.iter().filter(|sa| CE1_UP.iter().any(|up| up.0 == sa.id.get())).map(|sa| sa.packets).sum();
    assert_eq!(opened, 1);
}
