//! The port that manages a NIC's switch: it takes the rules of all its ports. It is started before ports of the switch's functions and
//! stopped after them, as mlx5's hardware steering demands (mlx5_trigger.c, mlx5_hw_representor_port_allowed_start and
//! mlx5_hw_proxy_port_allowed_stop).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Error,
    sync::{Arc, Weak, atomic::AtomicBool},
};

use fallback_sw::io::PortError;

use super::{
    device::{Ethdev, Wanted},
    eal::Eal,
    facts::transfer_proxy,
    prepare::Prepare,
};

/// Name of the device that manages the switch of a port, where that is another.
pub(super) fn of(eal: &Eal, port: u16) -> Option<String> {
    transfer_proxy(port).filter(|manager| *manager != port).and_then(|manager| eal.name(manager))
}

/// A device, as one has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Use {
    /// It is still in use.
    pub(super) used: Arc<AtomicBool>,
    /// It is open.
    pub(super) open: Weak<Ethdev>,
}

/// Devices that manage switches.
#[derive(Debug, Default)]
pub(super) struct SwitchManagers {
    /// Those that no vif is on: they run as long as a port of their switch does.
    own: BTreeMap<String, Use>,
    /// Those that are to be started anew, for which all ports of their switch make way.
    awaited: BTreeSet<String>,
}

impl SwitchManagers {
    /// The device that manages the switch of `device`, started: by a vif that is on it (`known`), or else here, as `wanted` says.
    pub(super) fn of(
        &mut self,
        eal: &Arc<Eal>,
        device: &str,
        wanted: &Wanted<'_>,
        known: Option<Use>,
        prepare: Option<&dyn Prepare>,
    ) -> Result<Arc<Ethdev>, PortError> {
        if self.awaited.contains(wanted.name) {
            return Err(waiting(device));
        }
        if let Some(open) = known.as_ref().and_then(|known| known.open.upgrade()) {
            return Ok(open);
        }
        let Use { used, open: running } =
            self.own.entry(wanted.name.to_owned()).or_insert_with(|| known.unwrap_or_default());
        if let Some(running) = running.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Ethdev::start(eal, wanted, used, prepare)?);
        tracing::info!(device = started.name(), port = device, "started for its switch: no vif is on it");
        *running = Arc::downgrade(&started);
        Ok(started)
    }

    /// An attempt to start a device for a vif has ended so. While ports of its switch run, it cannot be stopped, nor started anew.
    pub(super) fn start_attempted(&mut self, device: &str, outcome: Result<(), &PortError>) {
        match outcome {
            Err(PortError::Os { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
                self.awaited.insert(device.to_owned());
            }
            _ => {
                self.awaited.remove(device);
            }
        }
    }

    /// May an open device stay so?
    pub(super) fn check_may_run(&self, device: &Ethdev) -> Result<(), PortError> {
        let makes_way = device.manager().is_some_and(|manager| self.awaited.contains(manager.name()));
        if makes_way { Err(waiting(device.name())) } else { Ok(()) }
    }
}

fn waiting(device: &str) -> PortError {
    let source = Error::from_raw_os_error(libc::EAGAIN);
    PortError::Os { device: device.to_owned(), action: "waiting for the port that manages its switch to start", source }
}
