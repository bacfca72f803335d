//! The stage that opens ESP packets: between the first stage and the look-up.

use std::net::Ipv4Addr;

use offload_rules::{DropReason, SaId, VifId};

use super::{
    inner::df_and_tos,
    sa::SaNews,
    table::{Ipsec, spi},
};
use crate::{
    esp::Opened,
    packet::{
        NicNote, Packet,
        ecn::{self, Ecn},
        parse::PROTO_UDP,
        rewrite,
    },
    worker::{context::Context, delivery::Arrived, env::Env, event::Event, outcome::Outcome},
};

/// Result of opening an ESP packet.
struct Inside {
    /// The tunnel that the packet inside came out of; `None`: there is none, it was a dummy.
    tunnel: Option<VifId>,
    news: Option<(SaId, SaNews)>,
}

impl Ipsec {
    /// Opens the ESP packet at `at` of a frame whose context is that of the outer packet. The packet inside is what is left of it, and
    /// enters at the first stage as if received on the tunnel.
    #[inline]
    pub(in crate::worker) fn open(
        &mut self,
        env: &Env,
        packet: &mut Packet,
        context: &Context,
        at: usize,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match self.open_in_place(packet, context, at, env.clock) {
            Ok(Inside { tunnel, news }) => {
                if let Some((sa, news)) = news {
                    self.tell(sa, news, env, events);
                }
                tunnel.map_or(Outcome::Consume, |tunnel| Outcome::Again(Arrived::new(tunnel)))
            }
            Err(reason) => Outcome::drop(context.vif, reason),
        }
    }

    /// Opens it in place.
    #[inline]
    fn open_in_place(
        &mut self,
        packet: &mut Packet,
        context: &Context,
        at: usize,
        now: u64,
    ) -> Result<Inside, DropReason> {
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
            .inbound_mut(spi)
            .filter(|sa| sa.end == (vrf, Ipv4Addr::new(a, b, c, d)))
            .ok_or(DropReason::EspUnknownSpi)?;
        if let Some(reason) = sa.usage.ended {
            return Err(reason);
        }
        if sa.nic.keeps_window(now) {
            let genuine = !deciphered && sa.sa.open(esp).is_ok();
            if genuine {
                self.take_back_from_nic(spi, now);
            }
            return Err(DropReason::EspBesideNic);
        }
        let opened = if deciphered { sa.sa.open_deciphered(esp) } else { sa.sa.open(esp) };
        let opened = opened.map_err(|error| sa.refuse(error))?;
        let Opened::Packet { at: inside, len } = opened else {
            sa.usage.count(0);
            let news = sa.usage.look(now).map(|news| (sa.usage.sa.id, news));
            return Ok(Inside { tunnel: None, news });
        };
        sa.usage.count(len);
        let news = sa.usage.look(now).map(|news| (sa.usage.sa.id, news));
        let vif = sa.vif;
        packet.advance(at + inside);
        packet.truncate(len);
        packet.set_mark(None);
        combine_ecn(packet, outer.tos)?;
        Ok(Inside { tunnel: Some(vif), news })
    }
}

/// Combines the ECN field of the outer header into the inner one (RFC 6040 §4.2).
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
