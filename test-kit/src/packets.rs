//! Packets in words: built and read by etherparse, an implementation that shares nothing with the node's.
//!
//! A [`Packet`] is an IP packet; [`eth`] and [`tagged`] put it into a frame. [`Frame`], [`Ip`] and [`Tunnelled`] read what came
//! out; reading checks every checksum on the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv6FragmentHeader, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader, VlanId, VlanPcp,
};

pub type Mac = [u8; 6];

/// A VLAN tag: TPID, PCP, VID.
pub type Tag = (u16, u8, u16);

/// The MAC of every virtual vif.
pub const VRRP: Mac = [0x00, 0x00, 0x5e, 0x00, 0x01, 0x00];

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;
pub const SCTP: u8 = 132;

/// TCP flags.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// An IP packet in the making: TTL 64, not fragmented, DF clear.
#[derive(Debug, Clone)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    ttl: u8,
    tos: u8,
    df: bool,
    id: u16,
    part: Option<(u16, bool)>,
    body: Vec<u8>,
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("no address: {text}"))
}

/// Any protocol with this body.
pub fn plain(src: &str, dst: &str, proto: u8, body: &[u8]) -> Packet {
    let (src, dst) = (addr(src), addr(dst));
    assert_eq!(src.is_ipv4(), dst.is_ipv4());
    Packet { src, dst, proto, ttl: 64, tos: 0, df: false, id: 0x1234, part: None, body: body.to_vec() }
}

pub fn udp(src: &str, dst: &str, sport: u16, dport: u16, payload: &[u8]) -> Packet {
    let mut packet = plain(src, dst, UDP, &[]);
    let len = u16::try_from(payload.len() + 8).unwrap();
    let mut header = UdpHeader { source_port: sport, destination_port: dport, length: len, checksum: 0 };
    header.checksum = match (packet.src, packet.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload).unwrap(),
        (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload).unwrap(),
        _ => unreachable!(),
    };
    packet.body = [&header.to_bytes()[..], payload].concat();
    packet
}

/// A TCP segment with sequence and acknowledgement number.
pub fn segment(src: &str, dst: &str, ports: (u16, u16), flags: u8, (seq, ack): (u32, u32), payload: &[u8]) -> Packet {
    segment_with_options(src, dst, ports, flags, (seq, ack), &[], payload)
}

/// A TCP segment with raw options (a multiple of four octets, at most 40).
pub fn segment_with_options(
    src: &str,
    dst: &str,
    (sport, dport): (u16, u16),
    flags: u8,
    (seq, ack): (u32, u32),
    options: &[u8],
    payload: &[u8],
) -> Packet {
    let mut packet = plain(src, dst, TCP, &[]);
    let mut header = TcpHeader::new(sport, dport, seq, 65000);
    header.acknowledgment_number = ack;
    (header.fin, header.syn, header.rst) = (flags & FIN != 0, flags & SYN != 0, flags & RST != 0);
    (header.psh, header.ack) = (flags & PSH != 0, flags & ACK != 0);
    header.set_options_raw(options).unwrap();
    header.checksum = match (packet.src, packet.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload).unwrap(),
        (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload).unwrap(),
        _ => unreachable!(),
    };
    packet.body = [&header.to_bytes()[..], payload].concat();
    packet
}

/// A SYN with sequence number 1000.
pub fn syn(src: &str, dst: &str, sport: u16, dport: u16) -> Packet {
    segment(src, dst, (sport, dport), SYN, (1000, 0), &[])
}

/// An SCTP packet: common header and one chunk of four octets. Its CRC is nobody's business on the way.
pub fn sctp(src: &str, dst: &str, sport: u16, dport: u16) -> Packet {
    let body = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &[0, 0, 0, 1], &[0; 4], &[0, 0, 0, 4]].concat();
    plain(src, dst, SCTP, &body)
}

