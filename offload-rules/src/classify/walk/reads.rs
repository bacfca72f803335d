//! What a walk reads: dependencies of its program and, when asked for, a trace of what it read of the packet.

use std::net::IpAddr;

use crate::{
    NexthopId, VifId, VrfId,
    classify::{
        flow_trace::{FlowTrace, FlowTracer, fold},
        policy::{Judgement, Lists},
        trace::{Candidate, Trace, Tracer},
    },
    flow::{Dependency, FlowKey},
    forwarding::{Nexthop, Route, Snapshot, Vif},
};

/// Dependencies that are found by their hash; most walks have a dozen.
const FOUND: usize = 48;
/// Places of the hash.
const PLACES: usize = 64;

/// What a walk notes of the packet itself.
#[derive(Debug)]
enum Notes<'a> {
    /// Nothing.
    None,
    /// What a decision on packets without a flow holds for.
    Packet(Box<Tracer>),
    /// What a decision on flows holds for.
    Flow(&'a FlowKey, Box<FlowTracer>),
}

/// What a walk has read so far.
#[derive(Debug)]
pub(in crate::classify) struct Reads<'a> {
    snapshot: &'a Snapshot,
    /// Destination and source of the flow: routes to them are noted without the address.
    ends: Option<(IpAddr, IpAddr)>,
    list: Vec<Dependency>,
    /// By hash, the place in the list and one of what is in it, linear probing: much is read more than once.
    seen: [u8; PLACES],
    notes: Notes<'a>,
}

