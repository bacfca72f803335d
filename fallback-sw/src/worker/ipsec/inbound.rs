//! Opening, and what becomes of the packet inside.

use std::net::Ipv4Addr;

use offload_rules::{DropReason, VrfId};

use super::{
    super::{Delivery, Origin, Outbox, Worker, ingress::Context},
    Refused, SaId, SaNews, SaStatus, Usage, VifId, df_and_tos,
    nic::Hold,
};
use crate::{
    esp::{InboundSa, OpenError, Opened, ReplayError},
    packet::{
        NicNote, Packet,
        ecn::{self, Ecn},
        parse::PROTO_UDP,
        rewrite,
    },
};

/// An SA for receiving, of this worker.
pub(super) struct Inbound {
    pub(super) usage: Usage,
    pub(super) sa: InboundSa,
    pub(super) vif: VifId,
    /// Where its packets come to: the tunnel's source, in the VRF of its outer packets.
    pub(super) end: (VrfId, Ipv4Addr),
    pub(super) refused: Refused,
    pub(super) hold: Hold,
}

impl Inbound {
    fn refuse(&mut self, error: OpenError) -> DropReason {
        let (count, reason) = match error {
            OpenError::Truncated => (&mut self.refused.malformed, DropReason::EspTruncated),
            OpenError::Replay(ReplayError::Seen) => {
                (&mut self.refused.replay_duplicate, DropReason::EspReplayDuplicate)
            }
            OpenError::Replay(ReplayError::TooOld | ReplayError::Invalid) => {
                (&mut self.refused.replay_old, DropReason::EspReplayOld)
            }
            OpenError::Authentication => (&mut self.refused.authentication, DropReason::EspAuthentication),
            OpenError::Padding => (&mut self.refused.malformed, DropReason::EspPadding),
            OpenError::NotIp => (&mut self.refused.malformed, DropReason::EspNotIp),
        };
        *count += 1;
        reason
    }

    pub(super) fn status(&self, now: u64) -> SaStatus {
        let Usage { sa, packets, bytes, since, expiring, ended, .. } = &self.usage;
        SaStatus {
            id: sa.id,
            vif: self.vif,
            packets: *packets,
            bytes: *bytes,
            sequence: self.sa.window().map_or(0, crate::esp::Window::top),
            reserved_until: 0,
            refused: self.refused,
            age_ms: now.saturating_sub(*since),
            expiring: *expiring,
            ended: *ended,
            active: ended.is_none(),
            nic: self.hold.shown(),
        }
    }
}

/// What an ESP packet turned out to be.
struct Inside {
    /// `None`: a dummy.
    vif: Option<VifId>,
    news: Option<(SaId, SaNews)>,
}

impl Worker {
    /// The worker that opens the ESP packet at `at` of a frame, when it is another one.
    #[inline]
    pub(in crate::worker) fn other_opener(&self, frame: &[u8], at: usize) -> Option<usize> {
        let spi = spi(frame.get(at..)?)?;
        let owner = super::table::opener(spi, self.config.workers);
        (owner != self.config.id).then_some(owner)
    }

    /// Opens the ESP packet at `at` of a frame. The packet inside is what is left of it, as if received on the tunnel that is
    /// returned; `None`: it has met its fate.
    #[inline]
    pub(in crate::worker) fn open_esp(
        &mut self,
        mut packet: Packet,
        context: &Context,
        at: usize,
        out: &mut Outbox,
    ) -> Option<(VifId, Packet)> {
        match self.open_in_place(&mut packet, context, at) {
            Ok(Inside { vif, news }) => {
                if let Some((sa, news)) = news {
                    self.tell_of_sa(sa, news, out);
                }
                match vif {
                    Some(vif) => Some((vif, packet)),
                    None => {
                        self.consume(packet, out);
                        None
                    }
                }
            }
            Err(reason) => {
                self.drop_packet(context.vif, packet, reason, out);
                None
            }
        }
    }

    #[inline]
    fn open_in_place(&mut self, packet: &mut Packet, context: &Context, at: usize) -> Result<Inside, DropReason> {
        let now = self.clock;
        let outer = &context.ip;
        let outside = packet.data().get(usize::from(context.l3)..).unwrap_or(&[]);
        // In UDP it ends with the datagram, which may be before the IP packet does (RFC 768).
        let len = if outer.proto == PROTO_UDP { outer.udp_data(outside) } else { outer.payload(outside) }.len();
        let deciphered = packet.note() == NicNote::Deciphered;
        packet.set_note(NicNote::None);
        let esp = packet.data_mut().get_mut(at..at + len).ok_or(DropReason::EspTruncated)?;
        let spi = spi(esp).ok_or(DropReason::EspTruncated)?;
        let ([a, b, c, d, ..], vrf) = (outer.dst, context.key.vrf);
        let sa = self
            .ipsec
            .inbound_mut(spi)
            .filter(|sa| sa.end == (vrf, Ipv4Addr::new(a, b, c, d)))
            .ok_or(DropReason::EspUnknownSpi)?;
        if let Some(reason) = sa.usage.ended {
            return Err(reason);
        }
        if sa.hold.keeps_window(now) {
            let genuine = !deciphered && sa.sa.open(esp).is_ok();
            if genuine {
                self.ipsec.take_back_from_nic(spi, now);
            }
            return Err(DropReason::EspBesideNic);
        }
        let opened = if deciphered { sa.sa.open_deciphered(esp) } else { sa.sa.open(esp) };
        let opened = opened.map_err(|error| sa.refuse(error))?;
        let Opened::Packet { at: inside, len } = opened else {
            sa.usage.count(0);
            let news = sa.usage.look(now).map(|news| (sa.usage.sa.id, news));
            return Ok(Inside { vif: None, news });
        };
        sa.usage.count(len);
        let news = sa.usage.look(now).map(|news| (sa.usage.sa.id, news));
        let vif = sa.vif;
        packet.advance(at + inside);
        packet.truncate(len);
        packet.set_mark(None);
        combine_ecn(packet, outer.tos)?;
        Ok(Inside { vif: Some(vif), news })
    }

    /// An ESP packet that has come another way than by a batch: put together of fragments.
    pub(in crate::worker) fn receive_esp(
        &mut self,
        packet: Packet,
        context: &Context,
        at: usize,
        now: u64,
        out: &mut Outbox,
    ) {
        if let Some(owner) = self.other_opener(packet.data(), at) {
            let origin = Origin::Port { port: context.port, head: None, counted: true };
            return out.handoff.push((owner, Delivery { packet, origin }));
        }
        if let Some((port, packet)) = self.open_esp(packet, context, at, out) {
            let origin = Origin::Port { port, head: None, counted: false };
            self.deliver_all(vec![Delivery { packet, origin }], now, out);
        }
    }
}

#[inline]
fn spi(esp: &[u8]) -> Option<u32> {
    esp.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

/// What the outer header says of congestion goes on inside (RFC 6040 §4.2).
#[inline]
fn combine_ecn(packet: &mut Packet, outer: u8) -> Result<(), DropReason> {
    let (_, tos) = df_and_tos(packet.data());
    let inner = Ecn::of(tos);
    let combined = ecn::decapsulate(Ecn::of(outer), inner)?;
    if combined != inner && packet.len() >= 20 {
        rewrite::set_ecn(packet.data_mut(), combined);
    }
    Ok(())
}
