//! Packets for tests, built by etherparse and, where it has no words for them, octet by octet.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder};
use proptest::{prelude::*, sample::Index};

use super::{checksum, parse::widen};

/// Source and destination in IPv4.
pub(crate) const V4: ([u8; 4], [u8; 4]) = ([192, 168, 100, 100], [192, 168, 1, 100]);
/// Source and destination in IPv6.
pub(crate) const V6: ([u8; 16], [u8; 16]) = (v6_address(1), v6_address(2));

pub(crate) const fn v6_address(last: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// The address in the form of flow keys.
pub(crate) const fn key4(address: [u8; 4]) -> [u8; 16] {
    widen(address)
}

pub(crate) fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 64).udp(7936, 53).write(&mut out, payload).unwrap();
    out
}

pub(crate) fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6(V6.0, V6.1, 64).udp(7936, 53).write(&mut out, payload).unwrap();
    out
}

pub(crate) fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 64).tcp(40000, 80, 7, 1000).syn().write(&mut out, payload).unwrap();
    out
}

pub(crate) fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6(V6.0, V6.1, 64).tcp(40000, 80, 7, 1000).ack(9).write(&mut out, payload).unwrap();
    out
}

pub(crate) fn ping4(id: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq: 1 });
    PacketBuilder::ipv4(V4.0, V4.1, 64).icmpv4(kind).write(&mut out, payload).unwrap();
    out
}

pub(crate) fn ping6(id: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = Icmpv6Type::EchoRequest(IcmpEchoHeader { id, seq: 1 });
    PacketBuilder::ipv6(V6.0, V6.1, 64).icmpv6(kind).write(&mut out, payload).unwrap();
    out
}

/// An ICMP error of this type and code from 10.0.0.1 (or 2001:db8::9) to the source in [`V4`] or [`V6`], quoting `quote`.
pub(crate) fn error(version: u8, icmp_type: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![icmp_type, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quote);
    if version == 4 {
        let sum = checksum::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        raw4(&[], 1, 0, 0x4000, [10, 0, 0, 1], V4.0, &message)
    } else {
        let pseudo = checksum::pseudo_v6(&v6_address(9), &V6.0, 58, message.len() as u32);
        let sum = !checksum::add(checksum::sum(&message), pseudo);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        raw6(58, v6_address(9), V6.0, 64, &message)
    }
}

/// Any IPv4 packet. `options` must fill whole words; `fragment` is the word of flags and offset.
pub(crate) fn raw4(
    options: &[u8],
    proto: u8,
    id: u16,
    fragment: u16,
    src: [u8; 4],
    dst: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let header_len = 20 + options.len();
    let mut out = vec![0x40 | (header_len / 4) as u8, 0];
    out.extend_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&fragment.to_be_bytes());
    out.extend_from_slice(&[64, proto, 0, 0]);
    out.extend_from_slice(&src);
    out.extend_from_slice(&dst);
    out.extend_from_slice(options);
    fix4(&mut out);
    out.extend_from_slice(payload);
    out
}

/// Any IPv6 packet.
pub(crate) fn raw6(next: u8, src: [u8; 16], dst: [u8; 16], hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&[next, hop_limit]);
    out.extend_from_slice(&src);
    out.extend_from_slice(&dst);
    out.extend_from_slice(payload);
    out
}

/// Computes the header checksum anew.
pub(crate) fn fix4(l3: &mut [u8]) {
    let header_len = usize::from(l3[0] & 15) * 4;
    l3[10..12].fill(0);
    let sum = checksum::checksum(&l3[..header_len]);
    l3[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP segment without checksum.
pub(crate) fn udp_segment(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x00, 0x00, 0x35];
    out.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    out
}

/// One valid packet of every kind that the parser knows, with its version.
pub(crate) fn zoo() -> Vec<(u8, Vec<u8>)> {
    let udp = udp_segment(b"payload");
    let chain = |headers: &[&[u8]]| {
        let mut payload = headers.concat();
        payload.extend_from_slice(&udp);
        payload
    };
    let hop = [43, 0, 5, 2, 0, 0, 1, 0];
    let routing = [60, 0, 4, 0, 0, 0, 0, 0];
    let options = [51, 0, 1, 4, 0, 0, 0, 0];
    let ah = [44, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let atomic = [17, 0, 0, 0, 0, 0, 0, 7];
    let first = [17, 0, 0, 1, 0, 0, 0, 7];
    let later = [17, 0, 0, 17, 0, 0, 0, 7];
    vec![
        (4, udp4(b"hello")),
        (4, tcp4(b"hello")),
        (4, ping4(77, b"abcdefgh")),
        (4, raw4(&[], 132, 1, 0, V4.0, V4.1, &[1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 2])),
        (4, raw4(&[], 47, 1, 0, V4.0, V4.1, b"gre")),
        (4, raw4(&[1, 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0], 17, 1, 0, V4.0, V4.1, &udp)),
        (4, raw4(&[], 17, 9, 0x2000, V4.0, V4.1, &udp_segment(&[0; 16]))),
        (4, raw4(&[], 17, 9, 0x2003, V4.0, V4.1, &[7; 24])),
        (4, error(4, 3, 4, &udp4(b"12345678"))),
        (4, error(4, 11, 0, &raw4(&[1, 1, 1, 1], 1, 3, 0, V4.0, V4.1, &[8, 0, 0, 0, 0, 5, 0, 1]))),
        (6, udp6(b"hello")),
        (6, tcp6(b"hello")),
        (6, ping6(77, b"abcdefgh")),
        (6, raw6(59, V6.0, V6.1, 64, &[])),
        (6, raw6(0, V6.0, V6.1, 64, &chain(&[&hop, &routing, &options, &ah, &atomic]))),
        (6, raw6(44, V6.0, V6.1, 64, &[&first[..], &udp_segment(&[0; 16])].concat())),
        (6, raw6(44, V6.0, V6.1, 64, &[&later[..], &[7; 24]].concat())),
        (6, error(6, 2, 0, &udp6(b"12345678"))),
        (
            6,
            error(
                6,
                3,
                0,
                &raw6(60, V6.0, V6.1, 1, &[&[58, 0, 1, 4, 0, 0, 0, 0][..], &[128, 0, 0, 0, 0, 5, 0, 1]].concat()),
            ),
        ),
    ]
}

/// One of the [`zoo`], cut and with some octets changed at random.
pub(crate) fn damaged() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let flips = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    (proptest::sample::select(zoo()), flips, any::<Index>(), any::<bool>()).prop_map(
        |((version, mut l3), flips, cut, whole)| {
            for (at, value) in flips {
                let at = at.index(l3.len());
                l3[at] = value;
            }
            if version == 4 && l3.len() >= usize::from(l3[0] & 15) * 4 && l3[0] & 15 >= 5 {
                fix4(&mut l3);
            }
            if !whole {
                let len = cut.index(l3.len() + 1);
                l3.truncate(len);
            }
            (version, l3)
        },
    )
}
