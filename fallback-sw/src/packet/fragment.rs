//! Splitting packets into fragments: IPv4 (RFC 791 §3.2), and IPv6 where it is the node's own (RFC 8200 §4.5).
#![forbid(unsafe_code)]

use offload_rules::{DropReason, forwarding::L2Rewrite};

use super::{
    Packet, checksum,
    parse::{self, Ip},
    rewrite,
};

/// More fragments: bit of the word of flags and offset.
const MORE: u16 = 0x2000;
/// Offset, in units of 8 octets, in that word.
const OFFSET: u16 = 0x1fff;
/// Largest IPv4 header.
const MAX_HEADER: usize = 60;

/// Splits the IPv4 packet `l3`, which `ip` was parsed from, into fragments of at most `mtu` octets and appends them to `out`,
/// in order; each begins at its IP header. A packet that fits comes out whole. A fragment is split into smaller ones.
///
/// Memory is taken from `spare` as long as it has some.
///
/// # Errors
/// [`DropReason::PacketTooBig`]: DF is set or the packet is IPv6 (answer with [`super::icmp::IcmpError::TooBig`]), or `mtu`
/// leaves no room for eight octets of data. [`DropReason::Truncated`]: `l3` is shorter than `ip` says. Nothing is appended.
pub fn split(l3: &[u8], ip: &Ip, mtu: u16, spare: &mut Vec<Packet>, out: &mut Vec<Packet>) -> Result<(), DropReason> {
    let mtu = usize::from(mtu);
    let Some(whole) = l3.get(..usize::from(ip.total_len)) else { return Err(DropReason::Truncated) };
    if whole.len() <= mtu {
        out.push(take(spare, whole, &[]));
        return Ok(());
    }
    if ip.version != 4 || ip.df {
        return Err(DropReason::PacketTooBig);
    }
    let Some((original, data)) = whole.split_at_checked(usize::from(ip.header_len)) else {
        return Err(DropReason::Truncated);
    };
    let word = original.get(6..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |word| u16::from_be_bytes(*word));
    let (flags, offset) = (word & !OFFSET, word & OFFSET);

    let first = Header::copy(original);
    // Options that are not copied appear in the first fragment only: the one at offset 0.
    let later = Header::without_uncopied_options(original);
    if mtu < first.len + 8 || mtu < later.len + 8 {
        return Err(DropReason::PacketTooBig);
    }
    let mut at = 0;
    while at < data.len() {
        let mut header = if at == 0 { first } else { later };
        let room = (mtu - header.len) & !7;
        let rest = data.get(at..).unwrap_or(&[]);
        let (piece, more) = match rest.split_at_checked(room) {
            Some((piece, rest)) if !rest.is_empty() => (piece, MORE),
            _ => (rest, 0),
        };
        // Invariant: at is a multiple of 8 and data ends at or before 65535, so the sum keeps to 13 bits.
        header.finish(flags | more | (offset + (at / 8) as u16) & OFFSET, piece.len());
        out.push(take(spare, header.octets(), piece));
        at += piece.len();
    }
    Ok(())
}

/// Splits the outer IPv4 packet that `packet` holds into fragments of at most `mtu` octets, each behind this Ethernet header with this
/// 802.1p priority.
///
/// # Errors
/// As [`split`]; [`DropReason::NoHeadroom`]. Nothing is left over.
pub fn outer(
    packet: &Packet,
    mtu: u16,
    (l2, pcp): (Option<&L2Rewrite>, Option<u8>),
    spare: &mut Vec<Packet>,
) -> Result<Vec<Packet>, DropReason> {
    const IPV4: u16 = 0x0800;
    let ip = parse::ip(packet.data(), 4)?;
    let mut pieces = Vec::with_capacity(3);
    split(packet.data(), &ip, mtu, spare, &mut pieces)?;
    if let Some(l2) = l2 {
        for piece in &mut pieces {
            let header = l2.bytes();
            let room = piece.prepend(header.len()).map_err(|_| DropReason::NoHeadroom)?;
            rewrite::write_l2(room, header, IPV4, pcp)?;
        }
    }
    Ok(pieces)
}

/// The headers of an IPv6 packet that each of its fragments repeats (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PerFragment {
    /// Where the octet is that names what follows them.
    pub(super) next_at: usize,
    /// What follows them.
    pub(super) next: u8,
    /// Their octets.
    pub(super) end: usize,
}

/// The fixed header with hop-by-hop options, destination options and routing header, as far as they are there.
pub(super) fn per_fragment_headers(l3: &[u8]) -> Option<PerFragment> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION_OPTIONS: u8 = 60;
    let (mut next_at, mut end) = (6, 40);
    // The parser takes no more than eight extension headers.
    for _ in 0..=8 {
        let next = *l3.get(next_at)?;
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            return (end <= l3.len()).then_some(PerFragment { next_at, next, end });
        }
        next_at = end;
        end += (usize::from(*l3.get(end + 1)?) + 1) * 8;
    }
    None
}

