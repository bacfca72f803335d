//! One worker: batches of frames in, batches of frames out, run to completion.
//!
//! A packet goes through stages: sort, (open,) look up, hit, routed or decide, (seal). Each takes the parts of the worker that it needs
//! and returns one `Outcome`, which `counters/settle.rs` alone carries out and counts.
//!
//! A worker shares nothing. What others must know (a neighbour's address, a path's MTU) leaves as an [`Event`]; what others have learnt
//! comes back in the next snapshot.
//!
//! # Where what is
//!
//! | modules | |
//! |---|---|
//! | `batch` | the way of a batch through the stages: begin to read here, at [`Worker::receive`] |
//! | `outcome`, `exit`, `delivery`, `counters` | what becomes of a packet; of one that has run a plan; of one that enters again or goes to another worker; carrying it out and counting it |
//! | `lane` | ordinary packets of known flows and routes, ahead of the general way |
//! | `ingress`, `interfaces`, `context`, `decap_cache` | sort: vif, headers, tunnel, key; what is known of a packet from then on |
//! | `ipsec` | SAs; the stages that open and seal |
//! | `hit`, `routed` | packets that run a plan at once: that of their flow, or of a decision kept for packets without flows |
//! | `slow`, `decider`, `carry`, `decisions` | decide: why not at once, the walk, running a plan with fragments and ICMP errors in between, decisions that new flows share |
//! | `track`, `cookie`, `splice`, `openings`, `quote`, `fragments`, `reassembly` | parts of decide: TCP and ways in, SYN cookies, ICMP errors about own tunnels, fragments |
//! | `respond`, `neighbour`, `local`, `own` | what the node answers; what it makes itself |
//! | `flow_state`, `flows`, `programs`, `leases`, `flag`, `room` | flows and what belongs to them; who gives way in a full table |
//! | `waiting`, `held` | packets that wait |
//! | `change`, `lists`, `readers`, `sweep` | what a snapshot (routes, changed entries of lists, objects) and what time do to flows |
//! | `offload` | what is asked of an offload engine, and its reports |
//! | `env`, `limits`, `tenant`, `node_addresses` | what all stages read; rates; on whose account |
//! | `outbox`, `tx`, `event` | what comes out |

mod batch;
mod carry;
mod change;
mod context;
mod cookie;
mod counters;
mod decap_cache;
mod decider;
mod decisions;
mod delivery;
mod env;
mod event;
mod exit;
pub(crate) mod flag;
mod flow_state;
mod flows;
mod fragments;
mod held;
mod hit;
mod ingress;
mod interfaces;
mod ipsec;
mod lane;
pub mod leases;
mod limits;
mod lists;
mod local;
mod neighbour;
mod node_addresses;
mod offload;
mod openings;
mod outbox;
mod outcome;
mod own;
mod programs;
mod quote;
mod readers;
mod reassembly;
mod respond;
mod room;
mod routed;
mod slow;
mod splice;
mod sweep;
mod tenant;
mod track;
mod tx;
mod waiting;

use std::sync::Arc;

use offload_rules::{VifId, forwarding::Snapshot};

pub use context::Head;
pub use counters::{Account, Counters, Ledger, TierTraffic, Traffic, VifCounters};
pub use delivery::{Arrived, Delivery, Origin};
pub use env::WorkerConfig;
pub use event::{Event, NeighbourClaim};
pub use fragments::{FragmentLimits, FragmentTable};
pub use held::{GiveUp, HoldQueue};
pub use ipsec::{EspQuote, Grant, Refused, SaNews, SaStatus, Sealing};
pub use offload::OffloadStatus;
pub use outbox::{Outbox, TxQueue};
pub use programs::{ProgramId, Programs, TO_BE_DERIVED};
pub use tenant::{NeighbourKey, Tenant};
pub use tx::{TxKind, TxMeta};

use crate::flow_table::FlowTable;
use batch::Batch;
use env::Env;
use flow_state::FlowState;
use interfaces::Interfaces;
use ipsec::Ipsec;
use lane::Lane;
use limits::Limits;
use offload_engine::protocol::Request;
use outcome::Pending;
use routed::Routed;
use waiting::Waiting;

