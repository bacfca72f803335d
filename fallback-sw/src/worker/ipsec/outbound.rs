//! Sealing, and what becomes of the sealed packet.

use offload_rules::DropReason;

use super::{
    super::{Delivery, Origin, Outbox, TxKind, Worker},
    DfPolicy, Grant, L2Rewrite, Refused, SaNews, SaStatus, Usage, VifId, df_and_tos,
    nic::Hold,
    table::Way,
};
use crate::{
    esp::{self, OutboundSa},
    exec::{Plan, SealLeg, Target},
    packet::{NicNote, Packet, ecn::Ecn, fragment, rewrite},
};

/// A packet on its way to the worker that seals it.
#[derive(Debug, Clone, Copy)]
pub struct Sealing {
    pub(in crate::worker) leg: SealLeg,
    pub(in crate::worker) kind: TxKind,
}

/// Fields of an outer header.
#[derive(Debug, Clone, Copy)]
struct Outside {
    tos: u8,
    df: bool,
    /// Identification; `None`: the lower half of the sequence number, for what is not fragmented.
    id: Option<u16>,
}

/// An SA for sending, of this worker.
pub(super) struct Outbound {
    pub(super) usage: Usage,
    pub(super) sa: OutboundSa,
    pub(super) vif: VifId,
    pub(super) hold: Hold,
    /// Numbers from this one on may not be used yet.
    granted: u64,
    /// How many of those that may be used are left when more are asked for.
    low: u64,
    asked: bool,
}

impl Outbound {
    pub(super) fn new(usage: Usage, sa: OutboundSa, vif: VifId) -> Self {
        Self { usage, sa, vif, hold: Hold::default(), granted: 0, low: 0, asked: false }
    }

    pub(super) const fn granted(&self) -> u64 {
        self.granted
    }

    /// More numbers. What is left of those before stays of use when these follow on them; else it is passed over.
    pub(super) fn grant(&mut self, grant: &Grant) {
        if grant.from != self.granted {
            self.sa.skip_to(grant.from);
        }
        self.granted = self.granted.max(grant.until);
        self.low = self.granted.saturating_sub(self.sa.next_sequence()) / 2;
        self.asked = false;
    }

    /// Seals a packet; `by_nic`: all but the cipher, which the NIC does. News: a limit that it reached.
    #[inline]
    fn seal(
        &mut self,
        packet: &mut Packet,
        outside: Outside,
        by_nic: bool,
        now: u64,
    ) -> Result<Option<SaNews>, DropReason> {
        let next = self.sa.next_sequence();
        if next >= self.granted {
            return Err(if self.sa.is_exhausted() { DropReason::SaExhausted } else { DropReason::SaPending });
        }
        let octets = packet.len();
        let Outside { tos, df, id } = outside;
        let id = id.unwrap_or(next as u16);
        let sealed = if by_nic { self.sa.frame(packet, tos, id, df) } else { self.sa.seal(packet, tos, id, df) };
        sealed.map_err(|error| match error {
            esp::SealError::Exhausted => DropReason::SaExhausted,
            esp::SealError::NotIp => DropReason::InvalidProtocol,
            esp::SealError::NoRoom => DropReason::NoHeadroom,
        })?;
        self.usage.count(octets);
        if self.sa.is_exhausted() {
            return Ok(Some(self.usage.end(DropReason::SaExhausted)));
        }
        if !self.asked && self.granted - next <= self.low {
            self.asked = true;
            return Ok(Some(SaNews::Low));
        }
        Ok(self.usage.look(now))
    }

    pub(super) fn status(&self, active: bool, now: u64) -> SaStatus {
        let Usage { sa, packets, bytes, since, expiring, ended, .. } = &self.usage;
        SaStatus {
            id: sa.id,
            vif: self.vif,
            packets: *packets,
            bytes: *bytes,
            sequence: self.sa.next_sequence(),
            reserved_until: self.granted,
            refused: Refused::default(),
            age_ms: now.saturating_sub(*since),
            expiring: *expiring,
            ended: *ended,
            active,
            nic: self.hold.shown(),
        }
    }
}

