//! What a route leads into IPsec has to come out of IPsec (RFC 4301 §5.2): the routes are the policy, and the selectors.
//!
//! A packet in the clear whose source is reached through an IPsec tunnel is discarded. One that came out of another tunnel than
//! those that its source is reached by does not match the SA's selectors, and is discarded, too. Of the members of a composite each
//! is as good a way as any other.

use std::net::{IpAddr, Ipv4Addr};

use super::walk::Reads;
use crate::{
    DropReason, NexthopId, VifId,
    flow::Dependency,
    forwarding::{NexthopKind, Snapshot, Vif},
};

/// Nexthops that are followed one behind the other.
const MAX_STEPS: u8 = 8;

/// Paths to an address, as far as they matter to what comes from it.
#[derive(Debug, Clone, Copy, Default)]
struct Paths {
    /// One of them leaves by the vif in question.
    this_vif: bool,
    /// One of them leads into an IPsec tunnel.
    protected: bool,
    /// One of them leads into an IPsec tunnel whose ESP packets are routed in the VRF of the vif in question.
    esp_in_vrf: bool,
    /// There is one at all.
    any: bool,
}

impl Paths {
    /// The ways to an address of a VRF.
    fn to(read: &mut Reads<'_>, vif: &Vif, (vrf, address): (crate::VrfId, IpAddr)) -> Self {
        let mut paths = Self::default();
        if let Some(route) = read.route(vrf, address) {
            follow(read, route.nexthop, (address, vif.id), MAX_STEPS, &mut paths);
        }
        paths
    }

    /// They lead into IPsec, and not by the vif in question.
    const fn excludes(self) -> bool {
        self.protected && !self.this_vif
    }
}

/// Must a packet with this source, in the clear on this vif, have come protected? Asked when the reverse path has not led back
/// to the vif, or is not asked for.
pub(super) fn is_exposed(read: &mut Reads<'_>, vif: &Vif, key: (crate::VrfId, IpAddr)) -> bool {
    if !is_clear(vif) {
        return false;
    }
    Paths::to(read, vif, key).excludes()
}

/// The same in a VRF that a packet is translated into, where the reverse path was not checked: must it have come by a tunnel whose
/// ESP packets come the way that it came itself, in the clear? Elsewhere what is translated has its way back by its flow.
pub(super) fn is_exposed_behind(read: &mut Reads<'_>, vif: &Vif, key: (crate::VrfId, IpAddr)) -> bool {
    if !is_clear(vif) {
        return false;
    }
    let paths = Paths::to(read, vif, key);
    paths.excludes() && paths.esp_in_vrf
}

/// The ways to the outer source of MPLS-over-UDP packets that come in on a vif: those of the MPLS tunnels to it, whatever VRF
/// carries them, and that of its route in the vif's VRF.
struct PathsToFarEnd {
    tunnels: Paths,
    route: Paths,
}

impl PathsToFarEnd {
    fn of(snapshot: &Snapshot, read: &mut Reads<'_>, vif: &Vif, source: IpAddr) -> Self {
        let to = (source, vif.id);
        let mut outside = Self { tunnels: Paths::default(), route: Paths::default() };
        read.enter(source);
        read.note(Dependency::TunnelsTo(source));
        for tunnel in snapshot.tunnels_to(source) {
            follow(read, *tunnel, to, MAX_STEPS, &mut outside.tunnels);
        }
        if let Some(route) = read.route(vif.vrf, source) {
            follow(read, route.nexthop, to, MAX_STEPS, &mut outside.route);
        }
        outside
    }
}

/// May an MPLS-over-UDP packet with this outer source come by this vif? In the clear neither way may lead into IPsec. Out of an IPsec
/// tunnel it must be the one that MPLS tunnels lead into, or, where they lead into none, the route.
pub(super) fn check_outer_source(
    snapshot: &Snapshot,
    read: &mut Reads<'_>,
    vif: VifId,
    source: Ipv4Addr,
) -> Result<(), DropReason> {
    let Some(vif) = read.vif(vif) else { return Err(DropReason::InvalidIf) };
    if vif.kind.is_punt() {
        return Ok(());
    }
    let PathsToFarEnd { tunnels, route } = PathsToFarEnd::of(snapshot, read, vif, IpAddr::V4(source));
    if vif.kind.tunnel().is_none() {
        return if tunnels.excludes() || route.excludes() { Err(DropReason::Unprotected) } else { Ok(()) };
    }
    let paths = if tunnels.protected { tunnels } else { route };
    // RFC 4301 §5.2 step 4.
    if paths.any && !paths.this_vif && !vif.flags.no_rpf { Err(DropReason::InvalidSource) } else { Ok(()) }
}

/// Why packets of a far end are refused in the clear on a vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClearRefusal {
    /// The tunnels to it lead into IPsec.
    Tunnels,
    /// The tunnels leave by this vif, but the route leads into IPsec.
    Route,
}

/// Why packets of a far end are refused in the clear on a vif, if they are.
pub(super) fn clear_refusal(snapshot: &Snapshot, vif: &Vif, end: IpAddr) -> Option<ClearRefusal> {
    let PathsToFarEnd { tunnels, route } = PathsToFarEnd::of(snapshot, &mut Reads::new(snapshot), vif, end);
    match (tunnels.excludes(), route.excludes()) {
        (true, _) => Some(ClearRefusal::Tunnels),
        (false, true) if tunnels.this_vif => Some(ClearRefusal::Route),
        _ => None,
    }
}

/// Do packets come in by this vif in the clear: not out of an IPsec tunnel, and not from the node's own stack?
pub(super) const fn is_clear(vif: &Vif) -> bool {
    vif.kind.tunnel().is_none() && !vif.kind.is_punt()
}

/// Adds the ways behind a nexthop. Whether they can be used now does not matter: a tunnel that is down is no reason to take in
/// the clear what belongs into it.
fn follow(read: &mut Reads<'_>, id: NexthopId, to: (IpAddr, VifId), steps: u8, paths: &mut Paths) {
    let Some(steps) = steps.checked_sub(1) else { return };
    let Some(nexthop) = read.nexthop(id) else { return };
    match &nexthop.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => {
            paths.any = true;
            paths.this_vif |= *oif == to.1;
            if let Some(ipsec) = read.vif(*oif).and_then(|vif| vif.kind.tunnel()) {
                paths.protected = true;
                paths.esp_in_vrf |= read.vif(to.1).is_some_and(|vif| vif.vrf == ipsec.vrf);
            }
        }
        NexthopKind::Composite { members } => {
            for member in members.iter().flatten() {
                follow(read, member.nexthop, to, steps, paths);
            }
        }
        NexthopKind::VrfTranslate { vrf } => {
            if let Some(route) = read.route(*vrf, to.0) {
                follow(read, route.nexthop, to, steps, paths);
            }
        }
        // From here on the tunnel's outer packets are followed.
        NexthopKind::Tunnel(tunnel) => {
            read.enter(tunnel.dip.into());
            match (tunnel.direct, nexthop.vrf) {
                (Some(direct), _) => follow(read, direct, (tunnel.dip.into(), to.1), steps, paths),
                (None, Some(vrf)) => {
                    if let Some(route) = read.route(vrf, tunnel.dip.into()) {
                        follow(read, route.nexthop, (tunnel.dip.into(), to.1), steps, paths);
                    }
                }
                (None, None) => {}
            }
        }
        NexthopKind::Receive(_) | NexthopKind::Drop => {}
    }
}
