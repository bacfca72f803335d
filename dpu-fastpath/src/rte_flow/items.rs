//! From typed items to rte_flow's.
//!
//! Most items of rte_flow begin with the header as it is on the wire, so they are written as octets at the offsets of the RFCs. Bits of
//! a spec outside its mask are zero.

use std::{hash::Hasher, mem::offset_of};

use dpdk_sys::{rte_flow_item, rte_flow_item_type as kind};
use ipnet::IpNet;
use offload_rules::{
    classify::Side,
    lower::{Field, Item},
};

use super::{
    name_tables::NameTables,
    stages::Stages,
    storage::Blob,
    style::{PortStyle, Style},
    unresolved::Unresolved,
};

/// Ethernet: destination, source, type; then a bit-field, whose bit 0 is `has_vlan`.
const ETH_DST: usize = 0;
const ETH_TYPE: usize = 12;
const ETH_HAS_VLAN: usize = 14;
/// VLAN item: tag control information, then the type behind it; then a bit-field, whose bit 0 is `has_more_vlan`.
const VLAN_TCI: usize = 0;
const VLAN_INNER_TYPE: usize = 2;
const VLAN_HAS_MORE: usize = 4;
/// RFC 791 §3.1.
const IPV4_VERSION_IHL: usize = 0;
const IPV4_TOS: usize = 1;
const IPV4_TOTAL_LENGTH: usize = 2;
const IPV4_FRAGMENT: usize = 6;
const IPV4_TTL: usize = 8;
const IPV4_PROTO: usize = 9;
const IPV4_SRC: usize = 12;
const IPV4_DST: usize = 16;
/// RFC 8200 §3. The traffic class lies across the first two octets.
const IPV6_VERSION_CLASS: usize = 0;
const IPV6_PAYLOAD_LENGTH: usize = 4;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_HOP_LIMIT: usize = 7;
const IPV6_SRC: usize = 8;
const IPV6_DST: usize = 24;
/// Behind the header: a bit-field of extension headers, whose bit 2 is `has_frag_ext`.
const IPV6_EXTENSIONS: usize = 40;
const IPV6_HAS_FRAGMENT: u8 = 1 << 2;
/// UDP, TCP and SCTP begin with the ports.
const SPORT: usize = 0;
const DPORT: usize = 2;
const UDP_CHECKSUM: usize = 6;
const TCP_FLAGS: usize = 13;
/// RFC 3032 §2.1: label, traffic class and bottom of stack, then TTL.
const MPLS_LABEL: usize = 0;
const MPLS_TTL: usize = 3;
/// RFC 4303 §2.
const ESP_SPI: usize = 0;

/// The more-fragments bit and the offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// One item of a pattern with its storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: kind::Type,
    pub(super) spec: Blob,
    pub(super) last: Option<Blob>,
    pub(super) mask: Blob,
}

impl Entry {
    fn new(kind: kind::Type) -> Self {
        Self { kind, spec: Blob::ZERO, last: None, mask: Blob::ZERO }
    }

    fn masked(&mut self, offset: usize, spec: &[u8], mask: &[u8]) {
        self.spec.put_masked(offset, spec, mask);
        self.mask.put(offset, mask);
    }

    fn exact(&mut self, offset: usize, spec: &[u8]) {
        self.spec.put(offset, spec);
        self.mask.fill(offset, spec.len());
    }

    fn exact_if(&mut self, offset: usize, spec: Option<impl AsRef<[u8]>>) {
        if let Some(spec) = spec {
            self.exact(offset, spec.as_ref());
        }
    }

    fn bits(&mut self, offset: usize, field: Field<u8>) {
        self.masked(offset, &[field.spec], &[field.mask]);
    }

    /// A range from zero. In the other fields `last` is `spec`: no range (rte_flow guide, "Pattern item").
    fn at_most(&mut self, offset: usize, max: Option<u16>) {
        if let Some(max) = max {
            self.masked(offset, &[0, 0], &[0xff, 0xff]);
            let mut last = self.spec;
            last.put(offset, &max.to_be_bytes());
            self.last = Some(last);
        }
    }
}

