//! A SYN flood on a vif with SYN cookies: established flows live on, true clients connect, forged ACKs do not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::Node;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use fallback_sw::node::machine::{MachineConfig, Sent};
use offload_rules::DropReason;

const CLIENTS: u32 = 1;
const SERVERS: u32 = 2;

const STATE: &str = r#"{
  "generation": "1",
  "settings": {"maxFlows": 256, "halfOpenPercentPerVif": 10},
  "vrfs": [{"id": 2}],
  "vifs": [
    {"id": 1, "name": "clients", "type": "VIRTUAL", "vrf": 2, "addresses": ["192.168.0.1/16", "fd00::1/64"], "mtu": 1400,
     "flags": {"policy": true, "rawIp": true, "synCookies": true}},
    {"id": 2, "name": "servers", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.0.1/24", "fd01::1/64"], "mtu": 1500,
     "flags": {"policy": true, "rawIp": true}}
  ],
  "nexthops": [{"id": 10, "vrf": 2, "encap": {"oif": 1}}, {"id": 11, "vrf": 2, "encap": {"oif": 2}}],
  "routes": [
    {"vrf": 2, "prefix": "192.168.0.0/16", "nexthop": 10},
    {"vrf": 2, "prefix": "fd00::/64", "nexthop": 10},
    {"vrf": 2, "prefix": "10.0.0.0/24", "nexthop": 11},
    {"vrf": 2, "prefix": "fd01::/64", "nexthop": 11}
  ]
}"#;
/// Half-open flows that the share admits: 10 % of 256 records, two a flow.
const SHARE: u32 = 12;

/// A TCP segment as one end sends it or as the other gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tcp {
    flags: &'static str,
    seq: u32,
    ack: u32,
    window: u16,
    mss: Option<u16>,
    data: Vec<u8>,
}

fn tcp(flags: &'static str, seq: u32, ack: u32, data: &[u8]) -> Tcp {
    let mss = flags.contains('S').then_some(1460);
    Tcp { flags, seq, ack, window: 5000, mss, data: data.to_vec() }
}

/// Which family the ends speak.
#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// Client and server address of the family; the client's last octets.
fn packet(family: Family, from_client: bool, client: u16, ports: (u16, u16), segment: &Tcp) -> Vec<u8> {
    let (sport, dport) = if from_client { ports } else { (ports.1, ports.0) };
    let [high, low] = client.to_be_bytes();
    let builder = match family {
        Family::V4 => {
            let (client, server) = ([192, 168, high, low], [10, 0, 0, 2]);
            let (src, dst) = if from_client { (client, server) } else { (server, client) };
            PacketBuilder::ipv4(src, dst, 64)
        }
        Family::V6 => {
            let address = |prefix, high, low| [0xfd, prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, low];
            let (client, server) = (address(0, high, low), address(1, 0, 2));
            let (src, dst) = if from_client { (client, server) } else { (server, client) };
            PacketBuilder::ipv6(src, dst, 64)
        }
    };
    let mut builder = builder.tcp(sport, dport, segment.seq, segment.window);
    for flag in segment.flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(segment.ack),
            'F' => builder.fin(),
            _ => builder.rst(),
        };
    }
    if let Some(mss) = segment.mss {
        // What else clients offer must not be taken up.
        let options = [TcpOptionElement::MaximumSegmentSize(mss), TcpOptionElement::WindowScale(7)];
        builder = builder.options(&options).unwrap();
    }
    let mut out = Vec::new();
    builder.write(&mut out, &segment.data).unwrap();
    out
}

/// Reads a packet that the node sent; every checksum is right by etherparse's count.
fn read(l3: &[u8]) -> Tcp {
    let sliced = SlicedPacket::from_ip(l3).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let header = tcp.to_header();
    let right = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
            header.calc_checksum_ipv4(&ip, tcp.payload())
        }
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
        NetSlice::Arp(_) => panic!("no IP"),
    };
    assert_eq!(right.unwrap(), header.checksum);
    let flags = match (header.syn, header.ack, header.fin, header.rst) {
        (true, false, false, false) => "S",
        (true, true, false, false) => "SA",
        (false, true, false, false) => "A",
        (false, true, true, false) => "FA",
        (false, false, false, true) => "R",
        (false, true, false, true) => "RA",
        other => panic!("flags {other:?}"),
    };
    let mut options = tcp.options_iterator().map(Result::unwrap);
    let mss = options.next().map(|option| match option {
        TcpOptionElement::MaximumSegmentSize(mss) => mss,
        other => panic!("option {other:?}"),
    });
    assert_eq!(options.next(), None);
    let (seq, ack) = (header.sequence_number, header.acknowledgment_number);
    Tcp { flags, seq, ack, window: header.window_size, mss, data: tcp.payload().to_vec() }
}

