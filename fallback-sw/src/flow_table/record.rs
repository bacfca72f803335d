//! The record of one direction of a flow.

use offload_rules::flow::{
    FlowKey,
    tcp::{TcpDirection, TcpState},
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::NONE;

/// One direction of a flow: two cache lines. The first is read for every packet, the second is written for every packet.
/// All zero is a free record.
///
/// `key`, `reverse` and `generation` belong to the table: change the vif through [`FlowTable::set_vif`], the others not at
/// all.
///
/// [`FlowTable::set_vif`]: super::FlowTable::set_vif
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Record {
    /// What the packets have in common. Its `version` is 0 in a free record.
    pub key: FlowKey,
    /// Index into the worker's programs; 0: to be derived.
    pub program: u32,
    /// Low 32 bits of the version of the snapshot that `program` was derived from.
    pub version: u32,
    /// When the last packet passed, in wrapping milliseconds of the worker's clock.
    pub last_seen: u32,
    /// UDP source port of the tunnel, 49152..=65535; 0 when not chosen.
    pub tunnel_sport: u16,
    /// Bits of the worker.
    pub flags: u8,
    /// [`TcpState`] of this direction.
    pub tcp: u8,
    /// Outer source that packets out of a tunnel must have (RPF); zero when they come from elsewhere.
    pub rpf_source: [u8; 4],

    /// Packets.
    pub packets: u64,
    /// Octets, of the frame as received.
    pub bytes: u64,
    /// Slot of the other direction; `u32::MAX`: none. A flow whose two keys are equal is its own other direction.
    pub reverse: u32,
    /// [`TcpDirection::snd_nxt`].
    pub snd_nxt: u32,
    /// [`TcpDirection::acked`].
    pub acked: u32,
    /// When the flow was made, in wrapping milliseconds of the worker's clock.
    pub created: u32,
    /// When its program last changed, likewise.
    pub changed: u32,
    /// Nexthop that leads back to the source (S(nh)).
    pub source_nexthop: u32,
    /// Access list that decided; 0: none.
    pub acl: u32,
    /// Entry of that list.
    pub ace: u32,
    /// ECMP slot at each level; 0xff: none.
    pub ecmp: [u8; 2],
    /// Grows, modulo 256, with each use of the slot: an update that names an older generation is stale.
    pub generation: u8,
    /// `DropReason` as a number; 0: none.
    pub drop_reason: u8,
    /// Underlay vif that packets out of a tunnel came in on; 0: none.
    pub underlay_vif: u16,
    /// VRF of the route that the program follows, when it is not the key's; 0: the same.
    pub destination_vrf: u16,
    /// In a flow that is spliced behind a SYN cookie: what a client's numbers of the server differ by from the server's own,
    /// modulo 2^32. In others that have one: the number of the worker's entry on offloading it.
    pub mark: u32,
    /// IPv4 identification of the outer headers of all its packets; 0: not chosen.
    pub ip_id: u16,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Record>() == 128 && std::mem::offset_of!(Record, packets) == 64);

impl Record {
    /// A free record of a slot that was last used with this generation; `next` continues the list of free slots.
    pub(super) fn vacant(generation: u8, next: u32) -> Self {
        let mut record = Self::new_zeroed();
        record.generation = generation;
        record.reverse = next;
        record
    }

    /// A fresh record.
    pub(super) fn occupied(key: FlowKey, generation: u8) -> Self {
        let mut record = Self::new_zeroed();
        record.key = key;
        record.generation = generation;
        record.reverse = NONE;
        record.ecmp = [0xff; 2];
        record
    }

    /// A flow is here.
    #[inline(always)]
    #[must_use]
    pub const fn is_occupied(&self) -> bool {
        self.key.version != 0
    }

    /// TCP's numbers and bits.
    #[inline(always)]
    #[must_use]
    pub const fn tcp_direction(&self) -> TcpDirection {
        TcpDirection { snd_nxt: self.snd_nxt, acked: self.acked, state: TcpState::from_bits(self.tcp) }
    }

    /// Stores TCP's numbers and bits.
    #[inline(always)]
    pub const fn set_tcp_direction(&mut self, direction: TcpDirection) {
        self.snd_nxt = direction.snd_nxt;
        self.acked = direction.acked;
        self.tcp = direction.state.bits();
    }
}
