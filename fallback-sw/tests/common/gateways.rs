//! Gateways by address under CE1's tunnels, and what they answer.

use fallback_sw::node::machine::Sent;

use super::{
    Node,
    packets::Mac,
    vif,
    walk_a::{CE1, UNDERLAY_MACS, UNDERLAYS, altered},
};

/// An ARP packet in a frame.
pub fn arp(
    operation: u8,
    from: Mac,
    to: Mac,
    (sender, mac): (&str, Mac),
    (target, target_mac): (&str, Mac),
) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let head = [&to[..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &mac, &v4(sender)].concat();
    [&head[..], &target_mac, &v4(target)].concat()
}

/// CE1 whose underlay members are gateways by address.
pub fn underlay_gateways() -> String {
    let of = |id: u32, vif: u32, header: &str, net: u8| {
        let encap = format!(
            r#"{{"id": {id}, "vrf": 8, "encap": {{"oif": {vif}, "encapData": "0200000000fe {header} 0800"}}}}"#
        );
        (encap, format!(r#"{{"id": {id}, "vrf": 8, "resolve": {{"oif": {vif}, "gateway": "172.28.{net}.1"}}}}"#))
    };
    let (old, new) = (of(85, 4111, "020000004111", 13), of(86, 4109, "020000004109", 14));
    altered(CE1, &[(&old.0, &old.1), (&new.0, &new.1)])
}

/// The answer of an underlay gateway: that of a vif by its place.
pub fn underlay_answer(at: usize, mac: Mac) -> Vec<u8> {
    let (gateway, own) = [("172.28.13.1", "172.28.13.36"), ("172.28.14.1", "172.28.14.36")][at];
    arp(2, mac, UNDERLAY_MACS[at], (gateway, mac), (own, UNDERLAY_MACS[at]))
}

/// Lets time pass while some of CE1's underlay gateways answer what they are asked. With what else was sent.
pub fn live(node: &mut Node, ms: u64, alive: [bool; 2]) -> Vec<Sent> {
    let mut rest = Vec::new();
    for _ in 0..ms / 100 {
        let mut todo = node.wait(100);
        while let Some(sent) = todo.pop() {
            let at = UNDERLAYS.iter().position(|id| vif(*id) == sent.port);
            match at.filter(|_| sent.packet.data().get(12..14) == Some(&[8, 6])) {
                Some(at) if alive[at] => {
                    todo.extend(node.receive(UNDERLAYS[at], &underlay_answer(at, [2, 0, 0, 0, 0xfe, at as u8])));
                }
                Some(_) => {}
                None => rest.push(sent),
            }
        }
    }
    rest
}
