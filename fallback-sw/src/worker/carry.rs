//! Carrying out a program on a packet, with all that may come in its way.

use offload_rules::{DropReason, VifId, classify::Checks, flow::IPV6_MIN_MTU};

use super::{
    Outbox, TxKind, Worker,
    batch::{framing, operands},
    flows::flag,
    ingress::Context,
};
use crate::{
    exec::{self, Exception, Operands, Plan, Target},
    packet::{Packet, fragment, parse::Ip, rewrite},
};

/// What has decided on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecidedBy {
    /// The flow that it belongs to.
    Flow,
    /// A walk through the tables.
    Walk,
}

/// What a plan leaves to the flow, and who has the identifications of outer headers.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// All packets of a flow have those of the flow.
    ToFlow(Operands),
    /// A packet without a flow: each outer header has an identification of its own.
    ToPacket(Operands),
}

impl Bound {
    const fn operands(self) -> Operands {
        match self {
            Self::ToFlow(operands) | Self::ToPacket(operands) => operands,
        }
    }
}

/// An IP packet without anything before it, and the plan that it is to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stripped<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ip: &'a Ip,
    /// 802.1p priority of the frame that came in.
    pub(super) pcp: Option<u8>,
    pub(super) operands: Operands,
}

impl Worker {
    /// Carries out a flow's program on one of its packets.
    pub(super) fn run_flow(
        &mut self,
        slot: u32,
        packet: Packet,
        (context, by): (&Context, DecidedBy),
        now: u64,
        out: &mut Outbox,
    ) {
        let Some((record, binding)) = self.flows.record_and_binding(slot) else {
            return self.drop_packet(context.vif, packet, DropReason::InvalidNh, out);
        };
        // An error rides the flow but is none of its packets: it shows no answer and keeps nothing alive (RFC 5508 §4.3).
        if !context.ip.is_icmp_error {
            record.packets += 1;
            record.bytes += packet.len() as u64;
            record.last_seen = now as u32;
        }
        let Some(entry) = self.programs.get_mut(record.program) else {
            return self.drop_packet(context.vif, packet, DropReason::InvalidNh, out);
        };
        entry.packets += 1;
        match by {
            DecidedBy::Flow => entry.bytes += packet.len() as u64,
            DecidedBy::Walk => entry.walked += 1,
        }
        let plan = entry.plan.clone();
        let bound = Bound::ToFlow(operands(&plan, record, binding));
        if by == DecidedBy::Walk && matches!(plan.target, Target::Punt { .. }) {
            self.walked_to_host(context.key.vrf, packet.len());
        }
        if matches!(plan.target, Target::Drop(_)) && by == DecidedBy::Flow && !context.special {
            self.sample(slot, context, packet.data(), now);
        }
        self.carry_out(&plan, packet, context, bound, now, out);
    }

    /// Shows a packet to offloading, if it wants to see one.
    fn sample(&mut self, slot: u32, context: &Context, frame: &[u8], now: u64) {
        if self.flows.record(slot).is_some_and(|record| record.flags & flag::SAMPLE != 0) {
            self.offloads.sample(&mut self.flows, &self.snapshot, (slot, context), frame, now);
        }
    }

    /// Gives back a packet that passes the checks, if in fragments; another one is answered and dropped.
    pub(super) fn pass_checks(
        &mut self,
        checks: Checks,
        packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) -> Option<Packet> {
        match exec::check(&checks, &context.ip, packet.is_reassembled()) {
            Ok(()) | Err(Exception::Fragment | Exception::FragmentOuter { .. }) => return Some(packet),
            Err(Exception::TtlExpired) => self.refuse_ttl(packet, context, now, out),
            Err(Exception::TooBig) => self.refuse_size(packet, context, checks.size.mtu, now, out),
            // Only a plan says so.
            Err(Exception::Denied) => self.drop_packet(context.vif, packet, DropReason::FlowActionDrop, out),
        }
        None
    }

    /// Answers a packet whose TTL or hop limit is used up (RFC 1812 §5.3.1), and drops it.
    fn refuse_ttl(&mut self, packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        self.time_exceeded(&packet, context, now, out);
        self.drop_packet(context.vif, packet, DropReason::TtlExceeded, out);
    }

    /// Answers what is too large (RFC 1191 §4), and drops it. No IPv6 host is told less than 1280 (RFC 8200 §5, RFC 8201 §4): that an IPv6 packet of no more than
    /// that does not fit is a fault of the link, and said so (RFC 4443 §3.1, code 3).
    fn refuse_size(&mut self, packet: Packet, context: &Context, mtu: u16, now: u64, out: &mut Outbox) {
        match context.ip.version {
            6 if context.ip.total_len <= IPV6_MIN_MTU => self.link_too_narrow(&packet, context, now, out),
            6 => self.too_big(&packet, context, mtu.max(IPV6_MIN_MTU), now, out),
            _ => self.too_big(&packet, context, mtu, now, out),
        }
        self.drop_packet(context.vif, packet, DropReason::PacketTooBig, out);
    }

