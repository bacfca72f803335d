//! A running node: one thread for control, one for each worker, and the handle that the API asks through.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use offload_rules::{
    MacAddr, SaId, VifId,
    forwarding::{Delta, PortConfig, Sa, SaDirection, Snapshot, State, StateError, StateErrors, Vif},
};
use tokio::sync::{broadcast, oneshot};

use super::{
    control::{Actions, Control},
    ike,
    offload_link::OffloadLink,
    persist,
    thread::{Command, Mailbox, Report, Thread, Waker},
    view::PortStatus,
};
use crate::{
    io::{self, KernelPorts, OpenPorts},
    offload,
    worker::{Grant, SaNews, Worker, WorkerConfig},
};

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Events that a plugin may be behind before it has to ask for all that it knows.
const IKE_EVENTS: usize = 256;
/// Milliseconds between two attempts to open a device.
const RETRY_MS: u64 = 500;

/// What a worker's thread does before anything else; told the worker's number.
pub type OnWorkerStart = Arc<dyn Fn(usize) + Send + Sync>;

/// How a node is run.
pub struct Config {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Where the state in force is kept across restarts.
    pub last_state: Option<PathBuf>,
    /// What opens the devices of vifs.
    pub ports: Box<dyn OpenPorts>,
    /// Called by each worker's thread as it starts.
    pub on_worker_start: Option<OnWorkerStart>,
    /// The offload engine, if there is one.
    pub offload: Option<OffloadLink>,
    /// Zero of the node's clock.
    pub epoch: Instant,
}

impl Default for Config {
    /// One worker, on the kernel's devices.
    fn default() -> Self {
        Self {
            workers: 1,
            last_state: None,
            ports: Box::new(KernelPorts),
            on_worker_start: None,
            offload: None,
            epoch: Instant::now(),
        }
    }
}

/// A look at what the node knows and at its devices.
pub type Look = Box<dyn FnOnce(&Control, &BTreeMap<VifId, PortStatus>) + Send>;

/// What the control thread is told.
pub enum Message {
    /// By a worker.
    Report(Report),
    /// Put a state in force.
    ApplyState(Box<State>, oneshot::Sender<Result<u64, StateErrors>>),
    /// Put a change in force.
    ApplyDelta(Box<Delta>, oneshot::Sender<Result<u64, StateErrors>>),
    /// Charon's plugin asks.
    Ike(Box<ike::Request>, oneshot::Sender<Result<String, ike::Refused>>),
    /// Let someone look.
    Inspect(Look),
    /// End.
    Stop,
}

/// A worker as others reach it.
#[derive(Clone)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    inbound: Vec<Mailbox>,
}

impl WorkerHandle {
    fn tell(&self, command: Command) {
        // A worker that has ended needs to be told nothing.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shutting down")]
pub struct Ended;

/// How the API reaches the node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    messages: Sender<Message>,
    ike_events: broadcast::Sender<ike::Event>,
    workers: Vec<WorkerHandle>,
    epoch: Instant,
}

impl Handle {
    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Time since the node began.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Packets on their way between workers.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.workers.iter().flat_map(|worker| &worker.inbound).map(|mailbox| mailbox.len() as u64).sum()
    }