/// ICMP or ICMPv6, by the family of the addresses; `rest` is the second word of the header.
pub fn icmp(src: &str, dst: &str, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Packet {
    let v6 = addr(src).is_ipv6();
    let mut packet = plain(src, dst, if v6 { ICMP6 } else { ICMP }, &[]);
    let header: Vec<u8> = match (packet.src, packet.dst) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            Icmpv6Header::with_checksum(kind, s.octets(), d.octets(), payload).unwrap().to_bytes().to_vec()
        }
        _ => {
            let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec()
        }
    };
    packet.body = [&header[..], payload].concat();
    packet
}

fn echo(src: &str, dst: &str, kinds: (u8, u8), id: u16, seq: u16) -> Packet {
    let kind = if addr(src).is_ipv4() { kinds.0 } else { kinds.1 };
    let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
    icmp(src, dst, kind, 0, [a, b, c, d], b"sluicegate")
}

pub fn echo_request(src: &str, dst: &str, id: u16, seq: u16) -> Packet {
    echo(src, dst, (8, 128), id, seq)
}

pub fn echo_reply(src: &str, dst: &str, id: u16, seq: u16) -> Packet {
    echo(src, dst, (0, 129), id, seq)
}

/// An ICMP or ICMPv6 error about an IP packet, quoted up to 576 (1280) octets in all.
pub fn icmp_error(src: &str, dst: &str, kind: u8, code: u8, about: &[u8]) -> Packet {
    let room = if addr(src).is_ipv4() { 576 - 28 } else { 1280 - 48 };
    icmp(src, dst, kind, code, [0; 4], &about[..about.len().min(room)])
}

/// One entry of an MPLS label stack.
pub fn entry(label: u32, tc: u8, bottom: bool, ttl: u8) -> [u8; 4] {
    (label << 12 | u32::from(tc) << 9 | u32::from(bottom) << 8 | u32::from(ttl)).to_be_bytes()
}

/// MPLS over UDP as RFC 7510 has it: UDP checksum 0.
pub fn mpls_udp(src: &str, dst: &str, (sport, dport): (u16, u16), stack: &[[u8; 4]], inner: &[u8]) -> Packet {
    let payload = [&stack.concat()[..], inner].concat();
    let mut packet = udp(src, dst, sport, dport, &payload);
    packet.body[6..8].fill(0);
    packet
}

impl Packet {
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// Type of service or traffic class: DSCP and ECN.
    #[must_use]
    pub fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    #[must_use]
    pub fn df(self) -> Self {
        Self { df: true, ..self }
    }

    /// IPv4 identification, or that of the IPv6 fragment header.
    #[must_use]
    pub fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// The octets of the body from `offset` (a multiple of 8) to `end`, as a fragment.
    #[must_use]
    pub fn part(&self, offset: usize, end: usize) -> Self {
        assert_eq!(offset % 8, 0);
        let more = end < self.body.len();
        let body = self.body[offset..end.min(self.body.len())].to_vec();
        Self { part: Some((u16::try_from(offset / 8).unwrap(), more)), body, ..self.clone() }
    }

    /// What is behind the IP header(s), to be spoilt.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src, dst),
            _ => unreachable!(),
        }
    }

    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let len = u16::try_from(self.body.len()).unwrap();
        let mut header = Ipv4Header::new(len, self.ttl, IpNumber(self.proto), src.octets(), dst.octets()).unwrap();
        header.dscp = (self.tos >> 2).try_into().unwrap();
        header.ecn = (self.tos & 3).try_into().unwrap();
        header.identification = self.id;
        header.dont_fragment = self.df;
        if let Some((offset, more)) = self.part {
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.more_fragments = more;
        }
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], &self.body].concat()
    }

    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let next = IpNumber(self.proto);
        let extension = self.part.map(|(offset, more)| {
            let offset = IpFragOffset::try_new(offset).unwrap();
            Ipv6FragmentHeader::new(next, offset, more, u32::from(self.id)).to_bytes().to_vec()
        });
        let header = Ipv6Header {
            traffic_class: self.tos,
            payload_length: u16::try_from(self.body.len() + extension.as_ref().map_or(0, Vec::len)).unwrap(),
            next_header: if extension.is_some() { IpNumber::IPV6_FRAGMENTATION_HEADER } else { next },
            hop_limit: self.ttl,
            source: src.octets(),
            destination: dst.octets(),
            ..Ipv6Header::default()
        };
        [&header.to_bytes()[..], &extension.unwrap_or_default(), &self.body].concat()
    }
}

