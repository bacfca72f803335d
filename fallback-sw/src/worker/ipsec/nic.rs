//! SAs in a NIC: offered by the worker that owns them, held by sessions, returned.
//!
//! The worker keeps the last word on every SA, and can go on by itself at any time: of the sequence numbers that are reserved the NIC
//! gets a range of its own, and those behind it stay the worker's.

use std::{ops::Range, sync::Arc};

use offload_rules::{
    DropReason, SaId, VifId,
    forwarding::{L2Rewrite, Lifetime, Snapshot},
    lower::underlay,
};

use super::{
    super::{Outbox, TxKind, Worker},
    SaNews, Usage,
    table::Ipsec,
};
use crate::{
    exec::SealLeg,
    packet::{NicNote, Packet, parse},
};
use offload_engine::protocol::{NotHeld, OfferId, Report, Request, SaMode};

/// Milliseconds before an SA is offered again that the NIC did not take, or has lost, or whose port may not be open yet.
const AGAIN_MS: u64 = 1000;
/// The same where nothing but another configuration makes a difference.
const RARELY_MS: u64 = 60_000;
/// Milliseconds in which packets that were received before the NIC's rule was there may still be opened in software.
const GRACE_MS: u64 = 1000;
/// Numbers that stay the worker's behind those of the NIC: what it seals with until more are reserved.
const RESERVE: u64 = 1 << 20;
/// Numbers that the worker may use up before the NIC's answer comes.
const LEAD: u64 = 1 << 16;

/// Packets that the NIC may have sent since its last report, where that tells of fewer.
const UNCOUNTED: u64 = 1024;

/// How many packets of an SA have passed in the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::worker) struct NicCount {
    /// Since it holds the SA.
    packets: u64,
    /// At the beginnings of the last two spans of time, the older one first.
    spans: [u64; 2],
    /// In the last report.
    last: u64,
}

impl NicCount {
    const fn add(&mut self, count: u64) {
        self.packets += count;
        self.last = count;
    }

    const fn begin_span(&mut self) {
        self.spans = [self.spans[1], self.packets];
    }

    /// Of the NIC's numbers, those that it may have sent lately: the count is up to a report old.
    fn sent_lately(&self, numbers: &Range<u64>) -> Range<u64> {
        let uncounted = UNCOUNTED.max(self.last.saturating_mul(2));
        let end = numbers.start.saturating_add(self.packets).saturating_add(uncounted);
        numbers.start.saturating_add(self.spans[0])..end.min(numbers.end)
    }
}

/// How far an SA is with the NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) enum Hold {
    /// In software; offered again at this time.
    Software { reason: NotHeld, again: u64 },
    /// Offered, with these numbers.
    Offered { offer: OfferId, numbers: Range<u64> },
    /// The NIC ciphers.
    Crypto { offer: OfferId, session: u32, port: VifId },
    /// The NIC does ESP.
    Protocol { offer: OfferId, session: u32, port: VifId, numbers: Range<u64>, since: u64, count: NicCount },
    /// Returned, and not gone yet.
    Leaving { offer: OfferId, numbers: Range<u64>, count: NicCount },
}

impl Default for Hold {
    fn default() -> Self {
        Self::Software { reason: NotHeld::NoHardware, again: 0 }
    }
}

impl Hold {
    const fn offer(&self) -> Option<OfferId> {
        match self {
            Self::Software { .. } => None,
            Self::Offered { offer, .. }
            | Self::Crypto { offer, .. }
            | Self::Protocol { offer, .. }
            | Self::Leaving { offer, .. } => Some(*offer),
        }
    }

    /// The session that does all of ESP for what is sent on this port.
    #[inline]
    pub(super) fn session_on(&self, to: VifId) -> Option<u32> {
        match self {
            Self::Protocol { session, port, .. } if *port == to => Some(*session),
            _ => None,
        }
    }

    /// The session that enciphers what is sent on this port.
    #[inline]
    pub(super) fn cipher_on(&self, to: VifId) -> Option<u32> {
        match self {
            Self::Crypto { session, port, .. } if *port == to => Some(*session),
            _ => None,
        }
    }

    /// The NIC keeps the replay window, and what was on its way past it has come.
    #[inline]
    pub(super) fn keeps_window(&self, now: u64) -> bool {
        matches!(self, Self::Protocol { since, .. } if now >= since.saturating_add(GRACE_MS))
    }

