//! What is kept of each flow that is offloaded or may be: cold, reached by the number in its binding.

use std::collections::{BTreeSet, VecDeque};

use offload_rules::{
    VifId,
    flow::Dependency,
    forwarding::Snapshot,
    lower::{Arrival, Direction, NotOffloaded},
};

use crate::{
    flow_table::FlowTable,
    worker::{counters::Traffic, flag},
};
use offload_engine::protocol::{Directions, OffloadId, Request, Tier};

/// Numbers of entries: 24 bits, so that a NIC can carry one as a mark.
const MAX_ENTRIES: usize = 1 << 24;
/// Milliseconds before a request is repeated that the queue did not take.
const REFUSED_MS: u64 = 100;

/// Both directions, the initiator's first.
pub(super) type Pair<T> = [T; 2];

/// One flow.
#[derive(Debug)]
pub(super) struct Entry {
    /// The initiator's slot, while the flow is there.
    pub(super) slot: u32,
    /// The flow is not there any more.
    pub(super) orphan: bool,
    /// How packets arrive, as far as they were seen.
    pub(super) arrivals: Pair<Option<Arrival>>,
    /// As told by the engine.
    pub(super) tier: Tier,
    /// Why not in hardware.
    pub(super) reason: Option<NotOffloaded>,
    /// The directions that a NIC marks, when it only marks.
    pub(super) marked: Pair<bool>,
    /// What was asked for last.
    pub(super) asked: Option<Directions>,
    /// What the NIC's counts are about.
    pub(super) active: Option<Directions>,
    /// Requests to install that the queue took.
    pub(super) installs: u32,
    /// What was asked for last has not arrived.
    pub(super) again: bool,
    /// Removal was asked for.
    pub(super) closing: bool,
    /// Nothing is asked before this time.
    pub(super) rest_until: u64,
    /// When it is to be looked at again; 0: no need.
    due: u64,
    called: bool,
    /// Handled by the NIC in all.
    pub(super) total: Pair<Traffic>,
    pub(super) watch: Watch,
    pub(super) pace: Pace,
}

/// What tells whether the NIC does as it said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch {
    /// When the rules were there.
    pub(super) since: u64,
    /// The NIC has counted something since then.
    pub(super) counted: Pair<bool>,
    /// Packets in software that the rule should have taken.
    pub(super) missed: Pair<u32>,
    /// Packets in software that arrive otherwise.
    pub(super) strange: Pair<u32>,
}

/// How much the flow carries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// When it was looked at last.
    pub(super) at: u64,
    /// Octets and packets of both directions at that time, and packets by the NIC.
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) hardware: u64,
    /// Octets a second, and as the engine knows it.
    pub(super) rate: u64,
    pub(super) told: u64,
}

impl Entry {
    /// What was asked for.
    pub(super) fn asked(&self) -> Option<&Pair<Option<Direction>>> {
        self.asked.as_deref()
    }
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    entry: Option<Box<Entry>>,
}

/// All entries of one worker, and what is to be done about them.
#[derive(Debug, Default)]
pub(in crate::worker) struct Offloads {
    /// There is an engine.
    pub(in crate::worker) present: bool,
    /// The operator wants it.
    pub(super) on: bool,
    worker: u16,
    places: Vec<Place>,
    free: Vec<u32>,
    calls: VecDeque<u32>,
    due: BTreeSet<(u64, u32)>,
    pub(super) requests: Vec<Request>,
    /// After a change: where the look at all entries goes on, and how many are left. Round and round, so that changes in quick
    /// succession keep none waiting.
    pub(super) sweep: (u32, u32),
    /// Entries of flows whose programs have become stale, to be looked at.
    pub(super) listed: Vec<Vec<u32>>,
    /// Vifs and labels that flows have arrived by. Never forgotten: there are few, and one too many costs a look at all.
    arrivals: BTreeSet<Dependency>,
    /// Where the look at rates goes on, and since when.
    pub(super) paced: (u32, u64),
    /// Tunnels in which the NIC seals what its rules forward into them.
    sealed_by_nic: BTreeSet<VifId>,
}

