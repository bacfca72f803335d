//! Layouts that are consistent, but invite packets in the clear that IPsec should have brought, or lose packets.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::protect::{self, ClearRefusal};
use crate::{
    NexthopId, VifId, VrfId,
    flow::{Family, IPV6_MIN_MTU},
    forwarding::{NexthopKind, Snapshot, Vif},
};

/// Something about a state that deserves a second look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    /// MPLS over UDP is opened where packets come in the clear too, but the tunnels to a far end lead into IPsec.
    OpenedInTheClear {
        /// Where MPLS over UDP is opened.
        vrf: VrfId,
        /// At this address.
        address: Ipv4Addr,
        /// A vif of that VRF without IPsec.
        vif: VifId,
        /// The far end.
        end: IpAddr,
    },
    /// Tunnels leave in the clear by their own nexthop, but the route to their far end leads into IPsec.
    TwoWays {
        /// Where the route is.
        vrf: VrfId,
        /// The vif that the tunnels leave by.
        vif: VifId,
        /// The far end.
        end: IpAddr,
    },
    /// IPv6 is routed to a link that is none for IPv6 (RFC 8200 §5).
    TooNarrowForIpv6 {
        /// The link.
        vif: VifId,
        /// Its MTU.
        mtu: u16,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenedInTheClear { vrf, address, vif, end } => write!(
                f,
                "vrf {vrf} opens MPLS over UDP at {address}, and vif {vif} brings it packets in the clear, but the tunnels to {end} lead \
                 into IPsec: what claims to be from {end} on vif {vif} is dropped (Not Protected). Route {address} to the receive \
                 nexthop in a VRF of IPsec tunnels alone"
            ),
            Self::TwoWays { vrf, vif, end } => write!(
                f,
                "the tunnels to {end} leave by vif {vif} in the clear, but the route to {end} in vrf {vrf} leads into IPsec: what comes \
                 from {end} on vif {vif} is dropped (Not Protected). Let the directNexthop lead into IPsec, too, or a host route to \
                 {end} out of it"
            ),
            Self::TooNarrowForIpv6 { vif, mtu } => write!(
                f,
                "vif {vif} has an MTU of {mtu}, and IPv6 is routed to it: IPv6 hosts send up to {IPV6_MIN_MTU} octets whatever they \
                 are told, and what is larger than {mtu} is dropped (Packet Too Big). Raise the MTU to {IPV6_MIN_MTU} at least, or \
                 route IPv6 through a tunnel, which fragments below it"
            ),
        }
    }
}

/// What is worth saying about a state, in order.
#[must_use]
pub fn advice(snapshot: &Snapshot) -> Vec<Advice> {
    let mut found = BTreeSet::new();
    narrow_links(snapshot, &mut found);
    let ends: BTreeSet<IpAddr> = snapshot
        .nexthops()
        .filter_map(|nexthop| match &nexthop.kind {
            NexthopKind::Tunnel(tunnel) => Some(IpAddr::V4(tunnel.dip)),
            _ => None,
        })
        .collect();
    let opens: Vec<&Vif> = snapshot
        .vifs()
        .map(AsRef::as_ref)
        .filter(|vif| protect::is_clear(vif) && snapshot.mpls_o_udp_terminations(vif.vrf).next().is_some())
        .collect();
    for end in ends {
        let mut vrfs = BTreeSet::new();
        for vif in &opens {
            let Some(address) = snapshot.mpls_o_udp_terminations(vif.vrf).next() else { continue };
            match protect::clear_refusal(snapshot, vif, end) {
                // One vif of a VRF is told.
                Some(ClearRefusal::Tunnels) if vrfs.insert(vif.vrf) => {
                    found.insert(Advice::OpenedInTheClear { vrf: vif.vrf, address, vif: vif.id, end });
                }
                Some(ClearRefusal::Route) => _ = found.insert(Advice::TwoWays { vrf: vif.vrf, vif: vif.id, end }),
                _ => {}
            }
        }
    }
    found.into_iter().collect()
}

/// Links below the minimum of IPv6 that have an address of it, or a route. A tunnel has a layer to fragment in.
fn narrow_links(snapshot: &Snapshot, found: &mut BTreeSet<Advice>) {
    fn links(snapshot: &Snapshot, id: NexthopId, depth: u8, to: &mut BTreeSet<VifId>) {
        let Some(nexthop) = snapshot.nexthop(id) else { return };
        match &nexthop.kind {
            NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => _ = to.insert(*oif),
            NexthopKind::Composite { members } if depth > 0 => {
                members.iter().flatten().for_each(|member| links(snapshot, member.nexthop, depth - 1, to));
            }
            _ => {}
        }
    }
    let mut used = BTreeSet::new();
    for vrf in snapshot.vrfs() {
        for route in snapshot.routes(vrf.id, Family::Inet6) {
            links(snapshot, route.nexthop, 2, &mut used);
        }
    }
    for vif in snapshot.vifs() {
        let has_address = vif.addresses.iter().any(|net| net.addr().is_ipv6());
        if vif.mtu < IPV6_MIN_MTU && vif.kind.tunnel().is_none() && (has_address || used.contains(&vif.id)) {
            found.insert(Advice::TooNarrowForIpv6 { vif: vif.id, mtu: vif.mtu });
        }
    }
}