fn ethertype(ip: &[u8]) -> EtherType {
    if ip[0] >> 4 == 6 { EtherType::IPV6 } else { EtherType::IPV4 }
}

/// An IP packet in an Ethernet frame.
pub fn eth(destination: Mac, source: Mac, ip: &[u8]) -> Vec<u8> {
    tagged(destination, source, &[], ip)
}

/// An IP packet in a frame with tags, the outer one first.
pub fn tagged(destination: Mac, source: Mac, tags: &[Tag], ip: &[u8]) -> Vec<u8> {
    let mut types: Vec<EtherType> = tags.iter().map(|(tpid, ..)| EtherType(*tpid)).collect();
    types.push(ethertype(ip));
    let mut frame = Ethernet2Header { source, destination, ether_type: types[0] }.to_bytes().to_vec();
    for ((_, pcp, vid), inner) in tags.iter().zip(&types[1..]) {
        let tag = SingleVlanHeader {
            pcp: VlanPcp::try_new(*pcp).unwrap(),
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(*vid).unwrap(),
            ether_type: *inner,
        };
        frame.extend_from_slice(&tag.to_bytes());
    }
    [frame, ip.to_vec()].concat()
}

/// A frame, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub destination: Mac,
    pub source: Mac,
    /// The outer one first.
    pub tags: Vec<Tag>,
    pub ethertype: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn read(octets: &[u8]) -> Self {
        let (ethernet, mut rest) = Ethernet2Header::from_slice(octets).unwrap();
        let mut next = ethernet.ether_type;
        let mut tags = Vec::new();
        while matches!(next.0, 0x8100 | 0x88a8 | 0x9100) {
            let (tag, behind) = SingleVlanHeader::from_slice(rest).unwrap();
            tags.push((next.0, tag.pcp.value(), tag.vlan_id.value()));
            (next, rest) = (tag.ether_type, behind);
        }
        Self {
            destination: ethernet.destination,
            source: ethernet.source,
            tags,
            ethertype: next.0,
            payload: rest.to_vec(),
        }
    }

    /// The IP packet in it; the ethertype must say its version.
    pub fn ip(&self) -> Ip {
        assert_eq!(self.ethertype, ethertype(&self.payload).0, "ethertype of the packet");
        Ip::read(&self.payload)
    }
}

/// An IP packet, read: its checksums are right, its length is that of what it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub ttl: u8,
    pub tos: u8,
    pub id: u32,
    pub df: bool,
    pub more: bool,
    /// In octets.
    pub offset: usize,
    /// The packet whole.
    pub octets: Vec<u8>,
    /// Behind the IP header(s).
    pub body: Vec<u8>,
}

impl Ip {
    pub fn read(octets: &[u8]) -> Self {
        let ip = if octets[0] >> 4 == 4 { Self::v4(octets) } else { Self::v6(octets) };
        if !ip.more && ip.offset == 0 {
            ip.check_transport();
        }
        ip
    }

