//! From a direction to its rule.

use std::net::Ipv4Addr;

use super::{
    Action, Arrival, Direction, Item, Meta, NicProfile, Rule, Shape, Table, TtlRewrite, Unsupported, headers,
    pattern::{self, Kept, Needs},
    shape::check_protocol,
};
use crate::{
    MacAddr, VifId,
    flow::{Op, TunnelHeader},
    forwarding::L2Rewrite,
};

/// Priorities. Flows have two, so that a rule is replaced by one beside it.
pub mod priority {
    /// Steering: to the tunnel group.
    pub const TERMINATION: u32 = 0;
    /// Marks: the only one that Intel's drivers take.
    pub const MARK: u32 = 0;
    /// Steering: everything else.
    pub const PORT: u32 = 1;
    /// Flows.
    pub const FLOW: u32 = 2;
    /// Flows, the other one.
    pub const FLOW_ALTERNATE: u32 = 3;
    /// What no flow has.
    pub const DEFAULT: u32 = 4;
}

/// What a program does, flat.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    ttl: u8,
    limit: u16,
    encap: Option<&'a TunnelHeader>,
    l2: &'a L2Rewrite,
    out: VifId,
    /// The IPsec tunnel that it goes into.
    seal: Option<VifId>,
}

/// The rule of a direction, at one of the two priorities of flows. Under a microsecond.
///
/// # Errors
/// [`Unsupported`]: the first reason, those of the program before those of the NIC. No other time makes a difference unless
/// program, arrival or profile have changed.
pub fn lower(direction: &Direction, profile: &NicProfile, alternate: bool) -> Result<Rule, Unsupported> {
    check_protocol(&direction.key)?;
    check_arrival(direction)?;
    let rule =
        if direction.program.drops().is_some() { drop(direction, profile)? } else { forward(direction, profile)? };
    profile.allows(&Shape::of(direction))?;
    let priority = if alternate { priority::FLOW_ALTERNATE } else { priority::FLOW };
    Ok(Rule { priority, ..rule })
}

/// The rule that marks the packets of a direction and hands them to a receive queue: for what the NIC cannot forward. The mark is
/// a hint: the pattern is as exact as the NIC can, which may be less than exact, so software compares the packet with what the
/// mark says. It is a rule of receive, not of transfer: group 0.
///
/// # Errors
/// [`Unsupported`].
pub fn partial(direction: &Direction, mark: u32, queue: u16, profile: &NicProfile) -> Result<Rule, Unsupported> {
    check_protocol(&direction.key)?;
    check_arrival(direction)?;
    let does = &profile.does;
    if mark > does.mark.value || does.mark.value == 0 || !does.queue.value {
        return Err(Unsupported::Mark);
    }
    let items = pattern::hint(direction, profile)?;
    profile.allows(&Shape::of_partial(direction))?;
    let mut actions = Vec::with_capacity(3);
    actions.push(Action::Mark(mark));
    // Not in mlx5's root group: it counts nothing. Software counts what is marked; the counter is for whoever looks at the NIC.
    if does.count.value && !does.jump.value {
        actions.push(Action::Count);
    }
    actions.push(Action::Queue(queue));
    Ok(Rule { table: Table::Flows, priority: priority::MARK, items, actions })
}

fn check_arrival(direction: &Direction) -> Result<(), Unsupported> {
    let arrival = &direction.arrival;
    if arrival.eth_dst == MacAddr::default() {
        return Err(Unsupported::RawIp);
    }
    let comes_out = direction.key.vif == VifId::TUNNEL;
    let holes = matches!(arrival.tags, [None, Some(_)]);
    if comes_out != arrival.tunnel.is_some() || holes {
        return Err(Unsupported::Match);
    }
    Ok(())
}

fn table(direction: &Direction, profile: &NicProfile) -> Table {
    match (&direction.arrival, profile.does.jump.value) {
        (_, false) => Table::Flows,
        (Arrival { sealed_on: Some(_), .. }, true) => Table::Opened,
        (Arrival { tunnel: None, .. }, true) => Table::Tenant,
        (Arrival { tunnel: Some(_), .. }, true) => Table::Tunnel,
    }
}

fn drop(direction: &Direction, profile: &NicProfile) -> Result<Rule, Unsupported> {
    if !profile.does.drop.value {
        return Err(Unsupported::Drop);
    }
    let items = pattern::key_only(direction, profile)?;
    if direction.arrival.sealed_on.is_some() && !profile.seals_between_ports() {
        return Err(Unsupported::Ipsec);
    }
    let mut actions = Vec::with_capacity(2);
    if profile.does.count.value {
        actions.push(Action::Count);
    }
    actions.push(Action::Drop);
    Ok(Rule { table: table(direction, profile), priority: 0, items, actions })
}

