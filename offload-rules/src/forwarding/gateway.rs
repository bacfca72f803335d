//! Gateways: the neighbours that nexthops name by address, and which of them do not answer.
//!
//! That one does not answer is known beside the state and beside its MAC: an ECMP composite passes over it, and takes it back when
//! it answers. Whether it still has a MAC decides whether packets that have no other way leave.

use std::net::IpAddr;

use super::{Nexthop, NexthopKind, Snapshot, addrmap::AddrMap, changes::Changes, idmap::IdMap};
use crate::{VifId, flow::Dependency};

/// Addresses of gateways by vif, each with the number of nexthops that name it.
pub(super) type GatewayUsers = IdMap<AddrMap<u32>>;

/// The gateway that a nexthop hands packets to.
pub(super) const fn gateway_of(nexthop: &Nexthop) -> Option<(VifId, IpAddr)> {
    match nexthop.kind {
        NexthopKind::Resolve { oif, gateway: Some(gateway) } if nexthop.valid => Some((oif, gateway)),
        _ => None,
    }
}

/// Gateways that do not answer, with the version of the snapshot in which that was found.
#[derive(Debug, Clone, Default)]
pub(super) struct DeadGateways {
    vifs: IdMap<AddrMap<u64>>,
}

impl DeadGateways {
    pub(super) fn since(&self, vif: VifId, gateway: IpAddr) -> Option<u64> {
        self.vifs.get(u32::from(vif.get()))?.get(gateway).copied()
    }

    /// Removes all of the vifs that `keep` refuses.
    pub(super) fn retain_vifs(&mut self, keep: impl Fn(u32) -> bool, changes: &mut Changes) {
        let gone: Vec<u32> = self.vifs.iter().map(|(vif, _)| vif).filter(|vif| !keep(*vif)).collect();
        for id in gone {
            let (Some(gateways), Ok(vif)) = (self.vifs.remove(id), VifId::new(id)) else { continue };
            gateways.iter().for_each(|(gateway, _)| changes.note(Dependency::Gateway(vif, gateway)));
        }
    }
}

impl Snapshot {
    /// The gateways of all valid nexthops, each once: by vif and address.
    pub fn gateways(&self) -> impl Iterator<Item = (VifId, IpAddr)> {
        // A nexthop's vif is there, or the state was refused.
        let vifs = self.tables.gateways.iter().filter_map(|(vif, map)| Some((VifId::new(vif).ok()?, map)));
        vifs.flat_map(|(vif, map)| map.iter().map(move |(gateway, _)| (vif, gateway)))
    }

    /// Is it known that this gateway does not answer?
    #[must_use]
    pub fn is_gateway_dead(&self, vif: VifId, gateway: IpAddr) -> bool {
        self.dead_gateways.since(vif, gateway).is_some()
    }

    /// Version of the snapshot in which a gateway was found not to answer.
    #[must_use]
    pub fn gateway_dead_since(&self, vif: VifId, gateway: IpAddr) -> Option<u64> {
        self.dead_gateways.since(vif, gateway)
    }

    /// With these gateways dead, or alive again. `None` when
    /// nothing changes.
    #[must_use]
    pub fn with_gateways(&self, news: &[((VifId, IpAddr), GatewayState)]) -> Option<Self> {
        let changes = |((vif, gateway), state): &((VifId, IpAddr), GatewayState)| {
            self.vif(*vif).is_some() && self.is_gateway_dead(*vif, *gateway) != (*state == GatewayState::Dead)
        };
        if !news.iter().any(changes) {
            return None;
        }
        let mut next = self.derived();
        let version = next.version;
        for ((vif, gateway), state) in news.iter().filter(|news| changes(news)) {
            next.log.changes().note(Dependency::Gateway(*vif, *gateway));
            next.dead_gateways.vifs.update(u32::from(vif.get()), |map| {
                match state {
                    GatewayState::Dead => map.insert(*gateway, version),
                    GatewayState::Alive => map.remove(*gateway),
                };
            });
        }
        Some(next)
    }
}

/// State of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayState {
    /// It answers, or has not been asked for long enough.
    Alive,
    /// It does not answer.
    Dead,
}
