//! Executing a plan on a packet that may not run it as it is: fragments, ICMP errors.

use offload_rules::{
    DropReason,
    classify::Checks,
    flow::{IPV6_MIN_MTU, Program},
};

use super::{
    context::Context,
    decider::Decider,
    env::IpIds,
    exit::{Exit, exit},
    flag,
    hit::operands,
    outcome::{Emit, Outcome},
    tx::TxKind,
};
use crate::{
    exec::{self, Exception, Operands, Plan, Target},
    packet::{Packet, fragment, icmp::IcmpError, parse::Ip, rewrite},
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

    /// The operands of the next frame.
    fn next(self, plan: &Plan, ip_ids: &mut IpIds) -> Operands {
        match self {
            Self::ToPacket(operands) if plan.is_tunnel() => Operands { outer_id: ip_ids.next(), ..operands },
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

/// The kind of a received packet that a plan sends.
const fn kind_of(plan: &Plan) -> TxKind {
    if matches!(plan.target, Target::Punt { .. }) { TxKind::Punted } else { TxKind::Forwarded }
}

/// Sends an IPv6 packet whole whose outer packet is too large for the path: in fragments (RFC 2473 §7.1). Each outer packet has an
/// identification of its own, not its flow's (RFC 6864 §4.3).
pub(super) fn send_in_outer_fragments(
    stripped: &Stripped<'_>,
    mtu: u16,
    packet: &mut Packet,
    by: Exit,
    ip_ids: &mut IpIds,
    emit: &mut Emit<'_>,
) -> Outcome {
    let Stripped { plan, ip, pcp, operands } = *stripped;
    let operands = Operands { outer_id: ip_ids.next_of_flow(), ..operands };
    if plan.encap.is_none() {
        // The ESP packet is fragmented, by who seals it.
        return match exec::run(plan, packet, ip, pcp, &operands) {
            Ok(()) => exit(plan, by),
            Err(reason) => by.drop(reason),
        };
    }
    let mut bare = plan.clone();
    let l2 = bare.l2.take();
    let pieces = exec::run(&bare, packet, ip, pcp, &operands)
        .and_then(|()| fragment::outer(packet, mtu, (l2.as_ref(), pcp), emit.spare));
    match pieces {
        Ok(pieces) => {
            let sent = emit.split(packet, pieces, by.kind, |kind| exit(plan, Exit { kind, ..by }));
            sent.unwrap_or_else(|| by.drop(DropReason::InvalidPacket))
        }
        Err(reason) => by.drop(reason),
    }
}

impl Decider<'_> {
    /// Carries out a flow's program on one of its packets.
    pub(super) fn run_flow(&mut self, slot: u32, packet: &mut Packet, context: &Context, by: DecidedBy) -> Outcome {
        let Some((record, binding)) = self.state.flows.record_and_binding(slot) else {
            return Outcome::drop(context.vif, DropReason::InvalidNh);
        };
        // An error rides the flow but is none of its packets: it shows no answer and keeps nothing alive (RFC 5508 §4.3).
        if !context.ip.is_icmp_error {
            record.packets += 1;
            record.bytes += packet.len() as u64;
            record.last_seen = self.env.clock as u32;
        }
        let Some(entry) = self.state.programs.get_mut(record.program) else {
            return Outcome::drop(context.vif, DropReason::InvalidNh);
        };
        entry.packets += 1;
        match by {
            DecidedBy::Flow => entry.bytes += packet.len() as u64,
            DecidedBy::Walk => entry.walked += 1,
        }
        let plan = entry.plan.clone();
        let bound = Bound::ToFlow(operands(&plan, record, binding));
        if by == DecidedBy::Walk && matches!(plan.target, Target::Punt { .. }) {
            self.counters.walked_to_host(context.key.vrf, packet.len());
        }
        if matches!(plan.target, Target::Drop(_)) && by == DecidedBy::Flow && !context.special {
            self.sample(slot, context, packet.data());
        }
        self.carry_out(&plan, packet, context, bound)
    }

    /// Shows a packet to offloading, if it wants to see one.
    fn sample(&mut self, slot: u32, context: &Context, frame: &[u8]) {
        if self.state.flows.record(slot).is_some_and(|record| record.flags & flag::SAMPLE != 0) {
            self.state.sample(self.env, slot, context, frame);
        }
    }

    /// Carries out a program on one packet without keeping it.
    pub(super) fn run_once(&mut self, program: &Program, packet: &mut Packet, context: &Context) -> Outcome {
        for (vrf, what) in &program.passes {
            self.counters.pass(*vrf, *what, 1);
        }
        let plan = Plan::new(program, &self.env.snapshot);
        if matches!(plan.target, Target::Punt { .. }) {
            self.counters.walked_to_host(context.key.vrf, packet.len());
        }
        let entropy = || rewrite::entropy_port(context.key.spread() as u32);
        let tunnel_sport = self.env.config.entropy.unwrap_or_else(entropy);
        let bound = Bound::ToPacket(Operands { tunnel_sport, ..Operands::default() });
        self.carry_out(&plan, packet, context, bound)
    }

    /// `None`: the packet passes the checks, if in fragments. Another one is answered and dropped.
    pub(super) fn fails_checks(&mut self, checks: Checks, packet: &Packet, context: &Context) -> Option<Outcome> {
        match exec::check(&checks, &context.ip, packet.is_reassembled()) {
            Ok(()) | Err(Exception::Fragment | Exception::FragmentOuter { .. }) => None,
            Err(Exception::TtlExpired) => Some(self.refuse_ttl(packet, context)),
            Err(Exception::TooBig) => Some(self.refuse_size(packet, context, checks.size.mtu)),
            // Only a plan says so.
            Err(Exception::Denied) => Some(Outcome::drop(context.vif, DropReason::FlowActionDrop)),
        }
    }

    /// Answers a packet whose TTL or hop limit is used up with "time exceeded" (RFC 1812 §5.3.1, RFC 4443 §3.3), and drops it.
    fn refuse_ttl(&mut self, packet: &Packet, context: &Context) -> Outcome {
        self.responder().icmp_error(packet, context, IcmpError::TimeExceeded);
        Outcome::drop(context.vif, DropReason::TtlExceeded)
    }

    /// Answers what is too large with "fragmentation needed" (RFC 1191 §4) or "packet too big" (RFC 4443 §3.2), and drops it. No IPv6
    /// host is told less than 1280 (RFC 8200 §5, RFC 8201 §4): that an IPv6 packet of no more than that does not fit is a fault of the
    /// link, and said so with "address unreachable" (RFC 4443 §3.1, code 3).
    fn refuse_size(&mut self, packet: &Packet, context: &Context, mtu: u16) -> Outcome {
        let error = match context.ip.version {
            6 if context.ip.total_len <= IPV6_MIN_MTU => IcmpError::HostUnreachable,
            6 => IcmpError::TooBig { mtu: mtu.max(IPV6_MIN_MTU) },
            _ => IcmpError::TooBig { mtu },
        };
        self.responder().icmp_error(packet, context, error);
        Outcome::drop(context.vif, DropReason::PacketTooBig)
    }

    /// Carries out a plan, with all that may come in its way.
    fn carry_out(&mut self, plan: &Plan, packet: &mut Packet, context: &Context, bound: Bound) -> Outcome {
        let by = Exit { kind: kind_of(plan), blame: context.vif };
        let (mut ip, framing) = (context.ip, context.framing());
        let exception = match exec::admit(plan, &ip, packet.is_reassembled()) {
            Ok(()) => {
                let operands = bound.next(plan, &mut self.state.ip_ids);
                return match exec::execute(plan, packet, &mut ip, &framing, &operands) {
                    Ok(()) => exit(plan, by),
                    Err(reason) => by.drop(reason),
                };
            }
            Err(exception) => exception,
        };
        let outer_mtu = match exception {
            Exception::Denied => return by.drop(DropReason::FlowActionDrop),
            Exception::TtlExpired => return self.refuse_ttl(packet, context),
            Exception::TooBig => return self.refuse_size(packet, context, plan.checks.size.mtu),
            Exception::Fragment => None,
            Exception::FragmentOuter { mtu } => Some(mtu),
        };
        if let Err(reason) = exec::strip(packet, &mut ip, &framing) {
            return by.drop(reason);
        }
        let stripped = Stripped { plan, ip: &ip, pcp: framing.pcp, operands: bound.operands() };
        match outer_mtu {
            None => self.send_in_fragments(&stripped, bound, packet, context, by),
            Some(mtu) => send_in_outer_fragments(&stripped, mtu, packet, by, &mut self.state.ip_ids, &mut self.emit),
        }
    }

    /// Sends a packet that is larger than the path takes: fragmented before encapsulation (RFC 2003 §3.1), so that only the last hop
    /// has to reassemble.
    fn send_in_fragments(
        &mut self,
        stripped: &Stripped<'_>,
        bound: Bound,
        packet: &mut Packet,
        context: &Context,
        by: Exit,
    ) -> Outcome {
        let Stripped { plan, ip, pcp, operands } = *stripped;
        let (limit, ip_ids) = (plan.checks.size.mtu, &mut self.state.ip_ids);
        let ttl = match rewrite::decrement_ttl(packet.data_mut(), plan.checks.ttl) {
            Ok(ttl) => ttl,
            Err(reason) => return by.drop(reason),
        };
        exec::shift(plan, packet, ip, operands.sequence_shift);
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            let id = ip_ids.of_fragments(&context.key);
            fragment::split_at_source(packet.data(), ip, limit, id, self.emit.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), ip, limit, self.emit.spare, &mut pieces)
        };
        let wrapped = split.and_then(|()| {
            let wrap = |piece: &mut Packet| exec::wrap(plan, piece, ip, ttl, pcp, &bound.next(plan, ip_ids));
            pieces.iter_mut().try_for_each(wrap)
        });
        if let Err(reason) = wrapped {
            return by.drop(reason);
        }
        let sent = self.emit.split(packet, pieces, by.kind, |kind| exit(plan, Exit { kind, ..by }));
        sent.unwrap_or_else(|| by.drop(DropReason::InvalidPacket))
    }
}