    /// Where it is, as operators see it.
    pub(super) const fn shown(&self) -> Result<SaMode, NotHeld> {
        match self {
            Self::Software { reason, .. } => Err(*reason),
            Self::Offered { .. } | Self::Leaving { .. } => Err(NotHeld::Pending),
            Self::Crypto { .. } => Ok(SaMode::Crypto),
            Self::Protocol { .. } => Ok(SaMode::Protocol),
        }
    }

    /// Takes it back. The offer, when the engine knows of one that has not been returned.
    fn leave(&mut self) -> Option<OfferId> {
        let (offer, numbers, count) = match self {
            Self::Software { .. } | Self::Leaving { .. } => return None,
            Self::Offered { offer, numbers } => (*offer, numbers.clone(), NicCount::default()),
            Self::Crypto { offer, .. } => (*offer, 0..0, NicCount::default()),
            Self::Protocol { offer, numbers, count, .. } => (*offer, numbers.clone(), *count),
        };
        *self = Self::Leaving { offer, numbers, count };
        Some(offer)
    }

    /// A span of time begins.
    pub(super) const fn begin_span(&mut self) {
        if let Self::Protocol { count, .. } | Self::Leaving { count, .. } = self {
            count.begin_span();
        }
    }

    /// The numbers that the NIC may have sent lately.
    pub(super) fn sent_lately(&self) -> Range<u64> {
        match self {
            Self::Protocol { numbers, count, .. } | Self::Leaving { numbers, count, .. } => count.sent_lately(numbers),
            Self::Software { .. } | Self::Offered { .. } | Self::Crypto { .. } => 0..0,
        }
    }

    /// Three quarters of its numbers: time for others.
    const fn is_used_up(&self) -> bool {
        match self {
            Self::Protocol { numbers, count, .. } => {
                numbers.end != u64::MAX && count.packets / 3 >= (numbers.end - numbers.start) / 4
            }
            _ => false,
        }
    }

    /// The range of numbers that only the NIC may use.
    const fn numbers(&self) -> Option<&Range<u64>> {
        match self {
            Self::Offered { numbers, .. } | Self::Protocol { numbers, .. } | Self::Leaving { numbers, .. } => {
                Some(numbers)
            }
            Self::Software { .. } | Self::Crypto { .. } => None,
        }
    }
}

/// What is asked of the engine, and by whom.
#[derive(Debug)]
pub(super) struct Desk {
    worker: u16,
    serial: u32,
    on: bool,
    /// Numbers that the worker may use up before the NIC's answer comes.
    lead: u64,
    pub(super) requests: Vec<Request>,
}

impl Desk {
    pub(super) const fn new(worker: u16, on: bool) -> Self {
        Self { worker, serial: 0, on, lead: LEAD, requests: Vec::new() }
    }

    /// Offers an SA of the tunnel `vif` with these numbers.
    fn offer(&mut self, usage: &Usage, vif: VifId, numbers: Range<u64>, now: u64) -> Hold {
        self.serial += 1;
        let offer = OfferId { worker: self.worker, serial: self.serial };
        let (sa, left) = (Arc::clone(&usage.sa), left(usage, now));
        self.requests.push(Request::Offer { offer, sa, vif, numbers: numbers.clone(), left });
        Hold::Offered { offer, numbers }
    }

    /// Asks for an SA to be returned that is going, or has gone.
    pub(super) fn give_back(&mut self, hold: &mut Hold, at_once: bool) {
        if let Some(offer) = hold.leave() {
            self.requests.push(Request::Return { offer, at_once });
        }
    }
}

/// What is left of a hard lifetime; 0: not limited, so never less than 1 where there is a limit.
fn left(usage: &Usage, now: u64) -> Lifetime {
    let hard = &usage.sa.hard;
    let rest = |limit: u64, used: u64| if limit == 0 { 0 } else { limit.saturating_sub(used).max(1) };
    let seconds = now.saturating_sub(usage.since) / 1000;
    Lifetime {
        packets: rest(hard.packets, usage.packets),
        bytes: rest(hard.bytes, usage.bytes),
        seconds: rest(hard.seconds, seconds),
    }
}

