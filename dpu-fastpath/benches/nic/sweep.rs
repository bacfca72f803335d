//! A route changes while all flows are in hardware: how long until every rule is another, and how long packets wait for it.

use std::time::Duration;

use offload_engine::protocol::{Report, Tier};

use crate::{
    Rows,
    insertion::{Driven, requests},
    measure::{Effort, Row, Sample, Target, Value, cpu_time},
    nic::Bench,
    site::{BURST, Site},
};

const FLOWS: u32 = 100_032;
/// Requests that a worker's ring to the engine takes at once, as the daemon has it.
const RING: usize = 4096;
/// Milliseconds between two ticks of a worker.
const TICK: u64 = 5;

#[derive(Default)]
struct Times {
    whole: Vec<f64>,
    worker: Vec<f64>,
    engine: Vec<f64>,
    pause: Vec<f64>,
}

/// CPU time of worker and engine, one after the other on one core.
fn once(bench: &mut Bench, flows: u32, times: &mut Times) {
    let mut site = Site::with_engine(flows, true);
    let mut driven = Driven::new(bench.asynchronous(), &site);
    let mut reports: Vec<Report> = Vec::new();
    driven.take(requests(&mut site, flows), &mut reports);
    site.worker.offload_reports(&reports, site.now, &mut site.out);
    reports.clear();
    let before = driven.engine.status(1).totals;

    let snapshot = site.rerouted(999);
    let (mut worker, mut engine, mut pause) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut step = |site: &mut Site, what: &mut dyn FnMut(&mut Site)| {
        let start = cpu_time();
        what(site);
        let spent = cpu_time() - start;
        worker += spent;
        pause = pause.max(spent);
    };
    step(&mut site, &mut |site| site.adopt(&snapshot));
    let now = driven.now();
    driven.engine.adopt(&snapshot, now);
    let mut replaced = 0;
    for _ in 0..10_000 {
        let requests: Vec<_> = site.out.offload.drain(..).collect();
        let start = cpu_time();
        let refused: Vec<_> = requests
            .into_iter()
            .enumerate()
            .filter_map(|(number, request)| {
                if number >= RING {
                    return Some(request);
                }
                driven.engine.request(request, now);
                if number % BURST == BURST - 1 {
                    driven.engine.poll(now, &mut reports);
                }
                None
            })
            .collect();
        driven.settle(&mut reports);
        engine += cpu_time() - start;
        replaced +=
            reports.iter().filter(|report| matches!(report, Report::State { tier: Tier::Hardware, .. })).count();
        if replaced >= flows as usize {
            break;
        }
        site.now += TICK;
        step(&mut site, &mut |site| {
            refused.iter().for_each(|request| site.worker.offload_refused(request));
            site.worker.offload_reports(&reports, site.now, &mut site.out);
            let (now, out) = (site.now, &mut site.out);
            site.worker.tick(now, out);
        });
        reports.clear();
    }
    let after = driven.engine.status(1).totals;
    assert_eq!(replaced, flows as usize, "every flow is replaced");
    assert_eq!(after.destroyed - before.destroyed, 2 * u64::from(flows), "every old rule is gone");
    let nanoseconds = |time: Duration| time.as_nanos() as f64;
    times.whole.push(nanoseconds(worker + engine));
    times.worker.push(nanoseconds(worker) / f64::from(flows));
    times.engine.push(nanoseconds(engine) / f64::from(2 * flows));
    times.pause.push(nanoseconds(pause));
}

/// Rows of the sweep.
pub(crate) fn rows(bench: &mut Bench, effort: &Effort) -> Rows {
    let flows = if effort.quick { FLOWS / 4 } else { FLOWS } / BURST as u32 * BURST as u32;
    let mut times = Times::default();
    for _ in 0..effort.repeats.min(5) {
        once(bench, flows, &mut times);
    }
    let row = |name: &str, value: Value, target, against| Row { name: name.to_owned(), value, target, against };
    let rows = vec![
        row(
            &format!("{flows} flows ({} rules) replaced", 2 * flows),
            Value::Whole(Sample::of(times.whole)),
            None,
            "worker and engine with templates on the twin, one after the other",
        ),
        row(
            "of it the worker, each flow",
            Value::PerPacket(Sample::of(times.worker)),
            None,
            "derive again, ask, be told",
        ),
        row(
            "of it engine and twin, each rule",
            Value::Rate(Sample::of(times.engine)),
            Some(Target::MillionsPerSecond(1.0)),
            "new rule created and old one counted and destroyed",
        ),
        row(
            "longest pause of the worker",
            Value::Whole(Sample::of(times.pause)),
            Some(Target::Milliseconds(5.0)),
            "one tick, reports and adoption of the snapshot included; target: the time between two ticks",
        ),
    ];
    (rows, Vec::new())
}
