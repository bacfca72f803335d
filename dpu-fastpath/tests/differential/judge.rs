//! One case, twice: by software alone, and with the NIC in front. What both send and count has to be the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    sync::Arc,
};

use dpu_fastpath::replay::NicFront;
use fallback_sw::{
    node::{
        decode,
        machine::{Machine, MachineConfig},
    },
    packet::Packet,
    replay::{Front as _, report},
};
use offload_rules::{VifId, forwarding::Snapshot};
use proto::v1 as pb;
pub(crate) use test_kit::snapshot;

/// What happens in a case, one after the other.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A frame arrives at a device. `settle`: NIC and node talk before the next event.
    Frame { port: u32, frame: Vec<u8>, settle: bool, what: String },
    /// Milliseconds pass.
    Wait(u64),
    /// The forwarding state changes.
    Change(String),
    /// `host-ctl offload on|off`.
    Offload(bool),
    /// Something is done to the NIC, or asked of it: software alone has none.
    Nic(Deed),
}

/// What is done to the NIC of a case.
#[derive(Clone)]
pub(crate) struct Deed {
    name: String,
    act: Arc<Act>,
}

/// NIC, node and time.
type Act = dyn Fn(&mut NicFront, &mut Machine, u64) + Send + Sync;

impl Deed {
    pub(crate) fn new(
        name: impl Into<String>,
        act: impl Fn(&mut NicFront, &mut Machine, u64) + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), act: Arc::new(act) }
    }
}

impl fmt::Debug for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A state and what happens.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) state: String,
    pub(crate) events: Vec<Event>,
    /// Frames have octets behind their IP packet, which a NIC keeps and software cuts off: neither is compared.
    pub(crate) padded: bool,
    /// The NIC counts octets behind what its rules take off: they are not compared.
    pub(crate) stripped: bool,
    /// Nothing makes a flow: software gives each outer header an identification and a source port of its own, which are not compared.
    pub(crate) flowless: bool,
    /// Nothing is wrong with the NIC: in the end it holds what it should.
    pub(crate) healthy: bool,
}

/// What a case came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) frames: u64,
    pub(crate) hardware: u64,
    pub(crate) partial: u64,
}

fn change(machine: &mut Machine, json: &str, now: u64) {
    let mut message: pb::ForwardingDelta = proto::json::parse(json, "delta").unwrap();
    message.base_generation = machine.control().snapshot().generation();
    message.generation = message.base_generation + 1;
    let delta = decode::delta(&message).unwrap_or_else(|errors| panic!("{errors}\n{json}"));
    // What is left out of a case that is cut down may make a change impossible: then it is for both.
    let _ = machine.apply_delta(delta, now);
    // When a flow follows a change is not compared, only that it does.
    machine.sweep(now);
}

/// One of the two.
struct Side<'a> {
    machine: Machine,
    front: Option<&'a mut NicFront>,
    /// Identifications of outer headers, in the order in which they were first seen.
    ids: Vec<u16>,
    flowless: bool,
}

/// Device and frame.
type Sent = Vec<(u32, Vec<u8>)>;

impl<'a> Side<'a> {
    fn new(snapshot: &Arc<Snapshot>, front: Option<&'a mut NicFront>, flowless: bool) -> Self {
        let config = MachineConfig { offload: front.is_some(), ..MachineConfig::default() };
        Self { machine: Machine::new(config, Arc::clone(snapshot)).unwrap(), front, ids: Vec::new(), flowless }
    }

    fn settle(&mut self, now: u64) {
        if let Some(front) = &mut self.front {
            front.settle(&mut self.machine, now).unwrap();
        }
    }

    fn taken(&mut self) -> Sent {
        let number = |vif: VifId| u32::from(vif.get());
        self.machine.take_sent().into_iter().map(|sent| (number(sent.port), sent.packet.data().to_vec())).collect()
    }