impl<'a> Reads<'a> {
    /// Of a walk for no flow.
    pub(in crate::classify) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, ends: None, list: Vec::with_capacity(16), seen: [0; PLACES], notes: Notes::None }
    }

    /// Of a walk for a flow.
    pub(in crate::classify) fn of_flow(snapshot: &'a Snapshot, key: &FlowKey) -> Self {
        Self { ends: Some((key.destination(), key.source())), ..Self::new(snapshot) }
    }

    /// Reads that are not noted with these, for trying something.
    pub(in crate::classify) fn aside(&self) -> Self {
        let Self { snapshot, ends, .. } = *self;
        Self { snapshot, ends, list: Vec::new(), seen: [0; PLACES], notes: Notes::None }
    }

    /// Notes what is read of a packet without a flow, too.
    pub(in crate::classify) fn trace(&mut self, key: &FlowKey) {
        self.notes = Notes::Packet(Box::new(Tracer::new(key)));
    }

    /// Notes what is read of the packet of a flow, too.
    pub(in crate::classify) fn trace_flow(&mut self, key: &'a FlowKey) {
        self.notes = Notes::Flow(key, Box::new(FlowTracer::new(key)));
    }

    /// Is it noted what is read of a packet without a flow?
    pub(in crate::classify) const fn is_traced(&self) -> bool {
        matches!(self.notes, Notes::Packet(_))
    }

    /// From here on it is read where the packet goes.
    pub(in crate::classify) fn depart(&mut self) {
        if let Notes::Packet(tracer) = &mut self.notes {
            tracer.depart();
        }
    }

    /// Notes that the decision depends on more of the packet than is traced.
    pub(in crate::classify) fn blur(&mut self) {
        match &mut self.notes {
            Notes::None => {}
            Notes::Packet(tracer) => tracer.blur(),
            Notes::Flow(_, tracer) => tracer.blur(),
        }
    }

    /// From here on the address of a tunnel's end is looked up. Of a packet that has it, too, a trace could not tell which of the two
    /// was meant.
    pub(in crate::classify) fn enter(&mut self, end: IpAddr) {
        if self.ends.is_some_and(|(destination, source)| end == destination || end == source) {
            self.blur();
        }
    }

    /// Notes that the packet's hash has chosen among these.
    pub(in crate::classify) fn member(&mut self, usable: impl Iterator<Item = Candidate>) {
        if let Notes::Packet(tracer) = &mut self.notes {
            tracer.member(usable);
        }
    }

    /// Notes which one the hash of a flow ranks first among these.
    pub(in crate::classify) fn first(&mut self, of: impl FnOnce() -> Box<[Candidate]>, slot: u8) {
        match &mut self.notes {
            Notes::None => {}
            Notes::Packet(tracer) => tracer.blur(),
            Notes::Flow(_, tracer) => tracer.first(of(), Some(slot)),
        }
    }

    /// Notes what lists have said of the packet.
    pub(in crate::classify) fn lists(&mut self, lists: Lists, judgement: Judgement) {
        if let Notes::Flow(_, tracer) = &mut self.notes {
            tracer.lists(lists, judgement);
        }
    }

    pub(in crate::classify) fn note(&mut self, what: Dependency) {
        match &mut self.notes {
            Notes::None => {}
            Notes::Packet(tracer) => tracer.dependency(what),
            Notes::Flow(key, tracer) => tracer.dependency(what, key),
        }
        if self.list.len() >= FOUND {
            if !self.list.contains(&what) {
                self.list.push(what);
            }
            return;
        }
        let mut at = place(&what);
        loop {
            // Invariant: more places than dependencies that are entered.
            let Some(seen) = self.seen.get_mut(at % PLACES) else { return };
            match self.list.get(usize::from(*seen).wrapping_sub(1)) {
                Some(known) if *known == what => return,
                Some(_) => at += 1,
                None => {
                    self.list.push(what);
                    *seen = self.list.len() as u8;
                    return;
                }
            }
        }
    }

    pub(in crate::classify) fn vif(&mut self, id: VifId) -> Option<&'a Vif> {
        self.note(Dependency::Vif(id));
        self.snapshot.vif(id).map(AsRef::as_ref)
    }

    /// Is the vif there and up, and the device that carries its frames?
    pub(in crate::classify) fn is_up(&mut self, id: VifId) -> bool {
        self.note(Dependency::Oper(id));
        self.snapshot.is_up(id)
    }

    pub(in crate::classify) fn route(&mut self, vrf: VrfId, destination: IpAddr) -> Option<&'a Route> {
        self.note(match self.ends {
            Some((end, _)) if end == destination => Dependency::Destination(vrf),
            Some((_, end)) if end == destination => Dependency::Source(vrf),
            _ => Dependency::Route(vrf, destination),
        });
        let route = self.snapshot.route(vrf, destination).map(AsRef::as_ref);
        match &mut self.notes {
            Notes::None => {}
            Notes::Packet(tracer) => tracer.route(vrf, destination),
            Notes::Flow(_, tracer) => tracer.route(vrf, destination, route),
        }
        route
    }

    pub(in crate::classify) fn nexthop(&mut self, id: NexthopId) -> Option<&'a Nexthop> {
        self.note(Dependency::Nexthop(id));
        self.snapshot.nexthop(id).map(AsRef::as_ref)
    }

    /// In the order that they were read: walks that go the same way read the same things in the same order.
    pub(in crate::classify) fn finish(self) -> Vec<Dependency> {
        self.list
    }

    /// What was read of the packet, when it was asked for and can be told.
    pub(in crate::classify) fn take_traces(&mut self) -> (Option<Trace>, Option<FlowTrace>) {
        match std::mem::replace(&mut self.notes, Notes::None) {
            Notes::None => (None, None),
            Notes::Packet(tracer) => (tracer.finish(), None),
            Notes::Flow(_, tracer) => (None, tracer.finish()),
        }
    }
}

/// Where the search for a dependency begins.
fn place(what: &Dependency) -> usize {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => fold(v6.to_bits() as u64, (v6.to_bits() >> 64) as u64),
    };
    let (kind, number) = match *what {
        Dependency::Vif(vif) => (0, vif.get().into()),
        Dependency::Oper(vif) => (1, vif.get().into()),
        Dependency::Destination(vrf) => (2, vrf.get().into()),
        Dependency::Source(vrf) => (3, vrf.get().into()),
        Dependency::Route(vrf, address) => (4, bits(address) ^ u64::from(vrf.get()) << 40),
        Dependency::Nexthop(nexthop) => (5, nexthop.get().into()),
        Dependency::Label(label) => (6, label.get().into()),
        Dependency::Acl(acl) => (7, acl.get().into()),
        Dependency::Addresses => (8, 0),
        Dependency::Sa(sa) => (9, sa.get().into()),
        Dependency::Neighbour(vif, address) => (10, bits(address) ^ u64::from(vif.get()) << 40),
        Dependency::PathMtu(address) => (11, bits(address)),
        Dependency::Gateway(vif, address) => (12, bits(address) ^ u64::from(vif.get()) << 40),
        Dependency::TunnelsTo(address) => (13, bits(address)),
    };
    ((number ^ kind << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
}
