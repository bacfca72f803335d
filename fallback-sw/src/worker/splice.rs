//! SYN cookies and what comes of them: connections that the node opens for a client and splices.
//!
//! ```text
//! client                      node                        server
//!   | ---- SYN, isn ----------> |                            |
//!   | <--- SYN-ACK, cookie ---- | window 0; nothing is kept  |
//!   | ---- ACK, cookie + 1 ---> | ---- SYN, isn -----------> |   the flow is made
//!   |                           | <--- SYN-ACK, number ----- |
//!   | <--- ACK, window -------- | ---- ACK ----------------> |
//!   | <======= sequence numbers of the server + (cookie − number) =======> |
//! ```
//!
//! The window of 0 keeps the client from sending before the server has answered; what it sends all the same (a probe, a FIN)
//! is dropped and comes again. No SYN carries more than an MSS, so that there are no SACK blocks (RFC 2018 §2), no scaled
//! windows and no timestamps to translate. Flow records follow the numbers that the server knows.

use offload_rules::{
    DropReason,
    flow::{
        FlowKey, Program,
        tcp::{Segment, flag as tcp_flag},
    },
};

use super::{
    carry::DecidedBy,
    context::{Context, Outer},
    cookie::{self, Cookie},
    decider::Decider,
    env::Env,
    exit::{Exit, exit},
    flag,
    flow_state::FlowState,
    flows::{Derived, ingress_of},
    hit::{operands, segment},
    openings::Opening,
    outcome::{Emit, Outcome, OwnPath},
    tx::TxKind,
};
use crate::{
    exec::{self, Operands, Target},
    packet::{
        Packet,
        parse::{self, FragmentInfo},
        tcp::{self, Bare, Ends},
    },
};

const TCP: u8 = 6;
/// Milliseconds before the first repetition of a SYN (RFC 6298 §2.1); doubled each time.
const RETRY_MS: u64 = 1000;
/// Repetitions before the client is told that there is no server: after 15 seconds, half of what half-open flows live.
const TRIES: u8 = 3;

/// What a packet means to a connection that the server has not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpliceState {
    /// Nothing: its flow's program runs.
    Ordinary,
    /// The server has answered.
    Connected,
    /// Not before the server has answered.
    TooEarly,
    /// A segment from the server that belongs to an older connection between the same ends.
    OldConnection,
}

impl FlowState {
    /// What a packet of a known flow means, if the server has still to answer.
    pub(super) fn splice_state(&mut self, slot: u32, packet: &Packet, context: &Context) -> SpliceState {
        let Some(record) = self.flows.record(slot) else { return SpliceState::Ordinary };
        if record.flags & flag::OPENING == 0 || context.ip.proto != TCP {
            return SpliceState::Ordinary;
        }
        let from_client = record.flags & flag::INITIATOR != 0;
        let client = if from_client { slot } else { record.reverse };
        let Some(opening) = self.openings.get(client) else { return SpliceState::Ordinary };
        if context.ip.fragment != FragmentInfo::None {
            return SpliceState::TooEarly;
        }
        let segment = segment(packet.data(), context);
        let reset = segment.flags & tcp_flag::RST != 0;
        if from_client {
            if !reset {
                return SpliceState::TooEarly;
            }
            if segment.seq == opening.cookie.isn.wrapping_add(1) {
                self.is_open(client);
            }
            return SpliceState::Ordinary;
        }
        let ours = segment.flags & tcp_flag::ACK != 0 && segment.ack == opening.cookie.isn.wrapping_add(1);
        if !ours {
            let older = !reset && segment.flags & tcp_flag::ACK != 0;
            return if older { SpliceState::OldConnection } else { SpliceState::TooEarly };
        }
        if reset {
            // Exact for the client (RFC 5961 §3.2), which believes itself connected.
            self.is_open(client);
            self.set_sequence_shift(client, opening.cookie.shown.wrapping_add(1).wrapping_sub(segment.seq));
            return SpliceState::Ordinary;
        }
        if segment.flags & tcp_flag::SYN != 0 { SpliceState::Connected } else { SpliceState::TooEarly }
    }

    /// The server has answered, or need not any more.
    fn is_open(&mut self, client: u32) {
        self.openings.remove(client);
        let back = self.flows.record(client).map_or(client, |record| record.reverse);
        for slot in [client, back] {
            if let Some(record) = self.flows.record_mut(slot) {
                record.flags &= !flag::OPENING;
            }
        }
    }

    /// The distance between the numbers that the client was shown and the server's, for both directions.
    fn set_sequence_shift(&mut self, client: u32, by: u32) {
        let back = self.flows.record(client).map_or(client, |record| record.reverse);
        for slot in [client, back] {
            if let Some(binding) = self.flows.binding_mut(slot) {
                binding.sequence_shift = by;
            }
        }
    }

