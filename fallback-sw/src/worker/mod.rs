//! One worker: batches of frames in, batches of frames out, run to completion.
//!
//! Owns its flows, programs, fragments, held packets and counters, and shares nothing. What others must know (a neighbour's
//! address, a path's MTU) leaves as an [`Event`]; what others have learnt comes back in the next snapshot.
//!
//! Every received packet meets exactly one fate, see [`Account`].

mod admit;
mod batch;
mod carry;
mod change;
mod cookie;
mod counters;
mod decisions;
pub(crate) mod flows;
mod fragments;
mod held;
mod icmp;
mod ingress;
mod ipsec;
pub mod leases;
mod limits;
mod link;
mod neighbour;
mod offload;
mod outer_error;
mod own;
mod programs;
mod readers;
mod reassembly;
mod room;
mod routed;
mod slow;
mod splice;
mod sweep;
mod tunnels;

use std::{net::Ipv4Addr, sync::Arc};

use offload_rules::{
    DropReason, MacAddr, SaId, VifId, VrfId,
    flow::VrfCounter,
    forwarding::{Snapshot, VifKind},
};

pub use counters::{Account, Counters, TierTraffic, Traffic, VifCounters};
pub use fragments::{FragmentLimits, FragmentTable, Head};
pub use held::{GiveUp, HoldQueue, NeighbourKey, Tenant};
pub use ipsec::{EspQuote, Grant, Refused, SaNews, SaStatus, Sealing};
pub use offload::OffloadStatus;
pub use programs::{ProgramId, Programs, TO_BE_DERIVED};

use crate::{
    flow_table::{FlowTable, Holdings},
    packet::Packet,
};
use batch::Batch;
use leases::{Lease, Leases};
use limits::{RateLimit, Topic};
use offload_engine::protocol::Request;
use reassembly::ReassemblyTable;
use splice::Openings;

/// A packet on its way through a worker.
#[derive(Debug)]
pub struct Delivery {
    /// A frame as received; only the IP packet when the node made it.
    pub packet: Packet,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a packet is from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// Received on the device of this vif.
    Port {
        /// The vif of the device.
        port: VifId,
        /// What its datagram's head told, when it is a fragment that has found it.
        head: Option<Head>,
        /// It is in the vif's counters already.
        counted: bool,
    },
    /// Made by the node, to be routed in this VRF.
    Own(VrfId),
    /// Finished by another worker but for ESP: to be sealed by an SA of this one.
    Sealing(Sealing),
    /// An ICMP error that quotes ESP of an SA of this worker.
    Quoting(EspQuote),
}

impl Delivery {
    /// Made by the node.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self.origin, Origin::Own(_))
    }
}

/// What was told of a neighbour's MAC, and by which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A neighbour advertisement (RFC 4861 §7.2.5). An ARP reply to the node is a solicited one that overrides, every other announcement
    /// by ARP an unsolicited one.
    Advertisement {
        /// Absent where the question was sent to the station alone (RFC 4861 §4.4).
        mac: Option<MacAddr>,
        /// S: it claims to answer a question.
        solicited: bool,
        /// O: it overrides the MAC that is known.
        replace: bool,
    },
    /// A neighbour solicitation for an address that the node answers for (RFC 4861 §7.2.3).
    Solicitation {
        /// Source link-layer address option.
        mac: MacAddr,
    },
    /// An ARP request for an address that the node answers for (RFC 826).
    Request {
        /// Sender hardware address.
        mac: MacAddr,
    },
}

impl Told {
    /// It claims to answer a question of the node's, who alone was told.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Advertisement { solicited: true, .. })
    }
}

/// What a worker tells the rest of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A neighbour told where it is.
    Neighbour {
        /// Which.
        neighbour: NeighbourKey,
        /// What it told.
        told: Told,
    },
    /// Packets wait for a neighbour.
    Needed {
        /// Which.
        neighbour: NeighbourKey,
        /// On whose account.
        tenant: Tenant,
    },
    /// A router on the way to a tunnel's end takes no larger outer packets.
    PathMtu {
        /// The tunnel's end.
        destination: Ipv4Addr,
        /// Octets.
        mtu: u16,
    },
    /// Of a security association.
    Sa {
        /// Which.
        sa: SaId,
        /// What.
        news: SaNews,
    },
}

/// What a frame that is sent counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxKind {
    /// A received packet, sent on.
    Forwarded,
    /// A received packet, handed to the host or an agent.
    Punted,
    /// Made by the node.
    Originated,
    /// A received packet that the NIC has counted as forwarded, with its tunnel and the way out; all that was left was to seal it.
    Resumed,
}

