//! From a frame to what is looked up for it: vif by VLAN, the tunnel opened, the key.
//!
//! Only reads the frame; the first of the three stages of a batch.

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    DropReason, Label, NexthopId, VifId, VrfId,
    classify::{self, Start},
    flow::FlowKey,
    forwarding::{NexthopKind, VlanTag},
};
use zerocopy::FromZeros;

use super::{
    Head, Tenant, VifFast, Worker,
    fragments::{DatagramKey, Protection},
    tunnels::{Inside, Outside, label_word},
};
use crate::{
    esp::{self, Envelope},
    packet::{
        NicNote, Packet, checksum,
        parse::{self, Ethernet, FragmentInfo, Ip},
    },
};

/// UDP ports of MPLS over UDP: RFC 7510, and the one that vRouter used before.
const MPLS_O_UDP: [u16; 2] = [6635, 51234];
const ICMP6: u8 = 58;
const UDP: u8 = 17;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What kind of frame it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sorted {
    /// An IP packet.
    Ip(Context),
    /// ARP.
    Arp,
    /// Neighbour discovery.
    Nd(Context),
    /// ESP for a tunnel of this node, at this place in the frame; the context is that of the outer packet.
    Esp(Context, usize),
    /// A NAT-keepalive for one.
    Keepalive,
}

/// What kind of frame it is, when the context is elsewhere; see [`Sorted`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Ip,
    /// On this vif, at this place in the frame.
    Arp {
        vif: VifId,
        at: usize,
    },
    Nd,
    /// At this place in the frame.
    Esp {
        at: usize,
    },
    Keepalive,
}

/// The outside of a packet that came out of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outer {
    pub(super) source: Ipv4Addr,
    pub(super) tos: u8,
}

/// How a packet is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// By its flow.
    Flow,
    /// By a walk of its own, beginning here: neither vif nor nexthop has Policy.
    Walk(Start),
    /// A fragment of what is for the node itself: whole first.
    Reassemble,
}

/// What is known of a packet after the first stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Ingress vif; the underlay's for what came out of an MPLS-over-UDP tunnel.
    pub(super) vif: VifId,
    /// The vif that the ESP packet came in on, when the NIC has opened one; `vif` is the IPsec tunnel then.
    pub(super) sealed_on: Option<VifId>,
    /// The vif of the device.
    pub(super) port: VifId,
    /// Where the (inner) IP header begins in the frame.
    pub(super) l3: u16,
    /// First tag's control information, for its priority.
    pub(super) tci: u16,
    /// Key of the lookup.
    pub(super) key: FlowKey,
    /// The (inner) IP packet.
    pub(super) ip: Ip,
    /// Set when it came out of a tunnel.
    pub(super) outer: Option<Outer>,
    pub(super) path: Path,
    /// Needs more than its flow's program: TCP flags, a fragment, an ICMP error.
    pub(super) special: bool,
    /// What the head of its datagram told, for a fragment that has found it.
    pub(super) head: Option<Head>,
}

/// A frame that goes no further, and on which vif.
pub(super) type Refused = (VifId, DropReason);

impl Worker {
    /// Finds out what a frame is.
    pub(super) fn sort(&self, packet: &Packet, port: VifId, head: Option<Head>) -> Result<Sorted, Refused> {
        let mut context = Context::blank();
        Ok(match self.sort_to(packet, port, head, &mut context)? {
            Kind::Ip => Sorted::Ip(context),
            Kind::Nd => Sorted::Nd(context),
            Kind::Arp { .. } => Sorted::Arp,
            Kind::Esp { at } => Sorted::Esp(context, at),
            Kind::Keepalive => Sorted::Keepalive,
        })
    }

