//! The first stage: from a frame to what is looked up for it. The vif by VLAN, the tunnel opened, the key.
//!
//! Only reads the frame, the interfaces and the snapshot.

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    DropReason, Label, VifId, VrfId,
    classify::{self, Start},
    forwarding::{NexthopKind, Snapshot},
};

use super::{
    context::Head,
    context::{Context, ICMP6, Outer, Path},
    decap_cache::{Decap, DecapKey, label_word},
    interfaces::{Interface, Interfaces},
};
use crate::{
    esp::{self, Envelope},
    packet::{
        NicNote, Packet, checksum,
        parse::{self, FragmentInfo, Ip},
    },
};

/// UDP ports of MPLS over UDP: RFC 7510, and the one that vRouter used before.
pub(super) const MPLS_O_UDP: [u16; 2] = [6635, 51234];
const UDP: u8 = 17;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What kind of frame it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum FrameKind {
    /// An IP packet to forward.
    Ip,
    /// ARP on this vif, at this place in the frame.
    Arp { vif: VifId, at: usize },
    /// Neighbour discovery.
    Nd,
    /// ESP for a tunnel of this node; of the context, only the vif means anything.
    Esp(EspFrame),
    /// A NAT-keepalive for one.
    Keepalive,
    /// A packet that the NIC has decided on, to be sealed.
    Resume,
}

/// An ESP packet in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EspFrame {
    /// Where its header is.
    pub(super) at: u16,
    /// Octets, check value included.
    pub(super) len: u16,
    /// VRF and address that it came to.
    pub(super) end: (VrfId, Ipv4Addr),
    /// Type of service of the outer header.
    pub(super) tos: u8,
}

/// Where the IP packet of a frame begins, and what is said before it.
#[derive(Debug, Clone, Copy)]
struct Layer3 {
    at: usize,
    version: u8,
    /// The frame is to a group of stations.
    group: bool,
}

/// A frame that goes no further, and on which vif.
pub(super) type Refused = (VifId, DropReason);

impl Interfaces {
    /// Finds out what a frame is. The context is set where [`FrameKind`] says so, and otherwise means nothing.
    #[inline]
    pub(super) fn sort(
        &self,
        snapshot: &Snapshot,
        packet: &Packet,
        port: VifId,
        head: Option<&Head>,
        context: &mut Context,
    ) -> Result<FrameKind, Refused> {
        context.port = port;
        if let NicNote::ToSeal(tunnel) = packet.note() {
            (context.vif, context.path) = (tunnel, Path::Resume);
            return Ok(FrameKind::Resume);
        }
        let frame = packet.data();
        let device = self.get(port).ok_or((port, DropReason::InvalidIf))?;
        context.head = head.copied();
        context.sealed_on = None;
        if device.raw_ip {
            let version = frame.first().ok_or((port, DropReason::Truncated))? >> 4;
            (context.vif, context.tci) = (port, 0);
            return self.sort_ip(snapshot, frame, Layer3 { at: 0, version, group: false }, device, context);
        }
        let ethernet = parse::ethernet(frame).map_err(|reason| (port, reason))?;
        let vif = device.demultiplex(&ethernet, port, snapshot).ok_or((port, DropReason::InvalidIf))?;
        let here = if vif == port { device } else { self.get(vif).ok_or((port, DropReason::InvalidIf))? };
        let group = ethernet.dst.is_multicast();
        if !group && ethernet.dst != here.mac {
            return Err((vif, DropReason::InvalidMac));
        }
        let version = match ethernet.ethertype {
            parse::ETHERTYPE_IPV4 => 4,
            parse::ETHERTYPE_IPV6 => 6,
            parse::ETHERTYPE_ARP => return Ok(FrameKind::Arp { vif, at: ethernet.len }),
            _ => return Err((vif, DropReason::InvalidProtocol)),
        };
        (context.vif, context.tci) = (vif, ethernet.tci[0]);
        let l3 = Layer3 { at: ethernet.len, version, group };
        if packet.note() != NicNote::None {
            return self.sort_opened(snapshot, packet, l3, here, context);
        }
        self.sort_ip(snapshot, frame, l3, here, context)
    }

