//! The stage that seals packets with ESP, after the one that executes programs.

use offload_rules::{
    DropReason, VifId,
    forwarding::{DfPolicy, L2Rewrite},
};

use super::{
    inner::df_and_tos,
    outbound::OuterFields,
    request::{Handed, SealRequest, Sealing},
    table::{Ipsec, SealedBy},
};
use crate::{
    esp,
    exec::EspEgress,
    packet::{NicNote, Packet, ecn::Ecn, fragment, rewrite},
    worker::{
        counters::Counters,
        delivery::Origin,
        env::{BATCH, Env, IpIds},
        outcome::{Blame, Emit, Outcome},
        tx::{TxKind, TxMeta},
    },
};

impl SealRequest {
    const fn drop(&self, reason: DropReason) -> Outcome {
        Outcome::Drop { blame: Blame::of(self.kind, self.blame), reason }
    }

    pub(in crate::worker) const fn send(&self, kind: TxKind) -> Outcome {
        Outcome::Send { vif: self.egress.vif, port: self.egress.port, kind }
    }

    /// The same for the packet that was asked for.
    pub(in crate::worker) const fn send_on(&self) -> Outcome {
        self.send(self.kind)
    }
}

/// How far a packet of a queue has come.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Sealed but for the cipher, which is that of the SA at this place.
    Framed {
        place: u32,
    },
    /// Sealed as far as software does it.
    Ready,
    Drop(DropReason),
    /// For [`Sealer::seal`] to do: it uses no sequence number of this worker.
    Other,
}

/// How far the packets of a queue have come, up to a batch of them.
pub(in crate::worker) struct Steps {
    of: [Step; BATCH],
    /// Packets that are seen to; the next one has to be sealed by itself.
    pub(in crate::worker) count: usize,
}

impl Steps {
    /// Where all packets that are seen to go, when they are sent in the same way.
    #[inline]
    pub(in crate::worker) fn all_sent(&self, queue: &[(Packet, SealRequest)]) -> Option<(VifId, TxMeta)> {
        let (_, first) = queue.first()?;
        let way = (first.egress.port, first.egress.vif, first.kind);
        let sent = |step: &Step| matches!(step, Step::Framed { .. } | Step::Ready);
        let same = |request: &SealRequest| (request.egress.port, request.egress.vif, request.kind) == way;
        let all = self.of.iter().zip(queue).take(self.count).all(|(step, (_, request))| sent(step) && same(request));
        (all && self.count > 0).then_some((way.0, TxMeta { vif: way.1, kind: way.2 }))
    }

    /// What becomes of a packet of the queue; `None`: [`Sealer::seal`] tells.
    #[inline]
    pub(in crate::worker) fn outcome(&self, at: usize, request: &SealRequest) -> Option<Outcome> {
        match self.of.get(at)? {
            Step::Framed { .. } | Step::Ready => Some(request.send_on()),
            Step::Drop(reason) => Some(request.drop(*reason)),
            Step::Other => None,
        }
    }
}

/// The SA of the last packet: most packets of a queue go into the same tunnel.
#[derive(Debug, Clone, Copy)]
struct Last {
    tunnel: VifId,
    place: usize,
}

/// The stage that seals.
pub(in crate::worker) struct Sealer<'a> {
    pub(in crate::worker) env: &'a Env,
    pub(in crate::worker) ipsec: &'a mut Ipsec,
    pub(in crate::worker) ip_ids: &'a mut IpIds,
    pub(in crate::worker) counters: &'a mut Counters,
    pub(in crate::worker) emit: Emit<'a>,
}

