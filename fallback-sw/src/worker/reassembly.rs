//! What is addressed to the node itself is put together before it is read: fragmented echo requests, and MPLS-over-UDP packets
//! whose outer packet was fragmented on the way (RFC 7510 §5).
//!
//! Bounded in datagrams, in fragments, and in time. Of a datagram's fragments the last to come becomes the whole packet and
//! meets its fate; the others are used up.

use std::collections::{BTreeMap, HashMap};

use offload_rules::{DropReason, VifId};

use super::{
    Delivery, Origin, Outbox, Worker,
    batch::varying,
    fragments::{DatagramKey, FragmentLimits},
    ingress::Context,
};
use crate::{
    exec,
    packet::{
        Packet, icmp, parse,
        reassembly::{Progress, Reassembly, Refusal},
    },
};

#[derive(Debug)]
struct Datagram {
    /// `None` once it was given up: what still comes of it is dropped until its time is over.
    pieces: Option<Reassembly>,
    /// Where the fragments came in, for the account.
    vifs: Vec<VifId>,
    deadline: Deadline,
}

/// When a datagram is given up, with a number that tells apart those of one millisecond.
type Deadline = (u64, u64);

/// Datagrams that one worker puts together.
#[derive(Debug, Default)]
pub(super) struct ReassemblyTable {
    datagrams: HashMap<DatagramKey, Datagram>,
    deadlines: BTreeMap<Deadline, DatagramKey>,
    serial: u64,
    held: usize,
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
        self.held
    }

    fn take(
        &mut self,
        key: DatagramKey,
        packet: Packet,
        (ip, vif): (&parse::Ip, VifId),
        limits: FragmentLimits,
        now: u64,
    ) -> Outcome {
        if !self.datagrams.contains_key(&key) {
            if self.datagrams.len() >= limits.datagrams || self.held >= limits.held {
                return Outcome::Drop(DropReason::FragmentTableFull, packet, Vec::new());
            }
            self.serial += 1;
            let deadline = (now + limits.timeout, self.serial);
            self.deadlines.insert(deadline, key);
            let fresh = Datagram { pieces: Some(Reassembly::default()), vifs: Vec::new(), deadline };
            self.datagrams.insert(key, fresh);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Outcome::Drop(DropReason::FragmentTableFull, packet, Vec::new());
        };
        let Some(pieces) = &mut datagram.pieces else {
            return Outcome::Drop(DropReason::FragmentErr, packet, Vec::new());
        };
        let (reason, packet) = match pieces.add(packet, ip) {
            Ok(Progress::Complete) => return self.complete(key),
            Ok(Progress::Missing) if self.held < limits.held => {
                datagram.vifs.push(vif);
                self.held += 1;
                return Outcome::Held;
            }
            // It is among the pieces; any of them gives its memory back.
            Ok(Progress::Missing) => (DropReason::FragmentTableFull, any_of(datagram.pieces.take())),
            Err((packet, Refusal::Duplicate)) => {
                return Outcome::Drop(DropReason::FragmentErr, packet, Vec::new());
            }
            Err((packet, Refusal::Bad)) => (DropReason::FragmentErr, packet),
        };
        datagram.pieces = None;
        let lost = std::mem::take(&mut datagram.vifs);
        self.held -= lost.len();
        Outcome::Drop(reason, packet, lost)
    }

    /// Takes out a datagram of which nothing is missing. Its last fragment was not counted as held.
    fn complete(&mut self, key: DatagramKey) -> Outcome {
        let Some(datagram) = self.datagrams.remove(&key) else { return Outcome::Held };
        self.deadlines.remove(&datagram.deadline);
        self.held -= datagram.vifs.len();
        let pieces = datagram.pieces.unwrap_or_default();
        match pieces.whole() {
            Ok(whole) => Outcome::Whole(whole, pieces.len() as u64),
            Err(reason) => Outcome::Drop(reason, any_of(Some(pieces)), datagram.vifs),
        }
    }

    /// Forgets datagrams whose time is over. The vifs of the fragments that are lost.
    fn expire(&mut self, now: u64) -> Vec<VifId> {
        let mut lost = Vec::new();
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                break;
            }
            if let Some(datagram) = self.datagrams.remove(&entry.remove()) {
                lost.extend(datagram.vifs);
            }
        }
        self.held -= lost.len();
        lost
    }
}

fn any_of(pieces: Option<Reassembly>) -> Packet {
    pieces.and_then(|pieces| pieces.into_packets().last()).unwrap_or_else(|| Packet::with_capacity(0))
}

impl Worker {
    /// Takes in a fragment of something that is for the node itself. When it is the last one that was missing, the whole
    /// packet goes on in its place.
    pub(super) fn reassemble(&mut self, mut packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        let note = packet.note();
        let Some(key) = DatagramKey::of(context.key.vrf, &context.ip) else {
            return self.drop_packet(context.vif, packet, DropReason::FragmentErr, out);
        };
        // Goes before the whole again, so that it can be read like any frame.
        let link =
            packet.data().get(..usize::from(context.l3)).filter(|_| context.outer.is_none()).unwrap_or(&[]).to_vec();
        let mut ip = context.ip;
        if let Err(reason) = exec::strip(&mut packet, &mut ip, &varying(context, 0, 0)) {
            return self.drop_packet(context.vif, packet, reason, out);
        }
        let limits = self.fragment_limits();
        let limits = FragmentLimits { held: limits.held.saturating_sub(self.fragments.held()), ..limits };
        match self.reassembly.take(key, packet, (&ip, context.vif), limits, now) {
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
        let answered =
            parse::ip(whole.data(), context.ip.version).and_then(|ip| icmp::echo_reply(&ip, whole.data_mut()));
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