    /// Carries out a plan, with all that may come in its way.
    fn carry_out(
        &mut self,
        plan: &Plan,
        mut packet: Packet,
        context: &Context,
        bound: Bound,
        now: u64,
        out: &mut Outbox,
    ) {
        let kind = if matches!(plan.target, Target::Punt { .. }) { TxKind::Punted } else { TxKind::Forwarded };
        let (mut ip, framing, sender) = (context.ip, framing(context), (kind, context.vif));
        let exception = match exec::admit(plan, &ip, packet.is_reassembled()) {
            Ok(()) => {
                let operands = self.next_operands(plan, bound);
                return match exec::execute(plan, &mut packet, &mut ip, &framing, &operands) {
                    Ok(()) => self.send_off(plan, sender, packet, out),
                    Err(reason) => self.drop_packet(context.vif, packet, reason, out),
                };
            }
            Err(exception) => exception,
        };
        let outer_mtu = match exception {
            Exception::Denied => return self.drop_packet(context.vif, packet, DropReason::FlowActionDrop, out),
            Exception::TtlExpired => return self.refuse_ttl(packet, context, now, out),
            Exception::TooBig => return self.refuse_size(packet, context, plan.checks.size.mtu, now, out),
            Exception::Fragment => None,
            Exception::FragmentOuter { mtu } => Some(mtu),
        };
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &framing) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let stripped = Stripped { plan, ip: &ip, pcp: framing.pcp, operands: bound.operands() };
        match outer_mtu {
            None => self.send_in_fragments(&stripped, bound, packet, (kind, context), out),
            Some(mtu) => self.send_in_outer_fragments(&stripped, mtu, packet, sender, out),
        }
    }

    /// Sends a packet that is larger than the path takes: fragmented before encapsulation (RFC 2003 §3.1), so that only the last hop
    /// has to reassemble.
    fn send_in_fragments(
        &mut self,
        stripped: &Stripped<'_>,
        bound: Bound,
        mut packet: Packet,
        (mut kind, context): (TxKind, &Context),
        out: &mut Outbox,
    ) {
        let Stripped { plan, ip, pcp, operands } = *stripped;
        let limit = plan.checks.size.mtu;
        let ttl = match rewrite::decrement_ttl(packet.data_mut(), plan.checks.ttl) {
            Ok(ttl) => ttl,
            Err(reason) => return self.drop_packet(context.vif, packet, reason, out),
        };
        exec::shift(plan, &mut packet, ip, operands.sequence_shift);
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            let id = self.fragment_id(&context.key);
            fragment::split_at_source(packet.data(), ip, limit, id, &mut out.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), ip, limit, &mut out.spare, &mut pieces)
        };
        if let Err(reason) = split {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        out.recycle(packet);
        for mut piece in pieces {
            let operands = self.next_operands(plan, bound);
            if exec::wrap(plan, &mut piece, ip, ttl, pcp, &operands).is_ok() {
                if kind == TxKind::Originated {
                    self.counters.account.originated += 1;
                }
                self.send_off(plan, (kind, context.vif), piece, out);
                // The datagram was received once: the other pieces are the node's own.
                kind = TxKind::Originated;
            }
        }
    }

    /// Sends an IPv6 packet whole whose outer packet is too large for the path: in fragments (RFC 2473 §7.1). Each outer packet has
    /// an identification of its own, not its flow's (RFC 6864 §4.3).
    pub(super) fn send_in_outer_fragments(
        &mut self,
        stripped: &Stripped<'_>,
        mtu: u16,
        mut packet: Packet,
        (kind, blame): (TxKind, VifId),
        out: &mut Outbox,
    ) {
        let Stripped { plan, ip, pcp, operands } = *stripped;
        let operands = Operands { outer_id: self.flow_ip_id(), ..operands };
        if plan.encap.is_none() {
            // The ESP packet is fragmented, by who seals it.
            return match exec::run(plan, &mut packet, ip, pcp, &operands) {
                Ok(()) => self.send_off(plan, (kind, blame), packet, out),
                Err(reason) => self.lose_on_way((kind, blame), packet, reason, out),
            };
        }
        let mut bare = plan.clone();
        let l2 = bare.l2.take();
        let pieces = exec::run(&bare, &mut packet, ip, pcp, &operands)
            .and_then(|()| fragment::outer(&packet, mtu, (l2.as_ref(), pcp), &mut out.spare));
        match pieces {
            Ok(pieces) => {
                out.recycle(packet);
                self.send_pieces(pieces, kind, out, |worker, piece, kind, out| {
                    worker.send_off(plan, (kind, blame), piece, out);
                });
            }
            Err(reason) => self.lose_on_way((kind, blame), packet, reason, out),
        }
    }

    /// Sends the fragments of a packet: it was received, or made, once; the other ones are the node's own.
    pub(super) fn send_pieces(
        &mut self,
        pieces: Vec<Packet>,
        mut kind: TxKind,
        out: &mut Outbox,
        send: impl Fn(&mut Self, Packet, TxKind, &mut Outbox),
    ) {
        let own = (pieces.len() as u64).saturating_sub(1);
        self.counters.account.originated += own;
        for piece in pieces {
            send(self, piece, kind, out);
            kind = TxKind::Originated;
        }
    }

    /// The operands of the next frame.
    fn next_operands(&mut self, plan: &Plan, bound: Bound) -> Operands {
        match bound {
            Bound::ToFlow(operands) => operands,
            Bound::ToPacket(operands) => self.with_outer_id(plan, operands),
        }
    }

    /// With an identification that no other outer header has, if there is one at all.
    pub(super) fn with_outer_id(&mut self, plan: &Plan, operands: Operands) -> Operands {
        if plan.is_tunnel() { Operands { outer_id: self.next_ip_id(), ..operands } } else { operands }
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
        let tunnel_sport = self.config.entropy.unwrap_or_else(|| rewrite::entropy_port(context.key.spread() as u32));
        let bound = Bound::ToPacket(Operands { tunnel_sport, ..Operands::default() });
        self.carry_out(&plan, packet, context, bound, now, out);
    }
}
