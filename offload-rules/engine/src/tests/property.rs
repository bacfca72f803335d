//! Anything in any order: at the end nothing is left, lost or counted twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{OffloadId, Report, Request, Tier};
use proptest::{collection::vec, prelude::*};

use super::{Bed, Kind, Toy, install_as, steering};
use crate::Config;

#[derive(Debug, Clone)]
enum Step {
    Install { flow: u8, kind: Kind, rate: u16 },
    Remove(u8),
    Rate(u8, u16),
    NotHonoured(u8),
    Hit(u8, bool, u8),
    Poll(u16),
    Enable(bool),
    Reset,
    FlushFails,
    Fail(u8, i32),
    RefuseAtOnce(i32),
    Stuck(i32),
    Blind(i32),
    Delay(u16),
    Capacity(Option<u8>),
    Depth(u8),
    Steering(u8),
    Steal(u8),
}

fn errno() -> impl Strategy<Value = i32> {
    prop::sample::select(vec![libc::EIO, libc::EBUSY, libc::ENOSPC, libc::ENOMEM, libc::EEXIST, libc::EINVAL])
}

fn kind() -> impl Strategy<Value = Kind> {
    let shape = prop::sample::select(vec![6, 17]);
    let chain = prop_oneof![Just(0), 0..16_u8];
    (shape, prop::bool::weighted(0.8), any::<bool>(), 1..4_u8, chain)
        .prop_map(|(shape, full, partial, version, chain)| Kind { shape, full, partial, version, chain })
}

fn step() -> impl Strategy<Value = Step> {
    let flow = 0..6_u8;
    prop_oneof![
        8 => (flow.clone(), kind(), any::<u16>()).prop_map(|(flow, kind, rate)| Step::Install { flow, kind, rate }),
        4 => flow.clone().prop_map(Step::Remove),
        2 => (flow.clone(), any::<u16>()).prop_map(|(flow, rate)| Step::Rate(flow, rate)),
        1 => flow.clone().prop_map(Step::NotHonoured),
        8 => (flow.clone(), any::<bool>(), 1..9_u8).prop_map(|(flow, reverse, n)| Step::Hit(flow, reverse, n)),
        12 => prop_oneof![Just(0), 1..50_u16, 1..3000_u16].prop_map(Step::Poll),
        1 => any::<bool>().prop_map(Step::Enable),
        1 => Just(Step::Reset),
        1 => Just(Step::FlushFails),
        2 => (0..3_u8, errno()).prop_map(|(after, errno)| Step::Fail(after, errno)),
        1 => errno().prop_map(Step::RefuseAtOnce),
        1 => errno().prop_map(Step::Stuck),
        1 => errno().prop_map(Step::Blind),
        2 => prop_oneof![Just(0), 1..100_u16, 1000..5000_u16].prop_map(Step::Delay),
        1 => prop::option::of(0..12_u8).prop_map(Step::Capacity),
        1 => (1..9_u8).prop_map(Step::Depth),
        1 => (0..8_u8).prop_map(Step::Steering),
        1 => any::<u8>().prop_map(Step::Steal),
    ]
}

struct Run {
    bed: Bed,
    generations: BTreeMap<u8, u32>,
    removed: Vec<OffloadId>,
    /// By what has been told.
    hardware: BTreeSet<OffloadId>,
    /// Asked to be removed: nothing is told of them but their end.
    leaving: BTreeSet<OffloadId>,
    heard: usize,
    /// Until its counter is read, nobody can know of it.
    stolen: bool,
}

