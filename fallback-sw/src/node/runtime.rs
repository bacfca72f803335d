//! A running node: one thread for control, one for each worker, and the handle that the API asks through.

mod keep;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use offload_rules::{
    MacAddr, VifId,
    forwarding::{PortConfig, SaDirection, Snapshot, Vif},
};
use tokio::sync::broadcast;

pub use super::handle::{Ended, Handle, WorkerHandle};
use super::{
    backlog::Backlog,
    control::{Actions, Control},
    device_mtu,
    engine_host::OffloadLink,
    ike,
    messages::{Applied, Command, Message, Report},
    neighbours::refusals::Refusals,
    persist::LastState,
    sequences::Sequences,
    thread::{Mailbox, Thread, Waker},
    view::PortStatus,
};
use crate::{
    io::{self, KernelPorts, OpenPorts, device::Device, links::Links},
    worker::{Event, SaNews, Worker, WorkerConfig},
};

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Events that a plugin may be behind before it has to ask for all that it knows.
const IKE_EVENTS: usize = 256;
/// Events of which one snapshot is made.
const EVENTS_AT_ONCE: usize = 1024;
/// Milliseconds between two attempts to open a device.
const RETRY_MS: u64 = 500;

/// Called by a worker's thread as it starts, with the worker's number.
pub type OnWorkerStart = Arc<dyn Fn(usize) + Send + Sync>;

/// How a node is run.
pub struct Config {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// Where the state in force is kept across restarts.
    pub last_state: Option<LastState>,
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
    pub fn start(mut config: Config, snapshot: Snapshot) -> std::io::Result<Self> {
        let sequences = match &mut config.last_state {
            Some(file) => file.sequences().map_err(std::io::Error::other)?,
            None => Sequences::default(),
        };
        if config.last_state.is_none()
            && let Some(sa) = snapshot.sas().find(|sa| sa.direction == SaDirection::Outbound)
        {
            return Err(std::io::Error::other(keep::no_file(sa.id)));
        }
        let control = Control::with_sequences(Arc::new(snapshot), sequences, config.offload.is_some());
        let snapshot = Arc::clone(control.snapshot());
        let count = config.workers.max(1);
        let epoch = config.epoch;
        let (messages, inbox) = mpsc::channel();
        let backlog = Arc::new(Backlog::default());
        let wakers = (0..count).map(|_| Waker::new().map(Arc::new)).collect::<std::io::Result<Vec<_>>>()?;
        // rings[to][from]
        let rings: Vec<Vec<Mailbox>> =
            wakers.iter().map(|waker| (0..count).map(|_| Mailbox::new(Arc::clone(waker))).collect()).collect();
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        // Each hash under a random key: as good as random without knowledge of the key.
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
                backlog: Arc::clone(&backlog),
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
        let control = ControlThread {
            keeper: keep::StateKeeper::new(config.last_state.take()),
            config,
            control,
            ike_events,
            workers,
            ports: BTreeMap::new(),
            status: BTreeMap::new(),
            inbox,
            epoch,
            refusals: Refusals::default(),
            backlog,
            unheard: Refusals::default(),
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
            worker.send_command(Command::Stop);
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

/// A device that a vif wants.
struct PortState {
    config: PortConfig,
    raw_ip: bool,
    /// Interface index of the device, while it is open.
    open: Option<i32>,
    /// What the port is laid out for: the device's MTU when it was opened.
    room: u32,
    /// The vif's MTU that the device was asked for.
    asked: u16,
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
    keeper: keep::StateKeeper,
    ike_events: broadcast::Sender<ike::Event>,
    refusals: Refusals,
    backlog: Arc<Backlog>,
    /// Events that there was no room for.
    unheard: Refusals,
}

impl ControlThread {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn run(mut self) {
        self.begin_keeping();
        self.reconcile_ports();
        let mut next_tick = Instant::now() + TICK;
        let mut next_watch = 0;
        let mut links = Links::listen()
            .inspect_err(
                |error| tracing::warn!(%error, "links that are down for less than half a second are not noticed"),
            )
            .ok();
        let mut next = None;
        loop {
            let wait = || self.inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now()));
            match next.take().map_or_else(wait, Ok) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.end_keeping(),
                Ok(Message::Report(Report::Events(events))) => next = self.take_events(events),
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                let actions = self.control.tick(self.now());
                self.act(actions);
                self.keep_again();
                self.reconcile_ports();
                let lost = links.as_mut().map(Links::take_lost).unwrap_or_default();
                if self.lose_links(&lost) || self.now() >= next_watch {
                    next_watch = self.now() + RETRY_MS;
                    self.watch_ports();
                }
            }
        }
    }

