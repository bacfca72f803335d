//! Offloading flows, the worker's side: which flows to ask for, what of them has been seen, what the engine has answered.
//!
//! The worker owns every decision on a flow, an engine owns the rules of a NIC ([`offload_engine`]). A flow that is a candidate
//! carries [`flag::SAMPLE`] until an ordinary packet of each direction has shown how it arrives (`sample.rs`); from then on one
//! function, [`FlowState::review`], compares what is in force with what was asked for and asks for the difference (`review.rs`).
//! Whatever may change the answer (a packet, a change of the forwarding state, the engine, time) only calls for a review.

mod report;
mod review;
mod sample;
mod slab;
mod tick;

use offload_rules::{
    flow::tcp::TcpPhase,
    lower::{NotOffloaded, Unsupported},
};

pub(super) use slab::Offloads;

use super::{Outbox, Worker, counters::Traffic, env::Env, flag, flow_state::FlowState, flows::ingress_of};
use crate::{exec::Target, flow_table::Record};
use offload_engine::protocol::{OffloadId, Tier};

const ICMP: [u8; 2] = [1, 58];

/// Where a flow runs, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadStatus {
    /// Where.
    pub tier: Tier,
    /// Why not in hardware; `None` when it is.
    pub reason: Option<NotOffloaded>,
    /// Packets and octets of this direction that the NIC has handled. The record's counters hold them, too.
    pub hardware: Traffic,
}

impl Worker {
    /// Where the flow in this slot runs; `None` when the slot is vacant.
    #[must_use]
    pub fn offload_status(&self, slot: u32) -> Option<OffloadStatus> {
        self.state.offload_status(&self.env, slot)
    }

    /// The id under which the engine knows the flow in this slot.
    #[must_use]
    pub fn offload_id(&self, slot: u32) -> Option<OffloadId> {
        self.state.offload_id(slot)
    }

    /// `host-ctl offload on|off`: nothing is asked while it is off. What was asked for, the engine removes.
    pub fn offload_enabled(&mut self, on: bool) {
        self.state.offloads.on = on;
        self.state.offloads.sweep_all();
        self.ipsec.switch(on, self.env.clock);
    }

    /// Reviews what has called for it, and hands over what is asked.
    #[inline]
    pub(super) fn ask_engine(&mut self, out: &mut Outbox) {
        if self.state.offloads.present && (self.state.offloads.is_busy() || !self.ipsec.requests().is_empty()) {
            self.review_and_ask(out);
        }
    }

    #[cold]
    fn review_and_ask(&mut self, out: &mut Outbox) {
        let Self { env, state, ipsec, .. } = self;
        state.offloads.requests.append(ipsec.requests());
        // Reviews may call for others: those wait for the next time.
        for _ in 0..state.offloads.called() {
            if let Some(index) = state.offloads.next_called() {
                state.review(env, index);
            }
        }
        out.offload.append(&mut state.offloads.requests);
    }
}

impl FlowState {
    /// Where the flow in this slot runs; `None` when the slot is vacant.
    #[must_use]
    fn offload_status(&self, env: &Env, slot: u32) -> Option<OffloadStatus> {
        let record = self.flows.record(slot)?;
        let direction = usize::from(record.flags & flag::INITIATOR == 0);
        let Some(entry) = self.offloads.of(&self.flows, slot) else {
            let reason = Some(self.no_offload_reason(env, slot, record));
            return Some(OffloadStatus { tier: Tier::Software, reason, hardware: Traffic::default() });
        };
        let hardware = entry.total.get(direction).copied().unwrap_or_default();
        // The rules of a pair are complete; a direction without one stays in software.
        let without = entry.asked().is_some_and(|asked| asked.get(direction).is_some_and(Option::is_none));
        Some(match entry.tier {
            Tier::Hardware if without => {
                OffloadStatus { tier: Tier::Software, reason: Some(NotOffloaded::OneSided), hardware }
            }
            Tier::Hardware => OffloadStatus { tier: Tier::Hardware, reason: None, hardware },
            tier => {
                let unmarked = tier == Tier::Partial && entry.marked.get(direction) == Some(&false);
                let tier = if unmarked { Tier::Software } else { tier };
                let reason = entry.reason.unwrap_or_else(|| self.no_offload_reason(env, slot, record));
                OffloadStatus { tier, reason: Some(reason), hardware }
            }
        })
    }

