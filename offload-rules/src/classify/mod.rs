//! The walk: forwarding snapshot, parsed headers and ingress in, verdict out.
//!
//! Pure: reads only its arguments. What is decided here is decided once for a flow; later packets follow the program.

mod acl;
mod advice;
mod ecmp;
mod flow_trace;
mod inquiry;
mod policy;
mod protect;
mod rpf;
mod scope;
#[cfg(test)]
mod tests;
mod trace;
mod usable;
mod walk;

use std::net::{IpAddr, Ipv4Addr};

pub use acl::{AclMatch, AclPacket, FragmentMatch, evaluate, evaluate_fragment};
pub use advice::{Advice, advice};
pub use ecmp::draw;
pub use flow_trace::{Answers, FlowTrace};
pub use inquiry::{Ingress, Inquiry, Role, Start};
pub use scope::is_of_link;
pub use trace::{Candidate, PacketRead, Side, Trace};

use crate::{
    DropReason, NexthopId, VifId,
    flow::{Choices, Decided, Dependency, Egress, FlowKey, Forward, Operations, Oversize, Program, SizeLimit},
    forwarding::{Action, Snapshot},
};

/// The outcome of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Forward or punt.
    Forward(Box<Decision>),
    /// An ICMP echo request to one of the node's own addresses: answer in place.
    AnswerEcho,
    /// Permitted by the lists; only the neighbour is missing. What passes the checks waits for it.
    Resolve {
        /// On this vif.
        vif: VifId,
        /// Who.
        target: IpAddr,
        /// What comes before the neighbour.
        checks: Checks,
    },
    /// Drop.
    Drop {
        /// Why.
        reason: DropReason,
        /// The entry of an access list that said so: worth remembering in a flow.
        acl: Option<AclMatch>,
    },
}

/// What a packet must pass between the lists and the link layer: TTL, then size (RFC 1812 §5.2.1.2 steps 6 to 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// What is taken off TTL or hop limit: a packet that has no more than this is answered with ICMP time exceeded.
    pub ttl: u8,
    /// Largest IP packet before encapsulation that the path takes.
    pub size: SizeLimit,
}

impl Checks {
    /// Those that pass everything.
    pub const NONE: Self = Self { ttl: 0, size: SizeLimit { mtu: u16::MAX, larger: Oversize::Fragment } };

    /// Those that a program makes.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        program.forward().map_or(Self::NONE, Self::of_forward)
    }

    /// Those of a program that forwards.
    #[must_use]
    pub fn of_forward(forward: &Forward) -> Self {
        // What is not named here is done to packets that have passed.
        let Forward { decap: _, ttl, mss: _, shift: _, size, encap: _, l2: _, egress: _ } = forward;
        Self { ttl: *ttl, size: size.unwrap_or(Self::NONE.size) }
    }
}

/// A decision to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do with the packets of this direction.
    pub program: Program,
    /// What was chosen on the way.
    pub choices: Choices,
    /// The key of the other direction.
    pub reverse_key: FlowKey,
}

