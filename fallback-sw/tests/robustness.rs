//! Whatever comes in: no panic, every packet accounted for, and traffic goes on.
//!
//! Valid packets of every kind are cut at every length and spoilt at every octet, and fed to every vif of walk A's edges
//! between packets of real traffic; so is noise.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{
    Node,
    packets::{
        ACK, ICMP, Mac, Packet, RST, SYN, Tunnelled, VRRP, echo_request, entry, eth, icmp, icmp_error, mpls_udp, plain,
        sctp, segment, segment_with_options, syn, tagged, udp,
    },
    walk_a::{
        CE1, CE2, CLIENT, CLIENT6, GATEWAY1, GATEWAY1_6, LABEL1, LABEL2, LAN1, LAN2, LAN2_MAC, SERVER, SERVER6,
        TUNNEL1, TUNNEL2, UNDERLAY_MACS, UNDERLAYS, WalkA, only, workers,
    },
};
use proptest::prelude::*;

const STATION: Mac = [0x00, 0x0c, 0x29, 0xaa, 0xbb, 0xcc];

/// IPv6 with a chain: hop-by-hop, destination options, then `next`.
fn chain(src: &str, dst: &str, behind: &Packet) -> Vec<u8> {
    let mut body = vec![60, 0, 1, 4, 0, 0, 0, 0];
    body.extend([behind.proto, 0, 1, 4, 0, 0, 0, 0]);
    body.extend(&behind.ip()[40..]);
    let mut packet = plain(src, dst, 0, &body).ip();
    packet[6] = 0;
    packet
}

/// The IPv4 packet with options: record route and no-operations.
fn with_options(ip: &[u8]) -> Vec<u8> {
    let mut out = [&ip[..20], &[7, 7, 4, 0, 0, 0, 0, 1], &ip[20..]].concat();
    out[0] = 0x47;
    let len = u16::try_from(out.len()).unwrap();
    out[2..4].copy_from_slice(&len.to_be_bytes());
    repaired(out)
}

