//! What a walk reads: dependencies of its program and, when asked for, a trace of what it read of the packet.

use std::net::IpAddr;

use crate::{
    NexthopId, VifId, VrfId,
    classify::trace::{Candidate, Trace, Tracer},
    flow::{Dependency, FlowKey},
    forwarding::{Nexthop, Route, Snapshot, Vif},
};

/// What a walk has read so far.
#[derive(Debug)]
pub(in crate::classify) struct Reads<'a> {
    snapshot: &'a Snapshot,
    /// Destination and source of the flow: routes to them are noted without the address.
    ends: Option<(IpAddr, IpAddr)>,
    list: Vec<Dependency>,
    tracer: Option<Box<Tracer>>,
}

impl<'a> Reads<'a> {
    /// Of a walk for no flow.
    pub(in crate::classify) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, ends: None, list: Vec::with_capacity(16), tracer: None }
    }

    /// Of a walk for a flow.
    pub(in crate::classify) fn of_flow(snapshot: &'a Snapshot, key: &FlowKey) -> Self {
        Self { ends: Some((key.destination(), key.source())), ..Self::new(snapshot) }
    }

    /// Reads that are not noted with these, for trying something.
    pub(in crate::classify) fn aside(&self) -> Self {
        Self { snapshot: self.snapshot, ends: self.ends, list: Vec::new(), tracer: None }
    }

    /// Notes what is read of the packet itself, too.
    pub(in crate::classify) fn trace(&mut self, key: &FlowKey) {
        self.tracer = Some(Box::new(Tracer::new(key)));
    }

    /// Is what is read of the packet noted?
    pub(in crate::classify) const fn is_traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// From here on it is read where the packet goes.
    pub(in crate::classify) fn depart(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.depart();
        }
    }

    /// Notes that the decision depends on more of the packet than is traced.
    pub(in crate::classify) fn blur(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.blur();
        }
    }

    /// Notes that the packet's hash has chosen among these.
    pub(in crate::classify) fn member(&mut self, usable: impl Iterator<Item = Candidate>) {
        if let Some(tracer) = &mut self.tracer {
            tracer.member(usable);
        }
    }

    pub(in crate::classify) fn note(&mut self, what: Dependency) {
        if let Some(tracer) = &mut self.tracer {
            tracer.dependency(what);
        }
        if !self.list.contains(&what) {
            self.list.push(what);
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
        if let Some(tracer) = &mut self.tracer {
            tracer.route(vrf, destination);
        }
        self.snapshot.route(vrf, destination).map(AsRef::as_ref)
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
    pub(in crate::classify) fn take_trace(&mut self) -> Option<Trace> {
        self.tracer.take()?.finish()
    }
}
