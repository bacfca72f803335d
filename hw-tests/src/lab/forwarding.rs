//! Forwarding states of the two customer edges of [`super::L3vpn`]: walk A of the design, two tenants.

use prost_reflect::ReflectMessage;
use proto::v1::{self, nexthop::Kind};

use super::{LabError, l3vpn::Tenant};

/// A customer edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// CE1: tenants' hosts on devices of their own.
    Ce1,
    /// CE2: tenants' hosts on VLANs of one trunk.
    Ce2,
}

/// Underlay VRF.
pub(crate) const UNDERLAY_VRF: u32 = 8;
/// Where untagged frames of CE2's trunk end: a VRF without routes.
const UNTAGGED_VRF: u32 = 1;
/// CE2's trunk.
pub(crate) const TRUNK_VIF: u32 = 24;
/// Toward transit A and transit B.
pub(crate) const UNDERLAY_VIFS: [u32; 2] = [4111, 4109];

pub(crate) const UNDERLAY_MEMBERS: [u32; 2] = [85, 86];
const UNDERLAY_RESOLVE: [u32; 2] = [13, 14];
const UNDERLAY_RECEIVE: u32 = 10;
const TUNNEL_RECEIVE: u32 = 31;
const TUNNEL: u32 = 489;
pub(crate) const COMPOSITE: u32 = 532;
pub(crate) const PERMIT_ALL: u32 = 65;

/// One of a node's two links into the transit network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uplink {
    pub(crate) device: &'static str,
    pub(crate) mac: &'static str,
    /// Own address with prefix length.
    pub(crate) address: &'static str,
    /// Its network.
    pub(crate) subnet: &'static str,
    pub(crate) transit_mac: &'static str,
    pub(crate) transit_address: &'static str,
}

impl Site {
    /// Name of the node.
    #[must_use]
    pub const fn node(self) -> &'static str {
        match self {
            Self::Ce1 => "ce1",
            Self::Ce2 => "ce2",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ce1 => Self::Ce2,
            Self::Ce2 => Self::Ce1,
        }
    }

    /// Outer source address of its tunnels.
    #[must_use]
    pub const fn tunnel_source(self) -> &'static str {
        match self {
            Self::Ce1 => "10.101.10.39",
            Self::Ce2 => "10.101.9.245",
        }
    }

    /// Toward transit A and transit B.
    pub(crate) const fn uplinks(self) -> [Uplink; 2] {
        match self {
            Self::Ce1 => [
                Uplink {
                    device: "ens161",
                    mac: "00:0c:29:01:01:61",
                    address: "172.28.13.36/24",
                    subnet: "172.28.13.0/24",
                    transit_mac: "00:0c:29:0a:00:01",
                    transit_address: "172.28.13.1",
                },
                Uplink {
                    device: "ens256",
                    mac: "00:0c:29:01:02:56",
                    address: "172.28.14.36/24",
                    subnet: "172.28.14.0/24",
                    transit_mac: "00:0c:29:0b:00:01",
                    transit_address: "172.28.14.1",
                },
            ],
            Self::Ce2 => [
                Uplink {
                    device: "ens161",
                    mac: "00:0c:29:02:01:61",
                    address: "172.28.23.36/24",
                    subnet: "172.28.23.0/24",
                    transit_mac: "00:0c:29:0a:00:02",
                    transit_address: "172.28.23.1",
                },
                Uplink {
                    device: "ens256",
                    mac: "00:0c:29:02:02:56",
                    address: "172.28.24.36/24",
                    subnet: "172.28.24.0/24",
                    transit_mac: "00:0c:29:0b:00:02",
                    transit_address: "172.28.24.1",
                },
            ],
        }
    }

    /// A tenant's networks here, v4 and v6.
    #[must_use]
    pub const fn prefixes(self) -> [&'static str; 2] {
        match self {
            Self::Ce1 => ["192.168.100.0/24", "fd00:100::/64"],
            Self::Ce2 => ["192.168.1.0/24", "fd00:1::/64"],
        }
    }

    /// The node's addresses in a tenant's networks here: the hosts' gateways.
    #[must_use]
    pub const fn gateways(self) -> [&'static str; 2] {
        match self {
            Self::Ce1 => ["192.168.100.1", "fd00:100::1"],
            Self::Ce2 => ["192.168.1.1", "fd00:1::1"],
        }
    }

    /// Site and network of origin, as the dumps show them.
    const fn origin(self) -> (u32, u32) {
        match self {
            Self::Ce1 => (5049, 48217),
            Self::Ce2 => (4972, 48217),
        }
    }
}

/// The whole state of one node, generation 1.
#[must_use]
pub fn forwarding_state(site: Site, driver: v1::IoDriver) -> v1::ForwardingState {
    let mut state = v1::ForwardingState {
        generation: 1,
        node: site.node().to_owned(),
        acls: vec![permit_all()],
        ..Default::default()
    };
    underlay(&mut state, site, driver);
    overlays(&mut state, site, driver);
    state
}