impl Sealer<'_> {
    /// Seals the first packets of a queue together: all headers first, in the order of the queue, which is that of the sequence numbers;
    /// then the cipher runs over all. What is written before a text would still be on its way to the cache when the cipher reads it.
    pub(in crate::worker) fn seal_together(&mut self, queue: &mut [(Packet, SealRequest)]) -> Steps {
        let mut steps = Steps { of: [Step::Other; BATCH], count: 0 };
        let mut last = None;
        for ((packet, request), step) in queue.iter_mut().zip(&mut steps.of) {
            let Some(done) = self.write_headers(packet, request, &mut last) else { break };
            *step = done;
            steps.count += 1;
        }
        for ((packet, request), step) in queue.iter_mut().zip(&mut steps.of).take(steps.count) {
            let Step::Framed { place } = *step else { continue };
            let enciphered = self.ipsec.outbound_mut(place as usize).is_some_and(|sa| {
                let l2 = request.egress.l2.as_ref().map_or(0, |l2| l2.bytes().len());
                packet.data_mut().get_mut(l2 + sa.sa.esp_at()..).is_some_and(|esp| sa.sa.encipher(esp))
            });
            if !enciphered {
                // Invariant: what was framed can be enciphered. In the clear it must not leave.
                *step = Step::Drop(DropReason::InvalidPacket);
            }
        }
        steps
    }

    /// Everything about a packet but the cipher. `None`: it goes in fragments, by itself.
    #[inline]
    fn write_headers(&mut self, packet: &mut Packet, request: &SealRequest, last: &mut Option<Last>) -> Option<Step> {
        let (now, egress) = (self.env.clock, &request.egress);
        let place = match last {
            Some(Last { tunnel, place }) if *tunnel == egress.tunnel => *place,
            _ => {
                let SealedBy::This(place) = self.ipsec.sealed_by(egress.tunnel) else { return Some(Step::Other) };
                place
            }
        };
        let octets = packet.len() as u64;
        if octets > u64::from(egress.whole) {
            return None;
        }
        let Some(sa) = self.ipsec.outbound_mut(place) else { return Some(Step::Drop(DropReason::NoSa)) };
        if sa.nic.session_on(egress.port).is_some() {
            return Some(Step::Other);
        }
        let session = sa.nic.cipher_on(egress.port);
        let fields = outer_fields(packet, egress);
        make_room(packet);
        packet.set_note(session.map_or(NicNote::None, NicNote::Session));
        let news = match sa.frame(packet, fields, now) {
            Ok(news) => news.map(|news| (sa.usage.sa.id, news)),
            Err(reason) => return Some(Step::Drop(reason)),
        };
        if last.is_none_or(|last| last.tunnel != egress.tunnel) {
            self.ipsec.sent(egress.tunnel, now);
            *last = Some(Last { tunnel: egress.tunnel, place });
        }
        self.count_into_tunnel(request, octets);
        if let Some((id, news)) = news {
            self.ipsec.tell(id, news, self.env, self.emit.events);
            // The tunnel may be another SA's now.
            *last = None;
        }
        if let Some(l2) = &egress.l2
            && let Err(reason) = prepend(packet, l2, IPV4)
        {
            return Some(Step::Drop(reason));
        }
        Some(if session.is_some() { Step::Ready } else { Step::Framed { place: place as u32 } })
    }

    /// Sees to a packet that is not sealed with others: by a worker that owns the SA, by the NIC, in fragments, or not at all.
    pub(in crate::worker) fn seal(&mut self, packet: &mut Packet, request: &SealRequest) -> Outcome {
        let egress = &request.egress;
        let place = match self.ipsec.sealed_by(egress.tunnel) {
            SealedBy::This(place) => place,
            // The SA has ended or moved meanwhile: handed over once, not around.
            SealedBy::Other(_) if request.handed == Handed::Over => return request.drop(DropReason::NoSa),
            SealedBy::Other(worker) => {
                let origin = Origin::Sealing(Sealing { egress: *egress, kind: request.kind });
                return Outcome::HandOver { worker, origin };
            }
            SealedBy::None(reason) => return request.drop(reason),
        };
        if packet.len() > usize::from(egress.whole) {
            let OuterFields { tos, .. } = outer_fields(packet, egress);
            return self.seal_in_fragments(place, packet, request, tos);
        }
        let session = self.ipsec.outbound_mut(place).and_then(|sa| sa.nic.session_on(egress.port));
        match session {
            Some(session) => self.leave_to_nic(session, packet, request),
            None => request.drop(DropReason::NoSa),
        }
    }

    /// Seals an IPv6 packet whose ESP packet is too large for the path, and sends that in fragments (RFC 4303 §3.3.4). The other end
    /// puts them together before it opens them. No NIC does that: an SA that one holds is taken back.
    #[cold]
    fn seal_in_fragments(&mut self, place: usize, packet: &mut Packet, request: &SealRequest, tos: u8) -> Outcome {
        let (now, egress, octets) = (self.env.clock, &request.egress, packet.len() as u64);
        self.ipsec.take_outbound_back(place, now);
        let id = self.ip_ids.next_of_flow();
        let Some(sa) = self.ipsec.outbound_mut(place) else { return request.drop(DropReason::NoSa) };
        make_room(packet);
        packet.set_note(NicNote::None);
        let news = match sa.frame(packet, OuterFields { tos, df: false, id: Some(id) }, now) {
            Ok(news) => news.map(|news| (sa.usage.sa.id, news)),
            Err(reason) => return request.drop(reason),
        };
        let esp = packet.data_mut().get_mut(sa.sa.esp_at()..).unwrap_or(&mut []);
        if !sa.sa.encipher(esp) {
            // Invariant: what was framed can be enciphered. In the clear it must not leave.
            return request.drop(DropReason::InvalidPacket);
        }
        if let Some((id, news)) = news {
            self.ipsec.tell(id, news, self.env, self.emit.events);
        }
        match fragment::outer(packet, egress.fragment, (egress.l2.as_ref(), None), self.emit.spare) {
            Ok(pieces) => {
                self.ipsec.sent(egress.tunnel, now);
                self.count_into_tunnel(request, octets);
                let sent = self.emit.split(packet, pieces, request.kind, |kind| request.send(kind));
                sent.unwrap_or_else(|| request.drop(DropReason::InvalidPacket))
            }
            Err(reason) => request.drop(reason),
        }
    }

    #[inline]
    fn count_into_tunnel(&mut self, request: &SealRequest, octets: u64) {
        if request.kind != TxKind::Resumed
            && let Some(counters) = self.counters.vif(request.egress.tunnel)
        {
            counters.tx_packets += 1;
            counters.tx_bytes += octets;
        }
    }

    /// Hands an IP packet to the port for the NIC to seal: behind the Ethernet header of the outer packet. The NIC counts it.
    fn leave_to_nic(&mut self, session: u32, packet: &mut Packet, request: &SealRequest) -> Outcome {
        let octets = packet.len() as u64;
        let ethertype = if packet.data().first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { IPV4 };
        let Some(l2) = &request.egress.l2 else { return request.drop(DropReason::InvalidNh) };
        if let Err(reason) = prepend(packet, l2, ethertype) {
            return request.drop(reason);
        }
        self.ipsec.sent(request.egress.tunnel, self.env.clock);
        self.count_into_tunnel(request, octets);
        packet.set_note(NicNote::Session(session));
        request.send(request.kind)
    }
}

/// Fields of the outer header that go by the packet inside and by the tunnel.
#[inline]
fn outer_fields(packet: &Packet, egress: &EspEgress) -> OuterFields {
    let (df, tos) = df_and_tos(packet.data());
    let df = match egress.df {
        DfPolicy::Copy => df,
        DfPolicy::Set => true,
        DfPolicy::Clear => false,
    };
    // RFC 6040 §4.1: the ECN field is that of the packet inside.
    let tos = egress.dscp.map_or(tos, |dscp| Ecn::of(tos).with_dscp_of(dscp << 2));
    OuterFields { tos, df, id: None }
}

/// Octets that sealing and an Ethernet header with two tags add before a packet, at most.
const BEFORE: usize = 28 + esp::HEADER_LEN + esp::IV_LEN + 22;

/// A packet in memory of a device may have no room behind it: then it moves.
#[inline]
fn make_room(packet: &mut Packet) {
    if packet.headroom() < BEFORE || packet.tailroom() < esp::BEHIND {
        move_out(packet);
    }
}

#[cold]
fn move_out(packet: &mut Packet) {
    let mut fresh = Packet::with_capacity(packet.len() + esp::BEHIND);
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
