//! Interfaces: which vif a frame belongs to, what is put before it on the way out, and what the flags change.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{answered, by_flow, dropped, dropped_by_flow, refused, routed, walked},
    packets::{Frame, Ip, Mac, Tag, VRRP, echo_request, eth, tagged, udp},
    walk_a::only,
};

const ETH1: u32 = 1;
const TUN: u32 = 3;
const LAN: u32 = 4;
const MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
const STATION: Mac = [0x02, 0, 0, 0, 0, 0xaa];

/// One VRF on: a device, its sub-interfaces (tag 100; tags 200 and 201; service tag 300), a raw IP device and a LAN.
const STATE: &str = r#"{
  "generation": "1",
  "vrfs": [{"id": 2}],
  "vifs": [
    {"id": 1, "name": "eth1", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2, "addresses": ["10.0.1.1/24"], "flags": {"policy": true}},
    {"id": 11, "name": "eth1.100", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 100}, "vrf": 2,
      "addresses": ["10.0.11.1/24"], "flags": {"policy": true}},
    {"id": 12, "name": "eth1.200.201", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 200, "tpid": 34984},
      "innerVlan": {"vid": 201}, "vrf": 2, "addresses": ["10.0.12.1/24"], "flags": {"policy": true}},
    {"id": 13, "name": "eth1.s300", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 300, "tpid": 34984}, "vrf": 2,
      "addresses": ["10.0.13.1/24"], "flags": {"policy": true}},
    {"id": 3, "name": "tun", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.3.1/24"], "flags": {"rawIp": true, "policy": true}},
    {"id": 4, "name": "lan", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.4.1/24", "2001:db8:4::1/64"], "flags": {"policy": true}}
  ],
  "nexthops": [
    {"id": 101, "vrf": 2, "encap": {"oif": 1, "encapData": "0200000000aa 020000000001 0800"}},
    {"id": 111, "vrf": 2, "encap": {"oif": 11, "encapData": "0200000000aa 020000000001 0800"}},
    {"id": 112, "vrf": 2, "encap": {"oif": 11, "encapData": "0200000000aa 020000000001 8100 6064 0800"}},
    {"id": 121, "vrf": 2, "encap": {"oif": 12, "encapData": "0200000000aa 020000000001 0800"}},
    {"id": 122, "vrf": 2, "encap": {"oif": 12, "encapData": "0200000000aa 020000000001 88a8 00c8 8100 00c9 0800"}},
    {"id": 131, "vrf": 2, "encap": {"oif": 13, "encapData": "0200000000aa 020000000001 0800"}},
    {"id": 103, "vrf": 2, "encap": {"oif": 3}},
    {"id": 104, "vrf": 2, "encap": {"oif": 4, "encapData": "0200000000aa 00005e000100 0800"}},
    {"id": 105, "vrf": 2, "resolve": {"oif": 4}}
  ],
  "routes": [
    {"vrf": 2, "prefix": "10.0.1.0/24", "nexthop": 101},
    {"vrf": 2, "prefix": "10.0.11.100/32", "nexthop": 111},
    {"vrf": 2, "prefix": "10.0.11.101/32", "nexthop": 112},
    {"vrf": 2, "prefix": "10.0.12.100/32", "nexthop": 121},
    {"vrf": 2, "prefix": "10.0.12.101/32", "nexthop": 122},
    {"vrf": 2, "prefix": "10.0.13.0/24", "nexthop": 131},
    {"vrf": 2, "prefix": "10.0.3.0/24", "nexthop": 103},
    {"vrf": 2, "prefix": "10.0.4.100/32", "nexthop": 104},
    {"vrf": 2, "prefix": "10.0.4.0/24", "nexthop": 105},
    {"vrf": 2, "prefix": "2001:db8:4::100/128", "nexthop": 104},
    {"vrf": 2, "prefix": "2001:db8:4::/64", "nexthop": 105}
  ]
}"#;

const LAN_STATION: &str = "10.0.4.100";

fn to_lan(from: &str) -> Vec<u8> {
    udp(from, LAN_STATION, 1000, 2000, b"x").ip()
}

fn from_lan(to: &str) -> Vec<u8> {
    eth(VRRP, STATION, &udp(LAN_STATION, to, 2000, 1000, b"x").ip())
}

