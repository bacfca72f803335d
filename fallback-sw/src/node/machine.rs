//! A whole node without I/O: workers and control in one thread, time passed in. Replay and tests run it; what it does is what
//! the daemon does, in an order that can be repeated.

use std::{io, sync::Arc};

use offload_engine::protocol::{Report, Request};
use offload_rules::{
    VifId,
    forwarding::{Delta, Snapshot, State, StateErrors},
};

use super::{
    control::{Actions, Control},
    sequences::Sequences,
};
use crate::{
    packet::Packet,
    worker::{Account, Counters, Outbox, TxKind, TxMeta, Worker, WorkerConfig},
};

/// A frame that the node sends.
#[derive(Debug)]
pub struct Sent {
    /// The vif whose device carries it.
    pub port: VifId,
    /// What it is.
    pub meta: TxMeta,
    /// The frame.
    pub packet: Packet,
}

/// How a machine is set up.
#[derive(Debug, Clone, Copy)]
pub struct MachineConfig {
    /// Number of workers, at least 1.
    pub workers: usize,
    /// First IP identification of the first worker.
    pub ip_id: u16,
    /// Fixed UDP source port of tunnels.
    pub entropy: Option<u16>,
    /// Secret of SYN cookies.
    pub cookie_secret: [u64; 2],
    /// An offload engine takes requests and reports: see [`Machine::take_offload_requests`].
    pub offload: bool,
    /// The engine's answers come before the next packet: see [`Worker::nic_answers_at_once`].
    pub answered_at_once: bool,
}

impl Default for MachineConfig {
    fn default() -> Self {
        let cookie_secret = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        Self { workers: 1, ip_id: 1, entropy: None, cookie_secret, offload: false, answered_at_once: false }
    }
}

/// A node without I/O.
pub struct Machine {
    workers: Vec<Worker>,
    control: Control,
    out: Outbox,
    sent: Vec<Sent>,
}

impl Machine {
    /// A node with this snapshot in force.
    ///
    /// # Errors
    /// No memory for the flow tables.
    pub fn new(config: MachineConfig, snapshot: Arc<Snapshot>) -> io::Result<Self> {
        Self::started_again(config, snapshot, Sequences::default())
    }

