use offload_rules::{DropReason, Label, MacAddr, VifId, VrfId, flow::FlowKey};
use proptest::prelude::*;

use super::*;
use crate::packet::samples::{self, V4, V6, raw4, raw6, udp_segment, v6_address};

fn parsed(version: u8, l3: &[u8]) -> Ip {
    ip(l3, version).unwrap()
}

fn refused(version: u8, l3: &[u8]) -> DropReason {
    ip(l3, version).unwrap_err()
}

fn key(ip: &Ip) -> FlowKey {
    flow_key(ip, VrfId::new(18).unwrap(), VifId::new(3).unwrap())
}

/// With the header checksum computed anew.
fn changed4(mut l3: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    l3[at] = value;
    samples::fix4(&mut l3);
    l3
}

fn tag(tags: &[(u16, u16)]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (tpid, tci) in tags {
        frame.extend_from_slice(&tpid.to_be_bytes());
        frame.extend_from_slice(&tci.to_be_bytes());
    }
    frame.extend_from_slice(&[0x08, 0x00]);
    frame
}

#[test]
fn an_untagged_frame_begins_its_packet_at_octet_14() {
    let e = ethernet(&tag(&[])).unwrap();
    assert_eq!((e.dst, e.src), (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])));
    assert_eq!((e.tags, e.ethertype, e.len, e.vlan(), e.pcp()), (0, ETHERTYPE_IPV4, 14, None, 0));
}

#[test]
fn up_to_two_tags_are_taken_and_a_third_is_refused() {
    let e = ethernet(&tag(&[(0x8100, 0xa12c)])).unwrap();
    assert_eq!((e.tags, e.len, e.vlan(), e.pcp(), e.tpid, e.tci), (1, 18, Some(300), 5, [0x8100, 0], [0xa12c, 0]));
    let e = ethernet(&tag(&[(0x88a8, 7), (0x9100, 9)])).unwrap();
    assert_eq!((e.tags, e.len, e.tpid, e.tci, e.ethertype), (2, 22, [0x88a8, 0x9100], [7, 9], ETHERTYPE_IPV4));
    assert_eq!(ethernet(&tag(&[(0x8100, 1); 3])), Err(DropReason::InvalidProtocol));
}

#[test]
fn a_frame_cut_inside_its_link_layer_header_is_truncated() {
    for tags in 0..=2 {
        let frame = tag(&[(0x8100, 1); 2][..tags]);
        for len in 0..frame.len() {
            assert_eq!(ethernet(&frame[..len]), Err(DropReason::Truncated), "{tags} tags, {len} octets");
        }
        assert_eq!(ethernet(&frame).unwrap().len, frame.len());
    }
}

#[test]
fn udp_over_ipv4_gives_addresses_ports_and_offsets() {
    let l3 = samples::udp4(b"hello");
    let ip = parsed(4, &l3);
    assert_eq!((ip.header_len, ip.fixed_header_len, usize::from(ip.total_len)), (20, 20, l3.len()));
    assert_eq!((ip.proto, ip.ttl, ip.fragment, ip.multicast), (17, 64, FragmentInfo::None, false));
    let expected =
        FlowKey::new(VrfId::new(18).unwrap(), VifId::new(3).unwrap(), V4.0.into(), V4.1.into(), 17, 7936, 53);
    assert_eq!(key(&ip), expected);
    assert_eq!(ip.payload(&l3), &l3[20..]);
}

#[test]
fn tcp_over_ipv6_gives_addresses_ports_and_flags() {
    let l3 = samples::tcp6(b"hello");
    let ip = parsed(6, &l3);
    let expected =
        FlowKey::new(VrfId::new(18).unwrap(), VifId::new(3).unwrap(), V6.0.into(), V6.1.into(), 6, 40000, 80);
    assert_eq!(key(&ip), expected);
    assert_eq!((ip.tcp_flags, ip.header_len, ip.df), (tcp_flags::ACK, 40, true));
}

#[test]
fn ethernet_padding_behind_the_packet_is_ignored() {
    for (version, l3) in samples::zoo() {
        let mut padded = l3.clone();
        padded.extend_from_slice(&[0xee; 18]);
        assert_eq!(ip(&padded, version), ip(&l3, version));
        let ip = parsed(version, &padded);
        assert_eq!(ip.payload(&padded), &l3[usize::from(ip.header_len)..]);
    }
}

