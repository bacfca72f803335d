//! SAs in a NIC: offered by the worker that owns them, held by sessions, returned.
//!
//! The worker keeps the last word on every SA, and can go on by itself at any time: of the sequence numbers that are reserved the NIC
//! gets a range of its own, and those behind it stay the worker's.

use std::ops::Range;

use offload_rules::SaId;

use super::{
    nic_state::{AGAIN_MS, NicCount, NicState, RARELY_MS, RESERVE},
    sa::{SaNews, Usage},
    table::Ipsec,
};
use crate::worker::{env::Env, event::Event};
use offload_engine::protocol::{NotHeld, OfferId, Report, Request, SaMode};

impl Ipsec {
    /// Offers what has not been offered, and is due.
    pub(in crate::worker) fn offer(&mut self, now: u64) {
        if !self.offers.present || !self.offers.on {
            return;
        }
        let offers = &mut self.offers;
        let due = |usage: &Usage, state: &NicState| {
            usage.ended.is_none() && matches!(state, NicState::Software { again, .. } if *again <= now)
        };
        for (place, sa) in self.outbound.iter_mut().enumerate() {
            if !due(&sa.usage, &sa.nic) || !self.tunnels.iter().any(|tunnel| tunnel.sends_with(place)) {
                continue;
            }
            let Some(numbers) = split(sa.sa.next_sequence(), sa.granted(), offers.lead) else { continue };
            sa.nic = offers.offer(&sa.usage, sa.vif, numbers, now);
        }
        for sa in self.inbound.values_mut() {
            if !due(&sa.usage, &sa.nic) {
                continue;
            }
            // What was opened here must not be opened there once more.
            let numbers = sa.sa.window().map_or(0, crate::esp::Window::top) + 1..u64::MAX;
            sa.nic = offers.offer(&sa.usage, sa.vif, numbers, now);
        }
    }

    /// The NIC's answers come before the next packet, as in a replay: no sequence numbers are set aside for what is sealed meanwhile.
    pub(in crate::worker) const fn answers_come_at_once(&mut self) {
        self.offers.lead = 0;
    }

    /// The engine's queue did not take a request about an SA: once more, soon.
    pub(in crate::worker) fn refused(&mut self, request: &Request, now: u64) {
        match request {
            Request::Offer { offer, .. } => {
                if let Some((state, ..)) = self.find(*offer) {
                    *state = NicState::Software { reason: NotHeld::Pending, again: now + AGAIN_MS };
                }
            }
            other => self.offers.requests.push(other.clone()),
        }
    }

    /// What the engine is asked about SAs.
    pub(in crate::worker) const fn requests(&mut self) -> &mut Vec<Request> {
        &mut self.offers.requests
    }

    /// Finds the SA of an offer.
    fn find(&mut self, wanted: OfferId) -> Option<(&mut NicState, &mut Usage, Side<'_>)> {
        let out = self.outbound.iter_mut().find(|sa| sa.nic.offer() == Some(wanted));
        if let Some(sa) = out {
            return Some((&mut sa.nic, &mut sa.usage, Side::Outbound(&mut sa.sa)));
        }
        let known = self.inbound.values_mut().chain(&mut self.inactive);
        let sa = known.into_iter().find(|sa| sa.nic.offer() == Some(wanted))?;
        Some((&mut sa.nic, &mut sa.usage, Side::Inbound(&mut sa.sa)))
    }

    /// Packets of an inbound SA that a NIC holds bypass the NIC's rule, by another port or in fragments: without
    /// the NIC's window they cannot be told from replayed ones, so the SA is taken back, each time for longer.
    pub(super) fn take_back_from_nic(&mut self, spi: u32, now: u64) {
        let Some(sa) = self.inbound.get_mut(&spi) else { return };
        // Once may be what a NIC did that was just reset.
        let pause = (AGAIN_MS << sa.usage.bypasses.min(6)).min(RARELY_MS);
        sa.usage.bypasses += 1;
        sa.usage.not_in_nic_before = now + pause;
        self.offers.give_back(&mut sa.nic, false);
    }

    /// Software has to seal what the NIC cannot: an outbound SA that the NIC seals with is taken back for a while.
    pub(super) fn take_outbound_back(&mut self, place: usize, now: u64) {
        let Some(sa) = self.outbound.get_mut(place) else { return };
        if matches!(sa.nic, NicState::Protocol { .. }) {
            sa.usage.not_in_nic_before = now + RARELY_MS;
            self.offers.give_back(&mut sa.nic, false);
        }
    }

    /// Asks for the SA of an offer to be returned.
    fn hand_back(&mut self, offer: OfferId, at_once: bool) {
        if self.find(offer).and_then(|(state, ..)| state.leave()).is_some() {
            self.offers.requests.push(Request::Return { offer, at_once });
        }
    }

