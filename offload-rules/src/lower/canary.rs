//! Canaries: a rule of each shape that no packet matches, created at start to learn whether the NIC takes it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{
    Arrival, Chain, Direction, NicProfile, Origin, Outcome, Shape, TunnelArrival, Unsupported, lower, partial,
};
use crate::{
    DropReason, MacAddr, NexthopId, VifId, VrfId,
    flow::{Decap, Decided, Egress, Family, FlowKey, Forward, Operations, Oversize, Program, SizeLimit, TunnelHeader},
    forwarding::{DscpMap, L2Rewrite, VlanTag},
};

/// TEST-NET-1 and -2 (RFC 5737).
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// RFC 3849.
const NEAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
/// RFC 9542 §2.1.2.
const STATION: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x53, 0x01]);
/// The discard service (RFC 863).
const PORT: u16 = 9;

/// The canary of a shape, between two ports of the NIC: documentation addresses, so that it matches no packet. Outcome be validated
/// **and** created at start, since a rule that validates may still be refused.
///
/// # Errors
/// [`Unsupported`]: the profile refuses the shape by itself, there is nothing to ask the NIC.
pub fn canary(shape: &Shape, profile: &NicProfile, ports: [VifId; 2]) -> Result<Chain, Unsupported> {
    let direction = direction(shape, ports)?;
    if shape.to == Outcome::Mark {
        partial(&direction, 1, 0, profile).map(Chain::from)
    } else {
        lower(&direction, profile, false)
    }
}

fn direction(shape: &Shape, [ingress, egress]: [VifId; 2]) -> Result<Direction, Unsupported> {
    let vrf = VrfId::new(1).map_err(|_| Unsupported::Match)?;
    let label = crate::Label::new(0x000f_ffff).map_err(|_| Unsupported::Match)?;
    let tunnel = shape.from == Origin::Tunnel;
    let (src, dst) = match shape.family {
        Family::Inet => (IpAddr::V4(NEAR), IpAddr::V4(FAR)),
        Family::Inet6 => (IpAddr::V6(NEAR6), IpAddr::V6(FAR6)),
    };
    let port = if shape.l4 == super::L4::Other { 0 } else { PORT };
    let vif = if tunnel { VifId::TUNNEL } else { ingress };
    let tunnel_header = || TunnelHeader { sip: NEAR, dip: FAR, udp_port: 6635, label, dscp: DscpMap::default() };
    let ops = match shape.to {
        Outcome::Drop => Operations::Drop(DropReason::PolicyDeny),
        Outcome::Tenant | Outcome::Tunnel | Outcome::Mark => Operations::Forward(Forward {
            decap: tunnel.then_some(Decap::MplsOUdp),
            ttl: 1,
            mss: None,
            shift: None,
            size: Some(SizeLimit { mtu: if shape.length { 1400 } else { 9216 }, larger: Oversize::Fragment }),
            encap: (shape.to == Outcome::Tunnel).then(tunnel_header),
            l2: Some(header(shape.tags_out).ok_or(Unsupported::Vlan)?),
            egress: Egress::Output(egress),
        }),
    };
    let tag = |index: u8| (index < shape.tags_in).then(|| self::tag(index));
    Ok(Direction {
        key: FlowKey::new(vrf, vif, src, dst, shape.l4.proto(), port, port),
        arrival: Arrival {
            port: ingress,
            vif: ingress,
            sealed_on: None,
            eth_dst: STATION,
            tags: [tag(0), tag(1)],
            pcp_dei: 0,
            tunnel: tunnel.then_some(TunnelArrival {
                source: FAR,
                destination: NEAR,
                udp_port: 6635,
                label,
                label_ttl: 64,
            }),
            tos: 0,
            ttl: 64,
        },
        program: Arc::new(Program {
            ops,
            dependencies: Vec::new(),
            nexthop: NexthopId::NONE,
            label: None,
            vrf,
            passes: Vec::new(),
            decided: Decided::BY_NONE,
        }),
        egress_port: Some(egress),
        ingress_mtu: 1500,
        tunnel_sport: 0xc000,
        ip_id: 0,
    })
}

/// 802.1Q, VLAN 4093 and 4094.
const fn tag(index: u8) -> VlanTag {
    VlanTag { tpid: 0x8100, vid: 4093 + index as u16 }
}

fn header(tags: u8) -> Option<L2Rewrite> {
    let mut bytes = [STATION.0, MacAddr::VIRTUAL.0].concat();
    for index in 0..tags {
        bytes.extend_from_slice(&tag(index).tpid.to_be_bytes());
        bytes.extend_from_slice(&tag(index).vid.to_be_bytes());
    }
    bytes.extend_from_slice(&[0x08, 0x00]);
    L2Rewrite::new(&bytes)
}
