//! SAs that a NIC holds: what is offered, what is left to it, what it leaves to software, and how everything comes back.

use std::ops::Range;

use fallback_sw::{
    esp::{InboundConfig, InboundSa, Key, Opened},
    node::machine::{MachineConfig, Sent},
    packet::{NicNote, Packet},
    worker::SaStatus,
};
use offload_engine::protocol::{NotHeld, OfferId, Report, Request, SaMode};
use offload_rules::VifId;

use crate::{
    common::{
        engine::with_engine,
        hex,
        packets::{Frame, Ip, eth, udp},
        vif,
    },
    net::{
        CE1_DOWN, CE1_MAC, CE1_UP, CE1_WAN, CLIENT, NAT_T, Net, Pair, RE_MAC, RE_WAN, SERVER, TUNNELS, WAN, ce1, ce2,
        re, to, tunnel,
    },
};

/// Walk A with an engine at CE1, and one tunnel there; what CE1 offers at once.
fn with_nic() -> (Net, Vec<Offer>) {
    let ce1 = crate::common::walk_a::altered(&ce1(), &[("\"outboundSas\": [18]", "\"outboundSas\": []")]);
    let mut net = Net::with(&ce1, &re(), &ce2(), MachineConfig::default());
    net.ce1 = crate::common::Node::with(&ce1, with_engine());
    // Offers go out with the first turn.
    net.ce1.wait(100);
    let offers = offers(&mut net);
    (net, offers)
}

#[derive(Debug, Clone)]
struct Offer {
    id: OfferId,
    sa: u32,
    numbers: Range<u64>,
}

fn asked(net: &mut Net) -> Vec<Request> {
    let mut asked = net.ce1.machine.take_offload_requests();
    asked.retain(|request| request.id().is_none());
    asked
}

fn offers(net: &mut Net) -> Vec<Offer> {
    let offer = |request: Request| match request {
        Request::Offer { offer, sa, numbers, .. } => Some(Offer { id: offer, sa: sa.id.get(), numbers }),
        _ => None,
    };
    asked(net).into_iter().filter_map(offer).collect()
}

fn of(offers: &[Offer], pair: Pair) -> Offer {
    offers.iter().find(|offer| offer.sa == pair.0).unwrap_or_else(|| panic!("{pair:?} is not in {offers:?}")).clone()
}

fn held(net: &mut Net, offer: &Offer, session: u32) {
    net.ce1.report(Report::SaHeld { offer: offer.id, mode: SaMode::Protocol, session, port: vif(WAN) });
}

fn status(net: &Net, pair: Pair) -> SaStatus {
    net.ce1.machine.workers()[0].sas().into_iter().find(|sa| sa.id.get() == pair.0).unwrap()
}

/// A packet of the walk, with a NIC that only ciphers.
#[test]
fn with_inline_crypto_software_builds_esp_and_the_nic_enciphers() {
    let (mut net, offers) = with_nic();
    let (outbound, inbound) = (of(&offers, CE1_UP[0]), of(&offers, CE1_DOWN[0]));
    net.to_server(&ping(5000));
    for (offer, session) in [(&outbound, 4), (&inbound, 5)] {
        net.ce1.report(Report::SaHeld { offer: offer.id, mode: SaMode::Crypto, session, port: vif(WAN) });
    }
    let sent = net.from_client(&ping(5000));
    assert_eq!(sent[0].packet.note(), NicNote::Session(4));
    let ip = Frame::read(sent[0].packet.data()).ip();
    assert_eq!((ip.ports(), number(&sent)), ((4500, 4500), 2));
    let clear = ip.body.windows(6).any(|octets| octets == b"inside");
    assert!(clear, "the NIC enciphers it");
    assert_eq!(status(&net, CE1_UP[0]).packets, 2, "software counts");
    // What comes deciphered is not deciphered once more; what comes sealed is.
    let (sealed, inside) = answer(&mut net, 5000);
    let mut deciphered = sealed.clone();
    let text = 14 + 20 + 8 + 16;
    deciphered[text..text + inside.len()].copy_from_slice(&inside);
    let end = text + inside.len();
    let padding = (inside.len() + 2).wrapping_neg() % 4;
    for at in 0..padding {
        deciphered[end + at] = at as u8 + 1;
    }
    deciphered[end + padding..end + padding + 2].copy_from_slice(&[padding as u8, 4]);
    assert_eq!(receive_noted(&mut net, &deciphered, NicNote::Deciphered).len(), 1);
    assert!(receive_noted(&mut net, &deciphered, NicNote::Deciphered).is_empty());
    let (sealed, _) = answer(&mut net, 5000);
    assert_eq!(net.ce1.receive(WAN, &sealed).len(), 1);
    assert_eq!(net.ce1.all_drops(), [("ESP Replay Duplicate", 1)]);
}

