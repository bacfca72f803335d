//! What both backends share: the port that takes a rule, counters, and resets of the NIC.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{c_int, c_void},
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};

use dpdk_sys::{rte_eth_event_type as event, rte_flow, rte_flow_action, rte_flow_error};
use offload_engine::{Failure, Hits};
use offload_rules::{
    VifId,
    lower::{Rule, Session},
};

use super::{
    error::{check, failure},
    items::Pattern,
    name_tables::NameTables,
    stages::{StageNumbers, Stages},
    style::Style,
    translation::{Domain, Translation},
};
use crate::{
    port::{Gate, PortRegistry, TxCounter, transfer_proxy},
    security::Sessions,
};

/// Events after which a port has lost its rules.
const LOSSES: [event::Type; 2] = [event::RTE_ETH_EVENT_INTR_RESET, event::RTE_ETH_EVENT_INTR_RMV];

/// A driver's rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(pub(super) NonNull<rte_flow>);

// SAFETY: a handle is only ever given back to the driver, which keeps no state of a thread; backends are called by one thread at a time.
unsafe impl Send for Handle {}

/// A rule that is in the NIC, and the port that it was given to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Installed {
    pub(super) handle: Handle,
    pub(super) port: u16,
    pub(super) counts: bool,
    pub(super) session: Option<Session>,
    stages: StageNumbers,
    /// Stops of the port before it was made.
    stops: u64,
}

/// All ports of a NIC.
#[derive(Debug)]
pub(super) struct Nic {
    ports: PortRegistry,
    /// That of the ports.
    gate: Gate,
    /// Stops of ports that have been reported.
    stops: u64,
    style: Style,
    pub(super) sessions: Sessions,
    stages: Stages,
    /// Memory of the last pattern: too large for the allocator's quick lists.
    spare: Pattern,
    /// The port that takes transfer rules for a port, found when first needed.
    proxies: BTreeMap<u16, u16>,
    /// Counters of what leaves, by port; `None`: it has none.
    tx_counters: BTreeMap<u16, Option<TxCounter>>,
    /// Ports whose events are watched.
    watched: BTreeSet<u16>,
    /// Set by a driver's thread. Leaked: one octet for each backend that a process makes, and no callback that outlives it.
    lost: &'static AtomicBool,
}

impl Nic {
    pub(super) fn new(ports: PortRegistry, style: Style) -> Self {
        let mut nic = Self {
            stops: ports.stops(),
            gate: ports.gate(),
            ports,
            style,
            sessions: Sessions::default(),
            stages: Stages::default(),
            spare: Pattern::default(),
            proxies: BTreeMap::new(),
            tx_counters: BTreeMap::new(),
            watched: BTreeSet::new(),
            lost: Box::leak(Box::new(AtomicBool::new(false))),
        };
        nic.watch();
        nic
    }

    /// What keeps its ports from starting and stopping.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Translates a rule and finds the port that takes it.
    pub(super) fn translate(&mut self, rule: &Rule) -> Result<(u16, Translation), Failure> {
        let spare = std::mem::take(&mut self.spare);
        let held = self.stages.prepare(rule);
        let (sessions, stages) = (&self.sessions, &self.stages);
        let mut translation = self
            .ports
            .with(|ports| Translation::reusing(spare, rule, self.style, NameTables { ports, sessions, stages }))?;
        translation.stages = held;
        let own = translation.port.ethdev;
        let port = if translation.place.domain == Domain::Transfer { self.proxy(own) } else { own };
        Ok((port, translation))
    }

    /// The driver has taken a rule: its memory is free for the next one.
    pub(super) fn done(&mut self, port: u16, handle: Handle, translation: Translation) -> Installed {
        let (counts, session, stages) = (translation.actions.counts(), translation.session, translation.stages);
        self.stages.hold(stages);
        if let Some(session) = session {
            self.sessions.hold(session);
        }
        self.spare = translation.pattern;
        Installed { handle, port, counts, session, stages, stops: self.gate.stops(port) }
    }

    /// Has the driver still the rule's handle? It releases those of a port that stops.
    pub(super) fn holds(&self, rule: &Installed) -> bool {
        self.gate.stops(rule.port) == rule.stops
    }

    /// A rule is gone.
    pub(super) fn gone(&mut self, rule: Installed) {
        self.stages.release(rule.stages);
        if let Some(session) = rule.session {
            self.sessions.release(session);
        }
    }

    /// The rule of this session is an entry of a table to the driver: it cannot destroy it, and enters it also when it only validates
    /// (ixgbe_flow.c, `cons_parse_ntuple_filter`, and txgbe's). What is entered ends with the session.
    pub(super) fn ends_with(&self, session: Option<Session>) -> bool {
        self.style.open_ends_with_session && session.is_some()
    }

    /// The port of a vif's device.
    pub(super) fn port(&self, vif: VifId) -> Result<u16, Failure> {
        let port = self.ports.with(|ports| ports.get(vif));
        port.map(|port| port.ethdev).map_err(|error| Failure::from_errno(libc::ENODEV, error.to_string()))
    }

