//! What an offloaded flow costs its worker, with an engine that takes everything at once.

use fallback_sw::worker::Outbox;
use offload_engine::protocol::{OffloadId, Report, Request, Tier};

use crate::{
    measure::{Effort, Row, Sample, Target, Value},
    site::{BURST, Site},
};

/// Flows of a run.
const FLOWS: u32 = 10_048;

/// Answers every request as an engine does whose NIC completes at once.
fn answer(requests: &mut Vec<Request>, reports: &mut Vec<Report>, ids: &mut Vec<OffloadId>) {
    reports.clear();
    for request in requests.drain(..) {
        match request {
            Request::Install { id, .. } => {
                ids.push(id);
                reports.push(Report::State { id, tier: Tier::Hardware, reason: None });
            }
            Request::Remove { id } => reports.push(Report::Gone { id }),
            _ => {}
        }
    }
}

/// Opens all flows, both directions seen; with an engine each is asked for and answered. Returns the flows that were asked for.
pub(crate) fn open(site: &mut Site, flows: &[u32], ids: &mut Vec<OffloadId>) {
    let mut reports = Vec::new();
    for burst in flows.chunks_exact(BURST) {
        site.converse(burst);
        let mut requests = std::mem::take(&mut site.out.offload);
        answer(&mut requests, &mut reports, ids);
        site.out.offload = requests;
        if !reports.is_empty() {
            site.worker.offload_reports(&reports, site.now, &mut site.out);
        }
    }
}

/// One report of counts for each direction.
fn count(site: &mut Site, ids: &[OffloadId]) {
    let mut reports = Vec::new();
    let mut out = Outbox::default();
    for ids in ids.chunks(BURST) {
        let each = ids.iter().flat_map(|id| [(*id, 0), (*id, 1)]);
        reports.clear();
        reports.extend(each.map(|(id, direction)| Report::Counted {
            id,
            direction,
            packets: 10,
            bytes: 640,
            last_hit: site.now,
        }));
        site.worker.offload_reports(&reports, site.now, &mut out);
    }
}

/// Rows of offloaded flows.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let flows: Vec<u32> = (0..FLOWS / BURST as u32 * BURST as u32).collect();
    let number = flows.len() as u64;
    let ids = || Vec::with_capacity(flows.len());
    // The pairs of runs alternate: a neighbour that comes or goes weighs on both.
    let mut differences = Vec::new();
    for _ in 0..effort.repeats.max(1) * 3 {
        let once = Effort { repeats: 1, run: effort.run, quick: effort.quick, row: None };
        let [plain, offloaded] = [false, true].map(|offload| {
            let fresh = || (Site::with_engine(FLOWS, offload), ids());
            let sample = once.measure_once_each(fresh, |(site, ids)| {
                open(site, &flows, ids);
                assert_eq!(ids.len(), if offload { flows.len() } else { 0 }, "every flow is asked for, or none");
                number
            });
            sample.median
        });
        differences.push(offloaded - plain);
    }
    let fresh = || {
        let (mut site, mut ids) = (Site::with_engine(FLOWS, true), ids());
        open(&mut site, &flows, &mut ids);
        (site, ids)
    };
    let counted = effort.measure_once_each(fresh, |(site, ids)| {
        count(site, ids);
        2 * number
    });
    let ticked = effort.measure_once_each(fresh, |(site, _)| {
        // One second in steps of a worker: the rate of every flow is looked at once. The flows' own sweep is part of it.
        for _ in 0..200 {
            site.now += 5;
            let (now, out) = (site.now, &mut site.out);
            site.worker.tick(now, out);
        }
        number
    });
    vec![
        Row {
            name: "offloaded flow: sample, ask, be told".into(),
            value: Value::PerPacket(Sample::of(differences)),
            target: Some(Target::Nanoseconds(300.0)),
            against: "beyond the same flow without an engine; three packets and one answer",
        },
        Row {
            name: "counts of a direction, as the NIC tells them".into(),
            value: Value::PerPacket(counted),
            target: None,
            against: "merged into the counters of flow, vifs, ports and VRF",
        },
        Row {
            name: "offloaded flow: one second of ticks".into(),
            value: Value::PerPacket(ticked),
            target: None,
            against: "its rate looked at once, its record swept many times",
        },
    ]
}