    fn step(&mut self, event: &Event, now: u64) -> Sent {
        let mut out = Vec::new();
        match event {
            Event::Frame { port, frame, settle, .. } => {
                let vif = VifId::new(*port).unwrap();
                let mut software: Vec<Packet> = match &mut self.front {
                    None => vec![Packet::from_frame(frame)],
                    Some(front) => {
                        let met = front.receive(vif, frame, now).unwrap();
                        out.extend(met.sent.iter().map(|(port, sent)| (port.get().into(), sent.data().to_vec())));
                        met.software
                    }
                };
                let walks = self.machine.account().slow_path;
                self.machine.receive(vif, 0, &mut software, now);
                // What begins a flow may take the place of a denial, whose rule leaves at once here, and soon elsewhere.
                if *settle || self.machine.account().slow_path > walks {
                    self.settle(now);
                }
            }
            Event::Wait(_) => {
                self.machine.tick(now);
                self.settle(now);
            }
            Event::Change(json) => {
                change(&mut self.machine, json, now);
                self.settle(now);
            }
            Event::Offload(on) => {
                if let Some(front) = &mut self.front {
                    front.set_enabled(&mut self.machine, *on, now).unwrap();
                }
            }
            Event::Nic(deed) => {
                if let Some(front) = &mut self.front {
                    (deed.act)(front, &mut self.machine, now);
                }
                self.settle(now);
            }
        }
        out.extend(self.taken());
        out.iter_mut().for_each(|(_, frame)| self.number(frame));
        out.sort();
        out
    }

    /// Each flow draws one identification for all its outer headers when its program is made, and a flow that is looked at for
    /// the NIC may have its program earlier. So the drawn number is not compared, but which frames have the same one.
    fn number(&mut self, frame: &mut [u8]) {
        let Some(at) = outer(frame).filter(|at| is_summed(&frame[*at..])) else { return };
        if self.flowless {
            for drawn in [at + 4..at + 6, at + 10..at + 12, at + 20..at + 22] {
                frame[drawn].fill(0);
            }
            return;
        }
        let id = u16::from_be_bytes([frame[at + 4], frame[at + 5]]);
        let place = self.ids.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        frame[at + 4..at + 6].copy_from_slice(&(place as u16).to_be_bytes());
        frame[at + 10..at + 12].fill(0);
    }
}

/// A node to which nothing happens.
pub(crate) fn idle(snapshot: &Arc<Snapshot>) -> Machine {
    Machine::new(MachineConfig { offload: true, ..MachineConfig::default() }, Arc::clone(snapshot)).unwrap()
}

/// Runs a case both ways; `Err` tells where they differ.
pub(crate) fn judge(front: &mut NicFront, case: &Case) -> Result<Outcome, String> {
    let first = snapshot(&case.state);
    front.renew(&first).unwrap();
    let mut software = Side::new(&first, None, case.flowless);
    let mut offloaded = Side::new(&first, Some(front), case.flowless);
    let mut now = 10_000;
    let mut outcome = Outcome::default();
    for (at, event) in case.events.iter().enumerate() {
        now += 1;
        let steps = if let Event::Wait(ms) = event { ms.div_ceil(100) } else { 1 };
        for step in 0..steps {
            if matches!(event, Event::Wait(_)) && step > 0 {
                now += 100;
            }
            let (a, b) = (software.step(event, now), offloaded.step(event, now));
            let same = if case.padded { a.iter().map(trimmed).eq(b.iter().map(trimmed)) } else { a == b };
            if !same {
                return Err(format!(
                    "event {at} {}: software sends\n{}with the NIC\n{}",
                    told(event),
                    frames(&a),
                    frames(&b)
                ));
            }
        }
        outcome.frames += u64::from(matches!(event, Event::Frame { .. }));
    }
    offloaded.settle(now);
    if let Some(front) = &mut offloaded.front {
        front.finish(&mut offloaded.machine, now).unwrap();
    }
    let account = offloaded.machine.account();
    outcome.hardware = account.hardware;
    outcome.partial = offloaded.machine.counters().0.tiers.values().map(|tier| tier.partial.packets).sum();
    for side in [&mut software, &mut offloaded] {
        side.machine.sweep(now);
        let account = side.machine.account();
        let missing = account.unaccounted(side.machine.held());
        if missing != 0 {
            return Err(format!("{missing} packets are in nobody's account: {account:?}"));
        }
    }
    // The last words: the sweep may have taken flows away.
    offloaded.settle(now);
    compare(&software.machine, &offloaded.machine, case)?;
    if case.healthy
        && let Some(front) = &mut offloaded.front
    {
        let diff = front.diff();
        if !diff.is_empty() {
            return Err(format!("the NIC's rules are not those wanted: {diff:?}"));
        }
    }
    Ok(outcome)
}

