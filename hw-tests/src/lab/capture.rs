//! Captures on a link, and what tshark thinks of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{Lab, LabError, Namespace, Process, process, tools, wait};

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures whole frames of one device until it is stopped or has `limit` frames.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(lab: &Lab, namespace: &Namespace, device: &str, limit: u32) -> Result<Self, LabError> {
        Self::filtered(lab, namespace, device, limit, "")
    }

    /// Like [`Capture::start`], only of frames that a filter of pcap-filter(7) takes.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn filtered(
        lab: &Lab,
        namespace: &Namespace,
        device: &str,
        limit: u32,
        filter: &str,
    ) -> Result<Self, LabError> {
        static CAPTURES: AtomicU32 = AtomicU32::new(0);
        let number = CAPTURES.fetch_add(1, Ordering::Relaxed);
        let file = lab.directory().join(format!("{}-{device}-{number}.pcap", namespace.role()));
        let path = file.display().to_string();
        let count = limit.to_string();
        let mut arguments =
            vec!["-Z", "root", "-n", "-U", "-s", "0", "-B", "16384", "-i", device, "-c", &count, "-w", &path];
        if !filter.is_empty() {
            // Few frames, of which the last one counts as well: no waiting until a buffer is full.
            arguments.push("--immediate-mode");
            arguments.extend(filter.split_whitespace());
        }
        let mut process = namespace.spawn("tcpdump", &arguments)?;
        wait::until("tcpdump to listen", Duration::from_secs(10), || {
            if let Some(status) = process.ended()? {
                return Err(LabError::Command {
                    command: process.command().to_owned(),
                    status,
                    output: process.stderr(),
                });
            }
            Ok(process.stderr().contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// Ends it; returns its file.
    ///
    /// # Errors
    /// When tcpdump does not end.
    pub fn stop(mut self) -> Result<PathBuf, LabError> {
        if self.process.ended()?.is_none() {
            self.process.terminate()?;
        }
        Ok(self.file)
    }
}

/// What tshark found in a capture.
#[derive(Debug, Clone, Default)]
pub struct CaptureVerdict {
    /// Frames.
    pub frames: u64,
    /// Frames by chain of protocols: "eth:ethertype:ip:udp:mpls:ip:icmp".
    pub protocols: BTreeMap<String, u64>,
    /// Frames that are malformed or have a wrong checksum, one line each.
    pub complaints: Vec<String>,
}

/// Has tshark dissect a capture with all checksums checked and both MPLS-over-UDP ports decoded.
///
/// # Errors
/// When tshark cannot read it.
pub fn check_capture(file: &Path) -> Result<CaptureVerdict, LabError> {
    let mut command = tools::command("tshark");
    command.args(["-n", "-r"]).arg(file);
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    command.args(["-d", "udp.port==6635,mpls", "-d", "udp.port==51234,mpls"]);
    command.args(["-T", "fields", "-E", "separator=/t"]);
    for field in ["frame.protocols", "frame.number"].iter().chain(&COMPLAINTS).chain(&CHECKSUMS).chain(&[OTHER_ZERO]) {
        command.args(["-e", field]);
    }
    let output = process::run(command, Duration::from_secs(120))?.success()?;
    let mut verdict = CaptureVerdict::default();
    for line in output.lines() {
        let mut fields = line.split('\t');
        let (protocols, number) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        verdict.frames += 1;
        *verdict.protocols.entry(protocols.to_owned()).or_default() += 1;
        let mut said: Vec<String> = COMPLAINTS
            .iter()
            .zip(fields.by_ref())
            .filter(|(field, value)| is_complaint(field, value))
            .map(|(field, value)| format!("{field} {value}"))
            .collect();
        // One value for each header of that protocol in the frame.
        let wrong = CHECKSUMS.iter().zip(fields.by_ref());
        let wrong = wrong.filter(|(_, values)| values.split(',').any(|value| value == BAD_CHECKSUM));
        let mut wrong: Vec<&str> = wrong.map(|(field, _)| *field).collect();
        // A kernel that completes a checksum for a device without offloads writes 0xffff where the sum is 0x0000, for TCP too: both
        // are zero in one's complement and every receiver takes them, tshark alone does not.
        if wrong == ["tcp.checksum.status"] && fields.next().is_some_and(|told| !told.is_empty()) {
            wrong.clear();
            said.retain(|complaint| !complaint.starts_with("_ws.expert.group") || complaint.contains(MALFORMED_GROUP));
        }
        let all: Vec<String> = said.into_iter().chain(wrong.iter().map(|field| format!("{field} bad"))).collect();
        if !all.is_empty() {
            verdict.complaints.push(format!("frame {number} ({protocols}): {}", all.join(", ")));
        }
    }
    Ok(verdict)
}

/// What tshark says of a frame that it cannot make sense of.
const COMPLAINTS: [&str; 2] = ["_ws.malformed", "_ws.expert.group"];
const CHECKSUMS: [&str; 5] = [
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];
const BAD_CHECKSUM: &str = "0";
/// Expert groups (epan/proto.h): PI_CHECKSUM and PI_MALFORMED.
const EXPERT_GROUPS: [u64; 2] = [0x0100_0000, 0x0700_0000];
/// Told only where 0xffff stands and 0x0000 is right.
const OTHER_ZERO: &str = "tcp.checksum.ffff";
/// PI_MALFORMED as tshark prints it.
const MALFORMED_GROUP: &str = "117440512";

fn is_complaint(field: &str, value: &str) -> bool {
    match field {
        "_ws.expert.group" => {
            value.split(',').filter_map(|group| group.parse().ok()).any(|group: u64| EXPERT_GROUPS.contains(&group))
        }
        _ => !value.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use etherparse::PacketBuilder;

    use super::*;

    /// A capture file (pcap, Ethernet) with these frames.
    fn capture(frames: &[Vec<u8>]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1];
        for word in header {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [0, 0, length, length] {
                file.write_all(&word.to_le_bytes()).unwrap();
            }
            file.write_all(frame).unwrap();
        }
        file
    }

    fn labelled(spoil: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut inner = 0x0011_8140_u32.to_be_bytes().to_vec();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1000, 2000, 1, 1)
            .write(&mut inner, &[1; 20])
            .unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 1, 0, 1], [10, 1, 0, 2], 64)
            .udp(50_000, 6635)
            .write(&mut frame, &inner)
            .unwrap();
        // No outer UDP checksum (RFC 7510 §3.1).
        frame[40..42].fill(0);
        spoil(&mut frame);
        frame
    }

    #[test]
    fn tshark_is_content_with_a_sound_packet_and_complains_about_broken_ones() {
        if tools::launcher("tshark".as_ref()).is_empty() && super::super::find_in_path("tshark").is_none() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed: run `make setup`");
            return;
        }
        let inner_ip = 14 + 20 + 8 + 4;
        let frames = [
            labelled(|_| ()),
            labelled(|frame| frame[24] ^= 1),
            labelled(|frame| frame[inner_ip + 10] ^= 1),
            labelled(|frame| frame[inner_ip + 20 + 16] ^= 1),
            labelled(|frame| frame[inner_ip + 20 + 12] = 0xf0),
            // The data makes the TCP checksum 0, and it is written as the other zero.
            labelled(|frame| {
                let (sum, data) = (inner_ip + 20 + 16, inner_ip + 40);
                let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
                let total = word(frame, sum) + word(frame, data);
                let folded = ((total & 0xffff) + (total >> 16)) as u16;
                frame[data..data + 2].copy_from_slice(&folded.to_be_bytes());
                frame[sum..sum + 2].fill(0xff);
            }),
            // The same octets where they are wrong.
            labelled(|frame| frame[inner_ip + 20 + 16..inner_ip + 20 + 18].fill(0xff)),
        ];
        let verdict = check_capture(capture(&frames).path()).unwrap();
        assert_eq!(verdict.frames, 7);
        assert!(verdict.protocols.contains_key("eth:ethertype:ip:udp:mpls:ip:tcp:data"), "{verdict:#?}");
        let complained: Vec<_> = verdict.complaints.iter().map(|line| &line[..7]).collect();
        assert_eq!(complained, ["frame 2", "frame 3", "frame 4", "frame 5", "frame 7"], "{verdict:#?}");
    }
}
