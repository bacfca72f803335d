//! Rules of IPsec: where the NIC opens what comes to a tunnel, and where it seals what goes into one.
//!
//! One rule for each SA that is received, one for each tunnel that sends. Flows name the tunnel, never the SA.

use super::{
    Action, Field, HeaderCheck, Ipsec, Item, Meta, NicProfile, Rule, Session, Table, Unsupported,
    lowering::priority,
    proactive::{push_link, tags_of},
};
use crate::{
    NexthopId, VifId,
    forwarding::{IpsecTunnel, NAT_T_PORT, NexthopKind, Sa, Snapshot},
};

const ESP: u8 = 50;
const UDP: u8 = 17;

/// The vif that the outer packets of a tunnel leave by, and are expected from: the one that the route to its far end names. A session
/// belongs to one port. `None`: there is no such route, it spreads over several vifs, or leads into another tunnel.
#[must_use]
pub fn underlay(snapshot: &Snapshot, tunnel: &IpsecTunnel) -> Option<VifId> {
    let route = snapshot.route(tunnel.vrf, tunnel.destination.into())?;
    let link = leaves_by(snapshot, route.nexthop)?;
    snapshot.vif(link)?.has_ethernet().then_some(link)
}

fn leaves_by(snapshot: &Snapshot, nexthop: NexthopId) -> Option<VifId> {
    match &snapshot.nexthop(nexthop)?.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif } => Some(*oif),
        NexthopKind::Composite { members } => {
            let mut links = members.iter().flatten().map(|member| {
                // A composite has no composite in it.
                match &snapshot.nexthop(member.nexthop)?.kind {
                    NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif } => Some(*oif),
                    _ => None,
                }
            });
            let first = links.next()??;
            links.all(|link| link == Some(first)).then_some(first)
        }
        _ => None,
    }
}

/// The rule that opens the packets of an inbound SA of the tunnel `vif`, which come in on the vif `link`. What a session of
/// the whole protocol has opened goes on where the flows of opened packets are; what one has only deciphered goes to software.
///
/// # Errors
/// [`Unsupported`].
pub fn open_rule(
    snapshot: &Snapshot,
    profile: &NicProfile,
    (vif, tunnel, link): (VifId, &IpsecTunnel, VifId),
    (sa, session, kind): (&Sa, Session, Ipsec),
) -> Result<Rule, Unsupported> {
    let link = snapshot.vif(link).ok_or(Unsupported::ForeignPort)?;
    let can = &profile.matches;
    let tags = tags_of(link);
    if tags.iter().flatten().count() > usize::from(can.vlan_tags.value) {
        return Err(Unsupported::Vlan);
    }
    let mut items = Vec::with_capacity(7);
    push_link(&mut items, snapshot.port_of(link.id), tags);
    if let (Some(Item::Eth { dst, .. }), true) = (items.get_mut(1), can.eth_dst.value) {
        *dst = link.mac;
    }
    if !matches!(can.header_check.value, HeaderCheck::Unknown | HeaderCheck::Parser) {
        items.insert(1, Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true });
    }
    items.push(Item::Ipv4 {
        src: None,
        dst: Some(tunnel.source),
        proto: Some(if tunnel.nat_t.is_some() { UDP } else { ESP }),
        tos: Field { spec: 0, mask: 0 },
        ttl: None,
        no_options: can.no_options.value,
        whole: can.whole.value,
        max_len: None,
    });
    if tunnel.nat_t.is_some() {
        items.push(Item::Udp { sport: None, dport: Some(NAT_T_PORT), no_checksum: false });
    }
    items.push(Item::Esp { spi: sa.spi });
    let mut actions = Vec::with_capacity(3);
    let table = if profile.does.jump.value { Table::Steering } else { Table::Flows };
    if kind == Ipsec::InlineProtocol && profile.seals_between_ports() {
        actions.push(Action::SetMeta(Meta::Opened(vif)));
        actions.push(Action::Security(session));
        actions.push(Action::Jump(Table::Opened));
    } else {
        // The session's user data tells the tunnel.
        actions.push(Action::Security(session));
        actions.push(Action::Rss);
    }
    Ok(Rule { table, priority: priority::TERMINATION, items, actions })
}

/// The rule that seals what goes into the tunnel `vif` and sends it on the device of the vif `port`; at one of two priorities, so
/// that the next session's is there before this one's is gone.
///
/// # Errors
/// [`Unsupported`].
pub fn seal_rule(
    profile: &NicProfile,
    (vif, port): (VifId, VifId),
    session: Session,
    alternate: bool,
) -> Result<Rule, Unsupported> {
    if !profile.seals_between_ports() {
        return Err(Unsupported::Ipsec);
    }
    Ok(Rule {
        table: Table::Seal,
        priority: if alternate { priority::FLOW_ALTERNATE } else { priority::FLOW },
        items: vec![Item::Meta(Meta::ToSeal(vif))],
        actions: vec![Action::Security(session), Action::Port(port)],
    })
}
