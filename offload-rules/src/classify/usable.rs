//! Which nexthops can carry packets now, and which lead back to where packets came from.

use std::net::IpAddr;

use super::{Ingress, walk::Reads};
use crate::{
    NexthopId,
    flow::Dependency,
    forwarding::{IpsecTunnel, NexthopKind, Snapshot},
};

/// Does this nexthop lead where packets from `ingress` come from?
pub(super) fn leads_to(read: &mut Reads<'_>, id: NexthopId, ingress: Ingress, depth: u8) -> bool {
    let Some(nexthop) = read.nexthop(id) else { return false };
    match &nexthop.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => *oif == ingress.vif,
        NexthopKind::Tunnel(tunnel) => ingress.tunnel == Some(tunnel.dip),
        NexthopKind::Composite { members } => {
            depth > 0 && members.iter().flatten().any(|m| leads_to(read, m.nexthop, ingress, depth - 1))
        }
        _ => false,
    }
}

/// How a nexthop counts whose gateway does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeadGateway {
    /// Its nexthop is not usable.
    Unusable,
    /// It is usable: when no gateway answers, packets wait for one, and are answered when it stays silent.
    Usable,
}

/// Can packets leave through this nexthop now: valid, its interface up, its gateway not known to be dead?
pub(super) fn is_usable(
    read: &mut Reads<'_>,
    snapshot: &Snapshot,
    id: NexthopId,
    dead: DeadGateway,
    depth: u8,
) -> bool {
    let Some(nexthop) = read.nexthop(id).filter(|nexthop| nexthop.valid) else { return false };
    match &nexthop.kind {
        NexthopKind::Encap { oif, .. } => {
            let Some(vif) = read.vif(*oif).filter(|_| read.is_up(*oif)) else { return false };
            let down = |ipsec| depth == 0 || !is_tunnel_up(read, snapshot, ipsec, dead, depth - 1);
            !vif.kind.tunnel().is_some_and(down)
        }
        NexthopKind::Resolve { oif, gateway } => {
            if read.vif(*oif).is_none() || !read.is_up(*oif) {
                return false;
            }
            let Some(gateway) = gateway else { return true };
            read.note(Dependency::Gateway(*oif, *gateway));
            dead == DeadGateway::Usable || !snapshot.is_gateway_dead(*oif, *gateway)
        }
        NexthopKind::Tunnel(tunnel) => {
            read.enter(tunnel.dip.into());
            let next = match (tunnel.direct, nexthop.vrf) {
                (None, Some(underlay)) => read.route(underlay, IpAddr::V4(tunnel.dip)).map(|route| route.nexthop),
                (direct, _) => direct,
            };
            depth > 0 && next.is_some_and(|next| is_usable(read, snapshot, next, dead, depth - 1))
        }
        NexthopKind::Composite { members } => {
            depth > 0 && members.iter().flatten().any(|m| is_usable(read, snapshot, m.nexthop, dead, depth - 1))
        }
        _ => true,
    }
}

/// Is there an SA to send with?
pub(super) fn has_outbound(read: &mut Reads<'_>, snapshot: &Snapshot, ipsec: &IpsecTunnel) -> bool {
    ipsec.outbound.iter().any(|sa| {
        read.note(Dependency::Sa(*sa));
        snapshot.is_sa_usable(*sa)
    })
}

/// Can an IPsec tunnel carry packets now: is there an SA to send with, and a way to its other end?
pub(super) fn is_tunnel_up(
    read: &mut Reads<'_>,
    snapshot: &Snapshot,
    ipsec: &IpsecTunnel,
    dead: DeadGateway,
    depth: u8,
) -> bool {
    read.enter(ipsec.destination.into());
    has_outbound(read, snapshot, ipsec)
        && read
            .route(ipsec.vrf, IpAddr::V4(ipsec.destination))
            .is_some_and(|route| is_usable(read, snapshot, route.nexthop, dead, depth))
}
