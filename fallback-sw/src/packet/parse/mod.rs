//! Parsing: from octets to fixed offsets and the fields of a flow key, once per packet.
//!
//! Everything returned lies inside the slice that was given. What does not parse is a typed drop.
#![forbid(unsafe_code)]

mod embedded;
mod esp;
mod ethernet;
mod ip;
mod l4;
mod mpls;
#[cfg(test)]
mod tests;
mod v4;
mod v6;

pub use embedded::{Embedded, embedded};
pub use esp::{PlainEsp, plain_esp};
pub use ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, ethernet, is_tpid};
pub use ip::{FragmentInfo, Ip, flow_key, ip, ip_to};
pub use l4::{PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP, is_icmp_error, tcp_flags};
pub use mpls::{MPLS_LEN, MplsUdp, mpls_udp};

/// IP protocol of ESP, and the UDP port of ESP behind NAT.
const PROTO_ESP: u8 = crate::esp::PROTOCOL;
const NAT_T_PORT: u16 = crate::esp::NAT_T_PORT;

/// 16 bits in network order from two octets of a header.
#[inline(always)]
const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

/// An IPv4 address in the form that flow keys hold: the first four octets, then zeros.
#[inline(always)]
pub(super) const fn widen(address: [u8; 4]) -> [u8; 16] {
    (u32::from_le_bytes(address) as u128).to_le_bytes()
}