/// What is known of a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxMeta {
    /// Egress vif.
    pub vif: VifId,
    /// What it counts as.
    pub kind: TxKind,
}

/// Frames to send on one port.
#[derive(Debug, Default)]
pub struct TxQueue {
    /// The frames.
    pub packets: Vec<Packet>,
    /// What each is, in the same order.
    pub metas: Vec<TxMeta>,
}

/// What comes out of a worker. Kept and emptied by the caller, so that nothing is allocated for each batch.
#[derive(Debug, Default)]
pub struct Outbox {
    /// By number of the port's vif.
    tx: Vec<TxQueue>,
    /// Ports with frames to send, each once.
    pub dirty: Vec<VifId>,
    /// What happened.
    pub events: Vec<Event>,
    /// Packets of flows that another worker owns.
    pub handoff: Vec<(usize, Delivery)>,
    /// What an offload engine is asked.
    pub offload: Vec<Request>,
    /// Packets to reuse.
    pub spare: Vec<Packet>,
}

impl Outbox {
    /// The frames for a port.
    #[inline]
    pub fn queue(&mut self, port: VifId) -> &mut TxQueue {
        if self.tx.len() <= port.index() {
            self.grow(port);
        }
        // Invariant: resized just above.
        #[allow(clippy::indexing_slicing)]
        &mut self.tx[port.index()]
    }

    #[cold]
    fn grow(&mut self, port: VifId) {
        self.tx.resize_with(port.index() + 1, TxQueue::default);
    }

    #[inline]
    fn send(&mut self, port: VifId, packet: Packet, meta: TxMeta) {
        let queue = self.queue(port);
        queue.packets.push(packet);
        queue.metas.push(meta);
        if queue.packets.len() == 1 {
            self.dirty.push(port);
        }
    }

    /// Keeps a packet for reuse, up to a bound; not those that are as large as a reassembled datagram.
    #[inline]
    fn recycle(&mut self, packet: Packet) {
        if self.spare.len() < MAX_SPARE && packet.capacity() <= MAX_SPARE_LEN {
            self.spare.push(packet);
        }
    }
}

/// Packets kept for reuse.
const MAX_SPARE: usize = 1024;
/// Octets of the largest packet kept for reuse: any frame fits, with its headroom.
const MAX_SPARE_LEN: usize = 16_384;

/// Events of one topic that the packets of one vif (or tenant) may cause in a second: a flood of ARP must neither fill the queue to control
/// nor keep the forwarding state changing.
const MAX_EVENTS: u32 = 1000;

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

/// What the hot path needs to know of a vif.
#[derive(Debug, Clone)]
struct VifFast {
    vrf: VrfId,
    mac: MacAddr,
    policy: bool,
    raw_ip: bool,
    /// By VLAN id (TPID 0x8100, one tag): number of the sub-interface, 0 for none.
    vlans: Option<Box<[VifId; 4096]>>,
}

/// One worker.
pub struct Worker {
    config: WorkerConfig,
    snapshot: Arc<Snapshot>,
    /// Low bits of the snapshot's version, as flow records keep them.
    version: u32,
    following: change::Following,
    /// How often a flow's program was derived, the first time not counted.
    derivations: u64,
    vifs: Vec<Option<VifFast>>,
    tunnels: tunnels::Tunnels,
    flows: FlowTable,
    holdings: Holdings,
    leases: Leases<Lease>,
    programs: Programs,
    decisions: decisions::Decisions,
    fragments: FragmentTable,
    reassembly: ReassemblyTable,
    held: HoldQueue,
    routed: routed::Routed,
    counters: Counters,
    icmp_rate: RateLimit<Tenant>,
    new_flow_rate: RateLimit<Tenant>,
    event_rate: RateLimit<(VifId, Topic)>,
    /// Questions for neighbours.
    need_rate: RateLimit<Tenant>,
    /// Half-open TCP flows by number of the tenant.
    half_open: Vec<u32>,
    /// By vif: until when an ACK may hold a cookie that was given on it.
    cookies_until: Vec<u64>,
    openings: Openings,
    offloads: offload::Offloads,
    ipsec: ipsec::Ipsec,
    ip_id: u16,
    /// Where ageing goes on.
    sweep_at: u32,
    batch: Option<Box<Batch>>,
    /// Milliseconds of the node's clock when it last looked.
    clock: u64,
}

