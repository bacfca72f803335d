//! Packets of a flow stay in order through ESP, however each of them is carried out: whole, in fragments before ESP, in fragments of ESP.

use fallback_sw::{
    node::machine::{MachineConfig, Sent},
    packet::Packet,
};

use crate::{
    common::{
        Node,
        packets::{Frame, VRRP, eth, udp},
        vif,
    },
    narrow::{CLIENT6, SERVER6, Through, narrow},
    net::{LAN, WAN},
};

/// Lengths of the packets of one flow, the largest of which do not fit into the tunnel.
const LENGTHS: [usize; 9] = [100, 1280, 101, 400, 1279, 102, 1280, 103, 104];

/// A packet of the flow, with its number.
fn numbered(number: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![0x55; len - 48];
    payload[0] = number;
    udp(CLIENT6, SERVER6, 7, 7, &payload).ip()
}

/// Receives frames, up to so many at a time.
fn bursts(node: &mut Node, port: u32, frames: Vec<Packet>, at_most: usize) -> Vec<Sent> {
    let (mut frames, mut sent) = (frames.into_iter(), Vec::new());
    loop {
        let mut burst: Vec<Packet> = frames.by_ref().take(at_most).collect();
        if burst.is_empty() {
            return sent;
        }
        node.now += 1;
        node.machine.receive(vif(port), 0, &mut burst, node.now);
        sent.extend(node.machine.take_sent());
        node.check_account();
    }
}

fn frames(sent: Vec<Sent>) -> Vec<Packet> {
    sent.into_iter().map(|sent| sent.packet).collect()
}

#[test]
fn packets_of_a_flow_leave_in_order_whatever_esp_makes_of_them() {
    for through in [Through::EspAlone, Through::Mpls] {
        let mut net = narrow(through, 1000, MachineConfig::default());
        // The first round makes the flows, the others hit them. What a node does to a batch, the next one must not undo.
        for burst in [32, 1, 32] {
            let packets = (0..).zip(LENGTHS).map(|(number, len)| numbered(number, len));
            let sent: Vec<Packet> =
                packets.map(|ip| Packet::from_frame(&eth(VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &ip))).collect();
            let sealed = bursts(&mut net.ce1, LAN, sent, 32);
            assert!(sealed.len() > LENGTHS.len(), "some go in fragments");
            let passed = bursts(&mut net.re, WAN, frames(sealed), burst);
            let arrived = bursts(&mut net.ce2, WAN, frames(passed), burst);
            let numbers: Vec<u8> = arrived.iter().map(|sent| Frame::read(sent.packet.data()).ip().body[8]).collect();
            assert_eq!(numbers, (0..LENGTHS.len() as u8).collect::<Vec<_>>(), "{through:?}, {burst} at a time");
        }
    }
}
