//! The example's two edges with IPsec between them, and what their hosts send.

use std::{path::Path, time::Duration};

use etherparse::PacketBuilder;
use fallback_sw::io::{device::Link, pcap::CaptureWriter};
use serde_json::{Value, json};

/// In each packet of the hosts.
pub(crate) const SECRET: &[u8] = b"not for the underlay";

/// A link of the example's underlay, the tunnel over it, and the nexthop that leads to it: the first one crosses a NAT.
const LINKS: [(u32, u32, u32, &str); 2] = [(4111, 5111, 85, "172.28.13"), (4109, 5109, 86, "172.28.14")];

/// The state of `ce1` or `ce2` with its underlay in a VRF of its own, reached by a tunnel over each link.
pub(crate) fn edge(node: &str, state: &str) -> String {
    let (own, peer, outbound, inbound) = if node == "ce1" { (36, 39, 0x11, 0x21) } else { (39, 36, 0x21, 0x11) };
    let mut state: Value = serde_json::from_str(state).unwrap();
    change(&mut state, "vrfs", &|_| (), vec![json!({"id": 2, "name": "wan"})]);
    let tunnel = |i: usize| {
        let (_, id, _, net) = LINKS[i];
        let mut tunnel = json!({"source": format!("{net}.{own}"), "destination": format!("{net}.{peer}"), "vrf": 2,
            "outboundSas": [outbound + i], "inboundSas": [inbound + i]});
        if i == 0 {
            tunnel["natT"] = json!({"noKeepalive": true});
        }
        json!({"id": id, "name": format!("tunnel{i}"), "type": "TUNNEL", "vrf": 8, "mtu": 1600, "tunnel": tunnel})
    };
    let wide = |vif: &mut Value| {
        if vif["id"] == 4111 || vif["id"] == 4109 {
            (vif["vrf"], vif["mtu"]) = (2.into(), 1700.into());
        }
    };
    change(&mut state, "vifs", &wide, (0..2).map(tunnel).collect());
    // What led to the links leads into the tunnels, and their packets to the links.
    let underlay = state["nexthops"].as_array().unwrap().iter().filter_map(|nexthop| {
        let (.., id, _) = LINKS.iter().find(|link| nexthop["id"] == link.2)?;
        Some(json!({"id": id + 100, "vrf": 2, "encap": nexthop["encap"]}))
    });
    let underlay: Vec<Value> = underlay.collect();
    let into = |nexthop: &mut Value| {
        if let Some((_, tunnel, ..)) = LINKS.iter().find(|link| nexthop["id"] == link.2) {
            nexthop["encap"] = json!({"oif": tunnel});
        } else if [10, 13, 14].iter().any(|id| nexthop["id"] == *id) {
            nexthop["vrf"] = 2.into();
        }
    };
    change(&mut state, "nexthops", &into, underlay);
    let outer = |route: &mut Value| {
        if route["prefix"].as_str().is_some_and(|prefix| prefix.starts_with("172.28.")) {
            route["vrf"] = 2.into();
        }
    };
    let to_peer = |(_, _, id, net): (u32, u32, u32, &str)| json!({"vrf": 2, "prefix": format!("{net}.{peer}/32"), "nexthop": id + 100});
    change(&mut state, "routes", &outer, LINKS.map(to_peer).to_vec());
    // The second pair has the long key, and extended numbers.
    let sa = |id: usize, direction: &str| {
        let second = id.is_multiple_of(2);
        let key = format!("{id:08x}").repeat(if second { 9 } else { 5 });
        json!({"id": id, "spi": 0x1000 + id, "direction": direction, "key": key, "esn": second})
    };
    let sas = [(outbound, "OUTBOUND"), (outbound + 1, "OUTBOUND"), (inbound, "INBOUND"), (inbound + 1, "INBOUND")];
    change(&mut state, "sas", &|_| (), sas.map(|(id, direction)| sa(id, direction)).to_vec());
    state.to_string()
}

