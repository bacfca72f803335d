//! Counters of one worker. Plain integers: nobody else writes them.

mod settle;

use std::{collections::BTreeMap, ops::Deref};

use offload_rules::{DropReason, VifId, VrfId, flow::VrfCounter};

/// Packets and octets of a vif or a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VifCounters {
    /// Received.
    pub rx_packets: u64,
    /// Octets received, Ethernet header included.
    pub rx_bytes: u64,
    /// Lost before the node could take them, as the device tells.
    pub rx_errors: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Octets sent, Ethernet header included.
    pub tx_bytes: u64,
    /// The device took no more.
    pub tx_errors: u64,
    /// Received here and dropped.
    pub drops: u64,
    /// RST outside RFC 5961, received here.
    pub tcp_resets_ignored: u64,
}

impl VifCounters {
    /// Adds another worker's.
    pub const fn add(&mut self, other: &Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.rx_errors += other.rx_errors;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.tx_errors += other.tx_errors;
        self.drops += other.drops;
        self.tcp_resets_ignored += other.tcp_resets_ignored;
    }
}

/// Packets and their octets, of the frames as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

impl Traffic {
    /// Adds another count.
    pub const fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    /// What is left without a part of it.
    pub(super) const fn less(self, part: Self) -> Self {
        Self { packets: self.packets.saturating_sub(part.packets), bytes: self.bytes.saturating_sub(part.bytes) }
    }
}

/// Received packets that were forwarded, handed over or dropped by a flow, a route's decision or a walk, each in one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierTraffic {
    /// The NIC did everything.
    pub hardware: Traffic,
    /// The NIC found their flow, software did the rest.
    pub partial: Traffic,
    /// Software found their flow.
    pub software: Traffic,
    /// Without a flow: a decision that software had for their routes.
    pub routed: Traffic,
    /// Began a flow, by a walk or by the decision of another flow's; or walked by themselves.
    pub slow_path: Traffic,
    /// Went to the host or an agent, whichever way.
    pub punt: Traffic,
}

impl TierTraffic {
    /// Adds another one's.
    pub const fn add(&mut self, other: &Self) {
        self.hardware.add(other.hardware);
        self.partial.add(other.partial);
        self.software.add(other.software);
        self.routed.add(other.routed);
        self.slow_path.add(other.slow_path);
        self.punt.add(other.punt);
    }
}

/// Every received packet, once: `received = forwarded + punted + consumed + Σ dropped + held`. `flow_hits`, `routed`, `slow_path` and
/// `hardware` say beside that which way packets were decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Received from ports.
    pub received: u64,
    /// Sent on.
    pub forwarded: u64,
    /// Handed to the host or an agent.
    pub punted: u64,
    /// Answered or used up by the node.
    pub consumed: u64,
    /// Dropped, by [`DropReason::index`].
    pub dropped: [u64; DropReason::COUNT],
    /// Made by the node.
    pub originated: u64,
    /// Of the packets made by the node, those that went nowhere.
    pub originated_dropped: u64,
    /// Received packets that found their flow.
    pub flow_hits: u64,
    /// Received packets without a flow that went by a decision of an earlier one's walk.
    pub routed: u64,
    /// Received packets that began a flow, by a walk or by the decision of another flow's, or were walked by themselves.
    pub slow_path: u64,
    /// Received packets that a NIC has handled by itself.
    pub hardware: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            received: 0,
            forwarded: 0,
            punted: 0,
            consumed: 0,
            dropped: [0; DropReason::COUNT],
            originated: 0,
            originated_dropped: 0,
            flow_hits: 0,
            routed: 0,
            slow_path: 0,
            hardware: 0,
        }
    }
}

impl Account {
    /// All drops.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.punted += other.punted;
        self.consumed += other.consumed;
        for (mine, theirs) in self.dropped.iter_mut().zip(&other.dropped) {
            *mine += theirs;
        }
        self.originated += other.originated;
        self.originated_dropped += other.originated_dropped;
        self.flow_hits += other.flow_hits;
        self.routed += other.routed;
        self.slow_path += other.slow_path;
        self.hardware += other.hardware;
    }

    /// What is missing from the account when this many packets are held: 0, always.
    #[must_use]
    pub fn unaccounted(&self, held: u64) -> i64 {
        let out = self.forwarded + self.punted + self.consumed + self.dropped_total() + held;
        self.received.cast_signed().wrapping_sub(out.cast_signed())
    }
}

/// The account of packets. All may read it; what it balances is written by `settle`, which carries outcomes out, but for frames that come in
/// and for what a NIC has handled from end to end. Not the ledger of sequence numbers, which is a file of the node's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger(Account);

impl Deref for Ledger {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.0
    }
}

impl Ledger {
    /// Adds another worker's.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    /// Packets come in.
    #[inline]
    pub(super) const fn receive(&mut self, packets: u64) {
        self.0.received += packets;
    }

    /// Packets were found their flows.
    #[inline]
    pub(super) const fn hit(&mut self, packets: u64) {
        self.0.flow_hits += packets;
    }

    /// Packets without a flow go by decisions that were kept.
    #[inline]
    pub(super) const fn route(&mut self, packets: u64) {
        self.0.routed += packets;
    }

