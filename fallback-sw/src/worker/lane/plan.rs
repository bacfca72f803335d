//! Plans as the lane runs them: all headers prebuilt, in one piece that is written by one copy.

use offload_rules::VifId;

use super::headers::{Ordinary, V4};
use crate::{
    exec::{Operands, Plan, Target},
    packet::{checksum, rewrite::OUTER_LEN},
    worker::tx::{TxKind, TxMeta},
};

/// Octets that headers may have before the IP packet: Ethernet with two tags (22) and the outer headers (32) fit.
pub(super) const PREFIX: usize = 64;
/// Octets of a packet that are read or written: the prefix, an IPv6 header, a TCP header.
pub(super) const WINDOW: usize = PREFIX + 40 + 20;

/// What becomes of packets that have run a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum LaneExit {
    /// Sent by the device of this port.
    Send { port: VifId, meta: TxMeta },
    /// Sealed as [`Plan::seal`] says.
    Seal,
}

/// A plan for the lane: a line of headers, a line of the rest, a line of DSCP.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(in crate::worker) struct LanePlan {
    /// Right-aligned.
    header: [u8; PREFIX],
    /// Longest IP packet; 0: the plan is not the lane's, or no longer current.
    limit: u16,
    /// Octets of `header` in use.
    header_len: u8,
    /// Taken off the TTL.
    ttl: u8,
    /// Outer headers are part of `header`.
    encap: bool,
    /// Where in `header` the first tag's priority is; 0: nowhere.
    priority_at: u8,
    /// Sum of the outer IPv4 header, without what differs from packet to packet.
    sum: u16,
    /// Label stack entry, without TTL and traffic class.
    label: u32,
    exit: LaneExit,
    /// Outer DSCP by inner DSCP.
    dscp: [u8; 64],
}

impl LanePlan {
    /// Not the lane's.
    pub(in crate::worker) const NONE: Self = Self {
        header: [0; PREFIX],
        limit: 0,
        header_len: 0,
        ttl: 0,
        encap: false,
        priority_at: 0,
        sum: 0,
        label: 0,
        exit: LaneExit::Seal,
        dscp: [0; 64],
    };

    /// The same as `plan`, for ordinary packets; [`LanePlan::NONE`] for what drops or shifts TCP's numbers.
    pub(in crate::worker) fn of(plan: &Plan) -> Self {
        Self::build(plan).unwrap_or(Self::NONE)
    }

    fn build(plan: &Plan) -> Option<Self> {
        // MSS is clamped in SYN segments alone, which are not the lane's.
        let Plan { target, checks, mss: _, shift: None, l2, encap, seal: _ } = plan else { return None };
        let exit = match *target {
            Target::Output { vif, port } => LaneExit::Send { port, meta: TxMeta { vif, kind: TxKind::Forwarded } },
            Target::Punt { vif, port } => LaneExit::Send { port, meta: TxMeta { vif, kind: TxKind::Punted } },
            Target::Seal => LaneExit::Seal,
            Target::Drop(_) => return None,
        };
        let mut lane = Self { exit, ttl: checks.ttl, ..Self::NONE };
        let mut free = lane.header.as_mut_slice();
        if let Some(encap) = encap {
            let (bytes, sum) = encap.template.parts();
            let outer;
            (free, outer) = free.split_last_chunk_mut::<OUTER_LEN>()?;
            *outer = *bytes;
            lane.label = bytes.last_chunk().map_or(0, |entry| u32::from_be_bytes(*entry));
            (lane.encap, lane.sum, lane.dscp) = (true, sum, encap.dscp);
        }
        if let Some(l2) = l2 {
            let bytes = l2.bytes();
            let at = free.len().checked_sub(bytes.len())?;
            let (_, room) = free.split_at_mut_checked(at)?;
            room.copy_from_slice(bytes);
            *room.last_chunk_mut()? = [0x08, 0x00];
            lane.priority_at = if bytes.len() > 14 { (at + 14) as u8 } else { 0 };
            free = free.get_mut(..at)?;
        }
        lane.header_len = (PREFIX - free.len()) as u8;
        // What outer headers make too long for IPv4 is dropped elsewhere.
        lane.limit = checks.size.mtu.min(u16::MAX - OUTER_LEN as u16);
        Some(lane)
    }