/// What went to a side.
fn to(port: u32, sent: &[Sent]) -> Vec<Tcp> {
    sent.iter().filter(|sent| u32::from(sent.port.get()) == port).map(|sent| read(sent.packet.data())).collect()
}

/// One client and its server on a node.
struct Ends {
    node: Node,
    family: Family,
    client: u16,
    port: u16,
}

impl Ends {
    /// Under flood: the share of half-open flows is used up by SYNs that nobody completes.
    fn flooded(family: Family) -> Self {
        let mut ends = Self { node: Node::new(STATE), family, client: 5, port: 40000 };
        ends.flood(SHARE);
        ends
    }

    fn flood(&mut self, syns: u32) -> Vec<Sent> {
        let mut sent = Vec::new();
        for i in 0..syns {
            let source = 0x1000 + i as u16;
            let syn = packet(self.family, true, source, (999, 80), &tcp("S", i, 0, b""));
            sent.extend(self.node.receive(CLIENTS, &syn));
        }
        sent
    }

    fn client(&mut self, segment: &Tcp) -> Vec<Sent> {
        let l3 = packet(self.family, true, self.client, (self.port, 80), segment);
        self.node.receive(CLIENTS, &l3)
    }

    fn server(&mut self, segment: &Tcp) -> Vec<Sent> {
        let l3 = packet(self.family, false, self.client, (self.port, 80), segment);
        self.node.receive(SERVERS, &l3)
    }

    /// A SYN with this number; the cookie.
    fn cookie(&mut self, isn: u32) -> u32 {
        let sent = self.client(&tcp("S", isn, 0, b""));
        let answer = to(CLIENTS, &sent);
        assert_eq!((sent.len(), answer.len()), (1, 1), "{:?}", self.node.all_drops());
        let mss = match self.family {
            Family::V4 => 1360,
            Family::V6 => 1340,
        };
        let expected = Tcp { flags: "SA", seq: answer[0].seq, ack: isn + 1, window: 0, mss: Some(mss), data: vec![] };
        assert_eq!(answer[0], expected);
        answer[0].seq
    }

    /// Through the whole handshake; the cookie.
    fn connect(&mut self, isn: u32, server: u32) -> u32 {
        let cookie = self.cookie(isn);
        let sent = self.client(&tcp("A", isn + 1, cookie.wrapping_add(1), b""));
        let syn = to(SERVERS, &sent);
        let mss = match self.family {
            Family::V4 => 1360,
            Family::V6 => 1340,
        };
        let expected = Tcp { flags: "S", seq: isn, ack: 0, window: 5000, mss: Some(mss), data: vec![] };
        assert_eq!((sent.len(), &syn[..]), (1, &[expected][..]));
        let sent = self.server(&tcp("SA", server, isn + 1, b""));
        let ack = |seq, ack: u32| Tcp { mss: None, ..tcp("A", seq, ack, b"") };
        assert_eq!(to(SERVERS, &sent), [ack(isn + 1, server.wrapping_add(1))]);
        assert_eq!(to(CLIENTS, &sent), [ack(cookie.wrapping_add(1), isn + 1)]);
        cookie
    }

    fn flow_records(&self) -> u32 {
        self.node.machine.workers()[0].flows().len()
    }
}

fn one(sent: &[Sent], port: u32) -> Tcp {
    let mut got = to(port, sent);
    assert_eq!((sent.len(), got.len()), (1, 1));
    got.remove(0)
}

