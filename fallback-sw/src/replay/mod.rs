//! Captures through a node: no root, no sockets, and the same outcome each time.
//!
//! Frames of all inputs go through a [`Machine`] in the order of their timestamps; what it sends is written to one capture for
//! each egress vif, what it counts to a JSON report.

mod args;
mod clock;
mod front;
mod report;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use offload_rules::{
    VifId,
    forwarding::{Snapshot, StateErrors},
};
use proto::{json::JsonError, v1 as pb};

pub use args::{Args, Clock as ClockArg, CommandError};
pub use clock::ClockMode;
pub use front::{Front, NicOutcome};
pub use report::of as report;

use crate::{
    io::{
        device::Link,
        pcap::{CaptureError, CaptureReader, CaptureWriter},
    },
    node::{
        decode,
        machine::{Machine, MachineConfig, Sent},
    },
    packet::Packet,
};
use clock::Clock;

/// What to replay.
#[derive(Debug, Clone)]
pub struct Request {
    /// Forwarding state as JSON.
    pub state: PathBuf,
    /// Vif (number or name) and capture.
    pub inputs: Vec<(String, PathBuf)>,
    /// Folder for captures and report; made when missing.
    pub out: PathBuf,
    /// What the node's clock follows.
    pub clock: ClockMode,
    /// Workers and seeds.
    pub machine: MachineConfig,
    /// Seconds that pass after the last frame: held packets time out, flows age.
    pub drain_secs: u32,
}

/// Why a replay did not take place.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file could not be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The state is not the JSON of a forwarding state.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The state is not consistent.
    #[error("{}: the forwarding state is refused:\n{errors}", file.display())]
    State {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        errors: StateErrors,
    },
    /// No such vif.
    #[error("--in {vif}=…: the state has no vif with this number or name; it has {known}")]
    UnknownVif {
        /// What was given.
        vif: String,
        /// Numbers and names of the state's vifs.
        known: String,
    },
    /// A capture could not be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The capture holds frames of another link layer than the vif.
    #[error("{}: {found:?} frames for vif {vif}, which takes {wanted:?}", file.display())]
    Link {
        /// The file.
        file: PathBuf,
        /// The vif.
        vif: VifId,
        /// What the capture holds.
        found: Link,
        /// What the vif takes.
        wanted: Link,
    },
    /// Writing would destroy the capture that is being read.
    #[error("{}: this replay may write to this file itself: give --out another folder", file.display())]
    Overwrites {
        /// The file.
        file: PathBuf,
    },
    /// No memory for the flow table.
    #[error("flow table: {0}")]
    Memory(io::Error),
    /// What stands in front of the node has failed.
    #[error("NIC: {0}")]
    Front(String),
}

/// Reads a state file.
///
/// # Errors
/// The file, its JSON, or the state.
pub fn load_state(file: &Path) -> Result<Snapshot, ReplayError> {
    let text = fs::read_to_string(file).map_err(|source| ReplayError::File { file: file.to_owned(), source })?;
    let message: pb::ForwardingState = proto::json::parse(&text, &file.display().to_string())?;
    let refused = |errors| ReplayError::State { file: file.to_owned(), errors };
    let state = decode::state(&message).map_err(refused)?;
    Snapshot::empty().with_state(state).map_err(refused)
}

/// One capture being read.
struct Input {
    port: VifId,
    wanted: Link,
    file: PathBuf,
    reader: CaptureReader,
    next: Option<(Duration, Vec<u8>)>,
}

impl Input {
    fn advance(&mut self) -> Result<(), ReplayError> {
        self.next = match self.reader.next_record()? {
            Some(record) if record.link != self.wanted => {
                return Err(ReplayError::Link {
                    file: self.file.clone(),
                    vif: self.port,
                    found: record.link,
                    wanted: self.wanted,
                });
            }
            Some(record) => Some((record.time, record.frame.to_vec())),
            None => None,
        };
        Ok(())
    }
}

