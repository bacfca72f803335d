//! Carrying out a program on a packet, with all that may come in its way.

use offload_rules::DropReason;

use super::{Outbox, TxKind, Worker, batch::varying, flows::flag, ingress::Context};
use crate::{
    exec::{self, Plan, Target},
    packet::{Packet, fragment, rewrite},
};

/// How a packet came to run a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Its flow was there.
    Flow,
    /// The tables were walked for it.
    Walk,
}

/// What a plan needs to know of the flow.
#[derive(Debug, Clone, Copy)]
struct OfFlow {
    /// UDP source port of the tunnel.
    sport: u16,
    /// What spliced flows shift TCP's numbers by.
    distance: u32,
    /// IPv4 identification of outer headers; `None`: the packet belongs to no flow.
    ip_id: Option<u16>,
}

impl Worker {
    /// Carries out a flow's program on one of its packets.
    pub(super) fn run_flow(
        &mut self,
        slot: u32,
        packet: Packet,
        (context, way): (&Context, Way),
        now: u64,
        out: &mut Outbox,
    ) {
        let Some(record) = self.flows.record_mut(slot) else {
            return self.drop_packet(context.vif, packet, DropReason::InvalidNh, out);
        };
        // An error rides the flow but is none of its packets: it shows no answer and keeps nothing alive (RFC 5508 §4.3).
        if !context.ip.is_icmp_error {
            record.packets += 1;
            record.bytes += packet.len() as u64;
            record.last_seen = now as u32;
        }
        let of_flow = OfFlow { sport: record.tunnel_sport, distance: record.mark, ip_id: Some(record.ip_id) };
        let Some(entry) = self.programs.get_mut(record.program) else {
            return self.drop_packet(context.vif, packet, DropReason::InvalidNh, out);
        };
        entry.packets += 1;
        match way {
            Way::Flow => entry.bytes += packet.len() as u64,
            Way::Walk => entry.walked += 1,
        }
        let plan = entry.plan.clone();
        if way == Way::Walk && matches!(plan.target, Target::Punt { .. }) {
            self.walked_to_host(context.key.vrf, packet.len());
        }
        if matches!(plan.target, Target::Drop(_)) && way == Way::Flow && !context.special {
            self.sample(slot, context, packet.data(), now);
        }
        self.carry_out(&plan, packet, context, of_flow, now, out);
    }

    /// Shows a packet to offloading, if it wants to see one.
    fn sample(&mut self, slot: u32, context: &Context, frame: &[u8], now: u64) {
        if self.flows.record(slot).is_some_and(|record| record.flags & flag::SAMPLE != 0) {
            self.offloads.sample(&mut self.flows, &self.snapshot, (slot, context), frame, now);
        }
    }

    /// Carries out a plan, with all that may come in its way.
    fn carry_out(
        &mut self,
        plan: &Plan,
        mut packet: Packet,
        context: &Context,
        of_flow: OfFlow,
        now: u64,
        out: &mut Outbox,
    ) {
        let kind = match plan.target {
            Target::Output { .. } | Target::Seal => TxKind::Forwarded,
            Target::Punt { .. } => TxKind::Punted,
            Target::Drop(_) => return self.drop_packet(context.vif, packet, DropReason::FlowActionDrop, out),
        };
        let mut ip = context.ip;
        if ip.ttl <= plan.ttl {
            self.time_exceeded(&packet, context, now, out);
            return self.drop_packet(context.vif, packet, DropReason::TtlExceeded, out);
        }
        if ip.total_len > plan.limit && (ip.df || !plan.fragment) {
            self.too_big(&packet, context, plan.limit, now, out);
            return self.drop_packet(context.vif, packet, DropReason::PacketTooBig, out);
        }
        let varying = exec::Varying { shift: of_flow.distance, ..varying(context, 0, of_flow.sport) };
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &varying) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        if ip.total_len <= plan.limit {
            let varying = exec::Varying { ip_id: self.outer_id(plan, of_flow), ..varying };
            return match exec::run(plan, &mut packet, &ip, &varying) {
                Ok(()) => self.send_off(plan, (kind, context.vif), packet, out),
                Err(reason) => self.drop_packet(context.vif, packet, reason, out),
            };
        }
        // Fragmented before encapsulation: RFC 2003 §3.1, so that only the last hop has to reassemble.
        let ttl = match rewrite::decrement_ttl(packet.data_mut(), plan.ttl) {
            Ok(ttl) => ttl,
            Err(reason) => return self.drop_packet(context.vif, packet, reason, out),
        };
        exec::shift(plan, &mut packet, &ip, of_flow.distance);
        let mut pieces = Vec::new();
        if let Err(reason) = fragment::split(packet.data(), &ip, plan.limit, &mut out.spare, &mut pieces) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        out.recycle(packet);
        let mut kind = kind;
        for mut piece in pieces {
            let varying = exec::Varying { ip_id: self.outer_id(plan, of_flow), ..varying };
            if exec::wrap(plan, &mut piece, &ip, ttl, &varying).is_ok() {
                if kind == TxKind::Originated {
                    self.counters.account.originated += 1;
                }
                self.send_off(plan, (kind, context.vif), piece, out);
                // The datagram was received once: the other pieces are the node's own.
                kind = TxKind::Originated;
            }
        }
    }

    /// Identification of the next outer header.
    fn outer_id(&mut self, plan: &Plan, of_flow: OfFlow) -> u16 {
        match of_flow.ip_id {
            Some(id) => id,
            None if plan.is_tunnel() => self.next_ip_id(),
            None => 0,
        }
    }

    /// Carries out a program on one packet without keeping it.
    pub(super) fn run_once(
        &mut self,
        program: offload_rules::flow::Program,
        packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) {
        for (vrf, what) in &program.passes {
            self.counters.pass(*vrf, *what, 1);
        }
        let plan = Plan::new(&program, &self.snapshot);
        if matches!(plan.target, Target::Punt { .. }) {
            self.walked_to_host(context.key.vrf, packet.len());
        }
        let sport = self.config.entropy.unwrap_or_else(|| rewrite::entropy_port(context.key.spread() as u32));
        self.carry_out(&plan, packet, context, OfFlow { sport, distance: 0, ip_id: None }, now, out);
    }
}
