//! The one place where outcomes are carried out and counted.

use offload_rules::{DropReason, VifId};

use super::{
    super::{
        Worker,
        context::Context,
        delivery::{Arrived, Delivery, Origin},
        fragments::{DatagramKey, Fragment, FragmentLimits, Tracked},
        held::HoldLimits,
        outbox::Outbox,
        outcome::{Blame, Hold, Outcome, Own, OwnNext},
        reassembly::Joined,
        tenant::{NeighbourKey, Tenant},
        tx::{TxKind, TxMeta},
        waiting::Waiting,
    },
    Counters, Ledger, Traffic,
};
use crate::packet::Packet;

impl Ledger {
    /// A device did not take a frame after all.
    fn not_sent(&mut self, kind: TxKind) {
        match kind {
            TxKind::Forwarded | TxKind::Resumed => self.0.forwarded = self.0.forwarded.saturating_sub(1),
            TxKind::Punted => self.0.punted = self.0.punted.saturating_sub(1),
            TxKind::Originated => {
                self.0.originated_dropped += 1;
                return;
            }
        }
        self.dropped(DropReason::IfTxDiscard, 1);
    }
}

impl Counters {
    /// Counts finished frames for a port, all of one kind.
    #[inline(always)]
    pub(in crate::worker) fn count_sent(&mut self, port: VifId, meta: TxMeta, sent: Traffic) {
        match meta.kind {
            TxKind::Forwarded => self.account.0.forwarded += sent.packets,
            TxKind::Punted => self.account.0.punted += sent.packets,
            TxKind::Originated => {}
            TxKind::Resumed => return,
        }
        if let Some(counters) = self.vif(meta.vif) {
            counters.tx_packets += sent.packets;
            counters.tx_bytes += sent.bytes;
        }
        if let Some(counters) = self.port(port) {
            counters.tx_packets += sent.packets;
            counters.tx_bytes += sent.bytes;
        }
    }

    /// Counts a dropped packet.
    pub(in crate::worker) fn count_drop(&mut self, blame: Blame, reason: DropReason) {
        let vif = match blame {
            Blame::Received(vif) => vif,
            Blame::Resumed(vif) => {
                self.account.receive(1);
                vif
            }
            Blame::Own => {
                self.account.0.originated_dropped += 1;
                return;
            }
        };
        self.account.dropped(reason, 1);
        if let Some(counters) = self.vif(vif) {
            counters.drops += 1;
            if reason == DropReason::TcpResetIgnored {
                counters.tcp_resets_ignored += 1;
            }
        }
    }
}

impl Worker {
    /// Carries out what a stage has decided: the only way on which a packet leaves the stages.
    #[inline(never)]
    pub(in crate::worker) fn settle(&mut self, packet: Packet, outcome: Outcome, out: &mut Outbox) {
        match outcome {
            Outcome::Send { vif, port, kind } => self.transmit(port, TxMeta { vif, kind }, packet, out),
            Outcome::Seal(request) => self.pending.seal.push((packet, request)),
            Outcome::Drop { blame, reason } => {
                self.counters.count_drop(blame, reason);
                out.recycle(packet);
            }
            Outcome::Consume => {
                self.counters.account.0.consumed += 1;
                out.recycle(packet);
            }
            Outcome::Answer(path) => {
                self.counters.account.0.consumed += 1;
                self.pending.own.push_back(Own { packet, next: OwnNext::Path(path) });
            }
            Outcome::HandOver { worker, origin } => out.handoff.push((worker, Delivery { packet, origin })),
            Outcome::Again(arrived) => self.pending.again.push_back((packet, arrived)),
            Outcome::Hold(hold) => self.hold(packet, *hold, out),
        }
    }

    /// The same where most packets are sent or sealed.
    #[inline(always)] // the outcome of a hit stays in registers
    pub(in crate::worker) fn settle_hit(&mut self, packet: Packet, outcome: Outcome, out: &mut Outbox) {
        match outcome {
            Outcome::Send { vif, port, kind } => self.transmit(port, TxMeta { vif, kind }, packet, out),
            Outcome::Seal(request) => self.pending.seal.push((packet, request)),
            other => self.settle(packet, other, out),
        }
    }

    /// Hands a finished frame to a port and counts it.
    #[inline(always)]
    fn transmit(&mut self, port: VifId, meta: TxMeta, packet: Packet, out: &mut Outbox) {
        self.counters.count_sent(port, meta, Traffic { packets: 1, bytes: packet.len() as u64 });
        out.send(port, packet, meta);
    }

    /// The same for packets that are sent in the same way.
    #[inline]
    pub(in crate::worker) fn transmit_all(
        &mut self,
        port: VifId,
        meta: TxMeta,
        packets: impl ExactSizeIterator<Item = Packet>,
        out: &mut Outbox,
    ) {
        let packets_sent = packets.len() as u64;
        let bytes = out.send_all(port, meta, packets);
        self.counters.count_sent(port, meta, Traffic { packets: packets_sent, bytes });
    }

