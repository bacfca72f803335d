//! Two nodes to which the same happens: the flows of one go by decisions that others share, for each flow of the other a walk is made.

use std::collections::BTreeMap;

use fallback_sw::worker::Worker;
use offload_rules::flow::{Choices, Dependency, FlowKey, Program};
use proptest::{collection::vec, prelude::Strategy, test_runner::Config};

use super::{
    property::{account, counted, event, route, unordered},
    world::{Event, RouteChoice, stateful},
};
use crate::common::Node;

/// What a flow's direction is treated by: its program with all that it depends on, and what was chosen for it.
type Treatment = (Option<Program>, Choices, [u32; 3]);

/// A program as a walk for a packet with this key writes it, which takes the address of a tunnel's end for the packet's when both have
/// the same. Of a decision that is shared, what it depends on says which was meant.
fn plain(program: &Program, key: &FlowKey) -> Program {
    let mut dependencies: Vec<Dependency> = Vec::new();
    for read in &program.dependencies {
        let read = match *read {
            Dependency::Route(vrf, address) if address == key.destination() => Dependency::Destination(vrf),
            Dependency::Route(vrf, address) if address == key.source() => Dependency::Source(vrf),
            read => read,
        };
        if !dependencies.contains(&read) {
            dependencies.push(read);
        }
    }
    Program { dependencies, ..program.clone() }
}

/// All directions of flows, by their key.
fn treatments(node: &Node) -> BTreeMap<String, Treatment> {
    let mut all = BTreeMap::new();
    for worker in node.machine.workers() {
        let (flows, programs) = (worker.flows(), worker.programs());
        let mut at = 0;
        while let Some(slot) = flows.next_occupied(at) {
            at = slot + 1;
            let record = flows.record(slot).unwrap();
            let program = programs.get(record.program).map(|entry| plain(&entry.program, &record.key));
            let choices = Choices { ecmp: record.ecmp.map(|slot| (slot != 0xff).then_some(slot)) };
            let kept = [record.tunnel_sport.into(), record.ip_id.into(), record.flags.into()];
            all.insert(format!("{:?}", record.key), (program, choices, kept));
        }
    }
    all
}

/// Runs both; how often a decision was shared.
fn compare(routes: &[RouteChoice], events: &[Event]) -> u64 {
    let json = stateful(routes);
    let (mut shared, mut walked) = (Node::new(&json), Node::new(&json));
    walked.machine.walk_each_packet();
    walked.machine.leave_the_lane();
    shared.machine.stay_in_the_lane();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.happen(&mut shared), event.happen(&mut walked), "event {n}");
        let (ours, theirs) = (shared.machine.take_sent(), walked.machine.take_sent());
        assert_eq!(unordered(&ours), unordered(&theirs), "frames of event {n}: {event:?}");
        assert_eq!(account(&shared), account(&walked), "account after event {n}: {event:?}");
        assert_eq!(treatments(&shared), treatments(&walked), "flows after event {n}: {event:?}");
    }
    assert_eq!(counted(&shared.machine.counters().0), counted(&walked.machine.counters().0));
    assert!(walked.machine.workers().iter().all(|worker| worker.decisions_shared() == 0));
    shared.machine.workers().iter().map(Worker::decisions_shared).sum()
}

#[test]
fn decisions_that_flows_share_and_a_walk_for_each_flow_are_the_same() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150);
    let mut runner =
        proptest::test_runner::TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (vec(route(), 0..16), vec(event(), 1..100));
    let total = std::cell::Cell::new(0_u64);
    runner
        .run(&strategy.boxed(), |(routes, events)| {
            total.set(total.get() + compare(&routes, &events));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let shared = total.get();
    // Often enough for the comparison to mean something.
    assert!(shared > u64::from(cases) * 3, "a decision was shared {shared} times in {cases} cases");
}