impl Ipsec {
    /// Offers what has not been offered, and is due.
    pub(super) fn offer(&mut self, now: u64) {
        if !self.desk.on {
            return;
        }
        let desk = &mut self.desk;
        let due = |usage: &Usage, hold: &Hold| {
            usage.ended.is_none() && matches!(hold, Hold::Software { again, .. } if *again <= now)
        };
        for (place, sa) in self.outbound.iter_mut().enumerate() {
            if !due(&sa.usage, &sa.hold) || !self.tunnels.iter().any(|tunnel| tunnel.sends_with(place)) {
                continue;
            }
            let Some(numbers) = split(sa.sa.next_sequence(), sa.granted(), desk.lead) else { continue };
            sa.hold = desk.offer(&sa.usage, sa.vif, numbers, now);
        }
        for sa in self.inbound.values_mut() {
            if !due(&sa.usage, &sa.hold) {
                continue;
            }
            // What was opened here must not be opened there once more.
            let numbers = sa.sa.window().map_or(0, crate::esp::Window::top) + 1..u64::MAX;
            sa.hold = desk.offer(&sa.usage, sa.vif, numbers, now);
        }
    }

    /// Finds the SA of an offer.
    fn find(&mut self, wanted: OfferId) -> Option<(&mut Hold, &mut Usage, Side<'_>)> {
        let out = self.outbound.iter_mut().find(|sa| sa.hold.offer() == Some(wanted));
        if let Some(sa) = out {
            return Some((&mut sa.hold, &mut sa.usage, Side::Outbound(&mut sa.sa)));
        }
        let known = self.inbound.values_mut().chain(&mut self.parked);
        let sa = known.into_iter().find(|sa| sa.hold.offer() == Some(wanted))?;
        Some((&mut sa.hold, &mut sa.usage, Side::Inbound(&mut sa.sa)))
    }

    /// Packets of an inbound SA that a NIC holds come another way than past the NIC's rule, by another port or in fragments: without
    /// the NIC's window they cannot be told from replayed ones, so the SA is taken back, each time for longer.
    pub(super) fn take_back_from_nic(&mut self, spi: u32, now: u64) {
        let Some(sa) = self.inbound.get_mut(&spi) else { return };
        // Once may be what a NIC did that was just reset.
        let pause = (AGAIN_MS << sa.usage.beside_nic.min(6)).min(RARELY_MS);
        sa.usage.beside_nic += 1;
        sa.usage.not_in_nic_before = now + pause;
        self.desk.give_back(&mut sa.hold, false);
    }

    /// Software has to seal what the NIC cannot: an outbound SA that the NIC seals with is taken back for a while. True: it was there.
    pub(super) fn take_outbound_back(&mut self, place: usize, now: u64) -> bool {
        let Some(sa) = self.outbound.get_mut(place) else { return false };
        let there = matches!(sa.hold, Hold::Protocol { .. });
        if there {
            sa.usage.not_in_nic_before = now + RARELY_MS;
            self.desk.give_back(&mut sa.hold, false);
        }
        there
    }

    /// Asks for the SA of an offer to be returned.
    fn hand_back(&mut self, offer: OfferId, at_once: bool) {
        if self.find(offer).and_then(|(hold, ..)| hold.leave()).is_some() {
            self.desk.requests.push(Request::Return { offer, at_once });
        }
    }

    /// An SA has come to its end: the NIC must not use it any more.
    pub(super) fn end_in_nic(&mut self, id: SaId) {
        let out = self.outbound.iter().filter(|sa| sa.usage.sa.id == id).find_map(|sa| sa.hold.offer());
        let known = self.inbound.values().chain(&self.parked);
        let offer = out.or_else(|| known.filter(|sa| sa.usage.sa.id == id).find_map(|sa| sa.hold.offer()));
        if let Some(offer) = offer {
            self.hand_back(offer, true);
        }
    }

