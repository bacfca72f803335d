//! The typed rule: what the NIC matches and what it does.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Meta;
use crate::{Label, MacAddr, VifId};

/// A session of IPsec in the NIC, by the number that whoever keeps its books has given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(pub u32);

/// A field with the bits that count: bits of `spec` outside `mask` are zero (some NICs take them for a mismatch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Field<T> {
    /// The value.
    pub spec: T,
    /// The bits that count.
    pub mask: T,
}

/// Tables of a NIC, in the order in which a packet meets them. A profile without jumps has only [`Table::Flows`], as group 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Group 0: which side is it?
    Steering,
    /// Group 1: from tenants.
    Tenant,
    /// Group 2: out of tunnels.
    Tunnel,
    /// Group 0 where there are no jumps: flows of both sides.
    Flows,
    /// Group 3: out of IPsec tunnels, opened by the NIC.
    Opened,
    /// Group 4: on the way into IPsec tunnels; all that is left is to seal.
    Seal,
}

/// One item of a pattern. Items come in the order of the headers on the wire; after [`Item::Mpls`] they are about the inner packet.
/// A field that is `None`, or whose mask is zero, is not matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Item {
    /// Received on the port of this vif's device.
    Port(VifId),
    /// Ethernet header.
    Eth {
        /// Destination.
        dst: Option<MacAddr>,
        /// Type behind all tags is in the next item; `has_vlan` false means that no tag follows.
        has_vlan: bool,
    },
    /// One 802.1Q or 802.1ad tag.
    Vlan {
        /// TPID of this tag.
        tpid: u16,
        /// Tag control information: VLAN id, and priority where the egress tag keeps it.
        tci: Field<u16>,
        /// Another tag follows.
        has_more: bool,
    },
    /// IPv4 without options.
    Ipv4 {
        /// Source.
        src: Option<Ipv4Addr>,
        /// Destination.
        dst: Option<Ipv4Addr>,
        /// Protocol.
        proto: Option<u8>,
        /// DSCP and ECN.
        tos: Field<u8>,
        /// TTL.
        ttl: Option<u8>,
        /// Header length 5 words: no options.
        no_options: bool,
        /// Fragment offset 0 and no more fragments.
        whole: bool,
        /// Total length at most this (a range: `last`).
        max_len: Option<u16>,
    },
    /// IPv6; its next header is the L4 protocol, so no extension header matches.
    Ipv6 {
        /// Source.
        src: Option<Ipv6Addr>,
        /// Destination.
        dst: Option<Ipv6Addr>,
        /// Next header.
        proto: Option<u8>,
        /// Traffic class.
        tos: Field<u8>,
        /// Hop limit.
        ttl: Option<u8>,
        /// Payload length at most this (a range: `last`): total length less 40.
        max_len: Option<u16>,
    },
    /// UDP.
    Udp {
        /// Source port.
        sport: Option<u16>,
        /// Destination port.
        dport: Option<u16>,
        /// The checksum field is zero.
        no_checksum: bool,
    },
    /// TCP.
    Tcp {
        /// Source port.
        sport: Option<u16>,
        /// Destination port.
        dport: Option<u16>,
        /// Flags octet (RFC 9293 §3.1).
        flags: Field<u8>,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        sport: Option<u16>,
        /// Destination port.
        dport: Option<u16>,
    },
    /// The MPLS label.
    Mpls {
        /// Label.
        label: Label,
        /// The S bit is set: bottom of stack. Not matched where false (mlx5 matches nothing but the label).
        bottom: bool,
        /// TTL.
        ttl: Option<u8>,
    },
    /// The ESP header (RFC 4303 §2), behind IP or UDP.
    Esp {
        /// Security parameters index.
        spi: u32,
    },
    /// Metadata that a rule of an earlier table has written.
    Meta(Meta),
    /// Checks that the parser made; `level` 0: outermost, 1 counts as 0, 2: inner.
    Integrity {
        /// Which headers.
        level: u8,
        /// The IPv4 header checksum is right.
        ipv4_checksum_ok: bool,
        /// The IP header and its length are right.
        l3_ok: bool,
    },
}

/// One action. A rule holds them in the order of this enum: the fixed order of mlx5's hardware steering, kept everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Metadata for software: a number of 24 bits.
    Mark(u32),
    /// Take off the headers before the (inner) IP packet, tags included (RAW_DECAP). The value is a template of them: types,
    /// versions and lengths are set, addresses and numbers zero.
    RawDecap(Vec<u8>),
    /// Take off the outer tag.
    PopVlan,
    /// Count packets and octets.
    Count,
    /// Tell when this many seconds pass without a packet.
    Age(u32),
    /// Put on a tag.
    PushVlan {
        /// TPID.
        tpid: u16,
        /// Tag control information.
        tci: u16,
    },
    /// Set the VLAN id and priority of the outer tag.
    SetVlan {
        /// Tag control information.
        tci: u16,
    },
    /// Set source and destination MAC.
    SetMacs {
        /// Destination.
        dst: MacAddr,
        /// Source.
        src: MacAddr,
    },
    /// Set IPv4 TTL (the header checksum follows) or IPv6 hop limit.
    SetTtl {
        /// Version, 4 or 6.
        version: u8,
        /// The value.
        ttl: u8,
    },
    /// Write the metadata that the next tables, or software, see.
    SetMeta(Meta),
    /// Put on headers (RAW_ENCAP), the Ethernet header and its tags first. The NIC fills outer IPv4 total length and header
    /// checksum, and UDP length: zero here.
    RawEncap(Vec<u8>),
    /// Apply a session of IPsec: one for receiving takes ESP and what is before it off, behind the Ethernet header; one for sending
    /// puts them on. With inline crypto the text alone is enciphered or deciphered.
    Security(Session),
    /// Go on in another table.
    Jump(Table),
    /// Drop.
    Drop,
    /// To this receive queue.
    Queue(u16),
    /// Spread over the receive queues: to software.
    Rss,
    /// Send on the port of this vif's device.
    Port(VifId),
}

/// A rule of a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Where it is.
    pub table: Table,
    /// 0 is matched first.
    pub priority: u32,
    /// What it matches.
    pub items: Vec<Item>,
    /// What it does.
    pub actions: Vec<Action>,
}
