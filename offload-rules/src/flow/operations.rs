//! The normal form of a program's operations: what every reader of programs derives from.
//!
//! Readers of [`Forward`] destructure it without `..`, so that a slot that is added is a compile error wherever the slots are read:
//! `docs/architecture.md`, "add an operation", lists the places.

use super::{Op, SealHeader, TunnelHeader};
use crate::{DropReason, VifId, forwarding::L2Rewrite};

/// What a program does to its packets. There is one value for each program that is legal and none for any other: what is dropped is not
/// rewritten, nothing is done twice, and only what leaves on a vif is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operations {
    /// [`Op::Drop`].
    Drop(DropReason),
    /// Rewritten and sent.
    Forward(Forward),
}

/// What is done to a packet that goes on: a slot for each operation, in the order in which they are done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forward {
    /// [`Op::DecapMplsOUdp`].
    pub decap: Option<Decap>,
    /// [`Op::DecrementTtl`]; 0: TTL and hop limit stay.
    pub ttl: u8,
    /// [`Op::ClampMss`]: octets.
    pub mss: Option<u16>,
    /// [`Op::ShiftAck`] or [`Op::ShiftSeq`].
    pub shift: Option<SequenceShift>,
    /// [`Op::LimitSize`] and [`Op::FragmentOuter`].
    pub size: Option<SizeLimit>,
    /// [`Op::EncapMplsOUdp`].
    pub encap: Option<TunnelHeader>,
    /// [`Op::RewriteL2`].
    pub l2: Option<L2Rewrite>,
    /// [`Op::Seal`], [`Op::Output`] or [`Op::Punt`].
    pub egress: Egress,
}

/// Outer headers that come off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decap {
    /// IPv4, UDP and one label (RFC 7510).
    MplsOUdp,
}

/// Which of TCP's numbers is shifted by the flow's distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SequenceShift {
    /// The distance is subtracted from the acknowledgement number.
    Acknowledgement,
    /// The distance is added to the sequence number.
    Sequence,
}

/// Largest IP packet before encapsulation, and what becomes of larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SizeLimit {
    /// Octets.
    pub mtu: u16,
    /// What is larger.
    pub larger: Oversize,
}

/// What becomes of a packet that is larger than the path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oversize {
    /// Answered with ICMP "fragmentation needed" or "packet too big".
    Refuse,
    /// IPv4 is fragmented when its DF is clear, IPv6 when it came in fragments; others are answered.
    Fragment,
    /// As [`Self::Fragment`], but IPv6 of at most [`IPV6_MIN_MTU`](super::IPV6_MIN_MTU), and what came in fragments, goes on whole.
    FragmentOuter {
        /// Octets of a fragment of the outer packet.
        mtu: u16,
    },
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Egress {
    /// Sent on this vif.
    Output(VifId),
    /// Sealed; the outer packet is sent on this vif.
    Seal {
        /// Outer header.
        header: Box<SealHeader>,
        /// Vif of the outer packet.
        vif: VifId,
    },
    /// Handed to the host or agent behind this vif.
    Punt(VifId),
}

/// Octets that a program puts before the IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepended {
    /// Ethernet with its tags.
    pub ethernet: u16,
    /// Outer headers behind it, without those of ESP.
    pub tunnel: u16,
}

/// A list of operations is not a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IllegalOperations {
    /// The last one is neither [`Op::Drop`] nor [`Op::Output`] nor [`Op::Punt`].
    #[error("packets go nowhere: end with drop, output or punt")]
    Unfinished,
    /// One has no effect where it stands: it comes twice, out of order, beside a drop, or without the one that it belongs to.
    #[error("operations contradict each other: use each at most once, in the order of Op, and none beside a drop")]
    Contradiction,
}

impl Forward {
    /// Sent on this vif as it is: what other programs differ from.
    #[must_use]
    pub const fn unchanged(egress: Egress) -> Self {
        Self { decap: None, ttl: 0, mss: None, shift: None, size: None, encap: None, l2: None, egress }
    }

    /// The header of the IPsec tunnel that packets are sealed into.
    #[must_use]
    pub fn seal(&self) -> Option<&SealHeader> {
        match &self.egress {
            Egress::Seal { header, .. } => Some(header),
            Egress::Output(_) | Egress::Punt(_) => None,
        }
    }

