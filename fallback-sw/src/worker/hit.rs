//! Packets that run their flow's program at once.

use offload_rules::flow::{SequenceShift, tcp::Segment};

use super::{
    context::Context,
    counters::{Ledger, Traffic},
    env::Env,
    exit::exit_received,
    flag,
    flow_state::FlowState,
    outcome::Outcome,
};
use crate::{
    exec::{self, Operands, Plan},
    flow_table::{BindingAt, Record},
    packet::Packet,
};

const TCP: u8 = 6;

/// Why a packet is decided on by `slow.rs` and does not run a plan at once. Whether it counts as a hit or for the slow path is another
/// matter: it is a hit where it has a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlowPath {
    /// No flow has its key.
    Miss,
    /// It needs more than its flow's program whatever that is (a fragment, an ICMP error, an echo request, TCP flags), or has no flow and no
    /// decision that is kept.
    /// Its flow, if it has one, is looked up anew.
    Special,
    /// The flow has no program, or something that its program depends on has changed.
    StaleProgram,
    /// It comes out of another tunnel, or by another underlay vif, than the last packet of its flow.
    IngressMoved,
    /// TCP's state machine has to see it.
    TcpControl,
    /// The program says so.
    Plan(exec::Exception),
}

impl From<exec::Exception> for SlowPath {
    fn from(exception: exec::Exception) -> Self {
        Self::Plan(exception)
    }
}

/// Where a packet's flow was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) slot: u32,
    /// By the NIC's mark.
    pub(super) marked: bool,
}

/// Is the packet one of this record's flow, and has no change concerned the flow by its addresses? Whether its program is current,
/// the program tells.
///
/// # Errors
/// [`SlowPath::Miss`], [`SlowPath::StaleProgram`], [`SlowPath::IngressMoved`].
#[inline(always)]
fn admit(record: &Record, context: &Context) -> Result<(), SlowPath> {
    // An earlier packet of the batch may have changed the table.
    if !crate::flow_table::same_key(&record.key, &context.key) {
        return Err(SlowPath::Miss);
    }
    if record.flags & flag::STALE != 0 {
        return Err(SlowPath::StaleProgram);
    }
    if comes_as_before(record, context) { Ok(()) } else { Err(SlowPath::IngressMoved) }
}

/// Does the packet come out of the tunnel that the last one of its flow came out of, by the same underlay vif?
#[inline(always)]
pub(super) fn comes_as_before(record: &Record, context: &Context) -> bool {
    context
        .outer
        .is_none_or(|outer| record.rpf_source == outer.source.octets() && record.underlay_vif == context.vif.get())
}

impl FlowState {
    /// Runs the program of a flow on an ordinary packet.
    ///
    /// # Errors
    /// Why the packet, which is as it was, takes the slow path.
    #[inline]
    pub(super) fn hit(
        &mut self,
        env: &Env,
        ledger: &mut Ledger,
        found: Found,
        context: &mut Context,
        packet: &mut Packet,
    ) -> Result<Outcome, SlowPath> {
        let slot = found.slot;
        if !self.following.is_done() && self.catches_up(env, slot) {
            return Err(SlowPath::StaleProgram);
        }
        let Some((record, binding)) = self.flows.record_and_binding(slot) else { return Err(SlowPath::Miss) };
        admit(record, context)?;
        let Some(entry) = self.programs.get_mut(record.program).filter(|entry| entry.is_current()) else {
            return Err(SlowPath::StaleProgram);
        };
        let plan = &entry.plan;
        exec::admit(plan, &context.ip, packet.is_reassembled())?;
        let operands = operands(plan, record, binding);
        if context.ip.proto == TCP {
            let mut segment = segment(packet.data(), context);
            if plan.shift == Some(SequenceShift::Acknowledgement) {
                segment.ack = segment.ack.wrapping_sub(operands.sequence_shift);
            }
            let mut direction = record.tcp_direction();
            if !direction.on_data(&segment) {
                return Err(SlowPath::TcpControl);
            }
            record.set_tcp_direction(direction);
        }
        record.packets += 1;
        record.bytes += packet.len() as u64;
        record.last_seen = env.clock as u32;
        entry.packets += 1;
        entry.bytes += packet.len() as u64;
        if found.marked {
            entry.partial.add(Traffic { packets: 1, bytes: packet.len() as u64 });
        }
        if record.flags & flag::SAMPLE != 0 {
            self.offloads.sample(&mut self.flows, env, slot, context, packet.data());
        }
        ledger.hit(1);
        let framing = context.framing();
        Ok(match exec::execute(plan, packet, &mut context.ip, &framing, &operands) {
            Ok(()) => exit_received(plan, context.vif),
            Err(reason) => Outcome::drop(context.vif, reason),
        })
    }

    /// Shows a packet of a flow to offloading.
    pub(super) fn sample(&mut self, env: &Env, slot: u32, context: &Context, frame: &[u8]) {
        self.offloads.sample(&mut self.flows, env, slot, context, frame);
    }
}

/// What a plan leaves to a flow.
#[inline]
pub(super) fn operands(plan: &Plan, record: &Record, binding: BindingAt<'_>) -> Operands {
    Operands {
        tunnel_sport: record.tunnel_sport,
        outer_id: record.ip_id,
        sequence_shift: if plan.shift.is_some() { binding.get().sequence_shift } else { 0 },
    }
}

/// The TCP segment of a packet whose header the parser has found whole.
#[inline]
pub(super) fn segment(frame: &[u8], context: &Context) -> Segment {
    let at = usize::from(context.l3) + usize::from(context.ip.header_len);
    let Some(header) = frame.get(at..).and_then(|l4| l4.first_chunk::<20>()) else {
        return Segment { flags: 0, seq: 0, ack: 0, payload_len: 0 };
    };
    let header_len = u32::from(header[12] >> 4) * 4;
    Segment {
        flags: context.ip.tcp_flags,
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        payload_len: u32::from(context.ip.payload_len()).saturating_sub(header_len),
    }
}
