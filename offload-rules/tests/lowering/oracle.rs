//! A rule never matches more than what software decided on.

use std::net::IpAddr;

use offload_rules::lower::{Chain, Direction, DpdkVersion, NicProfile, lower};
use proptest::prelude::*;

use crate::{
    flow::{Flow, To, any_flow, has_ports},
    packet::{Packet, matches},
};

fn twin() -> NicProfile {
    NicProfile::by_name("twin").unwrap()
}

fn flip(address: IpAddr, bit: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() ^ 1 << (bit % 32)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() ^ 1 << (bit % 128)).into()),
    }
}

/// The flows that differ from `flow` in exactly one field that decides what happens; `n` chooses which bit.
fn neighbours(flow: &Flow, n: u32) -> Vec<(&'static str, Flow)> {
    let f = || flow.clone();
    let mut all = vec![
        ("port", Flow { port: flow.port + 1, ..f() }),
        ("source", Flow { src: flip(flow.src, n), ..f() }),
        ("destination", Flow { dst: flip(flow.dst, n), ..f() }),
    ];
    for proto in [6, 17, 132, 47] {
        if proto != flow.proto {
            all.push(("protocol", Flow { proto, ..f() }));
        }
    }
    let mut mac = flow.eth_dst;
    mac[n as usize % 6] ^= 0x10;
    all.push(("MAC", Flow { eth_dst: mac, ..f() }));
    if has_ports(flow.proto) {
        all.push(("source port", Flow { sport: flow.sport ^ 1 << (n % 16), ..f() }));
        all.push(("destination port", Flow { dport: flow.dport ^ 1 << (n % 16), ..f() }));
    }
    for i in 0..flow.tags.len() {
        let mut tags = flow.tags.clone();
        tags[i].1 ^= 1 << (n % 12);
        all.push(("VLAN", Flow { tags: tags.clone(), ..f() }));
        tags[i] = (flow.tags[i].0 ^ 0x8100 ^ 0x88a8, flow.tags[i].1);
        all.push(("TPID", Flow { tags, ..f() }));
    }
    if flow.tags.len() < 2 {
        let mut tags = flow.tags.clone();
        tags.push((0x8100, 5));
        all.push(("one tag more", Flow { tags, ..f() }));
    }
    match flow.opened {
        Some(tunnel) => {
            all.push(("another IPsec tunnel", Flow { opened: Some(tunnel ^ 1), ..f() }));
            all.push(("not in ESP", Flow { opened: None, ..f() }));
        }
        None => all.push(("in ESP", Flow { opened: Some(4000), ..f() })),
    }
    if let Some((_, rest)) = flow.tags.split_last() {
        all.push(("one tag less", Flow { tags: rest.to_vec(), pcp_dei: 0, ..f() }));
    }
    if let Some((s, d, port, label, ttl)) = flow.tunnel {
        let bit = 1 << (n % 32);
        let with = |tunnel| Flow { tunnel: Some(tunnel), ..f() };
        all.push(("tunnel source", with(((s.to_bits() ^ bit).into(), d, port, label, ttl))));
        all.push(("tunnel destination", with((s, (d.to_bits() ^ bit).into(), port, label, ttl))));
        all.push(("tunnel port", with((s, d, 6635 ^ 51234 ^ port, label, ttl))));
        let other = label ^ 1 << (n % 20);
        all.push(("label", with((s, d, port, if other < 16 { 0xf_ffff } else { other }, ttl))));
        all.push(("no tunnel", Flow { tunnel: None, ..f() }));
        if flow.to != To::Drop {
            all.push(("label TTL", with((s, d, port, label, ttl % 255 + 1))));
        }
    } else {
        let ends = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        all.push(("a tunnel", Flow { tunnel: Some((ends.0, ends.1, 6635, 16, 64)), ..f() }));
    }
    if flow.to != To::Drop {
        all.push(("TTL", Flow { ttl: flow.ttl % 254 + 2, ..f() }));
        if flow.to == To::Tunnel {
            all.push(("TOS", Flow { tos: flow.tos ^ 1 << (n % 8), ..f() }));
        }
        if flow.tunnel.is_none() && !flow.tags.is_empty() && flow.tags_out > 0 {
            all.push(("priority", Flow { pcp_dei: flow.pcp_dei ^ 2 << (n % 3), ..f() }));
        }
    }
    all
}

