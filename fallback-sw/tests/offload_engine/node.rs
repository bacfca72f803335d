//! A node on ports in memory, with an engine over a NIC in memory: from the packet to the rule, its counters, and its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use fallback_sw::{
    io::{
        Chosen, OpenPorts, Opened, Port, PortError,
        device::{Device, Link},
        memory::{self, MemoryPort},
    },
    node::{
        daemon::Attachment as _,
        decode,
        engine_host::{AboutNic, Offload, Start},
        runtime::{Config, Handle, Runtime},
    },
    packet::Packet,
    worker::{OffloadStatus, Worker},
};
use offload_engine::protocol::Tier;
use offload_rules::{VifId, forwarding::Vif, lower::NicProfile};
use proto::v1::{self as pb, offload_client::OffloadClient};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::Routes,
    transport::{Channel, Server},
};

use crate::{
    common::{
        packets::udp,
        records::out_of_tunnel_on,
        snapshot,
        walk_a::{CE1, CLIENT, LAN1, SERVER, UNDERLAYS, from_client},
    },
    nic::MemoryNic,
    wait_until,
};

/// A port that says that it has to be looked at all the time.
struct Polled(MemoryPort);

impl Port for Polled {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        self.0.receive(into, spare, max)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        self.0.transmit(frames, spare)
    }

    fn readiness(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    fn polls(&self) -> bool {
        true
    }

    fn driver(&self) -> &'static str {
        self.0.driver()
    }
}

/// The far ends of the node's ports, by vif.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<VifId, MemoryPort>>>);

impl Wires {
    fn send(&self, vif: u32, frame: &[u8]) {
        let mut ends = self.0.lock().unwrap();
        let end = ends.get_mut(&VifId::new(vif).unwrap()).unwrap();
        end.transmit(&mut vec![Packet::from_frame(frame)], &mut Vec::new()).unwrap();
    }

    /// The vif of the only frame that arrives at a far end.
    fn arrived(&self) -> u32 {
        let mut at = None;
        wait_until("a frame", || {
            let mut ends = self.0.lock().unwrap();
            at = ends.iter_mut().find_map(|(vif, end)| {
                let mut frames = Vec::new();
                let count = end.receive(&mut frames, &mut Vec::new(), 1).unwrap();
                (count > 0).then_some(u32::from(vif.get()))
            });
            at.is_some()
        });
        at.unwrap()
    }
}

fn device(name: &str) -> Device {
    Device {
        name: name.to_owned(),
        index: 7,
        mac: None,
        mtu: 1500,
        attainable: 1500,
        link: Link::Ethernet,
        up: true,
        operational: true,
        carrier: true,
        kernel_driver: "memory".to_owned(),
        queues: 1,
    }
}

impl OpenPorts for Wires {
    fn open(&mut self, vif: &Vif, _workers: usize) -> Result<Opened, PortError> {
        let (near, far) = memory::pair(&vif.name, 256);
        self.0.lock().unwrap().insert(vif.id, far);
        let chosen = Chosen { driver: "net_memory", reason: "a test".to_owned() };
        Ok(Opened { ports: vec![Box::new(Polled(near))], chosen, device: device(&vif.name) })
    }

    fn look(&mut self, name: &str) -> Result<Device, PortError> {
        Ok(device(name))
    }
}

/// A running node.
struct Daemon {
    wires: Wires,
    nic: MemoryNic,
    runtime: Runtime,
    offload: Offload,
    client: OffloadClient<Channel>,
    tokio: tokio::runtime::Runtime,
}