#[test]
fn a_client_connects_through_a_flood_and_data_passes_both_ways() {
    for family in [Family::V4, Family::V6] {
        let mut ends = Ends::flooded(family);
        let records = ends.flow_records();
        // Nothing is kept of what comes beyond the share.
        let answers = ends.flood(500).len();
        assert_eq!(answers, 500);
        assert_eq!(ends.flow_records(), records);

        // Numbers that wrap around on the way.
        let (isn, server) = (1000, u32::MAX - 5);
        let cookie = ends.connect(isn, server);
        let distance = cookie.wrapping_sub(server);
        let theirs = |offset: u32| server.wrapping_add(offset);
        let shown = |offset: u32| cookie.wrapping_add(offset);
        let hits = ends.node.machine.counters().0.account.flow_hits;

        let sent = ends.client(&tcp("A", isn + 1, shown(1), b"GET /"));
        assert_eq!(one(&sent, SERVERS), tcp("A", isn + 1, theirs(1), b"GET /"));
        let mut got = Vec::new();
        for chunk in 0..10u32 {
            let data = vec![chunk as u8; 700];
            let sent = ends.server(&tcp("A", theirs(1 + 700 * chunk), isn + 6, &data));
            assert_eq!(one(&sent, CLIENTS), tcp("A", shown(1 + 700 * chunk), isn + 6, &data));
            got.extend(data);
            let sent = ends.client(&tcp("A", isn + 6, shown(701 + 700 * chunk), b""));
            assert_eq!(one(&sent, SERVERS), tcp("A", isn + 6, theirs(701 + 700 * chunk), b""));
        }
        assert_eq!(got.len(), 7000);
        assert_eq!(ends.node.machine.counters().0.account.flow_hits, hits + 21);

        // Closed by the server, then by the client.
        let sent = ends.server(&tcp("FA", theirs(7001), isn + 6, b""));
        assert_eq!(one(&sent, CLIENTS), tcp("FA", shown(7001), isn + 6, b""));
        let sent = ends.client(&tcp("FA", isn + 6, shown(7002), b""));
        assert_eq!(one(&sent, SERVERS), tcp("FA", isn + 6, theirs(7002), b""));
        let sent = ends.server(&tcp("A", theirs(7002), isn + 7, b""));
        assert_eq!(one(&sent, CLIENTS), tcp("A", shown(7002), isn + 7, b""));

        let worker = &ends.node.machine.workers()[0];
        let states: Vec<_> = (0..256)
            .filter_map(|slot| fallback_sw::node::view::flow(worker, 0, 1, slot))
            .filter(|flow| flow.source_port == 40000 || flow.destination_port == 40000)
            .map(|flow| (flow.initiator, flow.tcp_state, flow.ops))
            .collect();
        assert_eq!(states.len(), 2);
        for (initiator, state, ops) in states {
            assert!(state.contains('C'), "{state}");
            let op = if initiator {
                format!("subtract {distance} from TCP acknowledgement")
            } else {
                format!("add {distance} to TCP sequence number")
            };
            assert!(ops.contains(&op), "{ops:?}");
        }
        assert_eq!(ends.node.all_drops(), []);
    }
}

#[test]
fn flows_that_were_there_before_the_flood_go_on() {
    let mut ends = Ends { node: Node::new(STATE), family: Family::V4, client: 5, port: 40000 };
    assert_eq!(to(SERVERS, &ends.client(&tcp("A", 50, 70, b"first"))).len(), 1);
    ends.flood(1000);
    assert_eq!(one(&ends.client(&tcp("A", 55, 70, b"second")), SERVERS), tcp("A", 55, 70, b"second"));
    assert_eq!(one(&ends.server(&tcp("A", 70, 61, b"answer")), CLIENTS), tcp("A", 70, 61, b"answer"));
    assert_eq!(ends.node.all_drops(), []);
}

#[test]
fn a_forged_or_old_cookie_opens_nothing() {
    let mut ends = Ends::flooded(Family::V4);
    let records = ends.flow_records();
    let cookie = ends.cookie(7);
    for (seq, ack) in [(8, cookie), (9, cookie.wrapping_add(1)), (8, 12345), (8, (cookie ^ 1 << 28).wrapping_add(1))] {
        assert!(ends.client(&tcp("A", seq, ack, b"")).is_empty());
    }
    assert_eq!(ends.node.all_drops(), [(DropReason::SynCookieInvalid.name(), 4)]);
    // Three slots later it is too old. Another SYN keeps the vif on its guard.
    ends.node.wait(120_000);
    ends.flood(SHARE);
    ends.cookie(99);
    ends.node.wait(80_000);
    assert!(ends.client(&tcp("A", 8, cookie.wrapping_add(1), b"")).is_empty());
    assert_eq!(ends.node.drops(DropReason::SynCookieInvalid), 5);
    assert!(ends.flow_records() <= records);
}

#[test]
fn packets_before_the_servers_answer_wait_and_the_syn_is_repeated() {
    let mut ends = Ends::flooded(Family::V6);
    let cookie = ends.cookie(7);
    // Data comes with the ACK: it is not passed on, and comes again.
    let sent = ends.client(&tcp("A", 8, cookie.wrapping_add(1), b"early"));
    assert_eq!(one(&sent, SERVERS).flags, "S");
    assert!(ends.client(&tcp("A", 8, cookie.wrapping_add(1), b"early")).is_empty());
    assert!(ends.client(&tcp("FA", 13, cookie.wrapping_add(1), b"")).is_empty());
    assert_eq!(ends.node.all_drops(), [(DropReason::SynCookiePending.name(), 2)]);
    let again = ends.node.wait(1100);
    assert_eq!((one(&again, SERVERS).flags, one(&again, SERVERS).seq), ("S", 7));
    ends.server(&tcp("SA", 500, 8, b""));
    let sent = ends.client(&tcp("A", 8, cookie.wrapping_add(1), b"early"));
    assert_eq!(one(&sent, SERVERS), tcp("A", 8, 501, b"early"));
    assert!(ends.node.wait(20_000).is_empty(), "no SYN any more");
}

