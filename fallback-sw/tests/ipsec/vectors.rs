//! Packets of a batch go through ESP together, and come to what they come to one by one.

use fallback_sw::{
    esp::{Key, OutboundConfig, OutboundSa, Tunnel},
    node::machine::MachineConfig,
    packet::Packet,
};
use offload_rules::DropReason;

use crate::{
    common::{
        hex,
        packets::{Frame, VRRP, entry, eth, mpls_udp, udp},
        vif,
        walk_a::altered,
    },
    net::{
        CE1_MAC, CE1_UP, CE2_DOWN, CE2_MAC, CE2_WAN, CLIENT, END1, END2, LAN, Net, Pair, RE_WAN, SERVER, WAN, ce1, ce2,
        re, to,
    },
};

/// The sender's side of a tunnel to CE2, by hand.
fn sealer(tunnel: usize) -> OutboundSa {
    let key = Key::new(&hex(&CE2_DOWN[tunnel].key())).unwrap();
    let outside = Tunnel { source: RE_WAN[tunnel].parse().unwrap(), destination: CE2_WAN.parse().unwrap(), udp: None };
    OutboundSa::new(&OutboundConfig { spi: CE2_DOWN[tunnel].spi(), key, esn: true, first: 1, tunnel: outside })
}

/// A packet of one flow of the client, with its number, sealed for CE2.
fn sealed(sa: &mut OutboundSa, number: u8) -> Packet {
    let inner = udp(CLIENT, SERVER, 5000, 53, &[number; 30]).ip();
    let outer = mpls_udp(END1, END2, (50_000, 6635), &[entry(280, 0, true, 63)], &inner).ip();
    let mut packet = Packet::from_frame(&outer);
    sa.seal(&mut packet, 0, 1, false).unwrap();
    Packet::from_frame(&to(CE2_MAC, packet.data()))
}

fn copy(packet: &Packet) -> Packet {
    Packet::from_frame(packet.data())
}

/// All frames in one receive of CE2: numbers of the packets that reach the server, in order.
fn reach_server(net: &mut Net, mut frames: Vec<Packet>) -> Vec<u8> {
    net.ce2.now += 1;
    net.ce2.machine.receive(vif(WAN), 0, &mut frames, net.ce2.now);
    let sent = net.ce2.machine.take_sent();
    net.ce2.check_account();
    sent.iter().map(|sent| Frame::read(sent.packet.data()).ip().body[8]).collect()
}

#[test]
fn a_number_that_comes_twice_in_a_batch_passes_once() {
    let (mut net, mut sa) = (Net::default(), sealer(0));
    let all: Vec<_> = (0..4).map(|number| sealed(&mut sa, number)).collect();
    let frames = [0, 1, 1, 2, 0, 3, 3].map(|at: usize| copy(&all[at])).into();
    assert_eq!(reach_server(&mut net, frames), [0, 1, 2, 3]);
    assert_eq!(net.ce2.drops(DropReason::EspReplayDuplicate), 3);
}

#[test]
fn a_forged_copy_before_the_packet_does_not_take_its_number() {
    let (mut net, mut sa) = (Net::default(), sealer(0));
    let all: Vec<_> = (0..5).map(|number| sealed(&mut sa, number)).collect();
    let mut forged = copy(&all[2]);
    *forged.data_mut().last_mut().unwrap() ^= 1;
    let mut frames: Vec<_> = all.iter().map(copy).collect();
    frames.insert(2, forged);
    assert_eq!(reach_server(&mut net, frames), [0, 1, 2, 3, 4]);
    assert_eq!(net.ce2.drops(DropReason::EspAuthentication), 1);
    assert_eq!(net.ce2.drops(DropReason::EspReplayDuplicate), 0);
}

#[test]
fn packets_of_two_sas_in_turn_leave_in_the_order_they_came() {
    let mut net = Net::default();
    let mut sas = [sealer(0), sealer(1)];
    // More than a batch, one or two of an SA in a row, and in between what is no ESP.
    let mut frames: Vec<_> =
        (0..40).map(|number: u8| sealed(&mut sas[usize::from(!number.is_multiple_of(3))], number)).collect();
    frames.insert(7, Packet::from_frame(&to(CE2_MAC, &udp(RE_WAN[0], CE2_WAN, 500, 500, b"IKE").ip())));
    let reached = reach_server(&mut net, frames);
    let flow: Vec<_> = reached.into_iter().filter(|number| *number != b'I').collect();
    assert_eq!(flow, (0..40).collect::<Vec<_>>());
    let status = net.ce2.machine.workers()[0].sas();
    let packets = |pair: Pair| status.iter().find(|sa| sa.id.get() == pair.0).unwrap().packets;
    assert_eq!((packets(CE2_DOWN[0]), packets(CE2_DOWN[1])), (14, 26));
}

