//! Packets that need more than their flow's program: the first of a flow, TCP control, fragments, ICMP errors, whatever is too
//! large or too old, and what no policy asks to look up.

use offload_rules::{
    DropReason, VrfId,
    classify::{self, Checks, FragmentVerdict, Inquiry, Role, Start, Verdict},
    flow::{
        Choices,
        tcp::{self, Segment, TcpPhase, TcpVerdict},
    },
    forwarding::is_link_local,
};

use super::{
    Delivery, Head, NeighbourKey, Origin, Outbox, TO_BE_DERIVED, Tenant, Worker,
    admit::comes_as_before,
    batch::segment,
    carry::DecidedBy,
    decisions::Made,
    flows::{Derived, flag, remember_ingress},
    fragments::{Fate, FragmentLimits},
    held::HoldLimits,
    ingress::{Context, Path, Sorted},
    splice::SpliceState,
};
use crate::{
    exec,
    packet::{
        Packet,
        parse::{self, FragmentInfo},
    },
};

const TCP: u8 = 6;
/// A flow's ECMP member follows the other direction at most once in this many milliseconds, so that two ends which follow each
/// other come to rest.
const FOLLOW_MS: u32 = 1000;

impl Worker {
    /// Decides on one packet, whatever it is, and carries it out.
    pub(super) fn slow(&mut self, mut packet: Packet, context: &Context, hash: u64, now: u64, out: &mut Outbox) {
        if context.ip.is_icmp_error {
            match self.take_outer_error(packet, context, out) {
                Some(other) => packet = other,
                None => return,
            }
        }
        match context.path {
            Path::Walk(start) => self.walk(packet, context, start, now, out),
            Path::Reassemble => self.reassemble(packet, context, now, out),
            Path::Flow if context.lacks_head() => {
                // Whose head it is, others may follow: a forged one must not speak for them.
                match classify::check_arrival(&self.snapshot, &inquiry(context, Start::Route)) {
                    Ok(()) => self.fragment(packet, context, now, out),
                    Err(reason) => self.refuse_arrival(packet, context, reason, now, out),
                }
            }
            Path::Flow => match self.flows.find(hash, &context.key) {
                Some(slot) => self.slow_flow(slot, packet, context, hash, now, out),
                None => self.unknown(packet, context, hash, now, out),
            },
        }
    }

    /// Decides on a packet that has the key of the flow in this slot, and is no fragment without its head.
    pub(super) fn slow_flow(
        &mut self,
        slot: u32,
        packet: Packet,
        context: &Context,
        hash: u64,
        now: u64,
        out: &mut Outbox,
    ) {
        if self.asks_back(slot, context) {
            return self.walk(packet, context, Start::Route, now, out);
        }
        self.known(slot, packet, context, hash, now, out);
    }

    /// An echo request from the side that was asked itself, with the same identifier: it has the key of that side's replies, but
    /// the lists have not judged it.
    fn asks_back(&self, slot: u32, context: &Context) -> bool {
        let asks = matches!((context.key.version, context.key.proto, context.service_port()), (4, 1, 8) | (6, 58, 128));
        asks && self.flows.record(slot).is_some_and(|record| record.flags & flag::INITIATOR == 0)
    }

    /// A packet of a known flow.
    fn known(&mut self, slot: u32, packet: Packet, context: &Context, hash: u64, now: u64, out: &mut Outbox) {
        let ingress = context.ingress();
        if context.ip.is_icmp_error && self.strays(slot, context) {
            return self.drop_packet(context.vif, packet, DropReason::LinkLocal, out);
        }
        if let Err(reason) = self.follow(slot, context, now) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let splice = self.splice_state(slot, &packet, context);
        if matches!(splice, SpliceState::TooEarly | SpliceState::OldConnection) {
            if splice == SpliceState::OldConnection {
                self.refuse_old(slot, &packet, context, now, out);
            }
            return self.drop_packet(context.vif, packet, DropReason::SynCookiePending, out);
        }
        if let Some(verdict) = self.track(slot, &packet, context) {
            match verdict {
                TcpVerdict::Accept => {}
                TcpVerdict::ResetIgnored => {
                    return self.drop_packet(context.vif, packet, DropReason::TcpResetIgnored, out);
                }
                TcpVerdict::InvalidFlags => {
                    return self.drop_packet(context.vif, packet, DropReason::TcpInvalidFlags, out);
                }
                TcpVerdict::Reopen => {
                    self.remove_flow(slot);
                    return self.unknown(packet, context, hash, now, out);
                }
            }
        }
        if self.is_stale_denial(slot) {
            // A denied flow has no other direction: what may be permitted now begins anew.
            self.remove_flow(slot);
            return self.unknown(packet, context, hash, now, out);
        }
        match self.refresh(slot, ingress, now) {
            Derived::Runs => {}
            Derived::Needs(neighbour, checks) => {
                self.walks(context.key.vrf, packet.len());
                return self.hold(neighbour, checks, packet, context, now, out);
            }
            Derived::Refused(reason) => {
                self.walks(context.key.vrf, packet.len());
                self.remove_flow(slot);
                self.discard_in(context.key.vrf);
                return self.drop_packet(context.vif, packet, reason, out);
            }
        }
        self.counters.account.flow_hits += 1;
        if splice == SpliceState::Connected {
            return self.connect(slot, packet, context, now, out);
        }
        self.run_flow(slot, packet, (context, DecidedBy::Flow), now, out);
    }

