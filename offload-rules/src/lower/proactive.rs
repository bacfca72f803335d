//! Rules that are there before any flow: which side is a packet from?

use super::{
    Action, Field, Item, NicProfile, Rule, Table,
    leads::MPLS_O_UDP,
    lowering::{outer_to, priority, steer},
};
use crate::{
    VifId,
    forwarding::{Snapshot, Vif, VifKind, VlanTag},
};

/// The steering of a forwarding state: outer packets to an address where tunnels end go to the tunnel group, everything else on
/// a port to the tenant group; what no flow has in a group goes to software. In this order, each rule once; nothing for a
/// NIC without jumps.
///
/// Steering may be loose: whatever it leads to a group is matched there with all its fields.
#[must_use]
pub fn proactive(snapshot: &Snapshot, profile: &NicProfile) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !profile.does.jump.value {
        return rules;
    }
    for vif in snapshot.vifs().filter(|vif| carries(vif)) {
        let tags = tags_of(vif);
        if tags.iter().flatten().count() > usize::from(profile.matches.vlan_tags.value) {
            continue;
        }
        for address in snapshot.mpls_o_udp_terminations(vif.vrf) {
            for port in MPLS_O_UDP {
                let mut items = Vec::with_capacity(6);
                push_link(&mut items, snapshot.port_of(vif.id), tags);
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
    let with_ipsec = profile.seals_between_ports() && snapshot.vifs().any(|vif| vif.kind.tunnel().is_some());
    let ipsec: &[Table] = if with_ipsec { &[Table::Opened, Table::Seal] } else { &[] };
    for table in [Table::Tenant, Table::Tunnel].into_iter().chain(ipsec.iter().copied()) {
        for port in ports() {
            let (items, actions) = (vec![Item::Port(port)], vec![Action::Rss]);
            rules.push(Rule { table, priority: priority::DEFAULT, items, actions });
        }
    }
    rules
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

pub(super) fn push_link(items: &mut Vec<Item>, port: VifId, tags: [Option<VlanTag>; 2]) {
    items.push(Item::Port(port));
    items.push(Item::Eth { dst: None, has_vlan: tags[0].is_some() });
    for (i, tag) in tags.iter().flatten().enumerate() {
        let tci = Field { spec: tag.vid, mask: 0x0fff };
        items.push(Item::Vlan { tpid: tag.tpid, tci, has_more: i == 0 && tags[1].is_some() });
    }
}
