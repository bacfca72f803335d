//! The command line of a replay, for every program that offers one.

use std::{fmt::Write as _, io, io::Write as _, path::PathBuf, sync::Arc};

use clap::ValueEnum;
use offload_rules::forwarding::Snapshot;
use proto::v1 as pb;

use super::{ClockMode, Front, ReplayError, Request};
use crate::node::machine::MachineConfig;

/// What to replay, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Forwarding state: protobuf JSON of sluicegate.v1.ForwardingState.
    #[arg(long, value_name = "STATE.json")]
    pub state: PathBuf,
    /// A capture (pcap or pcapng) and the vif that receives it, by number or name. Frames for a sub-interface carry its tag.
    #[arg(long = "in", value_name = "VIF=FILE", value_parser = input, required = true)]
    pub inputs: Vec<(String, PathBuf)>,
    /// Folder for one capture for each egress vif (vifN.pcap) and report.json; made when missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What the node's clock follows.
    #[arg(long, value_enum, default_value_t = Clock::Steady)]
    pub clock: Clock,
    /// Seconds that pass after the last frame, so that held packets time out and flows age.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub drain: u32,
    /// Workers; flows are shared out among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// First IPv4 identification of outer headers.
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub ip_id: u16,
    /// UDP source port of all tunnels, instead of 49152 + 14 bits of the flow's hash.
    #[arg(long, value_name = "PORT")]
    pub entropy: Option<u16>,
    /// Print the whole report as JSON instead of a summary.
    #[arg(long)]
    pub json: bool,
}

/// What the node's clock follows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Clock {
    /// One millisecond a frame: nothing ages.
    Steady,
    /// The captures' timestamps.
    Pcap,
}

fn input(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((vif, file)) if !vif.is_empty() && !file.is_empty() => Ok((vif.to_owned(), file.into())),
        _ => Err("write it as VIF=FILE, for example 4121=tenant.pcap".to_owned()),
    }
}

/// Why a replay that was asked for on the command line did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It did not take place.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The account of packets does not add up: a defect of the node.
    #[error("{0} packets are unaccounted for: please report this, with the state and the captures")]
    Unaccounted(i64),
    /// Standard output could not be written.
    #[error("can't write the summary: {0}")]
    Output(io::Error),
}

impl Args {
    /// Replays, and tells the outcome on standard output.
    ///
    /// # Errors
    /// [`CommandError`]; captures and report that were written before stay.
    pub fn run(self) -> Result<(), CommandError> {
        self.run_behind(|_| Ok(None))
    }

    /// Replays with a NIC in front of the node, and tells the outcome on standard output.
    ///
    /// # Errors
    /// As for [`Args::run`].
    pub fn run_behind<F>(self, front: F) -> Result<(), CommandError>
    where
        F: FnOnce(&Arc<Snapshot>) -> Result<Option<Box<dyn Front>>, String>,
    {
        let json = self.json;
        let report = super::run_behind(&self.into(), front)?;
        let text = if json {
            proto::json::to_string(&report, proto::json::Defaults::Written).map_err(CommandError::Output)?
        } else {
            summary(&report)
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // The reader has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(CommandError::Output(error)),
            _ => {}
        }
        match report.packets.map_or(0, |packets| packets.unaccounted) {
            0 => Ok(()),
            packets => Err(CommandError::Unaccounted(packets)),
        }
    }
}

impl From<Args> for Request {
    fn from(args: Args) -> Self {
        Self {
            state: args.state,
            inputs: args.inputs,
            out: args.out,
            clock: match args.clock {
                Clock::Steady => ClockMode::Steady,
                Clock::Pcap => ClockMode::Pcap,
            },
            machine: MachineConfig {
                workers: args.workers.into(),
                ip_id: args.ip_id,
                entropy: args.entropy,
                ..MachineConfig::default()
            },
            drain_secs: args.drain,
        }
    }
}

fn summary(report: &pb::ReplayReport) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{arguments}");
    };
    let p = report.packets.unwrap_or_default();
    line(format_args!(
        "received {} = forwarded {} + punted {} + consumed {} + dropped {} + held {}; unaccounted {}; originated {}",
        p.received, p.forwarded, p.punted, p.consumed, p.dropped, p.held, p.unaccounted, p.originated
    ));
    for drop in report.drops.iter().filter(|drop| drop.packets > 0) {
        line(format_args!("dropped: {} {}", drop.reason, drop.packets));
    }
    for output in &report.outputs {
        line(format_args!("vif {}: {} packets in {}", output.vif, output.packets, output.file));
    }
    line(format_args!("flows: {}; details in report.json", report.flows.len()));
    text
}