    /// A node that goes on with the sequence numbers of an earlier run.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn started_again(config: MachineConfig, snapshot: Arc<Snapshot>, sequences: Sequences) -> io::Result<Self> {
        let control = Control::with_sequences(snapshot, sequences, config.offload);
        // SAs whose keys are refused are at their end in it.
        let snapshot = Arc::clone(control.snapshot());
        let count = config.workers.max(1);
        // Workers draw identifications from ranges of their own.
        let stride = (usize::from(u16::MAX) / count) as u16;
        let workers = (0..count).map(|id| {
            let ip_id = config.ip_id.wrapping_add(stride.wrapping_mul(id as u16));
            let MachineConfig { entropy, cookie_secret, offload, .. } = config;
            let worker = WorkerConfig { id, workers: count, ip_id, entropy, cookie_secret, offload };
            let mut worker = Worker::new(worker, Arc::clone(&snapshot))?;
            if config.answered_at_once {
                worker.nic_answers_at_once();
            }
            Ok(worker)
        });
        let mut machine =
            Self { workers: workers.collect::<io::Result<_>>()?, control, out: Outbox::default(), sent: Vec::new() };
        machine.grant();
        Ok(machine)
    }

    /// Takes in frames of a port at the worker whose queue they are in.
    pub fn receive(&mut self, port: VifId, queue: usize, frames: &mut Vec<Packet>, now: u64) {
        let count = self.workers.len();
        if let Some(worker) = self.workers.get_mut(queue % count) {
            worker.receive(port, frames, now, &mut self.out);
        }
        self.settle(now);
    }

    /// Takes in one frame.
    pub fn receive_frame(&mut self, port: VifId, frame: &[u8], now: u64) {
        self.receive(port, 0, &mut vec![Packet::from_frame(frame)], now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: u64) {
        for worker in &mut self.workers {
            worker.tick(now, &mut self.out);
        }
        let actions = self.control.tick(now);
        self.act(actions, now);
        self.settle(now);
    }

    /// Carries on until nothing is under way between workers and control.
    fn settle(&mut self, now: u64) {
        loop {
            self.collect();
            if !self.out.events.is_empty() {
                let events = std::mem::take(&mut self.out.events);
                let actions = self.control.handle(events, now);
                self.act(actions, now);
                continue;
            }
            if self.out.handoff.is_empty() {
                return;
            }
            for (owner, delivery) in std::mem::take(&mut self.out.handoff) {
                if let Some(worker) = self.workers.get_mut(owner) {
                    worker.deliver_all(vec![delivery], now, &mut self.out);
                }
            }
        }
    }

    fn act(&mut self, actions: Actions, now: u64) {
        self.grant();
        if let Some(snapshot) = actions.snapshot {
            self.adopt(&snapshot, now);
        }
        for (neighbour, question) in actions.ask {
            if let Some(worker) = self.workers.first_mut() {
                worker.ask(neighbour, question, &mut self.out);
            }
        }
        for (neighbour, why) in actions.give_up {
            for worker in &mut self.workers {
                worker.give_up(neighbour, why, now, &mut self.out);
            }
        }
    }

    fn grant(&mut self) {
        let grants = self.control.take_grants();
        for worker in &mut self.workers {
            worker.grant(&grants);
        }
    }

    fn adopt(&mut self, snapshot: &Arc<Snapshot>, now: u64) {
        self.grant();
        for worker in &mut self.workers {
            worker.adopt(Arc::clone(snapshot), now, &mut self.out);
        }
    }

    fn collect(&mut self) {
        for port in std::mem::take(&mut self.out.dirty) {
            let queue = self.out.queue(port);
            let frames = queue.packets.drain(..).zip(queue.metas.drain(..));
            self.sent.extend(frames.map(|(packet, meta)| Sent { port, meta, packet }));
        }
    }

    /// The frames sent since the last call, in order.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// A frame that was taken by [`Self::take_sent`] has not left by its device.
    pub fn not_sent(&mut self, port: VifId, meta: TxMeta) {
        // Any worker's account will do, as long as it has such a frame: they are added up.
        let has = |worker: &&mut Worker| match meta.kind {
            TxKind::Forwarded | TxKind::Resumed => worker.account().forwarded > 0,
            TxKind::Punted => worker.account().punted > 0,
            TxKind::Originated => true,
        };
        if let Some(worker) = self.workers.iter_mut().find(has) {
            worker.not_sent(port, &[meta]);
        }
    }

    /// Puts a state in force.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one stays in force.
    pub fn apply_state(&mut self, state: State, now: u64) -> Result<(), StateErrors> {
        let snapshot = self.control.apply_state(state)?;
        self.adopt(&snapshot, now);
        self.settle(now);
        Ok(())
    }

    /// Puts a change in force.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old state stays in force.
    pub fn apply_delta(&mut self, delta: Delta, now: u64) -> Result<(), StateErrors> {
        let snapshot = self.control.apply_delta(delta)?;
        self.adopt(&snapshot, now);
        self.settle(now);
        Ok(())
    }

    /// The device of a vif has come or gone.
    pub fn set_up(&mut self, vif: VifId, up: bool, now: u64) {
        let actions = self.control.set_up(vif, up, now);
        self.act(actions, now);
        self.settle(now);
    }

    /// The device of a vif has this MTU.
    pub fn set_device_mtu(&mut self, vif: VifId, mtu: u32, now: u64) {
        if let Some(snapshot) = self.control.set_device_mtu(vif, mtu) {
            self.adopt(&snapshot, now);
            self.settle(now);
        }
    }

    /// Brings every flow up to the snapshot.
    pub fn sweep(&mut self, now: u64) {
        for worker in &mut self.workers {
            worker.sweep_all(now);
        }
    }

    /// What the workers have asked of an offload engine since the last call, in order.
    pub fn take_offload_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out.offload)
    }

    /// Tells the workers what the engine reports, in order.
    pub fn offload_reports(&mut self, reports: &[Report], now: u64) {
        for (id, worker) in (0..).zip(&mut self.workers) {
            let own: Vec<Report> = reports.iter().filter(|report| report.worker() == id).cloned().collect();
            worker.offload_reports(&own, now, &mut self.out);
        }
        self.settle(now);
    }

    /// Tells that the engine's queue did not take these.
    pub fn offload_refused(&mut self, requests: &[Request]) {
        for request in requests {
            if let Some(worker) = self.workers.get_mut(usize::from(request.worker())) {
                worker.offload_refused(request);
            }
        }
    }

    /// Switches offload on or off at the workers.
    pub fn offload_enabled(&mut self, on: bool) {
        for worker in &mut self.workers {
            worker.offload_enabled(on);
        }
    }

    /// Packets without flows are walked, each: see [`Worker::walk_each_packet`].
    pub fn walk_each_packet(&mut self) {
        self.workers.iter_mut().for_each(Worker::walk_each_packet);
    }

    /// Ordinary packets go ahead even where few of them come: see [`Worker::stay_in_the_lane`].
    pub fn stay_in_the_lane(&mut self) {
        self.workers.iter_mut().for_each(Worker::stay_in_the_lane);
    }

    /// All packets go the general way: see [`Worker::leave_the_lane`].
    pub fn leave_the_lane(&mut self) {
        self.workers.iter_mut().for_each(Worker::leave_the_lane);
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// What the node knows.
    #[must_use]
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// Counters of all workers together, and of each.
    #[must_use]
    pub fn counters(&self) -> (Counters, Vec<Counters>) {
        let each: Vec<_> = self.workers.iter().map(Worker::counters).collect();
        let mut total = Counters::default();
        for counters in &each {
            total.add(counters);
        }
        (total, each)
    }

    /// The account of all workers together: cheaper than [`Self::counters`].
    #[must_use]
    pub fn account(&self) -> Account {
        let mut total = Account::default();
        for worker in &self.workers {
            total.add(worker.account());
        }
        total
    }

    /// Received packets that wait now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.workers.iter().map(Worker::held_packets).sum()
    }
}
