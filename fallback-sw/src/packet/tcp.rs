//! TCP segments that the node writes: without data, and existing ones with other numbers (RFC 9293).
#![forbid(unsafe_code)]

use super::{
    Packet, checksum,
    parse::{self, Ip, PROTO_TCP, tcp_flags},
};

/// Octets of a TCP header without options.
const FIXED_LEN: usize = 20;
/// Offsets in the TCP header.
const SEQ: usize = 4;
const ACK: usize = 8;
const CHECKSUM: usize = 16;
/// TTL and hop limit of the node's own.
const TTL: u8 = 64;

/// A segment without data. Ports are those of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bare {
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; 0 without the flag.
    pub ack: u32,
    /// Bits as in [`tcp_flags`].
    pub flags: u8,
    /// SEG.WND as it stands in the header.
    pub window: u16,
    /// The one option, for a SYN.
    pub mss: Option<u16>,
}

/// Source and destination address in the form of flow keys, and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// 4 or 6.
    pub version: u8,
    /// Source.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// An IP packet of such a segment, DF set (RFC 6864 §4.1: its identification means nothing). `None`: neither IPv4 nor IPv6.
#[must_use]
pub fn build(ends: &Ends, segment: &Bare) -> Option<Packet> {
    let mut packet = Packet::with_capacity(0);
    if ends.version == 4 {
        let ([s0, s1, s2, s3, ..], [d0, d1, d2, d3, ..]) = (ends.src, ends.dst);
        let header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, PROTO_TCP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
        packet.refill(&header);
    } else {
        let mut header = [0; 40];
        header[0] = 0x60;
        (header[6], header[7]) = (PROTO_TCP, TTL);
        header.get_mut(8..24)?.copy_from_slice(&ends.src);
        header.get_mut(24..40)?.copy_from_slice(&ends.dst);
        packet.refill(&header);
    }
    finish(packet, ends, segment).map(|(packet, _)| packet)
}

/// The packet with this segment instead of the one that it carries; its IP header stays, with the lengths that belong to it.
/// `ip` was parsed from the packet, which begins at its IP header. `None`: it is no whole TCP packet.
#[must_use]
pub fn replace(mut packet: Packet, ip: &Ip, segment: &Bare) -> Option<(Packet, Ip)> {
    if ip.proto != PROTO_TCP || ip.fragment != parse::FragmentInfo::None {
        return None;
    }
    packet.truncate(usize::from(ip.header_len));
    let ends = Ends { version: ip.version, src: ip.src, dst: ip.dst, sport: ip.sport, dport: ip.dport };
    finish(packet, &ends, segment)
}

/// Puts the segment behind the IP header and fills in the lengths and checksums of both.
fn finish(mut packet: Packet, ends: &Ends, segment: &Bare) -> Option<(Packet, Ip)> {
    let mut bytes = [0; FIXED_LEN + 4];
    let len = if segment.mss.is_some() { FIXED_LEN + 4 } else { FIXED_LEN };
    [bytes[0], bytes[1]] = ends.sport.to_be_bytes();
    [bytes[2], bytes[3]] = ends.dport.to_be_bytes();
    bytes[SEQ..SEQ + 4].copy_from_slice(&segment.seq.to_be_bytes());
    bytes[ACK..ACK + 4].copy_from_slice(&segment.ack.to_be_bytes());
    (bytes[12], bytes[13]) = ((len as u8 / 4) << 4, segment.flags);
    [bytes[14], bytes[15]] = segment.window.to_be_bytes();
    if let Some(mss) = segment.mss {
        let [high, low] = mss.to_be_bytes();
        [bytes[20], bytes[21], bytes[22], bytes[23]] = [2, 4, high, low];
    }
    let pseudo = if ends.version == 4 {
        let ([s0, s1, s2, s3, ..], [d0, d1, d2, d3, ..]) = (ends.src, ends.dst);
        checksum::pseudo_v4([s0, s1, s2, s3], [d0, d1, d2, d3], PROTO_TCP, len as u16)
    } else {
        checksum::pseudo_v6(&ends.src, &ends.dst, PROTO_TCP, len as u32)
    };
    let written = bytes.get(..len)?;
    let sum = !checksum::add(checksum::sum(written), pseudo);
    bytes[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());

    let header_len = packet.len();
    packet.extend(len).ok()?.copy_from_slice(bytes.get(..len)?);
    let total = u16::try_from(header_len + len).ok()?;
    if ends.version == 4 {
        let header = packet.data_mut().get_mut(..header_len)?;
        let h = header.first_chunk_mut::<20>()?;
        [h[2], h[3]] = total.to_be_bytes();
        (h[10], h[11]) = (0, 0);
        let sum = checksum::checksum(header).to_be_bytes();
        header.get_mut(10..12)?.copy_from_slice(&sum);
    } else {
        let payload = total.checked_sub(40)?.to_be_bytes();
        packet.data_mut().get_mut(4..6)?.copy_from_slice(&payload);
    }
    let ip = parse::ip(packet.data(), ends.version).ok()?;
    Some((packet, ip))
}

/// Which of a segment's numbers belongs to the end that shows others than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The sequence number.
    Seq,
    /// The acknowledgement, where the segment has one.
    Ack,
}

/// Adds `by` to a number of the segment in the packet `l3`, which `ip` was parsed from, with its checksum (RFC 1624). Of an
/// ICMP error, the packet that it quotes is changed, with all checksums that are there. Anything else stays as it is.
pub fn shift(l3: &mut [u8], ip: &Ip, number: Number, by: u32) {
    let Some(payload) = l3.get_mut(usize::from(ip.header_len)..usize::from(ip.total_len)) else { return };
    if ip.proto == PROTO_TCP && ip.has_l4() {
        shift_segment(payload, number, by);
    } else if ip.is_icmp_error && ip.fragment == parse::FragmentInfo::None {
        shift_quoted(payload, number, by);
    }
}

