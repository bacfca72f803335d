//! The introspection API: gRPC on a unix socket.

use std::{
    net::IpAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
};

use ipnet::IpNet;
use offload_rules::{
    NexthopId, VifId, VrfId,
    flow::Family,
    forwarding::{NexthopKind, Snapshot, StateErrors},
};
use proto::v1 as pb;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    decode, encode,
    filter::FlowFilter,
    hit_rate::hit_rate,
    runtime::{Ended, Handle},
    sa_view, view,
};
use crate::worker::{Counters, Worker};

/// Flow records that one look at a worker covers: its packets wait meanwhile.
const STEP: u32 = 1024;

/// Why the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another node is there.
    #[error("another node answers on {}: stop it, or give this one another socket", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{} exists and is not a socket: remove it, or name another path", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused something.
    #[error("socket {}: {source}", path.display())]
    Os {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Listens on a unix socket (mode 0660). What a node that has died left behind is replaced.
///
/// # Errors
/// [`SocketError`].
pub async fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let os = |source| SocketError::Os { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(SocketError::Taken(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(os)?;
        }
        Err(_) => {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(os)?;
            }
        }
    }
    let listener = UnixListener::bind(path).map_err(os)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(os)?;
    Ok(listener)
}

/// The service of one node.
#[derive(Clone)]
pub struct NodeService {
    handle: Handle,
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        Self::unavailable(ended.to_string())
    }
}

fn refused(errors: &StateErrors) -> Status {
    let stale = errors.0.iter().any(|error| error.field.contains("generation"));
    if stale { Status::failed_precondition(errors.to_string()) } else { Status::invalid_argument(errors.to_string()) }
}

fn number<T>(what: &str, made: Result<T, offload_rules::IdError>) -> Result<T, Status> {
    made.map_err(|error| Status::invalid_argument(format!("{what}: {error}")))
}

impl NodeService {
    /// For the node behind this handle.
    #[must_use]
    pub const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn snapshot(&self) -> Result<std::sync::Arc<Snapshot>, Status> {
        Ok(self.handle.look(|control, _| std::sync::Arc::clone(control.snapshot())).await?)
    }

    async fn counters(&self) -> Result<(Counters, Vec<Counters>), Status> {
        let each = self.each(|worker| worker.counters()).await?;
        let mut total = Counters::default();
        each.iter().for_each(|counters| total.add(counters));
        Ok((total, each))
    }

    /// Looks at each worker in turn.
    async fn each<T: Send + 'static>(&self, look: fn(&Worker) -> T) -> Result<Vec<T>, Status> {
        let mut found = Vec::new();
        for id in 0..self.handle.workers() {
            found.push(self.handle.look_at(id, look).await?);
        }
        Ok(found)
    }

    async fn sas(&self) -> Result<Vec<pb::SaInfo>, Status> {
        let statuses = self.each(Worker::sas).await?;
        Ok(self.handle.look(move |control, _| sa_view::sas(control, &statuses)).await?)
    }

    async fn flow(&self, index: u64) -> Result<Option<pb::Flow>, Status> {
        let count = self.handle.workers();
        let Some((worker, slot)) = view::flow_slot(index, count) else { return Ok(None) };
        Ok(self.handle.look_at(worker, move |w| view::flow(w, worker, count, slot)).await?)
    }
}

type FlowStream = Pin<Box<dyn Stream<Item = Result<pb::Flow, Status>> + Send>>;

#[tonic::async_trait]
impl pb::node_server::Node for NodeService {
    type ListFlowsStream = FlowStream;

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Result<Response<pb::NodeStatus>, Status> {
        let snapshot = self.snapshot().await?;
        let settings = snapshot.settings();
        // Queues between workers are looked at first: a packet that arrives meanwhile is counted, not lost.
        let under_way = self.handle.under_way();
        let (total, _) = self.counters().await?;
        let each = self
            .each(|w| {
                let flows = (w.flows().len(), w.flows().capacity());
                (flows, w.fragment_table().len(), w.hold_queue().len(), w.held_packets())
            })
            .await?;
        let sum = |pick: fn(&((u32, u32), usize, usize, u64)) -> u64| each.iter().map(pick).sum::<u64>();
        let use_of = |used, limit| Some(pb::TableUse { used, limit });
        Ok(Response::new(pb::NodeStatus {
            node: snapshot.node().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: snapshot.generation(),
            workers: self.handle.workers() as u32,
            uptime_secs: self.handle.uptime().as_secs(),
            packets: Some(view::account(&total.account, sum(|w| w.3) + under_way)),
            flows: use_of(sum(|w| w.0.0.into()), sum(|w| w.0.1.into())),
            neighbours: use_of(snapshot.neighbours().len() as u64, settings.max_neighbours.into()),
            fragmented_datagrams: use_of(sum(|w| w.1 as u64), settings.max_fragmented_datagrams.into()),
            held_packets: use_of(sum(|w| w.2 as u64), settings.max_held.into()),
            tiers: Some(view::tiers(&total.account)),
        }))
    }

