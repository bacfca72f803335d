//! A new snapshot: the worker does what its changes ask for, and nothing for what they do not concern.
//!
//! Programs that depend on a changed object are stale as a whole. A changed route concerns flows by their addresses: the table finds
//! those that it covers by their destination, and each pair's other direction by its source. What is stale is derived anew by its
//! next packet or by [`Worker::tick`], and at once where a NIC has it.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use offload_rules::{
    VrfId,
    flow::Dependency,
    forwarding::{Changes, Snapshot},
};

use super::{Outbox, TO_BE_DERIVED, Worker, flows::flag, readers::has_longer_match};

/// Records and groups of them that are looked at when a snapshot comes in; packets wait meanwhile. When routes cover more, all flows
/// are stale that have looked their addresses up in those VRFs.
const MOST: usize = 4096;

impl Worker {
    /// From now on packets are judged by this snapshot. Flows that its changes concern are derived anew as their packets come, and by
    /// [`Worker::tick`]. Packets that waited for what the snapshot brings go on.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>, now: u64, out: &mut Outbox) {
        self.clock = self.clock.max(now);
        let changes = snapshot.changes_since(&self.snapshot);
        let before = self.snapshot.version();
        self.version = snapshot.version() as u32;
        self.snapshot = snapshot;
        if changes.touches_arrivals() || changes.touches(|object| *object == Dependency::Addresses) {
            self.routed.read_addresses(&self.snapshot);
        }
        let vifs = changes.touches(|object| matches!(object, Dependency::Vif(_)));
        if vifs {
            self.read_vifs();
        }
        if vifs || changes.touches(|object| matches!(object, Dependency::Sa(_))) {
            self.read_tunnels();
            self.offer_sas(now);
        }
        if vifs || changes.touches_vrfs() {
            self.forget_tenants();
        }
        self.tunnels.follow(&changes, &self.snapshot);
        let mut swept = self.programs.follow(&changes, &self.snapshot);
        swept |= self.follow_routes(&changes);
        if swept || changes.touches_arrivals() {
            self.sweep_offloads(now);
        }
        let waits_for = |object: &Dependency| {
            matches!(object, Dependency::Neighbour(..) | Dependency::Gateway(..) | Dependency::Vif(_))
        };
        let free = if !self.held.is_empty() && changes.touches(waits_for) { self.release(before) } else { Vec::new() };
        self.settle_offload(now, out);
        self.deliver_all(free, now, out);
    }

    /// Brings SAs and tunnels in line with the snapshot.
    pub(super) fn read_tunnels(&mut self) {
        self.ipsec.adopt(&self.snapshot, (self.config.id, self.config.workers), self.clock);
    }

    /// Forgets the rates of vifs and VRFs that are gone.
    fn forget_tenants(&mut self) {
        let current = Arc::clone(&self.snapshot);
        self.icmp_rate.retain(|tenant| tenant.exists(&current));
        self.new_flow_rate.retain(|tenant| tenant.exists(&current));
        self.event_rate.retain(|(vif, _)| current.vif(vif).is_some());
        self.need_rate.retain(|tenant| tenant.exists(&current));
    }

    /// Packets that wait for a neighbour no longer. `before`: version of the snapshot before.
    fn release(&mut self, before: u64) -> Vec<super::Delivery> {
        let current = Arc::clone(&self.snapshot);
        self.held.release(|(vif, address)| {
            // What waits for a gateway that has just been found dead may have another one to go to.
            let has_died = || current.gateway_dead_since(vif, address).is_some_and(|since| since > before);
            current.neighbour(vif, address).is_some() || current.vif(vif).is_none() || !current.is_up(vif) || has_died()
        })
    }

    /// Marks the flows whose addresses changed routes cover. True when whole programs are stale instead.
    fn follow_routes(&mut self, changes: &Changes) -> bool {
        let mut most = MOST;
        let mut too_many = BTreeSet::new();
        for (vrf, prefix) in changes.routes() {
            if !too_many.contains(vrf) && !self.follow_route(*vrf, *prefix, &mut most) {
                too_many.insert(*vrf);
            }
        }
        too_many.into_iter().fold(false, |any, vrf| self.programs.follow_ends(vrf) || any)
    }

    /// The same for one prefix; false when it covers too many.
    fn follow_route(&mut self, vrf: VrfId, prefix: IpNet, most: &mut usize) -> bool {
        let snapshot = Arc::clone(&self.snapshot);
        // All addresses of the group have a longer match.
        let skip = |group: IpNet| {
            let route = snapshot.route(vrf, group.addr()).map_or(0, |route| route.prefix.prefix_len());
            route > prefix.prefix_len() && route <= group.prefix_len()
        };
        let mut covered = Vec::new();
        for keys in self.programs.key_vrfs_of(vrf) {
            if self.flows.covered(keys, prefix, skip, most, &mut covered).is_err() {
                return false;
            }
        }
        for slot in covered {
            let Some(record) = self.flows.record(slot) else { continue };
            if has_longer_match(&snapshot, vrf, record.key.destination(), prefix) {
                continue;
            }
            let back = record.reverse;
            self.mark(slot, Dependency::Destination(vrf));
            // The other direction has it as its source. A denied flow has none, and needs none: whatever the route to its source
            // is, it stays denied.
            self.mark(back, Dependency::Source(vrf));
        }
        true
    }

    /// A direction that depends on this is to be derived anew.
    fn mark(&mut self, slot: u32, what: Dependency) {
        let Some(record) = self.flows.record_mut(slot) else { return };
        if record.program != TO_BE_DERIVED && self.programs.depends_on(record.program, what) {
            record.flags |= flag::STALE;
            self.offload_changed(slot);
        }
    }
}
