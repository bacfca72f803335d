//! The engine: desired flows on one side, rules of a NIC on the other.
//!
//! Every flow is kept as it is desired, and every rule from its queueing to its end; what happens is driven by requests,
//! completions and time. A flow that an event concerns is advanced once more ([`Engine::advance_scheduled`]); nothing is
//! scanned, and a new snapshot costs nothing for each flow.

mod counters;
mod egress_check;
mod flow;
mod inspect;
mod install;
mod operations;
mod prerequisites;
mod proactive;
mod probe;
mod rules;
mod sessions;
mod transit;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use offload_rules::{
    forwarding::Snapshot,
    lower::{FailureClass, NotOffloaded},
    place::Placement,
};

use super::{
    Completion, Config, Failure, Hits, Lowering, NicBackend, ProbeResult, RuleBackend, SessionBackend, Token, Totals,
    meter::{Latencies, Rate},
};
use crate::hash::Quick;
use crate::protocol::{OffloadId, Report, Request, Tier};
use egress_check::EgressCheck;
use flow::{Flow, PENDING, State};
use proactive::Proactive;
use probe::Probe;
use rules::{Rules, ShapeIndex};
use sessions::Sessions;
use transit::Transit;

/// The state of all flows while offload is off.
const SWITCHED_OFF: State = (Tier::Software, Some(NotOffloaded::Off));

/// What is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Flow(OffloadId),
    Destroy(Token),
    Proactive,
    Flush,
}

/// State of a shape of rules on this NIC.
#[derive(Debug)]
struct ShapeState<S> {
    shape: S,
    probe: Option<ProbeResult>,
    refused: Option<NotOffloaded>,
    created: u64,
    proven: bool,
    doubts: u32,
}

/// The offload engine of one NIC. Time is in milliseconds of the node's clock, and never goes back.
///
/// It keeps what is desired, so that it can be installed again after a reset of the NIC, a switch off and on, or a failure. What
/// cannot be in the NIC is in software, with a reason.
pub struct Engine<B: RuleBackend, L: Lowering> {
    config: Config,
    lowering: L,
    backend: B,
    session_backend: Option<Box<dyn SessionBackend>>,
    snapshot: Arc<Snapshot>,
    enabled: bool,
    /// Why no flow is installed now.
    blocked: Option<NotOffloaded>,
    /// The NIC may hold rules that the engine does not know.
    unclean: bool,
    flush_attempts: u32,
    flush_failure: Option<FailureClass>,
    flows: HashMap<OffloadId, Flow, Quick>,
    /// Flows to advance.
    scheduled: VecDeque<OffloadId>,
    /// Flows to advance when nothing blocks any more.
    blocked_flows: BTreeSet<OffloadId>,
    /// Active flows, and those that wait for room.
    placement: Placement<OffloadId>,
    full_until: u64,
    timers: BTreeSet<(u64, Timer)>,
    rules: Rules,
    /// Begin and token of operations, oldest first; those that have ended are skipped.
    begun: VecDeque<(u64, Token)>,
    /// The same, of those that are late.
    overdue: VecDeque<(u64, Token)>,
    unpushed: bool,
    /// When and which counter is read next.
    sweep: VecDeque<(u64, Token)>,
    /// Memory of the last batch of counters.
    query_batch: Vec<Token>,
    query_results: Vec<Result<Hits, Failure>>,
    egress_check: EgressCheck,
    shapes: Vec<ShapeState<L::Shape>>,
    shape_index: BTreeMap<L::Shape, ShapeIndex>,
    probe: Probe,
    proactive: Proactive,
    sessions: Sessions,
    transit: Transit,
    tiers: [usize; 4],
    reasons: BTreeMap<NotOffloaded, usize>,
    totals: Totals,
    latencies: Latencies,
    inserts: Rate,
    outbox: Vec<Report>,
    completions: Vec<Completion>,
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// An engine that is switched on. The first [`Self::poll`] removes every rule that an earlier life has left, tries the canaries,
    /// and installs the rules that belong to no flow; flows wait for that.
    pub fn new(config: Config, lowering: L, nic: NicBackend<B>, snapshot: Arc<Snapshot>) -> Self {
        let NicBackend { rules: backend, sessions: session_backend } = nic;
        let mut engine = Self {
            config,
            lowering,
            backend,
            session_backend,
            snapshot,
            enabled: true,
            blocked: Some(NotOffloaded::Pending),
            unclean: true,
            flush_attempts: 0,
            flush_failure: None,
            flows: HashMap::default(),
            scheduled: VecDeque::new(),
            blocked_flows: BTreeSet::new(),
            placement: Placement::new(config.hysteresis),
            full_until: 0,
            timers: BTreeSet::new(),
            rules: Rules::default(),
            begun: VecDeque::new(),
            overdue: VecDeque::new(),
            unpushed: false,
            sweep: VecDeque::new(),
            query_batch: Vec::new(),
            query_results: Vec::new(),
            egress_check: EgressCheck::default(),
            shapes: Vec::new(),
            shape_index: BTreeMap::new(),
            probe: Probe::default(),
            proactive: Proactive::default(),
            sessions: Sessions::above(config.sessions_above),
            transit: Transit::default(),
            tiers: [0; 4],
            reasons: BTreeMap::new(),
            totals: Totals::default(),
            latencies: Latencies::default(),
            inserts: Rate::default(),
            outbox: Vec::new(),
            completions: Vec::new(),
        };
        engine.plan_probe();
        engine.plan_proactive();
        engine.plan_transit();
        engine
    }