#[test]
fn an_echo_and_its_reply_have_the_identifier_for_source_port() {
    let request = parsed(4, &samples::ping4(77, b"12345678"));
    assert_eq!((request.sport, request.dport, request.icmp_type, request.is_icmp_error), (77, 0, 8, false));
    let request = parsed(6, &samples::ping6(77, b"12345678"));
    assert_eq!((request.sport, request.dport, request.icmp_type, request.is_icmp_error), (77, 0, 128, false));
}

#[test]
fn other_icmp_has_its_type_for_destination_port() {
    let l3 = raw4(&[], 1, 0, 0, V4.0, V4.1, &[13, 0, 0, 0, 1, 2, 3, 4]);
    let ip = parsed(4, &l3);
    assert_eq!((ip.sport, ip.dport, ip.icmp_type, ip.is_icmp_error), (0, 13, 13, false));
}

#[test]
fn exactly_the_error_types_are_errors() {
    for icmp_type in 0..=255u8 {
        let l3 = raw4(&[], 1, 0, 0, V4.0, V4.1, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parsed(4, &l3).is_icmp_error, [3, 4, 5, 11, 12].contains(&icmp_type), "IPv4 {icmp_type}");
        let l3 = raw6(58, V6.0, V6.1, 64, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parsed(6, &l3).is_icmp_error, icmp_type < 128, "IPv6 {icmp_type}");
    }
}

#[test]
fn icmp_of_the_other_family_is_just_a_protocol() {
    let ip = parsed(4, &raw4(&[], 58, 0, 0, V4.0, V4.1, &[3]));
    assert_eq!((ip.sport, ip.dport, ip.is_icmp_error, ip.is_icmp()), (0, 0, false, false));
}

#[test]
fn header_fields_that_contradict_each_other_are_refused() {
    let good = samples::udp4(b"hello");
    assert_eq!(refused(6, &[&good[..], &[0; 40]].concat()), DropReason::InvalidPacket, "IPv4 announced as IPv6");
    assert_eq!(refused(4, &samples::udp6(b"")), DropReason::InvalidPacket, "IPv6 announced as IPv4");
    assert_eq!(refused(5, &good), DropReason::InvalidProtocol);
    assert_eq!(refused(4, &changed4(good.clone(), 0, 0x45 - 1)), DropReason::InvalidPacket, "IHL 4");
    assert_eq!(refused(4, &changed4(good.clone(), 3, 19)), DropReason::InvalidPacket, "total length 19");
    assert_eq!(refused(4, &changed4(good.clone(), 2, 1)), DropReason::Truncated, "total length beyond the frame");
    let mut wrong = good;
    wrong[10] ^= 1;
    assert_eq!(refused(4, &wrong), DropReason::ChecksumErr);
}

#[test]
fn a_wrong_checksum_is_found_in_a_header_with_options() {
    let mut l3 = raw4(&[1, 1, 1, 1], 17, 1, 0, V4.0, V4.1, &udp_segment(b""));
    l3[11] ^= 0x10;
    assert_eq!(refused(4, &l3), DropReason::ChecksumErr);
}

#[test]
fn harmless_options_pass_and_source_routes_and_malformed_ones_do_not() {
    let with = |options: &[u8]| ip(&raw4(options, 17, 1, 0, V4.0, V4.1, &udp_segment(b"")), 4);
    for options in [&[1, 1, 1, 0][..], &[148, 4, 0, 0], &[7, 7, 4, 0, 0, 0, 0, 0], &[0, 131, 255, 255]] {
        let ip = with(options).unwrap();
        assert_eq!(usize::from(ip.header_len), 20 + options.len());
        assert_eq!((ip.sport, ip.dport), (7936, 53));
    }
    for options in [
        &[131, 3, 4, 0][..], // loose source route
        &[137, 3, 4, 0],     // strict source route
        &[148, 5, 0, 0],     // runs out of the header
        &[148, 0, 0, 0],     // length 0
        &[148, 1, 0, 0],     // length 1
        &[1, 1, 1, 148],     // no length
    ] {
        assert_eq!(with(options), Err(DropReason::IpOptions), "{options:?}");
    }
}

