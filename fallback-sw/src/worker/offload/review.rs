//! The one decision: what should the engine have of this flow, and what does it have?

use offload_rules::{
    classify::Ingress,
    flow::{Program, tcp::TcpPhase},
    lower::{Arrival, Direction, NotOffloaded, Unsupported, ingress_mtu, still_leads},
};
use std::sync::Arc;

use super::slab::{Entry, Pair};
use crate::{
    exec::{EspEgress, Target},
    flow_table::Record,
    worker::{
        env::Env,
        flag,
        flow_state::FlowState,
        flows::{Derived, ingress_of},
    },
};
use offload_engine::protocol::{Directions, Request, Tier};

const UDP: u8 = 17;
/// A flow of UDP that is never answered is asked for when it has lasted this many milliseconds and packets.
const ONE_WAY_MS: u64 = 1000;
const ONE_WAY_PACKETS: u64 = 32;
/// Milliseconds before a flow is asked for again whose rules had to go.
const SETTLE_MS: u64 = 1000;

/// What a flow should have.
enum Wanted {
    /// These rules.
    Rules(Directions),
    /// None, for now.
    Nothing(NotOffloaded),
}

impl FlowState {
    /// Compares what the engine was asked for with what it should be asked for, and asks for the difference.
    pub(super) fn review(&mut self, env: &Env, index: u32) {
        let Some(entry) = self.offloads.get_mut(index) else { return };
        if entry.closing {
            if std::mem::take(&mut entry.again) {
                self.offloads.close(index);
            }
            return;
        }
        let slot = entry.slot;
        let Some(record) = self.flows.record(slot).copied() else { return };
        if self.phase(&record).is_some_and(|phase| phase != TcpPhase::Established) {
            return self.withdraw(index, NotOffloaded::NotEstablished);
        }
        // A pair's other direction; a denied flow has none, and some flows are their own.
        let back = (record.reverse != slot && self.flows.record(record.reverse).is_some()).then_some(record.reverse);
        for slot in [Some(slot), back].into_iter().flatten() {
            if !self.bring_up(env, slot) {
                // Gone with its entry, or as soon as the engine is done with it.
                return self.remove_flow(slot);
            }
        }
        self.check_arrivals(env, index, slot, back);
        if self.is_as_asked(env, index, slot, back) {
            return;
        }
        let wanted = self.wanted(env, index, slot, back);
        self.ask_for(env, index, wanted);
    }

    /// Brings a direction up to the snapshot in force; false when its flow may not go on.
    fn bring_up(&mut self, env: &Env, slot: u32) -> bool {
        let Some(record) = self.flows.record(slot) else { return false };
        if record.flags & flag::DENIED != 0 {
            return !self.is_stale_denial(env, slot);
        }
        let Some(ingress) = ingress_of(record) else { return true };
        !matches!(self.refresh(env, slot, ingress), Derived::Refused(_))
    }

    /// Forgets arrivals that lead to the flow no more, and wants to see another packet of those directions.
    fn check_arrivals(&mut self, env: &Env, index: u32, slot: u32, back: Option<u32>) {
        let snapshot = Arc::clone(&env.snapshot);
        let slots = [Some(slot), back];
        let Some(entry) = self.offloads.get_mut(index) else { return };
        for (arrival, slot) in entry.arrivals.iter_mut().zip(slots) {
            let Some(record) = slot.and_then(|slot| self.flows.record_mut(slot)) else { continue };
            if let Some(known) = arrival
                && !(comes_by(known, record) && still_leads(&snapshot, known, &record.key))
            {
                *arrival = None;
            }
            if arrival.is_none() {
                record.flags |= flag::SAMPLE;
            }
        }
    }

    /// The usual case, told without building anything: the same programs, the same arrivals, and the engine has been told.
    fn is_as_asked(&self, env: &Env, index: u32, slot: u32, back: Option<u32>) -> bool {
        let Some(entry) = self.offloads.get(index) else { return true };
        let Some(asked) = entry.asked() else { return false };
        if entry.again || entry.reason == Some(NotOffloaded::Off) {
            return false;
        }
        let slots = [Some(slot), back];
        asked.iter().zip(slots).zip(&entry.arrivals).all(|((asked, slot), arrival)| match (asked, slot) {
            (Some(asked), Some(slot)) => {
                let same = |record: &Record| {
                    let still_sealed = |entry: &crate::worker::programs::Entry| {
                        entry.plan.seal.as_deref().is_none_or(|egress| self.offloads.is_sealed_by_nic(egress.tunnel))
                    };
                    let program = self.programs.get(record.program);
                    record.key == asked.key
                        && (record.tunnel_sport, record.ip_id) == (asked.tunnel_sport, asked.ip_id)
                        && program
                            .is_some_and(|entry| Arc::ptr_eq(&entry.program, &asked.program) && still_sealed(entry))
                };
                arrival.is_some_and(|arrival| arrival == asked.arrival)
                    && self.flows.record(slot).is_some_and(same)
                    && ingress_mtu(&env.snapshot, &asked.arrival) == asked.ingress_mtu
                    && asked.program.egress().map(|vif| env.snapshot.port_of(vif)) == asked.egress_port
            }
            (None, None) => true,
            _ => false,
        })
    }