/// A pattern and all that it points to. Two patterns of the same shape differ in specs (and the upper ends of ranges) only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    entries: Vec<Entry>,
}

/// What the patterns of one pattern template have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PatternShape(Vec<(kind::Type, Blob, bool)>);

impl Pattern {
    /// Translates, in the memory of a pattern that is done with; with `transfer` the port is an item, without it it isn't: the rule is one of the port itself.
    ///
    /// # Errors
    ///
    /// [`Unresolved`] when a vif's device is no port, or a stage has no number.
    pub(super) fn refilled(
        mut self,
        items: &[Item],
        style: Style,
        transfer: bool,
        named: NameTables<'_>,
    ) -> Result<Self, Unresolved> {
        self.entries.clear();
        let mut pattern = self;
        for item in items {
            match item {
                Item::Port(_) if !transfer => {}
                Item::Port(vif) => pattern.entries.push(port(named.ports.get(*vif)?.ethdev, style.port_item)),
                Item::Vlan { tpid, tci, has_more } => {
                    pattern.announce(*tpid);
                    pattern.entries.push(vlan(*tci, *has_more));
                }
                Item::Prefix { of, net } => pattern.narrow(*of, net),
                Item::Tag(stage) => pattern.entries.push(tag(named.stages.number(stage)?)),
                Item::ToSend(stage) => {
                    pattern.entries.push(meta(named.stages.number(stage)? | Stages::TO_SEND, u32::MAX));
                }
                Item::AnyToSend => pattern.entries.push(meta(Stages::TO_SEND, Stages::TO_SEND)),
                other => pattern.entries.push(entry(other)),
            }
        }
        Ok(pattern)
    }

    /// The TPID of a tag is the type field of what comes before it (rte_flow guide, "Item: VLAN").
    fn announce(&mut self, tpid: u16) {
        let offset = match self.entries.last().map(|before| before.kind) {
            Some(kind::RTE_FLOW_ITEM_TYPE_ETH) => ETH_TYPE,
            Some(kind::RTE_FLOW_ITEM_TYPE_VLAN) => VLAN_INNER_TYPE,
            _ => return,
        };
        if let Some(before) = self.entries.last_mut() {
            before.exact(offset, &tpid.to_be_bytes());
        }
    }