    /// A packet that inline IPsec of the NIC has already processed: what is behind the Ethernet header came out of a tunnel, as if
    /// received on it.
    #[inline(never)]
    fn sort_opened(
        &self,
        snapshot: &Snapshot,
        packet: &Packet,
        l3: Layer3,
        here: &Interface,
        context: &mut Context,
    ) -> Result<FrameKind, Refused> {
        let link = context.vif;
        let tunnel = match packet.note() {
            NicNote::Opened(tunnel) => tunnel,
            NicNote::Refused => return Err((link, DropReason::EspRefusedByNic)),
            NicNote::Deciphered => {
                let kind = self.sort_ip(snapshot, packet.data(), l3, here, context)?;
                // A NIC that has opened a packet, and does not say out of which tunnel: no packet that came in the clear (RFC 4301 §5.2).
                let esp = matches!(kind, FrameKind::Esp(_));
                return if esp { Ok(kind) } else { Err((link, DropReason::EspRefusedByNic)) };
            }
            // What is to go into a tunnel has been told apart before.
            NicNote::None | NicNote::ToSeal(_) | NicNote::Session(_) => {
                return self.sort_ip(snapshot, packet.data(), l3, here, context);
            }
        };
        let inside = self.get(tunnel).filter(|_| !l3.group).ok_or((link, DropReason::InvalidIf))?;
        (context.vif, context.sealed_on, context.tci) = (tunnel, Some(link), 0);
        self.sort_ip(snapshot, packet.data(), l3, inside, context)
    }

