//! The thread of one worker: its ports, its queues to and from the other workers, and its ear for commands.
//!
//! Nothing is shared on the way of a packet: each worker has its own queue of each device, and a ring to each other worker.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use nix::{
    poll::{PollFd, PollFlags},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use offload_engine::protocol::Request;
use offload_rules::{DropReason, VifId};

use super::{
    backlog::Backlog,
    messages::{Command, Message, Report},
};
use crate::{
    io::{Port, PortError},
    packet::Packet,
    worker::{Delivery, Outbox, TxMeta, Worker},
};

/// Frames received from a port before the next port has its turn.
const BURST: usize = 64;
/// Milliseconds between two ticks of a worker, and the longest that it sleeps.
const TICK_MS: u64 = 10;
/// Milliseconds between two questions to the ports about lost frames.
const COUNT_MS: u64 = 500;
/// Idle turns after which a thread with a port to poll lets others run between two turns.
const SPIN: u32 = 64;
/// Idle turns after which it sleeps between two turns: about a millisecond of nothing to do.
const YIELD: u32 = 1024;
/// How long it sleeps then.
const NAP: Duration = Duration::from_micros(50);
/// Packets that may wait between two workers.
pub(super) const RING: usize = 4096;

/// A ring to a worker, and how to wake it.
#[derive(Clone)]
pub struct Mailbox {
    ring: Arc<ArrayQueue<Delivery>>,
    wake: Arc<Waker>,
}

/// Wakes a thread that sleeps in `poll`.
pub struct Waker {
    event: EventFd,
    asleep: AtomicBool,
}

impl Waker {
    /// A waker for a thread that is awake.
    ///
    /// # Errors
    /// No file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { event, asleep: AtomicBool::new(false) })
    }

    /// Wakes the thread, if it sleeps.
    pub fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A full counter is readable as well: nothing is lost.
            let _ = self.event.write(1);
        }
    }
}

impl Mailbox {
    /// An empty ring to the worker that `wake` wakes.
    #[must_use]
    pub fn new(wake: Arc<Waker>) -> Self {
        Self { ring: Arc::new(ArrayQueue::new(RING)), wake }
    }

    /// Packets in the ring.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// No packets in the ring.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

/// A worker thread.
pub struct Thread {
    /// The worker.
    pub worker: Worker,
    /// Commands.
    pub commands: Receiver<Command>,
    /// Where reports go.
    pub reports: Sender<Message>,
    /// Bounds what is reported.
    pub backlog: Arc<Backlog>,
    /// Rings from the other workers.
    pub inbound: Vec<Mailbox>,
    /// Rings to the other workers, by number; its own place is never used.
    pub outbound: Vec<Option<Mailbox>>,
    /// Ring to the offload engine, if there is one.
    pub offload: Option<Arc<ArrayQueue<Request>>>,
    /// Its own waker.
    pub waker: Arc<Waker>,
    /// Beginning of the node's clock.
    pub epoch: Instant,
}

/// A port in use.
struct Open {
    port: Box<dyn Port>,
    /// Lost frames that it has reported so far.
    lost: u64,
}

impl Thread {
    /// Runs until [`Command::Stop`].
    pub fn run(mut self) {
        let mut ports: BTreeMap<VifId, Open> = BTreeMap::new();
        let mut out = Outbox::default();
        let mut frames = Vec::with_capacity(BURST);
        let (mut last_tick, mut last_count) = (0, 0);
        let mut idle = 0_u32;
        loop {
            let mut busy = false;
            while let Ok(command) = self.commands.try_recv() {
                busy = true;
                if self.execute(command, &mut ports, &mut out) {
                    return;
                }
            }
            busy |= self.receive(&mut ports, &mut frames, &mut out);
            busy |= self.collect(&mut out);
            let now = self.now();
            if now.saturating_sub(last_tick) >= TICK_MS {
                last_tick = now;
                self.worker.tick(now, &mut out);
            }
            if now.saturating_sub(last_count) >= COUNT_MS {
                last_count = now;
                self.count_lost(&mut ports);
            }
            self.flush(&mut ports, &mut out);
            idle = if busy { 0 } else { idle.saturating_add(1) };
            if idle > 0 {
                self.rest(&ports, idle);
            }
        }
    }

    /// Passes the time after so many turns with nothing to do.
    fn rest(&self, ports: &BTreeMap<VifId, Open>, idle: u32) {
        if !ports.values().any(|open| open.port.polls()) {
            return self.sleep(ports, Duration::from_millis(TICK_MS));
        }
        match idle {
            ..SPIN => std::hint::spin_loop(),
            SPIN..YIELD => std::thread::yield_now(),
            YIELD.. => self.sleep(ports, NAP),
        }
    }

