//! The interfaces as the first stage needs them: vifs, their VLANs, and where tunnels end.

use std::net::Ipv4Addr;

use offload_rules::{
    MacAddr, VifId, VrfId,
    forwarding::{Snapshot, VifKind, VlanTag},
};

use super::{decap_cache::DecapCache, lane::LaneVif};
use crate::packet::parse::Ethernet;

/// TPID of an IEEE 802.1Q tag.
const TPID_8021Q: u16 = 0x8100;

/// What the first stage needs to know of a vif.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) vrf: VrfId,
    pub(super) mac: MacAddr,
    pub(super) policy: bool,
    pub(super) raw_ip: bool,
    /// By VLAN id (TPID 0x8100, one tag): number of the sub-interface, 0 for none.
    vlans: Option<Box<[VifId; 4096]>>,
}

/// Read only while packets are sorted; what decapsulation looks up is remembered.
#[derive(Default)]
pub(super) struct Interfaces {
    /// By number of the vif.
    vifs: Vec<Option<Interface>>,
    /// Where IPsec tunnels end: VRF and address, in order.
    esp_ends: Vec<(VrfId, Ipv4Addr)>,
    pub(super) decap: DecapCache,
    /// By number of the vif: what the lane needs of it.
    lane: Vec<LaneVif>,
}

impl Interfaces {
    /// Brings vifs and tunnel ends in line with a snapshot.
    pub(super) fn read(&mut self, snapshot: &Snapshot) {
        self.vifs.clear();
        self.esp_ends.clear();
        for vif in snapshot.vifs() {
            let index = vif.id.index();
            if self.vifs.len() <= index {
                self.vifs.resize(index + 1, None);
            }
            let interface = Interface {
                vrf: vif.vrf,
                mac: vif.mac.unwrap_or_default(),
                policy: vif.flags.policy,
                raw_ip: !vif.has_ethernet(),
                vlans: None,
            };
            if let Some(slot) = self.vifs.get_mut(index) {
                *slot = Some(interface);
            }
            self.esp_ends.extend(vif.kind.tunnel().map(|ipsec| (ipsec.vrf, ipsec.source)));
        }
        self.lane.clear();
        self.lane.extend(self.vifs.iter().map(|vif| vif.as_ref().map_or_else(LaneVif::none, Interface::of_lane)));
        self.esp_ends.sort_unstable();
        self.esp_ends.dedup();
        for vif in snapshot.vifs() {
            let VifKind::PhysicalVlan { parent, outer, inner: None } = vif.kind else { continue };
            if outer.tpid != TPID_8021Q {
                continue;
            }
            if let Some(Some(parent)) = self.vifs.get_mut(parent.index()) {
                let vlans = parent.vlans.get_or_insert_with(|| Box::new([VifId::TUNNEL; 4096]));
                if let Some(slot) = vlans.get_mut(usize::from(outer.vid)) {
                    *slot = vif.id;
                }
            }
        }
    }

    /// Vifs as the lane needs them, by number.
    #[inline]
    pub(super) fn of_lane(&self) -> &[LaneVif] {
        &self.lane
    }

    #[inline]
    pub(super) fn get(&self, id: VifId) -> Option<&Interface> {
        self.vifs.get(id.index())?.as_ref()
    }

    /// Does any IPsec tunnel end here?
    #[inline]
    pub(super) const fn ends_esp(&self) -> bool {
        !self.esp_ends.is_empty()
    }

    /// Does an IPsec tunnel end at this address?
    #[inline]
    pub(super) fn is_esp_end(&self, vrf: VrfId, address: [u8; 4]) -> bool {
        self.ends_esp() && self.esp_ends.binary_search(&(vrf, Ipv4Addr::from_octets(address))).is_ok()
    }
}

impl Interface {
    fn of_lane(&self) -> LaneVif {
        if self.raw_ip || self.mac.is_multicast() {
            return LaneVif::none();
        }
        let [a, b, c, d, e, f] = self.mac.0;
        LaneVif { mac: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), vrf: self.vrf, policy: self.policy }
    }

    /// Sub-interfaces by VLAN id of a frame with one tag; [`VifId::TUNNEL`]: none.
    #[inline]
    pub(super) fn vlans(&self) -> Option<&[VifId; 4096]> {
        self.vlans.as_deref()
    }

    /// The vif of a tagged frame that came in on this device. A priority tag (VLAN id 0) is no tag (IEEE 802.1Q §9.6).
    pub(super) fn demultiplex(&self, ethernet: &Ethernet, port: VifId, snapshot: &Snapshot) -> Option<VifId> {
        let vid = |i: usize| ethernet.tci.get(i).map_or(0, |tci| tci & 0x0fff);
        let tag = |i: usize| VlanTag { tpid: ethernet.tpid.get(i).copied().unwrap_or(0), vid: vid(i) };
        match ethernet.tags {
            0 => Some(port),
            1 if vid(0) == 0 => Some(port),
            1 if ethernet.tpid[0] == TPID_8021Q => {
                let id = *self.vlans.as_ref()?.get(usize::from(vid(0)))?;
                (id != VifId::TUNNEL).then_some(id)
            }
            1 => snapshot.vlan_vif(port, tag(0), None),
            _ => snapshot.vlan_vif(port, tag(0), Some(tag(1))),
        }
    }
}
