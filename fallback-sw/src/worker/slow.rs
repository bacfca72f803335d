//! Packets that need more than their flow's program: the first of a flow, TCP control, fragments, ICMP errors, whatever is too
//! large or too old, and what no policy asks to look up.

use offload_rules::{
    DropReason, VrfId,
    classify::{self, Checks, FragmentVerdict, Inquiry, Role, Start, Verdict},
    flow::{
        Choices, VrfCounter,
        tcp::{self, TcpVerdict},
    },
};

use super::{
    carry::DecidedBy,
    context::{Context, Path},
    cookie::Cookie,
    decider::{Decider, LookedUp},
    decisions::{Made, walk_for_flow},
    delivery::{Arrived, Origin},
    flag,
    flows::Derived,
    fragments::DatagramKey,
    hit::{SlowPath, segment},
    outcome::{Hold, Outcome},
    splice::SpliceState,
    tenant::{NeighbourKey, Tenant},
};
use crate::packet::{
    Packet,
    parse::{self, FragmentInfo},
};

const TCP: u8 = 6;

impl Decider<'_> {
    /// Decides on a packet that was looked up.
    pub(super) fn decide(&mut self, packet: &mut Packet, context: &Context, found: LookedUp) -> Outcome {
        match found.why {
            SlowPath::Miss | SlowPath::Special => self.decide_anew(packet, context, found.hash),
            SlowPath::StaleProgram | SlowPath::IngressMoved | SlowPath::TcpControl | SlowPath::Plan(_) => {
                self.with_flow(found.slot, packet, context, found.hash)
            }
        }
    }

    /// Decides on one packet, whatever it is.
    pub(super) fn decide_anew(&mut self, packet: &mut Packet, context: &Context, hash: u64) -> Outcome {
        if context.ip.is_icmp_error
            && let Some(outcome) = self.outer_error(packet, context)
        {
            return outcome;
        }
        match context.path {
            Path::Walk(start) => self.walk(packet, context, start),
            Path::Reassemble => self.reassemble(packet, context),
            // What is left to be sealed is never decided on.
            Path::Resume => Outcome::drop(context.vif, DropReason::InvalidPacket),
            Path::Flow if context.lacks_head() => {
                // Whose head it is, others may follow: a forged one must not speak for them.
                match classify::check_arrival(&self.env.snapshot, &inquiry(context, Start::Route)) {
                    Ok(()) => self.wait_for_head(context),
                    Err(reason) => {
                        self.counters.walks(context.key.vrf, packet.len());
                        self.discard(packet, context, reason)
                    }
                }
            }
            Path::Flow => match self.state.flows.find(hash, &context.key) {
                Some(slot) => self.with_flow(slot, packet, context, hash),
                None => self.without_flow(packet, context, hash),
            },
        }
    }

    /// Decides on a packet that has the key of the flow in this slot, and is no fragment without its head.
    fn with_flow(&mut self, slot: u32, packet: &mut Packet, context: &Context, hash: u64) -> Outcome {
        if self.state.asks_back(slot, context) {
            return self.walk(packet, context, Start::Route);
        }
        self.of_flow(slot, packet, context, hash)
    }

    /// A packet of a known flow.
    fn of_flow(&mut self, slot: u32, packet: &mut Packet, context: &Context, hash: u64) -> Outcome {
        let (env, drop) = (self.env, |reason| Outcome::drop(context.vif, reason));
        if context.ip.is_icmp_error && self.state.strays(slot, context) {
            return drop(DropReason::LinkLocal);
        }
        if let Err(reason) = self.state.follow(env, slot, context) {
            return drop(reason);
        }
        let splice = self.state.splice_state(slot, packet, context);
        if matches!(splice, SpliceState::TooEarly | SpliceState::OldConnection) {
            if splice == SpliceState::OldConnection {
                self.refuse_old(slot, packet, context);
            }
            return drop(DropReason::SynCookiePending);
        }
        match self.state.track(env, slot, packet, context) {
            None | Some(TcpVerdict::Accept) => {}
            Some(TcpVerdict::ResetIgnored) => return drop(DropReason::TcpResetIgnored),
            Some(TcpVerdict::InvalidFlags) => return drop(DropReason::TcpInvalidFlags),
            Some(TcpVerdict::Reopen) => {
                self.state.remove_flow(slot);
                return self.without_flow(packet, context, hash);
            }
        }
        if self.state.is_stale_denial(env, slot) {
            // A denied flow has no other direction: what may be permitted now begins anew.
            self.state.remove_flow(slot);
            return self.without_flow(packet, context, hash);
        }
        match self.state.refresh(env, slot, context.ingress()) {
            Derived::Runs => {}
            Derived::Needs(neighbour, checks) => {
                self.counters.walks(context.key.vrf, packet.len());
                return self.wait_for(neighbour, checks, packet, context);
            }
            Derived::Refused(reason) => {
                self.counters.walks(context.key.vrf, packet.len());
                self.state.remove_flow(slot);
                self.counters.pass(context.key.vrf, VrfCounter::Discard, 1);
                return drop(reason);
            }
        }
        self.counters.account.hit(1);
        if splice == SpliceState::Connected {
            return self.connect(slot, packet, context);
        }
        self.run_flow(slot, packet, context, DecidedBy::Flow)
    }

    /// The first packet of a flow, or one that belongs to none.
    fn without_flow(&mut self, packet: &mut Packet, context: &Context, hash: u64) -> Outcome {
        let drop = |reason| Outcome::drop(context.vif, reason);
        let is_error = context.ip.is_icmp_error && context.ip.fragment == FragmentInfo::None;
        if !is_error
            && let Some(slot) = self.state.flows.find_sibling(hash, &context.key)
            && self.state.moved(self.env, slot, context)
        {
            return self.of_flow(slot, packet, context, hash);
        }
        self.counters.walks(context.key.vrf, packet.len());
        if is_error {
            return self.unmatched_error(packet, context);
        }
        if is_fragmented_error(context) {
            // What it quotes is in pieces: no flow vouches for it, and it must not make one.
            return drop(DropReason::IcmpErrorUnmatched);
        }
        let cookie = match self.cookie_of(packet, context) {
            Ok(cookie) => cookie,
            Err(reason) => return drop(reason),
        };
        let gives_cookie = match self.may_begin_flow(packet, context) {
            Ok(()) => false,
            Err(DropReason::HalfOpenLimit) if self.gives_cookies(context) => true,
            Err(reason) => return drop(reason),
        };
        let inquiry = inquiry(context, Start::Route);
        // Other packets than those of a flow that is made as it is need the program itself.
        let vacancy = if gives_cookie || cookie.is_some() || begins_nothing(context) {
            None
        } else {
            match self.state.recall(self.env, &inquiry, VrfId::default()) {
                Ok(kept) => return self.begin(Made::Kept(kept), None, packet, context),
                Err(vacancy) => vacancy,
            }
        };
        let (verdict, basis) = walk_for_flow(&self.env.snapshot, &inquiry, vacancy);
        match verdict {
            Verdict::Forward(decision) if gives_cookie => self.give_cookie(&decision.program, packet, context),
            Verdict::Forward(decision) if begins_nothing(context) => self.run_once(&decision.program, packet, context),
            Verdict::Forward(decision) => self.begin(Made::Walked(decision, basis), cookie, packet, context),
            Verdict::AnswerEcho => self.answer_echo(packet, context),
            Verdict::Resolve { vif, target, checks } => self.wait_for((vif, target), checks, packet, context),
            Verdict::Drop { reason, acl } => {
                if acl.is_some() && !is_echo_reply(context) {
                    let denial = classify::drop_program(&self.env.snapshot, &inquiry, reason);
                    self.state.install_denied(self.env, context, denial);
                }
                self.discard(packet, context, reason)
            }
        }
    }

    /// Makes a flow, and carries out its first packet.
    fn begin(&mut self, made: Made, cookie: Option<Cookie>, packet: &mut Packet, context: &Context) -> Outcome {
        let drop = |reason| Outcome::drop(context.vif, reason);
        let flags = if cookie.is_some() { flag::SPLICED | flag::OPENING } else { 0 };
        let slot = match self.state.install(self.env, context, made, flags) {
            Ok(slot) => slot,
            Err(reason) => return drop(reason),
        };
        if let Some(cookie) = cookie {
            return self.open(slot, cookie, packet, context);
        }
        if self.state.track(self.env, slot, packet, context) == Some(TcpVerdict::InvalidFlags) {
            self.state.remove_flow(slot);
            return drop(DropReason::TcpInvalidFlags);
        }
        if is_first_syn(context) {
            self.state.enter_half_open(slot);
        }
        self.run_flow(slot, packet, context, DecidedBy::Walk)
    }

    /// May this packet begin a flow at all?
    fn may_begin_flow(&mut self, packet: &Packet, context: &Context) -> Result<(), DropReason> {
        let snapshot = &self.env.snapshot;
        let Some(vif) = snapshot.vif(context.vif) else { return Err(DropReason::InvalidIf) };
        if context.outer.is_none() {
            if vif.flags.drop_new_flows {
                return Err(DropReason::NewFlowsRefused);
            }
            if !vif.kind.is_punt() && snapshot.is_own_tunnel_source(context.key.source()) {
                return Err(DropReason::OwnSource);
            }
        }
        let whole_tcp = context.ip.proto == TCP && context.ip.fragment == FragmentInfo::None;
        if whole_tcp && !segment(packet.data(), context).flags_are_valid() {
            return Err(DropReason::TcpInvalidFlags);
        }
        let (settings, tenant) = (snapshot.settings(), Tenant::of(&context.key));
        if is_first_syn(context) {
            // Records of this worker; a half-open flow takes two.
            let records = u64::from(self.state.record_limit(self.env));
            let share = records * u64::from(settings.half_open_percent_per_vif) / 200;
            if u64::from(self.state.half_open(tenant)) >= share.max(1) {
                return Err(DropReason::HalfOpenLimit);
            }
        }
        // Last: what makes no flow does not use up the rate of new ones.
        let rate = settings.new_flow_rate_per_vif;
        if rate > 0 && !self.limits.new_flows.allow(tenant, self.env.share_of(rate), self.env.clock) {
            return Err(DropReason::NewFlowRate);
        }
        Ok(())
    }

    /// A packet that no policy asks to look up: walked by itself.
    fn walk(&mut self, packet: &mut Packet, context: &Context, start: Start) -> Outcome {
        let snapshot = &self.env.snapshot;
        let verdict = if context.lacks_head() {
            match classify::classify_fragment(snapshot, &inquiry(context, start)) {
                FragmentVerdict::Decided(verdict) => verdict,
                FragmentVerdict::ForNode if context.outer.is_none() => {
                    self.counters.walks(context.key.vrf, packet.len());
                    return self.reassemble(packet, context);
                }
                // Walked when the head has told.
                FragmentVerdict::ForNode | FragmentVerdict::NeedsHead => return self.wait_for_head(context),
            }
        } else {
            self.routed.walk_and_keep(self.env, self.state, context, &inquiry(context, start))
        };
        self.counters.walks(context.key.vrf, packet.len());
        if context.outer.is_none()
            && snapshot.is_own_tunnel_source(context.key.source())
            && !snapshot.vif(context.vif).is_some_and(|vif| vif.kind.is_punt())
        {
            return Outcome::drop(context.vif, DropReason::OwnSource);
        }
        if context.ip.fragment != FragmentInfo::None && context.outer.is_none() && is_for_node(&verdict) {
            return self.reassemble(packet, context);
        }
        match verdict {
            Verdict::Forward(decision) => self.run_once(&decision.program, packet, context),
            Verdict::AnswerEcho => self.answer_echo(packet, context),
            Verdict::Resolve { vif, target, checks } => self.wait_for((vif, target), checks, packet, context),
            Verdict::Drop { reason, .. } => self.discard(packet, context, reason),
        }
    }

    /// Drops what a walk has refused.
    fn discard(&mut self, packet: &Packet, context: &Context, reason: DropReason) -> Outcome {
        if reason == DropReason::LinkLocal {
            self.responder().beyond_scope(packet, context);
        }
        self.counters.pass(context.key.vrf, VrfCounter::Discard, 1);
        Outcome::drop(context.vif, reason)
    }

    /// An ICMP error that belongs to no flow: for the node itself, or to be dropped.
    fn unmatched_error(&mut self, packet: &mut Packet, context: &Context) -> Outcome {
        // The key is that of the quoted packet; a listener is found by the error's own.
        let own = parse::flow_key(&context.ip, context.key.vrf, context.key.vif);
        let by_itself = Context { key: own, ..*context };
        let verdict = classify::classify(&self.env.snapshot, &inquiry(&by_itself, Start::Route));
        if let Verdict::Forward(decision) = verdict
            && decision.program.is_punt()
        {
            return self.run_once(&decision.program, packet, &by_itself);
        }
        Outcome::drop(context.vif, DropReason::IcmpErrorUnmatched)
    }

    /// Answers an echo request to one of the node's addresses in place. A fragmented one is put together first.
    fn answer_echo(&mut self, packet: &mut Packet, context: &Context) -> Outcome {
        if context.ip.fragment != FragmentInfo::None {
            return self.reassemble(packet, context);
        }
        self.responder().answer_echo(packet, context)
    }

    /// A fragment waits until the first one of its datagram tells the ports.
    fn wait_for_head(&self, context: &Context) -> Outcome {
        match DatagramKey::of_packet(context, &self.env.snapshot) {
            Some(datagram) => Outcome::Hold(Box::new(Hold::FirstFragment { datagram, context: *context })),
            None => Outcome::drop(context.vif, DropReason::FragmentErr),
        }
    }

    /// Holds a packet until a neighbour is known, when nothing else keeps it from going on. Then it is judged anew, whole.
    fn wait_for(&mut self, neighbour: NeighbourKey, checks: Checks, packet: &Packet, context: &Context) -> Outcome {
        if let Some(refused) = self.fails_checks(checks, packet, context) {
            return refused;
        }
        self.counters.pass(context.key.vrf, VrfCounter::Resolve, 1);
        let origin = Origin::Port(Arrived::again(context.port, context.head));
        Outcome::Hold(Box::new(Hold::Neighbour { neighbour, tenant: context.tenant(), origin }))
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
