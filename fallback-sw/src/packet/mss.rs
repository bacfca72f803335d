//! Clamping the maximum segment size of TCP (RFC 9293 §3.7.1).
#![forbid(unsafe_code)]

use super::{
    checksum,
    parse::{Ip, PROTO_TCP, tcp_flags},
};

/// Octets of a TCP header without options.
const FIXED_LEN: usize = 20;
/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// Lowers the MSS option of a SYN or SYN-ACK to at most `max`, with the checksum. Says whether it changed anything.
///
/// Never raises, never adds the option, and leaves a segment alone whose options are malformed. `ip` was parsed from `l3`.
pub fn clamp(l3: &mut [u8], ip: &Ip, max: u16) -> bool {
    if ip.proto != PROTO_TCP || ip.tcp_flags & tcp_flags::SYN == 0 || !ip.has_l4() {
        return false;
    }
    let Some(segment) = l3.get_mut(usize::from(ip.header_len)..usize::from(ip.total_len)) else { return false };
    let Some(&[high, low]) = segment.get(CHECKSUM..).and_then(<[u8]>::first_chunk::<2>) else { return false };
    let Some(data_offset) = segment.get(12).map(|octet| usize::from(octet >> 4) * 4) else { return false };
    let Some(options) = segment.get_mut(FIXED_LEN..data_offset) else { return false };
    if !is_well_formed(options) {
        return false;
    }
    let old = u16::from_be_bytes([high, low]);
    let Some(new) = clamp_options(options, max, old) else { return false };
    if let Some(field) = segment.get_mut(CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = new.to_be_bytes();
    }
    true
}

/// Every option lies inside the header and every MSS option has its length.
fn is_well_formed(mut options: &[u8]) -> bool {
    loop {
        options = match *options {
            [] | [END, ..] => return true,
            [NOP, ref rest @ ..] => rest,
            [MSS, len, ..] if len != MSS_LEN => return false,
            [_, len, ..] if len >= 2 => match options.get(usize::from(len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Lowers every MSS option (there should be one; receivers differ in which of several they take) and returns the checksum,
/// or `None` when nothing was higher than `max`.
fn clamp_options(options: &mut [u8], max: u16, mut checksum: u16) -> Option<u16> {
    let mut changed = false;
    let mut at = 0;
    while let Some(option) = options.get_mut(at..) {
        let step = match option {
            [NOP, ..] => 1,
            [MSS, MSS_LEN, high, low, ..] => {
                let old = u16::from_be_bytes([*high, *low]);
                if old > max {
                    [*high, *low] = max.to_be_bytes();
                    // At an odd offset the value lies across two words: its sum is that of the swapped octets (RFC 1071 §2B).
                    // The options begin at an even offset, the value two octets behind its option.
                    checksum = if at % 2 == 0 {
                        checksum::update16(checksum, old, max)
                    } else {
                        checksum::update16(checksum, old.swap_bytes(), max.swap_bytes())
                    };
                    changed = true;
                }
                usize::from(MSS_LEN)
            }
            [kind, len, ..] if *kind != END => usize::from((*len).max(2)),
            _ => break,
        };
        at += step;
    }
    changed.then_some(checksum)
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv6Header, TcpHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;

    /// A segment with these options as they are, padded with zeros to a multiple of four.
    fn segment(version: u8, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(4000, 80, 0x0102_0304, 65535);
        tcp.set_options_raw(options).unwrap();
        tcp.syn = flags & tcp_flags::SYN != 0;
        tcp.ack = flags & tcp_flags::ACK != 0;
        let mut out = Vec::new();
        if version == 4 {
            let ip =
                Ipv4Header::new(tcp.header_len() as u16, 64, etherparse::IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2])
                    .unwrap();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).unwrap();
            ip.write(&mut out).unwrap();
        } else {
            let ip = Ipv6Header {
                payload_length: tcp.header_len() as u16,
                next_header: etherparse::IpNumber::TCP,
                hop_limit: 64,
                source: [0x20; 16],
                destination: [0x30; 16],
                ..Ipv6Header::default()
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).unwrap();
            ip.write(&mut out).unwrap();
        }
        tcp.write(&mut out).unwrap();
        out
    }

    fn clamp_it(l3: &mut [u8], version: u8, max: u16) -> bool {
        let ip = parse::ip(l3, version).unwrap();
        clamp(l3, &ip, max)
    }

    /// The first MSS value and whether the checksum holds, as etherparse sees them.
    fn look(l3: &[u8]) -> (Option<u16>, bool) {
        let packet = etherparse::SlicedPacket::from_ip(l3).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        let mss = tcp.options_iterator().find_map(|option| match option {
            Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        let right = match packet.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => {
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
            }
            Some(etherparse::NetSlice::Ipv6(ip)) => {
                tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
            }
            _ => panic!("no IP"),
        };
        (mss, right.unwrap() == tcp.checksum())
    }

    #[test]
    fn a_segment_that_is_no_syn_is_left_alone() {
        let mut l3 = segment(4, tcp_flags::ACK, &[2, 4, 5, 180]);
        let before = l3.clone();
        assert!(!clamp_it(&mut l3, 4, 500));
        assert_eq!(l3, before);
    }

    #[test]
    fn malformed_options_leave_the_segment_unchanged() {
        for options in [
            &[2, 4, 5, 180, 3, 9, 0, 0][..], // runs out of the header
            &[2, 4, 5, 180, 8, 0, 0, 0],     // length 0
            &[2, 4, 5, 180, 8, 1, 0, 0],     // length 1
            &[2, 3, 5, 2, 4, 5, 180, 0],     // MSS of three octets
            &[2, 6, 5, 180, 0, 0, 1, 1],     // MSS of six octets
            &[1, 1, 1, 2],                   // ends behind the kind
        ] {
            let mut l3 = segment(4, tcp_flags::SYN, options);
            let before = l3.clone();
            assert!(!clamp_it(&mut l3, 4, 500), "{options:?}");
            assert_eq!(l3, before, "{options:?}");
        }
    }

    #[test]
    fn an_option_behind_the_end_of_list_is_not_an_option() {
        let mut l3 = segment(4, tcp_flags::SYN, &[0, 0, 0, 0, 2, 4, 5, 180]);
        assert!(!clamp_it(&mut l3, 4, 500));
    }

    proptest! {
        #[test]
        fn the_option_is_only_lowered_and_the_checksum_holds_at_every_offset(
            v6 in any::<bool>(), ack in any::<bool>(), pad in 0usize..20, mss in any::<u16>(), max in any::<u16>(),
        ) {
            let version = if v6 { 6 } else { 4 };
            let mut options = vec![NOP; pad];
            options.extend_from_slice(&[2, 4]);
            options.extend_from_slice(&mss.to_be_bytes());
            let flags = tcp_flags::SYN | if ack { tcp_flags::ACK } else { 0 };
            let mut l3 = segment(version, flags, &options);
            let changed = clamp_it(&mut l3, version, max);
            prop_assert_eq!(changed, mss > max);
            prop_assert_eq!(look(&l3), (Some(mss.min(max)), true));
        }
    }
}
