//! Room in the flow table: who may take it, and whose flow gives way.
//!
//! A table that is full refuses nobody who holds less than others. First goes what is worth nothing: connections that are over, then
//! denials. Then flows that were never answered, of the tenant that has most of them; a few, which may be connections on their way, are
//! left to a tenant that holds less than its share. Those that both sides have spoken in go only
//! where a tenant that holds less needs room, of the tenant that holds most, those first that were idle for longest: so that a tenant
//! which answers itself has its share and no more.

use offload_rules::{DropReason, flow::FlowKey, flow::tcp::TcpPhase};

use super::{Tenant, env::Env, flag, flow_state::FlowState};
use crate::flow_table::{Class, Holder, InsertError, Record};

/// Flows that are looked at, at most, for one that gives way.
const LOOKS: u32 = 64;
/// Unanswered flows of a newcomer that are looked at, at most, whether they were answered.
const SETTLED: u32 = 32;

/// What the numbers of unanswered flows are taken for: some were answered since they were filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Those in question are looked at.
    AsLookedAt,
    /// There are too many to look at: unanswered flows are left alone.
    AsFiled,
}

impl Tenant {
    /// Whose a flow is that begins with this key.
    pub(super) const fn of(key: &FlowKey) -> Self {
        if key.vif.get() == offload_rules::VifId::TUNNEL.get() { Self::Vrf(key.vrf) } else { Self::Vif(key.vif) }
    }

    /// A number of its own, small where those of vifs and VRFs are.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Vif(vif) => vif.get() as u32 * 2,
            Self::Vrf(vrf) => vrf.get() as u32 * 2 + 1,
        }
    }
}

impl FlowState {
    /// Records that this worker may have. The table was made for the limit at the start; a lower one of a later state holds at once.
    pub(super) fn record_limit(&self, env: &Env) -> u32 {
        let share = env.snapshot.settings().max_flows / env.config.workers.max(1) as u32;
        share.max(64).min(self.flows.capacity())
    }

    /// Adds a pair. It takes the place of one that has its keys, and when there is no room, that of one that gives way to it.
    pub(super) fn insert(&mut self, env: &Env, forward: FlowKey, reverse: FlowKey) -> Result<(u32, u32), DropReason> {
        let holder = self.holdings.holder(Tenant::of(&forward).number());
        // A denial that gives way is one record; a pair needs two.
        for _ in 0..2 {
            if self.flows.len() + 2 > self.record_limit(env) && !self.make_room(env, holder) {
                return Err(DropReason::FlowTableFull);
            }
        }
        // Two, when a flow has the one key and another flow the other.
        for _ in 0..3 {
            match self.flows.insert_pair(forward, reverse) {
                Ok(slots) => {
                    self.holdings.file(slots.0, holder, Class::Unanswered, env.clock as u32);
                    return Ok(slots);
                }
                Err(InsertError::Exists(slot)) => self.remove_flow(slot),
                // More flows have this tuple, on different vifs, than the index takes: nobody else's flow would help.
                Err(InsertError::Full) => break,
            }
        }
        Err(DropReason::FlowTableFull)
    }

    /// Adds the record of a denial. Denials are cheap to find out again: the last eighth of the table is for traffic, and in the rest
    /// one gives way to that of a tenant that has fewer.
    pub(super) fn insert_denied(&mut self, env: &Env, key: FlowKey) -> Option<u32> {
        let holder = self.holdings.holder(Tenant::of(&key).number());
        let limit = self.record_limit(env);
        if self.flows.len() >= limit - limit / 8 {
            let most = self.holdings.most(Class::Denied)?;
            if self.holdings.count(most, Class::Denied) <= self.holdings.count(holder, Class::Denied) + 1 {
                return None;
            }
            let oldest = self.holdings.first(most, Class::Denied)?;
            self.remove_flow(oldest);
        }
        let slot = self.flows.insert_one(key).ok()?;
        self.holdings.file(slot, holder, Class::Denied, env.clock as u32);
        Some(slot)
    }