    /// Puts a state in force.
    ///
    /// # Errors
    /// [`Ended`], or everything that is wrong with the state.
    pub async fn apply_state(&self, state: State) -> Result<Result<u64, StateErrors>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ApplyState(Box::new(state), reply))?;
        answer.await.map_err(|_| Ended)
    }

    /// Puts a change in force.
    ///
    /// # Errors
    /// [`Ended`], or everything that is wrong with the change.
    pub async fn apply_delta(&self, delta: Delta) -> Result<Result<u64, StateErrors>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ApplyDelta(Box::new(delta), reply))?;
        answer.await.map_err(|_| Ended)
    }

    /// Does what charon's plugin asks.
    ///
    /// # Errors
    /// [`ike::Refused`].
    pub async fn ike(&self, request: ike::Request) -> Result<String, ike::Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Ike(Box::new(request), reply)).map_err(|_| ike::Refused::Ended)?;
        answer.await.map_err(|_| ike::Refused::Ended)?
    }

    /// What charon's plugin is told from now on.
    #[must_use]
    pub fn ike_events(&self) -> broadcast::Receiver<ike::Event> {
        self.ike_events.subscribe()
    }

    /// Looks at what the node knows.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Control, &BTreeMap<VifId, PortStatus>) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Inspect(Box::new(move |control, ports| {
            let _ = reply.send(look(control, ports));
        })))?;
        answer.await.map_err(|_| Ended)
    }

    /// Looks at a worker between two batches. Must be quick: its packets wait meanwhile.
    ///
    /// # Errors
    /// [`Ended`]; also for a worker that does not exist.
    pub async fn look_at<T: Send + 'static>(
        &self,
        worker: usize,
        look: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        let handle = self.workers.get(worker).ok_or(Ended)?;
        handle.tell(Command::Inspect(Box::new(move |worker| {
            let _ = reply.send(look(worker));
        })));
        answer.await.map_err(|_| Ended)
    }

    /// Tells a worker what the offload engine reports of its flows. Never waits.
    pub fn offload_reports(&self, worker: u16, reports: Vec<offload::Report>) {
        if let Some(handle) = self.workers.get(usize::from(worker)) {
            handle.tell(Command::Offload(reports));
        }
    }

    /// Switches offload on or off at the workers.
    pub fn offload_enabled(&self, on: bool) {
        self.workers.iter().for_each(|worker| worker.tell(Command::OffloadEnabled(on)));
    }

    /// The offload engine has lost its books: nothing is in hardware, and what shall be there is asked for again.
    pub fn offload_restarted(&self) {
        self.workers.iter().for_each(|worker| worker.tell(Command::OffloadRestarted));
    }

    fn send(&self, message: Message) -> Result<(), Ended> {
        self.messages.send(message).map_err(|_| Ended)
    }
}

