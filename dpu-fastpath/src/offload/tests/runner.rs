//! The threads around the engine.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fallback_sw::offload::{Report, Request, Tier};
use offload_rules::{forwarding::Snapshot, lower::NotOffloaded};

use super::{Config, Toy, fake::Fake, fake::Nic, id, install};
use crate::offload::{Deliver, Failure, Runner, RunnerConfig};

#[derive(Clone, Default)]
struct Post {
    told: Arc<Mutex<Vec<(u16, Report)>>>,
    restarts: Arc<Mutex<Vec<u64>>>,
}

impl Deliver for Post {
    fn reports(&self, worker: u16, reports: Vec<Report>) {
        self.told.lock().unwrap().extend(reports.into_iter().map(|report| (worker, report)));
    }

    fn restarted(&self, generation: u64) {
        self.restarts.lock().unwrap().push(generation);
    }
}

impl Post {
    fn has(&self, report: Report) -> bool {
        self.told.lock().unwrap().contains(&(0, report))
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

const HARDWARE: Report = Report::State {
    id: fallback_sw::offload::OffloadId { worker: 0, entry: 1, generation: 1 },
    tier: Tier::Hardware,
    reason: None,
};

fn start(post: &Post, refusals: u32) -> (Runner, Arc<Mutex<Vec<Nic>>>) {
    let nics: Arc<Mutex<Vec<Nic>>> = Arc::default();
    let made = Arc::clone(&nics);
    let config = RunnerConfig { engine: Config::default(), workers: 1, ring: 16, epoch: Instant::now() };
    let mut left = refusals;
    let connect = move || {
        if left > 0 {
            left -= 1;
            return Err(Failure::from_errno(libc::ENODEV, "unplugged"));
        }
        let (fake, nic) = Fake::new();
        made.lock().unwrap().push(nic);
        Ok(fake)
    };
    let runner = Runner::start(config, Toy::default(), Arc::new(Snapshot::empty()), connect, post.clone()).unwrap();
    (runner, nics)
}

#[test]
fn requests_go_in_by_the_ring_and_reports_come_out() {
    let post = Post::default();
    let (runner, nics) = start(&post, 0);
    let handle = runner.handle();
    handle.ring(0).unwrap().push(install(id(1))).unwrap();
    wait_until("in hardware", || post.has(HARDWARE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let status = runtime.block_on(handle.look(|engine, now| engine.status(now))).unwrap();
    assert_eq!((status.hardware, status.rules), (1, 2));
    handle.set_enabled(false);
    let off = Report::State { id: id(1), tier: Tier::Software, reason: Some(NotOffloaded::Off) };
    wait_until("off", || post.has(off));
    handle.set_enabled(true);
    let again = || post.told.lock().unwrap().iter().filter(|(_, report)| *report == HARDWARE).count() == 2;
    wait_until("on again", again);
    runner.stop();
    let nics = nics.lock().unwrap();
    assert_eq!(nics[0].lock().unwrap().rules.len(), 0, "the end leaves no rule behind");
    assert!(handle.ring(1).is_none());
}

#[test]
fn an_engine_that_dies_is_started_again_with_a_flush_and_workers_are_told() {
    let post = Post::default();
    let (runner, nics) = start(&post, 0);
    let handle = runner.handle();
    let ring = handle.ring(0).unwrap();
    ring.push(install(id(1))).unwrap();
    wait_until("in hardware", || post.has(HARDWARE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let killed = runtime.block_on(handle.look(|_, _| panic!("killed by a test")));
    assert!(killed.is_err());
    wait_until("told", || *post.restarts.lock().unwrap() == [1]);
    assert_eq!(handle.generation(), 1);
    post.told.lock().unwrap().clear();
    wait_until("a second NIC", || nics.lock().unwrap().len() == 2);
    ring.push(install(id(1))).unwrap();
    let in_hardware = || {
        // Asked while there was no engine, it is answered; then it is asked again.
        let software =
            post.told.lock().unwrap().iter().any(|(_, r)| matches!(r, Report::State { tier: Tier::Software, .. }));
        if software {
            post.told.lock().unwrap().clear();
            ring.push(install(id(1))).unwrap();
        }
        post.has(HARDWARE)
    };
    wait_until("in hardware again", in_hardware);
    assert_eq!(nics.lock().unwrap()[1].lock().unwrap().flushes, 1);
}

#[test]
fn without_a_nic_every_request_is_answered() {
    let post = Post::default();
    let (runner, _) = start(&post, u32::MAX);
    let ring = runner.handle().ring(0).unwrap();
    ring.push(install(id(1))).unwrap();
    ring.push(Request::Remove { id: id(1) }).unwrap();
    wait_until("gone", || post.has(Report::Gone { id: id(1) }));
    runner.stop();
}
