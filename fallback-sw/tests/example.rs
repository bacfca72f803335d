//! The example of docs/examples/l3vpn: its README's commands are run as they stand there, and what it says of their outcome is
//! checked in the octets.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use common::hex;
use fallback_sw::io::pcap::CaptureReader;
use proto::v1::{Flow, ReplayReport};

const ETHERNET: usize = 14;
/// Outer IPv4, UDP, one label.
const OUTER: usize = 32;

/// A copy of the example in which all commands of the README have been run.
struct Example {
    folder: tempfile::TempDir,
}

impl Example {
    fn run() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/l3vpn");
        let folder = tempfile::tempdir().unwrap();
        for file in ["ce1.json", "ce2.json", "tenant.pcap", "server.pcap"] {
            fs::copy(source.join(file), folder.path().join(file)).unwrap();
        }
        let readme = fs::read_to_string(source.join("README.md")).unwrap();
        let steps = steps(&readme);
        assert_eq!(steps.len(), 4, "{steps:?}");
        for (command, printed) in steps {
            let output = Command::new(env!("CARGO_BIN_EXE_fallback-sw"))
                .args(command.split_whitespace().skip(1))
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(String::from_utf8(output.stdout).unwrap(), printed, "{command}");
        }
        Self { folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn frames(&self, file: &str) -> Vec<Vec<u8>> {
        let mut reader = CaptureReader::open(&self.path(file)).unwrap();
        let mut frames = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            frames.push(record.frame.to_vec());
        }
        frames
    }

    fn report(&self, file: &str) -> ReplayReport {
        proto::json::parse(&fs::read_to_string(self.path(file)).unwrap(), file).unwrap()
    }
}

/// The commands of a README's console blocks, each with what it prints.
fn steps(readme: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match line.strip_prefix("$ ").or(line.strip_prefix("# ")) {
                Some(command) => steps.push((command.to_owned(), String::new())),
                None => steps.last_mut().unwrap().1.push_str(&format!("{line}\n")),
            }
        }
    }
    steps
}

/// The IP packet in a frame without a tag or with one, without padding.
fn packet(frame: &[u8]) -> &[u8] {
    let at = if frame[12..14] == [0x81, 0x00] { ETHERNET + 4 } else { ETHERNET };
    let packet = &frame[at..];
    let length = match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        6 => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        version => panic!("version {version}"),
    };
    &packet[..length]
}

fn is_ip(frame: &&Vec<u8>) -> bool {
    let is_nd =
        frame[12..14] == [0x86, 0xdd] && frame[ETHERNET + 6] == 58 && (133..=137).contains(&frame[ETHERNET + 40]);
    frame[12..14] != [0x08, 0x06] && !is_nd
}

/// A packet with `hops` less in TTL or hop limit, and an IPv4 header checksum that is right.
fn after_hops(packet: &[u8], hops: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= hops;
        return packet;
    }
    packet[8] -= hops;
    packet[10..12].fill(0);
    let sum = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn is_syn(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && packet[9] == 6 && packet[33] & 0x02 != 0
}

/// Compares all but what MSS clamping changes in a SYN (MSS option and checksum), which must be 1428.
fn assert_carried(sent: &[u8], expected: &[u8]) {
    let (mut sent, mut expected) = (sent.to_vec(), expected.to_vec());
    if is_syn(&expected) {
        assert_eq!(sent[40..44], hex("02 04 0594"), "MSS 1428");
        for packet in [&mut sent, &mut expected] {
            packet[36..38].fill(0);
            packet[42..44].fill(0);
        }
    }
    assert_eq!(sent, expected);
}

