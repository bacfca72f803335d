//! What becomes of a packet: what stages return.
//!
//! Stages look at a packet, change it, and return an [`Outcome`]; they do not own it, so that they can neither lose it nor send it twice.
//! `counters/settle.rs` carries the outcome out, and alone writes what the account balances.
//!
//! ```text
//!  port, other worker
//!        │
//!        ▼            Again
//!      sort ◄──────────────────────────────────────┐
//!        │  ▲ Again: the packet inside             │ put together, told by its first fragment
//!        │  └── open (ESP in)                      │
//!        ▼                                         │
//!     look up ─► hit, routed or decide ─────────► settle ─► Hold, Send, HandOver, Answer, Consume, Drop
//!                                                  │ ▲
//!                                             Seal │ │ Send
//!                                                  ▼ │
//!                                              seal (ESP out)
//! ```

use std::collections::VecDeque;

use offload_rules::{DropReason, MacAddr, VifId, VrfId};

use super::{
    context::Context,
    delivery::{Arrived, Delivery, Origin},
    event::Event,
    fragments::DatagramKey,
    ipsec::{EspQuote, SealRequest, Sealing},
    outbox::recycle,
    tenant::{NeighbourKey, Tenant},
    tx::TxKind,
};
use crate::packet::{Packet, parse::Ip};

/// What becomes of a packet. The packet itself stays with whoever asks a stage.
#[must_use]
#[derive(Debug)]
pub(super) enum Outcome {
    /// Sent as it is now.
    Send {
        vif: VifId,
        port: VifId,
        kind: TxKind,
    },
    /// Sealed with ESP, then sent.
    Seal(SealRequest),
    /// Waits; see [`Hold`].
    Hold(Box<Hold>),
    /// Another worker goes on with it.
    HandOver {
        worker: usize,
        origin: Origin,
    },
    /// Enters at the first stage: it was taken out of ESP, or put together.
    Again(Arrived),
    /// Used up by the node, whose answer is now in its place: an IP packet without anything before it.
    Answer(OwnPath),
    /// Used up by the node.
    Consume,
    Drop {
        blame: Blame,
        reason: DropReason,
    },
}

impl Outcome {
    /// A received packet is dropped on this vif.
    #[inline]
    pub(super) const fn drop(vif: VifId, reason: DropReason) -> Self {
        Self::Drop { blame: Blame::Received(vif), reason }
    }
}

/// What a dropped packet counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// A received packet, on this vif.
    Received(VifId),
    /// One that the NIC has counted as forwarded: it is lost as another one that was received, on this vif.
    Resumed(VifId),
    /// The node's own.
    Own,
}

impl Blame {
    /// Of what was on its way out already. `vif`: where it counts if it was received.
    pub(super) const fn of(kind: TxKind, vif: VifId) -> Self {
        match kind {
            TxKind::Forwarded | TxKind::Punted => Self::Received(vif),
            TxKind::Resumed => Self::Resumed(vif),
            TxKind::Originated => Self::Own,
        }
    }
}

impl Delivery {
    /// What it counts as when it is dropped.
    pub(super) const fn blame(&self) -> Blame {
        match self.origin {
            Origin::Port(Arrived { port, .. }) | Origin::Quoting(EspQuote { vif: port, .. }) => Blame::Received(port),
            Origin::Sealing(Sealing { egress, kind }) => Blame::of(kind, egress.tunnel),
            Origin::Own(_) => Blame::Own,
        }
    }
}

/// What a packet waits for.
#[derive(Debug)]
pub(super) enum Hold {
    /// A neighbour's MAC. Then it is judged anew.
    Neighbour { neighbour: NeighbourKey, tenant: Tenant, origin: Origin },
    /// The first fragment of its datagram, which tells the ports.
    FirstFragment { datagram: DatagramKey, context: Context },
    /// The other fragments of its datagram. It has been stripped to the IP packet; `link` was before it.
    Datagram { datagram: DatagramKey, ip: Ip, link: Vec<u8>, context: Context },
}

/// A packet that the node has made and not counted yet.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) packet: Packet,
    pub(super) next: OwnNext,
}

/// What is to become of it.
#[derive(Debug)]
pub(super) enum OwnNext {
    /// An IP packet (or ARP), to go this way.
    Path(OwnPath),
    /// Carried out already.
    Done(Outcome),
}

/// The way of a packet that the node has made.
#[derive(Debug, Clone, Copy)]
pub(super) enum OwnPath {
    /// By the routes of a VRF.
    Route(VrfId),
    /// To a station on the link of a vif.
    OnLink(Station),
}

/// A station on the link of a vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) vif: VifId,
    /// `None` on a vif without Ethernet: whoever is at its other end.
    pub(super) mac: Option<MacAddr>,
    pub(super) ethertype: u16,
}

/// What stages have left for other stages of the same worker.
#[derive(Default)]
pub(super) struct Pending {
    /// To be sealed, in this order.
    pub(super) seal: Vec<(Packet, SealRequest)>,
    /// Received packets that enter at the first stage again.
    pub(super) again: VecDeque<(Packet, Arrived)>,
    /// Made by the node, and not counted yet.
    pub(super) own: VecDeque<Own>,
    /// Packets that the node wanted to make, and could not.
    pub(super) own_lost: u64,
}

/// What a stage may emit beside the outcome of its packet.
pub(super) struct Emit<'a> {
    own: &'a mut VecDeque<Own>,
    own_lost: &'a mut u64,
    pub(super) events: &'a mut Vec<Event>,
    /// Packets to reuse.
    pub(super) spare: &'a mut Vec<Packet>,
}

impl Emit<'_> {
    /// An IP packet that the node has made.
    pub(super) fn originate(&mut self, packet: Packet, path: OwnPath) {
        self.own.push_back(Own { packet, next: OwnNext::Path(path) });
    }

    /// The same, that has been carried out already: another fragment of a packet that was split.
    pub(super) fn originate_done(&mut self, packet: Packet, outcome: Outcome) {
        self.own.push_back(Own { packet, next: OwnNext::Done(outcome) });
    }

    /// A packet that the node could not make.
    pub(super) const fn lose(&mut self) {
        *self.own_lost += 1;
    }

    /// Gives memory back.
    pub(super) fn recycle(&mut self, packet: Packet) {
        recycle(self.spare, packet);
    }

    /// For what is called in turn.
    pub(super) fn reborrow(&mut self) -> Emit<'_> {
        Emit { own: self.own, own_lost: self.own_lost, events: self.events, spare: self.spare }
    }

    /// Fragments take the place of a packet: the first one is what was received, or made, the others are the node's own. `outcome`
    /// tells of each what becomes of it.
    pub(super) fn split(
        &mut self,
        packet: &mut Packet,
        pieces: impl IntoIterator<Item = Packet>,
        kind: TxKind,
        outcome: impl Fn(TxKind) -> Outcome,
    ) -> Option<Outcome> {
        let mut pieces = pieces.into_iter();
        let first = pieces.next()?;
        self.recycle(std::mem::replace(packet, first));
        for piece in pieces {
            self.originate_done(piece, outcome(TxKind::Originated));
        }
        Some(outcome(kind))
    }
}

impl Pending {
    pub(super) fn emit<'a>(&'a mut self, events: &'a mut Vec<Event>, spare: &'a mut Vec<Packet>) -> Emit<'a> {
        Emit { own: &mut self.own, own_lost: &mut self.own_lost, events, spare }
    }
}