    /// Removes a flow that gives way to a new one of this holder, if one does.
    fn make_room(&mut self, env: &Env, newcomer: Holder) -> bool {
        if self.holdings.count(newcomer, Class::Unanswered) > self.allowance(env) {
            self.file_answered(newcomer);
        }
        for trust in [Trust::AsLookedAt, Trust::AsFiled] {
            let mut looks = LOOKS;
            while looks > 0 {
                // What was filed first may turn out to be something else: then another one is chosen.
                looks -= 1;
                let Some(whose) = self.who_gives_way(env, newcomer, trust) else { break };
                if let Some(slot) = self.gives_way(env, whose, &mut looks) {
                    self.remove_flow(slot);
                    return true;
                }
            }
        }
        self.remove_overdue(env, newcomer)
    }

    /// Whose flow gives way, and of which class.
    fn who_gives_way(&self, env: &Env, newcomer: Holder, trust: Trust) -> Option<(Holder, Class)> {
        let held = &self.holdings;
        for class in [Class::Over, Class::Denied] {
            if let Some(holder) = held.most(class) {
                return Some((holder, class));
            }
        }
        let own = held.count(newcomer, Class::Unanswered);
        if trust == Trust::AsLookedAt
            && let Some(holder) = held.most(Class::Unanswered)
            && held.count(holder, Class::Unanswered) > own
            && !self.is_protected(env, holder, newcomer)
        {
            return Some((holder, Class::Unanswered));
        }
        let holder = held.most_of_all().filter(|_| own <= self.allowance(env))?;
        let has_answered = held.count(holder, Class::Answered) > 0;
        let class = if has_answered { Class::Answered } else { Class::Unanswered };
        (held.total(holder) > held.total(newcomer) + 1).then_some((holder, class))
    }

    /// Flows that a tenant may have when all that hold some have as many.
    fn equal_share(&self, env: &Env) -> u32 {
        self.record_limit(env) / 2 / self.holdings.holding().max(2)
    }

    /// A few unanswered flows are connections on their way: they do not give way to a tenant that has its share and more.
    fn is_protected(&self, env: &Env, holder: Holder, newcomer: Holder) -> bool {
        let (share, has) = (self.equal_share(env), self.holdings.total(newcomer));
        let is_richer = has >= share && has > self.holdings.total(holder);
        is_richer && self.holdings.count(holder, Class::Unanswered) <= share / 2
    }

    /// Unanswered flows with which a tenant may still take the place of what others have established: two thirds of an equal share, so
    /// that a flood that nobody answers costs them no more.
    fn allowance(&self, env: &Env) -> u32 {
        self.equal_share(env) * 2 / 3
    }

    /// The flow of a holder and class that is of use for longest ago. `None`: those that were looked at are of another class by now.
    fn gives_way(&mut self, env: &Env, (holder, class): (Holder, Class), looks: &mut u32) -> Option<u32> {
        let mut first = None;
        while let Some(slot) = self.holdings.first(holder, class) {
            if *looks == 0 {
                break;
            }
            *looks -= 1;
            let Some(record) = self.flows.record(slot) else {
                self.holdings.take(slot, holder);
                continue;
            };
            let (is, seen) = (self.class_of(record), self.last_seen(record));
            if is != class {
                self.holdings.refile(slot, holder, is, seen);
                return None;
            }
            let is_newer = seen.wrapping_sub(self.holdings.at(slot)).cast_signed() > 0;
            if !is_newer || self.is_idle(env, slot) {
                return Some(slot);
            }
            // It was of use since it was filed: others are asked first.
            self.holdings.refile(slot, holder, class, seen);
            first = first.or(Some(slot));
        }
        // All that were looked at were of use lately.
        first.filter(|slot| self.holdings.filed(*slot) == Some(class))
    }

