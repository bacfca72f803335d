//! Proactive rules: installed before any flow, they steer packets to the tunnel group or the tenant group.

use super::{
    Action, Field, Item, Layout, NicProfile, Rule, Table,
    flow_rule::{outer_to, steer},
    pattern::any_ip,
    priority,
    profile::Matches,
};
use crate::{
    VifId,
    flow::Family,
    forwarding::{Snapshot, Vif, VifKind, VlanTag},
};

/// The steering of a forwarding state: outer packets to an address where tunnels end go to the tunnel group, everything else on
/// a port to the tenant group. In this order, each rule once; nothing for a NIC without jumps.
///
/// Steering may be loose: whatever it leads to a group is matched there with all its fields. What no flow has in a group goes to
/// software: in a switch by itself (mlx5: to the manager of the E-Switch; the twin likewise), in a port by a last rule of each group. On
/// the side of sending, a packet that still needs something and finds no rule for it is dropped: it would leave as it is.
#[must_use]
pub fn proactive(snapshot: &Snapshot, profile: &NicProfile) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !profile.does.jump.value {
        return rules;
    }
    for vif in snapshot.vifs().filter(|vif| carries(vif)) {
        let tags = tags_of(vif);
        let can = &profile.matches;
        let told_apart = tags.iter().flatten().all(|tag| can.tag_types.value.contains(&tag.tpid));
        if !told_apart || tags.iter().flatten().count() > usize::from(can.vlan_tags.value) {
            continue;
        }
        for address in snapshot.mpls_o_udp_terminations(vif.vrf) {
            for &port in can.mpls_ports.value {
                let mut items = Vec::with_capacity(6);
                push_link(&mut items, snapshot.port_of(vif.id), tags, can);
                items.push(outer_to(address));
                items.push(Item::Udp { sport: None, dport: Some(port), no_checksum: false });
                rules.push(steer(items, priority::TERMINATION, Table::Tunnel));
            }
        }
    }
    let ports = || snapshot.vifs().filter(|vif| vif.kind.port().is_some() && carries(vif)).map(|vif| vif.id);
    for port in ports() {
        rules.push(steer(vec![Item::Port(port)], priority::PORT, Table::Tenant));
    }
    if profile.layout == Layout::Switch {
        return rules;
    }
    for table in [Table::Tenant, Table::Tunnel, Table::Untagged, Table::Inner, Table::Source6, Table::Transit] {
        for port in ports() {
            let (items, actions) = (vec![Item::Port(port)], vec![Action::Rss]);
            rules.push(Rule { table, priority: priority::DEFAULT + 1, items, actions });
        }
    }
    if profile.layout == Layout::Hairpin {
        for port in ports() {
            let left = Rule {
                table: Table::Egress,
                priority: priority::DEFAULT,
                items: vec![Item::Port(port), Item::AnyToSend],
                actions: vec![Action::Drop],
            };
            let items = vec![Item::Port(port), Item::Eth { dst: None, has_vlan: None }];
            rules.push(left);
            rules.push(Rule {
                table: Table::EgressFirst,
                priority: priority::TERMINATION,
                items,
                actions: vec![Action::Jump(Table::Egress)],
            });
        }
    }
    rules
}

/// Steering of a port to the tenant group that lets no IP packet with a wrong header checksum or length through: those, and what is no IP,
/// are software's. In place of the rule for the port where the NIC checks headers in steering.
#[must_use]
pub fn checked_steering(port: VifId) -> [Rule; 2] {
    let steering = |is4: bool, ip: Item| {
        let check = Item::Integrity { level: 0, ipv4_checksum_ok: is4, l3_ok: true };
        let items = vec![Item::Port(port), check, Item::Eth { dst: None, has_vlan: None }, ip];
        steer(items, priority::PORT, Table::Tenant)
    };
    let mut v4 = any_ip(Family::Inet);
    if let Item::Ipv4 { whole, .. } = &mut v4 {
        *whole = true;
    }
    [steering(true, v4), steering(false, any_ip(Family::Inet6))]
}

/// Ethernet, and not the host's own.
fn carries(vif: &Vif) -> bool {
    !vif.kind.is_punt() && !vif.flags.raw_ip
}

pub(super) fn tags_of(vif: &Vif) -> [Option<VlanTag>; 2] {
    match vif.kind {
        VifKind::PhysicalVlan { outer, inner, .. } => [Some(outer), inner],
        _ => [None, None],
    }
}

pub(super) fn push_link(items: &mut Vec<Item>, port: VifId, tags: [Option<VlanTag>; 2], can: &Matches) {
    items.push(Item::Port(port));
    items.push(Item::Eth { dst: None, has_vlan: can.untagged.value.then_some(tags[0].is_some()) });
    for (i, tag) in tags.iter().flatten().enumerate() {
        let tci = Field { spec: tag.vid, mask: 0x0fff };
        let has_more = can.no_more_tags.value.then_some(i == 0 && tags[1].is_some());
        items.push(Item::Vlan { tpid: tag.tpid, tci, has_more });
    }
}
