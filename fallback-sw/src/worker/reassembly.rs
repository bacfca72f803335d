//! What is addressed to the node itself is put together before it is read: fragmented echo requests, and MPLS-over-UDP packets
//! whose outer packet was fragmented on the way (RFC 7510 §5).
//!
//! Bounded in datagrams, in fragments, and in time, and shared among tenants: the oldest of the one that has most in the table gives
//! way. Of a datagram's fragments the last to come becomes the whole packet and
//! meets its fate; the others are used up.

use std::collections::{BTreeMap, HashMap};

use offload_rules::{DropReason, VifId};

use super::{
    Delivery, Origin, Outbox, Tenant, Worker,
    batch::framing,
    fragments::{DatagramKey, FragmentLimits},
    ingress::Context,
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

/// What became of a fragment.
#[derive(Debug)]
enum Outcome {
    Held,
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
    fn take(
        &mut self,
        (key, ip): (DatagramKey, &parse::Ip),
        packet: Packet,
        (vif, tenant): (VifId, Tenant),
        limits: FragmentLimits,
        now: u64,
        lost: &mut Vec<VifId>,
    ) -> Outcome {
        if !self.datagrams.contains_key(&key) {
            self.begin(key, tenant, limits, now, lost);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Outcome::Drop(DropReason::FragmentTableFull, packet, Vec::new());
        };
        let Some(pieces) = &mut datagram.pieces else {
            return Outcome::Drop(DropReason::FragmentErr, packet, Vec::new());
        };
        match pieces.add(packet, ip) {
            Ok(Progress::Complete) => self.complete(key),
            Ok(Progress::Missing) => self.hold(key, (vif, tenant), limits, lost),
            Err((packet, Refusal::Duplicate)) => Outcome::Drop(DropReason::FragmentErr, packet, Vec::new()),
            Err((packet, Refusal::Bad)) => Outcome::Drop(DropReason::FragmentErr, packet, self.let_go(key)),
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
        key: DatagramKey,
        (vif, tenant): (VifId, Tenant),
        limits: FragmentLimits,
        lost: &mut Vec<VifId>,
    ) -> Outcome {
        while self.waiting.len() >= limits.held.max(1)
            && let Some(victim) = self.waiting.victim(tenant)
        {
            let pieces = self.datagrams.get_mut(&victim.key).and_then(|datagram| datagram.pieces.take());
            let vifs = self.let_go(victim.key);
            if victim.key == key {
                return Outcome::Drop(DropReason::FragmentTableFull, any_of(pieces.unwrap_or_default()), vifs);
            }
            lost.extend(vifs);
        }
        let ticket = self.waiting.enter(tenant, Rank::Low, key);
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            datagram.held.push(Held { vif, tenant, ticket });
        }
        Outcome::Held
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
    fn complete(&mut self, key: DatagramKey) -> Outcome {
        let pieces = self.datagrams.get_mut(&key).and_then(|datagram| datagram.pieces.take()).unwrap_or_default();
        let vifs = self.let_go(key);
        self.remove(key);
        match pieces.whole() {
            Ok(whole) => Outcome::Whole(whole, pieces.len() as u64),
            Err(reason) => Outcome::Drop(reason, any_of(pieces), vifs),
        }
    }

    /// Forgets datagrams whose time is over. The vifs of the fragments that are lost.
    fn expire(&mut self, now: u64) -> Vec<VifId> {
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

impl Worker {
    /// Takes in a fragment of something that is for the node itself. When it is the last one that was missing, the whole
    /// packet goes on in its place.
    pub(super) fn reassemble(&mut self, mut packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        let note = packet.note();
        let Some(key) = self.datagram(context) else {
            return self.drop_packet(context.vif, packet, DropReason::FragmentErr, out);
        };
        // Goes before the whole again, so that it can be read like any frame.
        let link =
            packet.data().get(..usize::from(context.l3)).filter(|_| context.outer.is_none()).unwrap_or(&[]).to_vec();
        let mut ip = context.ip;
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &framing(context)) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let (limits, sender, mut lost) = (self.fragment_limits(), (context.vif, context.tenant()), Vec::new());
        let outcome = self.reassembly.take((key, &ip), packet, sender, limits, now, &mut lost);
        for vif in lost {
            self.count_drop(vif, DropReason::FragmentTableFull);
        }
        match outcome {
            Outcome::Held => {}
            Outcome::Drop(reason, packet, lost) => {
                for vif in lost {
                    self.count_drop(vif, reason);
                }
                self.drop_packet(context.vif, packet, reason, out);
            }
            Outcome::Whole(mut whole, fragments) => {
                whole.set_note(note);
                self.counters.account.consumed += fragments.saturating_sub(1);
                self.go_on_whole(whole, &link, context, now, out);
            }
        }
    }

    fn go_on_whole(&mut self, mut whole: Packet, link: &[u8], context: &Context, now: u64, out: &mut Outbox) {
        if context.outer.is_none() {
            match whole.prepend(link.len()) {
                Ok(room) => room.copy_from_slice(link),
                Err(_) => return self.drop_packet(context.vif, whole, DropReason::NoHeadroom, out),
            }
            let origin = Origin::Port { port: context.port, head: None, counted: true };
            return self.resume(Delivery { packet: whole, origin }, None, now, out);
        }
        // From a tunnel: there is no outer packet that it could have been in, but only an echo request comes here.
        let source = self.answering_source(context);
        let answered =
            parse::ip(whole.data(), context.ip.version).and_then(|ip| icmp::echo_reply(&ip, whole.data_mut(), source));
        match answered {
            Ok(()) => {
                self.counters.account.consumed += 1;
                self.originate(context.key.vrf, whole, now, out);
            }
            Err(reason) => self.drop_packet(context.vif, whole, reason, out),
        }
    }

    /// Gives up what was not complete in time.
    pub(super) fn expire_reassembly(&mut self, now: u64) {
        for vif in self.reassembly.expire(now) {
            self.count_drop(vif, DropReason::FragmentTimeout);
        }
    }
}