#[test]
fn martian_sources_are_refused() {
    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255, 255, 255, 255]] {
        let l3 = raw4(&[], 17, 1, 0, source, V4.1, &udp_segment(b""));
        assert_eq!(refused(4, &l3), DropReason::InvalidSource, "{source:?}");
    }
    for source in [
        v6_address(0),
        [0; 16],
        {
            let mut s = [0; 16];
            s[15] = 1;
            s
        },
        [0xff; 16],
    ] {
        let l3 = raw6(17, source, V6.1, 64, &udp_segment(b""));
        let expected = if source == v6_address(0) { None } else { Some(DropReason::InvalidSource) };
        assert_eq!(ip(&l3, 6).err(), expected, "{source:?}");
    }
}

#[test]
fn the_unspecified_source_may_only_solicit() {
    let from =
        |icmp_type: u8| ip(&raw6(58, [0; 16], V6.1, 255, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]), 6).map(|ip| ip.icmp_type);
    assert_eq!(from(133), Ok(133));
    assert_eq!(from(135), Ok(135));
    for icmp_type in [1, 128, 134, 136] {
        assert_eq!(from(icmp_type), Err(DropReason::InvalidSource), "{icmp_type}");
    }
}

#[test]
fn group_destinations_are_flagged_and_impossible_ones_refused() {
    let to = |dst| ip(&raw4(&[], 17, 1, 0, V4.0, dst, &udp_segment(b"")), 4).map(|ip| ip.multicast);
    assert_eq!((to([224, 0, 0, 5]), to([255; 4]), to([10, 0, 0, 255])), (Ok(true), Ok(true), Ok(false)));
    assert_eq!((to([127, 0, 0, 1]), to([0; 4])), (Err(DropReason::InvalidPacket), Err(DropReason::InvalidPacket)));
    let to = |dst| ip(&raw6(17, V6.0, dst, 1, &udp_segment(b"")), 6).map(|ip| ip.multicast);
    assert_eq!((to([0xff; 16]), to([0; 16])), (Ok(true), Err(DropReason::InvalidPacket)));
}

#[test]
fn fragments_tell_their_identity_and_place() {
    let first = parsed(4, &raw4(&[], 17, 9, 0x2000, V4.0, V4.1, &udp_segment(&[0; 16])));
    assert_eq!((first.fragment, first.sport), (FragmentInfo::First { id: 9 }, 7936));
    let later = parsed(4, &raw4(&[], 17, 9, 0x0003, V4.0, V4.1, &[7; 5]));
    assert_eq!((later.fragment, later.sport), (FragmentInfo::Later { id: 9, offset: 24, more: false }, 0));
    assert!(!later.has_l4());
    let fragment = |word: u16, payload: &[u8]| {
        let [a, b] = word.to_be_bytes();
        ip(&raw6(44, V6.0, V6.1, 64, &[&[17, 0, a, b, 1, 2, 3, 4][..], payload].concat()), 6)
    };
    let id = 0x0102_0304;
    let first = fragment(1, &udp_segment(&[0; 16])).unwrap();
    assert_eq!((first.fragment, first.sport, first.header_len), (FragmentInfo::First { id }, 7936, 48));
    let later = fragment(16 | 1, &[7; 8]).unwrap();
    assert_eq!((later.fragment, later.dport), (FragmentInfo::Later { id, offset: 16, more: true }, 0));
    assert_eq!(fragment(0, &udp_segment(b"x")).unwrap().fragment, FragmentInfo::None, "atomic fragment");
}

#[test]
fn impossible_fragments_are_refused() {
    let fragment = |word: u16, proto: u8, payload: &[u8]| ip(&raw4(&[], proto, 9, word, V4.0, V4.1, payload), 4).err();
    let error = Some(DropReason::FragmentErr);
    assert_eq!(fragment(0x2000, 6, &[0x50; 16]), error, "first fragment without a whole TCP header");
    assert_eq!(fragment(0x2000, 17, &[]), error, "first fragment without payload");
    assert_eq!(fragment(0x0001, 6, &[0; 16]), error, "overlays the TCP flags");
    assert_eq!(fragment(0x0001, 17, &[0; 16]), None);
    assert_eq!(fragment(0x2001, 17, &[0; 15]), error, "not a multiple of 8");
    assert_eq!(fragment(0x1fff, 17, &[0; 15]), error, "ends behind 65535");
    assert_eq!(fragment(0x1fff, 17, &[0; 7]), None);
}