    /// Why nothing was asked for a flow.
    fn no_offload_reason(&self, env: &Env, slot: u32, record: &Record) -> NotOffloaded {
        if !self.offloads.present {
            return NotOffloaded::NoHardware;
        }
        if !self.offloads.on {
            return NotOffloaded::Off;
        }
        let other = self.flows.record(record.reverse).filter(|_| record.reverse != slot);
        let is_raw = |record: &Record| {
            ingress_of(record)
                .and_then(|ingress| env.snapshot.vif(env.snapshot.port_of(ingress.vif)))
                .is_some_and(|port| !port.has_ethernet())
        };
        let is_tunnel = |record: &Record| {
            let ingress = ingress_of(record).and_then(|ingress| env.snapshot.vif(ingress.vif));
            ingress.is_some_and(|vif| vif.kind.tunnel().is_some())
        };
        let unsupported = if ICMP.contains(&record.key.proto) {
            Unsupported::Icmp
        } else if record.flags & flag::SPLICED != 0 {
            Unsupported::SequenceShift
        } else if self.is_punt(record) || other.is_some_and(|other| self.is_punt(other)) {
            Unsupported::Punt
        } else if is_tunnel(record) || other.is_some_and(is_tunnel) {
            Unsupported::Ipsec
        } else if is_raw(record) || other.is_some_and(is_raw) {
            Unsupported::RawIp
        } else if self.phase(record).is_some_and(|phase| phase != TcpPhase::Established) {
            return NotOffloaded::NotEstablished;
        } else {
            return NotOffloaded::OneSided;
        };
        NotOffloaded::Unsupported(unsupported)
    }

    fn is_punt(&self, record: &Record) -> bool {
        self.programs.get(record.program).is_some_and(|entry| matches!(entry.plan.target, Target::Punt { .. }))
    }

    /// The flow that a NIC's mark on a packet means, if it has the packet's key.
    #[inline]
    pub(in crate::worker) fn marked(&self, mark: u32, key: &offload_rules::flow::FlowKey) -> Option<u32> {
        let entry = self.offloads.get(mark)?;
        let first = entry.slot;
        let same = |slot: u32| {
            self.flows.record(slot).is_some_and(|record| {
                record.flags & flag::OFFLOAD != 0
                    && self.flows.binding(slot).offload == mark
                    && crate::flow_table::same_key(&record.key, key)
            })
        };
        if same(first) {
            return Some(first);
        }
        let back = self.flows.record(first)?.reverse;
        same(back).then_some(back)
    }

    /// Flag bits of a new flow: does anyone want to see its packets?
    pub(super) fn candidate(&self, proto: u8, flags: u8) -> u8 {
        let candidate = self.offloads.present && flags & flag::SPLICED == 0 && !ICMP.contains(&proto);
        if candidate { flag::SAMPLE } else { 0 }
    }

    /// What a record's program or way in is has changed.
    pub(super) fn offload_changed(&mut self, slot: u32) {
        if !self.offloads.present {
            return;
        }
        if let Some(number) = self.offloads.number_of(&self.flows, slot) {
            self.offloads.call(number);
        }
    }

    /// The flow in this slot, of which this is one direction, is removed.
    pub(super) fn offload_removed(&mut self, slot: u32) {
        if let Some(number) = self.offloads.number_of(&self.flows, slot) {
            self.offloads.flow_removed(number);
        }
    }

    /// A NIC forwards packets of the flow in this slot: what is known of TCP's numbers may be old.
    pub(super) fn is_in_hardware(&self, slot: u32) -> bool {
        self.offloads.of(&self.flows, slot).is_some_and(|entry| entry.tier == Tier::Hardware)
    }

    /// The other direction forgets, and so does this one.
    fn forget_sequence(&mut self, slot: u32) {
        let Some(back) = self.flows.record(slot).map(|record| record.reverse) else { return };
        for slot in [slot, back] {
            if let Some(record) = self.flows.record_mut(slot) {
                let mut direction = record.tcp_direction();
                direction.forget_sequence();
                record.set_tcp_direction(direction);
            }
        }
    }

    /// The id under which the engine knows the flow in this slot.
    #[must_use]
    fn offload_id(&self, slot: u32) -> Option<OffloadId> {
        self.offloads.of(&self.flows, slot)?;
        self.offloads.id(self.offloads.number_of(&self.flows, slot)?)
    }
}