impl Worker {
    /// Sends what a plan was carried out on. `blame` is the vif on which a received packet is counted when it is dropped after all.
    pub(in crate::worker) fn send_off(
        &mut self,
        plan: &Plan,
        (kind, blame): (TxKind, VifId),
        packet: Packet,
        out: &mut Outbox,
    ) {
        match (plan.target, plan.seal.as_deref()) {
            (Target::Output { vif, port } | Target::Punt { vif, port }, _) => {
                self.transmit(vif, port, kind, packet, out);
            }
            (Target::Seal, Some(leg)) => self.seal(leg, (kind, blame), packet, out),
            (Target::Seal | Target::Drop(_), _) => {
                self.lose_on_way((kind, blame), packet, DropReason::InvalidNh, out);
            }
        }
    }

    /// Seals an IP packet and sends what comes of it.
    pub(in crate::worker) fn seal(
        &mut self,
        leg: &SealLeg,
        (kind, blame): (TxKind, VifId),
        mut packet: Packet,
        out: &mut Outbox,
    ) {
        let now = self.clock;
        let sa = match self.ipsec.way(leg.tunnel) {
            Way::Here(sa) => sa,
            Way::There(owner) => {
                let origin = Origin::Sealing(Sealing { leg: *leg, kind });
                out.handoff.push((owner, Delivery { packet, origin }));
                return;
            }
            Way::Nowhere(reason) => return self.lose_on_way((kind, blame), packet, reason, out),
        };
        let (df, tos) = df_and_tos(packet.data());
        let df = match leg.df {
            DfPolicy::Copy => df,
            DfPolicy::Set => true,
            DfPolicy::Clear => false,
        };
        // RFC 6040 §4.1: the ECN field is that of the packet inside.
        let tos = leg.dscp.map_or(tos, |dscp| Ecn::of(tos).with_dscp_of(dscp << 2));
        let octets = packet.len() as u64;
        if octets > u64::from(leg.whole) {
            return self.seal_in_fragments(sa, leg, (tos, kind, blame), packet, out);
        }
        if let Some(session) = self.ipsec.outbound_mut(sa).and_then(|sa| sa.hold.session_on(leg.port)) {
            return self.leave_to_nic(session, leg, (kind, blame), packet, out);
        }
        let sealed = self.ipsec.outbound_mut(sa).map_or(Err(DropReason::NoSa), |sa| {
            make_room(&mut packet);
            let cipher = sa.hold.cipher_on(leg.port);
            packet.set_note(cipher.map_or(NicNote::None, NicNote::Session));
            sa.seal(&mut packet, Outside { tos, df, id: None }, cipher.is_some(), now)
                .map(|news| (sa.usage.sa.id, news))
        });
        let (id, news) = match sealed {
            Ok(done) => done,
            Err(reason) => return self.lose_on_way((kind, blame), packet, reason, out),
        };
        self.ipsec.sent(leg.tunnel, now);
        self.count_into_tunnel(leg.tunnel, kind, octets);
        if let Some(news) = news {
            self.tell_of_sa(id, news, out);
        }
        if let Some(l2) = &leg.l2 {
            let written = prepend(&mut packet, l2, IPV4);
            if let Err(reason) = written {
                return self.lose_on_way((kind, blame), packet, reason, out);
            }
        }
        self.transmit(leg.vif, leg.port, kind, packet, out);
    }

    /// Seals an IPv6 packet whose ESP packet is too large for the path, and sends that in fragments (RFC 4303 §3.3.4). The other end
    /// puts them together before it opens them. No NIC does that: an SA that one holds is taken back.
    #[cold]
    fn seal_in_fragments(
        &mut self,
        sa: usize,
        leg: &SealLeg,
        (tos, kind, blame): (u8, TxKind, VifId),
        mut packet: Packet,
        out: &mut Outbox,
    ) {
        let now = self.clock;
        let octets = packet.len() as u64;
        if self.ipsec.take_outbound_back(sa, now) {
            self.ask_engine(&mut Vec::new());
        }
        let id = self.flow_ip_id();
        let sealed = self.ipsec.outbound_mut(sa).map_or(Err(DropReason::NoSa), |sa| {
            make_room(&mut packet);
            packet.set_note(NicNote::None);
            sa.seal(&mut packet, Outside { tos, df: false, id: Some(id) }, false, now)
                .map(|news| (sa.usage.sa.id, news))
        });
        let pieces = sealed.and_then(|(id, news)| {
            if let Some(news) = news {
                self.tell_of_sa(id, news, out);
            }
            fragment::outer(&packet, leg.fragment, (leg.l2.as_ref(), None), &mut out.spare)
        });
        match pieces {
            Ok(pieces) => {
                out.recycle(packet);
                self.ipsec.sent(leg.tunnel, now);
                self.count_into_tunnel(leg.tunnel, kind, octets);
                self.send_pieces(pieces, kind, out, |worker, piece, kind, out| {
                    worker.transmit(leg.vif, leg.port, kind, piece, out);
                });
            }
            Err(reason) => self.lose_on_way((kind, blame), packet, reason, out),
        }
    }

