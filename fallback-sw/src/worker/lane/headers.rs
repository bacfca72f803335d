//! Reading the headers of ordinary packets: all that the lane has to know, in half a cache line.
//!
//! Checks what the general parser checks, joined into a few branches. What it does not check holds because of where the packet is looked
//! for: a flow's key, or the addresses of a decision, came from a packet with addresses that the general parser has let through.

use std::net::Ipv4Addr;

use offload_rules::{VifId, VrfId, classify::Start};

use crate::{
    flow_table::{self, Finder},
    packet::{Packet, checksum, ecn, parse},
    worker::{
        context::Path,
        decap_cache::{DecapCache, DecapKey},
        ingress::MPLS_O_UDP,
        routed::{Departure, Recent},
    },
};

/// Octets from the first one of a frame that may be read: Ethernet with one tag, IPv4, UDP, a label, IPv6, TCP.
const HEADERS: usize = 18 + 20 + 8 + 4 + 40 + 20;
/// Octets of an IP header and of what is looked at behind it.
const IP: usize = 40 + 20;
/// IPv4, UDP and a label before the inner packet.
const OUTER: usize = 32;

/// Version of IPv4 packets in [`Ordinary::kind`].
pub(super) const V4: u16 = 4;
const V6: u16 = 6;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// How a packet is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Way {
    /// Not by the lane.
    General,
    /// By its flow.
    Flow,
    /// By the routes, without a flow.
    Routed,
}

/// What is known of an ordinary packet. Its addresses are read where they are.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Ordinary {
    /// Of a flow: ports, VRF and vif as in its key, see [`flow_table::place`]. Without one: the first word of its [`Departure`].
    pub(super) place: u64,
    /// Of a flow: the outer source, as [`Record::rpf_source`](flow_table::Record::rpf_source) has it. Without one: the second word of
    /// its [`Departure`].
    pub(super) from: u64,
    /// Protocol, and version as the upper octet.
    pub(super) kind: u16,
    /// Octets of the IP packet.
    pub(super) len: u16,
    /// The vif that it came in on.
    pub(super) vif: VifId,
    /// The same, of what came out of an MPLS-over-UDP tunnel; 0 otherwise.
    pub(super) underlay: u16,
    /// Where the (inner) IP packet begins.
    pub(super) l3: u8,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// 802.1p priority in the upper three bits, [`Ordinary::HAS_PRIORITY`].
    pub(super) priority: u8,
    pub(super) way: Way,
}

const _: () = assert!(size_of::<Ordinary>() == 32);

impl Ordinary {
    /// The frame that came in had a tag that says something.
    pub(super) const HAS_PRIORITY: u8 = 1;

    /// Not of the lane.
    pub(super) const GENERAL: Self = Self {
        place: 0,
        from: 0,
        kind: 0,
        len: 0,
        vif: VifId::TUNNEL,
        underlay: 0,
        l3: 0,
        ttl: 0,
        tos: 0,
        priority: 0,
        way: Way::General,
    };

    #[inline(always)]
    pub(super) const fn is_tcp(&self) -> bool {
        self.kind as u8 == TCP
    }
}

/// What the lane needs of a vif.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct LaneVif {
    /// As the first six octets of a frame; all ones when its frames are not the lane's.
    pub(in crate::worker) mac: u64,
    pub(in crate::worker) vrf: VrfId,
    pub(in crate::worker) policy: bool,
}

impl LaneVif {
    /// Its frames are not the lane's.
    pub(in crate::worker) fn none() -> Self {
        Self { mac: u64::MAX, vrf: VrfId::default(), policy: false }
    }
}

/// All that is needed to read headers, held over a batch.
pub(super) struct Reader<'a> {
    pub(super) vifs: &'a [LaneVif],
    pub(super) decap: &'a DecapCache,
    pub(super) finder: Finder<'a>,
    /// Decisions of packets without flows; `None`: they are not the lane's.
    pub(super) recent: Option<&'a Recent>,
    pub(super) port: VifId,
    pub(super) vlans: Option<&'a [VifId; 4096]>,
}

/// The link that a frame came in by.
#[derive(Clone, Copy)]
struct Link {
    vif: VifId,
    priority: u8,
    version: u16,
}

/// Where a packet enters: what of it does not depend on its own header.
#[derive(Clone, Copy)]
struct Entry {
    vif: VifId,
    vrf: VrfId,
    path: Path,
    /// Source of the outer header that comes off.
    outer: Option<[u8; 4]>,
    l3: u8,
    priority: u8,
}

/// What a header says.
#[derive(Clone, Copy)]
struct Header {
    len: u16,
    proto: u8,
    ttl: u8,
    tos: u8,
    version: u16,
    sport: u16,
    dport: u16,
}

