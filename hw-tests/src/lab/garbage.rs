//! A flood of frames that no sane sender sends: random, cut, mutated, and well-formed to nowhere.

use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use super::{LabError, Namespace, interrupt, io::RawSocket};

/// Longest frame: 1500 octets behind an Ethernet header.
const MAX: usize = 1514;
/// Shortest that a raw socket sends.
const MIN: usize = 14;
/// Frames between two looks at the clock.
const BURST: u64 = 16;

/// Senders of garbage on several devices; the same seed makes the same frames.
#[derive(Debug)]
pub struct Garbage {
    random: SplitMix,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    socket: RawSocket,
    templates: Vec<Vec<u8>>,
    mac: [u8; 6],
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct GarbageReport {
    /// Frames that the devices took.
    pub sent: u64,
    /// Frames that they did not take: queues full.
    pub refused: u64,
}

impl Garbage {
    /// Without targets yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { random: SplitMix(seed), targets: Vec::new() }
    }

    /// Adds a device; `mac` is the node's address at the other end of its link.
    ///
    /// # Errors
    /// [`LabError::Io`] when the device is not there.
    pub fn aim(&mut self, namespace: &Namespace, device: &str, mac: [u8; 6]) -> Result<(), LabError> {
        self.targets.push(Target { socket: RawSocket::open(namespace, device)?, templates: templates(mac)?, mac });
        Ok(())
    }

    /// Sends to all devices in turn for some time, at most `rate` frames per second in all.
    ///
    /// # Errors
    /// [`LabError::Io`] when a device is gone, [`LabError::Interrupted`].
    pub fn flood(&mut self, duration: Duration, rate: u32) -> Result<GarbageReport, LabError> {
        let begun = Instant::now();
        let mut report = GarbageReport { sent: 0, refused: 0 };
        let mut frame = Vec::with_capacity(MAX);
        while begun.elapsed() < duration {
            interrupt::check()?;
            for _ in 0..BURST {
                for target in &self.targets {
                    make(&mut self.random, target, &mut frame);
                    match target.socket.send(&frame)? {
                        true => report.sent += 1,
                        false => report.refused += 1,
                    }
                }
            }
            // Pacing: what has been sent would have taken this long.
            let due = Duration::from_secs_f64((report.sent + report.refused) as f64 / f64::from(rate.max(1)));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        Ok(report)
    }
}

/// Writes the next frame.
fn make(random: &mut SplitMix, target: &Target, frame: &mut Vec<u8>) {
    frame.clear();
    let pick = random.below(target.templates.len());
    let template = target.templates.get(pick).map_or(&[][..], Vec::as_slice);
    match random.below(6) {
        // Noise, to anybody.
        0 => random.fill(frame, MIN, MAX),
        // Noise behind a plausible Ethernet header.
        1 => {
            random.fill(frame, MIN, MAX);
            let ethertypes: [[u8; 2]; 6] =
                [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00], [0x88, 0xa8], [0x88, 0x47]];
            let at = random.below(ethertypes.len());
            for (place, octet) in frame.iter_mut().zip(target.mac) {
                *place = octet;
            }
            for (place, octet) in frame.iter_mut().skip(12).zip(ethertypes.get(at).copied().unwrap_or_default()) {
                *place = octet;
            }
        }
        // Cut anywhere.
        2 => {
            let length = MIN + random.below(template.len().saturating_sub(MIN) + 1);
            frame.extend(template.iter().take(length));
        }
        // A few octets changed.
        3 | 4 => {
            frame.extend_from_slice(template);
            for _ in 0..=random.below(4) {
                let at = random.below(frame.len());
                let value = [0x00, 0xff, 0x7f, 0x80, random.octet()].get(random.below(5)).copied().unwrap_or_default();
                if let Some(place) = frame.get_mut(at) {
                    *place = value;
                }
            }
        }
        // As it is: well-formed, to destinations that do not exist.
        _ => frame.extend_from_slice(template),
    }
}