/// A device and a frame on its wire.
pub(crate) type OnWire = (u32, Vec<u8>);

/// What software alone sends of each frame of a case, whenever it comes: device and frame, without what is drawn for each flow.
pub(crate) fn sent_by_software(case: &Case) -> BTreeMap<OnWire, BTreeSet<OnWire>> {
    let mut side = Side::new(&snapshot(&case.state), None, case.flowless);
    let mut now = 10_000;
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for event in &case.events {
        now += if let Event::Wait(ms) = event { *ms } else { 1 };
        let sent = side.step(event, now);
        if let Event::Frame { port, frame, .. } = event {
            let sent = sent.into_iter().map(|(device, frame)| (device, undrawn(frame)));
            all.entry((*port, frame.clone())).or_default().extend(sent);
        }
    }
    all
}

/// A frame without the identification of its outer header, which is drawn for each flow, and the checksum over it.
pub(crate) fn undrawn(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(at) = outer(&frame) {
        frame[at + 4..at + 6].fill(0);
        frame[at + 10..at + 12].fill(0);
    }
    frame
}

/// Everything a replay reports, but for what tells where packets ran.
fn comparable(machine: &Machine, case: &Case) -> pb::ReplayReport {
    let mut report = report(machine);
    if let Some(tiers) = &mut report.tiers {
        tiers.flow_hits += machine.account().hardware + tiers.routed + tiers.slow_path;
        (tiers.routed, tiers.slow_path) = (0, 0);
    }
    for flow in &mut report.flows {
        (flow.index, flow.generation, flow.reverse_index) = (0, 0, flow.reverse_index.map(|_| 0));
        // The NIC's counters are read now and then; and which round derived a flow anew is not compared.
        (flow.last_seen_ms, flow.changed_ms) = (0, 0);
        if flow.packets == 0 {
            // A direction that has carried nothing is derived when its first packet comes, or when its pair is looked at for the NIC.
            (flow.acl, flow.ace, flow.source_nexthop, flow.nexthop, flow.label) = (0, 0, 0, 0, None);
            flow.tunnel_source_port = 0;
            flow.ops.clear();
            flow.ecmp_index.clear();
        }
        if case.stripped {
            flow.bytes = 0;
        }
        flow.tier = 0;
        flow.not_offloaded_reason.clear();
        (flow.hardware_packets, flow.hardware_bytes) = (0, 0);
    }
    report.flows.sort_by_key(|flow| format!("{flow:?}"));
    for vif in &mut report.vifs {
        // Of the queues of workers: a NIC's packets come by none.
        vif.rx_queue_packets.clear();
        for counters in [&mut vif.port, &mut vif.counters].into_iter().flatten() {
            if case.padded || case.stripped {
                counters.tx_bytes = 0;
            }
            if case.stripped {
                counters.rx_bytes = 0;
            }
        }
    }
    report
}