fn ping(port: u16) -> Vec<u8> {
    udp(CLIENT, SERVER, port, 53, b"inside").ip()
}

/// The sequence number of what CE1 sent, when it sealed it itself.
fn number(sent: &[Sent]) -> u64 {
    let ip = Frame::read(sent[0].packet.data()).ip();
    u32::from_be_bytes(ip.body[12..16].try_into().unwrap()).into()
}

fn receive_noted(net: &mut Net, frame: &[u8], note: NicNote) -> Vec<Sent> {
    let mut packet = Packet::from_frame(frame);
    packet.set_note(note);
    net.ce1.now += 1;
    let now = net.ce1.now;
    net.ce1.machine.receive(vif(WAN), 0, &mut vec![packet], now);
    let sent = net.ce1.machine.take_sent();
    net.ce1.check_account();
    sent
}

/// What the server's answer is when it comes to CE1, sealed, and what was in it.
fn answer(net: &mut Net, port: u16) -> (Vec<u8>, Vec<u8>) {
    let sent = net.ce2.receive(
        crate::net::LAN,
        &eth(crate::common::packets::VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &udp(SERVER, CLIENT, 53, port, b"back").ip()),
    );
    let sealed = net.re.receive(WAN, sent[0].packet.data());
    let sealed = sealed[0].packet.data().to_vec();
    let mut esp = Frame::read(&sealed).ip().body[8..].to_vec();
    let key = Key::new(&hex(&CE1_DOWN[0].key())).unwrap();
    let config = InboundConfig { spi: CE1_DOWN[0].spi(), key, esn: true, window: 64 };
    let Ok(Opened::Packet { at, len }) = InboundSa::new(&config).unwrap().open(&mut esp) else {
        panic!("not of the first tunnel")
    };
    (sealed, esp[at..at + len].to_vec())
}

