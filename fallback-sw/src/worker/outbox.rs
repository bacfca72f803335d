//! What comes out of a worker: frames to send, events, packets for other workers.

use std::net::Ipv4Addr;

use offload_rules::{MacAddr, SaId, VifId};

use super::{
    delivery::Delivery,
    held::{NeighbourKey, Tenant},
    ipsec::SaNews,
};
use crate::packet::Packet;
use offload_engine::protocol::Request;

/// Packets kept for reuse.
const MAX_SPARE: usize = 1024;
/// Octets of the largest packet kept for reuse: any frame fits, with its headroom.
const MAX_SPARE_LEN: usize = 16_384;

/// What a neighbour said of its MAC, and in which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourClaim {
    /// A neighbour advertisement (RFC 4861 §7.2.5). An ARP reply to the node is a solicited one that overrides, every other announcement
    /// by ARP an unsolicited one.
    Advertisement {
        /// Absent where the question was sent to the station alone (RFC 4861 §4.4).
        mac: Option<MacAddr>,
        /// S: it claims to answer a question.
        solicited: bool,
        /// O: it overrides the MAC that is known.
        replace: bool,
    },
    /// A neighbour solicitation for an address that the node answers for (RFC 4861 §7.2.3).
    Solicitation {
        /// Source link-layer address option.
        mac: MacAddr,
    },
    /// An ARP request for an address that the node answers for (RFC 826).
    Request {
        /// Sender hardware address.
        mac: MacAddr,
    },
}

impl NeighbourClaim {
    /// It claims to answer a question of the node's, and was sent to the node alone.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Advertisement { solicited: true, .. })
    }
}

/// What a worker tells the rest of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A neighbour has said where it is.
    Neighbour {
        /// The neighbour.
        neighbour: NeighbourKey,
        /// What it said.
        claim: NeighbourClaim,
    },
    /// Packets wait for a neighbour.
    Needed {
        /// The neighbour.
        neighbour: NeighbourKey,
        /// On whose account.
        tenant: Tenant,
    },
    /// A router on the way to a tunnel's end takes no larger outer packets.
    PathMtu {
        /// The tunnel's end.
        destination: Ipv4Addr,
        /// Octets.
        mtu: u16,
    },
    /// The state of a security association has changed.
    Sa {
        /// The SA.
        sa: SaId,
        /// What has happened to it.
        news: SaNews,
    },
}

/// What a frame that is sent counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxKind {
    /// A received packet, sent on.
    Forwarded,
    /// A received packet, handed to the host or an agent.
    Punted,
    /// Made by the node.
    Originated,
    /// A received packet that the NIC has counted as forwarded, with its tunnel and the way out; all that was left was to seal it.
    Resumed,
}

/// What is known of a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxMeta {
    /// Egress vif.
    pub vif: VifId,
    /// What it counts as.
    pub kind: TxKind,
}

/// Frames to send on one port.
#[derive(Debug, Default)]
pub struct TxQueue {
    /// The frames.
    pub packets: Vec<Packet>,
    /// What each is, in the same order.
    pub metas: Vec<TxMeta>,
}

/// What comes out of a worker. Kept and emptied by the caller, so that nothing is allocated for each batch.
#[derive(Debug, Default)]
pub struct Outbox {
    /// By number of the port's vif.
    tx: Vec<TxQueue>,
    /// Ports with frames to send, each once.
    pub dirty: Vec<VifId>,
    /// What happened.
    pub events: Vec<Event>,
    /// Packets of flows that another worker owns.
    pub handoff: Vec<(usize, Delivery)>,
    /// What an offload engine is asked.
    pub offload: Vec<Request>,
    /// Packets to reuse.
    pub spare: Vec<Packet>,
}

impl Outbox {
    /// The frames for a port.
    #[inline]
    pub fn queue(&mut self, port: VifId) -> &mut TxQueue {
        if self.tx.len() <= port.index() {
            self.grow(port);
        }
        // Invariant: resized just above.
        #[allow(clippy::indexing_slicing)]
        &mut self.tx[port.index()]
    }

    #[cold]
    fn grow(&mut self, port: VifId) {
        self.tx.resize_with(port.index() + 1, TxQueue::default);
    }

    #[inline]
    pub(super) fn send(&mut self, port: VifId, packet: Packet, meta: TxMeta) {
        let queue = self.queue(port);
        queue.packets.push(packet);
        queue.metas.push(meta);
        if queue.packets.len() == 1 {
            self.dirty.push(port);
        }
    }

    /// Keeps a packet for reuse, up to a bound; not those that are as large as a reassembled datagram.
    #[inline]
    pub(super) fn recycle(&mut self, packet: Packet) {
        recycle(&mut self.spare, packet);
    }
}

#[inline]
pub(super) fn recycle(spare: &mut Vec<Packet>, packet: Packet) {
    if spare.len() < MAX_SPARE && packet.capacity() <= MAX_SPARE_LEN {
        spare.push(packet);
    }
}