    /// Takes in what the engine tells of an SA. News: a limit that it has reached.
    fn take_in(&mut self, report: &Report, now: u64) -> Option<(SaId, SaNews)> {
        match *report {
            Report::SaHeld { offer, mode, session, port } => {
                let mut confirm = None;
                let (hold, _, side) = self.find(offer)?;
                let Hold::Offered { numbers, .. } = hold else { return None };
                let numbers = numbers.clone();
                if let (SaMode::Protocol, Side::Outbound(sa)) = (mode, &side)
                    && sa.next_sequence() > numbers.start
                {
                    // The answer was so late that the NIC's first numbers are used (RFC 4106 §2): it does not begin.
                    self.hand_back(offer, false);
                    return None;
                }
                *hold = match mode {
                    SaMode::Crypto => Hold::Crypto { offer, session, port },
                    SaMode::Protocol => {
                        if let Side::Outbound(sa) = side {
                            // Lower ones would come too late behind the NIC's.
                            sa.skip_to(numbers.end);
                            confirm = Some(Request::Confirm { offer });
                        }
                        Hold::Protocol { offer, session, port, numbers, since: now, count: NicCount::default() }
                    }
                };
                self.desk.requests.extend(confirm);
                None
            }
            Report::SaCounted { offer, packets: count, bytes, refused } => {
                if let Some(sa) = self.inbound.values_mut().find(|sa| sa.hold.offer() == Some(offer)) {
                    sa.refused.by_nic += refused;
                }
                let (hold, usage, _) = self.find(offer)?;
                let (Hold::Protocol { count: counted, .. } | Hold::Leaving { count: counted, .. }) = hold else {
                    return None;
                };
                counted.add(count);
                usage.packets += count;
                usage.bytes += bytes;
                let news = usage.look(now).map(|news| (usage.sa.id, news));
                let (id, used_up) = (usage.sa.id, hold.is_used_up());
                if used_up {
                    self.hand_back(offer, false);
                }
                news.or(used_up.then_some((id, SaNews::Low)))
            }
            Report::SaLeave { offer } => {
                self.hand_back(offer, false);
                None
            }
            Report::SaGone { offer, reason } => {
                let (hold, usage, side) = self.find(offer)?;
                let packets = match hold {
                    Hold::Protocol { count, .. } | Hold::Leaving { count, .. } => count.packets,
                    _ => 0,
                };
                match (side, hold.numbers()) {
                    (Side::Outbound(sa), Some(numbers)) if matches!(hold, Hold::Protocol { .. }) => {
                        sa.skip_to(numbers.end)
                    }
                    // The NIC has taken as many, so its window had come as far at least.
                    (Side::Inbound(sa), Some(numbers)) if packets > 0 => {
                        sa.refuse_through(numbers.start.saturating_add(packets) - 1);
                    }
                    _ => {}
                }
                let pause = match reason {
                    NotHeld::Unsupported => RARELY_MS,
                    _ => AGAIN_MS,
                };
                let (reason, again) = match usage.not_in_nic_before {
                    before if before > now => (NotHeld::Underlay, before),
                    _ => (reason, now + pause),
                };
                *hold = Hold::Software { reason, again };
                None
            }
            Report::Tunnel { vif, sealed, .. } => {
                if let Some(tunnel) = self.tunnel_mut(vif) {
                    tunnel.sealed_by_nic = sealed;
                }
                None
            }
            Report::State { .. }
            | Report::Marked { .. }
            | Report::Counted { .. }
            | Report::Transit { .. }
            | Report::Gone { .. } => None,
        }
    }

    /// The engine has lost its books.
    fn lost(&mut self, now: u64) {
        for tunnel in &mut self.tunnels {
            tunnel.sealed_by_nic = false;
        }
        let outbound = self.outbound.iter_mut().map(|sa| (&mut sa.hold, Some(&mut sa.sa)));
        let inbound = self.inbound.values_mut().chain(&mut self.parked).map(|sa| (&mut sa.hold, None));
        for (hold, sa) in outbound.chain(inbound) {
            if let (Some(sa), Some(numbers)) = (sa, hold.numbers()) {
                // Whether it has used any of them nobody knows.
                sa.skip_to(numbers.end);
            }
            if hold.offer().is_some() {
                *hold = Hold::Software { reason: NotHeld::Lost, again: now + AGAIN_MS };
            }
        }
    }

    /// All are taken back, or may be offered again.
    fn switch(&mut self, on: bool, now: u64) {
        self.desk.on = on;
        let holds = self.outbound.iter_mut().map(|sa| &mut sa.hold);
        for hold in holds.chain(self.inbound.values_mut().chain(&mut self.parked).map(|sa| &mut sa.hold)) {
            if !on {
                self.desk.give_back(hold, false);
            }
            if let Hold::Software { reason, again } = hold {
                (*reason, *again) = if on { (NotHeld::Pending, now) } else { (NotHeld::Off, u64::MAX) };
            }
        }
    }
}

/// The numbers that the NIC may have of those that are reserved, if that is worth it.
fn split(next: u64, granted: u64, lead: u64) -> Option<Range<u64>> {
    let have = granted.checked_sub(next)?;
    let (lead, reserve) = (lead.min(have / 16), RESERVE.min(have / 4));
    (have >= 1024).then_some(next + lead..granted - reserve)
}

