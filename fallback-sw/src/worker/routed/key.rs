//! Keys of cached decisions.
//!
//! A decision is found in steps: the first key holds what every walk reads (ingress, VRF, family, where it begins) and the longest match
//! of one address; each further key holds the node reached so far and the value of the [`PacketRead`] that the walk went on by.

use offload_rules::{
    NexthopId, VifId, VrfId,
    classify::{self, PacketRead, Side, Start},
    flow::{Family, FlowKey},
    forwarding::{Fib, RouteAnswer, Snapshot},
};

use crate::worker::context::Context;

const TCP: u8 = 6;

/// A key: compared and hashed as three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Key(pub(super) [u64; 3]);

impl Key {
    /// No packet's.
    pub(super) const NONE: Self = Self([0; 3]);
}

/// In the place of a route's answer: there is no route.
const NO_ROUTE: u64 = u64::MAX;
/// In the place of a route's answer: not asked for. No nexthop has this number and no label.
const NOT_ASKED: u64 = u64::MAX - 1;

/// The longest matches of a packet's addresses in the VRF of its key, looked up for each packet: a route that has come, gone or
/// changed is seen at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matches {
    pub(super) source: u64,
    pub(super) destination: u64,
}

impl Matches {
    /// In the routes of the key's VRF.
    #[inline]
    pub(super) fn of(fib: Option<&Fib>, key: &FlowKey, start: Start) -> Self {
        let family = key.family();
        let source = answer(fib, family, &key.src);
        let destination = match start {
            Start::Route => answer(fib, family, &key.dst),
            Start::Nexthop(_) => NOT_ASKED,
        };
        Self { source, destination }
    }
}

#[inline]
fn answer(fib: Option<&Fib>, family: Family, address: &[u8; 16]) -> u64 {
    fib.and_then(|fib| fib.answer(family, address))
        .map_or(NO_ROUTE, |RouteAnswer { nexthop, label }| u64::from(nexthop.get()) << 32 | u64::from(label))
}

/// What each decision on where a packet goes depends on, beside its addresses.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Departure {
    /// The vif that it came in on.
    pub(in crate::worker) vif: VifId,
    pub(in crate::worker) vrf: VrfId,
    pub(in crate::worker) is_tcp: bool,
    pub(in crate::worker) is_v6: bool,
    /// Source of the outer header that comes off.
    pub(in crate::worker) outer: Option<u32>,
    /// Where the walk begins.
    pub(in crate::worker) start: Start,
}

impl Departure {
    /// Of a packet whose walk begins here.
    #[inline]
    pub(super) fn of(context: &Context, start: Start) -> Self {
        Self {
            vif: context.vif,
            vrf: context.key.vrf,
            is_tcp: context.key.proto == TCP,
            is_v6: context.key.version == 6,
            outer: context.outer.map(|outer| outer.source.to_bits()),
            start,
        }
    }

    /// Where the walk begins, from the second of [`Departure::words`].
    #[inline]
    pub(in crate::worker) fn start_of(begin: u64) -> Start {
        match NexthopId::new((begin >> 32) as u32) {
            Ok(nexthop) if nexthop != NexthopId::NONE => Start::Nexthop(nexthop),
            _ => Start::Route,
        }
    }

    /// The first word of the first key by source: which tree, ingress vif, VRF, family.
    #[inline]
    fn arrival_place(self) -> u64 {
        let flags = ARRIVAL | u64::from(self.is_v6) << 3 | u64::from(self.outer.is_some()) << 4;
        flags << 32 | u64::from(self.vif.get()) << 16 | u64::from(self.vrf.get())
    }

    /// As two words; no two that differ have the same.
    #[inline(always)]
    pub(in crate::worker) fn words(self) -> [u64; 2] {
        let Self { vif, vrf, is_tcp, is_v6, outer, start } = self;
        let flags = DEPARTURE | u64::from(is_tcp) << 2 | u64::from(is_v6) << 3 | u64::from(outer.is_some()) << 4;
        let place = flags << 32 | u64::from(vif.get()) << 16 | u64::from(vrf.get());
        let begin = match start {
            Start::Route => NexthopId::NONE,
            Start::Nexthop(nexthop) => nexthop,
        };
        [place, u64::from(begin.get()) << 32 | u64::from(outer.unwrap_or(0))]
    }
}

const ARRIVAL: u64 = 1;
const DEPARTURE: u64 = 2;
const FURTHER: u64 = 3;

impl Key {
    /// Of whether a packet may come from where it came from.
    #[inline]
    pub(super) fn arrival(of: Departure, matches: Matches) -> Self {
        // Path MTU and reverse path depend on the outer source.
        Self([of.arrival_place(), of.outer.unwrap_or(0).into(), matches.source])
    }

    /// Of where it goes. All but the destination's match.
    #[inline]
    pub(super) fn departure(of: Departure) -> Self {
        let [place, begin] = of.words();
        Self([place, begin, NOT_ASKED])
    }

    /// With the match of the address that it is about.
    #[inline]
    pub(super) const fn with_match(self, matched: u64) -> Self {
        let Self([place, begin, _]) = self;
        Self([place, begin, matched])
    }

    /// Below the node of this number, by the value of what is read there.
    #[inline]
    pub(super) fn below(node: u32, value: [u64; 2]) -> Self {
        let [high, low] = value;
        Self([FURTHER << 32 | u64::from(node), high, low])
    }
}

/// The value of what a walk reads of a packet.
pub(super) fn value(read: &PacketRead, snapshot: &Snapshot, key: &FlowKey) -> [u64; 2] {
    match read {
        PacketRead::Route { vrf, side } => {
            let address = match side {
                Side::Source => &key.src,
                Side::Destination => &key.dst,
            };
            [0, answer(snapshot.fib(*vrf), key.family(), address)]
        }
        PacketRead::Destination => {
            let both = u128::from_be_bytes(key.dst);
            [(both >> 64) as u64, both as u64]
        }
        PacketRead::Member(usable) => [1, classify::draw(usable, key.spread()).map_or(u64::MAX, u64::from)],
    }
}

/// Is the value of this part of the first key already?
pub(super) fn is_first(read: &PacketRead, key: &FlowKey, start: Start, of: Side) -> bool {
    match read {
        PacketRead::Route { vrf, side } => {
            *vrf == key.vrf && *side == of && (of == Side::Source || start == Start::Route)
        }
        PacketRead::Destination | PacketRead::Member(_) => false,
    }
}
