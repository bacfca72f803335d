use offload_rules::{DropReason, Label, MacAddr};
use proptest::prelude::*;

use super::*;
use crate::packet::{
    Packet, checksum,
    ecn::Ecn,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    samples,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_golden_packet_comes_out_octet_by_octet() {
    let mut inner = samples::raw4(&[], 17, 1, 0, [1, 1, 1, 1], [2, 2, 2, 2], &[]);
    let mut udp = hex("1f001f00 00580000");
    udp.resize(88, 0xa5);
    inner[2..4].copy_from_slice(&108u16.to_be_bytes());
    samples::fix4(&mut inner);
    inner.extend_from_slice(&udp);
    assert_eq!(inner[..20], hex("4500006c000100004011747b0101010102020202"));

    let mut packet = Packet::from_frame(&inner);
    let ttl = decrement_ttl(packet.data_mut(), 1).unwrap();
    assert_eq!(ttl, 63);
    let template = OuterTemplate::new([1, 1, 2, 2].into(), [2, 2, 1, 1].into(), 51234, Label::new(48).unwrap());
    let outer = Outer { inner_len: 108, id: 1, tos: 0, sport: 0xeb06, ttl, tc: 0 };
    template.write(packet.prepend(OUTER_LEN).unwrap(), &outer).unwrap();
    let (dst, src) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let header = [&dst.0[..], &src.0, &[0, 0]].concat();
    write_l2(packet.prepend(14).unwrap(), &header, ETHERTYPE_IPV4, None).unwrap();

    let golden = hex("0800 4500008c00010000 4011745b 01010202 02020101 eb06c82200780000 0003013f \
         4500006c00010000 3f11757b 01010101 02020202");
    let golden = golden.iter().copied().enumerate();
    for (at, octet) in golden {
        assert_eq!(packet.data()[12 + at], octet, "octet {at} behind the addresses");
    }
    assert_eq!(packet.data()[14 + 52..], udp);
}

#[test]
fn the_last_hop_is_refused_and_the_packet_kept_for_the_error() {
    for (version, at, mut l3) in [(4, 8, samples::udp4(b"x")), (6, 7, samples::udp6(b"x"))] {
        l3[at] = 2;
        if version == 4 {
            samples::fix4(&mut l3);
        }
        let before = l3.clone();
        assert_eq!(decrement_ttl(&mut l3, 2), Err(DropReason::TtlExceeded));
        assert_eq!(l3, before);
        assert_eq!(decrement_ttl(&mut l3, 1), Ok(1));
        assert_eq!(parse::ip(&l3, version).unwrap().ttl, 1);
    }
}

#[test]
fn what_is_no_ip_packet_is_not_changed() {
    for mut junk in [vec![], vec![0x45; 19], vec![0x60; 39], vec![0x50; 64]] {
        let before = junk.clone();
        assert!(decrement_ttl(&mut junk, 1).is_err());
        assert_eq!(junk, before);
    }
}

#[test]
fn the_priority_is_kept_on_the_outermost_tag_only() {
    let header = hex("000c299b6969 000c290ff4a1 8100 012c 8100 0064 0800");
    let mut out = [0; 22];
    write_l2(&mut out, &header, ETHERTYPE_IPV6, Some(5)).unwrap();
    assert_eq!(out[..], hex("000c299b6969 000c290ff4a1 8100 a12c 8100 0064 86dd"));
    write_l2(&mut out[..18], &header[..18], ETHERTYPE_IPV4, None).unwrap();
    assert_eq!(out[..18], hex("000c299b6969 000c290ff4a1 8100 012c 0800"));
    write_l2(&mut out[..14], &header[..14], ETHERTYPE_IPV6, Some(7)).unwrap();
    assert_eq!(out[..14], hex("000c299b6969 000c290ff4a1 86dd"));
    assert_eq!(write_l2(&mut out, &header[..18], ETHERTYPE_IPV4, None), Err(DropReason::NoHeadroom));
    assert_eq!(write_l2(&mut out, &header[..15], ETHERTYPE_IPV4, None), Err(DropReason::InvalidNh));
}

#[test]
fn an_outer_packet_beyond_65535_octets_is_refused() {
    let template = OuterTemplate::new([1, 1, 1, 2].into(), [2, 2, 1, 1].into(), 6635, Label::new(48).unwrap());
    let outer = Outer { inner_len: 65504, id: 1, tos: 0, sport: 1, ttl: 1, tc: 0 };
    assert_eq!(template.write(&mut [0; 32], &outer), Err(DropReason::PacketTooBig));
    assert_eq!(template.write(&mut [0; 31], &Outer { inner_len: 20, ..outer }), Err(DropReason::NoHeadroom));
}

proptest! {
    #[test]
    fn the_header_checksum_holds_after_every_change(ttl in 2u8.., by in any::<u8>(), tos in any::<u8>(), id in any::<u16>()) {
        let by = by % ttl;
        let mut l3 = samples::raw4(&[], 17, id, 0, samples::V4.0, samples::V4.1, &samples::udp_segment(b"x"));
        l3[8] = ttl;
        samples::fix4(&mut l3);
        prop_assert_eq!(decrement_ttl(&mut l3, by), Ok(ttl - by));
        prop_assert!(checksum::verify_ipv4_header(&l3[..20]));
        set_tos(&mut l3, tos);
        set_ecn(&mut l3, Ecn::Ce);
        let ip = parse::ip(&l3, 4).unwrap();
        prop_assert_eq!((ip.tos, ip.ttl), (tos | 3, ttl - by));
        let (theirs, _) = etherparse::Ipv4Header::from_slice(&l3).unwrap();
        prop_assert_eq!(theirs.calc_header_checksum(), theirs.header_checksum);
    }

    #[test]
    fn the_traffic_class_changes_and_the_flow_label_does_not(label in 0u32..0x10_0000, before in any::<u8>(), after in any::<u8>()) {
        let mut l3 = samples::udp6(b"x");
        l3[..4].copy_from_slice(&(6 << 28 | u32::from(before) << 20 | label).to_be_bytes());
        set_tos(&mut l3, after);
        prop_assert_eq!(&l3[..4], &(6 << 28 | u32::from(after) << 20 | label).to_be_bytes());
        set_ecn(&mut l3, Ecn::Ect1);
        prop_assert_eq!(parse::ip(&l3, 6).unwrap().tos, after & !3 | 1);
    }

    #[test]
    fn the_outer_headers_are_what_the_receiver_reads(
        sip in any::<[u8; 4]>(), dip in any::<[u8; 4]>(), port in any::<u16>(), label in 16u32..0x10_0000,
        inner_len in 20u16..1500, id in any::<u16>(), tos in any::<u8>(), hash in any::<u32>(), ttl in 1u8.., tc in 0u8..8,
    ) {
        let label = Label::new(label).unwrap();
        let outer = Outer { inner_len, id, tos, sport: entropy_port(hash), ttl, tc };
        let mut packet = Packet::from_frame(&vec![0x45; usize::from(inner_len)]);
        OuterTemplate::new(sip.into(), dip.into(), port, label).write(packet.prepend(OUTER_LEN).unwrap(), &outer).unwrap();
        let (ip, rest) = etherparse::Ipv4Header::from_slice(packet.data()).unwrap();
        prop_assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
        prop_assert_eq!((ip.source, ip.destination, ip.total_len, ip.time_to_live), (sip, dip, inner_len + 32, 64));
        prop_assert_eq!((ip.identification, ip.dont_fragment, packet.data()[1]), (id, false, tos));
        let (udp, rest) = etherparse::UdpHeader::from_slice(rest).unwrap();
        prop_assert_eq!((udp.destination_port, udp.length, udp.checksum), (port, inner_len + 12, 0));
        prop_assert!(udp.source_port >= 49152);
        let mpls = parse::mpls_udp(rest).unwrap();
        prop_assert_eq!((mpls.label, mpls.tc, mpls.ttl), (label, tc, ttl));
    }
}
