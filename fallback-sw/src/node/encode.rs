//! Typed forwarding state → protobuf. What [`super::decode`] reads back is equal, except for keys that are redacted.

mod ipsec;

use std::fmt::Write as _;

use ipnet::IpNet;
use offload_rules::{
    NexthopId, VrfId,
    forwarding::{
        Ace, Acl, Action, Delta, DscpMap, IoDriver, L2Rewrite, Listener, Member, MplsLabel, Nexthop, NexthopKind,
        Receive, Route, Scope, Settings, State, Timeouts, Tunnel, Vif, VifFlags, VifKind, VlanTag, Vrf,
    },
};
use proto::v1::{self as pb, nexthop::Kind};

pub use ipsec::{Keys, sa};

/// A state; its keys are redacted.
#[must_use]
pub fn state(state: &State) -> pb::ForwardingState {
    state_with(state, Keys::Redacted)
}

/// A state, with its keys or without.
#[must_use]
pub fn state_with(state: &State, keys: Keys) -> pb::ForwardingState {
    pb::ForwardingState {
        generation: state.generation,
        node: state.node.clone(),
        settings: Some(settings(&state.settings)),
        vifs: state.vifs.iter().map(vif).collect(),
        vrfs: state.vrfs.iter().map(vrf).collect(),
        nexthops: state.nexthops.iter().map(nexthop).collect(),
        routes: state.routes.iter().map(route).collect(),
        labels: state.labels.iter().map(label).collect(),
        acls: state.acls.iter().map(acl).collect(),
        sas: state.sas.iter().map(|sa| ipsec::sa(sa, keys)).collect(),
    }
}

/// A change; its keys are redacted.
#[must_use]
pub fn delta(delta: &Delta) -> pb::ForwardingDelta {
    delta_with(delta, Keys::Redacted)
}

/// A change, with its keys or without.
#[must_use]
pub fn delta_with(delta: &Delta, keys: Keys) -> pb::ForwardingDelta {
    pb::ForwardingDelta {
        base_generation: delta.base_generation,
        generation: delta.generation,
        remove_vifs: delta.remove_vifs.iter().map(|id| id.get().into()).collect(),
        remove_vrfs: delta.remove_vrfs.iter().map(|id| id.get().into()).collect(),
        remove_nexthops: delta.remove_nexthops.iter().map(|id| id.get()).collect(),
        remove_routes: delta.remove_routes.iter().map(|(vrf, prefix)| route_key(*vrf, *prefix)).collect(),
        remove_labels: delta.remove_labels.iter().map(|label| label.get()).collect(),
        remove_acls: delta.remove_acls.iter().map(|id| id.get()).collect(),
        settings: delta.settings.as_ref().map(settings),
        vifs: delta.vifs.iter().map(vif).collect(),
        vrfs: delta.vrfs.iter().map(vrf).collect(),
        nexthops: delta.nexthops.iter().map(nexthop).collect(),
        routes: delta.routes.iter().map(route).collect(),
        labels: delta.labels.iter().map(label).collect(),
        acls: delta.acls.iter().map(acl).collect(),
        sas: delta.sas.iter().map(|sa| ipsec::sa(sa, keys)).collect(),
        remove_sas: delta.remove_sas.iter().map(|id| id.get()).collect(),
    }
}

/// Limits and timers.
#[must_use]
pub fn settings(settings: &Settings) -> pb::Settings {
    pb::Settings {
        max_flows: settings.max_flows,
        new_flow_rate_per_vif: settings.new_flow_rate_per_vif,
        half_open_percent_per_vif: settings.half_open_percent_per_vif,
        max_neighbours: settings.max_neighbours,
        max_fragmented_datagrams: settings.max_fragmented_datagrams,
        fragment_timeout_secs: settings.fragment_timeout_secs,
        max_held_per_neighbour: settings.max_held_per_neighbour,
        max_held: settings.max_held,
        icmp_error_rate: settings.icmp_error_rate,
        timeouts: Some(timeouts(&settings.timeouts)),
    }
}

fn timeouts(timeouts: &Timeouts) -> pb::Timeouts {
    pb::Timeouts {
        tcp_opening_secs: timeouts.tcp_opening,
        tcp_established_secs: timeouts.tcp_established,
        tcp_closing_secs: timeouts.tcp_closing,
        tcp_closed_secs: timeouts.tcp_closed,
        udp_secs: timeouts.udp,
        icmp_secs: timeouts.icmp,
        other_secs: timeouts.other,
    }
}

