//! An SA for sending.

use offload_rules::{DropReason, VifId};

use super::{
    nic_state::NicState,
    sa::{Grant, Refused, SaNews, SaStatus, Usage},
};
use crate::{
    esp::{self, OutboundSa},
    packet::Packet,
};

/// Fields of an outer header.
#[derive(Debug, Clone, Copy)]
pub(super) struct OuterFields {
    pub(super) tos: u8,
    pub(super) df: bool,
    /// Identification; `None`: the lower half of the sequence number, for what is not fragmented.
    pub(super) id: Option<u16>,
}

/// An SA for sending, of this worker.
pub(super) struct Outbound {
    pub(super) usage: Usage,
    pub(super) sa: OutboundSa,
    pub(super) vif: VifId,
    pub(super) nic: NicState,
    /// Numbers from this one on may not be used yet.
    granted: u64,
    /// How many of those that may be used are left when more are asked for.
    low: u64,
    asked: bool,
    /// Numbers below this one are granted, and nothing is to be told when they are used.
    quiet: u64,
}

impl Outbound {
    pub(super) fn new(usage: Usage, sa: OutboundSa, vif: VifId) -> Self {
        Self { usage, sa, vif, nic: NicState::default(), granted: 0, low: 0, asked: false, quiet: 0 }
    }

    pub(super) const fn granted(&self) -> u64 {
        self.granted
    }

    /// More numbers. What is left of those before stays of use when these follow on them; else it is passed over.
    pub(super) fn grant(&mut self, grant: &Grant) {
        if grant.from != self.granted {
            self.sa.skip_to(grant.from);
        }
        self.granted = self.granted.max(grant.until);
        self.low = self.granted.saturating_sub(self.sa.next_sequence()) / 2;
        self.asked = false;
        self.quiet = self.granted.saturating_sub(self.low).min(self.sa.last_sequence());
    }

    /// Seals a packet but for the cipher. News: a limit that the SA has reached.
    #[inline]
    pub(super) fn frame(
        &mut self,
        packet: &mut Packet,
        outer: OuterFields,
        now: u64,
    ) -> Result<Option<SaNews>, DropReason> {
        let next = self.sa.next_sequence();
        if next >= self.quiet {
            self.may_use(next)?;
        }
        let octets = packet.len();
        let OuterFields { tos, df, id } = outer;
        self.sa.frame(packet, tos, id.unwrap_or(next as u16), df).map_err(|error| match error {
            esp::SealError::Exhausted => DropReason::SaExhausted,
            esp::SealError::NotIp => DropReason::InvalidProtocol,
            esp::SealError::NoRoom => DropReason::NoHeadroom,
        })?;
        self.usage.count(octets);
        if next < self.quiet {
            return Ok(self.usage.look(now));
        }
        Ok(self.used(next).or_else(|| self.usage.look(now)))
    }

    /// May this number be used?
    #[cold]
    const fn may_use(&self, number: u64) -> Result<(), DropReason> {
        if number < self.granted {
            return Ok(());
        }
        Err(if self.sa.is_exhausted() { DropReason::SaExhausted } else { DropReason::SaPending })
    }

    /// What is to be told once this number was used.
    #[cold]
    fn used(&mut self, number: u64) -> Option<SaNews> {
        if self.sa.is_exhausted() {
            return Some(self.usage.end(DropReason::SaExhausted));
        }
        if !self.asked && self.granted - number <= self.low {
            self.asked = true;
            self.quiet = self.granted.min(self.sa.last_sequence());
            return Some(SaNews::Low);
        }
        None
    }

    pub(super) fn status(&self, active: bool, now: u64) -> SaStatus {
        let Usage { sa, packets, bytes, since, expiring, ended, .. } = &self.usage;
        SaStatus {
            id: sa.id,
            vif: self.vif,
            packets: *packets,
            bytes: *bytes,
            sequence: self.sa.next_sequence(),
            reserved_until: self.granted,
            refused: Refused::default(),
            age_ms: now.saturating_sub(*since),
            expiring: *expiring,
            ended: *ended,
            active,
            nic: self.nic.shown(),
        }
    }
}
