//! How an offload engine in a thread of its own is tied to a running node.
//!
//! Workers never wait for it: requests go into a bounded ring of each worker, and what does not fit is asked again later. Reports
//! come back as commands, through the node's handle.

use std::sync::{
    Arc,
    mpsc::{self, Receiver, Sender},
};

use crossbeam_queue::ArrayQueue;
use offload_rules::forwarding::Snapshot;

use crate::offload::Request;

/// The node's end.
#[derive(Debug, Clone)]
pub struct OffloadLink {
    rings: Vec<Arc<ArrayQueue<Request>>>,
    snapshots: Sender<Arc<Snapshot>>,
}

/// The engine's end. Reports go to [`Handle::offload_reports`].
///
/// [`Handle::offload_reports`]: super::runtime::Handle::offload_reports
#[derive(Debug)]
pub struct EngineLink {
    rings: Vec<Arc<ArrayQueue<Request>>>,
    /// Every snapshot that comes into force, in order, the first one included.
    pub snapshots: Receiver<Arc<Snapshot>>,
}

/// Both ends of a link to this many workers, with room for `room` requests of each.
#[must_use]
pub fn link(workers: usize, room: usize) -> (OffloadLink, EngineLink) {
    let rings: Vec<_> = (0..workers.max(1)).map(|_| Arc::new(ArrayQueue::new(room.max(1)))).collect();
    let (snapshots, inbox) = mpsc::channel();
    (OffloadLink { rings: rings.clone(), snapshots }, EngineLink { rings, snapshots: inbox })
}

impl OffloadLink {
    /// The ring of a worker.
    pub(super) fn ring(&self, worker: usize) -> Option<Arc<ArrayQueue<Request>>> {
        self.rings.get(worker).cloned()
    }

    /// Tells the engine of a snapshot that is in force now.
    pub(super) fn adopt(&self, snapshot: &Arc<Snapshot>) {
        // An engine that has ended needs to be told nothing.
        let _ = self.snapshots.send(Arc::clone(snapshot));
    }
}

impl EngineLink {
    /// Takes up to this many requests of each worker.
    pub fn take(&self, most: usize, into: &mut Vec<Request>) {
        for ring in &self.rings {
            into.extend(std::iter::from_fn(|| ring.pop()).take(most));
        }
    }

    /// Are requests waiting?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.iter().all(|ring| ring.is_empty())
    }
}