/// A vif.
#[must_use]
pub fn vif(vif: &Vif) -> pb::Vif {
    let (kind, parent, outer_vlan, inner_vlan) = match &vif.kind {
        VifKind::Physical { .. } => (pb::VifType::Physical, 0, None, None),
        VifKind::Virtual { .. } => (pb::VifType::Virtual, 0, None, None),
        VifKind::Host { .. } => (pb::VifType::Host, 0, None, None),
        VifKind::Tunnel(_) => (pb::VifType::Tunnel, 0, None, None),
        VifKind::Agent { .. } => (pb::VifType::Agent, 0, None, None),
        VifKind::PhysicalVlan { parent, outer, inner } => {
            (pb::VifType::PhysicalVlan, parent.get().into(), Some(tag(*outer)), inner.map(tag))
        }
    };
    let io = match vif.kind.port().map_or(IoDriver::Auto, |port| port.driver) {
        IoDriver::Auto => pb::IoDriver::Auto,
        IoDriver::AfXdp => pb::IoDriver::AfXdp,
        IoDriver::AfPacket => pb::IoDriver::AfPacket,
        IoDriver::Tap => pb::IoDriver::Tap,
    };
    pb::Vif {
        id: vif.id.get().into(),
        name: vif.name.clone(),
        r#type: kind.into(),
        device: vif.kind.port().map(|port| port.device.clone()).unwrap_or_default(),
        parent,
        outer_vlan,
        inner_vlan,
        mac: vif.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        vrf: vif.vrf.get().into(),
        addresses: vif.addresses.iter().map(ToString::to_string).collect(),
        mtu: vif.mtu.into(),
        enc_mss: vif.enc_mss.into(),
        flags: Some(vif_flags(&vif.flags)),
        nexthop: vif.nexthop.map_or(0, NexthopId::get),
        ingress_acls: vif.ingress_acls.iter().map(|id| id.get()).collect(),
        egress_acls: vif.egress_acls.iter().map(|id| id.get()).collect(),
        service_acls: vif.service_acls.iter().map(|id| id.get()).collect(),
        io: io.into(),
        nat_pool: vif.nat_pool.iter().map(ToString::to_string).collect(),
        vn: vif.vn,
        tunnel: vif.kind.tunnel().map(ipsec::tunnel),
    }
}

fn tag(tag: VlanTag) -> pb::VlanTag {
    pb::VlanTag { vid: tag.vid.into(), tpid: tag.tpid.into() }
}

fn vif_flags(flags: &VifFlags) -> pb::VifFlags {
    pb::VifFlags {
        policy: flags.policy,
        proxy: flags.proxy,
        ttl_unmodified: flags.ttl_unmodified,
        no_rpf: flags.no_rpf,
        no_arp: flags.no_arp,
        no_fragment: flags.no_fragment,
        drop_new_flows: flags.drop_new_flows,
        multi_queue: flags.multi_queue,
        raw_ip: flags.raw_ip,
        syn_cookies: flags.syn_cookies,
        gro: flags.gro,
    }
}

/// A VRF.
#[must_use]
pub fn vrf(vrf: &Vrf) -> pb::Vrf {
    pb::Vrf { id: vrf.id.get().into(), name: vrf.name.clone() }
}

/// A route.
#[must_use]
pub fn route(route: &Route) -> pb::Route {
    pb::Route {
        vrf: route.vrf.get().into(),
        prefix: route.prefix.to_string(),
        nexthop: route.nexthop.get(),
        label: route.label.map(|label| label.get()),
        proxy_arp: route.flags.proxy_arp,
        trap_arp: route.flags.trap_arp,
        flood_arp: route.flags.flood_arp,
        proxy_arp_for_host: route.flags.proxy_arp_for_host,
        preferred_vrf: route.flags.preferred_vrf,
        site: route.origin.site,
        network: route.origin.network,
        vn: route.origin.vn,
        stats_uid: route.origin.stats_uid,
        policy_labels: route.origin.policy_labels.clone(),
    }
}

/// The key of a route.
#[must_use]
pub fn route_key(vrf: VrfId, prefix: IpNet) -> pb::RouteKey {
    pb::RouteKey { vrf: vrf.get().into(), prefix: prefix.to_string() }
}

/// An incoming label.
#[must_use]
pub fn label(label: &MplsLabel) -> pb::MplsLabel {
    pb::MplsLabel { label: label.label.get(), nexthop: label.nexthop.get() }
}

