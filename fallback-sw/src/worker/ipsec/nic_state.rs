//! The state of an SA in the NIC.
//!
//! ```text
//!              offer                  held                       leave, used up, other SA
//!  Software ─────────► Offered ───────────► Crypto or Protocol ─────────────────────────► Leaving
//!     ▲                   │ refused              │ gone                                       │ gone
//!     └───────────────────┴──────────────────────┴────────────────────────────────────────────┘
//! ```

use std::{ops::Range, sync::Arc};

use offload_rules::{VifId, forwarding::Lifetime};

use super::sa::Usage;
use offload_engine::protocol::{NotHeld, OfferId, Request, SaMode};

/// Milliseconds before an SA is offered again that the NIC did not take, or has lost, or whose port may not be open yet.
pub(super) const AGAIN_MS: u64 = 1000;
/// The same where nothing but another configuration makes a difference.
pub(super) const RARELY_MS: u64 = 60_000;
/// Milliseconds in which packets that were received before the NIC's rule was there may still be opened in software.
const GRACE_MS: u64 = 1000;
/// Numbers that stay the worker's behind those of the NIC: what it seals with until more are reserved.
pub(super) const RESERVE: u64 = 1 << 20;
/// Numbers that the worker may use up before the NIC's answer comes.
const LEAD: u64 = 1 << 16;

/// Packets that the NIC may have sent since its last report, where that tells of fewer.
const UNCOUNTED: u64 = 1024;

/// How many packets of an SA have passed in the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct NicCount {
    /// Since it holds the SA.
    pub(super) packets: u64,
    /// At the beginnings of the last two spans of time, the older one first.
    spans: [u64; 2],
    /// In the last report.
    last: u64,
}

impl NicCount {
    pub(super) const fn add(&mut self, count: u64) {
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

/// State of an SA in the NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NicState {
    /// Software does ESP; offered again at this time.
    Software { reason: NotHeld, again: u64 },
    /// Offered, with these numbers.
    Offered { offer: OfferId, numbers: Range<u64> },
    /// The NIC enciphers or deciphers, software does the rest (inline crypto).
    Crypto { offer: OfferId, session: u32, port: VifId },
    /// The NIC does all of ESP (inline protocol).
    Protocol { offer: OfferId, session: u32, port: VifId, numbers: Range<u64>, since: u64, count: NicCount },
    /// Returned, and not gone yet.
    Leaving { offer: OfferId, numbers: Range<u64>, count: NicCount },
}

impl Default for NicState {
    fn default() -> Self {
        Self::Software { reason: NotHeld::NoHardware, again: 0 }
    }
}

impl NicState {
    pub(super) const fn offer(&self) -> Option<OfferId> {
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

    /// Which of them does ESP, as operators see it.
    pub(super) const fn shown(&self) -> Result<SaMode, NotHeld> {
        match self {
            Self::Software { reason, .. } => Err(*reason),
            Self::Offered { .. } | Self::Leaving { .. } => Err(NotHeld::Pending),
            Self::Crypto { .. } => Ok(SaMode::Crypto),
            Self::Protocol { .. } => Ok(SaMode::Protocol),
        }
    }

    /// Takes it back. The offer, when the engine knows of one that has not been returned.
    pub(super) fn leave(&mut self) -> Option<OfferId> {
        let (offer, numbers, count) = match self {
            Self::Software { .. } | Self::Leaving { .. } => return None,
            Self::Offered { offer, numbers } => (*offer, numbers.clone(), NicCount::default()),
            Self::Crypto { offer, .. } => (*offer, 0..0, NicCount::default()),
            Self::Protocol { offer, numbers, count, .. } => (*offer, numbers.clone(), *count),
        };
        *self = Self::Leaving { offer, numbers, count };
        Some(offer)
    }

    /// Begins a new span of sent numbers.
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

    /// Three quarters of the NIC's numbers are used: the SA is to be offered again with new ones.
    pub(super) const fn is_used_up(&self) -> bool {
        match self {
            Self::Protocol { numbers, count, .. } => {
                numbers.end != u64::MAX && count.packets / 3 >= (numbers.end - numbers.start) / 4
            }
            _ => false,
        }
    }

    /// The range of numbers that only the NIC may use.
    pub(super) const fn numbers(&self) -> Option<&Range<u64>> {
        match self {
            Self::Offered { numbers, .. } | Self::Protocol { numbers, .. } | Self::Leaving { numbers, .. } => {
                Some(numbers)
            }
            Self::Software { .. } | Self::Crypto { .. } => None,
        }
    }
}

/// Offers of SAs to the NIC: what the engine is asked, and by whom.
#[derive(Debug)]
pub(super) struct NicOffers {
    worker: u16,
    serial: u32,
    /// There is an engine.
    pub(super) present: bool,
    /// The operator wants it.
    pub(super) on: bool,
    /// Numbers that the worker may use up before the NIC's answer comes.
    pub(super) lead: u64,
    pub(super) requests: Vec<Request>,
}

impl NicOffers {
    pub(super) const fn new(worker: u16, on: bool) -> Self {
        Self { worker, serial: 0, present: on, on, lead: LEAD, requests: Vec::new() }
    }

    /// Offers an SA of the tunnel `vif` with these numbers.
    pub(super) fn offer(&mut self, usage: &Usage, vif: VifId, numbers: Range<u64>, now: u64) -> NicState {
        self.serial += 1;
        let offer = OfferId { worker: self.worker, serial: self.serial };
        let (sa, left) = (Arc::clone(&usage.sa), left(usage, now));
        self.requests.push(Request::Offer { offer, sa, vif, numbers: numbers.clone(), left });
        NicState::Offered { offer, numbers }
    }

    /// Asks for an SA to be returned that is going, or has gone.
    pub(super) fn give_back(&mut self, state: &mut NicState, at_once: bool) {
        if let Some(offer) = state.leave() {
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
