//! IPv6 through IPsec tunnels that are narrower than 1280 octets: whole at the other end, and no host told less.

use fallback_sw::node::machine::{MachineConfig, Sent};
use offload_engine::protocol::{NotHeld, Report, Request, SaMode};

use crate::{
    common::{
        engine::with_engine,
        packets::{Frame, Ip, VRRP, eth, icmp, udp},
        vif,
        walk_a::altered,
    },
    net::{CE1_MAC, CE1_UP, CE1_WAN, LAN, Net, WAN, ce1, ce2, re, to},
};

pub const CLIENT6: &str = "fd00:1::100";
pub const SERVER6: &str = "fd00:2::100";

/// How a tenant's IPv6 goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Through {
    /// In MPLS over UDP, in ESP.
    Mpls,
    /// In ESP alone.
    EspAlone,
}

/// Walk A for IPv6; the tunnels of all nodes have this MTU.
pub fn narrow(through: Through, mtu: u16, config: MachineConfig) -> Net {
    let width = ("\"mtu\": 1400", &*format!("\"mtu\": {mtu}"));
    let second = |sa: u32| (format!("\"outboundSas\": [{sa}]"), "\"outboundSas\": []".to_owned());
    let lan = |own: &str, own6: &str| (format!("\"{own}/24\"]"), format!("\"{own}/24\", \"{own6}/64\"]"));
    let edge = |state: &str, (own, own6): (&str, &str), sa: u32| {
        let ((lan, lan6), (sa, none)) = (lan(own, own6), second(sa));
        altered(state, &[width, (&lan, &lan6), (&sa, &none)])
    };
    let one = edge(&ce1(), ("192.168.100.1", "fd00:1::1"), 18);
    let two = edge(&ce2(), ("192.168.1.1", "fd00:2::1"), 50);
    let mut net = Net::with(&one, &altered(&re(), &[width]), &two, config);
    let local = |own: &str| format!(r#"{{"vrf": 18, "prefix": "{own}/128", "nexthop": 514}}"#);
    for (node, own, far) in [(&mut net.ce1, CLIENT6, SERVER6), (&mut net.ce2, SERVER6, CLIENT6)] {
        let routes = match through {
            Through::Mpls => format!(r#"{{"vrf": 18, "prefix": "{far}/128", "nexthop": 489, "label": 280}}"#),
            Through::EspAlone => format!(
                r#"{{"vrf": 18, "prefix": "{far}/128", "nexthop": 85}}, {{"vrf": 8, "prefix": "{far}/128", "nexthop": 85}},
                   {{"vrf": 8, "prefix": "{own}/128", "nexthop": 514}}"#
            ),
        };
        node.change(&format!(r#"{{"routes": [{}, {routes}]}}"#, local(own)));
    }
    if through == Through::EspAlone {
        net.re.change(&format!(
            r#"{{"routes": [{{"vrf": 8, "prefix": "{CLIENT6}/128", "nexthop": 11}}, {{"vrf": 8, "prefix": "{SERVER6}/128", "nexthop": 21}}]}}"#
        ));
    }
    net
}

fn of_len(len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len - 48).map(|i| (i * 7) as u8).collect();
    udp(CLIENT6, SERVER6, 7, 7, &payload).ip()
}

fn from_client(net: &mut Net, len: usize) -> Vec<Sent> {
    net.ce1.receive(LAN, &eth(VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &of_len(len)))
}

/// A "packet too big" on the LAN.
fn told(sent: &[Sent]) -> Option<u32> {
    let ip = Frame::read(sent.first()?.packet.data()).ip();
    (ip.proto == 58 && ip.icmp() == (2, 0)).then(|| u32::from_be_bytes(ip.body[4..8].try_into().unwrap()))
}

/// Octets of ESP in UDP around a packet of this length (RFC 4303 §2, RFC 4106, RFC 3948).
fn sealed_in_udp(inner: usize) -> usize {
    20 + 8 + 8 + 8 + (inner + 2).next_multiple_of(4) + 16
}

/// Sends a packet of this length from end to end; what was on the wire behind CE1.
fn across(net: &mut Net, len: usize, hops: u8) -> Vec<Ip> {
    net.wire.clear();
    let sent = from_client(net, len);
    let pieces = sent.len();
    let arrived = net.carry(sent);
    assert_eq!(arrived.len(), 1, "{len}: {:?}", net.all_drops());
    let mut expected = of_len(len);
    expected[7] -= hops;
    assert_eq!((arrived[0].0, &arrived[0].1.octets), (LAN, &expected), "{len}");
    net.nothing_in_the_clear_but_fragments();
    net.wire[..pieces].to_vec()
}

impl Net {
    /// Nothing on the wire but ESP, bare or in UDP, and fragments of it.
    fn nothing_in_the_clear_but_fragments(&self) {
        for ip in &self.wire {
            let later = ip.offset > 0 && matches!(ip.proto, 17 | 50);
            assert!(later || ip.proto == 50 || ip.ports() == (4500, 4500), "in the clear: {ip:?}");
        }
    }
}

#[test]
fn mpls_over_udp_is_fragmented_before_esp_and_no_fragment_is_on_the_wire() {
    for mtu in [576, 577, 800, 1000, 1279, 1280, 1300, 1311, 1312, 1313] {
        let mut net = narrow(Through::Mpls, mtu, MachineConfig::default());
        for len in [100, 500, 1000, 1200, 1247, 1248, 1249, 1279, 1280] {
            let wire = across(&mut net, len, 2);
            assert_eq!(wire.len() > 1, len + 32 > mtu.into(), "{len} over {mtu}");
            let largest = sealed_in_udp(mtu.into());
            assert!(wire.iter().all(|ip| !ip.more && ip.offset == 0 && ip.octets.len() <= largest));
        }
        let limit = u32::from(mtu - 32).max(1280);
        for len in [limit as usize + 1, 1500] {
            assert_eq!(told(&from_client(&mut net, len)), Some(limit), "{mtu}");
        }
        assert_eq!(net.all_drops(), [vec![("Packet Too Big", 2)], vec![], vec![]]);
    }
}

#[test]
fn without_mpls_the_esp_packet_is_fragmented_and_reassembled() {
    for mtu in [576, 800, 1000, 1279, 1280, 1400] {
        let mut net = narrow(Through::EspAlone, mtu, MachineConfig::default());
        let mut ids = Vec::new();
        for len in [100, 570, 576, 1000, 1200, 1279, 1280] {
            let wire = across(&mut net, len, 3);
            assert_eq!(wire.len() > 1, sealed_in_udp(len) > sealed_in_udp(mtu.into()), "{len} over {mtu}");
            assert!(wire.iter().all(|ip| ip.octets.len() <= sealed_in_udp(mtu.into())));
            // RFC 4303 §3.3.4: fragments of the outer packet; a router may fragment them again.
            assert!(wire.iter().all(|ip| ip.df == (len <= mtu.into()) && ip.id == wire[0].id));
            assert_eq!(wire.iter().map(|ip| ip.body.len()).sum::<usize>() + 20, sealed_in_udp(len));
            if wire.len() > 1 {
                ids.push(wire[0].id);
            }
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "fragments of two packets never mix (RFC 6864 §4.3)");
        let limit = u32::from(mtu).max(1280);
        assert_eq!(told(&from_client(&mut net, limit as usize + 1)), Some(limit));
        assert_eq!(net.all_drops(), [vec![("Packet Too Big", 1)], vec![], vec![]]);
    }
}

#[test]
fn a_path_that_turns_out_narrow_is_told_to_ipv6_hosts_as_1280() {
    for (through, hops) in [(Through::Mpls, 2), (Through::EspAlone, 3)] {
        let df = (r#""natT": {}"#, r#""natT": {}, "df": "DF_SET""#);
        let mut net = narrow(through, 1400, MachineConfig::default());
        let vif = altered(&ce1(), &[df, ("\"outboundSas\": [18]", "\"outboundSas\": []")]);
        let start = vif.find(r#"{"id": 4111"#).unwrap();
        let end = vif.find(r#",{"id": 4109"#).unwrap();
        net.ce1.change(&format!(r#"{{"vifs": [{}]}}"#, &vif[start..end]));
        assert_eq!(across(&mut net, 1360, hops).len(), 1);
        let esp = across(&mut net, 1280, hops).remove(0);
        assert!(esp.df);
        let error = icmp("203.0.113.9", CE1_WAN, 3, 4, [0, 0, 3, 232], &esp.octets[..500]).ip();
        assert!(net.ce1.receive(WAN, &to(CE1_MAC, &error)).is_empty());
        for len in [1281, 1360, 1500] {
            assert_eq!(told(&from_client(&mut net, len)), Some(1280));
        }
        for len in [100, 900, 1000, 1279, 1280] {
            let wire = across(&mut net, len, hops);
            assert!(wire.iter().all(|ip| ip.octets.len() <= 1000));
        }
        assert_eq!(net.all_drops(), [vec![("Packet Too Big", 3)], vec![], vec![]]);
    }
}

#[test]
fn several_workers_seal_in_fragments_as_one_does() {
    for through in [Through::Mpls, Through::EspAlone] {
        let hops = if through == Through::Mpls { 2 } else { 3 };
        let mut net = narrow(through, 700, MachineConfig { workers: 3, ..MachineConfig::default() });
        for len in [1280, 650, 1000, 1280] {
            across(&mut net, len, hops);
        }
        assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
    }
}

#[test]
fn an_sa_in_the_nic_comes_back_for_what_the_nic_cannot_fragment() {
    let mut net = narrow(Through::EspAlone, 1000, with_engine());
    net.ce1.wait(100);
    let requests = net.ce1.machine.take_offload_requests();
    let offer = requests.into_iter().find_map(|request| match request {
        Request::Offer { offer, sa, .. } if sa.id.get() == CE1_UP[0].0 => Some(offer),
        _ => None,
    });
    let offer = offer.unwrap();
    net.ce1.report(Report::SaHeld { offer, mode: SaMode::Protocol, session: 4, port: vif(WAN) });
    net.ce1.machine.take_offload_requests();
    assert_eq!(across(&mut net, 1280, 3).len(), 2);
    let returned = net.ce1.machine.take_offload_requests();
    assert!(
        returned.iter().any(|request| matches!(request, Request::Return { offer: back, .. } if *back == offer)),
        "{returned:?}"
    );
    net.ce1.report(Report::SaGone { offer, reason: NotHeld::Pending });
    net.ce1.wait(30_000);
    let again = net.ce1.machine.take_offload_requests();
    assert!(!again.iter().any(|request| matches!(request, Request::Offer { sa, .. } if sa.id.get() == CE1_UP[0].0)));
    across(&mut net, 1280, 3);
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}