#[test]
fn short_or_contradictory_transport_headers_are_refused() {
    let with = |proto, payload: &[u8]| ip(&raw4(&[], proto, 1, 0, V4.0, V4.1, payload), 4).err();
    let mut tcp = [0; 20];
    assert_eq!(with(6, &tcp), Some(DropReason::InvalidPacket), "data offset 0");
    tcp[12] = 0x60;
    assert_eq!(with(6, &tcp), Some(DropReason::Truncated), "data offset beyond the packet");
    tcp[12] = 0x50;
    assert_eq!(with(6, &tcp), None);
    assert_eq!(with(6, &tcp[..19]), Some(DropReason::Truncated));
    assert_eq!(with(17, &[0, 1, 0, 2, 0, 7, 0, 0]), Some(DropReason::InvalidPacket), "UDP length 7");
    assert_eq!(with(17, &[0, 1, 0, 2, 0, 9, 0, 0]), Some(DropReason::Truncated), "UDP length 9 of 8");
    assert_eq!(with(17, &[0, 1, 0, 2, 0, 8, 0]), Some(DropReason::Truncated));
    assert_eq!(with(1, &[8, 0, 0, 0, 0, 0, 0]), Some(DropReason::Truncated));
    assert_eq!(with(132, &[0; 11]), Some(DropReason::Truncated));
}

#[test]
fn a_chain_of_extension_headers_leads_to_the_transport_header() {
    let (_, l3) = samples::zoo().into_iter().find(|(v, l3)| *v == 6 && l3[6] == 0).unwrap();
    let ip = parsed(6, &l3);
    assert_eq!((ip.proto, ip.sport, ip.dport, ip.header_len), (17, 7936, 53, 40 + 8 + 8 + 8 + 24 + 8));
    assert_eq!((ip.fixed_header_len, ip.fragment), (40, FragmentInfo::None));
}

#[test]
fn chains_that_are_too_long_or_out_of_order_or_malformed_are_refused() {
    let chain = |first: u8, headers: &[&[u8]]| {
        ip(&raw6(first, V6.0, V6.1, 64, &[&headers.concat()[..], &udp_segment(b"")].concat()), 6)
    };
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let eight: Vec<u8> = [[60, 0, 1, 4, 0, 0, 0, 0]; 7].concat();
    assert!(chain(60, &[&eight, &options(17)]).is_ok());
    let error = Err(DropReason::ExtensionHeaders);
    assert_eq!(chain(60, &[&eight, &options(60), &options(17)]), error, "nine headers");
    assert_eq!(chain(60, &[&options(0), &options(17)]), error, "hop-by-hop second");
    assert_eq!(chain(43, &[&[17, 0, 0, 0, 0, 0, 0, 0]]), error, "routing header type 0");
    assert_eq!(chain(60, &[&[17, 0, 1, 5, 0, 0, 0, 0]]), error, "option runs out of its header");
    assert_eq!(chain(60, &[&[17, 9, 1, 4, 0, 0, 0, 0]]), error, "header runs out of the packet");
    assert_eq!(chain(44, &[&[44, 0, 0, 0, 0, 0, 0, 1], &[17, 0, 0, 0, 0, 0, 0, 1]]), error, "two fragment headers");
    let mut long = vec![17, 70, 1, 254];
    long.resize(71 * 8, 0);
    assert_eq!(chain(60, &[&long]), error, "568 octets");
    assert_eq!(chain(59, &[]).unwrap().proto, 59);
}

#[test]
fn an_error_rides_the_flow_of_the_packet_it_quotes() {
    let quote = samples::udp4(b"12345678");
    let forward = parsed(4, &quote);
    let l3 = samples::error(4, 3, 4, &quote);
    let embedded = embedded(&parsed(4, &l3), &l3).unwrap();
    let (vrf, vif) = (VrfId::new(18).unwrap(), VifId::new(5).unwrap());
    assert_eq!(embedded.flow_key(vrf, vif), key(&forward).reversed(vrf, vif));
    assert_eq!((embedded.offset, embedded.header_len, embedded.l4_len), (28, 20, 16));
    assert_eq!((embedded.sport, embedded.dport), (53, 7936));
}

#[test]
fn a_quote_may_be_cut_after_eight_octets_and_have_a_wrong_checksum() {
    let mut quote = samples::tcp4(&[0; 900]);
    quote.truncate(28);
    quote[8] = 1; // a router on the way changed the TTL
    let l3 = samples::error(4, 11, 0, &quote);
    let embedded = embedded(&parsed(4, &l3), &l3).unwrap();
    assert_eq!((embedded.sport, embedded.dport, embedded.proto), (80, 40000, 6));
}

