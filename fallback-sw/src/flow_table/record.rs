//! The record of one direction of a flow, and what is kept beside it.

use offload_rules::flow::{
    FlowKey,
    tcp::{TcpDirection, TcpState},
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// No slot: a miss in [`FlowTable::lookup_batch`](super::FlowTable::lookup_batch), no other direction in [`Record::reverse`].
pub const NONE: u32 = u32::MAX;

/// One direction of a flow: what a hit reads and writes, in two cache lines (96 octets, aligned to 32, are never in three).
/// All zero is a free record. What only some flows have is in their [`Binding`], what no packet needs in their [`Times`].
///
/// `key` and `reverse` belong to the table: change the vif through [`FlowTable::set_vif`], the others not at all.
///
/// [`FlowTable::set_vif`]: super::FlowTable::set_vif
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(32))]
pub struct Record {
    /// What the packets have in common. Its `version` is 0 in a free record.
    pub key: FlowKey,
    /// IPv4 identification of the outer headers of all its packets; 0: not chosen.
    pub ip_id: u16,
    /// Index into the worker's programs; 0: to be derived.
    pub program: u32,
    /// Low 32 bits of the version of the snapshot that `program` was derived from, or was last found to hold for.
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
    /// Underlay vif that packets out of a tunnel came in on; 0: none.
    pub underlay_vif: u16,
    /// ECMP slot at each level; 0xff: none.
    pub ecmp: [u8; 2],
}

const _: () = assert!(size_of::<Record>() == 96 && std::mem::offset_of!(Record, packets) == 64);

/// When things happened to a direction, in wrapping milliseconds of the worker's clock: cold, not read for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The flow was made.
    pub created: u32,
    /// Its program changed last; as it was made, if it never did.
    pub changed: u32,
}

/// What only some flows have of their own, for each direction: read where an operation of the program or a flag of the record says
/// that it is there. All zero otherwise, and then it costs no memory. A program names these operands and is shared by all flows that are
/// treated alike.
///
/// Of a flow whose addresses are translated there is nothing here but its leases: what one direction's packets are rewritten to is
/// the key of the other direction, reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Binding {
    /// Spliced behind a SYN cookie: what a client's numbers of the server differ by from the server's own, modulo 2^32.
    pub sequence_shift: u32,
    /// Offloaded, or to be: the number of the worker's entry on it.
    pub offload: u32,
    /// The first of the leases that go back with the flow, as the worker's list of them numbers it; 0: none.
    pub leases: u32,
}

impl Record {
    /// A free record; `next` continues the list of free slots.
    pub(super) fn vacant(next: u32) -> Self {
        let mut record = Self::new_zeroed();
        record.reverse = next;
        record
    }

    /// A fresh record.
    pub(super) fn occupied(key: FlowKey) -> Self {
        let mut record = Self::new_zeroed();
        record.key = key;
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