fn forward(direction: &Direction, profile: &NicProfile) -> Result<Rule, Unsupported> {
    let way = way(direction)?;
    let does = &profile.does;
    let arrival = &direction.arrival;
    if way.seal.is_some() && !profile.seals_between_ports() {
        return Err(Unsupported::Ipsec);
    }
    let unchangeable = !(does.raw_decap.value && does.raw_encap.value);
    if arrival.tunnel.is_some() && (unchangeable || !profile.matches.mpls.value) {
        return Err(Unsupported::Decap);
    }
    if way.encap.is_some() && unchangeable {
        return Err(Unsupported::Encap);
    }
    if !does.port_to_port.value {
        return Err(Unsupported::PortToPort);
    }
    if !does.count.value {
        // Who cannot count can't tell that a flow is in use.
        return Err(Unsupported::Match);
    }
    check_ttl(&way, direction, profile)?;
    let tci_in = headers::tci_in(arrival);
    let mut actions = Vec::with_capacity(8);
    let tag = if arrival.tunnel.is_some() || way.encap.is_some() {
        push_exchange(&mut actions, direction, &way, tci_in);
        // A priority tag without priority and eligibility leaves the tag's own.
        match (tci_in, way.l2.tags()) {
            (None, _) | (_, 0) => Kept::None,
            (Some(tci), _) if tci & 0x0fff == 0 => Kept::All,
            _ => Kept::Priority,
        }
    } else {
        push_edits(&mut actions, direction, &way, profile, tci_in)?
    };
    // Which session a tunnel seals with is in one rule of the next table, so that a rekey leaves flows alone.
    actions.push(if way.seal.is_some() { Action::Jump(Table::Seal) } else { Action::Port(way.out) });
    let needs =
        Needs { tag, tos: way.encap.is_some(), max_len: (way.limit < direction.ingress_mtu).then_some(way.limit) };
    let items = pattern::exact(direction, profile, &needs)?;
    Ok(Rule { table: table(direction, profile), priority: 0, items, actions })
}

/// Reads the program.
fn way(direction: &Direction) -> Result<Way<'_>, Unsupported> {
    let (mut ttl, mut limit, mut encap, mut l2, mut decap, mut sent) = (0, u16::MAX, None, None, false, false);
    let mut seal = None;
    for op in &direction.program.ops {
        match op {
            Op::DecapMplsOUdp => decap = true,
            Op::DecrementTtl(by) => ttl = *by,
            // On SYNs alone: those are software's.
            Op::ClampMss(_) => {}
            Op::LimitSize { mtu, .. } => limit = *mtu,
            Op::EncapMplsOUdp(header) => encap = Some(header.as_ref()),
            Op::RewriteL2(header) => l2 = Some(header),
            Op::Output(_) => sent = true,
            Op::Punt(_) => return Err(Unsupported::Punt),
            Op::ShiftAck | Op::ShiftSeq => return Err(Unsupported::SequenceShift),
            Op::Drop(_) => return Err(Unsupported::Drop),
            Op::Seal(header) => seal = Some(header.vif),
        }
    }
    if decap != direction.arrival.tunnel.is_some() || !sent {
        return Err(Unsupported::Match);
    }
    let l2 = l2.ok_or(Unsupported::RawIp)?;
    let out = direction.egress_port.ok_or(Unsupported::ForeignPort)?;
    Ok(Way { ttl, limit, encap, l2, out, seal })
}

fn check_ttl(way: &Way<'_>, direction: &Direction, profile: &NicProfile) -> Result<(), Unsupported> {
    // What has too little left is answered in software.
    if direction.arrival.ttl <= way.ttl {
        return Err(Unsupported::Ttl);
    }
    match (way.ttl, profile.does.ttl.value) {
        (0, _) | (_, TtlRewrite::Set) | (1, TtlRewrite::Decrement) => Ok(()),
        _ => Err(Unsupported::Ttl),
    }
}

fn push_ttl(actions: &mut Vec<Action>, direction: &Direction, way: &Way<'_>) {
    if way.ttl > 0 {
        actions.push(Action::SetTtl { version: direction.key.version, ttl: direction.arrival.ttl - way.ttl });
    }
}

