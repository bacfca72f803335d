//! Captures on a link, and what tshark thinks of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Lab, LabError, Namespace, Process, process, wait};

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
        let file = lab.directory().join(format!("{}-{device}.pcap", namespace.role()));
        let path = file.display().to_string();
        let count = limit.to_string();
        let arguments = ["-Z", "root", "-n", "-U", "-s", "0", "-B", "16384", "-i", device, "-c", &count, "-w", &path];
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
    let protocols = tshark(file, &["-T", "fields", "-e", "frame.protocols"])?;
    let mut verdict = CaptureVerdict::default();
    for line in protocols.lines() {
        verdict.frames += 1;
        *verdict.protocols.entry(line.to_owned()).or_default() += 1;
    }
    // Checksum status 0 is "bad". Malformed expert items and checksum complaints of every protocol.
    let filter = "_ws.malformed || _ws.expert.group == \"Malformed\" || _ws.expert.group == \"Checksum\" || \
                  ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || \
                  icmp.checksum.status == 0 || icmpv6.checksum.status == 0";
    let bad = tshark(file, &["-Y", filter])?;
    verdict.complaints = bad.lines().map(str::to_owned).collect();
    Ok(verdict)
}

fn tshark(file: &Path, arguments: &[&str]) -> Result<String, LabError> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-2", "-r"]).arg(file);
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    command.args(["-d", "udp.port==6635,mpls", "-d", "udp.port==51234,mpls"]).args(arguments);
    process::run(command, Duration::from_secs(120))?.success()
}