/// Decides what happens to a packet and to those that look like it.
#[must_use]
pub fn classify(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> Verdict {
    decide(snapshot, inquiry, walk::Walk::new(snapshot, inquiry)).verdict
}

/// Decides as [`classify`] does, and tells for which other flows that holds: set for [`Verdict::Forward`], unless more was read of the
/// packet than a trace can tell. The addresses of the packet must be none of the node's ([`Snapshot::node_addresses`]), nor
/// [of one link](is_of_link).
#[must_use]
pub fn classify_flow(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> (Verdict, Option<FlowTrace>) {
    let mut walk = walk::Walk::new(snapshot, inquiry);
    walk.read.trace_flow(inquiry.key);
    let Outcome { verdict, flow_trace, .. } = decide(snapshot, inquiry, walk);
    (verdict, flow_trace)
}

/// A verdict, and what it was read from in the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The verdict.
    pub verdict: Verdict,
    /// Set for [`Verdict::Forward`], unless more was read than a trace can tell: lists, ports.
    pub trace: Option<Trace>,
}

/// Decides as [`classify`] does, and tells for which other packets that holds. The addresses of the packet must be none of the node's
/// ([`Snapshot::node_addresses`]), nor [of one link](is_of_link).
#[must_use]
pub fn classify_traced(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> Traced {
    let mut walk = walk::Walk::new(snapshot, inquiry);
    walk.read.trace(inquiry.key);
    let Outcome { verdict, trace, .. } = decide(snapshot, inquiry, walk);
    Traced { verdict, trace }
}

/// What a walk has come to, with the trace that was asked for.
struct Outcome {
    verdict: Verdict,
    trace: Option<Trace>,
    flow_trace: Option<FlowTrace>,
}

impl Outcome {
    const fn untraced(verdict: Verdict) -> Self {
        Self { verdict, trace: None, flow_trace: None }
    }
}

fn decide<'a>(snapshot: &'a Snapshot, inquiry: &'a Inquiry<'a>, mut walk: walk::Walk<'a>) -> Outcome {
    let drop = |reason, acl| Outcome::untraced(Verdict::Drop { reason, acl });
    let (source_nexthop, end) = match source_and_end(snapshot, inquiry, &mut walk) {
        Ok(found) => found,
        Err(reason) => return drop(reason, None),
    };
    let acl = judge(snapshot, inquiry, &mut walk, end);
    if let Some(denied) = acl.filter(|acl| acl.action == Action::Deny) {
        return drop(DropReason::PolicyDeny, Some(denied));
    }
    forward(walk, end, source_nexthop, acl)
}

/// S(nh), and where the packet ends: as far as addresses of one link reach, after the reverse path.
fn source_and_end(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    walk: &mut walk::Walk<'_>,
) -> Result<(NexthopId, walk::End), DropReason> {
    let reach = scope::reach(snapshot, inquiry, &mut walk.read)?;
    let source_nexthop = source_of(snapshot, inquiry, reach, &mut walk.read)?;
    walk.read.depart();
    Ok((source_nexthop, reach.walk(snapshot, walk, inquiry.key)))
}

/// S(nh), or why the source may not come from there.
fn source_of(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    reach: scope::Reach,
    read: &mut walk::Reads<'_>,
) -> Result<NexthopId, DropReason> {
    match inquiry.role {
        Role::Own => Ok(NexthopId::NONE),
        Role::Initiator | Role::Responder(_) if reach.is_on_link(inquiry.key) => Ok(NexthopId::NONE),
        Role::Initiator | Role::Responder(_) => rpf::check(snapshot, inquiry, read),
    }
}

/// What the lists say of a packet that ends there. The neighbour comes last (RFC 1812 §5.2.1.2): a denied sender causes no neighbour resolution.
fn judge(snapshot: &Snapshot, inquiry: &Inquiry<'_>, walk: &mut walk::Walk<'_>, end: walk::End) -> Option<AclMatch> {
    match end {
        walk::End::Output(vif) | walk::End::Punt(vif) | walk::End::Resolve { vif, .. } => {
            let egress = walk.policy_egress(walk.flow_egress(vif));
            policy::check(snapshot, inquiry, egress, walk.local, &mut walk.read)
        }
        walk::End::Echo | walk::End::ForNode => policy::check(snapshot, inquiry, VifId::TUNNEL, true, &mut walk.read),
        walk::End::Drop(_) => None,
    }
}

/// What becomes of a packet that the lists have permitted.
fn forward(walk: walk::Walk<'_>, end: walk::End, source_nexthop: NexthopId, acl: Option<AclMatch>) -> Outcome {
    let untraced = Outcome::untraced;
    let (out, op, missing) = match end {
        walk::End::Output(vif) => (vif, Egress::Output(vif), None),
        walk::End::Punt(vif) => (vif, Egress::Punt(vif), None),
        walk::End::Resolve { vif, target } => (vif, walk.output(vif), Some(target)),
        walk::End::Echo => return untraced(Verdict::AnswerEcho),
        walk::End::ForNode => return untraced(Verdict::Drop { reason: DropReason::NoListener, acl: None }),
        walk::End::Drop(reason) => return untraced(Verdict::Drop { reason, acl: None }),
    };
    let egress = walk.flow_egress(out);
    let reverse_key = walk.reverse_key(egress);
    let walk::Outcome { mut program, choices, trace, flow_trace } = walk.program(op, out, egress);
    program.decided = Decided { source_nexthop, acl: acl.map(AclMatch::entry) };
    if let Some(target) = missing {
        return untraced(Verdict::Resolve { vif: out, target, checks: Checks::of(&program) });
    }
    let decision = Decision { program, choices, reverse_key };
    Outcome { verdict: Verdict::Forward(Box::new(decision)), trace, flow_trace }
}

/// The outcome of a walk with a fragment whose head is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FragmentVerdict {
    /// The same whatever the head holds: the fragment needs no tracking.
    Decided(Verdict),
    /// A list on the way asks for what the head holds. Fragments follow its verdict (RFC 1858 §2).
    NeedsHead,
    /// For this node, and not denied by a list so far: the listener depends on what the head holds.
    ForNode,
}

