//! A new snapshot: the worker does what its changes ask for, and nothing for what they do not concern.
//!
//! Programs that depend on a changed object are stale as a whole. A changed route concerns flows by their addresses: the table finds
//! those that it covers by their destination, and each pair's other direction by its source. So it does those that changed entries of
//! an access list cover: see `lists.rs`. What is stale is derived anew by its
//! next packet or by [`Worker::tick`], and before any packet where a NIC has it, up to a bound: see `offload/tick.rs`.
//!
//! Routes that are too many to be followed at once are followed by the ticks after. Until that is done, each flow that is about to be
//! used is compared with them.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use offload_rules::{
    VrfId,
    flow::{Dependency, FlowKey, Program},
    forwarding::{Snapshot, VersionChanges},
};

use super::{
    Delivery, Outbox, Programs, TO_BE_DERIVED, Worker, env::Env, flag, flow_state::FlowState, readers::has_longer_match,
};
use crate::flow_table::Record;

/// Groups of records and records that one changed prefix may cover. When it covers more, all flows are stale that have looked their
/// addresses up in its VRF.
pub(super) const MOST: usize = 4096;
/// What is done for changed routes in each tick, in units of some 10 ns: 0.2 ms, and as much again for the last prefix.
const EACH_TICK: usize = 20_000;
/// The same when a snapshot comes in, while packets wait: as many records are marked as one prefix may cover, because rules of a NIC are to
/// follow before any packet.
const AT_ONCE: usize = MOST * (cost::COVERED + cost::MARK) + cost::PREFIX;

/// What the steps of following a changed route cost, in units. Records are in memory that no cache holds.
mod cost {
    /// A prefix that covers nothing, as the one before it has shown.
    pub(super) const PASS: usize = 1;
    /// To look up a prefix.
    pub(super) const PREFIX: usize = 40;
    /// A group of records, or a record of one.
    pub(super) const COVERED: usize = 8;
    /// To look at a record, and to mark it.
    pub(super) const MARK: usize = 30;
}

/// Versions whose routes are followed by ticks. Beyond, all flows are stale that have looked their addresses up in their VRFs.
const WAITING: usize = 16;

/// Changed routes that have not been followed to the end.
#[derive(Debug)]
struct Unfinished {
    changes: VersionChanges,
    /// Low bits of the version of the snapshot that was adopted with them: what is derived from that or a later one has seen them.
    version: u32,
    /// How many of the prefixes are done.
    done: usize,
    /// The last one that was looked up, and the records that it covers and that are still to be marked.
    covering: (VrfId, IpNet),
    slots: Vec<u32>,
}

/// The changed routes that a worker still follows, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Following {
    waiting: VecDeque<Unfinished>,
}

impl Following {
    /// All are followed to the end.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Has one of the routes changed that a record's program was derived by? `now` is the version in force.
    #[cold]
    pub(super) fn concern(&self, programs: &Programs, record: &Record, now: u32) -> bool {
        let Some(entry) = programs.get(record.program) else { return false };
        let mut newer = self.waiting.iter().filter(|unfinished| is_before(record.version, unfinished.version, now));
        newer.any(|unfinished| has_looked_up(&entry.program, &record.key, &unfinished.changes))
    }
}

/// Is one version before another? All are low bits; `now` is the version in force, which is before none.
const fn is_before(one: u32, other: u32, now: u32) -> bool {
    now.wrapping_sub(one) > now.wrapping_sub(other)
}

/// Do all addresses of a prefix lie between two addresses of its family, the first one included, the other one (`None`: the end) not? By
/// numbers: this is asked of each of many.
fn lies_between(prefix: IpNet, first: IpAddr, end: Option<IpAddr>) -> bool {
    match (prefix, first, end) {
        (IpNet::V4(net), IpAddr::V4(first), None) => net.network().to_bits() >= first.to_bits(),
        (IpNet::V4(net), IpAddr::V4(first), Some(IpAddr::V4(end))) => {
            net.network().to_bits() >= first.to_bits() && net.broadcast().to_bits() < end.to_bits()
        }
        (IpNet::V6(net), IpAddr::V6(first), None) => net.network().to_bits() >= first.to_bits(),
        (IpNet::V6(net), IpAddr::V6(first), Some(IpAddr::V6(end))) => {
            net.network().to_bits() >= first.to_bits() && net.broadcast().to_bits() < end.to_bits()
        }
        _ => false,
    }
}

