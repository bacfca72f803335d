//! A flow as the engine sees it, and the requests about it.

use std::sync::Arc;

use offload_rules::{lower::NotOffloaded, place::Rate};

use super::{Engine, SWITCHED_OFF, Timer};
use crate::{
    Lowering, RuleBackend, Token,
    protocol::{Directions, OffloadId, Report, Tier},
};

/// Where a flow runs, and why not in hardware.
pub(super) type State = (Tier, Option<NotOffloaded>);

/// A flow on its way into the NIC.
pub(super) const PENDING: State = (Tier::Pending, Some(NotOffloaded::Pending));

/// The rules of a flow that belong together: both directions, or the one that is denied.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleSet {
    pub(super) tokens: [Option<Token>; 2],
    pub(super) priority: u32,
    pub(super) tier: Tier,
    /// Why not in hardware, for [`Tier::Partial`].
    pub(super) why: Option<NotOffloaded>,
    /// Rules whose creation has not completed.
    pub(super) missing: u8,
}

impl RuleSet {
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> + use<> {
        self.tokens.into_iter().flatten()
    }
}

/// Life of a flow at the engine:
///
/// ```text
///                 retry time, or room
///         ┌─────────────────────────────────────┐
///         ▼                                     │
/// (ask) ► Due ──► Installing ──► Installed   Backoff, AwaitingRoom
///         │ ▲         │            │   ▲         ▲
///         │ │         ▼ failed     │   │ done    │
///         │ │  Due, Backoff or     │   │         │
///         │ │  AwaitingRoom   asked│   │         │
///         │ │                 again▼   │         │
///         │ └── withdrawn ─────── Stale ──► Replacing ── failed: Stale, Due, Backoff or AwaitingRoom
///         ▼ the NIC, or the program, does not allow it
///      Software ──► Due, when it is asked for again
///
/// any ──► Leaving, when its removal is asked for; ends with Report::Gone when its last rule has ended
/// ```
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Nothing in the NIC: to be lowered and installed as soon as nothing is in the way.
    Due,
    /// Nothing in the NIC after a failure: tried again at this time, or when it is asked for again.
    Backoff { until: u64 },
    /// Nothing in the NIC, which is full: tried when room is made for it, at this time at the latest.
    AwaitingRoom { until: u64 },
    /// In software for good, until it is asked for again or the NIC is looked at anew.
    Software,
    /// The first rules are being created.
    Installing(RuleSet),
    /// The rules that are desired forward.
    Installed(RuleSet),
    /// Rules forward that are to be replaced, as soon as nothing is in the way.
    Stale(RuleSet),
    /// Rules forward, others are being created in their place.
    Replacing { active: RuleSet, coming: RuleSet },
    /// Its rules are on their way out.
    Leaving,
}

impl Phase {
    /// The set that forwards.
    pub(super) const fn active(&self) -> Option<RuleSet> {
        match self {
            Self::Installed(set) | Self::Stale(set) | Self::Replacing { active: set, .. } => Some(*set),
            _ => None,
        }
    }

    /// The set that is being created.
    pub(super) const fn coming(&self) -> Option<RuleSet> {
        match self {
            Self::Installing(set) | Self::Replacing { coming: set, .. } => Some(*set),
            _ => None,
        }
    }

    /// Both sets; what follows is the caller's, and `Due` where rules were wanted that are not there.
    fn take_sets(&mut self) -> [Option<RuleSet>; 2] {
        let sets = [self.coming(), self.active()];
        match self {
            Self::Installing(_) | Self::Stale(_) | Self::Replacing { .. } => *self = Self::Due,
            Self::Installed(_) => *self = Self::Software,
            Self::Due | Self::Backoff { .. } | Self::AwaitingRoom { .. } | Self::Software | Self::Leaving => {}
        }
        sets
    }

    /// Gives up on the set that is being created.
    pub(super) fn take_coming(&mut self) -> Option<RuleSet> {
        let coming = self.coming();
        match *self {
            Self::Installing(_) => *self = Self::Due,
            Self::Replacing { active, .. } => *self = Self::Stale(active),
            _ => {}
        }
        coming
    }

    /// The stale set leaves before the next one comes.
    pub(super) fn take_stale(&mut self) -> Option<RuleSet> {
        let Self::Stale(set) = *self else { return None };
        *self = Self::Due;
        Some(set)
    }

