//! ESP on octets (RFC 4303, 4106, 3948; outer headers by RFC 4301 §5.1.2 and RFC 6040).

use aes_gcm::{AeadInPlace, Aes128Gcm, Aes256Gcm, KeyInit, Nonce, Tag};

use super::{OuterHeader, Session, SessionKind, Verdict};
use crate::model::{checksum, frame::Frame, layers::Layers};

/// SPI and sequence number, then the explicit part of the nonce.
const HEADER: usize = 8;
const IV: usize = 8;
const ICV: usize = 16;
/// Next headers (RFC 4303 §2.6).
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const DUMMY: u8 = 59;

enum Key {
    Of128(Box<Aes128Gcm>),
    Of256(Box<Aes256Gcm>),
}

/// AES-GCM under a session's key.
pub(super) struct Cipher {
    key: Key,
    salt: [u8; 4],
}

impl Cipher {
    pub(super) fn new(key: &[u8], salt: [u8; 4]) -> Option<Cipher> {
        let key = match key.len() {
            16 => Key::Of128(Box::new(Aes128Gcm::new_from_slice(key).ok()?)),
            32 => Key::Of256(Box::new(Aes256Gcm::new_from_slice(key).ok()?)),
            _ => return None,
        };
        Some(Cipher { key, salt })
    }

