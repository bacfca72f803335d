//! What comes out of a worker: frames to send, events, packets for other workers.

use offload_rules::VifId;

use super::{delivery::Delivery, event::Event, tx::TxMeta};
use crate::packet::Packet;
use offload_engine::protocol::Request;

/// Packets kept for reuse.
const MAX_SPARE: usize = 1024;
/// Octets of the largest packet kept for reuse: any frame fits, with its headroom.
const MAX_SPARE_LEN: usize = 16_384;

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

    /// Sends all frames of a burst, which are alike.
    #[inline]
    pub(super) fn send_burst(&mut self, port: VifId, packets: &mut Vec<Packet>, meta: TxMeta) {
        let queue = self.queue(port);
        let was_empty = queue.packets.is_empty();
        queue.metas.extend(std::iter::repeat_n(meta, packets.len()));
        queue.packets.append(packets);
        if was_empty {
            self.dirty.push(port);
        }
    }

    /// Packets that are alike, and how many octets they have.
    #[inline]
    pub(super) fn send_all(&mut self, port: VifId, meta: TxMeta, packets: impl Iterator<Item = Packet>) -> u64 {
        let queue = self.queue(port);
        let (before, mut octets) = (queue.packets.len(), 0);
        queue.packets.extend(packets.inspect(|packet| octets += packet.len() as u64));
        queue.metas.resize(queue.packets.len(), meta);
        if before == 0 && !queue.packets.is_empty() {
            self.dirty.push(port);
        }
        octets
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
