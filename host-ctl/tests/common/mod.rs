//! A node made of fixed answers on a temporary unix socket, and the real binary to ask it.
#![allow(clippy::unwrap_used, reason = "a test ends where its helper fails")]
#![allow(dead_code, reason = "each test binary uses its part")]

mod engine;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) use engine::Nic;
use proto::v1::{node_server::NodeServer, *};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

type Answer<T> = Result<Response<T>, Status>;

/// What the node has been asked.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) flows: Option<ListFlowsRequest>,
    pub(crate) nexthops: Option<ListNexthopsRequest>,
    pub(crate) state: Option<ForwardingState>,
    pub(crate) delta: Option<ForwardingDelta>,
    pub(crate) enabled: Option<bool>,
}

struct Mock(Arc<Mutex<Seen>>);

fn chosen<T>(all: Vec<T>, ids: &[u32], id: impl Fn(&T) -> u32) -> Result<Vec<T>, Status> {
    if let Some(absent) = ids.iter().find(|wanted| !all.iter().any(|object| id(object) == **wanted)) {
        return Err(Status::not_found(format!("there is no {absent}")));
    }
    Ok(all.into_iter().filter(|object| ids.is_empty() || ids.contains(&id(object))).collect())
}

pub(crate) fn flow(index: u64) -> Flow {
    Flow {
        index,
        reverse_index: Some(index + 1),
        vrf: 17,
        proto: 6,
        action: FlowAction::Forward.into(),
        ..Flow::default()
    }
}

#[tonic::async_trait]
impl node_server::Node for Mock {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Answer<NodeStatus> {
        Ok(Response::new(NodeStatus { node: "ce-1".into(), ..NodeStatus::default() }))
    }

    async fn get_state(&self, _: Request<GetStateRequest>) -> Answer<ForwardingState> {
        let vrfs = vec![Vrf { id: 18, name: "demo-red".into() }];
        Ok(Response::new(ForwardingState { generation: 7, vrfs, ..ForwardingState::default() }))
    }

    async fn apply_state(&self, request: Request<ForwardingState>) -> Answer<ApplyResult> {
        let state = request.into_inner();
        if state.generation == 13 {
            return Err(Status::invalid_argument("vif 1: mtu: 100 is out of range\nnexthop 2: oif: is missing"));
        }
        let generation = state.generation;
        self.0.lock().unwrap().state = Some(state);
        Ok(Response::new(ApplyResult { generation, ..ApplyResult::default() }))
    }

    async fn apply_delta(&self, request: Request<ForwardingDelta>) -> Answer<ApplyResult> {
        let delta = request.into_inner();
        if delta.base_generation != 7 {
            return Err(Status::failed_precondition("the generation in force is 7"));
        }
        let generation = delta.generation;
        self.0.lock().unwrap().delta = Some(delta);
        let warnings = if generation == 9 { vec!["/x/last.json: no space".into(), "sa 17".into()] } else { Vec::new() };
        Ok(Response::new(ApplyResult { generation, warnings }))
    }

    async fn list_vifs(&self, request: Request<ListVifsRequest>) -> Answer<ListVifsResponse> {
        let vif = |id: u32| VifInfo { vif: Some(Vif { id, ..Vif::default() }), ..VifInfo::default() };
        let vifs =
            chosen(vec![vif(4), vif(6)], &request.into_inner().ids, |info| info.vif.as_ref().map_or(0, |vif| vif.id))?;
        Ok(Response::new(ListVifsResponse { vifs }))
    }

    async fn list_vrfs(&self, request: Request<ListVrfsRequest>) -> Answer<ListVrfsResponse> {
        let vrfs = vec![VrfInfo { id: 17, ..VrfInfo::default() }, VrfInfo { id: 18, ..VrfInfo::default() }];
        Ok(Response::new(ListVrfsResponse { vrfs: chosen(vrfs, &request.into_inner().ids, |vrf| vrf.id)? }))
    }

    async fn list_routes(&self, request: Request<ListRoutesRequest>) -> Answer<ListRoutesResponse> {
        if request.into_inner().vrf != 18 {
            return Err(Status::not_found("no table"));
        }
        let route = Route { vrf: 18, prefix: "192.168.1.0/24".into(), nexthop: 489, ..Route::default() };
        let routes = vec![RouteInfo { route: Some(route), ..RouteInfo::default() }];
        Ok(Response::new(ListRoutesResponse { routes }))
    }

    async fn get_route(&self, request: Request<GetRouteRequest>) -> Answer<ListRoutesResponse> {
        match request.into_inner().prefix.as_str() {
            "10.0.0.1" => Err(Status::not_found("no route")),
            "x" => Err(Status::invalid_argument("'x' is not a prefix")),
            _ => self.list_routes(Request::new(ListRoutesRequest { vrf: 18, family: 0 })).await,
        }
    }

    async fn list_nexthops(&self, request: Request<ListNexthopsRequest>) -> Answer<ListNexthopsResponse> {
        let request = request.into_inner();
        let nexthop =
            |id| NexthopInfo { nexthop: Some(Nexthop { id, ..Nexthop::default() }), ..NexthopInfo::default() };
        let nexthops = chosen(vec![nexthop(489)], &request.ids, |info| info.nexthop.as_ref().map_or(0, |nh| nh.id))?;
        self.0.lock().unwrap().nexthops = Some(request);
        Ok(Response::new(ListNexthopsResponse { nexthops }))
    }

