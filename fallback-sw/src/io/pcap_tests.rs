use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn words(big_endian: bool, words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| if big_endian { w.to_be_bytes() } else { w.to_le_bytes() }).collect()
}

/// Time, link, length on the wire, frame.
type Owned = (Duration, Link, usize, Vec<u8>);

/// Writes a file and reads all of it.
fn read(octets: &[u8]) -> Result<Vec<Owned>, CaptureError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("some.pcap");
    fs::write(&path, octets).unwrap();
    let mut reader = CaptureReader::open(&path)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push((record.time, record.link, record.wire_len, record.frame.to_vec()));
    }
    Ok(records)
}

/// A pcapng block around a body.
fn block(big_endian: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(body.len() + 12).unwrap();
    [words(big_endian, &[kind, len]), body, words(big_endian, &[len])].concat()
}

fn pcapng(big_endian: bool, link_type: u32, resolution: Option<u8>) -> Vec<u8> {
    let section = [words(big_endian, &[BYTE_ORDER]), vec![0; 12]].concat();
    let half = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut interface = half(u16::try_from(link_type).unwrap()).to_vec();
    interface.extend([0; 6]);
    if let Some(resolution) = resolution {
        interface.extend(half(OPTION_TSRESOL));
        interface.extend(half(1));
        interface.extend([resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    [block(big_endian, SECTION_HEADER, &section), block(big_endian, INTERFACE_DESCRIPTION, &interface)].concat()
}

#[test]
fn both_resolutions_and_byte_orders_of_pcap_are_read() {
    for big_endian in [false, true] {
        for (magic, fraction) in [(MAGIC_MICROSECONDS, 250_000), (MAGIC_NANOSECONDS, 250_000_000)] {
            for (link_type, link) in [(1, Link::Ethernet), (101, Link::RawIp), (12, Link::RawIp)] {
                let header = words(big_endian, &[magic, 0x0004_0002, 0, 0, 65535, link_type]);
                let record = words(big_endian, &[1000, fraction, 3, 60]);
                let records = read(&[header, record, b"abc".to_vec()].concat()).unwrap();
                assert_eq!(records, [(Duration::from_millis(1_000_250), link, 60, b"abc".to_vec())]);
            }
        }
    }
}

#[test]
fn pcapng_blocks_of_every_packet_kind_are_read() {
    for big_endian in [false, true] {
        // Default: microseconds; 10^-9; 2^-10.
        for (resolution, ticks) in [(None, 1_500_000u64), (Some(9), 1_500_000_000), (Some(0x8a), 1536)] {
            let time = [(ticks >> 32) as u32, ticks as u32];
            let enhanced = [words(big_endian, &[0, time[0], time[1], 5, 5]), b"hello".to_vec()].concat();
            let simple = [words(big_endian, &[2]), b"hi".to_vec()].concat();
            let file = [
                pcapng(big_endian, 1, resolution),
                block(big_endian, 5, b"statistics, skipped"),
                block(big_endian, ENHANCED_PACKET, &enhanced),
                block(big_endian, OLD_PACKET, &enhanced),
                block(big_endian, SIMPLE_PACKET, &simple),
            ]
            .concat();
            let half = Duration::from_millis(1500);
            assert_eq!(
                read(&file).unwrap(),
                [
                    (half, Link::Ethernet, 5, b"hello".to_vec()),
                    (half, Link::Ethernet, 5, b"hello".to_vec()),
                    (Duration::ZERO, Link::Ethernet, 2, b"hi".to_vec()),
                ]
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let header = words(false, &[MAGIC_NANOSECONDS, 0x0004_0002, 0, 0, 65535, 1]);
    let says = |octets: &[u8], text: &str| {
        let error = read(octets).unwrap_err().to_string();
        assert!(error.contains("some.pcap") && error.contains(text), "{error}");
    };
    says(b"", "not a capture");
    says(b"GET / HTTP/1.1", "not a capture");
    says(&header[..20], "truncated");
    says(&[&header[..], &words(false, &[0, 0, 9, 9]), b"short"].concat(), "within record 1 at octet 24");
    says(&[&header[..], &words(false, &[0, 0, 0xffff_ffff, 9])].concat(), "record 1 at octet 24 is damaged");
    says(&words(false, &[MAGIC_NANOSECONDS, 0x0004_0002, 0, 0, 65535, 113]), "link type 113");
    let stray = block(false, ENHANCED_PACKET, &words(false, &[7, 0, 0, 0, 0]));
    says(&[pcapng(false, 1, None), stray].concat(), "does not describe");
    let error = CaptureReader::open(Path::new("/nonexistent/x.pcap")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/x.pcap"), "{error}");
}

#[test]
fn a_port_copies_a_capture_with_its_times() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut writer = CaptureWriter::create(&from, Link::Ethernet).unwrap();
    for i in 0..10u8 {
        writer.write(Duration::new(1, u32::from(i)), &[i; 60]).unwrap();
    }
    writer.flush().unwrap();
    let output = CaptureWriter::create(&to, Link::Ethernet).unwrap();
    let mut port = PcapPort::new("eth0", Link::Ethernet, Some(CaptureReader::open(&from).unwrap()), Some(output));
    let (mut frames, mut spare) = (Vec::new(), Vec::new());
    while port.receive(&mut frames, &mut spare, 1).unwrap() > 0 {
        assert_eq!(port.transmit(&mut frames, &mut spare).unwrap(), 1);
    }
    port.flush().unwrap();
    assert_eq!(fs::read(from).unwrap(), fs::read(to).unwrap());
    let mut raw =
        PcapPort::new("tun0", Link::RawIp, Some(CaptureReader::open(&dir.path().join("in.pcap")).unwrap()), None);
    assert!(matches!(raw.receive(&mut frames, &mut spare, 8), Err(PortError::Unsupported { .. })));
}

proptest! {
    #[test]
    fn no_file_panics_or_hangs(ng: bool, tail in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..60, value: u8) {
        let start = if ng { pcapng(false, 1, Some(9)) } else { words(false, &[MAGIC_NANOSECONDS, 0x0004_0002, 0, 0, 65535, 1]) };
        let mut file = [start, tail].concat();
        if let Some(octet) = file.get_mut(at) {
            *octet = value;
        }
        let _ = read(&file);
    }

    #[test]
    fn what_is_written_is_read(frames in proptest::collection::vec(
        (0u64..4_000_000_000, 0u32..1_000_000_000, proptest::collection::vec(any::<u8>(), 0..100)), 0..8)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.pcap");
        let mut writer = CaptureWriter::create(&path, Link::RawIp).unwrap();
        for (s, ns, frame) in &frames {
            writer.write(Duration::new(*s, *ns), frame).unwrap();
        }
        writer.flush().unwrap();
        let records = read(&fs::read(path).unwrap()).unwrap();
        prop_assert_eq!(records.len(), frames.len());
        for (record, (s, ns, frame)) in records.iter().zip(&frames) {
            prop_assert_eq!(record, &(Duration::new(*s, *ns), Link::RawIp, frame.len(), frame.clone()));
        }
    }
}
