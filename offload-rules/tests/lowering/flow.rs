//! Flows as tests write them down: one description, from which come the direction and its packets.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use offload_rules::{
    DropReason, Label, MacAddr, NexthopId, VifId, VrfId,
    flow::{
        Decap, Decided, Egress, FlowKey, Forward, Operations, Oversize, Program, SealHeader, SizeLimit, TunnelHeader,
    },
    forwarding::{DfPolicy, DscpMap, L2Rewrite, VlanTag},
    lower::{Arrival, Direction, Meta, TunnelArrival},
};
use proptest::prelude::*;

use crate::packet::{self, L4, Outer, Packet};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flow {
    pub(crate) port: u16,
    pub(crate) eth_dst: [u8; 6],
    pub(crate) tags: Vec<(u16, u16)>,
    /// Upper four bits of the first tag.
    pub(crate) pcp_dei: u8,
    /// Source, destination, UDP port, label, its TTL.
    pub(crate) tunnel: Option<(Ipv4Addr, Ipv4Addr, u16, u32, u8)>,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) proto: u8,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) to: To,
    /// Tags of the frame that leaves.
    pub(crate) tags_out: u8,
    pub(crate) mtu: u16,
    /// The IPsec tunnel that the NIC has taken it out of.
    pub(crate) opened: Option<u16>,
    /// Into an IPsec tunnel, at last.
    pub(crate) sealed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Tenant,
    Tunnel,
    Drop,
}

/// The tunnel that sealed flows go into.
pub(crate) const SEALS: u16 = 4111;

pub(crate) fn vif(id: u16) -> VifId {
    VifId::new(id.into()).unwrap()
}

pub(crate) fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 132)
}

impl Flow {
    /// UDP from an untagged tenant to an untagged tenant.
    pub(crate) fn plain() -> Self {
        Self {
            port: 2,
            eth_dst: [2, 0, 0, 0, 0, 2],
            tags: Vec::new(),
            pcp_dei: 0,
            tunnel: None,
            src: "192.168.100.100".parse().unwrap(),
            dst: "192.168.1.100".parse().unwrap(),
            proto: 17,
            sport: 40_000,
            dport: 443,
            tos: 0,
            ttl: 64,
            to: To::Tenant,
            tags_out: 0,
            mtu: 1500,
            opened: None,
            sealed: false,
        }
    }

    pub(crate) fn tagged(self, vid: u16) -> Self {
        Self { tags: vec![(0x8100, vid)], ..self }
    }

    pub(crate) fn out_of_tunnel(self) -> Self {
        let ends = ("10.101.10.39".parse().unwrap(), "10.101.9.245".parse().unwrap());
        Self { tunnel: Some((ends.0, ends.1, 6635, 280, 63)), ttl: 63, ..self }
    }

    pub(crate) fn v6(self) -> Self {
        Self { src: "2001:db8::1".parse().unwrap(), dst: "2001:db8:1::2".parse().unwrap(), ..self }
    }

    pub(crate) fn tcp(self) -> Self {
        Self { proto: 6, ..self }
    }

    pub(crate) fn to(self, to: To) -> Self {
        Self { to, ..self }
    }

    pub(crate) fn direction(&self) -> Direction {
        let vrf = VrfId::new(18).unwrap();
        let ingress = if self.tunnel.is_some() { VifId::TUNNEL } else { vif(self.opened.unwrap_or(self.port + 100)) };
        let ports = if has_ports(self.proto) { (self.sport, self.dport) } else { (0, 0) };
        let tag = |i: usize| self.tags.get(i).map(|(tpid, vid)| VlanTag { tpid: *tpid, vid: *vid });
        Direction {
            key: FlowKey::new(vrf, ingress, self.src, self.dst, self.proto, ports.0, ports.1),
            arrival: Arrival {
                port: vif(self.port),
                vif: vif(self.opened.unwrap_or(self.port + 100)),
                sealed_on: self.opened.map(|_| vif(self.port + 100)),
                eth_dst: MacAddr(self.eth_dst),
                tags: [tag(0), tag(1)],
                pcp_dei: if self.tags.is_empty() { 0 } else { self.pcp_dei },
                tunnel: self.tunnel.map(|(source, destination, udp_port, label, label_ttl)| TunnelArrival {
                    source,
                    destination,
                    udp_port,
                    label: Label::new(label).unwrap(),
                    label_ttl,
                }),
                tos: self.tos,
                ttl: self.ttl,
            },
            program: Arc::new(self.program(vrf)),
            egress_port: Some(vif(7)),
            ingress_mtu: 1500,
            tunnel_sport: 0xc123,
            ip_id: 0x1234,
        }
    }

    fn program(&self, vrf: VrfId) -> Program {
        let ops = match self.to {
            To::Drop => Operations::Drop(DropReason::PolicyDeny),
            To::Tenant | To::Tunnel => Operations::Forward(self.forward()),
        };
        Program {
            ops,
            dependencies: Vec::new(),
            nexthop: NexthopId::NONE,
            label: None,
            vrf,
            passes: Vec::new(),
            decided: Decided::BY_NONE,
        }
    }