/// Replays captures and writes what comes out. The report is also written to `report.json` in the output folder.
///
/// # Errors
/// [`ReplayError`]; output that was written before stays.
pub fn run(request: &Request) -> Result<pb::ReplayReport, ReplayError> {
    run_behind(request, |_| Ok(None))
}

/// Replays captures with a NIC in front of the node, which `front` makes for the state in force; without one this is [`run`].
///
/// # Errors
/// [`ReplayError`]; output that was written before stays.
pub fn run_behind<F>(request: &Request, front: F) -> Result<pb::ReplayReport, ReplayError>
where
    F: FnOnce(&Arc<Snapshot>) -> Result<Option<Box<dyn Front>>, String>,
{
    let snapshot = Arc::new(load_state(&request.state)?);
    let mut inputs =
        request.inputs.iter().map(|(vif, file)| open_input(&snapshot, vif, file)).collect::<Result<Vec<_>, _>>()?;
    fs::create_dir_all(&request.out).map_err(|source| ReplayError::File { file: request.out.clone(), source })?;
    keep_inputs(&snapshot, request)?;
    let mut front = front(&snapshot).map_err(ReplayError::Front)?;
    // The NIC's answers come before the next frame: no sequence numbers are lost between both, so those sent are software's.
    let config = MachineConfig { offload: front.is_some(), answered_at_once: front.is_some(), ..request.machine };
    let mut machine = Machine::new(config, Arc::clone(&snapshot)).map_err(ReplayError::Memory)?;
    let mut clock = Clock::new(request.clock);
    let mut outputs = Outputs { folder: &request.out, snapshot: &snapshot, writers: BTreeMap::new() };
    settle(&mut front, &mut machine, clock.now())?;

    // The input whose next frame is the oldest; the first named wins a tie.
    while let Some((i, time)) = inputs
        .iter()
        .enumerate()
        .filter_map(|(i, input)| input.next.as_ref().map(|(time, _)| (i, *time)))
        .min_by_key(|(i, time)| (*time, *i))
    {
        let Some(input) = inputs.get_mut(i) else { break };
        for now in clock.advance_to(time) {
            machine.tick(now);
            settle(&mut front, &mut machine, now)?;
            outputs.write(&mut front, &mut machine, time)?;
        }
        if let Some((_, frame)) = input.next.take() {
            let now = clock.now();
            let mut frames = match &mut front {
                None => vec![Packet::from_frame(&frame)],
                Some(front) => {
                    let met = front.receive(input.port, &frame, now).map_err(ReplayError::Front)?;
                    for (port, packet) in met.sent {
                        outputs.write_one(&front::as_sent(&snapshot, port, packet), time)?;
                    }
                    met.software
                }
            };
            // Queues as a NIC would have them: one for each input.
            machine.receive(input.port, i, &mut frames, now);
            settle(&mut front, &mut machine, now)?;
        }
        outputs.write(&mut front, &mut machine, time)?;
        input.advance()?;
    }
    let end = clock.last() + Duration::from_secs(request.drain_secs.into());
    for now in clock.drain(request.drain_secs) {
        machine.tick(now);
        settle(&mut front, &mut machine, now)?;
        outputs.write(&mut front, &mut machine, end)?;
    }
    if let Some(nic) = &mut front {
        nic.finish(&mut machine, clock.now()).map_err(ReplayError::Front)?;
        outputs.write(&mut front, &mut machine, end)?;
    }
    let mut report = report(&machine);
    report.outputs = outputs.finish()?;
    let file = request.out.join("report.json");
    let text = proto::json::to_string(&report, proto::json::Defaults::Written)
        .map_err(|source| ReplayError::File { file: file.clone(), source })?;
    fs::write(&file, text).map_err(|source| ReplayError::File { file, source })?;
    Ok(report)
}

/// Lets the NIC and the node tell each other what they have to.
fn settle(front: &mut Option<Box<dyn Front>>, machine: &mut Machine, now: u64) -> Result<(), ReplayError> {
    front.as_mut().map_or(Ok(()), |front| front.settle(machine, now)).map_err(ReplayError::Front)
}