/// Was one of the changed routes looked up for an address of the key?
fn has_looked_up(program: &Program, key: &FlowKey, changes: &VersionChanges) -> bool {
    program.dependencies.iter().any(|read| match *read {
        Dependency::Destination(vrf) => changes.covers(vrf, key.destination()),
        Dependency::Source(vrf) => changes.covers(vrf, key.source()),
        _ => false,
    })
}

impl Worker {
    /// From now on packets are judged by this snapshot. Flows that its changes concern are derived anew as their packets come, and by
    /// [`Worker::tick`]. Packets that waited for what the snapshot brings go on.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>, now: u64, out: &mut Outbox) {
        self.env.advance_clock(now);
        let changes = snapshot.changes_since(&self.env.snapshot);
        let before = self.env.snapshot.version();
        self.env.adopt(snapshot);
        self.state.decisions.forget();
        let touches = |of: fn(&Dependency) -> bool| changes.iter().any(|version| version.touches(of));
        let arrivals = changes.iter().any(|version| version.touches_arrivals());
        if arrivals || touches(|object| *object == Dependency::Addresses) {
            self.env.read_addresses();
        }
        let vifs = touches(|object| matches!(object, Dependency::Vif(_)));
        if vifs {
            self.read_vifs();
        }
        if vifs || touches(|object| matches!(object, Dependency::Sa(_))) {
            self.ipsec.adopt(&self.env);
            self.ipsec.offer(self.env.clock);
            self.state.offloads.keep_tunnels(&self.env.snapshot);
        }
        if vifs || changes.iter().any(|version| version.touches_vrfs()) {
            self.limits.retain(&self.env.snapshot);
        }
        for version in &changes {
            self.interfaces.decap.follow(version, &self.env.snapshot);
            self.state.programs.follow(version, &self.env.snapshot);
        }
        self.state.follow_lists(&self.env, &changes);
        self.state.begin_routes(&self.env, &changes);
        self.state.follow_routes_for(&self.env, AT_ONCE);
        self.state.sweep_offloads(&self.env, &changes);
        let frees = |object: &Dependency| {
            use Dependency::{Gateway, Neighbour, Oper, Vif};
            matches!(object, Neighbour(..) | Gateway(..) | Vif(_) | Oper(_))
        };
        let free = if !self.waiting.held.is_empty() && touches(frees) { self.release(before) } else { Vec::new() };
        self.ask_engine(out);
        self.deliver_all(free, now, out);
    }

    /// Packets that wait for a neighbour no longer. `before`: version of the snapshot before.
    fn release(&mut self, before: u64) -> Vec<Delivery> {
        let current = Arc::clone(&self.env.snapshot);
        self.waiting.held.release(|(vif, address)| {
            // What waits for a gateway that has just been found dead may have another one to go to.
            let has_died = || current.gateway_dead_since(vif, address).is_some_and(|since| since > before);
            current.neighbour(vif, address).is_some() || current.vif(vif).is_none() || !current.is_up(vif) || has_died()
        })
    }
}

impl FlowState {
    /// All changed routes are followed to the end.
    pub(super) fn is_in_line(&self) -> bool {
        self.following.is_done()
    }

    /// Changed routes are to be followed.
    fn begin_routes(&mut self, env: &Env, changes: &[VersionChanges]) {
        let version = env.version;
        let new = changes.iter().filter_map(|changes| {
            let covering = *changes.routes().first()?;
            Some(Unfinished { changes: changes.clone(), version, done: 0, covering, slots: Vec::new() })
        });
        self.following.waiting.extend(new);
        while self.following.waiting.len() > WAITING {
            let Some(oldest) = self.following.waiting.pop_front() else { break };
            // One before those that are left: what it covers may not be marked.
            let rest = oldest.changes.routes().iter().skip(oldest.done.saturating_sub(1));
            let vrfs: BTreeSet<VrfId> = rest.map(|(vrf, _)| *vrf).collect();
            vrfs.into_iter().for_each(|vrf| self.programs.follow_ends(vrf));
        }
    }

    /// Goes on with the changed routes, as far as a tick does.
    pub(super) fn follow_routes(&mut self, env: &Env) {
        self.follow_routes_for(env, EACH_TICK);
    }