impl Run {
    fn id(&self, flow: u8) -> OffloadId {
        let generation = self.generations.get(&flow).copied().unwrap_or(1);
        OffloadId { worker: 0, entry: flow.into(), generation }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Install { flow, kind, rate } => self.bed.ask(install_as(self.id(flow), kind, rate.into())),
            Step::Remove(flow) => {
                let id = self.id(flow);
                self.bed.ask(Request::Remove { id });
                self.removed.push(id);
                self.leaving.insert(id);
                self.generations.insert(flow, id.generation + 1);
            }
            Step::Rate(flow, rate) => self.bed.ask(Request::Rate { id: self.id(flow), rate: rate.into() }),
            Step::NotHonoured(flow) => self.bed.ask(Request::NotHonoured { id: self.id(flow) }),
            Step::Hit(flow, reverse, packets) => self.bed.hit(flow.into(), reverse, packets.into()),
            Step::Poll(later) => {
                self.bed.poll(later.into());
                self.check();
            }
            Step::Enable(enabled) => self.bed.engine.set_enabled(enabled, self.bed.now),
            Step::Reset => self.nic(super::fake::World::reset),
            Step::FlushFails => self.nic(|nic| nic.flush_fails += 1),
            Step::Fail(after, errno) => self.nic(|nic| {
                nic.script.extend((0..after).map(|_| None));
                nic.script.push_back(Some(errno));
            }),
            Step::RefuseAtOnce(errno) => self.nic(|nic| nic.refuse.push_back(errno)),
            Step::Stuck(errno) => self.nic(|nic| nic.stuck.push_back(errno)),
            Step::Blind(errno) => self.nic(|nic| nic.blind.push_back(errno)),
            Step::Delay(delay) => self.nic(|nic| nic.delay = delay.into()),
            Step::Capacity(capacity) => self.nic(|nic| nic.capacity = capacity.map(usize::from)),
            Step::Depth(depth) => self.nic(|nic| nic.depth = nic.depth.max(depth.into())),
            Step::Steering(bits) => {
                let wanted = (0..3).filter(|bit| bits & (1 << bit) != 0).map(|bit| steering(bit + 1));
                *self.bed.toy.steering.lock().unwrap() = wanted.collect();
                let snapshot = std::sync::Arc::new(offload_rules::forwarding::Snapshot::empty());
                self.bed.engine.adopt(&snapshot, self.bed.now);
            }
            Step::Steal(which) => {
                // Only a rule that nobody is reading or removing right now, and of which no packet is untold.
                self.bed.poll(0);
                self.stolen = true;
                self.nic(|nic| {
                    let idle: Vec<_> = nic.idle().collect();
                    if let Some(token) = idle.get(usize::from(which) % idle.len().max(1)) {
                        nic.steal(*token);
                    }
                });
            }
        }
    }

    fn nic(&self, change: impl FnOnce(&mut super::fake::World)) {
        change(&mut self.bed.nic.lock().unwrap());
    }

    /// What holds after every poll.
    fn check(&mut self) {
        for report in &self.bed.told[self.heard..] {
            match report {
                Report::State { id, tier: Tier::Hardware, .. } => self.hardware.insert(*id),
                Report::State { id, .. } | Report::Gone { id } => self.hardware.remove(id),
                _ => false,
            };
        }
        self.heard = self.bed.told.len();
        for id in self.hardware.difference(&self.leaving).filter(|_| !self.stolen) {
            let nic = self.bed.nic.lock().unwrap();
            let held = |token| nic.rules.get(&token).is_some_and(|held| !held.leaving);
            let rules = self.bed.engine.rules_of(*id);
            let live = rules.iter().filter(|rule| rule.needed_by == 0 && rule.live && held(rule.token)).count();
            assert!(live >= 2, "{id:?} is said to be in hardware, with {live} rules");
        }
        let status = self.bed.engine.status(self.bed.now);
        assert!(status.in_flight <= status.depth);
        assert_eq!(status.hardware + status.partial + status.pending + status.software, status.flows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_installed_is_desired_and_each_packet_counts_once(
        steps in vec(step(), 1..120),
    ) {
        let toy = Toy { canaries: vec![6], canary_chain: 7, ..Toy::default() };
        let bed = Bed::with(Config::default(), toy);
        let mut run = Run { bed, generations: BTreeMap::new(), removed: Vec::new(), hardware: BTreeSet::new(), leaving: BTreeSet::new(), heard: 0, stolen: false };
        run.nic(|nic| nic.depth = 4);
        for step in &steps {
            run.take(step);
        }
        // The weather clears.
        run.nic(|nic| {
            (nic.delay, nic.capacity, nic.flush_fails) = (0, None, 0);
            for errnos in [&mut nic.refuse, &mut nic.stuck, &mut nic.blind] {
                errnos.clear();
            }
            nic.script.clear();
        });
        run.bed.engine.set_enabled(true, run.bed.now);
        run.bed.run(130_000);
        run.bed.settle();
        run.check();
        run.bed.assert_healthy();
        let mut last = BTreeMap::new();
        for report in &run.bed.told {
            match report {
                Report::State { id, tier, .. } => { last.insert(*id, *tier); }
                Report::Gone { id } => { last.remove(id); }
                _ => {}
            }
        }
        for (id, tier) in &last {
            let rules = run.bed.engine.rules_of(*id).iter().filter(|rule| rule.needed_by == 0).count();
            let expected = if matches!(tier, Tier::Hardware | Tier::Partial) { 2 } else { 0 };
            prop_assert_eq!(rules, expected, "{:?} is in {:?}", id, tier);
            prop_assert_ne!(*tier, Tier::Pending);
        }
        for flow in 0..6 {
            run.take(&Step::Remove(flow));
        }
        run.bed.settle();
        run.bed.assert_healthy();
        let steering = run.bed.toy.steering.lock().unwrap().len();
        prop_assert_eq!(run.bed.nic.lock().unwrap().rules.len(), steering, "nothing else is left");
        for id in &run.removed {
            prop_assert_eq!(run.bed.gone(*id), 1, "{:?}", id);
        }
        let told: u64 = run.bed.told.iter().map(|report| match report {
            Report::Counted { packets, .. } => *packets,
            _ => 0,
        }).sum();
        let uncounted = run.bed.engine.status(run.bed.now).totals.uncounted;
        let nic = run.bed.nic.lock().unwrap();
        prop_assert_eq!(nic.created, nic.destroyed + nic.lost + nic.rules.len() as u64);
        if uncounted == 0 {
            prop_assert_eq!(told, nic.countable);
        }
    }
}