    fn nonce(&self, iv: &[u8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (salt, rest) = nonce.split_at_mut(4);
        salt.copy_from_slice(&self.salt);
        rest.iter_mut().zip(iv).for_each(|(to, from)| *to = *from);
        nonce
    }

    fn encipher(&self, iv: &[u8], aad: &[u8], text: &mut [u8]) -> Option<[u8; ICV]> {
        let nonce = self.nonce(iv);
        let nonce = Nonce::from_slice(&nonce);
        let tag = match &self.key {
            Key::Of128(key) => key.encrypt_in_place_detached(nonce, aad, text),
            Key::Of256(key) => key.encrypt_in_place_detached(nonce, aad, text),
        };
        tag.ok().map(Into::into)
    }

    fn decipher(&self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        let nonce = self.nonce(iv);
        let (nonce, tag) = (Nonce::from_slice(&nonce), Tag::from_slice(icv));
        match &self.key {
            Key::Of128(key) => key.decrypt_in_place_detached(nonce, aad, text, tag).is_ok(),
            Key::Of256(key) => key.decrypt_in_place_detached(nonce, aad, text, tag).is_ok(),
        }
    }
}

/// RFC 4106 §5: SPI and sequence number, all of it with extended numbers.
fn aad(spi: u32, number: u64, esn: bool) -> Vec<u8> {
    let mut aad = spi.to_be_bytes().to_vec();
    if esn {
        aad.extend(number.to_be_bytes());
    } else {
        aad.extend((number as u32).to_be_bytes());
    }
    aad
}

/// Opens the ESP header at `at` of a frame whose IP header is at `ip`.
pub(super) fn open(session: &mut Session, frame: &mut Frame, ip: usize, at: usize) -> Verdict {
    let octets = frame.bytes();
    let Some(esp) = octets.get(at..).filter(|esp| esp.len() >= HEADER + IV + 2 + ICV) else {
        session.stats.errors += 1;
        return Verdict::Refused;
    };
    let number = |octets: &[u8]| octets.iter().take(4).fold(0, |sum, octet| sum << 8 | u32::from(*octet));
    let (spi, low) = (number(esp), number(&esp[4..]));
    if spi != session.config.spi {
        session.stats.errors += 1;
        return Verdict::Refused;
    }
    let crypto = session.config.kind == SessionKind::InlineCrypto;
    // With inline crypto the window is the application's.
    let full = if crypto { Ok(u64::from(low)) } else { session.window.check(low) };
    let Ok(full) = full else {
        session.stats.replays += 1;
        return Verdict::Refused;
    };
    if !crypto && session.is_beyond() {
        session.stats.beyond += 1;
        return Verdict::Drop;
    }
    let (iv, rest) = esp[HEADER..].split_at(IV);
    let (text, icv) = rest.split_at(rest.len() - ICV);
    let mut text = text.to_vec();
    if !session.cipher.decipher(iv, &aad(spi, full, session.config.esn), &mut text, icv) {
        session.stats.errors += 1;
        return Verdict::Refused;
    }
    if crypto {
        let from = at + HEADER + IV;
        if let Some(place) = frame.bytes_mut().get_mut(from..from + text.len()) {
            place.copy_from_slice(&text);
        }
        session.count(text.len());
        return Verdict::Done;
    }
    session.window.take(full);
    let Some((inside, version)) = unpad(&text) else {
        session.stats.errors += 1;
        return Verdict::Refused;
    };
    if version == 0 {
        // A dummy packet is discarded (RFC 4303 §2.6).
        session.count(0);
        return Verdict::Drop;
    }
    let mut inside = inside.to_vec();
    let outer_tos = match octets.get(ip..ip + 2) {
        Some(&[first, second]) if first >> 4 == 6 => first << 4 | second >> 4,
        Some(&[_, tos]) => tos,
        _ => 0,
    };
    if session.config.ecn && !combine_ecn(&mut inside, outer_tos) {
        session.stats.errors += 1;
        return Verdict::Refused;
    }
    session.count(inside.len());
    let mut opened = octets.get(..ip).unwrap_or_default().to_vec();
    set_type(&mut opened, version);
    opened.extend(inside);
    frame.load(&opened);
    Verdict::Done
}

/// The packet before padding and trailer, and its IP version; 0: a dummy.
fn unpad(text: &[u8]) -> Option<(&[u8], u8)> {
    let (rest, &[length, next]) = text.split_last_chunk::<2>()?;
    let (inside, padding) = rest.split_at_checked(rest.len().checked_sub(length.into())?)?;
    if !padding.iter().enumerate().all(|(i, octet)| usize::from(*octet) == i + 1) {
        return None;
    }
    match (next, inside.first().map(|first| first >> 4)) {
        (DUMMY, _) => Some((inside, 0)),
        (IPV4, Some(4)) => Some((inside, 4)),
        (IPV6, Some(6)) => Some((inside, 6)),
        _ => None,
    }
}

/// The type behind addresses and tags.
fn set_type(link: &mut [u8], version: u8) {
    let kind: u16 = if version == 6 { 0x86dd } else { 0x0800 };
    if let Some(place) = link.last_chunk_mut::<2>() {
        *place = kind.to_be_bytes();
    }
}

/// RFC 6040 §4.2; false: the packet is to be dropped.
fn combine_ecn(inside: &mut [u8], outer_tos: u8) -> bool {
    let v6 = inside.first().is_some_and(|first| first >> 4 == 6);
    let inner =
        if v6 { inside.get(1).map_or(0, |octet| octet >> 4 & 3) } else { inside.get(1).map_or(0, |tos| tos & 3) };
    let outer = outer_tos & 3;
    let combined = match (inner, outer) {
        (0, 3) => return false,
        (0, _) => 0,
        (_, 3) => 3,
        (2, 1) => 1,
        (inner, _) => inner,
    };
    if combined == inner {
        return true;
    }
    if v6 {
        inside[1] = inside[1] & 0xcf | combined << 4;
    } else if inside.len() >= 20 {
        inside[1] = inside[1] & 0xfc | combined;
        let header = usize::from(inside[0] & 15) * 4;
        inside[10..12].fill(0);
        let sum = checksum::of(inside.get(..header).unwrap_or_default());
        inside[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// Seals what is behind `link` octets of Ethernet.
pub(super) fn seal(session: &mut Session, frame: &mut Frame, link: usize) -> Verdict {
    if session.config.kind == SessionKind::InlineCrypto {
        return encipher_built(session, frame, link);
    }
    let octets = frame.bytes();
    let Some((head, inside)) = octets.split_at_checked(link).filter(|(_, inside)| inside.len() >= 20) else {
        return Verdict::Drop;
    };
    let next = match inside[0] >> 4 {
        4 => IPV4,
        6 => IPV6,
        _ => return Verdict::Drop,
    };
    let number = if session.is_beyond() { None } else { session.number() };
    let Some(number) = number else {
        session.stats.beyond += 1;
        return Verdict::Drop;
    };
    let mut text = inside.to_vec();
    let padding = (4 - (text.len() + 2) % 4) % 4;
    text.extend((1..=padding).map(|octet| octet as u8));
    text.extend([padding as u8, next]);
    let iv = session.config.iv.unwrap_or(number.to_be_bytes());
    let aad = aad(session.config.spi, number, session.config.esn);
    let Some(icv) = session.cipher.encipher(&iv, &aad, &mut text) else { return Verdict::Drop };
    let mut esp = session.config.spi.to_be_bytes().to_vec();
    esp.extend((number as u32).to_be_bytes());
    esp.extend(iv);
    esp.extend(text);
    esp.extend(icv);
    let Some(outer) = outer(&session.config.outer, session.config.ecn, inside, esp.len(), number as u16) else {
        return Verdict::Drop;
    };
    let mut sealed = head.to_vec();
    set_type(&mut sealed, if session.config.outer.v6.is_some() { 6 } else { 4 });
    sealed.extend(outer);
    sealed.extend(esp);
    session.count(inside.len());
    session.next = number.checked_add(1);
    frame.load(&sealed);
    Verdict::Done
}

/// Outer IP and, over IPv4, UDP for so many octets of ESP; `None`: too long. The identification is that of the sequence number: unique
/// among the packets of the SA as long as can be (RFC 6864 §4.3).
fn outer(header: &OuterHeader, ecn: bool, inside: &[u8], esp: usize, id: u16) -> Option<Vec<u8>> {
    let v6 = inside[0] >> 4 == 6;
    let tos = if v6 { inside[0] << 4 | inside[1] >> 4 } else { inside[1] };
    let dscp = if header.copy_dscp { tos & 0xfc } else { header.dscp << 2 };
    let tos = dscp | if ecn { tos & 3 } else { 0 };
    if let Some((source, destination, label)) = header.v6 {
        let word = 6 << 28 | u32::from(tos) << 20 | label & 0x000f_ffff;
        let mut octets = word.to_be_bytes().to_vec();
        octets.extend(u16::try_from(esp).ok()?.to_be_bytes());
        octets.extend([50, header.ttl]);
        octets.extend(source);
        octets.extend(destination);
        return Some(octets);
    }
    let df = if header.copy_df && !v6 { inside[6] & 0x40 != 0 } else { header.df };
    let udp = if header.udp.is_some() { 8 } else { 0 };
    let total = u16::try_from(20 + udp + esp).ok()?;
    let mut octets = vec![0x45, tos];
    octets.extend(total.to_be_bytes());
    octets.extend(id.to_be_bytes());
    octets.extend([if df { 0x40 } else { 0 }, 0, header.ttl, if udp > 0 { 17 } else { 50 }, 0, 0]);
    octets.extend(header.source);
    octets.extend(header.destination);
    let sum = checksum::of(&octets);
    octets[10..12].copy_from_slice(&sum.to_be_bytes());
    if let Some((source, destination)) = header.udp {
        octets.extend(source.to_be_bytes());
        octets.extend(destination.to_be_bytes());
        octets.extend((total - 20).to_be_bytes());
        octets.extend([0, 0]);
    }
    Some(octets)
}

/// The application has built ESP; the text is in the clear, and the check value has its room.
fn encipher_built(session: &mut Session, frame: &mut Frame, link: usize) -> Verdict {
    // The packet itself tells its family. Over IPv6 a datagram needs a checksum (RFC 8200 §8.1), which would be of the clear text.
    let packet = Layers::of_packet(frame.bytes().get(link..).unwrap_or_default(), false);
    let Some(ip) = packet.ip[0].filter(|ip| !ip.fragment) else { return Verdict::Drop };
    let behind = match (ip.protocol, ip.version) {
        (50, _) => 0,
        (17, 4) => 8,
        _ => return Verdict::Drop,
    };
    let Some(at) = ip.l4.map(|l4| link + l4 + behind) else { return Verdict::Drop };
    let octets = frame.bytes_mut();
    let Some(esp) = octets.get_mut(at..).filter(|esp| esp.len() >= HEADER + IV + 2 + ICV) else { return Verdict::Drop };
    let low = u32::from_be_bytes([esp[4], esp[5], esp[6], esp[7]]);
    let (head, rest) = esp.split_at_mut(HEADER + IV);
    let (text, icv) = rest.split_at_mut(rest.len() - ICV);
    let aad = aad(session.config.spi, low.into(), false);
    let Some(value) = session.cipher.encipher(&head[HEADER..], &aad, text) else { return Verdict::Drop };
    icv.copy_from_slice(&value);
    let octets = text.len();
    session.count(octets);
    Verdict::Done
}
