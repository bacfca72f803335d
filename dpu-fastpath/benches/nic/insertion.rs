//! Rules a second, from the worker's request to the completion, and where the time goes.

use std::{sync::Arc, time::Instant};

use offload_engine::protocol::{Report, Request, Tier};
use offload_engine::{Completion, Config, Engine, Failure, Hits, Lowering, NicBackend, RuleBackend, Token};
use offload_rules::{
    VifId,
    lower::{NicProfile, Rule},
};

use crate::{
    Rows,
    measure::{Effort, Row, Sample, Target, Value, cpu_time},
    nic::Bench,
    peers,
    site::{BURST, Site},
};

/// Pairs of flows; each has two rules.
const PAIRS: u32 = 100_032;
/// Rules of a push.
const BATCH: usize = 128;
/// The flows' priority.
const PRIORITY: u32 = 2;

/// What workers ask for: both directions of flows between the tenant and the tunnel.
pub(crate) fn requests(site: &mut Site, pairs: u32) -> Vec<Request> {
    let flows: Vec<u32> = (0..pairs).collect();
    site.converse(&flows);
    let requests = std::mem::take(&mut site.out.offload);
    assert_eq!(requests.len(), pairs as usize, "every flow is asked for");
    requests
}

/// Their rules.
fn rules(site: &Site, requests: &[Request], profile: &NicProfile) -> Vec<Rule> {
    let directions = requests.iter().flat_map(|request| match request {
        Request::Install { directions, .. } => directions.iter().flatten().collect(),
        _ => Vec::new(),
    });
    directions.map(|direction| profile.full(site.snapshot(), direction, PRIORITY).expect("a rule").0.rule).collect()
}

/// Takes everything at once, and costs nothing.
#[derive(Default)]
struct Null(Vec<Completion>);

impl RuleBackend for Null {
    fn depth(&self) -> usize {
        1024
    }
    fn validate(&mut self, _: &Rule) -> Result<(), Failure> {
        Ok(())
    }
    fn create(&mut self, token: Token, _: &Rule) -> Result<(), Failure> {
        self.0.push(Completion::Created(token));
        Ok(())
    }
    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        self.0.push(Completion::Destroyed(token));
        Ok(())
    }
    fn push(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        into.append(&mut self.0);
        Ok(())
    }
    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        into.extend(tokens.iter().map(|_| Ok(Hits::default())));
    }
    fn transmitted(&mut self, _: VifId) -> Option<u64> {
        None
    }
    fn ready(&self) -> bool {
        true
    }
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn alive(&mut self) -> bool {
        true
    }
}

/// Nanoseconds of CPU time for each rule: created, and destroyed.
fn alone(backend: &mut dyn RuleBackend, rules: &[Rule]) -> [f64; 2] {
    let mut done = Vec::with_capacity(rules.len());
    let settle = |backend: &mut dyn RuleBackend, done: &mut Vec<Completion>, want: usize| {
        while done.len() < want {
            backend.push().expect("pushed");
            backend.pull(done).expect("pulled");
        }
    };
    let start = cpu_time();
    let mut token = 0;
    for batch in rules.chunks(BATCH) {
        for rule in batch {
            token += 1;
            backend.create(token, rule).expect("a rule is taken");
        }
        settle(backend, &mut done, token as usize);
    }
    let created = cpu_time() - start;
    assert!(done.iter().all(|done| matches!(done, Completion::Created(_))), "every rule is created");
    done.clear();
    let start = cpu_time();
    for (batch, rules) in rules.chunks(BATCH).enumerate() {
        for at in 0..rules.len() {
            backend.destroy((batch * BATCH + at + 1) as Token).expect("a rule is removed");
        }
        settle(backend, &mut done, batch * BATCH + rules.len());
    }
    let destroyed = cpu_time() - start;
    assert!(done.iter().all(|done| matches!(done, Completion::Destroyed(_))), "every rule is destroyed");
    [created, destroyed].map(|time| time.as_nanos() as f64 / rules.len() as f64)
}

/// An engine with its clock.
pub(crate) struct Driven<B: RuleBackend> {
    pub(crate) engine: Engine<B, NicProfile>,
    epoch: Instant,
}

impl<B: RuleBackend> Driven<B> {
    /// Ready for flows.
    pub(crate) fn new(backend: B, site: &Site) -> Self {
        let engine = Engine::new(
            Config::default(),
            Bench::profile(),
            NicBackend::without_sessions(backend),
            Arc::clone(site.snapshot()),
        );
        let mut driven = Self { engine, epoch: Instant::now() };
        driven.settle(&mut Vec::new());
        driven
    }

    pub(crate) fn now(&self) -> u64 {
        // Any time but zero.
        1 + self.epoch.elapsed().as_millis() as u64
    }

