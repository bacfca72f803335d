use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use offload_rules::DropReason;
use proptest::prelude::*;

use super::*;
use crate::packet::{
    parse::{self, embedded},
    samples::{self, V4, V6, raw4, raw6, v6_address},
};

const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 100, 1));

fn gateway(version: u8) -> IpAddr {
    if version == 4 { GATEWAY4 } else { IpAddr::V6(Ipv6Addr::from(v6_address(0xfe))) }
}

fn about(kind: IcmpError, version: u8, l3: &[u8]) -> Option<Vec<u8>> {
    let ip = parse::ip(l3, version).unwrap();
    error(kind, &ip, l3, gateway(version)).map(|packet| packet.data().to_vec())
}

#[test]
fn every_error_has_the_type_and_code_of_its_rfc() {
    let v4 = [(11, 0), (3, 4), (3, 0), (3, 1), (3, 3), (3, 2), (3, 13)];
    let v6 = [(3, 0), (2, 0), (1, 0), (1, 3), (1, 4), (4, 1), (1, 1)];
    let kinds = [
        IcmpError::TimeExceeded,
        IcmpError::TooBig { mtu: 1400 },
        IcmpError::NoRoute,
        IcmpError::HostUnreachable,
        IcmpError::PortUnreachable,
        IcmpError::ProtocolUnreachable { pointer: 6 },
        IcmpError::AdminProhibited,
    ];
    for (i, kind) in kinds.into_iter().enumerate() {
        let ip = parse::ip(&about(kind, 4, &samples::udp4(b"x")).unwrap(), 4).unwrap();
        assert_eq!((ip.icmp_type, ip.icmp_code), v4[i], "{kind:?}");
        let ip = parse::ip(&about(kind, 6, &samples::udp6(b"x")).unwrap(), 6).unwrap();
        assert_eq!((ip.icmp_type, ip.icmp_code), v6[i], "{kind:?}");
    }
}

#[test]
fn an_error_goes_from_the_gateway_to_the_source_and_quotes_the_packet() {
    for (version, l3, header_len) in [(4, samples::tcp4(b"data"), 20), (6, samples::tcp6(b"data"), 40)] {
        let out = about(IcmpError::TimeExceeded, version, &l3).unwrap();
        let ip = parse::ip(&out, version).unwrap();
        let offender = parse::ip(&l3, version).unwrap();
        assert_eq!((ip.source(), ip.dst), (gateway(version), offender.src));
        assert_eq!(out[header_len + 8..], l3);
        let embedded = embedded(&ip, &out).unwrap();
        assert_eq!((embedded.src, embedded.dst), (offender.dst, offender.src));
    }
}

#[test]
fn the_mtu_stands_in_the_second_word() {
    let out = about(IcmpError::TooBig { mtu: 1468 }, 4, &samples::udp4(&[0; 1000])).unwrap();
    assert_eq!(out[24..28], [0, 0, 0x05, 0xbc]);
    let out = about(IcmpError::TooBig { mtu: 1468 }, 6, &samples::udp6(&[0; 1000])).unwrap();
    assert_eq!(out[44..48], [0, 0, 0x05, 0xbc]);
}

#[test]
fn a_large_packet_is_quoted_up_to_the_limit_and_padding_is_not() {
    assert_eq!(about(IcmpError::NoRoute, 4, &samples::udp4(&[7; 1400])).unwrap().len(), MAX_V4);
    assert_eq!(about(IcmpError::NoRoute, 6, &samples::udp6(&[7; 1400])).unwrap().len(), MAX_V6);
    let mut padded = samples::udp4(b"x");
    padded.resize(60, 0xee);
    assert_eq!(about(IcmpError::NoRoute, 4, &padded).unwrap().len(), 28 + 29);
}