    /// A packet walks the tables, or begins a flow by a decision that is kept.
    pub(super) const fn walk(&mut self) {
        self.0.slow_path += 1;
    }

    /// A NIC has forwarded packets by itself.
    pub(super) const fn forward_in_hardware(&mut self, packets: u64) {
        self.0.received += packets;
        self.0.hardware += packets;
        self.0.forwarded += packets;
    }

    /// A NIC has dropped packets by itself.
    pub(super) fn drop_in_hardware(&mut self, packets: u64, reason: DropReason) {
        self.0.received += packets;
        self.0.hardware += packets;
        self.dropped(reason, packets);
    }

    /// The node makes packets.
    const fn originate(&mut self, packets: u64) {
        self.0.originated += packets;
    }

    fn dropped(&mut self, reason: DropReason, packets: u64) {
        if let Some(count) = self.0.dropped.get_mut(reason.index()) {
            *count += packets;
        }
    }
}

/// All counters of one worker.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// The account of packets.
    pub account: Ledger,
    /// By vif number: packets of the vif.
    vifs: Vec<VifCounters>,
    /// By vif number: frames of the device.
    ports: Vec<VifCounters>,
    /// `vrfstats` of packets that no program counted.
    pub vrfs: BTreeMap<VrfId, [u64; VrfCounter::COUNT]>,
    /// By VRF that packets came in: which way they went, as far as no program counted it.
    pub tiers: BTreeMap<VrfId, TierTraffic>,
}

impl Counters {
    /// Makes room for vifs up to this one; counts for others are not kept.
    pub fn reserve(&mut self, highest: VifId) {
        let len = (highest.index() + 1).max(self.vifs.len());
        self.vifs.resize(len, VifCounters::default());
        self.ports.resize(len, VifCounters::default());
    }

    /// Counters of a vif, to add to.
    #[inline]
    pub fn vif(&mut self, id: VifId) -> Option<&mut VifCounters> {
        self.vifs.get_mut(id.index())
    }

    /// Counters of a device, to add to.
    #[inline]
    pub fn port(&mut self, id: VifId) -> Option<&mut VifCounters> {
        self.ports.get_mut(id.index())
    }

    /// Counters of a vif.
    #[must_use]
    pub fn of_vif(&self, id: VifId) -> VifCounters {
        self.vifs.get(id.index()).copied().unwrap_or_default()
    }

    /// Counters of a device.
    #[must_use]
    pub fn of_port(&self, id: VifId) -> VifCounters {
        self.ports.get(id.index()).copied().unwrap_or_default()
    }

    /// Counts in `vrfstats`.
    pub fn pass(&mut self, vrf: VrfId, what: VrfCounter, packets: u64) {
        if let Some(counter) = self.vrfs.entry(vrf).or_default().get_mut(what.index()) {
            *counter += packets;
        }
    }

    /// Which way the packets of a VRF went, to add to.
    pub fn tier(&mut self, vrf: VrfId) -> &mut TierTraffic {
        self.tiers.entry(vrf).or_default()
    }

    /// A received packet walks the tables.
    pub(super) fn walks(&mut self, vrf: VrfId, octets: usize) {
        self.account.walk();
        self.tier(vrf).slow_path.add(Traffic { packets: 1, bytes: octets as u64 });
    }

    /// One that has walked ends at the host.
    pub(super) fn walked_to_host(&mut self, vrf: VrfId, octets: usize) {
        let one = Traffic { packets: 1, bytes: octets as u64 };
        let tiers = self.tier(vrf);
        tiers.slow_path = tiers.slow_path.less(one);
        tiers.punt.add(one);
    }

    /// Counts a received packet, if it was not counted before.
    #[inline]
    pub(super) fn count_in(&mut self, vif: VifId, octets: usize, counted: bool) {
        if !counted {
            self.count_in_all(vif, Traffic { packets: 1, bytes: octets as u64 });
        }
    }

    /// Counts packets that came in on a vif.
    #[inline]
    pub(super) fn count_in_all(&mut self, vif: VifId, traffic: Traffic) {
        if let Some(counters) = self.vif(vif) {
            counters.rx_packets += traffic.packets;
            counters.rx_bytes += traffic.bytes;
        }
    }

    /// Counts frames of a device.
    #[inline]
    pub(super) fn count_received(&mut self, port: VifId, frames: Traffic) {
        self.account.receive(frames.packets);
        if let Some(counters) = self.port(port) {
            counters.rx_packets += frames.packets;
            counters.rx_bytes += frames.bytes;
        }
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (vrf, tiers) in &other.tiers {
            self.tier(*vrf).add(tiers);
        }
        self.account.add(&other.account);
        if let Some(last) = other.vifs.len().checked_sub(1)
            && let Ok(id) = VifId::new(u32::try_from(last.max(1)).unwrap_or(u32::MAX))
        {
            self.reserve(id);
        }
        for (mine, theirs) in self.vifs.iter_mut().zip(&other.vifs) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.ports.iter_mut().zip(&other.ports) {
            mine.add(theirs);
        }
        for (vrf, counts) in &other.vrfs {
            for (mine, theirs) in self.vrfs.entry(*vrf).or_default().iter_mut().zip(counts) {
                *mine += theirs;
            }
        }
    }
}