    /// An ICMP error rides the flow that it quotes, whatever its own addresses: a link-local one ends at this node.
    fn strays(&self, slot: u32, context: &Context) -> bool {
        if !is_link_local(context.ip.source()) && !is_link_local(context.ip.destination()) {
            return false;
        }
        let program = self.flows.record(slot).and_then(|record| self.programs.get(record.program));
        let ends_here = program.is_some_and(|entry| matches!(entry.plan.target, exec::Target::Punt { .. }));
        context.outer.is_some() || !ends_here
    }

    /// A packet that comes out of another tunnel or underlay interface than the last one of its flow: may it, and which way does
    /// the other direction go from now on?
    fn follow(&mut self, slot: u32, context: &Context, now: u64) -> Result<(), DropReason> {
        if self.flows.record(slot).is_none_or(|record| comes_as_before(record, context)) {
            return Ok(());
        }
        let ingress = context.ingress();
        let choices = classify::check_source(&self.snapshot, &context.key, ingress)?;
        if let Some(record) = self.flows.record_mut(slot) {
            remember_ingress(record, ingress);
        }
        self.offload_changed(slot);
        self.lead_back(slot, choices, now);
        Ok(())
    }

    /// Moves the other direction of a flow to the ECMP slots that lead back where this direction came from.
    fn lead_back(&mut self, slot: u32, choices: Choices, now: u64) {
        let Some(back) = self.flows.record(slot).map(|record| record.reverse).filter(|back| *back != slot) else {
            return;
        };
        let changed = self.flows.times(back).changed;
        let Some(record) = self.flows.record_mut(back) else { return };
        if (now as u32).wrapping_sub(changed) < FOLLOW_MS && record.packets > 0 {
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
        if let Some(ingress) = super::flows::ingress_of(record) {
            self.derive(back, ingress, now);
        }
    }

    /// Follows TCP; `None` when there is nothing to follow.
    pub(super) fn track(&mut self, slot: u32, packet: &Packet, context: &Context) -> Option<TcpVerdict> {
        if context.ip.proto != TCP || context.ip.fragment != FragmentInfo::None {
            return None;
        }
        self.track_segment(slot, segment(packet.data(), context))
    }

    /// Follows a segment of a flow.
    pub(super) fn track_segment(&mut self, slot: u32, mut segment: Segment) -> Option<TcpVerdict> {
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
        }
        if phase != TcpPhase::Opening {
            self.file_connection(slot, back, phase);
        }
        Some(verdict)
    }

