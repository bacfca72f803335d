//! Does a packet that arrives like this still belong to this flow?

use std::net::IpAddr;

use offload_rules::{
    VifId,
    flow::FlowKey,
    forwarding::{NexthopKind, Snapshot},
    lower::Arrival,
};

const UDP: u8 = 17;
const MPLS_O_UDP: [u16; 2] = [6635, 51234];

/// Whether the snapshot leads packets that arrive like this, with the addresses and ports of the key, to the key: what sorting a
/// packet reads of the forwarding state, once more.
pub(super) fn still_leads(snapshot: &Snapshot, arrival: &Arrival, key: &FlowKey) -> bool {
    let (Some(port), Some(vif)) = (snapshot.vif(arrival.port), snapshot.vif(arrival.vif)) else { return false };
    let found = match arrival.tags {
        [None, _] => Some(arrival.port),
        // A priority tag is no tag.
        [Some(tag), None] if tag.vid == 0 => Some(arrival.port),
        [Some(outer), inner] => snapshot.vlan_vif(arrival.port, outer, inner),
    };
    if port.flags.raw_ip || found != Some(arrival.vif) || vif.mac.unwrap_or_default() != arrival.eth_dst {
        return false;
    }
    let Some(tunnel) = arrival.tunnel else {
        let opened = key.version == 4
            && key.proto == UDP
            && MPLS_O_UDP.contains(&key.dport)
            && snapshot.terminates_mpls_o_udp(vif.vrf, key.destination());
        return vif.flags.policy && vif.vrf == key.vrf && key.vif == vif.id && !opened;
    };
    if key.vif != VifId::TUNNEL
        || !snapshot.terminates_mpls_o_udp(vif.vrf, IpAddr::V4(tunnel.destination))
        || snapshot.is_own_tunnel_source(IpAddr::V4(tunnel.source))
    {
        return false;
    }
    let nexthop = snapshot.label(tunnel.label).and_then(|id| snapshot.nexthop(id));
    nexthop.is_some_and(|nexthop| {
        nexthop.valid && nexthop.policy && matches!(nexthop.kind, NexthopKind::VrfTranslate { vrf } if vrf == key.vrf)
    })
}