    /// Asks the ports what they had to lose: a system call each.
    fn count_lost(&mut self, ports: &mut BTreeMap<VifId, Open>) {
        for (vif, open) in ports {
            let lost = open.port.lost();
            self.worker.lost_before(*vif, lost.saturating_sub(open.lost));
            open.lost = lost;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Carries out a command; true to end.
    fn execute(&mut self, command: Command, ports: &mut BTreeMap<VifId, Open>, out: &mut Outbox) -> bool {
        let now = self.now();
        match command {
            Command::Adopt(snapshot) => self.worker.adopt(snapshot, now, out),
            Command::Grant(grants) => self.worker.grant(&grants),
            Command::AddPort(vif, port) => {
                ports.insert(vif, Open { port, lost: 0 });
            }
            Command::RemovePort(vif) => {
                ports.remove(&vif);
            }
            Command::Ask(neighbour, question) => self.worker.ask(neighbour, question, out),
            Command::GiveUp(neighbour, why) => self.worker.give_up(neighbour, why, now, out),
            Command::Inspect(look) => look(&self.worker),
            Command::Offload(reports) => self.worker.offload_reports(&reports, now, out),
            Command::OffloadEnabled(on) => self.worker.offload_enabled(on),
            Command::OffloadRestarted => self.worker.offload_restarted(),
            Command::Stop => return true,
        }
        false
    }

    /// One burst from each port.
    fn receive(&mut self, ports: &mut BTreeMap<VifId, Open>, frames: &mut Vec<Packet>, out: &mut Outbox) -> bool {
        let mut busy = false;
        let mut failed = Vec::new();
        for (vif, open) in ports.iter_mut() {
            match open.port.receive(frames, &mut out.spare, BURST) {
                Ok(0) => {}
                Ok(_) => {
                    busy = true;
                    let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.worker.receive(*vif, frames, now, out);
                }
                Err(error) if error.is_fatal() => failed.push((*vif, error)),
                // Down for now: it may come back by itself.
                Err(_) => {}
            }
        }
        for (vif, error) in failed {
            give_up(vif, error, ports, &self.reports);
        }
        busy
    }

    /// Packets that other workers handed over.
    fn collect(&mut self, out: &mut Outbox) -> bool {
        let now = self.now();
        let mut busy = false;
        for mailbox in &self.inbound {
            let deliveries: Vec<_> = std::iter::from_fn(|| mailbox.ring.pop()).take(BURST).collect();
            if !deliveries.is_empty() {
                busy = true;
                self.worker.deliver_all(deliveries, now, out);
            }
        }
        busy
    }

    /// Sends what is to be sent, hands over what others own, reports.
    fn flush(&mut self, ports: &mut BTreeMap<VifId, Open>, out: &mut Outbox) {
        for (owner, delivery) in out.handoff.drain(..) {
            let refused = match self.outbound.get(owner).and_then(Option::as_ref) {
                Some(mailbox) => {
                    let refused = mailbox.ring.push(delivery).err();
                    mailbox.wake.wake();
                    refused
                }
                None => Some(delivery),
            };
            if let Some(delivery) = refused {
                self.worker.lose(&delivery, DropReason::HandoffFull);
            }
        }
        for vif in std::mem::take(&mut out.dirty) {
            let Outbox { spare, .. } = out;
            let mut spare = std::mem::take(spare);
            let queue = out.queue(vif);
            let metas = std::mem::take(&mut queue.metas);
            let sent = match ports.get_mut(&vif) {
                Some(open) if !open.port.seals() && queue.packets.iter().any(Packet::is_for_session) => 0,
                Some(open) => match open.port.transmit(&mut queue.packets, &mut spare) {
                    Ok(sent) => sent,
                    Err(error) => {
                        if error.is_fatal() {
                            give_up(vif, error, ports, &self.reports);
                        }
                        0
                    }
                },
                None => 0,
            };
            queue.packets.clear();
            if let Some(lost) = metas.get(sent.min(metas.len())..).filter(|lost: &&[TxMeta]| !lost.is_empty()) {
                self.worker.not_sent(vif, lost);
            }
            let mut metas = metas;
            metas.clear();
            out.queue(vif).metas = metas;
            out.spare = spare;
        }
        for request in out.offload.drain(..) {
            let refused = match &self.offload {
                Some(ring) => ring.push(request).err(),
                None => Some(request),
            };
            if let Some(request) = refused {
                self.worker.offload_refused(&request);
            }
        }
        if !out.events.is_empty() {
            self.backlog.enter(&mut out.events);
        }
        if !out.events.is_empty() {
            // The control thread has ended: the report is dropped.
            let _ = self.reports.send(Message::Report(Report::Events(std::mem::take(&mut out.events))));
        }
    }

    /// Sleeps until a frame, a packet from another worker or a command comes, at most so long.
    fn sleep(&self, ports: &BTreeMap<VifId, Open>, longest: Duration) {
        self.waker.asleep.store(true, Ordering::SeqCst);
        if self.inbound.iter().any(|mailbox| !mailbox.is_empty()) {
            self.waker.asleep.store(false, Ordering::SeqCst);
            return;
        }
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(ports.len() + 1);
        fds.push(PollFd::new(self.waker.event.as_fd(), PollFlags::POLLIN));
        fds.extend(
            ports.values().filter_map(|open| open.port.readiness()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        // A failed poll is a busy loop for one turn, nothing worse.
        let _ = nix::poll::ppoll(&mut fds, Some(TimeSpec::from_duration(longest)), None);
        self.waker.asleep.store(false, Ordering::SeqCst);
        let _ = self.waker.event.read();
    }
}

fn give_up(vif: VifId, error: PortError, ports: &mut BTreeMap<VifId, Open>, reports: &Sender<Message>) {
    ports.remove(&vif);
    let _ = reports.send(Message::Report(Report::PortFailed(vif, error)));
}
