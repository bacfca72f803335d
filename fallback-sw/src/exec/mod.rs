//! Programs on bytes: the software executor.
//!
//! A [`Plan`] is a program laid out for speed: flat, with headers prebuilt. It does exactly what the program's ops say. [`admit`] says
//! whether a packet may run it, [`execute`] runs it: for the packets of flows, the first ones, and those without a flow. Sealing is for
//! the owner of the SA to do, afterwards.

mod admit;
mod plan;

pub use admit::{Exception, admit, check};
pub use plan::{EspEgress, Plan, Target};

use offload_rules::{DropReason, flow::SequenceShift};

use crate::packet::{
    Packet, ecn, mss,
    parse::Ip,
    rewrite,
    tcp::{self, Number},
};

/// How an IP packet was framed when it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framing {
    /// Where the (inner) IP packet begins in the frame.
    pub l3: usize,
    /// Type of service of the outer header that comes off.
    pub outer_tos: Option<u8>,
    /// 802.1p priority of the frame, 0..=7.
    pub pcp: Option<u8>,
}

/// What a plan leaves to each flow, or to a packet without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operands {
    /// UDP source port of the outer header, 49152..=65535.
    pub tunnel_sport: u16,
    /// IPv4 identification of the outer header.
    pub outer_id: u16,
    /// Distance that TCP's numbers are shifted by, modulo 2^32, where the plan shifts them.
    pub sequence_shift: u32,
}

/// Runs a plan on a frame that [`admit`] has let through.
///
/// # Errors
/// As [`strip`] and [`run`].
#[inline(always)] // the plan's fields stay in registers
pub fn execute(
    plan: &Plan,
    packet: &mut Packet,
    ip: &mut Ip,
    framing: &Framing,
    operands: &Operands,
) -> Result<(), DropReason> {
    strip(packet, ip, framing)?;
    run(plan, packet, ip, framing.pcp, operands)
}

/// Takes off everything before the (inner) IP packet and what Ethernet padded behind it. With an outer header, ECN is combined
/// (RFC 6040 §4.2).
///
/// # Errors
/// [`DropReason::EcnInvalid`]; the frame is as it was.
#[inline(always)] // the plan's fields stay in registers
pub fn strip(packet: &mut Packet, ip: &mut Ip, framing: &Framing) -> Result<(), DropReason> {
    let combined = match framing.outer_tos {
        Some(outer) => Some(ecn::decapsulate(ecn::Ecn::of(outer), ecn::Ecn::of(ip.tos))?),
        None => None,
    };
    packet.advance(framing.l3);
    packet.truncate(usize::from(ip.total_len));
    if let Some(combined) = combined
        && combined != ecn::Ecn::of(ip.tos)
    {
        rewrite::set_ecn(packet.data_mut(), combined);
        ip.tos = combined.with_dscp_of(ip.tos);
    }
    Ok(())
}

/// Runs a plan on an IP packet without anything before it: everything but drops, size limits and fragments, which [`admit`] leaves to
/// its caller. `pcp` is the 802.1p priority of the frame that came in.
///
/// # Errors
/// [`DropReason::TtlExceeded`] with the packet unchanged; [`DropReason::NoHeadroom`], [`DropReason::PacketTooBig`].
#[inline(always)] // the plan's fields stay in registers
pub fn run(plan: &Plan, packet: &mut Packet, ip: &Ip, pcp: Option<u8>, operands: &Operands) -> Result<(), DropReason> {
    const SYN: u8 = 0x02;
    let by = plan.checks.ttl;
    let ttl = if by > 0 { rewrite::decrement_ttl(packet.data_mut(), by)? } else { ip.ttl };
    if plan.mss > 0 && ip.tcp_flags & SYN != 0 {
        mss::clamp(packet.data_mut(), ip, plan.mss);
    }
    if plan.shift.is_some() {
        shift(plan, packet, ip, operands.sequence_shift);
    }
    wrap(plan, packet, ip, ttl, pcp, operands)
}

/// Shifts TCP's numbers as a plan says; [`run`] does it.
#[cold]
pub fn shift(plan: &Plan, packet: &mut Packet, ip: &Ip, distance: u32) {
    let error = ip.is_icmp_error;
    // What an error quotes went the other way: there the other number was shifted, by as much, back.
    let (number, by) = match plan.shift {
        Some(SequenceShift::Acknowledgement) if error => (Number::Seq, distance.wrapping_neg()),
        Some(SequenceShift::Acknowledgement) => (Number::Ack, distance.wrapping_neg()),
        Some(SequenceShift::Sequence) if error => (Number::Ack, distance),
        Some(SequenceShift::Sequence) => (Number::Seq, distance),
        None => return,
    };
    tcp::shift(packet.data_mut(), ip, number, by);
}

/// Puts the headers of a plan before an IP packet. `ttl`: what is left of it.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::PacketTooBig`].
#[inline(always)] // the plan's fields stay in registers
pub fn wrap(
    plan: &Plan,
    packet: &mut Packet,
    ip: &Ip,
    ttl: u8,
    pcp: Option<u8>,
    operands: &Operands,
) -> Result<(), DropReason> {
    let mut ethertype = if ip.version == 4 { 0x0800 } else { 0x86dd };
    if let Some(encap) = &plan.encap {
        let inner_len = u16::try_from(packet.len()).map_err(|_| DropReason::PacketTooBig)?;
        let dscp = encap.dscp.get(usize::from(ip.tos >> 2)).copied().unwrap_or(0);
        let congestion = ecn::encapsulate(ecn::Ecn::of(ip.tos));
        let outer = rewrite::Outer {
            inner_len,
            id: operands.outer_id,
            tos: congestion.with_dscp_of(dscp << 2),
            sport: operands.tunnel_sport,
            ttl,
            tc: dscp >> 3,
        };
        let room = packet.prepend(rewrite::OUTER_LEN).map_err(|_| DropReason::NoHeadroom)?;
        encap.template.write(room, &outer)?;
        ethertype = 0x0800;
    }
    if let Some(l2) = &plan.l2 {
        let header = l2.bytes();
        let room = packet.prepend(header.len()).map_err(|_| DropReason::NoHeadroom)?;
        rewrite::write_l2(room, header, ethertype, pcp)?;
    }
    Ok(())
}