    /// An IP packet of a frame that came in on the context's vif, `here`.
    #[inline]
    fn sort_ip(
        &self,
        snapshot: &Snapshot,
        frame: &[u8],
        l3: Layer3,
        here: &Interface,
        context: &mut Context,
    ) -> Result<FrameKind, Refused> {
        let Layer3 { at, version, group } = l3;
        let vif = context.vif;
        let refuse = |reason| (vif, reason);
        let bytes = frame.get(at..).unwrap_or(&[]);
        if self.ends_esp()
            && version == 4
            && !group
            && let Some(esp) = parse::plain_esp(bytes)
            && self.is_esp_end(here.vrf, esp.destination)
        {
            let at = u16::try_from(at).map_err(|_| refuse(DropReason::InvalidPacket))? + esp.at;
            let end = (here.vrf, Ipv4Addr::from_octets(esp.destination));
            return Ok(FrameKind::Esp(EspFrame { at, len: esp.len, end, tos: esp.tos }));
        }
        parse::ip_to(bytes, version, &mut context.ip).map_err(refuse)?;
        context.l3 = u16::try_from(at).map_err(|_| refuse(DropReason::InvalidPacket))?;
        context.outer = None;
        context.path = if here.policy { Path::Flow } else { Path::Walk(Start::Route) };
        context.special = false;
        let ip = &context.ip;
        if ip.proto == ICMP6 && version == 6 && matches!(ip.icmp_type, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
        {
            context.key = parse::flow_key(ip, here.vrf, vif);
            return Ok(FrameKind::Nd);
        }
        if ip.multicast || group {
            if !asks_group(ip) {
                return Err(refuse(DropReason::McastUnsupported));
            }
            // It belongs to no flow: whether the group is heard here is found by a walk.
            context.path = Path::Walk(Start::Route);
        }
        let (is_udp, whole) = (ip.proto == UDP && version == 4, ip.fragment == FragmentInfo::None);
        if is_udp && !whole && snapshot.terminates_mpls_o_udp(here.vrf, ip.destination()) {
            // Only the first fragment tells the port: whatever UDP it is, it ends here.
            context.path = Path::Reassemble;
        }
        // The port may be the NAT's; where ESP in UDP comes to is this node's choice.
        let may_be_esp =
            version == 4 && (ip.proto == esp::PROTOCOL || is_udp && (ip.dport == esp::NAT_T_PORT || !whole));
        if may_be_esp
            && self.is_esp_end(here.vrf, v4_octets(ip.dst))
            && let Some(kind) = Self::sort_ipsec(bytes, here.vrf, context).map_err(refuse)?
        {
            return Ok(kind);
        }
        let ip = &context.ip;
        let is_tunnel = is_udp && whole && MPLS_O_UDP.contains(&ip.dport);
        if !(is_tunnel && self.open_tunnel(snapshot, bytes, here.vrf, context).map_err(refuse)?) {
            context.key = parse::flow_key(&context.ip, here.vrf, vif);
        }
        finish_key(frame, context).map_err(refuse)?;
        Ok(FrameKind::Ip)
    }

    /// What has come to an IPsec tunnel of this node; `None`: it goes the way of other packets, as IKE does (RFC 3948 §2.2).
    fn sort_ipsec(l3: &[u8], vrf: VrfId, context: &mut Context) -> Result<Option<FrameKind>, DropReason> {
        let ip = &context.ip;
        if ip.fragment != FragmentInfo::None {
            context.path = Path::Reassemble;
            return Ok(None);
        }
        context.key = parse::flow_key(ip, vrf, context.vif);
        let payload = context.l3 + ip.header_len;
        let esp = |at, esp: &[u8]| {
            // Invariant: no part of an IP packet is longer.
            let len = u16::try_from(esp.len()).unwrap_or(u16::MAX);
            FrameKind::Esp(EspFrame { at, len, end: (vrf, Ipv4Addr::from_octets(v4_octets(ip.dst))), tos: ip.tos })
        };
        if ip.proto == esp::PROTOCOL {
            return Ok(Some(esp(payload, ip.payload(l3))));
        }
        // In UDP it ends with the datagram, which may be before the IP packet does (RFC 768).
        let data = ip.udp_data(l3);
        Ok(match esp::envelope(data) {
            Envelope::Esp(_) => Some(esp(payload + 8, data)),
            Envelope::Ike => None,
            Envelope::Keepalive => Some(FrameKind::Keepalive),
            Envelope::Invalid => return Err(DropReason::EspTruncated),
        })
    }

    /// Looks into an MPLS-over-UDP packet (RFC 7510 §3) when a tunnel ends here: from here on the context is that of the inner
    /// packet. False: none does.
    #[inline]
    fn open_tunnel(
        &self,
        snapshot: &Snapshot,
        l3: &[u8],
        vrf: VrfId,
        context: &mut Context,
    ) -> Result<bool, DropReason> {
        let outer = &context.ip;
        let ([s0, s1, s2, s3, ..], [d0, d1, d2, d3, ..]) = (outer.src, outer.dst);
        let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        // Nothing behind the datagram is read, however long the IP packet is (RFC 768).
        let payload = outer.udp_data(l3);
        // The tables would say again what they said of the last packet with this outside.
        let key = DecapKey { vif: context.vif, vrf, source, destination, label: label_word(payload) };
        let known = self.decap.get(&key);
        if known.is_none() && !snapshot.terminates_mpls_o_udp(vrf, IpAddr::V4(destination)) {
            return Ok(false);
        }
        if known.is_none() && snapshot.is_own_tunnel_source(IpAddr::V4(source)) {
            return Err(DropReason::OwnSource);
        }
        if known.is_none() {
            self.decap.note(&classify::check_outside(snapshot, context.vif, source)?);
        }
        if !udp_checksum_holds(outer, l3) {
            return Err(DropReason::ChecksumErr);
        }
        let mpls = parse::mpls_udp(payload)?;
        let decap = match known {
            Some(decap) => decap,
            None => self.look_up_label(snapshot, &key, mpls.label)?,
        };
        let offset = outer.header_len + 8 + mpls.header_len as u16;
        let inner = payload.get(mpls.header_len..).ok_or(DropReason::Truncated)?;
        context.outer = Some(Outer { source, tos: outer.tos });
        parse::ip_to(inner, mpls.inner_version, &mut context.ip)?;
        if context.ip.multicast {
            return Err(DropReason::McastUnsupported);
        }
        context.l3 += offset;
        context.tci = 0;
        context.key = parse::flow_key(&context.ip, decap.vrf, VifId::TUNNEL);
        context.path = decap.path;
        Ok(true)
    }

    /// Where a label leads, remembered for the next packets.
    #[inline(never)]
    fn look_up_label(&self, snapshot: &Snapshot, key: &DecapKey, label: Label) -> Result<Decap, DropReason> {
        let id = snapshot.label(label).ok_or(DropReason::InvalidLabel)?;
        let nexthop = snapshot.nexthop(id).filter(|nexthop| nexthop.valid).ok_or(DropReason::InvalidNh)?;
        let (vrf, path) = match nexthop.kind {
            NexthopKind::VrfTranslate { vrf } if nexthop.policy => (vrf, Path::Flow),
            NexthopKind::VrfTranslate { vrf } => (vrf, Path::Walk(Start::Route)),
            _ => (nexthop.vrf.unwrap_or(key.vrf), Path::Walk(Start::Nexthop(id))),
        };
        let decap = Decap { vrf, path };
        self.decap.put(*key, decap);
        Ok(decap)
    }
}

/// An IPv4 address out of the form that flow keys hold.
const fn v4_octets([a, b, c, d, ..]: [u8; 16]) -> [u8; 4] {
    [a, b, c, d]
}

/// An echo request to an IPv6 group of this link: a router answers it, for the groups that it is in (RFC 4443 §4.2).
fn asks_group(ip: &Ip) -> bool {
    const ECHO_REQUEST: u8 = 128;
    ip.version == 6
        && ip.proto == ICMP6
        && ip.icmp_type == ECHO_REQUEST
        && ip.fragment == FragmentInfo::None
        && ip.dst.first_chunk::<2>() == Some(&[0xff, 0x02])
}

/// ICMP errors are looked up by what they quote, fragments by what their head told.
#[inline]
fn finish_key(frame: &[u8], context: &mut Context) -> Result<(), DropReason> {
    const SYN_FIN_RST: u8 = 0x07;
    let ip = &context.ip;
    if ip.is_icmp_error && ip.fragment == FragmentInfo::None {
        context.special = true;
        if context.path == Path::Flow {
            let quoted = parse::embedded(ip, frame.get(usize::from(context.l3)..).unwrap_or(&[]))?;
            let key = quoted.flow_key(context.key.vrf, context.key.vif);
            if key.dst != ip.dst {
                return Err(DropReason::IcmpErrorUnmatched);
            }
            context.key = key;
        }
    } else if ip.fragment != FragmentInfo::None {
        context.special = true;
        if let Some(head) = context.head {
            context.key.proto = head.proto;
            context.key.sport = head.sport;
            context.key.dport = head.dport;
        } else {
            // Until the head has told: owned by the addresses alone.
            context.key.sport = 0;
            context.key.dport = 0;
            if ip.version == 6 {
                // Later fragments cannot tell the protocol behind further extension headers.
                context.key.proto = 0;
            }
        }
    } else {
        let is_tcp = context.key.proto == 6;
        // An echo request and a reply of the other way have one key: who asks has to be looked at.
        let asks = matches!((ip.version, ip.proto, ip.icmp_type), (4, 1, 8) | (6, ICMP6, 128));
        context.special = asks || is_tcp && (ip.tcp_flags & SYN_FIN_RST != 0 || ip.tcp_flags & 0x10 == 0);
    }
    Ok(())
}

/// The checksum of a UDP datagram over IPv4; 0 is none (RFC 768, RFC 7510 §3.1).
#[inline]
fn udp_checksum_holds(ip: &Ip, l3: &[u8]) -> bool {
    let udp = ip.payload(l3);
    let Some(&[_, _, _, _, l0, l1, c0, c1]) = udp.first_chunk::<8>() else { return false };
    if [c0, c1] == [0, 0] {
        return true;
    }
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = (ip.src, ip.dst);
    let len = u16::from_be_bytes([l0, l1]);
    let datagram = udp.get(..usize::from(len)).unwrap_or(udp);
    let pseudo = checksum::pseudo_v4([a, b, c, d], [e, f, g, h], UDP, len);
    checksum::add(checksum::sum(datagram), pseudo) == 0xffff
}
