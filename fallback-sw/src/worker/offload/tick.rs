//! What time and changes of the forwarding state do to offloaded flows.

use offload_rules::{flow::Dependency, forwarding::VersionChanges, lower::NotOffloaded};

use crate::worker::{env::Env, flag, flow_state::FlowState};
use offload_engine::protocol::{Request, Tier};

/// Entries looked at in one tick after a change of the forwarding state, before anything else is swept.
const SWEEP: u32 = 4096;
/// Entries looked at when the change comes in; packets wait meanwhile.
const FIRST: u32 = 256;
/// Reviews that were called for at a time, in one tick.
const DUE: usize = 4096;
/// Entries whose rate is looked at in one tick.
const PACED: u64 = 8192;
/// Milliseconds between two looks at a rate.
const PACE_MS: u64 = 1000;
/// Packets in software, while a NIC that carries the flow counts none, that make it worth a look how they arrive.
const STRAY: u64 = 64;

impl FlowState {
    /// The forwarding state has changed: what is in hardware by a program that is stale is reviewed before anything else. All flows
    /// are, when what they arrive by has changed.
    pub(in crate::worker) fn sweep_offloads(&mut self, env: &Env, changes: &[VersionChanges]) {
        if !self.offloads.present {
            return;
        }
        let is_used = |object: &Dependency| self.offloads.arrives_by(object);
        if changes.iter().any(|version| version.touches_ends() || version.touches(is_used)) {
            self.offloads.sweep_all();
        }
        self.sweep_on(env, FIRST);
    }

    /// Reviews all entries, now.
    pub(in crate::worker) fn sweep_all_offloads(&mut self, env: &Env) {
        self.offloads.sweep_all();
        while self.offloads.sweep.1 > 0 || !self.offloads.listed.is_empty() {
            self.sweep_on(env, SWEEP);
        }
    }

    pub(in crate::worker) fn tick_offloads(&mut self, env: &Env) {
        if !self.offloads.present {
            return;
        }
        self.sweep_on(env, SWEEP);
        self.offloads.call_due(env.clock, DUE);
        self.pace_all(env);
    }

    fn sweep_on(&mut self, env: &Env, step: u32) {
        self.offloads.listed.extend(self.programs.take_asked());
        let mut step = step;
        while step > 0
            && let Some(list) = self.offloads.listed.last_mut()
        {
            match list.pop() {
                Some(index) => {
                    self.review(env, index);
                    step -= 1;
                }
                None => _ = self.offloads.listed.pop(),
            }
        }
        let len = self.offloads.len();
        let (mut at, left) = self.offloads.sweep;
        let step = step.min(left);
        for _ in 0..step {
            at = if at >= len { 0 } else { at };
            self.review(env, at);
            at += 1;
        }
        self.offloads.sweep = (at, left - step);
    }

    /// Looks at the rates of as many entries as is due, so that each has its turn about once a second.
    fn pace_all(&mut self, env: &Env) {
        let len = self.offloads.len();
        let (from, since) = self.offloads.paced;
        if len == 0 {
            return;
        }
        let elapsed = env.clock.saturating_sub(since).min(PACE_MS);
        let step = (u64::from(len) * elapsed).div_ceil(PACE_MS).min(PACED).min(u64::from(len)) as u32;
        let mut index = from;
        for _ in 0..step {
            index = if index >= len { 0 } else { index };
            self.pace(env, index);
            index += 1;
        }
        self.offloads.paced = (index, env.clock);
    }

    fn pace(&mut self, env: &Env, index: u32) {
        let Some(entry) = self.offloads.get(index).filter(|entry| !entry.orphan) else { return };
        let (bytes, packets) = self.carried(entry);
        let Some(id) = self.offloads.id(index) else { return };
        let Some(entry) = self.offloads.get_mut(index) else { return };
        let hardware = entry.total.iter().map(|count| count.packets).sum();
        let last = entry.pace;
        let elapsed = env.clock.saturating_sub(last.at);
        if last.at == 0 {
            (entry.pace.at, entry.pace.bytes) = (env.clock, bytes);
            (entry.pace.packets, entry.pace.hardware) = (packets, hardware);
            return;
        }
        // Each entry's own second, not the round's: rounds are uneven.
        if elapsed < PACE_MS * 9 / 10 {
            return;
        }
        let rate = bytes.saturating_sub(last.bytes).saturating_mul(1000) / elapsed;
        entry.pace = super::slab::Pace { at: env.clock, bytes, packets, hardware, rate, told: last.told };
        if entry.closing {
            return;
        }
        let waits = matches!(entry.tier, Tier::Software | Tier::Pending)
            && entry.installs > 0
            && entry.reason != Some(NotOffloaded::Off);
        if waits && rate.abs_diff(last.told) > last.told / 10 {
            entry.pace.told = rate;
            self.offloads.requests.push(Request::Rate { id, rate });
            return;
        }
        let counted = hardware - last.hardware.min(hardware);
        let by_software = packets.saturating_sub(last.packets).saturating_sub(counted);
        if entry.tier == Tier::Hardware && counted == 0 && by_software >= STRAY {
            (entry.watch.strange, entry.watch.counted) = ([0; 2], [false; 2]);
            let slot = entry.slot;
            self.watch(slot);
        }
    }

    /// Wants to see the packets of a flow that software still gets.
    pub(super) fn watch(&mut self, slot: u32) {
        let Some(back) = self.flows.record(slot).map(|record| record.reverse) else { return };
        for slot in [slot, back] {
            if let Some(record) = self.flows.record_mut(slot) {
                record.flags |= flag::SAMPLE;
            }
        }
    }
}
