//! The outer headers of MPLS over UDP (RFC 7510): IPv4, UDP, one label.

use std::net::Ipv4Addr;

use offload_rules::{DropReason, Label};

use crate::packet::checksum;

/// Octets of the outer headers: IPv4 20, UDP 8, label 4.
pub const OUTER_LEN: usize = 32;

/// Outer headers of one tunnel and label, built once; a packet needs only the fields of [`Outer`] patched in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterTemplate {
    bytes: [u8; OUTER_LEN],
    /// Sum of the IPv4 header with total length, identification, type of service and checksum zero.
    sum: u16,
}

/// What differs from packet to packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Octets of the inner IP packet.
    pub inner_len: u16,
    /// IPv4 identification.
    pub id: u16,
    /// Outer type of service: DSCP and ECN.
    pub tos: u8,
    /// UDP source port, see [`entropy_port`].
    pub sport: u16,
    /// TTL of the label.
    pub ttl: u8,
    /// Traffic class of the label, 0..=7.
    pub tc: u8,
}

impl OuterTemplate {
    /// Headers from `sip` to `dip` with UDP destination port `udp_port` and this label, bottom of stack. Outer TTL 64, DF
    /// clear, UDP checksum 0 (RFC 7510 §3.1).
    #[must_use]
    pub fn new(sip: Ipv4Addr, dip: Ipv4Addr, udp_port: u16, label: Label) -> Self {
        let [[s0, s1, s2, s3], [d0, d1, d2, d3]] = [sip.octets(), dip.octets()];
        let [p0, p1] = udp_port.to_be_bytes();
        let [l0, l1, l2, _] = (label.get() << 12 | 0x100).to_be_bytes();
        let bytes = [
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3, // IPv4
            0, 0, p0, p1, 0, 0, 0, 0, // UDP
            l0, l1, l2, 0,
        ];
        Self { bytes, sum: bytes.first_chunk::<20>().map_or(0, |header| checksum::sum(header)) }
    }

    /// The octets, and the sum of the IPv4 header with total length, identification, type of service and checksum zero.
    pub(crate) const fn parts(&self) -> (&[u8; OUTER_LEN], u16) {
        (&self.bytes, self.sum)
    }

    /// Writes the headers into `out`: the 32 octets before the inner packet, fresh from `Packet::prepend`.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`] when `out` is not 32 octets long; [`DropReason::PacketTooBig`] when the outer packet would be
    /// longer than 65535 octets.
    #[inline]
    pub fn write(&self, out: &mut [u8], outer: &Outer) -> Result<(), DropReason> {
        let Ok(out) = <&mut [u8; OUTER_LEN]>::try_from(out) else { return Err(DropReason::NoHeadroom) };
        let Some(total_len) = outer.inner_len.checked_add(OUTER_LEN as u16) else {
            return Err(DropReason::PacketTooBig);
        };
        *out = self.bytes;
        out[1] = outer.tos;
        [out[2], out[3]] = total_len.to_be_bytes();
        [out[4], out[5]] = outer.id.to_be_bytes();
        let sum = checksum::add4(self.sum, u16::from(outer.tos), total_len, outer.id);
        [out[10], out[11]] = (!sum).to_be_bytes();
        [out[20], out[21]] = outer.sport.to_be_bytes();
        [out[24], out[25]] = (total_len - 20).to_be_bytes();
        out[30] |= (outer.tc & 7) << 1;
        out[31] = outer.ttl;
        Ok(())
    }
}

/// UDP source port from the hash of the inner flow: 49152 and 14 bits (RFC 7510 §3).
#[inline]
#[must_use]
pub const fn entropy_port(hash: u32) -> u16 {
    0xc000 | (hash & 0x3fff) as u16
}