#[test]
fn a_quoted_echo_keeps_its_identifier() {
    for (version, kind, quote) in [(4, 3, samples::ping4(77, b"")), (6, 1, samples::ping6(77, b""))] {
        let l3 = samples::error(version, kind, 0, &quote);
        let embedded = embedded(&parsed(version, &l3), &l3).unwrap();
        assert_eq!((embedded.sport, embedded.dport), (77, 0));
        let quoted = parsed(version, &quote);
        assert_eq!((embedded.src, embedded.dst), (quoted.dst, quoted.src));
    }
}

#[test]
fn an_error_about_an_error_is_refused() {
    let (inner4, inner6) = (samples::error(4, 3, 1, &samples::udp4(b"")), samples::error(6, 1, 0, &samples::udp6(b"")));
    for (version, kind, quote) in [(4, 11, inner4), (6, 3, inner6)] {
        let l3 = samples::error(version, kind, 0, &quote);
        assert_eq!(embedded(&parsed(version, &l3), &l3), Err(DropReason::IcmpErrorUnmatched));
    }
    let ping = samples::ping4(1, b"");
    assert_eq!(embedded(&parsed(4, &ping), &ping), Err(DropReason::IcmpErrorUnmatched));
}

#[test]
fn a_quoted_later_fragment_has_no_ports() {
    let quote = raw4(&[], 17, 9, 0x0003, V4.0, V4.1, &[7; 8]);
    let l3 = samples::error(4, 11, 0, &quote);
    let embedded = embedded(&parsed(4, &l3), &l3).unwrap();
    assert!(embedded.is_later_fragment());
    assert_eq!((embedded.sport, embedded.dport), (0, 0));
}

#[test]
fn an_error_with_a_wrong_checksum_is_refused() {
    for (version, l3) in
        [(4, samples::error(4, 3, 1, &samples::udp4(b""))), (6, samples::error(6, 1, 0, &samples::udp6(b"")))]
    {
        let mut l3 = l3;
        *l3.last_mut().unwrap() ^= 1;
        assert_eq!(embedded(&parsed(version, &l3), &l3), Err(DropReason::ChecksumErr));
    }
}

#[test]
fn multi_part_extensions_are_not_part_of_the_quote() {
    // RFC 4884 §5.1: the quote is padded to 128 octets, 32 words.
    let mut message = samples::udp4(b"12345678");
    message.resize(128, 0);
    message.extend_from_slice(&[0x20, 0, 0, 0]);
    let mut l3 = samples::error(4, 11, 0, &message);
    l3[20 + 5] = 32;
    l3[22..24].fill(0);
    let sum = crate::packet::checksum::checksum(&l3[20..]);
    l3[22..24].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(embedded(&parsed(4, &l3), &l3).unwrap().l4_len, 128 - 20);
}

#[test]
fn a_label_is_read_and_everything_but_one_good_entry_is_refused() {
    let entry = |label: u32, tc: u8, bottom: bool, ttl: u8, next: u8| {
        let word = label << 12 | u32::from(tc) << 9 | u32::from(bottom) << 8 | u32::from(ttl);
        [&word.to_be_bytes()[..], &[next]].concat()
    };
    let good = mpls_udp(&entry(280, 5, true, 63, 0x45)).unwrap();
    let label = Label::new(280).unwrap();
    assert_eq!(good, MplsUdp { label, tc: 5, bottom: true, ttl: 63, inner_version: 4, header_len: 4 });
    assert_eq!(mpls_udp(&entry(0xfffff, 0, true, 1, 0x60)).unwrap().inner_version, 6);
    assert_eq!(mpls_udp(&entry(280, 0, false, 63, 0x45)), Err(DropReason::InvalidLabel), "not bottom of stack");
    assert_eq!(mpls_udp(&entry(3, 0, true, 63, 0x45)), Err(DropReason::InvalidLabel), "reserved");
    assert_eq!(mpls_udp(&entry(280, 0, true, 0, 0x45)), Err(DropReason::TtlExceeded));
    assert_eq!(mpls_udp(&entry(280, 0, true, 63, 0x05)), Err(DropReason::InvalidPacket), "a control word");
    for len in 0..5 {
        assert_eq!(mpls_udp(&entry(280, 0, true, 63, 0x45)[..len]), Err(DropReason::Truncated));
    }
}

