//! Packets that wait: for a neighbour, for the first fragment of their datagram, for the others.

use super::{fragments::FragmentTable, held::HoldQueue, reassembly::ReassemblyTable};

/// Packets that a worker holds.
#[derive(Default)]
pub(super) struct Waiting {
    /// Fragments for the first one of their datagrams.
    pub(super) fragments: FragmentTable,
    /// Fragments of what is put together.
    pub(super) reassembly: ReassemblyTable,
    /// Packets for neighbours.
    pub(super) held: HoldQueue,
}

impl Waiting {
    /// Received packets that wait now.
    pub(super) fn received(&self) -> u64 {
        self.held.held_received() + (self.fragments.held() + self.reassembly.held()) as u64
    }
}