    fn forward(&self) -> Forward {
        let tunnel = || TunnelHeader {
            sip: "10.101.10.39".parse().unwrap(),
            dip: "10.101.9.245".parse().unwrap(),
            udp_port: 6635,
            label: Label::new(280).unwrap(),
            dscp: DscpMap::default(),
        };
        let seal = || SealHeader {
            vif: vif(SEALS),
            source: "172.28.13.36".parse().unwrap(),
            destination: "103.135.56.40".parse().unwrap(),
            udp: Some((4500, 4500)),
            dscp: None,
            df: DfPolicy::Copy,
        };
        Forward {
            decap: self.tunnel.map(|_| Decap::MplsOUdp),
            ttl: 1,
            mss: (self.proto == 6).then_some(1400),
            shift: None,
            size: Some(SizeLimit { mtu: self.mtu, larger: Oversize::Fragment }),
            encap: (self.to == To::Tunnel).then(tunnel),
            l2: Some(header(self.tags_out)),
            egress: if self.sealed {
                Egress::Seal { header: Box::new(seal()), vif: vif(107) }
            } else {
                Egress::Output(vif(107))
            },
        }
    }

    /// An ordinary packet of it.
    pub(crate) fn packet(&self) -> Packet {
        let mut tags = self.tags.clone();
        if let Some((_, tci)) = tags.first_mut() {
            *tci |= u16::from(self.pcp_dei) << 12;
        }
        let ip = packet::Ip {
            src: self.src,
            dst: self.dst,
            tos: self.tos,
            ttl: self.ttl,
            ..packet::ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, self.proto)
        };
        Packet {
            port: self.port,
            eth_dst: MacAddr(self.eth_dst),
            meta: self.opened.map(|tunnel| Meta::Opened(vif(tunnel))),
            stage: None,
            tags,
            outer: self.tunnel.map(|(source, destination, dport, label, ttl)| Outer {
                ip: packet::ipv4(source, destination, 17),
                sport: 0xc777,
                dport,
                checksum: 0,
                label,
                bottom: true,
                ttl,
            }),
            ip,
            l4: L4 { sport: self.sport, dport: self.dport, flags: 0x18 },
        }
    }
}

/// Walk A's header, with as many tags: 300, then 301.
pub(crate) fn header(tags: u8) -> L2Rewrite {
    let mut bytes = vec![0x00, 0x0c, 0x29, 0x9b, 0x69, 0x69, 0x00, 0x0c, 0x29, 0x0f, 0xf4, 0xa1];
    for vid in 0x2c..0x2c + tags {
        bytes.extend_from_slice(&[0x81, 0x00, 0x01, vid]);
    }
    bytes.extend_from_slice(&[0x08, 0x00]);
    L2Rewrite::new(&bytes).unwrap()
}

fn tunnel() -> impl Strategy<Value = (Ipv4Addr, Ipv4Addr, u16, u32, u8)> {
    (any::<u32>(), any::<u32>(), prop_oneof![Just(6635u16), Just(51234)], 16..0xf_ffffu32, 1..=255u8)
        .prop_map(|(s, d, port, label, ttl)| (s.into(), d.into(), port, label, ttl))
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(s, d)| (IpAddr::V4(s.into()), IpAddr::V4(d.into()))),
        (any::<u128>(), any::<u128>()).prop_map(|(s, d)| (IpAddr::V6(s.into()), IpAddr::V6(d.into()))),
    ]
}

pub(crate) fn any_flow() -> impl Strategy<Value = Flow> {
    let link = (
        1..50u16,
        any::<[u8; 5]>(),
        proptest::collection::vec((prop_oneof![Just(0x8100u16), Just(0x88a8)], 1..4095u16), 0..=2),
        0..16u8,
        proptest::option::of(tunnel()),
    );
    let ip = (
        addresses(),
        prop_oneof![Just(6u8), Just(17), Just(132), Just(47)],
        any::<(u16, u16)>(),
        any::<u8>(),
        2..=255u8,
    );
    let out = (prop_oneof![Just(To::Tenant), Just(To::Tunnel), Just(To::Drop)], 0..=2u8, 1000..1600u16);
    let ipsec = (proptest::option::of(4000..4100u16), any::<bool>());
    (link, ip, out, ipsec).prop_map(
        |(
            (port, mac, tags, pcp_dei, tunnel),
            ((src, dst), proto, (sport, dport), tos, ttl),
            (to, tags_out, mtu),
            (opened, sealed),
        )| {
            Flow {
                port,
                eth_dst: [2, mac[0], mac[1], mac[2], mac[3], mac[4]],
                tags,
                pcp_dei,
                tunnel,
                src,
                dst,
                proto,
                sport,
                dport,
                tos,
                ttl,
                to,
                tags_out,
                mtu,
                opened,
                sealed: sealed && to != To::Drop,
            }
        },
    )
}
