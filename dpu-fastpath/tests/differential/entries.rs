//! Faults below the mlx5 driver with hardware steering. Its rules are judged and not executed, so software forwards all; what is tested is the
//! engine above completions that fail, or come late.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use dpu_fastpath::replay::NicFront;
use fallback_sw::{node::machine::Machine, packet::Packet};
use mlx5_judge::{Below, Fault, device::Device};
use offload_engine::EngineStatus;
use offload_rules::VifId;
use serde_json::Value;

use super::{
    bench,
    faults::{
        self, PATIENCE, Seen,
        Trouble::{self, Card, Dead, Restart},
    },
    judge::{self, Event},
    moments, twin,
    world::World,
};

const TROUBLES: [Trouble; 14] = [
    Card(Fault::Entry(1), Fault::Entry(0)),
    Card(Fault::Entry(2), Fault::Entry(0)),
    Card(Fault::Entry(5), Fault::Entry(0)),
    Card(Fault::Entries(3), Fault::Entry(0)),
    Card(Fault::Entries(5), Fault::Entry(0)),
    Card(Fault::Entries(7), Fault::Entry(0)),
    Card(Fault::Entries(8), Fault::Entry(0)),
    Card(Fault::Entries(20), Fault::Entry(0)),
    Card(Fault::NoEntries, Fault::Entry(0)),
    Card(Fault::Rule(1), Fault::Rule(0)),
    Card(Fault::NoRules, Fault::Rule(0)),
    Card(Fault::Late(20), Fault::Late(0)),
    Restart,
    // It has one life.
    Dead,
];

/// Rules in the device: entries that were written and not removed, by table, and rules of root tables.
#[derive(Default)]
struct Entries {
    /// Tables from which something was removed: what actions alone need is overwritten, and never removed.
    matched: BTreeSet<u32>,
    written: BTreeMap<u32, i64>,
    roots: BTreeSet<u64>,
    /// The next entry is one that was refused.
    refused: bool,
}

impl Entries {
    fn hear(&mut self, line: &str) -> i64 {
        let event: Value = serde_json::from_str(line).unwrap();
        let id = event["id"].as_u64().unwrap_or_default();
        match event["e"].as_str() {
            Some("fault") => self.refused |= event["of"] == "entry",
            Some("root rule") => _ = self.roots.insert(id),
            Some("gone") => _ = self.roots.remove(&id),
            Some("wqe") => self.entry(event["octets"].as_str().unwrap()),
            _ => {}
        }
        self.matched.iter().map(|table| self.written[table]).sum::<i64>() + self.roots.len() as i64
    }

    /// TABLE_ACCESS of an STE, in this table; activate, deactivate (mlx5dr_send.h).
    fn entry(&mut self, octets: &str) {
        let octet = |at: usize| u8::from_str_radix(&octets[at * 2..at * 2 + 2], 16).unwrap();
        if (octet(0), octet(3)) != (0, 0x2c) {
            return;
        }
        let table = u32::from_be_bytes([12, 13, 14, 15].map(octet));
        let written = self.written.entry(table).or_default();
        match octet(16) >> 4 {
            0 => *written += i64::from(!std::mem::take(&mut self.refused)),
            1 => {
                *written -= 1;
                self.matched.insert(table);
            }
            _ => {}
        }
    }
}

fn listen() -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    seen.listen(Device::attach().unwrap());
    let (entries, to) = (Mutex::new(Entries::default()), Arc::clone(&seen));
    Below::find().unwrap().on_record(Box::new(move |line| {
        to.rules.store(entries.lock().unwrap().hear(line), Ordering::Relaxed);
    }));
    seen
}

/// In a process of its own: run by the test below.
#[test]
#[ignore = "run by hardware_steering_comes_to_rest_after_every_fault"]
fn all_faults() {
    let seen = listen();
    let mut front = bench::open_unexecuted();
    let own = faults::own_rules(&mut front, &seen);
    for trouble in TROUBLES {
        let change = (moments::CHANGES[0].0, 2);
        let case = faults::fixed(trouble, change, own, &seen);
        let outcome = judge::judge(&mut front, &case).unwrap_or_else(|why| panic!("{}: {why}", trouble.name()));
        let (hits, refused) = seen.what_came_of(trouble, true);
        println!(
            "differential: mlx5-judge hardware steering {}: {hits} times, {refused} rules refused, {} frames ... ok",
            trouble.name(),
            outcome.frames
        );
    }
}

#[test]
fn hardware_steering_comes_to_rest_after_every_fault() {
    in_a_process_of_its_own("entries::all_faults");
}

fn put(fault: Fault) {
    Below::find().unwrap().fault(fault);
}

fn in_a_process_of_its_own(test: &str) {
    let library = twin::judge();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--ignored", "--nocapture"]).env("MLX5_JUDGE", &library);
    bench::below_unexecuted(&mut child, &library);
    let output = child.output().unwrap();
    super::pass_on(&output);
    assert!(output.status.success(), "{}", output.status);
}

/// In a process of its own: run by the test below.
#[test]
#[ignore = "run by completions_after_their_time_are_undone"]
fn late_completions() {
    let seen = listen();
    let mut front = bench::open_unexecuted();
    let own = faults::own_rules(&mut front, &seen);
    let mut world = World::plain();
    world.permit();
    let snapshot = judge::snapshot(&world.state());
    front.renew(&snapshot).unwrap();
    let mut machine = judge::idle(&snapshot);
    let talk = |machine: &mut Machine, first: u16, now: u64| {
        let frames = moments::frames(&world, moments::talks(first));
        for event in std::iter::repeat_n(frames, 3).flatten() {
            let Event::Frame { port, frame, .. } = event else { continue };
            machine.receive(VifId::new(port).unwrap(), 0, &mut vec![Packet::from_frame(&frame)], now);
        }
    };
    // The engine's time is that of the clock.
    let begun = Instant::now();
    let clock = || 10_000 + begun.elapsed().as_millis() as u64;
    let run = |front: &mut NicFront, machine: &mut Machine, done: &dyn Fn(&EngineStatus) -> bool| {
        loop {
            front.poll(machine, clock()).unwrap();
            let status = front.status(clock()).unwrap();
            if done(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{status:?}");
            std::thread::yield_now();
        }
    };
    let all = |status: &EngineStatus| status.flows > 0 && status.flows == status.hardware + status.partial;
    talk(&mut machine, 4000, clock());
    let before = run(&mut front, &mut machine, &all);
    put(Fault::Late(u32::MAX));
    talk(&mut machine, 4100, clock());
    let during = run(&mut front, &mut machine, &|status| status.totals.failed.timeout > 0);
    assert_eq!((during.hardware, during.flows), (before.hardware, before.flows * 2), "{during:?}");
    put(Fault::Late(0));
    let after = run(&mut front, &mut machine, &|status| all(status) && status.in_flight == 0);
    assert!(after.totals.late >= after.totals.failed.timeout && after.totals.resets == 0, "{after:?}");
    assert_eq!(after.hardware, before.hardware * 2, "{after:?}");
    front.set_enabled(&mut machine, false, clock()).unwrap();
    assert_eq!(seen.rules.load(Ordering::Relaxed), own, "rules in the device, and those of the driver itself");
    println!(
        "differential: mlx5-judge hardware steering: {} completions after their time, undone ... ok",
        after.totals.late
    );
}

#[test]
fn completions_after_their_time_are_undone() {
    in_a_process_of_its_own("entries::late_completions");
}
