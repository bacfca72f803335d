//! What holds for every module: whatever the frame holds, nothing panics and nothing grows.

use offload_rules::DropReason;
use proptest::prelude::*;

use super::{
    Packet, arp, ecn, fragment, icmp, mss, nd, parse, rewrite,
    samples::{self, damaged, zoo},
};

/// Does everything to a packet that the modules here can do.
fn handle(version: u8, l3: &[u8]) {
    let mut changed = l3.to_vec();
    let _ = rewrite::decrement_ttl(&mut changed, 1);
    rewrite::set_tos(&mut changed, 0xb8);
    rewrite::set_ecn(&mut changed, ecn::Ecn::Ce);
    assert_eq!(changed.len(), l3.len());
    let _ = (arp::Arp::parse(l3), parse::mpls_udp(l3), parse::ethernet(l3));
    let Ok(ip) = parse::ip(l3, version) else { return };

    let mut changed = l3.to_vec();
    mss::clamp(&mut changed, &ip, 500);
    let _ = icmp::echo_reply(&ip, &mut changed, None);
    let _ = (nd::parse(&ip, l3), parse::embedded(&ip, l3));
    for mtu in [0, 27, 28, 68, 100] {
        let mut out = Vec::new();
        match fragment::split(l3, &ip, mtu, &mut Vec::new(), &mut out) {
            Ok(()) => assert!(out.iter().all(|packet| packet.len() <= usize::from(mtu).max(28))),
            Err(reason) => assert!(reason == DropReason::PacketTooBig && out.is_empty()),
        }
    }
    // Applied to a slice that is not the one it was parsed from, the result may be useless but nothing breaks.
    for len in [0, 1, 20, 30] {
        let mut cut = l3.to_vec();
        cut.truncate(len);
        mss::clamp(&mut cut, &ip, 500);
        let _ = icmp::echo_reply(&ip, &mut cut, None);
        let _ = (nd::parse(&ip, &cut), parse::embedded(&ip, &cut));
        let _ = fragment::split(&cut, &ip, 100, &mut Vec::new(), &mut Vec::new());
        let _ = icmp::error(icmp::IcmpError::TimeExceeded, &ip, &cut, ip.destination());
    }
}

#[test]
fn packets_of_every_kind_may_be_cut_anywhere_and_have_any_octet_wrong() {
    for (version, l3) in zoo() {
        for len in 0..=l3.len() {
            handle(version, &l3[..len]);
        }
        for at in 0..l3.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = l3.clone();
                bad[at] ^= flip;
                if version == 4 && (20..=bad.len()).contains(&(usize::from(bad[0] & 15) * 4)) {
                    samples::fix4(&mut bad);
                }
                handle(version, &bad);
            }
        }
    }
}

#[test]
fn a_whole_tunnel_frame_may_be_cut_anywhere() {
    let template = rewrite::OuterTemplate::new(
        [10, 101, 10, 39].into(),
        [10, 101, 9, 245].into(),
        6635,
        offload_rules::Label::new(280).unwrap(),
    );
    let inner = samples::tcp6(b"data");
    let mut packet = Packet::from_frame(&inner);
    let outer = rewrite::Outer { inner_len: inner.len() as u16, id: 7, tos: 0xb8, sport: 50000, ttl: 63, tc: 5 };
    template.write(packet.prepend(rewrite::OUTER_LEN).unwrap(), &outer).unwrap();
    let l2 = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 100, 0x81, 0, 0, 200, 0, 0];
    rewrite::write_l2(packet.prepend(22).unwrap(), &l2, parse::ETHERTYPE_IPV4, Some(3)).unwrap();

    let open = |frame: &[u8]| -> Result<usize, DropReason> {
        let ethernet = parse::ethernet(frame)?;
        let l3 = frame.get(ethernet.len..).unwrap_or(&[]);
        let outer = parse::ip(l3, 4)?;
        let payload = outer.payload(l3).get(8..).unwrap_or(&[]);
        let mpls = parse::mpls_udp(payload)?;
        let inner = payload.get(mpls.header_len..).unwrap_or(&[]);
        parse::ip(inner, mpls.inner_version).map(|ip| usize::from(ip.total_len))
    };
    for len in 0..packet.len() {
        assert!(open(&packet.data()[..len]).is_err(), "{len}");
    }
    assert_eq!(open(packet.data()), Ok(inner.len()));
    for at in 0..packet.len() {
        for value in 0..=255 {
            let mut bad = packet.data().to_vec();
            bad[at] = value;
            let _ = open(&bad);
        }
    }
}

proptest! {
    #[test]
    fn damaged_packets_break_nothing((version, l3) in damaged()) {
        handle(version, &l3);
    }

    #[test]
    fn a_buffer_keeps_its_content_through_any_sequence_of_changes(
        frame in proptest::collection::vec(any::<u8>(), 0..3000),
        steps in proptest::collection::vec((0u8..5, 0usize..300), 0..30),
    ) {
        let mut packet = Packet::from_frame(&frame);
        let mut model = frame;
        for (what, octets) in steps {
            match what {
                0 => {
                    if let Ok(room) = packet.prepend(octets) {
                        room.fill(7);
                        model.splice(0..0, vec![7; octets]);
                    }
                }
                1 => {
                    if let Ok(room) = packet.extend(octets) {
                        room.fill(8);
                        model.resize(model.len() + octets, 8);
                    }
                }
                2 => {
                    packet.advance(octets);
                    model.drain(..octets.min(model.len()));
                }
                3 => {
                    packet.truncate(octets);
                    model.truncate(octets);
                }
                _ => {
                    model = vec![9; octets * 10];
                    packet.refill(&model);
                }
            }
            prop_assert_eq!(packet.data(), &model[..]);
            prop_assert_eq!(packet.len(), model.len());
        }
    }
}