#[test]
fn frames_belong_to_the_vif_of_their_tags() {
    let cases: [(&[Tag], &str, u32); 5] = [
        (&[], "10.0.1.100", 1),
        (&[(0x8100, 3, 0)], "10.0.1.100", 1),
        (&[(0x8100, 0, 100)], "10.0.11.100", 11),
        (&[(0x88a8, 0, 200), (0x8100, 0, 201)], "10.0.12.100", 12),
        (&[(0x88a8, 0, 300)], "10.0.13.100", 13),
    ];
    for (tags, from, vif) in cases {
        let mut node = Node::new(STATE);
        let (port, frame) = only(node.expect(ETH1, &tagged(MAC, STATION, tags, &to_lan(from)), &walked()));
        assert_eq!((port, frame.tags), (LAN, vec![]), "{tags:?}");
        for id in [1, 11, 12, 13] {
            assert_eq!(node.vif_packets(id), (u64::from(id == vif), 0, 0), "{tags:?}, vif {id}");
        }
        assert_eq!(node.vif_packets(LAN), (0, 1, 0));
    }
}

#[test]
fn a_frame_whose_tags_no_vif_has_is_an_invalid_if_on_the_device() {
    let unknown: [&[Tag]; 6] = [
        &[(0x8100, 0, 99)],
        &[(0x88a8, 0, 100)],
        &[(0x8100, 0, 300)],
        &[(0x8100, 0, 200), (0x8100, 0, 201)],
        &[(0x88a8, 0, 200)],
        &[(0x8100, 0, 100), (0x8100, 0, 100)],
    ];
    for tags in unknown {
        let mut node = Node::new(STATE);
        node.expect(ETH1, &tagged(MAC, STATION, tags, &to_lan("10.0.11.100")), &dropped(DropReason::InvalidIf));
        assert_eq!(node.vif_packets(ETH1), (1, 0, 1), "{tags:?}");
        assert_eq!(node.flow_records(), 0);
    }
}

#[test]
fn a_frame_to_another_station_is_an_invalid_mac_on_its_own_vif() {
    let mut node = Node::new(STATE);
    let other = [0x02, 0, 0, 0, 0, 0x02];
    node.expect(ETH1, &eth(other, STATION, &to_lan("10.0.1.100")), &dropped(DropReason::InvalidMac));
    let frame = tagged(other, STATION, &[(0x8100, 0, 100)], &to_lan("10.0.11.100"));
    node.expect(ETH1, &frame, &dropped(DropReason::InvalidMac));
    assert_eq!((node.vif_packets(1), node.vif_packets(11)), ((1, 0, 1), (1, 0, 1)));
}

#[test]
fn a_group_address_of_the_link_is_not_forwarded() {
    let mut node = Node::new(STATE);
    let frame = eth([0xff; 6], STATION, &to_lan("10.0.1.100"));
    node.expect(ETH1, &frame, &dropped(DropReason::McastUnsupported));
}

#[test]
fn a_sub_interface_sends_its_tags_whether_the_nexthop_holds_them_or_not() {
    let cases: [(&str, u32, &[Tag]); 6] = [
        ("10.0.1.100", 1, &[]),
        ("10.0.11.100", 11, &[(0x8100, 0, 100)]),
        // Its encap data names priority 3.
        ("10.0.11.101", 11, &[(0x8100, 3, 100)]),
        ("10.0.12.100", 12, &[(0x88a8, 0, 200), (0x8100, 0, 201)]),
        ("10.0.12.101", 12, &[(0x88a8, 0, 200), (0x8100, 0, 201)]),
        ("10.0.13.100", 13, &[(0x88a8, 0, 300)]),
    ];
    for (to, vif, tags) in cases {
        let mut node = Node::new(STATE);
        // By the walk, then by the flow: the same bytes.
        for moved in [walked(), by_flow()] {
            let (port, frame) = only(node.expect(LAN, &from_lan(to), &moved));
            assert_eq!((port, frame.destination, frame.source), (ETH1, STATION, MAC), "{to}");
            assert_eq!(frame.tags, tags, "{to}");
            assert_eq!(frame.ip().dst.to_string(), to);
        }
        assert_eq!(node.vif_packets(vif), (0, 2, 0));
    }
}

#[test]
fn the_priority_of_a_tag_is_kept_from_one_tagged_vif_to_another() {
    let mut node = Node::new(STATE);
    for (pcp, moved) in [(5, walked()), (7, by_flow()), (0, by_flow())] {
        let ip = udp("10.0.11.100", "10.0.12.100", 1, 2, b"x").ip();
        let (_, frame) = only(node.expect(ETH1, &tagged(MAC, STATION, &[(0x8100, pcp, 100)], &ip), &moved));
        assert_eq!(frame.tags, [(0x88a8, pcp, 200), (0x8100, 0, 201)]);
    }
    // A priority tag is no vif, but its priority counts.
    let ip = udp("10.0.1.100", "10.0.11.100", 1, 2, b"x").ip();
    let (_, frame) = only(node.expect(ETH1, &tagged(MAC, STATION, &[(0x8100, 6, 0)], &ip), &walked()));
    assert_eq!(frame.tags, [(0x8100, 6, 100)]);
}

