//! Patterns: what a rule matches.

use std::net::IpAddr;

use super::{
    Arrival, Direction, Field, HeaderCheck, Ipv6Match, Item, L4, Layout, Meta, NicProfile, ProtoMatch, Table,
    TunnelArrival, TunnelMatch, Unsupported, headers, profile::Matches, stages::Stages,
};
use crate::{
    flow::{Family, FlowKey},
    forwarding::VlanTag,
};

/// SYN, FIN, RST clear, ACK set: what needs no state machine.
const TCP_ORDINARY: Field<u8> = Field { spec: 0x10, mask: 0x17 };
const ANY: Field<u8> = Field { spec: 0, mask: 0 };
/// The bit of the ECN field that is clear in Not-ECT and ECT(0): decapsulation leaves the inner field alone (RFC 6040 §4.2).
const QUIET_ECN: Field<u8> = Field { spec: 0, mask: 0x01 };
const VID: u16 = 0x0fff;
/// Drop eligibility.
const DEI: u16 = 0x1000;
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

/// The match of a rule that forwards: everything that software reads or checks of an ordinary packet.
pub(super) fn exact(
    direction: &Direction,
    table: Table,
    profile: &NicProfile,
    needs: &Needs,
) -> Result<Stages, Unsupported> {
    check_exact(direction, profile, needs)?;
    staged(direction, table, profile, Some(needs))
}

/// Can the NIC match all that software reads or checks of the packets of a direction?
pub(super) fn check_exact(direction: &Direction, profile: &NicProfile, needs: &Needs) -> Result<(), Unsupported> {
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
    if profile.strict && !guards_headers(can.header_check.value, arrival) {
        return Err(Unsupported::HeaderCheck);
    }
    if needs.max_len.is_some() && !can.length.value {
        return Err(Unsupported::Oversize);
    }
    Ok(())
}

/// The match of a rule that drops: the key and what leads to it, since whatever else they say, such packets are dropped in
/// software, too. What software would drop for another reason, or follow on the way, is software's as far as the NIC can tell: each
/// drop is counted under its own reason.
pub(super) fn key_only(direction: &Direction, table: Table, profile: &NicProfile) -> Result<Stages, Unsupported> {
    let can = &profile.matches;
    let tagged = direction.arrival.tags.first().is_some_and(Option::is_some);
    if !tagged && !can.untagged.value {
        // A rule that sees through tags would drop another tenant's packets.
        return Err(Unsupported::Match);
    }
    check_family(&direction.key, can)?;
    let mut stages = staged(direction, table, profile, None)?;
    without_proto(&mut stages.items, direction, profile)?;
    Ok(stages)
}

/// Is a packet with a wrong header checksum or length kept from a rule for such packets?
const fn guards_headers(check: HeaderCheck, arrival: &Arrival) -> bool {
    match check {
        HeaderCheck::Unknown => false,
        HeaderCheck::Steering => arrival.tunnel.is_none(),
        HeaderCheck::Parser | HeaderCheck::OneItem | HeaderCheck::EachLevel => true,
    }
}

/// `needs`: of a rule that forwards.
fn staged(
    direction: &Direction,
    table: Table,
    profile: &NicProfile,
    needs: Option<&Needs>,
) -> Result<Stages, Unsupported> {
    let Direction { key, arrival, .. } = direction;
    let can = &profile.matches;
    let mut stages = outside(arrival, key.family(), table, profile, needs.map_or(Kept::None, |needs| needs.tag))?;
    let mut tos = ANY;
    let mut l3 = match needs {
        Some(needs) => {
            if needs.tos {
                tos = Field { spec: arrival.tos, mask: 0xff };
            }
            ip(key, tos, Some(arrival.ttl), needs.max_len)
        }
        None => ip(key, tos, None, None),
    };
    match &mut l3 {
        Item::Ipv4 { no_options, whole, .. } => (*no_options, *whole) = (can.no_options.value, can.whole.value),
        Item::Ipv6 { whole, .. } => *whole = can.whole6.value,
        _ => {}
    }
    if can.ipv6.value == Ipv6Match::TwoRules {
        split_addresses(&mut stages, &mut l3);
    }
    stages.items.push(l3);
    let flags = can.tcp_flags.value & TCP_ORDINARY.mask == TCP_ORDINARY.mask;
    push_l4(&mut stages.items, key, if flags { TCP_ORDINARY } else { ANY });
    Ok(stages)
}

