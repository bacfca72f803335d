//! Between every two calls of the mlx5 driver: while its rules are made, refused, replaced and removed, no frame leaves in another form than
//! software gives it, before or after the change. What it made is executed at each moment, in the driver's own call.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{Arc, Mutex},
};

use dpu_fastpath::replay::mlx5::Place;
use mlx5_judge::{
    Fault,
    device::Device,
    machine::{self, Outcome},
    record::{Change, Record},
};

use super::{
    bench::Judged,
    judge::{self, Case, Event},
    packets::UDP,
    traffic::{End, Talk},
    twin,
    world::World,
};

/// What becomes of a frame: the device that it leaves by and the frame, without what is drawn for each flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Disposition {
    Software { unchanged: bool },
    Sent(u32, Vec<u8>),
    Other(String),
}

/// A frame that is sent at every moment.
struct Probe {
    device: u32,
    port: machine::Port,
    frame: Vec<u8>,
}

#[derive(Default)]
struct Seen {
    moments: u64,
    dispositions: BTreeMap<usize, BTreeSet<Disposition>>,
}

const fn local(segment: usize) -> End {
    End::Local { segment, host: 10 }
}

const fn remote(tunnel: usize, tenant: usize) -> End {
    End::Remote { tunnel, tenant, prefix: 9 - tunnel as u8, host: 20 }
}

/// Conversations of both tenants: through tunnels, with tags and without, and between segments. Their clients' ports begin at `first`.
pub(crate) fn talks(first: u16) -> Vec<Talk> {
    talk(
        first,
        &[
            [local(0), remote(0, 0)],
            [local(1), remote(0, 0)],
            [local(2), remote(0, 1)],
            [local(3), remote(0, 1)],
            [local(1), local(4)],
            [local(0), local(4)],
            [local(0), local(1)],
        ],
    )
}

fn talk(first: u16, ends: &[[End; 2]]) -> Vec<Talk> {
    ends.iter().zip(first..).map(|(ends, port)| Talk::new(ends.clone(), false, UDP, [port, 53])).collect()
}

/// One frame each way.
pub(crate) fn frames(world: &World, talks: Vec<Talk>) -> Vec<Event> {
    let both = talks.into_iter().flat_map(|mut talk| {
        [0, 1].map(|from| {
            let packet = talk.ordinary(from, 64);
            talk.event(world, from, &packet, "ordinary")
        })
    });
    both.collect()
}