#[test]
fn nothing_is_sent_about_what_must_not_be_answered() {
    let udp = samples::udp_segment(b"x");
    let mut dad = vec![135, 0, 0, 0, 0, 0, 0, 0];
    dad.extend_from_slice(&v6_address(3));
    let mut solicited = [0xff; 16];
    solicited[1] = 2;
    for (why, version, l3) in [
        ("ICMP error", 4, samples::error(4, 3, 1, &samples::udp4(b""))),
        ("ICMPv6 error", 6, samples::error(6, 1, 0, &samples::udp6(b""))),
        ("redirect", 6, raw6(58, V6.0, V6.1, 255, &[137, 0, 0, 0, 0, 0, 0, 0])),
        ("neighbour discovery", 6, raw6(58, V6.0, V6.1, 255, &dad)),
        ("duplicate address detection", 6, raw6(58, [0; 16], V6.1, 255, &dad)),
        ("later fragment", 4, raw4(&[], 17, 9, 0x0003, V4.0, V4.1, &[7; 8])),
        ("later fragment of ICMP", 4, raw4(&[], 1, 9, 0x0003, V4.0, V4.1, &[7; 8])),
        ("multicast", 4, raw4(&[], 17, 9, 0, V4.0, [224, 0, 0, 5], &udp)),
        ("broadcast", 4, raw4(&[], 17, 9, 0, V4.0, [255; 4], &udp)),
        ("multicast", 6, raw6(17, V6.0, solicited, 1, &udp)),
    ] {
        assert_eq!(about(IcmpError::TimeExceeded, version, &l3), None, "{why}");
    }
    assert!(about(IcmpError::TimeExceeded, 4, &samples::ping4(1, b"")).is_some(), "echo is answered");
    let first = raw4(&[], 17, 9, 0x2000, V4.0, V4.1, &samples::udp_segment(&[0; 16]));
    assert!(about(IcmpError::TimeExceeded, 4, &first).is_some(), "the first fragment is answered");
}

#[test]
fn an_address_of_the_other_family_sends_nothing() {
    let l3 = samples::udp6(b"x");
    assert!(error(IcmpError::NoRoute, &parse::ip(&l3, 6).unwrap(), &l3, GATEWAY4).is_none());
}

#[test]
fn an_echo_request_becomes_its_reply() {
    for (version, mut l3) in [(4, samples::ping4(77, b"12345678")), (6, samples::ping6(77, b"1234567"))] {
        let request = parse::ip(&l3, version).unwrap();
        echo_reply(&request, &mut l3, None).unwrap();
        let reply = parse::ip(&l3, version).unwrap();
        assert_eq!((reply.src, reply.dst, reply.sport), (request.dst, request.src, 77));
        assert_eq!((reply.icmp_type, reply.ttl), (if version == 4 { 0 } else { 129 }, 64));
        assert!(checksum_holds(&reply, reply.payload(&l3)));
    }
}

#[test]
fn a_request_that_cannot_be_answered_stays_as_it_was() {
    let mut wrong = samples::ping4(1, b"12345678");
    *wrong.last_mut().unwrap() ^= 1;
    let mut wrong6 = samples::ping6(1, b"12345678");
    *wrong6.last_mut().unwrap() ^= 1;
    let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    for (version, mut l3, reason) in [
        (4, wrong, DropReason::ChecksumErr),
        (6, wrong6, DropReason::ChecksumErr),
        (4, samples::udp4(b"x"), DropReason::InvalidPacket),
        (4, raw4(&[], 1, 0, 0, V4.0, [255; 4], &echo), DropReason::McastUnsupported),
        (4, raw4(&[], 1, 0, 0x2000, V4.0, V4.1, &echo), DropReason::FragmentErr),
    ] {
        let before = l3.clone();
        let ip = parse::ip(&l3, version).unwrap();
        assert_eq!(echo_reply(&ip, &mut l3, None), Err(reason));
        assert_eq!(l3, before);
    }
}

proptest! {
    #[test]
    fn errors_about_any_packet_are_valid_and_never_about_errors((version, l3) in samples::damaged(), mtu in any::<u16>()) {
        let Ok(ip) = parse::ip(&l3, version) else { return Ok(()) };
        let Some(out) = error(IcmpError::TooBig { mtu }, &ip, &l3, gateway(version)) else { return Ok(()) };
        prop_assert!(!ip.is_icmp_error);
        let answer = parse::ip(out.data(), version).unwrap();
        prop_assert!(answer.is_icmp_error && usize::from(answer.total_len) == out.len());
        prop_assert!(checksum_holds(&answer, answer.payload(out.data())));
        let max = if version == 4 { MAX_V4 } else { MAX_V6 };
        prop_assert!(out.len() <= max);
    }

    #[test]
    fn replies_to_any_packet_have_a_valid_checksum((version, mut l3) in samples::damaged()) {
        let Ok(ip) = parse::ip(&l3, version) else { return Ok(()) };
        if echo_reply(&ip, &mut l3, None).is_ok() {
            // The source of the reply may be an address that no sender may have; the octets are right all the same.
            if let Ok(reply) = parse::ip(&l3, version) {
                prop_assert!(checksum_holds(&reply, reply.payload(&l3)));
            }
        }
    }
}