#[inline(always)]
const fn be16(octets: &[u8; IP], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

/// A transport header that needs nothing but its flow's program, in a whole packet: UDP, or TCP with ACK and without SYN, FIN, RST, URG.
/// `l4` is where it begins, `len` is how many octets the packet has from there on.
#[inline(always)]
const fn is_ordinary_l4(ip: &[u8; IP], l4: usize, proto: u8, len: usize) -> bool {
    if proto == UDP {
        let udp = be16(ip, l4 + 4) as usize;
        (udp >= 8) & (udp <= len)
    } else if proto == TCP {
        let header = (ip[l4 + 12] >> 4) as usize * 4;
        (header >= 20) & (header <= len) & (ip[l4 + 13] & 0x37 == 0x10)
    } else {
        false
    }
}

/// An IPv4 packet without options that is no fragment. `room`: octets from the header to the end of the frame, or of the datagram
/// around it.
#[inline(always)]
fn v4(ip: &[u8; IP], room: usize) -> Option<Header> {
    let header = ip.first_chunk::<20>()?;
    let (len, proto) = (be16(ip, 2), ip[9]);
    let whole = be16(ip, 6) & 0x3fff == 0;
    let shape = (ip[0] == 0x45)
        & whole
        & (len as usize <= room)
        & (len >= 20)
        & checksum::ipv4_header_20(header)
        & is_ordinary_l4(ip, 20, proto, (len as usize).wrapping_sub(20));
    shape.then_some(Header {
        len,
        proto,
        ttl: ip[8],
        tos: ip[1],
        version: V4,
        sport: be16(ip, 20),
        dport: be16(ip, 22),
    })
}

/// An IPv6 packet without extension headers.
#[inline(always)]
fn v6(ip: &[u8; IP], room: usize) -> Option<Header> {
    let (payload, proto) = (be16(ip, 4) as usize, ip[6]);
    let len = payload + 40;
    let shape = (ip[0] >> 4 == 6)
        & (len <= room)
        & (len <= u16::MAX as usize)
        // No flow and no route leads to a group.
        & (ip[24] != 0xff)
        & is_ordinary_l4(ip, 40, proto, payload);
    shape.then_some(Header {
        len: len as u16,
        proto,
        ttl: ip[7],
        tos: ip[0] << 4 | ip[1] >> 4,
        version: V6,
        sport: be16(ip, 40),
        dport: be16(ip, 42),
    })
}

/// Both halves of source and destination of the IP packet at the start of `ip`, as keys have them.
#[inline(always)]
pub(super) fn addresses(ip: &[u8], version: u16) -> Option<[[u64; 2]; 2]> {
    if version == V4 {
        let [s0, s1, s2, s3, d0, d1, d2, d3] = *ip.get(12..)?.first_chunk::<8>()?;
        let [source, destination] = [[s0, s1, s2, s3], [d0, d1, d2, d3]].map(u32::from_le_bytes);
        Some([[source.into(), 0], [destination.into(), 0]])
    } else {
        let both = ip.get(8..)?.first_chunk::<32>()?;
        Some([flow_table::halves(both.first_chunk()?), flow_table::halves(both.last_chunk()?)])
    }
}

/// Where ECN stays as it is when an outer header comes off (RFC 6040 §4.2): bits by inner field times four plus outer field.
const ECN_STAYS: u16 = {
    let (mut stays, mut at) = (0, 0);
    while at < 16 {
        let inner = ecn::Ecn::of(at >> 2);
        if let Ok(combined) = ecn::decapsulate(ecn::Ecn::of(at), inner)
            && combined as u8 == inner as u8
        {
            stays |= 1 << at;
        }
        at += 1;
    }
    stays
};

impl Reader<'_> {
    /// Is it of the lane? Then also its hash, by which what is known of it has been asked for.
    #[inline(always)]
    pub(super) fn read(&self, packet: &Packet) -> Option<(Ordinary, u64)> {
        if !packet.is_plain() {
            return None;
        }
        // Octets behind the frame mean nothing: no header is believed before its length is compared with the frame's.
        let (headers, len) = (packet.peek::<HEADERS>(0)?, packet.len());
        match u16::from_be_bytes([headers[12], headers[13]]) {
            parse::ETHERTYPE_IPV4 => {
                self.read_ip::<14>(headers, len, Link { vif: self.port, priority: 0, version: V4 })
            }
            0x8100 => {
                let tci = u16::from_be_bytes([headers[14], headers[15]]);
                // A priority tag has no entry.
                let vif = *self.vlans?.get(usize::from(tci & 0x0fff))?;
                let priority = (tci >> 8) as u8 & 0xe0 | Ordinary::HAS_PRIORITY;
                match u16::from_be_bytes([headers[16], headers[17]]) {
                    parse::ETHERTYPE_IPV4 => self.read_ip::<18>(headers, len, Link { vif, priority, version: V4 }),
                    parse::ETHERTYPE_IPV6 => self.read_ip::<18>(headers, len, Link { vif, priority, version: V6 }),
                    _ => None,
                }
            }
            parse::ETHERTYPE_IPV6 => {
                self.read_ip::<14>(headers, len, Link { vif: self.port, priority: 0, version: V6 })
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn read_ip<const L3: usize>(&self, headers: &[u8; HEADERS], len: usize, link: Link) -> Option<(Ordinary, u64)> {
        let here = self.vifs.get(link.vif.index())?;
        let destination = u64::from_le_bytes(*headers.first_chunk()?) & 0x0000_ffff_ffff_ffff;
        if destination != here.mac {
            return None;
        }
        let ip = headers.get(L3..)?.first_chunk::<IP>()?;
        let room = len.saturating_sub(L3);
        let header = if link.version == V4 { v4(ip, room)? } else { v6(ip, room)? };
        if (header.version == V4) & (header.proto == UDP) {
            if MPLS_O_UDP.contains(&header.dport) {
                return self.read_tunnel::<L3>(headers, ip, link.vif, here.vrf);
            }
            // It may be ESP.
            if header.dport == crate::esp::NAT_T_PORT {
                return None;
            }
        }
        let path = if here.policy { Path::Flow } else { Path::Walk(Start::Route) };
        let Link { vif, priority, version: _ } = link;
        self.enter(ip, header, Entry { vif, vrf: here.vrf, path, outer: None, l3: L3 as u8, priority })
    }

    /// The inner packet of MPLS over UDP, when decapsulation has met the outside and the label lately.
    #[inline(always)]
    fn read_tunnel<const L3: usize>(
        &self,
        headers: &[u8; HEADERS],
        outer: &[u8; IP],
        vif: VifId,
        vrf: VrfId,
    ) -> Option<(Ordinary, u64)> {
        let entry = u32::from_be_bytes([outer[28], outer[29], outer[30], outer[31]]);
        let datagram = usize::from(be16(outer, 24));
        // No checksum of UDP, bottom of stack, and the label's TTL is not used up.
        let shape = (be16(outer, 26) == 0) & (entry & 0x100 != 0) & (entry as u8 != 0);
        if !shape {
            return None;
        }
        let ip = headers.get(L3 + OUTER..)?.first_chunk::<IP>()?;
        let room = datagram.saturating_sub(12);
        let header = if ip[0] >> 4 == 4 { v4(ip, room)? } else { v6(ip, room)? };
        let source = [outer[12], outer[13], outer[14], outer[15]];
        let destination = Ipv4Addr::new(outer[16], outer[17], outer[18], outer[19]);
        let key = DecapKey { vif, vrf, source: source.into(), destination, label: entry >> 12 };
        let decap = self.decap.get(&key)?;
        let congestion = (header.tos & 3) << 2 | outer[1] & 3;
        if ECN_STAYS >> congestion & 1 == 0 {
            return None;
        }
        let (l3, outer) = ((L3 + OUTER) as u8, Some(source));
        self.enter(ip, header, Entry { vif, vrf: decap.vrf, path: decap.path, outer, l3, priority: 0 })
    }

    #[inline(always)]
    fn enter(&self, ip: &[u8; IP], header: Header, entry: Entry) -> Option<(Ordinary, u64)> {
        let Header { len, proto, ttl, tos, version, sport, dport } = header;
        let Entry { vif, vrf, path, outer, l3, priority } = entry;
        let [source, destination] = addresses(ip, version)?;
        let kind = version << 8 | u16::from(proto);
        let underlay = if outer.is_some() { vif.get() } else { 0 };
        let ordinary =
            |way, place, from| Ordinary { place, from, kind, len, vif, underlay, l3, ttl, tos, priority, way };
        match path {
            Path::Flow => {
                let key_vif = if outer.is_some() { VifId::TUNNEL } else { vif };
                let place = flow_table::place(sport, dport, vrf, key_vif);
                let hash = self.finder.hash(source, destination, place, kind);
                self.finder.prefetch(hash);
                let from = outer.map_or(0, u32::from_le_bytes).into();
                Some((ordinary(Way::Flow, place, from), hash))
            }
            Path::Walk(start) => {
                let recent = self.recent?;
                let departure = Departure {
                    vif,
                    vrf,
                    is_tcp: proto == TCP,
                    is_v6: version == V6,
                    outer: outer.map(u32::from_be_bytes),
                    start,
                };
                let words = departure.words();
                let hash = recent.hash(words, source, destination);
                recent.prefetch(hash);
                let [place, from] = words;
                Some((ordinary(Way::Routed, place, from), hash))
            }
            Path::Reassemble | Path::Resume => None,
        }
    }
}