    /// An SA has come to its end: the NIC must not use it any more.
    pub(super) fn end_in_nic(&mut self, id: SaId) {
        let out = self.outbound.iter().filter(|sa| sa.usage.sa.id == id).find_map(|sa| sa.nic.offer());
        let known = self.inbound.values().chain(&self.inactive);
        let offer = out.or_else(|| known.filter(|sa| sa.usage.sa.id == id).find_map(|sa| sa.nic.offer()));
        if let Some(offer) = offer {
            self.hand_back(offer, true);
        }
    }

    /// Takes in what the engine tells of an SA.
    pub(in crate::worker) fn report(&mut self, report: &Report, env: &Env, events: &mut Vec<Event>) {
        if let Some((sa, news)) = self.take_in(report, env.clock) {
            self.tell(sa, news, env, events);
        }
    }

    /// Takes in what the engine tells of an SA. News: a limit that it has reached.
    fn take_in(&mut self, report: &Report, now: u64) -> Option<(SaId, SaNews)> {
        match *report {
            Report::SaHeld { offer, mode, session, port } => {
                let mut confirm = None;
                let (state, _, side) = self.find(offer)?;
                let NicState::Offered { numbers, .. } = state else { return None };
                let numbers = numbers.clone();
                if let (SaMode::Protocol, Side::Outbound(sa)) = (mode, &side)
                    && sa.next_sequence() > numbers.start
                {
                    // The answer was so late that the NIC's first numbers are used (RFC 4106 §2): it does not begin.
                    self.hand_back(offer, false);
                    return None;
                }
                *state = match mode {
                    SaMode::Crypto => NicState::Crypto { offer, session, port },
                    SaMode::Protocol => {
                        if let Side::Outbound(sa) = side {
                            // Lower ones would come too late behind the NIC's.
                            sa.skip_to(numbers.end);
                            confirm = Some(Request::Confirm { offer });
                        }
                        NicState::Protocol { offer, session, port, numbers, since: now, count: NicCount::default() }
                    }
                };
                self.offers.requests.extend(confirm);
                None
            }
            Report::SaCounted { offer, packets: count, bytes, refused } => {
                if let Some(sa) = self.inbound.values_mut().find(|sa| sa.nic.offer() == Some(offer)) {
                    sa.refused.by_nic += refused;
                }
                let (state, usage, _) = self.find(offer)?;
                let (NicState::Protocol { count: counted, .. } | NicState::Leaving { count: counted, .. }) = state
                else {
                    return None;
                };
                counted.add(count);
                usage.packets += count;
                usage.bytes += bytes;
                let news = usage.look(now).map(|news| (usage.sa.id, news));
                let (id, used_up) = (usage.sa.id, state.is_used_up());
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
                let (state, usage, side) = self.find(offer)?;
                let packets = match state {
                    NicState::Protocol { count, .. } | NicState::Leaving { count, .. } => count.packets,
                    _ => 0,
                };
                match (side, state.numbers()) {
                    (Side::Outbound(sa), Some(numbers)) if matches!(state, NicState::Protocol { .. }) => {
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
                *state = NicState::Software { reason, again };
                None
            }
            // What may be offloaded because of it, the flows' side looks at.
            Report::Tunnel { .. }
            | Report::State { .. }
            | Report::Marked { .. }
            | Report::Counted { .. }
            | Report::Transit { .. }
            | Report::Gone { .. } => None,
        }
    }

    /// The engine has been started anew, and the NIC holds no SA any more.
    pub(in crate::worker) fn lost(&mut self, now: u64) {
        let outbound = self.outbound.iter_mut().map(|sa| (&mut sa.nic, Some(&mut sa.sa)));
        let inbound = self.inbound.values_mut().chain(&mut self.inactive).map(|sa| (&mut sa.nic, None));
        for (state, sa) in outbound.chain(inbound) {
            if let (Some(sa), Some(numbers)) = (sa, state.numbers()) {
                // It may have used any of them.
                sa.skip_to(numbers.end);
            }
            if state.offer().is_some() {
                *state = NicState::Software { reason: NotHeld::Lost, again: now + AGAIN_MS };
            }
        }
    }

    /// `host-ctl offload on|off`: all are taken back, or may be offered again.
    pub(in crate::worker) fn switch(&mut self, on: bool, now: u64) {
        self.offers.on = on;
        let states = self.outbound.iter_mut().map(|sa| &mut sa.nic);
        for state in states.chain(self.inbound.values_mut().chain(&mut self.inactive).map(|sa| &mut sa.nic)) {
            if !on {
                self.offers.give_back(state, false);
            }
            if let NicState::Software { reason, again } = state {
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
