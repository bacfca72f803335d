//! What the rte_flow operations of all ports share: the NIC, and the handles that applications hold.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::{control::Control, error::Refusal, number::ByNumber, queue::Engine};
use crate::{
    model::{ENOENT, IndirectId, Nic, RuleId},
    pmd::twin::locked,
};

/// What an application holds for a pointer: a number, never used again, so that a stale one is nobody else's.
pub(super) type Handle = u64;

/// A rule, as its owner knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Enqueued, not yet given to the NIC, or not yet in force.
    Waiting,
    /// The NIC has it.
    Live(RuleId),
    /// The NIC refused it after it had been enqueued; its handle is still to be destroyed.
    Failed,
    /// Its removal is enqueued.
    Leaving(Option<RuleId>),
}

/// A rule's handle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) port: u16,
    pub(super) state: State,
    /// Made by a queue: only a queue destroys it.
    pub(super) queued: bool,
    /// Rules of a template table keep it.
    pub(super) table: Option<Handle>,
}

/// A shared action's handle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) port: u16,
    /// `None`: enqueued, or refused.
    pub(super) id: Option<IndirectId>,
}

/// One port's part.
#[derive(Debug, Default)]
pub(super) struct Port {
    /// Queues and templates, after `rte_flow_configure`.
    pub(super) engine: Option<Engine>,
}

/// The NIC and all handles.
pub(super) struct World {
    pub(super) nic: Nic,
    began: Instant,
    next: Handle,
    pub(super) profile: String,
    pub(super) flows: ByNumber<Handle, Flow>,
    pub(super) shared: ByNumber<Handle, Shared>,
    pub(super) ports: ByNumber<u16, Port>,
    pub(super) controls: Vec<Control>,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// The lock of the NIC.
pub(super) fn world() -> MutexGuard<'static, Option<World>> {
    locked(&WORLD)
}

impl World {
    /// A NIC without ports.
    pub(super) fn new(nic: Nic, profile: String) -> World {
        World {
            nic,
            began: Instant::now(),
            // A multiple of 16, as addresses are.
            next: 0x1000,
            profile,
            flows: ByNumber::default(),
            shared: ByNumber::default(),
            ports: ByNumber::default(),
            controls: Vec::new(),
        }
    }

    /// Time of the NIC's clock.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A new handle.
    pub(super) fn handle(&mut self) -> Handle {
        self.next += 16;
        self.next
    }

    /// The rule of a handle of this port.
    pub(super) fn flow(&mut self, port: u16, handle: Handle) -> Result<&mut Flow, Refusal> {
        let flow = self.flows.get_mut(&handle).filter(|flow| flow.port == port);
        flow.ok_or(Refusal::handle(ENOENT, c"no such rule on this port"))
    }

    /// The rule that the NIC has for a handle of this port.
    pub(super) fn rule(&mut self, port: u16, handle: Handle) -> Result<RuleId, Refusal> {
        match self.flow(port, handle)?.state {
            State::Live(rule) => Ok(rule),
            _ => Err(Refusal::handle(ENOENT, c"the NIC doesn't have this rule")),
        }
    }

    /// The shared action of a handle of this port.
    pub(super) fn indirect(&self, port: u16, handle: Handle) -> Result<IndirectId, Refusal> {
        let shared = self.shared.get(&handle).filter(|shared| shared.port == port);
        shared.and_then(|shared| shared.id).ok_or(Refusal::handle(ENOENT, c"no such indirect action on this port"))
    }
}
