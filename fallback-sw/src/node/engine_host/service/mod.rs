//! The Offload service of the introspection API: what the engine and the workers know, as messages.

mod encode;
mod node_flows;
mod rule_text;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::node::handle::Ended;
use offload_engine::protocol::OffloadId;
use offload_rules::lower::{NotOffloaded, PortFacts};
use proto::v1 as pb;
use tonic::{Request, Response, Status};

pub use node_flows::NodeFlows;
pub use rule_text::{action, item, rule};

use offload_engine::{EngineStatus, InstalledRule, Mismatch};

/// The engine as the service reaches it: it runs in a thread of its own and answers between two rounds of its work.
#[tonic::async_trait]
pub trait OffloadView: Send + Sync + 'static {
    /// Its state.
    ///
    /// # Errors
    /// It has ended; so for all others.
    async fn status(&self) -> Result<EngineStatus, Ended>;

    /// The rules of a flow; none for a flow that it does not know.
    async fn rules_of(&self, id: OffloadId) -> Result<Vec<InstalledRule>, Ended>;

    /// What should be installed against what is.
    async fn diff(&self) -> Result<Vec<Mismatch>, Ended>;

    /// Turns the switch, at the workers too. Off: returns when every flow is in software, or after a time that an operator waits.
    async fn set_enabled(&self, enabled: bool) -> Result<Switched, Ended>;
}

/// What turning the switch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switched {
    /// It was in the other position before.
    pub changed: bool,
    /// Pairs that went from the NIC back to software.
    pub drained: u64,
    /// Pairs whose rules are still being removed.
    pub draining: u64,
}

/// A flow as the workers know it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KnownFlow {
    /// One direction of it.
    pub flow: pb::Flow,
    /// Under which id the engine knows the pair; `None`: nothing was asked for.
    pub id: Option<OffloadId>,
}

/// The workers' flows as the service reaches them.
#[tonic::async_trait]
pub trait Flows: Send + Sync + 'static {
    /// The flow with this index.
    ///
    /// # Errors
    /// The node has ended; so for the other.
    async fn flow(&self, index: u64) -> Result<Option<KnownFlow>, Ended>;

    /// Why flows are not in hardware, with the number of pairs.
    async fn reasons(&self) -> Result<BTreeMap<NotOffloaded, u64>, Ended>;

    /// The indices of the flows that the engine knows under these ids, for each direction (0: the initiator's). Those that are gone
    /// are absent.
    async fn indices(&self, ids: BTreeSet<OffloadId>) -> Result<BTreeMap<(OffloadId, u8), u64>, Ended>;
}

/// A port of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AboutPort {
    /// The device, as vifs name it.
    pub device: String,
    /// The device, as DPDK names it.
    pub ethdev: String,
    /// Its role and domain at the NIC's switch.
    pub facts: PortFacts,
}

/// Facts about a NIC that do not change while the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AboutNic {
    /// Driver of its ports, as DPDK names it.
    pub driver: String,
    /// Version of DPDK.
    pub dpdk: String,
    /// How rules lead from port to port.
    pub layout: String,
    /// How rules are given to the driver.
    pub engine: String,
    /// Its ports.
    pub ports: Vec<AboutPort>,
    /// What is missing for flows to be in the NIC, each with what to do about it.
    pub findings: Vec<String>,
    /// What it can do with flows, by its profile.
    pub abilities: String,
}

/// The service.
#[derive(Debug, Clone)]
pub struct OffloadService<E, F> {
    engine: E,
    flows: F,
    nic: AboutNic,
}

impl<E: OffloadView, F: Flows> OffloadService<E, F> {
    /// For this engine and these workers.
    pub const fn new(engine: E, flows: F, nic: AboutNic) -> Self {
        Self { engine, flows, nic }
    }

    /// The rules of one direction. A rule without a flow is of neither.
    fn direction(known: &KnownFlow, rules: &[InstalledRule]) -> pb::DirectionRules {
        let direction = u8::from(!known.flow.initiator);
        let own = rules.iter().filter(|rule| rule.flow.is_some_and(|(_, of)| of == direction));
        pb::DirectionRules {
            flow: known.flow.index,
            tier: known.flow.tier,
            not_offloaded_reason: known.flow.not_offloaded_reason.clone(),
            rules: own.map(encode::rule).collect(),
        }
    }
}

#[tonic::async_trait]
impl<E: OffloadView, F: Flows> pb::offload_server::Offload for OffloadService<E, F> {
    async fn get_offload_status(
        &self,
        _: Request<pb::GetOffloadStatusRequest>,
    ) -> Result<Response<pb::OffloadStatus>, Status> {
        let status = self.engine.status().await.map_err(ended)?;
        Ok(Response::new(encode::status(&status, &self.nic)))
    }

    async fn list_reasons(
        &self,
        _: Request<pb::ListReasonsRequest>,
    ) -> Result<Response<pb::ListReasonsResponse>, Status> {
        Ok(Response::new(encode::reasons(self.flows.reasons().await.map_err(ended)?)))
    }

    async fn get_rules(&self, request: Request<pb::GetRulesRequest>) -> Result<Response<pb::FlowRules>, Status> {
        let index = request.get_ref().flow;
        let gone = || Status::not_found(format!("no flow {index}"));
        let known = self.flows.flow(index).await.map_err(ended)?.ok_or_else(gone)?;
        let reverse = match known.flow.reverse_index {
            // A flow whose two keys are equal is its own other direction.
            Some(other) if other != index => self.flows.flow(other).await.map_err(ended)?,
            _ => None,
        };
        let rules = match known.id {
            Some(id) => self.engine.rules_of(id).await.map_err(ended)?,
            None => Vec::new(),
        };
        let forward = Some(Self::direction(&known, &rules));
        // Between two looks the flow may have ended, and its index been taken by another.
        let reverse = reverse.filter(|other| other.flow.reverse_index == Some(index));
        let reverse = reverse.map(|other| Self::direction(&other, &rules));
        Ok(Response::new(pb::FlowRules { forward, reverse }))
    }

    async fn get_diff(&self, _: Request<pb::GetDiffRequest>) -> Result<Response<pb::OffloadDiff>, Status> {
        let found = self.engine.diff().await.map_err(ended)?;
        let ids: BTreeSet<_> = found.iter().filter_map(|mismatch| mismatch.flow.map(|(id, _)| id)).collect();
        // The workers are not asked for nothing: a healthy node is asked often.
        let indices = if ids.is_empty() { BTreeMap::new() } else { self.flows.indices(ids).await.map_err(ended)? };
        let index = |mismatch: &Mismatch| mismatch.flow.and_then(|flow| indices.get(&flow).copied());
        let differences = found.iter().map(|mismatch| encode::difference(mismatch, index(mismatch))).collect();
        Ok(Response::new(pb::OffloadDiff { differences }))
    }

    async fn set_enabled(
        &self,
        request: Request<pb::SetEnabledRequest>,
    ) -> Result<Response<pb::SetEnabledResult>, Status> {
        let enabled = request.get_ref().enabled;
        let Switched { changed, drained, draining } = self.engine.set_enabled(enabled).await.map_err(ended)?;
        Ok(Response::new(pb::SetEnabledResult { enabled, changed, flows_drained: drained, flows_draining: draining }))
    }
}

fn ended(ended: Ended) -> Status {
    Status::unavailable(ended.to_string())
}