impl Daemon {
    fn start() -> Self {
        let (wires, nic) = (Wires::default(), MemoryNic::default());
        let (snapshot, epoch) = (snapshot(CE1), Instant::now());
        let connected = nic.clone();
        let start = Start {
            lowering: NicProfile::by_name("twin").unwrap(),
            connect: move || Ok(connected.backend()),
            workers: 1,
            snapshot: Arc::clone(&snapshot),
            epoch,
            about: AboutNic { driver: "memory".to_owned(), ..AboutNic::default() },
        };
        let (mut offload, link) = Offload::start(start).unwrap();
        let config = Config { ports: Box::new(wires.clone()), offload: Some(link), epoch, ..Config::default() };
        let runtime = Runtime::start(config, (*snapshot).clone()).unwrap();
        let routes = offload.attach(&runtime.handle(), Routes::default());
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = tokio.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
            OffloadClient::connect(at).await.unwrap()
        });
        wait_until("ports", || wires.0.lock().unwrap().len() == 3);
        Self { wires, nic, runtime, offload, client, tokio }
    }

    fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    /// A packet of each direction of a flow of UDP, and one more from the client.
    fn converse(&self) {
        let up = from_client(&udp(CLIENT, SERVER, 1, 9, b"payload of some octets, beyond padding").ip());
        self.wires.send(LAN1, &up);
        let underlay = self.wires.arrived();
        assert!(UNDERLAYS.contains(&underlay));
        let answer = udp(SERVER, CLIENT, 9, 1, b"an answer of some octets, beyond padding");
        self.wires.send(underlay, &out_of_tunnel_on(underlay, &answer));
        assert_eq!(self.wires.arrived(), LAN1);
        self.wires.send(LAN1, &up);
        assert_eq!(self.wires.arrived(), underlay);
    }

    /// Where both directions run, and what the NIC has counted.
    fn flows(&self) -> Vec<OffloadStatus> {
        let look = |worker: &Worker| {
            let occupied =
                std::iter::successors(worker.flows().next_occupied(0), |at| worker.flows().next_occupied(at + 1));
            occupied.filter_map(|slot| worker.offload_status(slot)).collect()
        };
        self.tokio.block_on(self.handle().look_at(0, look)).unwrap()
    }

    fn both_in(&self, tier: Tier) -> bool {
        let flows = self.flows();
        flows.len() == 2 && flows.iter().all(|flow| flow.tier == tier)
    }

    fn status(&mut self) -> pb::OffloadStatus {
        let ask = self.client.get_offload_status(pb::GetOffloadStatusRequest::default());
        self.tokio.block_on(ask).unwrap().into_inner()
    }

    fn switch(&mut self, enabled: bool) -> pb::SetEnabledResult {
        let ask = self.client.set_enabled(pb::SetEnabledRequest { enabled });
        self.tokio.block_on(ask).unwrap().into_inner()
    }

    fn forwarding(&self) -> usize {
        self.nic.0.lock().unwrap().forwarding()
    }
}

#[test]
fn a_node_without_dpdk_offloads_counts_and_removes_a_flow() {
    let mut daemon = Daemon::start();
    daemon.converse();
    wait_until("in hardware", || daemon.both_in(Tier::Hardware));
    assert_eq!(daemon.forwarding(), 2, "a rule for each direction");
    let status = daemon.status();
    assert_eq!((status.driver.as_str(), status.flows.unwrap().hardware), ("memory", 1));

    daemon.nic.0.lock().unwrap().hit_all(1000);
    let counted = |flow: &OffloadStatus| (flow.hardware.packets, flow.hardware.bytes) == (1000, 100_000);
    wait_until("counted", || daemon.flows().iter().all(counted));

    let off = daemon.switch(false);
    assert_eq!((off.changed, off.flows_drained, off.flows_draining), (true, 1, 0));
    assert_eq!(daemon.nic.0.lock().unwrap().rules.len(), 0, "nothing is left in the NIC");
    assert!(daemon.both_in(Tier::Software));
    daemon.switch(true);
    daemon.converse();
    wait_until("in hardware again", || daemon.both_in(Tier::Hardware));

    // Without its route the flow may not go on.
    let text = CE1.replace(r#""generation": "1""#, r#""generation": "2""#);
    let without = text.replace(r#"    {"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 280},"#, "");
    assert_ne!(text, without);
    let message: pb::ForwardingState = proto::json::parse(&without, "test state").unwrap();
    let state = decode::state(&message).unwrap();
    daemon.tokio.block_on(daemon.handle().apply_state(state)).unwrap().unwrap();
    wait_until("removed", || daemon.forwarding() == 0);

    daemon.offload.detach();
    daemon.runtime.stop();
    assert_eq!(daemon.nic.0.lock().unwrap().rules.len(), 0, "the end leaves no rule behind");
    assert_eq!(daemon.nic.0.lock().unwrap().flushes, 1);
}