/// A running node; ends when it is stopped or dropped.
pub struct Runtime {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Runtime {
    /// Starts a node with this snapshot in force.
    ///
    /// # Errors
    /// No memory, no threads, no file descriptors.
    pub fn start(config: Config, snapshot: Snapshot) -> std::io::Result<Self> {
        let snapshot = Arc::new(snapshot);
        let file = config.last_state.as_deref().map(persist::sequences_file);
        if file.is_none()
            && let Some(sa) = snapshot.sas().find(|sa| sa.direction == SaDirection::Outbound)
        {
            return Err(std::io::Error::other(no_file(sa.id)));
        }
        let sequences = file.as_deref().map(persist::load_sequences).transpose()?.unwrap_or_default();
        let count = config.workers.max(1);
        let epoch = config.epoch;
        let (messages, inbox) = mpsc::channel();
        let wakers = (0..count).map(|_| Waker::new().map(Arc::new)).collect::<std::io::Result<Vec<_>>>()?;
        // rings[to][from]
        let rings: Vec<Vec<Mailbox>> =
            wakers.iter().map(|waker| (0..count).map(|_| Mailbox::new(Arc::clone(waker))).collect()).collect();
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        // Each hash under a random key: as good as random for whoever does not know the key.
        let random = std::hash::RandomState::new();
        let cookie_secret =
            [std::hash::BuildHasher::hash_one(&random, 0), std::hash::BuildHasher::hash_one(&random, 1)];
        for (id, waker) in wakers.iter().enumerate() {
            let inbound: Vec<_> = rings.get(id).into_iter().flatten().cloned().collect();
            let outbound = rings.iter().enumerate().map(|(to, from)| from.get(id).filter(|_| to != id).cloned());
            let (commands, orders) = mpsc::channel();
            workers.push(WorkerHandle { commands, waker: Arc::clone(waker), inbound: inbound.clone() });
            let ip_id = (usize::from(u16::MAX) / count * id) as u16;
            let worker = WorkerConfig {
                id,
                workers: count,
                ip_id,
                entropy: None,
                cookie_secret,
                offload: config.offload.is_some(),
            };
            let thread = Thread {
                worker: Worker::new(worker, Arc::clone(&snapshot))?,
                commands: orders,
                reports: messages.clone(),
                inbound,
                outbound: outbound.collect(),
                offload: config.offload.as_ref().and_then(|link| link.ring(id)),
                waker: Arc::clone(waker),
                epoch,
            };
            let begin = config.on_worker_start.clone();
            let run = move || {
                if let Some(begin) = begin {
                    begin(id);
                }
                thread.run();
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{id}")).spawn(run)?);
        }
        if let Some(link) = &config.offload {
            link.adopt(&snapshot);
        }
        let ike_events = broadcast::Sender::new(IKE_EVENTS);
        let handle = Handle { messages, ike_events: ike_events.clone(), workers: workers.clone(), epoch };
        let nic = config.offload.is_some();
        let control = ControlThread {
            config,
            control: Control::with_sequences(snapshot, sequences, nic),
            sequences: file,
            ungranted: Vec::new(),
            ike_events,
            workers,
            ports: BTreeMap::new(),
            status: BTreeMap::new(),
            inbox,
            epoch,
        };
        threads.push(std::thread::Builder::new().name("control".to_owned()).spawn(move || control.run())?);
        Ok(Self { handle, threads })
    }

    /// How to reach it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends all threads and waits for them.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.handle.send(Message::Stop);
        for worker in &self.handle.workers {
            worker.tell(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the node has panicked");
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

fn no_file(sa: SaId) -> String {
    format!(
        "sa {sa} is OUTBOUND, and there is no file to keep its sequence numbers in: run the node with --last-state, so that none \
         is used twice after a restart"
    )
}

/// A device that a vif wants.
struct PortState {
    config: PortConfig,
    raw_ip: bool,
    /// Interface index of the device, while it is open.
    open: Option<i32>,
    retry_at: u64,
}

/// The one owner of what the node knows.
struct ControlThread {
    config: Config,
    control: Control,
    workers: Vec<WorkerHandle>,
    ports: BTreeMap<VifId, PortState>,
    status: BTreeMap<VifId, PortStatus>,
    inbox: Receiver<Message>,
    epoch: Instant,
    /// Where reserved sequence numbers are kept.
    sequences: Option<PathBuf>,
    /// Numbers that are not on disk yet.
    ungranted: Vec<Grant>,
    ike_events: broadcast::Sender<ike::Event>,
}

impl ControlThread {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn run(mut self) {
        self.grant();
        self.reconcile_ports();
        let mut next_tick = Instant::now() + TICK;
        let mut next_watch = 0;
        loop {
            match self.inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                let actions = self.control.tick(self.now());
                self.act(actions);
                self.reconcile_ports();
                if self.now() >= next_watch {
                    next_watch = self.now() + RETRY_MS;
                    self.watch_ports();
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report(Report::Events(events)) => {
                let actions = self.control.handle(events, self.now());
                self.act(actions);
            }
            Message::Report(Report::PortFailed(vif, error)) => self.port_failed(vif, &error),
            Message::ApplyState(state, reply) => {
                let applied = self.accept(&state.sas).and_then(|()| self.control.apply_state(*state));
                let _ = reply.send(self.applied(applied));
            }
            Message::ApplyDelta(delta, reply) => {
                let applied = self.accept(&delta.sas).and_then(|()| self.control.apply_delta(*delta));
                let _ = reply.send(self.applied(applied));
            }
            Message::Ike(request, reply) => {
                let (answer, snapshot) = self.control.ike(*request, self.now());
                self.grant();
                if let Some(snapshot) = snapshot {
                    self.adopt(&snapshot);
                }
                let _ = reply.send(answer);
            }
            Message::Inspect(look) => look(&self.control, &self.status),
            Message::Stop => {}
        }
    }

    fn applied(&mut self, applied: Result<Arc<Snapshot>, StateErrors>) -> Result<u64, StateErrors> {
        let snapshot = applied?;
        // Before the SAs that use them.
        self.grant();
        self.adopt(&snapshot);
        self.tell_ike();
        self.reconcile_ports();
        if let Some(file) = &self.config.last_state
            && let Err(error) = persist::save(file, &snapshot.to_state())
        {
            tracing::error!(%error, "the state is in force, but could not be kept for the next start");
        }
        tracing::info!(generation = snapshot.generation(), "forwarding state in force");
        Ok(snapshot.generation())
    }

    /// Refuses outbound SAs where the sequence numbers that they use could not be kept.
    fn accept(&self, sas: &[Sa]) -> Result<(), StateErrors> {
        let outbound = sas.iter().filter(|sa| sa.direction == SaDirection::Outbound && self.sequences.is_none());
        let errors: Vec<_> =
            outbound.map(|sa| StateError::new(format!("sa {}", sa.id), "direction", no_file(sa.id))).collect();
        if errors.is_empty() { Ok(()) } else { Err(StateErrors(errors)) }
    }

    /// Lets workers use what has been reserved, once it is on disk.
    fn grant(&mut self) {
        self.ungranted.extend(self.control.take_grants());
        if self.ungranted.is_empty() {
            return;
        }
        // Without a file there are only SAs of IKE, whose keys no other life of the node has.
        if let Some(file) = &self.sequences
            && let Err(error) = persist::save_sequences(file, self.control.sequences())
        {
            let file = file.display();
            tracing::error!(%error, %file, "sequence numbers could not be reserved, trying again");
            return;
        }
        let grants: Arc<[Grant]> = std::mem::take(&mut self.ungranted).into();
        self.workers.iter().for_each(|worker| worker.tell(Command::Grant(Arc::clone(&grants))));
    }

    /// Tells charon's plugin, if one listens.
    fn tell_ike(&mut self) {
        for event in self.control.take_ike_events() {
            let _ = self.ike_events.send(event);
        }
    }

    fn act(&mut self, actions: Actions) {
        self.grant();
        self.tell_ike();
        for (sa, news) in actions.sas {
            match news {
                SaNews::Expiring => tracing::warn!(%sa, "soft lifetime over, time for a new security association"),
                SaNews::Ended(reason) => tracing::error!(%sa, reason = reason.name(), "security association ended"),
                SaNews::Low => tracing::debug!(%sa, "more sequence numbers reserved"),
            }
        }
        if let Some(snapshot) = actions.snapshot {
            self.adopt(&snapshot);
        }
        for (neighbour, mac) in actions.probe {
            if let Some(worker) = self.workers.first() {
                worker.tell(Command::Ask(neighbour, mac));
            }
        }
        for neighbour in actions.refuse {
            tracing::warn!(vif = %neighbour.0, address = %neighbour.1, "neighbour table full");
            self.workers.iter().for_each(|worker| worker.tell(Command::Refuse(neighbour)));
        }
    }

    fn adopt(&self, snapshot: &Arc<Snapshot>) {
        for worker in &self.workers {
            worker.tell(Command::Adopt(Arc::clone(snapshot)));
        }
        if let Some(link) = &self.config.offload {
            link.adopt(snapshot);
        }
    }

    /// Opens what is wanted and not open, closes what is not wanted any more.
    fn reconcile_ports(&mut self) {
        let snapshot = Arc::clone(self.control.snapshot());
        let wanted = |vif: &Vif| vif.kind.port().cloned().map(|port| (port, vif.flags.raw_ip));
        let gone: Vec<VifId> = self
            .ports
            .iter()
            .filter(|(id, port)| {
                let now = snapshot.vif(**id).and_then(|vif| wanted(vif));
                now != Some((port.config.clone(), port.raw_ip))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.ports.remove(&id);
            self.status.remove(&id);
            self.workers.iter().for_each(|worker| worker.tell(Command::RemovePort(id)));
        }
        let now = self.now();
        for vif in snapshot.vifs() {
            let Some((config, raw_ip)) = wanted(vif) else { continue };
            let port = self.ports.entry(vif.id).or_insert(PortState { config, raw_ip, open: None, retry_at: 0 });
            if port.open.is_none() && port.retry_at <= now {
                port.retry_at = now + RETRY_MS;
                self.open_port(vif);
            }
        }
    }

    fn open_port(&mut self, vif: &Vif) {
        match self.config.ports.open(vif, self.workers.len()) {
            Ok(opened) => {
                tracing::info!(vif = %vif.id, device = opened.device.name, driver = %opened.chosen, "port open");
                let status = PortStatus { driver: opened.chosen.driver.to_owned(), error: String::new() };
                self.status.insert(vif.id, status);
                if let Some(port) = self.ports.get_mut(&vif.id) {
                    port.open = Some(opened.device.index);
                }
                for (worker, port) in self.workers.iter().zip(opened.ports) {
                    worker.tell(Command::AddPort(vif.id, port));
                }
                // The other end of a TAP device is the host's stack, and its address is the device's: this end needs another.
                let is_tap = opened.chosen.driver == io::tap::DRIVER;
                let mac = if is_tap { Some(MacAddr::VIRTUAL) } else { opened.device.mac };
                let with_mac = mac.and_then(|mac| self.control.set_device_mac(vif.id, mac));
                let up = self.control.set_up(vif.id, opened.device.operational);
                if let Some(snapshot) = up.or(with_mac) {
                    self.adopt(&snapshot);
                }
            }
            Err(error) => self.port_failed(vif.id, &error),
        }
    }

    /// Looks whether devices are still what they were, and up: a link without carrier is a lost member to ECMP.
    fn watch_ports(&mut self) {
        let open: Vec<_> =
            self.ports.iter().filter_map(|(id, p)| Some((*id, p.open?, p.config.device.clone()))).collect();
        for (vif, index, device) in open {
            match self.config.ports.look(&device) {
                Ok(found) if found.index == index => {
                    let error = match (found.up, found.operational) {
                        (_, true) => String::new(),
                        (true, false) => format!("device '{device}' has no carrier"),
                        (false, false) => format!("device '{device}' is down: set it up"),
                    };
                    let status = self.status.entry(vif).or_default();
                    if status.error != error {
                        tracing::info!(%vif, device, up = found.operational, "link state");
                        status.error = error;
                    }
                    if let Some(snapshot) = self.control.set_up(vif, found.operational) {
                        self.adopt(&snapshot);
                    }
                }
                // Deleted and made again under the same name.
                Ok(_) => self.port_failed(vif, &io::PortError::NoDevice { device }),
                Err(error) => self.port_failed(vif, &error),
            }
        }
    }

    fn port_failed(&mut self, vif: VifId, error: &io::PortError) {
        let text = error.to_string();
        let status = self.status.entry(vif).or_default();
        if status.error != text {
            // Once for each reason, not with each attempt.
            tracing::error!(%vif, error = text, "port down, trying again");
            status.error = text;
        }
        let now = self.now();
        if let Some(port) = self.ports.get_mut(&vif) {
            port.open = None;
            port.retry_at = now + RETRY_MS;
        }
        self.workers.iter().for_each(|worker| worker.tell(Command::RemovePort(vif)));
        if let Some(snapshot) = self.control.set_up(vif, false) {
            self.adopt(&snapshot);
        }
    }
}
