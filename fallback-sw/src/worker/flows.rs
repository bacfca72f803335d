//! Flows of a worker: made, derived anew when what they depend on changes, removed.

use offload_rules::{
    DropReason, VifId,
    classify::{self, Checks, Decision, Ingress, Inquiry, Role, Start, Verdict},
    flow::{
        Choices, FlowKey, Program, SequenceShift,
        tcp::{TcpPhase, TcpState},
    },
};

use super::{
    ProgramId, TO_BE_DERIVED,
    context::Context,
    decisions::{Made, expected_ingress, walk_for_flow},
    env::Env,
    flag,
    flow_state::FlowState,
    leases::{self, Lease},
    tenant::{NeighbourKey, Tenant},
};
use crate::{flow_table::Record, packet::rewrite::entropy_port};

const TCP: u8 = 6;

/// Seconds that a pair is kept after a reset.
const DEAD_SECS: u32 = 5;

/// What became of a flow that was derived anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derived {
    /// It has a program.
    Runs,
    /// A neighbour is needed, by what passes the checks.
    Needs(NeighbourKey, Checks),
    /// It may not, or cannot, be forwarded any more.
    Refused(DropReason),
}

impl FlowState {
    /// Makes a flow of a decision. The pair takes the place of one that has its reverse key. Both directions get the bits
    /// `flags` of [`flag`].
    pub(super) fn install(&mut self, env: &Env, context: &Context, made: Made, flags: u8) -> Result<u32, DropReason> {
        let forward = context.key;
        let (reverse, egress) = match &made {
            Made::Kept(shared) => (shared.reverse_key(&forward), shared.egress),
            Made::Walked(decision, _) => (decision.reverse_key, expected_ingress(&decision.program)),
        };
        let (slot, back) = match self.insert(env, forward, reverse) {
            Ok(slots) => slots,
            Err(reason) => {
                self.discard_made(&made);
                return Err(reason);
            }
        };
        // Before there are programs: they depend on it.
        let sample = self.candidate(forward.proto, flags);
        let entropy = |key: &FlowKey| env.config.entropy.unwrap_or_else(|| entropy_port(key.spread() as u32));
        let ports = [entropy(&forward), entropy(&reverse)];
        for (slot, side, port) in [(slot, flag::INITIATOR, ports[0]), (back, 0, ports[1])] {
            if let Some(record) = self.flows.record_mut(slot) {
                record.flags |= flags | side | sample;
                record.last_seen = env.clock as u32;
                record.tunnel_sport = port;
            }
            self.flows.set_created(slot, env.clock as u32);
        }
        self.set_decision(env, slot, made, context.ingress());
        if slot != back
            && let Some(egress) = egress
        {
            // When it cannot be derived yet (a neighbour is missing), its first packet does it.
            self.derive(env, back, egress);
        }
        Ok(slot)
    }

    /// Remembers that the policy denies a flow.
    pub(super) fn install_denied(&mut self, env: &Env, context: &Context, program: Program) {
        let Some(slot) = self.insert_denied(env, context.key) else { return };
        let id = self.programs.intern(program, context.key.vrf, &env.snapshot);
        self.programs.used_by(id, [context.key.vrf; 2]);
        let version = env.version;
        let sample = self.candidate(context.key.proto, 0);
        if let Some(record) = self.flows.record_mut(slot) {
            record.program = id;
            record.version = version;
            record.flags = flag::INITIATOR | flag::DENIED | sample;
            record.last_seen = env.clock as u32;
            remember_ingress(record, context.ingress());
        }
        self.flows.set_created(slot, env.clock as u32);
    }

    /// TCP's phase of a record's pair; `None` for other protocols.
    pub(super) fn phase(&self, record: &Record) -> Option<TcpPhase> {
        if record.key.proto != TCP {
            return None;
        }
        let other = self.flows.record(record.reverse).map_or(0, |other| other.tcp);
        Some(TcpPhase::of(TcpState::from_bits(record.tcp), TcpState::from_bits(other)))
    }

    /// Removes both directions.
    pub(super) fn remove_flow(&mut self, slot: u32) {
        let Some(record) = self.flows.record(slot) else { return };
        let back = record.reverse;
        self.forget(slot);
        if back != slot && self.flows.record(back).is_some() {
            self.forget(back);
        }
        self.take_out(slot);
        self.take_out(back);
        self.flows.remove_pair(slot);
    }