    #[inline]
    fn count_into_tunnel(&mut self, tunnel: VifId, kind: TxKind, octets: u64) {
        if kind != TxKind::Resumed
            && let Some(counters) = self.counters.vif(tunnel)
        {
            counters.tx_packets += 1;
            counters.tx_bytes += octets;
        }
    }

    /// Hands an IP packet to the port for the NIC to seal: behind the Ethernet header of the outer packet. The NIC counts it.
    fn leave_to_nic(
        &mut self,
        session: u32,
        leg: &SealLeg,
        (kind, blame): (TxKind, VifId),
        mut packet: Packet,
        out: &mut Outbox,
    ) {
        let octets = packet.len() as u64;
        let ethertype = if packet.data().first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
        let Some(l2) = &leg.l2 else { return self.lose_on_way((kind, blame), packet, DropReason::InvalidNh, out) };
        if let Err(reason) = prepend(&mut packet, l2, ethertype) {
            return self.lose_on_way((kind, blame), packet, reason, out);
        }
        self.ipsec.sent(leg.tunnel, self.clock);
        self.count_into_tunnel(leg.tunnel, kind, octets);
        packet.set_note(NicNote::Session(session));
        self.transmit(leg.vif, leg.port, kind, packet, out);
    }

    /// A packet that came from another worker to be sealed.
    pub(in crate::worker) fn seal_for_other(&mut self, sealing: &Sealing, packet: Packet, out: &mut Outbox) {
        let kind = (sealing.kind, sealing.leg.tunnel);
        match self.ipsec.way(sealing.leg.tunnel) {
            // The SA has ended or moved meanwhile: handed over once, not around.
            Way::There(_) => self.lose_on_way(kind, packet, DropReason::NoSa, out),
            _ => self.seal(&sealing.leg, kind, packet, out),
        }
    }

    /// Drops what was on its way out already.
    pub(in crate::worker) fn lose_on_way(
        &mut self,
        (kind, blame): (TxKind, VifId),
        packet: Packet,
        reason: DropReason,
        out: &mut Outbox,
    ) {
        match kind {
            TxKind::Originated => {
                self.counters.account.originated_dropped += 1;
                return out.recycle(packet);
            }
            // The NIC has counted it as forwarded: it is lost as another one that was received.
            TxKind::Resumed => self.counters.account.received += 1,
            TxKind::Forwarded | TxKind::Punted => {}
        }
        self.drop_packet(blame, packet, reason, out);
    }
}

/// Octets that sealing and an Ethernet header with two tags add before and behind a packet, at most.
const BEFORE: usize = 28 + esp::HEADER_LEN + esp::IV_LEN + 22;
const BEHIND: usize = 3 + 2 + esp::ICV_LEN;

/// A packet in memory of a device may have no room behind it: then it moves.
#[inline]
fn make_room(packet: &mut Packet) {
    if packet.headroom() < BEFORE || packet.tailroom() < BEHIND {
        move_out(packet);
    }
}

#[cold]
fn move_out(packet: &mut Packet) {
    let mut fresh = Packet::with_capacity(packet.len() + BEHIND);
    if let Ok(room) = fresh.extend(packet.len()) {
        room.copy_from_slice(packet.data());
        *packet = fresh;
    }
}

const IPV4: u16 = 0x0800;

fn prepend(packet: &mut Packet, l2: &L2Rewrite, ethertype: u16) -> Result<(), DropReason> {
    let header = l2.bytes();
    let room = packet.prepend(header.len()).map_err(|_| DropReason::NoHeadroom)?;
    rewrite::write_l2(room, header, ethertype, None)
}