/// With the IPv4 header checksum right, as far as there is a header: so that damage gets past it.
fn repaired(mut ip: Vec<u8>) -> Vec<u8> {
    let len = usize::from(ip.first().copied().unwrap_or(0) & 0x0f) * 4;
    if ip.len() >= 20 && ip[0] >> 4 == 4 && (20..=ip.len()).contains(&len) {
        ip[10..12].fill(0);
        let sum = fallback_sw::packet::checksum::checksum(&ip[..len]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    ip
}

/// IP packets of every kind between two hosts; `gateway` is the node's address toward the first.
fn zoo(a: &str, b: &str, gateway: &str) -> Vec<Vec<u8>> {
    let datagram = udp(a, b, 53, 1053, b"some octets of payload");
    let large = udp(a, b, 60, 61, &[0x5a; 200]);
    let v6 = a.contains(':');
    let quoted = udp(b, a, 9, 10, b"quoted").ip();
    let mut all = vec![
        datagram.ip(),
        segment_with_options(a, b, (1, 80), SYN, (1, 0), &[2, 4, 5, 0xb4, 1, 3, 3, 7], b"").ip(),
        segment(a, b, (1, 80), ACK, (2, 2), b"data").ip(),
        segment(a, b, (1, 80), RST, (2, 0), b"").ip(),
        sctp(a, b, 5, 6).ip(),
        plain(a, b, 47, &[0; 12]).ip(),
        echo_request(a, b, 7, 1).ip(),
        echo_request(a, gateway, 7, 1).ip(),
        large.part(0, 104).id(5).ip(),
        large.part(104, 208).id(5).ip(),
        large.part(104, 208).id(6).ip(),
        icmp_error(a, b, if v6 { 1 } else { 3 }, 1, &quoted).ip(),
        icmp_error(a, b, if v6 { 2 } else { 11 }, 0, &large.part(0, 104).ip()).ip(),
        datagram.clone().ttl(1).ip(),
    ];
    if v6 {
        all.push(chain(a, b, &datagram));
        all.push(chain(a, b, &syn(a, b, 3, 4)));
        let target = gateway.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let options = |kind: u8| [&target[..], &[kind, 1], &STATION].concat();
        all.push(icmp(a, gateway, 135, 0, [0; 4], &options(1)).ttl(255).ip());
        all.push(icmp(a, gateway, 136, 0, [0x60, 0, 0, 0], &options(2)).ttl(255).ip());
    } else {
        all.push(with_options(&datagram.ip()));
        all.push(with_options(&syn(a, b, 3, 4).ip()));
        let [x, y] = 1300u16.to_be_bytes();
        let outer = mpls_udp(TUNNEL1, TUNNEL2, (50_000, 6635), &[entry(LABEL2, 0, true, 63)], &datagram.ip()).ip();
        all.push(icmp("172.28.13.1", TUNNEL1, 3, 4, [0, 0, x, y], &outer[..28]).ip());
        assert_eq!(ICMP, 1);
    }
    all
}

/// One edge under fire, and how frames for its vifs look.
struct Target {
    node: Node,
    lan: u32,
    lan_mac: Mac,
    tag: Option<u16>,
    /// Tunnel: far end, near end, label.
    tunnel: (&'static str, &'static str, u32),
}

impl Target {
    fn ce1(count: usize) -> Self {
        let node = Node::with(CE1, workers(count));
        Self { node, lan: LAN1, lan_mac: VRRP, tag: None, tunnel: (TUNNEL2, TUNNEL1, LABEL1) }
    }

    fn ce2(count: usize) -> Self {
        let node = Node::with(CE2, workers(count));
        Self { node, lan: LAN2, lan_mac: LAN2_MAC, tag: Some(300), tunnel: (TUNNEL1, TUNNEL2, LABEL2) }
    }

    /// Every vif with a frame for it that carries this IP packet: bare on each, and out of the tunnel.
    fn frames(&self, ip: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let (src, dst, label) = self.tunnel;
        let opened = mpls_udp(src, dst, (50_000, 6635), &[entry(label, 0, true, 63)], ip).ip();
        let tags: Vec<_> = self.tag.iter().map(|vid| (0x8100, 3, *vid)).collect();
        vec![
            (self.lan, framed(self.lan_mac, &tags, ip)),
            (UNDERLAYS[0], framed(UNDERLAY_MACS[0], &[], ip)),
            (UNDERLAYS[1], framed(UNDERLAY_MACS[1], &[], &opened)),
        ]
    }

    fn feed(&mut self, port: u32, frame: &[u8]) {
        // `receive` checks the account.
        self.node.receive(port, frame);
    }

    /// A new flow in each direction still passes, with the right bytes.
    #[track_caller]
    fn traffic_passes(&mut self, round: u16) {
        let (near, far) = if self.lan == LAN1 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let packet = udp(near, far, 10_000 + round % 20_000, 33, b"real traffic");
        let (port, frame) = self.frames(&packet.ip()).swap_remove(0);
        let (_, sent) = only(self.node.receive(port, &frame));
        assert_eq!(Tunnelled::read(sent.ip()).inner.body, packet.ip()[20..]);
        let packet = udp(far, near, 33, 10_000 + round % 20_000, b"real answer");
        let (port, frame) = self.frames(&packet.ip()).swap_remove(2);
        let (out, sent) = only(self.node.receive(port, &frame));
        assert_eq!((out, &sent.ip().body[..]), (self.lan, &packet.ip()[20..]));
    }

    /// After a while nothing waits any more.
    #[track_caller]
    fn settles(&mut self) {
        self.node.wait(15_000);
        assert_eq!(self.node.machine.held(), 0);
        let (total, _) = self.node.machine.counters();
        assert_eq!(total.account.unaccounted(0), 0);
        assert!(total.account.dropped_total() > 0 && total.account.forwarded > 0);
    }
}

/// A frame around octets that need be no IP packet.
fn framed(mac: Mac, tags: &[(u16, u8, u16)], ip: &[u8]) -> Vec<u8> {
    if ip.is_empty() { eth(mac, STATION, &[0x45])[..14].to_vec() } else { tagged(mac, STATION, tags, ip) }
}

fn arps() -> Vec<Vec<u8>> {
    let arp = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&[0xff; 6][..], &STATION, &[8, 6], &head, &STATION, &sender, &[0; 6], &target].concat()
    };
    let (host, own) = ([192, 168, 100, 7], [192, 168, 100, 1]);
    vec![arp(1, host, own), arp(2, host, own), arp(1, host, host), arp(1, [0; 4], own)]
}