    /// The vif that packets leave on, sent or punted: the tunnel when they are sealed.
    #[must_use]
    pub fn vif(&self) -> VifId {
        match &self.egress {
            Egress::Seal { header, .. } => header.vif,
            Egress::Output(vif) | Egress::Punt(vif) => *vif,
        }
    }

    /// Octets before the IP packet as it leaves.
    #[must_use]
    pub fn prepended(&self) -> Prepended {
        // What is not named here leaves the length alone; ESP is accounted where packets are sealed.
        let Self { decap: _, ttl: _, mss: _, shift: _, size: _, encap, l2, egress: _ } = self;
        Prepended {
            ethernet: l2.map_or(0, |l2| l2.bytes().len() as u16),
            tunnel: if encap.is_some() { TunnelHeader::OVERHEAD } else { 0 },
        }
    }

    fn list(&self) -> Vec<Op> {
        let Self { decap, ttl, mss, shift, size, encap, l2, egress } = self;
        let limit = size.map(|SizeLimit { mtu, larger }| Op::LimitSize { mtu, fragment: larger != Oversize::Refuse });
        let outer = match size.map(|size| size.larger) {
            Some(Oversize::FragmentOuter { mtu }) => Some(Op::FragmentOuter { mtu }),
            Some(Oversize::Refuse | Oversize::Fragment) | None => None,
        };
        let (seal, last) = match egress {
            Egress::Output(vif) => (None, Op::Output(*vif)),
            Egress::Seal { header, vif } => (Some(Op::Seal(header.clone())), Op::Output(*vif)),
            Egress::Punt(vif) => (None, Op::Punt(*vif)),
        };
        let all = [
            decap.map(|Decap::MplsOUdp| Op::DecapMplsOUdp),
            (*ttl > 0).then_some(Op::DecrementTtl(*ttl)),
            mss.map(Op::ClampMss),
            shift.map(|shift| match shift {
                SequenceShift::Acknowledgement => Op::ShiftAck,
                SequenceShift::Sequence => Op::ShiftSeq,
            }),
            limit,
            outer,
            encap.clone().map(|header| Op::EncapMplsOUdp(Box::new(header))),
            seal,
            l2.map(Op::RewriteL2),
            Some(last),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Operations {
    /// What is done to packets that go on; `None`: all are dropped.
    #[must_use]
    pub const fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Drop(_) => None,
            Self::Forward(forward) => Some(forward),
        }
    }

    /// The external form: the operations in the order in which they are done.
    #[must_use]
    pub fn list(&self) -> Vec<Op> {
        match self {
            Self::Drop(reason) => vec![Op::Drop(*reason)],
            Self::Forward(forward) => forward.list(),
        }
    }
}

impl TryFrom<&[Op]> for Operations {
    type Error = IllegalOperations;