    /// The first packet of a flow, or one that belongs to none.
    fn unknown(&mut self, packet: Packet, context: &Context, hash: u64, now: u64, out: &mut Outbox) {
        let is_error = context.ip.is_icmp_error && context.ip.fragment == FragmentInfo::None;
        if !is_error
            && let Some(slot) = self.flows.find_sibling(hash, &context.key)
            && self.moved(slot, context, now)
        {
            return self.known(slot, packet, context, hash, now, out);
        }
        self.walks(context.key.vrf, packet.len());
        if is_error {
            return self.unmatched_error(packet, context, now, out);
        }
        if is_fragmented_error(context) {
            // What it quotes is in pieces: no flow vouches for it, and it must not make one.
            return self.drop_packet(context.vif, packet, DropReason::IcmpErrorUnmatched, out);
        }
        let cookie = match self.cookie_of(&packet, context, now) {
            Ok(cookie) => cookie,
            Err(reason) => return self.drop_packet(context.vif, packet, reason, out),
        };
        let gives_cookie = match self.admit(&packet, context, now) {
            Ok(()) => false,
            Err(DropReason::HalfOpenLimit) if self.gives_cookies(context) => true,
            Err(reason) => return self.drop_packet(context.vif, packet, reason, out),
        };
        let inquiry = inquiry(context, Start::Route);
        // Other packets than those of a flow that is made as it is need the program itself.
        let vacancy = if gives_cookie || cookie.is_some() || begins_nothing(context) {
            None
        } else {
            match self.recall(&inquiry, VrfId::default()) {
                Ok(kept) => return self.begin(Made::Kept(kept), None, packet, context, now, out),
                Err(vacancy) => vacancy,
            }
        };
        let (verdict, basis) = self.walk_for_flow(&inquiry, vacancy);
        match verdict {
            Verdict::Forward(decision) if gives_cookie => {
                self.give_cookie(&decision.program, packet, context, now, out);
            }
            Verdict::Forward(decision) if begins_nothing(context) => {
                self.run_once(decision.program, packet, context, now, out);
            }
            Verdict::Forward(decision) => {
                self.begin(Made::Walked(decision, basis), cookie, packet, context, now, out);
            }
            Verdict::AnswerEcho => self.answer_echo(packet, context, now, out),
            Verdict::Resolve { vif, target, checks } => {
                self.hold((vif, target), checks, packet, context, now, out);
            }
            Verdict::Drop { reason, acl } => {
                if acl.is_some() && !is_echo_reply(context) {
                    let denial = classify::drop_program(&self.snapshot, &inquiry, reason);
                    self.install_denied(context, denial, now);
                }
                self.discard(packet, context, reason, now, out);
            }
        }
    }

    /// A packet whose tuple is known from another vif, or from a tunnel: its source is reached through several ways, or by another
    /// one than before, and now it comes by this one.
    fn moved(&mut self, slot: u32, context: &Context, now: u64) -> bool {
        let ingress = context.ingress();
        let Some(vif) = self.snapshot.vif(ingress.vif) else { return false };
        let (no_rpf, is_host) = (vif.flags.no_rpf && context.outer.is_none(), vif.kind.is_punt());
        if no_rpf {
            return false;
        }
        let Ok(choices) = classify::check_source(&self.snapshot, &context.key, ingress) else { return false };
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
        self.lead_back(slot, choices, now);
        true
    }

    /// May this packet begin a flow at all?
    fn admit(&mut self, packet: &Packet, context: &Context, now: u64) -> Result<(), DropReason> {
        let Some(vif) = self.snapshot.vif(context.vif) else { return Err(DropReason::InvalidIf) };
        if context.outer.is_none() {
            if vif.flags.drop_new_flows {
                return Err(DropReason::NewFlowsRefused);
            }
            if !vif.kind.is_punt() && self.snapshot.is_own_tunnel_source(context.key.source()) {
                return Err(DropReason::OwnSource);
            }
        }
        let whole_tcp = context.ip.proto == TCP && context.ip.fragment == FragmentInfo::None;
        if whole_tcp && !segment(packet.data(), context).flags_are_valid() {
            return Err(DropReason::TcpInvalidFlags);
        }
        let settings = self.snapshot.settings();
        if is_first_syn(context) {
            // Records of this worker; a half-open flow takes two.
            let share = u64::from(self.record_limit()) * u64::from(settings.half_open_percent_per_vif) / 200;
            let open = self.half_open(Tenant::of(&context.key));
            if u64::from(open) >= share.max(1) {
                return Err(DropReason::HalfOpenLimit);
            }
        }
        // Last: what makes no flow does not use up the rate of new ones.
        let workers = u32::try_from(self.config.workers.max(1)).unwrap_or(1);
        let rate = settings.new_flow_rate_per_vif;
        if rate > 0 && !self.new_flow_rate.allow(Tenant::of(&context.key), rate.div_ceil(workers), now) {
            return Err(DropReason::NewFlowRate);
        }
        Ok(())
    }

