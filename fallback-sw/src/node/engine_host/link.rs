//! How an offload engine in a thread of its own is tied to a running node.
//!
//! Workers never wait for it: requests go into a bounded ring of each worker, and what does not fit is asked again later. Reports
//! come back as commands, through the node's handle.

use std::{fmt, sync::Arc};

use crossbeam_queue::ArrayQueue;
use offload_engine::protocol::Request;
use offload_rules::forwarding::Snapshot;

/// Told of every snapshot that comes into force, in order, the first one included. Called by the control thread: must not block.
pub(super) type Adopt = Arc<dyn Fn(&Arc<Snapshot>) + Send + Sync>;

/// The node's end. Reports go to [`Handle::offload_reports`].
///
/// [`Handle::offload_reports`]: crate::node::runtime::Handle::offload_reports
#[derive(Clone)]
pub struct OffloadLink {
    rings: Vec<Arc<ArrayQueue<Request>>>,
    adopt: Adopt,
}

impl OffloadLink {
    /// With a ring for each worker.
    #[must_use]
    pub fn new(rings: Vec<Arc<ArrayQueue<Request>>>, adopt: Adopt) -> Self {
        Self { rings, adopt }
    }

    /// The ring of a worker.
    pub(in crate::node) fn ring(&self, worker: usize) -> Option<Arc<ArrayQueue<Request>>> {
        self.rings.get(worker).cloned()
    }

    /// Tells the engine of a snapshot that is in force now.
    pub(in crate::node) fn adopt(&self, snapshot: &Arc<Snapshot>) {
        (self.adopt)(snapshot);
    }
}

impl fmt::Debug for OffloadLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffloadLink").field("rings", &self.rings.len()).finish_non_exhaustive()
    }
}
