//! ESP with AES-GCM: sealing and opening, beside the ciphers alone, and the whole way of a packet through a worker.

mod ciphers;
mod path;

use std::net::Ipv4Addr;

use fallback_sw::{
    esp::{HEADER_LEN, IV_LEN, InboundConfig, InboundSa, Key, OutboundConfig, OutboundSa, Provider, Tunnel},
    packet::{
        Packet,
        rewrite::{OUTER_LEN, Outer, OuterTemplate},
    },
};
use offload_rules::Label;

use crate::measure::{Effort, Row, Sample, Target, Value};

/// Octets of the IP packet inside.
const SIZES: [usize; 4] = [64, 512, 1420, 8192];
/// Bits of the AES key.
const KEYS: [u16; 2] = [128, 256];
/// Packets between two looks at the clock.
const ROUND: u64 = 1024;
/// Octets before the text: IPv4, UDP, ESP, vector.
const BEFORE: usize = 28 + HEADER_LEN + IV_LEN;
const SPI: u32 = 4096;
const MATERIAL: [u8; 36] = [0x5a; 36];

fn key(bits: u16) -> Key {
    Key::new(&MATERIAL[..usize::from(bits / 8) + 4]).expect("a key and a salt")
}

/// Octets of hexadecimal digits.
pub(crate) fn octets(hex: &str) -> Vec<u8> {
    path::octets(hex)
}

/// What the other end of a tunnel does: headers first, so that the cipher, which is not measured, waits for no stores.
pub(crate) fn seal_all(sa: &mut OutboundSa, packets: &mut [Packet]) {
    for packet in &mut *packets {
        sa.frame(packet, 0, 1, false).expect("there is room");
        let room = packet.prepend(14).expect("there is room");
        room.copy_from_slice(&[2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0x30, 8, 0]);
    }
    for packet in packets {
        let esp = packet.data_mut().get_mut(14 + sa.esp_at()..).expect("it was framed");
        assert!(sa.encipher(esp), "it was framed");
    }
}

/// Who can be measured here; intel-ipsec-mb where it is installed.
pub(crate) fn providers() -> Vec<Provider> {
    let mut all = vec![Provider::GRAVIOLA];
    match Provider::ipsec_mb() {
        Ok(provider) => all.push(provider),
        Err(error) => eprintln!("SKIPPED ipsec-mb: {error}"),
    }
    all
}

fn outbound(provider: Provider, bits: u16) -> OutboundSa {
    let tunnel = Tunnel::nat_t(Ipv4Addr::new(172, 28, 13, 36), Ipv4Addr::new(103, 135, 56, 40));
    OutboundSa::by(provider, &OutboundConfig { spi: SPI, key: key(bits), esn: true, first: 1, tunnel })
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

fn seal(effort: &Effort, mut sa: OutboundSa, len: usize) -> Sample {
    let mut packet = ip(len);
    effort.measure(|| {
        for _ in 0..ROUND {
            sa.seal(&mut packet, 0, 1, false).expect("there is room");
            reset(&mut packet, BEFORE, len);
        }
        ROUND
    })
}

/// MPLS over UDP, then ESP.
fn seal_mpls(effort: &Effort, mut sa: OutboundSa, len: usize) -> Sample {
    let label = Label::new(280).expect("a label");
    let template = OuterTemplate::new(Ipv4Addr::new(10, 101, 10, 39), Ipv4Addr::new(10, 101, 9, 245), 6635, label);
    let outer = Outer { inner_len: len as u16, id: 1, tos: 0, sport: 50_000, ttl: 63, tc: 0 };
    let mut packet = ip(len);
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
fn seal_and_open(effort: &Effort, provider: Provider, bits: u16, len: usize) -> Sample {
    let (mut sa, mut packet) = (outbound(provider, bits), ip(len));
    let config = InboundConfig { spi: SPI, key: key(bits), esn: true, window: 1024 };
    let mut inside = InboundSa::by(provider, &config).expect("a window");
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

/// Rows of one key and size.
fn of(effort: &Effort, bits: u16, len: usize, rows: &mut Vec<Row>) {
    let mut row = |name: String, value: Sample, target: Option<Target>, against: &'static str| {
        rows.push(Row {
            name: format!("{name}, {bits} bits, {len} B"),
            value: Value::PerPacket(value),
            target,
            against,
        });
    };
    // What the cipher has to do for the packet: the text with its trailer.
    let text = (len + 2).next_multiple_of(4);
    let ours = providers();
    let mut raw: Vec<_> = ours
        .iter()
        .map(|provider| ciphers::measure(effort, provider.name(), &provider.aead(&key(bits)), text, false))
        .collect();
    raw.extend(ciphers::others(effort, bits, text));
    let [first, ..] = &raw[..] else { return };
    let (seal_beside, open_beside) = (first.seal.median, first.open.median);
    for raw in &raw {
        let beside = Target::Beside { name: "graviola", nanoseconds: seal_beside };
        row(format!("AES-GCM seal: {}", raw.name), raw.seal, Some(beside), "");
    }
    for raw in &raw {
        let beside = Target::Beside { name: "graviola", nanoseconds: open_beside };
        row(format!("AES-GCM open: {}", raw.name), raw.open, Some(beside), "");
    }
    for (provider, raw) in ours.iter().zip(&raw) {
        let name = provider.name();
        let sealed = seal(effort, outbound(*provider, bits), len);
        let besides = Some(Target::Nanoseconds(60.0));
        row(format!("ESP seal: {name}"), sealed, None, "");
        row(format!("ESP seal, but the cipher: {name}"), sealed.less(raw.seal), besides, "");
        let (target, against) = match (bits, len) {
            (128, 64) => (Some(Target::Cycles(300.0)), "quoted: VPP 386 to 409"),
            (128, 1420) => (Some(Target::Cycles(540.0)), "quoted: VPP 618"),
            _ => (None, ""),
        };
        let mpls = seal_mpls(effort, outbound(*provider, bits), len);
        row(format!("MPLSoUDP + ESP seal: {name}"), mpls, target, against);
        let opened = seal_and_open(effort, *provider, bits, len).less(sealed);
        row(format!("ESP open: {name}"), opened, None, "");
        row(format!("ESP open, but the cipher: {name}"), opened.less(raw.open), besides, "");
    }
}

/// The rows, by key and size.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for bits in KEYS {
        for len in SIZES {
            if effort.wants(&format!("ESP {bits} {len}")) {
                of(effort, bits, len, &mut rows);
            }
        }
    }
    rows
}

/// The rows of whole ways.
pub(crate) fn path(effort: &Effort) -> Vec<Row> {
    path::rows(effort)
}
