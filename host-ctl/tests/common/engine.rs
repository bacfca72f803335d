//! An offload engine made of fixed answers.

use std::sync::{Arc, Mutex};

use proto::v1::{offload_server::OffloadServer, *};
use tonic::{Request, Response, Status};

use super::{Answer, Seen};

/// How the NIC is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nic {
    /// Holds what it should.
    Healthy,
    /// Has lost a rule.
    Forgetful,
}

pub(crate) struct Engine(Nic, Arc<Mutex<Seen>>);

pub(super) fn service(nic: Nic, seen: Arc<Mutex<Seen>>) -> OffloadServer<Engine> {
    OffloadServer::new(Engine(nic, seen))
}

#[tonic::async_trait]
impl offload_server::Offload for Engine {
    async fn get_offload_status(&self, _: Request<GetOffloadStatusRequest>) -> Answer<OffloadStatus> {
        let shape = Shape { shape: "drop ipv4".into(), outcome: ProbeOutcome::ProbePassed.into(), ..Shape::default() };
        let flows = FlowsByTier { hardware: 3, ..FlowsByTier::default() };
        Ok(Response::new(OffloadStatus {
            profile: "mlx5-hws".into(),
            enabled: true,
            shapes: vec![shape],
            flows: Some(flows),
            insert_rate_per_s: 12.5,
            ..OffloadStatus::default()
        }))
    }

    async fn list_reasons(&self, _: Request<ListReasonsRequest>) -> Answer<ListReasonsResponse> {
        let reasons = vec![ReasonCount { reason: "packets go to the host".into(), flows: 4 }];
        Ok(Response::new(ListReasonsResponse { reasons }))
    }

    /// Flow 8 and its reverse; flow 0 is an answer without its main part.
    async fn get_rules(&self, request: Request<GetRulesRequest>) -> Answer<FlowRules> {
        let flow = request.into_inner().flow;
        if flow == 0 {
            return Ok(Response::new(FlowRules::default()));
        }
        if flow != 8 {
            return Err(Status::not_found("no flow with this index"));
        }
        let rule = InstalledRule {
            text: "pattern eth / end actions drop / end".into(),
            items: vec!["eth".into()],
            actions: vec!["drop".into()],
            ..InstalledRule::default()
        };
        let tier = FlowTier::Hardware.into();
        let forward = DirectionRules { flow, tier, rules: vec![rule], ..DirectionRules::default() };
        Ok(Response::new(FlowRules { forward: Some(forward), reverse: None }))
    }

    async fn get_diff(&self, _: Request<GetDiffRequest>) -> Answer<OffloadDiff> {
        let lost = RuleDifference {
            kind: DifferenceKind::Missing.into(),
            flow: Some(8),
            rule: "pattern eth / end actions drop / end".into(),
            detail: "the NIC does not know it".into(),
        };
        let differences = if self.0 == Nic::Forgetful { vec![lost] } else { Vec::new() };
        Ok(Response::new(OffloadDiff { differences }))
    }

    async fn set_enabled(&self, request: Request<SetEnabledRequest>) -> Answer<SetEnabledResult> {
        let enabled = request.into_inner().enabled;
        self.1.lock().unwrap().enabled = Some(enabled);
        let flows_drained = if enabled { 0 } else { 3 };
        Ok(Response::new(SetEnabledResult { enabled, changed: true, flows_drained, flows_draining: 0 }))
    }
}