/// What shifting a number changed, before and after.
struct Shifted {
    number: (u32, u32),
    /// Where the segment is long enough to have one.
    checksum: Option<(u16, u16)>,
}

fn shift_segment(segment: &mut [u8], number: Number, by: u32) -> Option<Shifted> {
    let at = match number {
        Number::Seq => SEQ,
        Number::Ack => ACK,
    };
    if number == Number::Ack && segment.get(13)? & tcp_flags::ACK == 0 {
        return None;
    }
    let field = segment.get_mut(at..)?.first_chunk_mut::<4>()?;
    let old = u32::from_be_bytes(*field);
    let new = old.wrapping_add(by);
    *field = new.to_be_bytes();
    let sums = segment.get_mut(CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>).map(|field| {
        let before = u16::from_be_bytes(*field);
        let after = checksum::update32(before, old, new);
        *field = after.to_be_bytes();
        (before, after)
    });
    Some(Shifted { number: (old, new), checksum: sums })
}

fn shift_quoted(message: &mut [u8], number: Number, by: u32) -> Option<()> {
    const ICMP_LEN: usize = 8;
    let (icmp, quoted) = message.split_first_chunk_mut::<ICMP_LEN>()?;
    let first = *quoted.first()?;
    let (proto, header_len) = match first >> 4 {
        4 => (*quoted.get(9)?, usize::from(first & 0x0f) * 4),
        _ => (*quoted.get(6)?, 40),
    };
    if proto != PROTO_TCP {
        return None;
    }
    let changed = shift_segment(quoted.get_mut(header_len..)?, number, by)?;
    let (old, new) = changed.number;
    let mut sum = checksum::update32(u16::from_be_bytes([icmp[2], icmp[3]]), old, new);
    if let Some((before, after)) = changed.checksum {
        sum = checksum::update16(sum, before, after);
    }
    [icmp[2], icmp[3]] = sum.to_be_bytes();
    Some(())
}

/// What a SYN says of its sender's largest segment; `None` without the option (RFC 9293 §3.7.1: 536, in IPv6 1220).
/// `segment` begins at the TCP header.
#[must_use]
pub fn mss(segment: &[u8]) -> Option<u16> {
    let data_offset = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(FIXED_LEN..data_offset)?;
    loop {
        options = match *options {
            [] | [0, ..] => return None,
            [1, ref rest @ ..] => rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::packet::samples;

    /// Numbers of a TCP packet whose checksums etherparse finds right.
    fn read(l3: &[u8]) -> (u32, u32, Option<u16>) {
        let sliced = SlicedPacket::from_ip(l3).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let right = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
                tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
            }
            NetSlice::Ipv6(ip) => tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
            NetSlice::Arp(_) => panic!("no IP"),
        };
        assert_eq!(right.unwrap(), tcp.checksum());
        (tcp.sequence_number(), tcp.acknowledgment_number(), mss(tcp.slice()))
    }

    proptest! {
        #[test]
        fn shifted_numbers_leave_right_checksums(by: u32, payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut l3 = samples::tcp6(&payload);
            let ip = parse::ip(&l3, 6).unwrap();
            shift(&mut l3, &ip, Number::Seq, by);
            shift(&mut l3, &ip, Number::Ack, by);
            prop_assert_eq!(read(&l3), (7u32.wrapping_add(by), 9u32.wrapping_add(by), None));
            // A SYN has no acknowledgement.
            let mut l3 = samples::tcp4(&payload);
            let ip = parse::ip(&l3, 4).unwrap();
            shift(&mut l3, &ip, Number::Ack, by);
            prop_assert_eq!(read(&l3), (7, 0, None));
        }

        #[test]
        fn a_quoted_segment_is_shifted_with_every_checksum(by: u32, v6: bool, len in prop_oneof![Just(8usize), Just(20)]) {
            let (quote, header_len) = if v6 { (samples::tcp6(&[]), 40) } else { (samples::tcp4(&[]), 20) };
            let version = if v6 { 6 } else { 4 };
            let mut l3 = samples::error(version, if v6 { 2 } else { 3 }, if v6 { 0 } else { 4 }, &quote[..header_len + len]);
            let ip = parse::ip(&l3, version).unwrap();
            shift(&mut l3, &ip, Number::Seq, by);
            prop_assert!(crate::packet::icmp::checksum_holds(&ip, ip.payload(&l3)));
            let at = usize::from(ip.header_len) + 8 + header_len;
            prop_assert_eq!(&l3[at + 4..at + 8], &7u32.wrapping_add(by).to_be_bytes()[..]);
        }

        #[test]
        fn a_bare_segment_is_whole(v6: bool, seq: u32, ack: u32, flags in 0u8..64, window: u16, mss in proptest::option::of(88u16..)) {
            let l3 = if v6 { samples::tcp6(b"data") } else { samples::tcp4(b"data") };
            let ip = parse::ip(&l3, l3[0] >> 4).unwrap();
            let segment = Bare { seq, ack, flags, window, mss };
            let (replaced, ip) = replace(Packet::from_frame(&l3), &ip, &segment).unwrap();
            prop_assert_eq!(read(replaced.data()), (seq, ack, mss));
            let ends = Ends { version: ip.version, src: ip.src, dst: ip.dst, sport: ip.sport, dport: ip.dport };
            let built = build(&ends, &segment).unwrap();
            prop_assert_eq!(read(built.data()), (seq, ack, mss));
            prop_assert_eq!(usize::from(ip.total_len), replaced.len());
        }
    }
}
