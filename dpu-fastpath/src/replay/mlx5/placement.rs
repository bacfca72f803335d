//! Which port of the card each device of a state is.

use std::{
    fmt::{self, Display, Formatter},
    sync::Arc,
};

use offload_rules::{
    VifId, VrfId,
    forwarding::{NexthopKind, Snapshot, Vif},
    lower::Layout,
};

use crate::{port::PortMap, replay::front};

/// Number of the uplink among the ports of a switch.
const UPLINK: u16 = 0xffff;
/// VFs that the card may have, and physical functions.
const MOST_VFS: usize = 14;
const MOST_PFS: usize = 2;

/// PCI address of a physical function.
pub(super) fn address(pf: usize) -> String {
    format!("0000:08:00.{pf}")
}

/// How the card is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The first device by which tunnels leave or arrive is the uplink of its switch, every other one is a VF with its representor.
    Switchdev,
    /// Without a switch, one port or two: the first device by which tunnels leave or arrive, and the first by which none do, or else
    /// the next one. Other devices are not on the card.
    Hairpin,
}

impl Mode {
    /// How the driver has to lay out rules.
    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::Switchdev => Layout::Switch,
            Self::Hairpin => Layout::Hairpin,
        }
    }
}

/// A port of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The physical function.
    pub pf: u8,
    /// The port of its switch: 0xffff is the wire, other numbers are functions.
    pub vport: u16,
}

impl Place {
    const fn wire(pf: u8) -> Self {
        Self { pf, vport: UPLINK }
    }

    const fn function(vport: u16) -> Self {
        Self { pf: 0, vport }
    }

    /// Of a physical function, and not of a function of its switch.
    const fn is_wire(self) -> bool {
        self.vport == UPLINK
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_wire() {
            write!(f, "the wire of PF {}", self.pf)
        } else {
            write!(f, "function {} of PF {}", self.vport, self.pf)
        }
    }
}

/// Which port of the card each device of a state is.
#[derive(Debug)]
pub(super) struct Placement(pub(super) Vec<(Arc<Vif>, Place)>);

impl Placement {
    pub(super) fn of(snapshot: &Snapshot, mode: Mode) -> Self {
        match mode {
            Mode::Switchdev => Self::by_switch(snapshot),
            Mode::Hairpin => Self::by_wires(snapshot),
        }
    }

    fn by_switch(snapshot: &Snapshot) -> Self {
        let devices = front::devices(snapshot);
        let wire = devices.iter().map(|vif| vif.id).find(|vif| leads_to_tunnels(snapshot, *vif));
        let mut functions = 1..;
        let placed = devices.into_iter().filter_map(|vif| {
            let place = if Some(vif.id) == wire { Place::wire(0) } else { Place::function(functions.next()?) };
            Some((vif, place))
        });
        // A device for which there is no VF left is not on the NIC.
        let has = |place: Place| place.is_wire() || usize::from(place.vport) <= MOST_VFS;
        let mut placed: Vec<_> = placed.filter(|(_, place)| has(*place)).collect();
        // The port that manages the switch is opened before those of its functions.
        placed.sort_by_key(|(_, place)| !place.is_wire());
        Self(placed)
    }

    fn by_wires(snapshot: &Snapshot) -> Self {
        let (mut uplinks, mut others): (Vec<_>, Vec<_>) =
            front::devices(snapshot).into_iter().partition(|vif| leads_to_tunnels(snapshot, vif.id));
        let more = uplinks.split_off(uplinks.len().min(1));
        others.extend(more);
        let devices = uplinks.into_iter().chain(others).take(MOST_PFS);
        Self((0..).map(Place::wire).zip(devices).map(|(place, vif)| (vif, place)).collect())
    }

    pub(super) fn pfs(&self) -> usize {
        self.0.iter().filter(|(_, place)| place.is_wire()).count().max(1)
    }

    /// VFs; without any there is no switch.
    pub(super) fn vfs(&self, mode: Mode) -> usize {
        let least = if mode == Mode::Switchdev { 1 } else { 0 };
        self.0.iter().filter(|(_, place)| !place.is_wire()).count().max(least)
    }