#[test]
fn the_ethertype_is_that_of_the_packet_whatever_the_nexthop_says() {
    let mut node = Node::altered(
        STATE,
        &[(
            "\"10.0.1.0/24\", \"nexthop\": 101},",
            "\"10.0.1.0/24\", \"nexthop\": 101}, {\"vrf\": 2, \"prefix\": \"2001:db8:1::/64\", \"nexthop\": 101},",
        )],
    );
    let ip = udp("2001:db8:4::100", "2001:db8:1::9", 1, 2, b"x").ip();
    let (_, frame) = only(node.expect(LAN, &eth(VRRP, STATION, &ip), &walked()));
    assert_eq!(frame.ethertype, 0x86dd);
}

#[test]
fn a_raw_ip_vif_takes_and_sends_bare_packets() {
    let mut node = Node::new(STATE);
    let (port, frame) = only(node.expect(TUN, &to_lan("10.0.3.100"), &walked()));
    assert_eq!((port, frame.destination, frame.ethertype), (LAN, STATION, 0x0800));

    let sent = node.expect(LAN, &from_lan("10.0.3.100"), &by_flow());
    assert_eq!(u32::from(sent[0].port.get()), TUN);
    let ip = Ip::read(sent[0].packet.data());
    assert_eq!((ip.dst.to_string().as_str(), ip.ttl), ("10.0.3.100", 63));

    node.expect(TUN, &[], &dropped(DropReason::Truncated));
    node.expect(TUN, &[0x55; 40], &dropped(DropReason::InvalidProtocol));
}

fn with_flag(flag: &str) -> Node {
    let lan = "\"addresses\": [\"10.0.4.1/24\", \"2001:db8:4::1/64\"], \"flags\": {\"policy\": true";
    Node::altered(STATE, &[(lan, &format!("{lan}, {flag}"))])
}

#[test]
fn a_vif_without_policy_makes_no_flow() {
    let lan = "\"addresses\": [\"10.0.4.1/24\", \"2001:db8:4::1/64\"], \"flags\": {\"policy\": true";
    let mut node = Node::altered(STATE, &[(lan, &lan.replace("true", "false"))]);
    for moved in [walked(), routed(), routed()] {
        only(node.expect(LAN, &from_lan("10.0.1.100"), &moved));
    }
    assert_eq!(node.flow_records(), 0);
}

#[test]
fn the_flag_ttl_leaves_ttl_and_hop_limit_alone_even_at_one() {
    for (flag, expected) in [("\"ttlUnmodified\": true", 64), ("\"multiQueue\": true", 63)] {
        let mut node = with_flag(flag);
        for moved in [walked(), by_flow()] {
            let (_, frame) = only(node.expect(LAN, &from_lan("10.0.1.100"), &moved));
            assert_eq!(frame.ip().ttl, expected);
        }
    }
    let mut node = with_flag("\"ttlUnmodified\": true");
    for moved in [walked(), by_flow()] {
        let last = udp(LAN_STATION, "10.0.1.100", 1, 2, b"x").ttl(1).ip();
        let (_, frame) = only(node.expect(LAN, &eth(VRRP, STATION, &last), &moved));
        assert_eq!(frame.ip().ttl, 1);
    }
}

#[test]
fn the_flag_no_rpf_lets_any_source_in() {
    let forged = eth(VRRP, STATION, &udp("10.0.1.77", "10.0.1.100", 1, 2, b"x").ip());
    Node::new(STATE).expect(LAN, &forged, &refused(DropReason::InvalidSource));
    let mut node = with_flag("\"noRpf\": true");
    only(node.expect(LAN, &forged, &walked()));
    only(node.expect(LAN, &forged, &by_flow()));
}

