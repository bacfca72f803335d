//! The flows of a running node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    node::{
        handle::{Ended, Handle},
        view::{self, is_initiator},
    },
    worker::Worker,
};
use offload_engine::protocol::OffloadId;
use offload_rules::lower::NotOffloaded;

use super::{Flows, KnownFlow};

/// Flow records that one look at a worker covers: its packets wait meanwhile.
const STEP: u32 = 1024;

/// The flows of the node behind a handle.
#[derive(Clone)]
pub struct NodeFlows {
    node: Handle,
}

impl NodeFlows {
    /// Of this node.
    #[must_use]
    pub const fn new(node: Handle) -> Self {
        Self { node }
    }

    /// Collects something of every flow of a worker, a step at a time.
    async fn of_all<T: Send + 'static>(
        &self,
        worker: usize,
        pick: impl Fn(&Worker, u32) -> Option<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>, Ended> {
        let pick = Arc::new(pick);
        let mut all = Vec::new();
        let mut at = Some(0);
        while let Some(from) = at {
            let pick = Arc::clone(&pick);
            let look = move |worker: &Worker| picked(worker, from, &*pick);
            let (found, next) = self.node.look_at(worker, look).await?;
            all.extend(found);
            at = next;
        }
        Ok(all)
    }
}

/// What is picked of at most [`STEP`] flows, and where to go on.
fn picked<T>(worker: &Worker, from: u32, pick: &impl Fn(&Worker, u32) -> Option<T>) -> (Vec<T>, Option<u32>) {
    let mut found = Vec::new();
    let mut at = from;
    for _ in 0..STEP {
        let Some(slot) = worker.flows().next_occupied(at) else { return (found, None) };
        at = slot + 1;
        found.extend(pick(worker, slot));
    }
    (found, Some(at))
}

#[tonic::async_trait]
impl Flows for NodeFlows {
    async fn flow(&self, index: u64) -> Result<Option<KnownFlow>, Ended> {
        let count = self.node.workers();
        let Some((id, slot)) = view::flow_slot(index, count) else { return Ok(None) };
        let look = move |worker: &Worker| {
            let flow = view::flow(worker, id, count, slot)?;
            Some(KnownFlow { flow, id: worker.offload_id(slot) })
        };
        self.node.look_at(id, look).await
    }

    async fn reasons(&self) -> Result<BTreeMap<NotOffloaded, u64>, Ended> {
        let mut counts = BTreeMap::new();
        for id in 0..self.node.workers() {
            let reason = |worker: &Worker, slot| {
                worker.offload_status(slot).filter(|_| is_initiator(worker, slot)).and_then(|status| status.reason)
            };
            for reason in self.of_all(id, reason).await? {
                *counts.entry(reason).or_default() += 1;
            }
        }
        Ok(counts)
    }

    async fn indices(&self, ids: BTreeSet<OffloadId>) -> Result<BTreeMap<(OffloadId, u8), u64>, Ended> {
        let count = self.node.workers();
        let wanted: BTreeSet<usize> = ids.iter().map(|id| usize::from(id.worker)).filter(|id| *id < count).collect();
        let ids = Arc::new(ids);
        let mut indices = BTreeMap::new();
        for id in wanted {
            let ids = Arc::clone(&ids);
            let own = move |worker: &Worker, slot| {
                let of = worker.offload_id(slot).filter(|of| ids.contains(of))?;
                Some(((of, u8::from(!is_initiator(worker, slot))), view::flow_index(slot, id, count)))
            };
            indices.extend(self.of_all(id, own).await?);
        }
        Ok(indices)
    }
}

#[cfg(test)]
mod tests {
    use crate::node::runtime::{Config, Runtime};
    use offload_rules::forwarding::Snapshot;

    use super::*;

    #[tokio::test]
    async fn every_worker_is_asked_and_an_ended_node_says_so() {
        let config = Config { workers: 2, ..Config::default() };
        let node = Runtime::start(config, Snapshot::empty()).unwrap();
        let flows = NodeFlows::new(node.handle());
        let id = |worker| OffloadId { worker, entry: 1, generation: 1 };
        assert_eq!(flows.flow(5).await, Ok(None));
        assert_eq!(flows.flow(u64::MAX).await, Ok(None));
        assert_eq!(flows.reasons().await, Ok(BTreeMap::new()));
        // A worker that does not exist has no flows.
        assert_eq!(flows.indices([id(0), id(1), id(9)].into()).await, Ok(BTreeMap::new()));
        node.stop();
        assert_eq!(flows.flow(5).await, Err(Ended));
        assert_eq!(flows.reasons().await, Err(Ended));
    }
}
