//! An ICMP error about ESP of an own tunnel.

use std::net::Ipv4Addr;

use offload_rules::VifId;

/// What an error about an own tunnel's packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Reason {
    /// The path takes no larger packets: octets, and the tunnel's end.
    PathMtu(u16, Ipv4Addr),
    /// A router asks for fragments of what it may fragment, or of what fits, or tells an absurd MTU.
    Absurd,
    /// Any other error: ignored (RFC 2003 §4).
    Other,
}

/// An error that quotes ESP of an own tunnel, on its way to the worker that owns the SA.
#[derive(Debug, Clone, Copy)]
pub struct EspQuote {
    /// Where the error came in.
    pub(in crate::worker) vif: VifId,
    pub(super) tunnel: VifId,
    pub(super) spi: u32,
    pub(super) sequence: u32,
    /// What the error says.
    pub(in crate::worker) reason: Reason,
}
