//! What a route leads into IPsec has to come out of IPsec (RFC 4301 §5.2), and out of the tunnel that it is led into.

use fallback_sw::{
    esp::{Key, OutboundConfig, OutboundSa, Tunnel},
    node::machine::MachineConfig,
    packet::Packet as Buffer,
};
use offload_rules::DropReason;

use crate::{
    common::{
        Node,
        account::{Moved, by_flow, dropped, refused, walked},
        hex,
        packets::{Frame, Mac, Packet, entry, eth, mpls_udp, plain, udp},
        walk_a::altered,
    },
    net::{
        CE2_DOWN, CE2_MAC, CE2_UP, CE2_WAN, CLIENT, END1, END2, LAN, Net, Pair, RE_WAN, SERVER, TUNNELS, WAN, ce2, to,
        tunnel,
    },
};

/// A plain link in the VRF of the tunnels.
const CORE: u32 = 5;
const CORE_MAC: Mac = [0x02, 0, 0, 0, 0, 0x55];
const CORE_VIF: &str = r#""vifs": [{"id": 5, "name": "core", "type": "PHYSICAL", "mac": "02:00:00:00:00:55", "vrf": 8, "addresses": ["10.8.0.1/24"]},"#;
const CORE_NEXTHOP: &str =
    r#""nexthops": [{"id": 90, "vrf": 8, "encap": {"oif": 5, "encapData": "020000000056 020000000055 0800"}},"#;
const UNDERLAY_ROUTE: &str = r#"{"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": 532}"#;
const DIRECT: &str = r#", "directNexthop": 532}"#;

/// CE2 with the plain link in the VRF of its tunnels, and further changes.
fn with_core(changes: &[(&str, &str)]) -> Node {
    let core = [("\"vifs\": [", CORE_VIF), ("\"nexthops\": [", CORE_NEXTHOP)];
    Node::new(&altered(&altered(&ce2(), &core), changes))
}

fn inner() -> Packet {
    udp(CLIENT, SERVER, 1, 2, b"x")
}

/// MPLS over UDP from one end to CE2, as an IP packet.
fn tunnelled(from: &str) -> Packet {
    mpls_udp(from, END2, (50_000, 6635), &[entry(280, 0, true, 63)], &inner().ip())
}

fn on_core(ip: &[u8]) -> Vec<u8> {
    eth(CORE_MAC, [2, 0, 0, 0, 0, 0x56], ip)
}

