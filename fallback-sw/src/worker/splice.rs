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

use std::collections::{BTreeSet, HashMap};

use offload_rules::{
    DropReason,
    flow::{
        FlowKey, Program,
        tcp::{Segment, flag as tcp_flag},
    },
};

use super::{
    Outbox, TxKind, Worker,
    batch::{framing, operands, segment},
    carry::DecidedBy,
    cookie::{self, Cookie},
    flows::flag,
    ingress::{Context, Outer},
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

/// A connection that the server has not answered yet.
#[derive(Debug, Clone, Copy)]
struct Opening {
    cookie: Cookie,
    /// The client's window.
    window: u16,
    tries: u8,
    due: u64,
}

/// Connections that their servers have not answered yet, by slot of the client's direction.
#[derive(Debug, Default)]
pub(super) struct Openings {
    all: HashMap<u32, Opening>,
    due: BTreeSet<(u64, u32)>,
}

impl Openings {
    fn put(&mut self, slot: u32, opening: Opening) {
        self.remove(slot);
        self.due.insert((opening.due, slot));
        self.all.insert(slot, opening);
    }

    /// Forgets one, when its flow goes or the server has answered.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(old) = self.all.remove(&slot) {
            self.due.remove(&(old.due, slot));
        }
    }

    fn next_due(&self, now: u64) -> Option<(u32, Opening)> {
        let (due, slot) = *self.due.first()?;
        let opening = *self.all.get(&slot)?;
        (due <= now).then_some((slot, opening))
    }
}

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

impl Worker {
    /// May a SYN that would go beyond the share of half-open flows be answered with a cookie?
    pub(super) fn gives_cookies(&self, context: &Context) -> bool {
        context.ip.fragment == FragmentInfo::None
            && self.snapshot.vif(context.vif).is_some_and(|vif| vif.flags.syn_cookies)
    }

    /// Answers a SYN whose flow would follow this program. Nothing is remembered of it.
    pub(super) fn give_cookie(
        &mut self,
        program: &Program,
        packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) {
        let default = if context.ip.version == 4 { 536 } else { 1220 };
        let path = program.forward().and_then(|forward| forward.mss);
        let syn = segment(packet.data(), context);
        let l4 = usize::from(context.l3) + usize::from(context.ip.header_len);
        let mss = tcp::mss(packet.data().get(l4..).unwrap_or(&[])).unwrap_or(default);
        let shown = cookie::make(self.config.cookie_secret, &context.key, syn.seq, mss, now);
        let answer = Bare {
            seq: shown,
            ack: syn.seq.wrapping_add(1),
            flags: tcp_flag::SYN | tcp_flag::ACK,
            window: 0,
            mss: Some(path.unwrap_or(default)),
        };
        if let Some(until) = self.cookies_until.get_mut(context.vif.index()) {
            *until = now + cookie::VALID_MS;
        }
        if let Some(answer) = tcp::build(&back(&context.key), &answer) {
            self.originate(context.key.vrf, answer, now, out);
        }
        self.consume(packet, out);
    }

    /// The cookie in an ACK that belongs to no flow, on a vif that has given cookies of late. `None`: the packet has nothing
    /// to do with cookies.
    ///
    /// # Errors
    /// [`DropReason::SynCookieInvalid`].
    pub(super) fn cookie_of(&self, packet: &Packet, context: &Context, now: u64) -> Result<Option<Cookie>, DropReason> {
        const MASK: u8 = tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK;
        let given = self.cookies_until.get(context.vif.index()).is_some_and(|until| now < *until);
        if !given
            || context.ip.proto != TCP
            || context.ip.tcp_flags & MASK != tcp_flag::ACK
            || !self.gives_cookies(context)
        {
            return Ok(None);
        }
        let Segment { seq, ack, .. } = segment(packet.data(), context);
        cookie::check(self.config.cookie_secret, &context.key, seq, ack, now)
            .map(Some)
            .ok_or(DropReason::SynCookieInvalid)
    }

    /// The client has come back with its cookie, and its flow was made: its ACK becomes the SYN to the server.
    pub(super) fn open(
        &mut self,
        (slot, cookie): (u32, Cookie),
        mut packet: Packet,
        context: &Context,
        now: u64,
        out: &mut Outbox,
    ) {
        let window = window(packet.data(), context);
        let mut ip = context.ip;
        let syn = Bare { seq: cookie.isn, ack: 0, flags: tcp_flag::SYN, window, mss: Some(cookie.mss) };
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &framing(context)) {
            self.remove_flow(slot);
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let Some((packet, ip)) = tcp::replace(packet, &ip, &syn) else {
            self.remove_flow(slot);
            return self.drop_packet(context.vif, Packet::with_capacity(0), DropReason::InvalidPacket, out);
        };
        let context = bare(context, ip);
        self.openings.put(slot, Opening { cookie, window, tries: 0, due: now + RETRY_MS });
        self.track(slot, &packet, &context);
        self.enter_half_open(slot);
        self.run_flow(slot, packet, (&context, DecidedBy::Walk), now, out);
    }