    /// Takes in events, and those that have come meanwhile: one snapshot holds what all of them bring. With the message behind them.
    fn take_events(&mut self, mut events: Vec<Event>) -> Option<Message> {
        let mut next = None;
        while events.len() < EVENTS_AT_ONCE && next.is_none() {
            match self.inbox.try_recv() {
                Ok(Message::Report(Report::Events(more))) => events.extend(more),
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        self.handle_events(events);
        next
    }

    fn handle_events(&mut self, events: Vec<Event>) {
        self.backlog.leave(events.len());
        let actions = self.control.handle(events, self.now());
        self.act(actions);
        let lost = self.backlog.take_lost();
        if lost > 0
            && let Some(count) = self.unheard.count(lost, self.now())
        {
            tracing::warn!(count, "more was told of neighbours than can be taken in: the rest is left out");
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report(Report::Events(events)) => self.handle_events(events),
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
        for (neighbour, question) in actions.ask {
            if let Some(worker) = self.workers.first() {
                worker.send_command(Command::Ask(neighbour, question));
            }
        }
        for (neighbour, why) in actions.give_up {
            self.refusals.note(neighbour, why, self.now());
            self.workers.iter().for_each(|worker| worker.send_command(Command::GiveUp(neighbour, why)));
        }
    }

    fn adopt(&self, snapshot: &Arc<Snapshot>) {
        for worker in &self.workers {
            worker.send_command(Command::Adopt(Arc::clone(snapshot)));
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
            self.workers.iter().for_each(|worker| worker.send_command(Command::RemovePort(id)));
        }
        let now = self.now();
        let mut vifs: Vec<_> = snapshot.vifs().filter_map(|vif| Some((vif, wanted(vif)?))).collect();
        vifs.sort_by_key(|(_, (config, _))| self.config.ports.order(&config.device));
        for (vif, (config, raw_ip)) in vifs {
            let port = self.ports.entry(vif.id).or_insert(PortState {
                config,
                raw_ip,
                open: None,
                room: 0,
                asked: 0,
                retry_at: 0,
            });
            if port.open.is_none() && port.retry_at <= now {
                port.retry_at = now + RETRY_MS;
                self.open_port(vif);
            }
        }
    }

    fn open_port(&mut self, vif: &Vif) {
        // As configured: a device that the node makes is not to be as small as the one before.
        let asked = self.control.snapshot().configured_mtu(vif.id).unwrap_or(vif.mtu);
        match self.config.ports.open(&Vif { mtu: asked, ..vif.clone() }, self.workers.len()) {
            Ok(opened) => {
                tracing::info!(vif = %vif.id, device = opened.device.name, driver = %opened.chosen, "port open");
                let status = PortStatus { driver: opened.chosen.driver.to_owned(), error: String::new() };
                self.status.insert(vif.id, status);
                if let Some(port) = self.ports.get_mut(&vif.id) {
                    (port.open, port.room, port.asked) = (Some(opened.device.index), opened.device.attainable, asked);
                }
                for (worker, port) in self.workers.iter().zip(opened.ports) {
                    worker.send_command(Command::AddPort(vif.id, port));
                }
                // The other end of a TAP device is the host's stack, and its address is the device's: this end needs another.
                let is_tap = opened.chosen.driver == io::tap::DRIVER;
                let mac = if is_tap { Some(MacAddr::VIRTUAL) } else { opened.device.mac };
                let with_mac = mac.and_then(|mac| self.control.set_device_mac(vif.id, mac));
                let with_mtu = device_mtu::take_in(&mut self.control, vif.id, &opened.device);
                let mut actions = self.control.set_up(vif.id, opened.device.operational, self.now());
                actions.snapshot = actions.snapshot.or(with_mtu).or(with_mac);
                self.act(actions);
            }
            Err(error) => self.port_failed(vif.id, &error),
        }
    }

    /// Takes note of links that were down, if only for a moment: what was learnt on them ends (the looks at devices find out whether
    /// they are back). True when any is a port's.
    fn lose_links(&mut self, lost: &[String]) -> bool {
        let is_lost = |port: &PortState| port.open.is_some() && lost.contains(&port.config.device);
        let vifs: Vec<VifId> = self.ports.iter().filter(|(_, port)| is_lost(port)).map(|(vif, _)| *vif).collect();
        vifs.iter().for_each(|vif| self.set_up(*vif, false));
        !vifs.is_empty()
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
                    let with_mtu = device_mtu::take_in(&mut self.control, vif, &found);
                    let mut actions = self.control.set_up(vif, found.operational, self.now());
                    actions.snapshot = actions.snapshot.or(with_mtu);
                    self.act(actions);
                    self.fit_port(vif, &found);
                }
                // Deleted and made again under the same name.
                Ok(_) => self.port_failed(vif, &io::PortError::NoDevice { device }),
                Err(error) => self.port_failed(vif, &error),
            }
        }
    }

    /// Fits a device that the node has made to another MTU of its vif, and a port to a device that has outgrown it.
    fn fit_port(&mut self, vif: VifId, device: &Device) {
        let Some(port) = self.ports.get_mut(&vif) else { return };
        let wanted = self.control.snapshot().configured_mtu(vif).unwrap_or(port.asked);
        if self.status.get(&vif).is_some_and(|status| status.driver == io::tap::DRIVER) {
            if wanted != std::mem::replace(&mut port.asked, wanted)
                && let Err(error) = io::device::set_mtu(&device.name, wanted)
            {
                tracing::warn!(%vif, %error, mtu = wanted, "the device stays as it is");
            }
        } else if device_mtu::outgrows(device, port.room, port.asked, wanted) {
            tracing::info!(%vif, device = device.name, mtu = device.attainable, "opening the port anew, for larger packets");
            (port.open, port.retry_at) = (None, 0);
            self.workers.iter().for_each(|worker| worker.send_command(Command::RemovePort(vif)));
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
        self.workers.iter().for_each(|worker| worker.send_command(Command::RemovePort(vif)));
        self.set_up(vif, false);
    }

    fn set_up(&mut self, vif: VifId, up: bool) {
        let actions = self.control.set_up(vif, up, self.now());
        self.act(actions);
    }
}