/// Changes in the middle of all conversations; `true`: afterwards they are denied, and a rule may drop them.
pub(crate) const CHANGES: [(&str, bool); 7] = [
    (r#"{"routes": [{"vrf": 18, "prefix": "10.9.0.0/16", "nexthop": 489, "label": 999}]}"#, false),
    (r#"{"routes": [{"vrf": 19, "prefix": "10.9.0.0/16", "nexthop": 490, "label": 290}]}"#, false),
    (r#"{"removeRoutes": [{"vrf": 18, "prefix": "10.9.0.0/16"}]}"#, false),
    (r#"{"removeLabels": [279]}"#, false),
    (r#"{"labels": [{"label": 279, "nexthop": 514}]}"#, false),
    (r#"{"acls": [{"id": 65, "name": "none", "entries": [{"id": 1, "action": "DENY"}]}]}"#, true),
    (
        r#"{"nexthops": [{"id": 85, "vrf": 8, "encap": {"oif": 3, "encapData": "0200000000aa 020000004103 0800"}}, {"id": 86, "vrf": 8, "encap": {"oif": 4, "encapData": "0200000000aa 020000004104 0800"}}]}"#,
        false,
    ),
];

/// What the NIC has no room for.
const REFUSED: [fn(u32) -> Fault; 2] = [Fault::Rule, Fault::Action];

fn case(judged: Judged, change: &str) -> Case {
    let mut world = World::plain();
    world.permit();
    if judged == Judged::Hairpin {
        // The card has no port for the other.
        world.one_uplink();
    }
    let transit = [0, 1].map(|tenant| [remote(0, tenant), remote(1, tenant)]);
    let frames = frames(&world, [talks(4000), talk(4100, &transit)].concat());
    let trains = |rounds: usize| std::iter::repeat_n(frames.clone(), rounds).flatten();
    let mut events: Vec<Event> = trains(4).collect();
    events.push(Event::Change(change.to_owned()));
    events.extend(trains(3));
    events.push(Event::Wait(1500));
    events.extend(trains(2));
    for on in [false, true] {
        events.push(Event::Offload(on));
        events.extend(trains(3));
    }
    Case { state: world.state(), events, padded: false, flowless: false, stripped: true, healthy: true }
}

/// Frames of the case that come by a port of the card.
fn probes(case: &Case, ports: &[(u32, Place)]) -> Vec<Probe> {
    let mut known = BTreeSet::new();
    let frames = case.events.iter().filter_map(|event| match event {
        Event::Frame { port, frame, .. } if known.insert((*port, frame.clone())) => Some((*port, frame.clone())),
        _ => None,
    });
    frames
        .filter_map(|(device, frame)| {
            let (_, place) = ports.iter().find(|(known, _)| *known == device)?;
            let port = machine::Port { pf: place.pf.into(), vport: place.vport };
            Some(Probe { device, port, frame })
        })
        .collect()
}

fn disposition(record: &Record, probe: &Probe, ports: &[(u32, Place)]) -> Disposition {
    match machine::receive(record, probe.port, &probe.frame).outcome {
        Outcome::Software(frame) => Disposition::Software { unchanged: frame == probe.frame },
        Outcome::Sent(port, frame) => {
            let leaves = |place: &Place| (i32::from(place.pf), place.vport) == (port.pf, port.vport);
            let device = ports.iter().find(|(_, place)| leaves(place)).unwrap().0;
            Disposition::Sent(device, judge::undrawn(frame))
        }
        other => Disposition::Other(format!("{other:?}")),
    }
}

/// Looks at every moment from now on.
fn look(device: &Device, probes: &Arc<Vec<Probe>>, ports: &[(u32, Place)]) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (looking, asked, known) = (Arc::clone(&seen), Arc::clone(probes), ports.to_vec());
    device.listen(Box::new(move |change: &Change, record: &Record| {
        if !matches!(change, Change::Rule(_) | Change::RuleGone(_)) {
            return;
        }
        let mut seen = looking.lock().unwrap();
        seen.moments += 1;
        for (at, probe) in asked.iter().enumerate() {
            seen.dispositions.entry(at).or_default().insert(disposition(record, probe, &known));
        }
    }));
    seen
}

/// What may be lost at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losses {
    None,
    /// What is denied.
    Denied,
    /// Anything: ports stop.
    Any,
}

/// Holds what was seen against what software sends. The ways through rules.
fn check(seen: &Mutex<Seen>, probes: &[Probe], case: &Case, losses: Losses, about: &str) -> u64 {
    let allowed = judge::sent_by_software(case);
    let mut in_hardware = 0;
    for (at, dispositions) in &seen.lock().unwrap().dispositions {
        let probe = &probes[*at];
        let software = &allowed[&(probe.device, probe.frame.clone())];
        for disposition in dispositions {
            let good = match disposition {
                Disposition::Software { unchanged } => *unchanged,
                Disposition::Sent(device, frame) => software.contains(&(*device, frame.clone())),
                Disposition::Other(why) => match losses {
                    Losses::None => false,
                    Losses::Denied => why == "Lost(Drop)",
                    Losses::Any => why.starts_with("Lost("),
                },
            };
            assert!(good, "{about}: frame {at} from {}: {disposition:?}, and software {software:?}", probe.device);
            in_hardware += u64::from(matches!(disposition, Disposition::Sent(..)));
        }
    }
    in_hardware
}

/// One process, with the judge below the driver: run by the test below.
#[test]
#[ignore = "run by no_frame_leaves_in_another_form_at_any_moment"]
fn all_moments() {
    // Before the driver makes anything.
    let device = Device::attach().unwrap();
    let judged = Judged::of(&std::env::var("JUDGED").unwrap()).unwrap();
    let ports = judged.ports();
    let mut front = judged.open();
    let (mut moments, mut in_hardware) = (0, 0);
    let mut last = None;
    for (change, denied) in CHANGES {
        let case = case(judged, change);
        let probes = Arc::new(probes(&case, &ports));
        // What is left of the case before is gone.
        front.renew(&judge::snapshot(&case.state)).unwrap();
        let seen = look(device, &probes, &ports);
        let outcome = judge::judge(&mut front, &case).unwrap_or_else(|why| panic!("{change}: {why}"));
        let losses = if denied { Losses::Denied } else { Losses::None };
        in_hardware += check(&seen, &probes, &case, losses, &format!("{judged:?}, {change}"));
        moments += seen.lock().unwrap().moments;
        assert!(outcome.hardware > 0, "{change}: {outcome:?}");
        // An engine ends, and the next one begins.
        let seen = look(device, &probes, &ports);
        front.renew(&judge::snapshot(&case.state)).unwrap();
        check(&seen, &probes, &case, losses, &format!("{judged:?}, {change}, another engine"));
        moments += seen.lock().unwrap().moments;
        last = Some((case, probes));
    }
    assert!(in_hardware >= 4 * CHANGES.len() as u64, "only {in_hardware} ways were seen");
    // The NIC refuses one rule after the other, or what it is made of.
    for fault in REFUSED.into_iter().flat_map(|kind| (1..=40).step_by(3).map(kind)) {
        let case = Case { healthy: false, ..case(judged, CHANGES[0].0) };
        let probes = Arc::new(probes(&case, &ports));
        front.renew(&judge::snapshot(&case.state)).unwrap();
        let seen = look(device, &probes, &ports);
        device.fault(fault);
        judge::judge(&mut front, &case).unwrap_or_else(|why| panic!("{judged:?}, {fault:?}: {why}"));
        in_hardware += check(&seen, &probes, &case, Losses::None, &format!("{judged:?}, {fault:?}"));
        moments += seen.lock().unwrap().moments;
    }
    // Ports stop with rules in them.
    let (case, probes) = last.unwrap();
    judge::judge(&mut front, &case).unwrap();
    let seen = look(device, &probes, &ports);
    front.close_ports();
    check(&seen, &probes, &case, Losses::Any, &format!("{judged:?}, at the end"));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    for (at, dispositions) in &seen.dispositions {
        let sent = dispositions.iter().any(|disposition| matches!(disposition, Disposition::Sent(..)));
        // The first port to stop: its queues lead nowhere before the driver takes a rule away, in an order of its own.
        let first = judged != Judged::Switch && probes[*at].port.pf == 0;
        assert!(!(first && sent), "{judged:?}: frame {at} is sent while its port stops: {dispositions:?}");
    }
    assert!(seen.moments > 10, "rules were left to stop with");
    moments += seen.moments;
    println!(
        "differential: {} {moments} moments between calls of the mlx5 driver, {in_hardware} ways through its rules ... ok",
        judged.name()
    );
}

#[test]
fn no_frame_leaves_in_another_form_at_any_moment() {
    let library = twin::judge();
    for judged in Judged::ALL {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["moments::all_moments", "--exact", "--ignored", "--nocapture"]);
        child.env("MLX5_JUDGE", &library).env("JUDGED", judged.name());
        judged.below(&mut child, &library);
        let output = child.output().unwrap();
        super::pass_on(&output);
        assert!(output.status.success(), "{judged:?}");
    }
}
