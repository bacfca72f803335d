//! The engine on a thread of its own, and a supervisor thread that starts it again after a panic.
//!
//! Workers put requests into rings and never wait. Reports go out through [`ReportSink`]. When the engine's thread
//! panics, its state is lost: workers are told that everything is in software, and the next engine begins with a flush. Traffic
//! goes on in software meanwhile; packets that the NIC has handled since its counters were read last are not counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use offload_engine::protocol::{NotHeld, OffloadId, Report, Request, Tier};
use offload_rules::{
    forwarding::Snapshot,
    lower::{FailureClass, NotOffloaded},
};
use tokio::sync::oneshot;

use offload_engine::{
    Config, Engine, EngineStatus, Failure, InstalledRule, Lowering, Mismatch, NicBackend, RuleBackend,
};

/// Longest wait for a message while nothing is under way: how late a request of a worker can be noticed.
const IDLE: Duration = Duration::from_millis(1);
/// The same while the NIC works.
const BUSY: Duration = Duration::from_micros(50);
/// Requests taken from one ring before the NIC has its turn.
const BATCH: usize = 256;
/// Time to count and remove all rules when the engine is stopped.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest pause before an engine that keeps dying is started again.
const RESTART_CAP: Duration = Duration::from_secs(5);

/// Where reports go. Called on the engine's thread: must not block.
pub trait ReportSink: Send + Sync + 'static {
    /// What a worker has to know, in order.
    fn reports(&self, worker: u16, reports: Vec<Report>);

    /// The engine has lost its state: no flow has a rule any more, none is known, and whatever shall be in hardware must be asked
    /// for again. Nothing of an earlier generation is delivered afterwards.
    fn restarted(&self, generation: u64);
}

/// What of an engine can be inspected, whatever the NIC.
pub trait Inspect {
    /// See [`Engine::status`].
    fn status(&self, now: u64) -> EngineStatus;
    /// See [`Engine::reasons`].
    fn reasons(&self) -> BTreeMap<NotOffloaded, usize>;
    /// See [`Engine::rules_of`].
    fn rules_of(&self, id: OffloadId) -> Vec<InstalledRule>;
    /// See [`Engine::rules`].
    fn rules(&self) -> Vec<InstalledRule>;
    /// See [`Engine::diff`].
    fn diff(&mut self) -> Vec<Mismatch>;
}

impl<B: RuleBackend, L: Lowering> Inspect for Engine<B, L> {
    fn status(&self, now: u64) -> EngineStatus {
        Self::status(self, now)
    }

    fn reasons(&self) -> BTreeMap<NotOffloaded, usize> {
        Self::reasons(self).clone()
    }

    fn rules_of(&self, id: OffloadId) -> Vec<InstalledRule> {
        Self::rules_of(self, id)
    }

    fn rules(&self) -> Vec<InstalledRule> {
        Self::rules(self).collect()
    }

    fn diff(&mut self) -> Vec<Mismatch> {
        Self::diff(self)
    }
}

/// How the threads are run.
#[derive(Debug, Clone, Copy)]
pub struct RunnerConfig {
    /// Bounds and times of the engine.
    pub engine: Config,
    /// Number of workers.
    pub workers: usize,
    /// Requests that each worker's ring holds.
    pub ring: usize,
    /// Zero of the node's clock.
    pub epoch: Instant,
}

/// The runner has ended, or the engine died before it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the offload engine is not there to answer; try again")]
pub struct Ended;

type Inspection = Box<dyn FnOnce(&mut dyn Inspect, u64) + Send>;

enum Message {
    Adopt,
    SetEnabled,
    Inspect(Inspection),
    Stop,
}

/// What engine, supervisor and handles share; it outlives an engine.
struct Shared {
    rings: Vec<Arc<ArrayQueue<Request>>>,
    inbox: Mutex<Receiver<Message>>,
    snapshot: Mutex<Arc<Snapshot>>,
    enabled: AtomicBool,
    stop: AtomicBool,
    generation: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // All of them hold values that are consistent at any time, whichever thread has panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How others reach the engine. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

impl Handle {
    /// The ring of a worker's requests. Full: to be tried again later.
    #[must_use]
    pub fn ring(&self, worker: usize) -> Option<Arc<ArrayQueue<Request>>> {
        self.shared.rings.get(worker).cloned()
    }

    /// How many engines have died so far.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether offload is switched on.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Acquire)
    }