    /// An address of the IP header before it.
    fn narrow(&mut self, of: Side, net: &IpNet) {
        let Some(before) = self.entries.last_mut() else { return };
        let source = of == Side::Source;
        match net {
            IpNet::V4(net) => {
                let offset = if source { IPV4_SRC } else { IPV4_DST };
                before.masked(offset, &net.network().octets(), &net.netmask().octets());
            }
            IpNet::V6(net) => {
                let offset = if source { IPV6_SRC } else { IPV6_DST };
                before.masked(offset, &net.network().octets(), &net.netmask().octets());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn shape(&self) -> PatternShape {
        PatternShape(self.entries.iter().map(|entry| (entry.kind, entry.mask, entry.last.is_some())).collect())
    }

    /// Of this shape?
    pub(super) fn is_of(&self, PatternShape(shape): &PatternShape) -> bool {
        self.entries.len() == shape.len()
            && self.entries.iter().zip(shape).all(|(entry, (kind, mask, range))| {
                (entry.kind, entry.last.is_some()) == (*kind, *range) && entry.mask == *mask
            })
    }

    /// The same for all patterns of a shape.
    pub(super) fn hash_shape(&self, into: &mut impl Hasher) {
        for entry in &self.entries {
            into.write_u32(entry.kind);
            into.write(entry.mask.octets());
        }
    }

    /// Whether an item has a range.
    pub(super) fn has_range(&self) -> bool {
        self.entries.iter().any(|entry| entry.last.is_some())
    }

    /// The array that rte_flow takes, with END; its pointers are into `self`, which must outlive it and stay where it is. An Ethernet
    /// item that matches nothing has neither spec nor mask: ixgbe's driver takes a mask, whatever is in it, for its MAC mode (ixgbe_flow.c,
    /// `ixgbe_parse_fdir_filter_normal`).
    pub(super) fn raw(&self) -> Vec<rte_flow_item> {
        self.array(|entry| {
            let any = entry.kind == kind::RTE_FLOW_ITEM_TYPE_ETH && entry.mask == Blob::ZERO;
            let told = |blob: &Blob| if any { std::ptr::null() } else { blob.as_ptr() };
            rte_flow_item {
                type_: entry.kind,
                spec: told(&entry.spec),
                last: entry.last.as_ref().map_or(std::ptr::null(), Blob::as_ptr),
                mask: told(&entry.mask),
            }
        })
    }

    /// The array for a pattern template: masks only, as specs come with each rule. A TAG item's spec says which tag it is, and mlx5
    /// wants that here (mlx5_flow_hw.c of 22.11 and 24.11, "Tag spec is NULL").
    pub(super) fn raw_template(&self) -> Vec<rte_flow_item> {
        self.array(|entry| rte_flow_item {
            type_: entry.kind,
            spec: if entry.kind == kind::RTE_FLOW_ITEM_TYPE_TAG { entry.spec.as_ptr() } else { std::ptr::null() },
            last: std::ptr::null(),
            mask: entry.mask.as_ptr(),
        })
    }

    fn array(&self, item: impl FnMut(&Entry) -> rte_flow_item) -> Vec<rte_flow_item> {
        // The default is END.
        self.entries.iter().map(item).chain(std::iter::once(rte_flow_item::default())).collect()
    }
}

fn port(ethdev: u16, style: PortStyle) -> Entry {
    match style {
        PortStyle::Represented => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT);
            entry.exact(offset_of!(dpdk_sys::rte_flow_item_ethdev, port_id), &ethdev.to_ne_bytes());
            entry
        }
        PortStyle::PortId => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_PORT_ID);
            entry.exact(offset_of!(dpdk_sys::rte_flow_item_port_id, id), &u32::from(ethdev).to_ne_bytes());
            entry
        }
    }
}

/// No header: in the byte order of the machine.
fn meta(value: u32, mask: u32) -> Entry {
    let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_META);
    entry.masked(offset_of!(dpdk_sys::rte_flow_item_meta, data), &value.to_ne_bytes(), &mask.to_ne_bytes());
    entry
}

fn tag(value: u32) -> Entry {
    let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_TAG);
    entry.exact(offset_of!(dpdk_sys::rte_flow_item_tag, data), &value.to_ne_bytes());
    entry.exact(offset_of!(dpdk_sys::rte_flow_item_tag, index), &[Stages::REGISTER]);
    entry
}

fn vlan(tci: Field<u16>, has_more: Option<bool>) -> Entry {
    let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_VLAN);
    entry.masked(VLAN_TCI, &tci.spec.to_be_bytes(), &tci.mask.to_be_bytes());
    if let Some(has_more) = has_more {
        entry.masked(VLAN_HAS_MORE, &[u8::from(has_more)], &[1]);
    }
    entry
}