    async fn get_state(&self, _: Request<pb::GetStateRequest>) -> Result<Response<pb::ForwardingState>, Status> {
        Ok(Response::new(encode::state(&self.snapshot().await?.to_state())))
    }

    async fn apply_state(&self, request: Request<pb::ForwardingState>) -> Result<Response<pb::ApplyResult>, Status> {
        let state = decode::state(request.get_ref()).map_err(|errors| refused(&errors))?;
        let applied = self.handle.apply_state(state).await?.map_err(|errors| refused(&errors))?;
        Ok(Response::new(pb::ApplyResult { generation: applied.generation, warnings: applied.warnings }))
    }

    async fn apply_delta(&self, request: Request<pb::ForwardingDelta>) -> Result<Response<pb::ApplyResult>, Status> {
        let delta = decode::delta(request.get_ref()).map_err(|errors| refused(&errors))?;
        let applied = self.handle.apply_delta(delta).await?.map_err(|errors| refused(&errors))?;
        Ok(Response::new(pb::ApplyResult { generation: applied.generation, warnings: applied.warnings }))
    }

    async fn list_vifs(&self, request: Request<pb::ListVifsRequest>) -> Result<Response<pb::ListVifsResponse>, Status> {
        let snapshot = self.snapshot().await?;
        let ports = self.handle.look(|_, ports| ports.clone()).await?;
        let (total, each) = self.counters().await?;
        let sas = if snapshot.sas().next().is_some() { self.sas().await? } else { Vec::new() };
        let show = |vif: &offload_rules::forwarding::Vif| {
            // A sub-interface is down for the reason of its parent.
            let port = ports.get(&snapshot.port_of(vif.id)).cloned().unwrap_or_default();
            let mut info = view::vif(vif, &snapshot, &total, &each, &port);
            sa_view::complete(&mut info, vif, &snapshot, &sas);
            info
        };
        let ids = &request.get_ref().ids;
        if ids.is_empty() {
            return Ok(Response::new(pb::ListVifsResponse { vifs: snapshot.vifs().map(|vif| show(vif)).collect() }));
        }
        let mut vifs = Vec::new();
        for id in ids {
            let found = VifId::new(*id).ok().and_then(|id| snapshot.vif(id));
            vifs.push(show(found.ok_or_else(|| Status::not_found(format!("no vif {id}")))?));
        }
        Ok(Response::new(pb::ListVifsResponse { vifs }))
    }

    async fn list_vrfs(&self, request: Request<pb::ListVrfsRequest>) -> Result<Response<pb::ListVrfsResponse>, Status> {
        let snapshot = self.snapshot().await?;
        let (total, _) = self.counters().await?;
        let ids = &request.get_ref().ids;
        if ids.is_empty() {
            let vrfs = snapshot.vrfs().filter_map(|vrf| view::vrf(vrf.id, &snapshot, &total)).collect();
            return Ok(Response::new(pb::ListVrfsResponse { vrfs }));
        }
        let mut vrfs = Vec::new();
        for id in ids {
            let found = VrfId::new(*id).ok().and_then(|id| view::vrf(id, &snapshot, &total));
            vrfs.push(found.ok_or_else(|| Status::not_found(format!("no VRF {id}")))?);
        }
        Ok(Response::new(pb::ListVrfsResponse { vrfs }))
    }

