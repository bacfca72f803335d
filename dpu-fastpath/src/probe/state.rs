//! A forwarding state with these ports: for proactive rules there must be something to steer.

use anyhow::Context as _;
use fallback_sw::node::decode;
use offload_rules::forwarding::Snapshot;
use proto::v1 as pb;

use crate::port::PortMap;

/// VRF of the way to the network, and of the tenants.
const UNDERLAY: u32 = 1;
const TENANTS: u32 = 2;
/// Where tunnels end (RFC 5737).
const TERMINATION: &str = "192.0.2.1/32";
/// Numbers of vifs on tags begin behind those of ports.
const TAGGED: u32 = 100;

/// The first port is the way to the network: tunnels end there. Each port also has a vif on a tag, and one on two.
pub(super) fn of(ports: &[PortMap]) -> anyhow::Result<Snapshot> {
    let mut vifs = Vec::new();
    for (index, map) in ports.iter().enumerate() {
        let id = u32::try_from(index).context("that many ports")? + 1;
        let vrf = if index == 0 { UNDERLAY } else { TENANTS };
        vifs.push(pb::Vif {
            id,
            name: map.device.clone(),
            r#type: pb::VifType::Physical.into(),
            vrf,
            ..pb::Vif::default()
        });
        for (tags, outer, inner) in [(1, 4092, None), (2, 4093, Some(4094))] {
            vifs.push(pb::Vif {
                id: TAGGED * tags + id,
                name: format!("{}.{outer}", map.device),
                r#type: pb::VifType::PhysicalVlan.into(),
                vrf,
                parent: id,
                outer_vlan: Some(tag(outer)),
                inner_vlan: inner.map(tag),
                ..pb::Vif::default()
            });
        }
    }
    let message = pb::ForwardingState {
        generation: 1,
        node: "probe".to_owned(),
        vrfs: [(UNDERLAY, "underlay"), (TENANTS, "tenants")]
            .map(|(id, name)| pb::Vrf { id, name: name.to_owned() })
            .to_vec(),
        vifs,
        nexthops: vec![pb::Nexthop {
            id: 1,
            vrf: UNDERLAY,
            kind: Some(pb::nexthop::Kind::Receive(pb::ReceiveNexthop {
                terminate_mpls_o_udp: true,
                ..pb::ReceiveNexthop::default()
            })),
            ..pb::Nexthop::default()
        }],
        routes: vec![pb::Route { vrf: UNDERLAY, prefix: TERMINATION.to_owned(), nexthop: 1, ..pb::Route::default() }],
        ..pb::ForwardingState::default()
    };
    Ok(Snapshot::empty().with_state(decode::state(&message)?)?)
}

fn tag(vid: u32) -> pb::VlanTag {
    pb::VlanTag { vid, ..pb::VlanTag::default() }
}