/// Both tenants of a site, and what carries them there.
pub(crate) fn overlays(state: &mut v1::ForwardingState, site: Site, driver: v1::IoDriver) {
    if site == Site::Ce2 {
        state.vrfs.push(v1::Vrf { id: UNTAGGED_VRF, name: "untagged".to_owned() });
        state.vifs.push(v1::Vif { vrf: UNTAGGED_VRF, ..vif(TRUNK_VIF, "ens224", v1::VifType::Physical, driver) });
    }
    for tenant in [Tenant::Blue, Tenant::Green] {
        overlay(state, site, tenant, driver);
    }
}

/// A state in the JSON mapping of protobuf.
///
/// # Errors
/// [`LabError::Io`] when it has no JSON form (it always has).
pub fn state_json(state: &v1::ForwardingState) -> Result<String, LabError> {
    serde_json::to_string_pretty(&state.transcode_to_dynamic())
        .map_err(|error| LabError::io("write a forwarding state as JSON")(error.into()))
}

/// VRF 8: two uplinks, the composite over both, and the address where MPLS over UDP ends.
fn underlay(state: &mut v1::ForwardingState, site: Site, driver: v1::IoDriver) {
    state.vrfs.push(v1::Vrf { id: UNDERLAY_VRF, name: "underlay".to_owned() });
    let uplinks = site.uplinks().into_iter().zip(UNDERLAY_VIFS).zip(UNDERLAY_MEMBERS).zip(UNDERLAY_RESOLVE);
    for (((uplink, id), member), resolve) in uplinks {
        state.vifs.push(v1::Vif {
            vrf: UNDERLAY_VRF,
            addresses: vec![uplink.address.to_owned()],
            ..vif(id, uplink.device, v1::VifType::Physical, driver)
        });
        let encap_data = format!("{} {} 0800", uplink.transit_mac, uplink.mac);
        state.nexthops.push(nexthop(member, UNDERLAY_VRF, Kind::Encap(v1::EncapNexthop { oif: id, encap_data })));
        state.nexthops.push(nexthop(
            resolve,
            UNDERLAY_VRF,
            Kind::Resolve(v1::ResolveNexthop { oif: id, ..Default::default() }),
        ));
        state.routes.push(route(UNDERLAY_VRF, uplink.subnet, resolve));
        let own = uplink.address.split('/').next().unwrap_or_default();
        state.routes.push(route(UNDERLAY_VRF, &format!("{own}/32"), UNDERLAY_RECEIVE));
    }
    state.nexthops.push(nexthop(UNDERLAY_RECEIVE, UNDERLAY_VRF, Kind::Receive(v1::ReceiveNexthop::default())));
    end_to_end(state, site);
}

/// MPLS over UDP from site to site: the composite over both members, and the address where it ends.
pub(crate) fn end_to_end(state: &mut v1::ForwardingState, site: Site) {
    let members =
        UNDERLAY_MEMBERS.map(|nexthop| v1::CompositeMember { nexthop, weight: Some(100), label: None }).to_vec();
    let tunnel = v1::TunnelNexthop {
        r#type: v1::TunnelType::MplsOUdp.into(),
        sip: site.tunnel_source().to_owned(),
        dip: site.other().tunnel_source().to_owned(),
        direct_nexthop: COMPOSITE,
        ..Default::default()
    };
    let terminate = v1::ReceiveNexthop { terminate_mpls_o_udp: true, ..Default::default() };
    state.nexthops.extend([
        nexthop(TUNNEL_RECEIVE, UNDERLAY_VRF, Kind::Receive(terminate)),
        nexthop(COMPOSITE, 0, Kind::Composite(v1::CompositeNexthop { members })),
        nexthop(TUNNEL, UNDERLAY_VRF, Kind::Tunnel(tunnel)),
    ]);
    state.routes.extend([
        route(UNDERLAY_VRF, &format!("{}/32", site.tunnel_source()), TUNNEL_RECEIVE),
        route(UNDERLAY_VRF, &format!("{}/32", site.other().tunnel_source()), COMPOSITE),
    ]);
}