    /// Removes a flow that is over its time, if the oldest of those that could have given way are.
    fn remove_overdue(&mut self, env: &Env, newcomer: Holder) -> bool {
        let most = self.holdings.most_of_all().unwrap_or(newcomer);
        for holder in [newcomer, most] {
            for class in [Class::Unanswered, Class::Answered] {
                if let Some(slot) = self.holdings.first(holder, class)
                    && self.is_idle(env, slot)
                {
                    self.remove_flow(slot);
                    return true;
                }
            }
        }
        false
    }

    /// What would be lost with a flow.
    fn class_of(&self, record: &Record) -> Class {
        if record.flags & flag::DENIED != 0 {
            Class::Denied
        } else if matches!(self.phase(record), Some(TcpPhase::Dead | TcpPhase::Closed)) {
            Class::Over
        } else if self.is_one_sided(record) {
            Class::Unanswered
        } else {
            Class::Answered
        }
    }

    /// When the last packet of either side passed.
    fn last_seen(&self, record: &Record) -> u32 {
        let other = self.flows.record(record.reverse).map_or(record.last_seen, |other| other.last_seen);
        if other.wrapping_sub(record.last_seen).cast_signed() > 0 { other } else { record.last_seen }
    }

    /// Files a flow as what it is by now, when it is filed under this slot.
    pub(super) fn file_anew(&mut self, slot: u32) {
        let (Some(record), Some(known)) = (self.flows.record(slot), self.holdings.filed(slot)) else { return };
        let (is, seen) = (self.class_of(record), self.last_seen(record));
        if is != known
            && let Some(holder) = self.holder_of(slot)
        {
            self.holdings.refile(slot, holder, is, seen);
        }
    }

    /// Files a connection as what a segment of this direction has made of it.
    pub(super) fn file_connection(&mut self, env: &Env, slot: u32, back: u32, phase: TcpPhase) {
        let is = match phase {
            TcpPhase::Dead | TcpPhase::Closed => Class::Over,
            // This direction speaks now.
            _ if self.flows.record(back).is_some_and(|other| back != slot && other.packets > 0) => Class::Answered,
            _ => return,
        };
        for slot in [slot, back] {
            if let Some(known) = self.holdings.filed(slot)
                && known != is
                && known != Class::Denied
                && let Some(holder) = self.holder_of(slot)
            {
                self.holdings.refile(slot, holder, is, env.clock as u32);
            }
        }
    }

    /// Files anew those of a holder's unanswered flows that were answered since, as far as they are among the oldest.
    fn file_answered(&mut self, holder: Holder) {
        let mut next = self.holdings.first(holder, Class::Unanswered);
        for _ in 0..SETTLED {
            let Some(slot) = next else { return };
            next = self.holdings.after(slot);
            self.file_anew(slot);
        }
    }

    /// Is it time to know of each flow what it is?
    pub(super) fn is_crowded(&self, env: &Env) -> bool {
        let limit = self.record_limit(env);
        self.flows.len() >= limit - limit / 4
    }

    /// Whose the flow is that is filed under this slot: its key tells.
    pub(super) fn holder_of(&self, slot: u32) -> Option<Holder> {
        let record = self.flows.record(slot)?;
        self.holdings.known_holder(Tenant::of(&record.key).number())
    }

    /// The flow in this slot is filed no more, if it was.
    pub(super) fn take_out(&mut self, slot: u32) {
        if let Some(holder) = self.holder_of(slot) {
            self.holdings.take(slot, holder);
        }
    }

    /// A flow begins on another vif from now on; `before` is who held it.
    pub(super) fn change_holder(&mut self, slot: u32, before: Option<Holder>) {
        let (Some(class), Some(before)) = (self.holdings.filed(slot), before) else { return };
        let Some(key) = self.flows.record(slot).map(|record| record.key) else { return };
        let (holder, at) = (self.holdings.holder(Tenant::of(&key).number()), self.holdings.at(slot));
        self.holdings.take(slot, before);
        self.holdings.file(slot, holder, class, at);
    }
}
