//! What a walk reads: dependencies of its program and, when asked for, a trace of what it read of the packet.

use std::net::IpAddr;

use crate::{
    NexthopId, VifId, VrfId,
    classify::{
        Trace,
        trace::{Candidate, Tracer},
    },
    flow::{Dependency, DependencyKind, FlowKey},
    forwarding::{Nexthop, Route, Snapshot, Vif},
};

/// What a walk has read so far.
#[derive(Debug)]
pub(in crate::classify) struct Reads<'a> {
    snapshot: &'a Snapshot,
    list: Vec<Dependency>,
    tracer: Option<Box<Tracer>>,
}

impl<'a> Reads<'a> {
    pub(in crate::classify) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, list: Vec::with_capacity(12), tracer: None }
    }

    /// Notes what is read of the packet itself, too.
    pub(in crate::classify) fn trace(&mut self, key: &FlowKey) {
        self.tracer = Some(Box::new(Tracer::new(key)));
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

    pub(in crate::classify) fn note(&mut self, kind: DependencyKind) {
        if let Some(tracer) = &mut self.tracer {
            tracer.dependency(kind);
        }
        if !self.list.iter().any(|d| d.kind == kind) {
            self.list.push(Dependency { kind, generation: self.snapshot.version_of(kind) });
        }
    }

    pub(in crate::classify) fn vif(&mut self, id: VifId) -> Option<&'a Vif> {
        self.note(DependencyKind::Vif(id));
        self.snapshot.vif(id).map(AsRef::as_ref)
    }

    pub(in crate::classify) fn route(&mut self, vrf: VrfId, destination: IpAddr) -> Option<&'a Route> {
        self.note(match destination {
            IpAddr::V4(_) => DependencyKind::Routes4(vrf),
            IpAddr::V6(_) => DependencyKind::Routes6(vrf),
        });
        let route = self.snapshot.route(vrf, destination).map(AsRef::as_ref);
        if let Some(tracer) = &mut self.tracer {
            tracer.route(vrf, destination, route);
        }
        route
    }

    pub(in crate::classify) fn nexthop(&mut self, id: NexthopId) -> Option<&'a Nexthop> {
        self.note(DependencyKind::Nexthop(id));
        self.snapshot.nexthop(id).map(AsRef::as_ref)
    }

    /// In the order that they were read: walks that go the same way read the same things in the same order.
    pub(in crate::classify) fn finish(self) -> Vec<Dependency> {
        self.list
    }

    /// What was read of the packet, when it was asked for and can be told.
    pub(super) fn take_trace(&mut self) -> Option<Trace> {
        self.tracer.take()?.finish()
    }
}