    /// A packet that no policy asks to look up: walked by itself.
    fn walk(&mut self, packet: Packet, context: &Context, start: Start, now: u64, out: &mut Outbox) {
        let verdict = if context.lacks_head() {
            match classify::classify_fragment(&self.snapshot, &inquiry(context, start)) {
                FragmentVerdict::Decided(verdict) => verdict,
                FragmentVerdict::ForNode if context.outer.is_none() => {
                    self.walks(context.key.vrf, packet.len());
                    return self.reassemble(packet, context, now, out);
                }
                // Walked when the head has told.
                FragmentVerdict::ForNode | FragmentVerdict::NeedsHead => {
                    return self.fragment(packet, context, now, out);
                }
            }
        } else {
            self.walk_and_keep(context, &inquiry(context, start))
        };
        self.walks(context.key.vrf, packet.len());
        if context.outer.is_none()
            && self.snapshot.is_own_tunnel_source(context.key.source())
            && !self.snapshot.vif(context.vif).is_some_and(|vif| vif.kind.is_punt())
        {
            return self.drop_packet(context.vif, packet, DropReason::OwnSource, out);
        }
        if context.ip.fragment != FragmentInfo::None && context.outer.is_none() && is_for_node(&verdict) {
            return self.reassemble(packet, context, now, out);
        }
        match verdict {
            Verdict::Forward(decision) => self.run_once(decision.program, packet, context, now, out),
            Verdict::AnswerEcho => self.answer_echo(packet, context, now, out),
            Verdict::Resolve { vif, target, checks } => {
                self.hold((vif, target), checks, packet, context, now, out);
            }
            Verdict::Drop { reason, .. } => {
                self.discard(packet, context, reason, now, out);
            }
        }
    }

    /// A fragment that may not arrive here.
    fn refuse_arrival(&mut self, packet: Packet, context: &Context, reason: DropReason, now: u64, out: &mut Outbox) {
        self.walks(context.key.vrf, packet.len());
        self.discard(packet, context, reason, now, out);
    }

    /// Drops what a walk has refused.
    fn discard(&mut self, packet: Packet, context: &Context, reason: DropReason, now: u64, out: &mut Outbox) {
        if reason == DropReason::LinkLocal {
            self.beyond_scope(&packet, context, now, out);
        }
        self.discard_in(context.key.vrf);
        self.drop_packet(context.vif, packet, reason, out);
    }

    /// An ICMP error that belongs to no flow: for the node itself, or for nobody.
    fn unmatched_error(&mut self, packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        // The key is that of the quoted packet; a listener is found by the error's own.
        let own = parse::flow_key(&context.ip, context.key.vrf, context.key.vif);
        let by_itself = Context { key: own, ..*context };
        if let Verdict::Forward(decision) = classify::classify(&self.snapshot, &inquiry(&by_itself, Start::Route))
            && decision.program.is_punt()
        {
            return self.run_once(decision.program, packet, &by_itself, now, out);
        }
        self.drop_packet(context.vif, packet, DropReason::IcmpErrorUnmatched, out);
    }

    /// A fragment whose head has not told the ports yet.
    fn fragment(&mut self, packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        let Some(datagram) = self.datagram(context) else {
            return self.drop_packet(context.vif, packet, DropReason::FragmentErr, out);
        };
        let (limits, tenant, mut lost) = (self.fragment_limits(), context.tenant(), Vec::new());
        let delivery = Delivery { packet, origin: Origin::Port { port: context.port, head: None, counted: true } };
        let fate = self.fragments.take((datagram, &context.ip), delivery, tenant, limits, now, &mut lost);
        for delivery in lost {
            self.drop_delivery(delivery, DropReason::FragmentTableFull, out);
        }
        match fate {
            Fate::Go(head, first, waiting) => {
                for delivery in std::iter::once(first).chain(waiting) {
                    self.resume(delivery, Some(head), now, out);
                }
            }
            Fate::Held => {}
            Fate::Drop(reason, delivery, waiting) => {
                for delivery in std::iter::once(delivery).chain(waiting) {
                    self.drop_delivery(delivery, reason, out);
                }
            }
        }
    }

    /// This worker's share of what may be held and tracked of fragments.
    pub(super) fn fragment_limits(&self) -> FragmentLimits {
        let settings = self.snapshot.settings();
        let workers = self.config.workers.max(1);
        FragmentLimits {
            datagrams: (settings.max_fragmented_datagrams as usize).div_ceil(workers),
            held: (settings.max_held as usize).div_ceil(workers),
            timeout: u64::from(settings.fragment_timeout_secs) * 1000,
        }
    }

