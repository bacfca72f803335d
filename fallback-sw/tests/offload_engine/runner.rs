//! The threads around the engine.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use fallback_sw::node::engine_host::{ReportSink, Runner, RunnerConfig};
use offload_engine::{
    Config, Failure, errno,
    protocol::{OffloadId, Report, Request, Tier},
};
use offload_rules::lower::{NicProfile, NotOffloaded};

use crate::{
    common::{
        Node,
        engine::with_engine,
        packets::udp,
        records::out_of_tunnel_on,
        snapshot,
        walk_a::{CE1, CLIENT, LAN1, SERVER, from_client, only},
    },
    nic::MemoryNic,
    wait_until,
};

/// What a worker asks for a flow of UDP both of whose directions it has seen.
fn install() -> Request {
    let mut node = Node::with(CE1, with_engine());
    let up = || from_client(&udp(CLIENT, SERVER, 1, 9, b"payload of some octets, beyond padding").ip());
    node.receive(LAN1, &up());
    let (underlay, _) = only(node.receive(LAN1, &up()));
    let answer = udp(SERVER, CLIENT, 9, 1, b"an answer of some octets, beyond padding");
    node.receive(underlay, &out_of_tunnel_on(underlay, &answer));
    let [request] = node.asked().try_into().unwrap();
    request
}

fn id() -> OffloadId {
    OffloadId { worker: 0, entry: 0, generation: 1 }
}

#[derive(Clone, Default)]
struct Post {
    told: Arc<Mutex<Vec<(u16, Report)>>>,
    restarts: Arc<Mutex<Vec<u64>>>,
}

impl ReportSink for Post {
    fn reports(&self, worker: u16, reports: Vec<Report>) {
        self.told.lock().unwrap().extend(reports.into_iter().map(|report| (worker, report)));
    }

    fn restarted(&self, generation: u64) {
        self.restarts.lock().unwrap().push(generation);
    }
}

impl Post {
    fn has(&self, report: &Report) -> bool {
        self.told.lock().unwrap().iter().any(|(worker, told)| *worker == 0 && told == report)
    }
}

const HARDWARE: Report =
    Report::State { id: OffloadId { worker: 0, entry: 0, generation: 1 }, tier: Tier::Hardware, reason: None };

fn start(post: &Post, refusals: u32) -> (Runner, Arc<Mutex<Vec<MemoryNic>>>) {
    let nics: Arc<Mutex<Vec<MemoryNic>>> = Arc::default();
    let made = Arc::clone(&nics);
    let config = RunnerConfig { engine: Config::default(), workers: 1, ring: 16, epoch: Instant::now() };
    let mut left = refusals;
    let connect = move || {
        if left > 0 {
            left -= 1;
            return Err(Failure::from_errno(errno::ENODEV, "unplugged"));
        }
        let nic = MemoryNic::default();
        made.lock().unwrap().push(nic.clone());
        Ok(nic.backend())
    };
    let runner =
        Runner::start(config, NicProfile::by_name("twin").unwrap(), snapshot(CE1), connect, post.clone()).unwrap();
    (runner, nics)
}

#[test]
fn requests_go_in_by_the_ring_and_reports_come_out() {
    let post = Post::default();
    let (runner, nics) = start(&post, 0);
    let handle = runner.handle();
    handle.ring(0).unwrap().push(install()).unwrap();
    wait_until("in hardware", || post.has(&HARDWARE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let status = runtime.block_on(handle.inspect(|engine, now| engine.status(now))).unwrap();
    assert_eq!((status.hardware, status.flows), (1, 1));
    handle.set_enabled(false);
    let off = Report::State { id: id(), tier: Tier::Software, reason: Some(NotOffloaded::Off) };
    wait_until("off", || post.has(&off));
    handle.set_enabled(true);
    let again = || post.told.lock().unwrap().iter().filter(|(_, report)| *report == HARDWARE).count() == 2;
    wait_until("on again", again);
    runner.stop();
    let nics = nics.lock().unwrap();
    assert_eq!(nics[0].0.lock().unwrap().rules.len(), 0, "the end leaves no rule behind");
    assert!(handle.ring(1).is_none());
}

#[test]
fn a_dead_engine_is_restarted_with_a_flush_and_workers_are_told() {
    let post = Post::default();
    let (runner, nics) = start(&post, 0);
    let handle = runner.handle();
    let ring = handle.ring(0).unwrap();
    ring.push(install()).unwrap();
    wait_until("in hardware", || post.has(&HARDWARE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let killed = runtime.block_on(handle.inspect(|_, _| panic!("killed by a test")));
    assert!(killed.is_err());
    wait_until("told", || *post.restarts.lock().unwrap() == [1]);
    assert_eq!(handle.generation(), 1);
    post.told.lock().unwrap().clear();
    wait_until("a second NIC", || nics.lock().unwrap().len() == 2);
    ring.push(install()).unwrap();
    let in_hardware = || {
        // Asked while there was no engine, it is answered; then it is asked again.
        let software =
            post.told.lock().unwrap().iter().any(|(_, r)| matches!(r, Report::State { tier: Tier::Software, .. }));
        if software {
            post.told.lock().unwrap().clear();
            ring.push(install()).unwrap();
        }
        post.has(&HARDWARE)
    };
    wait_until("in hardware again", in_hardware);
    assert_eq!(nics.lock().unwrap()[1].0.lock().unwrap().flushes, 1);
}

#[test]
fn without_a_nic_every_request_is_answered() {
    let post = Post::default();
    let (runner, _) = start(&post, u32::MAX);
    let ring = runner.handle().ring(0).unwrap();
    ring.push(install()).unwrap();
    ring.push(Request::Remove { id: id() }).unwrap();
    wait_until("gone", || post.has(&Report::Gone { id: id() }));
    runner.stop();
}
