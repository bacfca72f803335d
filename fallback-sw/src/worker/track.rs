//! How flows follow their packets: TCP's state, and the way that packets come by.

use offload_rules::{
    DropReason, classify,
    flow::{
        Choices,
        tcp::{self, Segment, TcpPhase, TcpVerdict},
    },
    forwarding::is_link_local,
};

use super::{
    TO_BE_DERIVED,
    context::Context,
    env::Env,
    flag,
    flow_state::FlowState,
    flows::{ingress_of, remember_ingress},
    hit::{comes_as_before, segment},
};
use crate::{
    exec,
    packet::{Packet, parse::FragmentInfo},
};

const TCP: u8 = 6;
/// A flow's ECMP member follows the other direction at most once in this many milliseconds, so that two ends which follow each
/// other come to rest.
const FOLLOW_MS: u32 = 1000;

impl FlowState {
    /// An echo request from the side that was asked itself, with the same identifier: it has the key of that side's replies, but
    /// the lists have not judged it.
    pub(super) fn asks_back(&self, slot: u32, context: &Context) -> bool {
        let asks = matches!((context.key.version, context.key.proto, context.service_port()), (4, 1, 8) | (6, 58, 128));
        asks && self.flows.record(slot).is_some_and(|record| record.flags & flag::INITIATOR == 0)
    }

    /// An ICMP error rides the flow that it quotes, whatever its own addresses: a link-local one ends at this node.
    pub(super) fn strays(&self, slot: u32, context: &Context) -> bool {
        if !is_link_local(context.ip.source()) && !is_link_local(context.ip.destination()) {
            return false;
        }
        let program = self.flows.record(slot).and_then(|record| self.programs.get(record.program));
        let ends_here = program.is_some_and(|entry| matches!(entry.plan.target, exec::Target::Punt { .. }));
        context.outer.is_some() || !ends_here
    }

    /// A packet that comes out of another tunnel or underlay interface than the last one of its flow: may it, and which way does
    /// the other direction go from now on?
    pub(super) fn follow(&mut self, env: &Env, slot: u32, context: &Context) -> Result<(), DropReason> {
        if self.flows.record(slot).is_none_or(|record| comes_as_before(record, context)) {
            return Ok(());
        }
        let ingress = context.ingress();
        let choices = classify::check_source(&env.snapshot, &context.key, ingress)?;
        if let Some(record) = self.flows.record_mut(slot) {
            remember_ingress(record, ingress);
        }
        self.offload_changed(slot);
        self.lead_back(env, slot, choices);
        Ok(())
    }

    /// Moves the other direction of a flow to the ECMP slots that lead back where this direction came from.
    fn lead_back(&mut self, env: &Env, slot: u32, choices: Choices) {
        let Some(back) = self.flows.record(slot).map(|record| record.reverse).filter(|back| *back != slot) else {
            return;
        };
        let changed = self.flows.times(back).changed;
        let Some(record) = self.flows.record_mut(back) else { return };
        if (env.clock as u32).wrapping_sub(changed) < FOLLOW_MS && record.packets > 0 {
            return;
        }
        let mut moved = false;
        for (kept, choice) in record.ecmp.iter_mut().zip(choices.ecmp) {
            if let Some(choice) = choice
                && *kept != choice
            {
                *kept = choice;
                moved = true;
            }
        }
        if !moved {
            return;
        }
        if let Some(ingress) = ingress_of(record) {
            self.derive(env, back, ingress);
        }
    }

    /// Follows TCP; `None` when there is nothing to follow.
    pub(super) fn track(&mut self, env: &Env, slot: u32, packet: &Packet, context: &Context) -> Option<TcpVerdict> {
        if context.ip.proto != TCP || context.ip.fragment != FragmentInfo::None {
            return None;
        }
        self.track_segment(env, slot, segment(packet.data(), context))
    }

    /// Follows a segment of a flow.
    pub(super) fn track_segment(&mut self, env: &Env, slot: u32, mut segment: Segment) -> Option<TcpVerdict> {
        let record = self.flows.record(slot)?;
        let back = record.reverse;
        if record.flags & (flag::SPLICED | flag::INITIATOR) == flag::SPLICED | flag::INITIATOR {
            // As the server knows it.
            segment.ack = segment.ack.wrapping_sub(self.flows.binding(slot).sequence_shift);
        }
        let mut this = record.tcp_direction();
        let mut other = self.flows.record(back).filter(|_| back != slot).map(|r| r.tcp_direction()).unwrap_or_default();
        let offloaded = record.flags & flag::OFFLOAD != 0;
        let established = TcpPhase::of(this.state, other.state) == TcpPhase::Established;
        let reset = segment.flags & tcp::flag::RST != 0;
        let begins_or_ends = segment.flags & (tcp::flag::SYN | tcp::flag::FIN) != 0;
        if offloaded && (reset || established && begins_or_ends) && self.is_in_hardware(slot) {
            // What was learnt from the few segments that came by here may be far behind by now. A reset answers data that has
            // passed in hardware, also after a FIN.
            this.forget_sequence();
            other.forget_sequence();
        }
        let verdict = tcp::track(&mut this, &mut other, &segment);
        let phase = TcpPhase::of(this.state, other.state);
        if let Some(record) = self.flows.record_mut(back).filter(|_| back != slot) {
            record.set_tcp_direction(other);
        }
        if let Some(record) = self.flows.record_mut(slot) {
            record.set_tcp_direction(this);
        }
        if offloaded && phase != TcpPhase::Established {
            self.offload_changed(slot);
        }
        if phase != TcpPhase::Opening {
            self.leave_half_open(slot);
            self.leave_half_open(back);
            self.file_connection(env, slot, back, phase);
        }
        Some(verdict)
    }

    /// A packet whose tuple is known from another vif, or from a tunnel: its source is reached through several ways, or by another
    /// one than before, and now it comes by this one.
    pub(super) fn moved(&mut self, env: &Env, slot: u32, context: &Context) -> bool {
        let ingress = context.ingress();
        let Some(vif) = env.snapshot.vif(ingress.vif) else { return false };
        let (no_rpf, is_host) = (vif.flags.no_rpf && context.outer.is_none(), vif.kind.is_punt());
        if no_rpf {
            return false;
        }
        let Ok(choices) = classify::check_source(&env.snapshot, &context.key, ingress) else { return false };
        // The node's own addresses are reached by any of the host's vifs: those are different speakers.
        if is_host && choices.ecmp.iter().all(Option::is_none) {
            return false;
        }
        let (is_half_open, holder) = (self.leave_half_open(slot), self.holder_of(slot));
        let is_set = self.flows.set_vif(slot, context.key.vif).is_ok();
        if is_half_open {
            self.enter_half_open(slot);
        }
        if !is_set {
            return false;
        }
        self.change_holder(slot, holder);
        if let Some(record) = self.flows.record_mut(slot) {
            // The lists of the new vif have their say.
            let program = std::mem::replace(&mut record.program, TO_BE_DERIVED);
            remember_ingress(record, ingress);
            self.release_program(program);
        }
        self.offload_changed(slot);
        self.lead_back(env, slot, choices);
        true
    }
}
