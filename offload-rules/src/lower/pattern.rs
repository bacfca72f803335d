//! Patterns: what a rule matches.

use std::net::IpAddr;

use super::{
    Arrival, Direction, Field, HeaderCheck, Ipv6Match, Item, L4, Meta, NicProfile, TunnelArrival, Unsupported, headers,
    profile::Matches,
};
use crate::flow::{Family, FlowKey};

/// SYN, FIN, RST clear, ACK set: what needs no state machine.
const TCP_ORDINARY: Field<u8> = Field { spec: 0x10, mask: 0x17 };
const ANY: Field<u8> = Field { spec: 0, mask: 0 };
/// The bit of the ECN field that is clear in Not-ECT and ECT(0): decapsulation leaves the inner field alone (RFC 6040 §4.2).
const QUIET_ECN: Field<u8> = Field { spec: 0, mask: 0x01 };
const VID: u16 = 0x0fff;
const UDP: u8 = 17;

/// How much of the outer tag's upper four bits decides what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing.
    None,
    /// The priority.
    Priority,
    /// Priority and drop eligibility.
    All,
}

/// What the actions depend on beside the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// Of the outer tag.
    pub(super) tag: Kept,
    /// The type of service is written into outer headers.
    pub(super) tos: bool,
    /// Largest IP packet; `None`: none that can arrive is larger.
    pub(super) max_len: Option<u16>,
}

/// The pattern of a rule that forwards: everything that software reads or checks of an ordinary packet.
pub(super) fn exact(direction: &Direction, profile: &NicProfile, needs: &Needs) -> Result<Vec<Item>, Unsupported> {
    let Direction { key, arrival, .. } = direction;
    let can = &profile.matches;
    check_family(key, can)?;
    let tcp = L4::of(key) == L4::Tcp;
    let is4 = key.family() == Family::Inet;
    let outer4 = arrival.tunnel.is_some() || is4;
    let missing = !can.eth_dst.value
        || !can.untagged.value
        || !can.ttl.value
        || (outer4 && !(can.no_options.value && can.whole.value))
        || ((needs.tos || arrival.tunnel.is_some()) && !can.tos.value)
        || (tcp && can.tcp_flags.value & TCP_ORDINARY.mask != TCP_ORDINARY.mask)
        || can.header_check.value == HeaderCheck::Unknown;
    if missing {
        return Err(Unsupported::Match);
    }
    if needs.max_len.is_some() && !can.length.value {
        return Err(Unsupported::Oversize);
    }
    let mut items = Vec::with_capacity(10);
    push_way_in(&mut items, arrival, can)?;
    push_integrity(&mut items, arrival, is4, can);
    items.push(Item::Eth { dst: Some(arrival.eth_dst), has_vlan: arrival.tags.first().is_some_and(Option::is_some) });
    push_tags(&mut items, arrival, needs.tag, can)?;
    if let Some(tunnel) = &arrival.tunnel {
        push_tunnel(&mut items, tunnel, can, true)?;
    }
    let tos = if needs.tos { Field { spec: arrival.tos, mask: 0xff } } else { ANY };
    items.push(ip(key, tos, Some(arrival.ttl), true, needs.max_len));
    push_l4(&mut items, key, TCP_ORDINARY);
    Ok(items)
}

/// The pattern of a rule that drops: the key and what leads to it, since whatever else they say, such packets are dropped in
/// software, too. What software would drop for another reason, or follow on the way, is software's as far as the NIC can tell: each
/// drop is counted under its own reason.
pub(super) fn key_only(direction: &Direction, profile: &NicProfile) -> Result<Vec<Item>, Unsupported> {
    let can = &profile.matches;
    let tagged = direction.arrival.tags.first().is_some_and(Option::is_some);
    if !tagged && !can.untagged.value {
        // A rule that sees through tags would drop another tenant's packets.
        return Err(Unsupported::Match);
    }
    loose(direction, can, tagged, true)
}

/// The pattern of a rule that marks: as exact as the NIC can. A mark is a hint that software checks against the packet.
pub(super) fn hint(direction: &Direction, profile: &NicProfile) -> Result<Vec<Item>, Unsupported> {
    let can = &profile.matches;
    let tags = direction.arrival.tags.iter().flatten().count();
    if tags > usize::from(can.vlan_tags.value) && can.untagged.value {
        return Err(Unsupported::Match);
    }
    loose(direction, can, tags <= usize::from(can.vlan_tags.value), false)
}

/// `ordinary`: only packets without peculiarities, as far as the NIC can tell.
fn loose(direction: &Direction, can: &Matches, with_tags: bool, ordinary: bool) -> Result<Vec<Item>, Unsupported> {
    let Direction { key, arrival, .. } = direction;
    check_family(key, can)?;
    let mut items = Vec::with_capacity(10);
    push_way_in(&mut items, arrival, can)?;
    if ordinary {
        push_integrity(&mut items, arrival, key.family() == Family::Inet, can);
    }
    let has_vlan = with_tags && arrival.tags.first().is_some_and(Option::is_some);
    items.push(Item::Eth { dst: can.eth_dst.value.then_some(arrival.eth_dst), has_vlan });
    if has_vlan {
        push_tags(&mut items, arrival, Kept::None, can)?;
    }
    if let Some(tunnel) = &arrival.tunnel {
        push_tunnel(&mut items, tunnel, can, ordinary)?;
    }
    let mut l3 = ip(key, ANY, None, false, None);
    if let Item::Ipv4 { no_options, whole, .. } = &mut l3 {
        (*no_options, *whole) = (ordinary && can.no_options.value, ordinary && can.whole.value);
    }
    items.push(l3);
    let flags = ordinary && can.tcp_flags.value & TCP_ORDINARY.mask == TCP_ORDINARY.mask;
    push_l4(&mut items, key, if flags { TCP_ORDINARY } else { ANY });
    Ok(items)
}

