//! Messages between the threads of a node: commands to workers, reports and questions to control.

use std::{collections::BTreeMap, sync::Arc};

use offload_rules::{
    VifId,
    forwarding::{Delta, Snapshot, State, StateErrors},
};
use tokio::sync::oneshot;

use super::{control::Control, ike, neighbours::nud::Question, view::PortStatus};
use crate::{
    io::{Port, PortError},
    worker::{Event, GiveUp, Grant, NeighbourKey, Worker},
};

/// A command to a worker thread.
pub enum Command {
    /// Forward by this snapshot from now on.
    Adopt(Arc<Snapshot>),
    /// Outbound SAs may use these sequence numbers.
    Grant(Arc<[Grant]>),
    /// Use this port for a vif, instead of one that it may have.
    AddPort(VifId, Box<dyn Port>),
    /// The device of a vif is not to be used any more.
    RemovePort(VifId),
    /// Ask for a neighbour.
    Ask(NeighbourKey, Question),
    /// Give up what waits for a neighbour.
    GiveUp(NeighbourKey, GiveUp),
    /// Runs a function on the worker; must be quick, packets wait.
    Inspect(Box<dyn FnOnce(&Worker) + Send>),
    /// Reports of the offload engine.
    Offload(Vec<offload_engine::protocol::Report>),
    /// Offload is switched on or off.
    OffloadEnabled(bool),
    /// The offload engine has started anew, and knows no flow.
    OffloadRestarted,
    /// End.
    Stop,
}

/// A report of a worker thread.
#[derive(Debug)]
pub enum Report {
    /// Events that packets caused.
    Events(Vec<Event>),
    /// A port has failed and was given up.
    PortFailed(VifId, PortError),
}

/// A state or a change is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The generation.
    pub generation: u64,
    /// Warnings for the caller.
    pub warnings: Vec<String>,
}

/// A function that is run on the control thread, on what the node knows and on its devices.
pub type InspectControl = Box<dyn FnOnce(&Control, &BTreeMap<VifId, PortStatus>) + Send>;

/// A message to the control thread.
pub enum Message {
    /// By a worker.
    Report(Report),
    /// Put a state in force.
    ApplyState(Box<State>, oneshot::Sender<Result<Applied, StateErrors>>),
    /// Put a change in force.
    ApplyDelta(Box<Delta>, oneshot::Sender<Result<Applied, StateErrors>>),
    /// Charon's plugin asks.
    Ike(Box<ike::Request>, oneshot::Sender<Result<String, ike::Refused>>),
    /// Runs a function on the control thread.
    Inspect(InspectControl),
    /// End.
    Stop,
}
