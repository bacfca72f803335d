//! The lane: ordinary packets of known flows, and of known routes, from the device to the device in a few passes over the batch.
//!
//! An ordinary packet is IPv4 without options or IPv6 without extension headers, whole, UDP or TCP that goes on (ACK; no SYN, FIN, RST,
//! URG), in a frame without or with one tag, as it is or in MPLS over UDP, with nothing of a NIC's on it. Its headers are read into half a
//! cache line, its flow or decision is found with those of the whole batch, and it leaves in place, with headers that its plan has
//! prebuilt. Whatever is not ordinary, whose flow is not known, or that its plan cannot do as it is goes the general way, through
//! `batch`, as it was received: nothing is written before all checks hold.
//!
//! # Order
//! Packets of one flow leave as they came. A packet that was read and does not run waits for the others that do not, and so do those
//! behind it that may be of its flow, told by a few bits of the hash; a packet that was not read leaves no such trace, so that all before
//! it leave first, and it before all behind it.
//!
//! # What is not checked again
//! - Addresses that no packet may have: flows and decisions are looked up by whole addresses, and these were let through when a packet
//!   with them was decided on.
//! - Whether another worker owns the flow: this one has it in its table, which it has only for flows that are its own.

mod headers;
mod plan;
mod run;

use offload_rules::{DropReason, VifId};

use super::{
    Worker,
    batch::Batch,
    counters::Traffic,
    delivery::Arrived,
    env::{BATCH, Deciding, LaneUse},
    ipsec::SealRequest,
    outbox::Outbox,
    outcome::Outcome,
    programs::{ProgramId, TO_BE_DERIVED},
    tx::TxKind,
};
use crate::{
    flow_table,
    packet::{NicNote, Packet},
};
pub(super) use headers::LaneVif;
use headers::{Ordinary, Reader, Way};
pub(super) use plan::{LaneExit, LanePlan};

/// What became of a packet that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ran {
    /// The program that it ran; none: it waits for the general way.
    program: ProgramId,
    /// The vif that it came in on.
    vif: VifId,
}

impl Ran {
    const WAITS: Self = Self { program: TO_BE_DERIVED, vif: VifId::TUNNEL };
}

/// Whether it pays to read what comes in on a port: headers of packets that do not run are read in vain.
#[derive(Debug, Default)]
struct Worth {
    /// By number of the port's vif: bursts that go the general way before the next try.
    rests: Vec<u8>,
}

impl Worth {
    /// Bursts that go the general way after one of which little has run.
    const REST: u8 = 31;
    /// Frames of a burst that tells something.
    const LEAST: usize = 8;

    /// Is the next burst of this port read?
    fn tries(&mut self, port: VifId) -> bool {
        let Some(rest) = self.rests.get_mut(port.index()) else { return true };
        let tries = *rest == 0;
        *rest = rest.saturating_sub(1);
        tries
    }

    /// Of the frames of a burst that was read, so many went the general way after all.
    fn learn(&mut self, port: VifId, frames: usize, general: usize) {
        if frames < Self::LEAST || general * 4 < frames * 3 {
            return;
        }
        if self.rests.len() <= port.index() {
            self.rests.resize(port.index() + 1, 0);
        }
        if let Some(rest) = self.rests.get_mut(port.index()) {
            *rest = Self::REST;
        }
    }
}

/// Memory of the lane, kept from one batch to the next.
pub(super) struct Lane {
    worth: Worth,
    packets: [Ordinary; BATCH],
    hashes: [u64; BATCH],
    /// Of packets with flows, the candidates' slots; of those without, the numbers of programs.
    slots: [u32; BATCH],
    /// Of the decisions without flows, when they were found.
    epoch: u32,
    /// Of each frame that has not left yet.
    ran: Vec<Ran>,
    /// Frames that go the general way.
    general: Vec<Packet>,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            worth: Worth::default(),
            packets: [Ordinary::GENERAL; BATCH],
            hashes: [0; BATCH],
            slots: [flow_table::NONE; BATCH],
            epoch: 0,
            ran: Vec::with_capacity(BATCH),
            general: Vec::with_capacity(BATCH),
        }
    }
}

/// Which flows have packets that wait, by a few bits of their hashes.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting(u64);

impl Waiting {
    const fn bit(hash: u64) -> u64 {
        1 << (hash >> 20 & 63)
    }

    #[inline(always)]
    const fn may_have(self, hash: u64) -> bool {
        self.0 & Self::bit(hash) != 0
    }

    const fn add(&mut self, hash: u64) {
        self.0 |= Self::bit(hash);
    }
}

/// What was found while headers were read.
#[derive(Debug, Clone, Copy, Default)]
struct FirstLook {
    received: Traffic,
    /// Packets to be found by their flows, and by their routes.
    flows: usize,
    routed: usize,
}

impl Worker {
    /// Does the lane take the next burst of a port? Not while changed routes are followed, and seldom while next to nothing of what comes
    /// there is its.
    #[inline]
    pub(super) fn lane_takes(&mut self, port: VifId) -> bool {
        let wanted = match self.env.lane {
            LaneUse::Worthwhile => self.lane.as_mut().is_some_and(|lane| lane.worth.tries(port)),
            LaneUse::Always => true,
            LaneUse::Never => false,
        };
        wanted && self.state.is_in_line()
    }

