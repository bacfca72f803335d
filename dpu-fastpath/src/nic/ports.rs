//! The ports of a NIC as they open.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use offload_rules::{VifId, lower::PortFacts};

use crate::{
    port::{self, Gate, Hairpins, Prepare},
    rte_flow::{self, Ethdev, PortMap, Sizes},
    security::Sessions,
};

/// What the template API is asked to set aside on a port; the driver may have less. Counters only where rules that count go: a port
/// whose transfer rules another one takes needs none.
const SIZES: Sizes = Sizes { queue: 1024, table: 1 << 18, counters: 1 << 18, ages: 0 };

/// The ports that are open, and what their driver has set aside. Clones are the same.
#[derive(Debug, Clone)]
pub struct NicPorts {
    templates: bool,
    map: PortMap,
    sessions: Sessions,
    hairpins: Option<Hairpins>,
    expected: usize,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    /// Vifs whose ports have opened.
    opened: BTreeSet<VifId>,
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
            map: PortMap::default(),
            sessions: Sessions::default(),
            hairpins: None,
            expected: 1,
            state: Arc::default(),
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
        let hairpins = Hairpins::among(ports);
        self.map.connect(hairpins.clone());
        Self { hairpins: Some(hairpins), ..self }
    }

    /// The receive queue of one vif's port that leads to another's, or to its own; `None`: none does, or they are not both up.
    #[must_use]
    pub fn hairpin(&self, from: VifId, to: VifId) -> Option<u16> {
        self.map.hairpin(from, to)
    }

    /// Which port each vif's device is.
    #[must_use]
    pub fn map(&self) -> PortMap {
        self.map.clone()
    }

    /// The NIC's sessions of IPsec.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// Is the device of this vif a port of the NIC?
    #[must_use]
    pub fn has(&self, vif: VifId) -> bool {
        self.map.contains(vif)
    }

    /// Role and switch domain of the port of this vif's device; `None`: it is no port of the NIC.
    #[must_use]
    pub fn facts(&self, vif: VifId) -> Option<PortFacts> {
        self.map.facts(vif)
    }

    /// `None`: no port has been opened. Otherwise what is set aside for the template API, if it is used.
    #[must_use]
    pub fn opened(&self) -> Option<Option<Sizes>> {
        let state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!state.opened.is_empty()).then_some(state.sizes)
    }

    /// Waits until all that are expected have opened, for at most this long.
    pub fn wait(&self, limit: Duration) {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it was reached is for the caller to see.
        drop(changed.wait_timeout_while(state, limit, |state| state.opened.len() < self.expected));
    }
}

impl Prepare for NicPorts {
    fn before_start(&self, port: u16) -> Result<(), String> {
        if !self.templates {
            return Ok(());
        }
        // Once: what is set aside outlives a stop of the port, and so do the template tables that the backend has. mlx5 of 22.11 would let
        // go of both (mlx5_flow_hw.c, `flow_hw_configure`), later ones take the same once more and do nothing.
        if self.state.0.lock().unwrap_or_else(PoisonError::into_inner).configured.contains(&port) {
            return Ok(());
        }
        let counted = port::transfer_proxy(port).is_none_or(|proxy| proxy == port);
        let wanted = Sizes { counters: if counted { SIZES.counters } else { 0 }, ..SIZES };
        let sizes = rte_flow::configure(port, wanted).map_err(|failure| failure.to_string())?;
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        let least = |a: Sizes, b: Sizes| Sizes {
            queue: a.queue.min(b.queue),
            table: a.table.min(b.table),
            counters: a.counters.max(b.counters),
            ages: a.ages.min(b.ages),
        };
        state.configured.insert(port);
        state.sizes = Some(state.sizes.map_or(sizes, |known| least(known, sizes)));
        Ok(())
    }

    fn sessions(&self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }

    fn hairpins(&self) -> Option<Hairpins> {
        self.hairpins.clone()
    }

    fn gate(&self) -> Option<Gate> {
        Some(self.map.gate())
    }

    fn stopped(&self) {
        self.map.stopped();
    }

    fn started(&self, vif: VifId, port: u16, queues: u16) {
        self.map.learn(vif, port::facts(port));
        self.map.insert(vif, Ethdev { ethdev: port, queues });
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).opened.insert(vif);
        self.state.1.notify_all();
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
