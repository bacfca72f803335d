//! Carrying out a program on a packet, with all that may come in its way.

use offload_rules::{DropReason, VifId, classify::Checks, flow::IPV6_MIN_MTU};

use super::{Outbox, TxKind, Worker, batch::varying, flows::flag, ingress::Context};
use crate::{
    exec::{self, Plan, Target},
    packet::{Packet, fragment, parse::Ip, rewrite},
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

    /// TTL, then size: what comes between the lists and the link layer (RFC 1812 §5.2.1.2). Gives back a packet that passes;
    /// another one is answered (RFC 1812 §5.3.1, RFC 1191 §4) and dropped.
    pub(super) fn pass_checks(
        &mut self,
        checks: Checks,
        packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) -> Option<Packet> {
        let ip = &context.ip;
        if ip.ttl <= checks.ttl {
            self.time_exceeded(&packet, context, now, out);
            self.drop_packet(context.vif, packet, DropReason::TtlExceeded, out);
            return None;
        }
        let in_fragments = if ip.version == 6 {
            // What came in fragments, and was whole for this node alone, goes on in fragments: no host can be told to make others.
            goes_whole(ip, checks.fragment_outer) || packet.is_reassembled() && checks.fragment
        } else {
            !ip.df && checks.fragment
        };
        if ip.total_len > checks.mtu && !in_fragments {
            self.refuse_size(&packet, context, checks.mtu, now, out);
            self.drop_packet(context.vif, packet, DropReason::PacketTooBig, out);
            return None;
        }
        Some(packet)
    }

    /// Answers what is too large. No IPv6 host is told less than 1280 (RFC 8200 §5, RFC 8201 §4): that an IPv6 packet of no more than
    /// that does not fit is a fault of the link, and said so (RFC 4443 §3.1, code 3).
    fn refuse_size(&mut self, packet: &Packet, context: &Context, mtu: u16, now: u64, out: &mut Outbox) {
        match context.ip.version {
            6 if context.ip.total_len <= IPV6_MIN_MTU => self.link_too_narrow(packet, context, now, out),
            6 => self.too_big(packet, context, mtu.max(IPV6_MIN_MTU), now, out),
            _ => self.too_big(packet, context, mtu, now, out),
        }
    }

    /// Carries out a plan, with all that may come in its way.
    fn carry_out(
        &mut self,
        plan: &Plan,
        packet: Packet,
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
        let fragment_outer = plan.fragment_outer.is_some();
        let checks = Checks { ttl: plan.ttl, mtu: plan.limit, fragment: plan.fragment, fragment_outer };
        let Some(mut packet) = self.pass_checks(checks, packet, context, now, out) else { return };
        let mut ip = context.ip;
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
        if let Some(mtu) = plan.fragment_outer.filter(|_| ip.version == 6) {
            return self.send_in_outer_fragments((plan, mtu), packet, (&ip, &varying), (kind, context.vif), out);
        }
        // Fragmented before encapsulation: RFC 2003 §3.1, so that only the last hop has to reassemble.
        let ttl = match rewrite::decrement_ttl(packet.data_mut(), plan.ttl) {
            Ok(ttl) => ttl,
            Err(reason) => return self.drop_packet(context.vif, packet, reason, out),
        };
        exec::shift(plan, &mut packet, &ip, of_flow.distance);
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            let id = self.fragment_id(&context.key);
            fragment::split_at_source(packet.data(), &ip, plan.limit, id, &mut out.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), &ip, plan.limit, &mut out.spare, &mut pieces)
        };
        if let Err(reason) = split {
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

    /// Sends an IPv6 packet whole whose outer packet is too large for the path: in fragments (RFC 2473 §7.1). Each outer packet has
    /// an identification of its own, not its flow's (RFC 6864 §4.3).
    pub(super) fn send_in_outer_fragments(
        &mut self,
        (plan, mtu): (&Plan, u16),
        mut packet: Packet,
        (ip, varying): (&Ip, &exec::Varying),
        (kind, blame): (TxKind, VifId),
        out: &mut Outbox,
    ) {
        let varying = exec::Varying { ip_id: self.flow_ip_id(), ..*varying };
        if plan.encap.is_none() {
            // The ESP packet is fragmented, by who seals it.
            return match exec::run(plan, &mut packet, ip, &varying) {
                Ok(()) => self.send_off(plan, (kind, blame), packet, out),
                Err(reason) => self.lose_on_way((kind, blame), packet, reason, out),
            };
        }
        let mut bare = plan.clone();
        let l2 = bare.l2.take();
        let pieces = exec::run(&bare, &mut packet, ip, &varying)
            .and_then(|()| fragment::outer(&packet, mtu, (l2.as_ref(), varying.pcp), &mut out.spare));
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

/// An IPv6 packet that goes on whole, whatever its outer packet needs.
const fn goes_whole(ip: &Ip, fragment_outer: bool) -> bool {
    fragment_outer && ip.total_len <= IPV6_MIN_MTU
}