    /// The normal form of a list.
    fn try_from(ops: &[Op]) -> Result<Self, IllegalOperations> {
        let egress = match ops.last() {
            Some(Op::Output(vif)) => Egress::Output(*vif),
            Some(Op::Punt(vif)) => Egress::Punt(*vif),
            Some(Op::Drop(reason)) if ops.len() == 1 => return Ok(Self::Drop(*reason)),
            Some(_) | None => return Err(IllegalOperations::Unfinished),
        };
        let mut forward = Forward::unchanged(egress);
        for op in ops {
            match op {
                Op::DecapMplsOUdp => forward.decap = Some(Decap::MplsOUdp),
                Op::DecrementTtl(by) => forward.ttl = *by,
                Op::ClampMss(mss) => forward.mss = Some(*mss),
                Op::ShiftAck => forward.shift = Some(SequenceShift::Acknowledgement),
                Op::ShiftSeq => forward.shift = Some(SequenceShift::Sequence),
                Op::LimitSize { mtu, fragment } => {
                    let larger = if *fragment { Oversize::Fragment } else { Oversize::Refuse };
                    forward.size = Some(SizeLimit { mtu: *mtu, larger });
                }
                Op::FragmentOuter { mtu } => {
                    if let Some(size) = &mut forward.size {
                        size.larger = Oversize::FragmentOuter { mtu: *mtu };
                    }
                }
                Op::EncapMplsOUdp(header) => forward.encap = Some((**header).clone()),
                Op::Seal(header) => {
                    if let Egress::Output(vif) = forward.egress {
                        forward.egress = Egress::Seal { header: header.clone(), vif };
                    }
                }
                Op::RewriteL2(rewrite) => forward.l2 = Some(*rewrite),
                // The last one has been read before; others show when the lists are compared.
                Op::Drop(_) | Op::Output(_) | Op::Punt(_) => {}
            }
        }
        let normal = Self::Forward(forward);
        if normal.list() == ops { Ok(normal) } else { Err(IllegalOperations::Contradiction) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vif(id: u32) -> VifId {
        VifId::new(id).unwrap()
    }

    fn every_op() -> Vec<Op> {
        let seal = SealHeader {
            vif: vif(9),
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            udp: None,
            dscp: None,
            df: crate::forwarding::DfPolicy::Copy,
        };
        let tunnel = TunnelHeader {
            sip: [10, 0, 0, 1].into(),
            dip: [10, 0, 0, 2].into(),
            udp_port: 6635,
            label: crate::Label::new(280).unwrap(),
            dscp: crate::forwarding::DscpMap::default(),
        };
        vec![
            Op::DecapMplsOUdp,
            Op::DecrementTtl(1),
            Op::ClampMss(1400),
            Op::ShiftAck,
            Op::LimitSize { mtu: 1400, fragment: true },
            Op::FragmentOuter { mtu: 1000 },
            Op::EncapMplsOUdp(Box::new(tunnel)),
            Op::Seal(Box::new(seal)),
            Op::RewriteL2(L2Rewrite::new(&[0; 14]).unwrap()),
            Op::Output(vif(1)),
        ]
    }

    #[test]
    fn a_list_in_order_is_a_program_and_comes_back_the_same() {
        let all = every_op();
        // Each subset that ends in an output, but for outer fragments without a limit.
        for mask in 0..1u32 << (all.len() - 1) {
            if mask & 0x30 == 0x20 {
                continue;
            }
            let kept = |(at, op): (usize, &Op)| (at + 1 == all.len() || mask >> at & 1 == 1).then(|| op.clone());
            let list: Vec<Op> = all.iter().enumerate().filter_map(kept).collect();
            assert_eq!(Operations::try_from(list.as_slice()).map(|normal| normal.list()), Ok(list));
        }
    }

    #[test]
    fn a_list_that_contradicts_itself_is_no_program() {
        let all = every_op();
        let drop = Op::Drop(DropReason::PolicyDeny);
        let twice = |op: Op| [op.clone(), op, Op::Output(vif(1))].to_vec();
        let mut wrong: Vec<Vec<Op>> = all.iter().cloned().map(twice).collect();
        wrong.extend((1..all.len() - 1).map(|at| {
            let mut list = all.clone();
            list.swap(at - 1, at);
            list
        }));
        wrong.push(vec![Op::DecrementTtl(0), Op::Output(vif(1))]);
        wrong.push(vec![Op::FragmentOuter { mtu: 1000 }, Op::Output(vif(1))]);
        wrong.push(vec![Op::LimitSize { mtu: 9, fragment: false }, Op::FragmentOuter { mtu: 9 }, Op::Output(vif(1))]);
        wrong.push(vec![drop.clone(), Op::Output(vif(1))]);
        wrong.push([&all[7..9], &[Op::Punt(vif(1))]].concat());
        for list in wrong {
            let normal = Operations::try_from(list.as_slice());
            assert_eq!(normal, Err(IllegalOperations::Contradiction), "{list:?}");
        }
        for list in [vec![], vec![Op::DecapMplsOUdp], vec![Op::DecapMplsOUdp, drop]] {
            assert_eq!(Operations::try_from(list.as_slice()), Err(IllegalOperations::Unfinished));
        }
    }

    #[test]
    fn headers_are_counted_where_they_are_put_on() {
        let all = every_op();
        let count = |list: &[Op]| Operations::try_from(list).unwrap().forward().unwrap().prepended();
        assert_eq!(count(&all), Prepended { ethernet: 14, tunnel: 32 });
        assert_eq!(count(&all[8..]), Prepended { ethernet: 14, tunnel: 0 });
        assert_eq!(count(&all[9..]), Prepended { ethernet: 0, tunnel: 0 });
    }
}