fn push_meta(actions: &mut Vec<Action>, way: &Way<'_>) {
    actions.extend(way.seal.map(|tunnel| Action::SetMeta(Meta::ToSeal(tunnel))));
}

/// A tunnel on either side: the headers before the IP packet come off, others are put on.
fn push_exchange(actions: &mut Vec<Action>, direction: &Direction, way: &Way<'_>, tci_in: Option<u16>) {
    let arrival = &direction.arrival;
    let family = direction.key.family();
    actions.push(Action::RawDecap(headers::taken_off(arrival, family)));
    actions.push(Action::Count);
    push_ttl(actions, direction, way);
    push_meta(actions, way);
    let ethertype = if way.encap.is_some() { 0x0800 } else { headers::ethertype(family) };
    let mut bytes = headers::ethernet(way.l2, ethertype, tci_in);
    if let Some(header) = way.encap {
        let dscp = header.dscp.0.get(usize::from(arrival.tos >> 2)).copied().unwrap_or(0);
        let outer = headers::Outer {
            // RFC 6040 §4.1: the ECN field is copied.
            tos: dscp << 2 | arrival.tos & 3,
            id: direction.ip_id,
            sport: direction.tunnel_sport,
            ttl: arrival.ttl - way.ttl,
        };
        headers::push_tunnel(&mut bytes, header, &outer);
    }
    actions.push(Action::RawEncap(bytes));
}

/// From vif to vif: addresses, tags and TTL change in place.
fn push_edits(
    actions: &mut Vec<Action>,
    direction: &Direction,
    way: &Way<'_>,
    profile: &NicProfile,
    tci_in: Option<u16>,
) -> Result<Kept, Unsupported> {
    let does = &profile.does;
    let Some((&dst, &src)) =
        way.l2.bytes().first_chunk::<6>().zip(way.l2.bytes().get(6..).and_then(<[u8]>::first_chunk))
    else {
        return Err(Unsupported::RewriteL2);
    };
    if !does.set_macs.value {
        return Err(Unsupported::RewriteL2);
    }
    let tags_in = direction.arrival.tags.iter().flatten().count() as u8;
    let tags_out = way.l2.tags();
    if tags_in.max(tags_out) > does.vlan_tags.value {
        return Err(Unsupported::Vlan);
    }
    let first = headers::tag_out(way.l2, 0, tci_in);
    // In place, the bit for drop eligibility stays as it came: so it has to be what software writes.
    let in_place = match (first, tci_in, direction.arrival.tags) {
        (Some((tpid, out)), Some(tci), [Some(tag), None]) if does.set_vlan.value && tags_out == 1 => {
            tpid == tag.tpid && (out ^ tci) & 0x1000 == 0
        }
        _ => false,
    };
    if !in_place {
        (0..tags_in).for_each(|_| actions.push(Action::PopVlan));
    }
    actions.push(Action::Count);
    if in_place {
        actions.extend(first.map(|(_, tci)| Action::SetVlan { tci }));
    } else {
        // The inner one first: what is pushed last is outermost.
        for index in (0..usize::from(tags_out)).rev() {
            let Some((tpid, tci)) = headers::tag_out(way.l2, index, tci_in) else { return Err(Unsupported::Vlan) };
            if tci & 0x1000 != 0 {
                // No action writes the bit for drop eligibility.
                return Err(Unsupported::Vlan);
            }
            actions.push(Action::PushVlan { tpid, tci });
        }
    }
    actions.push(Action::SetMacs { dst: MacAddr(dst), src: MacAddr(src) });
    push_ttl(actions, direction, way);
    push_meta(actions, way);
    Ok(match (tci_in, tags_out) {
        (None, _) | (_, 0) => Kept::None,
        (Some(tci), _) if in_place || tci & 0x0fff == 0 => Kept::All,
        _ => Kept::Priority,
    })
}

/// The rule that takes packets for an own tunnel address to the tunnel group, or those of a port to the tenant group.
pub(super) fn steer(items: Vec<Item>, priority: u32, to: Table) -> Rule {
    Rule { table: Table::Steering, priority, items, actions: vec![Action::Jump(to)] }
}

/// Pattern of an outer packet to an own address: IPv4 without options, whole.
pub(super) const fn outer_to(address: Ipv4Addr) -> Item {
    let tos = super::Field { spec: 0, mask: 0 };
    Item::Ipv4 {
        src: None,
        dst: Some(address),
        proto: Some(17),
        tos,
        ttl: None,
        no_options: true,
        whole: true,
        max_len: None,
    }
}
