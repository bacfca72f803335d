//! Changes of the forwarding state that concern no flow, while packets pass: what a packet costs then, and how long the worker takes
//! nothing in.

use std::{sync::Arc, time::Duration};

use offload_rules::{
    AclId, NexthopId, VrfId,
    forwarding::{Ace, Acl, Action, Delta, Nexthop, NexthopKind, Route, RouteFlags, RouteOrigin, Scope, Snapshot},
};

use crate::{
    forward::{self, Picker, round},
    measure::{Effort, Row, Sample, Target, Value, cpu_time},
    offload,
    site::{BURST, Site, TENANT_VRF, Template, Transport, Way},
};

/// Packets between two changes: at 120 ns a packet, a thousand changes a second.
const BETWEEN: usize = 8192;
/// Packets between two looks at the clock.
const ROUND: u64 = 4 * BETWEEN as u64;
/// Changes that are made before anything is measured.
const MADE: u32 = 2048;
/// Routes of a large delta.
const MANY: u32 = 100_000;
/// Nexthops of a flap.
const NEXTHOPS: u32 = 10_000;

/// A route of the tenant that leads where others lead; no flow goes there.
fn route(prefix: String) -> Route {
    Route {
        vrf: VrfId::new(TENANT_VRF).expect("a valid VRF"),
        prefix: prefix.parse().expect("a prefix"),
        nexthop: NexthopId::new(10).expect("a valid nexthop"),
        label: None,
        flags: RouteFlags::default(),
        origin: RouteOrigin::default(),
    }
}

fn derive(snapshot: &Snapshot, change: impl FnOnce(&mut Delta)) -> Arc<Snapshot> {
    let base_generation = snapshot.generation();
    let mut delta = Delta { base_generation, generation: base_generation + 1, ..Delta::default() };
    change(&mut delta);
    Arc::new(snapshot.with_delta(delta).unwrap_or_else(|errors| panic!("{errors}")))
}

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A /24 comes, goes or is replaced.
    Route,
    /// Of the list of the tenant's vif, an entry about a /24 that no flow has an address in.
    Entry,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Route => "/24",
            Self::Entry => "list entry",
        }
    }
}

/// The list of the tenant's vif: 32 entries about other prefixes, one of which is new each time, and one that permits the rest.
fn list(number: u32) -> Acl {
    let entry = |id: u32, net: u32, action: Action| Ace {
        id,
        action,
        scope: Scope::Stateful,
        proto: Some(17),
        source: None,
        destination: Some(format!("172.20.{}.0/24", net & 0xff).parse().expect("a prefix")),
        source_ports: None,
        destination_ports: None,
    };
    let mut entries: Vec<Ace> = (1..=32).map(|id| entry(id, id, Action::Deny)).collect();
    if let Some(changed) = entries.get_mut(number as usize % 32) {
        changed.destination = entry(0, 64 + number % 128, Action::Deny).destination;
    }
    entries.push(Ace { proto: None, destination: None, ..entry(100, 0, Action::Permit) });
    Acl { id: AclId::new(1).expect("a list"), name: String::new(), entries, default: None }
}

/// With the list on the tenant's vif, both ways.
fn listed(snapshot: &Snapshot) -> Arc<Snapshot> {
    derive(snapshot, |delta| {
        let tenant = snapshot.vifs().find(|vif| vif.flags.policy).expect("the tenant's vif");
        let mut vif = tenant.as_ref().clone();
        let list = list(0);
        vif.ingress_acls.push(list.id);
        vif.egress_acls.push(list.id);
        delta.vifs = vec![vif];
        delta.acls = vec![list];
    })
}

/// Changes, one after the other.
struct Changes {
    kind: Kind,
    made: Vec<Arc<Snapshot>>,
    at: usize,
    number: u32,
}

impl Changes {
    fn new(site: &Site, kind: Kind, count: u32) -> Self {
        let mut changes = Self { kind, made: vec![Arc::clone(site.snapshot())], at: 0, number: 0 };
        (0..count).for_each(|_| changes.make());
        changes
    }

