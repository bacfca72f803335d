//! ESP with AES-256-GCM: sealing and opening, beside the cipher alone and another implementation of it.

use std::net::Ipv4Addr;

use aes_gcm::{AeadInPlace as _, Aes256Gcm, KeyInit as _, Nonce};
use fallback_sw::{
    esp::{HEADER_LEN, ICV_LEN, IV_LEN, InboundConfig, InboundSa, Key, OutboundConfig, OutboundSa, Tunnel},
    packet::{
        Packet,
        rewrite::{OUTER_LEN, Outer, OuterTemplate},
    },
};
use graviola::aead::AesGcm;
use offload_rules::Label;

use crate::measure::{Effort, Row, Sample, Target, Value};

/// Octets of the IP packet inside.
const SIZES: [usize; 4] = [64, 512, 1420, 8192];
/// Packets between two looks at the clock.
const ROUND: u64 = 1024;
/// Octets before the text: IPv4, UDP, ESP, vector.
const BEFORE: usize = 28 + HEADER_LEN + IV_LEN;
const MATERIAL: [u8; 36] = [0x5a; 36];

fn key() -> Key {
    Key::new(&MATERIAL).expect("36 octets are a key")
}

fn outbound() -> OutboundSa {
    let tunnel = Tunnel::nat_t(Ipv4Addr::new(172, 28, 13, 36), Ipv4Addr::new(103, 135, 56, 40));
    OutboundSa::new(&OutboundConfig { spi: 4096, key: key(), esn: true, first: 1, tunnel })
}

/// An IP packet again: what is in it does not matter, but for its version.
fn reset(packet: &mut Packet, before: usize, len: usize) {
    packet.advance(before);
    packet.truncate(len);
    if let Some(first) = packet.data_mut().first_mut() {
        *first = 0x45;
    }
}

fn ip(len: usize) -> Packet {
    let mut packet = Packet::with_capacity(len + 64);
    packet.extend(len).expect("there is room").fill(0x45);
    packet
}

fn seal(effort: &Effort, len: usize) -> Sample {
    let (mut sa, mut packet) = (outbound(), ip(len));
    effort.measure(|| {
        for _ in 0..ROUND {
            sa.seal(&mut packet, 0, 1, false).expect("there is room");
            reset(&mut packet, BEFORE, len);
        }
        ROUND
    })
}

/// MPLS over UDP, then ESP.
fn seal_mpls(effort: &Effort, len: usize) -> Sample {
    let label = Label::new(280).expect("a label");
    let template = OuterTemplate::new(Ipv4Addr::new(10, 101, 10, 39), Ipv4Addr::new(10, 101, 9, 245), 6635, label);
    let outer = Outer { inner_len: len as u16, id: 1, tos: 0, sport: 50_000, ttl: 63, tc: 0 };
    let (mut sa, mut packet) = (outbound(), ip(len));
    effort.measure(|| {
        for _ in 0..ROUND {
            template.write(packet.prepend(OUTER_LEN).expect("there is room"), &outer).expect("it fits");
            sa.seal(&mut packet, 0, 1, false).expect("there is room");
            reset(&mut packet, BEFORE + OUTER_LEN, len);
        }
        ROUND
    })
}

/// Sealing and opening again.
fn seal_and_open(effort: &Effort, len: usize) -> Sample {
    let (mut sa, mut packet) = (outbound(), ip(len));
    let config = InboundConfig { spi: 4096, key: key(), esn: true, window: 1024 };
    let mut inside = InboundSa::new(&config).expect("a window");
    effort.measure(|| {
        for _ in 0..ROUND {
            sa.seal(&mut packet, 0, 1, false).expect("there is room");
            packet.advance(28);
            inside.open(packet.data_mut()).expect("what was sealed opens");
            reset(&mut packet, HEADER_LEN + IV_LEN, len);
        }
        ROUND
    })
}

fn raw_graviola(effort: &Effort, len: usize) -> Sample {
    let cipher = AesGcm::new(&MATERIAL[..32]);
    let (mut text, mut tag) = (vec![0_u8; len], [0; ICV_LEN]);
    let mut number = 0_u64;
    effort.measure(|| {
        for _ in 0..ROUND {
            number += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&number.to_be_bytes());
            cipher.encrypt(&nonce, &nonce, &mut text, &mut tag);
        }
        ROUND
    })
}

fn raw_rust_crypto(effort: &Effort, len: usize) -> Sample {
    let cipher = Aes256Gcm::new_from_slice(&MATERIAL[..32]).expect("a key");
    let mut text = vec![0_u8; len];
    let mut number = 0_u64;
    effort.measure(|| {
        for _ in 0..ROUND {
            number += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&number.to_be_bytes());
            cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &nonce, &mut text).expect("a short text");
        }
        ROUND
    })
}

/// The rows, by size.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for len in SIZES {
        let mut row = |name: &str, value: Sample, target: Option<Target>, against: &'static str| {
            rows.push(Row { name: format!("{name}, {len} B"), value: Value::PerPacket(value), target, against });
        };
        if !effort.wants(&format!("ESP {len}")) {
            continue;
        }
        let sealed = seal(effort, len);
        // What the cipher has to do for the packet: the text with its trailer.
        let cipher = raw_graviola(effort, (len + 2).next_multiple_of(4));
        row("ESP seal", sealed, None, "");
        row("ESP seal, without the cipher", sealed.less(cipher), Some(Target::Nanoseconds(60.0)), "issue");
        let (target, against) = match len {
            64 => (Some(Target::Cycles(300.0)), "VPP: 386 to 409 cycles"),
            1420 => (Some(Target::Cycles(540.0)), "VPP: 618 cycles"),
            _ => (None, ""),
        };
        row("MPLS over UDP and ESP seal", seal_mpls(effort, len), target, against);
        row("ESP open", seal_and_open(effort, len).less(sealed), None, "");
        row("AES-256-GCM alone, graviola", cipher, None, "");
        row("AES-256-GCM alone, RustCrypto", raw_rust_crypto(effort, len), None, "");
    }
    rows
}
