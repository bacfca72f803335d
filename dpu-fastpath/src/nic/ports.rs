//! The ports of a NIC as they open.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use offload_rules::VifId;

use crate::{
    port::Prepare,
    rte_flow::{self, Ethdev, PortMap, Sizes},
    security::Sessions,
};

/// What the template API is asked to set aside on each port; the driver may have less.
const SIZES: Sizes = Sizes { queue: 1024, table: 1 << 17, counters: 1 << 18, ages: 0 };

/// The ports that are open, and what their driver has set aside. Clones are the same.
#[derive(Debug, Clone)]
pub struct NicPorts {
    templates: bool,
    map: PortMap,
    sessions: Sessions,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    opened: bool,
    /// The least that any port has set aside.
    sizes: Option<Sizes>,
}

impl NicPorts {
    /// None is open yet. `templates`: resources for the template API are set aside on each.
    #[must_use]
    pub fn new(templates: bool) -> Self {
        Self { templates, map: PortMap::default(), sessions: Sessions::default(), state: Arc::default() }
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

    /// `None`: no port has been opened. Otherwise what is set aside for the template API, if it is used.
    #[must_use]
    pub fn opened(&self) -> Option<Option<Sizes>> {
        let state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.opened.then_some(state.sizes)
    }

    /// Waits until a port is open, for at most this long.
    pub fn wait(&self, limit: Duration) {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it was reached is for the caller to see.
        drop(changed.wait_timeout_while(state, limit, |state| !state.opened));
    }
}

impl Prepare for NicPorts {
    fn before_start(&self, port: u16) -> Result<(), String> {
        if !self.templates {
            return Ok(());
        }
        let sizes = rte_flow::configure(port, SIZES).map_err(|failure| failure.to_string())?;
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        let least = |a: Sizes, b: Sizes| Sizes {
            queue: a.queue.min(b.queue),
            table: a.table.min(b.table),
            counters: a.counters.min(b.counters),
            ages: a.ages.min(b.ages),
        };
        state.sizes = Some(state.sizes.map_or(sizes, |known| least(known, sizes)));
        Ok(())
    }

    fn sessions(&self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }

    fn started(&self, vif: VifId, port: u16, queues: u16) {
        self.map.insert(vif, Ethdev { ethdev: port, queues });
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).opened = true;
        self.state.1.notify_all();
    }
}
