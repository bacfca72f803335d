//! What is addressed to the node itself is put together before it is read: fragmented echo requests, and MPLS-over-UDP packets
//! whose outer packet was fragmented on the way (RFC 7510 §5).
//!
//! Bounded in datagrams, in fragments, and in time, and shared among tenants: the oldest of the one that has most in the table gives
//! way. Of a datagram's fragments the last to come becomes the whole packet and
//! goes on; the others are consumed.

use std::collections::{BTreeMap, HashMap};

use offload_rules::{DropReason, VifId};

use super::{
    context::Context,
    decider::Decider,
    delivery::Arrived,
    fragments::{DatagramKey, Fragment, FragmentLimits},
    local::answering_source,
    outcome::{Hold, Outcome, OwnPath},
    tenant::Tenant,
};
use crate::{
    exec,
    packet::{
        Packet, icmp, parse,
        reassembly::{Progress, Reassembly, Refusal},
    },
    shares::{Rank, Shares, Ticket},
};

#[derive(Debug)]
struct Datagram {
    /// `None` once it was given up: what still comes of it is dropped until its time is over.
    pieces: Option<Reassembly>,
    held: Vec<Held>,
    deadline: Deadline,
    /// Who sent the first of it to come, and its place among that tenant's.
    tenant: Tenant,
    ticket: Ticket,
}

/// A fragment that waits among the pieces, for the account.
#[derive(Debug)]
struct Held {
    /// Where it came in.
    vif: VifId,
    tenant: Tenant,
    ticket: Ticket,
}

/// When a datagram is given up, with a number that tells apart those of one millisecond.
type Deadline = (u64, u64);

/// Datagrams that one worker puts together.
#[derive(Debug, Default)]
pub(super) struct ReassemblyTable {
    datagrams: HashMap<DatagramKey, Datagram>,
    deadlines: BTreeMap<Deadline, DatagramKey>,
    serial: u64,
    /// The datagrams.
    tracked: Shares<Tenant, DatagramKey>,
    /// The fragments that wait.
    waiting: Shares<Tenant, DatagramKey>,
}

/// What became of a fragment that was taken in.
#[derive(Debug)]
pub(super) enum Joined {
    /// It waits among the others.
    Waits,
    /// The datagram; it had this many fragments.
    Whole(Packet, u64),
    /// To drop, with the vifs of the fragments that are lost with it.
    Drop(DropReason, Packet, Vec<VifId>),
}

impl ReassemblyTable {
    /// Fragments held.
    pub(super) const fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in a fragment of a tenant's, which came in on a vif. The vifs of those that give way to it are added to `lost`.
    pub(super) fn take(
        &mut self,
        fragment: Fragment<'_>,
        packet: Packet,
        limits: FragmentLimits,
        now: u64,
        lost: &mut Vec<VifId>,
    ) -> Joined {
        let Fragment { datagram: key, ip, tenant, .. } = fragment;
        if !self.datagrams.contains_key(&key) {
            self.begin(key, tenant, limits, now, lost);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Joined::Drop(DropReason::FragmentTableFull, packet, Vec::new());
        };
        let Some(pieces) = &mut datagram.pieces else {
            return Joined::Drop(DropReason::FragmentErr, packet, Vec::new());
        };
        match pieces.add(packet, ip) {
            Ok(Progress::Complete) => self.complete(key),
            Ok(Progress::Missing) => self.hold(fragment, limits, lost),
            Err((packet, Refusal::Duplicate)) => Joined::Drop(DropReason::FragmentErr, packet, Vec::new()),
            Err((packet, Refusal::Bad)) => Joined::Drop(DropReason::FragmentErr, packet, self.let_go(key)),
        }
    }

    fn begin(&mut self, key: DatagramKey, tenant: Tenant, limits: FragmentLimits, now: u64, lost: &mut Vec<VifId>) {
        while self.datagrams.len() >= limits.datagrams.max(1) {
            let Some(victim) = self.tracked.victim(tenant) else { return };
            lost.extend(self.let_go(victim.key));
            self.remove(victim.key);
        }
        self.serial += 1;
        let deadline = (now + limits.timeout, self.serial);
        self.deadlines.insert(deadline, key);
        let ticket = self.tracked.enter(tenant, Rank::Low, key);
        let fresh = Datagram { pieces: Some(Reassembly::default()), held: Vec::new(), deadline, tenant, ticket };
        self.datagrams.insert(key, fresh);
    }

