//! The ports of a NIC, and the resources reserved on them before they start.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use offload_rules::{VifId, lower::PortFacts};

use crate::{
    port::{self, Gate, Hairpins, PortRegistry, Prepare, StartedPort},
    rte_flow::{self, Sizes},
    security::Sessions,
};

/// What the template API is asked to set aside on a port; the driver may have less. Counters only where rules that count go: a port
/// whose transfer rules another one takes needs none.
const SIZES: Sizes = Sizes { queue: 1024, table: 1 << 18, counters: 1 << 18 };

/// The ports of a NIC, and what its driver has set aside on them before they started. Clones are the same.
#[derive(Debug, Clone)]
pub struct NicPorts {
    /// Resources for the template API are set aside on each.
    templates: bool,
    registry: PortRegistry,
    sessions: Sessions,
    expected: usize,
    reserved: Arc<Mutex<Reserved>>,
}

/// Resources that are reserved for the template API.
#[derive(Debug, Default)]
struct Reserved {
    /// The least that any port has set aside, and the most counters.
    sizes: Option<Sizes>,
    /// Ports (DPDK's ids) that have set it aside.
    configured: BTreeSet<u16>,
}

impl NicPorts {
    /// None is open yet. `templates`: resources for the template API are set aside on each.
    #[must_use]
    pub fn new(templates: bool) -> Self {
        Self {
            templates,
            registry: PortRegistry::default(),
            sessions: Sessions::default(),
            expected: 1,
            reserved: Arc::default(),
        }
    }

    /// So many ports are to open: what is found out about the NIC is found out between them.
    #[must_use]
    pub fn expecting(self, ports: usize) -> Self {
        Self { expected: ports.max(1), ..self }
    }

    /// Rules lead between these ports (DPDK's ids) by hairpin queues, not by a switch.
    #[must_use]
    pub fn with_hairpins(self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.registry.connect(Hairpins::among(ports));
        self
    }

    /// Which port each vif's device is.
    #[must_use]
    pub fn registry(&self) -> &PortRegistry {
        &self.registry
    }

    /// The NIC's sessions of IPsec.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// Is the device of this vif a port of the NIC?
    #[must_use]
    pub fn has(&self, vif: VifId) -> bool {
        self.registry.contains(vif)
    }

    /// Role and switch domain of the port of this vif's device; `None`: it is no port of the NIC.
    #[must_use]
    pub fn facts(&self, vif: VifId) -> Option<PortFacts> {
        self.registry.facts(vif)
    }

    /// The receive queue of one vif's port that leads to another's, or to its own; `None`: none does, or they are not both up.
    #[must_use]
    pub fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        self.registry.hairpin(from, to)
    }

    /// `None`: no port has been opened. Otherwise what is set aside for the template API, if it is used.
    #[must_use]
    pub fn opened(&self) -> Option<Option<Sizes>> {
        (!self.registry.is_empty()).then(|| self.reserved().sizes)
    }

    /// Waits until all that are expected have opened, for at most this long.
    pub fn wait(&self, limit: Duration) {
        self.registry.wait_for(self.expected, limit);
    }

    fn reserved(&self) -> MutexGuard<'_, Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepare for NicPorts {
    fn before_start(&self, port: u16) -> Result<(), String> {
        if !self.templates {
            return Ok(());
        }
        // Once: what is set aside outlives a stop of the port, and so do the template tables that the backend has. mlx5 of 22.11 would let
        // go of both (mlx5_flow_hw.c, `flow_hw_configure`), later ones take the same once more and do nothing.
        if self.reserved().configured.contains(&port) {
            return Ok(());
        }
        let counted = port::transfer_proxy(port).is_none_or(|proxy| proxy == port);
        let wanted = Sizes { counters: if counted { SIZES.counters } else { 0 }, ..SIZES };
        let sizes = rte_flow::configure(port, wanted).map_err(|failure| failure.to_string())?;
        let mut reserved = self.reserved();
        let least = |a: Sizes, b: Sizes| Sizes {
            queue: a.queue.min(b.queue),
            table: a.table.min(b.table),
            counters: a.counters.max(b.counters),
        };
        reserved.configured.insert(port);
        reserved.sizes = Some(reserved.sizes.map_or(sizes, |known| least(known, sizes)));
        Ok(())
    }

    fn sessions(&self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }

    fn hairpins(&self) -> Option<Hairpins> {
        self.registry.hairpins()
    }

    fn gate(&self) -> Option<Gate> {
        Some(self.registry.gate())
    }

    fn stopped(&self) {
        self.registry.stopped();
    }

    fn started(&self, vif: VifId, port: u16, queues: u16) {
        self.registry.set_facts(vif, port::facts(port));
        self.registry.insert(vif, StartedPort { ethdev: port, queues });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_waits_goes_on_when_all_ports_are_open_that_are_expected() {
        let vif = |number| VifId::new(number).unwrap();
        let ports = NicPorts::new(false).expecting(2);
        let begin = Instant::now();
        ports.started(vif(1), 0, 1);
        ports.started(vif(1), 0, 1);
        let brief = Duration::from_millis(20);
        ports.wait(brief);
        assert!(begin.elapsed() >= brief, "one port, opened twice, is one port");
        let other = ports.clone();
        let opener = std::thread::spawn(move || other.started(vif(2), 1, 1));
        let long = Duration::from_secs(60);
        ports.wait(long);
        opener.join().unwrap();
        assert!(begin.elapsed() < long);
    }
}