/// The match up to the (inner) IP header: port, Ethernet, tags, and the tunnel with its label.
pub(super) fn outside(
    arrival: &Arrival,
    family: Family,
    table: Table,
    profile: &NicProfile,
    kept: Kept,
) -> Result<Stages, Unsupported> {
    let can = &profile.matches;
    let is4 = family == Family::Inet;
    if arrival.tunnel.is_some() && !is4 && can.ipv6.value == Ipv6Match::TwoRules && profile.layout == Layout::Switch {
        // Port, stage, label and an address of IPv6 are more than a definer holds (judged); in a port of its own the port is no field.
        return Err(Unsupported::Family6);
    }
    let mut stages = Stages::new(arrival.port, table, profile);
    push_opened(&mut stages.items, arrival, can)?;
    let mut eth = Item::Eth { dst: can.eth_dst.value.then_some(arrival.eth_dst), has_vlan: Some(false) };
    match arrival.tags {
        [Some(tag), inner] if !can.no_more_tags.value => {
            pop(&mut stages, eth, &Tags { outer: tag, inner, pcp_dei: arrival.pcp_dei }, profile)?;
            eth = Item::Eth { dst: None, has_vlan: Some(false) };
        }
        [Some(_), _] => eth = Item::Eth { dst: can.eth_dst.value.then_some(arrival.eth_dst), has_vlan: Some(true) },
        [None, _] => {}
    }
    let in_two = arrival.tunnel.is_some() && can.tunnel.value == TunnelMatch::TwoRules;
    let check = can.header_check.value;
    if in_two {
        push_integrity(&mut stages.items, check, 0, true);
    } else if arrival.tunnel.is_some() {
        if check == HeaderCheck::EachLevel {
            push_integrity(&mut stages.items, check, 0, true);
        }
        push_integrity(&mut stages.items, check, 2, is4);
    } else {
        push_integrity(&mut stages.items, check, 0, is4);
    }
    stages.items.push(eth);
    if !stages.is_untagged() {
        push_tags(&mut stages.items, arrival, kept, can)?;
    }
    if let Some(tunnel) = &arrival.tunnel {
        push_tunnel(&mut stages, tunnel, can, in_two.then_some(is4))?;
    }
    Ok(stages)
}

/// VLAN tags of a frame.
struct Tags {
    outer: VlanTag,
    inner: Option<VlanTag>,
    /// Priority and drop eligibility of the outer tag: its upper four bits.
    pcp_dei: u8,
}

/// A stage that matches the one tag as a whole and takes it off, where the NIC does not match that no more follow: without it, the next
/// one would be seen as the first. The TAG register says which it was.
fn pop(stages: &mut Stages, mut eth: Item, tags: &Tags, profile: &NicProfile) -> Result<(), Unsupported> {
    let Tags { outer: tag, inner, pcp_dei } = *tags;
    let can = &profile.matches;
    let tci = headers::tci(&tag, pcp_dei);
    let whole_tag = can.untagged.value && can.vlan_priority.value && can.vlan_tags.value > 0;
    if inner.is_some() || !whole_tag || !profile.does.jump.value {
        return Err(Unsupported::Match);
    }
    let puts_back = profile.layout == Layout::Switch || profile.does.push_on_receive.value;
    if tci & DEI != 0 || !puts_back {
        // What puts a tag back cannot set it; or there is nothing that does.
        return Err(Unsupported::Vlan);
    }
    check_type(&tag, can)?;
    if let Item::Eth { has_vlan, .. } = &mut eth {
        *has_vlan = Some(true);
    }
    stages.items.push(eth);
    stages.items.push(Item::Vlan { tpid: tag.tpid, tci: Field { spec: tci, mask: 0xffff }, has_more: None });
    stages.pop(tag, tci);
    Ok(())
}

/// A stage that matches the source of an IPv6 packet: two addresses are more than one rule of the NIC holds.
fn split_addresses(stages: &mut Stages, l3: &mut Item) {
    let Item::Ipv6 { src, whole, .. } = l3 else { return };
    let begun: Vec<Item> = stages.items.iter().filter(|item| is_header(item)).map(bare).collect();
    let first = Item::Ipv6 {
        src: src.take(),
        dst: None,
        proto: None,
        tos: ANY,
        ttl: None,
        whole: std::mem::take(whole),
        max_len: None,
    };
    stages.items.push(first);
    stages.next(Table::Source6);
    stages.items.extend(begun);
}

