//! Finishing what a sender left to an offload: checksums, and frames larger than the MTU (TSO, UDP GSO).
//!
//! A frame from a local stack (a container behind a veth) carries a partial checksum and may be a super-frame of up to 64 KiB.
//! The kernel describes both in a virtio-net header (virtio 1.2 §5.1.6) in front of the frame.

use std::collections::VecDeque;

use super::device::Link;
use crate::packet::Packet;

/// Octets of [`VnetHeader`] in front of a frame.
pub(super) const VNET_HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// The virtio-net header, all of it that a packet socket fills; in the machine's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VnetHeader {
    flags: u8,
    gso_type: u8,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// The frame cannot be made whole: it contradicts its description, or is of a kind that is not known here (tunnelled GSO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotWhole;

impl VnetHeader {
    /// Reads the header in front of a frame.
    pub(super) fn read(octets: &[u8; VNET_HEADER]) -> Self {
        let [flags, gso_type, _, _, g0, g1, s0, s1, o0, o1] = *octets;
        Self {
            flags,
            gso_type,
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// The frame is whole as it is.
    pub(super) const fn is_plain(self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }

    /// One frame that has to be cut into several.
    pub(super) const fn is_super_frame(self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// The same description for a frame with `octets` more in front of its transport header.
    pub(super) const fn shifted(self, octets: u16) -> Self {
        Self { csum_start: self.csum_start.saturating_add(octets), ..self }
    }
}

/// Completes the checksum that the header says is partial: RFC 1071 over everything from `csum_start`, where the field itself
/// already holds the sum of the pseudo header.
pub(super) fn complete_checksum(frame: &mut [u8], header: VnetHeader) -> Result<(), NotWhole> {
    if header.flags & NEEDS_CSUM == 0 {
        return Ok(());
    }
    let covered = frame.get_mut(usize::from(header.csum_start)..).ok_or(NotWhole)?;
    let folded = fold(sum(covered, 0));
    let field = usize::from(header.csum_offset);
    // 0 would mean "no checksum" in UDP (RFC 768); in TCP both forms of zero are equal.
    put16(covered, field, if folded == 0 { 0xffff } else { folded })
}

/// Cuts a super-frame into the frames that its sender would have sent, appends them, and returns how many they are.
///
/// TCP (v4, v6): the sequence number moves on by `gso_size`, FIN and PSH stay on the last, CWR on the first segment only
/// (RFC 3168 §6.1.2), the IPv4 identification counts up. UDP: each datagram has a payload of `gso_size`, the last one the rest.
pub(super) fn segment(
    frame: &[u8],
    link: Link,
    header: VnetHeader,
    out: &mut VecDeque<Packet>,
    spare: &mut Vec<Packet>,
) -> Result<usize, NotWhole> {
    let layout = Layout::of(frame, link).ok_or(NotWhole)?;
    let expected = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 | GSO_TCPV6 => TCP,
        GSO_UDP_L4 => UDP,
        _ => return Err(NotWhole),
    };
    let partial = header.flags & NEEDS_CSUM != 0;
    // The offload may be about a header inside a tunnel; only the outermost is cut here.
    if layout.protocol != expected || (partial && usize::from(header.csum_start) != layout.l4) || header.gso_size == 0 {
        return Err(NotWhole);
    }
    let transport = if layout.protocol == TCP { usize::from(get8(frame, layout.l4 + 12)? >> 4) * 4 } else { 8 };
    if layout.protocol == TCP && transport < 20 {
        return Err(NotWhole);
    }
    let (headers, payload) = frame.split_at_checked(layout.l4 + transport).ok_or(NotWhole)?;
    // What follows the IP packet is Ethernet padding, not payload.
    let payload = payload.get(..layout.end.saturating_sub(headers.len()).min(payload.len())).ok_or(NotWhole)?;
    if payload.is_empty() {
        return Err(NotWhole);
    }
    let pieces = payload.chunks(usize::from(header.gso_size));
    let count = pieces.len();
    let without_checksum = layout.protocol == UDP && !layout.v6 && !partial && get16(headers, layout.l4 + 6)? == 0;
    for (number, piece) in pieces.enumerate() {
        let len = headers.len() + piece.len();
        let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(len));
        packet.refill(headers);
        if packet.tailroom() < piece.len() {
            packet = Packet::with_capacity(len);
            packet.refill(headers);
        }
        packet.extend(piece.len()).map_err(|_| NotWhole)?.copy_from_slice(piece);
        let place = Place { number, last: number + 1 == count, without_checksum };
        finish_segment(packet.data_mut(), layout, usize::from(header.gso_size), place)?;
        out.push_back(packet);
    }
    Ok(count)
}

/// Which segment of how many.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    last: bool,
    without_checksum: bool,
}