    fn v4(octets: &[u8]) -> Self {
        let (header, body) = Ipv4Header::from_slice(octets).unwrap();
        assert_eq!(usize::from(header.total_len), octets.len(), "total length");
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "header checksum");
        Self {
            src: Ipv4Addr::from(header.source).into(),
            dst: Ipv4Addr::from(header.destination).into(),
            proto: header.protocol.0,
            ttl: header.time_to_live,
            tos: header.dscp.value() << 2 | header.ecn.value(),
            id: u32::from(header.identification),
            df: header.dont_fragment,
            more: header.more_fragments,
            offset: usize::from(header.fragment_offset.value()) * 8,
            octets: octets.to_vec(),
            body: body.to_vec(),
        }
    }

    fn v6(octets: &[u8]) -> Self {
        let (header, mut body) = Ipv6Header::from_slice(octets).unwrap();
        assert_eq!(usize::from(header.payload_length) + 40, octets.len(), "payload length");
        let (mut proto, mut id, mut more, mut offset) = (header.next_header, 0, false, 0);
        if proto == IpNumber::IPV6_FRAGMENTATION_HEADER {
            let (fragment, behind) = Ipv6FragmentHeader::from_slice(body).unwrap();
            (proto, id, more) = (fragment.next_header, fragment.identification, fragment.more_fragments);
            offset = usize::from(fragment.fragment_offset.value()) * 8;
            body = behind;
        }
        Self {
            src: Ipv6Addr::from(header.source).into(),
            dst: Ipv6Addr::from(header.destination).into(),
            proto: proto.0,
            ttl: header.hop_limit,
            tos: header.traffic_class,
            id,
            df: false,
            more,
            offset,
            octets: octets.to_vec(),
            body: body.to_vec(),
        }
    }

    /// The transport checksum holds (UDP over IPv4: or is absent).
    fn check_transport(&self) {
        let absent = self.proto == UDP && self.src.is_ipv4() && self.body[6..8] == [0, 0];
        let pseudo = matches!(self.proto, TCP | UDP) || self.proto == ICMP6 && self.src.is_ipv6();
        if absent || !(pseudo || self.proto == ICMP && self.src.is_ipv4()) {
            return;
        }
        let mut sum = 0u32;
        let mut add = |octets: &[u8]| {
            for pair in octets.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            }
        };
        add(&self.body);
        if pseudo {
            match (self.src, self.dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => add(&[s.octets(), d.octets()].concat()),
                (IpAddr::V6(s), IpAddr::V6(d)) => add(&[s.octets(), d.octets()].concat()),
                _ => unreachable!(),
            }
            add(&u32::try_from(self.body.len()).unwrap().to_be_bytes());
            add(&[0, self.proto]);
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff, "transport checksum of {self:?}");
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        (u16::from_be_bytes([self.body[0], self.body[1]]), u16::from_be_bytes([self.body[2], self.body[3]]))
    }

    /// ICMP type and code.
    pub fn icmp(&self) -> (u8, u8) {
        assert!(matches!(self.proto, ICMP | ICMP6), "{self:?}");
        (self.body[0], self.body[1])
    }

    /// What an ICMP error quotes.
    pub fn quoted(&self) -> &[u8] {
        &self.body[8..]
    }
}

/// MPLS over UDP, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    pub outer: Ip,
    pub sport: u16,
    pub dport: u16,
    pub checksum: u16,
    pub label: u32,
    pub tc: u8,
    pub bottom: bool,
    pub ttl: u8,
    pub inner: Ip,
}

impl Tunnelled {
    /// Reads the IP packet of a frame.
    pub fn read(outer: Ip) -> Self {
        assert_eq!(outer.proto, UDP);
        let (udp, payload) = UdpHeader::from_slice(&outer.body).unwrap();
        assert_eq!(usize::from(udp.length), outer.body.len(), "UDP length");
        let word = u32::from_be_bytes(payload[..4].try_into().unwrap());
        Self {
            sport: udp.source_port,
            dport: udp.destination_port,
            checksum: udp.checksum,
            label: word >> 12,
            tc: (word >> 9 & 7) as u8,
            bottom: word >> 8 & 1 == 1,
            ttl: (word & 0xff) as u8,
            inner: Ip::read(&payload[4..]),
            outer,
        }
    }
}
