//! The offload engine beside a running node.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use offload_engine::{
    Config, EngineStatus, Failure, InstalledRule, Lowering, Mismatch, NicBackend, RuleBackend,
    protocol::{OffloadId, Report},
};
use offload_rules::forwarding::Snapshot;
use proto::v1::offload_server::OffloadServer;
use tonic::service::Routes;

use super::{
    link::OffloadLink,
    runner::{Handle, ReportSink, Runner, RunnerConfig},
    service::{AboutNic, NodeFlows, OffloadService, OffloadView, Switched},
};
use crate::node::{
    attachment::Attachment,
    handle::{self, Ended},
};

/// Requests that wait in the ring of one worker.
const RING: usize = 4096;
/// How long an operator waits for all flows to be back in software.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two questions for what is still in hardware.
const POLL: Duration = Duration::from_millis(5);

/// With what the engine starts.
pub struct Start<L, C> {
    /// What turns flows into rules of the NIC.
    pub lowering: L,
    /// Called for each start of the engine, on a thread of its own: opens the NIC, or takes it over from the engine that died. May
    /// wait for a moment until the NIC can be driven; an error is tried again later.
    pub connect: C,
    /// Workers of the node.
    pub workers: usize,
    /// The state in force.
    pub snapshot: Arc<Snapshot>,
    /// Zero of the node's clock.
    pub epoch: Instant,
    /// The NIC as operators see it.
    pub about: AboutNic,
}

/// The engine of a node.
pub struct Offload {
    runner: Option<Runner>,
    node: Arc<OnceLock<handle::Handle>>,
    about: AboutNic,
}

impl Offload {
    /// Starts the engine. The link is for the node, which is started next.
    ///
    /// # Errors
    /// No thread.
    pub fn start<B, L, C>(start: Start<L, C>) -> std::io::Result<(Self, OffloadLink)>
    where
        B: RuleBackend + 'static,
        L: Lowering + Clone + 'static,
        C: FnMut() -> Result<NicBackend<B>, Failure> + Send + 'static,
    {
        let Start { lowering, connect, workers, snapshot, epoch, about } = start;
        let node = Arc::new(OnceLock::new());
        let config = RunnerConfig { engine: Config::default(), workers, ring: RING, epoch };
        let deliver = ToNode { node: Arc::clone(&node) };
        let runner = Runner::start(config, lowering, snapshot, connect, deliver)?;
        let handle = runner.handle();
        let rings = (0..workers).filter_map(|worker| handle.ring(worker)).collect();
        let adopt = Arc::new(move |snapshot: &Arc<Snapshot>| handle.adopt(snapshot));
        Ok((Self { runner: Some(runner), node, about }, OffloadLink::new(rings, adopt)))
    }
}

impl Attachment for Offload {
    fn attach(&mut self, node: &handle::Handle, routes: Routes) -> Routes {
        let _ = self.node.set(node.clone());
        let Some(runner) = &self.runner else { return routes };
        let view = View { engine: runner.handle(), node: node.clone() };
        let service = OffloadService::new(view, NodeFlows::new(node.clone()), self.about.clone());
        routes.add_service(OffloadServer::new(service))
    }

    fn detach(&mut self) {
        if let Some(runner) = self.runner.take() {
            runner.stop();
        }
    }
}

/// Reports go to the node's workers.
struct ToNode {
    node: Arc<OnceLock<handle::Handle>>,
}

impl ReportSink for ToNode {
    fn reports(&self, worker: u16, reports: Vec<Report>) {
        // Requests come from workers that run: their node's handle is there, or a moment away.
        self.node.wait().offload_reports(worker, reports);
    }

    fn restarted(&self, _generation: u64) {
        if let Some(node) = self.node.get() {
            node.offload_restarted();
        }
    }
}

/// The engine as the service sees it.
struct View {
    engine: Handle,
    node: handle::Handle,
}

#[tonic::async_trait]
impl OffloadView for View {
    async fn status(&self) -> Result<EngineStatus, Ended> {
        self.engine.inspect(|engine, now| engine.status(now)).await.map_err(|_| Ended)
    }

    async fn rules_of(&self, id: OffloadId) -> Result<Vec<InstalledRule>, Ended> {
        self.engine.inspect(move |engine, _| engine.rules_of(id)).await.map_err(|_| Ended)
    }

    async fn diff(&self) -> Result<Vec<Mismatch>, Ended> {
        self.engine.inspect(|engine, _| engine.diff()).await.map_err(|_| Ended)
    }

    async fn set_enabled(&self, enabled: bool) -> Result<Switched, Ended> {
        let changed = self.engine.enabled() != enabled;
        let before = in_hardware(&self.status().await?);
        self.engine.set_enabled(enabled);
        self.node.offload_enabled(enabled);
        if enabled {
            return Ok(Switched { changed, ..Switched::default() });
        }
        let deadline = Instant::now() + DRAIN;
        loop {
            let status = self.status().await?;
            // Flows of no rule yet count for nothing; rules of no flow stay until the last flow is gone.
            let left = in_hardware(&status);
            if status.rules == 0 && left == 0 || Instant::now() >= deadline {
                return Ok(Switched { changed, drained: before.saturating_sub(left), draining: left });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn in_hardware(status: &EngineStatus) -> u64 {
    (status.hardware + status.partial) as u64
}
