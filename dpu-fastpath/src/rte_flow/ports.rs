//! Which ethdev port a vif's device is.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use offload_rules::{
    VifId,
    lower::{PortFacts, Role},
};

use crate::port::{Gate, Hairpins};

/// A port of DPDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethdev {
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
pub(super) struct PortSet {
    ethdevs: BTreeMap<VifId, Ethdev>,
    facts: BTreeMap<VifId, PortFacts>,
    hairpins: Hairpins,
}

impl PortSet {
    pub(super) fn get(&self, vif: VifId) -> Result<Ethdev, UnknownPort> {
        self.ethdevs.get(&vif).copied().ok_or(UnknownPort(vif))
    }

    /// The receive queue of one port that leads to the transmit queue of another, or to its own.
    pub(super) fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        let port = |vif: VifId| self.ethdevs.get(&vif).map(|port| port.ethdev);
        self.hairpins.queue(port(from)?, port(to)?)
    }

    /// Which side of a switch the packets of a port come from; `None`: it is at none that is known.
    pub(super) fn origin(&self, vif: VifId) -> Option<Role> {
        self.facts.get(&vif).filter(|facts| facts.domain.is_some()).map(|facts| facts.role)
    }

    /// The port of the lowest vif: for rules that name none.
    pub(super) fn first(&self) -> Option<Ethdev> {
        self.ethdevs.values().next().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Ethdev> {
        self.ethdevs.values().copied()
    }
}

/// Which port each vif's device is. Clones are the same map: it is given to a backend, and kept to change it.
#[derive(Debug, Clone, Default)]
pub struct PortMap(Arc<RwLock<PortSet>>, Arc<AtomicU64>, Gate);

impl PortMap {
    /// A map of these.
    #[must_use]
    pub fn new(ports: impl IntoIterator<Item = (VifId, Ethdev)>) -> Self {
        let ports = PortSet { ethdevs: ports.into_iter().collect(), ..PortSet::default() };
        Self(Arc::new(RwLock::new(ports)), Arc::default(), Gate::default())
    }

    /// Adds or changes a port. One that was there before was stopped in between, and has lost its rules.
    pub fn insert(&self, vif: VifId, port: Ethdev) {
        let before = self.write(|ports| ports.ethdevs.insert(vif, port));
        if before.is_some() {
            self.stopped();
        }
    }

    /// A port is stopped, and loses its rules.
    pub fn stopped(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a port was stopped.
    pub(super) fn stops(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }

    /// What keeps those who give rules to these ports away while one starts or stops.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.2.clone()
    }

    /// Takes a port away; rules that name it are refused from now on.
    pub fn remove(&self, vif: VifId) {
        self.write(|ports| {
            ports.ethdevs.remove(&vif);
            ports.facts.remove(&vif);
        });
    }

    /// What its driver tells of the port of this vif's device.
    pub fn learn(&self, vif: VifId, facts: PortFacts) {
        self.write(|ports| ports.facts.insert(vif, facts));
    }

    /// What is known of the port of this vif's device; `None`: it is no port.
    #[must_use]
    pub fn facts(&self, vif: VifId) -> Option<PortFacts> {
        self.with(|ports| ports.ethdevs.contains_key(&vif).then(|| ports.facts.get(&vif).copied().unwrap_or_default()))
    }

    /// Ports are connected by these hairpin queues.
    pub fn connect(&self, hairpins: Hairpins) {
        self.write(|ports| ports.hairpins = hairpins);
    }

    /// The hairpin queues of the ports, if they have any.
    pub(super) fn hairpins(&self) -> Hairpins {
        self.with(|ports| ports.hairpins.clone())
    }

    /// The receive queue of one vif's port that leads to another's, or to its own; `None`: none does.
    #[must_use]
    pub fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        self.with(|ports| ports.hairpin(from, to))
    }

    /// Is the device of this vif a port?
    #[must_use]
    pub fn contains(&self, vif: VifId) -> bool {
        self.with(|ports| ports.get(vif).is_ok())
    }

    fn write<T>(&self, change: impl FnOnce(&mut PortSet) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&PortSet) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