    /// Where packets go.
    #[inline(always)]
    pub(in crate::worker) const fn exit(&self) -> LaneExit {
        self.exit
    }

    /// Octets before the IP packet.
    #[inline(always)]
    pub(super) const fn header_len(&self) -> usize {
        self.header_len as usize
    }

    /// Do packets with this plan get outer headers, which take operands?
    #[inline(always)]
    pub(super) const fn is_tunnel(&self) -> bool {
        self.encap
    }

    /// May the packet run it? What may not is told why elsewhere.
    #[inline(always)]
    pub(super) const fn admits(&self, packet: &Ordinary) -> bool {
        (packet.len <= self.limit) & (packet.ttl > self.ttl)
    }

    /// Writes the headers before the IP packet, which begins at [`PREFIX`], and takes the TTL off.
    #[inline(always)]
    pub(super) fn write(&self, window: &mut [u8; WINDOW], packet: &Ordinary, operands: Operands) {
        let Some(room) = window.first_chunk_mut::<PREFIX>() else { return };
        *room = self.header;
        let ttl = packet.ttl.wrapping_sub(self.ttl);
        if packet.kind >> 8 == V4 {
            if self.ttl > 0 {
                // As in `rewrite::decrement_ttl`.
                let old = u16::from_be_bytes([window[PREFIX + 10], window[PREFIX + 11]]);
                let sum = checksum::update16(old, u16::from(self.ttl) << 8, 0);
                window[PREFIX + 8] = ttl;
                [window[PREFIX + 10], window[PREFIX + 11]] = sum.to_be_bytes();
            }
        } else {
            window[PREFIX + 7] = ttl;
            if !self.encap {
                [window[PREFIX - 2], window[PREFIX - 1]] = [0x86, 0xdd];
            }
        }
        if self.encap {
            self.write_outer(window, packet, operands, ttl);
        }
        if (self.priority_at > 0) & (packet.priority & Ordinary::HAS_PRIORITY != 0)
            && let Some(octet) = window.get_mut(usize::from(self.priority_at))
        {
            *octet = *octet & 0x1f | packet.priority & 0xe0;
        }
    }

    /// What differs from packet to packet: as [`OuterTemplate::write`](crate::packet::rewrite::OuterTemplate::write).
    #[inline(always)]
    fn write_outer(&self, window: &mut [u8; WINDOW], packet: &Ordinary, operands: Operands, ttl: u8) {
        const OUTER: usize = PREFIX - OUTER_LEN;
        let dscp = self.dscp.get(usize::from(packet.tos >> 2)).copied().unwrap_or(0);
        let tos = dscp << 2 | packet.tos & 3;
        let total = packet.len + OUTER_LEN as u16;
        let Operands { outer_id, tunnel_sport, sequence_shift: _ } = operands;
        let sum = checksum::add4(self.sum, u16::from(tos), total, outer_id);
        let ([t0, t1], [i0, i1]) = (total.to_be_bytes(), outer_id.to_be_bytes());
        [window[OUTER + 1], window[OUTER + 2], window[OUTER + 3], window[OUTER + 4], window[OUTER + 5]] =
            [tos, t0, t1, i0, i1];
        [window[OUTER + 10], window[OUTER + 11]] = (!sum).to_be_bytes();
        [window[OUTER + 20], window[OUTER + 21]] = tunnel_sport.to_be_bytes();
        [window[OUTER + 24], window[OUTER + 25]] = (total - 20).to_be_bytes();
        let label = self.label | u32::from(dscp >> 3 & 7) << 9 | u32::from(ttl);
        [window[OUTER + 28], window[OUTER + 29], window[OUTER + 30], window[OUTER + 31]] = label.to_be_bytes();
    }
}
