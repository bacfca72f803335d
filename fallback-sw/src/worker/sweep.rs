//! What time does: flows age, flows are brought up to the snapshot without waiting for their packets, fragments and held packets
//! are given up.

use offload_rules::DropReason;

use super::{
    GiveUp, Outbox, TO_BE_DERIVED, Worker,
    env::Env,
    flag,
    flow_state::FlowState,
    flows::{Derived, ingress_of},
};

/// Flow records looked at in one tick, as long as nothing has to be done for them.
const STEP: u32 = 4096;
/// What it costs more to remove a flow or to derive it anew, in records looked at.
const CHANGE: u32 = 8;
/// Flow records looked at in one tick while each is compared with changed routes that are still being followed.
const COMPARED: u32 = STEP / 8;
/// Versions that a record may be behind.
const FAR: u32 = 1 << 30;

impl Worker {
    /// Lets time pass; to be called every few milliseconds. `now` is in milliseconds of the node's clock. Returns whether the
    /// whole flow table has been looked at since the last time it said so.
    pub fn tick(&mut self, now: u64, out: &mut Outbox) -> bool {
        self.env.clock = now;
        for delivery in self.waiting.fragments.expire(now) {
            self.drop_delivery(delivery, DropReason::FragmentTimeout, out);
        }
        let lost = self.waiting.reassembly.expire(now);
        self.count_lost(lost, DropReason::FragmentTimeout);
        let mut emit = self.pending.emit(&mut out.events, &mut out.spare);
        self.state.tick_openings(&self.env, &mut emit);
        self.run_pending(out);
        for neighbour in self.waiting.held.overdue(now) {
            self.give_up(neighbour, GiveUp::Unresolved, now, out);
        }
        self.ipsec.tick(&self.env, &mut self.pending.emit(&mut out.events, &mut out.spare));
        self.run_pending(out);
        self.routed.sweep(&mut self.state);
        self.state.follow_routes(&self.env);
        self.state.tick_offloads(&self.env);
        let step = if self.state.is_in_line() { STEP } else { COMPARED };
        let whole = self.state.sweep(&self.env, step);
        self.finish(out);
        whole
    }

    /// Brings the whole flow table up to the snapshot, now.
    pub fn sweep_all(&mut self, now: u64) {
        self.env.advance_clock(now);
        let Self { env, state, .. } = self;
        while !state.is_in_line() {
            state.follow_routes(env);
        }
        state.sweep_all_offloads(env);
        state.sweep_at = 0;
        while !state.sweep(env, STEP) {}
    }
}

impl FlowState {
    /// Looks at up to `step` flow records: removes idle ones, derives those anew that changes concern.
    fn sweep(&mut self, env: &Env, mut step: u32) -> bool {
        let is_crowded = self.is_crowded(env);
        while step > 0 {
            step -= 1;
            let Some(slot) = self.flows.next_occupied(self.sweep_at) else {
                self.sweep_at = 0;
                return true;
            };
            self.sweep_at = slot + 1;
            if self.is_idle(env, slot) {
                step = step.saturating_sub(CHANGE);
                self.remove_flow(slot);
                continue;
            }
            if is_crowded {
                self.file_anew(slot);
            }
            let Some(record) = self.flows.record(slot) else { continue };
            if record.program == TO_BE_DERIVED {
                continue;
            }
            if self.is_current(env, record) {
                self.keep_near(env, slot);
                continue;
            }
            step = step.saturating_sub(CHANGE);
            let denied = record.flags & flag::DENIED != 0;
            let Some(ingress) = ingress_of(record) else { continue };
            if denied {
                self.remove_flow(slot);
                continue;
            }
            if let Derived::Refused(_) = self.refresh(env, slot, ingress) {
                self.remove_flow(slot);
            }
        }
        false
    }

    /// Versions are kept in 32 bits: that of a record is not left so far behind that it would seem to be a new one.
    fn keep_near(&mut self, env: &Env, slot: u32) {
        if self.is_in_line()
            && let Some(record) = self.flows.record_mut(slot)
            && env.version.wrapping_sub(record.version) > FAR
        {
            record.version = env.version;
        }
    }
}