    /// What is installed is not what is desired any more.
    fn outdate(&mut self) {
        match *self {
            Self::Installed(set) => *self = Self::Stale(set),
            Self::Software => *self = Self::Due,
            _ => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) directions: Directions,
    /// Octets a second; the key in both indexes by rate.
    pub(super) rate: u64,
    /// Octets a second of each direction, as the NIC counts.
    pub(super) counted_rate: [Rate; 2],
    pub(super) phase: Phase,
    /// All its tokens that have not ended: of both sets, and of those on their way out.
    pub(super) rules: Vec<Token>,
    /// Tokens of other flows' rules whose removal it waits for.
    pub(super) awaits: Vec<Token>,
    pub(super) attempts: u32,
    /// It is in the list of flows to advance.
    pub(super) scheduled: bool,
    /// It has been counted as a doubt on its shape.
    pub(super) doubted: bool,
    pub(super) state: State,
}

impl Flow {
    pub(super) fn new(directions: Directions, rate: u64) -> Self {
        Self {
            directions,
            rate,
            counted_rate: [Rate::new(0, 0); 2],
            phase: Phase::Due,
            rules: Vec::new(),
            awaits: Vec::new(),
            attempts: 0,
            scheduled: false,
            doubted: false,
            state: PENDING,
        }
    }

    pub(super) const fn leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving)
    }

    /// The NIC has lost all: to be installed anew, unless it was to stay in software.
    pub(super) fn restart(&mut self) {
        let phase = match self.phase {
            Phase::Leaving => Phase::Leaving,
            Phase::Software => Phase::Software,
            _ => Phase::Due,
        };
        let directions = Arc::clone(&self.directions);
        let (scheduled, doubted, state) = (self.scheduled, self.doubted, self.state);
        *self = Self { phase, scheduled, doubted, state, ..Self::new(directions, self.rate) };
    }
}

/// For jitter: the same flow waits the same times in each run.
pub(super) fn seed(id: OffloadId) -> u64 {
    (u64::from(id.worker) << 48) ^ (u64::from(id.generation) << 24) ^ u64::from(id.entry)
}

