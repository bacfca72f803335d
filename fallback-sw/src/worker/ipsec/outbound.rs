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

/// Who enciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    Software,
    /// The NIC, as the frame goes out.
    Nic,
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
}

impl Outbound {
    pub(super) fn new(usage: Usage, sa: OutboundSa, vif: VifId) -> Self {
        Self { usage, sa, vif, nic: NicState::default(), granted: 0, low: 0, asked: false }
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
    }

    /// Seals a packet, or does all but the cipher. News: a limit that the SA has reached.
    #[inline]
    pub(super) fn seal(
        &mut self,
        packet: &mut Packet,
        outer: OuterFields,
        by: Cipher,
        now: u64,
    ) -> Result<Option<SaNews>, DropReason> {
        let next = self.sa.next_sequence();
        if next >= self.granted {
            return Err(if self.sa.is_exhausted() { DropReason::SaExhausted } else { DropReason::SaPending });
        }
        let octets = packet.len();
        let OuterFields { tos, df, id } = outer;
        let id = id.unwrap_or(next as u16);
        let sealed =
            if by == Cipher::Nic { self.sa.frame(packet, tos, id, df) } else { self.sa.seal(packet, tos, id, df) };
        sealed.map_err(|error| match error {
            esp::SealError::Exhausted => DropReason::SaExhausted,
            esp::SealError::NotIp => DropReason::InvalidProtocol,
            esp::SealError::NoRoom => DropReason::NoHeadroom,
        })?;
        self.usage.count(octets);
        if self.sa.is_exhausted() {
            return Ok(Some(self.usage.end(DropReason::SaExhausted)));
        }
        if !self.asked && self.granted - next <= self.low {
            self.asked = true;
            return Ok(Some(SaNews::Low));
        }
        Ok(self.usage.look(now))
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