/// Changes all objects of a kind, and adds some.
fn change(state: &mut Value, of: &str, change: &dyn Fn(&mut Value), more: Vec<Value>) {
    let list = state[of].as_array_mut().map_or_else(Vec::new, std::mem::take);
    let list = list.into_iter().map(|mut one| {
        change(&mut one);
        one
    });
    state[of] = list.chain(more).collect();
}

const CLIENT: [u8; 6] = [0, 0x0c, 0x29, 0x64, 0, 1];
const GATEWAY: [u8; 6] = [0, 0x0c, 0x29, 1, 2, 0x24];

/// A capture of what the tenant's host sends, which begins by asking for its gateway.
fn tenant(file: &Path) -> CaptureWriter {
    let mut tenant = CaptureWriter::create(file, Link::Ethernet).unwrap();
    let mut question = [&[0xff; 6][..], &CLIENT, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &CLIENT].concat();
    question.extend([192, 168, 100, 100, 0, 0, 0, 0, 0, 0, 192, 168, 100, 1]);
    tenant.write(Duration::ZERO, &question).unwrap();
    tenant
}

/// Writes datagrams of one flow: small ones, until it is where it stays, and then others of every length that matters, with DF and
/// without.
pub(crate) fn sizes(folder: &Path) {
    let mut tenant = tenant(&folder.join("sizes.pcap"));
    let lengths = (0..20).map(|_| 100).chain([1399, 1400, 1401, 1404, 1408, 1409, 1468]);
    let lengths = lengths.chain(1495..=1512).chain([1522, 1531, 1532, 1536, 1600, 3000, 9000, 100]);
    let mut time = Duration::from_millis(1);
    for length in lengths {
        for df in [false, true] {
            let header = etherparse::Ipv4Header {
                dont_fragment: df,
                identification: 7,
                ..etherparse::Ipv4Header::new(
                    0,
                    64,
                    etherparse::IpNumber::UDP,
                    [192, 168, 100, 100],
                    [192, 168, 1, 100],
                )
                .unwrap()
            };
            let ip = etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default());
            let mut frame = Vec::new();
            let packet = PacketBuilder::ethernet2(CLIENT, GATEWAY).ip(ip).udp(1000, 53);
            packet.write(&mut frame, &vec![0x5a; length - 28]).unwrap();
            tenant.write(time, &frame).unwrap();
            time += Duration::from_millis(1);
        }
    }
    tenant.flush().unwrap();
}

/// Writes what the hosts at both edges send: three flows of datagrams of many sizes.
pub(crate) fn hosts(folder: &Path) {
    let mut tenant = tenant(&folder.join("tenant.pcap"));
    let mut server = CaptureWriter::create(&folder.join("server.pcap"), Link::Ethernet).unwrap();
    let (c, s) = ([192, 168, 100, 100], [192, 168, 1, 100]);
    for turn in 0..40_u64 {
        for port in 1000..1003 {
            let payload = [SECRET, &vec![turn as u8; turn as usize * 7]].concat();
            let time = Duration::from_millis(10 * turn + u64::from(port - 999));
            let mut frame = Vec::new();
            let there = PacketBuilder::ethernet2(CLIENT, GATEWAY).ipv4(c, s, 64).udp(port, 53);
            there.write(&mut frame, &payload).unwrap();
            tenant.write(time, &frame).unwrap();
            let vlan = 300.try_into().unwrap();
            let mut frame = Vec::new();
            let back = PacketBuilder::ethernet2([0, 0x0c, 0x29, 0x9b, 0x69, 0x69], [0, 0x0c, 0x29, 0x0f, 0xf4, 0xa1]);
            back.single_vlan(vlan).ipv4(s, c, 64).udp(53, port).write(&mut frame, &payload).unwrap();
            server.write(time + Duration::from_millis(4), &frame).unwrap();
        }
    }
    tenant.flush().unwrap();
    server.flush().unwrap();
}
