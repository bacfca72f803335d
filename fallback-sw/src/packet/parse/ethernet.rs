//! Ethernet II with up to two VLAN tags.

use offload_rules::{DropReason, MacAddr};

use super::be16;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The link-layer header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// Number of tags, 0..=2.
    pub tags: u8,
    /// Tag control information, outermost first: PCP (3 bits), DEI (1), VLAN id (12). Zero where there is no tag.
    pub tci: [u16; 2],
    /// Tag protocol identifiers, outermost first. Zero where there is no tag.
    pub tpid: [u16; 2],
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Octets of the header: 14, 18 or 22; where the network layer begins.
    pub len: usize,
}

impl Ethernet {
    /// VLAN id of the outermost tag, 0..=4095; `None` without a tag.
    #[inline]
    #[must_use]
    pub const fn vlan(&self) -> Option<u16> {
        if self.tags == 0 { None } else { Some(self.tci[0] & 0x0fff) }
    }

    /// 802.1p priority of the outermost tag, 0..=7; 0 without a tag.
    #[inline]
    #[must_use]
    pub const fn pcp(&self) -> u8 {
        (self.tci[0] >> 13) as u8
    }
}

/// Whether this ethertype announces a tag: 802.1Q, 802.1ad, or the older double tag.
#[inline(always)]
#[must_use]
pub const fn is_tpid(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// Parses the Ethernet header at the start of a frame.
///
/// # Errors
/// [`DropReason::Truncated`] when the frame ends inside the header, [`DropReason::InvalidProtocol`] for a third tag.
#[inline(always)]
pub fn ethernet(frame: &[u8]) -> Result<Ethernet, DropReason> {
    let Some(h) = frame.first_chunk::<14>() else { return Err(DropReason::Truncated) };
    let mut ethernet = Ethernet {
        dst: MacAddr([h[0], h[1], h[2], h[3], h[4], h[5]]),
        src: MacAddr([h[6], h[7], h[8], h[9], h[10], h[11]]),
        tags: 0,
        tci: [0; 2],
        tpid: [0; 2],
        ethertype: be16(h[12], h[13]),
        len: 14,
    };
    if !is_tpid(ethernet.ethertype) {
        return Ok(ethernet);
    }
    let Some(h) = frame.first_chunk::<18>() else { return Err(DropReason::Truncated) };
    ethernet.tpid[0] = ethernet.ethertype;
    ethernet.tci[0] = be16(h[14], h[15]);
    ethernet.ethertype = be16(h[16], h[17]);
    ethernet.tags = 1;
    ethernet.len = 18;
    if !is_tpid(ethernet.ethertype) {
        return Ok(ethernet);
    }
    let Some(h) = frame.first_chunk::<22>() else { return Err(DropReason::Truncated) };
    ethernet.tpid[1] = ethernet.ethertype;
    ethernet.tci[1] = be16(h[18], h[19]);
    ethernet.ethertype = be16(h[20], h[21]);
    ethernet.tags = 2;
    ethernet.len = 22;
    if is_tpid(ethernet.ethertype) { Err(DropReason::InvalidProtocol) } else { Ok(ethernet) }
}
