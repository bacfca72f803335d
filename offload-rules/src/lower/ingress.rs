//! The way from a port to a flow: whether software would still find the flow of packets that arrive so, and how large they may be.

use std::net::IpAddr;

use super::Arrival;
use crate::{
    VifId, VrfId,
    flow::{FlowKey, TunnelHeader},
    forwarding::{NexthopKind, Snapshot, Vif, VlanTag},
};

/// UDP ports of MPLS over UDP: RFC 7510's, and the one that vRouter used before.
pub(super) const MPLS_O_UDP: [u16; 2] = [6635, 51234];
const UDP: u8 = 17;

/// Does a packet that arrives so still lead to this key, and is it looked up as a flow? What the program itself depends on is
/// in its dependencies; this is what is read before there is a key: device, VLAN, MAC, policy, tunnel, label. Also false while
/// the vif or its device is down.
#[must_use]
pub fn still_leads(snapshot: &Snapshot, arrival: &Arrival, key: &FlowKey) -> bool {
    let Some(vif) = snapshot.vif(arrival.vif) else { return false };
    let Some(link) = link(snapshot, arrival, vif) else { return false };
    let on_wire = snapshot.vif(arrival.port).is_some_and(|port| port.kind.port().is_some() && !port.flags.raw_ip);
    if !on_wire || link.flags.raw_ip || !snapshot.is_up(link.id) || !snapshot.is_up(arrival.port) {
        return false;
    }
    if demultiplex(snapshot, arrival) != Some(link.id) || link.mac != Some(arrival.eth_dst) {
        return false;
    }
    let Some(tunnel) = &arrival.tunnel else {
        let ends_here = key.version == 4
            && key.proto == UDP
            && MPLS_O_UDP.contains(&key.dport)
            && snapshot.terminates_mpls_o_udp(vif.vrf, key.destination());
        return vif.flags.policy && !ends_here && key.vif == vif.id && key.vrf == vif.vrf;
    };
    key.vif == VifId::TUNNEL
        && MPLS_O_UDP.contains(&tunnel.udp_port)
        && snapshot.terminates_mpls_o_udp(vif.vrf, IpAddr::V4(tunnel.destination))
        && !snapshot.is_own_tunnel_source(IpAddr::V4(tunnel.source))
        && label_leads_to(snapshot, tunnel.label) == Some(key.vrf)
}

/// The vif that the frame came in on: that of the packet, or of the ESP packet that it was in.
fn link<'a>(snapshot: &'a Snapshot, arrival: &Arrival, vif: &'a Vif) -> Option<&'a Vif> {
    match (arrival.sealed_on, vif.kind.tunnel()) {
        (None, None) => Some(vif),
        (Some(link), Some(ipsec)) => snapshot.vif(link).map(|link| &**link).filter(|link| link.vrf == ipsec.vrf),
        _ => None,
    }
}

/// The vif of a tagged frame. A priority tag (VLAN id 0) is no tag (IEEE 802.1Q §9.6).
fn demultiplex(snapshot: &Snapshot, arrival: &Arrival) -> Option<VifId> {
    match arrival.tags {
        [None, None] | [Some(VlanTag { vid: 0, .. }), None] => Some(arrival.port),
        [Some(outer), inner] => snapshot.vlan_vif(arrival.port, outer, inner),
        [None, Some(_)] => None,
    }
}

/// The VRF in which packets with this label are looked up as flows.
fn label_leads_to(snapshot: &Snapshot, label: crate::Label) -> Option<VrfId> {
    let nexthop = snapshot.nexthop(snapshot.label(label)?).filter(|nexthop| nexthop.valid)?;
    match nexthop.kind {
        NexthopKind::VrfTranslate { vrf } if nexthop.policy => Some(vrf),
        _ => None,
    }
}

/// The largest IP packet that can arrive so, in octets: what the vif, the vif of its device or the device itself takes, whichever is
/// more, since the device does not know their MTUs; less the tunnel's headers. Devices take a little more, see
/// [`NicProfile::TAG_ROOM`](super::NicProfile::TAG_ROOM). 0 when the vif is gone.
#[must_use]
pub fn ingress_mtu(snapshot: &Snapshot, arrival: &Arrival) -> u16 {
    let mtu = |id: VifId| snapshot.vif(id).map_or(0, |vif| vif.mtu);
    // What was in an ESP packet is smaller than that was, and may be larger than the tunnel takes the other way.
    let device = snapshot.device_mtu(arrival.port).map_or(0, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
    let link = mtu(arrival.vif).max(mtu(arrival.port)).max(device);
    if arrival.tunnel.is_some() { link.saturating_sub(TunnelHeader::OVERHEAD) } else { link }
}