#[test]
fn the_flag_df_refuses_new_flows_and_serves_those_that_are_there() {
    let mut node = Node::new(STATE);
    only(node.expect(LAN, &from_lan("10.0.1.100"), &walked()));
    node.change(
        r#"{"vifs": [{"id": 4, "name": "lan", "type": "VIRTUAL", "vrf": 2, "addresses": ["10.0.4.1/24", "2001:db8:4::1/64"],
            "flags": {"policy": true, "dropNewFlows": true}}]}"#,
    );
    only(node.expect(LAN, &from_lan("10.0.1.100"), &by_flow()));
    node.expect(LAN, &from_lan("10.0.1.101"), &refused(DropReason::NewFlowsRefused));
    // A flow from elsewhere is answered from here.
    let ip = udp("10.0.1.55", LAN_STATION, 5, 6, b"x").ip();
    only(node.expect(ETH1, &eth(MAC, STATION, &ip), &walked()));
    let answer = udp(LAN_STATION, "10.0.1.55", 6, 5, b"x").ip();
    only(node.expect(LAN, &eth(VRRP, STATION, &answer), &by_flow()));
    assert_eq!(node.flow_records(), 4);
}

#[test]
fn toward_a_vif_with_the_flag_nf_nothing_is_fragmented() {
    let large = eth(MAC, STATION, &udp("10.0.1.100", LAN_STATION, 1, 2, &[0; 1400]).ip());
    let mtu = |flags: &str| {
        let lan = "\"addresses\": [\"10.0.4.1/24\", \"2001:db8:4::1/64\"], \"flags\": {\"policy\": true";
        Node::altered(STATE, &[(lan, &format!("\"mtu\": 1300, {lan}{flags}"))])
    };
    let sent = mtu("").receive(ETH1, &large);
    assert_eq!(sent.len(), 2, "fragments");

    let mut node = mtu(", \"noFragment\": true");
    let sent = node.expect(ETH1, &large, &refused(DropReason::PacketTooBig).and_made(1));
    let error = Frame::read(sent[0].packet.data()).ip();
    assert_eq!((error.icmp(), error.src.to_string().as_str()), ((3, 4), "10.0.1.1"));
    assert_eq!(error.body[6..8], 1300u16.to_be_bytes());
    node.expect(ETH1, &large, &dropped_by_flow(DropReason::PacketTooBig).and_made(1));
}

/// An ARP request of a station for an address.
fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [&[0xff; 6][..], &STATION, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &STATION, &sender, &[0; 6], &target].concat()
}

#[test]
fn the_flag_proxy_answers_for_every_address() {
    let asked = arp_request([10, 0, 4, 100], [10, 0, 4, 200]);
    Node::new(STATE).expect(LAN, &asked, &dropped(DropReason::ArpNotForUs));

    let consumed = crate::common::account::Moved { slow_path: 0, ..answered() };
    let mut node = with_flag("\"proxy\": true");
    let sent = node.expect(LAN, &asked, &consumed);
    let reply = Frame::read(sent[0].packet.data());
    assert_eq!((reply.destination, reply.source, reply.ethertype), (STATION, VRRP, 0x0806));
    let told = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &VRRP, &[10, 0, 4, 200], &STATION, &[10, 0, 4, 100]].concat();
    assert_eq!(reply.payload[..28], told);
}

#[test]
fn the_flag_no_arp_neither_answers_nor_asks() {
    let own = arp_request([10, 0, 4, 100], [10, 0, 4, 1]);
    assert_eq!(Node::new(STATE).receive(LAN, &own).len(), 1);
    let mut node = with_flag("\"noArp\": true");
    node.expect(LAN, &own, &dropped(DropReason::ArpNotForUs));
    let ip = udp("10.0.1.100", "10.0.4.50", 1, 2, b"x").ip();
    node.expect(ETH1, &eth(MAC, STATION, &ip), &refused(DropReason::NeighbourUnresolved));
    // Without the flag the packet waits and the neighbour is asked for.
    let mut node = Node::new(STATE);
    let sent = node.receive(ETH1, &eth(MAC, STATION, &ip));
    assert_eq!((sent.len(), Frame::read(sent[0].packet.data()).ethertype), (1, 0x0806));
    assert_eq!((node.all_drops(), node.machine.held()), (vec![], 1));
}

#[test]
fn an_echo_to_a_vifs_own_address_is_answered_on_it() {
    let mut node = Node::new(STATE);
    let ip = echo_request(LAN_STATION, "10.0.4.1", 5, 6).ip();
    let (port, frame) = only(node.expect(LAN, &eth(VRRP, STATION, &ip), &answered()));
    let reply = frame.ip();
    assert_eq!((port, reply.icmp(), reply.src.to_string()), (LAN, (0, 0), "10.0.4.1".to_owned()));
    assert_eq!(reply.body[4..], Ip::read(&ip).body[4..]);
}