    /// Finds out what a frame is. The context is set where [`Kind`] says so, and otherwise means nothing.
    #[inline]
    pub(super) fn sort_to(
        &self,
        packet: &Packet,
        port: VifId,
        head: Option<Head>,
        context: &mut Context,
    ) -> Result<Kind, Refused> {
        let frame = packet.data();
        let device = self.vif_fast(port).ok_or((port, DropReason::InvalidIf))?;
        context.port = port;
        context.head = head;
        context.sealed_on = None;
        if device.raw_ip {
            let version = frame.first().ok_or((port, DropReason::Truncated))? >> 4;
            (context.vif, context.tci) = (port, 0);
            return self.sort_ip(frame, 0, version, device, false, context);
        }
        let ethernet = parse::ethernet(frame).map_err(|reason| (port, reason))?;
        let vif = self.demultiplex(&ethernet, port, device).ok_or((port, DropReason::InvalidIf))?;
        let here = if vif == port { device } else { self.vif_fast(vif).ok_or((port, DropReason::InvalidIf))? };
        let group = ethernet.dst.is_multicast();
        if !group && ethernet.dst != here.mac {
            return Err((vif, DropReason::InvalidMac));
        }
        let version = match ethernet.ethertype {
            parse::ETHERTYPE_IPV4 => 4,
            parse::ETHERTYPE_IPV6 => 6,
            parse::ETHERTYPE_ARP => return Ok(Kind::Arp { vif, at: ethernet.len }),
            _ => return Err((vif, DropReason::InvalidProtocol)),
        };
        (context.vif, context.tci) = (vif, ethernet.tci[0]);
        if packet.note() != NicNote::None {
            return self.sort_opened(packet, (ethernet.len, version), (here, group), context);
        }
        self.sort_ip(frame, ethernet.len, version, here, group, context)
    }

    /// What a NIC has done something about that is IPsec's: what is behind the Ethernet header came out of a tunnel, as if received
    /// on it.
    #[inline(never)]
    fn sort_opened(
        &self,
        packet: &Packet,
        (l3, version): (usize, u8),
        (here, group): (&VifFast, bool),
        context: &mut Context,
    ) -> Result<Kind, Refused> {
        let link = context.vif;
        let tunnel = match packet.note() {
            NicNote::Opened(tunnel) => tunnel,
            NicNote::Refused => return Err((link, DropReason::EspRefusedByNic)),
            NicNote::Deciphered => {
                let kind = self.sort_ip(packet.data(), l3, version, here, group, context)?;
                // A NIC that has opened a packet, and does not say out of which tunnel: no packet that came in the clear (RFC 4301 §5.2).
                let esp = matches!(kind, Kind::Esp { .. });
                return if esp { Ok(kind) } else { Err((link, DropReason::EspRefusedByNic)) };
            }
            // What is to go into a tunnel is seen to before.
            NicNote::None | NicNote::ToSeal(_) | NicNote::Session(_) => {
                return self.sort_ip(packet.data(), l3, version, here, group, context);
            }
        };
        let inside = self.vif_fast(tunnel).filter(|_| !group).ok_or((link, DropReason::InvalidIf))?;
        (context.vif, context.sealed_on, context.tci) = (tunnel, Some(link), 0);
        self.sort_ip(packet.data(), l3, version, inside, false, context)
    }

    /// The vif of a tagged frame. A priority tag (VLAN id 0) is no tag (IEEE 802.1Q §9.6).
    fn demultiplex(&self, ethernet: &Ethernet, port: VifId, device: &VifFast) -> Option<VifId> {
        let vid = |i: usize| ethernet.tci.get(i).map_or(0, |tci| tci & 0x0fff);
        let tag = |i: usize| VlanTag { tpid: ethernet.tpid.get(i).copied().unwrap_or(0), vid: vid(i) };
        match ethernet.tags {
            0 => Some(port),
            1 if vid(0) == 0 => Some(port),
            1 if ethernet.tpid[0] == 0x8100 => {
                let id = *device.vlans.as_ref()?.get(usize::from(vid(0)))?;
                (id != VifId::TUNNEL).then_some(id)
            }
            1 => self.snapshot.vlan_vif(port, tag(0), None),
            _ => self.snapshot.vlan_vif(port, tag(0), Some(tag(1))),
        }
    }

