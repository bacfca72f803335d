//! A program laid out for speed.

use offload_rules::{
    DropReason, VifId,
    flow::{Op, Program},
    forwarding::{DfPolicy, L2Rewrite, Snapshot},
};

use crate::packet::{rewrite::OuterTemplate, tcp::Number};

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Sent on a vif.
    Output {
        /// The vif.
        vif: VifId,
        /// The vif whose device carries the frame.
        port: VifId,
    },
    /// Handed to the host or an agent.
    Punt {
        /// The vif.
        vif: VifId,
        /// The vif whose device carries the frame.
        port: VifId,
    },
    /// Sealed, and the outer packet sent: see [`Plan::seal`].
    Seal,
    /// Dropped.
    Drop(DropReason),
}

/// How a packet goes on once the tunnel has it.
#[derive(Debug, Clone, Copy)]
pub struct SealLeg {
    /// The tunnel.
    pub tunnel: VifId,
    /// Outer DSCP; `None` copies.
    pub dscp: Option<u8>,
    /// Outer don't-fragment bit.
    pub df: DfPolicy,
    /// The vif that the outer packet leaves on.
    pub vif: VifId,
    /// The vif whose device carries the frame.
    pub port: VifId,
    /// Ethernet header of the outer packet.
    pub l2: Option<L2Rewrite>,
    /// Largest packet that is sealed into one outer packet; that of a larger one is fragmented.
    pub whole: u16,
    /// Largest fragment.
    pub fragment: u16,
}

/// Outer headers.
#[derive(Debug, Clone)]
pub struct Encap {
    /// Prebuilt headers.
    pub template: OuterTemplate,
    /// Outer DSCP by inner DSCP.
    pub dscp: [u8; 64],
}

/// A program laid out for speed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// Largest IP packet in octets before encapsulation.
    pub limit: u16,
    /// What is larger may be fragmented when its header allows it.
    pub fragment: bool,
    /// IPv6 packets that are larger, but no larger than 1280 octets, go on whole, with the outer packet in fragments of at most
    /// this many octets.
    pub fragment_outer: Option<u16>,
    /// To be taken off TTL or hop limit.
    pub ttl: u8,
    /// Largest MSS; 0 leaves it alone.
    pub mss: u16,
    /// A number of TCP segments that is shifted by the flow's distance.
    pub shift: Option<Number>,
    /// Ethernet header.
    pub l2: Option<L2Rewrite>,
    /// Outer headers.
    pub encap: Option<Encap>,
    /// With [`Target::Seal`]: what follows.
    pub seal: Option<Box<SealLeg>>,
}

impl Plan {
    /// Lays out a program. The snapshot tells which device carries a vif's frames.
    #[must_use]
    pub fn new(program: &Program, snapshot: &Snapshot) -> Self {
        let mut plan = Self {
            target: Target::Drop(DropReason::InvalidNh),
            limit: u16::MAX,
            fragment: true,
            fragment_outer: None,
            ttl: 0,
            mss: 0,
            shift: None,
            l2: None,
            encap: None,
            seal: None,
        };
        let mut sealed = None;
        for op in &program.ops {
            match op {
                // The packet's own context says where the inner packet begins.
                Op::DecapMplsOUdp => {}
                Op::Drop(reason) => plan.target = Target::Drop(*reason),
                Op::DecrementTtl(by) => plan.ttl = *by,
                Op::ClampMss(mss) => plan.mss = *mss,
                Op::ShiftAck => plan.shift = Some(Number::Ack),
                Op::ShiftSeq => plan.shift = Some(Number::Seq),
                Op::LimitSize { mtu, fragment } => (plan.limit, plan.fragment) = (*mtu, *fragment),
                Op::FragmentOuter { mtu } => plan.fragment_outer = Some(*mtu),
                Op::EncapMplsOUdp(header) => {
                    plan.encap = Some(Encap {
                        template: OuterTemplate::new(header.sip, header.dip, header.udp_port, header.label),
                        dscp: header.dscp.0,
                    });
                }
                Op::Seal(header) => sealed = Some(header),
                Op::RewriteL2(rewrite) => plan.l2 = Some(*rewrite),
                Op::Output(vif) => plan.target = Target::Output { vif: *vif, port: snapshot.port_of(*vif) },
                Op::Punt(vif) => plan.target = Target::Punt { vif: *vif, port: snapshot.port_of(*vif) },
            }
        }
        if let (Some(header), Target::Output { vif, port }) = (sealed, plan.target) {
            let (tunnel, dscp, df, l2) = (header.vif, header.dscp, header.df, plan.l2.take());
            let (whole, fragment) = match (&plan.encap, plan.fragment_outer) {
                (None, Some(fragment)) => (plan.limit, fragment),
                // Never larger than the limit: the MPLS-over-UDP packet is fragmented before.
                _ => (u16::MAX, u16::MAX),
            };
            plan.seal = Some(Box::new(SealLeg { tunnel, dscp, df, vif, port, l2, whole, fragment }));
            plan.target = Target::Seal;
        }
        plan
    }

    /// Where the outer packet goes, when there is one.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.encap.is_some()
    }
}
