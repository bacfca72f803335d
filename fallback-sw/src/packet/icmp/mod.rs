//! ICMP and ICMPv6 messages that the node sends itself: errors about packets, and echo replies.
#![forbid(unsafe_code)]

mod echo;
mod error;
#[cfg(test)]
mod tests;

pub use echo::echo_reply;
pub use error::{IcmpError, MAX_V4, MAX_V6, error};

use super::{
    checksum,
    parse::{Ip, PROTO_ICMPV6},
};

/// Sum of the pseudo-header of an ICMP message between these addresses: ICMP over IPv4 has none (RFC 792, RFC 4443 §2.3).
fn pseudo(version: u8, src: &[u8; 16], dst: &[u8; 16], len: usize) -> u16 {
    if version == 4 { 0 } else { checksum::pseudo_v6(src, dst, PROTO_ICMPV6, len as u32) }
}

/// Whether the ICMP checksum of a whole message holds.
pub(super) fn checksum_holds(ip: &Ip, message: &[u8]) -> bool {
    checksum::add(checksum::sum(message), pseudo(ip.version, &ip.src, &ip.dst, message.len())) == 0xffff
}