/// Splits the IPv6 packet `l3`, which the node has made and `ip` was parsed from, into fragments of at most `mtu` octets with
/// this identification and appends them to `out`, in order.
///
/// # Errors
/// [`DropReason::PacketTooBig`]: `mtu` leaves no room for eight octets of data. [`DropReason::ExtensionHeaders`]: a chain that
/// cannot be split. [`DropReason::Truncated`]: `l3` is shorter than `ip` says. Nothing is appended.
pub fn split_at_source(
    l3: &[u8],
    ip: &Ip,
    mtu: u16,
    id: u32,
    spare: &mut Vec<Packet>,
    out: &mut Vec<Packet>,
) -> Result<(), DropReason> {
    const FRAGMENT: u8 = 44;
    const FRAGMENT_LEN: usize = 8;
    let Some(whole) = l3.get(..usize::from(ip.total_len)) else { return Err(DropReason::Truncated) };
    let chain =
        per_fragment_headers(whole).filter(|chain| chain.next != FRAGMENT).ok_or(DropReason::ExtensionHeaders)?;
    let Some((original, data)) = whole.split_at_checked(chain.end) else { return Err(DropReason::Truncated) };
    let mut header = original.to_vec();
    if let Some(next) = header.get_mut(chain.next_at) {
        *next = FRAGMENT;
    }
    header.extend_from_slice(&[chain.next, 0, 0, 0]);
    header.extend_from_slice(&id.to_be_bytes());
    let room = usize::from(mtu).saturating_sub(header.len()) & !7;
    if room == 0 {
        return Err(DropReason::PacketTooBig);
    }
    let pieces = data.chunks(room);
    let last = pieces.len().saturating_sub(1);
    for (i, piece) in pieces.enumerate() {
        // Invariant: room is a multiple of 8, and the data ends at or before 65535.
        let word = ((i * room) as u16 | u16::from(i != last)).to_be_bytes();
        let length = ((chain.end - 40 + FRAGMENT_LEN + piece.len()) as u16).to_be_bytes();
        if let Some(field) = header.get_mut(4..6) {
            field.copy_from_slice(&length);
        }
        if let Some(field) = header.get_mut(chain.end + 2..chain.end + 4) {
            field.copy_from_slice(&word);
        }
        out.push(take(spare, &header, piece));
    }
    Ok(())
}

/// A packet of two parts.
fn take(spare: &mut Vec<Packet>, head: &[u8], tail: &[u8]) -> Packet {
    let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(head.len() + tail.len()));
    packet.refill(head);
    match packet.extend(tail.len()) {
        Ok(room) => room.copy_from_slice(tail),
        Err(_) => {
            // The spare packet was a small one.
            packet = Packet::with_capacity(head.len() + tail.len());
            packet.refill(head);
            if let Ok(room) = packet.extend(tail.len()) {
                room.copy_from_slice(tail);
            }
        }
    }
    packet
}

/// An IPv4 header under construction.
#[derive(Clone, Copy)]
struct Header {
    bytes: [u8; MAX_HEADER],
    /// Octets in use, a multiple of 4.
    len: usize,
}

impl Header {
    fn copy(original: &[u8]) -> Self {
        let mut header = Self { bytes: [0; MAX_HEADER], len: 0 };
        header.append(original);
        header
    }

    /// The fixed part and the options whose copied flag is set (RFC 791 §3.1), padded with zeros to a whole word.
    fn without_uncopied_options(original: &[u8]) -> Self {
        const COPIED: u8 = 0x80;
        let (fixed, mut options) = original.split_at_checked(20).unwrap_or((original, &[]));
        let mut header = Self::copy(fixed);
        loop {
            options = match *options {
                [] | [0, ..] => break,
                [1, ref rest @ ..] => rest,
                // The parser has checked the lengths; should one be wrong after all, the rest is left out.
                [kind, len, ..] if len >= 2 => match options.split_at_checked(usize::from(len)) {
                    Some((option, rest)) => {
                        if kind & COPIED != 0 {
                            header.append(option);
                        }
                        rest
                    }
                    None => break,
                },
                _ => break,
            }
        }
        header.len = header.len.next_multiple_of(4);
        header
    }