/// The same rules for the same packets?
fn same(known: &Directions, asked: &Directions) -> bool {
    Arc::ptr_eq(known, asked) || known == asked
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// A request to install or replace.
    pub(super) fn install(&mut self, id: OffloadId, directions: Directions, rate: u64) {
        if directions.iter().all(Option::is_none) {
            return self.refuse(id, NotOffloaded::OneSided);
        }
        let Some(flow) = self.flows.get_mut(&id) else {
            if self.flows.len() >= self.config.max_flows {
                return self.refuse(id, NotOffloaded::Placement);
            }
            let flow = Flow::new(directions, rate);
            self.count_state(flow.state, 1);
            self.flows.insert(id, flow);
            let state = if self.enabled { PENDING } else { SWITCHED_OFF };
            self.set_state(id, state, true);
            return self.schedule(id);
        };
        if flow.leaving() {
            return;
        }
        flow.attempts = 0;
        let same = same(&flow.directions, &directions);
        match flow.phase {
            Phase::Installing(_) | Phase::Replacing { .. } if same => return self.set_rate(id, rate),
            Phase::Installed(_) if same && matches!(flow.state.0, Tier::Hardware | Tier::Partial) => {
                let state = flow.state;
                self.set_rate(id, rate);
                return self.set_state(id, state, true);
            }
            _ => {}
        }
        flow.directions = directions;
        let superseded = flow.phase.take_coming();
        self.make_due(id);
        self.set_rate(id, rate);
        self.retire(superseded);
        let forwards = self.flows.get(&id).is_some_and(|flow| flow.phase.active().is_some());
        if !self.enabled {
            self.set_state(id, SWITCHED_OFF, true);
        } else if !forwards {
            self.set_state(id, PENDING, false);
        }
        self.schedule(id);
    }

    /// Answers for a flow that is not kept, or removes it where it was.
    fn refuse(&mut self, id: OffloadId, reason: NotOffloaded) {
        if self.flows.contains_key(&id) {
            self.withdraw(id);
            self.stay_in_software(id);
            self.set_state(id, (Tier::Software, Some(reason)), true);
        } else {
            self.outbox.push(Report::State { id, tier: Tier::Software, reason: Some(reason) });
        }
    }

    /// A request to remove.
    pub(super) fn remove(&mut self, id: OffloadId) {
        self.withdraw(id);
        self.cancel_wait(id);
        let Some(flow) = self.flows.get_mut(&id) else {
            return self.outbox.push(Report::Gone { id });
        };
        flow.phase = Phase::Leaving;
        self.schedule(id);
    }

    /// What a flow carries, as a worker or the NIC counts it.
    pub(super) fn set_rate(&mut self, id: OffloadId, rate: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.rate = rate;
        self.placement.update(id, rate);
        if matches!(flow.phase, Phase::AwaitingRoom { .. }) && self.placement.is_hot(rate) {
            self.make_due(id);
            self.schedule(id);
        }
    }

    /// The worker's evidence that the NIC ignores the rules of a flow.
    pub(super) fn not_honoured(&mut self, id: OffloadId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(active) = flow.phase.active().filter(|set| set.tier == Tier::Hardware) else { return };
        let first = !std::mem::replace(&mut flow.doubted, true);
        let shapes: Vec<_> =
            active.tokens().filter_map(|token| self.rules.get(token).and_then(|entry| entry.shape)).collect();
        self.withdraw(id);
        self.back_off(id, NotOffloaded::NotHonoured, now);
        let mut dead = Vec::new();
        for (at, index) in shapes.iter().enumerate() {
            // Both directions of a flow can have one shape: still one flow.
            if !first || shapes.iter().take(at).any(|earlier| earlier == index) {
                continue;
            }
            let Some(shape) = self.shapes.get_mut(*index) else { continue };
            shape.doubts += 1;
            if shape.doubts >= self.config.not_honoured && shape.refused.is_none() {
                tracing::error!(shape = %shape.shape, "the NIC accepts rules of this shape and does not honour them");
                shape.refused = Some(NotOffloaded::NotHonoured);
                dead.push(*index);
            }
        }
        if !dead.is_empty() {
            self.withdraw_shapes(&dead);
        }
    }

    /// Flows that rely on a shape that is not trusted any more go to software.
    pub(super) fn withdraw_shapes(&mut self, dead: &[usize]) {
        let uses = |set: RuleSet| {
            set.tokens().any(|token| {
                self.rules.get(token).and_then(|entry| entry.shape).is_some_and(|shape| dead.contains(&shape))
            })
        };
        let relies = |flow: &Flow| [flow.phase.active(), flow.phase.coming()].into_iter().flatten().any(uses);
        for id in self.ids(relies) {
            self.reinstall(id);
        }
        self.withdraw_transit(dead);
    }

    /// Takes a flow out of the NIC, and installs it again as soon as nothing is in the way.
    pub(super) fn reinstall(&mut self, id: OffloadId) {
        self.withdraw(id);
        self.make_due(id);
        self.set_state(id, PENDING, false);
        self.schedule(id);
    }

    /// Takes both sets of a flow out of the NIC. Nothing new begins by itself.
    pub(super) fn withdraw(&mut self, id: OffloadId) {
        self.leave_room_queue(id);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let sets = flow.phase.take_sets();
        flow.awaits.clear();
        self.placement.forget(id);
        sets.into_iter().for_each(|set| self.retire(set));
    }

    /// Sends the rules of a set on their way out.
    pub(super) fn retire(&mut self, set: Option<RuleSet>) {
        for token in set.iter().flat_map(RuleSet::tokens) {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
    }

    /// Its rules, or others than those that it has, are to be installed at the next opportunity.
    pub(super) fn make_due(&mut self, id: OffloadId) {
        self.cancel_wait(id);
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.phase.outdate();
        }
    }

    /// It is not tried again by itself.
    pub(super) fn stay_in_software(&mut self, id: OffloadId) {
        self.cancel_wait(id);
        if let Some(flow) = self.flows.get_mut(&id).filter(|flow| !flow.leaving()) {
            flow.phase = Phase::Software;
        }
    }

    /// It does not wait for a time or for room any more: `Due` if it did.
    fn cancel_wait(&mut self, id: OffloadId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let (Phase::Backoff { until } | Phase::AwaitingRoom { until }) = flow.phase else { return };
        if matches!(flow.phase, Phase::AwaitingRoom { .. }) {
            self.placement.forget(id);
        }
        flow.phase = Phase::Due;
        self.timers.remove(&(until, Timer::Flow(id)));
    }

    /// The time that it waits for has come, unless it waits for a later one by now.
    pub(super) fn wait_is_over(&mut self, id: OffloadId, now: u64) {
        let Some(flow) = self.flows.get(&id) else { return };
        if let Phase::Backoff { until } | Phase::AwaitingRoom { until } = flow.phase
            && until <= now
        {
            self.make_due(id);
        }
    }

    /// It waits for its time alone, not for room.
    fn leave_room_queue(&mut self, id: OffloadId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if let Phase::AwaitingRoom { until } = flow.phase {
            flow.phase = Phase::Backoff { until };
            self.placement.forget(id);
        }
    }

    /// To be advanced before the poll or request ends.
    pub(super) fn schedule(&mut self, id: OffloadId) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.scheduled, true)
        {
            self.scheduled.push_back(id);
        }
    }

    /// Where a flow runs; reported when it changes, or in answer to a request.
    pub(super) fn set_state(&mut self, id: OffloadId, state: State, answer: bool) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = std::mem::replace(&mut flow.state, state);
        if before != state || answer {
            if let Some(marks) = flow.phase.active().filter(|set| set.tier == state.0 && state.0 == Tier::Partial) {
                let directions = marks.tokens.map(|token| token.is_some());
                self.outbox.push(Report::Marked { id, directions });
            }
            self.outbox.push(Report::State { id, tier: state.0, reason: state.1 });
        }
        if before != state {
            self.count_state(before, -1);
            self.count_state(state, 1);
        }
    }

    pub(super) fn count_state(&mut self, (tier, reason): State, change: isize) {
        if let Some(count) = self.tiers.get_mut(tier as usize) {
            *count = count.saturating_add_signed(change);
        }
        if let Some(reason) = reason {
            let count = self.reasons.entry(reason).or_insert(0);
            *count = count.saturating_add_signed(change);
            if *count == 0 {
                self.reasons.remove(&reason);
            }
        }
    }
}