/// Decides on a fragment, first or later, that is not tracked: by all that its fragments have in common. The ports and the
/// service port of the inquiry are not looked at; in IPv6 nor is the protocol (RFC 8200 §4.5).
#[must_use]
pub fn classify_fragment(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> FragmentVerdict {
    let drop = |reason, acl| FragmentVerdict::Decided(Verdict::Drop { reason, acl });
    let mut walk = walk::Walk::with(snapshot, inquiry, walk::Transport::Unknown);
    let (source_nexthop, end) = match source_and_end(snapshot, inquiry, &mut walk) {
        Ok(found) => found,
        Err(reason) => return drop(reason, None),
    };
    let (egress, local) = match end {
        walk::End::Output(vif) | walk::End::Punt(vif) | walk::End::Resolve { vif, .. } => {
            (walk.policy_egress(walk.flow_egress(vif)), walk.local)
        }
        walk::End::ForNode | walk::End::Echo => (VifId::TUNNEL, true),
        walk::End::Drop(reason) => return drop(reason, None),
    };
    match policy::check_fragment(snapshot, inquiry, egress, local, &mut walk.read) {
        Ok(Some(denied)) => drop(DropReason::PolicyDeny, Some(denied)),
        _ if matches!(end, walk::End::ForNode | walk::End::Echo) => FragmentVerdict::ForNode,
        Ok(None) => FragmentVerdict::Decided(forward(walk, end, source_nexthop, None).verdict),
        Err(policy::NeedsHead) => FragmentVerdict::NeedsHead,
    }
}

/// May a packet with this source arrive here? The check that [`classify`] makes for a new flow, for a packet of a known flow
/// that comes in another way than the last one. On success, the ECMP slots that lead back where it came from.
///
/// # Errors
/// [`DropReason::InvalidSource`], [`DropReason::OwnSource`] or [`DropReason::Unprotected`].
pub fn check_source(snapshot: &Snapshot, key: &FlowKey, ingress: Ingress) -> Result<Choices, DropReason> {
    rpf::slots_toward(snapshot, key, ingress)
}

/// May a packet with this source arrive here, as far as [`classify`] would say of a new flow, whatever it is and wherever it goes?
/// For asking before what it says is remembered.
///
/// # Errors
/// As [`check_source`]; [`DropReason::LinkLocal`] and the like of addresses that are of another link.
pub fn check_arrival(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> Result<(), DropReason> {
    let mut read = walk::Reads::new(snapshot);
    let reach = scope::reach(snapshot, inquiry, &mut read)?;
    source_of(snapshot, inquiry, reach, &mut read).map(drop)
}

/// Whether a packet may come from where it came from, and what that was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedArrival {
    /// As [`check_arrival`] says.
    pub verdict: Result<(), DropReason>,
    /// The first part of [`Traced::trace`].
    pub trace: Option<Trace>,
    /// What was read of the snapshot.
    pub dependencies: Vec<Dependency>,
}

/// As [`check_arrival`], with what it read of the packet. The source must be none of the node's addresses, nor of one link, as for
/// [`classify_traced`].
#[must_use]
pub fn trace_arrival(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> TracedArrival {
    let mut read = walk::Reads::of_flow(snapshot, inquiry.key);
    read.trace(inquiry.key);
    let reach = scope::reach(snapshot, inquiry, &mut read);
    let verdict = reach.and_then(|reach| source_of(snapshot, inquiry, reach, &mut read)).map(drop);
    let (trace, _) = read.take_traces();
    TracedArrival { verdict, trace, dependencies: read.finish() }
}

/// May an MPLS-over-UDP packet with this outer source come by this vif? [`classify`] checks it, too, of what is inside; this is for
/// asking before the inside is looked at. Returns what was read: while none of it has changed, the answer is the same.
///
/// # Errors
/// - [`DropReason::Unprotected`]: in the clear, but the source is reached through IPsec alone (RFC 4301 §5.2).
/// - [`DropReason::InvalidSource`]: out of an IPsec tunnel that is no way to the source.
pub fn check_outside(snapshot: &Snapshot, vif: VifId, source: Ipv4Addr) -> Result<Vec<Dependency>, DropReason> {
    let mut read = walk::Reads::new(snapshot);
    protect::check_outer_source(snapshot, &mut read, vif, source)?;
    Ok(read.finish())
}

/// Can the IPsec tunnel of a vif carry packets now: has it an SA to send with, and its other end a route that works? False for
/// other vifs.
#[must_use]
pub fn is_tunnel_up(snapshot: &Snapshot, vif: VifId) -> bool {
    let Some(ipsec) = snapshot.vif(vif).and_then(|vif| vif.kind.tunnel()) else { return false };
    snapshot.is_up(vif) && {
        let dead = usable::DeadGateway::Unusable;
        usable::is_tunnel_up(&mut walk::Reads::new(snapshot), snapshot, ipsec, dead, 3)
    }
}

/// A program that drops what it is asked about, for flows that the policy denies.
#[must_use]
pub fn drop_program(snapshot: &Snapshot, inquiry: &Inquiry<'_>, reason: DropReason) -> Program {
    let mut walk = walk::Walk::new(snapshot, inquiry);
    // Whatever the verdict came from is read again, so that any change of it derives the flow anew.
    let acl = match source_and_end(snapshot, inquiry, &mut walk) {
        Ok((_, end)) => judge(snapshot, inquiry, &mut walk, end),
        Err(_) => None,
    };
    // But the neighbour, who comes after the lists: one program serves the denials of all destinations, which senders choose.
    let mut dependencies = walk.read.finish();
    dependencies.retain(|dependency| !matches!(dependency, Dependency::Neighbour(..)));
    Program {
        ops: Operations::Drop(reason),
        dependencies,
        nexthop: NexthopId::NONE,
        label: None,
        vrf: inquiry.key.vrf,
        passes: vec![(inquiry.key.vrf, crate::flow::VrfCounter::Discard)],
        decided: Decided { source_nexthop: NexthopId::NONE, acl: acl.map(AclMatch::entry) },
    }
}