    async fn list_labels(&self, request: Request<ListLabelsRequest>) -> Answer<ListLabelsResponse> {
        let labels = vec![MplsLabel { label: 280, nexthop: 513 }];
        Ok(Response::new(ListLabelsResponse { labels: chosen(labels, &request.into_inner().labels, |l| l.label)? }))
    }

    async fn list_acls(&self, request: Request<ListAclsRequest>) -> Answer<ListAclsResponse> {
        let acls = vec![Acl { id: 65, ..Acl::default() }];
        Ok(Response::new(ListAclsResponse { acls: chosen(acls, &request.into_inner().ids, |acl| acl.id)? }))
    }

    async fn list_sas(&self, request: Request<ListSasRequest>) -> Answer<ListSasResponse> {
        let sa = |id| {
            let sa = SecurityAssociation { id, spi: 0x1000 + id, key: "redacted".into(), ..Default::default() };
            SaInfo { sa: Some(sa), ..Default::default() }
        };
        let id = |info: &SaInfo| info.sa.as_ref().map_or(0, |sa| sa.id);
        let sas = chosen(vec![sa(0x60), sa(0x70)], &request.get_ref().ids, id)?;
        Ok(Response::new(ListSasResponse { sas }))
    }

    /// Never answers.
    async fn list_neighbours(&self, _: Request<ListNeighboursRequest>) -> Answer<ListNeighboursResponse> {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Err(Status::internal("slept too long"))
    }

    async fn get_flow(&self, request: Request<GetFlowRequest>) -> Answer<FlowPair> {
        match request.into_inner().index {
            19524 => Ok(Response::new(FlowPair { forward: Some(flow(19524)), reverse: Some(flow(19525)) })),
            0 => Ok(Response::new(FlowPair::default())),
            _ => Err(Status::not_found("no flow with this index")),
        }
    }

    type ListFlowsStream = tokio_stream::Iter<std::vec::IntoIter<Result<Flow, Status>>>;

    /// As many as the limit says; one without a limit. VRF 99 breaks off after the first.
    async fn list_flows(&self, request: Request<ListFlowsRequest>) -> Answer<Self::ListFlowsStream> {
        let request = request.into_inner();
        let count = if request.vrf == Some(1) { 0 } else { request.limit.max(1) };
        let mut flows: Vec<_> = (0..count).map(|i| Ok(flow(i * 2))).collect();
        if request.vrf == Some(99) {
            flows.push(Err(Status::internal("the worker is gone")));
        }
        self.0.lock().unwrap().flows = Some(request);
        Ok(Response::new(tokio_stream::iter(flows)))
    }

    async fn get_drops(&self, _: Request<GetDropsRequest>) -> Answer<Drops> {
        let drop = |reason: &str, packets| DropCount { reason: reason.into(), packets };
        Ok(Response::new(Drops { drops: vec![drop("No Route", 11), drop("Policy Deny", 0)] }))
    }

    async fn get_hit_rate(&self, _: Request<GetHitRateRequest>) -> Answer<HitRate> {
        let hardware = Some(Traffic { packets: 75, bytes: 7500 });
        let software = Some(Traffic { packets: 25, bytes: 2500 });
        let traffic = TierTraffic { hardware, software, ..TierTraffic::default() };
        let vrfs = vec![VrfHitRate { vrf: 18, name: "demo-red".into(), traffic: Some(traffic) }];
        Ok(Response::new(HitRate { vrfs, total: Some(traffic) }))
    }
}

/// The node and what it has been asked.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) seen: Arc<Mutex<Seen>>,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    /// A node that forwards in software only.
    pub(crate) fn start() -> Self {
        Self::with_engine(None)
    }

    /// A node with a NIC.
    pub(crate) fn start_with_nic(nic: Nic) -> Self {
        Self::with_engine(Some(nic))
    }

    fn with_engine(nic: Option<Nic>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mock = NodeServer::new(Mock(Arc::clone(&seen))).max_decoding_message_size(usize::MAX);
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(dir.path().join("node.sock")).unwrap()
        };
        let engine = nic.map(|nic| engine::service(nic, Arc::clone(&seen)));
        let server = Server::builder().add_service(mock).add_optional_service(engine);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { dir, seen, _runtime: runtime }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("node.sock")
    }

    /// The binary, told where this node is.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = binary();
        command.arg("--socket").arg(self.socket()).args(line.split_whitespace());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        Ran::from(self.command(line).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, line: &str, input: &str) -> Ran {
        let mut child =
            self.command(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }
}

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-ctl"));
    command.env_remove("SLUICEGATE_SOCKET").stdin(Stdio::null());
    command
}

/// How it ended and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Status 0 and nothing on standard error; returns standard output.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// That status, an explanation and nothing on standard output; returns the explanation.
    pub(crate) fn failed(self, status: i32) -> String {
        assert_eq!((self.status, self.out.as_str()), (Some(status), ""), "{}", self.err);
        assert!(self.err.starts_with("host-ctl: "), "{}", self.err);
        self.err
    }
}
