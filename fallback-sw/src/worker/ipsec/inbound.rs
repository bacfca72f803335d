//! An SA for receiving.

use std::net::Ipv4Addr;

use offload_rules::{DropReason, VifId, VrfId};

use super::{
    nic_state::NicState,
    sa::{Refused, SaStatus, Usage},
};
use crate::esp::{InboundSa, OpenError, ReplayError};

/// An SA for receiving, of this worker.
pub(super) struct Inbound {
    pub(super) usage: Usage,
    pub(super) sa: InboundSa,
    pub(super) vif: VifId,
    /// Where its packets come to: the tunnel's source, in the VRF of its outer packets.
    pub(super) end: (VrfId, Ipv4Addr),
    pub(super) refused: Refused,
    pub(super) nic: NicState,
}

impl Inbound {
    pub(super) fn refuse(&mut self, error: OpenError) -> DropReason {
        let (count, reason) = match error {
            OpenError::Truncated => (&mut self.refused.malformed, DropReason::EspTruncated),
            OpenError::Replay(ReplayError::Seen) => {
                (&mut self.refused.replay_duplicate, DropReason::EspReplayDuplicate)
            }
            OpenError::Replay(ReplayError::TooOld | ReplayError::Invalid) => {
                (&mut self.refused.replay_old, DropReason::EspReplayOld)
            }
            OpenError::Authentication => (&mut self.refused.authentication, DropReason::EspAuthentication),
            OpenError::Padding => (&mut self.refused.malformed, DropReason::EspPadding),
            OpenError::NotIp => (&mut self.refused.malformed, DropReason::EspNotIp),
        };
        *count += 1;
        reason
    }

    pub(super) fn status(&self, now: u64) -> SaStatus {
        let Usage { sa, packets, bytes, since, expiring, ended, .. } = &self.usage;
        SaStatus {
            id: sa.id,
            vif: self.vif,
            packets: *packets,
            bytes: *bytes,
            sequence: self.sa.window().map_or(0, crate::esp::Window::top),
            reserved_until: 0,
            refused: self.refused,
            age_ms: now.saturating_sub(*since),
            expiring: *expiring,
            ended: *ended,
            active: ended.is_none(),
            nic: self.nic.shown(),
        }
    }
}
