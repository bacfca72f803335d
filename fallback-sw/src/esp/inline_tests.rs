//! The halves of ESP that stay with software when a NIC ciphers, and what is known of a window that was the NIC's.

use std::net::Ipv4Addr;

use super::*;
use crate::packet::Packet;

fn pair(esn: bool) -> (OutboundSa, OutboundSa, InboundSa) {
    let key = Key::new(&[7; 20]).unwrap();
    let tunnel = Tunnel::nat_t(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let config = OutboundConfig { spi: 0x1000, key: key.clone(), esn, first: 1, tunnel };
    let inbound = InboundSa::new(&InboundConfig { spi: 0x1000, key, esn, window: 64 }).unwrap();
    (OutboundSa::new(&config), OutboundSa::new(&config), inbound)
}

fn text() -> Vec<u8> {
    let mut text = vec![0x5a; 61];
    text[0] = 0x45;
    text
}

#[test]
fn a_framed_packet_is_sealed_but_for_the_cipher_and_uses_a_number() {
    let (mut seals, mut frames, _) = pair(false);
    for number in 1..4_u64 {
        let (mut sealed, mut framed) = (Packet::from_frame(&text()), Packet::from_frame(&text()));
        seals.seal(&mut sealed, 0, 1, false).unwrap();
        frames.frame(&mut framed, 0, 1, false).unwrap();
        let clear = 28 + HEADER_LEN + IV_LEN;
        assert_eq!(sealed.data()[..clear], framed.data()[..clear]);
        assert_eq!(sealed.len(), framed.len());
        assert_eq!(framed.data()[clear..clear + 61], text()[..]);
        // 61 octets, one of padding, its length, IPv4; and an empty check value.
        assert_eq!(framed.data()[clear + 61..], [&[1, 1, 4][..], &[0; ICV_LEN]].concat());
        assert_eq!(frames.next_sequence(), number + 1);
    }
}

#[test]
fn a_deciphered_packet_meets_the_same_window_padding_and_version_checks() {
    let (_, mut frames, mut inside) = pair(false);
    let mut framed = || {
        let mut packet = Packet::from_frame(&text());
        frames.frame(&mut packet, 0, 1, false).unwrap();
        packet.data()[28..].to_vec()
    };
    let first = framed();
    let Opened::Packet { at, len } = inside.open_deciphered(&mut first.clone()).unwrap() else { panic!() };
    assert_eq!(first[at..at + len], text()[..]);
    assert!(matches!(inside.open_deciphered(&mut first.clone()), Err(OpenError::Replay(ReplayError::Seen))));
    let mut padded = framed();
    padded[HEADER_LEN + IV_LEN + 61] = 9;
    assert_eq!(inside.open_deciphered(&mut padded), Err(OpenError::Padding));
    let mut other = framed();
    other[HEADER_LEN + IV_LEN] = 0x15;
    assert_eq!(inside.open_deciphered(&mut other), Err(OpenError::NotIp));
    for len in 0..HEADER_LEN + IV_LEN + 2 + ICV_LEN {
        assert_eq!(inside.open_deciphered(&mut framed()[..len].to_vec()), Err(OpenError::Truncated), "{len}");
    }
}

#[test]
fn numbers_that_another_may_have_received_are_not_received_again() {
    for esn in [false, true] {
        for seen in [0_u64, 1, 40, 63, 64, 65, 1000] {
            for through in [0_u64, 1, 30, 63, 64, 200, 1000, 2000] {
                let mut window = Window::new(64, esn).unwrap();
                if seen > 0 {
                    window.update(seen);
                }
                window.refuse_through(through);
                assert_eq!(window.top(), seen.max(through));
                let top = window.top();
                // With extended numbers what is left of the window is taken for one of the next round, and is not authentic.
                let from = if esn { top.saturating_sub(63).max(1) } else { 1 };
                for number in from..=top + 3 {
                    let fresh = number > through && number != seen && top.saturating_sub(number) < 64;
                    assert_eq!(window.check(number as u32).is_ok(), fresh, "{number} after {seen} and {through}");
                }
            }
        }
    }
}
