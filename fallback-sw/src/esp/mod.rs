//! IPsec ESP in tunnel mode (RFC 4303) with AES-GCM (RFC 4106), over IP or in UDP (RFC 3948).
//!
//! Security associations as plain values of one worker: sealing and opening happen in place, allocate nothing and take no lock.
//! Nothing here knows vifs, routes or time; the owner of an SA passes in what it needs. Keys leave memory with the SA and are never
//! formatted.

mod aead;
mod cipher;
mod inbound;
#[cfg(test)]
mod inline_tests;
mod outbound;
mod replay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use aead::{Aead, LoadError, NONCE_LEN, Provider};
pub use cipher::{Cipher, KEY_MATERIAL, Key, KeyError};
pub use inbound::{Envelope, InboundConfig, InboundSa, OpenError, Opened, envelope};
pub use outbound::{BEHIND, OutboundConfig, OutboundSa, SealError, Tunnel};
pub use replay::{MAX_WINDOW, ReplayError, Window, WindowError};

/// What of an index tells which worker opens the packets that have it.
pub(crate) const fn opener_octet(spi: u32) -> u8 {
    spi as u8
}

/// An index whose packets the same worker opens as those of all others with this octet; otherwise like `spi`.
pub(crate) const fn with_opener_octet(spi: u32, octet: u8) -> u32 {
    spi & !0xff | octet as u32
}

/// UDP port of ESP and IKE behind NAT (RFC 3948 §2.1).
pub const NAT_T_PORT: u16 = 4500;
/// IP protocol of ESP.
pub const PROTOCOL: u8 = 50;
/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of the explicit initialisation vector (RFC 4106 §3.1).
pub const IV_LEN: usize = 8;
/// Octets of the integrity check value (RFC 4106 §6: 16).
pub const ICV_LEN: usize = 16;
/// Next header of an IPv4 packet in a tunnel (RFC 4303 §2.6).
pub(crate) const NEXT_IPV4: u8 = 4;
/// Next header of an IPv6 packet in a tunnel.
pub(crate) const NEXT_IPV6: u8 = 41;
/// Next header of a dummy packet, to be discarded (RFC 4303 §2.6).
pub(crate) const NEXT_NONE: u8 = 59;