    /// Counts a fragment that is among the pieces as one that waits. A datagram that loses one of them is of no use any more.
    fn hold(
        &mut self,
        Fragment { datagram: key, tenant, vif, .. }: Fragment<'_>,
        limits: FragmentLimits,
        lost: &mut Vec<VifId>,
    ) -> Joined {
        while self.waiting.len() >= limits.held.max(1)
            && let Some(victim) = self.waiting.victim(tenant)
        {
            let pieces = self.datagrams.get_mut(&victim.key).and_then(|datagram| datagram.pieces.take());
            let vifs = self.let_go(victim.key);
            if victim.key == key {
                return Joined::Drop(DropReason::FragmentTableFull, any_of(pieces.unwrap_or_default()), vifs);
            }
            lost.extend(vifs);
        }
        let ticket = self.waiting.enter(tenant, Rank::Low, key);
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            datagram.held.push(Held { vif, tenant, ticket });
        }
        Joined::Waits
    }

    /// Gives up the pieces of a datagram. Where its fragments came in.
    fn let_go(&mut self, key: DatagramKey) -> Vec<VifId> {
        let Some(datagram) = self.datagrams.get_mut(&key) else { return Vec::new() };
        datagram.pieces = None;
        let waiting = &mut self.waiting;
        let let_go = datagram.held.drain(..).map(|held| {
            waiting.leave(held.tenant, held.ticket);
            held.vif
        });
        let_go.collect()
    }

    fn remove(&mut self, key: DatagramKey) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&key)?;
        self.deadlines.remove(&datagram.deadline);
        self.tracked.leave(datagram.tenant, datagram.ticket);
        Some(datagram)
    }

    /// Takes out a datagram of which nothing is missing. Its last fragment was not counted as held.
    fn complete(&mut self, key: DatagramKey) -> Joined {
        let pieces = self.datagrams.get_mut(&key).and_then(|datagram| datagram.pieces.take()).unwrap_or_default();
        let vifs = self.let_go(key);
        self.remove(key);
        match pieces.whole() {
            Ok(whole) => Joined::Whole(whole, pieces.len() as u64),
            Err(reason) => Joined::Drop(reason, any_of(pieces), vifs),
        }
    }

    /// Forgets datagrams whose time is over. The vifs of the fragments that are lost.
    pub(super) fn expire(&mut self, now: u64) -> Vec<VifId> {
        let mut lost = Vec::new();
        while let Some((_, key)) = self.deadlines.first_key_value().filter(|(deadline, _)| deadline.0 <= now) {
            let key = *key;
            lost.extend(self.let_go(key));
            if self.remove(key).is_none() {
                break;
            }
        }
        lost
    }
}

fn any_of(pieces: Reassembly) -> Packet {
    pieces.into_packets().last().unwrap_or_else(|| Packet::with_capacity(0))
}

impl Decider<'_> {
    /// A fragment of something that is for the node itself waits for the others of its datagram.
    pub(super) fn reassemble(&self, packet: &mut Packet, context: &Context) -> Outcome {
        let Some(datagram) = DatagramKey::of_packet(context, &self.env.snapshot) else {
            return Outcome::drop(context.vif, DropReason::FragmentErr);
        };
        // Goes before the whole again, so that it can be read like any frame.
        let link = packet.data().get(..usize::from(context.l3)).filter(|_| context.outer.is_none()).unwrap_or(&[]);
        let (link, mut ip) = (link.to_vec(), context.ip);
        match exec::strip(packet, &mut ip, &context.framing()) {
            Ok(()) => Outcome::Hold(Box::new(Hold::Datagram { datagram, ip, link, context: *context })),
            Err(reason) => Outcome::drop(context.vif, reason),
        }
    }

    /// What was in fragments is whole, without anything before the IP packet; `link` was before the fragment that came last.
    pub(super) fn reassembled(&self, whole: &mut Packet, link: &[u8], context: &Context) -> Outcome {
        if context.outer.is_none() {
            return match whole.prepend(link.len()) {
                Ok(room) => {
                    room.copy_from_slice(link);
                    Outcome::Again(Arrived::again(context.port, None))
                }
                Err(_) => Outcome::drop(context.vif, DropReason::NoHeadroom),
            };
        }
        // From a tunnel: there is no outer packet that it could have been in, but only an echo request comes here.
        let source = answering_source(&self.env.snapshot, context);
        let answered =
            parse::ip(whole.data(), context.ip.version).and_then(|ip| icmp::echo_reply(&ip, whole.data_mut(), source));
        match answered {
            Ok(()) => Outcome::Answer(OwnPath::Route(context.key.vrf)),
            Err(reason) => Outcome::drop(context.vif, reason),
        }
    }
}
