//! IPsec of one worker: the SAs that it owns, and with which of them each tunnel sends.
//!
//! Each SA has one owner, so that no core shares a sequence number or a replay window with another: an outbound SA the worker that
//! the state names, an inbound one the worker that its index tells. Who has a packet for another one's SA hands it over.

mod inbound;
mod nic;
mod outbound;
mod quoted;
mod table;

use std::sync::Arc;

use offload_rules::{
    DropReason, SaId, VifId,
    forwarding::{DfPolicy, L2Rewrite, Sa},
};

pub use outbound::Sealing;
pub use quoted::EspQuote;
pub(super) use quoted::Quoted;
pub(super) use table::Ipsec;

use super::{Outbox, Worker};
use crate::packet::Packet;
use offload_engine::protocol::{NotHeld, SaMode};

/// Milliseconds between two looks at lifetimes in seconds and at keepalives.
const LOOK_MS: u64 = 1000;

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
    /// Which.
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
    /// What was wrong with received packets.
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
    /// Left of the window.
    pub replay_old: u64,
    /// Received before.
    pub replay_duplicate: u64,
    /// Not authentic.
    pub authentication: u64,
    /// Anything else.
    pub malformed: u64,
    /// By the NIC, which does not say why.
    pub by_nic: u64,
}

/// How far an SA is used up.
struct Usage {
    sa: Arc<Sa>,
    packets: u64,
    bytes: u64,
    /// When it was put in force, in milliseconds of the node's clock.
    since: u64,
    expiring: bool,
    ended: Option<DropReason>,
    /// Not offered to a NIC before this time, in milliseconds of the node's clock: its packets come beside the NIC's rule.
    not_in_nic_before: u64,
    /// How often they did.
    beside_nic: u32,
}

impl Usage {
    const fn new(sa: Arc<Sa>, now: u64) -> Self {
        Self { sa, packets: 0, bytes: 0, since: now, expiring: false, ended: None, not_in_nic_before: 0, beside_nic: 0 }
    }

    /// Counts a packet.
    #[inline]
    fn count(&mut self, octets: usize) {
        self.packets += 1;
        self.bytes += octets as u64;
    }

    /// News, if a limit has been reached since the last look.
    #[inline]
    fn look(&mut self, now: u64) -> Option<SaNews> {
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

    const fn end(&mut self, reason: DropReason) -> SaNews {
        self.ended = Some(reason);
        SaNews::Ended(reason)
    }
}

/// The don't-fragment bit, and the type of service, of an IP packet.
fn df_and_tos(l3: &[u8]) -> (bool, u8) {
    match l3 {
        [first, second, ..] if first >> 4 == 6 => (true, first << 4 | second >> 4),
        [_, tos, _, _, _, _, flags, ..] => (flags & 0x40 != 0, *tos),
        _ => (false, 0),
    }
}

impl Worker {
    /// Sequence numbers that SAs may use from now on.
    pub fn grant(&mut self, grants: &[Grant]) {
        self.ipsec.grant(grants, self.config.id, self.config.workers);
        self.offer_sas(self.clock);
    }

    /// The SAs that this worker owns.
    #[must_use]
    pub fn sas(&self) -> Vec<SaStatus> {
        self.ipsec.statuses(self.clock)
    }

    /// What time does to SAs and tunnels.
    pub(super) fn tick_ipsec(&mut self, now: u64, out: &mut Outbox) {
        let mut news = Vec::new();
        let keepalives = self.ipsec.tick(now, &mut news);
        for (sa, news) in news {
            self.tell_of_sa(sa, news, out);
        }
        self.offer_sas(now);
        for (vrf, keepalive) in keepalives {
            self.originate(vrf, Packet::from_frame(&keepalive), now, out);
        }
    }

    /// Never left out: each is told once.
    fn tell_of_sa(&mut self, sa: SaId, news: SaNews, out: &mut Outbox) {
        if matches!(news, SaNews::Ended(_)) {
            self.ipsec.end_in_nic(sa);
            self.offer_sas(self.clock);
            self.ipsec.choose_all(&self.snapshot, (self.config.id, self.config.workers));
        }
        out.events.push(super::Event::Sa { sa, news });
    }
}
