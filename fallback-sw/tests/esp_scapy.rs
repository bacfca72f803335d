//! Our ESP and that of scapy open each other's packets: IPv4 and IPv6 inside, bare and in UDP, with and without extended numbers.
//! `make setup` installs scapy.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use common::{
    hex,
    packets::{Ip, echo_request, udp},
};
use fallback_sw::{
    esp::{InboundConfig, InboundSa, Key, Opened, OutboundConfig, OutboundSa, Tunnel},
    packet::Packet,
};

const SOURCE: &str = "172.28.13.36";
const DESTINATION: &str = "103.135.56.40";
/// AES-128 and AES-256, each with a salt.
const KEYS: [&str; 2] = [
    "4c80cdefbb5d10da906ac73c3613a634 2e443b68",
    "abbccddef00112233445566778899aab abbccddef00112233445566778899aab 11223344",
];

/// scapy, waiting for requests.
struct Scapy {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// One way of doing it.
#[derive(Debug, Clone, Copy)]
struct Case {
    key: &'static str,
    nat_t: bool,
    esn: bool,
    first: u64,
}

fn cases() -> impl Iterator<Item = Case> {
    let numbers = [(false, 1), (true, 1), (true, (7 << 32) + 5)];
    KEYS.into_iter().flat_map(move |key| {
        numbers.into_iter().flat_map(move |(esn, first)| [false, true].map(|nat_t| Case { key, nat_t, esn, first }))
    })
}

/// IP packets of every remainder of the padding.
fn inner() -> impl Iterator<Item = Vec<u8>> {
    (0..5).flat_map(|len| {
        let payload = vec![0x5a; 40 + len];
        [
            udp("192.168.100.100", "192.168.1.100", 5000, 53, &payload).ip(),
            udp("2001:db8:100::100", "2001:db8:1::100", 5000, 53, &payload).ip(),
            echo_request("192.168.100.100", "192.168.1.100", 7, 1).ip(),
        ]
    })
}

impl Scapy {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/esp_scapy.py");
        let mut process = Command::new("/usr/bin/python3")
            .args(["-W", "ignore", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("/usr/bin/python3: {error}; run `make setup`"));
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, requests, answers }
    }

    fn ask(&mut self, what: &str, case: Case, sequence: u64, packet: &[u8]) -> Vec<u8> {
        let key: String = case.key.replace(' ', "");
        let packet: String = packet.iter().map(|octet| format!("{octet:02x}")).collect();
        let (nat_t, esn) = (case.nat_t, case.esn);
        let request = format!(
            r#"{{"what": "{what}", "spi": 4096, "key": "{key}", "source": "{SOURCE}", "destination": "{DESTINATION}",
            "nat_t": {nat_t}, "esn": {esn}, "sequence": {sequence}, "packet": "{packet}"}}"#
        );
        writeln!(self.requests.as_mut().unwrap(), "{}", request.replace('\n', " ")).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(
            !answer.is_empty(),
            "scapy has ended (python3-scapy and python3-cryptography are needed: `make setup`); {case:?}"
        );
        let (_, packet) = answer.split_once("\"packet\": \"").unwrap();
        hex(packet.trim_end_matches(['"', '}', '\n']))
    }
}

impl Drop for Scapy {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.process.wait();
    }
}

fn key(case: Case) -> Key {
    Key::new(&hex(case.key)).unwrap()
}

#[test]
fn scapy_opens_what_we_seal() {
    let mut scapy = Scapy::start();
    for case in cases() {
        let (source, destination) = (SOURCE.parse().unwrap(), DESTINATION.parse().unwrap());
        let udp = case.nat_t.then_some((4500, 4500));
        let tunnel = Tunnel { source, destination, udp };
        let config = OutboundConfig { spi: 4096, key: key(case), esn: case.esn, first: case.first, tunnel };
        let mut sa = OutboundSa::new(&config);
        for ip in inner() {
            let sequence = sa.next_sequence();
            let mut packet = Packet::from_frame(&ip);
            sa.seal(&mut packet, 0xb8, sequence as u16, false).unwrap();
            // Checksums and lengths of the outside hold as well.
            let outer = Ip::read(packet.data());
            assert_eq!(outer.proto, if case.nat_t { 17 } else { 50 });
            assert_eq!(scapy.ask("open", case, sequence, packet.data()), ip, "{case:?}");
        }
    }
}

#[test]
fn we_open_what_scapy_seals() {
    let mut scapy = Scapy::start();
    for case in cases() {
        let mut sa = InboundSa::new(&InboundConfig { spi: 4096, key: key(case), esn: case.esn, window: 64 }).unwrap();
        // The upper half of the numbers is not sent: a receiver that begins in the middle would have to be told it.
        if case.first >> 32 > 0 {
            continue;
        }
        for (sequence, ip) in (case.first..).zip(inner()) {
            let outer = Ip::read(&scapy.ask("seal", case, sequence, &ip));
            let mut esp = outer.body[if case.nat_t { 8 } else { 0 }..].to_vec();
            match sa.open(&mut esp) {
                Ok(Opened::Packet { at, len }) => assert_eq!(&esp[at..at + len], ip, "{case:?}"),
                other => panic!("{case:?}: {other:?}"),
            }
        }
    }
}
