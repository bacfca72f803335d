//! Sessions of IPsec, against ESP that is sealed here by RFC 4303 and 4106.

use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit, Nonce};
use nic_twin::model::{
    Action, Cause, Command, EINVAL, ENOSPC, ENOTSUP, Expiry, Frame, Item, ItemKind, Limits, NO_SESSION, Nic, Outcome,
    OuterHeader, Profile, SessionConfig, SessionKind, SessionWay,
};

use crate::kit::{INGRESS, eth, insert, ipv4, ipv6, nic, nic_of, plain, receive};

const PROTOCOL: SessionKind = SessionKind::InlineProtocol;
const CRYPTO: SessionKind = SessionKind::InlineCrypto;
/// The application's number of the one session.
const ONE: u64 = 5;
const SPI: u32 = 0x1234;

fn config(kind: SessionKind, way: SessionWay) -> SessionConfig {
    SessionConfig {
        kind,
        way,
        spi: SPI,
        key: vec![7; 32],
        salt: [1, 2, 3, 4],
        iv: None,
        esn: kind == PROTOCOL,
        ecn: kind == PROTOCOL,
        first: 1,
        window: 64,
        outer: OuterHeader { source: [192, 0, 2, 1], destination: [192, 0, 2, 2], ttl: 64, ..OuterHeader::default() },
        soft: Limits::default(),
        hard: Limits::default(),
        userdata: 9,
    }
}

/// A NIC with the one session, and a rule that opens ESP with it where it receives.
fn with(change: impl FnOnce(&mut SessionConfig), kind: SessionKind, way: SessionWay) -> Nic {
    let mut nic = nic();
    let mut config = config(kind, way);
    change(&mut config);
    nic.open_session(ONE, config).unwrap();
    if way == SessionWay::Ingress {
        let pattern = [plain(ItemKind::Eth), plain(ItemKind::Ipv4), plain(ItemKind::Esp)];
        insert(&mut nic, INGRESS, &pattern, &[Action::Security(ONE), Action::Mark(3), Action::Queue(0)]).unwrap();
    }
    nic
}

fn inner(octets: usize) -> Vec<u8> {
    ipv4([10, 0, 0, 1], [10, 0, 0, 2], 253, 64, &vec![0xab; octets])
}