#[test]
fn the_example_works_as_its_readme_says() {
    let example = Example::run();
    let asked = example.frames("tenant.pcap");
    let asked: Vec<_> = asked.iter().filter(is_ip).map(|frame| packet(frame).to_vec()).collect();
    let answered: Vec<_> = example.frames("server.pcap").iter().map(|frame| packet(frame).to_vec()).collect();

    // Between the sites: one header stack for all, one label for each direction.
    for (folder, ends, label, count) in [
        ("out/ce1", "0a650a27 0a6509f5", 280u32, asked.len()),
        ("out/ce2-both", "0a6509f5 0a650a27", 279, answered.len()),
    ] {
        let frames =
            [example.frames(&format!("{folder}/vif4111.pcap")), example.frames(&format!("{folder}/vif4109.pcap"))];
        assert!(frames.iter().all(|frames| !frames.is_empty()), "both links are used");
        assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), count);
        for frame in frames.iter().flatten() {
            let outer = &frame[ETHERNET..];
            assert_eq!(outer[0], 0x45);
            assert_eq!(outer[6..10], hex("0000 40 11"), "DF clear, TTL 64, UDP");
            assert_eq!(outer[12..20], hex(ends));
            assert!(u16::from_be_bytes([outer[20], outer[21]]) >= 49152);
            assert_eq!(outer[22..24], 6635u16.to_be_bytes());
            assert_eq!(outer[26..28], [0, 0], "no UDP checksum");
            assert_eq!(outer[28..32], (label << 12 | 1 << 8 | 63).to_be_bytes(), "label, bottom of stack, TTL 63");
            let inner = &outer[OUTER..];
            assert_eq!(if inner[0] >> 4 == 4 { inner[8] } else { inner[7] }, 63);
        }
    }

    // At the hosts: two hops less, and the header of nexthop 577.
    let there = example.frames("out/ce2/vif4121.pcap");
    assert_eq!(there.len(), asked.len());
    for (frame, packet) in there.iter().zip(&asked) {
        let header = if packet[0] >> 4 == 4 {
            "000c299b6969 000c290ff4a1 8100 012c 0800"
        } else {
            "000c299b6969 000c290ff4a1 8100 012c 86dd"
        };
        assert_eq!(frame[..18], hex(header));
        assert_carried(&frame[18..], &after_hops(packet, 2));
    }
    let back = example.frames("out/ce1-both/vif4121.pcap");
    let back: Vec<_> = back.iter().filter(is_ip).collect();
    assert_eq!(back.len(), answered.len());
    for (frame, packet) in back.iter().zip(&answered) {
        assert_eq!(frame[..12], hex("000c29640001 000c29010224"));
        assert_carried(&frame[14..], &after_hops(packet, 2));
    }
}

#[test]
fn the_reports_of_the_example_show_closed_connections_and_no_drops() {
    let example = Example::run();
    for folder in ["out/ce1-both", "out/ce2-both"] {
        let report = example.report(&format!("{folder}/report.json"));
        assert!(report.drops.len() > 30 && report.drops.iter().all(|drop| drop.packets == 0));
        assert_eq!(report.packets.unwrap().unaccounted, 0);
        let tcp: Vec<&Flow> = report.flows.iter().filter(|flow| flow.proto == 6).collect();
        assert_eq!(tcp.iter().map(|flow| flow.packets).collect::<Vec<_>>(), [5, 5]);
        for flow in tcp {
            assert!(flow.tcp_state.contains('F') && flow.tcp_state.contains("Fr"), "{flow:?}");
        }
        for flow in report.flows.iter().filter(|flow| flow.label.is_some()) {
            let link = if flow.family == 0 { 0 } else { 1 };
            assert_eq!(flow.ecmp_index, [link, -1], "{flow:?}");
        }
    }
}

#[test]
fn tshark_finds_nothing_to_complain_about_in_the_example() {
    let example = Example::run();
    let mut looked_at = 0;
    for folder in ["ce1", "ce2", "ce2-both", "ce1-both"] {
        for file in fs::read_dir(example.path("out").join(folder)).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "pcap") {
                continue;
            }
            let mut command = Command::new("tshark");
            for option in ["ip", "tcp", "udp"] {
                command.args(["-o", &format!("{option}.check_checksum:TRUE")]);
            }
            command.args(["-Y", "_ws.malformed || _ws.expert.group == \"Checksum\""]).arg("-r").arg(&file);
            let Ok(output) = command.output() else {
                // Past the capture of the harness, for a summary.
                let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed: run `make setup`");
                return;
            };
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}", file.display());
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 3 + 1 + 3 + 3);
}

#[test]
fn the_front_page_shows_the_same_replay_and_a_state_that_is_consistent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let front = fs::read_to_string(root.join("README.md")).unwrap();
    let example = steps(&fs::read_to_string(root.join("docs/examples/l3vpn/README.md")).unwrap());
    let shown: Vec<_> =
        steps(&front).into_iter().filter(|(command, _)| command.starts_with("fallback-sw replay")).collect();
    assert!(!shown.is_empty());
    for step in &shown {
        assert!(example.contains(step), "{step:?}");
    }

    let state = front.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("router.json"), state).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_fallback-sw"))
        .args(["check", "--state", "router.json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let printed = String::from_utf8(check.stdout).unwrap();
    assert!(printed.ends_with(": consistent\n") && front.contains(&printed), "{printed}");
}

#[test]
fn a_capture_that_replay_would_overwrite_is_refused_and_kept() {
    let example = Example::run();
    let before = fs::read(example.path("out/ce1/vif4111.pcap")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fallback-sw"))
        .args(["replay", "--state", "ce1.json", "--in", "4111=out/ce1/vif4111.pcap", "--out", "out/../out/ce1"])
        .current_dir(example.folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("out/ce1/vif4111.pcap") && said.contains("--out"), "{said}");
    assert_eq!(fs::read(example.path("out/ce1/vif4111.pcap")).unwrap(), before);
}
