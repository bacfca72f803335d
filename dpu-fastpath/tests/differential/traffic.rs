//! Conversations across a [`World`], and everything that may be wrong with a packet of one.

use super::{
    judge::Event,
    packets::{
        self, ACK, FIN, ICMP, Mac, Packet, RST, SCTP, SYN, TCP, UDP, entry, icmp_error, mpls_udp, plain, segment, udp,
    },
    rng::Rng,
    world::{LABELS, OWN, REMOTE, ROUTER, SEGMENTS, World, host_address, host_mac, port_mac},
};

/// What a NIC may not be able to match, and software is right about: see "accepted" in docs/offload.md.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blind {
    /// The tunnel's S bit, label TTL and UDP checksum.
    pub(crate) tunnel: bool,
    /// The outer header's checksum.
    pub(crate) outer_checksum: bool,
    /// Checksum and length of any IP header: by no rule with a five-tuple, in mlx5's software steering.
    pub(crate) headers: bool,
}

/// One side of a conversation.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// A host on a segment.
    Local { segment: usize, host: u8 },
    /// A host behind a tunnel.
    Remote { tunnel: usize, tenant: usize, prefix: u8, host: u8 },
}

impl End {
    /// One of these hosts, in a prefix behind the tunnel that may lead there.
    pub(crate) fn remote(rng: &mut Rng, tenant: usize, hosts: &[u8]) -> Self {
        let at = rng.below(3);
        let tunnel = if at == 2 { rng.below(2) } else { at };
        Self::Remote { tunnel, tenant, prefix: REMOTE[at], host: rng.pick(hosts) }
    }

    pub(crate) fn tenant(&self) -> usize {
        match self {
            Self::Local { segment, .. } => SEGMENTS[*segment].tenant,
            Self::Remote { tenant, .. } => *tenant,
        }
    }

    pub(crate) fn address(&self, v6: bool) -> String {
        match self {
            Self::Local { segment, host } => host_address(SEGMENTS[*segment].subnet, *host, v6),
            Self::Remote { prefix, host, .. } => host_address(*prefix, *host, v6),
        }
    }
}

/// How a packet is put into a frame.
#[derive(Debug, Clone)]
pub(crate) struct Wrap {
    pub(crate) pcp: u8,
    pub(crate) dei: bool,
    pub(crate) priority_tag: bool,
    pub(crate) extra_tag: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) life: u8,
    pub(crate) second_wan: bool,
    pub(crate) outer_tos: u8,
    pub(crate) outer_ttl: u8,
    pub(crate) outer_source: Option<String>,
    pub(crate) outer_options: bool,
    pub(crate) outer_fragment: bool,
    /// 0: none, 1: a right one, 2: a wrong one.
    pub(crate) udp_checksum: u8,
    /// Octets that the outer datagram ends before the packet in it does.
    pub(crate) cut: u16,
    pub(crate) label: Option<u32>,
    pub(crate) label_ttl: u8,
    pub(crate) tc: u8,
    pub(crate) bottom: bool,
}

impl Default for Wrap {
    fn default() -> Self {
        Self {
            pcp: 0,
            dei: false,
            priority_tag: false,
            extra_tag: false,
            mac: None,
            life: 0,
            second_wan: false,
            outer_tos: 0,
            outer_ttl: 62,
            outer_source: None,
            outer_options: false,
            outer_fragment: false,
            udp_checksum: 0,
            cut: 0,
            label: None,
            label_ttl: 62,
            tc: 0,
            bottom: true,
        }
    }
}

/// Options for an IPv4 header, or a header in front of an IPv6 payload that changes nothing; other packets are left alone.
pub(crate) fn with_options(ip: &[u8]) -> Vec<u8> {
    if ip[0] >> 4 == 6 {
        let mut out = ip[..40].to_vec();
        out[6] = 0;
        let length = u16::from_be_bytes([ip[4], ip[5]]) + 8;
        out[4..6].copy_from_slice(&length.to_be_bytes());
        return [&out[..], &[ip[6], 0, 1, 4, 0, 0, 0, 0], &ip[40..]].concat();
    }
    let mut out = [&ip[..20], &[1, 1, 1, 0], &ip[20..]].concat();
    out[0] = 0x46;
    let length = u16::from_be_bytes([ip[2], ip[3]]) + 4;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    header_checksum(&mut out);
    out
}

