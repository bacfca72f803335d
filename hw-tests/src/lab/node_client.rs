//! A node's API over its unix socket, for programs that wait.

use std::{future::Future, path::Path, time::Duration};

use proto::v1::{self, node_client::NodeClient as Grpc, offload_client::OffloadClient};
use tokio::runtime::Runtime;
use tonic::{Response, Status, transport::Channel, transport::Endpoint};

use super::LabError;

/// Time for one call.
const CALL: Duration = Duration::from_secs(10);

/// A connection to a node.
#[derive(Debug)]
pub struct NodeClient {
    node: String,
    runtime: Runtime,
    grpc: Grpc<Channel>,
    offload: OffloadClient<Channel>,
}

impl NodeClient {
    /// Connects.
    ///
    /// # Errors
    /// [`LabError::NoConnection`] when nobody listens.
    pub fn connect(node: &str, socket: &Path) -> Result<Self, LabError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LabError::io("start a runtime for gRPC"))?;
        let failed = |source| LabError::NoConnection { node: node.to_owned(), socket: socket.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(failed)?.timeout(CALL);
        let channel = runtime.block_on(endpoint.connect()).map_err(failed)?;
        let grpc = Grpc::new(channel.clone()).max_decoding_message_size(256 << 20);
        let offload = OffloadClient::new(channel).max_decoding_message_size(256 << 20);
        Ok(Self { node: node.to_owned(), runtime, grpc, offload })
    }

    fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, LabError> {
        self.runtime.block_on(answer).map(Response::into_inner).map_err(|status| self.refused(call, status))
    }

    fn refused(&self, call: &'static str, status: Status) -> LabError {
        LabError::Api { node: self.node.clone(), call, status: Box::new(status) }
    }

    /// Status with the packet account.
    ///
    /// # Errors
    /// [`LabError::Api`], as for all calls.
    pub fn status(&self) -> Result<v1::NodeStatus, LabError> {
        self.call("GetStatus", self.grpc.clone().get_status(v1::GetStatusRequest {}))
    }

    /// The forwarding state in force.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn state(&self) -> Result<v1::ForwardingState, LabError> {
        self.call("GetState", self.grpc.clone().get_state(v1::GetStateRequest {}))
    }

    /// Replaces the forwarding state.
    ///
    /// # Errors
    /// [`LabError::Api`] with the node's reasons when it refuses.
    pub fn apply_state(&self, state: v1::ForwardingState) -> Result<v1::ApplyResult, LabError> {
        self.call("ApplyState", self.grpc.clone().apply_state(state))
    }

    /// Changes the forwarding state.
    ///
    /// # Errors
    /// [`LabError::Api`] with the node's reasons when it refuses.
    pub fn apply_delta(&self, delta: v1::ForwardingDelta) -> Result<v1::ApplyResult, LabError> {
        self.call("ApplyDelta", self.grpc.clone().apply_delta(delta))
    }

    /// Changes the forwarding state from whatever generation is in force to the next.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn change(&self, delta: v1::ForwardingDelta) -> Result<v1::ApplyResult, LabError> {
        let base = self.status()?.generation;
        self.apply_delta(v1::ForwardingDelta { base_generation: base, generation: base + 1, ..delta })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn vifs(&self) -> Result<Vec<v1::VifInfo>, LabError> {
        Ok(self.call("ListVifs", self.grpc.clone().list_vifs(v1::ListVifsRequest::default()))?.vifs)
    }

    /// One interface.
    ///
    /// # Errors
    /// [`LabError::Api`]; `NotFound` when there is none.
    pub fn vif(&self, id: u32) -> Result<v1::VifInfo, LabError> {
        let vifs = self.call("ListVifs", self.grpc.clone().list_vifs(v1::ListVifsRequest { ids: vec![id] }))?.vifs;
        vifs.into_iter().next().ok_or_else(|| self.refused("ListVifs", Status::not_found(format!("vif {id}"))))
    }

    /// All security associations.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn sas(&self) -> Result<Vec<v1::SaInfo>, LabError> {
        Ok(self.call("ListSas", self.grpc.clone().list_sas(v1::ListSasRequest::default()))?.sas)
    }

    /// Packets dropped for one reason.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn dropped(&self, reason: &str) -> Result<u64, LabError> {
        Ok(self.drops()?.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum())
    }

    /// Drops by reason, only those that were seen.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn drops(&self) -> Result<Vec<v1::DropCount>, LabError> {
        let mut drops = self.call("GetDrops", self.grpc.clone().get_drops(v1::GetDropsRequest {}))?.drops;
        drops.retain(|drop| drop.packets > 0);
        Ok(drops)
    }

    /// Neighbours.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn neighbours(&self) -> Result<Vec<v1::NeighbourInfo>, LabError> {
        Ok(self.call("ListNeighbours", self.grpc.clone().list_neighbours(v1::ListNeighboursRequest {}))?.neighbours)
    }

    /// Flows that match.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn flows(&self, request: v1::ListFlowsRequest) -> Result<Vec<v1::Flow>, LabError> {
        let mut grpc = self.grpc.clone();
        let collect = async {
            let mut stream = grpc.list_flows(request).await?.into_inner();
            let mut flows = Vec::new();
            while let Some(flow) = stream.message().await? {
                flows.push(flow);
            }
            Ok(flows)
        };
        self.runtime.block_on(collect).map_err(|status| self.refused("ListFlows", status))
    }

    /// The pair that a flow belongs to.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn flow(&self, index: u64) -> Result<v1::FlowPair, LabError> {
        self.call("GetFlow", self.grpc.clone().get_flow(v1::GetFlowRequest { index }))
    }

    /// Packets and octets by tier.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn hit_rate(&self) -> Result<v1::HitRate, LabError> {
        self.call("GetHitRate", self.grpc.clone().get_hit_rate(v1::GetHitRateRequest {}))
    }

    /// The offload engine's status.
    ///
    /// # Errors
    /// [`LabError::Api`]; `Unimplemented` by a node in software.
    pub fn offload_status(&self) -> Result<v1::OffloadStatus, LabError> {
        self.call("GetOffloadStatus", self.offload.clone().get_offload_status(v1::GetOffloadStatusRequest {}))
    }

    /// Why flows are not in hardware.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn offload_reasons(&self) -> Result<Vec<v1::ReasonCount>, LabError> {
        Ok(self.call("ListReasons", self.offload.clone().list_reasons(v1::ListReasonsRequest {}))?.reasons)
    }

    /// A flow's rules.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn offload_rules(&self, flow: u64) -> Result<v1::FlowRules, LabError> {
        self.call("GetRules", self.offload.clone().get_rules(v1::GetRulesRequest { flow }))
    }

    /// Rules desired against rules installed.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn offload_diff(&self) -> Result<Vec<v1::RuleDifference>, LabError> {
        Ok(self.call("GetDiff", self.offload.clone().get_diff(v1::GetDiffRequest {}))?.differences)
    }

    /// Switches offload on or off.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn set_offload(&self, enabled: bool) -> Result<v1::SetEnabledResult, LabError> {
        self.call("SetEnabled", self.offload.clone().set_enabled(v1::SetEnabledRequest { enabled }))
    }
}
