//! A flow as the engine sees it.

use crate::protocol::{OffloadId, Report, Tier};
use offload_rules::{
    lower::{Direction, NotOffloaded},
    place::Rate,
};

use super::Engine;
use crate::{Backend, Lowering, Token};

/// The rules of a flow that belong together: both directions, or the one that is denied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    pub(super) tokens: [Option<Token>; 2],
    pub(super) priority: u32,
    pub(super) tier: Tier,
    /// Why not in hardware, for [`Tier::Partial`].
    pub(super) why: Option<NotOffloaded>,
    /// Rules whose creation has not completed.
    pub(super) missing: u8,
}

impl Set {
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> + use<> {
        self.tokens.into_iter().flatten()
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) directions: Box<[Option<Direction>; 2]>,
    /// Octets a second; the key in both indexes by rate.
    pub(super) rate: u64,
    /// Octets a second of each direction, as the NIC counts.
    pub(super) counted_rate: [Rate; 2],
    /// Being removed; its end is [`Report::Gone`].
    pub(super) removing: bool,
    /// `directions` are not what is installed, and shall be.
    pub(super) wants: bool,
    /// The set that forwards.
    pub(super) active: Option<Set>,
    /// The set that is being installed.
    pub(super) coming: Option<Set>,
    /// All its tokens that have not ended: of both sets, and of those on their way out.
    pub(super) rules: Vec<Token>,
    /// Tokens of any flow whose end it waits for.
    pub(super) awaits: Vec<Token>,
    pub(super) attempts: u32,
    /// Not before this time, unless asked again.
    pub(super) retry_at: Option<u64>,
    /// It is in the index of flows that wait for room.
    pub(super) waiting: bool,
    /// It is in the list of flows to look at.
    pub(super) touched: bool,
    /// It has been counted as a doubt on its shape.
    pub(super) doubted: bool,
    pub(super) state: (Tier, Option<NotOffloaded>),
}

impl Flow {
    pub(super) fn new(directions: Box<[Option<Direction>; 2]>, rate: u64) -> Self {
        Self {
            directions,
            rate,
            counted_rate: [Rate::new(0, 0); 2],
            removing: false,
            wants: true,
            active: None,
            coming: None,
            rules: Vec::new(),
            awaits: Vec::new(),
            attempts: 0,
            retry_at: None,
            waiting: false,
            touched: false,
            doubted: false,
            state: (Tier::Pending, Some(NotOffloaded::Pending)),
        }
    }
}

/// For jitter: the same flow waits the same times in each run.
pub(super) fn seed(id: OffloadId) -> u64 {
    (u64::from(id.worker) << 48) ^ (u64::from(id.generation) << 24) ^ u64::from(id.entry)
}

impl<B: Backend, L: Lowering> Engine<B, L> {
    /// A request to install or replace.
    pub(super) fn install(&mut self, id: OffloadId, directions: Box<[Option<Direction>; 2]>, rate: u64) {
        if directions.iter().all(Option::is_none) {
            return self.refuse(id, NotOffloaded::OneSided);
        }
        self.unwait(id);
        let Some(flow) = self.flows.get_mut(&id) else {
            if self.flows.len() >= self.config.max_flows {
                return self.refuse(id, NotOffloaded::Placement);
            }
            let flow = Flow::new(directions, rate);
            self.count_state(flow.state, 1);
            self.flows.insert(id, flow);
            let state = if self.enabled { (Tier::Pending, Some(NotOffloaded::Pending)) } else { super::SWITCHED_OFF };
            self.set_state(id, state, true);
            return self.touch(id);
        };
        if flow.removing {
            return;
        }
        (flow.attempts, flow.retry_at) = (0, None);
        let same = flow.directions == directions;
        if same && flow.coming.is_some() {
            return self.set_rate(id, rate);
        }
        if same && !flow.wants {
            let state = flow.state;
            self.set_rate(id, rate);
            // Asked again: what was refused may be possible now.
            if state.0 == Tier::Hardware || state.0 == Tier::Partial {
                return self.set_state(id, state, true);
            }
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.directions = directions;
            flow.wants = true;
            let superseded = flow.coming.take();
            let forwards = flow.active.is_some();
            self.set_rate(id, rate);
            self.retire(superseded);
            if !self.enabled {
                self.set_state(id, super::SWITCHED_OFF, true);
            } else if !forwards {
                self.set_state(id, (Tier::Pending, Some(NotOffloaded::Pending)), false);
            }
            self.touch(id);
        }
    }