    /// Takes a request. Its answer comes with a later [`Self::poll`].
    pub fn request(&mut self, request: Request, now: u64) {
        match request {
            Request::Install { id, directions, rate } => self.install(id, directions, rate),
            Request::Rate { id, rate } => self.set_rate(id, rate),
            Request::NotHonoured { id } => self.not_honoured(id, now),
            Request::Remove { id } => self.remove(id),
            Request::Offer { offer, sa, vif, numbers, left } => {
                self.offered(offer, sessions::Offer { sa, vif, numbers, left })
            }
            Request::Confirm { offer } => self.confirmed(offer),
            Request::Return { offer, at_once } => self.returned(offer, at_once, now),
        }
        self.advance_scheduled(now);
    }

    /// Does what is due, within the bounds of its configuration, and appends what workers have to know.
    pub fn poll(&mut self, now: u64, reports: &mut Vec<Report>) {
        self.check_reset(now);
        self.take_completions(now);
        self.check_overdue(now);
        self.fire_timers(now);
        if !self.unclean {
            self.advance_probe(now);
            self.reconcile_proactive(now);
            self.advance_sessions(now);
            self.unblock();
            self.advance_scheduled(now);
            self.advance_transit(now);
            self.issue(now);
            self.sweep(now);
            self.advance_scheduled(now);
        }
        reports.append(&mut self.outbox);
    }

    /// Takes a new snapshot: rules that belong to no flow follow it. Flows follow by the requests of their workers.
    pub fn adopt(&mut self, snapshot: &Arc<Snapshot>, now: u64) {
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        if self.enabled && !self.probe.planned {
            self.plan_probe();
        }
        self.follow_changes(&before);
        self.advance_scheduled(now);
    }

    /// Switches offload on or off. Off: every rule is counted and removed, and flows go on in software as theirs go. On: the canaries
    /// are tried again, and every flow that is still known is installed again.
    pub fn set_enabled(&mut self, enabled: bool, now: u64) {
        if self.enabled == enabled {
            return;
        }
        self.enabled = enabled;
        let ids = self.ids(|flow| !flow.leaving());
        for id in ids {
            self.withdraw(id);
            self.make_due(id);
            if let Some(flow) = self.flows.get_mut(&id) {
                (flow.attempts, flow.doubted) = (0, false);
            }
            let state = if enabled { PENDING } else { SWITCHED_OFF };
            self.set_state(id, state, false);
            self.schedule(id);
        }
        if enabled {
            self.plan_probe();
        } else {
            self.abandon_probe();
        }
        self.plan_proactive();
        self.plan_transit();
        // Also where the same are wanted: rules that had to wait for those of flows may not have left yet.
        self.proactive.dirty = true;
        if !enabled {
            self.recall_sessions();
        }
        self.update_blocked();
        self.advance_scheduled(now);
    }

    /// Whether nothing is queued or in flight: without another request, only time brings more.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.rules.queued() == 0
            && self.rules.in_flight == 0
            && self.scheduled.is_empty()
            && self.outbox.is_empty()
            && !self.unclean
            && !self.probe.under_way()
            && !self.proactive.dirty
            && (!self.transit.busy() || self.blocked.is_some())
            && !self.sessions.busy()
    }

    /// Operations that the NIC has not completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.rules.in_flight
    }

    /// The flows that are chosen, in order.
    fn ids(&self, chosen: impl Fn(&Flow) -> bool) -> Vec<OffloadId> {
        let mut ids: Vec<OffloadId> = self.flows.iter().filter(|(_, flow)| chosen(flow)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The index of a shape, new or known.
    fn shape(&mut self, shape: &L::Shape) -> ShapeIndex {
        if let Some(index) = self.shape_index.get(shape) {
            return *index;
        }
        let index = self.shapes.len();
        self.shapes.push(ShapeState {
            shape: shape.clone(),
            probe: None,
            refused: None,
            created: 0,
            proven: false,
            doubts: 0,
        });
        self.shape_index.insert(shape.clone(), index);
        index
    }

    /// Finds out whether flows may be installed.
    fn update_blocked(&mut self) {
        self.blocked = if self.unclean {
            Some(self.flush_failure.map_or(NotOffloaded::Pending, NotOffloaded::Failed))
        } else if self.probe.under_way() {
            Some(NotOffloaded::Pending)
        } else {
            self.proactive.blocks()
        };
    }

    /// The same, and advances flows that were blocked.
    fn unblock(&mut self) {
        let before = self.blocked;
        self.update_blocked();
        if before != self.blocked {
            for id in std::mem::take(&mut self.blocked_flows) {
                self.schedule(id);
            }
        }
    }
}