/// A nexthop.
#[must_use]
pub fn nexthop(nexthop: &Nexthop) -> pb::Nexthop {
    let kind = match &nexthop.kind {
        NexthopKind::Drop => Kind::Drop(pb::DropNexthop {}),
        NexthopKind::Encap { oif, rewrite } => Kind::Encap(pb::EncapNexthop {
            oif: oif.get().into(),
            encap_data: rewrite.as_ref().map(encap_data).unwrap_or_default(),
        }),
        NexthopKind::Tunnel(tunnel) => Kind::Tunnel(self::tunnel(tunnel)),
        NexthopKind::Composite { members } => {
            Kind::Composite(pb::CompositeNexthop { members: members.iter().map(member).collect() })
        }
        NexthopKind::VrfTranslate { vrf } => Kind::VrfTranslate(pb::VrfTranslateNexthop { vrf: vrf.get().into() }),
        NexthopKind::Receive(receive) => Kind::Receive(self::receive(receive)),
        NexthopKind::Resolve { oif, gateway } => Kind::Resolve(pb::ResolveNexthop {
            oif: oif.get().into(),
            gateway: gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        }),
    };
    pb::Nexthop {
        id: nexthop.id.get(),
        vrf: nexthop.vrf.map_or(0, |vrf| vrf.get().into()),
        policy: nexthop.policy,
        invalid: !nexthop.valid,
        kind: Some(kind),
    }
}

/// The header as the dumps print it: `00 00 5e 00 01 00 00 00 5e 00 01 00 08 00`.
fn encap_data(rewrite: &L2Rewrite) -> String {
    let mut text = String::with_capacity(rewrite.bytes().len() * 3);
    for (i, octet) in rewrite.bytes().iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{octet:02x}");
    }
    text
}

fn tunnel(tunnel: &Tunnel) -> pb::TunnelNexthop {
    pb::TunnelNexthop {
        r#type: pb::TunnelType::MplsOUdp.into(),
        sip: tunnel.sip.to_string(),
        dip: tunnel.dip.to_string(),
        direct_nexthop: tunnel.direct.map_or(0, NexthopId::get),
        udp_port: tunnel.udp_port.into(),
        dscp_map: dscp_map(&tunnel.dscp),
    }
}

fn dscp_map(map: &DscpMap) -> Vec<pb::DscpMapping> {
    let pairs = (0_u32..).zip(map.0.iter().map(|outer| u32::from(*outer)));
    pairs.filter(|(inner, outer)| inner != outer).map(|(inner, outer)| pb::DscpMapping { inner, outer }).collect()
}

fn member(member: &Option<Member>) -> pb::CompositeMember {
    member.map_or_else(pb::CompositeMember::default, |member| pb::CompositeMember {
        nexthop: member.nexthop.get(),
        weight: Some(member.weight.into()),
        label: member.label.map(|label| label.get()),
    })
}

fn receive(receive: &Receive) -> pb::ReceiveNexthop {
    let table = &receive.listeners;
    pb::ReceiveNexthop {
        listeners: table.listeners.iter().map(listener).collect(),
        defaults: table
            .defaults
            .iter()
            .map(|(proto, nexthop)| pb::DefaultListener { proto: (*proto).into(), nexthop: nexthop.get() })
            .collect(),
        terminate_mpls_o_udp: receive.terminate_mpls_o_udp,
    }
}

fn listener(listener: &Listener) -> pb::Listener {
    pb::Listener {
        proto: listener.proto.into(),
        first_port: listener.first.into(),
        // Absent for a single port.
        last_port: if listener.last == listener.first { 0 } else { listener.last.into() },
        nexthop: listener.nexthop.get(),
    }
}

/// An access list.
#[must_use]
pub fn acl(acl: &Acl) -> pb::Acl {
    pb::Acl {
        id: acl.id.get(),
        name: acl.name.clone(),
        entries: acl.entries.iter().map(ace).collect(),
        default_action: acl.default.map_or(pb::AclAction::Unspecified, action).into(),
    }
}

fn ace(ace: &Ace) -> pb::Ace {
    let prefix = |prefix: &Option<IpNet>| prefix.map(|net| net.to_string()).unwrap_or_default();
    let ports =
        |ports: Option<(u16, u16)>| ports.map(|(first, last)| pb::PortRange { first: first.into(), last: last.into() });
    pb::Ace {
        id: ace.id,
        action: action(ace.action).into(),
        scope: match ace.scope {
            Scope::Stateful => pb::AclScope::Stateful,
            Scope::Stateless => pb::AclScope::Stateless,
        }
        .into(),
        proto: ace.proto.map(Into::into),
        source: prefix(&ace.source),
        destination: prefix(&ace.destination),
        source_ports: ports(ace.source_ports),
        destination_ports: ports(ace.destination_ports),
    }
}

const fn action(action: Action) -> pb::AclAction {
    match action {
        Action::Permit => pb::AclAction::Permit,
        Action::Deny => pb::AclAction::Deny,
    }
}
