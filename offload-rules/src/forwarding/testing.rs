//! One vocabulary for the tests of this crate: ids, objects, and a consistent state to start from.

use super::{
    Ace, Acl, Action, DfPolicy, DscpMap, IoDriver, IpsecTunnel, L2Rewrite, Lifetime, Listener, ListenerTable, Member,
    MplsLabel, Nexthop, NexthopKind, PortConfig, Receive, Route, RouteFlags, RouteOrigin, Sa, SaDirection, SaKey,
    Scope, State, Tunnel, Vif, VifFlags, VifKind, VlanTag, Vrf,
};
use std::net::IpAddr;

use crate::{AclId, Label, MacAddr, NexthopId, SaId, VifId, VrfId};

impl super::Snapshot {
    /// With this neighbour added or changed.
    pub(crate) fn with_neighbour(&self, vif: VifId, address: IpAddr, mac: MacAddr) -> Self {
        self.with_neighbours(&[((vif, address), Some(mac))])
    }

    /// Without that neighbour.
    pub(crate) fn without_neighbour(&self, vif: VifId, address: IpAddr) -> Self {
        self.with_neighbours(&[((vif, address), None)])
    }
}

pub(crate) fn vif_id(id: u32) -> VifId {
    VifId::new(id).unwrap()
}

pub(crate) fn vrf_id(id: u32) -> VrfId {
    VrfId::new(id).unwrap()
}

pub(crate) fn nh(id: u32) -> NexthopId {
    NexthopId::new(id).unwrap()
}

pub(crate) fn label(label: u32) -> Label {
    Label::new(label).unwrap()
}

pub(crate) fn acl_id(id: u32) -> AclId {
    AclId::new(id).unwrap()
}

pub(crate) fn sa_id(id: u32) -> SaId {
    SaId::new(id).unwrap()
}

/// Key and salt, different for each `seed`.
pub(crate) fn sa_key(seed: u8) -> SaKey {
    SaKey::new(vec![seed; 20].into())
}

/// An SA whose index and key are its own.
pub(crate) fn sa(id: u32, direction: SaDirection) -> Sa {
    Sa {
        id: sa_id(id),
        spi: 0x1000 + id,
        direction,
        key: sa_key(id as u8),
        esn: true,
        window: if direction == SaDirection::Inbound { 1024 } else { 0 },
        soft: Lifetime::default(),
        hard: Lifetime::default(),
        first: 1,
        worker: 0,
    }
}

/// A tunnel of ESP as IP protocol, from 172.28.13.36 to 103.135.56.40.
pub(crate) fn ipsec(outbound: &[u32], inbound: &[u32], vrf: u32) -> VifKind {
    let ids = |ids: &[u32]| ids.iter().map(|id| sa_id(*id)).collect();
    VifKind::Tunnel(Box::new(IpsecTunnel {
        source: "172.28.13.36".parse().unwrap(),
        destination: "103.135.56.40".parse().unwrap(),
        nat_t: None,
        outbound: ids(outbound),
        inbound: ids(inbound),
        vrf: vrf_id(vrf),
        df: DfPolicy::Copy,
        dscp: None,
        ike: false,
    }))
}

pub(crate) fn tag(vid: u16) -> VlanTag {
    VlanTag { tpid: 0x8100, vid }
}

pub(crate) fn physical(device: &str) -> VifKind {
    VifKind::Physical { port: PortConfig { device: device.to_owned(), driver: IoDriver::Auto } }
}

pub(crate) fn host(device: &str) -> VifKind {
    VifKind::Host { port: PortConfig { device: device.to_owned(), driver: IoDriver::Auto } }
}

pub(crate) fn vlan(parent: u32, vid: u16) -> VifKind {
    VifKind::PhysicalVlan { parent: vif_id(parent), outer: tag(vid), inner: None }
}

pub(crate) fn vif(id: u32, kind: VifKind, vrf: u32, addresses: &[&str]) -> Vif {
    Vif {
        id: vif_id(id),
        name: format!("vif{id}"),
        kind,
        mac: None,
        vrf: vrf_id(vrf),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        mtu: 1500,
        enc_mss: 0,
        flags: VifFlags { policy: true, ..VifFlags::default() },
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    }
}

pub(crate) fn vrf(id: u32) -> Vrf {
    Vrf { id: vrf_id(id), name: format!("segment-{id}") }
}

pub(crate) fn nexthop(id: u32, kind: NexthopKind) -> Nexthop {
    Nexthop { id: nh(id), vrf: None, policy: false, valid: true, kind }
}

