//! Putting fragments together again (RFC 791 §3.2, RFC 8200 §4.5).
#![forbid(unsafe_code)]

use offload_rules::DropReason;

use super::{
    Packet, checksum,
    ecn::Ecn,
    fragment::per_fragment_headers,
    parse::{FragmentInfo, Ip},
};

/// Fragments of one datagram: 65,535 octets in pieces of 576.
const MAX_PIECES: usize = 128;
/// Next header of an IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// What a fragment did to its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was kept; others are missing.
    Missing,
    /// It was kept, and nothing is missing: see [`Reassembly::whole`].
    Complete,
}

/// The fragments of one datagram, as IP packets. Kept in order; no two of them share an octet.
#[derive(Debug, Default)]
pub struct Reassembly {
    pieces: Vec<Piece>,
    /// Octets of data seen.
    seen: usize,
    /// Octets of the whole, once the last fragment was seen.
    total: Option<usize>,
}

#[derive(Debug)]
struct Piece {
    packet: Packet,
    /// Where its data begins in the whole.
    begin: usize,
    /// Where its data begins in the packet.
    data: usize,
    len: usize,
    ecn: Ecn,
}

impl Reassembly {
    /// Fragments kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pieces.len()
    }

    /// No fragments kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Adds a fragment: a bare IP packet that `ip` was parsed from. All must be of one datagram.
    ///
    /// # Errors
    /// The packet comes back.
    /// - [`Refusal::Duplicate`]: it says what another one has said, octet by octet (RFC 8200 §4.5: it may be ignored).
    /// - [`Refusal::Bad`]: it overlaps another one, ends behind the end of the whole, or is one too many. The datagram must be
    ///   given up (RFC 5722 §4).
    pub fn add(&mut self, packet: Packet, ip: &Ip) -> Result<Progress, (Packet, Refusal)> {
        let (begin, more) = match ip.fragment {
            FragmentInfo::First { .. } => (0, true),
            FragmentInfo::Later { offset, more, .. } => (usize::from(offset), more),
            FragmentInfo::None => return Err((packet, Refusal::Bad)),
        };
        let data = match ip.version {
            4 => Some(usize::from(ip.header_len)),
            _ => per_fragment_headers(packet.data()).filter(|h| h.next == FRAGMENT).map(|h| h.end + 8),
        };
        let Some(data) = data else { return Err((packet, Refusal::Bad)) };
        let Some(len) = usize::from(ip.total_len).checked_sub(data).filter(|len| *len > 0) else {
            return Err((packet, Refusal::Bad));
        };
        let at = self.pieces.partition_point(|piece| piece.begin < begin);
        if let Some(there) = self.pieces.get(at)
            && there.begin == begin
            && there.content() == packet.data().get(data..data + len)
            && more == (self.total != Some(begin + len))
        {
            return Err((packet, Refusal::Duplicate));
        }
        let end = begin + len;
        let before = at.checked_sub(1).and_then(|at| self.pieces.get(at)).map_or(0, |piece| piece.begin + piece.len);
        let after = self.pieces.get(at).map_or(usize::MAX, |piece| piece.begin);
        let last = self.pieces.last().map_or(0, |piece| piece.begin + piece.len);
        let contradicts = match (more, self.total) {
            (true, Some(total)) => end >= total,
            (false, Some(_)) => true,
            (false, None) => last > end,
            (true, None) => false,
        };
        if begin < before || end > after || contradicts || (more && !len.is_multiple_of(8)) || self.len() >= MAX_PIECES
        {
            return Err((packet, Refusal::Bad));
        }
        if !more {
            self.total = Some(end);
        }
        self.seen += len;
        self.pieces.insert(at, Piece { packet, begin, data, len, ecn: Ecn::of(ip.tos) });
        // Without overlap, as many octets as the whole has are the whole.
        Ok(if self.total == Some(self.seen) { Progress::Complete } else { Progress::Missing })
    }

    /// The whole datagram: the headers of the first fragment without a trace of fragmentation (DF clear), and all the data.
    /// Congestion that one fragment has experienced, the whole has (RFC 3168 §5.3).
    ///
    /// # Errors
    /// [`DropReason::FragmentErr`]: something is missing, the whole is longer than 65535 octets, or fragments with and without
    /// ECN are mixed and one has experienced congestion (RFC 3168 §5.3).
    pub fn whole(&self) -> Result<Packet, DropReason> {
        const BAD: DropReason = DropReason::FragmentErr;
        let first = self.pieces.first().filter(|_| self.total == Some(self.seen)).ok_or(BAD)?;
        let l3 = first.packet.data();
        let is_v4 = l3.first().is_some_and(|octet| octet >> 4 == 4);
        // The fragment header does not go into the whole.
        let header_len = if is_v4 { first.data } else { first.data.saturating_sub(8) };
        let headers = l3.get(..header_len).ok_or(BAD)?;
        let total_len = u16::try_from(header_len + self.seen).map_err(|_| BAD)?;
        let mut whole = Packet::with_capacity(usize::from(total_len));
        let mut room = whole.extend(usize::from(total_len)).map_err(|_| BAD)?;
        for part in std::iter::once(Some(headers)).chain(self.pieces.iter().map(Piece::content)) {
            let part = part.ok_or(BAD)?;
            let (here, rest) = room.split_at_mut_checked(part.len()).ok_or(BAD)?;
            here.copy_from_slice(part);
            room = rest;
        }
        if is_v4 {
            let header = whole.data_mut().get_mut(..header_len).ok_or(BAD)?;
            let Some(h) = header.first_chunk_mut::<20>() else { return Err(BAD) };
            [h[2], h[3]] = total_len.to_be_bytes();
            (h[6], h[7], h[10], h[11]) = (0, 0, 0, 0);
            let sum = checksum::checksum(header).to_be_bytes();
            header.get_mut(10..12).ok_or(BAD)?.copy_from_slice(&sum);
        } else {
            let chain = per_fragment_headers(l3).ok_or(BAD)?;
            let behind = *l3.get(chain.end).ok_or(BAD)?;
            *whole.data_mut().get_mut(chain.next_at).ok_or(BAD)? = behind;
            let payload = total_len.checked_sub(40).ok_or(BAD)?.to_be_bytes();
            whole.data_mut().get_mut(4..6).ok_or(BAD)?.copy_from_slice(&payload);
        }
        if self.pieces.iter().any(|piece| piece.ecn == Ecn::Ce) {
            if self.pieces.iter().any(|piece| piece.ecn == Ecn::NotEct) {
                return Err(BAD);
            }
            super::rewrite::set_ecn(whole.data_mut(), Ecn::Ce);
        }
        whole.set_reassembled();
        Ok(whole)
    }

    /// The fragments, no longer needed.
    pub fn into_packets(self) -> impl Iterator<Item = Packet> {
        self.pieces.into_iter().map(|piece| piece.packet)
    }
}