#[test]
fn a_server_that_refuses_is_heard_by_the_client() {
    let mut ends = Ends::flooded(Family::V4);
    let cookie = ends.cookie(7);
    ends.client(&tcp("A", 8, cookie.wrapping_add(1), b""));
    let sent = ends.server(&tcp("RA", 0, 8, b""));
    assert_eq!(one(&sent, CLIENTS), Tcp { window: 5000, ..tcp("RA", cookie.wrapping_add(1), 8, b"") });
    assert!(ends.node.wait(20_000).is_empty());
}

#[test]
fn a_server_that_is_silent_is_given_up_and_the_client_told() {
    let mut ends = Ends::flooded(Family::V4);
    let cookie = ends.cookie(7);
    ends.client(&tcp("A", 8, cookie.wrapping_add(1), b""));
    let sent = ends.node.wait(40_000);
    assert_eq!(to(SERVERS, &sent).len(), 3);
    let told = to(CLIENTS, &sent);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].flags, told[0].seq, told[0].ack), ("RA", cookie.wrapping_add(1), 8));
}

#[test]
fn the_servers_older_connection_is_reset_and_a_later_syn_passes() {
    let mut ends = Ends::flooded(Family::V4);
    let cookie = ends.cookie(7);
    ends.client(&tcp("A", 8, cookie.wrapping_add(1), b""));
    let sent = ends.server(&tcp("A", 4444, 9999, b""));
    let reset = one(&sent, SERVERS);
    assert_eq!((reset.flags, reset.seq), ("R", 9999));
    assert_eq!(one(&ends.node.wait(1100), SERVERS).flags, "S");
    let sent = ends.server(&tcp("SA", 500, 8, b""));
    assert_eq!((to(SERVERS, &sent).len(), to(CLIENTS, &sent).len()), (1, 1));
}

#[test]
fn a_reset_is_judged_by_the_numbers_of_its_receiver() {
    let mut ends = Ends::flooded(Family::V4);
    let cookie = ends.connect(7, 500);
    let sent = ends.server(&tcp("RA", 600, 8, b""));
    assert!(sent.is_empty());
    assert_eq!(ends.node.drops(DropReason::TcpResetIgnored), 1);
    let sent = ends.server(&tcp("RA", 501, 8, b""));
    assert_eq!(one(&sent, CLIENTS).seq, cookie.wrapping_add(1));
}

#[test]
fn an_error_about_a_shifted_segment_quotes_what_its_sender_sent() {
    let mut ends = Ends::flooded(Family::V4);
    ends.connect(7, 500);
    let large = one(&ends.server(&tcp("A", 501, 8, &[7; 900])), CLIENTS);
    // A router before the client takes no more than 600 octets.
    let quoted = packet(Family::V4, false, 5, (40000, 80), &large);
    let mut error = Vec::new();
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 600 },
    );
    PacketBuilder::ipv4([192, 168, 9, 9], [10, 0, 0, 2], 64).icmpv4(kind).write(&mut error, &quoted[..48]).unwrap();
    let sent = ends.node.receive(CLIENTS, &error);
    let out = sent[0].packet.data();
    assert_eq!(u32::from(sent[0].port.get()), SERVERS);
    assert_eq!(out[28 + 24..28 + 28], 501u32.to_be_bytes());
    let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ip(out).unwrap().transport else { panic!("no ICMP") };
    assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
}

#[test]
fn any_worker_takes_the_cookie_that_another_port_was_given() {
    let config = MachineConfig { workers: 3, ..MachineConfig::default() };
    let mut ends = Ends { node: Node::with(STATE, config), family: Family::V4, client: 5, port: 40000 };
    // Each worker has its own share.
    ends.flood(40 * SHARE);
    for port in 40000..40010 {
        ends.port = port;
        let cookie = ends.connect(7, 500);
        let sent = ends.client(&tcp("A", 8, cookie.wrapping_add(1), b"data"));
        assert_eq!(one(&sent, SERVERS), tcp("A", 8, 501, b"data"));
    }
    assert_eq!(ends.node.all_drops(), []);
}

#[test]
fn without_the_flag_the_share_is_a_limit() {
    let mut node = Node::new(&STATE.replace(", \"synCookies\": true", ""));
    for i in 0..SHARE + 3 {
        node.receive(CLIENTS, &packet(Family::V4, true, 0x1000 + i as u16, (999, 80), &tcp("S", i, 0, b"")));
    }
    assert_eq!(node.all_drops(), [(DropReason::HalfOpenLimit.name(), 3)]);
}