    /// Answers for a flow that is not kept, or removes it where it was.
    fn refuse(&mut self, id: OffloadId, reason: NotOffloaded) {
        if self.flows.contains_key(&id) {
            self.withdraw(id);
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.wants = false;
            }
            self.set_state(id, (Tier::Software, Some(reason)), true);
        } else {
            self.outbox.push(Report::State { id, tier: Tier::Software, reason: Some(reason) });
        }
    }

    /// A request to remove.
    pub(super) fn remove(&mut self, id: OffloadId) {
        self.withdraw(id);
        let Some(flow) = self.flows.get_mut(&id) else {
            return self.outbox.push(Report::Gone { id });
        };
        flow.removing = true;
        self.touch(id);
    }

    /// What a flow carries, as a worker or the NIC counts it.
    pub(super) fn set_rate(&mut self, id: OffloadId, rate: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.rate = rate;
        self.placement.update(id, rate);
        if flow.waiting && self.placement.is_hot(rate) {
            flow.retry_at = None;
            self.touch(id);
        }
    }

    /// The worker's evidence that the NIC ignores the rules of a flow.
    pub(super) fn not_honoured(&mut self, id: OffloadId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(active) = flow.active.filter(|set| set.tier == Tier::Hardware) else { return };
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
            self.leave_shapes(&dead);
        }
    }

    /// Flows that rely on a shape that is not trusted any more go to software.
    pub(super) fn leave_shapes(&mut self, dead: &[usize]) {
        let uses = |set: &Set| {
            set.tokens().any(|token| {
                self.rules.get(token).and_then(|entry| entry.shape).is_some_and(|shape| dead.contains(&shape))
            })
        };
        let leaving: Vec<OffloadId> = self
            .flows
            .iter()
            .filter(|(_, flow)| !flow.removing && (flow.active.iter().chain(&flow.coming)).any(uses))
            .map(|(id, _)| *id)
            .collect();
        for id in leaving {
            self.withdraw(id);
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.wants = true;
            }
            self.set_state(id, (Tier::Pending, Some(NotOffloaded::Pending)), false);
            self.touch(id);
        }
    }

    /// Takes both sets of a flow out of the NIC. Nothing new begins by itself.
    pub(super) fn withdraw(&mut self, id: OffloadId) {
        self.unwait(id);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let sets = [flow.coming.take(), flow.active.take()];
        flow.awaits.clear();
        self.placement.forget(id);
        sets.into_iter().for_each(|set| self.retire(set));
    }

    /// Sends the rules of a set on their way out.
    pub(super) fn retire(&mut self, set: Option<Set>) {
        for token in set.iter().flat_map(Set::tokens) {
            if self.rules.unwant(token) {
                self.ended(token);
            }
        }
    }

    pub(super) fn unwait(&mut self, id: OffloadId) {
        if let Some(flow) = self.flows.get_mut(&id)
            && std::mem::take(&mut flow.waiting)
        {
            self.placement.forget(id);
        }
    }

    /// To be looked at before the poll or request ends.
    pub(super) fn touch(&mut self, id: OffloadId) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.touched, true)
        {
            self.touched.push_back(id);
        }
    }

    /// Where a flow runs; told when it changes, or when it is the answer to a request.
    pub(super) fn set_state(&mut self, id: OffloadId, state: (Tier, Option<NotOffloaded>), answer: bool) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = std::mem::replace(&mut flow.state, state);
        if before != state || answer {
            if let Some(marks) = flow.active.filter(|set| set.tier == state.0 && state.0 == Tier::Partial) {
                let directions = marks.tokens.map(|token| token.is_some());
                self.outbox.push(Report::Marked { id, directions });
            }
            self.outbox.push(Report::State { id, tier: state.0, reason: state.1 });
        }
        self.count_state(before, -1);
        self.count_state(state, 1);
    }

    pub(super) fn count_state(&mut self, (tier, reason): (Tier, Option<NotOffloaded>), change: isize) {
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