/// SPI, sequence number, IV.
fn esp_header(number: u64) -> Vec<u8> {
    [&SPI.to_be_bytes()[..], &(number as u32).to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The text sealed: what follows the header, with the check value.
fn enciphered(number: u64, esn: bool, text: &[u8]) -> Vec<u8> {
    let low = (number as u32).to_be_bytes();
    let aad = if esn { [&SPI.to_be_bytes()[..], &number.to_be_bytes()] } else { [&SPI.to_be_bytes()[..], &low] };
    let nonce = [&[1, 2, 3, 4][..], &number.to_be_bytes()].concat();
    let mut text = text.to_vec();
    let cipher = Aes256Gcm::new_from_slice(&[7; 32]).unwrap();
    let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &aad.concat(), &mut text).unwrap();
    [&text[..], &tag].concat()
}

/// A frame of ESP around what is given, with this padding.
fn sealed_with(number: u64, esn: bool, inner: &[u8], padding: &[u8], next: u8) -> Vec<u8> {
    let text = [inner, padding, &[padding.len() as u8, next]].concat();
    let esp = [esp_header(number), enciphered(number, esn, &text)].concat();
    eth(0x0800, &ipv4([192, 0, 2, 2], [192, 0, 2, 1], 50, 64, &esp))
}

fn sealed(number: u64, esn: bool, inner: &[u8]) -> Vec<u8> {
    let padding: Vec<u8> = (1..=((4 - (inner.len() + 2) % 4) % 4) as u8).collect();
    sealed_with(number, esn, inner, &padding, 4)
}

/// Was it opened (`Some(true)`), or refused by the session?
fn opened(nic: &mut Nic, frame: &[u8]) -> Option<bool> {
    match receive(nic, frame).0 {
        Outcome::ToSoftware(delivery) => delivery.security.map(|(_, done)| done),
        other => panic!("{other:?}"),
    }
}

/// Sent with the one session: sequence number and IV of what leaves.
fn sent(nic: &mut Nic) -> Option<(u32, u64)> {
    let mut frame = Frame::new(&eth(0x0800, &inner(40)));
    nic.transmit_sealed(ONE, &mut frame, 14).then(|| {
        let sent = frame.bytes();
        let iv = u64::from_be_bytes(sent[42..50].try_into().unwrap());
        (u32::from_be_bytes(sent[38..42].try_into().unwrap()), iv)
    })
}

#[test]
fn what_is_to_be_sealed_and_names_no_session_is_dropped_and_counted() {
    let mut nic = with(|_| {}, PROTOCOL, SessionWay::Egress);
    let clear = eth(0x0800, &inner(40));
    for number in [NO_SESSION, ONE + 1] {
        assert!(!nic.transmit_sealed(number, &mut Frame::new(&clear), 14), "{number}");
    }
    assert_eq!(nic.stats().dropped, 2);
    // No session can have the number that says "none".
    assert_eq!(nic.open_session(NO_SESSION, config(PROTOCOL, SessionWay::Egress)), Err(EINVAL));
}

#[test]
fn sending_stops_at_the_last_number_and_the_event_tells_it() {
    for (esn, last) in [(true, u64::MAX), (false, u64::from(u32::MAX))] {
        let change = |config: &mut SessionConfig| (config.esn, config.first) = (esn, last - 1);
        let mut nic = with(change, PROTOCOL, SessionWay::Egress);
        for number in [last - 1, last] {
            assert_eq!(sent(&mut nic), Some((number as u32, number)), "ESN {esn}");
        }
        assert_eq!(nic.take_expiries(), [], "ESN {esn}");
        for _ in 0..2 {
            assert_eq!(sent(&mut nic), None, "ESN {esn}: there is no next number");
        }
        assert_eq!(nic.take_expiries(), [(9, Expiry::Numbers)], "ESN {esn}");
        assert_eq!(nic.session_stats(ONE).unwrap().beyond, 2, "ESN {esn}");
        assert_eq!(nic.renumber_session(ONE, 1), Err(EINVAL), "ESN {esn}: all were used");
    }
}

#[test]
fn a_session_is_renumbered_forwards_alone() {
    let mut nic = with(|_| {}, PROTOCOL, SessionWay::Egress);
    assert_eq!(sent(&mut nic), Some((1, 1)));
    assert_eq!(nic.renumber_session(ONE, 1), Err(EINVAL), "its nonce was used");
    assert_eq!(nic.renumber_session(ONE, 0), Err(EINVAL), "0 counts as 1");
    assert_eq!(nic.renumber_session(ONE, 7), Ok(()));
    assert_eq!(sent(&mut nic), Some((7, 7)));
    assert_eq!(nic.renumber_session(ONE, 7), Err(EINVAL));
    assert_eq!(sent(&mut nic), Some((8, 8)), "a refused number changes nothing");
    // With an IV from outside the nonce does not come from the number.
    let mut nic = with(|config| config.iv = Some([0, 0, 0, 0, 0, 0, 1, 2]), PROTOCOL, SessionWay::Egress);
    assert_eq!(nic.renumber_session(ONE, 7), Ok(()));
    assert_eq!(sent(&mut nic), Some((7, 0x102)));
    assert_eq!(nic.renumber_session(ONE, 2), Ok(()));
    assert_eq!(sent(&mut nic), Some((2, 0x102)));
}

#[test]
fn forged_numbers_at_the_end_of_all_numbers_are_refused() {
    for window in [0, 1, 64, 4096] {
        for first in [u64::MAX, u64::MAX - 500, u64::MAX - (1 << 32)] {
            let change = |config: &mut SessionConfig| (config.first, config.window) = (first, window);
            let mut nic = with(change, PROTOCOL, SessionWay::Ingress);
            for low in [0, 1, 0x7fff_ffff, u64::from(u32::MAX)] {
                let mut forged = sealed(low, true, &inner(40));
                *forged.last_mut().unwrap() ^= 1;
                assert_eq!(opened(&mut nic, &forged), Some(false), "window {window}, first {first:#x}, {low:#x}");
            }
            assert_eq!(opened(&mut nic, &sealed(first, true, &inner(40))), Some(true), "window {window}, {first:#x}");
        }
    }
    let change = |config: &mut SessionConfig| (config.esn, config.first) = (false, u32::MAX.into());
    let mut nic = with(change, PROTOCOL, SessionWay::Ingress);
    let last = u64::from(u32::MAX);
    let got = [last, 0, last].map(|number| opened(&mut nic, &sealed(number, false, &inner(20))));
    assert_eq!(got, [Some(true), Some(false), Some(false)]);
}

#[test]
fn inline_crypto_seals_what_is_behind_either_outer_header() {
    let mut nic = with(|_| {}, CRYPTO, SessionWay::Egress);
    // Software has written header and trailer, and left room for the check value.
    let text = [&inner(40)[..], &[1, 2, 2, 4]].concat();
    let esp = [&esp_header(1)[..], &text, &[0; 16]].concat();
    let udp = [&[0x11, 0x94, 0x11, 0x94, 0, 8 + esp.len() as u8, 0, 0][..], &esp].concat();
    // A destination options header of 8 octets before it.
    let extended = [&[50, 0, 1, 4, 0, 0, 0, 0][..], &esp].concat();
    for (built, behind) in [
        (eth(0x0800, &ipv4([192, 0, 2, 1], [192, 0, 2, 2], 50, 64, &esp)), 20),
        (eth(0x0800, &ipv4([192, 0, 2, 1], [192, 0, 2, 2], 17, 64, &udp)), 28),
        (eth(0x86dd, &ipv6([0x20; 16], [0x2f; 16], 50, 64, &esp)), 40),
        (eth(0x86dd, &ipv6([0x20; 16], [0x2f; 16], 60, 64, &extended)), 48),
    ] {
        let mut frame = Frame::new(&built);
        assert!(nic.transmit_sealed(ONE, &mut frame, 14), "{behind}");
        let (head, rest) = frame.bytes().split_at(14 + behind + 16);
        assert_eq!(head, &built[..head.len()], "headers {behind}");
        assert_eq!(rest, enciphered(1, false, &text), "text {behind}");
    }
    // A datagram over IPv6 has a checksum over what is sealed later; and where no ESP is there is nothing to seal.
    for (no, why) in [
        (eth(0x86dd, &ipv6([0x20; 16], [0x2f; 16], 17, 64, &udp)), "UDP over IPv6"),
        (eth(0x86dd, &ipv6([0x20; 16], [0x2f; 16], 6, 64, &esp)), "TCP"),
        (eth(0x0800, &ipv4([192, 0, 2, 1], [192, 0, 2, 2], 6, 64, &esp)), "TCP"),
    ] {
        assert!(!nic.transmit_sealed(ONE, &mut Frame::new(&no), 14), "{why}");
    }
}

#[test]
fn inline_crypto_has_no_extended_numbers() {
    for way in [SessionWay::Ingress, SessionWay::Egress] {
        let asked = SessionConfig { esn: true, ..config(CRYPTO, way) };
        assert_eq!(nic().open_session(ONE, asked), Err(ENOTSUP), "{way:?}");
    }
}

#[test]
fn a_whole_packet_is_opened_and_no_truncated_one() {
    let frame = sealed(1, true, &inner(41));
    let mut nic = with(|_| {}, PROTOCOL, SessionWay::Ingress);
    for length in 0..frame.len() {
        let cut = &frame[..length];
        let (outcome, after) = receive(&mut nic, cut);
        let Outcome::ToSoftware(delivery) = outcome else { continue };
        assert!(delivery.security != Some((ONE, true)), "{length}");
        assert_eq!(after, cut, "{length}");
    }
    let (Outcome::ToSoftware(delivery), after) = receive(&mut nic, &frame) else { panic!("not delivered") };
    assert_eq!((delivery.security, delivery.mark), (Some((ONE, true)), Some(3)));
    assert_eq!(after[14..], inner(41));
}

#[test]
fn each_flipped_bit_is_refused_and_the_window_stays() {
    let frame = sealed(3, true, &inner(41));
    let mut nic = with(|_| {}, PROTOCOL, SessionWay::Ingress);
    for (at, bit) in (34..frame.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = frame.clone();
        flipped[at] ^= 1 << bit;
        let (Outcome::ToSoftware(delivery), after) = receive(&mut nic, &flipped) else { continue };
        assert!(delivery.security != Some((ONE, true)) && delivery.mark.is_none(), "octet {at}, bit {bit}");
        assert_eq!(after, flipped, "octet {at}, bit {bit}");
    }
    assert_eq!(opened(&mut nic, &frame), Some(true));
}

#[test]
fn wrong_padding_and_what_is_no_ip_are_refused() {
    for (padding, next) in [(&[9_u8, 9][..], 4), (&[1, 2], 6), (&[1, 2], 41)] {
        let mut nic = with(|_| {}, PROTOCOL, SessionWay::Ingress);
        let frame = sealed_with(1, true, &inner(40), padding, next);
        assert_eq!(opened(&mut nic, &frame), Some(false), "{padding:?}, next header {next}");
    }
}

#[test]
fn a_profile_with_sessions_takes_a_rule_with_one() {
    let (spec, mask) = ([0, 0, 0x12, 0x34, 0, 0, 0, 0], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let pattern = [plain(ItemKind::Eth), plain(ItemKind::Ipv4), Item::masked(ItemKind::Esp, &spec, &mask)];
    let mut with_sessions = Vec::new();
    for name in Profile::names() {
        let profile = Profile::named(name).unwrap();
        for kind in profile.sessions {
            let mut nic = nic_of(name);
            let key = vec![7; profile.max_key];
            let asked = SessionConfig { esn: false, key, ..config(*kind, SessionWay::Ingress) };
            assert_eq!(nic.open_session(ONE, asked), Ok(()), "{name}");
            let rule = insert(&mut nic, INGRESS, &pattern, &[Action::Security(ONE)]);
            assert!(rule.is_ok(), "{name}: {rule:?}");
            with_sessions.push((name, *kind, profile.max_sessions));
        }
    }
    let wanted = [
        ("twin", CRYPTO, 1 << 20),
        ("twin", PROTOCOL, 1 << 20),
        ("cnxk", PROTOCOL, 4096),
        ("iavf", CRYPTO, 1024),
        ("ixgbe", CRYPTO, 1024),
        ("txgbe", CRYPTO, 1024),
    ];
    assert_eq!(with_sessions, wanted);
}

fn with_session(name: &str) -> Nic {
    let profile = Profile::named(name).unwrap();
    let mut nic = nic_of(name);
    let kind = *profile.sessions.last().unwrap();
    let asked = SessionConfig { esn: false, key: vec![7; profile.max_key], ..config(kind, SessionWay::Ingress) };
    nic.open_session(ONE, asked).unwrap();
    nic
}

/// ixgbe_flow.c:223, txgbe_flow.c:189, iavf_ipsec_crypto.c:1721: SECURITY and END. roc_npc.c:606: exactly one terminating action, and
/// SECURITY is one (roc_npc_priv.h:315).
#[test]
fn no_driver_but_the_twins_own_takes_a_fate_behind_security() {
    let esp = [plain(ItemKind::Eth), plain(ItemKind::Ipv4), plain(ItemKind::Esp)];
    for name in ["cnxk", "iavf", "ixgbe", "txgbe"] {
        for fate in [Action::Queue(0), Action::Rss(&[0]), Action::Drop] {
            let error = insert(&mut with_session(name), INGRESS, &esp, &[Action::Security(ONE), fate]).unwrap_err();
            assert_eq!((error.errno, error.cause), (EINVAL, Cause::Action(1)), "{name} {fate:?}");
        }
    }
    let marked = [Action::Mark(3), Action::Security(ONE)];
    assert!(insert(&mut with_session("cnxk"), INGRESS, &esp, &marked).is_ok(), "a mark decides no fate");
    assert_eq!(insert(&mut with_session("ixgbe"), INGRESS, &esp, &marked).unwrap_err().errno, EINVAL);
    assert!(insert(&mut with_session("twin"), INGRESS, &esp, &[Action::Security(ONE), Action::Queue(0)]).is_ok());
}

/// iavf_ipsec_crypto.c:1656 has six patterns; ixgbe's parser looks for an IP item and at nothing else.
#[test]
fn iavf_takes_its_patterns_of_esp_alone() {
    let ask = |name: &str, items: &[ItemKind]| {
        let items: Vec<Item> = items.iter().map(|kind| plain(*kind)).collect();
        insert(&mut with_session(name), INGRESS, &items, &[Action::Security(ONE)]).is_ok()
    };
    use ItemKind::{Esp, Eth, Ipv4, Udp, Vlan};
    assert!(ask("iavf", &[Eth, Ipv4, Esp]) && ask("iavf", &[Eth, Ipv4, Udp, Esp]));
    assert!(!ask("iavf", &[Eth, Vlan, Ipv4, Esp]) && !ask("iavf", &[Ipv4, Esp]) && !ask("iavf", &[Eth, Ipv4]));
    assert!(ask("ixgbe", &[Eth, Vlan, Ipv4, Esp]) && ask("ixgbe", &[Ipv4, Esp]));
    assert!(!ask("ixgbe", &[Eth]));
}

/// ixgbe_flow.c:3432, txgbe_flow.c:3603: a rule of IPsec is of no type that `rte_flow_destroy` knows.
#[test]
fn an_ixgbe_rule_is_destroyed_with_its_session_alone() {
    let esp = [plain(ItemKind::Eth), plain(ItemKind::Ipv4), plain(ItemKind::Esp)];
    for (name, result) in [("ixgbe", Some(EINVAL)), ("txgbe", Some(EINVAL)), ("iavf", None), ("cnxk", None)] {
        let mut nic = with_session(name);
        let rule = insert(&mut nic, INGRESS, &esp, &[Action::Security(ONE)]).unwrap().id;
        assert_eq!(nic.destroy(rule).err().map(|error| error.errno), result, "{name}");
        assert_eq!(nic.close_session(ONE), Ok(()), "{name}");
        assert_eq!(nic.rule_count(), 0, "{name}");
    }
}

#[test]
fn sessions_are_full_each_way_where_the_fault_says_so() {
    let mut nic = nic();
    nic.control(Command::parse("sa_full_at=1").unwrap().unwrap());
    for (number, way, result) in [
        (1, SessionWay::Egress, Ok(())),
        (2, SessionWay::Egress, Err(ENOSPC)),
        (3, SessionWay::Ingress, Ok(())),
        (4, SessionWay::Ingress, Err(ENOSPC)),
    ] {
        assert_eq!(nic.open_session(number, config(PROTOCOL, way)), result, "{number}");
    }
    nic.close_session(1).unwrap();
    assert_eq!(nic.open_session(2, config(PROTOCOL, SessionWay::Egress)), Ok(()));
}