impl Worker {
    /// A worker with its share of the flow table.
    ///
    /// # Errors
    /// No memory for the flow table.
    pub fn new(config: WorkerConfig, snapshot: Arc<Snapshot>) -> std::io::Result<Self> {
        let share = snapshot.settings().max_flows / u32::try_from(config.workers.max(1)).unwrap_or(1);
        let mut worker = Self {
            ip_id: config.ip_id,
            version: 0,
            following: change::Following::default(),
            derivations: 0,
            vifs: Vec::new(),
            tunnels: tunnels::Tunnels::default(),
            flows: FlowTable::new(share.max(64))?,
            holdings: Holdings::new(share.max(64))?,
            leases: Leases::default(),
            programs: Programs::default(),
            decisions: decisions::Decisions::default(),
            fragments: FragmentTable::default(),
            reassembly: ReassemblyTable::default(),
            held: HoldQueue::default(),
            routed: routed::Routed::new(&snapshot),
            counters: Counters::default(),
            icmp_rate: RateLimit::default(),
            new_flow_rate: RateLimit::default(),
            event_rate: RateLimit::default(),
            need_rate: RateLimit::default(),
            half_open: Vec::new(),
            cookies_until: Vec::new(),
            openings: Openings::default(),
            offloads: offload::Offloads::new(config.offload, config.id),
            ipsec: ipsec::Ipsec::new(config.id, config.offload),
            sweep_at: 0,
            batch: Some(Box::default()),
            clock: 0,
            snapshot: Arc::clone(&snapshot),
            config,
        };
        worker.read_vifs();
        worker.read_tunnels();
        Ok(worker)
    }

    fn read_vifs(&mut self) {
        let snapshot = &self.snapshot;
        self.version = snapshot.version() as u32;
        self.vifs.clear();
        for vif in snapshot.vifs() {
            let index = vif.id.index();
            if self.vifs.len() <= index {
                self.vifs.resize(index + 1, None);
            }
            self.counters.reserve(vif.id);
            let fast = VifFast {
                vrf: vif.vrf,
                mac: vif.mac.unwrap_or_default(),
                policy: vif.flags.policy,
                raw_ip: !vif.has_ethernet(),
                vlans: None,
            };
            if let Some(slot) = self.vifs.get_mut(index) {
                *slot = Some(fast);
            }
        }
        for vif in snapshot.vifs() {
            let VifKind::PhysicalVlan { parent, outer, inner: None } = vif.kind else { continue };
            if outer.tpid != 0x8100 {
                continue;
            }
            if let Some(Some(parent)) = self.vifs.get_mut(parent.index()) {
                let vlans = parent.vlans.get_or_insert_with(|| Box::new([VifId::TUNNEL; 4096]));
                if let Some(slot) = vlans.get_mut(usize::from(outer.vid)) {
                    *slot = vif.id;
                }
            }
        }
        if self.cookies_until.len() < self.vifs.len() {
            self.cookies_until.resize(self.vifs.len(), 0);
        }
    }

    /// How often the program of a flow was derived anew.
    #[must_use]
    pub const fn derivations(&self) -> u64 {
        self.derivations
    }

    /// Milliseconds of the node's clock when the worker last looked.
    #[must_use]
    pub const fn clock(&self) -> u64 {
        self.clock
    }

    /// The snapshot in force.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The flow table.
    #[must_use]
    pub const fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// The programs.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Packets waiting for neighbours.
    #[must_use]
    pub const fn hold_queue(&self) -> &HoldQueue {
        &self.held
    }

    /// Fragmented datagrams.
    #[must_use]
    pub const fn fragment_table(&self) -> &FragmentTable {
        &self.fragments
    }

    /// Received packets that wait now.
    #[must_use]
    pub fn held_packets(&self) -> u64 {
        self.held.held_received() + (self.fragments.held() + self.reassembly.held()) as u64
    }

