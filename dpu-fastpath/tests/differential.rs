//! Software alone and software behind a NIC do the same: thousands of generated states and traffic, once each way.
//!
//! `SEED=… CASES=… cargo test -p dpu-fastpath --test differential` repeats or widens; `NIC=` names one profile. What fails is cut
//! down to what it fails by, unless `WHOLE=1`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "differential/bench.rs"]
mod bench;
#[path = "differential/entries.rs"]
mod entries;
#[path = "differential/faults.rs"]
mod faults;
#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/moments.rs"]
mod moments;
#[path = "differential/named.rs"]
mod named;
#[path = "differential/rng.rs"]
mod rng;
#[path = "differential/traffic.rs"]
mod traffic;
#[path = "differential/transit.rs"]
mod transit;
mod twin;
#[path = "differential/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output},
    sync::Mutex,
};

use test_kit::packets;

use bench::Judged;
use judge::{Case, Event, Outcome};
use rng::Rng;
use traffic::{Blind, End, Talk};
use world::World;

const SEED: u64 = 20_260_101;

/// A NIC to compare with, how many cases it gets, and the part of all frames in percent that it handles at least.
struct Nic {
    profile: &'static str,
    faults: &'static [&'static str],
    cases: u64,
    hardware: f64,
}

const NICS: [Nic; 14] = [
    Nic { profile: Judged::Switch.name(), faults: &[], cases: 2000, hardware: 3.0 },
    Nic { profile: Judged::Hairpin.name(), faults: &[], cases: 500, hardware: 6.0 },
    Nic { profile: Judged::Edge.name(), faults: &[], cases: 300, hardware: 10.0 },
    Nic { profile: "twin", faults: &[], cases: 1200, hardware: 15.0 },
    Nic { profile: "mlx5-sws", faults: &[], cases: 300, hardware: 2.0 },
    Nic { profile: "mlx5-hws", faults: &[], cases: 150, hardware: 1.5 },
    Nic { profile: "bnxt", faults: &[], cases: 100, hardware: 0.0 },
    Nic { profile: "cnxk", faults: &[], cases: 100, hardware: 0.0 },
    Nic { profile: "ice", faults: &[], cases: 100, hardware: 0.0 },
    Nic { profile: "ixgbe", faults: &[], cases: 60, hardware: 0.0 },
    Nic { profile: "nfp", faults: &[], cases: 60, hardware: 0.0 },
    Nic { profile: "twin", faults: &["fail_every=3"], cases: 120, hardware: 1.0 },
    Nic { profile: "twin", faults: &["full_at=40"], cases: 120, hardware: 1.0 },
    Nic { profile: "twin", faults: &["counters=8"], cases: 120, hardware: 0.5 },
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What a NIC is given.
#[derive(Clone, Copy)]
struct Manner {
    blind: Blind,
    stripped: bool,
    healthy: bool,
    bias: Bias,
}

/// Percent of states and conversations that are changed so that more of them go by the ports of a NIC that has few.
#[derive(Clone, Copy, Default)]
struct Bias {
    /// Conversations that go from tunnel to tunnel.
    transit: usize,
    /// Those of the others that go by the first device's untagged segment.
    first: usize,
    /// Underlays with one device to leave by.
    one_uplink: usize,
    /// Underlays with room for a tunnel's headers, and no more.
    fitting: usize,
    /// States without policy.
    flowless: usize,
}

impl Bias {
    /// Changes where a conversation goes.
    fn turn(self, talk: &mut Talk, rng: &mut Rng) {
        if draws(rng, self.transit) {
            let tenant = talk.ends[0].tenant();
            talk.ends = [20, 21].map(|host| End::remote(rng, tenant, &[host]));
        } else if draws(rng, self.first) {
            let other = if rng.chance(30) {
                End::Local { segment: rng.pick(&[0, 1, 5]), host: 11 }
            } else {
                End::remote(rng, 0, &[20, 21])
            };
            talk.ends = [End::Local { segment: 0, host: 10 }, other];
            if rng.chance(50) {
                talk.ends.reverse();
            }
        }
    }
}

/// Without a bias nothing is drawn: seeds stay what they were.
fn draws(rng: &mut Rng, percent: usize) -> bool {
    percent > 0 && rng.chance(percent)
}

fn generate(seed: u64, manner: Manner) -> Case {
    let Manner { blind, stripped, healthy, bias } = manner;
    let mut rng = Rng::new(seed);
    let mut world = World::random(&mut rng);
    if draws(&mut rng, bias.one_uplink) {
        world.one_uplink();
    }
    if draws(&mut rng, bias.fitting) {
        world.fit_underlay();
    }
    let flowless = draws(&mut rng, bias.flowless);
    if flowless {
        world.without_flows();
    }
    let state = world.state();
    let mut talks: Vec<Talk> = (0..2 + rng.below(5)).map(|_| Talk::random(&mut rng)).collect();
    talks.iter_mut().for_each(|talk| bias.turn(talk, &mut rng));
    // Some say the same as others, elsewhere.
    if rng.chance(30) {
        let twin = talks[0].clone();
        let other = &mut talks[1];
        (other.proto, other.ports, other.v6) = (twin.proto, twin.ports, twin.v6);
    }
    // What software knows of TCP's numbers is not compared: two who take each other's connection for theirs would show it.
    for at in 1..talks.len() {
        while talks[..at].iter().any(|other| talks[at].is_taken_for(other)) {
            talks[at].ports[0] += 100;
        }
    }
    let padded = rng.chance(8);
    let mut events = Vec::new();
    let (late, quiet) = (rng.chance(20), rng.chance(40));
    if !late {
        introduce(&mut events, &talks);
    }
    let count = 60 + rng.below(100);
    while events.len() < count {
        match rng.below(200) {
            0..=3 => events.push(Event::Wait(rng.pick(&[100, 500, 1200, 2500]))),
            4 if !quiet => events.push(Event::Change(world.change(&mut rng))),
            5 if !quiet => events.push(Event::Offload(rng.chance(60))),
            6 if !quiet => {
                let (segment, host) = (rng.below(world::SEGMENTS.len()), rng.pick(&[10, 11]));
                events.extend(traffic::announce(segment, host, rng.below(2) as u8));
            }
            7 if !quiet => events.push(traffic::announce_far_end(rng.below(2) as u8)),
            8 if late => introduce(&mut events, &talks),
            _ => {
                let at = rng.below(talks.len());
                // Trains of one conversation, so that rules get something to do.
                for _ in 0..1 + rng.below(4) {
                    events.extend(talks[at].next(&world, &mut rng, blind, padded));
                }
            }
        }
    }
    Case { state, events, padded, flowless, stripped, healthy }
}

/// Who talks makes itself known.
fn introduce(events: &mut Vec<Event>, talks: &[Talk]) {
    let mut known = BTreeSet::new();
    for end in talks.iter().flat_map(|talk| &talk.ends) {
        if let End::Local { segment, host } = end
            && known.insert((*segment, *host))
        {
            events.extend(traffic::announce(*segment, *host, 0));
        }
    }
    events.push(traffic::announce_far_end(0));
}

/// One NIC, in a process of its own: run by the test below.
#[test]
#[ignore = "one NIC, named by NIC_NUMBER: run by every_nic_does_what_software_does"]
fn one_nic() {
    let nic = &NICS[usize::try_from(number("NIC_NUMBER").unwrap()).unwrap()];
    let Nic { profile, faults, .. } = nic;
    let name = [&[*profile], *faults].concat().join(" ");
    let judged = Judged::of(profile);
    let blind = match *profile {
        "twin" => Blind { tunnel: false, outer_checksum: false, headers: false },
        // Ports of the twin are wires, whose headers software steering does not check.
        "mlx5-sws" => Blind { tunnel: true, outer_checksum: true, headers: true },
        _ if judged.is_some() => Blind { tunnel: true, outer_checksum: true, headers: true },
        _ => Blind { tunnel: true, outer_checksum: true, headers: false },
    };
    let seed = number("SEED").unwrap_or(SEED);
    let cases = number("CASES").unwrap_or(nic.cases);
    let mut front = bench::open(profile, faults);
    let mut total = Outcome::default();
    // What these refuse is refused flow by flow.
    let healthy = faults.is_empty() && *profile != "cnxk" && judged.is_none();
    let bias = match judged {
        Some(Judged::Hairpin) => Bias { transit: 20, first: 60, one_uplink: 70, fitting: 70, ..Bias::default() },
        Some(Judged::Edge) => Bias { transit: 80, fitting: 50, ..Bias::default() },
        _ => Bias::default(),
    };
    let bias = match number("FLOWLESS") {
        Some(_) => Bias { flowless: 100, one_uplink: 50, ..bias },
        None => bias,
    };
    let manner = Manner { blind, stripped: judged.is_some(), healthy, bias };
    for at in 0..cases {
        let case = generate(seed.wrapping_add(at), manner);
        match judge::judge(&mut front, &case) {
            Ok(outcome) => {
                total.frames += outcome.frames;
                total.hardware += outcome.hardware;
                total.partial += outcome.partial;
            }
            Err(_) => fail(&mut front, &case, &name, seed.wrapping_add(at)),
        }
    }
    let percent = |part: u64| part as f64 * 100.0 / total.frames.max(1) as f64;
    let (hardware, partial) = (percent(total.hardware), percent(total.partial));
    println!(
        "differential: {name} {cases} cases, {} frames, {hardware:.1} % in hardware, {partial:.1} % partial ... ok",
        total.frames
    );
    let least = number("FLOWLESS").map_or(nic.hardware, |percent| percent as f64);
    assert!(cases < 50 || hardware >= least, "{name}: only {hardware:.1} % of the frames were in hardware");
}

fn fail(front: &mut dpu_fastpath::replay::NicFront, case: &Case, name: &str, seed: u64) -> ! {
    let whole = std::env::var_os("WHOLE").is_some();
    let small = if whole { case.clone() } else { judge::cut_down(front, case) };
    let why = judge::judge(front, &small).map_or_else(|why| why, |_| "it does not happen again".to_owned());
    let events: Vec<String> = small.events.iter().map(judge::told).collect();
    panic!("{name}: SEED={seed} CASES=1:\n{}\n{}\n{why}", small.state, events.join("\n"))
}

#[test]
fn every_nic_does_what_software_does() {
    let only = std::env::var("NIC").ok();
    // Built once, not by each of them.
    let libraries = [twin::library(), twin::judge()];
    let wanted = |nic: &Nic| only.as_ref().is_none_or(|only| only == nic.profile);
    let todo = (0..NICS.len()).filter(|at| wanted(&NICS[*at]));
    let failed = two_at_a_time(todo, |at| compare_with(at, &libraries, &[]));
    let failed: Vec<_> = failed.into_iter().map(|at| NICS[at].profile).collect();
    assert!(failed.is_empty(), "not like software: {failed:?}");
}

/// NICs that forward without flows: cases, and the percentage of all frames that they handle at least.
const TRANSIT: [(&str, u64, u64); 5] = [
    (Judged::Switch.name(), 150, 3),
    (Judged::Hairpin.name(), 100, 3),
    (Judged::Edge.name(), 100, 1),
    ("twin", 150, 10),
    ("mlx5-sws", 60, 1),
];

#[test]
fn every_nic_forwards_transit_as_software_does() {
    let only = std::env::var("NIC").ok();
    let libraries = [twin::library(), twin::judge()];
    let wanted = |at: &usize| only.as_ref().is_none_or(|only| only == TRANSIT[*at].0);
    let failed = two_at_a_time((0..TRANSIT.len()).filter(wanted), |at| {
        let (profile, cases, least) = TRANSIT[at];
        let nic = NICS.iter().position(|nic| nic.profile == profile).unwrap();
        let cases = number("CASES").unwrap_or(cases);
        compare_with(nic, &libraries, &[("CASES", cases.to_string()), ("FLOWLESS", least.to_string())])
    });
    let failed: Vec<_> = failed.into_iter().map(|at| TRANSIT[at].0).collect();
    assert!(failed.is_empty(), "not like software: {failed:?}");
}

/// Runs these, and returns those that fail.
fn two_at_a_time(todo: impl Iterator<Item = usize> + Send, run: impl Fn(usize) -> bool + Sync) -> Vec<usize> {
    let (todo, failed) = (Mutex::new(todo), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(at) = todo.lock().unwrap().next() else { return };
                    if !run(at) {
                        failed.lock().unwrap().push(at);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

fn compare_with(nic: usize, [twin, judge]: &[PathBuf; 2], more: &[(&str, String)]) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["one_nic", "--exact", "--ignored", "--nocapture"])
        .env("NIC_NUMBER", nic.to_string())
        .env("NIC_TWIN", twin)
        .env("MLX5_JUDGE", judge)
        .envs(more.iter().map(|(name, value)| (name, value)));
    if let Some(judged) = Judged::of(NICS[nic].profile) {
        judged.below(&mut child, judge);
    }
    let output = child.output().unwrap();
    pass_on(&output);
    output.status.success()
}

/// Tells what a child has told: its summary past the harness's capture, for the summary of all tests; everything if it has failed.
fn pass_on(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("differential: ")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    if !output.status.success() {
        println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