    /// Repeats SYNs that were not answered; tells clients whose servers are not there.
    pub(super) fn tick_openings(&mut self, env: &Env, emit: &mut Emit<'_>) {
        let now = env.clock;
        while let Some((slot, mut opening)) = self.openings.next_due(now) {
            let Cookie { shown, isn, mss } = opening.cookie;
            if opening.tries < TRIES {
                opening.tries += 1;
                opening.due = now + (RETRY_MS << opening.tries);
                self.openings.put(slot, opening);
                let syn = Bare { seq: isn, ack: 0, flags: tcp_flag::SYN, window: opening.window, mss: Some(mss) };
                self.send_on_flow(env, slot, &syn, emit);
                continue;
            }
            self.openings.remove(slot);
            let Some(key) = self.flows.record(slot).map(|record| record.key) else { continue };
            self.remove_flow(slot);
            let reset = Bare {
                seq: shown.wrapping_add(1),
                ack: isn.wrapping_add(1),
                flags: tcp_flag::RST | tcp_flag::ACK,
                window: 0,
                mss: None,
            };
            if let Some(reset) = tcp::build(&back(&key), &reset) {
                emit.originate(reset, OwnPath::Route(key.vrf));
            }
        }
    }

    /// Sends a segment of the node's own the way of a flow's packets.
    fn send_on_flow(&mut self, env: &Env, slot: u32, what: &Bare, emit: &mut Emit<'_>) {
        let Some(record) = self.flows.record(slot) else { return };
        let key = record.key;
        match self.segment_on_flow(env, slot, &key, what, emit) {
            Some((packet, outcome)) => emit.originate_done(packet, outcome),
            None => emit.lose(),
        }
    }

    /// A segment of the node's own that has run its flow's program.
    fn segment_on_flow(
        &mut self,
        env: &Env,
        slot: u32,
        key: &FlowKey,
        what: &Bare,
        emit: &mut Emit<'_>,
    ) -> Option<(Packet, Outcome)> {
        let ingress = self.flows.record(slot).and_then(ingress_of)?;
        if self.refresh(env, slot, ingress) != Derived::Runs {
            return None;
        }
        let ends = Ends { version: key.version, src: key.src, dst: key.dst, sport: key.sport, dport: key.dport };
        let mut packet = tcp::build(&ends, what)?;
        let (record, binding) = self.flows.record_and_binding(slot)?;
        let plan = self.programs.get(record.program)?.plan.clone();
        let operands = operands(&plan, record, binding);
        let (Target::Output { .. } | Target::Punt { .. } | Target::Seal, Ok(ip)) =
            (plan.target, parse::ip(packet.data(), key.version))
        else {
            emit.recycle(packet);
            return None;
        };
        let own = Segment { flags: what.flags, seq: what.seq, ack: what.ack, payload_len: 0 };
        self.track_segment(env, slot, own);
        let outer_id = if plan.is_tunnel() { self.ip_ids.next() } else { 0 };
        match exec::run(&plan, &mut packet, &ip, None, &Operands { outer_id, ..operands }) {
            Ok(()) => Some((packet, exit(&plan, Exit { kind: TxKind::Originated, blame: key.vif }))),
            Err(_) => {
                emit.recycle(packet);
                None
            }
        }
    }
}