    /// DPDK's devices, of those that it has.
    pub(super) fn map(&self, there: &[String]) -> Vec<PortMap> {
        let named = |place: Place| {
            if place.is_wire() {
                return address(place.pf.into());
            }
            let function = format!("vf{}", place.vport - 1);
            let representor = there.iter().find(|name| name.rsplit('_').next() == Some(&function));
            representor.cloned().unwrap_or(function)
        };
        self.0.iter().map(|(vif, place)| PortMap { device: front::device_of(vif), ethdev: named(*place) }).collect()
    }
}

/// A device, or a sub-interface of it, is in a VRF in which tunnels begin or end.
fn leads_to_tunnels(snapshot: &Snapshot, device: VifId) -> bool {
    let begins = |vrf: VrfId| {
        snapshot.nexthops().any(|nexthop| nexthop.vrf == Some(vrf) && matches!(nexthop.kind, NexthopKind::Tunnel(_)))
    };
    let ends = |vrf: VrfId| snapshot.mpls_o_udp_terminations(vrf).next().is_some();
    snapshot.vifs().any(|vif| snapshot.port_of(vif.id) == device && (ends(vif.vrf) || begins(vif.vrf)))
}

#[cfg(test)]
mod tests {
    use fallback_sw::node::decode;

    use super::*;

    const STATE: &str = r#"{"generation": "1", "node": "ce", "vrfs": [{"id": 8, "name": "underlay"}, {"id": 18, "name": "blue"}], "vifs": [
        {"id": 1, "name": "tenant", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 18},
        {"id": 3, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 8},
        {"id": 4, "name": "wan2", "type": "PHYSICAL", "mac": "02:00:00:00:00:04", "vrf": 8}],
        "nexthops": [{"id": 31, "vrf": 8, "receive": {"terminateMplsOUdp": true}}],
        "routes": [{"vrf": 8, "prefix": "192.0.2.1/32", "nexthop": 31}]}"#;

    fn snapshot(json: &str) -> Snapshot {
        let message: proto::v1::ForwardingState = proto::json::parse(json, "test state").unwrap();
        Snapshot::empty().with_state(decode::state(&message).unwrap()).unwrap()
    }

    fn placed(placement: &Placement) -> Vec<(u16, Place)> {
        placement.0.iter().map(|(vif, place)| (vif.id.get(), *place)).collect()
    }

    #[test]
    fn on_a_switch_the_tunnel_device_is_the_wire_and_others_are_functions() {
        let placement = Placement::of(&snapshot(STATE), Mode::Switchdev);
        assert_eq!(placed(&placement), [(3, Place::wire(0)), (1, Place::function(1)), (4, Place::function(2))]);
        assert_eq!((placement.pfs(), placement.vfs(Mode::Switchdev)), (1, 2));
        let there = [&address(0), "0000:08:00.0_representor_vf0", "0000:08:00.0_representor_vf1"].map(str::to_owned);
        let map: Vec<_> = placement.map(&there).into_iter().map(|map| map.ethdev).collect();
        assert_eq!(map, there);
    }

    #[test]
    fn without_tunnels_every_device_is_a_function_of_the_switch() {
        let placement = Placement::of(&snapshot(&STATE.replace("true", "false")), Mode::Switchdev);
        assert!(placement.0.iter().all(|(_, place)| !place.is_wire()), "{placement:?}");
        assert_eq!((placement.pfs(), placement.vfs(Mode::Switchdev)), (1, 3));
    }

    #[test]
    fn without_a_switch_the_card_has_one_uplink_and_one_lan_port() {
        let placement = Placement::of(&snapshot(STATE), Mode::Hairpin);
        assert_eq!(placed(&placement), [(3, Place::wire(0)), (1, Place::wire(1))]);
        assert_eq!((placement.pfs(), placement.vfs(Mode::Hairpin)), (2, 0));
        let map: Vec<_> = placement.map(&[]).into_iter().map(|map| map.ethdev).collect();
        assert_eq!(map, ["0000:08:00.0", "0000:08:00.1"]);
    }

    #[test]
    fn an_edge_without_a_lan_has_its_uplinks_on_the_card() {
        let edge = STATE.replace(r#""vrf": 18}"#, r#""vrf": 8}"#);
        let placement = Placement::of(&snapshot(&edge), Mode::Hairpin);
        assert_eq!(placed(&placement), [(1, Place::wire(0)), (3, Place::wire(1))]);
    }
}