    fn wanted(&mut self, env: &Env, index: u32, slot: u32, back: Option<u32>) -> Wanted {
        let Some(entry) = self.offloads.get(index) else { return Wanted::Nothing(NotOffloaded::OneSided) };
        let [first, second] = entry.arrivals;
        let one_sided = Wanted::Nothing(NotOffloaded::OneSided);
        let (Some(first), Some(record)) = (first, self.flows.record(slot)) else { return one_sided };
        let forward = match self.direction(env, record, first) {
            Ok(direction) => direction,
            Err(reason) => return Wanted::Nothing(reason),
        };
        let Some(back) = back else { return Wanted::Rules(Arc::new([Some(forward), None])) };
        let Some(reverse) = self.flows.record(back) else { return one_sided };
        if let Some(second) = second {
            return match self.direction(env, reverse, second) {
                Ok(reverse) => Wanted::Rules(Arc::new([Some(forward), Some(reverse)])),
                Err(reason) => Wanted::Nothing(reason),
            };
        }
        if record.key.proto != UDP || reverse.packets > 0 {
            return one_sided;
        }
        let age = u64::from((env.clock as u32).wrapping_sub(self.flows.times(slot).created));
        if record.packets >= ONE_WAY_PACKETS && age >= ONE_WAY_MS {
            return Wanted::Rules(Arc::new([Some(forward), None]));
        }
        self.offloads.call_at(index, env.clock + ONE_WAY_MS);
        one_sided
    }

    /// One direction as it should be.
    fn direction(&self, env: &Env, record: &Record, arrival: Arrival) -> Result<Direction, NotOffloaded> {
        let entry = self.programs.get(record.program).ok_or(NotOffloaded::Changing)?;
        let egress_port = match entry.plan.target {
            Target::Output { port, .. } => Some(port),
            Target::Punt { .. } => return Err(NotOffloaded::Unsupported(Unsupported::Punt)),
            Target::Seal => {
                let sealed = |egress: &&EspEgress| self.offloads.is_sealed_by_nic(egress.tunnel);
                let egress = entry.plan.seal.as_deref().filter(sealed);
                Some(egress.ok_or(NotOffloaded::Unsupported(Unsupported::Ipsec))?.port)
            }
            Target::Drop(_) => None,
        };
        Ok(Direction {
            key: record.key,
            arrival,
            program: Arc::clone(&entry.program),
            egress_port,
            ingress_mtu: ingress_mtu(&env.snapshot, &arrival),
            tunnel_sport: record.tunnel_sport,
            ip_id: record.ip_id,
        })
    }

    fn ask_for(&mut self, env: &Env, index: u32, wanted: Wanted) {
        let on = self.offloads.on;
        let Some(entry) = self.offloads.get_mut(index) else { return };
        let rules = match wanted {
            Wanted::Rules(rules) => rules,
            Wanted::Nothing(reason) if entry.asked.is_some() => {
                entry.rest_until = entry.rest_until.max(env.clock + SETTLE_MS);
                let reason = if reason == NotOffloaded::OneSided { NotOffloaded::Changing } else { reason };
                return self.withdraw(index, reason);
            }
            Wanted::Nothing(reason) => {
                entry.reason = Some(reason);
                return;
            }
        };
        if let Some(asked) = entry.asked() {
            let was_off = entry.reason == Some(NotOffloaded::Off) && entry.tier == Tier::Software;
            if same(asked, &rules) && !entry.again && !was_off {
                // What the counts are added to may have changed all the same.
                entry.asked = Some(rules);
                return self.remember_asked(index);
            }
            if !same_action(asked, &rules) {
                // Permitted or denied: never the one by the rules of the other.
                return self.withdraw(index, NotOffloaded::Changing);
            }
        }
        if !on {
            entry.reason = Some(NotOffloaded::Off);
            return;
        }
        if env.clock < entry.rest_until {
            let at = entry.rest_until;
            return self.offloads.call_at(index, at);
        }
        self.install_rules(env, index, rules);
    }

