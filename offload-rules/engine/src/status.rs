//! The engine's state as operators see it.

use crate::protocol::OffloadId;
use std::sync::Arc;

use offload_rules::lower::{FailureClass, NotOffloaded, Rule};

use super::{Hits, Token};

/// What trying a rule of a shape at start has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// Not tried yet.
    Waiting,
    /// Validated, created and destroyed.
    Works,
    /// The NIC refuses this shape: its flows stay in software.
    Refused(String),
    /// Failed for a reason that need not be the shape: its flows are tried.
    Unsure(String),
}

/// A shape of rules, as this NIC takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeStatus {
    /// The shape, as text.
    pub shape: String,
    /// What its canary found; `None` for a shape without one.
    pub probe: Option<ProbeResult>,
    /// Why flows of this shape are not tried any more.
    pub refused: Option<NotOffloaded>,
    /// Rules created.
    pub created: u64,
    /// Whether a counter of such a rule has ever moved: the evidence that the NIC honours it.
    pub proven: bool,
    /// Flows whose packets software saw although they should have been the NIC's, since a counter of this shape moved last.
    pub doubts: u32,
}

/// Failures by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// See [`FailureClass::Shape`].
    pub shape: u64,
    /// See [`FailureClass::Capacity`].
    pub capacity: u64,
    /// See [`FailureClass::Busy`].
    pub busy: u64,
    /// See [`FailureClass::Duplicate`].
    pub duplicate: u64,
    /// See [`FailureClass::Timeout`].
    pub timeout: u64,
    /// See [`FailureClass::Device`].
    pub device: u64,
}

impl Failures {
    /// Counts one.
    pub(super) fn count(&mut self, class: FailureClass) {
        let counter = match class {
            FailureClass::Shape => &mut self.shape,
            FailureClass::Capacity => &mut self.capacity,
            FailureClass::Busy => &mut self.busy,
            FailureClass::Duplicate => &mut self.duplicate,
            FailureClass::Timeout => &mut self.timeout,
            FailureClass::Device => &mut self.device,
        };
        *counter += 1;
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.shape + self.capacity + self.busy + self.duplicate + self.timeout + self.device
    }
}

/// Counters since the engine began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Rules created.
    pub created: u64,
    /// Rules destroyed.
    pub destroyed: u64,
    /// Creations that failed.
    pub failed: Failures,
    /// Destructions that failed, each attempt.
    pub destroy_failed: u64,
    /// Pairs (or single denied directions) that became active.
    pub activated: u64,
    /// Flows that made room for others.
    pub evicted: u64,
    /// Completions that came after their time.
    pub late: u64,
    /// Rules found missing when their counter was read.
    pub lost: u64,
    /// Rules whose last counter could not be read.
    pub uncounted: u64,
    /// Resets of the NIC, and flushes because an operation never completed.
    pub resets: u64,
    /// Rounds over all counters.
    pub sweeps: u64,
}

/// What the NIC forwards without flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransitStatus {
    /// Rules in the NIC, without those that several share.
    pub rules: usize,
    /// Rules that are wanted.
    pub wanted: usize,
    /// Rules, at most.
    pub most: usize,
    /// Ways in: vifs, and labels of tunnels, without policy.
    pub ingresses: usize,
    /// Prefixes of routes that have rules, counted once for each way in.
    pub prefixes: usize,
    /// The same of those that have none, by reason.
    pub reasons: Vec<(String, usize)>,
}

/// The engine's state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineStatus {
    /// Profile of the NIC.
    pub profile: String,
    /// Whether offload is switched on.
    pub enabled: bool,
    /// Why no flow is installed at all right now.
    pub blocked: Option<NotOffloaded>,
    /// Shapes, in the order of their type.
    pub shapes: Vec<ShapeStatus>,
    /// SAs that the NIC holds.
    pub sessions: usize,
    /// Rules in the NIC, those of no flow included.
    pub rules: usize,
    /// Its capacity in rules, where that is known.
    pub capacity: Option<usize>,
    /// The NIC has answered that it is full, and nothing has been removed since.
    pub full: bool,
    /// Flows known to the engine.
    pub flows: usize,
    /// Flows in hardware.
    pub hardware: usize,
    /// Flows that the NIC marks.
    pub partial: usize,
    /// Flows on their way into the NIC.
    pub pending: usize,
    /// Flows in software.
    pub software: usize,
    /// Operations in flight.
    pub in_flight: usize,
    /// Operations that may be in flight.
    pub depth: usize,
    /// Operations that wait for their turn.
    pub queued: usize,
    /// Rules created in each second, over the last seconds.
    pub insert_rate: u64,
    /// Half of all creations completed within this many milliseconds.
    pub latency_p50: u64,
    /// 99 of 100 creations completed within this many milliseconds.
    pub latency_p99: u64,
    /// Since the engine began.
    pub totals: Totals,
    /// What is forwarded without flows.
    pub transit: TransitStatus,
}

/// A rule as installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRule {
    /// The engine's number of it.
    pub token: Token,
    /// Its flow and direction; in a list of a flow's rules, the one that it is listed for. `None` for rules that belong to no flow.
    pub flow: Option<(OffloadId, u8)>,
    /// The rule.
    pub rule: Arc<Rule>,
    /// Packets and octets as last read.
    pub hits: Hits,
    /// It is in the NIC: its creation has completed, its removal has not.
    pub live: bool,
    /// Rules that need this one; 0 for one that forwards, drops or marks by itself.
    pub needed_by: u32,
}

/// How desired and installed differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MismatchKind {
    /// Desired, not in the NIC.
    Missing,
    /// In the NIC, not desired.
    Extra,
    /// In the NIC with other items or actions.
    Different,
}

/// One difference between what is desired and what is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// How.
    pub kind: MismatchKind,
    /// Its flow and direction; `None` for rules that belong to no flow.
    pub flow: Option<(OffloadId, u8)>,
    /// The desired rule; the installed one where none is desired.
    pub rule: Arc<Rule>,
}
