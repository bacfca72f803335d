//! Pattern items, as the guide's "Pattern item" section has them: spec, last, mask.

/// An item's type. Its bytes are those of the C structure `rte_flow_item_*` of DPDK 22.11 on a little-endian machine: first the
/// header as on the wire, then the flag bits that some items add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// Ignored.
    Void,
    /// Any protocol in place of a number of layers (`num`, u32).
    Any,
    /// Ethernet header, 14 octets; `has_vlan` is bit 0 of octet 14.
    Eth,
    /// TCI and inner type, 4 octets; `has_more_vlan` is bit 0 of octet 4.
    Vlan,
    /// IPv4 header, 20 octets.
    Ipv4,
    /// IPv6 header, 40 octets; from bit 0 of octet 40: hop-by-hop, routing, fragment, AH, ESP, destination, mobility, HIP, shim6.
    Ipv6,
    /// IPv6 fragment header, 8 octets.
    Ipv6FragExt,
    /// UDP header, 8 octets.
    Udp,
    /// TCP header, 20 octets.
    Tcp,
    /// SCTP common header, 12 octets.
    Sctp,
    /// ICMP header, 8 octets.
    Icmp,
    /// ICMPv6 type, code, checksum, 4 octets.
    Icmp6,
    /// One label stack entry, 4 octets.
    Mpls,
    /// SPI and sequence number, 8 octets.
    Esp,
    /// Mark of an earlier rule (u32).
    Mark,
    /// Metadata (u32).
    Meta,
    /// Tag: data (u32), index (u8).
    Tag,
    /// Level (u32, padded to 8), then the bits packet_ok, l2_ok, l3_ok, l4_ok, l2_crc_ok, ipv4_csum_ok, l4_csum_ok, l3_len_ok.
    Integrity,
    /// DPDK port (u32).
    PortId,
    /// Entering the switch from the wire of this ethdev (u16).
    RepresentedPort,
    /// Entering the switch from the application by this ethdev (u16).
    PortRepresentor,
    /// An item that the glue could not name.
    Other,
}

/// The longest spec of an item (IPv6).
pub const MAX_SPEC: usize = 44;

/// Octet of `rte_flow_item_eth` that holds `has_vlan` as bit 0.
pub const ETH_HAS_VLAN: usize = 14;
/// Octet of `rte_flow_item_vlan` that holds `has_more_vlan` as bit 0.
pub const VLAN_HAS_MORE: usize = 4;
/// First octet of the extension header bits of `rte_flow_item_ipv6`.
pub const IPV6_HAS_EXT: usize = 40;
/// Octet of `rte_flow_item_integrity` that holds the check bits.
pub const INTEGRITY_BITS: usize = 8;

/// One item: its kind and up to three structures, borrowed from the caller. A structure that is shorter than [`ItemKind::size`] is
/// as if zeros followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Type.
    pub kind: ItemKind,
    /// Values.
    pub spec: Option<&'a [u8]>,
    /// Upper bounds, inclusive.
    pub last: Option<&'a [u8]>,
    /// Bits that count; without it the default mask of the kind.
    pub mask: Option<&'a [u8]>,
}

impl<'a> Item<'a> {
    /// An item that matches presence alone.
    pub const fn any_of(kind: ItemKind) -> Item<'a> {
        Item { kind, spec: None, last: None, mask: None }
    }

    /// An item with spec and mask.
    pub const fn masked(kind: ItemKind, spec: &'a [u8], mask: &'a [u8]) -> Item<'a> {
        Item { kind, spec: Some(spec), last: None, mask: Some(mask) }
    }
}

/// A field of an item: where it begins, in bits from the start of the structure, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemField {
    pub(crate) bit: u16,
    pub(crate) width: u16,
}

const fn field(bit: u16, width: u16) -> ItemField {
    ItemField { bit, width }
}

impl ItemKind {
    /// Octets of the C structure; 0 for items without one.
    pub const fn size(self) -> usize {
        match self {
            ItemKind::Void | ItemKind::Other => 0,
            ItemKind::RepresentedPort | ItemKind::PortRepresentor => 2,
            ItemKind::Any | ItemKind::Icmp6 | ItemKind::Mpls | ItemKind::Mark | ItemKind::Meta | ItemKind::PortId => 4,
            ItemKind::Vlan | ItemKind::Udp | ItemKind::Icmp | ItemKind::Esp | ItemKind::Tag | ItemKind::Ipv6FragExt => {
                8
            }
            ItemKind::Sctp => 12,
            ItemKind::Integrity => 16,
            ItemKind::Eth | ItemKind::Ipv4 | ItemKind::Tcp => 20,
            ItemKind::Ipv6 => 44,
        }
    }