/// Well-formed frames toward a node, none of them from or to a host of the lab: untagged and tagged, both families, ARP,
/// fragments, ICMP, MPLS over UDP with a known and an unknown label.
fn templates(node: [u8; 6]) -> Result<Vec<Vec<u8>>, LabError> {
    const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0xba, 0xd0];
    let (site1, site2) = ([192, 168, 100, 66], [192, 168, 1, 66]);
    let v6 = |network: u8| {
        let mut address = [0_u8; 16];
        address[0] = 0xfd;
        address[2] = network;
        address[15] = 0x66;
        address
    };
    let ethernet = || PacketBuilder::ethernet2(SOURCE, node);
    let payload = [0x5a; 64];
    let mut all = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>| {
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(|error| LabError::Violated(format!("build a garbage template: {error}")))?;
        all.push(bytes);
        Ok::<(), LabError>(())
    };
    for (from, to) in [(site1, site2), (site2, site1)] {
        add(&|out| ethernet().ipv4(from, to, 64).udp(4000, 4001).write(out, &payload))?;
        add(&|out| ethernet().ipv4(from, to, 1).udp(4000, 4001).write(out, &payload))?;
        add(&|out| ethernet().ipv4(from, to, 64).tcp(4000, 80, 1, 1000).syn().write(out, &[]))?;
        add(&|out| ethernet().ipv4(from, to, 64).tcp(4000, 80, 1, 1000).rst().write(out, &[]))?;
        add(&|out| ethernet().ipv4(from, to, 64).icmpv4_echo_request(7, 7).write(out, &payload))?;
        add(&|out| ethernet().single_vlan(vlan(300)).ipv4(from, to, 64).udp(4000, 4001).write(out, &payload))?;
        add(&|out| ethernet().double_vlan(vlan(300), vlan(302)).ipv4(from, to, 64).udp(1, 2).write(out, &payload))?;
        add(&|out| ethernet().single_vlan(vlan(999)).ipv4(from, to, 64).udp(4000, 4001).write(out, &payload))?;
    }
    for (from, to) in [(v6(0x01), v6(0x00)), (v6(0x00), v6(0x01))] {
        add(&|out| ethernet().ipv6(from, to, 64).udp(4000, 4001).write(out, &payload))?;
        add(&|out| ethernet().ipv6(from, to, 64).tcp(4000, 80, 1, 1000).syn().write(out, &[]))?;
        add(&|out| ethernet().ipv6(from, to, 1).icmpv6_echo_request(7, 7).write(out, &payload))?;
        add(&|out| ethernet().single_vlan(vlan(302)).ipv6(from, to, 64).udp(4000, 4001).write(out, &payload))?;
    }
    let mut inner = Vec::new();
    PacketBuilder::ipv4(site1, site2, 63)
        .udp(4000, 4001)
        .write(&mut inner, &payload)
        .map_err(|error| LabError::Violated(format!("build a garbage template: {error}")))?;
    let underlay = [
        ([10, 101, 10, 39], [10, 101, 9, 245]),
        ([10, 101, 9, 245], [10, 101, 10, 39]),
        ([9, 9, 9, 9], [10, 101, 9, 245]),
    ];
    for (from, to) in underlay {
        for label in [3_u32, 280, 281, 0xf_ffff] {
            for bottom in [0x100_u32, 0] {
                let mut labelled = (label << 12 | bottom | 63).to_be_bytes().to_vec();
                labelled.extend_from_slice(&inner);
                add(&|out| ethernet().ipv4(from, to, 64).udp(50_000, 6635).write(out, &labelled))?;
            }
        }
    }
    // Fragments (RFC 791 §3.1): a head without end, and a tail without head. The checksum stays that of the whole
    // packet, so that the node has to look at it, or not.
    for flags_and_offset in [[0x20, 0x00], [0x20, 0x01], [0x1f, 0xff]] {
        let mut bytes = Vec::new();
        ethernet()
            .ipv4(site1, site2, 64)
            .udp(4000, 4001)
            .write(&mut bytes, &payload)
            .map_err(|error| LabError::Violated(format!("build a garbage template: {error}")))?;
        for (place, octet) in bytes.iter_mut().skip(14 + 6).zip(flags_and_offset) {
            *place = octet;
        }
        correct_ipv4_checksum(&mut bytes);
        all.push(bytes);
    }
    let mut arp = Vec::new();
    arp.extend_from_slice(&[0xff; 6]);
    arp.extend_from_slice(&SOURCE);
    arp.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    arp.extend_from_slice(&SOURCE);
    arp.extend_from_slice(&site1);
    arp.extend_from_slice(&[0; 6]);
    arp.extend_from_slice(&[192, 168, 100, 67]);
    all.push(arp);
    Ok(all)
}

fn vlan(id: u16) -> etherparse::VlanId {
    etherparse::VlanId::try_new(id).unwrap_or_default()
}

/// Sets the header checksum of the IPv4 header behind an untagged Ethernet header (RFC 1071).
fn correct_ipv4_checksum(frame: &mut [u8]) {
    const CHECKSUM: std::ops::Range<usize> = 10..12;
    let Some(header) = frame.get_mut(14..34) else { return };
    let words = header.chunks_exact(2).enumerate().filter(|(index, _)| *index != CHECKSUM.start / 2);
    let sum: u32 =
        words.filter_map(|(_, pair)| pair.try_into().ok()).map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    if let Some(place) = header.get_mut(CHECKSUM) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..limit; 0 when limit is 0.
    const fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }

    const fn octet(&mut self) -> u8 {
        self.next() as u8
    }

    fn fill(&mut self, frame: &mut Vec<u8>, min: usize, max: usize) {
        let length = min + self.below(max - min + 1);
        while frame.len() < length {
            frame.extend_from_slice(&self.next().to_le_bytes());
        }
        frame.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_frame_that_a_raw_socket_takes() {
        for template in templates([2, 0, 0, 0, 0, 1]).unwrap() {
            assert!((MIN..=MAX).contains(&template.len()), "{} octets", template.len());
        }
    }

    #[test]
    fn a_corrected_header_sums_up_to_all_ones() {
        let mut frame = templates([2, 0, 0, 0, 0, 1]).unwrap().swap_remove(0);
        frame[20] = 0x20;
        correct_ipv4_checksum(&mut frame);
        let sum: u32 = frame[14..34].chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