/// Writes the checksum of an IPv4 header.
pub(crate) fn header_checksum(ip: &mut [u8]) {
    let length = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let mut sum: u32 = ip[..length].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn frame_of(to: Mac, from: Mac, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for (tpid, tci) in tags {
        frame.extend_from_slice(&tpid.to_be_bytes());
        frame.extend_from_slice(&tci.to_be_bytes());
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn ethertype(ip: &[u8]) -> u16 {
    if ip.first().is_some_and(|octet| octet >> 4 == 6) { 0x86dd } else { 0x0800 }
}

/// A packet of one end as it arrives: device and frame.
pub(crate) fn wrap(world: &World, from: &End, ip: &[u8], how: &Wrap) -> (u32, Vec<u8>) {
    let tci = |vid: u16| u16::from(how.pcp) << 13 | u16::from(how.dei) << 12 | vid;
    let (port, source, mut tags, payload) = match from {
        End::Local { segment, host } => {
            let at = SEGMENTS[*segment];
            let mut tags: Vec<(u16, u16)> = at.tags.iter().filter(|tag| tag.1 != 0).copied().collect();
            if let Some(first) = tags.first_mut() {
                first.1 = tci(first.1);
            } else if how.priority_tag {
                tags.push((0x8100, tci(0)));
            }
            (at.port, host_mac(*segment, *host, how.life), tags, ip.to_vec())
        }
        End::Remote { tunnel, tenant, .. } => {
            let source = how.outer_source.as_deref().unwrap_or(world.far_end(*tunnel));
            let stack = [entry(how.label.unwrap_or(LABELS[*tenant]), how.tc, how.bottom, how.label_ttl)];
            let mut outer =
                mpls_udp(source, OWN[*tunnel], (50_000, 6635), &stack, ip).tos(how.outer_tos).ttl(how.outer_ttl);
            if how.udp_checksum > 0 {
                let payload = [&stack.concat()[..], ip].concat();
                outer = udp(source, OWN[*tunnel], 50_000, 6635, &payload).tos(how.outer_tos).ttl(how.outer_ttl);
                outer.body()[7] ^= u8::from(how.udp_checksum == 2);
            }
            if how.cut > 0 {
                let len = (outer.body().len() as u16).saturating_sub(how.cut);
                outer.body()[4..6].copy_from_slice(&len.to_be_bytes());
            }
            if how.outer_fragment {
                outer = outer.part(0, outer.clone().body().len() / 16 * 8);
            }
            let outer = if how.outer_options { with_options(&outer.ip()) } else { outer.ip() };
            let port = if how.second_wan { 4 } else { 3 };
            let tags = if how.second_wan && world.wan_tag { vec![(0x8100, tci(500))] } else { Vec::new() };
            (port, ROUTER, tags, outer)
        }
    };
    if how.extra_tag {
        tags.push((0x8100, 77));
    }
    let frame = frame_of(how.mac.unwrap_or(port_mac(port)), source, &tags, ethertype(&payload), &payload);
    (port, frame)
}

/// A host makes itself known, by ARP and by neighbour solicitation.
pub(crate) fn announce(segment: usize, host: u8, life: u8) -> Vec<Event> {
    let at = SEGMENTS[segment];
    let mac = host_mac(segment, host, life);
    let tags: Vec<(u16, u16)> = at.tags.iter().filter(|tag| tag.1 != 0).copied().collect();
    let (own, gateway) = ([10, at.subnet, 0, host], [10, at.subnet, 0, 1]);
    let arp = arp_request(mac, own, gateway);
    let broadcast = frame_of([0xff; 6], mac, &tags, 0x0806, &arp);
    let source = host_address(at.subnet, host, true);
    let target = host_address(at.subnet, 1, true);
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let body = [&octets(&target)[..], &[1, 1], &mac].concat();
    let solicitation = packets::icmp(&source, &target, 135, 0, [0; 4], &body).ttl(255).ip();
    let nd = frame_of(port_mac(at.port), mac, &tags, 0x86dd, &solicitation);
    [(broadcast, "ARP"), (nd, "ND")]
        .map(|(frame, what)| Event::Frame {
            port: at.port,
            frame,
            settle: true,
            what: format!("{what} of host {host}"),
        })
        .to_vec()
}

/// The station at 172.28.13.99 tells its address.
pub(crate) fn announce_far_end(life: u8) -> Event {
    let mac = [2, 0, 0, 0, life, 0x99];
    let arp = arp_request(mac, [172, 28, 13, 99], [172, 28, 13, 36]);
    Event::Frame {
        port: 3,
        frame: frame_of([0xff; 6], mac, &[], 0x0806, &arp),
        settle: true,
        what: "ARP of the far end".to_owned(),
    }
}

fn arp_request(mac: Mac, own: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &own, &[0; 6], &target].concat()
}

/// A conversation: two ends and what they say to each other.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) ends: [End; 2],
    pub(crate) v6: bool,
    pub(crate) proto: u8,
    pub(crate) ports: [u16; 2],
    ttl: [u8; 2],
    tos: [u8; 2],
    wraps: [Wrap; 2],
    seq: [u32; 2],
    phase: u8,
    step: u16,
    one_way: bool,
    last: Option<Vec<u8>>,
}

impl Talk {
    /// Between two ends of one tenant.
    pub(crate) fn new(ends: [End; 2], v6: bool, proto: u8, ports: [u16; 2]) -> Self {
        Self {
            ends,
            v6,
            proto,
            ports,
            ttl: [64, 60],
            tos: [0; 2],
            wraps: [Wrap::default(), Wrap::default()],
            seq: [1000, 50_000],
            phase: 0,
            step: 0,
            one_way: false,
            last: None,
        }
    }

    pub(crate) fn random(rng: &mut Rng) -> Self {
        let segment = rng.below(SEGMENTS.len());
        let local = End::Local { segment, host: rng.pick(&[10, 11]) };
        let tenant = SEGMENTS[segment].tenant;
        let other = if rng.chance(25) {
            let other = rng.below(SEGMENTS.len());
            let other = if SEGMENTS[other].tenant == tenant { other } else { segment };
            End::Local { segment: other, host: rng.pick(&[10, 11]) }
        } else {
            End::remote(rng, tenant, &[20, 21])
        };
        let proto = rng.pick(&[UDP, UDP, UDP, UDP, UDP, TCP, TCP, TCP, TCP, TCP, SCTP, 47, 50, ICMP]);
        let ports = [rng.pick(&[1024, 1025, 3000, 4000]), rng.pick(&[53, 80, 2000, 3000, 3050])];
        let mut ends = [local, other];
        if proto == TCP
            && let (End::Local { host, .. }, true) = (ends[0].clone(), ends[0].address(false) == ends[1].address(false))
            && let End::Local { host: other, .. } = &mut ends[1]
        {
            // Nobody is connected to himself over a router.
            *other = 21 - host;
        }
        if rng.chance(40) {
            ends.reverse();
        }
        let mut talk = Self::new(ends, rng.chance(35), proto, ports);
        talk.ttl = [rng.pick(&[64, 64, 128, 3, 2]), rng.pick(&[64, 60, 255, 2])];
        talk.tos = std::array::from_fn(|_| rng.pick(&[0, 0, 0, 0xb8, 0x28, 2, 1, 3]));
        for wrap in &mut talk.wraps {
            wrap.pcp = rng.pick(&[0, 0, 3, 7]);
            wrap.priority_tag = rng.chance(10);
            wrap.second_wan = rng.chance(40);
            wrap.outer_tos = rng.pick(&[0, 0, 2, 0xb8, 3, 1]);
            wrap.label_ttl = rng.pick(&[62, 62, 1, 255]);
        }
        talk.one_way = proto == UDP && rng.chance(10);
        talk.phase = if rng.chance(15) { 3 } else { 0 };
        talk
    }

    /// Both are TCP, and have the same addresses and ports.
    pub(crate) fn is_taken_for(&self, other: &Self) -> bool {
        let sides = |talk: &Self| [0, 1].map(|at| (talk.ends[at].address(talk.v6), talk.ports[at]));
        let (mut a, mut b) = (sides(self), sides(other));
        a.sort();
        b.sort();
        self.proto == TCP && other.proto == TCP && a == b
    }

    fn ip(&self, from: usize, payload: &[u8], flags: u8, seq: u32, ack: u32) -> Packet {
        let [src, dst] = [from, 1 - from].map(|at| self.ends[at].address(self.v6));
        let (sport, dport) = (self.ports[from], self.ports[1 - from]);
        match self.proto {
            UDP => udp(&src, &dst, sport, dport, payload),
            TCP => segment(&src, &dst, (sport, dport), flags, (seq, ack), payload),
            SCTP => packets::sctp(&src, &dst, sport, dport),
            ICMP => {
                if from == 0 {
                    packets::echo_request(&src, &dst, sport, self.step)
                } else {
                    packets::echo_reply(&src, &dst, sport, self.step)
                }
            }
            proto => plain(&src, &dst, proto, payload),
        }
    }

    /// An ordinary packet in one direction.
    pub(crate) fn ordinary(&mut self, from: usize, size: usize) -> Packet {
        self.step = self.step.wrapping_add(1);
        let payload: Vec<u8> = (0..size).map(|at| (at as u16 ^ self.step) as u8).collect();
        let packet = self.ip(from, &payload, ACK, self.seq[from], self.seq[1 - from]);
        if self.proto == TCP {
            self.seq[from] = self.seq[from].wrapping_add(size as u32);
        }
        let packet = packet.ttl(self.ttl[from]).tos(self.tos[from]).id(self.step);
        self.last = Some(packet.ip());
        packet
    }

    /// A TCP segment with these flags; SYN and FIN take a number.
    pub(crate) fn control(&mut self, from: usize, flags: u8) -> Packet {
        let ack = if flags & ACK != 0 { self.seq[1 - from] } else { 0 };
        let packet = self.ip(from, &[], flags, self.seq[from], ack).ttl(self.ttl[from]).tos(self.tos[from]);
        if flags & (SYN | FIN) != 0 {
            self.seq[from] = self.seq[from].wrapping_add(1);
        }
        packet
    }

    /// The frame of a packet, as this conversation's frames look.
    pub(crate) fn frame(&self, world: &World, from: usize, ip: &[u8]) -> (u32, Vec<u8>) {
        wrap(world, &self.ends[from], ip, &self.wraps[from])
    }

    pub(crate) fn event(&self, world: &World, from: usize, packet: &Packet, what: &str) -> Event {
        let (port, frame) = self.frame(world, from, &packet.ip());
        Event::Frame { port, frame, settle: true, what: what.to_owned() }
    }

    /// What is said next, mostly without a fault.
    pub(crate) fn next(&mut self, world: &World, rng: &mut Rng, blind: Blind, padded: bool) -> Vec<Event> {
        let from = if self.one_way { 0 } else { rng.below(2) };
        if self.proto == TCP {
            let (from, flags) = match self.phase {
                0 => (0, SYN),
                1 => (1, SYN | ACK),
                2 => (0, ACK),
                4 => (0, FIN | ACK),
                5 => (1, ACK),
                6 => (1, FIN | ACK),
                7 => (0, ACK),
                _ => (from, 0),
            };
            if flags != 0 && !rng.chance(5) {
                self.phase += 1;
                let packet = self.control(from, flags);
                return vec![self.event(world, from, &packet, "TCP control")];
            }
            match (self.phase, rng.below(100)) {
                // Only before there can be rules: what came by a NIC is not known to software, which believes more then.
                (3, 0..5) if self.step == 0 => {
                    let packet = self.ip(from, &[], RST, self.seq[from].wrapping_add(100_000), 0);
                    return vec![self.event(world, from, &packet, "blind reset")];
                }
                (3, 5..8) => self.phase = 4,
                (3, 8..10) => {
                    // Exact, whatever got lost before: the other side has just said what it expects.
                    self.phase = 8;
                    let expects = self.ordinary(1 - from, 0);
                    let reset = self.control(from, RST);
                    return vec![
                        self.event(world, 1 - from, &expects, "acknowledgement"),
                        self.event(world, from, &reset, "reset"),
                    ];
                }
                (3, 10..12) => {
                    let packet = self.ip(from, &[], SYN, self.seq[from].wrapping_add(70_000), 0);
                    return vec![self.event(world, from, &packet, "SYN in the middle")];
                }
                (8.., 0..30) => {
                    self.phase = 0;
                    self.seq = self.seq.map(|seq| seq.wrapping_add(1_000_000));
                }
                _ => {}
            }
            if self.phase < 3 {
                return Vec::new();
            }
        }
        if padded && rng.chance(30) {
            let size = rng.below(12);
            let (port, mut frame) = {
                let packet = self.ordinary(from, size).ip();
                self.frame(world, from, &packet)
            };
            frame.resize(frame.len().max(60), 0);
            return vec![Event::Frame { port, frame, settle: true, what: "padded".to_owned() }];
        }
        if rng.chance(25) { self.odd(world, from, rng, blind) } else { vec![self.usual(world, from, rng)] }
    }

    fn usual(&mut self, world: &World, from: usize, rng: &mut Rng) -> Event {
        let size = rng.pick(&[0, 1, 8, 64, 200, 1000]);
        let packet = self.ordinary(from, size).ip();
        let (port, frame) = self.frame(world, from, &packet);
        Event::Frame { port, frame, settle: rng.chance(70), what: format!("usual {}", self.proto) }
    }

    /// A packet that is not as the others are.
    fn odd(&mut self, world: &World, from: usize, rng: &mut Rng, blind: Blind) -> Vec<Event> {
        let size = rng.pick(&[0, 8, 64, 200]);
        let mut how = self.wraps[from].clone();
        let mut packet = self.ordinary(from, size);
        let remote = matches!(self.ends[from], End::Remote { .. });
        let one = |(port, frame): (u32, Vec<u8>), what: &str| {
            vec![Event::Frame { port, frame, settle: true, what: what.to_owned() }]
        };
        let kind = rng.below(24);
        let what = match kind {
            0 | 1 => {
                packet = packet.ttl(rng.pick(&[0, 1, 2, 63, 64, 255]));
                "TTL"
            }
            2 | 3 => {
                packet = packet.tos(rng.next() as u8);
                "TOS"
            }
            4 => {
                how.outer_tos = rng.next() as u8;
                how.outer_ttl = rng.pick(&[1, 2, 62, 255]);
                how.tc = rng.below(8) as u8;
                "outer TOS and TTL"
            }
            5 if !blind.tunnel => {
                how.label_ttl = rng.pick(&[0, 1, 2, 61]);
                "label TTL"
            }
            6 => {
                how.label = Some(rng.pick(&[LABELS[0], LABELS[1], 777, 3]));
                "label"
            }
            7 if !blind.tunnel => {
                how.bottom = false;
                "S bit"
            }
            8 => {
                let ip = with_options(&packet.ip());
                return one(wrap(world, &self.ends[from], &ip, &how), "options");
            }
            9 => {
                let body = packet.body().len();
                let cut = (body / 2) / 8 * 8;
                if cut == 0 {
                    return Vec::new();
                }
                let mut parts = [packet.part(0, cut), packet.part(cut, body)];
                if rng.chance(30) {
                    parts.reverse();
                }
                return parts
                    .iter()
                    .flat_map(|part| one(wrap(world, &self.ends[from], &part.ip(), &how), "fragment"))
                    .collect();
            }
            10 if !blind.headers => {
                let mut ip = packet.ip();
                if !self.v6 {
                    ip[10] ^= 0x40;
                }
                return one(wrap(world, &self.ends[from], &ip, &how), "wrong header checksum");
            }
            11 if !blind.tunnel => {
                how.udp_checksum = rng.pick(&[1, 2]);
                "outer UDP checksum"
            }
            12 => {
                if self.proto == UDP {
                    packet.body()[6..8].fill(0);
                } else if packet.body().len() > 17 {
                    packet.body()[17] ^= 1;
                }
                "inner checksum"
            }
            13 => {
                how.pcp = rng.below(8) as u8;
                how.dei = rng.chance(30);
                how.priority_tag = rng.chance(50);
                "priority"
            }
            14 if !blind.headers => {
                let (port, mut frame) = wrap(world, &self.ends[from], &packet.ip(), &how);
                frame.truncate(1 + rng.below(frame.len()));
                return one((port, frame), "truncated");
            }
            15 => {
                how.mac = Some(rng.pick(&[[2, 9, 9, 9, 9, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 5]]));
                "MAC"
            }
            16 => {
                let (port, _) = self.frame(world, from, &packet.ip());
                let outside = if remote { 32 } else { 0 };
                let room = world.port_mtu(port) - outside - if self.v6 { 40 } else { 20 } - 60;
                let size = rng.pick(&[room, room - 1, room.min(1400), room.min(1230)]);
                packet = self.ordinary(from, size);
                if rng.chance(40) {
                    packet = packet.df();
                }
                "large"
            }
            17 if remote => {
                how.outer_source = Some(rng.pick(&["10.101.9.245", "10.101.9.246", "10.66.6.6", OWN[0]]).to_owned());
                "tunnel source"
            }
            17 => {
                // The same address, from elsewhere.
                let End::Local { host, .. } = self.ends[from] else { return Vec::new() };
                let elsewhere = End::Local { segment: rng.below(SEGMENTS.len()), host };
                return one(wrap(world, &elsewhere, &packet.ip(), &how), "another segment");
            }
            18 => {
                how.second_wan ^= true;
                "the other device"
            }
            19 => {
                let Some(about) = self.last.clone() else { return Vec::new() };
                // About what `1 - from` has sent, from a router on the way.
                let about = if rng.chance(50) { about } else { self.ordinary(1 - from, 40).ip() };
                let [src, dst] = [from, 1 - from].map(|at| self.ends[at].address(self.v6));
                let (kind, code) =
                    if self.v6 { rng.pick(&[(1, 4), (2, 0), (3, 0)]) } else { rng.pick(&[(3, 3), (3, 4), (11, 0)]) };
                packet = icmp_error(&src, &dst, kind, code, &about);
                "ICMP error"
            }
            20 if remote => {
                how.outer_options = rng.chance(50);
                how.outer_fragment = !how.outer_options;
                "outer options or fragment"
            }
            21 => {
                how.extra_tag = true;
                "one more tag"
            }
            22 if remote && !blind.outer_checksum => {
                let (port, mut frame) = wrap(world, &self.ends[from], &packet.ip(), &how);
                let at = if how.second_wan && world.wan_tag { 18 } else { 14 };
                frame[at + 10] ^= 1;
                return one((port, frame), "wrong outer header checksum");
            }
            23 if self.proto == TCP => {
                let flags = rng.next() as u8 & 0x3a;
                packet = self
                    .ip(from, &[], flags, self.seq[from], self.seq[1 - from])
                    .ttl(self.ttl[from])
                    .tos(self.tos[from]);
                "TCP flags"
            }
            _ => "usual",
        };
        one(wrap(world, &self.ends[from], &packet.ip(), &how), what)
    }
}
