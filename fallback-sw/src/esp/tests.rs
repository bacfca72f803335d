use std::{collections::HashSet, net::Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::packet::Packet;

const MATERIAL: [u8; 20] = [
    0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08, 0xca, 0xfe, 0xba,
    0xbe,
];

fn pair(esn: bool, window: u32, first: u64) -> (OutboundSa, InboundSa) {
    let key = Key::new(&MATERIAL).unwrap();
    let tunnel = Tunnel::nat_t(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let out = OutboundSa::new(&OutboundConfig { spi: 0x1000, key: key.clone(), esn, first, tunnel });
    (out, InboundSa::new(&InboundConfig { spi: 0x1000, key, esn, window }).unwrap())
}

fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; len.max(20)];
    packet[0] = 0x45;
    packet
}

fn sealed(out: &mut OutboundSa, text: &[u8]) -> Vec<u8> {
    let mut packet = Packet::from_frame(text);
    out.seal(&mut packet, 0, 1, false).unwrap();
    packet.data()[28..].to_vec()
}

#[test]
fn what_was_sealed_opens_at_every_length() {
    for esn in [false, true] {
        let (mut out, mut inside) = pair(esn, 1024, 1);
        for len in 20..200 {
            let text = inner(len);
            let mut esp = sealed(&mut out, &text);
            assert_eq!((esp.len() - HEADER_LEN - IV_LEN - ICV_LEN) % 4, 0);
            let Opened::Packet { at, len } = inside.open(&mut esp).unwrap() else { panic!("a dummy") };
            assert_eq!(&esp[at..at + len], text);
        }
    }
}

#[test]
fn outer_headers_are_those_of_rfc_3948() {
    let (mut out, _) = pair(false, 32, 1);
    let mut packet = Packet::from_frame(&inner(40));
    out.seal(&mut packet, 0xb8, 7, true).unwrap();
    let frame = packet.data();
    // 40 + 2 octets of padding + 2 of trailer, 16 of ESP header and vector, 16 of check value, 28 of IPv4 and UDP.
    assert_eq!(frame.len(), 40 + 2 + 2 + 16 + 16 + 28);
    assert_eq!(&frame[..4], [0x45, 0xb8, 0, 104]);
    assert_eq!(&frame[4..10], [0, 7, 0x40, 0, 64, 17]);
    assert_eq!(&frame[20..28], [0x11, 0x94, 0x11, 0x94, 0, 84, 0, 0]);
    assert_eq!(&frame[28..36], [0, 0, 0x10, 0, 0, 0, 0, 1]);
    assert_eq!(crate::packet::checksum::sum(&frame[..20]), 0xffff);
}

#[test]
fn every_truncation_is_an_error_and_moves_nothing() {
    let (mut out, mut inside) = pair(true, 64, 1);
    let esp = sealed(&mut out, &inner(60));
    for len in 0..esp.len() {
        assert!(inside.open(&mut esp[..len].to_vec()).is_err(), "{len} octets");
    }
    assert_eq!(inside.window().unwrap().top(), 0);
    assert!(inside.open(&mut esp.clone()).is_ok());
}

#[test]
fn a_forged_packet_never_moves_the_window() {
    let (mut out, mut inside) = pair(false, 64, 1);
    let esp = sealed(&mut out, &inner(60));
    for at in 4..esp.len() {
        let mut forged = esp.clone();
        forged[at] ^= 1;
        assert!(inside.open(&mut forged).is_err(), "octet {at}");
    }
    assert_eq!(inside.window().unwrap().top(), 0);
    assert!(inside.open(&mut esp.clone()).is_ok());
    assert_eq!(inside.open(&mut esp.clone()), Err(OpenError::Replay(ReplayError::Seen)));
}