fn compare(software: &Machine, offloaded: &Machine, case: &Case) -> Result<(), String> {
    let [a, b] = [software, offloaded].map(|machine| comparable(machine, case));
    if a == b {
        return Ok(());
    }
    let mut text = String::new();
    let mut note = |name: &str, a: String, b: String| {
        if a != b {
            let _ = writeln!(text, "{name}: {}", differences(&a, &b));
        }
    };
    note("account", format!("{:#?}", a.packets), format!("{:#?}", b.packets));
    note("tiers", format!("{:#?}", a.tiers), format!("{:#?}", b.tiers));
    note("neighbours", format!("{:#?}", a.neighbours), format!("{:#?}", b.neighbours));
    note("vrfs", format!("{:#?}", a.vrfs), format!("{:#?}", b.vrfs));
    for (a, b) in a.drops.iter().zip(&b.drops) {
        note("drops", format!("{a:#?}"), format!("{b:#?}"));
    }
    for (a, b) in a.vifs.iter().zip(&b.vifs) {
        let id = a.vif.as_ref().map_or(0, |vif| vif.id);
        note(&format!("vif {id}"), format!("{a:#?}"), format!("{b:#?}"));
    }
    let keyed = |report: &pb::ReplayReport| -> BTreeMap<String, String> {
        let key = |f: &pb::Flow| {
            format!(
                "{} {} {} {}:{} {}:{}",
                f.vrf, f.vif, f.proto, f.source, f.source_port, f.destination, f.destination_port
            )
        };
        report.flows.iter().map(|flow| (key(flow), format!("{flow:#?}"))).collect()
    };
    let (a, b) = (keyed(&a), keyed(&b));
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
        let get =
            |flows: &BTreeMap<String, String>| flows.get(key).cloned().unwrap_or_else(|| "no such flow".to_owned());
        note(&format!("flow {key}"), get(&a), get(&b));
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// The lines in which two texts differ.
fn differences(a: &str, b: &str) -> String {
    if a.lines().count() != b.lines().count() {
        return format!("software {a}\nwith the NIC {b}");
    }
    let pairs = a.lines().zip(b.lines()).filter(|(a, b)| a != b);
    pairs.map(|(a, b)| format!("software {} with the NIC {}; ", a.trim(), b.trim())).collect()
}

pub(crate) fn told(event: &Event) -> String {
    match event {
        Event::Frame { port, frame, settle, what } => {
            format!("{what} on {port}{}: {}", if *settle { "" } else { " (later)" }, hex(frame))
        }
        other => format!("{other:?}"),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().take(120).fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    }) + if octets.len() > 120 { "…" } else { "" }
}

fn frames(sent: &Sent) -> String {
    sent.iter().fold(String::new(), |mut text, (port, frame)| {
        let _ = writeln!(text, "  {port} ({} octets): {}", frame.len(), hex(frame));
        text
    })
}

fn word(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
}

/// Where the IP packet begins, and whether it is MPLS over UDP.
fn layers(frame: &[u8]) -> Option<(usize, bool)> {
    let mut at = 12;
    while matches!(word(frame, at), 0x8100 | 0x88a8) {
        at += 4;
    }
    at += 2;
    let tunnelled = frame.get(at) == Some(&0x45) && frame.get(at + 9) == Some(&17);
    (frame.len() > at).then_some((at, tunnelled && matches!(word(frame, at + 22), 6635 | 51234)))
}

/// Where the header of a tunnel begins.
fn outer(frame: &[u8]) -> Option<usize> {
    layers(frame).filter(|(at, tunnelled)| *tunnelled && frame.len() >= at + 32).map(|(at, _)| at)
}

/// The checksum of an IPv4 header without options is right.
fn is_summed(ip: &[u8]) -> bool {
    let sum: u32 = (0..20).step_by(2).map(|at| u32::from(word(ip, at))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// A frame without what is behind the innermost IP packet, and without the outer lengths that count it.
fn trimmed((port, frame): &(u32, Vec<u8>)) -> (u32, Vec<u8>) {
    let mut frame = frame.clone();
    let Some((mut at, tunnelled)) = layers(&frame) else { return (*port, frame) };
    if tunnelled {
        for place in [at + 2, at + 3, at + 10, at + 11, at + 24, at + 25] {
            if let Some(octet) = frame.get_mut(place) {
                *octet = 0;
            }
        }
        at += 32;
    }
    let length = match frame.get(at).map(|octet| octet >> 4) {
        Some(4) => usize::from(word(&frame, at + 2)),
        Some(6) => usize::from(word(&frame, at + 4)) + 40,
        _ => return (*port, frame),
    };
    frame.truncate(at + length);
    (*port, frame)
}

/// Leaves out of a failing case what it fails without.
pub(crate) fn cut_down(front: &mut NicFront, case: &Case) -> Case {
    let mut case = case.clone();
    let mut step = (case.events.len() / 2).max(1);
    let mut budget = 400;
    loop {
        let mut at = 0;
        while at < case.events.len() && budget > 0 {
            budget -= 1;
            let mut smaller = case.clone();
            let end = (at + step).min(smaller.events.len());
            smaller.events.drain(at..end);
            if judge(front, &smaller).is_err() {
                case = smaller;
            } else {
                at += step;
            }
        }
        if step == 1 || budget == 0 {
            return case;
        }
        step = step.div_ceil(2);
    }
}