    /// Gives back what a record holds.
    fn forget(&mut self, slot: u32) {
        self.leave_half_open(slot);
        self.offload_removed(slot);
        self.give_back_leases(slot);
        let Some(record) = self.flows.record_mut(slot) else { return };
        let opening = record.flags & flag::OPENING != 0;
        let program = std::mem::replace(&mut record.program, TO_BE_DERIVED);
        self.release_program(program);
        if opening {
            self.openings.remove(slot);
        }
    }

    /// Gives back what the direction in this slot holds.
    fn give_back_leases(&mut self, slot: u32) {
        let first = self.flows.binding(slot).leases;
        if first == leases::NONE {
            return;
        }
        if let Some(binding) = self.flows.binding_mut(slot) {
            binding.leases = leases::NONE;
        }
        self.leases.give_back(first, Lease::give_back);
    }

    /// Gives back a program that a record no longer runs.
    pub(super) fn release_program(&mut self, program: u32) {
        if program == TO_BE_DERIVED {
            return;
        }
        if let Some(last) = self.programs.release(program) {
            last.count_into(&mut self.released);
        }
    }

    /// Counts a flow as half-open for the tenant that its SYN came from.
    pub(super) fn enter_half_open(&mut self, slot: u32) {
        let Some(record) = self.flows.record_mut(slot) else { return };
        record.flags |= flag::HALF_OPEN;
        let number = Tenant::of(&record.key).number() as usize;
        if self.half_open.len() <= number {
            self.half_open.resize(number + 1, 0);
        }
        if let Some(count) = self.half_open.get_mut(number) {
            *count += 1;
        }
    }

    /// It is half-open no more.
    pub(super) fn leave_half_open(&mut self, slot: u32) -> bool {
        let Some(record) = self.flows.record_mut(slot) else { return false };
        if record.flags & flag::HALF_OPEN == 0 {
            return false;
        }
        record.flags &= !flag::HALF_OPEN;
        if let Some(count) = self.half_open.get_mut(Tenant::of(&record.key).number() as usize) {
            *count = count.saturating_sub(1);
        }
        true
    }

    /// How many half-open flows a tenant has.
    pub(super) fn half_open(&self, tenant: Tenant) -> u32 {
        self.half_open.get(tenant.number() as usize).copied().unwrap_or(0)
    }

    /// A flow that the policy denied, decided on something that has changed since?
    pub(super) fn is_stale_denial(&self, env: &Env, slot: u32) -> bool {
        self.flows.record(slot).is_some_and(|record| record.flags & flag::DENIED != 0 && !self.is_current(env, record))
    }

    /// Is what a record runs what a walk would end in now?
    pub(super) fn is_current(&self, env: &Env, record: &Record) -> bool {
        record.flags & flag::STALE == 0
            && self.programs.is_current(record.program)
            && (self.following.is_done() || !self.following.concern(&self.programs, record, env.version))
    }

    /// A decision is not used after all.
    fn discard_made(&mut self, made: &Made) {
        if let Made::Kept(shared) = made {
            self.release_program(shared.program);
        }
    }

    /// Stores a decision in a record.
    fn set_decision(&mut self, env: &Env, slot: u32, made: Made, ingress: Ingress) {
        let Some(record) = self.flows.record(slot) else { return self.discard_made(&made) };
        let (decision, basis) = match made {
            Made::Kept(shared) => return self.set_program(env, slot, shared.program, shared.choices, ingress),
            Made::Walked(decision, basis) => (*decision, basis),
        };
        let Decision { mut program, choices, reverse_key } = decision;
        let shift = splice_of(record);
        if let Some(shift) = shift {
            program.splice(shift);
        }
        let (from, back) = (record.key.vrf, record.reverse);
        let back = self.flows.record(back).map_or(from, |other| other.key.vrf);
        let id = self.programs.intern(program, from, &env.snapshot);
        self.programs.used_by(id, [from, back]);
        if let (Some(basis), None) = (basis, shift) {
            self.keep_decision(basis, id, choices, &reverse_key);
        }
        self.set_program(env, slot, id, choices, ingress);
    }

