//! What a decision was read from in the packet itself, so that it holds for other packets that read alike.
//!
//! A decision depends on the forwarding state (its program's dependencies) and on the packet. A trace lists the second part: two packets
//! with the same ingress, family, start and outer source, one of them TCP if the other is, and with equal values for every
//! [`PacketRead`] of the trace, are decided on alike while the program is current. Addresses that the walk compares with those of the node
//! ([`Snapshot::node_addresses`](crate::forwarding::Snapshot::node_addresses)), link-local ones and groups are beyond that: packets that
//! have one are not traced.

use std::{net::IpAddr, sync::Arc};

use crate::{
    VrfId,
    flow::{Dependency, FlowKey},
};

/// Which address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// A usable member of a composite, as the draw sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its slot in the composite.
    pub slot: u8,
    /// Its weight, 1 or more.
    pub weight: u16,
}

/// Something about a packet that a walk has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PacketRead {
    /// [`RouteAnswer`](crate::forwarding::RouteAnswer) of the longest match of one of its addresses.
    Route {
        /// In this VRF.
        vrf: VrfId,
        /// Of this address.
        side: Side,
    },
    /// The destination itself, as the neighbour on a connected subnet.
    Destination,
    /// Which of these members its hash draws: [`draw`](super::draw).
    Member(Arc<[Candidate]>),
}

/// What a decision was read from in the packet. The two parts do not depend on each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Whether it may come from where it came from, in the order of reading.
    pub arrival: Vec<PacketRead>,
    /// Where it goes, in the order of reading.
    pub departure: Vec<PacketRead>,
}

/// Which part of a [`Trace`] is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Arrival,
    Departure,
}

/// Makes a [`Trace`] while a walk reads.
#[derive(Debug)]
pub(super) struct Tracer {
    source: IpAddr,
    destination: IpAddr,
    part: Part,
    trace: Trace,
    /// The walk has read something of the packet that no [`PacketRead`] expresses.
    opaque: bool,
}

impl Tracer {
    pub(super) fn new(key: &FlowKey) -> Self {
        let (source, destination) = (key.source(), key.destination());
        Self { source, destination, part: Part::Arrival, trace: Trace::default(), opaque: false }
    }

    /// From here on it is read where the packet goes.
    pub(super) const fn depart(&mut self) {
        self.part = Part::Departure;
    }

    /// Notes that more was read than a trace can express.
    pub(super) const fn blur(&mut self) {
        self.opaque = true;
    }

    /// Notes a longest match. The address read is identified by its value: source or destination of the packet. That of another address
    /// (a tunnel's end) is the same for all packets, and a dependency of the program.
    pub(super) fn route(&mut self, vrf: VrfId, address: IpAddr) {
        if address == self.source {
            self.read(PacketRead::Route { vrf, side: Side::Source });
        }
        if address == self.destination {
            self.read(PacketRead::Route { vrf, side: Side::Destination });
        }
    }

    /// Notes the choice of a member.
    pub(super) fn member(&mut self, usable: impl Iterator<Item = Candidate>) {
        self.read(PacketRead::Member(usable.collect()));
    }

    /// Notes what a dependency tells of the packet. Every kind is named here, so that a new one has to be thought about.
    pub(super) fn dependency(&mut self, what: Dependency) {
        match what {
            // The list compares addresses and ports.
            Dependency::Acl(_) => self.blur(),
            Dependency::Neighbour(_, address)
            | Dependency::Gateway(_, address)
            | Dependency::PathMtu(address)
            | Dependency::TunnelsTo(address) => {
                if address == self.source {
                    self.blur();
                }
                if address == self.destination {
                    self.read(PacketRead::Destination);
                }
            }
            // Routes are noted by address; what is compared with the node's own addresses is not traced.
            Dependency::Destination(_) | Dependency::Source(_) | Dependency::Route(..) | Dependency::Addresses => {}
            Dependency::Vif(_)
            | Dependency::Oper(_)
            | Dependency::Nexthop(_)
            | Dependency::Label(_)
            | Dependency::Sa(_) => {}
        }
    }

    fn read(&mut self, read: PacketRead) {
        let list = match self.part {
            Part::Arrival => &mut self.trace.arrival,
            Part::Departure => &mut self.trace.departure,
        };
        // The same composite may be drawn from twice, with one result; a route or an address has one value.
        if !list.contains(&read) {
            list.push(read);
        }
    }

    /// The trace; `None` when it cannot express everything that was read.
    pub(super) fn finish(self) -> Option<Trace> {
        (!self.opaque).then_some(self.trace)
    }
}