impl Decider<'_> {
    /// May a SYN that would go beyond the share of half-open flows be answered with a cookie?
    pub(super) fn gives_cookies(&self, context: &Context) -> bool {
        context.ip.fragment == FragmentInfo::None
            && self.env.snapshot.vif(context.vif).is_some_and(|vif| vif.flags.syn_cookies)
    }

    /// Answers a SYN whose flow would follow this program. Nothing is remembered of it.
    pub(super) fn give_cookie(&mut self, program: &Program, packet: &Packet, context: &Context) -> Outcome {
        let default = if context.ip.version == 4 { 536 } else { 1220 };
        let path = program.forward().and_then(|forward| forward.mss);
        let syn = segment(packet.data(), context);
        let l4 = usize::from(context.l3) + usize::from(context.ip.header_len);
        let mss = tcp::mss(packet.data().get(l4..).unwrap_or(&[])).unwrap_or(default);
        let shown = cookie::make(self.env.config.cookie_secret, &context.key, syn.seq, mss, self.env.clock);
        let answer = Bare {
            seq: shown,
            ack: syn.seq.wrapping_add(1),
            flags: tcp_flag::SYN | tcp_flag::ACK,
            window: 0,
            mss: Some(path.unwrap_or(default)),
        };
        self.state.openings.give_cookie(context.vif, self.env.clock);
        if let Some(answer) = tcp::build(&back(&context.key), &answer) {
            self.emit.originate(answer, OwnPath::Route(context.key.vrf));
        }
        Outcome::Consume
    }

    /// The cookie in an ACK that belongs to no flow, on a vif that has given cookies of late. `None`: the packet has nothing
    /// to do with cookies.
    ///
    /// # Errors
    /// [`DropReason::SynCookieInvalid`].
    pub(super) fn cookie_of(&self, packet: &Packet, context: &Context) -> Result<Option<Cookie>, DropReason> {
        const MASK: u8 = tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK;
        let now = self.env.clock;
        if !self.state.openings.may_hold_cookie(context.vif, now)
            || context.ip.proto != TCP
            || context.ip.tcp_flags & MASK != tcp_flag::ACK
            || !self.gives_cookies(context)
        {
            return Ok(None);
        }
        let Segment { seq, ack, .. } = segment(packet.data(), context);
        cookie::check(self.env.config.cookie_secret, &context.key, seq, ack, now)
            .map(Some)
            .ok_or(DropReason::SynCookieInvalid)
    }

    /// The client has come back with its cookie, and its flow was made: its ACK becomes the SYN to the server.
    pub(super) fn open(&mut self, slot: u32, cookie: Cookie, packet: &mut Packet, context: &Context) -> Outcome {
        let window = window(packet.data(), context);
        let syn = Bare { seq: cookie.isn, ack: 0, flags: tcp_flag::SYN, window, mss: Some(cookie.mss) };
        let context = match replace_segment(packet, context, &syn) {
            Ok(context) => context,
            Err(reason) => {
                self.state.remove_flow(slot);
                return Outcome::drop(context.vif, reason);
            }
        };
        let due = self.env.clock + RETRY_MS;
        self.state.openings.put(slot, Opening { cookie, window, tries: 0, due });
        self.state.track(self.env, slot, packet, &context);
        self.state.enter_half_open(slot);
        self.run_flow(slot, packet, &context, DecidedBy::Walk)
    }

    /// A segment from the server that acknowledges what the node never sent on this connection belongs to an older one: it is
    /// reset, as the client would do (RFC 9293 §3.5.2), and the next SYN finds the server free.
    pub(super) fn refuse_old(&mut self, slot: u32, packet: &Packet, context: &Context) {
        let Some(record) = self.state.flows.record(slot) else { return };
        let client = record.reverse;
        let segment = segment(packet.data(), context);
        let reset = Bare { seq: segment.ack, ack: 0, flags: tcp_flag::RST, window: 0, mss: None };
        self.state.send_on_flow(self.env, client, &reset, &mut self.emit);
    }

    /// The server's SYN-ACK, which has been tracked: answered, and turned into the ACK that opens the client's window.
    pub(super) fn connect(&mut self, slot: u32, packet: &mut Packet, context: &Context) -> Outcome {
        let client = self.state.flows.record(slot).map_or(slot, |record| record.reverse);
        let Some(opening) = self.state.openings.get(client) else {
            return self.run_flow(slot, packet, context, DecidedBy::Flow);
        };
        let theirs = segment(packet.data(), context);
        let window = window(packet.data(), context);
        let update = Bare { seq: theirs.seq.wrapping_add(1), ack: theirs.ack, flags: tcp_flag::ACK, window, mss: None };
        let context = match replace_segment(packet, context, &update) {
            Ok(context) => context,
            Err(reason) => return Outcome::drop(context.vif, reason),
        };
        let by = opening.cookie.shown.wrapping_sub(theirs.seq);
        self.state.is_open(client);
        self.state.set_sequence_shift(client, by);
        // As the client sees it: the program subtracts.
        let answer = Bare {
            seq: theirs.ack,
            ack: theirs.seq.wrapping_add(1).wrapping_add(by),
            flags: tcp_flag::ACK,
            window: opening.window,
            mss: None,
        };
        self.state.send_on_flow(self.env, client, &answer, &mut self.emit);
        self.state.track(self.env, slot, packet, &context);
        self.run_flow(slot, packet, &context, DecidedBy::Flow)
    }
}

/// Strips a packet and puts another segment in the place of its own. Its context from then on.
///
/// # Errors
/// As [`exec::strip`]; [`DropReason::InvalidPacket`].
fn replace_segment(packet: &mut Packet, context: &Context, what: &Bare) -> Result<Context, DropReason> {
    let mut ip = context.ip;
    exec::strip(packet, &mut ip, &context.framing())?;
    let taken = std::mem::replace(packet, Packet::with_capacity(0));
    let (replaced, ip) = tcp::replace(taken, &ip, what).ok_or(DropReason::InvalidPacket)?;
    *packet = replaced;
    Ok(bare(context, ip))
}

/// The context of a packet that [`exec::strip`] has laid bare and whose segment was replaced.
fn bare(context: &Context, ip: parse::Ip) -> Context {
    // What was outside has been combined with what is inside: once more changes nothing.
    let outer = context.outer.map(|outer| Outer { tos: ip.tos, ..outer });
    Context { l3: 0, ip, outer, ..*context }
}

/// The ends of what goes back to whoever sent a packet with this key.
fn back(key: &FlowKey) -> Ends {
    Ends { version: key.version, src: key.dst, dst: key.src, sport: key.dport, dport: key.sport }
}

fn window(frame: &[u8], context: &Context) -> u16 {
    let at = usize::from(context.l3) + usize::from(context.ip.header_len) + 14;
    frame.get(at..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |octets| u16::from_be_bytes(*octets))
}