fn open_input(snapshot: &Snapshot, name: &str, file: &Path) -> Result<Input, ReplayError> {
    let by_number = |id: &str| id.parse().ok().and_then(|id| VifId::new(id).ok()).and_then(|id| snapshot.vif(id));
    let vif = by_number(name).or_else(|| snapshot.vifs().find(|vif| vif.name == name));
    let Some(vif) = vif else {
        let known: Vec<_> = snapshot.vifs().map(|vif| format!("{} ({})", vif.id, vif.name)).collect();
        return Err(ReplayError::UnknownVif { vif: name.to_owned(), known: known.join(", ") });
    };
    let wanted = if vif.flags.raw_ip { Link::RawIp } else { Link::Ethernet };
    let mut input = Input {
        port: snapshot.port_of(vif.id),
        wanted,
        file: file.to_owned(),
        reader: CaptureReader::open(file)?,
        next: None,
    };
    input.advance()?;
    Ok(input)
}

/// Inputs are read while outputs are written: none may be both.
fn keep_inputs(snapshot: &Snapshot, request: &Request) -> Result<(), ReplayError> {
    let whole =
        |file: &Path| fs::canonicalize(file).map_err(|source| ReplayError::File { file: file.to_owned(), source });
    for vif in snapshot.vifs() {
        let output = request.out.join(output_name(vif.id));
        if !output.exists() {
            continue;
        }
        let output = whole(&output)?;
        for (_, file) in &request.inputs {
            if whole(file)? == output {
                return Err(ReplayError::Overwrites { file: file.clone() });
            }
        }
    }
    Ok(())
}

fn output_name(vif: VifId) -> String {
    format!("vif{vif}.pcap")
}

/// The captures that are written.
struct Outputs<'a> {
    folder: &'a Path,
    snapshot: &'a Snapshot,
    writers: BTreeMap<VifId, (String, CaptureWriter, u64)>,
}

impl Outputs<'_> {
    /// Writes what leaves of the frames that the node has sent since the last call.
    fn write(
        &mut self,
        front: &mut Option<Box<dyn Front>>,
        machine: &mut Machine,
        time: Duration,
    ) -> Result<(), ReplayError> {
        for sent in machine.take_sent() {
            let Some(front) = front else {
                // As a port without sessions does: in the clear it must not leave.
                if sent.packet.is_for_session() {
                    machine.not_sent(sent.port, sent.meta);
                } else {
                    self.write_one(&sent, time)?;
                }
                continue;
            };
            let Sent { port, meta, packet } = sent;
            let left = front.send(port, packet).map_err(ReplayError::Front)?;
            if left.is_empty() {
                machine.not_sent(port, meta);
            }
            for (by, packet) in left {
                let sent =
                    if by == port { Sent { port, meta, packet } } else { front::as_sent(self.snapshot, by, packet) };
                self.write_one(&sent, time)?;
            }
        }
        Ok(())
    }

    fn write_one(&mut self, sent: &Sent, time: Duration) -> Result<(), ReplayError> {
        let vif = sent.meta.vif;
        if !self.writers.contains_key(&vif) {
            let raw = self.snapshot.vif(vif).is_some_and(|vif| vif.flags.raw_ip);
            let link = if raw { Link::RawIp } else { Link::Ethernet };
            let name = output_name(vif);
            let writer = CaptureWriter::create(&self.folder.join(&name), link)?;
            self.writers.insert(vif, (name, writer, 0));
        }
        if let Some((_, writer, count)) = self.writers.get_mut(&vif) {
            writer.write(time, sent.packet.data())?;
            *count += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<pb::ReplayOutput>, ReplayError> {
        let mut written = Vec::new();
        for (vif, (file, mut writer, packets)) in self.writers {
            writer.flush()?;
            written.push(pb::ReplayOutput { vif: vif.get().into(), file, packets });
        }
        Ok(written)
    }
}
