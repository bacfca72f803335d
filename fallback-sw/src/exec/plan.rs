//! A program laid out for speed.

use offload_rules::{
    DropReason, VifId,
    classify::Checks,
    flow::{Egress, Forward, Operations, Oversize, Program, SequenceShift},
    forwarding::{DfPolicy, L2Rewrite, Snapshot},
};

use crate::packet::rewrite::OuterTemplate;

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
pub struct EspEgress {
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
    /// What a packet has to pass: TTL, which is taken off, and size.
    pub checks: Checks,
    /// Largest MSS; 0 leaves it alone.
    pub mss: u16,
    /// A number of TCP segments that is shifted by the flow's distance.
    pub shift: Option<SequenceShift>,
    /// Ethernet header.
    pub l2: Option<L2Rewrite>,
    /// Outer headers.
    pub encap: Option<Encap>,
    /// With [`Target::Seal`]: what follows.
    pub seal: Option<Box<EspEgress>>,
}

impl Plan {
    /// Lays out a program. The snapshot tells which device carries a vif's frames.
    #[must_use]
    pub fn new(program: &Program, snapshot: &Snapshot) -> Self {
        match &program.ops {
            Operations::Drop(reason) => Self::drop(*reason),
            Operations::Forward(forward) => Self::forward(forward, snapshot),
        }
    }

    const fn drop(reason: DropReason) -> Self {
        let target = Target::Drop(reason);
        Self { target, checks: Checks::NONE, mss: 0, shift: None, l2: None, encap: None, seal: None }
    }

    fn forward(forward: &Forward, snapshot: &Snapshot) -> Self {
        let checks = Checks::of_forward(forward);
        // The packet's own context says where the inner packet begins; TTL and size are in the checks.
        let Forward { decap: _, ttl: _, mss, shift, size: _, encap, l2, egress } = forward;
        let (mss, shift) = (mss.unwrap_or(0), *shift);
        let encap = encap.as_ref().map(|header| Encap {
            template: OuterTemplate::new(header.sip, header.dip, header.udp_port, header.label),
            dscp: header.dscp.0,
        });
        let (target, l2, seal) = match egress {
            Egress::Output(vif) => (Target::Output { vif: *vif, port: snapshot.port_of(*vif) }, *l2, None),
            Egress::Punt(vif) => (Target::Punt { vif: *vif, port: snapshot.port_of(*vif) }, *l2, None),
            Egress::Seal { header, vif } => {
                let (whole, fragment) = match (&encap, checks.size.larger) {
                    (None, Oversize::FragmentOuter { mtu }) => (checks.size.mtu, mtu),
                    // Never larger than the limit: the MPLS-over-UDP packet is fragmented before.
                    (Some(_), Oversize::FragmentOuter { .. }) | (_, Oversize::Refuse | Oversize::Fragment) => {
                        (u16::MAX, u16::MAX)
                    }
                };
                let egress = EspEgress {
                    tunnel: header.vif,
                    dscp: header.dscp,
                    df: header.df,
                    vif: *vif,
                    port: snapshot.port_of(*vif),
                    l2: *l2,
                    whole,
                    fragment,
                };
                (Target::Seal, None, Some(Box::new(egress)))
            }
        };
        Self { target, checks, mss, shift, l2, encap, seal }
    }

    /// Where the outer packet goes, when there is one.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.encap.is_some()
    }
}