#[test]
fn a_hard_lifetime_ends_an_inbound_sa_in_the_middle_of_a_batch() {
    let limited = CE2_DOWN[0].inbound_with(r#", "hard": {"packets": "5"}"#);
    let ce2 = altered(&ce2(), &[(&CE2_DOWN[0].inbound(), &limited)]);
    let (mut net, mut sa) = (Net::with(&ce1(), &re(), &ce2, MachineConfig::default()), sealer(0));
    let frames = (0..12).map(|number| sealed(&mut sa, number)).collect();
    assert_eq!(reach_server(&mut net, frames), [0, 1, 2, 3, 4]);
    assert_eq!(net.ce2.drops(DropReason::SaExpired), 7);
}

/// What the client sends in one receive of CE1, and what is on the wire of it.
fn from_client(net: &mut Net, count: u8) -> Vec<Frame> {
    let frame = |number: u8| {
        // Flows take both tunnels.
        let ip = udp(CLIENT, SERVER, 5000 + u16::from(number % 16), 53, &[number; 30]).ip();
        Packet::from_frame(&eth(VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &ip))
    };
    let mut frames: Vec<_> = (0..count).map(frame).collect();
    net.ce1.now += 1;
    net.ce1.machine.receive(vif(LAN), 0, &mut frames, net.ce1.now);
    let sent = net.ce1.machine.take_sent();
    net.ce1.check_account();
    sent.iter().map(|sent| Frame::read(sent.packet.data())).collect()
}

#[test]
fn numbers_of_each_sa_leave_in_order_and_open_at_the_other_end() {
    let mut net = Net::default();
    for round in 0..2_u64 {
        let wire = from_client(&mut net, 32);
        assert_eq!(wire.len(), 32);
        for pair in CE1_UP {
            let of_pair = wire.iter().map(Frame::ip).filter(|ip| ip.body[8..12] == pair.spi().to_be_bytes());
            let numbers: Vec<_> = of_pair.map(|ip| u64::from_be_bytes(ip.body[16..24].try_into().unwrap())).collect();
            let first = 1 + round * numbers.len() as u64;
            assert!(numbers.len() > 3, "both tunnels are used");
            assert_eq!(numbers, (first..first + numbers.len() as u64).collect::<Vec<_>>());
        }
        assert!(wire.iter().all(|frame| frame.source == CE1_MAC));
        let mut frames =
            wire.iter().map(|frame| Packet::from_frame(&to(frame.destination, &frame.ip().octets))).collect();
        net.re.now += 1;
        net.re.machine.receive(vif(WAN), 0, &mut frames, net.re.now);
        assert_eq!(net.re.machine.take_sent().len(), 32, "{:?}", net.re.all_drops());
        net.re.check_account();
    }
}

#[test]
fn a_hard_lifetime_ends_an_outbound_sa_in_the_middle_of_a_batch() {
    let limited: Vec<_> = CE1_UP.iter().map(|up| up.outbound_with(r#", "hard": {"packets": "5"}"#)).collect();
    let plain: Vec<_> = CE1_UP.iter().map(|up| up.outbound()).collect();
    let mut net = Net::altered(&[(&plain[0], &limited[0]), (&plain[1], &limited[1])]);
    let wire = from_client(&mut net, 32);
    // Five of each leave, all sealed; the others have no SA any more.
    assert_eq!(wire.len(), 10);
    assert_eq!(net.ce1.drops(DropReason::SaExpired), 22);
    for ip in wire.iter().map(Frame::ip) {
        assert_eq!(ip.ports(), (4500, 4500));
        // Thirty octets that are alike are what the tenant sends.
        let clear = |octets: &[u8]| octets.iter().all(|octet| *octet == octets[0]);
        assert!(!ip.octets.windows(12).any(clear), "in the clear: {ip:?}");
    }
}