fn finish_segment(frame: &mut [u8], layout: Layout, gso_size: usize, place: Place) -> Result<(), NotWhole> {
    let Layout { l3, l4, protocol, v6, .. } = layout;
    let l3_len = u16::try_from(frame.len() - l3).map_err(|_| NotWhole)?;
    let l4_len = u16::try_from(frame.len() - l4).map_err(|_| NotWhole)?;
    if v6 {
        put16(frame, l3 + 4, l3_len.checked_sub(40).ok_or(NotWhole)?)?;
    } else {
        put16(frame, l3 + 2, l3_len)?;
        let id = get16(frame, l3 + 4)?;
        // Truncation is meant: the identification wraps (RFC 791).
        put16(frame, l3 + 4, id.wrapping_add((place.number & 0xffff) as u16))?;
        put16(frame, l3 + 10, 0)?;
        let checksum = fold(sum(frame.get(l3..l4).ok_or(NotWhole)?, 0));
        put16(frame, l3 + 10, checksum)?;
    }
    if protocol == TCP {
        let moved = u32::try_from(place.number * gso_size).map_err(|_| NotWhole)?;
        let seq = u32::from(get16(frame, l4 + 4)?) << 16 | u32::from(get16(frame, l4 + 6)?);
        let [a, b, c, d] = seq.wrapping_add(moved).to_be_bytes();
        put16(frame, l4 + 4, u16::from_be_bytes([a, b]))?;
        put16(frame, l4 + 6, u16::from_be_bytes([c, d]))?;
        let flags = frame.get_mut(l4 + 13).ok_or(NotWhole)?;
        if !place.last {
            *flags &= !(TCP_FIN | TCP_PSH);
        }
        if place.number > 0 {
            *flags &= !TCP_CWR;
        }
    } else {
        put16(frame, l4 + 4, l4_len)?;
        if place.without_checksum {
            return Ok(());
        }
    }
    let field = l4 + if protocol == TCP { 16 } else { 6 };
    put16(frame, field, 0)?;
    let addresses = if v6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 };
    let pseudo = sum(frame.get(addresses).ok_or(NotWhole)?, u64::from(protocol) + u64::from(l4_len));
    let folded = fold(sum(frame.get(l4..).ok_or(NotWhole)?, pseudo));
    put16(frame, field, if folded == 0 && protocol == UDP { 0xffff } else { folded })
}

/// Where the headers of a TCP or UDP packet are, as offsets into the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    l3: usize,
    l4: usize,
    /// Behind the last octet of the IP packet.
    end: usize,
    protocol: u8,
    v6: bool,
}

impl Layout {
    fn of(frame: &[u8], link: Link) -> Option<Self> {
        let mut l3 = 0;
        if link == Link::Ethernet {
            l3 = 14;
            // 802.1Q §9: any number of tags before the EtherType.
            while matches!(get16(frame, l3 - 2).ok()?, 0x8100 | 0x88a8 | 0x9100) {
                l3 += 4;
            }
        }
        match get8(frame, l3).ok()? >> 4 {
            4 => {
                let header = usize::from(get8(frame, l3).ok()? & 0x0f) * 4;
                let fragment = get16(frame, l3 + 6).ok()? & 0x3fff != 0;
                let total = usize::from(get16(frame, l3 + 2).ok()?);
                let end = if total == 0 { frame.len() } else { l3 + total };
                let protocol = get8(frame, l3 + 9).ok()?;
                (header >= 20 && !fragment).then_some(Self { l3, l4: l3 + header, end, protocol, v6: false })
            }
            6 => {
                let len = usize::from(get16(frame, l3 + 4).ok()?);
                let end = if len == 0 { frame.len() } else { l3 + 40 + len };
                let mut protocol = get8(frame, l3 + 6).ok()?;
                let mut l4 = l3 + 40;
                // RFC 8200 §4: hop-by-hop, routing, destination options; a fragment is never a super-frame.
                while matches!(protocol, 0 | 43 | 60) {
                    protocol = get8(frame, l4).ok()?;
                    l4 += (usize::from(get8(frame, l4 + 1).ok()?) + 1) * 8;
                }
                Some(Self { l3, l4, end, protocol, v6: true })
            }
            _ => None,
        }
    }
}

fn get8(octets: &[u8], at: usize) -> Result<u8, NotWhole> {
    octets.get(at).copied().ok_or(NotWhole)
}

fn get16(octets: &[u8], at: usize) -> Result<u16, NotWhole> {
    octets.get(at..).and_then(|rest| rest.first_chunk()).map(|pair| u16::from_be_bytes(*pair)).ok_or(NotWhole)
}

fn put16(octets: &mut [u8], at: usize, value: u16) -> Result<(), NotWhole> {
    let place = octets.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(NotWhole)?;
    *place = value.to_be_bytes();
    Ok(())
}

/// One's complement sum (RFC 1071), not folded yet: 32 bits at a time; 64 KiB cannot overflow 64 bits.
fn sum(octets: &[u8], start: u64) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut total = words.iter().fold(start, |total, word| total + u64::from(u32::from_be_bytes(*word)));
    let mut tail = [0u8; 4];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_be_bytes(tail));
    total
}

/// The checksum of a sum: folded to 16 bits and complemented.
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    // The loop has left 16 bits.
    !(total as u16)
}

#[cfg(test)]
#[path = "gso_tests.rs"]
mod tests;