    /// What a packet of a known flow means, if the server has still to answer.
    pub(super) fn splice_state(&mut self, slot: u32, packet: &Packet, context: &Context) -> SpliceState {
        let Some(record) = self.flows.record(slot) else { return SpliceState::Ordinary };
        if record.flags & flag::OPENING == 0 || context.ip.proto != TCP {
            return SpliceState::Ordinary;
        }
        let from_client = record.flags & flag::INITIATOR != 0;
        let client = if from_client { slot } else { record.reverse };
        let Some(opening) = self.openings.all.get(&client).copied() else { return SpliceState::Ordinary };
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

    /// A segment from the server that acknowledges what the node never sent on this connection belongs to an older one: it is
    /// reset, as the client would do (RFC 9293 §3.5.2), and the next SYN finds the server free.
    pub(super) fn refuse_old(&mut self, slot: u32, packet: &Packet, context: &Context, now: u64, out: &mut Outbox) {
        let Some(record) = self.flows.record(slot) else { return };
        let client = record.reverse;
        let segment = segment(packet.data(), context);
        let reset = Bare { seq: segment.ack, ack: 0, flags: tcp_flag::RST, window: 0, mss: None };
        self.send_on_flow(client, &reset, now, out);
    }

    /// The server's SYN-ACK, which has been tracked: answered, and turned into the ACK that opens the client's window.
    pub(super) fn connect(&mut self, slot: u32, mut packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        let client = self.flows.record(slot).map_or(slot, |record| record.reverse);
        let Some(opening) = self.openings.all.get(&client).copied() else {
            return self.run_flow(slot, packet, (context, DecidedBy::Flow), now, out);
        };
        let theirs = segment(packet.data(), context);
        let window = window(packet.data(), context);
        let mut ip = context.ip;
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &framing(context)) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let update = Bare { seq: theirs.seq.wrapping_add(1), ack: theirs.ack, flags: tcp_flag::ACK, window, mss: None };
        let Some((packet, ip)) = tcp::replace(packet, &ip, &update) else {
            return self.drop_packet(context.vif, Packet::with_capacity(0), DropReason::InvalidPacket, out);
        };
        let by = opening.cookie.shown.wrapping_sub(theirs.seq);
        self.is_open(client);
        self.set_sequence_shift(client, by);
        // As the client sees it: the program subtracts.
        let answer = Bare {
            seq: theirs.ack,
            ack: theirs.seq.wrapping_add(1).wrapping_add(by),
            flags: tcp_flag::ACK,
            window: opening.window,
            mss: None,
        };
        self.send_on_flow(client, &answer, now, out);
        let context = bare(context, ip);
        self.track(slot, &packet, &context);
        self.run_flow(slot, packet, (&context, DecidedBy::Flow), now, out);
    }

    /// Repeats SYNs that were not answered; tells clients whose servers are not there.
    pub(super) fn tick_openings(&mut self, now: u64, out: &mut Outbox) {
        while let Some((slot, mut opening)) = self.openings.next_due(now) {
            let Cookie { shown, isn, mss } = opening.cookie;
            if opening.tries < TRIES {
                opening.tries += 1;
                opening.due = now + (RETRY_MS << opening.tries);
                self.openings.put(slot, opening);
                let syn = Bare { seq: isn, ack: 0, flags: tcp_flag::SYN, window: opening.window, mss: Some(mss) };
                self.send_on_flow(slot, &syn, now, out);
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
                self.originate(key.vrf, reset, now, out);
            }
        }
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

    /// Sends a segment of the node's own the way of a flow's packets.
    fn send_on_flow(&mut self, slot: u32, what: &Bare, now: u64, out: &mut Outbox) {
        let Some(record) = self.flows.record(slot) else { return };
        let key = record.key;
        let ingress = super::flows::ingress_of(record);
        self.counters.account.originated += 1;
        let ends = Ends { version: key.version, src: key.src, dst: key.dst, sport: key.sport, dport: key.dport };
        let ready = ingress.is_some_and(|ingress| self.refresh(slot, ingress, now) == super::flows::Derived::Runs);
        let built = tcp::build(&ends, what).filter(|_| ready);
        let program = self.flows.record(slot).map_or(0, |record| record.program);
        let (Some(mut packet), Some(entry)) = (built, self.programs.get_mut(program)) else {
            self.counters.account.originated_dropped += 1;
            return;
        };
        let plan = entry.plan.clone();
        let bound = self.flows.record_and_binding(slot).map(|(record, binding)| operands(&plan, record, binding));
        let (Target::Output { .. } | Target::Punt { .. } | Target::Seal, Ok(ip)) =
            (plan.target, parse::ip(packet.data(), key.version))
        else {
            self.counters.account.originated_dropped += 1;
            return out.recycle(packet);
        };
        let own = Segment { flags: what.flags, seq: what.seq, ack: what.ack, payload_len: 0 };
        self.track_segment(slot, own);
        let outer_id = if plan.is_tunnel() { self.next_ip_id() } else { 0 };
        match exec::run(&plan, &mut packet, &ip, None, &Operands { outer_id, ..bound.unwrap_or_default() }) {
            Ok(()) => self.send_off(&plan, (TxKind::Originated, key.vif), packet, out),
            Err(_) => {
                self.counters.account.originated_dropped += 1;
                out.recycle(packet);
            }
        }
    }
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