/// Packets of the flow that software does not treat as ordinary.
fn extraordinary(flow: &Flow) -> Vec<(&'static str, Packet)> {
    let mut all = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut Packet)| {
        let mut packet = flow.packet();
        change(&mut packet);
        all.push((what, packet));
    };
    let v4 = flow.src.is_ipv4();
    if v4 {
        add("options", &|p| p.ip.options = true);
        add("fragment", &|p| p.ip.fragment = true);
        add("header checksum", &|p| p.ip.checksum_ok = false);
    } else {
        add("extension header", &|p| p.ip.proto = 60);
        add("fragment header", &|p| p.ip.proto = 44);
    }
    add("longer than the frame", &|p| p.ip.len_ok = false);
    add("last TTL", &|p| p.ip.ttl = 1);
    add("group", &|p| p.eth_dst.0[0] |= 1);
    if flow.mtu < 1500 {
        add("too large", &|p| p.ip.len = flow.mtu + 1);
    }
    if flow.proto == 6 {
        for flags in [0x02, 0x12, 0x11, 0x14, 0x04, 0x08, 0x00] {
            add("TCP flags", &|p| p.l4.flags = flags);
        }
    }
    if flow.tunnel.is_some() {
        let outer = |change: fn(&mut crate::packet::Outer)| move |p: &mut Packet| p.outer.as_mut().map_or((), change);
        add("outer options", &outer(|o| o.ip.options = true));
        add("outer fragment", &outer(|o| o.ip.fragment = true));
        add("outer header checksum", &outer(|o| o.ip.checksum_ok = false));
        add("outer length", &outer(|o| o.ip.len_ok = false));
        add("outer CE", &outer(|o| o.ip.tos = 3));
        add("outer ECT(1)", &outer(|o| o.ip.tos = 1));
        add("UDP checksum", &outer(|o| o.checksum = 0xbeef));
        add("not bottom of stack", &outer(|o| o.bottom = false));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_rule_matches_its_flow_and_none_that_differs_in_one_field(
        flow in any_flow(), n in any::<u32>()
    ) {
        let of = |name| NicProfile::of_version(name, DpdkVersion::V24_11).unwrap();
        for profile in ["twin", "mlx5-sws", "mlx5-hws"].map(of) {
            let Ok(rule) = lower(&flow.direction(), &profile, false) else {
                prop_assert_ne!(profile.name, "twin", "the twin takes everything");
                continue;
            };
            prop_assert!(matches(&rule, &flow.packet()), "{:?}", rule);
            for (what, other) in neighbours(&flow, n) {
                if profile.name != "twin" && what == "label TTL" {
                    continue;
                }
                prop_assert!(!matches(&rule, &other.packet()), "{}: {:?} matches {:?}", what, rule, other);
                if let Ok(rule) = lower(&other.direction(), &profile, false) {
                    prop_assert!(!matches(&rule, &flow.packet()), "{}: the other way", what);
                }
            }
        }
    }

    #[test]
    fn what_is_not_ordinary_stays_in_software(flow in any_flow()) {
        prop_assume!(flow.to != To::Drop);
        let rule = lower(&flow.direction(), &twin(), false).unwrap();
        for (what, packet) in extraordinary(&flow) {
            prop_assert!(!matches(&rule, &packet), "{}: {:?}", what, rule);
        }
    }

    #[test]
    fn the_largest_packet_that_fits_is_taken(flow in any_flow()) {
        prop_assume!(flow.to != To::Drop && flow.mtu < 1500);
        let rule = lower(&flow.direction(), &twin(), false).unwrap();
        let mut packet = flow.packet();
        packet.ip.len = flow.mtu;
        prop_assert!(matches(&rule, &packet));
    }
}

fn rule(flow: &Flow) -> Chain {
    let direction: Direction = flow.direction();
    lower(&direction, &twin(), false).unwrap()
}

#[test]
fn two_clients_with_one_source_port_have_their_own_rules() {
    let one = Flow::plain().tagged(300).tcp();
    let other = Flow { src: "192.168.100.101".parse().unwrap(), ..one.clone() };
    assert!(matches(&rule(&one), &one.packet()));
    assert!(!matches(&rule(&one), &other.packet()));
}

#[test]
fn one_vlan_does_not_see_the_flows_of_another_nor_of_none() {
    let one = Flow::plain().tagged(300);
    assert!(!matches(&rule(&one), &Flow::plain().tagged(301).packet()));
    assert!(!matches(&rule(&one), &Flow::plain().packet()));
    assert!(!matches(&rule(&Flow::plain()), &one.packet()));
}

#[test]
fn label_and_vlan_tell_tenants_with_the_same_addresses_apart() {
    let one = Flow::plain().out_of_tunnel();
    let (s, d, port, _, ttl) = one.tunnel.unwrap();
    let other = Flow { tunnel: Some((s, d, port, 281, ttl)), ..one.clone() };
    assert!(!matches(&rule(&one), &other.packet()));
    assert!(!matches(&rule(&Flow::plain().tagged(300)), &Flow::plain().tagged(302).packet()));
}

#[test]
fn another_tunnel_source_is_not_believed() {
    let one = Flow::plain().out_of_tunnel();
    let (_, d, port, label, ttl) = one.tunnel.unwrap();
    let forged = Flow { tunnel: Some(("10.101.9.9".parse().unwrap(), d, port, label, ttl)), ..one.clone() };
    assert!(matches(&rule(&one), &one.packet()));
    assert!(!matches(&rule(&one), &forged.packet()));
}

#[test]
fn a_flow_that_is_denied_is_dropped_whatever_its_ttl_and_tos() {
    let denied = Flow::plain().tagged(300).tcp().to(To::Drop);
    let mut packet = denied.packet();
    (packet.ip.ttl, packet.ip.tos) = (1, 0xff);
    assert!(matches(&rule(&denied), &packet));
}

#[test]
fn a_reset_of_a_denied_flow_is_for_software_to_follow() {
    let denied = Flow::plain().tagged(300).tcp().to(To::Drop);
    for flags in [0x02, 0x04, 0x11, 0x14] {
        let mut packet = denied.packet();
        packet.l4.flags = flags;
        assert!(!matches(&rule(&denied), &packet), "{flags:#x}");
    }
}
