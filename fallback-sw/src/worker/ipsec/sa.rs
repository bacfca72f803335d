//! Security associations as their worker counts and shows them.

use std::sync::Arc;

use offload_rules::{
    DropReason, SaId, VifId,
    forwarding::{Lifetime, Sa},
};

use offload_engine::protocol::{NotHeld, SaMode};

/// What a worker tells of an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaNews {
    /// The soft lifetime is over.
    Expiring,
    /// It is at its end: [`DropReason::SaExpired`] or [`DropReason::SaExhausted`].
    Ended(DropReason),
    /// Half of the sequence numbers that it may use are used.
    Low,
}

/// Sequence numbers that an outbound SA may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The SA.
    pub sa: Arc<Sa>,
    /// From this one on.
    pub from: u64,
    /// Up to, and without, this one.
    pub until: u64,
}

/// An SA as its worker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaStatus {
    /// Its number.
    pub id: SaId,
    /// Its tunnel.
    pub vif: VifId,
    /// Sealed, or opened and authentic.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
    /// Outbound: number of the next packet. Inbound: highest that was authentic.
    pub sequence: u64,
    /// Outbound: numbers below are reserved.
    pub reserved_until: u64,
    /// Received packets that were dropped, by reason.
    pub refused: Refused,
    /// Milliseconds in force.
    pub age_ms: u64,
    /// The soft lifetime is over.
    pub expiring: bool,
    /// At its end, and why.
    pub ended: Option<DropReason>,
    /// Its tunnel sends with it, or it receives.
    pub active: bool,
    /// How the NIC holds it, or why it does not.
    pub nic: Result<SaMode, NotHeld>,
}

/// Received packets of an SA that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Sequence number left of the replay window.
    pub replay_old: u64,
    /// Sequence number received before.
    pub replay_duplicate: u64,
    /// The check value is wrong.
    pub authentication: u64,
    /// Anything else.
    pub malformed: u64,
    /// By the NIC, which does not say why.
    pub by_nic: u64,
}

/// Use of an SA, against its lifetimes.
pub(super) struct Usage {
    pub(super) sa: Arc<Sa>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// When it was put in force, in milliseconds of the node's clock.
    pub(super) since: u64,
    pub(super) expiring: bool,
    pub(super) ended: Option<DropReason>,
    /// Not offered to a NIC before this time, in milliseconds of the node's clock: its packets come past the NIC's rule.
    pub(super) not_in_nic_before: u64,
    /// How often its packets have bypassed the NIC's rule.
    pub(super) bypasses: u32,
    /// No limit is reached before one of these is.
    next: Milestone,
}

/// What an SA's use is compared with for each packet: the nearest of all limits.
#[derive(Debug, Clone, Copy)]
struct Milestone {
    packets: u64,
    bytes: u64,
    /// In milliseconds of the node's clock.
    at: u64,
}

impl Milestone {
    const NOW: Self = Self { packets: 0, bytes: 0, at: 0 };
    const NEVER: Self = Self { packets: u64::MAX, bytes: u64::MAX, at: u64::MAX };

    /// Before the limits of a lifetime, too, that began at `since`.
    fn and(self, limits: &Lifetime, since: u64) -> Self {
        let nearer = |mine: u64, limit: u64| if limit == 0 { mine } else { mine.min(limit) };
        let at = if limits.seconds == 0 { 0 } else { since.saturating_add(limits.seconds.saturating_mul(1000)) };
        Self {
            packets: nearer(self.packets, limits.packets),
            bytes: nearer(self.bytes, limits.bytes),
            at: nearer(self.at, at),
        }
    }
}

impl Usage {
    pub(super) const fn new(sa: Arc<Sa>, now: u64) -> Self {
        Self {
            sa,
            packets: 0,
            bytes: 0,
            since: now,
            expiring: false,
            ended: None,
            not_in_nic_before: 0,
            bypasses: 0,
            next: Milestone::NOW,
        }
    }

    /// Counts a packet.
    #[inline]
    pub(super) fn count(&mut self, octets: usize) {
        self.packets += 1;
        self.bytes += octets as u64;
    }

    /// News, if a limit has been reached since the last look.
    #[inline]
    pub(super) fn look(&mut self, now: u64) -> Option<SaNews> {
        let Milestone { packets, bytes, at } = self.next;
        if self.packets < packets && self.bytes < bytes && now < at { None } else { self.look_closely(now) }
    }

    #[cold]
    fn look_closely(&mut self, now: u64) -> Option<SaNews> {
        let news = self.news(now);
        // Both limits may be reached at once: the other one is told of with the next look.
        let mut next = if news.is_some() { Milestone::NOW } else { Milestone::NEVER };
        if self.ended.is_none() {
            next = next.and(&self.sa.hard, self.since);
        }
        if !self.expiring {
            next = next.and(&self.sa.soft, self.since);
        }
        self.next = next;
        news
    }

    fn news(&mut self, now: u64) -> Option<SaNews> {
        let seconds = now.saturating_sub(self.since) / 1000;
        if self.ended.is_none() && self.sa.hard.is_over(self.packets, self.bytes, seconds) {
            return Some(self.end(DropReason::SaExpired));
        }
        if !self.expiring && self.sa.soft.is_over(self.packets, self.bytes, seconds) {
            self.expiring = true;
            return Some(SaNews::Expiring);
        }
        None
    }

    pub(super) const fn end(&mut self, reason: DropReason) -> SaNews {
        self.ended = Some(reason);
        SaNews::Ended(reason)
    }
}