    /// What has left by the port of a vif's device.
    pub(super) fn transmitted(&mut self, vif: VifId) -> Option<u64> {
        let port = self.port(vif).ok()?;
        self.tx_counters.entry(port).or_insert_with(|| TxCounter::of(port)).as_ref()?.read()
    }

    /// Transfer rules go to the port that manages the switch: the port itself where the driver has no such notion.
    fn proxy(&mut self, port: u16) -> u16 {
        *self.proxies.entry(port).or_insert_with(|| transfer_proxy(port).unwrap_or(port))
    }

    /// Every port that rules may be on.
    fn all(&mut self) -> BTreeSet<u16> {
        let own: Vec<u16> = self.ports.with(|ports| ports.iter().map(|port| port.ethdev).collect());
        let mut all: BTreeSet<u16> = own.iter().copied().collect();
        if self.style.transfer {
            all.extend(own.into_iter().map(|port| self.proxy(port)));
        }
        all
    }

    /// Packets and octets of a rule.
    pub(super) fn query(&self, rule: Installed) -> Result<Hits, Failure> {
        if !self.holds(&rule) {
            return Err(Failure::from_errno(libc::ENODEV, "the port of the rule has stopped"));
        }
        let ask = [
            rte_flow_action { type_: dpdk_sys::rte_flow_action_type::RTE_FLOW_ACTION_TYPE_COUNT, ..Default::default() },
            rte_flow_action::default(),
        ];
        let mut count = dpdk_sys::rte_flow_query_count::default();
        let mut error = rte_flow_error::default();
        // SAFETY: the handle is of a rule that exists on this port; the action asked for decides the type behind `data`.
        let code = unsafe {
            dpdk_sys::rte_flow_query(
                rule.port,
                rule.handle.0.as_ptr(),
                ask.as_ptr(),
                (&raw mut count).cast::<c_void>(),
                &raw mut error,
            )
        };
        check(code, &error)?;
        let known = |set: u32, value: u64| if set == 1 { value } else { 0 };
        Ok(Hits { packets: known(count.hits_set(), count.hits), bytes: known(count.bytes_set(), count.bytes) })
    }

    /// Removes every rule of every port. The first failure is told after all ports were tried. Hairpin queues are bound to nothing
    /// meanwhile: the driver has an order of its own, and a rule of receiving could be left without its rule of sending.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.ports.hairpins().unwrap_or_default().parted(|| self.flush_ports())
    }

    fn flush_ports(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for port in self.all() {
            let mut error = rte_flow_error::default();
            // SAFETY: no other thread uses rte_flow on these ports.
            let code = unsafe { dpdk_sys::rte_flow_flush(port, &raw mut error) };
            if code != 0 && code.saturating_abs() != libc::ENOSYS {
                result = result.and(Err(failure(code, &error)));
            }
        }
        result
    }

    /// Whether the NIC has lost its rules since the last call: a port was stopped, or its driver says so by an event. One that doesn't is found out by
    /// `sentinel`, a rule of ours that counts: when its query says ENOENT, it is gone, and with it all others.
    pub(super) fn lost(&mut self, sentinel: Option<Installed>) -> bool {
        self.watch();
        let told = self.lost.swap(false, Ordering::Relaxed);
        let stops = self.ports.stops();
        let stopped = std::mem::replace(&mut self.stops, stops) != stops;
        // Of a port that was stopped the driver has released the rule itself: it is not to be asked about it.
        let missing =
            || sentinel.is_some_and(|rule| self.query(rule).is_err_and(|failure| failure.errno == libc::ENOENT));
        told || stopped || missing()
    }

    /// Watches new ports, and stops watching those that are gone.
    fn watch(&mut self) {
        let all = self.all();
        for gone in self.watched.difference(&all).copied().collect::<Vec<_>>() {
            self.unwatch(gone);
        }
        for port in all {
            if !self.watched.insert(port) {
                continue;
            }
            for event in LOSSES {
                // SAFETY: the flag lives as long as the process. A port that cannot be watched has its rules watched: see `lost`.
                unsafe { dpdk_sys::rte_eth_dev_callback_register(port, event, Some(note_loss), self.argument()) };
            }
        }
    }

    fn unwatch(&mut self, port: u16) {
        self.watched.remove(&port);
        for event in LOSSES {
            // SAFETY: names a registration of `watch`, or none. One that is being called stays; its flag does too.
            unsafe { dpdk_sys::rte_eth_dev_callback_unregister(port, event, Some(note_loss), self.argument()) };
        }
    }

    fn argument(&self) -> *mut c_void {
        std::ptr::from_ref(self.lost).cast_mut().cast()
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        for port in self.watched.clone() {
            self.unwatch(port);
        }
    }
}

/// The callback of [`LOSSES`].
unsafe extern "C" fn note_loss(_port: u16, _event: event::Type, flag: *mut c_void, _parameter: *mut c_void) -> c_int {
    // SAFETY: `watch` registers this with a flag that lives as long as the process.
    let flag = unsafe { &*flag.cast_const().cast::<AtomicBool>() };
    flag.store(true, Ordering::Relaxed);
    0
}
