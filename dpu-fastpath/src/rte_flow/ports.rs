//! Which ethdev port a vif's device is.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use offload_rules::VifId;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortSet(BTreeMap<VifId, Ethdev>);

impl PortSet {
    pub(super) fn get(&self, vif: VifId) -> Result<Ethdev, UnknownPort> {
        self.0.get(&vif).copied().ok_or(UnknownPort(vif))
    }

    /// The port of the lowest vif: for rules that name none.
    pub(super) fn first(&self) -> Option<Ethdev> {
        self.0.values().next().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Ethdev> {
        self.0.values().copied()
    }
}

/// Which port each vif's device is. Clones are the same map: it is given to a backend, and kept to change it.
#[derive(Debug, Clone, Default)]
pub struct PortMap(Arc<RwLock<PortSet>>);

impl PortMap {
    /// A map of these.
    #[must_use]
    pub fn new(ports: impl IntoIterator<Item = (VifId, Ethdev)>) -> Self {
        Self(Arc::new(RwLock::new(PortSet(ports.into_iter().collect()))))
    }

    /// Adds or changes a port.
    pub fn insert(&self, vif: VifId, port: Ethdev) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).0.insert(vif, port);
    }

    /// Takes a port away; rules that name it are refused from now on.
    pub fn remove(&self, vif: VifId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).0.remove(&vif);
    }

    /// Is the device of this vif a port?
    #[must_use]
    pub fn contains(&self, vif: VifId) -> bool {
        self.with(|ports| ports.get(vif).is_ok())
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&PortSet) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