#[test]
fn wrong_padding_and_no_ip_inside_are_told_apart() {
    let (out, mut inside) = pair(false, 64, 1);
    let mut seal_raw = |number: u32, text: &[u8]| {
        let mut esp = [&0x1000_u32.to_be_bytes()[..], &number.to_be_bytes(), &u64::from(number).to_be_bytes()].concat();
        let mut text = text.to_vec();
        let (mut icv, mut buffer) = ([0; ICV_LEN], [0; 12]);
        let key = Key::new(&MATERIAL).unwrap();
        let authenticated = cipher::aad(out.spi(), number.into(), false, &mut buffer);
        Cipher::new(&key).seal(u64::from(number).to_be_bytes(), authenticated, &mut text, &mut icv);
        esp.extend(text);
        esp.extend(icv);
        inside.open(&mut esp)
    };
    let text = |tail: &[u8]| [&inner(20)[..], tail].concat();
    assert_eq!(seal_raw(1, &text(&[1, 2, 2, NEXT_IPV4])), Ok(Opened::Packet { at: 16, len: 20 }));
    assert_eq!(seal_raw(2, &text(&[1, 1, 2, NEXT_IPV4])), Err(OpenError::Padding));
    assert_eq!(seal_raw(3, &text(&[255, NEXT_IPV4])), Err(OpenError::Padding));
    assert_eq!(seal_raw(4, &text(&[0, NEXT_IPV6])), Err(OpenError::NotIp));
    assert_eq!(seal_raw(5, &text(&[0, 6])), Err(OpenError::NotIp));
    assert_eq!(seal_raw(6, &text(&[0, NEXT_NONE])), Ok(Opened::Dummy));
    assert_eq!(seal_raw(7, &[0, NEXT_IPV4]), Err(OpenError::NotIp));
}

#[test]
fn the_last_sequence_number_ends_the_sa() {
    let (mut out, mut inside) = pair(false, 64, u32::MAX.into());
    assert!(inside.open(&mut sealed(&mut out, &inner(40))).is_ok());
    let mut packet = Packet::from_frame(&inner(40));
    assert_eq!(out.seal(&mut packet, 0, 1, false), Err(SealError::Exhausted));
    assert_eq!(packet.data(), inner(40));
}

#[test]
fn extended_numbers_pass_the_end_of_32_bits() {
    let (mut out, mut inside) = pair(true, 128, u64::from(u32::MAX) - 100);
    // The window has to be near: numbers that are not sent are guessed from it.
    for _ in 0..300 {
        assert!(inside.open(&mut sealed(&mut out, &inner(40))).is_ok());
    }
    assert_eq!(inside.window().unwrap().top(), u64::from(u32::MAX) + 199);
}

#[test]
fn port_4500_carries_three_things() {
    assert_eq!(envelope(&[0, 0, 0, 0, 1]), Envelope::Ike);
    assert_eq!(envelope(&[0, 0, 1, 0]), Envelope::Esp(256));
    assert_eq!(envelope(&[0xff]), Envelope::Keepalive);
    assert_eq!(envelope(&[0xff, 1]), Envelope::Invalid);
    assert_eq!(envelope(&[]), Envelope::Invalid);
}

#[test]
fn keys_of_other_lengths_are_refused() {
    for len in 0..64 {
        assert_eq!(Key::new(&vec![1; len]).is_ok(), KEY_MATERIAL.contains(&len), "{len}");
    }
}

#[test]
fn windows_are_multiples_of_32_up_to_4096() {
    for size in 0..5000 {
        assert_eq!(Window::new(size, false).is_ok(), size > 0 && size <= 4096 && size % 32 == 0, "{size}");
    }
}

/// RFC 4303 §3.4.3 as a set: everything ever received.
struct Model {
    size: u64,
    top: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn receive(&mut self, number: u64) -> bool {
        let fits = number > self.top || (self.top - number < self.size && !self.seen.contains(&number));
        if number == 0 || !fits {
            return false;
        }
        self.seen.insert(number);
        self.top = self.top.max(number);
        true
    }
}

