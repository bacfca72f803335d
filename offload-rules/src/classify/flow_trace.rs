//! What the decision on a flow was read from in its packet, so that it holds for other flows that read alike.
//!
//! As a [`Trace`](super::Trace), but of a walk for a flow, which also reads what is kept of the flow, where its other direction came from,
//! and lists. Two inquiries into one snapshot are decided on alike when they are equal in all but addresses, ports and hash, have the same
//! longest matches for both addresses in the VRF of their keys, and find the same for each read of the trace. As with a `Trace`, addresses
//! of the node ([`Snapshot::node_addresses`]) and [of one link](super::is_of_link) are beyond that.

use std::net::IpAddr;

use super::{
    AclPacket, Candidate, Inquiry, Side, draw,
    policy::{self, Judgement, Lists},
};
use crate::{
    VrfId,
    flow::{Dependency, FlowKey},
    forwarding::{Route, RouteAnswer, Snapshot},
};

/// The answer to a look-up as one word: nexthop and label, or [`NO_ROUTE`].
type Word = u64;

/// There is no route. No nexthop has this number and no label.
const NO_ROUTE: Word = u64::MAX;

fn word(route: Option<&Route>) -> Word {
    route.map_or(NO_ROUTE, |route| {
        let RouteAnswer { nexthop, label } = RouteAnswer::of(route);
        u64::from(nexthop.get()) << 32 | u64::from(label)
    })
}

/// Something about a packet that the walk for its flow has read, and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Read {
    /// The longest match of one of its addresses, in another VRF than that of its key.
    Route { vrf: VrfId, side: Side, answer: Word },
    /// The destination itself, as the neighbour on a connected subnet.
    Destination([u8; 16]),
    /// Which of all members of a composite its hash ranks first.
    First { of: Box<[Candidate]>, slot: Option<u8> },
    /// What these lists say of it.
    Lists(Lists, Judgement),
}

/// What the decision on a flow was read from in its packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowTrace {
    reads: Box<[Read]>,
}

impl FlowTrace {
    /// Would a walk for another inquiry, as far as its longest matches in the VRF of its key tell, find the same?
    ///
    /// # Errors
    /// No: a hash of what it would find first that differs. Inquiries that differ from this trace in the same way have the same one.
    pub fn compare(&self, snapshot: &Snapshot, inquiry: &Inquiry<'_>, answers: &mut Answers) -> Result<(), u64> {
        for (at, read) in self.reads.iter().enumerate() {
            let (is_same, value) = match read {
                Read::Route { vrf, side, answer } => {
                    let found = answers.route(snapshot, *vrf, inquiry.key, *side);
                    (found == *answer, found)
                }
                Read::Destination(address) => (inquiry.key.dst == *address, fold_address(&inquiry.key.dst)),
                Read::First { of, slot } => {
                    let found = draw(of, inquiry.hash);
                    (found == *slot, found.map_or(NO_ROUTE, u64::from))
                }
                Read::Lists(lists, judgement) => {
                    let found = answers.judgement(snapshot, *lists, policy::asked(inquiry));
                    (found == *judgement, found.digest())
                }
            };
            if !is_same {
                return Err(fold(value, at as u64 + 1));
            }
        }
        Ok(())
    }
}

/// Makes a [`FlowTrace`] while a walk reads.
#[derive(Debug)]
pub(super) struct FlowTracer {
    source: IpAddr,
    destination: IpAddr,
    vrf: VrfId,
    reads: Vec<Read>,
    /// The walk has read something of the packet that no [`Read`] tells.
    opaque: bool,
}

impl FlowTracer {
    pub(super) fn new(key: &FlowKey) -> Self {
        let (source, destination) = (key.source(), key.destination());
        // Of one address that is both it is noted as the destination alone that its route was read.
        Self { source, destination, vrf: key.vrf, reads: Vec::new(), opaque: source == destination }
    }

    /// Notes that more was read than a trace can tell.
    pub(super) const fn blur(&mut self) {
        self.opaque = true;
    }

    /// Notes a longest match. Whose address it is is found by its value, as in a `Trace`.
    pub(super) fn route(&mut self, vrf: VrfId, address: IpAddr, route: Option<&Route>) {
        if vrf == self.vrf {
            return;
        }
        for (end, side) in [(self.source, Side::Source), (self.destination, Side::Destination)] {
            if address == end {
                self.read(Read::Route { vrf, side, answer: word(route) });
            }
        }
    }

