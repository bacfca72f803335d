//! What a replay reports: every counter, every flow, every drop reason.

use proto::v1 as pb;

use crate::{
    node::{
        machine::Machine,
        sa_view,
        view::{self, PortStatus},
    },
    worker::Worker,
};

/// The report of a machine; its list of outputs is empty.
#[must_use]
pub fn of(machine: &Machine) -> pb::ReplayReport {
    let control = machine.control();
    let snapshot = control.snapshot();
    let (total, each) = machine.counters();
    let count = machine.workers().len();
    let mut flows = Vec::new();
    let mut asked = Vec::new();
    for (id, worker) in machine.workers().iter().enumerate() {
        let mut at = 0;
        while let Some(slot) = worker.flows().next_occupied(at) {
            flows.extend(view::flow(worker, id, count, slot));
            at = slot + 1;
        }
        asked.extend(worker.hold_queue().neighbours());
    }
    flows.sort_by_key(|flow| flow.index);
    let statuses: Vec<_> = machine.workers().iter().map(Worker::sas).collect();
    let sas = sa_view::sas(control, &statuses);
    let port = PortStatus { driver: "net_pcap".to_owned(), error: String::new() };
    pb::ReplayReport {
        node: snapshot.node().to_owned(),
        generation: snapshot.generation(),
        packets: Some(view::account(&total.account, machine.held())),
        drops: view::drops(&total.account),
        vifs: snapshot
            .vifs()
            .map(|vif| {
                let mut info = view::vif(vif, snapshot, &total, &each, &port);
                sa_view::complete(&mut info, vif, snapshot, &sas);
                info
            })
            .collect(),
        vrfs: snapshot.vrfs().filter_map(|vrf| view::vrf(vrf.id, snapshot, &total)).collect(),
        flows,
        neighbours: view::neighbours(control, &asked),
        tiers: Some(view::tiers(&total.account)),
        outputs: Vec::new(),
    }
}
