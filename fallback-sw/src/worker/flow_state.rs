//! What a worker knows of its flows.

use std::io;

use super::{
    Programs,
    change::Following,
    counters::Counters,
    decisions::Decisions,
    env::{Env, IpIds},
    leases::{Lease, Leases},
    offload::Offloads,
    openings::Openings,
};
use crate::flow_table::{FlowTable, Holdings};

/// Flows with all that is kept for them: made, changed and removed as a whole, so that nothing of a flow outlives it.
pub(super) struct FlowState {
    pub(super) flows: FlowTable,
    pub(super) holdings: Holdings,
    pub(super) leases: Leases<Lease>,
    pub(super) programs: Programs,
    pub(super) decisions: Decisions,
    /// What programs counted that no flow runs any more.
    pub(super) released: Counters,
    pub(super) following: Following,
    /// Half-open TCP flows by number of the tenant.
    pub(super) half_open: Vec<u32>,
    pub(super) openings: Openings,
    pub(super) offloads: Offloads,
    /// Identifications of outer headers and of what the node makes itself.
    pub(super) ip_ids: IpIds,
    /// How often a flow's program was derived, the first time not counted.
    pub(super) derivations: u64,
    /// Where ageing goes on.
    pub(super) sweep_at: u32,
}

impl FlowState {
    /// Without flows; with room for the worker's share of them.
    ///
    /// # Errors
    /// No memory for the flow table.
    pub(super) fn new(env: &Env) -> io::Result<Self> {
        let workers = u32::try_from(env.workers()).unwrap_or(u32::MAX);
        let share = (env.snapshot.settings().max_flows / workers).max(64);
        Ok(Self {
            flows: FlowTable::new(share)?,
            holdings: Holdings::new(share)?,
            leases: Leases::default(),
            programs: Programs::default(),
            decisions: Decisions::default(),
            released: Counters::default(),
            following: Following::default(),
            half_open: Vec::new(),
            openings: Openings::default(),
            offloads: Offloads::new(env.config.offload, env.config.id),
            ip_ids: IpIds::beginning_with(env.config.ip_id),
            derivations: 0,
            sweep_at: 0,
        })
    }
}