/// The half of an SA that is not the same both ways.
enum Side<'a> {
    Outbound(&'a mut crate::esp::OutboundSa),
    Inbound(&'a mut crate::esp::InboundSa),
}

impl Worker {
    /// The NIC's answers come before the next packet, as in a replay: no sequence numbers are set aside for what is sealed meanwhile.
    pub const fn nic_answers_at_once(&mut self) {
        self.ipsec.desk.lead = 0;
    }

    /// Takes in what the engine tells of SAs.
    pub(in crate::worker) fn sa_report(&mut self, report: &Report, now: u64, out: &mut Outbox) {
        let changes_flows = matches!(report, Report::Tunnel { .. } | Report::SaHeld { .. } | Report::SaGone { .. });
        if let Some((sa, news)) = self.ipsec.take_in(report, now) {
            self.tell_of_sa(sa, news, out);
        }
        if changes_flows {
            self.sweep_offloads_soon();
        }
    }

    /// Hands over what the desk has for the engine.
    pub(in crate::worker) fn offer_sas(&mut self, now: u64) {
        if self.config.offload {
            self.ipsec.offer(now);
        }
        self.ask_engine(&mut Vec::new());
    }

    pub(in crate::worker) fn ask_engine(&mut self, spare: &mut Vec<Request>) {
        std::mem::swap(spare, &mut self.ipsec.desk.requests);
        self.offload_requests(spare);
    }

    /// The engine's queue did not take a request about an SA: once more, soon.
    pub(in crate::worker) fn sa_request_refused(&mut self, request: &Request, now: u64) {
        match request {
            Request::Offer { offer, .. } => {
                if let Some((hold, ..)) = self.ipsec.find(*offer) {
                    *hold = Hold::Software { reason: NotHeld::Pending, again: now + AGAIN_MS };
                }
            }
            other => self.ipsec.desk.requests.push(other.clone()),
        }
    }

    /// The engine has lost its books on SAs.
    pub(in crate::worker) fn sas_lost(&mut self) {
        self.ipsec.lost(self.clock);
        self.sweep_offloads_soon();
    }

    /// `host-ctl offload on|off`.
    pub(in crate::worker) fn switch_sas(&mut self, on: bool) {
        self.ipsec.switch(on, self.clock);
    }

    /// Seals what a NIC has done everything about but that.
    #[cold]
    pub(in crate::worker) fn seal_for_nic(&mut self, tunnel: VifId, mut packet: Packet, port: VifId, out: &mut Outbox) {
        let snapshot = Arc::clone(&self.snapshot);
        packet.set_note(NicNote::None);
        let drop = |worker: &mut Self, packet, reason, out: &mut Outbox| {
            worker.counters.account.received += 1;
            worker.drop_packet(port, packet, reason, out);
        };
        let Some(leg) = resumed_leg(&snapshot, tunnel, packet.data()) else {
            return drop(self, packet, DropReason::InvalidNh, out);
        };
        let ethernet = leg.l2.map_or(0, |l2| l2.bytes().len());
        packet.advance(ethernet);
        let total = match packet.data() {
            [0x45..=0x4f, _, a, b, ..] => u16::from_be_bytes([*a, *b]).into(),
            [first, _, _, _, a, b, ..] if first >> 4 == 6 => 40 + usize::from(u16::from_be_bytes([*a, *b])),
            _ => return drop(self, packet, DropReason::InvalidProtocol, out),
        };
        // What Ethernet padded is no part of the packet.
        packet.truncate(total);
        self.seal(&leg, (TxKind::Resumed, tunnel), packet, out);
    }
}

/// Where a packet goes once it is sealed: out on the tunnel's underlay, behind the Ethernet header that the NIC has written.
fn resumed_leg(snapshot: &Snapshot, tunnel: VifId, frame: &[u8]) -> Option<SealLeg> {
    let ipsec = snapshot.vif(tunnel)?.kind.tunnel()?;
    let link = underlay(snapshot, ipsec)?;
    let ethernet = parse::ethernet(frame).ok()?;
    Some(SealLeg {
        tunnel,
        dscp: ipsec.dscp,
        df: ipsec.df,
        vif: link,
        port: snapshot.port_of(link),
        l2: Some(L2Rewrite::new(frame.get(..ethernet.len)?)?),
        // The NIC's rules take nothing larger than goes into one.
        whole: u16::MAX,
        fragment: u16::MAX,
    })
}
