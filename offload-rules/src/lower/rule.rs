//! The typed rule: what the NIC matches and what it does.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::Meta;
use crate::{Label, MacAddr, VifId, classify::Side};

/// An IPsec session in the NIC, by the number that the session backend's caller has chosen.
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

/// What an earlier rule has found out about a packet, or what a later one is still to do: the packet carries a number for it, which
/// the rule backend assigns. Equal stages have one number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The packet has matched these items.
    Matched(Arc<[Item]>),
    /// These actions are to be done on the side of sending.
    ToSend(Arc<[Action]>),
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
    /// Group 5: the one tag is off, and is in the packet's stage.
    Untagged,
    /// Group 6: the outer header has been matched; flows by what is behind it.
    Inner,
    /// Group 7: the source of an IPv6 packet has been matched; flows by the rest.
    Source6,
    /// Group 8: admitted by their source, without a flow; by their destination.
    Transit,
    /// Group 9: without rules. What comes here leaves the NIC to software as it is.
    Software,
    /// On the side of sending, group 0: everything goes on to [`Table::Egress`].
    EgressFirst,
    /// On the side of sending, group 1: what a packet from a hairpin queue still needs.
    Egress,
}

impl Table {
    /// Is it on the side of sending?
    #[must_use]
    pub const fn is_egress(self) -> bool {
        matches!(self, Self::EgressFirst | Self::Egress)
    }
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
        /// A tag follows, or none does; `None`: either.
        has_vlan: Option<bool>,
    },
    /// One 802.1Q or 802.1ad tag.
    Vlan {
        /// TPID of this tag.
        tpid: u16,
        /// Tag control information: VLAN id, and priority where the egress tag keeps it.
        tci: Field<u16>,
        /// Another tag follows, or none does; `None`: either.
        has_more: Option<bool>,
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
        /// No fragment header (`has_frag_ext` 0): for NICs whose next header is the one behind all extension headers.
        whole: bool,
        /// Payload length at most this (a range: `last`): total length less 40.
        max_len: Option<u16>,
    },
    /// The IP header of the item before has an address of this prefix; part of that item in rte_flow.
    Prefix {
        /// Which address.
        of: Side,
        /// The prefix.
        net: IpNet,
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
    /// A stage that a rule of an earlier table has written into the TAG register.
    Tag(Stage),
    /// A stage that a rule on the side of receiving has written into the metadata.
    ToSend(Stage),
    /// The metadata says that something is still to be done, whatever it is.
    AnyToSend,
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

/// One action. Their order in a rule is that of the driver: see [`Order`](super::Order).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Metadata for software: a number of 24 bits.
    Mark(u32),
    /// Other headers before the (inner) IP packet: RAW_DECAP and RAW_ENCAP, one behind the other, which drivers take as one.
    Reformat {
        /// What comes off, tags included, as a template: types, versions and lengths are set, addresses and numbers zero.
        off: Vec<u8>,
        /// What goes on, the Ethernet header and its tags first. The NIC fills outer IPv4 total length and header checksum, and UDP
        /// length: zero here.
        on: Vec<u8>,
    },
    /// Take off the outer tag.
    PopVlan,
    /// Count packets and octets.
    Count,
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
    /// Take one off IPv4 TTL (the header checksum follows) or IPv6 hop limit; a rule with it meets no packet at its end.
    DecTtl,
    /// Write the metadata that the next tables, or software, see.
    SetMeta(Meta),
    /// Write a stage into the TAG register: for the next tables.
    SetTag(Stage),
    /// Write a stage into the metadata: for the side of sending.
    SetToSend(Stage),
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
    /// To the queue that leads to the side of sending of this vif's device: a hairpin.
    Hairpin(VifId),
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

impl Rule {
    /// Does it match and do the same as the other one? They may differ in priority.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.table == other.table && self.items == other.items && self.actions == other.actions
    }

    /// Tables in which its packets go on.
    pub fn leads_to(&self) -> impl Iterator<Item = Table> + use<'_> {
        self.actions.iter().filter_map(|action| match action {
            Action::Jump(table) => Some(*table),
            _ => None,
        })
    }
}