/// The pattern of a rule that marks: as exact as the NIC can in one rule. A mark is a hint that software checks against the packet.
pub(super) fn hint(direction: &Direction, profile: &NicProfile) -> Result<Vec<Item>, Unsupported> {
    let Direction { key, arrival, .. } = direction;
    let can = &profile.matches;
    let tags = arrival.tags.iter().flatten().count();
    if tags > usize::from(can.vlan_tags.value) && can.untagged.value {
        return Err(Unsupported::Match);
    }
    let with_tags = tags <= usize::from(can.vlan_tags.value);
    check_family(key, can)?;
    if key.family() == Family::Inet6 && can.ipv6.value == Ipv6Match::TwoRules {
        // A mark is one rule.
        return Err(Unsupported::Family6);
    }
    let mut items = Vec::with_capacity(10);
    items.push(Item::Port(arrival.port));
    push_opened(&mut items, arrival, can)?;
    let has_vlan = with_tags && tags > 0;
    items.push(Item::Eth {
        dst: can.eth_dst.value.then_some(arrival.eth_dst),
        has_vlan: can.untagged.value.then_some(has_vlan),
    });
    if has_vlan {
        push_tags(&mut items, arrival, Kept::None, can)?;
    }
    if let Some(tunnel) = &arrival.tunnel {
        items.extend(tunnel_items(tunnel, can, false)?);
    }
    items.push(ip(key, ANY, None, None));
    push_l4(&mut items, key, ANY);
    without_proto(&mut items, direction, profile)?;
    Ok(items)
}

/// Some drivers refuse the protocol's number beside ports, or at all: there the item of the ports says it.
fn without_proto(items: &mut [Item], direction: &Direction, profile: &NicProfile) -> Result<(), Unsupported> {
    let has_ports = L4::of(&direction.key) != L4::Other;
    match (profile.dialect.proto.value, has_ports) {
        (ProtoMatch::Always, _) | (ProtoMatch::WithoutPorts, false) => return Ok(()),
        (ProtoMatch::Never, false) => return Err(Unsupported::Protocol),
        (ProtoMatch::WithoutPorts | ProtoMatch::Never, true) => {}
    }
    let inner = items.iter_mut().rev().find_map(|item| match item {
        Item::Ipv4 { proto, .. } | Item::Ipv6 { proto, .. } => Some(proto),
        _ => None,
    });
    if let Some(proto) = inner {
        *proto = None;
    }
    Ok(())
}

fn check_family(key: &FlowKey, can: &Matches) -> Result<(), Unsupported> {
    let l4 = L4::of(key);
    if l4 == L4::Sctp && !can.sctp.value {
        return Err(Unsupported::Protocol);
    }
    let needed = if l4 == L4::Other { Ipv6Match::Addresses } else { Ipv6Match::TwoRules };
    if key.family() == Family::Inet6 && can.ipv6.value < needed {
        return Err(Unsupported::Family6);
    }
    Ok(())
}

/// Of what the NIC has opened, out of which tunnel: who sends through one must not be taken for another.
fn push_opened(items: &mut Vec<Item>, arrival: &Arrival, can: &Matches) -> Result<(), Unsupported> {
    if arrival.sealed_on.is_some() {
        if !can.meta.value {
            return Err(Unsupported::Ipsec);
        }
        items.push(Item::Meta(Meta::Opened(arrival.vif)));
    }
    Ok(())
}

/// The item that keeps wrong headers of a level from a rule, where it is the rule that does so.
fn push_integrity(items: &mut Vec<Item>, check: HeaderCheck, level: u8, is4: bool) {
    if matches!(check, HeaderCheck::OneItem | HeaderCheck::EachLevel) {
        items.push(Item::Integrity { level, ipv4_checksum_ok: is4, l3_ok: true });
    }
}

fn check_type(tag: &VlanTag, can: &Matches) -> Result<(), Unsupported> {
    if can.tag_types.value.contains(&tag.tpid) { Ok(()) } else { Err(Unsupported::TagType) }
}

