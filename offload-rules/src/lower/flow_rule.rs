//! The rules of a flow's direction: the one that forwards or drops, and the one that marks.

use std::net::Ipv4Addr;

use super::{
    Action, Arrival, Chain, Direction, Item, Layout, NicProfile, Rule, Table, TtlRewrite, Unsupported,
    edits::{self, Rewrite},
    pattern::{self, Kept, Needs},
    priority,
    shape::check_protocol,
};
use crate::{
    MacAddr, VifId,
    flow::{Egress, Forward},
};

/// The rule of a direction, at one of the two priorities of flows, and what it builds upon. Under a microsecond.
///
/// # Errors
/// [`Unsupported`]: the first reason, those of the program before those of the NIC. No other time makes a difference unless
/// program, arrival or profile have changed.
pub fn lower(direction: &Direction, profile: &NicProfile, alternate: bool) -> Result<Chain, Unsupported> {
    check_protocol(&direction.key)?;
    check_arrival(direction)?;
    let mut chain =
        if direction.program.drops().is_some() { drop(direction, profile)? } else { forward(direction, profile)? };
    chain.rule.priority = profile.flow_priority(alternate);
    Ok(chain)
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
    let mut actions = Vec::with_capacity(3);
    actions.push(Action::Mark(mark));
    // Not in mlx5's root group: it counts nothing. Software counts what is marked; the counter is for whoever looks at the NIC.
    if does.count.value && !does.jump.value {
        actions.push(Action::Count);
    }
    actions.push(Action::Queue(queue));
    Ok(Rule { table: Table::Flows, priority: priority::MARK, items, actions })
}

pub(super) fn check_arrival(direction: &Direction) -> Result<(), Unsupported> {
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

pub(super) fn table(arrival: &Arrival, profile: &NicProfile) -> Table {
    match (arrival, profile.does.jump.value) {
        (_, false) => Table::Flows,
        (Arrival { sealed_on: Some(_), .. }, true) => Table::Opened,
        (Arrival { tunnel: None, .. }, true) => Table::Tenant,
        (Arrival { tunnel: Some(_), .. }, true) => Table::Tunnel,
    }
}

fn drop(direction: &Direction, profile: &NicProfile) -> Result<Chain, Unsupported> {
    if !profile.does.drop.value {
        return Err(Unsupported::Drop);
    }
    let stages = pattern::key_only(direction, table(&direction.arrival, profile), profile)?;
    if direction.arrival.sealed_on.is_some() && !profile.seals_between_ports() {
        return Err(Unsupported::Ipsec);
    }
    let mut actions = Vec::with_capacity(2);
    if profile.does.count.value {
        actions.push(Action::Count);
    }
    actions.push(Action::Drop);
    Ok(Chain { needs: stages.needs, rule: Rule { table: stages.table, priority: 0, items: stages.items, actions } })
}

fn forward(direction: &Direction, profile: &NicProfile) -> Result<Chain, Unsupported> {
    let rewrite = rewrite(direction)?;
    check_way(direction, &rewrite, profile)?;
    check_ttl(&rewrite, direction, profile)?;
    let edits = edits::edits(direction, &rewrite, profile)?;
    let needs = needs(direction, &rewrite, edits.kept, profile);
    let stages = pattern::exact(direction, table(&direction.arrival, profile), profile, &needs)?;
    let mut needs = stages.needs;
    if let Some(before) = edits.before {
        // What finishes a packet is there before anything that begins it, and stays longer.
        needs.insert(0, before);
    }
    let rule = Rule { table: stages.table, priority: 0, items: stages.items, actions: edits.actions };
    Ok(Chain { needs, rule })
}

/// What the actions of a rule that forwards depend on.
pub(super) fn needs(direction: &Direction, rewrite: &Rewrite<'_>, tag: Kept, profile: &NicProfile) -> Needs {
    Needs {
        tag,
        tos: rewrite.encap.is_some(),
        max_len: (rewrite.limit < profile.arrives(direction)).then_some(rewrite.limit),
    }
}

/// Does the NIC lead this way at all?
pub(super) fn check_way(direction: &Direction, rewrite: &Rewrite<'_>, profile: &NicProfile) -> Result<(), Unsupported> {
    let does = &profile.does;
    let arrival = &direction.arrival;
    if rewrite.seal.is_some() && !(profile.seals_between_ports() && profile.layout == Layout::Switch) {
        return Err(Unsupported::Ipsec);
    }
    let unchangeable = !(does.raw_decap.value && does.raw_encap.value);
    if arrival.tunnel.is_some() && (unchangeable || !profile.matches.mpls.value) {
        return Err(Unsupported::Decap);
    }
    if rewrite.encap.is_some() && unchangeable {
        return Err(Unsupported::Encap);
    }
    if profile.layout == Layout::Receive || (profile.layout == Layout::Switch && !does.port_to_port.value) {
        return Err(Unsupported::PortToPort);
    }
    if !does.count.value {
        // Who cannot count can't tell that a flow is in use.
        return Err(Unsupported::Match);
    }
    Ok(())
}

/// What the rule of a program that forwards does.
pub(super) fn rewrite(direction: &Direction) -> Result<Rewrite<'_>, Unsupported> {
    let forward = direction.program.forward().ok_or(Unsupported::Drop)?;
    // MSS is clamped on SYNs alone: those are software's.
    let Forward { decap, ttl, mss: _, shift, size, encap, l2, egress } = forward;
    if shift.is_some() {
        return Err(Unsupported::SequenceShift);
    }
    let seal = match egress {
        Egress::Output(_) => None,
        Egress::Seal { header, vif: _ } => Some(header.vif),
        Egress::Punt(_) => return Err(Unsupported::Punt),
    };
    if decap.is_some() != direction.arrival.tunnel.is_some() {
        return Err(Unsupported::Match);
    }
    let l2 = l2.as_ref().ok_or(Unsupported::RawIp)?;
    let out = direction.egress_port.ok_or(Unsupported::ForeignPort)?;
    // What is larger is software's, whatever becomes of it.
    let limit = size.map_or(u16::MAX, |size| size.mtu);
    Ok(Rewrite { ttl: *ttl, decrement: false, limit, encap: encap.as_ref(), l2, out, seal })
}

pub(super) fn check_ttl(rewrite: &Rewrite<'_>, direction: &Direction, profile: &NicProfile) -> Result<(), Unsupported> {
    // What has too little left is answered in software.
    if direction.arrival.ttl <= rewrite.ttl {
        return Err(Unsupported::Ttl);
    }
    match (rewrite.ttl, profile.does.ttl.value) {
        (0, _) | (_, TtlRewrite::Set | TtlRewrite::SetOrDecrement) | (1, TtlRewrite::Decrement) => Ok(()),
        _ => Err(Unsupported::Ttl),
    }
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