/// One worker: the parts that its stages work on.
pub struct Worker {
    env: Env,
    interfaces: Interfaces,
    state: FlowState,
    routed: Routed,
    waiting: Waiting,
    limits: Limits,
    ipsec: Ipsec,
    counters: Counters,
    pending: Pending,
    batch: Option<Box<Batch>>,
    lane: Option<Box<Lane>>,
}

impl Worker {
    /// A worker with its share of the flow table.
    ///
    /// # Errors
    /// No memory for the flow table.
    pub fn new(config: WorkerConfig, snapshot: Arc<Snapshot>) -> std::io::Result<Self> {
        let env = Env::new(config, snapshot);
        let mut worker = Self {
            interfaces: Interfaces::default(),
            state: FlowState::new(&env)?,
            routed: Routed::default(),
            waiting: Waiting::default(),
            limits: Limits::default(),
            ipsec: Ipsec::new(env.config.id, env.config.offload),
            counters: Counters::default(),
            pending: Pending::default(),
            batch: Some(Box::default()),
            lane: Some(Box::default()),
            env,
        };
        worker.read_vifs();
        worker.ipsec.adopt(&worker.env);
        Ok(worker)
    }

    /// Brings vifs in line with the snapshot.
    fn read_vifs(&mut self) {
        self.interfaces.read(&self.env.snapshot);
        for vif in self.env.snapshot.vifs() {
            self.counters.reserve(vif.id);
        }
    }

    /// How often the program of a flow was derived anew.
    #[must_use]
    pub const fn derivations(&self) -> u64 {
        self.state.derivations
    }

    /// How often a direction of a flow had the decision of another one, without a walk.
    #[must_use]
    pub const fn decisions_shared(&self) -> u64 {
        self.state.decisions.shared()
    }

    /// From now on each packet without a flow, and for each flow, is walked: what decisions that are kept are compared with.
    pub const fn walk_each_packet(&mut self) {
        self.env.deciding = env::Deciding::Walked;
    }

    /// From now on all packets go the general way: what those of the lane are compared with.
    pub const fn leave_the_lane(&mut self) {
        self.env.lane = env::LaneUse::Never;
    }

    /// From now on ordinary packets go ahead in the lane even where few of them come.
    pub const fn stay_in_the_lane(&mut self) {
        self.env.lane = env::LaneUse::Always;
    }

    /// Milliseconds of the node's clock when the worker last looked.
    #[must_use]
    pub const fn clock(&self) -> u64 {
        self.env.clock
    }

    /// The snapshot in force.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.env.snapshot
    }

    /// The flow table.
    #[must_use]
    pub const fn flows(&self) -> &FlowTable {
        &self.state.flows
    }

    /// The programs.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.state.programs
    }

    /// Packets waiting for neighbours.
    #[must_use]
    pub const fn hold_queue(&self) -> &HoldQueue {
        &self.waiting.held
    }

    /// Fragmented datagrams.
    #[must_use]
    pub const fn fragment_table(&self) -> &FragmentTable {
        &self.waiting.fragments
    }

    /// Received packets that wait now.
    #[must_use]
    pub fn held_packets(&self) -> u64 {
        self.waiting.received()
    }

    /// The account of packets.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.counters.account
    }

    /// All counters; those of programs included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.add(&self.state.released);
        for entry in self.state.programs.iter() {
            entry.count_into(&mut counters);
        }
        counters
    }

    /// Tells how many more frames were lost before they could be received from a port.
    pub fn lost_before(&mut self, port: VifId, frames: u64) {
        if let Some(counters) = self.counters.port(port) {
            counters.rx_errors += frames;
        }
    }

    /// Sequence numbers that SAs may use from now on.
    pub fn grant(&mut self, grants: &[Grant]) {
        self.ipsec.grant(grants, &self.env);
    }

    /// The SAs that this worker owns.
    #[must_use]
    pub fn sas(&self) -> Vec<SaStatus> {
        self.ipsec.statuses(self.env.clock)
    }

    /// The NIC's answers come before the next packet, as in a replay: no sequence numbers are set aside for what is sealed meanwhile.
    pub const fn nic_answers_at_once(&mut self) {
        self.ipsec.answers_come_at_once();
    }

    /// The engine's queue did not take a request.
    pub fn offload_refused(&mut self, request: &Request) {
        match request.id() {
            Some(_) => self.state.offloads.refused(request, self.env.clock),
            None => self.ipsec.refused(request, self.env.clock),
        }
    }
}