/// Every cut and every spoilt octet of the zoo on every vif.
fn fire(mut target: Target) {
    let mut round = 0;
    let mut packets = zoo(CLIENT, SERVER, GATEWAY1);
    packets.extend(zoo(CLIENT6, SERVER6, GATEWAY1_6));
    packets.extend(zoo(SERVER, CLIENT, "192.168.1.1"));
    for ip in packets {
        target.traffic_passes(round);
        round += 1;
        // The IP packet cut, in frames that are whole.
        for len in 0..ip.len() {
            for (port, frame) in target.frames(&ip[..len]) {
                target.feed(port, &frame);
            }
        }
        // Spoilt inside, with a header checksum that is right.
        for at in 0..ip.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bad = ip.clone();
                bad[at] ^= change;
                for (port, frame) in target.frames(&repaired(bad)) {
                    target.feed(port, &frame);
                }
            }
        }
        // The frame cut and spoilt: Ethernet, tags, outer headers, label.
        for (port, frame) in target.frames(&ip) {
            for len in 0..frame.len() {
                target.feed(port, &frame[..len]);
            }
            for at in 0..frame.len().min(80) {
                let mut bad = frame.clone();
                bad[at] ^= 0xff;
                target.feed(port, &bad);
            }
        }
        if round % 8 == 0 {
            target.node.wait(300);
        }
        target.traffic_passes(round);
    }
    for arp in arps() {
        for port in [target.lan, UNDERLAYS[0]] {
            for len in 0..arp.len() {
                target.feed(port, &arp[..len]);
            }
            for at in 0..arp.len() {
                let mut bad = arp.clone();
                bad[at] ^= 0xff;
                target.feed(port, &bad);
            }
        }
    }
    target.traffic_passes(round);
    target.settles();
    target.traffic_passes(round + 1);
}

#[test]
fn cut_and_spoilt_packets_harm_the_first_edge_in_no_way() {
    fire(Target::ce1(1));
}

#[test]
fn cut_and_spoilt_packets_harm_the_second_edge_in_no_way() {
    fire(Target::ce2(1));
}

#[test]
fn cut_and_spoilt_packets_harm_several_workers_in_no_way() {
    fire(Target::ce2(3));
}

#[test]
fn held_packets_are_part_of_the_account() {
    let mut target = Target::ce1(2);
    let unresolved = udp(CLIENT, "192.168.100.55", 1, 2, b"x").ip();
    let headless = udp(CLIENT, SERVER, 1, 2, &[0; 200]).part(104, 208).ip();
    for ip in [&unresolved, &headless] {
        let (port, frame) = target.frames(ip).swap_remove(0);
        assert!(target.node.receive(port, &frame).iter().all(|sent| sent.packet.data()[12..14] == [8, 6]));
    }
    let account = target.node.machine.account();
    assert_eq!((account.received, account.dropped_total(), target.node.machine.held()), (2, 0, 2));
    assert_eq!(account.unaccounted(2), 0);
    target.node.wait(15_000);
    assert_eq!(target.node.all_drops(), [("Neighbour Unresolved", 1), ("Fragment Timeout", 1)]);
}

fn frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let kinds = prop::sample::select(vec![
        vec![],
        vec![0x08, 0x00],
        vec![0x08, 0x00, 0x45],
        vec![0x86, 0xdd],
        vec![0x86, 0xdd, 0x60],
        vec![0x08, 0x06, 0, 1, 8, 0, 6, 4, 0],
        vec![0x81, 0x00, 0x01, 0x2c, 0x08, 0x00, 0x45],
        vec![0x81, 0x00, 0x00, 0x07, 0x81, 0x00],
        vec![0x88, 0xa8, 0x01, 0x2c, 0x81, 0x00, 0x01, 0x2c, 0x86, 0xdd],
    ]);
    (0u8..6, kinds, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(port, kind, noise)| {
        let macs = [VRRP, LAN2_MAC, UNDERLAY_MACS[0], UNDERLAY_MACS[1], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]];
        (port, [&macs[usize::from(port)][..], &STATION, &kind, &noise].concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn noise_harms_neither_edge(frames in prop::collection::vec(frame(), 1..100)) {
        let mut walk = WalkA::default();
        for (port, frame) in &frames {
            for node in [&mut walk.ce1, &mut walk.ce2] {
                let vifs = [LAN1, LAN2, UNDERLAYS[0], UNDERLAYS[1]];
                // A vif that is not there as well.
                node.receive(vifs[usize::from(*port) % 4], frame);
            }
        }
        let packet = udp(CLIENT, SERVER, 1, 2, b"real").ip();
        prop_assert_eq!(&walk.to_server(&packet).body, &packet[20..]);
        let packet = udp(SERVER, CLIENT, 2, 1, b"real").ip();
        prop_assert_eq!(&walk.to_client(&packet).body, &packet[20..]);
    }
}