pub(super) fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Test cases 4 and 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega, 2005), whose vector of 12 octets is a salt of 4
/// and one of 8 to ESP.
#[test]
fn the_cipher_gives_what_its_specification_says() {
    let text = octets(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let aad = octets("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let key = "feffe9928665731c6d6a8f9467308308";
    for (key, expected, check) in [
        (
            format!("{key}cafebabe"),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            format!("{key}{key}cafebabe"),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ] {
        let cipher = Cipher::new(&Key::new(&octets(&key)).unwrap());
        let iv = octets("facedbaddecaf888").try_into().unwrap();
        let (mut sealed, mut icv) = (text.clone(), [0; ICV_LEN]);
        cipher.seal(iv, &aad, &mut sealed, &mut icv);
        assert_eq!((&sealed, icv.to_vec()), (&octets(expected), octets(check)));
        assert!(cipher.open(iv, &aad, &mut sealed, &icv));
        assert_eq!(sealed, text);
    }
}

/// RFC 4106 written down with another implementation of AES-GCM: what follows the outer headers.
fn oracle(material: &[u8], spi: u32, sequence: u64, esn: bool, inner: &[u8]) -> Vec<u8> {
    use aes_gcm::{
        Aes128Gcm, Aes256Gcm, KeyInit, Nonce,
        aead::{Aead, Payload},
    };
    let (key, salt) = material.split_at(material.len() - 4);
    let padding: Vec<u8> = (1..=((inner.len() + 2).wrapping_neg() % 4) as u8).collect();
    let next = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let text = [inner, &padding, &[padding.len() as u8, next]].concat();
    let number = if esn { sequence.to_be_bytes().to_vec() } else { (sequence as u32).to_be_bytes().to_vec() };
    let aad = [&spi.to_be_bytes()[..], &number].concat();
    let nonce = [salt, &sequence.to_be_bytes()].concat();
    let payload = Payload { msg: &text, aad: &aad };
    let nonce = Nonce::from_slice(&nonce);
    let sealed = match key.len() {
        16 => Aes128Gcm::new_from_slice(key).unwrap().encrypt(nonce, payload).unwrap(),
        _ => Aes256Gcm::new_from_slice(key).unwrap().encrypt(nonce, payload).unwrap(),
    };
    [&spi.to_be_bytes()[..], &(sequence as u32).to_be_bytes(), &sequence.to_be_bytes(), &sealed].concat()
}

proptest! {
    #[test]
    fn esp_is_what_another_implementation_makes_of_it(
        material in prop_oneof![prop::collection::vec(any::<u8>(), 20), prop::collection::vec(any::<u8>(), 36)],
        spi in 256_u32..,
        esn in any::<bool>(),
        first in prop_oneof![1..1_u64 << 32, 1_u64 << 32..1 << 40],
        v6 in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 39..1500),
    ) {
        let first = if esn { first } else { first & 0xffff_ffff | 1 };
        let inner = [&[if v6 { 0x60 } else { 0x45 }][..], &rest].concat();
        let tunnel = Tunnel::nat_t(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let key = Key::new(&material).unwrap();
        let mut out = OutboundSa::new(&OutboundConfig { spi, key, esn, first, tunnel });
        prop_assert_eq!(sealed(&mut out, &inner), oracle(&material, spi, first, esn, &inner));
    }
}

proptest! {
    #[test]
    fn the_window_accepts_what_the_model_accepts(
        words in 1_u32..=128,
        esn in any::<bool>(),
        start in prop_oneof![Just(1_u64), Just(u64::from(u32::MAX) - 3000), Just((1 << 33) - 500)],
        steps in prop::collection::vec(prop_oneof![8 => 0_i64..40, 4 => -80_i64..0, 1 => -5000_i64..5000], 1..600),
    ) {
        let size = words * 32;
        let start = if esn { start } else { start.min(1) };
        let mut window = Window::new(size, esn).unwrap();
        // A window that has been followed from the beginning.
        for number in (0..start).step_by(1 << 31).skip(1).chain([start]) {
            window.update(number);
        }
        let mut model = Model { size: size.into(), top: start, seen: HashSet::from([start]) };
        for step in steps {
            let number = model.top.saturating_add_signed(step);
            if number == 0 || !esn && number > u32::MAX.into() {
                continue;
            }
            let checked = window.check(number as u32);
            // A number so far away that its upper half is guessed otherwise would not authenticate.
            let accepted = checked == Ok(number);
            prop_assert_eq!(accepted, model.receive(number), "{} at top {}: {:?}", number, model.top, checked);
            if accepted {
                window.update(number);
            }
            prop_assert_eq!(window.top(), model.top);
        }
    }
}

/// What may reach a receiver.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// A genuine packet, this far from the highest number so far.
    Genuine(i64),
    /// One with a changed bit.
    Forged(i64, usize),
    /// The beginning of one.
    Truncated(i64, usize),
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let far = || prop_oneof![6 => 0_i64..20, 4 => -120_i64..0, 1 => -5000_i64..5000];
    let one = prop_oneof![
        6 => far().prop_map(Arrival::Genuine),
        2 => (far(), any::<usize>()).prop_map(|(far, at)| Arrival::Forged(far, at)),
        1 => (far(), any::<usize>()).prop_map(|(far, len)| Arrival::Truncated(far, len)),
    ];
    prop::collection::vec(one, 1..120)
}

proptest! {
    /// Whole packets against the model: whatever is mixed in, a genuine packet is accepted exactly once, and nothing else moves the
    /// window.
    #[test]
    fn an_sa_accepts_what_the_model_accepts_whatever_is_forged(
        words in 1_u32..=128,
        esn in any::<bool>(),
        start in prop_oneof![Just(1_u64), Just(u64::from(u32::MAX) - 50), Just((5 << 32) + 10)],
        arrivals in arrivals(),
    ) {
        let start = if esn { start } else { start & 0xffff_ffff };
        let (_, mut inside) = pair(esn, words * 32, 1);
        inside.received_up_to(start);
        let mut model = Model { size: (words * 32).into(), top: start, seen: HashSet::from([start]) };
        for arrival in arrivals {
            let (Arrival::Genuine(far) | Arrival::Forged(far, _) | Arrival::Truncated(far, _)) = arrival;
            let number = model.top.saturating_add_signed(far);
            if number == 0 || !esn && number >= u32::MAX.into() {
                continue;
            }
            let mut esp = sealed(&mut pair(esn, 32, number).0, &inner(40));
            let top = model.top;
            match arrival {
                Arrival::Genuine(_) => prop_assert_eq!(inside.open(&mut esp).is_ok(), model.receive(number)),
                Arrival::Forged(_, at) => {
                    let at = 4 + at % (esp.len() - 4);
                    esp[at] ^= 1;
                    prop_assert!(inside.open(&mut esp).is_err());
                }
                Arrival::Truncated(_, len) => {
                    esp.truncate(len % esp.len());
                    prop_assert!(inside.open(&mut esp).is_err());
                }
            }
            prop_assert_eq!(inside.window().unwrap().top(), model.top);
            prop_assert!(matches!(arrival, Arrival::Genuine(_)) || top == model.top);
        }
    }

    /// A path that delays packets by less than the window costs none.
    #[test]
    fn reordering_up_to_the_window_loses_nothing(
        words in 1_u32..=128,
        esn in any::<bool>(),
        start in prop_oneof![Just(1_u64), Just(u64::from(u32::MAX) - 2000)],
        delays in prop::collection::vec(0.0_f64..1.0, 300..900),
    ) {
        let (size, start) = (words * 32, if esn { start } else { 1 });
        // A packet that is sent at time n arrives at n and its delay: at most `size - 1` later ones are before it.
        let mut order: Vec<(f64, u64)> = delays
            .iter()
            .zip(start..)
            .map(|(delay, number)| ((number - start) as f64 + delay * f64::from(size - 1), number))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut window = Window::new(size, esn).unwrap();
        if start > 1 {
            window.update(start - 1);
        }
        for (_, number) in order {
            prop_assert_eq!(window.check(number as u32), Ok(number));
            window.update(number);
            prop_assert_eq!(window.check(number as u32), Err(ReplayError::Seen));
        }
    }
}

/// A packet that strongSwan 5.9.8 sealed (kernel-libipsec, AES-GCM-256 without ESN): caught with tcpdump on the wire between the
/// ends of the IKE scenarios, the key read from the log of its charon at `chd = 4`. It protected nothing else.
#[test]
fn a_captured_strongswan_packet_opens_with_its_keys() {
    let key = octets("ba335d861dbce966f3a96f808573c9d5c9979b1c8e8a511e0d240c9aad0ac0968e9c6a1e");
    let captured = octets(concat!(
        "c3b1da7f0000000500a7979c4c0c67977334f69c64577c8435ea4594564e7a9ebcad8caed867cd43befed11c0ad64ebb",
        "fc4fa0c6f9061471295225a58dc5e86b794580b7285cd707d6891ef7b373db01e9f6fb6705a05916a9dd82e4a385c979",
        "d9dac0d0e8c01913d415edf55f805cf0f69122eecd815f91",
    ));
    assert_eq!(envelope(&captured), Envelope::Esp(0xc3b1_da7f));
    let config = InboundConfig { spi: 0xc3b1_da7f, key: Key::new(&key).unwrap(), esn: false, window: 64 };
    let mut sa = InboundSa::new(&config).unwrap();
    let mut esp = captured.clone();
    let Opened::Packet { at, len } = sa.open(&mut esp).unwrap() else { panic!("a dummy") };
    let inside = &esp[at..at + len];
    // An answer to a ping, from 192.168.1.100 to 192.168.100.100.
    assert_eq!((len, inside[9], inside[20]), (84, 1, 0));
    assert_eq!(inside[12..20], [192, 168, 1, 100, 192, 168, 100, 100]);
    assert_eq!(sa.open(&mut captured.clone()), Err(OpenError::Replay(ReplayError::Seen)));
    let mut other = InboundSa::new(&InboundConfig { key: Key::new(&[7; 36]).unwrap(), ..config }).unwrap();
    assert_eq!(other.open(&mut captured.clone()), Err(OpenError::Authentication));
}
