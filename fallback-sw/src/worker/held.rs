//! Packets that wait for a neighbour, and the questions asked meanwhile.
//!
//! Bounded for each neighbour and in all. A neighbour is asked for at most once a second, three times; then what waits for it
//! is dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use offload_rules::{DropReason, VifId};

use super::Delivery;

/// Milliseconds between two questions (RFC 4861 §10 RETRANS_TIMER).
const RETRY_MS: u64 = 1000;
/// Questions before it is given up (RFC 4861 §10 MAX_MULTICAST_SOLICIT).
const TRIES: u8 = 3;

/// One neighbour that is being asked for.
#[derive(Debug)]
struct Waiting {
    packets: VecDeque<Delivery>,
    tries: u8,
    next_try: u64,
}

/// A neighbour as the outside names it.
pub type NeighbourKey = (VifId, IpAddr);

/// The queue of one worker.
#[derive(Debug, Default)]
pub struct HoldQueue {
    waiting: BTreeMap<NeighbourKey, Waiting>,
    held: usize,
}

/// Whether a neighbour has to be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Send a request.
    Now,
    /// One is under way.
    No,
}

impl HoldQueue {
    /// Holds a packet. A full queue of one neighbour drops its oldest packet (RFC 4861 §7.2.2), which comes back in `dropped`.
    ///
    /// # Errors
    /// The packet, when the limit for all neighbours is reached.
    pub fn hold(
        &mut self,
        neighbour: NeighbourKey,
        packet: Delivery,
        limits: (usize, usize),
        now: u64,
        dropped: &mut Vec<(Delivery, DropReason)>,
    ) -> Ask {
        let (per_neighbour, in_all) = limits;
        if self.held >= in_all {
            dropped.push((packet, DropReason::HeldQueueFull));
            return Ask::No;
        }
        let mut ask = Ask::No;
        let waiting = self.waiting.entry(neighbour).or_insert_with(|| {
            ask = Ask::Now;
            Waiting { packets: VecDeque::new(), tries: 1, next_try: now + RETRY_MS }
        });
        if waiting.packets.len() >= per_neighbour
            && let Some(oldest) = waiting.packets.pop_front()
        {
            self.held -= 1;
            dropped.push((oldest, DropReason::HeldQueueFull));
        }
        waiting.packets.push_back(packet);
        self.held += 1;
        ask
    }

    /// Packets held that were received (not made by the node).
    #[must_use]
    pub fn held_received(&self) -> u64 {
        self.waiting.values().flat_map(|w| &w.packets).filter(|p| !p.is_own()).count() as u64
    }

    /// All packets held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.held
    }

    /// No packets held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Neighbours asked for, with how many packets wait for each.
    pub fn neighbours(&self) -> impl Iterator<Item = (NeighbourKey, usize)> + '_ {
        self.waiting.iter().map(|(key, waiting)| (*key, waiting.packets.len()))
    }

    /// Lets go of the packets whose neighbour is there or need not be waited for any more.
    pub fn release(&mut self, mut ready: impl FnMut(NeighbourKey) -> bool) -> Vec<Delivery> {
        let mut free = Vec::new();
        self.waiting.retain(|key, waiting| {
            if !ready(*key) {
                return true;
            }
            free.extend(waiting.packets.drain(..));
            false
        });
        self.held -= free.len();
        free
    }

    /// Time passes: neighbours to ask again, and packets to give up.
    pub fn tick(&mut self, now: u64) -> (Vec<NeighbourKey>, Vec<Delivery>) {
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        self.waiting.retain(|key, waiting| {
            if now < waiting.next_try {
                return true;
            }
            if waiting.tries >= TRIES {
                lost.extend(waiting.packets.drain(..));
                return false;
            }
            waiting.tries += 1;
            waiting.next_try = now + RETRY_MS;
            again.push(*key);
            true
        });
        self.held -= lost.len();
        (again, lost)
    }
}