    fn make(&mut self) {
        self.number += 1;
        if self.kind == Kind::Entry {
            let next = self.made.last().map(|last| derive(last, |delta| delta.acls = vec![list(self.number)]));
            self.made.extend(next);
            return;
        }
        let (high, low) = (self.number >> 8 & 0x3f, self.number & 0xff);
        let added = route(format!("10.{}.{low}.0/24", 128 + high));
        let next = self.made.last().map(|last| {
            derive(last, |delta| {
                // Every other time round, the route that came first time is replaced.
                let label = (self.number >> 14 & 1 == 1).then(|| offload_rules::Label::new(77).expect("a label"));
                delta.routes = vec![Route { label, ..added }];
            })
        });
        self.made.extend(next);
    }

    fn next(&mut self) -> Arc<Snapshot> {
        self.at += 1;
        if self.at >= self.made.len() {
            self.make();
        }
        Arc::clone(&self.made[self.at])
    }
}

/// Opens all flows; with an engine that takes them.
fn open(count: u32, kind: Kind, offload: bool) -> (Site, Vec<u32>) {
    let flows: Vec<u32> = (0..count / BURST as u32 * BURST as u32).collect();
    let mut site = Site::with_engine(count, offload);
    if kind == Kind::Entry {
        let snapshot = listed(site.snapshot());
        site.adopt(&snapshot);
    }
    if offload {
        let mut ids = Vec::with_capacity(flows.len());
        offload::open(&mut site, &flows, &mut ids);
        assert_eq!(ids.len(), flows.len(), "every flow is offloaded");
    } else {
        site.converse(&flows);
    }
    (site, flows)
}

/// Adopts, and tells how long that took; the engine's requests are left.
fn adopt(site: &mut Site, snapshot: &Arc<Snapshot>) -> f64 {
    let start = cpu_time();
    site.adopt(snapshot);
    (cpu_time() - start).as_nanos() as f64
}

fn churn(effort: &Effort, count: u32, name: &str, kind: Kind, offload: bool) -> Vec<Row> {
    let (mut site, flows) = open(count, kind, offload);
    let how = if offload { ", all offloaded" } else { "" };
    let template = Template::new(Way::Out, Transport::Udp, 0);
    let frames = [template.sized(64)];
    let mut picker = Picker::new(&flows);
    let nic = effort.measure(|| round(&mut site, &frames, &mut picker, Site::write_only));
    let mut changes = Changes::new(&site, kind, MADE);
    let mut longest = Vec::new();
    let before = site.worker.derivations();
    // The two alternate: a neighbour on the machine that comes or goes weighs on both.
    let once = |work: &mut dyn FnMut() -> u64| {
        let run = Duration::max(effort.run, Duration::from_millis(20));
        Effort { repeats: 1, run, quick: effort.quick, row: None }.measure(work).median
    };
    let (mut still, mut changing) = (Vec::new(), Vec::new());
    for _ in 0..effort.repeats.max(3) {
        still.push(once(&mut || {
            // As many ticks as with changes: they age flows whether something changes or not.
            for _ in 0..forward::ROUND / BETWEEN {
                let (now, out) = (site.now, &mut site.out);
                site.worker.tick(now, out);
            }
            round(&mut site, &frames, &mut picker, Site::forward)
        }));
        changing.push(once(&mut || {
            let mut packets = 0;
            let mut burst = [0; BURST];
            while packets < ROUND {
                if (packets as usize).is_multiple_of(BETWEEN) {
                    longest.push(adopt(&mut site, &changes.next()));
                    let (now, out) = (site.now, &mut site.out);
                    site.worker.tick(now, out);
                }
                picker.burst(&mut burst);
                site.forward(&frames[0], &burst, packets as usize / BURST);
                packets += BURST as u64;
            }
            packets
        }));
    }
    assert_eq!(site.worker.derivations(), before, "no flow is looked at");
    let ratios = still.iter().zip(&changing).map(|(still, changing)| (changing - nic.median) / (still - nic.median));
    let ratios = Sample::of(ratios.collect());
    let what = kind.name();
    let on = if kind == Kind::Entry { ", a list on the vif" } else { "" };
    let most = longest.iter().copied().fold(0.0, f64::max);
    vec![
        Row {
            name: format!("hit without changes, {name} flows{on}{how}"),
            value: Value::PerPacket(Sample::of(still).less(nic)),
            target: None,
            against: "",
        },
        Row {
            name: format!("hit, an unrelated {what} each {BETWEEN}, {name} flows{how}"),
            value: Value::PerPacket(Sample::of(changing).less(nic)),
            target: None,
            against: "adopt included, and one tick, as without changes",
        },
        Row {
            name: format!("with changes against without, {what}, {name} flows{how}"),
            value: Value::Times(ratios),
            target: Some(Target::AtMostTimes(1.1)),
            against: "",
        },
        Row {
            name: format!("longest adopt of a {what}, {name} flows{how}"),
            value: Value::Whole(Sample::of(vec![most])),
            target: Some(Target::Milliseconds(1.0)),
            against: "packets wait meanwhile",
        },
    ]
}

