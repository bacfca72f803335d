//! The offload engine beside a running node.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use fallback_sw::{
    node::{daemon::Attachment, offload_link::OffloadLink, runtime},
    offload::{OffloadId, Report},
};
use offload_rules::{forwarding::Snapshot, lower::NicProfile};
use proto::v1::offload_server::OffloadServer;
use tonic::service::Routes;

use super::{NicLowering, NicPorts, connect};
use crate::{
    offload::{Config, Deliver, EngineStatus, Failure, Handle, InstalledRule, Mismatch, Runner, RunnerConfig},
    service::{AboutNic, NodeFlows, OffloadService, OffloadView, Switched},
};

/// Requests that wait in the ring of one worker.
const RING: usize = 4096;
/// How long one attempt waits for the ports to open.
const PORTS: Duration = Duration::from_millis(500);
/// How long an operator waits for all flows to be back in software.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two looks at what is still in hardware.
const LOOK: Duration = Duration::from_millis(5);

/// With what the engine starts.
pub struct Start {
    /// Profile of the NIC.
    pub profile: NicProfile,
    /// Its ports.
    pub ports: NicPorts,
    /// Workers of the node.
    pub workers: usize,
    /// The state in force.
    pub snapshot: Arc<Snapshot>,
    /// Zero of the node's clock.
    pub epoch: Instant,
    /// What operators are told of it.
    pub about: AboutNic,
}

/// The engine of a node.
pub struct Offload {
    runner: Option<Runner>,
    node: Arc<OnceLock<runtime::Handle>>,
    about: AboutNic,
}

impl Offload {
    /// Starts the engine. The link is for the node, which is started next.
    ///
    /// # Errors
    /// No thread.
    pub fn start(start: Start) -> std::io::Result<(Self, OffloadLink)> {
        let Start { profile, ports, workers, snapshot, epoch, about } = start;
        let node = Arc::new(OnceLock::new());
        let lowering = NicLowering::new(profile.clone(), ports.clone());
        let open = move || -> Result<_, Failure> {
            ports.wait(PORTS);
            connect(&profile, &ports)
        };
        let config = RunnerConfig { engine: Config::default(), workers, ring: RING, epoch };
        let deliver = ToNode { node: Arc::clone(&node) };
        let runner = Runner::start(config, lowering, snapshot, open, deliver)?;
        let handle = runner.handle();
        let rings = (0..workers).filter_map(|worker| handle.ring(worker)).collect();
        let adopt = Arc::new(move |snapshot: &Arc<Snapshot>| handle.adopt(snapshot));
        Ok((Self { runner: Some(runner), node, about }, OffloadLink::new(rings, adopt)))
    }
}

impl Attachment for Offload {
    fn attach(&mut self, node: &runtime::Handle, routes: Routes) -> Routes {
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
    node: Arc<OnceLock<runtime::Handle>>,
}

impl Deliver for ToNode {
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
    node: runtime::Handle,
}

#[tonic::async_trait]
impl OffloadView for View {
    async fn status(&self) -> Result<EngineStatus, runtime::Ended> {
        self.engine.look(|engine, now| engine.status(now)).await.map_err(|_| runtime::Ended)
    }

    async fn rules_of(&self, id: OffloadId) -> Result<Vec<InstalledRule>, runtime::Ended> {
        self.engine.look(move |engine, _| engine.rules_of(id)).await.map_err(|_| runtime::Ended)
    }

    async fn diff(&self) -> Result<Vec<Mismatch>, runtime::Ended> {
        self.engine.look(|engine, _| engine.diff()).await.map_err(|_| runtime::Ended)
    }

    async fn set_enabled(&self, enabled: bool) -> Result<Switched, runtime::Ended> {
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
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn in_hardware(status: &EngineStatus) -> u64 {
    (status.hardware + status.partial) as u64
}