    /// A fragment goes on with what its head told, or as the whole packet: here, or at the worker that owns the flow.
    pub(super) fn resume(&mut self, delivery: Delivery, head: Option<Head>, now: u64, out: &mut Outbox) {
        let Origin::Port { port, .. } = delivery.origin else { return };
        let origin = Origin::Port { port, head, counted: true };
        match self.sort(&delivery.packet, port, head) {
            // The forwarding state has changed since it was sorted first.
            Ok(Sorted::Arp) => self.drop_packet(port, delivery.packet, DropReason::InvalidPacket, out),
            Ok(Sorted::Ip(context) | Sorted::Nd(context)) => {
                if self.config.workers > 1
                    && let Some(owner) = self.other_owner(&context)
                {
                    out.handoff.push((owner, Delivery { packet: delivery.packet, origin }));
                    return;
                }
                let hash = self.flows.hash(&context.key);
                self.slow(delivery.packet, &context, hash, now, out);
            }
            Ok(Sorted::Esp(context, at)) => self.receive_esp(delivery.packet, &context, at, now, out),
            Ok(Sorted::Keepalive) => self.consume(delivery.packet, out),
            Err((vif, reason)) => self.drop_packet(vif, delivery.packet, reason, out),
        }
    }

    /// Holds a packet until a neighbour is known, when nothing else keeps it from going on. Then it is judged anew, whole.
    fn hold(
        &mut self,
        neighbour: NeighbourKey,
        checks: Checks,
        packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) {
        let Some(packet) = self.pass_checks(checks, packet, context, now, out) else { return };
        self.counters.pass(context.key.vrf, offload_rules::flow::VrfCounter::Resolve, 1);
        let origin = Origin::Port { port: context.port, head: context.head, counted: true };
        self.hold_delivery(neighbour, context.tenant(), Delivery { packet, origin }, now, out);
    }

    /// Holds anything until a neighbour is known, and sees to it that it is asked for.
    pub(super) fn hold_delivery(
        &mut self,
        neighbour: NeighbourKey,
        tenant: Tenant,
        delivery: Delivery,
        now: u64,
        out: &mut Outbox,
    ) {
        if self.snapshot.vif(neighbour.0).is_some_and(|vif| vif.flags.no_arp) {
            return self.drop_delivery(delivery, DropReason::NeighbourUnresolved, out);
        }
        if !self.held.waits_for(neighbour) && !self.need(neighbour, tenant, out) {
            return self.drop_delivery(delivery, DropReason::HeldQueueFull, out);
        }
        let settings = self.snapshot.settings();
        let limits = HoldLimits {
            per_neighbour: settings.max_held_per_neighbour as usize,
            in_all: (settings.max_held as usize).div_ceil(self.config.workers.max(1)),
        };
        for delivery in self.held.hold(neighbour, tenant, delivery, limits, now) {
            self.drop_delivery(delivery, DropReason::HeldQueueFull, out);
        }
    }
}

/// Ends at the node: at a listener, at none that the ports of this packet lead to, or as an echo.
fn is_for_node(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::AnswerEcho | Verdict::Drop { reason: DropReason::NoListener, .. } => true,
        Verdict::Forward(decision) => decision.program.is_punt(),
        _ => false,
    }
}

pub(super) fn is_first_syn(context: &Context) -> bool {
    const SYN: u8 = tcp::flag::SYN;
    const ACK: u8 = tcp::flag::ACK;
    context.ip.proto == TCP && context.ip.tcp_flags & (SYN | ACK) == SYN
}

/// A reset begins nothing, nor does an answer: forwarded, but no flow is made for it. Requests would ride an answer's flow, whose key is
/// theirs.
fn begins_nothing(context: &Context) -> bool {
    context.ip.proto == TCP && context.ip.tcp_flags & tcp::flag::RST != 0 || is_echo_reply(context)
}

fn is_echo_reply(context: &Context) -> bool {
    matches!((context.key.version, context.key.proto, context.service_port()), (4, 1, 0) | (6, 58, 129))
}

/// A fragment of an ICMP error. No error is so long that it needs fragments (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
fn is_fragmented_error(context: &Context) -> bool {
    let (version, kind) = (context.key.version, context.head.map_or(context.ip.icmp_type, |head| head.icmp_type));
    context.ip.fragment != FragmentInfo::None
        && matches!((version, context.key.proto), (4, 1) | (6, 58))
        && parse::is_icmp_error(version, kind)
}

fn inquiry(context: &Context, start: Start) -> Inquiry<'_> {
    Inquiry {
        key: &context.key,
        service_port: context.service_port(),
        ingress: context.ingress(),
        start,
        role: Role::Initiator,
        prior: Choices::default(),
        other_ingress: None,
        hash: context.key.spread(),
    }
}
