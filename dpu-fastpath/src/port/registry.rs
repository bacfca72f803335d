//! The registry of a NIC's ports: the one place that knows which port of DPDK a vif's device is, and what of it rules depend on.
//!
//! Ports are registered when they open; lowering, rule backends and session backends read them. A port is entered when it has started.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use offload_rules::{
    VifId,
    lower::{PortFacts, Role},
};

use super::{Gate, Hairpins};

/// A port of DPDK that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedPort {
    /// Number of the ethdev.
    pub ethdev: u16,
    /// Receive queues, 0 to this: what RSS spreads over.
    pub queues: u16,
}

/// The device of this vif is not a port of DPDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device of vif {0} is not a port of DPDK")]
pub struct UnknownPort(pub VifId);

/// The ports as of now.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortSet {
    started: BTreeMap<VifId, StartedPort>,
    facts: BTreeMap<VifId, PortFacts>,
    hairpins: Option<Hairpins>,
    /// How often a port was stopped.
    stops: u64,
    /// Grows with each change.
    version: u64,
}

impl PortSet {
    pub(crate) fn get(&self, vif: VifId) -> Result<StartedPort, UnknownPort> {
        self.started.get(&vif).copied().ok_or(UnknownPort(vif))
    }

    /// The receive queue of one port that leads to the transmit queue of another, or to its own.
    pub(crate) fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        let port = |vif: VifId| self.started.get(&vif).map(|port| port.ethdev);
        self.hairpins.as_ref()?.queue(port(from)?, port(to)?)
    }

    /// Which side of a switch the packets of a port come from; `None`: unknown.
    pub(crate) fn origin(&self, vif: VifId) -> Option<Role> {
        self.facts.get(&vif).filter(|facts| facts.domain.is_some()).map(|facts| facts.role)
    }

    /// The port of the lowest vif: for rules that name none.
    pub(crate) fn first(&self) -> Option<StartedPort> {
        self.started.values().next().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = StartedPort> {
        self.started.values().copied()
    }
}

/// The ports of a NIC. Clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct PortRegistry {
    ports: Arc<(Mutex<PortSet>, Condvar)>,
    gate: Gate,
}

impl PortRegistry {
    /// A registry of these.
    #[must_use]
    pub fn new(ports: impl IntoIterator<Item = (VifId, StartedPort)>) -> Self {
        let ports = PortSet { started: ports.into_iter().collect(), ..PortSet::default() };
        Self { ports: Arc::new((Mutex::new(ports), Condvar::new())), gate: Gate::default() }
    }

    /// Adds or changes a port. One that was there before was stopped in between, and has lost its rules.
    pub fn insert(&self, vif: VifId, port: StartedPort) {
        self.change(|ports| {
            let before = ports.started.insert(vif, port);
            ports.stops += u64::from(before.is_some());
        });
    }

    /// A port is stopped, and loses its rules.
    pub fn stopped(&self) {
        self.change(|ports| ports.stops += 1);
    }

    /// How often a port was stopped.
    pub(crate) fn stops(&self) -> u64 {
        self.with(|ports| ports.stops)
    }

    /// Grows with each change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.with(|ports| ports.version)
    }

    /// The gate that excludes calls of rte_flow while one of these ports starts or stops.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Takes a port away; rules that name it are refused from now on.
    pub fn remove(&self, vif: VifId) {
        self.change(|ports| {
            ports.started.remove(&vif);
            ports.facts.remove(&vif);
        });
    }

    /// Sets the driver's facts about the port of this vif's device.
    pub fn set_facts(&self, vif: VifId, facts: PortFacts) {
        self.change(|ports| {
            ports.facts.insert(vif, facts);
        });
    }

    /// Facts about the port of this vif's device; `None`: it is no port.
    #[must_use]
    pub fn facts(&self, vif: VifId) -> Option<PortFacts> {
        self.with(|ports| ports.started.contains_key(&vif).then(|| ports.facts.get(&vif).copied().unwrap_or_default()))
    }

    /// Ports are connected by these hairpin queues.
    pub fn connect(&self, hairpins: Hairpins) {
        self.change(|ports| ports.hairpins = Some(hairpins));
    }

    /// The hairpin queues of the ports; `None`: they have none.
    #[must_use]
    pub fn hairpins(&self) -> Option<Hairpins> {
        self.with(|ports| ports.hairpins.clone())
    }

    /// The receive queue of one vif's port that leads to another's, or to its own; `None`: none does, or they are not both up.
    #[must_use]
    pub fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        self.with(|ports| ports.hairpin(from, to))
    }

    /// Is the device of this vif a port?
    #[must_use]
    pub fn contains(&self, vif: VifId) -> bool {
        self.with(|ports| ports.get(vif).is_ok())
    }

    /// No port has started yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with(|ports| ports.started.is_empty())
    }

    /// Waits until so many ports have started, for at most this long.
    pub fn wait_for(&self, count: usize, limit: Duration) {
        let (ports, changed) = &*self.ports;
        let ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it was reached is for the caller to see.
        drop(changed.wait_timeout_while(ports, limit, |ports| ports.started.len() < count));
    }

    fn change(&self, change: impl FnOnce(&mut PortSet)) {
        let mut ports = self.lock();
        change(&mut ports);
        ports.version += 1;
        self.ports.1.notify_all();
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&PortSet) -> T) -> T {
        read(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, PortSet> {
        // Consistent at any time, whichever thread has panicked.
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