    /// Holds a packet, or settles those that are ready or lost because of it.
    #[inline(never)]
    fn hold(&mut self, packet: Packet, hold: Hold, out: &mut Outbox) {
        match hold {
            Hold::Neighbour { neighbour, tenant, origin } => {
                let delivery = Delivery { packet, origin };
                self.hold_for_neighbour(neighbour, tenant, delivery, out);
            }
            Hold::FirstFragment { datagram, context } => self.hold_for_first_fragment(datagram, &context, packet, out),
            Hold::Datagram { datagram, ip, link, context } => {
                let (note, fragment) = (packet.note(), Fragment::of(datagram, &ip, &context));
                let (limits, mut lost) = (FragmentLimits::of(&self.env), Vec::new());
                let table = &mut self.waiting.reassembly;
                let joined = table.take(fragment, packet, limits, self.env.clock, &mut lost);
                self.count_lost(lost, DropReason::FragmentTableFull);
                match joined {
                    Joined::Waits => {}
                    Joined::Drop(reason, packet, lost) => {
                        self.count_lost(lost, reason);
                        self.settle(packet, Outcome::drop(context.vif, reason), out);
                    }
                    Joined::Whole(mut whole, fragments) => {
                        // The last one to come has become the whole; the others are used up.
                        self.counters.account.0.consumed += fragments.saturating_sub(1);
                        whole.set_note(note);
                        let outcome = self.decider(out).reassembled(&mut whole, &link, &context);
                        self.settle(whole, outcome, out);
                    }
                }
            }
        }
    }

    /// Holds a fragment until the first one of its datagram has told the ports.
    fn hold_for_first_fragment(&mut self, datagram: DatagramKey, context: &Context, packet: Packet, out: &mut Outbox) {
        let delivery = Delivery { packet, origin: Origin::Port(Arrived::again(context.port, None)) };
        let (limits, mut lost) = (FragmentLimits::of(&self.env), Vec::new());
        let (table, now) = (&mut self.waiting.fragments, self.env.clock);
        let fragment = Fragment::of(datagram, &context.ip, context);
        let tracked = table.take(fragment, delivery, limits, now, &mut lost);
        for delivery in lost {
            self.drop_delivery(delivery, DropReason::FragmentTableFull, out);
        }
        match tracked {
            Tracked::Go(head, first, waiting) => {
                for Delivery { packet, origin } in std::iter::once(first).chain(waiting) {
                    let port = if let Origin::Port(arrived) = origin { arrived.port } else { context.port };
                    self.settle(packet, Outcome::Again(Arrived::again(port, Some(head))), out);
                }
            }
            Tracked::Held => {}
            Tracked::Drop(reason, delivery, waiting) => {
                for delivery in std::iter::once(delivery).chain(waiting) {
                    self.drop_delivery(delivery, reason, out);
                }
            }
        }
    }

    /// Holds anything until a neighbour is known, and sees to it that it is asked for.
    fn hold_for_neighbour(&mut self, neighbour: NeighbourKey, tenant: Tenant, delivery: Delivery, out: &mut Outbox) {
        let Self { env, waiting: Waiting { held, .. }, limits, .. } = self;
        let settings = env.snapshot.settings();
        if env.snapshot.vif(neighbour.0).is_some_and(|vif| vif.flags.no_arp) {
            return self.drop_delivery(delivery, DropReason::NeighbourUnresolved, out);
        }
        if !held.waits_for(neighbour) && !limits.need(neighbour, tenant, env.clock, &mut out.events) {
            return self.drop_delivery(delivery, DropReason::HeldQueueFull, out);
        }
        let bounds = HoldLimits {
            per_neighbour: settings.max_held_per_neighbour as usize,
            in_all: (settings.max_held as usize).div_ceil(env.workers()),
        };
        for delivery in held.hold(neighbour, tenant, delivery, bounds, env.clock) {
            self.drop_delivery(delivery, DropReason::HeldQueueFull, out);
        }
    }

    /// Counts fragments that were lost with their datagrams, by the vifs that they came in on.
    pub(in crate::worker) fn count_lost(&mut self, vifs: Vec<VifId>, reason: DropReason) {
        for vif in vifs {
            self.counters.count_drop(Blame::Received(vif), reason);
        }
    }

    /// Drops what has waited.
    pub(in crate::worker) fn drop_delivery(&mut self, delivery: Delivery, reason: DropReason, out: &mut Outbox) {
        let blame = delivery.blame();
        self.settle(delivery.packet, Outcome::Drop { blame, reason }, out);
    }

    /// A packet got lost on its way to another worker.
    pub fn lose(&mut self, delivery: &Delivery, reason: DropReason) {
        self.counters.count_drop(delivery.blame(), reason);
    }

    /// Tells that the device did not take these frames of a queue.
    pub fn not_sent(&mut self, port: VifId, frames: &[TxMeta]) {
        for TxMeta { kind, .. } in frames {
            self.counters.account.not_sent(*kind);
        }
        if let Some(counters) = self.counters.port(port) {
            counters.tx_errors += frames.len() as u64;
        }
    }

    /// Sees to what stages have left for the first stage, and to what the node makes itself.
    #[inline]
    pub(in crate::worker) fn run_pending(&mut self, out: &mut Outbox) {
        if self.pending.own_lost > 0 || !self.pending.own.is_empty() || !self.pending.again.is_empty() {
            self.run_all_pending(out);
        }
    }

    #[inline(never)]
    fn run_all_pending(&mut self, out: &mut Outbox) {
        loop {
            let lost = std::mem::take(&mut self.pending.own_lost);
            self.counters.account.originate(lost);
            self.counters.account.0.originated_dropped += lost;
            if let Some(Own { packet, next }) = self.pending.own.pop_front() {
                self.counters.account.originate(1);
                self.send_own(packet, next, out);
            } else if let Some((packet, arrived)) = self.pending.again.pop_front() {
                self.take_in_again(packet, arrived, out);
            } else {
                return;
            }
        }
    }
}
