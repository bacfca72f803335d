//! The stage that opens ESP packets: between the first stage and the look-up.
//!
//! Packets that come one after the other are opened together, as far as one SA opens them: the window is asked for all of them, then the
//! cipher runs over all, then the window moves, packet by packet. What comes of it is what opening them one by one comes to.

use offload_rules::{DropReason, SaId, VifId};

use super::{
    inbound::Inbound,
    inner::df_and_tos,
    sa::SaNews,
    table::{Ipsec, spi},
};
use crate::{
    esp::Opened,
    packet::{
        NicNote, Packet,
        ecn::{self, Ecn},
        rewrite,
    },
    worker::{delivery::Arrived, env::Env, event::Event, ingress::EspFrame, outcome::Outcome},
};

/// An ESP packet on its way through the stage.
pub(in crate::worker) struct Sealed {
    pub(in crate::worker) packet: Packet,
    frame: EspFrame,
    /// Index of its SA; 0, which no SA has, when it is too short for one.
    spi: u32,
    /// The vif that it came in on.
    vif: VifId,
    step: Step,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Nothing was done yet.
    New,
    /// The window lets this number through.
    Checked(u64),
    /// The cipher has run.
    Deciphered { number: u64, genuine: bool },
    /// Done: what was inside is left of the packet, and came out of this tunnel.
    Inside(VifId),
    /// Done: a dummy.
    Dummy,
    /// Done.
    Refused(DropReason),
}

impl Sealed {
    #[inline]
    pub(in crate::worker) fn new(packet: Packet, frame: EspFrame, vif: VifId) -> Self {
        let spi = packet.data().get(usize::from(frame.at)..).and_then(spi).unwrap_or(0);
        Self { packet, frame, spi, vif, step: Step::New }
    }

    /// The tunnel that what is left of it came out of.
    #[inline]
    pub(in crate::worker) const fn inside(&self) -> Option<VifId> {
        if let Step::Inside(tunnel) = self.step { Some(tunnel) } else { None }
    }

    /// What becomes of it.
    pub(in crate::worker) const fn outcome(&self) -> Outcome {
        match self.step {
            Step::Inside(tunnel) => Outcome::Again(Arrived::new(tunnel)),
            Step::Dummy => Outcome::Consume,
            Step::Refused(reason) => Outcome::drop(self.vif, reason),
            // Invariant: the stage leaves none of them.
            Step::New | Step::Checked(_) | Step::Deciphered { .. } => {
                Outcome::drop(self.vif, DropReason::InvalidPacket)
            }
        }
    }
}

impl EspFrame {
    /// The ESP packet in its frame.
    #[inline]
    fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let at = usize::from(self.at);
        frame.get(at..at + usize::from(self.len)).unwrap_or(&[])
    }

    #[inline]
    fn of_mut<'a>(&self, frame: &'a mut [u8]) -> &'a mut [u8] {
        let at = usize::from(self.at);
        frame.get_mut(at..at + usize::from(self.len)).unwrap_or(&mut [])
    }
}

impl Ipsec {
    /// Opens packets that came in this order, each in place.
    pub(in crate::worker) fn open_together(&mut self, env: &Env, packets: &mut [Sealed], events: &mut Vec<Event>) {
        for run in packets.chunk_by_mut(|one, next| one.spi == next.spi && one.frame.end == next.frame.end) {
            self.open_run(env, run, events);
        }
    }

    /// Packets of one SA.
    #[inline]
    fn open_run(&mut self, env: &Env, run: &mut [Sealed], events: &mut Vec<Event>) {
        let (Some(first), now) = (run.first(), env.clock) else { return };
        let (index, end) = (first.spi, first.frame.end);
        let Some(sa) = self.inbound_mut(index).filter(|sa| sa.end == end && !sa.nic.keeps_window(now)) else {
            return self.open_each(env, run, events);
        };
        for Sealed { packet, frame, step, .. } in &mut *run {
            // Where the window says no, it is asked once more in turn.
            *step = sa.sa.check(frame.of(packet.data())).map_or(Step::New, Step::Checked);
        }
        for Sealed { packet, frame, step, .. } in &mut *run {
            if let Step::Checked(number) = *step {
                let genuine = sa.sa.decipher(frame.of_mut(packet.data_mut()), number);
                *step = Step::Deciphered { number, genuine };
            }
        }
        // One limit is reached once, and there are two.
        let mut told = [None; 2];
        for Sealed { packet, frame, step, .. } in &mut *run {
            let news = sa.accept(packet, *frame, step, now);
            if news.is_some()
                && let Some(free) = told.iter_mut().find(|told| told.is_none())
            {
                *free = news;
            }
        }
        let id = sa.usage.sa.id;
        for news in told.into_iter().flatten() {
            self.tell(id, news, env, events);
        }
    }

