//! Cost of the engine itself.

use std::{sync::Arc, time::Instant};

use fallback_sw::offload::{OffloadId, Request};
use offload_rules::{forwarding::Snapshot, lower::Rule};

use super::{Toy, id, install};
use crate::offload::{Backend, Completion, Config, Engine, Failure, Hits, Token};

/// Takes everything at once.
#[derive(Default)]
struct Null(Vec<Completion>);

impl Backend for Null {
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
    fn query(&mut self, _: Token) -> Result<Hits, Failure> {
        Ok(Hits::default())
    }
    fn aged(&mut self, _: &mut Vec<Token>) -> Result<(), Failure> {
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn alive(&mut self) -> bool {
        true
    }
}

#[test]
#[ignore = "prints a figure; run with --release --ignored --nocapture"]
fn throughput_with_a_nic_that_costs_nothing() {
    const FLOWS: u32 = 100_000;
    let mut engine = Engine::new(Config::default(), Toy::default(), Null::default(), Arc::new(Snapshot::empty()));
    let requests: Vec<Request> = (0..FLOWS).map(|n| install(id(n))).collect();
    let mut reports = Vec::new();
    let mut drive = |engine: &mut Engine<Null, Toy>, requests: Vec<Request>| {
        let begin = Instant::now();
        for (n, request) in requests.into_iter().enumerate() {
            engine.request(request, 1);
            if n % 256 == 255 {
                engine.poll(1, &mut reports);
                reports.clear();
            }
        }
        while !engine.idle() {
            engine.poll(1, &mut reports);
            reports.clear();
        }
        f64::from(FLOWS) / begin.elapsed().as_secs_f64()
    };
    let inserts = drive(&mut engine, requests);
    assert_eq!(engine.status(1).hardware, FLOWS as usize);
    let removals = (0..FLOWS).map(|entry| Request::Remove { id: OffloadId { entry, ..id(0) } }).collect();
    let removals = drive(&mut engine, removals);
    assert_eq!(engine.status(1).rules, 0);
    println!("pairs a second: {inserts:.0} installed, {removals:.0} removed, {FLOWS} at once");
}
