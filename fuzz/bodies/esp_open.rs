//! Packets for one inbound SA, some of them authentic with any text: no panic, what opens lies inside, nothing else moves the window.

use fallback_sw::esp::{Aead, HEADER_LEN, ICV_LEN, IV_LEN, InboundConfig, InboundSa, Key, OpenError, Opened, Provider};

const SPI: u32 = 0x1000;
const MATERIAL: [u8; 36] = [0x5a; 36];

/// Input: one octet of flags (extended numbers, key of 256 bits, window in units of 32), then for each packet a kind (0: as it is; else
/// authentic), the number's distance from the highest one (two octets, signed), a length (one octet) and the octets.
pub fn run(data: &[u8]) {
    let Some((flags, mut rest)) = data.split_first() else { return };
    let (esn, long) = (flags & 1 != 0, flags & 2 != 0);
    let window = (u32::from(flags >> 2) + 1) * 32;
    let Ok(key) = Key::new(&MATERIAL[..if long { 36 } else { 20 }]) else { return };
    let aead = Provider::GRAVIOLA.aead(&key);
    let Ok(mut sa) = InboundSa::new(&InboundConfig { spi: SPI, key, esn, window }) else { return };
    while let [kind, high, low, len, tail @ ..] = rest {
        let (octets, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        let top = sa.window().map_or(0, fallback_sw::esp::Window::top);
        if *kind == 0 {
            let mut packet = octets.to_vec();
            assert!(sa.open(&mut packet).is_err(), "nobody guesses a check value");
            assert_eq!(sa.window().map_or(0, fallback_sw::esp::Window::top), top, "a forged packet moves nothing");
            continue;
        }
        let number = top.saturating_add_signed(i16::from_be_bytes([*high, *low]).into());
        let number = if esn { number } else { number & 0xffff_ffff };
        let mut packet = seal(&aead, number, esn, octets);
        let opened = sa.open(&mut packet);
        let after = sa.window().map_or(0, fallback_sw::esp::Window::top);
        match opened {
            Ok(Opened::Packet { at, len }) => {
                assert_eq!(at, HEADER_LEN + IV_LEN);
                assert!(len > 0 && at + len + 2 + ICV_LEN <= packet.len());
                assert!(matches!(packet[at] >> 4, 4 | 6));
            }
            Ok(Opened::Dummy) | Err(OpenError::Padding | OpenError::NotIp) => {}
            Err(error) => {
                // Only the window may refuse what is authentic, and what is too short is not looked at. With extended numbers, one
                // that is left of the window is taken for one of the next 2^32 (RFC 4303 Appendix A2.1).
                let left = top.saturating_sub(number) >= u64::from(window);
                let by_window =
                    matches!(error, OpenError::Replay(_)) || esn && left && error == OpenError::Authentication;
                assert!(by_window || error == OpenError::Truncated, "{error}");
                assert_eq!(after, top);
                continue;
            }
        }
        assert_eq!(after, top.max(number), "an authentic packet moves the window to its number");
        let mut again = seal(&aead, number, esn, octets);
        assert!(matches!(sa.open(&mut again), Err(OpenError::Replay(_))), "nothing is received twice");
    }
}

/// An authentic packet with this text, whatever it is.
fn seal(aead: &impl Aead, number: u64, esn: bool, text: &[u8]) -> Vec<u8> {
    let (number, low) = (number.to_be_bytes(), (number as u32).to_be_bytes());
    let mut aad = SPI.to_be_bytes().to_vec();
    aad.extend(if esn { &number[..] } else { &low[..] });
    let mut nonce = [MATERIAL[0]; 12];
    nonce[4..].copy_from_slice(&number);
    let (mut text, mut icv) = (text.to_vec(), [0; ICV_LEN]);
    aead.seal(&nonce, &aad, &mut text, &mut icv);
    [&SPI.to_be_bytes()[..], &low, &number, &text, &icv].concat()
}