    /// Packets whose SA does not open them just so.
    #[cold]
    fn open_each(&mut self, env: &Env, run: &mut [Sealed], events: &mut Vec<Event>) {
        for Sealed { packet, frame, step, .. } in run {
            *step = self.open_one(env, packet, *frame, events);
        }
    }

    /// Opens an ESP packet by itself, in place. The packet inside is what is left of it, and enters at the first stage as if received on
    /// the tunnel.
    pub(in crate::worker) fn open(
        &mut self,
        env: &Env,
        packet: &mut Packet,
        frame: EspFrame,
        vif: VifId,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match self.open_one(env, packet, frame, events) {
            Step::Inside(tunnel) => Outcome::Again(Arrived::new(tunnel)),
            Step::Dummy => Outcome::Consume,
            Step::Refused(reason) => Outcome::drop(vif, reason),
            // Invariant: it was opened or refused.
            Step::New | Step::Checked(_) | Step::Deciphered { .. } => Outcome::drop(vif, DropReason::InvalidPacket),
        }
    }

    fn open_one(&mut self, env: &Env, packet: &mut Packet, frame: EspFrame, events: &mut Vec<Event>) -> Step {
        let (step, news) = match self.open_in_place(packet, frame, env.clock) {
            Ok(opened) => opened,
            Err(reason) => return Step::Refused(reason),
        };
        if let Some((sa, news)) = news {
            self.tell(sa, news, env, events);
        }
        step
    }

    fn open_in_place(
        &mut self,
        packet: &mut Packet,
        frame: EspFrame,
        now: u64,
    ) -> Result<(Step, Option<(SaId, SaNews)>), DropReason> {
        let deciphered = packet.note() == NicNote::Deciphered;
        packet.set_note(NicNote::None);
        let esp = frame.of_mut(packet.data_mut());
        let spi = spi(esp).ok_or(DropReason::EspTruncated)?;
        let sa = self.inbound_mut(spi).filter(|sa| sa.end == frame.end).ok_or(DropReason::EspUnknownSpi)?;
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
        let mut step = if deciphered {
            match sa.sa.check(esp) {
                Ok(number) => Step::Deciphered { number, genuine: true },
                Err(error) => return Err(sa.refuse(error)),
            }
        } else {
            Step::New
        };
        let news = sa.accept(packet, frame, &mut step, now);
        Ok((step, news.map(|news| (sa.usage.sa.id, news))))
    }
}

impl Inbound {
    /// The last step of opening, in the order in which packets came: the window moves, and the packet inside is what is left. What has not
    /// been deciphered is now.
    #[inline(always)] // the step stays in registers
    fn accept(&mut self, packet: &mut Packet, frame: EspFrame, step: &mut Step, now: u64) -> Option<SaNews> {
        // A packet before it may have been the last one.
        if let Some(reason) = self.usage.ended {
            *step = Step::Refused(reason);
            return None;
        }
        let esp = frame.of_mut(packet.data_mut());
        let opened = match *step {
            Step::Deciphered { number, genuine } => self.sa.accept(esp, number, genuine),
            _ => self.sa.open(esp),
        };
        let (at, len) = match opened {
            Ok(Opened::Packet { at, len }) => (at, len),
            Ok(Opened::Dummy) => {
                *step = Step::Dummy;
                self.usage.count(0);
                return self.usage.look(now);
            }
            Err(error) => {
                *step = Step::Refused(self.refuse(error));
                return None;
            }
        };
        self.usage.count(len);
        packet.advance(usize::from(frame.at) + at);
        packet.truncate(len);
        packet.set_mark(None);
        *step = match combine_ecn(packet, frame.tos) {
            Ok(()) => Step::Inside(self.vif),
            Err(reason) => Step::Refused(reason),
        };
        self.usage.look(now)
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
