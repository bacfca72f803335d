//! Forwarding states of walk A through a regional edge: two customer edges with two IPsec tunnels each, and the edge between them.

use proto::v1::{self, nexthop::Kind};

use super::{
    Site,
    forwarding::{
        COMPOSITE, UNDERLAY_MEMBERS, UNDERLAY_VIFS, UNDERLAY_VRF, Uplink, end_to_end, nexthop, overlays, permit_all,
        route, vif,
    },
    sa::{Associations, Sa, Tunnel, TunnelEnd, ids},
};

/// VRF of the outer packets.
const WAN_VRF: u32 = 2;
/// The device toward them; the regional edge has two.
const WAN_VIFS: [u32; 2] = [1, 2];
const WAN_RECEIVE: u32 = 17;
const WAN_GATEWAYS: [u32; 2] = [15, 16];
const WAN_RESOLVE: [u32; 2] = [13, 14];
/// MTU of a tunnel, as in the dump.
pub(crate) const TUNNEL_MTU: u32 = 1370;
/// Where the tunnels end at the regional edge.
pub const EDGE_ADDRESSES: [&str; 2] = ["103.135.56.40", "103.135.56.41"];
/// What the NAT makes of CE1's address.
pub const NAT_ADDRESS: &str = "103.135.56.13";
/// What it makes of CE1's port 4500, for each of the tunnels.
pub const NAT_PORTS: [u16; 2] = [31_040, 31_041];
/// CE2's address on the wire.
pub(crate) const CE2_ADDRESS: &str = "198.51.100.7";
/// CE1's address on the wire.
pub(crate) const CE1_ADDRESS: &str = "172.28.13.36";

/// CE1 toward its NAT.
pub(crate) const CE1_UPLINK: Uplink = Uplink {
    device: "ens161",
    mac: "00:0c:29:01:01:61",
    address: "172.28.13.36/24",
    subnet: "172.28.13.0/24",
    transit_mac: "00:0c:29:0a:00:01",
    transit_address: "172.28.13.1",
};
/// The regional edge toward the NAT.
pub(crate) const EDGE_WEST: Uplink = Uplink {
    device: "ens161",
    mac: "00:0c:29:0e:01:61",
    address: "103.135.56.40/24",
    subnet: "103.135.56.0/24",
    transit_mac: "00:0c:29:0a:00:02",
    transit_address: NAT_ADDRESS,
};
/// The regional edge toward the router in front of CE2.
pub(crate) const EDGE_EAST: Uplink = Uplink {
    device: "ens256",
    mac: "00:0c:29:0e:02:56",
    address: "203.0.113.40/24",
    subnet: "203.0.113.0/24",
    transit_mac: "00:0c:29:0b:00:01",
    transit_address: "203.0.113.1",
};
/// CE2 toward that router.
pub(crate) const CE2_UPLINK: Uplink = Uplink {
    device: "ens161",
    mac: "00:0c:29:02:01:61",
    address: "198.51.100.7/24",
    subnet: "198.51.100.0/24",
    transit_mac: "00:0c:29:0b:00:02",
    transit_address: "198.51.100.1",
};

