//! An offload engine by hand: what the workers ask is looked at, what they are told is said by the test.

use fallback_sw::{
    node::machine::MachineConfig,
    worker::{OffloadStatus, Worker},
};
use offload_engine::protocol::{OffloadId, Report, Request, Tier};
use offload_rules::lower::{Direction, NotOffloaded};

use super::Node;

/// The machine of tests with an engine.
pub fn with_engine() -> MachineConfig {
    MachineConfig { offload: true, ..MachineConfig::default() }
}

impl Node {
    /// What was asked since the last look, but for rates.
    pub fn asked(&mut self) -> Vec<Request> {
        let mut asked = self.machine.take_offload_requests();
        asked.retain(|request| !matches!(request, Request::Rate { .. }));
        asked
    }

    /// The only thing that was asked: rules.
    #[track_caller]
    pub fn asked_install(&mut self) -> (OffloadId, [Option<Direction>; 2]) {
        match self.asked().as_slice() {
            [Request::Install { id, directions, .. }] => (*id, (**directions).clone()),
            other => panic!("not one Install: {other:?}"),
        }
    }

    /// The only thing that was asked: removal.
    #[track_caller]
    pub fn asked_remove(&mut self) -> OffloadId {
        match self.asked().as_slice() {
            [Request::Remove { id }] => *id,
            other => panic!("not one Remove: {other:?}"),
        }
    }

    #[track_caller]
    pub fn asked_nothing(&mut self) {
        let asked = self.asked();
        assert!(asked.is_empty(), "{asked:?}");
    }

    pub fn report(&mut self, report: Report) {
        self.machine.offload_reports(&[report], self.now);
        self.check_account();
    }

    pub fn told(&mut self, id: OffloadId, tier: Tier, reason: Option<NotOffloaded>) {
        self.report(Report::State { id, tier, reason });
    }

    pub fn in_hardware(&mut self, id: OffloadId) {
        self.told(id, Tier::Hardware, None);
    }

    pub fn nic_counts(&mut self, id: OffloadId, direction: u8, packets: u64, bytes: u64) {
        let last_hit = self.now;
        self.report(Report::Counted { id, direction, packets, bytes, last_hit });
    }

    pub fn gone(&mut self, id: OffloadId) {
        self.report(Report::Gone { id });
    }

    pub fn worker(&self) -> &Worker {
        self.machine.workers().first().unwrap()
    }

    /// Slot of a flow's first direction, by its source port.
    #[track_caller]
    pub fn slot(&self, sport: u16) -> u32 {
        let flows = self.worker().flows();
        let mut at = 0;
        while let Some(slot) = flows.next_occupied(at) {
            let record = flows.record(slot).unwrap();
            if record.key.sport == sport && record.flags & 1 != 0 {
                return slot;
            }
            at = slot + 1;
        }
        panic!("no flow from port {sport}")
    }

    /// Where a flow runs.
    #[track_caller]
    pub fn status(&self, sport: u16) -> OffloadStatus {
        self.worker().offload_status(self.slot(sport)).unwrap()
    }

    #[track_caller]
    pub fn runs(&self, sport: u16) -> (Tier, Option<NotOffloaded>) {
        let status = self.status(sport);
        (status.tier, status.reason)
    }
}