    /// Goes on with the changed routes: marks the flows whose addresses they cover.
    fn follow_routes_for(&mut self, env: &Env, mut budget: usize) {
        while let Some(mut unfinished) = self.following.waiting.pop_front() {
            let is_done = loop {
                self.mark_covered(env, &mut unfinished, &mut budget);
                match unfinished.changes.routes().get(unfinished.done) {
                    _ if budget == 0 => break false,
                    Some(route) => self.find_covered(env, *route, &mut unfinished, &mut budget),
                    None => break true,
                }
            };
            if !is_done {
                return self.following.waiting.push_front(unfinished);
            }
        }
    }

    /// Finds what the next prefix covers, and passes over those behind it that cover nothing.
    fn find_covered(
        &mut self,
        env: &Env,
        (vrf, prefix): (VrfId, IpNet),
        unfinished: &mut Unfinished,
        budget: &mut usize,
    ) {
        let (Self { programs, flows, .. }, snapshot) = (self, &env.snapshot);
        // All addresses of a group have a longer match.
        let skip = |group: IpNet| {
            let route = snapshot.route(vrf, group.addr()).map_or(0, |route| route.prefix.prefix_len());
            route > prefix.prefix_len() && route <= group.prefix_len()
        };
        let mut most = MOST;
        let mut key_vrfs = programs.key_vrfs_of(vrf);
        let found = key_vrfs.try_for_each(|keys| flows.covered(keys, prefix, skip, &mut most, &mut unfinished.slots));
        drop(key_vrfs);
        unfinished.done += 1;
        unfinished.covering = (vrf, prefix);
        *budget = budget.saturating_sub(cost::PREFIX + (MOST - most) * cost::COVERED);
        if found.is_err() {
            unfinished.slots.clear();
            // What it covers in other VRFs' keys is among what has been looked up in this one.
            return programs.follow_ends(vrf);
        }
        if most < MOST {
            return;
        }
        let first = prefix.network();
        let next = programs.key_vrfs_of(vrf).filter_map(|keys| flows.next_destination(keys, first)).min();
        let covers_nothing = |(of, prefix): &&(VrfId, IpNet)| *of == vrf && lies_between(*prefix, first, next);
        let behind = unfinished.changes.routes().iter().skip(unfinished.done).take(*budget / cost::PASS);
        let passed = behind.take_while(covers_nothing).count();
        unfinished.done += passed;
        *budget -= passed * cost::PASS;
    }

    /// Marks records that a prefix covers.
    fn mark_covered(&mut self, env: &Env, unfinished: &mut Unfinished, budget: &mut usize) {
        let (vrf, prefix) = unfinished.covering;
        while *budget > 0
            && let Some(slot) = unfinished.slots.pop()
        {
            *budget = budget.saturating_sub(cost::MARK);
            // When another flow is here by now, it was derived since and stays as it is.
            let Some(record) = self.flows.record(slot) else { continue };
            if has_longer_match(&env.snapshot, vrf, record.key.destination(), prefix) {
                continue;
            }
            let back = record.reverse;
            self.mark(env, slot, Dependency::Destination(vrf), unfinished.version);
            // The other direction has it as its source. A denied flow has none, and needs none: whatever the route to its source
            // is, it stays denied.
            self.mark(env, back, Dependency::Source(vrf), unfinished.version);
        }
    }

    /// A direction that was derived before this version is to be derived anew, if it depends on this.
    pub(super) fn mark(&mut self, env: &Env, slot: u32, what: Dependency, version: u32) {
        let now = env.version;
        let Some(record) = self.flows.record_mut(slot) else { return };
        let is_older = record.program != TO_BE_DERIVED && is_before(record.version, version, now);
        if is_older && record.flags & flag::STALE == 0 && self.programs.depends_on(record.program, what) {
            record.flags |= flag::STALE;
            self.offload_changed(slot);
        }
    }

    /// Is a flow that is about to be used among those that changed routes cover which have not been followed to the end? Then it is
    /// marked.
    #[cold]
    pub(super) fn catches_up(&mut self, env: &Env, slot: u32) -> bool {
        let version = env.version;
        let Some(record) = self.flows.record_mut(slot).filter(|record| record.version != version) else { return false };
        if self.following.concern(&self.programs, record, version) {
            record.flags |= flag::STALE;
            self.offload_changed(slot);
            return true;
        }
        // The packets after this one need not ask.
        record.version = version;
        false
    }
}