fn push_tags(items: &mut Vec<Item>, arrival: &Arrival, kept: Kept, can: &Matches) -> Result<(), Unsupported> {
    let count = arrival.tags.iter().flatten().count();
    if count > usize::from(can.vlan_tags.value) || (kept != Kept::None && !can.vlan_priority.value) {
        return Err(Unsupported::Match);
    }
    for (i, tag) in arrival.tags.iter().flatten().enumerate() {
        check_type(tag, can)?;
        let mask = match kept {
            Kept::Priority if i == 0 => VID | 0xe000,
            Kept::All if i == 0 => 0xffff,
            _ => VID,
        };
        let tci = Field { spec: headers::tci(tag, arrival.pcp_dei) & mask, mask };
        let has_more = can.no_more_tags.value.then_some(i + 1 < count);
        items.push(Item::Vlan { tpid: tag.tpid, tci, has_more });
    }
    Ok(())
}

/// The outer header, and a stage behind it where both headers are more than one rule holds (`split`, with the family of what is inside);
/// then the label.
fn push_tunnel(
    stages: &mut Stages,
    tunnel: &TunnelArrival,
    can: &Matches,
    split: Option<bool>,
) -> Result<(), Unsupported> {
    let [ip, udp, label] = tunnel_items(tunnel, can, true)?;
    stages.items.extend([ip, udp]);
    if let Some(is4) = split {
        let mut begun: Vec<Item> = stages.items.iter().filter(|item| is_header(item)).map(bare).collect();
        stages.next(Table::Inner);
        push_integrity(&mut stages.items, can.header_check.value, 2, is4);
        stages.items.append(&mut begun);
    }
    stages.items.push(label);
    Ok(())
}

/// Outer IPv4, UDP and the label. `whole`: with all that software checks of them.
fn tunnel_items(tunnel: &TunnelArrival, can: &Matches, whole: bool) -> Result<[Item; 3], Unsupported> {
    if !can.mpls.value {
        return Err(Unsupported::Decap);
    }
    if !can.mpls_ports.value.contains(&tunnel.udp_port) {
        return Err(Unsupported::TunnelPort);
    }
    let ip = Item::Ipv4 {
        src: Some(tunnel.source),
        dst: Some(tunnel.destination),
        proto: Some(UDP),
        tos: if whole && can.tos.value { QUIET_ECN } else { ANY },
        ttl: None,
        no_options: whole && can.no_options.value,
        whole: whole && can.whole.value,
        max_len: None,
    };
    let udp = Item::Udp { sport: None, dport: Some(tunnel.udp_port), no_checksum: whole && can.udp_no_checksum.value };
    let label = Item::Mpls {
        label: tunnel.label,
        bottom: whole && can.mpls_bottom.value,
        ttl: (whole && can.mpls_ttl.value).then_some(tunnel.label_ttl),
    };
    Ok([ip, udp, label])
}

/// Is it of a header on the wire?
pub(super) const fn is_header(item: &Item) -> bool {
    !matches!(
        item,
        Item::Port(_) | Item::Meta(_) | Item::Tag(_) | Item::ToSend(_) | Item::AnyToSend | Item::Integrity { .. }
    )
}

/// An IP header of a family, whatever is in it.
pub(super) const fn any_ip(family: Family) -> Item {
    match family {
        Family::Inet => Item::Ipv4 {
            src: None,
            dst: None,
            proto: None,
            tos: ANY,
            ttl: None,
            no_options: false,
            whole: false,
            max_len: None,
        },
        Family::Inet6 => {
            Item::Ipv6 { src: None, dst: None, proto: None, tos: ANY, ttl: None, whole: false, max_len: None }
        }
    }
}

/// The header alone: its fields have been matched by a stage.
pub(super) fn bare(item: &Item) -> Item {
    match item {
        Item::Eth { .. } => Item::Eth { dst: None, has_vlan: None },
        Item::Ipv4 { .. } => any_ip(Family::Inet),
        Item::Udp { dport, .. } => Item::Udp { sport: None, dport: *dport, no_checksum: false },
        other => other.clone(),
    }
}

fn ip(key: &FlowKey, tos: Field<u8>, ttl: Option<u8>, max_len: Option<u16>) -> Item {
    let proto = Some(key.proto);
    match (key.source(), key.destination()) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let max_len = max_len.map(|len| len.saturating_sub(40));
            Item::Ipv6 { src: Some(src), dst: Some(dst), proto, tos, ttl, whole: false, max_len }
        }
        (src, dst) => {
            // A key has one family.
            let v4 = |address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            };
            Item::Ipv4 { src: v4(src), dst: v4(dst), proto, tos, ttl, no_options: false, whole: false, max_len }
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
