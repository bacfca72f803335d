//! Masks of the fields that families of NICs match.

use super::super::item::MAX_SPEC;

/// Octets of an IPv4 item: version, IHL, TOS, total length, id, fragment, TTL, protocol, checksum, addresses.
const fn ipv4(first: u8, tos: u8, fragment: [u8; 2], ttl: u8) -> [u8; 20] {
    let [high, low] = fragment;
    let f = 0xff;
    [first, tos, 0, 0, 0, 0, high, low, ttl, f, 0, 0, f, f, f, f, f, f, f, f]
}

/// IHL, TOS, fragment, TTL, protocol, addresses: not length, id, checksum, version.
pub(super) const IPV4_MLX5: &[u8] = &ipv4(0x0f, 0xff, [0xff, 0xff], 0xff);
/// TOS, TTL, protocol, addresses.
pub(super) const IPV4_PLAIN: &[u8] = &ipv4(0, 0xff, [0, 0], 0xff);
/// Protocol and addresses.
pub(super) const IPV4_TUPLE: &[u8] = &ipv4(0, 0, [0, 0], 0);

const fn ipv6(head: [u8; 8], extensions: u8) -> [u8; 44] {
    let mut mask = [0xff; 44];
    let mut at = 0;
    while at < 8 {
        mask[at] = head[at];
        at += 1;
    }
    mask[40] = extensions;
    mask[41] = 0;
    mask[42] = 0;
    mask[43] = 0;
    mask
}

/// First word, next header, hop limit, addresses, and whether there is a fragment header.
pub(super) const IPV6_MLX5: &[u8] = &ipv6([0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff], 0x04);
/// Traffic class, next header, hop limit, addresses.
pub(super) const IPV6_PLAIN: &[u8] = &ipv6([0x0f, 0xf0, 0, 0, 0, 0, 0xff, 0xff], 0);
/// Next header and addresses.
pub(super) const IPV6_TUPLE: &[u8] = &ipv6([0, 0, 0, 0, 0, 0, 0xff, 0], 0);

/// Both ports of UDP, TCP or SCTP.
pub(super) const PORTS: &[u8] = &[0xff; 4];
/// Ports and flags of TCP.
pub(super) const TCP_FLAGS: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff];
/// Everything on the wire of Ethernet and whether a tag follows.
pub(super) const ETH_TAGGED: &[u8] =
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
/// Ethernet without that.
pub(super) const ETH: &[u8] = &[0xff; 14];
/// TCI, inner type and whether another tag follows.
pub(super) const VLAN_MORE: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1];
/// TCI and inner type.
pub(super) const VLAN: &[u8] = &[0xff; 4];
/// The label alone.
pub(super) const LABEL: &[u8] = &[0xff, 0xff, 0xf0];
/// SPI alone.
pub(super) const SPI: &[u8] = &[0xff; 4];
/// Type and code.
pub(super) const ICMP: &[u8] = &[0xff; 2];
/// Type, code, identifier and sequence number.
pub(super) const ICMP_ECHO: &[u8] = &[0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff];
/// l3_ok, l4_ok, ipv4_csum_ok, l4_csum_ok, at any level.
pub(super) const INTEGRITY_MLX5: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x6c];
/// All bits of any item: longer than the longest, so that it is known by its length.
pub(super) const ALL: &[u8] = &[0xff; MAX_SPEC + 1];