    /// Polls until nothing is under way.
    pub(crate) fn settle(&mut self, reports: &mut Vec<Report>) {
        loop {
            self.engine.poll(self.now(), reports);
            if self.engine.idle() {
                return;
            }
        }
    }

    /// Takes requests, a batch at a time, until all are done.
    pub(crate) fn take(&mut self, requests: Vec<Request>, reports: &mut Vec<Report>) {
        for (number, request) in requests.into_iter().enumerate() {
            self.engine.request(request, self.now());
            if number % (BATCH / 2) == BATCH / 2 - 1 {
                self.engine.poll(self.now(), reports);
            }
        }
        self.settle(reports);
    }
}

/// Nanoseconds of CPU time for each rule, from the request to the report.
fn driven(backend: impl RuleBackend, site: &Site, requests: Vec<Request>) -> f64 {
    let mut driven = Driven::new(backend, site);
    let (pairs, before) = (requests.len(), driven.engine.status(1).totals.created);
    let mut reports = Vec::with_capacity(2 * pairs);
    let start = cpu_time();
    driven.take(requests, &mut reports);
    let spent = cpu_time() - start;
    let status = driven.engine.status(1);
    assert_eq!((status.hardware, status.totals.created - before), (pairs, 2 * pairs as u64), "all are in the NIC");
    let active = |report: &&Report| matches!(report, Report::State { tier: Tier::Hardware, .. });
    assert_eq!(reports.iter().filter(active).count(), pairs, "and told so");
    spent.as_nanos() as f64 / (2 * pairs) as f64
}

/// Rows of insertion.
pub(crate) fn rows(bench: &mut Bench, effort: &Effort) -> Rows {
    let pairs = if effort.quick { PAIRS / 4 } else { PAIRS } / BURST as u32 * BURST as u32;
    let mut site = Site::with_engine(pairs, true);
    let requests = requests(&mut site, pairs);
    let profile = Bench::profile();
    let rules = rules(&site, &requests, &profile);
    let (mut lowered, mut made, mut gone, mut null, mut all) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut sync_made, mut sync_gone, mut sync_all) = (vec![], vec![], vec![]);
    for _ in 0..effort.repeats {
        let start = cpu_time();
        for request in &requests {
            if let Request::Install { directions, .. } = request {
                for direction in directions.iter().flatten() {
                    std::hint::black_box(profile.full(site.snapshot(), direction, PRIORITY).is_ok());
                }
            }
        }
        lowered.push((cpu_time() - start).as_nanos() as f64 / rules.len() as f64);
        let [create, destroy] = alone(&mut bench.asynchronous(), &rules);
        made.push(create);
        gone.push(destroy);
        null.push(driven(Null::default(), &site, requests.clone()));
        all.push(driven(bench.asynchronous(), &site, requests.clone()));
        let [create, destroy] = alone(&mut bench.synchronous(), &rules);
        sync_made.push(create);
        sync_gone.push(destroy);
        sync_all.push(driven(bench.synchronous(), &site, requests.clone()));
    }
    let row = |name: &str, runs: Vec<f64>, target: Option<f64>, against: &'static str| Row {
        name: name.to_owned(),
        value: Value::Rate(Sample::of(runs)),
        target: target.map(Target::MillionsPerSecond),
        against,
    };
    let mut rows = vec![
        row("lowering", lowered, Some(1.0), "each rule once, as the engine does it"),
        row(
            "engine, a NIC that costs nothing",
            null,
            Some(1.0),
            "requests to reports, both rules of a pair, with lowering",
        ),
        row("templates on the twin: create, push, pull", made, None, "the backend alone, 128 rules in a push"),
        row("templates on the twin: destroy, push, pull", gone, None, ""),
        row("engine + templates on the twin", all, Some(1.0), "request to report, enqueue to complete"),
        row("synchronous API on the twin: create", sync_made, None, "the backend alone"),
        row("synchronous API on the twin: destroy", sync_gone, None, ""),
        row("engine + synchronous API on the twin", sync_all, None, "request to report"),
    ];
    let mut notes = vec![format!("{} rules of {pairs} pairs: VLAN -> MPLSoUDP and back; COUNT in each", rules.len())];
    match peers::flow_perf(bench, rules.len()) {
        Ok([insert, delete]) => {
            let by = |name: &str, rate: f64| {
                row(name, vec![1e9 / rate], None, "wall-clock; synchronous, ETH / IPV4 -> QUEUE")
            };
            rows.push(by("dpdk-test-flow-perf on the twin: create", insert));
            rows.push(by("dpdk-test-flow-perf on the twin: destroy", delete));
        }
        Err(why) => notes.push(format!("dpdk-test-flow-perf SKIPPED: {why}")),
    }
    (rows, notes)
}