    /// Stores a program in a record, which is counted as one that runs it.
    fn set_program(&mut self, env: &Env, slot: u32, id: ProgramId, choices: Choices, ingress: Ingress) {
        let (Some(record), Some(entry)) = (self.flows.record(slot), self.programs.get(id)) else { return };
        let same_bytes = record.program == id
            || self.programs.get(record.program).is_some_and(|kept| kept.program.ops == entry.program.ops);
        let draws = entry.plan.is_tunnel() && record.ip_id == 0;
        let drawn = if draws { self.ip_ids.next_of_flow() } else { 0 };
        let (version, entropy) = (env.version, env.config.entropy);
        let Some(record) = self.flows.record_mut(slot) else { return };
        if draws {
            record.ip_id = drawn;
        }
        let old = std::mem::replace(&mut record.program, id);
        record.version = version;
        if record.tunnel_sport == 0 {
            record.tunnel_sport = entropy.unwrap_or_else(|| entropy_port(record.key.spread() as u32));
        }
        record.ecmp = choices.ecmp.map(|slot| slot.unwrap_or(0xff));
        remember_ingress(record, ingress);
        self.release_program(old);
        if !same_bytes {
            self.note_change(env, slot);
        }
        if old != id {
            self.offload_changed(slot);
        }
    }

    /// What the packets of a direction become is another thing from now on.
    fn note_change(&mut self, env: &Env, slot: u32) {
        self.flows.set_changed(slot, env.clock as u32);
    }

    /// Derives the program of a direction whose packets come in at `ingress`, with the choices that it has. The flow stays as it
    /// is, without a program, when that is not possible.
    pub(super) fn derive(&mut self, env: &Env, slot: u32, ingress: Ingress) -> Derived {
        let Some(record) = self.flows.record_mut(slot) else { return Derived::Refused(DropReason::InvalidNh) };
        record.flags &= !flag::STALE;
        self.derivations += 1;
        let key = record.key;
        let (program, back) = (record.program, record.reverse);
        let prior = Choices { ecmp: record.ecmp.map(|slot| (slot != 0xff).then_some(slot)) };
        let initiator = record.flags & flag::INITIATOR != 0;
        let is_spliced = splice_of(record).is_some();
        let other = self.flows.record(back).filter(|_| back != slot);
        let role = match other {
            Some(other) if !initiator => Role::Responder(other.key),
            _ => Role::Initiator,
        };
        let other_ingress =
            other.filter(|other| other.packets > 0 || other.flags & flag::INITIATOR != 0).and_then(ingress_of);
        let inquiry = Inquiry {
            key: &key,
            service_port: service_port(&key, initiator),
            ingress,
            start: Start::Route,
            role,
            prior,
            other_ingress,
            hash: key.spread(),
        };
        let other_vrf = other.map_or(key.vrf, |other| other.key.vrf);
        let vacancy = if is_spliced {
            None
        } else {
            match self.recall(env, &inquiry, other_vrf) {
                Ok(shared) => {
                    self.set_program(env, slot, shared.program, shared.choices, ingress);
                    return Derived::Runs;
                }
                Err(vacancy) => vacancy,
            }
        };
        let (verdict, basis) = walk_for_flow(&env.snapshot, &inquiry, vacancy);
        match verdict {
            Verdict::Forward(decision) => {
                self.set_decision(env, slot, Made::Walked(decision, basis), ingress);
                Derived::Runs
            }
            Verdict::Resolve { vif, target, checks } => {
                self.drop_program(slot, program);
                Derived::Needs((vif, target), checks)
            }
            Verdict::AnswerEcho => {
                self.drop_program(slot, program);
                Derived::Refused(DropReason::NoListener)
            }
            Verdict::Drop { reason, acl: Some(_) } => {
                let denial = classify::drop_program(&env.snapshot, &inquiry, reason);
                let id = self.programs.intern(denial, key.vrf, &env.snapshot);
                self.programs.used_by(id, [key.vrf, other_vrf]);
                let version = env.version;
                if let Some(record) = self.flows.record_mut(slot) {
                    record.program = id;
                    record.version = version;
                    // A later change is followed without a packet, too.
                    remember_ingress(record, ingress);
                }
                self.note_change(env, slot);
                self.release_program(program);
                self.offload_changed(slot);
                Derived::Runs
            }
            Verdict::Drop { reason, acl: None } => {
                self.drop_program(slot, program);
                Derived::Refused(reason)
            }
        }
    }