fn entry(item: &Item) -> Entry {
    match item {
        Item::Eth { dst, has_vlan } => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_ETH);
            entry.exact_if(ETH_DST, dst.map(|mac| mac.0));
            if let Some(has_vlan) = has_vlan {
                entry.masked(ETH_HAS_VLAN, &[u8::from(*has_vlan)], &[1]);
            }
            entry
        }
        Item::Ipv4 { src, dst, proto, tos, ttl, no_options, whole, max_len } => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_IPV4);
            if *no_options {
                entry.masked(IPV4_VERSION_IHL, &[5], &[0x0f]);
            }
            entry.bits(IPV4_TOS, *tos);
            if *whole {
                entry.masked(IPV4_FRAGMENT, &[0, 0], &FRAGMENT_BITS.to_be_bytes());
            }
            entry.exact_if(IPV4_TTL, ttl.map(|ttl| [ttl]));
            entry.exact_if(IPV4_PROTO, proto.map(|proto| [proto]));
            entry.exact_if(IPV4_SRC, src.map(|src| src.octets()));
            entry.exact_if(IPV4_DST, dst.map(|dst| dst.octets()));
            entry.at_most(IPV4_TOTAL_LENGTH, *max_len);
            entry
        }
        Item::Ipv6 { src, dst, proto, tos, ttl, whole, max_len } => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_IPV6);
            let class = |class: u8| (u16::from(class) << 4).to_be_bytes();
            entry.masked(IPV6_VERSION_CLASS, &class(tos.spec), &class(tos.mask));
            entry.exact_if(IPV6_NEXT_HEADER, proto.map(|proto| [proto]));
            entry.exact_if(IPV6_HOP_LIMIT, ttl.map(|ttl| [ttl]));
            entry.exact_if(IPV6_SRC, src.map(|src| src.octets()));
            entry.exact_if(IPV6_DST, dst.map(|dst| dst.octets()));
            if *whole {
                entry.masked(IPV6_EXTENSIONS, &[0], &[IPV6_HAS_FRAGMENT]);
            }
            entry.at_most(IPV6_PAYLOAD_LENGTH, *max_len);
            entry
        }
        Item::Udp { sport, dport, no_checksum } => {
            let mut entry = ports(kind::RTE_FLOW_ITEM_TYPE_UDP, *sport, *dport);
            if *no_checksum {
                entry.exact(UDP_CHECKSUM, &[0, 0]);
            }
            entry
        }
        Item::Tcp { sport, dport, flags } => {
            let mut entry = ports(kind::RTE_FLOW_ITEM_TYPE_TCP, *sport, *dport);
            entry.bits(TCP_FLAGS, *flags);
            entry
        }
        Item::Sctp { sport, dport } => ports(kind::RTE_FLOW_ITEM_TYPE_SCTP, *sport, *dport),
        Item::Mpls { label, bottom, ttl } => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_MPLS);
            let [high, middle, low, _] = (label.get() << 12).to_be_bytes();
            let bottom = u8::from(*bottom);
            entry.masked(MPLS_LABEL, &[high, middle, low | bottom], &[0xff, 0xff, 0xf0 | bottom]);
            entry.exact_if(MPLS_TTL, ttl.map(|ttl| [ttl]));
            entry
        }
        Item::Esp { spi } => {
            let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_ESP);
            entry.exact(ESP_SPI, &spi.to_be_bytes());
            entry
        }
        Item::Meta(value) => meta(value.bits(), u32::MAX),
        Item::Integrity { level, ipv4_checksum_ok, l3_ok } => integrity(*level, *ipv4_checksum_ok, *l3_ok),
        // The pattern's: they need what is named, or the item before.
        Item::Port(_) | Item::Vlan { .. } | Item::Prefix { .. } | Item::Tag(_) | Item::ToSend(_) | Item::AnyToSend => {
            Entry::new(kind::RTE_FLOW_ITEM_TYPE_VOID)
        }
    }
}

fn ports(kind: kind::Type, sport: Option<u16>, dport: Option<u16>) -> Entry {
    let mut entry = Entry::new(kind);
    entry.exact_if(SPORT, sport.map(u16::to_be_bytes));
    entry.exact_if(DPORT, dport.map(u16::to_be_bytes));
    entry
}

/// The level says which headers the bits are of; drivers read it from the spec or from the mask, so it is in both.
fn integrity(level: u8, ipv4_checksum_ok: bool, l3_ok: bool) -> Entry {
    use dpdk_sys::rte_flow_item_integrity as Layout;

    // Bits of rte_flow_item_integrity in the order of its declaration: packet_ok, l2_ok, l3_ok, l4_ok, l2_crc_ok, ipv4_csum_ok.
    let bits = u64::from(l3_ok) << 2 | u64::from(ipv4_checksum_ok) << 5;
    let mut entry = Entry::new(kind::RTE_FLOW_ITEM_TYPE_INTEGRITY);
    let level = u32::from(level).to_ne_bytes();
    entry.masked(offset_of!(Layout, level), &level, &level);
    let value = offset_of!(Layout, __bindgen_anon_1);
    entry.masked(value, &bits.to_ne_bytes(), &bits.to_ne_bytes());
    entry
}
