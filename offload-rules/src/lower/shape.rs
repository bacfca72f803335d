//! Shapes: rules of one shape differ in values alone.

use super::{Direction, NicProfile, Role, Unsupported};
use crate::flow::{Egress, Family, FlowKey, Forward, Operations};

/// Where packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A tenant's vif.
    Tenant,
    /// An MPLS-over-UDP tunnel.
    Tunnel,
}

/// The outcome for packets that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Sent as they are on a vif.
    Tenant,
    /// Sent into an MPLS-over-UDP tunnel.
    Tunnel,
    /// Dropped.
    Drop,
    /// Marked and handed to software.
    Mark,
}

/// The transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Any other: no ports.
    Other,
}

impl L4 {
    /// Of a flow.
    #[must_use]
    pub const fn of(key: &FlowKey) -> Self {
        match key.proto {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            _ => Self::Other,
        }
    }

    /// Protocol number; for [`Self::Other`] that of GRE.
    #[must_use]
    pub const fn proto(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other => 47,
        }
    }
}

/// A shape of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Where packets come from.
    pub from: Origin,
    /// What becomes of them.
    pub to: Outcome,
    /// Family of the (inner) IP packet.
    pub family: Family,
    /// Its transport header.
    pub l4: L4,
    /// Tags of the frame that comes in, 0..=2.
    pub tags_in: u8,
    /// Tags of the frame that goes out, 0..=2; 0 where none does.
    pub tags_out: u8,
    /// The length is matched: larger packets can arrive than the way on takes.
    pub length: bool,
    /// The NIC has opened it: it came in an ESP packet.
    pub opened: bool,
    /// The NIC is to seal it.
    pub sealed: bool,
    /// Roles of the port that it comes in on and of the one that it leaves on; twice the first where it leaves on none. A switch may
    /// take a rule from a wire to a function, and refuse the same rule, or ignore it, from wire to wire.
    pub pair: (Role, Role),
}

impl Shape {
    /// The shape of the rule that a NIC gets for a direction that is forwarded or dropped.
    #[must_use]
    pub fn of(direction: &Direction, profile: &NicProfile) -> Self {
        let arrives = Self::of_partial(direction);
        let forward = match &direction.program.ops {
            Operations::Drop(_) => return Self { to: Outcome::Drop, ..arrives },
            Operations::Forward(forward) => forward,
        };
        // What is not named here is the same in the rules of one shape, or refused.
        let Forward { decap: _, ttl: _, mss: _, shift: _, size, encap, l2, egress } = forward;
        Self {
            to: if encap.is_some() { Outcome::Tunnel } else { Outcome::Tenant },
            tags_out: l2.map_or(0, |l2| l2.tags()),
            length: size.is_some_and(|size| size.mtu < profile.arrives(direction)),
            sealed: matches!(egress, Egress::Seal { .. }),
            ..arrives
        }
    }

    /// The shape of the rule that only marks.
    #[must_use]
    pub fn of_partial(direction: &Direction) -> Self {
        let arrival = &direction.arrival;
        Self {
            from: if arrival.tunnel.is_some() { Origin::Tunnel } else { Origin::Tenant },
            to: Outcome::Mark,
            family: direction.key.family(),
            l4: L4::of(&direction.key),
            tags_in: arrival.tags.iter().flatten().count() as u8,
            tags_out: 0,
            length: false,
            opened: arrival.sealed_on.is_some(),
            sealed: false,
            pair: (Role::Wire, Role::Wire),
        }
    }

    /// The same between ports of these roles, which the lowering for ports knows.
    #[must_use]
    pub const fn between(self, ingress: Role, egress: Role) -> Self {
        let leaves = matches!(self.to, Outcome::Tenant | Outcome::Tunnel);
        Self { pair: (ingress, if leaves { egress } else { ingress }), ..self }
    }

    /// A shape for each origin, outcome and family: TCP without tags. They show most of what a NIC can do, and
    /// a NIC that takes its time for each rule is asked in a moment.
    pub fn representatives() -> impl Iterator<Item = Self> {
        let is_plain =
            |shape: &Self| shape.l4 == L4::Tcp && (shape.tags_in, shape.tags_out, shape.length) == (0, 0, false);
        Self::all().filter(is_plain)
    }

    /// All shapes without IPsec, from wire to wire.
    pub fn all() -> impl Iterator<Item = Self> {
        let ways = [Outcome::Tenant, Outcome::Tunnel].into_iter().flat_map(|to| {
            let lengths = move |tags_out| [false, true].map(|length| (to, tags_out, length));
            (0..=2).flat_map(lengths)
        });
        let ends = [(Outcome::Drop, 0, false), (Outcome::Mark, 0, false)];
        ways.chain(ends).flat_map(|(to, tags_out, length)| {
            [Family::Inet, Family::Inet6].into_iter().flat_map(move |family| {
                [L4::Tcp, L4::Udp, L4::Sctp, L4::Other].into_iter().flat_map(move |l4| {
                    [Origin::Tenant, Origin::Tunnel].into_iter().flat_map(move |from| {
                        (0..=2).map(move |tags_in| Self {
                            from,
                            to,
                            family,
                            l4,
                            tags_in,
                            tags_out,
                            length,
                            opened: false,
                            sealed: false,
                            pair: (Role::Wire, Role::Wire),
                        })
                    })
                })
            })
        })
    }
}

/// ICMP's keys hold what no NIC matches; IPv6 extension headers are no protocols.
pub(super) const fn check_protocol(key: &FlowKey) -> Result<(), Unsupported> {
    match (key.version, key.proto) {
        (4, 1) | (6, 58) => Err(Unsupported::Icmp),
        (6, 0 | 43 | 44 | 51 | 60) => Err(Unsupported::Protocol),
        (4 | 6, _) => Ok(()),
        _ => Err(Unsupported::Protocol),
    }
}
