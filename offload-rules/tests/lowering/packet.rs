//! A packet as its fields, and whether a rule matches it: the rte_flow guide's meaning of items, on its own.

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    MacAddr,
    classify::Side,
    lower::{Action, Chain, Field, Item, Meta, Rule, Stage, Table},
};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packet {
    pub(crate) port: u16,
    pub(crate) eth_dst: MacAddr,
    /// TPID and control information.
    pub(crate) tags: Vec<(u16, u16)>,
    /// What rules of earlier tables have written.
    pub(crate) meta: Option<Meta>,
    /// The TAG register.
    pub(crate) stage: Option<Stage>,
    pub(crate) outer: Option<Outer>,
    pub(crate) ip: Ip,
    pub(crate) l4: L4,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outer {
    pub(crate) ip: Ip,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) checksum: u16,
    pub(crate) label: u32,
    pub(crate) bottom: bool,
    pub(crate) ttl: u8,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Next header of the fixed header, for IPv6.
    pub(crate) proto: u8,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) options: bool,
    pub(crate) fragment: bool,
    /// Octets with the header.
    pub(crate) len: u16,
    pub(crate) checksum_ok: bool,
    pub(crate) len_ok: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct L4 {
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) flags: u8,
}

fn is<T: PartialEq>(wanted: Option<T>, got: T) -> bool {
    wanted.is_none_or(|wanted| wanted == got)
}

fn field8(field: &Field<u8>, got: u8) -> bool {
    assert_eq!(field.spec & !field.mask, 0, "bits of spec outside the mask break hits");
    got & field.mask == field.spec
}

/// Takes the packet through the stages of a chain, as the NIC does: each changes it, and tells the next.
pub(crate) fn matches(chain: &Chain, packet: &Packet) -> bool {
    let mut packet = packet.clone();
    let mut table = None;
    for rule in chain.rules() {
        let Some(stage) = rule.actions.iter().find_map(|action| match action {
            Action::SetTag(stage) => Some(stage.clone()),
            _ => None,
        }) else {
            // The last one; or one that a packet meets that none of these rules takes.
            if *rule == chain.rule {
                return table.is_none_or(|table| table == rule.table) && hits(rule, &packet);
            }
            continue;
        };
        if table.is_some_and(|table| table != rule.table) || !hits(rule, &packet) {
            return false;
        }
        for action in &rule.actions {
            match action {
                Action::PopVlan => _ = packet.tags.remove(0),
                Action::Jump(to) => table = Some(*to),
                Action::SetTag(_) => packet.stage = Some(stage.clone()),
                other => panic!("a stage does {other:?}"),
            }
        }
    }
    unreachable!("a chain ends with its rule")
}

/// Walks the headers along the items; each item must be about the next header. A stage may end before the last header.
fn hits(rule: &Rule, packet: &Packet) -> bool {
    // What was opened is looked up in a table of its own, and nothing else is.
    let opened = matches!(packet.meta, Some(Meta::Opened(_)));
    if packet.stage.is_none() && (rule.table == Table::Opened) != opened {
        return false;
    }
    let writes_stage = rule.actions.iter().any(|action| matches!(action, Action::SetTag(_)));
    let mut tags = packet.tags.iter().peekable();
    let mut outer = packet.outer.as_ref();
    let mut in_outer = false;
    rule.items.iter().all(|item| match item {
        Item::Port(port) => port.get() == packet.port,
        Item::Eth { dst, has_vlan } => is(*dst, packet.eth_dst) && is(*has_vlan, !packet.tags.is_empty()),
        Item::Vlan { tpid, tci, has_more } => {
            assert_eq!(tci.spec & !tci.mask, 0);
            let Some((got, control)) = tags.next() else { return false };
            got == tpid && control & tci.mask == tci.spec && is(*has_more, tags.peek().is_some())
        }
        Item::Ipv4 { src, dst, proto, tos, ttl, no_options, whole, max_len } => {
            in_outer = outer.is_some();
            let ip = outer.map_or(&packet.ip, |outer| &outer.ip);
            let (IpAddr::V4(s), IpAddr::V4(d)) = (ip.src, ip.dst) else { return false };
            is(*src, s)
                && is(*dst, d)
                && is(*proto, ip.proto)
                && field8(tos, ip.tos)
                && is(*ttl, ip.ttl)
                && !(*no_options && ip.options)
                && !(*whole && ip.fragment)
                && max_len.is_none_or(|max| ip.len <= max)
        }
        // No packet here has extension headers and the protocol of what is behind them.
        Item::Ipv6 { src, dst, proto, tos, ttl, whole: _, max_len } => {
            if outer.is_some() {
                return false;
            }
            in_outer = false;
            let ip = &packet.ip;
            let (IpAddr::V6(s), IpAddr::V6(d)) = (ip.src, ip.dst) else { return false };
            is(*src, s)
                && is(*dst, d)
                && is(*proto, ip.proto)
                && field8(tos, ip.tos)
                && is(*ttl, ip.ttl)
                && max_len.is_none_or(|max| ip.len - 40 <= max)
        }
        // Of the IP header before it.
        Item::Prefix { of, net } => {
            let ip = outer.filter(|_| in_outer).map_or(&packet.ip, |outer| &outer.ip);
            net.contains(if *of == Side::Source { &ip.src } else { &ip.dst })
        }
        Item::Udp { sport, dport, no_checksum } => {
            let (s, d, zero) = match outer.filter(|_| in_outer) {
                Some(outer) => (outer.sport, outer.dport, outer.checksum == 0),
                None => (packet.l4.sport, packet.l4.dport, false),
            };
            is(*sport, s) && is(*dport, d) && (!no_checksum || zero)
        }
        Item::Meta(meta) => packet.meta == Some(*meta),
        Item::Tag(stage) => packet.stage.as_ref() == Some(stage),
        Item::ToSend(_) | Item::AnyToSend => panic!("that is the side of sending"),
        // None of these packets is ESP.
        Item::Esp { .. } => false,
        Item::Mpls { label, bottom, ttl } => {
            let Some(got) = outer.take() else { return false };
            label.get() == got.label && (!bottom || got.bottom) && is(*ttl, got.ttl)
        }
        Item::Tcp { sport, dport, flags } => {
            outer.is_none()
                && is(*sport, packet.l4.sport)
                && is(*dport, packet.l4.dport)
                && field8(flags, packet.l4.flags)
        }
        Item::Sctp { sport, dport } => outer.is_none() && is(*sport, packet.l4.sport) && is(*dport, packet.l4.dport),
        Item::Integrity { level, ipv4_checksum_ok, l3_ok } => {
            let ip = match (&packet.outer, level) {
                (Some(outer), 0 | 1) => &outer.ip,
                _ => &packet.ip,
            };
            (!ipv4_checksum_ok || ip.checksum_ok) && (!l3_ok || ip.len_ok)
        }
    }) && (writes_stage || (tags.next().is_none() && outer.is_none()))
}

pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8) -> Ip {
    Ip {
        src: src.into(),
        dst: dst.into(),
        proto,
        tos: 0,
        ttl: 64,
        options: false,
        fragment: false,
        len: 1000,
        checksum_ok: true,
        len_ok: true,
    }
}
