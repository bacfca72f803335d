use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::*;

/// A frame as a stack leaves it to the device: the transport checksum field holds the sum of the pseudo header only.
fn tcp_super_frame(v6: bool, tags: &[[u8; 4]], payload: &[u8]) -> (Vec<u8>, VnetHeader) {
    let mac = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = if v6 { mac.ipv6([1; 16], [2; 16], 64) } else { mac.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
    let tcp = ip.tcp(40000, 80, 0xffff_fff0, 1024).ack(7).psh().fin();
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).unwrap();
    frame[14 + if v6 { 40 } else { 20 } + 13] |= TCP_CWR;
    for tag in tags.iter().rev() {
        frame.splice(12..12, tag.iter().copied());
    }
    let l4 = u16::try_from(14 + 4 * tags.len() + if v6 { 40 } else { 20 }).unwrap();
    let gso_type = if v6 { GSO_TCPV6 } else { GSO_TCPV4 } | GSO_ECN;
    (frame, VnetHeader { flags: NEEDS_CSUM, gso_type, gso_size: 100, csum_start: l4, csum_offset: 16 })
}

fn cut(frame: &[u8], header: VnetHeader) -> Result<Vec<Vec<u8>>, NotWhole> {
    let mut out = VecDeque::new();
    let count = segment(frame, Link::Ethernet, header, &mut out, &mut Vec::new())?;
    assert_eq!(count, out.len());
    Ok(out.iter().map(|packet| packet.data().to_vec()).collect())
}

/// Checks a frame with a parser that is not ours; returns its TCP header and payload.
fn parse(frame: &[u8]) -> (etherparse::TcpHeader, Vec<u8>, Option<u16>) {
    let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let net = parsed.net.unwrap();
    let Some(TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("not TCP") };
    let payload = parsed.payload.slice().to_vec();
    let id = match net {
        etherparse::NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &payload).unwrap());
            Some(ip.identification)
        }
        etherparse::NetHeaders::Ipv6(ip, _) => {
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&ip, &payload).unwrap());
            None
        }
        other @ etherparse::NetHeaders::Arp(_) => panic!("not IP: {other:?}"),
    };
    (tcp, payload, id)
}

proptest! {
    #[test]
    fn segments_are_what_the_sender_would_have_sent(v6: bool, tags in 0usize..3, len in 1usize..2000) {
        let tags = vec![[0x81, 0x00, 0x20, 0x05]; tags];
        let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let (frame, header) = tcp_super_frame(v6, &tags, &payload);
        let segments = cut(&frame, header).unwrap();
        prop_assert_eq!(segments.len(), len.div_ceil(100));
        let mut joined = Vec::new();
        let mut first_id = None;
        for (number, segment) in segments.iter().enumerate() {
            let (tcp, part, id) = parse(segment);
            let last = number + 1 == segments.len();
            prop_assert_eq!(tcp.sequence_number, 0xffff_fff0_u32.wrapping_add(number as u32 * 100));
            prop_assert_eq!((tcp.fin, tcp.psh, tcp.ack, tcp.cwr), (last, last, true, number == 0));
            first_id = first_id.or(id);
            prop_assert_eq!(id, first_id.map(|id| id.wrapping_add(number as u16)));
            prop_assert!(segment.starts_with(&frame[..12 + 4 * tags.len() + 2]));
            joined.extend(part);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn no_frame_and_no_header_panics(frame in proptest::collection::vec(any::<u8>(), 0..200), octets: [u8; VNET_HEADER]) {
        let header = VnetHeader::read(&octets);
        let _ = cut(&frame, header);
        let _ = complete_checksum(&mut frame.clone(), header);
    }

    #[test]
    fn a_damaged_super_frame_never_panics(v6: bool, at in 12usize..80, value: u8, cut_at in 0usize..300) {
        let (mut frame, header) = tcp_super_frame(v6, &[], &[1; 250]);
        let at = at.min(frame.len() - 1);
        frame[at] = value;
        frame.truncate(cut_at);
        let _ = cut(&frame, header);
    }
}

#[test]
fn udp_datagrams_get_their_own_length_and_checksum() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(1, 2);
    builder.write(&mut frame, &[0x5a; 250]).unwrap();
    let header = VnetHeader { flags: NEEDS_CSUM, gso_type: GSO_UDP_L4, gso_size: 100, csum_start: 54, csum_offset: 6 };
    let lengths: Vec<_> = cut(&frame, header)
        .unwrap()
        .iter()
        .map(|segment| {
            let parsed = PacketHeaders::from_ethernet_slice(segment).unwrap();
            let (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) =
                (parsed.net, parsed.transport)
            else {
                panic!("not UDP over IPv6")
            };
            assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, parsed.payload.slice()).unwrap());
            udp.length
        })
        .collect();
    assert_eq!(lengths, [108, 108, 58]);
}

#[test]
fn a_partial_checksum_is_completed() {
    let mut whole = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 1, 2, 3], [10, 4, 5, 6], 64)
        .udp(9, 10)
        .write(&mut whole, b"odd")
        .unwrap();
    let mut partial = whole.clone();
    // RFC 768: source, destination, protocol, length; not complemented.
    let pseudo = sum(&whole[26..34], 17 + 11);
    partial[40..42].copy_from_slice(&(!fold(pseudo)).to_be_bytes());
    let header = VnetHeader { flags: NEEDS_CSUM, gso_type: GSO_NONE, gso_size: 0, csum_start: 34, csum_offset: 6 };
    complete_checksum(&mut partial, header).unwrap();
    assert_eq!(partial, whole);
}

#[test]
fn an_offload_inside_a_tunnel_is_refused() {
    let (frame, header) = tcp_super_frame(false, &[], &[1; 250]);
    assert_eq!(cut(&frame, header.shifted(50)), Err(NotWhole));
    assert_eq!(cut(&frame, VnetHeader { gso_type: GSO_UDP_L4, ..header }), Err(NotWhole));
    assert_eq!(cut(&frame, VnetHeader { gso_size: 0, ..header }), Err(NotWhole));
}
