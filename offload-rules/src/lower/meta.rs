//! Metadata of packets that the NIC has processed in part before software gets them.
//!
//! Rules write it into the 32 bits of metadata that travel with a packet (SET_META), and a session of IPsec tells it as its user
//! data: software that gets the packet goes on where the NIC has stopped, and repeats nothing.

use crate::VifId;

/// Metadata of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meta {
    /// ESP was taken off: the packet behind the Ethernet header came out of this tunnel.
    Opened(VifId),
    /// Everything but ESP is done: the packet behind the Ethernet header goes into this tunnel, and the Ethernet header is the one
    /// that the outer packet leaves with.
    ToSeal(VifId),
}

/// The upper sixteen bits; 0 is what packets have that no rule has touched.
const OPENED: u32 = 0x5e0a;
const TO_SEAL: u32 = 0x5e0b;

impl Meta {
    /// As a NIC carries it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Opened(vif) => OPENED << 16 | vif.get() as u32,
            Self::ToSeal(vif) => TO_SEAL << 16 | vif.get() as u32,
        }
    }

    /// What the NIC carried; `None` for what none of our rules has written.
    #[must_use]
    pub fn of(bits: u32) -> Option<Self> {
        let vif = VifId::new(bits & 0xffff).ok()?;
        match bits >> 16 {
            OPENED => Some(Self::Opened(vif)),
            TO_SEAL => Some(Self::ToSeal(vif)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_says_what_was_meant_and_nothing_else_says_it() {
        let vif = VifId::new(4111).unwrap();
        for meta in [Meta::Opened(vif), Meta::ToSeal(vif)] {
            assert_eq!(Meta::of(meta.bits()), Some(meta));
        }
        for bits in [0, 4111, u32::MAX, OPENED << 16] {
            assert_eq!(Meta::of(bits), None, "{bits:#x}");
        }
    }
}
