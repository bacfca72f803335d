//! Scope of link-local addresses and groups: they are accepted for this node on the link that they came in on, and never routed.
//!
//! A router forwards no packet with a link-local source or destination to another link (RFC 4291 §2.5.6, RFC 3927 §7), whatever
//! routes say. What the node itself is asked at such an address it answers (RFC 4291 §2.8). Vifs that carry addresses of
//! fe80::/16 of their own making, such as those toward an L7 proxy, would be told apart here by their kind.

use super::{
    Inquiry, Role,
    walk::{End, Reads, Walk},
};
use crate::{
    DropReason, VifId,
    flow::{Dependency, FlowKey},
    forwarding::{NexthopKind, Snapshot, Vif, is_link_local},
};

/// The scope in which a packet may be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anywhere.
    Global,
    /// To a listener of this node, by a route to a Receive nexthop.
    Listener,
    /// To this node, at an address or group of the vif that it came in on, whatever routes say.
    ThisLink,
    /// From this node, or its own stack: its source stays on the link that it belongs to.
    FromNode,
}

/// How far a packet may go, or why nowhere.
pub(super) fn reach(snapshot: &Snapshot, inquiry: &Inquiry<'_>, read: &mut Reads<'_>) -> Result<Reach, DropReason> {
    let key = inquiry.key;
    if !is_of_link(key) {
        return Ok(Reach::Global);
    }
    read.blur();
    if matches!(inquiry.role, Role::Own) {
        // What answers through a tunnel goes by a route; no other link is meant.
        return Ok(Reach::FromNode);
    }
    if inquiry.ingress.tunnel.is_some() {
        // Out of a tunnel: there is no link that they could be of.
        return Err(DropReason::LinkLocal);
    }
    let Some(vif) = read.vif(inquiry.ingress.vif) else { return Err(DropReason::InvalidIf) };
    read.note(Dependency::Addresses);
    let (source, destination) = (key.source(), key.destination());
    if vif.kind.is_punt() && is_from_node(snapshot, key, read) {
        return Ok(Reach::FromNode);
    }
    if is_link_local(source) {
        if vif.owns_on_link(source) {
            return Err(DropReason::OwnSource);
        }
        if !vif.is_on_link(source) {
            return Err(DropReason::LinkLocal);
        }
    }
    if let std::net::IpAddr::V6(group) = destination
        && group.is_multicast()
    {
        return if vif.hears(group) { Ok(Reach::ThisLink) } else { Err(DropReason::McastUnsupported) };
    }
    match is_link_local(destination) {
        true if vif.owns_on_link(destination) => Ok(Reach::ThisLink),
        // The address of another link.
        true if snapshot.owner(key.vrf, destination).is_some() => Err(DropReason::LinkLocal),
        _ => Ok(Reach::Listener),
    }
}

/// Has it an address of one link: a link-local one, or an IPv6 group?
#[inline]
#[must_use]
pub fn is_of_link(key: &FlowKey) -> bool {
    let group = key.version == 6 && key.dst.first() == Some(&0xff);
    group || is_link_local(key.source()) || is_link_local(key.destination())
}

/// From an address of the node: a vif's, or one that a route leads to a Receive nexthop for.
fn is_from_node(snapshot: &Snapshot, key: &FlowKey, read: &mut Reads<'_>) -> bool {
    snapshot.owner(key.vrf, key.source()).is_some() || leads_here(read, key.vrf, key.source())
}

fn leads_here(read: &mut Reads<'_>, vrf: crate::VrfId, address: std::net::IpAddr) -> bool {
    let Some(route) = read.route(vrf, address) else { return false };
    read.nexthop(route.nexthop).is_some_and(|nexthop| matches!(nexthop.kind, NexthopKind::Receive(_)))
}

impl Reach {
    /// Is a source that belongs to the link no business of routes?
    pub(super) fn is_on_link(self, key: &FlowKey) -> bool {
        matches!(self, Self::ThisLink | Self::Listener) && is_link_local(key.source())
    }

    /// Walks as far as it may.
    pub(super) fn walk(self, snapshot: &Snapshot, walk: &mut Walk<'_>, key: &FlowKey) -> End {
        let end = match self {
            Self::Global => return walk.run(),
            Self::ThisLink if !leads_here(&mut walk.read, key.vrf, key.destination()) => walk.arrive(),
            Self::ThisLink | Self::Listener | Self::FromNode => walk.run(),
        };
        let stays = match end {
            End::Output(out) | End::Resolve { vif: out, .. } if self == Self::FromNode => {
                stays_on_link(snapshot, key, walk.flow_egress(out))
            }
            _ => self == Self::FromNode || walk.local,
        };
        if stays { end } else { End::Drop(DropReason::LinkLocal) }
    }
}

/// Does a source that belongs to one link leave on it?
fn stays_on_link(snapshot: &Snapshot, key: &FlowKey, out: VifId) -> bool {
    let (source, destination) = (key.source(), key.destination());
    let on_link = |vif: &std::sync::Arc<Vif>| !is_link_local(destination) || vif.is_on_link(destination);
    let owned = !is_link_local(source) || snapshot.owner(key.vrf, source).is_none_or(|owner| owner == out);
    owned && snapshot.vif(out).is_some_and(on_link)
}
