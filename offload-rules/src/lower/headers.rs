//! Headers as octets, for encapsulation and decapsulation.

use super::Arrival;
use crate::{
    flow::{Family, TunnelHeader},
    forwarding::{L2Rewrite, VlanTag},
};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Ethertype of a family.
pub(super) const fn ethertype(family: Family) -> u16 {
    match family {
        Family::Inet => IPV4,
        Family::Inet6 => IPV6,
    }
}

/// The tag control information of the frames that arrive; `None` without a tag, or out of a tunnel: then nothing is kept of it.
pub(super) fn tci_in(arrival: &Arrival) -> Option<u16> {
    if arrival.tunnel.is_some() {
        return None;
    }
    arrival.tags.first().copied().flatten().map(|tag| tci(&tag, arrival.pcp_dei))
}

/// Tag control information: priority and drop eligibility in the upper four bits.
pub(super) const fn tci(tag: &VlanTag, pcp_dei: u8) -> u16 {
    (pcp_dei as u16 & 0xf) << 12 | tag.vid & 0x0fff
}

/// Type and control information of a tag of an Ethernet header; the first one has the priority of the frame that came in, as
/// software writes it: not when that was 0 as a whole.
pub(super) fn tag_out(header: &L2Rewrite, index: usize, tci_in: Option<u16>) -> Option<(u16, u16)> {
    if index >= usize::from(header.tags()) {
        return None;
    }
    let at = 12 + index * 4;
    let &[t0, t1, c0, c1] = header.bytes().get(at..)?.first_chunk::<4>()?;
    let own = u16::from_be_bytes([c0, c1]);
    let kept = tci_in.filter(|tci| index == 0 && *tci != 0);
    let control = kept.map_or(own, |tci| own & 0x1fff | tci & 0xe000);
    Some((u16::from_be_bytes([t0, t1]), control))
}

/// An Ethernet header with the priority that the frame came in with, and this ethertype; with room for the headers of a tunnel.
pub(super) fn ethernet(header: &L2Rewrite, ethertype: u16, tci_in: Option<u16>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(22 + usize::from(TunnelHeader::OVERHEAD));
    bytes.extend_from_slice(header.bytes());
    if let (Some((_, control)), Some(room)) = (tag_out(header, 0, tci_in), bytes.get_mut(14..16)) {
        room.copy_from_slice(&control.to_be_bytes());
    }
    let end = bytes.len();
    if let Some(room) = end.checked_sub(2).and_then(|at| bytes.get_mut(at..)) {
        room.copy_from_slice(&ethertype.to_be_bytes());
    }
    bytes
}

/// What differs from flow to flow in the outer headers of one tunnel.
pub(super) struct Outer {
    /// DSCP and ECN.
    pub(super) tos: u8,
    /// IPv4 identification.
    pub(super) id: u16,
    /// UDP source port.
    pub(super) sport: u16,
    /// TTL of the label.
    pub(super) ttl: u8,
}

/// Appends outer IPv4, UDP and the label (RFC 7510 §3): lengths and the header checksum are 0, the NIC fills them.
pub(super) fn push_tunnel(bytes: &mut Vec<u8>, header: &TunnelHeader, outer: &Outer) {
    let [i0, i1] = outer.id.to_be_bytes();
    let [s0, s1] = outer.sport.to_be_bytes();
    let [d0, d1] = header.udp_port.to_be_bytes();
    // RFC 5462: the traffic class is the upper three bits of the DSCP.
    let class = u32::from(outer.tos >> 5);
    bytes.extend_from_slice(&[0x45, outer.tos, 0, 0, i0, i1, 0, 0, 64, 17, 0, 0]);
    bytes.extend_from_slice(&header.sip.octets());
    bytes.extend_from_slice(&header.dip.octets());
    bytes.extend_from_slice(&[s0, s1, d0, d1, 0, 0, 0, 0]);
    let entry = header.label.get() << 12 | class << 9 | 0x100 | u32::from(outer.ttl);
    bytes.extend_from_slice(&entry.to_be_bytes());
}

/// An Ethernet header with the addresses of another, without its tags.
pub(super) fn plain(header: &L2Rewrite, family: Family) -> Vec<u8> {
    let mut bytes = header.bytes().get(..12).map_or_else(|| vec![0; 12], <[u8]>::to_vec);
    bytes.extend_from_slice(&ethertype(family).to_be_bytes());
    bytes
}

/// A template of an Ethernet header without tags.
pub(super) fn untagged(family: Family) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes.extend_from_slice(&ethertype(family).to_be_bytes());
    bytes
}

/// A template of the headers before the (inner) IP packet: types and lengths, no addresses and no numbers, so that it is the
/// same for all flows of a shape; `popped`: the tag is off already.
pub(super) fn taken_off(arrival: &Arrival, family: Family, popped: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(22 + usize::from(TunnelHeader::OVERHEAD));
    bytes.extend_from_slice(&[0; 12]);
    for tag in arrival.tags.iter().flatten().filter(|_| !popped) {
        bytes.extend_from_slice(&tag.tpid.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
    }
    let Some(tunnel) = &arrival.tunnel else {
        bytes.extend_from_slice(&ethertype(family).to_be_bytes());
        return bytes;
    };
    bytes.extend_from_slice(&IPV4.to_be_bytes());
    bytes.extend_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&tunnel.udp_port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 1, 0]);
    bytes
}
