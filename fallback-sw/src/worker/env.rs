//! What every stage may read and none may write: who the worker is, the forwarding state in force, the time.

use std::sync::Arc;

use offload_rules::{classify, flow::FlowKey, forwarding::Snapshot};

use super::node_addresses::NodeAddresses;

/// Frames that are worked on together: enough loads in flight to hide memory, little enough to stay in the first-level cache.
pub(super) const BATCH: usize = 32;

/// How a worker is set up.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its number, from 0.
    pub id: usize,
    /// How many there are.
    pub workers: usize,
    /// First IP identification that it uses.
    pub ip_id: u16,
    /// Fixed UDP source port of tunnels instead of the flow's entropy: for reproducing a packet.
    pub entropy: Option<u16>,
    /// Secret of SYN cookies. Whoever knows it opens connections from addresses that are not theirs.
    pub cookie_secret: [u64; 2],
    /// There is an engine that offloads flows to a NIC.
    pub offload: bool,
}

/// Whether packets go by decisions that others share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deciding {
    /// They do.
    Shared,
    /// For each packet without a flow, and for each flow, the tables are walked.
    Walked,
}

/// Whether ordinary packets go ahead of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneUse {
    /// They do, where enough of them come.
    Worthwhile,
    /// They do.
    Always,
    /// All packets go the general way.
    Never,
}

/// What every stage may read.
pub(super) struct Env {
    pub(super) config: WorkerConfig,
    /// The snapshot in force.
    pub(super) snapshot: Arc<Snapshot>,
    /// Low bits of the snapshot's version, as flow records keep them.
    pub(super) version: u32,
    /// Milliseconds of the node's clock when the worker last looked.
    pub(super) clock: u64,
    pub(super) deciding: Deciding,
    pub(super) lane: LaneUse,
    addresses: NodeAddresses,
}

impl Env {
    pub(super) fn new(config: WorkerConfig, snapshot: Arc<Snapshot>) -> Self {
        let (version, addresses) = (snapshot.version() as u32, NodeAddresses::of(&snapshot));
        Self { config, snapshot, version, clock: 0, deciding: Deciding::Shared, lane: LaneUse::Worthwhile, addresses }
    }

    /// The node's own addresses may be others.
    pub(super) fn read_addresses(&mut self) {
        self.addresses = NodeAddresses::of(&self.snapshot);
    }

    /// May a packet with this key go by a decision that others share? Not one that has an address of the node or of one link.
    #[inline]
    pub(super) fn may_share(&self, key: &FlowKey) -> bool {
        self.deciding == Deciding::Shared && !classify::is_of_link(key) && !self.addresses.touch(key)
    }

    /// Packets are judged by this snapshot from now on.
    pub(super) fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.version = snapshot.version() as u32;
        self.snapshot = snapshot;
    }

    /// Time goes on; it does not go back.
    pub(super) fn advance_clock(&mut self, now: u64) {
        self.clock = self.clock.max(now);
    }

    /// Workers of the node, 1 at least.
    pub(super) fn workers(&self) -> usize {
        self.config.workers.max(1)
    }

    /// This worker's share of a rate or number of the node's, rounded up.
    pub(super) fn share_of(&self, total: u32) -> u32 {
        total.div_ceil(u32::try_from(self.workers()).unwrap_or(u32::MAX))
    }
}

/// IP identifications of packets and outer headers, in turn.
#[derive(Debug)]
pub(super) struct IpIds(u16);

impl IpIds {
    pub(super) const fn beginning_with(first: u16) -> Self {
        Self(first)
    }

    /// For a packet that belongs to no flow.
    #[inline]
    pub(super) const fn next(&mut self) -> u16 {
        let id = self.0;
        self.0 = self.0.wrapping_add(1);
        id
    }

    /// For all outer headers of a direction of a flow: not 0, which means none.
    pub(super) const fn next_of_flow(&mut self) -> u16 {
        match self.next() {
            0 => self.next(),
            id => id,
        }
    }

    /// For the fragments of an IPv6 packet with this key: unique for a destination as far as 32 bits go.
    pub(super) fn of_fragments(&mut self, key: &FlowKey) -> u32 {
        (key.spread() as u32) << 16 | u32::from(self.next())
    }
}