/// Why a fragment was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The same as one that is there.
    Duplicate,
    /// It cannot be of the same datagram as those that are there.
    Bad,
}

impl Piece {
    fn content(&self) -> Option<&[u8]> {
        self.packet.data().get(self.data..self.data + self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::packet::{
        fragment, parse,
        samples::{V4, V6, raw4, raw6},
    };

    /// A datagram of either family in fragments of at most `mtu` octets.
    fn fragments(version: u8, payload: &[u8], mtu: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (whole, mut out) = (
            if version == 4 { raw4(&[], 47, 7, 0, V4.0, V4.1, payload) } else { raw6(47, V6.0, V6.1, 64, payload) },
            Vec::new(),
        );
        let ip = parse::ip(&whole, version).unwrap();
        if version == 4 {
            fragment::split(&whole, &ip, mtu, &mut Vec::new(), &mut out).unwrap();
        } else {
            fragment::split_at_source(&whole, &ip, mtu, 7, &mut Vec::new(), &mut out).unwrap();
        }
        (whole, out.iter().map(|packet| packet.data().to_vec()).collect())
    }

    fn add(to: &mut Reassembly, fragment: &[u8]) -> Result<Progress, Refusal> {
        let ip = parse::ip(fragment, fragment[0] >> 4).unwrap();
        to.add(Packet::from_frame(fragment), &ip).map_err(|(_, refusal)| refusal)
    }

    #[test]
    fn congestion_of_one_fragment_is_that_of_the_whole() {
        let set = |fragment: &mut Vec<u8>, ecn| {
            crate::packet::rewrite::set_ecn(fragment, ecn);
        };
        for (others, expected) in [(Ecn::Ect0, Ok(Ecn::Ce)), (Ecn::NotEct, Err(DropReason::FragmentErr))] {
            let (_, mut out) = fragments(4, &[1; 100], 60);
            out.iter_mut().for_each(|fragment| set(fragment, others));
            set(&mut out[1], Ecn::Ce);
            let mut all = Reassembly::default();
            out.iter().for_each(|fragment| assert!(add(&mut all, fragment).is_ok()));
            assert_eq!(all.whole().map(|whole| Ecn::of(whole.data()[1])), expected);
        }
    }

    #[test]
    fn an_end_before_what_was_seen_and_a_second_end_are_refused() {
        let (_, long) = fragments(4, &[1; 100], 60);
        let (_, short) = fragments(4, &[1; 50], 60);
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, &long[2]), Ok(Progress::Missing));
        assert_eq!(add(&mut all, &short[1]), Err(Refusal::Bad), "it ends at 50");
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, &short[1]), Ok(Progress::Missing));
        assert_eq!(add(&mut all, &long[2]), Err(Refusal::Bad), "it goes on behind 50");
        assert!(all.whole().is_err());
    }

    #[test]
    fn a_whole_longer_than_its_length_field_is_refused() {
        let mut all = Reassembly::default();
        let data = vec![0; 32_768];
        assert_eq!(add(&mut all, &raw4(&[], 47, 7, 0x2000, V4.0, V4.1, &data)), Ok(Progress::Missing));
        let last = raw4(&[], 47, 7, 0x1000, V4.0, V4.1, &data[..32_760]);
        assert_eq!(add(&mut all, &last), Ok(Progress::Complete));
        assert_eq!(all.whole().map(|_| ()), Err(DropReason::FragmentErr));
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_with_duplicates_make_the_original(
            v6: bool, payload in proptest::collection::vec(any::<u8>(), 200..3000), mtu in 100u16..190,
            order in proptest::collection::vec(any::<Index>(), 0..200),
        ) {
            let (whole, out) = fragments(if v6 { 6 } else { 4 }, &payload, mtu);
            // An oracle of sets: which were given, and whether that is all.
            let mut given = std::collections::BTreeSet::new();
            let mut all = Reassembly::default();
            for at in order.iter().map(|index| index.index(out.len())).chain(0..out.len()) {
                let expected = match (given.insert(at), given.len() == out.len()) {
                    (false, _) => Err(Refusal::Duplicate),
                    (true, true) => Ok(Progress::Complete),
                    (true, false) => Ok(Progress::Missing),
                };
                if out.len() <= MAX_PIECES {
                    prop_assert_eq!(add(&mut all, &out[at]), expected);
                }
            }
            let merged = all.whole().unwrap();
            prop_assert_eq!(merged.data(), &whole[..]);
        }

        #[test]
        fn what_overlaps_is_refused_and_nothing_else_is(
            pieces in proptest::collection::vec((0usize..12, 1usize..5), 1..12),
        ) {
            // Octets differ from piece to piece, so that no two are the same.
            let mut all = Reassembly::default();
            let mut taken = [false; 32];
            for (i, (begin, len)) in pieces.into_iter().enumerate() {
                let fragment = raw4(&[], 47, 7, 0x2000 | begin as u16, V4.0, V4.1, &vec![i as u8; len * 8]);
                let overlaps = taken[begin..begin + len].contains(&true);
                let expected = if overlaps { Err(Refusal::Bad) } else { Ok(Progress::Missing) };
                prop_assert_eq!(add(&mut all, &fragment), expected);
                if !overlaps {
                    taken[begin..begin + len].fill(true);
                }
            }
        }
    }
}
