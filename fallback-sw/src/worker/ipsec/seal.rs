//! The stage that seals packets with ESP, after the one that executes programs.

use offload_rules::{
    DropReason,
    forwarding::{DfPolicy, L2Rewrite},
};

use super::{
    inner::df_and_tos,
    outbound::{Cipher, OuterFields},
    request::{Handed, SealRequest, Sealing},
    table::{Ipsec, SealedBy},
};
use crate::{
    esp,
    packet::{NicNote, Packet, ecn::Ecn, fragment, rewrite},
    worker::{
        counters::Counters,
        delivery::Origin,
        env::{Env, IpIds},
        outcome::{Blame, Emit, Outcome},
        tx::TxKind,
    },
};

impl SealRequest {
    const fn drop(&self, reason: DropReason) -> Outcome {
        Outcome::Drop { blame: Blame::of(self.kind, self.blame), reason }
    }

    const fn send(&self, kind: TxKind) -> Outcome {
        Outcome::Send { vif: self.egress.vif, port: self.egress.port, kind }
    }
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
    /// Seals an IP packet, or has it sealed: by the NIC as it goes out, or by the worker that owns the SA.
    pub(in crate::worker) fn seal(&mut self, packet: &mut Packet, request: &SealRequest) -> Outcome {
        let (now, egress) = (self.env.clock, &request.egress);
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
        let (df, tos) = df_and_tos(packet.data());
        let df = match egress.df {
            DfPolicy::Copy => df,
            DfPolicy::Set => true,
            DfPolicy::Clear => false,
        };
        // RFC 6040 §4.1: the ECN field is that of the packet inside.
        let tos = egress.dscp.map_or(tos, |dscp| Ecn::of(tos).with_dscp_of(dscp << 2));
        let octets = packet.len() as u64;
        if octets > u64::from(egress.whole) {
            return self.seal_in_fragments(place, packet, request, tos);
        }
        let Some(sa) = self.ipsec.outbound_mut(place) else { return request.drop(DropReason::NoSa) };
        if let Some(session) = sa.nic.session_on(egress.port) {
            return self.leave_to_nic(session, packet, request);
        }
        make_room(packet);
        let session = sa.nic.cipher_on(egress.port);
        packet.set_note(session.map_or(NicNote::None, NicNote::Session));
        let cipher = if session.is_some() { Cipher::Nic } else { Cipher::Software };
        let news = match sa.seal(packet, OuterFields { tos, df, id: None }, cipher, now) {
            Ok(news) => news.map(|news| (sa.usage.sa.id, news)),
            Err(reason) => return request.drop(reason),
        };
        self.ipsec.sent(egress.tunnel, now);
        self.count_into_tunnel(request, octets);
        if let Some((id, news)) = news {
            self.ipsec.tell(id, news, self.env, self.emit.events);
        }
        if let Some(l2) = &egress.l2
            && let Err(reason) = prepend(packet, l2, IPV4)
        {
            return request.drop(reason);
        }
        request.send(request.kind)
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
        let outer = OuterFields { tos, df: false, id: Some(id) };
        let news = match sa.seal(packet, outer, Cipher::Software, now) {
            Ok(news) => news.map(|news| (sa.usage.sa.id, news)),
            Err(reason) => return request.drop(reason),
        };
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