/// A tenant's VRF: its network here, the route to its network at the other site, and the label that leads in.
fn overlay(state: &mut v1::ForwardingState, site: Site, tenant: Tenant, driver: v1::IoDriver) {
    let (vrf, vif_id) = (tenant.vrf(), tenant.vif());
    state.vrfs.push(v1::Vrf { id: vrf, name: tenant.name().to_owned() });
    let common = v1::Vif {
        vrf,
        vn: tenant.vn(),
        addresses: site
            .gateways()
            .iter()
            .zip(site.prefixes())
            .map(|(address, prefix)| format!("{address}/{}", prefix.split('/').nth(1).unwrap_or_default()))
            .collect(),
        flags: Some(v1::VifFlags { policy: true, ..Default::default() }),
        ingress_acls: vec![PERMIT_ALL],
        egress_acls: vec![PERMIT_ALL],
        ..Default::default()
    };
    state.vifs.push(match site {
        Site::Ce1 => {
            let base = vif(vif_id, tenant.ce1_device(), v1::VifType::Physical, driver);
            v1::Vif { id: base.id, name: base.name, device: base.device, r#type: base.r#type, io: base.io, ..common }
        }
        Site::Ce2 => v1::Vif {
            id: vif_id,
            name: format!("ens224.{}", tenant.vlan()),
            r#type: v1::VifType::PhysicalVlan.into(),
            parent: TRUNK_VIF,
            outer_vlan: Some(v1::VlanTag { vid: tenant.vlan().into(), tpid: 0 }),
            ..common
        },
    });
    let (resolve, receive) = tenant.local_nexthops(site);
    state.nexthops.extend([
        nexthop(resolve, vrf, Kind::Resolve(v1::ResolveNexthop { oif: vif_id, ..Default::default() })),
        nexthop(receive, vrf, Kind::Receive(v1::ReceiveNexthop::default())),
        v1::Nexthop {
            policy: true,
            ..nexthop(tenant.translate(), vrf, Kind::VrfTranslate(v1::VrfTranslateNexthop { vrf }))
        },
    ]);
    state.labels.push(v1::MplsLabel { label: tenant.label_toward(site), nexthop: tenant.translate() });
    let from = |origin: Site, route: v1::Route| {
        let (origin_site, network) = origin.origin();
        v1::Route { site: origin_site, network, vn: tenant.vn(), preferred_vrf: true, ..route }
    };
    for prefix in site.prefixes() {
        state.routes.push(from(site, route(vrf, prefix, resolve)));
    }
    for gateway in site.gateways() {
        let host = if gateway.contains(':') { "128" } else { "32" };
        let own = v1::Route { proxy_arp: true, ..route(vrf, &format!("{gateway}/{host}"), receive) };
        state.routes.push(from(site, own));
    }
    for prefix in site.other().prefixes() {
        let label = Some(tenant.label_toward(site.other()));
        state.routes.push(from(site.other(), v1::Route { label, ..route(vrf, prefix, TUNNEL) }));
    }
    // The host of walk A has a static nexthop that holds the tag; the other hosts are found by ARP and ND.
    if (site, tenant) == (Site::Ce2, Tenant::Blue) {
        let encap_data = "00:0c:29:9b:69:69 00:0c:29:0f:f4:a1 8100 012c 0800".to_owned();
        state.nexthops.push(nexthop(577, vrf, Kind::Encap(v1::EncapNexthop { oif: vif_id, encap_data })));
        state.routes.push(from(site, route(vrf, "192.168.1.100/32", 577)));
    }
}

pub(crate) fn permit_all() -> v1::Acl {
    let entry = v1::Ace { id: 1, action: v1::AclAction::Permit.into(), ..Default::default() };
    v1::Acl { id: PERMIT_ALL, name: "permit-all".to_owned(), entries: vec![entry], default_action: 0 }
}

pub(crate) fn vif(id: u32, device: &str, kind: v1::VifType, driver: v1::IoDriver) -> v1::Vif {
    v1::Vif {
        id,
        name: device.to_owned(),
        device: device.to_owned(),
        r#type: kind.into(),
        io: driver.into(),
        ..Default::default()
    }
}

pub(crate) fn nexthop(id: u32, vrf: u32, kind: Kind) -> v1::Nexthop {
    v1::Nexthop { id, vrf, kind: Some(kind), ..Default::default() }
}

pub(crate) fn route(vrf: u32, prefix: &str, nexthop: u32) -> v1::Route {
    v1::Route { vrf, prefix: prefix.to_owned(), nexthop, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_states_survive_their_json_form() {
        for site in [Site::Ce1, Site::Ce2] {
            let state = forwarding_state(site, v1::IoDriver::Auto);
            let json = state_json(&state).unwrap();
            let mut reader = serde_json::Deserializer::from_str(&json);
            let message = prost_reflect::DynamicMessage::deserialize(state.descriptor(), &mut reader).unwrap();
            assert_eq!(message.transcode_to::<v1::ForwardingState>().unwrap(), state);
        }
    }

    #[test]
    fn a_label_that_one_site_pushes_is_known_at_the_other() {
        let [ce1, ce2] = [Site::Ce1, Site::Ce2].map(|site| forwarding_state(site, v1::IoDriver::Auto));
        for (from, to) in [(&ce1, &ce2), (&ce2, &ce1)] {
            for route in from.routes.iter().filter(|route| route.label.is_some()) {
                let known = to.labels.iter().find(|label| Some(label.label) == route.label).unwrap();
                let nexthop = to.nexthops.iter().find(|nexthop| nexthop.id == known.nexthop).unwrap();
                assert_eq!(nexthop.kind, Some(Kind::VrfTranslate(v1::VrfTranslateNexthop { vrf: route.vrf })));
            }
        }
    }
}
