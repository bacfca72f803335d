//! Where transit comes in: vifs without policy, and tunnels whose label leads to a VRF without policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    Label, VifId, VrfId,
    classify::Ingress,
    forwarding::{NexthopKind, Snapshot, Vif, VifKind},
    lower::{Arrival, TunnelArrival},
};

/// Tunnels by vif, own address and label that are looked at, at most.
const MOST: usize = 4096;
/// RFC 7510 §7.
const MPLS_O_UDP: u16 = 6635;
/// TTL of the packets that the walk is asked about.
const TTL: u8 = 64;

/// An ingress of transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IngressKey {
    /// The vif that frames come in on.
    pub vif: VifId,
    /// Outer destination, UDP port and label, where packets come out of MPLS over UDP.
    pub tunnel: Option<(Ipv4Addr, u16, Label)>,
}

/// What the packets of an ingress have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entrance {
    /// Without the tunnel's source.
    pub(super) arrival: Arrival,
    /// The VRF that their addresses are looked up in.
    pub(super) vrf: VrfId,
}

impl Entrance {
    /// The vif of a packet's key.
    pub(super) const fn key_vif(&self) -> VifId {
        if self.arrival.tunnel.is_some() { VifId::TUNNEL } else { self.arrival.vif }
    }

    /// As the walk sees it.
    pub(super) const fn ingress(&self, outer: Option<Ipv4Addr>) -> Ingress {
        Ingress { vif: self.arrival.vif, tunnel: outer }
    }

    /// With packets out of the tunnel from this address.
    pub(super) fn from(&self, outer: Option<Ipv4Addr>) -> Arrival {
        let tunnel = self.arrival.tunnel.zip(outer).map(|(tunnel, source)| TunnelArrival { source, ..tunnel });
        Arrival { tunnel, ..self.arrival }
    }
}

/// All of a forwarding state.
pub(super) fn of(snapshot: &Snapshot) -> BTreeMap<IngressKey, Entrance> {
    let mut found = BTreeMap::new();
    let udp_ports = udp_ports(snapshot);
    let labels: Vec<(Label, VrfId)> =
        snapshot.labels().filter_map(|(label, _)| Some((label, leads_to(snapshot, label)?))).collect();
    for vif in snapshot.vifs() {
        let Some(arrival) = arrival(snapshot, vif) else { continue };
        if !vif.flags.policy {
            found.insert(IngressKey { vif: vif.id, tunnel: None }, Entrance { arrival, vrf: vif.vrf });
        }
        for destination in snapshot.mpls_o_udp_terminations(vif.vrf) {
            for (udp_port, (label, vrf)) in
                udp_ports.iter().flat_map(|port| labels.iter().map(move |label| (*port, *label)))
            {
                if found.len() >= MOST {
                    return found;
                }
                let source = Ipv4Addr::UNSPECIFIED;
                let tunnel = TunnelArrival { source, destination, udp_port, label, label_ttl: TTL };
                let arrival = Arrival { tunnel: Some(tunnel), ..arrival };
                let key = IngressKey { vif: vif.id, tunnel: Some((destination, udp_port, label)) };
                found.insert(key, Entrance { arrival, vrf });
            }
        }
    }
    found
}

/// How frames come in on a vif, if it carries Ethernet and is up.
fn arrival(snapshot: &Snapshot, vif: &Vif) -> Option<Arrival> {
    let port = snapshot.vif(snapshot.port_of(vif.id))?;
    let on_wire = port.kind.port().is_some() && !port.flags.raw_ip && vif.has_ethernet() && !vif.kind.is_punt();
    if !on_wire || !snapshot.is_up(vif.id) || !snapshot.is_up(port.id) {
        return None;
    }
    let tags = match vif.kind {
        VifKind::PhysicalVlan { outer, inner, .. } => [Some(outer), inner],
        _ => [None, None],
    };
    let eth_dst = vif.mac?;
    Some(Arrival {
        port: port.id,
        vif: vif.id,
        sealed_on: None,
        eth_dst,
        tags,
        pcp_dei: 0,
        tunnel: None,
        tos: 0,
        ttl: TTL,
    })
}

/// The VRF that a label leads to, where no policy asks for flows.
fn leads_to(snapshot: &Snapshot, label: Label) -> Option<VrfId> {
    let nexthop = snapshot.nexthop(snapshot.label(label)?)?;
    match nexthop.kind {
        NexthopKind::VrfTranslate { vrf } if nexthop.valid && !nexthop.policy => Some(vrf),
        _ => None,
    }
}

/// UDP ports that the far ends of the node's tunnels use.
fn udp_ports(snapshot: &Snapshot) -> BTreeSet<u16> {
    let own = snapshot.nexthops().filter_map(|nexthop| match &nexthop.kind {
        NexthopKind::Tunnel(tunnel) => Some(tunnel.udp_port),
        _ => None,
    });
    own.chain([MPLS_O_UDP]).collect()
}

/// The far ends of the tunnels that a nexthop may lead into.
pub(super) fn far_ends(snapshot: &Snapshot, nexthop: crate::NexthopId) -> BTreeSet<Ipv4Addr> {
    let tunnel = |id| match snapshot.nexthop(id).map(|nexthop| &nexthop.kind) {
        Some(NexthopKind::Tunnel(tunnel)) => Some(tunnel.dip),
        _ => None,
    };
    match snapshot.nexthop(nexthop).map(|nexthop| &nexthop.kind) {
        Some(NexthopKind::Composite { members }) => {
            members.iter().flatten().filter_map(|member| tunnel(member.nexthop)).collect()
        }
        _ => tunnel(nexthop).into_iter().collect(),
    }
}