    /// A new forwarding state is in force.
    pub fn adopt(&self, snapshot: &Arc<Snapshot>) {
        *lock(&self.shared.snapshot) = Arc::clone(snapshot);
        // Also where the engine has just died: the next one begins with this snapshot.
        let _ = self.messages.send(Message::Adopt);
    }

    /// Switches offload on or off; lasts over the death of an engine.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Ordering::Release);
        let _ = self.messages.send(Message::SetEnabled);
    }

    /// Inspects the engine on its thread; the second argument is its time. Must be quick: requests wait meanwhile.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn inspect<T: Send + 'static>(
        &self,
        inspect: impl FnOnce(&mut dyn Inspect, u64) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        let inspection: Inspection = Box::new(move |engine, now| {
            let _ = reply.send(inspect(engine, now));
        });
        self.messages.send(Message::Inspect(inspection)).map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}

/// A running engine; ends when it is stopped or dropped.
pub struct Runner {
    handle: Handle,
    supervisor: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts it. `connect` is called for each start of the engine: it opens the NIC, or takes it over from the one that died.
    ///
    /// # Errors
    /// No thread.
    pub fn start<B, L>(
        config: RunnerConfig,
        lowering: L,
        snapshot: Arc<Snapshot>,
        connect: impl FnMut() -> Result<NicBackend<B>, Failure> + Send + 'static,
        deliver: impl ReportSink,
    ) -> std::io::Result<Self>
    where
        B: RuleBackend + 'static,
        L: Lowering + Clone + 'static,
    {
        let (messages, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            rings: (0..config.workers).map(|_| Arc::new(ArrayQueue::new(config.ring.max(1)))).collect(),
            inbox: Mutex::new(inbox),
            snapshot: Mutex::new(snapshot),
            enabled: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        });
        let handle = Handle { messages, shared: Arc::clone(&shared) };
        let supervisor = Supervisor { config, lowering, shared, deliver: Arc::new(deliver) };
        let supervisor =
            std::thread::Builder::new().name("offload-super".to_owned()).spawn(move || supervisor.run(connect))?;
        Ok(Self { handle, supervisor: Some(supervisor) })
    }

    /// How to reach it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Counts and removes all rules, then ends the threads.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.shared.stop.store(true, Ordering::Release);
        let _ = self.handle.messages.send(Message::Stop);
        if let Some(thread) = self.supervisor.take()
            && thread.join().is_err()
        {
            tracing::error!("the supervisor of the offload engine has panicked");
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.end();
    }
}

struct Supervisor<L, D> {
    config: RunnerConfig,
    lowering: L,
    shared: Arc<Shared>,
    deliver: Arc<D>,
}

impl<L: Lowering + Clone + 'static, D: ReportSink> Supervisor<L, D> {
    fn run<B: RuleBackend + 'static>(self, mut connect: impl FnMut() -> Result<NicBackend<B>, Failure>) {
        let mut restarts = 0;
        loop {
            let begun = Instant::now();
            match connect() {
                Ok(nic) => {
                    if self.run_engine(nic) {
                        return;
                    }
                    let generation = self.shared.generation.fetch_add(1, Ordering::AcqRel) + 1;
                    tracing::error!(generation, "the offload engine has died: all flows go on in software");
                    self.deliver.restarted(generation);
                }
                Err(failure) => tracing::error!(%failure, "the NIC cannot be driven, trying again"),
            }
            // One that has lived for a while starts again at once.
            restarts = if begun.elapsed() > RESTART_CAP { 0 } else { restarts + 1 };
            if self.pause(Duration::from_millis(10 << u32::min(restarts, 10)).min(RESTART_CAP)) {
                return;
            }
        }
    }

    /// Runs one engine to its end. True: it was stopped.
    fn run_engine<B: RuleBackend + 'static>(&self, nic: NicBackend<B>) -> bool {
        let snapshot = Arc::clone(&lock(&self.shared.snapshot));
        let config = Config {
            workers: u16::try_from(self.config.workers).unwrap_or(u16::MAX),
            // Each start has its own: 16 bits of numbers, as many as there are sessions.
            sessions_above: (self.shared.generation.load(Ordering::Acquire) as u32) << 16,
            ..self.config.engine
        };
        let engine = Engine::new(config, self.lowering.clone(), nic, snapshot);
        let engine_loop = EngineLoop {
            engine,
            shared: Arc::clone(&self.shared),
            deliver: Arc::clone(&self.deliver),
            epoch: self.config.epoch,
        };
        match std::thread::Builder::new().name("offload".to_owned()).spawn(move || engine_loop.run()) {
            Ok(thread) => thread.join().is_ok(),
            Err(error) => {
                tracing::error!(%error, "no thread for the offload engine");
                false
            }
        }
    }

    /// Without an engine: answers every request. True: the runner is to end.
    fn pause(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            for (worker, ring) in (0..).zip(&self.shared.rings) {
                let answers: Vec<Report> = std::iter::from_fn(|| ring.pop()).filter_map(without_engine).collect();
                if !answers.is_empty() {
                    self.deliver.reports(worker, answers);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.shared.stop.load(Ordering::Acquire) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            // An inspection that is dropped fails for its caller; snapshot and switch are kept where the next engine finds them.
            let _ = lock(&self.shared.inbox).recv_timeout(left.min(IDLE));
        }
    }
}