/// Large changes: how long adopting takes, and what packets and ticks cost until everything is in line.
fn large(count: u32, name: &str, offload: bool) -> Vec<Row> {
    let (mut site, flows) = open(count, Kind::Route, offload);
    let how = if offload { ", all offloaded" } else { "" };
    let many = derive(site.snapshot(), |delta| {
        delta.routes = (0..MANY).map(|i| route(format!("11.{}.{}.0/24", i >> 8 & 0xff, i & 0xff))).collect();
        // Two lengths: above 65,536 /24s there are /25s.
        let second = delta.routes.iter_mut().skip(1 << 16);
        second.zip(0u32..).for_each(|(route, i)| {
            route.prefix = format!("11.{}.{}.128/25", i >> 8 & 0xff, i & 0xff).parse().expect("a prefix");
        });
    });
    let nexthops = derive(&many, |delta| {
        delta.nexthops = (0..NEXTHOPS)
            .map(|i| Nexthop {
                id: NexthopId::new(1000 + i).expect("a valid nexthop"),
                vrf: None,
                policy: false,
                valid: true,
                kind: NexthopKind::Drop,
            })
            .collect();
    });
    let mut rows = Vec::new();
    for (what, snapshot) in [("100,000 routes", many), ("10,000 nexthops", nexthops)] {
        let before = site.worker.derivations();
        let pause = adopt(&mut site, &snapshot);
        let template = Template::new(Way::Out, Transport::Udp, 0);
        let frames = [template.sized(64)];
        let mut picker = Picker::new(&flows);
        let start = cpu_time();
        let mut burst = [0; BURST];
        let mut ticks = Vec::new();
        for i in 0..64 * BETWEEN / BURST {
            picker.burst(&mut burst);
            site.forward(&frames[0], &burst, i);
            if i % (BETWEEN / BURST) == 0 {
                let (now, out) = (site.now, &mut site.out);
                let start = cpu_time();
                site.worker.tick(now, out);
                ticks.push((cpu_time() - start).as_nanos() as f64);
            }
        }
        let packet = (cpu_time() - start).as_nanos() as f64 / (64 * BETWEEN) as f64;
        assert_eq!(site.worker.derivations(), before, "no flow is looked at");
        rows.push(Row {
            name: format!("adopt of {what}, {name} flows{how}"),
            value: Value::Whole(Sample::of(vec![pause])),
            target: Some(Target::Milliseconds(1.0)),
            against: "packets wait meanwhile",
        });
        rows.push(Row {
            name: format!("longest tick after it, {name} flows{how}"),
            value: Value::Whole(Sample::of(vec![ticks.iter().copied().fold(0.0, f64::max)])),
            target: Some(Target::Milliseconds(1.0)),
            against: "the sweep of the table is part of it",
        });
        rows.push(Row {
            name: format!("hit in the half million packets after it, {name} flows{how}"),
            value: Value::PerPacket(Sample::of(vec![packet])),
            target: None,
            against: "making of frames included",
        });
    }
    rows
}

/// All rows.
pub(crate) fn rows(effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, name) in [(1_000, "1 k"), (100_000, "100 k"), (1_000_000, "1 M")] {
        if effort.quick && count > 100_000 {
            continue;
        }
        for offload in [false, true] {
            rows.extend(
                [Kind::Route, Kind::Entry].into_iter().flat_map(|kind| churn(effort, count, name, kind, offload)),
            );
        }
        if count != 1_000 {
            rows.extend([false, true].into_iter().flat_map(|offload| large(count, name, offload)));
        }
    }
    rows
}
