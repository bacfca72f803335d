//! Programs: what happens to the packets of one direction, what that was read from, and what was chosen.

use std::net::IpAddr;

use super::{Egress, Forward, Operations, SequenceShift};
use crate::{AclId, DropReason, Label, NexthopId, SaId, VifId, VrfId};

/// What happens to the packets of one direction of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    /// What is done, in normal form.
    pub ops: Operations,
    /// Everything that the walk read, in order. While none of it has changed, another walk for a flow of the program, with the choices
    /// that the flow has, ends in the same program.
    pub dependencies: Vec<Dependency>,
    /// Nexthop of the route (D(nh)); shown by the command line.
    pub nexthop: NexthopId,
    /// Label pushed (D(L)).
    pub label: Option<Label>,
    /// VRF that the packets leave in.
    pub vrf: VrfId,
    /// What each packet counts as in `vrfstats`.
    pub passes: Vec<(VrfId, VrfCounter)>,
    /// What has decided.
    pub decided: Decided,
}

/// What has decided on the packets of a direction, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decided {
    /// S(nh): nexthop of the route to the source; [`NexthopId::NONE`] when RPF is off.
    pub source_nexthop: NexthopId,
    /// Entry of an access list, if one was asked.
    pub acl: Option<AclEntry>,
}

impl Decided {
    /// Neither a list nor a route to the source.
    pub const BY_NONE: Self = Self { source_nexthop: NexthopId::NONE, acl: None };
}

/// An entry of an access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AclEntry {
    /// The list.
    pub acl: AclId,
    /// The entry; `None` is the list's default.
    pub ace: Option<u32>,
}

impl Program {
    /// What is done to packets that go on; `None`: all are dropped.
    #[must_use]
    pub const fn forward(&self) -> Option<&Forward> {
        self.ops.forward()
    }

    /// The vif that packets leave on, forwarded or punted: the tunnel when they are sealed.
    #[must_use]
    pub fn egress(&self) -> Option<VifId> {
        self.forward().map(Forward::vif)
    }

    /// Are packets handed to the host or an agent?
    #[must_use]
    pub fn is_punt(&self) -> bool {
        self.forward().is_some_and(|forward| matches!(forward.egress, Egress::Punt(_)))
    }

    /// Why every packet is dropped, if that is what the program does.
    #[must_use]
    pub const fn drops(&self) -> Option<DropReason> {
        match self.ops {
            Operations::Drop(reason) => Some(reason),
            Operations::Forward(_) => None,
        }
    }

    /// Adds the shift of a flow that is spliced.
    pub const fn splice(&mut self, shift: SequenceShift) {
        match &mut self.ops {
            Operations::Drop(_) => {}
            Operations::Forward(forward) => forward.shift = Some(shift),
        }
    }
}

/// Counters of `vrfstats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VrfCounter {
    /// Dropped by a nexthop or for want of one.
    Discard,
    /// Waited for a neighbour.
    Resolve,
    /// For this node.
    Receive,
    /// Went on in another VRF.
    VrfTranslate,
    /// Went through a composite.
    EcmpComposite,
    /// Went into a tunnel.
    UdpMplsTunnel,
    /// Left behind an Ethernet header of a nexthop.
    Encap,
    /// ARP or ND answered for someone else on a virtual vif.
    ArpVirtualProxy,
    /// ... on a physical vif.
    ArpPhysicalProxy,
    /// ARP request that a route asks to flood.
    ArpFlood,
}

impl VrfCounter {
    /// How many there are.
    pub const COUNT: usize = Self::ArpFlood as usize + 1;

    /// Position in a counter array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a program can depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The vif and its flags, MTU and lists.
    Vif(VifId),
    /// Whether a vif is up, and the device that carries its frames.
    Oper(VifId),
    /// The route to the flow's own destination in a VRF. The address is that of the flow's key: flows to all destinations of a
    /// route share a program.
    Destination(VrfId),
    /// The route to the flow's own source in a VRF.
    Source(VrfId),
    /// The route to an address of the program: the far end of a tunnel.
    Route(VrfId, IpAddr),
    /// A nexthop.
    Nexthop(NexthopId),
    /// An incoming label.
    Label(Label),
    /// An access list.
    Acl(AclId),
    /// Ownership of an address: the own addresses of all vifs.
    Addresses,
    /// A security association, and whether it is at its end.
    Sa(SaId),
    /// A neighbour on a vif.
    Neighbour(VifId, IpAddr),
    /// The path MTU toward an outer destination.
    PathMtu(IpAddr),
    /// Whether a gateway on a vif answers, whatever its MAC is.
    Gateway(VifId, IpAddr),
    /// Which MPLS-over-UDP tunnels lead to a far end.
    TunnelsTo(IpAddr),
}

/// Choices that the walk made and that later derivations of the same flow keep while they are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choices {
    /// ECMP slot at each level of composites; `None` where there is no composite. The slot is the flow's home: when its
    /// member is gone the flow moves, when it returns the flow moves back.
    pub ecmp: [Option<u8>; 2],
}