/// What every successful parse promises.
fn check_bounds(l3: &[u8], ip: &Ip) {
    assert!(usize::from(ip.total_len) <= l3.len());
    assert!(ip.header_len <= ip.total_len && ip.fixed_header_len <= ip.header_len);
    assert!(ip.fixed_header_len >= 20);
    assert_eq!(ip.payload(l3).len(), usize::from(ip.payload_len()));
    if let Ok(embedded) = embedded(ip, l3) {
        let end = usize::from(embedded.offset) + usize::from(embedded.header_len) + usize::from(embedded.l4_len);
        assert!(end <= usize::from(ip.total_len));
        assert!(embedded.offset >= ip.header_len + 8);
    }
}

#[test]
fn every_packet_of_the_zoo_parses() {
    for (version, l3) in samples::zoo() {
        check_bounds(&l3, &ip(&l3, version).unwrap_or_else(|reason| panic!("{reason:?}: {l3:02x?}")));
    }
}

#[test]
fn a_packet_cut_at_any_length_is_refused() {
    for (version, l3) in samples::zoo() {
        for len in 0..l3.len() {
            assert!(ip(&l3[..len], version).is_err(), "{len} of {l3:02x?}");
        }
    }
}

#[test]
fn a_packet_with_any_octet_changed_to_anything_stays_inside_the_frame() {
    for (version, l3) in samples::zoo() {
        for at in 0..l3.len() {
            for value in 0..=255u8 {
                let mut bad = l3.clone();
                bad[at] = value;
                for fix in [false, true] {
                    if fix && version == 4 && (5..=(bad.len() / 4).min(15)).contains(&usize::from(bad[0] & 15)) {
                        samples::fix4(&mut bad);
                    }
                    if let Ok(ip) = ip(&bad, version) {
                        check_bounds(&bad, &ip);
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn damaged_packets_never_lead_outside_the_frame((version, l3) in samples::damaged()) {
        if let Ok(ip) = ip(&l3, version) {
            check_bounds(&l3, &ip);
        }
    }

    #[test]
    fn noise_never_leads_outside_the_frame(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        for version in [4, 6] {
            if let Ok(ip) = ip(&noise, version) {
                check_bounds(&noise, &ip);
            }
        }
        if let Ok(e) = ethernet(&noise) {
            prop_assert!(e.len <= noise.len());
        }
        let _ = mpls_udp(&noise);
    }

    #[test]
    fn what_is_accepted_reads_as_etherparse_reads_it((version, l3) in samples::damaged()) {
        let Ok(ours) = ip(&l3, version) else { return Ok(()) };
        // etherparse is stricter in a few places; where both accept, the fields agree.
        let Ok(theirs) = etherparse::SlicedPacket::from_ip(&l3) else { return Ok(()) };
        let (tos, ttl, total_len) = match &theirs.net {
            Some(etherparse::NetSlice::Ipv4(net)) => {
                let header = net.header();
                prop_assert_eq!(ours.src, samples::key4(header.source()));
                prop_assert_eq!(usize::from(ours.header_len), header.slice().len());
                prop_assert_eq!(ours.df, header.dont_fragment());
                (header.slice()[1], header.ttl(), header.total_len())
            }
            Some(etherparse::NetSlice::Ipv6(net)) => {
                let header = net.header();
                prop_assert_eq!(ours.dst, header.destination());
                (header.traffic_class(), header.hop_limit(), header.payload_length() + 40)
            }
            _ => return Ok(()),
        };
        prop_assert_eq!((ours.tos, ours.ttl, ours.total_len), (tos, ttl, total_len));
        match theirs.transport {
            Some(etherparse::TransportSlice::Udp(udp)) if ours.proto == PROTO_UDP && ours.has_l4() => {
                prop_assert_eq!((ours.sport, ours.dport), (udp.source_port(), udp.destination_port()));
            }
            Some(etherparse::TransportSlice::Tcp(tcp)) if ours.proto == PROTO_TCP && ours.has_l4() => {
                prop_assert_eq!((ours.sport, ours.dport), (tcp.source_port(), tcp.destination_port()));
                prop_assert_eq!(ours.tcp_flags & tcp_flags::SYN != 0, tcp.syn());
            }
            _ => {}
        }
    }
}