    async fn list_routes(
        &self,
        request: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let asked = request.get_ref();
        let vrf = number("vrf", VrfId::new(asked.vrf))?;
        let family = if asked.family() == pb::AddressFamily::Inet6 { Family::Inet6 } else { Family::Inet };
        let snapshot = self.snapshot().await?;
        let routes = view::routes(vrf, family, &snapshot)
            .ok_or_else(|| Status::not_found(format!("VRF {vrf} has no {} table", family.name())))?;
        Ok(Response::new(pb::ListRoutesResponse { routes }))
    }

    async fn get_route(
        &self,
        request: Request<pb::GetRouteRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let asked = request.get_ref();
        let vrf = number("vrf", VrfId::new(asked.vrf))?;
        let prefix: IpNet =
            asked.prefix.parse().or_else(|_| asked.prefix.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                Status::invalid_argument(format!("'{}' is neither a prefix nor an address", asked.prefix))
            })?;
        let snapshot = self.snapshot().await?;
        let none = || Status::not_found(format!("no route to {prefix} in VRF {vrf}"));
        let host = IpNet::from(prefix.addr());
        let found = if prefix == host {
            view::route_to(vrf, prefix.addr(), &snapshot)
        } else {
            // The longest route that covers the whole prefix.
            let family = Family::of(&prefix.addr());
            let covering = snapshot.routes(vrf, family).into_iter().filter(|route| route.prefix.contains(&prefix));
            covering.max_by_key(|route| route.prefix.prefix_len()).map(|route| view::route(&route, &snapshot))
        };
        Ok(Response::new(pb::ListRoutesResponse { routes: vec![found.ok_or_else(none)?] }))
    }

    async fn list_nexthops(
        &self,
        request: Request<pb::ListNexthopsRequest>,
    ) -> Result<Response<pb::ListNexthopsResponse>, Status> {
        let asked = request.get_ref();
        let snapshot = self.snapshot().await?;
        if asked.ids.is_empty() {
            let mut nexthops: Vec<_> = snapshot.nexthops().map(|nexthop| view::nexthop(nexthop, &snapshot)).collect();
            nexthops.extend(view::learned_nexthops(&snapshot));
            return Ok(Response::new(pb::ListNexthopsResponse { nexthops }));
        }
        let mut nexthops: Vec<pb::NexthopInfo> = Vec::new();
        let mut todo: std::collections::VecDeque<(u32, bool)> = asked.ids.iter().map(|id| (*id, true)).collect();
        while let Some((id, named)) = todo.pop_front() {
            if nexthops.iter().any(|known| known.nexthop.as_ref().is_some_and(|known| known.id == id)) {
                continue;
            }
            if let Some(learned) = view::learned_nexthop(id, &snapshot) {
                nexthops.push(learned);
                continue;
            }
            match NexthopId::new(id).ok().and_then(|id| snapshot.nexthop(id)) {
                Some(nexthop) => {
                    nexthops.push(view::nexthop(nexthop, &snapshot));
                    let leads = !matches!(nexthop.kind, NexthopKind::Receive(_)) || named;
                    if asked.follow && leads {
                        todo.extend(nexthop.references().iter().map(|(_, id)| (id.get(), false)));
                    }
                }
                None if named => return Err(Status::not_found(format!("no nexthop {id}"))),
                None => {}
            }
        }
        Ok(Response::new(pb::ListNexthopsResponse { nexthops }))
    }

    async fn list_labels(
        &self,
        request: Request<pb::ListLabelsRequest>,
    ) -> Result<Response<pb::ListLabelsResponse>, Status> {
        let snapshot = self.snapshot().await?;
        let wanted = &request.get_ref().labels;
        let all =
            snapshot.labels().map(|(label, nexthop)| pb::MplsLabel { label: label.get(), nexthop: nexthop.get() });
        let labels: Vec<_> = all.filter(|label| wanted.is_empty() || wanted.contains(&label.label)).collect();
        match wanted.iter().find(|label| !labels.iter().any(|found| found.label == **label)) {
            Some(missing) => Err(Status::not_found(format!("no label {missing}"))),
            None => Ok(Response::new(pb::ListLabelsResponse { labels })),
        }
    }

    async fn list_acls(&self, request: Request<pb::ListAclsRequest>) -> Result<Response<pb::ListAclsResponse>, Status> {
        let snapshot = self.snapshot().await?;
        let wanted = &request.get_ref().ids;
        let acls: Vec<_> = snapshot
            .acls()
            .filter(|acl| wanted.is_empty() || wanted.contains(&acl.id.get()))
            .map(|acl| encode::acl(acl))
            .collect();
        match wanted.iter().find(|id| !acls.iter().any(|found| found.id == **id)) {
            Some(missing) => Err(Status::not_found(format!("no access list {missing}"))),
            None => Ok(Response::new(pb::ListAclsResponse { acls })),
        }
    }

    async fn list_sas(&self, request: Request<pb::ListSasRequest>) -> Result<Response<pb::ListSasResponse>, Status> {
        let wanted = &request.get_ref().ids;
        let mut sas = self.sas().await?;
        let id = |info: &pb::SaInfo| info.sa.as_ref().map_or(0, |sa| sa.id);
        if let Some(missing) = wanted.iter().find(|wanted| !sas.iter().any(|sa| id(sa) == **wanted)) {
            return Err(Status::not_found(format!("no security association {missing}")));
        }
        sas.retain(|sa| wanted.is_empty() || wanted.contains(&id(sa)));
        Ok(Response::new(pb::ListSasResponse { sas }))
    }

    async fn list_neighbours(
        &self,
        _: Request<pb::ListNeighboursRequest>,
    ) -> Result<Response<pb::ListNeighboursResponse>, Status> {
        let asked: Vec<_> = self
            .each(|worker| worker.hold_queue().neighbours().collect::<Vec<_>>())
            .await?
            .into_iter()
            .flatten()
            .collect();
        let neighbours = self.handle.look(move |control, _| view::neighbours(control, &asked)).await?;
        Ok(Response::new(pb::ListNeighboursResponse { neighbours }))
    }

    async fn get_flow(&self, request: Request<pb::GetFlowRequest>) -> Result<Response<pb::FlowPair>, Status> {
        let index = request.get_ref().index;
        let forward = self.flow(index).await?.ok_or_else(|| Status::not_found(format!("no flow {index}")))?;
        let reverse = match forward.reverse_index {
            Some(reverse) => self.flow(reverse).await?,
            None => None,
        };
        Ok(Response::new(pb::FlowPair { forward: Some(forward), reverse }))
    }

    async fn list_flows(&self, request: Request<pb::ListFlowsRequest>) -> Result<Response<FlowStream>, Status> {
        let asked = request.into_inner();
        let filter = FlowFilter::new(&asked).map_err(Status::invalid_argument)?;
        let (send, receive) = tokio::sync::mpsc::channel(256);
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut left = if asked.limit == 0 { u64::MAX } else { asked.limit };
            let count = handle.workers();
            for id in 0..count {
                let mut at = Some(0);
                while let Some(from) = at {
                    let filter = filter.clone();
                    let step = handle.look_at(id, move |worker| flows_from(worker, id, count, from, &filter)).await;
                    let Ok((found, next)) = step else { return };
                    for flow in found {
                        if left == 0 || send.send(Ok(flow)).await.is_err() {
                            return;
                        }
                        left -= 1;
                    }
                    at = next;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get_drops(&self, _: Request<pb::GetDropsRequest>) -> Result<Response<pb::Drops>, Status> {
        let (total, _) = self.counters().await?;
        Ok(Response::new(pb::Drops { drops: view::drops(&total.account) }))
    }

    async fn get_hit_rate(&self, _: Request<pb::GetHitRateRequest>) -> Result<Response<pb::HitRate>, Status> {
        let snapshot = self.snapshot().await?;
        let (total, _) = self.counters().await?;
        Ok(Response::new(hit_rate(&total.tiers, &snapshot)))
    }
}

/// Flows of a worker from a slot on that pass the filter, and where to go on.
fn flows_from(
    worker: &Worker,
    id: usize,
    count: usize,
    from: u32,
    filter: &FlowFilter,
) -> (Vec<pb::Flow>, Option<u32>) {
    let mut found = Vec::new();
    let mut at = from;
    for _ in 0..STEP {
        let Some(slot) = worker.flows().next_occupied(at) else { return (found, None) };
        at = slot + 1;
        let Some(record) = worker.flows().record(slot) else { continue };
        let other = view::listed(worker, record.reverse);
        let Some(direction) = view::listed(worker, slot) else { continue };
        if filter.passes(direction, other) {
            found.extend(view::flow(worker, id, count, slot));
        }
    }
    (found, Some(at))
}