fn without_engine(request: Request) -> Option<Report> {
    match request {
        Request::Install { id, .. } => {
            let reason = Some(NotOffloaded::Failed(FailureClass::Device));
            Some(Report::State { id, tier: Tier::Software, reason })
        }
        Request::Remove { id } => Some(Report::Gone { id }),
        Request::Offer { offer, .. } | Request::Return { offer, .. } => {
            Some(Report::SaGone { offer, reason: NotHeld::Failed(FailureClass::Device) })
        }
        Request::Rate { .. } | Request::NotHonoured { .. } | Request::Confirm { .. } => None,
    }
}

struct EngineLoop<B: RuleBackend, L: Lowering, D> {
    engine: Engine<B, L>,
    shared: Arc<Shared>,
    deliver: Arc<D>,
    epoch: Instant,
}

impl<B: RuleBackend, L: Lowering, D: ReportSink> EngineLoop<B, L, D> {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        self.engine.set_enabled(shared.enabled.load(Ordering::Acquire), self.now());
        let mut reports = Vec::new();
        loop {
            let taken = self.take_requests();
            self.engine.poll(self.now(), &mut reports);
            let moved = taken > 0 || !reports.is_empty();
            self.deliver_reports(&mut reports);
            let wait = match (moved, self.engine.idle()) {
                (true, _) => Duration::ZERO,
                (false, true) => IDLE,
                (false, false) => BUSY,
            };
            let mut message = lock(&shared.inbox).recv_timeout(wait);
            // All that have come: the next round may take its time.
            for _ in 0..BATCH {
                match message {
                    Ok(Message::Adopt) => {
                        let snapshot = Arc::clone(&lock(&shared.snapshot));
                        self.engine.adopt(&snapshot, self.now());
                    }
                    Ok(Message::SetEnabled) => {
                        let enabled = shared.enabled.load(Ordering::Acquire);
                        self.engine.set_enabled(enabled, self.now());
                    }
                    Ok(Message::Inspect(inspection)) => {
                        let now = self.now();
                        inspection(&mut self.engine, now);
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.drain(),
                }
                message = lock(&shared.inbox).recv_timeout(Duration::ZERO);
            }
        }
    }

    fn take_requests(&mut self) -> usize {
        let mut taken = 0;
        let now = self.now();
        for ring in &self.shared.rings {
            for request in std::iter::from_fn(|| ring.pop()).take(BATCH) {
                self.engine.request(request, now);
                taken += 1;
            }
        }
        taken
    }

    /// The end: every rule is counted and removed, as far as the NIC answers.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN;
        let mut reports = Vec::new();
        self.engine.set_enabled(false, self.now());
        while Instant::now() < deadline {
            self.engine.poll(self.now(), &mut reports);
            self.deliver_reports(&mut reports);
            if self.engine.idle() {
                return;
            }
            std::thread::park_timeout(BUSY);
        }
        tracing::warn!("rules are left in the NIC: it did not answer in time");
    }

    fn deliver_reports(&self, reports: &mut Vec<Report>) {
        if reports.is_empty() {
            return;
        }
        let mut by_worker: BTreeMap<u16, Vec<Report>> = BTreeMap::new();
        for report in reports.drain(..) {
            by_worker.entry(report.worker()).or_default().push(report);
        }
        for (worker, reports) in by_worker {
            self.deliver.reports(worker, reports);
        }
    }
}