    /// An IP packet at `l3` of a frame that came in on the context's vif, `here`.
    #[inline]
    fn sort_ip(
        &self,
        frame: &[u8],
        l3: usize,
        version: u8,
        here: &VifFast,
        group: bool,
        context: &mut Context,
    ) -> Result<Kind, Refused> {
        let vif = context.vif;
        let refuse = |reason| (vif, reason);
        let bytes = frame.get(l3..).unwrap_or(&[]);
        parse::ip_to(bytes, version, &mut context.ip).map_err(refuse)?;
        context.l3 = u16::try_from(l3).map_err(|_| refuse(DropReason::InvalidPacket))?;
        context.outer = None;
        context.path = if here.policy { Path::Flow } else { Path::Walk(Start::Route) };
        context.special = false;
        let ip = &context.ip;
        if ip.proto == ICMP6 && version == 6 && matches!(ip.icmp_type, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
        {
            context.key = parse::flow_key(ip, here.vrf, vif);
            return Ok(Kind::Nd);
        }
        if ip.multicast || group {
            if !asks_group(ip) {
                return Err(refuse(DropReason::McastUnsupported));
            }
            // Nobody's flow: whether the group is heard here is found by a walk.
            context.path = Path::Walk(Start::Route);
        }
        let (is_udp, whole) = (ip.proto == UDP && version == 4, ip.fragment == FragmentInfo::None);
        if is_udp && !whole && self.snapshot.terminates_mpls_o_udp(here.vrf, ip.destination()) {
            // Only the first fragment tells the port: whatever UDP it is, it ends here.
            context.path = Path::Reassemble;
        }
        // The port may be the NAT's; where ESP in UDP comes to is this node's choice.
        let may_be_esp =
            version == 4 && (ip.proto == esp::PROTOCOL || is_udp && (ip.dport == esp::NAT_T_PORT || !whole));
        if may_be_esp
            && self.ipsec.ends_at(here.vrf, ip.dst)
            && let Some(kind) = self.sort_ipsec(bytes, here.vrf, context).map_err(refuse)?
        {
            return Ok(kind);
        }
        let ip = &context.ip;
        let is_tunnel = is_udp && whole && MPLS_O_UDP.contains(&ip.dport);
        if !(is_tunnel && self.open_tunnel(bytes, here.vrf, context).map_err(refuse)?) {
            context.key = parse::flow_key(&context.ip, here.vrf, vif);
        }
        finish_key(frame, context).map_err(refuse)?;
        Ok(Kind::Ip)
    }

    /// What has come to an IPsec tunnel of this node; `None`: it goes the way of other packets, as IKE does (RFC 3948 §2.2).
    fn sort_ipsec(&self, l3: &[u8], vrf: VrfId, context: &mut Context) -> Result<Option<Kind>, DropReason> {
        let ip = &context.ip;
        if ip.fragment != FragmentInfo::None {
            context.path = Path::Reassemble;
            return Ok(None);
        }
        context.key = parse::flow_key(ip, vrf, context.vif);
        let payload = usize::from(context.l3 + ip.header_len);
        if ip.proto == esp::PROTOCOL {
            return Ok(Some(Kind::Esp { at: payload }));
        }
        Ok(match esp::envelope(ip.udp_data(l3)) {
            Envelope::Esp(_) => Some(Kind::Esp { at: payload + 8 }),
            Envelope::Ike => None,
            Envelope::Keepalive => Some(Kind::Keepalive),
            Envelope::Invalid => return Err(DropReason::EspTruncated),
        })
    }

    /// Looks into an MPLS-over-UDP packet (RFC 7510 §3) when a tunnel ends here: from here on the context is that of the inner
    /// packet. False: none does.
    #[inline]
    fn open_tunnel(&self, l3: &[u8], vrf: VrfId, context: &mut Context) -> Result<bool, DropReason> {
        let outer = &context.ip;
        let ([s0, s1, s2, s3, ..], [d0, d1, d2, d3, ..]) = (outer.src, outer.dst);
        let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        // Nothing behind the datagram is read, however long the IP packet is (RFC 768).
        let payload = outer.udp_data(l3);
        // The tables would say again what they said of the last packet with this outside.
        let outside = Outside { vif: context.vif, vrf, source, destination, label: label_word(payload) };
        let known = self.tunnels.get(&outside);
        if known.is_none() && !self.snapshot.terminates_mpls_o_udp(vrf, IpAddr::V4(destination)) {
            return Ok(false);
        }
        if known.is_none() && self.snapshot.is_own_tunnel_source(IpAddr::V4(source)) {
            return Err(DropReason::OwnSource);
        }
        if known.is_none() {
            self.tunnels.note(&classify::check_outside(&self.snapshot, context.vif, source)?);
        }
        if !udp_checksum_holds(outer, l3) {
            return Err(DropReason::ChecksumErr);
        }
        let mpls = parse::mpls_udp(payload)?;
        let inside = match known {
            Some(inside) => inside,
            None => self.look_up_label(&outside, mpls.label)?,
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
        context.key = parse::flow_key(&context.ip, inside.vrf, VifId::TUNNEL);
        context.path = inside.path;
        Ok(true)
    }

    /// The datagram that a packet is a fragment of.
    pub(super) fn datagram(&self, context: &Context) -> Option<DatagramKey> {
        let nexthop = match context.path {
            Path::Walk(Start::Nexthop(nexthop)) => nexthop,
            Path::Walk(Start::Route) | Path::Flow | Path::Reassemble => NexthopId::NONE,
        };
        let is_tunnel = self.snapshot.vif(context.vif).is_some_and(|vif| vif.kind.tunnel().is_some());
        let protection = if is_tunnel { Protection::Ipsec } else { Protection::Clear };
        DatagramKey::of((context.key.vrf, nexthop), (context.vif, protection), &context.ip)
    }

    /// Where a label leads, remembered for the next packets.
    #[inline(never)]
    fn look_up_label(&self, outside: &Outside, label: Label) -> Result<Inside, DropReason> {
        let id = self.snapshot.label(label).ok_or(DropReason::InvalidLabel)?;
        let nexthop = self.snapshot.nexthop(id).filter(|nexthop| nexthop.valid).ok_or(DropReason::InvalidNh)?;
        let (vrf, path) = match nexthop.kind {
            NexthopKind::VrfTranslate { vrf } if nexthop.policy => (vrf, Path::Flow),
            NexthopKind::VrfTranslate { vrf } => (vrf, Path::Walk(Start::Route)),
            _ => (nexthop.vrf.unwrap_or(outside.vrf), Path::Walk(Start::Nexthop(id))),
        };
        let inside = Inside { vrf, path };
        self.tunnels.put(*outside, inside);
        Ok(inside)
    }
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

impl Context {
    /// Before anything is known.
    pub(super) fn blank() -> Self {
        Self {
            vif: VifId::TUNNEL,
            sealed_on: None,
            port: VifId::TUNNEL,
            l3: 0,
            tci: 0,
            key: FlowKey::new_zeroed(),
            ip: Ip::BLANK,
            outer: None,
            path: Path::Flow,
            special: false,
            head: None,
        }
    }

    /// A fragment whose head has not told anything yet.
    pub(super) fn lacks_head(&self) -> bool {
        self.ip.fragment != FragmentInfo::None && self.head.is_none()
    }

    /// On whose account it waits, when it has to.
    pub(super) fn tenant(&self) -> Tenant {
        self.outer.map_or(Tenant::Vif(self.vif), |_| Tenant::Vrf(self.key.vrf))
    }

    /// Where it came from, as the walk sees it.
    pub(super) fn ingress(&self) -> offload_rules::classify::Ingress {
        offload_rules::classify::Ingress { vif: self.vif, tunnel: self.outer.map(|outer| outer.source) }
    }

    /// Destination port as listeners and access lists see it.
    pub(super) fn service_port(&self) -> u16 {
        if matches!((self.key.version, self.key.proto), (4, 1) | (6, ICMP6)) {
            u16::from(self.head.map_or(self.ip.icmp_type, |head| head.icmp_type))
        } else {
            self.key.dport
        }
    }
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