fn check_family(key: &FlowKey, can: &Matches) -> Result<(), Unsupported> {
    let l4 = L4::of(key);
    if l4 == L4::Sctp && !can.sctp.value {
        return Err(Unsupported::Protocol);
    }
    let needed = if l4 == L4::Other { Ipv6Match::Addresses } else { Ipv6Match::FiveTuple };
    if key.family() == Family::Inet6 && can.ipv6.value < needed {
        return Err(Unsupported::Family6);
    }
    Ok(())
}

/// The port; and of what the NIC has opened, out of which tunnel: who sends through one must not be taken for another.
fn push_way_in(items: &mut Vec<Item>, arrival: &Arrival, can: &Matches) -> Result<(), Unsupported> {
    items.push(Item::Port(arrival.port));
    if arrival.sealed_on.is_some() {
        if !can.meta.value {
            return Err(Unsupported::Ipsec);
        }
        items.push(Item::Meta(Meta::Opened(arrival.vif)));
    }
    Ok(())
}

/// The inner header before the outer one: it is what goes on.
fn push_integrity(items: &mut Vec<Item>, arrival: &Arrival, is4: bool, can: &Matches) {
    let check = can.header_check.value;
    let tunnel = arrival.tunnel.is_some();
    if matches!(check, HeaderCheck::Unknown | HeaderCheck::Parser) {
        return;
    }
    if !tunnel || check == HeaderCheck::EachLevel {
        items.push(Item::Integrity { level: 0, ipv4_checksum_ok: tunnel || is4, l3_ok: true });
    }
    if tunnel {
        items.push(Item::Integrity { level: 2, ipv4_checksum_ok: is4, l3_ok: true });
    }
}

fn push_tags(items: &mut Vec<Item>, arrival: &Arrival, kept: Kept, can: &Matches) -> Result<(), Unsupported> {
    let count = arrival.tags.iter().flatten().count();
    if count > usize::from(can.vlan_tags.value) || (kept != Kept::None && !can.vlan_priority.value) {
        return Err(Unsupported::Match);
    }
    for (i, tag) in arrival.tags.iter().flatten().enumerate() {
        let mask = match kept {
            Kept::Priority if i == 0 => VID | 0xe000,
            Kept::All if i == 0 => 0xffff,
            _ => VID,
        };
        let tci = Field { spec: headers::tci(tag, arrival.pcp_dei) & mask, mask };
        items.push(Item::Vlan { tpid: tag.tpid, tci, has_more: i + 1 < count });
    }
    Ok(())
}

/// Outer IPv4, UDP and the label. `whole`: with all that software checks of them.
fn push_tunnel(items: &mut Vec<Item>, tunnel: &TunnelArrival, can: &Matches, whole: bool) -> Result<(), Unsupported> {
    if !can.mpls.value {
        return Err(Unsupported::Decap);
    }
    items.push(Item::Ipv4 {
        src: Some(tunnel.source),
        dst: Some(tunnel.destination),
        proto: Some(UDP),
        tos: if whole && can.tos.value { QUIET_ECN } else { ANY },
        ttl: None,
        no_options: whole && can.no_options.value,
        whole: whole && can.whole.value,
        max_len: None,
    });
    items.push(Item::Udp {
        sport: None,
        dport: Some(tunnel.udp_port),
        no_checksum: whole && can.udp_no_checksum.value,
    });
    items.push(Item::Mpls {
        label: tunnel.label,
        bottom: whole && can.mpls_bottom.value,
        ttl: (whole && can.mpls_ttl.value).then_some(tunnel.label_ttl),
    });
    Ok(())
}

fn ip(key: &FlowKey, tos: Field<u8>, ttl: Option<u8>, exact: bool, max_len: Option<u16>) -> Item {
    let proto = Some(key.proto);
    match (key.source(), key.destination()) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let max_len = max_len.map(|len| len.saturating_sub(40));
            Item::Ipv6 { src: Some(src), dst: Some(dst), proto, tos, ttl, max_len }
        }
        (src, dst) => {
            // A key has one family.
            let v4 = |address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            };
            Item::Ipv4 { src: v4(src), dst: v4(dst), proto, tos, ttl, no_options: exact, whole: exact, max_len }
        }
    }
}

fn push_l4(items: &mut Vec<Item>, key: &FlowKey, flags: Field<u8>) {
    let (sport, dport) = (Some(key.sport), Some(key.dport));
    match L4::of(key) {
        L4::Tcp => items.push(Item::Tcp { sport, dport, flags }),
        L4::Udp => items.push(Item::Udp { sport, dport, no_checksum: false }),
        L4::Sctp => items.push(Item::Sctp { sport, dport }),
        L4::Other => {}
    }
}
