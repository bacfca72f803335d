//! Programs on bytes: the software executor.
//!
//! A [`Plan`] is a program laid out for speed: flat, with headers prebuilt. It does exactly what the program's ops say. Sealing is
//! for the owner of the SA to do, after [`run`] or [`wrap`].

mod plan;

pub use plan::{Plan, SealLeg, Target};

use offload_rules::DropReason;

use crate::packet::{
    Packet, ecn, mss,
    parse::Ip,
    rewrite,
    tcp::{self, Number},
};

/// What differs from packet to packet of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Varying {
    /// Where the (inner) IP packet begins in the frame.
    pub l3: usize,
    /// Type of service of the outer header that comes off.
    pub outer_tos: Option<u8>,
    /// 802.1p priority of the frame that came in, 0..=7.
    pub pcp: Option<u8>,
    /// IPv4 identification for an outer header.
    pub ip_id: u16,
    /// UDP source port for an outer header.
    pub sport: u16,
    /// The flow's distance, where its program shifts TCP's numbers.
    pub shift: u32,
}

/// Takes off everything before the (inner) IP packet and what Ethernet padded behind it. With an outer header, ECN is combined
/// (RFC 6040 §4.2).
///
/// # Errors
/// [`DropReason::EcnInvalid`]; the frame is as it was.
#[inline(always)] // the plan's fields stay in registers
pub fn strip(packet: &mut Packet, ip: &mut Ip, varying: &Varying) -> Result<(), DropReason> {
    let combined = match varying.outer_tos {
        Some(outer) => Some(ecn::decapsulate(ecn::Ecn::of(outer), ecn::Ecn::of(ip.tos))?),
        None => None,
    };
    packet.advance(varying.l3);
    packet.truncate(usize::from(ip.total_len));
    if let Some(combined) = combined
        && combined != ecn::Ecn::of(ip.tos)
    {
        rewrite::set_ecn(packet.data_mut(), combined);
        ip.tos = combined.with_dscp_of(ip.tos);
    }
    Ok(())
}

/// Executes a plan on an IP packet that [`strip`] has laid bare: everything but drops, size limits and fragments, which are for
/// the caller to see to before.
///
/// # Errors
/// [`DropReason::TtlExceeded`] with the packet unchanged; [`DropReason::NoHeadroom`], [`DropReason::PacketTooBig`].
#[inline(always)] // the plan's fields stay in registers
pub fn run(plan: &Plan, packet: &mut Packet, ip: &Ip, varying: &Varying) -> Result<(), DropReason> {
    const SYN: u8 = 0x02;
    let ttl = if plan.ttl > 0 { rewrite::decrement_ttl(packet.data_mut(), plan.ttl)? } else { ip.ttl };
    if plan.mss > 0 && ip.tcp_flags & SYN != 0 {
        mss::clamp(packet.data_mut(), ip, plan.mss);
    }
    if plan.shift.is_some() {
        shift(plan, packet, ip, varying.shift);
    }
    wrap(plan, packet, ip, ttl, varying)
}

/// Shifts TCP's numbers as a plan says; [`run`] does it.
#[cold]
pub fn shift(plan: &Plan, packet: &mut Packet, ip: &Ip, distance: u32) {
    let error = ip.is_icmp_error;
    // What an error quotes went the other way: there the other number was shifted, by as much, back.
    match plan.shift {
        Some(Number::Ack) if error => tcp::shift(packet.data_mut(), ip, Number::Seq, distance.wrapping_neg()),
        Some(Number::Ack) => tcp::shift(packet.data_mut(), ip, Number::Ack, distance.wrapping_neg()),
        Some(Number::Seq) if error => tcp::shift(packet.data_mut(), ip, Number::Ack, distance),
        Some(Number::Seq) => tcp::shift(packet.data_mut(), ip, Number::Seq, distance),
        None => {}
    }
}

/// Puts the headers of a plan before an IP packet.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::PacketTooBig`].
#[inline(always)] // the plan's fields stay in registers
pub fn wrap(plan: &Plan, packet: &mut Packet, ip: &Ip, ttl: u8, varying: &Varying) -> Result<(), DropReason> {
    let mut ethertype = if ip.version == 4 { 0x0800 } else { 0x86dd };
    if let Some(encap) = &plan.encap {
        let inner_len = u16::try_from(packet.len()).map_err(|_| DropReason::PacketTooBig)?;
        let dscp = encap.dscp.get(usize::from(ip.tos >> 2)).copied().unwrap_or(0);
        let congestion = ecn::encapsulate(ecn::Ecn::of(ip.tos));
        let outer = rewrite::Outer {
            inner_len,
            id: varying.ip_id,
            tos: congestion.with_dscp_of(dscp << 2),
            sport: varying.sport,
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
        rewrite::write_l2(room, header, ethertype, varying.pcp)?;
    }
    Ok(())
}
