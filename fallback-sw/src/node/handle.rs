//! How the API and the offload engine reach a running node.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use offload_rules::{
    VifId,
    forwarding::{Delta, State, StateErrors},
};
use tokio::sync::{broadcast, oneshot};

use super::{
    control::Control,
    ike,
    messages::{Applied, Command, Message},
    thread::{Mailbox, Waker},
    view::PortStatus,
};
use crate::worker::Worker;

/// A worker as others reach it.
#[derive(Clone)]
pub struct WorkerHandle {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
    pub(super) inbound: Vec<Mailbox>,
}

impl WorkerHandle {
    pub(super) fn send_command(&self, command: Command) {
        // A worker that has ended takes no commands.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shutting down")]
pub struct Ended;

/// How the API reaches the node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) messages: Sender<Message>,
    pub(super) ike_events: broadcast::Sender<ike::Event>,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) epoch: Instant,
}

impl Handle {
    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Time since the node began.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Packets on their way between workers.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.workers.iter().flat_map(|worker| &worker.inbound).map(|mailbox| mailbox.len() as u64).sum()
    }

    /// Puts a state in force.
    ///
    /// # Errors
    /// [`Ended`], or everything that is wrong with the state.
    pub async fn apply_state(&self, state: State) -> Result<Result<Applied, StateErrors>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ApplyState(Box::new(state), reply))?;
        answer.await.map_err(|_| Ended)
    }

    /// Puts a change in force.
    ///
    /// # Errors
    /// [`Ended`], or everything that is wrong with the change.
    pub async fn apply_delta(&self, delta: Delta) -> Result<Result<Applied, StateErrors>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ApplyDelta(Box::new(delta), reply))?;
        answer.await.map_err(|_| Ended)
    }

    /// Does what charon's plugin asks.
    ///
    /// # Errors
    /// [`ike::Refused`].
    pub async fn ike(&self, request: ike::Request) -> Result<String, ike::Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Ike(Box::new(request), reply)).map_err(|_| ike::Refused::Ended)?;
        answer.await.map_err(|_| ike::Refused::Ended)?
    }

    /// Events for charon's plugin from now on.
    #[must_use]
    pub fn ike_events(&self) -> broadcast::Receiver<ike::Event> {
        self.ike_events.subscribe()
    }

    /// Looks at what the node knows.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Control, &BTreeMap<VifId, PortStatus>) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Inspect(Box::new(move |control, ports| {
            let _ = reply.send(look(control, ports));
        })))?;
        answer.await.map_err(|_| Ended)
    }

    /// Looks at a worker between two batches. Must be quick: its packets wait meanwhile.
    ///
    /// # Errors
    /// [`Ended`]; also for a worker that does not exist.
    pub async fn look_at<T: Send + 'static>(
        &self,
        worker: usize,
        look: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        let handle = self.workers.get(worker).ok_or(Ended)?;
        handle.send_command(Command::Inspect(Box::new(move |worker| {
            let _ = reply.send(look(worker));
        })));
        answer.await.map_err(|_| Ended)
    }

    /// Tells a worker what the offload engine reports of its flows. Never waits.
    pub fn offload_reports(&self, worker: u16, reports: Vec<offload_engine::protocol::Report>) {
        if let Some(handle) = self.workers.get(usize::from(worker)) {
            handle.send_command(Command::Offload(reports));
        }
    }

    /// Switches offload on or off at the workers.
    pub fn offload_enabled(&self, on: bool) {
        self.workers.iter().for_each(|worker| worker.send_command(Command::OffloadEnabled(on)));
    }

    /// The offload engine has lost its books: nothing is in hardware, and what shall be there is asked for again.
    pub fn offload_restarted(&self) {
        self.workers.iter().for_each(|worker| worker.send_command(Command::OffloadRestarted));
    }

    pub(super) fn send(&self, message: Message) -> Result<(), Ended> {
        self.messages.send(message).map_err(|_| Ended)
    }
}
