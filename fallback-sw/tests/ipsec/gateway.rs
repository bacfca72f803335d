//! Tunnels that are routed over gateways by address.

use fallback_sw::node::machine::Sent;
use offload_rules::classify::is_tunnel_up;

use crate::{
    common::{
        gateways::arp,
        packets::{addr, udp},
        vif,
        walk_a::only,
    },
    net::{CE1_MAC, CE1_WAN, CLIENT, LAN, Net, RE_MAC, SERVER, TUNNELS, WAN},
};

const ENCAP: &str =
    r#"{"id": 10, "vrf": 2, "encap": {"oif": 1, "encapData": "02:00:00:00:00:ee 02:00:00:00:00:c1 0800"}}"#;
const GATEWAY: &str = r#"{"id": 10, "vrf": 2, "resolve": {"oif": 1, "gateway": "172.28.13.1"}}"#;

fn answer(gateway: &str) -> Vec<u8> {
    arp(2, RE_MAC, CE1_MAC, (gateway, RE_MAC), (CE1_WAN, CE1_MAC))
}

/// Is it an ARP request for this address?
fn asks_for(sent: &Sent, gateway: &str) -> bool {
    let octets = sent.packet.data();
    let target = gateway.parse::<std::net::Ipv4Addr>().unwrap().octets();
    octets.get(12..14) == Some(&[8, 6])
        && octets.get(20..22) == Some(&[0, 1])
        && octets.get(38..42) == Some(&target[..])
}

#[test]
fn what_is_sealed_waits_for_the_gateway_and_nothing_leaves_in_the_clear() {
    let mut net = Net::altered(&[(ENCAP, GATEWAY)]);
    let question = udp(CLIENT, SERVER, 5000, 53, b"question");
    let sent = net.from_client(&question.ip());
    assert!(sent.len() == 1 && asks_for(&sent[0], "172.28.13.1"), "{sent:?}");
    let sent = net.ce1.receive(WAN, &answer("172.28.13.1"));
    let arrived = net.carry(sent);
    assert_eq!(arrived.iter().map(|(port, ip)| (*port, ip.dst)).collect::<Vec<_>>(), [(LAN, addr(SERVER))]);
    net.to_server(&question.ip());
    net.to_client(&udp(SERVER, CLIENT, 53, 5000, b"answer").ip());
    net.nothing_in_the_clear();
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
    // Keepalives toward the NAT go there, too.
    let sent: Vec<_> = net.ce1.wait(25_000).into_iter().filter(|s| !asks_for(s, "172.28.13.1")).collect();
    assert!(!sent.is_empty(), "no keepalive");
}

#[test]
fn a_silent_gateway_under_a_tunnel_is_told_to_the_sender_as_unreachable() {
    let mut net = Net::altered(&[(ENCAP, GATEWAY)]);
    net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"question").ip());
    let told: Vec<_> = net.ce1.wait(4500).into_iter().filter(|sent| sent.port == vif(LAN)).collect();
    let (_, frame) = only(told);
    assert_eq!((frame.ip().dst, frame.ip().icmp()), (addr(CLIENT), (3, 1)));
    assert_eq!(net.ce1.all_drops(), [("Neighbour Unresolved", 1)]);
}

#[test]
fn a_tunnel_whose_gateway_is_dead_is_passed_over_until_it_answers() {
    // Each tunnel's far end behind a gateway of its own.
    let mut net = Net::altered(&[
        (ENCAP, &format!(r#"{GATEWAY}, {{"id": 9, "vrf": 2, "resolve": {{"oif": 1, "gateway": "172.28.13.2"}}}}"#)),
        (r#""routes": ["#, r#""routes": [{"vrf": 2, "prefix": "103.135.56.41/32", "nexthop": 9},"#),
    ]);
    let live = |net: &mut Net, ms: u64, alive: &[&str]| {
        for _ in 0..ms / 100 {
            for sent in net.ce1.wait(100) {
                for gateway in alive.iter().filter(|gateway| asks_for(&sent, gateway)) {
                    net.ce1.receive(WAN, &answer(gateway));
                }
            }
        }
    };
    let both = ["172.28.13.1", "172.28.13.2"];
    live(&mut net, 1000, &both);
    let way = |net: &mut Net, port: u16| {
        let sent = net.from_client(&udp(CLIENT, SERVER, port, 53, b"x").ip());
        let outer = only(sent).1.ip();
        outer.dst.to_string()
    };
    let before: Vec<_> = (0..40).map(|port| way(&mut net, 6000 + port)).collect();
    assert!(before.iter().any(|to| to == "103.135.56.41") && before.iter().any(|to| to == "103.135.56.40"));
    live(&mut net, 7000, &both[..1]);
    let is_up = |net: &Net, tunnel: u32| is_tunnel_up(net.ce1.machine.control().snapshot(), vif(tunnel));
    assert_eq!(TUNNELS.map(|tunnel| is_up(&net, tunnel)), [true, false]);
    assert!((0..40).all(|port| way(&mut net, 6000 + port) == "103.135.56.40"));
    live(&mut net, 9000, &both);
    assert_eq!(TUNNELS.map(|tunnel| is_up(&net, tunnel)), [true, true]);
    assert_eq!((0..40).map(|port| way(&mut net, 6000 + port)).collect::<Vec<_>>(), before);
    assert_eq!(net.ce1.all_drops(), []);
}