    /// The account of packets.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.counters.account
    }

    /// All counters; those of programs included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        for entry in self.programs.iter() {
            entry.count_into(&mut counters);
        }
        counters
    }

    /// Tells that the device did not take these frames of a queue.
    pub fn not_sent(&mut self, port: VifId, frames: &[TxMeta]) {
        for TxMeta { kind, .. } in frames {
            let account = &mut self.counters.account;
            match kind {
                TxKind::Forwarded | TxKind::Resumed => account.forwarded = account.forwarded.saturating_sub(1),
                TxKind::Punted => account.punted = account.punted.saturating_sub(1),
                TxKind::Originated => account.originated_dropped += 1,
            }
            if *kind != TxKind::Originated
                && let Some(count) = account.dropped.get_mut(DropReason::IfTxDiscard.index())
            {
                *count += 1;
            }
        }
        if let Some(counters) = self.counters.port(port) {
            counters.tx_errors += frames.len() as u64;
        }
    }

    #[inline]
    fn vif_fast(&self, id: VifId) -> Option<&VifFast> {
        self.vifs.get(id.index())?.as_ref()
    }

    /// Drops a received packet.
    #[inline]
    fn drop_packet(&mut self, vif: VifId, packet: Packet, reason: DropReason, out: &mut Outbox) {
        self.count_drop(vif, reason);
        out.recycle(packet);
    }

    fn count_drop(&mut self, vif: VifId, reason: DropReason) {
        if let Some(count) = self.counters.account.dropped.get_mut(reason.index()) {
            *count += 1;
        }
        if let Some(counters) = self.counters.vif(vif) {
            counters.drops += 1;
            if reason == DropReason::TcpResetIgnored {
                counters.tcp_resets_ignored += 1;
            }
        }
    }

    /// Drops whatever it is, wherever it waited.
    fn drop_delivery(&mut self, delivery: Delivery, reason: DropReason, out: &mut Outbox) {
        match delivery.origin {
            Origin::Port { port, .. } | Origin::Quoting(EspQuote { vif: port, .. }) => {
                self.drop_packet(port, delivery.packet, reason, out);
            }
            Origin::Sealing(Sealing { leg, kind: TxKind::Forwarded | TxKind::Punted | TxKind::Resumed }) => {
                self.drop_packet(leg.tunnel, delivery.packet, reason, out);
            }
            Origin::Own(_) | Origin::Sealing(_) => {
                self.counters.account.originated_dropped += 1;
                out.recycle(delivery.packet);
            }
        }
    }

    /// Tells how many more frames were lost before they could be received from a port.
    pub fn lost_before(&mut self, port: VifId, frames: u64) {
        if let Some(counters) = self.counters.port(port) {
            counters.rx_errors += frames;
        }
    }

    /// A packet got lost on its way to another worker.
    pub fn lose(&mut self, delivery: &Delivery, reason: DropReason) {
        match delivery.origin {
            Origin::Port { port, .. } | Origin::Quoting(EspQuote { vif: port, .. }) => self.count_drop(port, reason),
            Origin::Sealing(Sealing { leg, kind: TxKind::Forwarded | TxKind::Punted | TxKind::Resumed }) => {
                self.count_drop(leg.tunnel, reason);
            }
            Origin::Own(_) | Origin::Sealing(_) => self.counters.account.originated_dropped += 1,
        }
    }

    /// Asks control for a neighbour, unless the tenant asks for more than can be looked for.
    fn need(&mut self, neighbour: NeighbourKey, tenant: Tenant, out: &mut Outbox) -> bool {
        let allowed = self.need_rate.allow(tenant, MAX_EVENTS, self.clock);
        if allowed {
            out.events.push(Event::Needed { neighbour, tenant });
        }
        allowed
    }

    /// Tells the rest of the node what a packet of this vif has told, unless the vif tells more than can be listened to.
    fn tell(&mut self, vif: VifId, event: Event, out: &mut Outbox) {
        if self.event_rate.allow((vif, Topic::of(&event)), MAX_EVENTS, self.clock) {
            out.events.push(event);
        }
    }

    /// A received packet walks the tables.
    fn walks(&mut self, vrf: VrfId, octets: usize) {
        self.counters.account.slow_path += 1;
        self.counters.tier(vrf).slow_path.add(Traffic { packets: 1, bytes: octets as u64 });
    }

    /// One that has walked ends at the host.
    fn walked_to_host(&mut self, vrf: VrfId, octets: usize) {
        let one = Traffic { packets: 1, bytes: octets as u64 };
        let tiers = self.counters.tier(vrf);
        tiers.slow_path = tiers.slow_path.less(one);
        tiers.punt.add(one);
    }

    fn discard_in(&mut self, vrf: VrfId) {
        self.counters.pass(vrf, VrfCounter::Discard, 1);
    }

    /// A received packet was used up by the node.
    fn consume(&mut self, packet: Packet, out: &mut Outbox) {
        self.counters.account.consumed += 1;
        out.recycle(packet);
    }

    /// The next IP identification, for a packet that belongs to no flow.
    fn next_ip_id(&mut self) -> u16 {
        let id = self.ip_id;
        self.ip_id = self.ip_id.wrapping_add(1);
        id
    }

    /// The identification of all outer headers of a direction of a flow: not 0, which means none.
    fn flow_ip_id(&mut self) -> u16 {
        match self.next_ip_id() {
            0 => self.next_ip_id(),
            id => id,
        }
    }
}