impl Tunnel {
    fn edge_address(self) -> &'static str {
        let [first, second] = EDGE_ADDRESSES;
        if self.path == 0 { first } else { second }
    }

    /// The vif at one of its ends.
    #[must_use]
    pub fn vif(self, end: TunnelEnd) -> u32 {
        let [first, second] = UNDERLAY_VIFS;
        match (end, self.site, self.path) {
            (TunnelEnd::Customer, _, 0) => first,
            (TunnelEnd::Customer, ..) => second,
            (TunnelEnd::Regional, Site::Ce1, path) => 11 + u32::from(path != 0),
            (TunnelEnd::Regional, Site::Ce2, path) => 21 + u32::from(path != 0),
        }
    }

    /// That vif with these SAs.
    #[must_use]
    pub fn vif_with(self, end: TunnelEnd, outbound_sas: Vec<u32>, inbound_sas: Vec<u32>) -> v1::Vif {
        let customer = match self.site {
            Site::Ce1 => CE1_ADDRESS,
            Site::Ce2 => CE2_ADDRESS,
        };
        let (name, source, destination) = match (end, self.site) {
            (TunnelEnd::Customer, _) => ("re", customer, self.edge_address()),
            // What is behind the NAT is where the NAT is.
            (TunnelEnd::Regional, Site::Ce1) => ("ce1", self.edge_address(), NAT_ADDRESS),
            (TunnelEnd::Regional, Site::Ce2) => ("ce2", self.edge_address(), customer),
        };
        let [first_port, second_port] = NAT_PORTS;
        let outside_port = if self.path == 0 { first_port } else { second_port };
        let nat_t = (self.site == Site::Ce1).then(|| v1::NatTraversal {
            destination_port: if end == TunnelEnd::Regional { outside_port.into() } else { 0 },
            ..v1::NatTraversal::default()
        });
        let id = self.vif(end);
        let customer_edge = end == TunnelEnd::Customer;
        let [member_0, member_1] = UNDERLAY_MEMBERS;
        let member = if self.path == 0 { member_0 } else { member_1 };
        v1::Vif {
            id,
            name: format!("tunnel_{name}_{}", self.path),
            r#type: v1::VifType::Tunnel.into(),
            vrf: UNDERLAY_VRF,
            mtu: TUNNEL_MTU,
            nexthop: if customer_edge { member } else { id },
            nat_pool: customer_edge.then(|| self.site.tunnel_source().to_owned()).into_iter().collect(),
            tunnel: Some(v1::IpsecTunnel {
                source: source.to_owned(),
                destination: destination.to_owned(),
                nat_t,
                outbound_sas,
                inbound_sas,
                vrf: WAN_VRF,
                ..v1::IpsecTunnel::default()
            }),
            ..v1::Vif::default()
        }
    }

    /// That vif with all SAs of the tunnel, and the SAs.
    fn install(self, state: &mut v1::ForwardingState, end: TunnelEnd, associations: &Associations) {
        let (outbound, inbound) = associations.of(self).at(end);
        state.vifs.push(self.vif_with(end, ids(outbound), ids(inbound)));
        state.sas.extend(outbound.iter().map(Sa::outbound).chain(inbound.iter().map(Sa::inbound)));
    }
}

/// A customer edge: tenants, MPLS over UDP from end to end, two tunnels to the regional edge.
#[must_use]
pub fn customer_state(site: Site, driver: v1::IoDriver, associations: &Associations) -> v1::ForwardingState {
    let mut state = begin(site.node());
    let uplink = if site == Site::Ce1 { CE1_UPLINK } else { CE2_UPLINK };
    wan(&mut state, 0, uplink, &[], driver);
    let [gateway, _] = WAN_GATEWAYS;
    state.routes.push(route(WAN_VRF, "0.0.0.0/0", gateway));
    for (tunnel, member) in Tunnel::ALL.into_iter().filter(|tunnel| tunnel.site == site).zip(UNDERLAY_MEMBERS) {
        tunnel.install(&mut state, TunnelEnd::Customer, associations);
        let oif = tunnel.vif(TunnelEnd::Customer);
        // As in the dump; a tunnel has no Ethernet header, and none is sent.
        let encap_data = "00 00 5e 00 01 00 00 00 5e 00 01 00 08 00".to_owned();
        state.nexthops.push(nexthop(member, UNDERLAY_VRF, Kind::Encap(v1::EncapNexthop { oif, encap_data })));
    }
    end_to_end(&mut state, site);
    overlays(&mut state, site, driver);
    state
}

/// The regional edge: four tunnels in one VRF, a route to each customer edge over the two that lead there, and no tenant.
#[must_use]
pub fn edge_state(driver: v1::IoDriver, associations: &Associations) -> v1::ForwardingState {
    let mut state = begin("re");
    wan(&mut state, 0, EDGE_WEST, &EDGE_ADDRESSES[1..], driver);
    wan(&mut state, 1, EDGE_EAST, &[], driver);
    let [west, east] = WAN_GATEWAYS;
    state.routes.push(route(WAN_VRF, &format!("{NAT_ADDRESS}/32"), west));
    state.routes.push(route(WAN_VRF, CE2_UPLINK.subnet, east));
    for tunnel in Tunnel::ALL {
        tunnel.install(&mut state, TunnelEnd::Regional, associations);
        let oif = tunnel.vif(TunnelEnd::Regional);
        let encap = v1::EncapNexthop { oif, encap_data: String::new() };
        state.nexthops.push(nexthop(oif, UNDERLAY_VRF, Kind::Encap(encap)));
    }
    for (site, composite) in [(Site::Ce1, COMPOSITE), (Site::Ce2, COMPOSITE + 1)] {
        let members = Tunnel::ALL.into_iter().filter(|tunnel| tunnel.site == site).map(|tunnel| v1::CompositeMember {
            nexthop: tunnel.vif(TunnelEnd::Regional),
            weight: Some(100),
            label: None,
        });
        let kind = Kind::Composite(v1::CompositeNexthop { members: members.collect() });
        state.nexthops.push(nexthop(composite, 0, kind));
        state.routes.push(route(UNDERLAY_VRF, &format!("{}/32", site.tunnel_source()), composite));
    }
    state
}

