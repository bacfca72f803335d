//! The node's own addresses toward a sender, and stations on a link, which no route leads to.

use std::net::{IpAddr, Ipv6Addr};

use offload_rules::{
    MacAddr,
    forwarding::{NexthopKind, Snapshot, is_link_local},
};

use super::{
    context::Context,
    outcome::{OwnPath, Station},
};
use crate::packet::{
    Packet,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ethernet},
};

/// How an answer to a packet goes. To who sent it from or to a link-local address, it goes back as that came: no route leads to such an
/// address, and an answer from one stays on its link. Others are routed.
pub(super) fn way_back(snapshot: &Snapshot, packet: &Packet, context: &Context) -> OwnPath {
    station(snapshot, packet, context).map_or(OwnPath::Route(context.key.vrf), OwnPath::OnLink)
}

/// The station that sent a packet from or to a link-local address.
fn station(snapshot: &Snapshot, packet: &Packet, context: &Context) -> Option<Station> {
    let on_link = is_link_local(context.ip.source()) || is_link_local(context.ip.destination());
    if context.outer.is_some() || context.sealed_on.is_some() || !on_link {
        return None;
    }
    let vif = snapshot.vif(context.vif).filter(|vif| vif.kind.tunnel().is_none())?;
    let mac = if vif.has_ethernet() { Some(ethernet(packet.data()).ok()?.src) } else { None };
    let ethertype = if context.ip.version == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    (!mac.is_some_and(MacAddr::is_multicast)).then_some(Station { vif: vif.id, mac, ethertype })
}

/// The node's address toward the sender: that of the ingress vif, or of any vif of the tenant's when it came by a tunnel.
pub(super) fn gateway(snapshot: &Snapshot, context: &Context) -> Option<IpAddr> {
    let sender = context.ip.source();
    if context.outer.is_none() {
        let vif = snapshot.vif(context.vif)?;
        let link_local = || vif.link_local().map(IpAddr::V6).filter(|_| sender.is_ipv6());
        let own = vif.own_address(sender);
        let own = if is_link_local(sender) { link_local().or(own) } else { own.or_else(link_local) };
        if own.is_some() {
            return own;
        }
    }
    snapshot.vifs().filter(|vif| vif.vrf == context.key.vrf).find_map(|vif| vif.own_address(sender))
}

/// The source of an answer to an IPv6 group or anycast address: a unicast address of the vif that it came in on (RFC 4443 §4.2), of the
/// sender's scope where there is one. `None`: what was asked answers itself.
pub(super) fn answering_source(snapshot: &Snapshot, context: &Context) -> Option<Ipv6Addr> {
    let IpAddr::V6(asked) = context.ip.destination() else { return None };
    let is_anycast = || {
        let nexthop = snapshot.route(context.key.vrf, asked.into()).map(|route| route.nexthop);
        let oif = match snapshot.nexthop(nexthop?)?.kind {
            NexthopKind::Resolve { oif, .. } => oif,
            _ => return None,
        };
        let vif = snapshot.vif(oif)?;
        Some(vif.is_anycast(asked.into()) && !vif.owns(asked.into()))
    };
    if !asked.is_multicast() && is_anycast() != Some(true) {
        return None;
    }
    match gateway(snapshot, context)? {
        IpAddr::V6(own) => Some(own),
        IpAddr::V4(_) => None,
    }
}