    /// Octets of the structure that are the header on the wire.
    pub(crate) const fn wire(self) -> usize {
        match self {
            ItemKind::Eth => ETH_HAS_VLAN,
            ItemKind::Vlan => VLAN_HAS_MORE,
            ItemKind::Ipv6 => IPV6_HAS_EXT,
            other => other.size(),
        }
    }

    /// The default mask (`rte_flow_item_*_mask` as the guide describes them under "Default mask").
    pub fn default_mask(self) -> [u8; MAX_SPEC] {
        let mut mask = [0; MAX_SPEC];
        let octets = match self {
            ItemKind::Void | ItemKind::Other | ItemKind::Any | ItemKind::Integrity | ItemKind::Ipv6FragExt => 0..0,
            ItemKind::Eth => 0..12,
            ItemKind::Vlan => {
                // The VLAN id: the lower 12 bits of the TCI.
                mask[0] = 0x0f;
                1..2
            }
            ItemKind::Ipv4 => 12..20,
            ItemKind::Ipv6 => 8..40,
            ItemKind::Udp | ItemKind::Tcp | ItemKind::Sctp | ItemKind::Esp => 0..4,
            ItemKind::Icmp | ItemKind::Icmp6 => 0..2,
            ItemKind::Mpls => {
                mask[2] = 0xf0;
                0..2
            }
            ItemKind::Mark | ItemKind::Meta | ItemKind::PortId => 0..4,
            ItemKind::Tag => 0..5,
            ItemKind::RepresentedPort | ItemKind::PortRepresentor => 0..2,
        };
        mask[octets].fill(0xff);
        mask
    }

    /// The fields over which `last` spans a range, in order.
    pub(crate) const fn fields(self) -> &'static [ItemField] {
        match self {
            ItemKind::Void | ItemKind::Other | ItemKind::Integrity => &[],
            ItemKind::Eth => const { &[field(0, 48), field(48, 48), field(96, 16)] },
            ItemKind::Vlan => const { &[field(0, 16), field(16, 16)] },
            ItemKind::Ipv4 => {
                const {
                    &[
                        field(0, 4),
                        field(4, 4),
                        field(8, 8),
                        field(16, 16),
                        field(32, 16),
                        field(48, 16),
                        field(64, 8),
                        field(72, 8),
                        field(80, 16),
                        field(96, 32),
                        field(128, 32),
                    ]
                }
            }
            ItemKind::Ipv6 => {
                const {
                    &[
                        field(0, 4),
                        field(4, 8),
                        field(12, 20),
                        field(32, 16),
                        field(48, 8),
                        field(56, 8),
                        field(64, 128),
                        field(192, 128),
                    ]
                }
            }
            ItemKind::Ipv6FragExt => const { &[field(0, 8), field(8, 8), field(16, 16), field(32, 32)] },
            ItemKind::Udp => const { &[field(0, 16), field(16, 16), field(32, 16), field(48, 16)] },
            ItemKind::Tcp => {
                const {
                    &[
                        field(0, 16),
                        field(16, 16),
                        field(32, 32),
                        field(64, 32),
                        field(96, 8),
                        field(104, 8),
                        field(112, 16),
                        field(128, 16),
                        field(144, 16),
                    ]
                }
            }
            ItemKind::Sctp => const { &[field(0, 16), field(16, 16), field(32, 32), field(64, 32)] },
            ItemKind::Icmp => const { &[field(0, 8), field(8, 8), field(16, 16), field(32, 16), field(48, 16)] },
            ItemKind::Icmp6 => const { &[field(0, 8), field(8, 8), field(16, 16)] },
            ItemKind::Mpls => const { &[field(0, 20), field(20, 3), field(23, 1), field(24, 8)] },
            ItemKind::Esp => const { &[field(0, 32), field(32, 32)] },
            ItemKind::Any | ItemKind::Mark | ItemKind::Meta | ItemKind::Tag | ItemKind::PortId => {
                const { &[field(0, 32)] }
            }
            ItemKind::RepresentedPort | ItemKind::PortRepresentor => const { &[field(0, 16)] },
        }
    }
}