    /// Asks for rules.
    fn install_rules(&mut self, env: &Env, index: u32, rules: Directions) {
        let rate = self.rate(env, index);
        let Some(id) = self.offloads.id(index) else { return };
        let Some(entry) = self.offloads.get_mut(index) else { return };
        entry.again = false;
        entry.installs = entry.installs.saturating_add(1);
        if !matches!(entry.tier, Tier::Hardware | Tier::Partial) {
            (entry.tier, entry.reason) = (Tier::Pending, Some(NotOffloaded::Pending));
        }
        entry.pace.told = rate;
        // What comes by software proves nothing until the answer.
        entry.watch.since = u64::MAX;
        entry.asked = Some(Arc::clone(&rules));
        self.offloads.requests.push(Request::Install { id, directions: rules, rate });
        self.remember_asked(index);
    }

    /// A flow's programs find it when they become stale.
    fn remember_asked(&mut self, index: u32) {
        let Some(slot) = self.offloads.get(index).map(|entry| entry.slot) else { return };
        let Some(first) = self.flows.record(slot).copied() else { return };
        let second = self.flows.record(first.reverse).filter(|_| first.reverse != slot).map(|record| record.program);
        let offloads = &self.offloads;
        let has = |index: u32, program: &Arc<Program>| {
            let asked = offloads.get(index).and_then(Entry::asked);
            asked.is_some_and(|asked| asked.iter().flatten().any(|direction| Arc::ptr_eq(&direction.program, program)))
        };
        for program in [Some(first.program), second].into_iter().flatten() {
            self.programs.asked_by(program, index, has);
        }
    }

    /// Takes back what was asked for.
    fn withdraw(&mut self, index: u32, reason: NotOffloaded) {
        let Some(entry) = self.offloads.get_mut(index) else { return };
        entry.reason = Some(reason);
        if entry.installs == 0 {
            // The engine knows nothing of it.
            entry.asked = None;
            entry.again = false;
            return;
        }
        self.offloads.close(index);
    }

    /// Octets a second of both directions, as far as is known; over one second at least.
    fn rate(&self, env: &Env, index: u32) -> u64 {
        let Some(entry) = self.offloads.get(index) else { return 0 };
        if entry.pace.at != 0 && entry.pace.rate != 0 {
            return entry.pace.rate;
        }
        if self.flows.record(entry.slot).is_none() {
            return 0;
        }
        let age = u64::from((env.clock as u32).wrapping_sub(self.flows.times(entry.slot).created)).max(1000);
        self.carried(entry).0.saturating_mul(1000) / age
    }

    /// Octets and packets of both directions.
    pub(super) fn carried(&self, entry: &Entry) -> (u64, u64) {
        let Some(record) = self.flows.record(entry.slot) else { return (0, 0) };
        let other = self.flows.record(record.reverse).filter(|_| record.reverse != entry.slot);
        let (bytes, packets) = other.map_or((0, 0), |other| (other.bytes, other.packets));
        (record.bytes.saturating_add(bytes), record.packets.saturating_add(packets))
    }
}

/// Does the record expect its packets where this one arrived?
fn comes_by(arrival: &Arrival, record: &Record) -> bool {
    let tunnel = arrival.tunnel.map(|tunnel| tunnel.source);
    ingress_of(record) == Some(Ingress { vif: arrival.vif, tunnel })
}

/// Would the rules be the same?
fn same(asked: &Pair<Option<Direction>>, wanted: &Pair<Option<Direction>>) -> bool {
    asked.iter().zip(wanted).all(|pair| match pair {
        (Some(asked), Some(wanted)) => {
            asked.key == wanted.key
                && asked.arrival == wanted.arrival
                && asked.program.ops == wanted.program.ops
                // The rule would be the same, but what it counts belongs elsewhere from now on.
                && asked.program.passes == wanted.program.passes
                && asked.egress_port == wanted.egress_port
                && asked.ingress_mtu == wanted.ingress_mtu
                && (asked.tunnel_sport, asked.ip_id) == (wanted.tunnel_sport, wanted.ip_id)
        }
        (None, None) => true,
        _ => false,
    })
}

/// Does each direction that has rules go on as before, forwarded or dropped, where the same packets come in?
fn same_action(asked: &Pair<Option<Direction>>, wanted: &Pair<Option<Direction>>) -> bool {
    asked.iter().zip(wanted).all(|pair| match pair {
        (Some(asked), Some(wanted)) => asked.program.drops().is_some() == wanted.program.drops().is_some(),
        (Some(_), None) => false,
        (None, _) => true,
    })
}