    /// Takes in frames of a device: those of the lane in place, the others the general way.
    pub(super) fn receive_in_lane(
        &mut self,
        port: VifId,
        frames: &mut Vec<Packet>,
        batch: &mut Batch,
        out: &mut Outbox,
    ) {
        let mut lane = self.lane.take().unwrap_or_default();
        lane.ran.clear();
        let (received, mut general) = (frames.len(), 0);
        let (mut begin, mut waiting) = (0, Waiting::default());
        while begin < frames.len() {
            let mut end = frames.len().min(begin + BATCH);
            let count = end - begin;
            self.first_look(port, frames.get(begin..end).unwrap_or(&[]), &mut lane);
            let (mut at, mut next) = (0, begin);
            loop {
                let ran = self.run(frames.get_mut(next..end).unwrap_or(&mut []), &mut lane, at, &mut waiting);
                (at, next) = (at + ran, next + ran);
                if at == count {
                    break;
                }
                let others = lane.packets.get(at..count).unwrap_or(&[]).iter();
                let others = others.take_while(|packet| packet.way == Way::General).count();
                lane.ran.extend(std::iter::repeat_n(Ran::WAITS, others));
                (at, next) = (at + others, next + others);
                general += self.leave(port, frames, next, &mut lane, batch, out);
                (end, next, waiting) = (end - next, 0, Waiting::default());
            }
            begin = end;
        }
        general += self.leave(port, frames, begin, &mut lane, batch, out);
        lane.worth.learn(port, received, general);
        self.lane = Some(lane);
    }

    /// Reads the headers of a batch, asks for what its packets are found by, and finds flows. Counts frames of the device; not those that a
    /// NIC has forwarded, and counted, up to a tunnel that software seals.
    #[inline(always)]
    fn first_look(&mut self, port: VifId, frames: &[Packet], lane: &mut Lane) {
        let Lane { packets, hashes, slots, .. } = lane;
        let seen = self.read_headers(port, frames, packets, hashes);
        self.counters.count_received(port, seen.received);
        if let (Some(hashes), Some(slots)) = (hashes.get(..frames.len()), slots.get_mut(..frames.len()))
            && seen.flows > 0
        {
            self.state.flows.candidates(hashes, slots);
        }
        if seen.routed > 0 {
            self.find_decisions(frames, lane);
        }
    }

    // A function of its own, like the other stages: together they would not fit into the registers.
    #[inline(never)]
    fn read_headers(
        &self,
        port: VifId,
        frames: &[Packet],
        packets: &mut [Ordinary; BATCH],
        hashes: &mut [u64; BATCH],
    ) -> FirstLook {
        let shared = self.env.deciding == Deciding::Shared;
        let reader = Reader {
            vifs: self.interfaces.of_lane(),
            decap: &self.interfaces.decap,
            finder: self.state.flows.finder(),
            recent: shared.then(|| self.routed.recent()),
            port,
            vlans: self.interfaces.get(port).and_then(|device| device.vlans()),
        };
        let mut seen = FirstLook::default();
        seen.received.packets = frames.len() as u64;
        for ((frame, packet), hash) in frames.iter().zip(packets).zip(hashes) {
            seen.received.bytes += frame.len() as u64;
            if let Some(read) = reader.read(frame) {
                (*packet, *hash) = read;
                seen.flows += usize::from(packet.way == Way::Flow);
                seen.routed += usize::from(packet.way == Way::Routed);
            } else {
                packet.way = Way::General;
                *hash = 0;
                if let NicNote::ToSeal(_) = frame.note() {
                    seen.received = seen.received.less(Traffic { packets: 1, bytes: frame.len() as u64 });
                }
            }
        }
        seen
    }

    /// The first `count` frames leave: those that have run to where their plan says, the others, of which it says how many they are, the
    /// general way.
    #[inline(never)]
    fn leave(
        &mut self,
        port: VifId,
        frames: &mut Vec<Packet>,
        count: usize,
        lane: &mut Lane,
        batch: &mut Batch,
        out: &mut Outbox,
    ) -> usize {
        if count == frames.len()
            && let Some(first) = lane.ran.first()
            && lane.ran.iter().all(|ran| ran.program == first.program)
            && let LaneExit::Send { port, meta } = self.state.programs.lane_exit(first.program)
        {
            lane.ran.clear();
            out.send_burst(port, frames, meta);
            return 0;
        }
        // All others before the first of these, which may change programs.
        for (packet, ran) in frames.drain(..count).zip(lane.ran.drain(..)) {
            if ran.program == TO_BE_DERIVED {
                lane.general.push(packet);
                continue;
            }
            match self.state.programs.lane_exit(ran.program) {
                LaneExit::Send { port, meta } => out.send(port, packet, meta),
                LaneExit::Seal => {
                    let egress = self.state.programs.get(ran.program).and_then(|entry| entry.plan.seal.as_deref());
                    let outcome = match egress {
                        Some(egress) => Outcome::Seal(SealRequest::new(*egress, TxKind::Forwarded, ran.vif)),
                        None => Outcome::drop(ran.vif, DropReason::InvalidNh),
                    };
                    self.settle_hit(packet, outcome, out);
                }
            }
        }
        let general = lane.general.len();
        for packet in lane.general.drain(..) {
            self.take_in(batch, packet, Arrived::new(port), out);
            if batch.is_full() {
                self.work_off(batch, out);
            }
        }
        self.work_off(batch, out);
        general
    }
}