/// Sealed for CE2 by the SA of one of its tunnels.
struct Sealer(OutboundSa, &'static str);

impl Sealer {
    fn new(tunnel: usize) -> Self {
        let pair: Pair = CE2_DOWN[tunnel];
        let key = Key::new(&hex(&pair.key())).unwrap();
        let ends = Tunnel { source: RE_WAN[tunnel].parse().unwrap(), destination: CE2_WAN.parse().unwrap(), udp: None };
        let config = OutboundConfig { spi: pair.spi(), key, esn: true, first: 1, tunnel: ends };
        Self(OutboundSa::new(&config), RE_WAN[tunnel])
    }

    fn frame(&mut self, ip: &[u8]) -> Vec<u8> {
        let mut packet = Buffer::from_frame(ip);
        self.0.seal(&mut packet, 0, 1, false).unwrap();
        to(CE2_MAC, &plain(self.1, CE2_WAN, 50, &packet.data()[20..]).ip())
    }
}

/// In the clear it is refused before anything inside is looked at; out of a tunnel it is taken.
#[track_caller]
fn only_protected(node: &mut Node, port: u32, frame: impl Fn(&[u8]) -> Vec<u8>) {
    let packet = tunnelled(END1);
    for _ in 0..2 {
        node.expect(port, &frame(&packet.ip()), &dropped(DropReason::Unprotected));
    }
    // Reassembled, too.
    let large =
        mpls_udp(END1, END2, (50_000, 6635), &[entry(280, 0, true, 63)], &udp(CLIENT, SERVER, 1, 2, &[0; 99]).ip());
    assert!(node.receive(port, &frame(&large.part(0, 64).ip())).is_empty());
    let before = node.drops(DropReason::Unprotected);
    assert!(node.receive(port, &frame(&large.part(64, 999).ip())).is_empty());
    assert_eq!((node.drops(DropReason::Unprotected), node.flow_records()), (before + 1, 0));
    let mut sealer = Sealer::new(0);
    assert_eq!(node.receive(WAN, &sealer.frame(&packet.ip())).len(), 1, "{:?}", node.all_drops());
    // The flow that is there is no way in either.
    node.expect(port, &frame(&packet.ip()), &dropped(DropReason::Unprotected));
    let sent = node.receive(WAN, &sealer.frame(&packet.ip()));
    assert_eq!(u32::from(sent[0].port.get()), LAN);
}

#[test]
fn clear_mpls_over_udp_from_a_source_behind_ipsec_is_not_protected() {
    let by_route = "\"tunnel\": {\"type\": \"MPLS_O_UDP\", \"sip\": \"10.101.9.245\", \"dip\": \"10.101.10.39\"}";
    let direct = "\"tunnel\": {\"type\": \"MPLS_O_UDP\", \"sip\": \"10.101.9.245\", \"dip\": \"10.101.10.39\", \"directNexthop\": 532}";
    let default = UNDERLAY_ROUTE.replace("10.101.10.39/32", "0.0.0.0/0");
    let plain_direct = direct.replace("532", "90");
    for (what, changes) in [
        ("a route and the tunnel's own nexthop", vec![]),
        ("a route alone", vec![(direct, by_route)]),
        ("the default route", vec![(direct, by_route), (UNDERLAY_ROUTE, default.as_str())]),
        ("no policy behind the label", vec![("\"policy\": true, \"vrfTranslate\"", "\"vrfTranslate\"")]),
        ("one tunnel", vec![("\"nexthop\": 86, \"weight\": 100", "\"nexthop\": 85, \"weight\": 100")]),
        (
            "the tunnel's own nexthop against a plain route",
            vec![(UNDERLAY_ROUTE, UNDERLAY_ROUTE.replace("532", "90").leak())],
        ),
        ("a route against the tunnel's own plain nexthop", vec![(direct, plain_direct.as_str())]),
    ] {
        println!("{what}");
        let mut node = with_core(&changes);
        if what.starts_with("no policy") {
            node.expect(CORE, &on_core(&tunnelled(END1).ip()), &dropped(DropReason::Unprotected));
            continue;
        }
        only_protected(&mut node, CORE, on_core);
    }
}

#[test]
fn a_fragment_in_the_clear_is_no_part_of_a_datagram_that_came_protected() {
    let of = |octet: u8| {
        let inner = udp(CLIENT, SERVER, 1, 2, &[octet; 99]);
        mpls_udp(END1, END2, (50_000, 6635), &[entry(280, 0, true, 63)], &inner.ip())
    };
    let (genuine, forged) = (of(0), of(1));
    let (head, tail) = (|packet: &Packet| packet.part(0, 64).ip(), |packet: &Packet| packet.part(64, 999).ip());
    // A head in the clear: what comes out of the tunnel does not make it whole. The same of a tail, which cannot spoil the datagram.
    for (in_clear, first, last) in
        [(head(&forged), tail(&genuine), head(&genuine)), (tail(&forged), head(&genuine), tail(&genuine))]
    {
        let (mut node, mut sealer) = (with_core(&[]), Sealer::new(0));
        assert!(node.receive(CORE, &on_core(&in_clear)).is_empty());
        assert!(node.receive(WAN, &sealer.frame(&first)).is_empty());
        let sent = node.receive(WAN, &sealer.frame(&last));
        assert_eq!(sent.len(), 1, "{:?}", node.all_drops());
        assert_eq!(Frame::read(sent[0].packet.data()).ip().body[8..], [0; 99]);
        assert_eq!(node.all_drops(), []);
    }
}

#[test]
fn the_vrf_that_a_packet_in_the_clear_comes_in_makes_no_difference() {
    // The wire's VRF opens MPLS over UDP as well, and its default route leads out on the wire.
    let opens = r#""routes": [{"vrf": 2, "prefix": "10.101.9.245/32", "nexthop": 516},"#;
    let mut node = Node::new(&altered(&ce2(), &[("\"routes\": [", opens)]));
    only_protected(&mut node, WAN, |ip| to(CE2_MAC, ip));
    // A label that leads straight to an interface.
    let straight = ("\"labels\": [", "\"labels\": [{\"label\": 271, \"nexthop\": 514},");
    let mut node = Node::new(&altered(&ce2(), &[("\"routes\": [", opens), straight]));
    let packet = mpls_udp(END1, END2, (50_000, 6635), &[entry(271, 0, true, 63)], &inner().ip());
    node.expect(WAN, &to(CE2_MAC, &packet.ip()), &dropped(DropReason::Unprotected));
}

#[test]
fn any_member_of_a_composite_is_a_way_in() {
    // Two tunnels: by either. A tunnel and a plain link: by both.
    let mut node = with_core(&[]);
    for tunnel in [0, 1] {
        assert_eq!(node.receive(WAN, &Sealer::new(tunnel).frame(&tunnelled(END1).ip())).len(), 1);
    }
    assert_eq!(node.all_drops(), []);
    let mut node = with_core(&[("{\"nexthop\": 86, \"weight\": 100}", "{\"nexthop\": 90, \"weight\": 100}")]);
    assert_eq!(node.receive(WAN, &Sealer::new(0).frame(&tunnelled(END1).ip())).len(), 1);
    assert_eq!(node.receive(CORE, &on_core(&tunnelled(END1).ip())).len(), 1);
    node.expect(WAN, &Sealer::new(1).frame(&tunnelled(END1).ip()), &dropped(DropReason::InvalidSource));
}

#[test]
fn a_packet_out_of_another_tunnel_than_its_sources_is_refused() {
    // RFC 4301 §5.2 step 4. END1 is behind the first tunnel, another site behind the second one.
    let sites = [
        ("\"directNexthop\": 532", "\"directNexthop\": 85"),
        (
            UNDERLAY_ROUTE,
            r#"{"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": 85}, {"vrf": 8, "prefix": "10.101.8.1/32", "nexthop": 86}"#,
        ),
    ];
    let mut node = Node::new(&altered(&ce2(), &sites));
    let (mut first, mut second) = (Sealer::new(0), Sealer::new(1));
    assert_eq!(node.receive(WAN, &first.frame(&tunnelled(END1).ip())).len(), 1);
    node.expect(WAN, &second.frame(&tunnelled(END1).ip()), &dropped(DropReason::InvalidSource));
    // The flow stays with its tunnel.
    node.expect(WAN, &first.frame(&tunnelled(END1).ip()), &by_flow());
    // Plain packets of the other site.
    node.expect(WAN, &first.frame(&udp("10.101.8.1", END2, 1, 2, b"x").ip()), &refused(DropReason::InvalidSource));
    // Without a reverse path a tunnel takes whatever its peer protects.
    let second_tunnel = format!("\"id\": {}, \"name\": \"tunnel{}\",", TUNNELS[1], TUNNELS[1]);
    let open = format!("{second_tunnel} \"flags\": {{\"noRpf\": true}},");
    let mut node = Node::new(&altered(&altered(&ce2(), &sites), &[(&second_tunnel, &open)]));
    assert_eq!(node.receive(WAN, &Sealer::new(1).frame(&tunnelled(END1).ip())).len(), 1);
}

/// A plain LAN behind CE2, whose tenant's routes lead into an IPsec tunnel without MPLS.
fn tenant(flags: &str) -> Node {
    let list = |pairs: [Pair; 1]| pairs;
    let ipsec = tunnel(4112, CE2_WAN, RE_WAN[0], (&list([CE2_UP[0]]), &list([CE2_DOWN[0]])), "")
        .replace("\"vrf\": 8", "\"vrf\": 18");
    let state = altered(
        &ce2(),
        &[
            ("\"vifs\": [", &format!("\"vifs\": [{ipsec},")),
            ("\"nexthops\": [", "\"nexthops\": [{\"id\": 91, \"vrf\": 18, \"encap\": {\"oif\": 4112}},"),
            (
                &format!("\"prefix\": \"{CLIENT}/32\", \"nexthop\": 489, \"label\": 280"),
                &format!("\"prefix\": \"{CLIENT}/32\", \"nexthop\": 91"),
            ),
            ("\"flags\": {\"policy\": true}", &format!("\"flags\": {{{flags}}}")),
            // Each SA belongs to one tunnel.
            (
                &format!("\"outboundSas\": [{}], \"inboundSas\": [{}]}}}},{{\"id\": 4109", CE2_UP[0].0, CE2_DOWN[0].0),
                "\"outboundSas\": [], \"inboundSas\": []}},{\"id\": 4109",
            ),
        ],
    );
    Node::new(&state)
}

#[test]
fn a_plain_packet_whose_source_is_reached_through_ipsec_is_not_protected() {
    let forged = |packet: &Packet| eth(crate::common::packets::VRRP, [2, 0, 0, 0, 0, 0x66], &packet.ip());
    for flags in ["\"policy\": true", "\"noArp\": false", "\"policy\": true, \"noRpf\": true", "\"noRpf\": true"] {
        let mut node = tenant(flags);
        for packet in [
            inner(),
            udp(CLIENT, "192.168.1.1", 1, 2, b"x"),
            crate::common::packets::echo_request(CLIENT, "192.168.1.1", 1, 1),
        ] {
            node.expect(LAN, &forged(&packet), &refused(DropReason::Unprotected));
        }
        // What belongs there passes.
        let sent = node.expect(LAN, &forged(&udp(SERVER, CLIENT, 1, 2, b"x")), &walked());
        assert_eq!(u32::from(sent[0].port.get()), WAN);
        assert_eq!(node.receive(WAN, &Sealer::new(0).frame(&inner().ip())).len(), 1, "{:?}", node.all_drops());
    }
    // Behind MPLS over IPsec it is the same.
    for flags in ["\"policy\": true", "\"noRpf\": true"] {
        let mut node =
            Node::new(&altered(&ce2(), &[("\"flags\": {\"policy\": true}", &format!("\"flags\": {{{flags}}}"))]));
        node.expect(LAN, &forged(&inner()), &refused(DropReason::Unprotected));
    }
    // Without a reverse path, and without IPsec on the way, any source may come.
    let mut node = with_core(&[
        ("\"flags\": {\"policy\": true}", "\"flags\": {\"noRpf\": true}"),
        ("\"directNexthop\": 532", "\"directNexthop\": 90"),
    ]);
    assert_eq!(node.receive(LAN, &forged(&udp(CLIENT, CLIENT, 1, 2, b"x"))).len(), 1, "{:?}", node.all_drops());
}

#[test]
fn what_is_translated_into_the_vrf_of_a_tunnel_is_not_protected_either() {
    // The VRF of the wire lets strangers in to the server, and the server out to them.
    let leak = r#""nexthops": [{"id": 700, "vrfTranslate": {"vrf": 18}}, {"id": 701, "vrfTranslate": {"vrf": 2}},"#;
    let routes = r#""routes": [{"vrf": 2, "prefix": "192.168.1.0/24", "nexthop": 700}, {"vrf": 18, "prefix": "203.0.113.0/24", "nexthop": 701},"#;
    let leaking = altered(&ce2(), &[("\"nexthops\": [", leak), ("\"routes\": [", routes)]);
    for (from, into) in [
        ("", ""),
        ("\"id\": 700,", "\"id\": 700, \"policy\": true,"),
        ("\"name\": \"wan\", \"type\"", "\"name\": \"wan\", \"flags\": {\"noRpf\": true}, \"type\""),
        ("\"name\": \"wan\", \"type\"", "\"name\": \"wan\", \"flags\": {\"policy\": true}, \"type\""),
    ] {
        let changed = if from.is_empty() { leaking.clone() } else { altered(&leaking, &[(from, into)]) };
        let mut node = Node::new(&changed);
        node.expect(WAN, &to(CE2_MAC, &inner().ip()), &refused(DropReason::Unprotected));
        for parts in [(0, 32), (32, 999)] {
            let piece = udp(CLIENT, SERVER, 1, 3, &[0; 60]).part(parts.0, parts.1);
            assert!(node.receive(WAN, &to(CE2_MAC, &piece.ip())).is_empty());
        }
        let stranger = "203.0.113.77";
        assert_eq!(node.receive(WAN, &to(CE2_MAC, &udp(stranger, SERVER, 1, 2, b"x").ip())).len(), 1, "{into}");
        let answer = eth(crate::common::packets::VRRP, [2, 0, 0, 0, 0, 0x66], &udp(SERVER, stranger, 2, 1, b"y").ip());
        let sent = node.receive(LAN, &answer);
        assert_eq!(sent.iter().map(|sent| u32::from(sent.port.get())).collect::<Vec<_>>(), [WAN], "{into}");
        // Sealed it comes in as ever.
        assert_eq!(node.receive(WAN, &Sealer::new(0).frame(&tunnelled(END1).ip())).len(), 1, "{:?}", node.all_drops());
    }
}

#[test]
fn a_route_that_moves_into_ipsec_closes_the_plain_way_at_once() {
    let plain = [(DIRECT, ", \"directNexthop\": 90}"), (UNDERLAY_ROUTE, &*UNDERLAY_ROUTE.replace("532", "90"))];
    let mut node = with_core(&plain);
    let frame = on_core(&tunnelled(END1).ip());
    for moved in [walked(), by_flow()] {
        assert_eq!(node.expect(CORE, &frame, &moved).len(), 1);
    }
    let to_route =
        |nexthop: u32| format!(r#"{{"routes": [{{"vrf": 8, "prefix": "10.101.10.39/32", "nexthop": {nexthop}}}]}}"#);
    node.change(&to_route(532));
    node.expect(CORE, &frame, &dropped(DropReason::Unprotected));
    node.change(&to_route(90));
    assert_eq!(node.receive(CORE, &frame).len(), 1);
    // A second tunnel to the same end, through IPsec, in whatever VRF.
    node.change(r#"{"nexthops": [{"id": 490, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.9.245", "dip": "10.101.10.39", "directNexthop": 532}}]}"#);
    assert_eq!(node.receive(CORE, &frame).len(), 1, "one of two ways");
    node.change(r#"{"nexthops": [{"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.9.245", "dip": "10.101.10.39", "directNexthop": 532}}]}"#);
    node.expect(CORE, &frame, &dropped(DropReason::Unprotected));
    // The sweep brings the flow up to it without any packet, as it must for one that runs in a NIC.
    node.wait(1000);
    let account = node.machine.account().clone();
    assert_eq!(account.dropped[DropReason::Unprotected.index()], 2);
}

#[test]
fn case_04_link_local_addresses_come_out_of_no_ipsec_tunnel() {
    for policy in [false, true] {
        let flags = if policy { "\"flags\": {\"policy\": true}," } else { "" };
        let vif = format!("\"id\": {}, \"name\": \"tunnel{}\",", TUNNELS[0], TUNNELS[0]);
        let default = r#""routes": [{"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 532}, {"vrf": 8, "prefix": "::/0", "nexthop": 532},"#;
        let mut node = Node::new(&altered(&ce2(), &[(&vif, &format!("{vif} {flags}")), ("\"routes\": [", default)]));
        let mut sealer = Sealer::new(0);
        for packet in [
            udp("169.254.5.5", END2, 1, 2, b"x"),
            udp(END1, "169.254.9.9", 1, 2, b"x"),
            udp("fe80::5", "2001:db8::9", 1, 2, b"x"),
            udp("2001:db8::9", "fe80::9", 1, 2, b"x"),
        ] {
            node.expect(WAN, &sealer.frame(&packet.ip()), &refused(DropReason::LinkLocal));
        }
    }
}

#[test]
fn a_link_local_address_of_a_tunnel_is_spoken_to_through_it() {
    // As between two BGP speakers: 169.254.10.1 at the peer, 169.254.10.2 here, for the host behind vif 3.
    let vif = format!("\"id\": {}, \"name\": \"tunnel{}\",", TUNNELS[0], TUNNELS[0]);
    let mut node = Node::new(&altered(
        &ce2(),
        &[
            (&vif, &format!("{vif} \"addresses\": [\"169.254.10.2/30\"],")),
            (
                "\"nexthops\": [",
                r#""nexthops": [{"id": 92, "vrf": 8, "receive": {"listeners": [{"proto": 6, "firstPort": 179, "nexthop": 12}]}},"#,
            ),
            (
                "\"routes\": [",
                r#""routes": [{"vrf": 8, "prefix": "169.254.10.2/32", "nexthop": 92}, {"vrf": 8, "prefix": "169.254.10.0/30", "nexthop": 85},"#,
            ),
            (
                "\"name\": \"host\", \"type\": \"HOST\", \"mac\": \"02:00:00:00:00:33\", \"vrf\": 2",
                "\"name\": \"host\", \"type\": \"HOST\", \"mac\": \"02:00:00:00:00:33\", \"vrf\": 8",
            ),
        ],
    ));
    let mut sealer = Sealer::new(0);
    let open = crate::common::packets::syn("169.254.10.1", "169.254.10.2", 4000, 179);
    let sent = node.receive(WAN, &sealer.frame(&open.ip()));
    assert_eq!(sent.iter().map(|sent| u32::from(sent.port.get())).collect::<Vec<_>>(), [3], "{:?}", node.all_drops());
    let answer = udp("169.254.10.2", "169.254.10.1", 5, 6, b"y").ip();
    let sent = node.receive(3, &eth([2, 0, 0, 0, 0, 0x33], [2, 0, 0, 0, 0, 0x34], &answer));
    assert_eq!(sent.iter().map(|sent| u32::from(sent.port.get())).collect::<Vec<_>>(), [WAN], "{:?}", node.all_drops());
    let asked = crate::common::packets::echo_request("169.254.10.1", "169.254.10.2", 1, 1);
    let sent = node.receive(WAN, &sealer.frame(&asked.ip()));
    assert_eq!(sent.iter().map(|sent| u32::from(sent.port.get())).collect::<Vec<_>>(), [WAN], "{:?}", node.all_drops());
    // By the other tunnel, and further than this node, it goes nowhere.
    assert!(node.receive(WAN, &Sealer::new(1).frame(&asked.ip())).is_empty());
    node.expect(
        WAN,
        &sealer.frame(&udp("169.254.10.1", "169.254.10.3", 1, 2, b"x").ip()),
        &refused(DropReason::LinkLocal),
    );
    assert_eq!(node.all_drops(), [("Link Local", 2)]);
}

#[test]
fn an_answer_to_a_link_local_address_in_a_tunnel_leaves_on_no_other_link() {
    let vif = format!("\"id\": {}, \"name\": \"tunnel{}\",", TUNNELS[0], TUNNELS[0]);
    for (nexthop, expected) in [(90, &[][..]), (85, &[WAN])] {
        // The only route for it is the default one.
        let default = format!(r#""routes": [{{"vrf": 8, "prefix": "::/0", "nexthop": {nexthop}}},"#);
        let mut node =
            with_core(&[(&vif, &format!("{vif} \"addresses\": [\"fe80::2/64\"],")), ("\"routes\": [", &default)]);
        let asked = crate::common::packets::echo_request("fe80::1", "fe80::2", 7, 1);
        let sent = node.receive(WAN, &Sealer::new(0).frame(&asked.ip()));
        assert_eq!(sent.iter().map(|sent| u32::from(sent.port.get())).collect::<Vec<_>>(), expected);
        assert_eq!((node.machine.account().consumed, node.all_drops()), (1, vec![]));
        assert_eq!(node.machine.account().originated_dropped, u64::from(expected.is_empty()));
    }
}

#[test]
fn the_regional_edge_passes_tunnel_to_tunnel_and_takes_nothing_clear() {
    let mut net = Net::with(&crate::net::ce1(), &crate::net::re(), &ce2(), MachineConfig::default());
    net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"question").ip());
    net.to_client(&udp(SERVER, CLIENT, 53, 5000, b"answer").ip());
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
    // Into the VRF of the tunnels nothing comes from the wire: it has no route to their ends.
    let Moved { dropped, .. } = refused(DropReason::InvalidSource);
    let before = net.re.all_drops();
    assert!(net.re.receive(WAN, &to(crate::net::RE_MAC, &tunnelled(END1).ip())).is_empty());
    assert_eq!((before, net.re.all_drops()), (vec![], dropped));
}

/// What `check` says on standard error, after it has found a state consistent.
fn warnings(state: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    std::fs::write(&file, state).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_fallback-sw")).arg("check").arg("--state").arg(&file).output();
    let output = output.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("consistent"));
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn check_warns_of_a_layout_that_invites_what_ipsec_should_have_brought() {
    for state in [crate::net::ce1(), crate::net::re(), ce2(), crate::common::walk_a::CE1.to_owned()] {
        assert_eq!(warnings(&state), Vec::<String>::new());
    }
    // MPLS over UDP is opened in the VRF of the wire, or a plain link is in the VRF of the tunnels.
    let opens = r#""routes": [{"vrf": 2, "prefix": "10.101.9.245/32", "nexthop": 516},"#;
    let both = [
        (altered(&ce2(), &[("\"routes\": [", opens)]), "vrf 2 opens MPLS over UDP at 10.101.9.245, and vif 1 "),
        (altered(&ce2(), &[("\"vifs\": [", CORE_VIF)]), "vrf 8 opens MPLS over UDP at 10.101.9.245, and vif 5 "),
    ];
    for (state, expected) in both {
        let found = warnings(&state);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("warning: ") && found[0].contains(expected), "{found:?}");
        assert!(found[0].contains(END1) && found[0].contains("Route 10.101.9.245 to"), "{found:?}");
    }
    // The tunnel's own nexthop leads out in the clear, the route into IPsec.
    let two = altered(
        &ce2(),
        &[("\"vifs\": [", CORE_VIF), ("\"nexthops\": [", CORE_NEXTHOP), (DIRECT, ", \"directNexthop\": 90}")],
    );
    let found = warnings(&two);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the tunnels to 10.101.10.39 leave by vif 5 in the clear"), "{found:?}");
}
