//! The walk: forwarding snapshot, parsed headers and ingress in, verdict out.
//!
//! Pure: reads only its arguments. What is decided here is decided once for a flow; later packets follow the program.

mod acl;
mod ecmp;
mod policy;
mod rpf;
#[cfg(test)]
mod tests;
mod walk;

use std::net::{IpAddr, Ipv4Addr};

pub use acl::{AclMatch, AclPacket, evaluate};

use crate::{
    DropReason, NexthopId, VifId,
    flow::{Choices, FlowKey, Op, Program},
    forwarding::{Action, Snapshot},
};

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    /// The vif it was received on; for what came out of a tunnel, the underlay's.
    pub vif: VifId,
    /// Outer source, when it came out of a tunnel.
    pub tunnel: Option<Ipv4Addr>,
}

/// Where the walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the route to the destination in the key's VRF.
    Route,
    /// With a label's nexthop.
    Nexthop(NexthopId),
}

/// Which side of a pair a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It made the pair, or would.
    Initiator,
    /// It answers; holds the initiator's key.
    Responder(FlowKey),
    /// The node itself made the packet: no RPF, no access lists, TTL as it is.
    Own,
}

/// What is asked of the walk.
#[derive(Debug, Clone, Copy)]
pub struct Inquiry<'a> {
    /// Key of the packet.
    pub key: &'a FlowKey,
    /// Destination port as listeners and access lists see it: for ICMP the type.
    pub service_port: u16,
    /// Where it came from.
    pub ingress: Ingress,
    /// Where to begin.
    pub start: Start,
    /// Side of the pair.
    pub role: Role,
    /// Choices of an earlier derivation of this direction, kept while legal.
    pub prior: Choices,
    /// Where the other direction came from, if it was seen: its ECMP member is preferred.
    pub other_ingress: Option<Ingress>,
    /// Value that spreads flows over ECMP members; see [`FlowKey::spread`].
    pub hash: u64,
}

/// The outcome of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Forward or punt.
    Forward(Box<Decision>),
    /// An ICMP echo request to one of the node's own addresses: answer in place.
    AnswerEcho,
    /// Find this neighbour first; hold the packet.
    Resolve {
        /// On this vif.
        vif: VifId,
        /// Who.
        target: IpAddr,
    },
    /// Drop.
    Drop {
        /// Why.
        reason: DropReason,
        /// The entry of an access list that said so: worth remembering in a flow.
        acl: Option<AclMatch>,
    },
}

/// A decision to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do with the packets of this direction.
    pub program: Program,
    /// What was chosen on the way.
    pub choices: Choices,
    /// S(nh): nexthop of the route to the source; [`NexthopId::NONE`] when RPF is off.
    pub source_nexthop: NexthopId,
    /// The entry that permitted it.
    pub acl: Option<AclMatch>,
    /// The key of the other direction.
    pub reverse_key: FlowKey,
    /// Each direction is judged by itself: the other direction must ask the lists, too.
    pub stateless: bool,
}

/// Decides what happens to a packet and to those that look like it.
#[must_use]
pub fn classify(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> Verdict {
    let drop = |reason| Verdict::Drop { reason, acl: None };
    let mut walk = walk::Walk::new(snapshot, inquiry);
    let source_nexthop = match inquiry.role {
        Role::Own => NexthopId::NONE,
        Role::Initiator | Role::Responder(_) => match rpf::check(snapshot, inquiry, &mut walk.read) {
            Ok(nexthop) => nexthop,
            Err(reason) => return drop(reason),
        },
    };
    let end = walk.run();
    let (out, op, local) = match end {
        walk::End::Output(vif) => (vif, Op::Output(vif), walk.local),
        walk::End::Punt(vif) => (vif, Op::Punt(vif), walk.local),
        walk::End::Echo => {
            return match policy::check(snapshot, inquiry, VifId::TUNNEL, true, &mut walk.read) {
                Some(denied) if denied.action == Action::Deny => {
                    Verdict::Drop { reason: DropReason::PolicyDeny, acl: Some(denied) }
                }
                _ => Verdict::AnswerEcho,
            };
        }
        walk::End::Resolve { vif, target } => return Verdict::Resolve { vif, target },
        walk::End::Drop(reason) => return drop(reason),
    };
    let egress = walk.flow_egress(out);
    let acl = policy::check(snapshot, inquiry, walk.policy_egress(egress), local, &mut walk.read);
    if let Some(denied) = acl.filter(|acl| acl.action == Action::Deny) {
        return Verdict::Drop { reason: DropReason::PolicyDeny, acl: Some(denied) };
    }
    let reverse_key = walk.reverse_key(egress);
    let stateless = acl.is_some_and(|acl| acl.scope == crate::forwarding::Scope::Stateless);
    let (program, choices) = walk.program(op, out, egress);
    Verdict::Forward(Box::new(Decision { program, choices, source_nexthop, acl, reverse_key, stateless }))
}

/// May a packet with this source arrive here? The check that [`classify`] makes for a new flow, for a packet of a known flow
/// that comes in another way than the last one. On success, the ECMP slots that lead back where it came from.
///
/// # Errors
/// [`DropReason::InvalidSource`] or [`DropReason::OwnSource`].
pub fn check_source(snapshot: &Snapshot, key: &FlowKey, ingress: Ingress) -> Result<Choices, DropReason> {
    rpf::slots_toward(snapshot, key, ingress)
}

/// Can the IPsec tunnel of a vif carry packets now: has it an SA to send with, and its other end a route that works? False for
/// other vifs.
#[must_use]
pub fn is_tunnel_up(snapshot: &Snapshot, vif: VifId) -> bool {
    let Some(ipsec) = snapshot.vif(vif).and_then(|vif| vif.kind.tunnel()) else { return false };
    snapshot.is_up(vif) && walk::is_tunnel_up(&mut walk::Reads::new(snapshot), snapshot, ipsec, 3)
}

/// A program that drops what it is asked about, for flows that the policy denies.
#[must_use]
pub fn drop_program(snapshot: &Snapshot, inquiry: &Inquiry<'_>, reason: DropReason) -> Program {
    let mut walk = walk::Walk::new(snapshot, inquiry);
    // Whatever the verdict came from is read again, so that any change of it derives the flow anew.
    let _ = rpf::check(snapshot, inquiry, &mut walk.read);
    match walk.run() {
        walk::End::Output(vif) | walk::End::Punt(vif) => {
            let egress = walk.policy_egress(walk.flow_egress(vif));
            let _ = policy::check(snapshot, inquiry, egress, walk.local, &mut walk.read);
        }
        walk::End::Echo => _ = policy::check(snapshot, inquiry, VifId::TUNNEL, true, &mut walk.read),
        walk::End::Resolve { .. } | walk::End::Drop(_) => {}
    }
    Program {
        ops: vec![Op::Drop(reason)],
        dependencies: walk.read.finish(),
        nexthop: NexthopId::NONE,
        label: None,
        vrf: inquiry.key.vrf,
        passes: vec![(inquiry.key.vrf, crate::flow::VrfCounter::Discard)],
    }
}