/// Hexadecimal octets of an Ethernet header.
pub(crate) fn rewrite(hex: &str) -> L2Rewrite {
    let octets: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    L2Rewrite::new(&octets).unwrap()
}

pub(crate) fn encap(oif: u32, hex: &str) -> NexthopKind {
    NexthopKind::Encap { oif: vif_id(oif), rewrite: (!hex.is_empty()).then(|| rewrite(hex)) }
}

pub(crate) fn tunnel(sip: &str, dip: &str, direct: Option<u32>) -> NexthopKind {
    NexthopKind::Tunnel(Tunnel {
        sip: sip.parse().unwrap(),
        dip: dip.parse().unwrap(),
        direct: direct.map(nh),
        udp_port: 6635,
        dscp: DscpMap::default(),
    })
}

pub(crate) fn member(id: u32) -> Option<Member> {
    Some(Member { nexthop: nh(id), weight: 100, label: None })
}

pub(crate) fn composite(members: &[u32]) -> NexthopKind {
    NexthopKind::Composite { members: members.iter().map(|id| member(*id)).collect() }
}

pub(crate) fn listener(proto: u8, first: u16, last: u16, nexthop: u32) -> Listener {
    Listener { proto, first, last, nexthop: nh(nexthop) }
}

pub(crate) fn receive(terminate_mpls_o_udp: bool, listeners: Vec<Listener>, defaults: &[(u8, u32)]) -> NexthopKind {
    let defaults = defaults.iter().map(|(proto, id)| (*proto, nh(*id))).collect();
    NexthopKind::Receive(Receive { listeners: ListenerTable { listeners, defaults }, terminate_mpls_o_udp })
}

pub(crate) fn route(vrf: u32, prefix: &str, nexthop: u32, label: Option<u32>) -> Route {
    Route {
        vrf: vrf_id(vrf),
        prefix: prefix.parse().unwrap(),
        nexthop: if nexthop == 0 { NexthopId::NONE } else { nh(nexthop) },
        label: label.map(self::label),
        flags: RouteFlags::default(),
        origin: RouteOrigin::default(),
    }
}

pub(crate) fn mpls(incoming: u32, nexthop: u32) -> MplsLabel {
    MplsLabel { label: label(incoming), nexthop: nh(nexthop) }
}

/// Matches everything.
pub(crate) fn ace(id: u32, action: Action) -> Ace {
    Ace {
        id,
        action,
        scope: Scope::Stateful,
        proto: None,
        source: None,
        destination: None,
        source_ports: None,
        destination_ports: None,
    }
}

pub(crate) fn acl(id: u32, entries: Vec<Ace>, default: Option<Action>) -> Acl {
    Acl { id: acl_id(id), name: format!("list-{id}"), entries, default }
}

/// A CE with one tenant VLAN: walk A's objects, underlay on plain Ethernet. Tenant VRF 18, underlay VRF 8.
pub(crate) fn base() -> State {
    State {
        generation: 1,
        node: "ce1".to_owned(),
        vifs: vec![
            vif(1, physical("eth0"), 8, &["10.101.10.39/24"]),
            vif(2, physical("eth1"), 8, &[]),
            vif(3, vlan(2, 300), 18, &["192.168.100.1/24", "fd00:100::1/64", "fe80::1/64"]),
            vif(4, host("sg0"), 8, &[]),
        ],
        vrfs: vec![vrf(8), vrf(18)],
        nexthops: vec![
            nexthop(10, encap(4, "00005e00010000005e0001010800")),
            nexthop(85, encap(1, "0200000000010200000000020800")),
            nexthop(86, encap(1, "0200000000030200000000020800")),
            nexthop(100, receive(true, vec![listener(6, 179, 179, 10)], &[(1, 10)])),
            nexthop(489, tunnel("10.101.10.39", "10.101.9.245", Some(532))),
            nexthop(513, NexthopKind::VrfTranslate { vrf: vrf_id(18) }),
            nexthop(532, composite(&[85, 86])),
            nexthop(577, NexthopKind::Resolve { oif: vif_id(3), gateway: None }),
        ],
        routes: vec![
            route(8, "0.0.0.0/0", 85, None),
            route(8, "10.101.10.39/32", 100, None),
            route(18, "0.0.0.0/0", 0, None),
            route(18, "192.168.1.0/24", 489, Some(280)),
            route(18, "192.168.100.0/24", 577, None),
            route(18, "fd00:1::/64", 489, Some(280)),
        ],
        labels: vec![mpls(279, 513)],
        acls: vec![acl(5, vec![ace(10, Action::Permit)], None)],
        ..State::default()
    }
}