    fn append(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + part.len()) {
            room.copy_from_slice(part);
            self.len += part.len();
        }
    }

    /// Fills in what is of this fragment: header length, total length, flags and offset, checksum.
    fn finish(&mut self, word: u16, data_len: usize) {
        let h = &mut self.bytes;
        h[0] = 0x40 | (self.len / 4) as u8;
        [h[2], h[3]] = ((self.len + data_len) as u16).to_be_bytes();
        [h[6], h[7]] = word.to_be_bytes();
        [h[10], h[11]] = [0, 0];
        let sum = checksum::checksum(self.octets());
        [self.bytes[10], self.bytes[11]] = sum.to_be_bytes();
    }

    fn octets(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        parse::FragmentInfo,
        samples::{V4, raw4, udp6},
    };

    fn fragments(l3: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
        let ip = parse::ip(l3, l3[0] >> 4).unwrap();
        let mut out = Vec::new();
        split(l3, &ip, mtu, &mut Vec::new(), &mut out)?;
        Ok(out.iter().map(|packet| packet.data().to_vec()).collect())
    }

    /// RFC 815's idea in its simplest form: every octet is written once, and none is missing at the end. Reads the header by
    /// etherparse, not by the parser under test.
    fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
        let mut octets: Vec<Option<u8>> = Vec::new();
        let mut end = None;
        for fragment in fragments {
            let (header, data) = etherparse::Ipv4Header::from_slice(fragment).unwrap();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(usize::from(header.total_len), fragment.len());
            let offset = usize::from(header.fragment_offset.value()) * 8;
            octets.resize(octets.len().max(offset + data.len()), None);
            for (i, octet) in data.iter().enumerate() {
                assert_eq!(octets[offset + i].replace(*octet), None, "written twice");
            }
            if !header.more_fragments {
                assert_eq!(end.replace(offset + data.len()), None, "two last fragments");
            }
        }
        assert_eq!(end, Some(octets.len()), "no last fragment");
        octets.into_iter().map(|octet| octet.expect("a hole")).collect()
    }

    #[test]
    fn a_packet_that_fits_comes_out_whole() {
        let l3 = raw4(&[], 47, 7, 0, V4.0, V4.1, &[1; 100]);
        assert_eq!(fragments(&l3, 120).unwrap(), [l3]);
    }

    #[test]
    fn dont_fragment_and_ipv6_are_honoured() {
        let l3 = raw4(&[], 47, 7, 0x4000, V4.0, V4.1, &[1; 100]);
        assert_eq!(fragments(&l3, 119), Err(DropReason::PacketTooBig));
        assert_eq!(fragments(&udp6(&[0; 100]), 119), Err(DropReason::PacketTooBig));
        let l3 = raw4(&[], 47, 7, 0, V4.0, V4.1, &[1; 100]);
        assert_eq!(fragments(&l3, 27), Err(DropReason::PacketTooBig), "no room for eight octets");
        assert_eq!(fragments(&l3, 28).unwrap().len(), 13);
    }

    #[test]
    fn only_options_with_the_copied_flag_are_in_later_fragments() {
        // Router alert (copied), record route (not), end of list.
        let options = [148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
        let out = fragments(&raw4(&options, 47, 7, 0, V4.0, V4.1, &[1; 100]), 80).unwrap();
        assert_eq!(out[0][20..32], options);
        for later in &out[1..] {
            assert_eq!(later[0], 0x46);
            assert_eq!(later[20..24], [148, 4, 0, 0]);
        }
    }

    #[test]
    fn padding_behind_the_packet_is_not_sent() {
        let mut l3 = raw4(&[], 47, 7, 0, V4.0, V4.1, &[1; 26]);
        l3.extend_from_slice(&[0xee; 18]);
        assert_eq!(reassemble(&fragments(&l3, 36).unwrap()), [1; 26]);
    }

    #[test]
    fn spare_packets_are_used_first_and_too_small_ones_are_replaced() {
        let l3 = raw4(&[], 47, 7, 0, V4.0, V4.1, &[1; 6000]);
        let mut spare = vec![Packet::with_capacity(0), Packet::with_capacity(9000)];
        let mut out = Vec::new();
        split(&l3, &parse::ip(&l3, 4).unwrap(), 4000, &mut spare, &mut out).unwrap();
        assert!(spare.is_empty());
        let out: Vec<_> = out.iter().map(|packet| packet.data().to_vec()).collect();
        assert_eq!(reassemble(&out), [1; 6000]);
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_make_the_original(
            payload in proptest::collection::vec(any::<u8>(), 1..3000),
            options in proptest::sample::select(vec![vec![], vec![1, 1, 1, 0], vec![148, 4, 0, 0], vec![7, 7, 4, 0, 0, 0, 0, 0], vec![148, 4, 0, 0, 7, 3, 4, 136, 4, 1, 2, 0]]),
            id in any::<u16>(), mtu in 68u16..1600, seed in any::<u64>(),
        ) {
            let l3 = raw4(&options, 47, id, 0, V4.0, V4.1, &payload);
            let mut out = fragments(&l3, mtu).unwrap();
            for fragment in &out {
                prop_assert!(fragment.len() <= usize::from(mtu));
                let ip = parse::ip(fragment, 4).unwrap();
                if out.len() > 1 {
                    let got = match ip.fragment { FragmentInfo::First { id } | FragmentInfo::Later { id, .. } => Some(id), FragmentInfo::None => None };
                    prop_assert_eq!(got, Some(u32::from(id)));
                }
            }
            let mut state = seed;
            for i in (1..out.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                out.swap(i, (state >> 33) as usize % (i + 1));
            }
            prop_assert_eq!(reassemble(&out), payload);
        }

        #[test]
        fn fragments_of_fragments_make_the_original(
            payload in proptest::collection::vec(any::<u8>(), 100..3000), mtu in 600u16..1000, smaller in 68u16..500,
        ) {
            let l3 = raw4(&[], 47, 7, 0, V4.0, V4.1, &payload);
            let out: Vec<_> = fragments(&l3, mtu).unwrap().iter().flat_map(|f| fragments(f, smaller).unwrap()).collect();
            prop_assert_eq!(reassemble(&out), payload);
        }
    }
}