impl Offloads {
    pub(in crate::worker) fn new(present: bool, worker: usize) -> Self {
        Self { present, on: true, worker: worker as u16, ..Self::default() }
    }

    /// Does the NIC seal what its rules forward into this tunnel?
    pub(super) fn is_sealed_by_nic(&self, tunnel: VifId) -> bool {
        self.sealed_by_nic.contains(&tunnel)
    }

    /// It does from now on, or does so no more.
    pub(super) fn set_sealed_by_nic(&mut self, tunnel: VifId, sealed: bool) {
        if sealed {
            self.sealed_by_nic.insert(tunnel);
        } else {
            self.sealed_by_nic.remove(&tunnel);
        }
    }

    /// The engine has been started anew: the NIC seals for no tunnel.
    pub(super) fn forget_tunnels(&mut self) {
        self.sealed_by_nic.clear();
    }

    /// Forgets tunnels that are gone.
    pub(in crate::worker) fn keep_tunnels(&mut self, snapshot: &Snapshot) {
        self.sealed_by_nic.retain(|vif| snapshot.vif(*vif).is_some_and(|vif| vif.kind.tunnel().is_some()));
    }

    /// Is anything to be done?
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        !self.calls.is_empty() || !self.requests.is_empty()
    }

    pub(super) fn len(&self) -> u32 {
        self.places.len() as u32
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.places.get(index as usize)?.entry.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.places.get_mut(index as usize)?.entry.as_deref_mut()
    }

    /// The entry of the flow in a slot.
    pub(super) fn of(&self, flows: &FlowTable, slot: u32) -> Option<&Entry> {
        self.get(self.number_of(flows, slot)?)
    }

    /// Its number.
    pub(super) fn number_of(&self, flows: &FlowTable, slot: u32) -> Option<u32> {
        let offloaded = flows.record(slot)?.flags & flag::OFFLOAD != 0;
        offloaded.then(|| flows.binding(slot).offload)
    }

    pub(super) fn id(&self, index: u32) -> Option<OffloadId> {
        let generation = self.places.get(index as usize)?.generation;
        Some(OffloadId { worker: self.worker, entry: index, generation })
    }

    /// The entry that an id names; not when the id is of an earlier use.
    pub(super) fn find(&self, id: OffloadId) -> Option<u32> {
        (self.id(id.entry)? == id && self.get(id.entry).is_some()).then_some(id.entry)
    }

    /// A new entry; `None` when there are no numbers left.
    pub(super) fn add(&mut self, slot: u32) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < MAX_ENTRIES => {
                self.places.push(Place::default());
                (self.places.len() - 1) as u32
            }
            None => return None,
        };
        let place = self.places.get_mut(index as usize)?;
        place.generation = place.generation.wrapping_add(1);
        place.entry = Some(Box::new(Entry {
            slot,
            orphan: false,
            arrivals: [None; 2],
            tier: Tier::Software,
            reason: None,
            marked: [true; 2],
            asked: None,
            active: None,
            installs: 0,
            again: false,
            closing: false,
            rest_until: 0,
            due: 0,
            called: false,
            total: [Traffic::default(); 2],
            watch: Watch::default(),
            pace: Pace::default(),
        }));
        Some(index)
    }

    /// The engine knows nothing of the entry any more: the flow may be asked for again, under another id.
    pub(super) fn renew(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        place.generation = place.generation.wrapping_add(1);
        if let Some(entry) = &mut place.entry {
            (entry.asked, entry.active) = (None, None);
            (entry.installs, entry.again, entry.closing) = (0, false, false);
            (entry.tier, entry.marked) = (Tier::Software, [true; 2]);
            entry.watch = Watch::default();
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        if let Some(entry) = place.entry.take() {
            self.due.remove(&(entry.due, index));
            self.free.push(index);
        }
    }

    /// The flow is gone; its entry goes with it, or when the engine is done with it.
    pub(super) fn flow_removed(&mut self, index: u32) {
        let Some(entry) = self.get_mut(index) else { return };
        entry.orphan = true;
        if entry.installs == 0 && !entry.closing {
            self.remove(index);
        } else if !entry.closing {
            self.close(index);
        }
    }

    /// Asks for removal.
    pub(super) fn close(&mut self, index: u32) {
        let Some(id) = self.id(index) else { return };
        if let Some(entry) = self.get_mut(index) {
            (entry.closing, entry.again) = (true, false);
            self.requests.push(Request::Remove { id });
        }
    }

    /// Calls for a review.
    pub(super) fn call(&mut self, index: u32) {
        if let Some(entry) = self.get_mut(index)
            && !std::mem::replace(&mut entry.called, true)
        {
            self.calls.push_back(index);
        }
    }

    /// All entries are to be looked at.
    pub(in crate::worker) fn sweep_all(&mut self) {
        self.sweep.1 = self.len();
    }

    /// A flow arrives so.
    pub(super) fn arrives(&mut self, arrival: &Arrival) {
        let vifs = [Some(arrival.port), Some(arrival.vif), arrival.sealed_on];
        let label = arrival.tunnel.map(|tunnel| Dependency::Label(tunnel.label));
        let vifs = vifs.into_iter().flatten().flat_map(|vif| [Dependency::Vif(vif), Dependency::Oper(vif)]);
        self.arrivals.extend(vifs.chain(label));
    }

    /// Has a flow arrived by this vif or label?
    pub(super) fn arrives_by(&self, object: &Dependency) -> bool {
        self.arrivals.contains(object)
    }

    /// Reviews called for.
    pub(super) fn called(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn next_called(&mut self) -> Option<u32> {
        let index = self.calls.pop_front()?;
        if let Some(entry) = self.get_mut(index) {
            entry.called = false;
        }
        Some(index)
    }

    /// Calls for a review at a time, or earlier if one was called for.
    pub(super) fn call_at(&mut self, index: u32, at: u64) {
        let Some(entry) = self.places.get_mut(index as usize).and_then(|place| place.entry.as_deref_mut()) else {
            return;
        };
        if entry.due == 0 || at < entry.due {
            self.due.remove(&(entry.due, index));
            entry.due = at;
            self.due.insert((at, index));
        }
    }

    /// Calls for the reviews that are due, up to a bound.
    pub(super) fn call_due(&mut self, now: u64, bound: usize) {
        for _ in 0..bound {
            match self.due.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            let Some((_, index)) = self.due.pop_first() else { return };
            if let Some(entry) = self.get_mut(index) {
                entry.due = 0;
            }
            self.call(index);
        }
    }

    /// The queue did not take a request: once more, soon.
    pub(in crate::worker) fn refused(&mut self, request: &Request, now: u64) {
        let Some(index) = request.id().and_then(|id| self.find(id)) else { return };
        let Some(entry) = self.get_mut(index) else { return };
        match request {
            Request::Install { .. } => {
                entry.installs = entry.installs.saturating_sub(1);
                entry.again = true;
                if entry.tier != Tier::Hardware {
                    (entry.tier, entry.reason) = (Tier::Software, Some(NotOffloaded::QueueFull));
                }
                if entry.installs == 0 {
                    entry.asked = None;
                }
            }
            Request::Remove { .. } => entry.again = true,
            // The next look at its rate tells it; what is not honoured is only counted.
            Request::Rate { .. } | Request::NotHonoured { .. } => return,
            Request::Offer { .. } | Request::Confirm { .. } | Request::Return { .. } => return,
        }
        self.call_at(index, now + REFUSED_MS);
    }
}
