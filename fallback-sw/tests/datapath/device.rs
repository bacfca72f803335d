//! The MTU of devices: the smaller of vif and device is the limit, for whatever leaves by it (RFC 1191 §4, RFC 1812 §5.2.6).

use crate::common::{
    Node,
    packets::{Ip, Packet, SYN, Tunnelled, segment_with_options, udp},
    vif,
    walk_a::{CE1, CLIENT, CLIENT6, LAN1, LAN2, SERVER, SERVER6, UNDERLAYS, WalkA, from_client, from_underlay, only},
};

fn set_mtu(node: &mut Node, of: u32, mtu: u32) {
    node.now += 1;
    let now = node.now;
    node.machine.set_device_mtu(vif(of), mtu, now);
}

fn of_len(src: &str, dst: &str, len: usize) -> Packet {
    let headers = if src.contains(':') { 48 } else { 28 };
    udp(src, dst, 7, 7, &vec![0x5a; len - headers])
}

/// What a packet of the client becomes: the outer packets' lengths, or the MTU that the client is told.
fn sent(node: &mut Node, packet: &Packet) -> Result<Vec<usize>, u32> {
    let sent = node.receive(LAN1, &from_client(&packet.ip()));
    let ips: Vec<Ip> = sent.iter().map(|s| crate::common::packets::Frame::read(s.packet.data()).ip()).collect();
    match &ips[..] {
        [error] if [1, 58].contains(&error.proto) => Err(u32::from_be_bytes(error.body[4..8].try_into().unwrap())),
        _ => Ok(ips.iter().map(|ip| ip.octets.len()).collect()),
    }
}

#[test]
fn case_07_a_device_below_the_vifs_mtu_limits_flows_until_it_is_raised() {
    let mut node = Node::new(CE1);
    let (whole, whole6) = (of_len(CLIENT, SERVER, 1468).df(), of_len(CLIENT6, SERVER6, 1468));
    assert_eq!(sent(&mut node, &whole), Ok(vec![1500]));
    assert_eq!(sent(&mut node, &whole6), Ok(vec![1500]));
    for mtu in [1450, 1400] {
        UNDERLAYS.iter().for_each(|vif| set_mtu(&mut node, *vif, mtu));
        assert_eq!(sent(&mut node, &whole), Err(mtu - 32));
        assert_eq!(sent(&mut node, &whole6), Err(mtu - 32));
        let parts = sent(&mut node, &of_len(CLIENT, SERVER, 1468)).unwrap();
        assert!(parts.len() == 2 && parts.iter().all(|len| *len <= mtu as usize), "{parts:?}");
    }
    UNDERLAYS.iter().for_each(|vif| set_mtu(&mut node, *vif, 9000));
    assert_eq!(sent(&mut node, &whole), Ok(vec![1500]));
    assert_eq!(sent(&mut node, &of_len(CLIENT, SERVER, 1469).df()), Err(1468), "the vif's own is the limit again");
}

#[test]
fn case_07_the_mss_is_that_of_the_smallest_device_on_the_way() {
    for (vif, mtu, clamped) in [(UNDERLAYS[0], 1400, 1328), (LAN1, 1300, 1260), (LAN1, 9000, 1428)] {
        let mut node = Node::new(CE1);
        let of = if vif == LAN1 { vec![LAN1] } else { UNDERLAYS.to_vec() };
        of.iter().for_each(|vif| set_mtu(&mut node, *vif, mtu));
        let [high, low] = 1460_u16.to_be_bytes();
        let syn = segment_with_options(CLIENT, SERVER, (40_000, 80), SYN, (1, 0), &[2, 4, high, low], b"");
        let (_, frame) = only(node.receive(LAN1, &from_client(&syn.ip())));
        let inner = Tunnelled::read(frame.ip()).inner;
        let mss = inner.body[20..].windows(4).find_map(|option| match option {
            [2, 4, high, low] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        });
        assert_eq!(mss, Some(clamped), "device of {mtu} under vif {vif}");
    }
}

#[test]
fn case_07_a_sub_interface_has_the_mtu_of_its_parents_device() {
    let mut walk = WalkA::default();
    set_mtu(&mut walk.ce2, LAN2, 1450);
    for (packet, frames) in [(of_len(CLIENT, SERVER, 1450).df(), 1), (of_len(CLIENT, SERVER, 1460), 2)] {
        let (port, up) = walk.up(&packet.ip());
        let sent = walk.ce2.receive(port, &from_underlay(port, &up.outer.octets));
        assert_eq!(sent.len(), frames);
        assert!(sent.iter().all(|s| u32::from(s.port.get()) == LAN2 && s.packet.len() <= 1450 + 18));
    }
    let (port, up) = walk.up(&of_len(CLIENT, SERVER, 1460).df().ip());
    let (_, frame) = only(walk.ce2.receive(port, &from_underlay(port, &up.outer.octets)));
    let error = Tunnelled::read(frame.ip()).inner;
    assert_eq!((error.icmp(), error.body[6..8].to_vec()), ((3, 4), 1450_u16.to_be_bytes().to_vec()));
    assert_eq!(walk.ce2.all_drops(), [("Packet Too Big", 1)]);
}