    fn drop_program(&mut self, slot: u32, program: u32) {
        if let Some(record) = self.flows.record_mut(slot) {
            record.program = TO_BE_DERIVED;
        }
        if program != TO_BE_DERIVED {
            self.release_program(program);
            self.offload_changed(slot);
        }
    }

    /// Brings a record up to the snapshot in force: kept when nothing that it depends on has changed, else derived anew.
    pub(super) fn refresh(&mut self, env: &Env, slot: u32, ingress: Ingress) -> Derived {
        match self.flows.record(slot) {
            Some(record) if self.is_current(env, record) => Derived::Runs,
            Some(_) => self.derive(env, slot, ingress),
            None => Derived::Refused(DropReason::InvalidNh),
        }
    }

    /// Packets have come in one direction only.
    pub(super) fn is_one_sided(&self, record: &Record) -> bool {
        record.packets == 0 || self.flows.record(record.reverse).is_some_and(|other| other.packets == 0)
    }

    /// Idle for longer than its protocol and state allow?
    pub(super) fn is_idle(&self, env: &Env, slot: u32) -> bool {
        let Some(record) = self.flows.record(slot) else { return false };
        let timeouts = &env.snapshot.settings().timeouts;
        let seconds = match (record.key.proto, self.phase(record)) {
            _ if record.flags & flag::DENIED != 0 => timeouts.other.min(timeouts.icmp),
            (_, Some(TcpPhase::Opening)) => timeouts.tcp_opening,
            // Found in the middle and never answered: a flood of ACKs must not hold the table for hours.
            (_, Some(TcpPhase::Established)) if self.is_one_sided(record) => timeouts.tcp_opening,
            (_, Some(TcpPhase::Established)) => timeouts.tcp_established,
            (_, Some(TcpPhase::Closing)) => timeouts.tcp_closing,
            (_, Some(TcpPhase::Closed)) => timeouts.tcp_closed,
            // What is still on its way must not begin the flow anew.
            (_, Some(TcpPhase::Dead)) => DEAD_SECS.min(timeouts.tcp_closed),
            (17, None) => timeouts.udp,
            (1 | 58, None) => timeouts.icmp,
            (_, None) => timeouts.other,
        };
        let limit = seconds.saturating_mul(1000);
        let idle = |record: &Record| (env.clock as u32).wrapping_sub(record.last_seen) >= limit;
        idle(record) && self.flows.record(record.reverse).is_none_or(idle)
    }
}

/// The shift that a direction of a spliced flow needs beside what the walk says.
fn splice_of(record: &Record) -> Option<SequenceShift> {
    match record.flags & (flag::SPLICED | flag::INITIATOR) {
        flag::SPLICED => Some(SequenceShift::Sequence),
        0 | flag::INITIATOR => None,
        _ => Some(SequenceShift::Acknowledgement),
    }
}

/// Where the packets of a record came in last.
pub(super) fn ingress_of(record: &Record) -> Option<Ingress> {
    if record.key.vif != VifId::TUNNEL {
        return Some(Ingress { vif: record.key.vif, tunnel: None });
    }
    let vif = VifId::new(u32::from(record.underlay_vif)).ok()?;
    Some(Ingress { vif, tunnel: Some(record.rpf_source.into()) })
}

pub(super) fn remember_ingress(record: &mut Record, ingress: Ingress) {
    match ingress.tunnel {
        Some(outer) => {
            record.rpf_source = outer.octets();
            record.underlay_vif = ingress.vif.get();
        }
        None => (record.rpf_source, record.underlay_vif) = ([0; 4], 0),
    }
}

/// The port that listeners and lists look at, when only the key is at hand: an echo's key holds no type.
fn service_port(key: &FlowKey, initiator: bool) -> u16 {
    match (key.version, key.proto, key.dport) {
        (4, 1, 0) => {
            if initiator {
                8
            } else {
                0
            }
        }
        (6, 58, 0) => {
            if initiator {
                128
            } else {
                129
            }
        }
        (_, _, port) => port,
    }
}