/// The MTU of the devices toward the untrusted network.
pub(crate) fn set_wan_mtu(state: &mut v1::ForwardingState, mtu: u16) {
    for vif in state.vifs.iter_mut().filter(|vif| vif.vrf == WAN_VRF) {
        vif.mtu = mtu.into();
    }
}

/// With Policy, what comes out of a tunnel is looked up as a flow; otherwise each packet walks.
pub(crate) fn set_tunnel_policy(vifs: &mut [v1::Vif]) {
    for vif in vifs.iter_mut().filter(|vif| vif.tunnel.is_some()) {
        vif.flags = Some(v1::VifFlags { policy: true, ..v1::VifFlags::default() });
    }
}

fn begin(node: &str) -> v1::ForwardingState {
    let vrf = |id, name: &str| v1::Vrf { id, name: name.to_owned() };
    v1::ForwardingState {
        generation: 1,
        node: node.to_owned(),
        vrfs: vec![vrf(WAN_VRF, "wan"), vrf(UNDERLAY_VRF, "tunnels")],
        acls: vec![permit_all()],
        ..v1::ForwardingState::default()
    }
}

/// A device toward the untrusted network, with what is said to its own addresses and how its gateway is reached.
fn wan(state: &mut v1::ForwardingState, index: usize, uplink: Uplink, more: &[&str], driver: v1::IoDriver) {
    let at = |ids: [u32; 2]| ids.into_iter().nth(index).unwrap_or_default();
    let (oif, gateway, resolve) = (at(WAN_VIFS), at(WAN_GATEWAYS), at(WAN_RESOLVE));
    let length = uplink.subnet.split('/').nth(1).unwrap_or_default();
    let own = std::iter::once(uplink.address.split('/').next().unwrap_or_default()).chain(more.iter().copied());
    let addresses = own.clone().map(|address| format!("{address}/{length}")).collect();
    state.vifs.push(v1::Vif { vrf: WAN_VRF, addresses, ..vif(oif, uplink.device, v1::VifType::Physical, driver) });
    let encap_data = format!("{} {} 0800", uplink.transit_mac, uplink.mac);
    state.nexthops.extend([
        nexthop(gateway, WAN_VRF, Kind::Encap(v1::EncapNexthop { oif, encap_data })),
        nexthop(resolve, WAN_VRF, Kind::Resolve(v1::ResolveNexthop { oif, ..Default::default() })),
    ]);
    if index == 0 {
        state.nexthops.push(nexthop(WAN_RECEIVE, WAN_VRF, Kind::Receive(v1::ReceiveNexthop::default())));
    }
    state.routes.push(route(WAN_VRF, uplink.subnet, resolve));
    state.routes.extend(own.map(|address| route(WAN_VRF, &format!("{address}/32"), WAN_RECEIVE)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regional_edge_knows_no_tenant() {
        let associations = Associations::new(1).unwrap();
        let state = edge_state(v1::IoDriver::Auto, &associations);
        assert!(state.labels.is_empty());
        assert!(state.vrfs.iter().all(|vrf| vrf.id == WAN_VRF || vrf.id == UNDERLAY_VRF));
        assert!(state.routes.iter().all(|route| route.label.is_none() && !route.prefix.starts_with("192.168.")));
    }

    #[test]
    fn what_one_end_seals_with_the_other_end_opens() {
        let associations = Associations::new(2).unwrap();
        let edge = edge_state(v1::IoDriver::Auto, &associations);
        for site in [Site::Ce1, Site::Ce2] {
            let customer = customer_state(site, v1::IoDriver::Auto, &associations);
            assert_eq!(customer.sas.len(), 8);
            for sa in customer.sas {
                let peer = edge.sas.iter().find(|peer| peer.spi == sa.spi).unwrap();
                assert_eq!(peer.id, sa.id);
                assert!(peer.key == sa.key);
                assert_ne!(peer.direction, sa.direction);
            }
        }
    }
}