    /// Notes which member comes first.
    pub(super) fn first(&mut self, of: Box<[Candidate]>, slot: Option<u8>) {
        self.read(Read::First { of, slot });
    }

    /// Notes what lists have said.
    pub(super) fn lists(&mut self, lists: Lists, judgement: Judgement) {
        self.read(Read::Lists(lists, judgement));
    }

    /// Notes what a dependency tells of the packet. Every kind is named here, so that a new one has to be thought about.
    pub(super) fn dependency(&mut self, what: Dependency, key: &FlowKey) {
        match what {
            Dependency::Neighbour(_, address)
            | Dependency::Gateway(_, address)
            | Dependency::PathMtu(address)
            | Dependency::TunnelsTo(address) => {
                if address == self.source {
                    self.blur();
                }
                if address == self.destination {
                    self.read(Read::Destination(key.dst));
                }
            }
            // Routes are noted by address, lists by what they say; what is compared with the node's own addresses is not traced.
            Dependency::Acl(_)
            | Dependency::Destination(_)
            | Dependency::Source(_)
            | Dependency::Route(..)
            | Dependency::Addresses => {}
            Dependency::Vif(_)
            | Dependency::Oper(_)
            | Dependency::Nexthop(_)
            | Dependency::Label(_)
            | Dependency::Sa(_) => {}
        }
    }

    fn read(&mut self, read: Read) {
        if !self.reads.contains(&read) {
            self.reads.push(read);
        }
    }

    /// The trace; `None` when it cannot tell everything.
    pub(super) fn finish(self) -> Option<FlowTrace> {
        (!self.opaque).then(|| FlowTrace { reads: self.reads.into_boxed_slice() })
    }
}

/// Places of [`Answers`] for longest matches.
const KEPT: usize = 64;

/// A longest match that was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    address: [u8; 16],
    /// VRF and family; 0: none is here.
    place: u32,
    answer: Word,
}

const NOTHING_ASKED: Asked = Asked { address: [0; 16], place: 0, answer: NO_ROUTE };

/// Longest matches and judgements of lists that were asked for lately: the two directions of a flow ask for the same. They hold for one
/// snapshot: [`Answers::forget`].
#[derive(Debug)]
pub struct Answers {
    routes: Box<[Asked; KEPT]>,
    judged: Option<(Lists, AclPacket, Judgement)>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { routes: Box::new([NOTHING_ASKED; KEPT]), judged: None }
    }
}

impl Answers {
    /// Another snapshot is asked from now on.
    pub fn forget(&mut self) {
        self.routes.fill(NOTHING_ASKED);
        self.judged = None;
    }

    /// The longest matches of source and destination of a key in its VRF, each as a word.
    #[must_use]
    pub fn of_key(&mut self, snapshot: &Snapshot, key: &FlowKey) -> [u64; 2] {
        [Side::Source, Side::Destination].map(|side| self.route(snapshot, key.vrf, key, side))
    }

    fn route(&mut self, snapshot: &Snapshot, vrf: VrfId, key: &FlowKey, side: Side) -> Word {
        let address = match side {
            Side::Source => &key.src,
            Side::Destination => &key.dst,
        };
        let place = u32::from(vrf.get()) | u32::from(key.version) << 16;
        let at = fold(fold_address(address), place.into()) as usize % KEPT;
        let Some(asked) = self.routes.get_mut(at) else { return NO_ROUTE };
        if asked.place != place || asked.address != *address {
            let end = match side {
                Side::Source => key.source(),
                Side::Destination => key.destination(),
            };
            *asked = Asked { address: *address, place, answer: word(snapshot.route(vrf, end).map(AsRef::as_ref)) };
        }
        asked.answer
    }

    fn judgement(&mut self, snapshot: &Snapshot, lists: Lists, packet: AclPacket) -> Judgement {
        if let Some((of, asked, judgement)) = self.judged
            && (of, asked) == (lists, packet)
        {
            return judgement;
        }
        let judgement = policy::judge(snapshot, &packet, lists, |_| {});
        self.judged = Some((lists, packet, judgement));
        judgement
    }
}

/// Both halves of the product, folded together.
pub(super) const fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ 0x9e37_79b9_7f4a_7c15) as u128 * (b ^ 0xe703_7ed1_a0b4_28db) as u128;
    product as u64 ^ (product >> 64) as u64
}

const fn fold_address(address: &[u8; 16]) -> u64 {
    let both = u128::from_le_bytes(*address);
    fold(both as u64, (both >> 64) as u64)
}