fn one_way_back() -> Net {
    let (mut net, offers) = with_nic();
    // The regional edge answers by its first tunnel alone.
    let first = tunnel(11, RE_WAN[0], CE1_WAN, (&[CE1_DOWN[0]], &[CE1_UP[0]]), NAT_T);
    let second = tunnel(12, RE_WAN[1], CE1_WAN, (&[], &[CE1_UP[1]]), NAT_T);
    net.re.change(&format!(r#"{{"vifs": [{first}, {second}]}}"#));
    let inbound = of(&offers, CE1_DOWN[0]);
    net.to_server(&ping(5000));
    held(&mut net, &inbound, 3);
    net
}

#[test]
fn every_sa_in_use_is_offered_once_and_the_nic_gets_numbers_of_its_own() {
    let (mut net, offers) = with_nic();
    let mut sas: Vec<u32> = offers.iter().map(|offer| offer.sa).collect();
    sas.sort_unstable();
    assert_eq!(sas, [CE1_UP[0].0, CE1_DOWN[0].0, CE1_DOWN[1].0]);
    let outbound = of(&offers, CE1_UP[0]);
    let granted = status(&net, CE1_UP[0]).reserved_until;
    assert!(outbound.numbers.start > 1 && outbound.numbers.end < granted, "{outbound:?} of {granted}");
    assert_eq!(of(&offers, CE1_DOWN[0]).numbers.start, 1);
    assert_eq!(status(&net, CE1_UP[0]).nic, Err(NotHeld::Pending));
    net.ce1.wait(5000);
    assert!(super::nic::offers(&mut net).is_empty());
    // Without an engine nobody is asked.
    let mut plain = Net::default();
    plain.ce1.wait(2000);
    assert!(super::nic::offers(&mut plain).is_empty());
    assert_eq!(status(&plain, CE1_UP[0]).nic, Err(NotHeld::NoHardware));
}

#[test]
fn an_sa_in_the_nic_gets_whole_packets_and_returns_after_its_numbers() {
    let (mut net, offers) = with_nic();
    let outbound = of(&offers, CE1_UP[0]);
    let sent = net.from_client(&ping(5000));
    let before = number(&sent);
    assert!(before < outbound.numbers.start);
    assert_eq!(net.carry(sent).len(), 1);
    held(&mut net, &outbound, 7);
    assert!(matches!(asked(&mut net)[..], [Request::Confirm { offer }] if offer == outbound.id));
    let sent = net.from_client(&ping(5000));
    assert_eq!(sent[0].packet.note(), NicNote::Session(7));
    let frame = Frame::read(sent[0].packet.data());
    assert_eq!((frame.destination, frame.ip().proto), (RE_MAC, 17), "MPLS over UDP behind the Ethernet header");
    // What the NIC does counts as if software had done it.
    net.ce1.report(Report::SaCounted { offer: outbound.id, packets: 10, bytes: 1000, refused: 0 });
    assert_eq!(status(&net, CE1_UP[0]).packets, 11);
    assert_eq!(status(&net, CE1_UP[0]).nic, Ok(SaMode::Protocol));
    // The engine wants it back.
    net.ce1.report(Report::SaLeave { offer: outbound.id });
    assert!(matches!(asked(&mut net)[..], [Request::Return { at_once: false, .. }]));
    let sent = net.from_client(&ping(5000));
    assert!(number(&sent) >= outbound.numbers.end, "never a number of the NIC's");
    assert_eq!(net.carry(sent).len(), 1);
    net.ce1.report(Report::SaGone { offer: outbound.id, reason: NotHeld::Off });
    let sent = net.from_client(&ping(5000));
    assert_eq!(number(&sent), outbound.numbers.end + 1);
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}

#[test]
fn a_refused_sa_stays_in_software_and_is_offered_with_fresh_numbers() {
    let (mut net, offers) = with_nic();
    let outbound = of(&offers, CE1_UP[0]);
    net.ce1.report(Report::SaGone { offer: outbound.id, reason: NotHeld::Lost });
    let sent = net.from_client(&ping(5000));
    assert_eq!(net.carry(sent).len(), 1);
    assert_eq!(status(&net, CE1_UP[0]).nic, Err(NotHeld::Lost));
    net.ce1.wait(2500);
    let again = of(&super::nic::offers(&mut net), CE1_UP[0]);
    assert_ne!(again.id, outbound.id);
    // A late word about the first offer changes nothing.
    net.ce1.report(Report::SaHeld { offer: outbound.id, mode: SaMode::Protocol, session: 1, port: vif(WAN) });
    let sent = net.from_client(&ping(5000));
    assert_eq!(sent[0].packet.note(), NicNote::None);
}

#[test]
fn a_packet_opened_by_the_nic_is_treated_as_out_of_its_tunnel() {
    let mut net = one_way_back();
    let (_, inside) = answer(&mut net, 5000);
    let tunnel = vif(TUNNELS[0]);
    let sent = receive_noted(&mut net, &to(CE1_MAC, &inside), NicNote::Opened(tunnel));
    assert_eq!(sent.len(), 1, "{:?}", net.ce1.all_drops());
    assert_eq!(Frame::read(sent[0].packet.data()).ip().body[8..], *b"back");
    let mut counters = net.ce1.machine.counters().0;
    let mut rx = |id: VifId| counters.vif(id).map_or((0, 0), |vif| (vif.rx_packets, vif.rx_bytes));
    assert_eq!(rx(tunnel), (1, inside.len() as u64));
    assert_eq!(rx(vif(WAN)), (1, inside.len() as u64 + 14));
    // Of a tunnel that is not there, and refused by the NIC.
    receive_noted(&mut net, &to(CE1_MAC, &inside), NicNote::Opened(vif(999)));
    receive_noted(&mut net, &to(CE1_MAC, &inside), NicNote::Refused);
    assert_eq!(net.ce1.all_drops(), [("Invalid IF", 1), ("ESP Refused by NIC", 1)]);
}

#[test]
fn software_opens_nothing_while_the_nic_has_the_window_nor_twice_after() {
    let mut net = one_way_back();
    let (first, _) = answer(&mut net, 5000);
    let (second, _) = answer(&mut net, 5000);
    // Still on its way when the rule came.
    assert_eq!(net.ce1.receive(WAN, &first).len(), 1);
    net.ce1.wait(1500);
    assert!(net.ce1.receive(WAN, &second).is_empty());
    assert_eq!(net.ce1.all_drops(), [("ESP Beside NIC", 1)]);
    // The NIC has received two, and gives the SA back.
    let id = OfferId { worker: 0, serial: net_serial(&net) };
    net.ce1.report(Report::SaCounted { offer: id, packets: 2, bytes: 100, refused: 0 });
    net.ce1.report(Report::SaLeave { offer: id });
    net.ce1.report(Report::SaGone { offer: id, reason: NotHeld::Off });
    for replayed in [&first, &second] {
        assert!(net.ce1.receive(WAN, replayed).is_empty());
    }
    let (third, _) = answer(&mut net, 5000);
    assert_eq!(net.ce1.receive(WAN, &third).len(), 1);
    assert_eq!(net.ce1.all_drops(), [("ESP Replay Duplicate", 2), ("ESP Beside NIC", 1)]);
}

#[test]
fn a_genuine_packet_beside_the_rule_takes_the_sa_back_for_ever_longer() {
    let mut net = one_way_back();
    net.ce1.wait(1500);
    asked(&mut net);
    let (genuine, _) = answer(&mut net, 5000);
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(net.ce1.receive(WAN, &forged).is_empty());
    net.ce1.wait(200);
    assert!(asked(&mut net).is_empty(), "whoever can send a frame could switch the NIC off");
    let id = OfferId { worker: 0, serial: net_serial(&net) };
    assert!(net.ce1.receive(WAN, &genuine).is_empty());
    net.ce1.wait(200);
    assert!(matches!(asked(&mut net)[..], [Request::Return { offer, at_once: false }] if offer == id));
    net.ce1.report(Report::SaGone { offer: id, reason: NotHeld::Pending });
    assert_eq!(status(&net, CE1_DOWN[0]).nic, Err(NotHeld::Underlay));
    let (next, _) = answer(&mut net, 5000);
    assert_eq!(net.ce1.receive(WAN, &next).len(), 1, "software has it");
    // And once more, after a second.
    net.ce1.wait(1000);
    let again = offers(&mut net).into_iter().find(|offer| offer.sa == CE1_DOWN[0].0).unwrap();
    held(&mut net, &again, 3);
    net.ce1.wait(1500);
    let (beside, _) = answer(&mut net, 5000);
    assert!(net.ce1.receive(WAN, &beside).is_empty());
    net.ce1.report(Report::SaGone { offer: again.id, reason: NotHeld::Pending });
    asked(&mut net);
    net.ce1.wait(1500);
    assert!(offers(&mut net).is_empty(), "two seconds now");
    net.ce1.wait(1000);
    assert_eq!(offers(&mut net).len(), 1);
}

#[test]
fn an_sa_is_offered_soon_after_a_closed_port_and_rarely_when_refused() {
    let (mut net, first) = with_nic();
    net.ce1.report(Report::SaGone { offer: of(&first, CE1_UP[0]).id, reason: NotHeld::Underlay });
    net.ce1.report(Report::SaGone { offer: of(&first, CE1_DOWN[0]).id, reason: NotHeld::Unsupported });
    net.ce1.wait(2500);
    let again: Vec<u32> = offers(&mut net).into_iter().map(|offer| offer.sa).collect();
    assert_eq!(again, [CE1_UP[0].0]);
    net.ce1.wait(60_000);
    assert!(offers(&mut net).iter().any(|offer| offer.sa == CE1_DOWN[0].0));
}

/// The serial number of the offer of the first inbound SA.
fn net_serial(net: &Net) -> u32 {
    let _ = net;
    with_nic().1.iter().find(|offer| offer.sa == CE1_DOWN[0].0).unwrap().id.serial
}

#[test]
fn packets_the_nic_encapsulated_are_sealed_in_software_and_counted_once() {
    let (mut net, _) = with_nic();
    let before = net.ce1.machine.account();
    let ready = to(RE_MAC, &udp("10.101.10.39", "10.101.9.245", 50_000, 6635, &hex("00118140")).ip());
    let sent = receive_noted(&mut net, &ready, NicNote::ToSeal(vif(TUNNELS[0])));
    let frame = Frame::read(sent[0].packet.data());
    assert_eq!((frame.destination, frame.ip().ports()), (RE_MAC, (4500, 4500)));
    let after = net.ce1.machine.account();
    assert_eq!((after.received, after.forwarded), (before.received, before.forwarded), "a rule has counted it");
    // And where even that cannot be, it is lost under a name.
    let first = tunnel(TUNNELS[0], CE1_WAN, RE_WAN[0], (&[], &[CE1_DOWN[0]]), NAT_T);
    net.ce1.change(&format!(r#"{{"vifs": [{first}]}}"#));
    assert!(receive_noted(&mut net, &ready, NicNote::ToSeal(vif(TUNNELS[0]))).is_empty());
    assert_eq!(net.ce1.all_drops(), [("No SA", 1)]);
}

#[test]
fn a_rekey_returns_the_old_sa_and_an_expired_one_is_taken_at_once() {
    let (mut net, offers) = with_nic();
    let old = of(&offers, CE1_UP[0]);
    held(&mut net, &old, 7);
    asked(&mut net);
    let up = Pair(0x100);
    let with_new = tunnel(TUNNELS[0], CE1_WAN, RE_WAN[0], (&[up], &[CE1_DOWN[0]]), NAT_T);
    let sa = up.outbound_with(r#", "hard": {"packets": "100"}"#);
    net.ce1.change(&format!(r#"{{"vifs": [{with_new}], "sas": [{sa}], "removeSas": [{}]}}"#, CE1_UP[0].0));
    net.ce1.wait(100);
    let asked_now = asked(&mut net);
    assert!(matches!(asked_now[0], Request::Return { offer, at_once: false } if offer == old.id), "{asked_now:?}");
    let Some(Request::Offer { offer, left, .. }) = asked_now.iter().find(|r| matches!(r, Request::Offer { .. })) else {
        panic!("{asked_now:?}")
    };
    assert_eq!(left.packets, 100);
    let new = *offer;
    net.ce1.report(Report::SaHeld { offer: new, mode: SaMode::Protocol, session: 8, port: vif(WAN) });
    asked(&mut net);
    net.ce1.report(Report::SaCounted { offer: new, packets: 100, bytes: 5000, refused: 0 });
    assert!(matches!(asked(&mut net)[..], [Request::Return { offer, at_once: true }] if offer == new));
    assert!(net.from_client(&ping(5000)).is_empty(), "the tunnel is down");
}

#[test]
fn switched_off_all_come_back_and_switched_on_all_are_offered_again() {
    let (mut net, offers) = with_nic();
    for (session, offer) in (1..).zip(&offers) {
        held(&mut net, offer, session);
    }
    asked(&mut net);
    net.ce1.machine.offload_enabled(false);
    net.ce1.wait(100);
    assert_eq!(asked(&mut net).iter().filter(|request| matches!(request, Request::Return { .. })).count(), 3);
    for offer in &offers {
        net.ce1.report(Report::SaGone { offer: offer.id, reason: NotHeld::Off });
    }
    net.to_server(&ping(5000));
    net.ce1.wait(5000);
    assert!(super::nic::offers(&mut net).is_empty());
    net.ce1.machine.offload_enabled(true);
    net.ce1.wait(1500);
    assert_eq!(super::nic::offers(&mut net).len(), 3);
}

#[test]
fn what_leaves_by_another_port_than_the_sessions_is_sealed_in_software() {
    let (mut net, offers) = with_nic();
    let outbound = of(&offers, CE1_UP[0]);
    net.ce1.report(Report::SaHeld { offer: outbound.id, mode: SaMode::Protocol, session: 7, port: vif(99) });
    let sent = net.from_client(&ping(5000));
    assert_eq!(sent[0].packet.note(), NicNote::None);
    let wire: Ip = Frame::read(sent[0].packet.data()).ip();
    assert_eq!(wire.ports(), (4500, 4500));
}

#[test]
fn a_late_session_is_declined_and_no_number_is_used_twice() {
    let mut net = Net {
        ce1: crate::common::Node::with(&ce1(), MachineConfig { answered_at_once: true, ..with_engine() }),
        ..Net::default()
    };
    net.ce1.wait(100);
    let outbound = of(&offers(&mut net), CE1_UP[0]);
    assert_eq!(outbound.numbers.start, 1, "nothing is set aside for the time until the answer");
    let sealed =
        |net: &mut Net| -> Vec<u64> { (5000..5032).map(|port| number(&net.from_client(&ping(port)))).collect() };
    let used = sealed(&mut net);
    held(&mut net, &outbound, 7);
    assert!(matches!(asked(&mut net)[..], [Request::Return { offer, .. }] if offer == outbound.id), "not confirmed");
    net.ce1.report(Report::SaGone { offer: outbound.id, reason: NotHeld::Pending });
    let more = sealed(&mut net);
    assert!(used.iter().max() < more.iter().max());
    net.ce1.wait(2500);
    let again = of(&offers(&mut net), CE1_UP[0]);
    assert!(again.numbers.start > *more.iter().max().unwrap(), "{:?}", again.numbers);
    held(&mut net, &again, 8);
    assert!(matches!(asked(&mut net)[..], [Request::Confirm { offer }] if offer == again.id));
}

/// RFC 4301 §5.2: what came protected is told by the tunnel that it came out of; without one it is no packet of the underlay's.
#[test]
fn a_packet_that_the_nic_has_opened_without_naming_the_tunnel_is_dropped() {
    let (mut net, _) = with_nic();
    let clear = to(CE1_MAC, &udp("103.135.56.40", CE1_WAN, 500, 500, b"hello").ip());
    assert_eq!(receive_noted(&mut net, &clear, NicNote::None).len(), 1, "to the host");
    assert!(receive_noted(&mut net, &clear, NicNote::Deciphered).is_empty());
    assert_eq!(net.ce1.all_drops(), [("ESP Refused by NIC", 1)]);
}
