//! After any history of changes every flow forwards as a fresh walk says, and only flows that a change covers are looked at.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use fallback_sw::{
    flow_table::Record,
    node::decode,
    packet::Packet,
    worker::{Outbox, Worker, WorkerConfig},
};
use offload_engine::protocol::{OffloadId, Report, Request, Tier};
use offload_rules::{
    MacAddr, VifId,
    classify::{Ingress, Inquiry, Role, Start, Verdict, classify},
    flow::Choices,
    forwarding::{GatewayState, Snapshot},
    lower::Direction,
};
use proptest::prelude::*;

use crate::common::{
    packets::{VRRP, echo_request, eth, udp},
    records::out_of_tunnel_on,
    snapshot, vif,
    walk_a::{CE1, CLIENT_MAC, LAN1, UNDERLAYS, altered},
};
const INITIATOR: u8 = 0x01;
const DENIED: u8 = 0x04;

/// CE1 with a second tenant that the first one's routes may lead into, a second tunnel that is routed in the underlay, and lists
/// for what comes from its LAN and what leaves there.
pub(super) fn world() -> String {
    altered(
        CE1,
        &[
            (r#"{"id": 18, "name": "blue"}"#, r#"{"id": 18, "name": "blue"}, {"id": 19, "name": "red"}"#),
            (
                r#""addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]}"#,
                r#""addresses": ["192.168.100.1/24", "2001:db8:100::1/64"], "ingressAcls": [5], "egressAcls": [6]}"#,
            ),
            (
                r#"{"id": 516, "#,
                r#"{"id": 490, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.7"}},
                {"id": 519, "policy": true, "vrfTranslate": {"vrf": 19}}, {"id": 516, "#,
            ),
            (
                r#""labels""#,
                r#""acls": [{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 7, "last": 7}}]}, {"id": 6}],
                "labels""#,
            ),
        ],
    )
}

/// Prefixes around the addresses of [`flows`], at all lengths.
const PREFIXES: [&str; 17] = [
    "0.0.0.0/0",
    "192.0.0.0/8",
    "192.168.0.0/16",
    "192.168.1.0/24",
    "192.168.1.64/26",
    "192.168.1.100/32",
    "192.168.1.101/32",
    "192.168.2.0/24",
    "192.168.2.7/32",
    "192.168.100.0/24",
    "192.168.100.100/32",
    "10.101.9.0/24",
    "10.101.9.245/32",
    "10.101.9.7/32",
    "2001:db8::/32",
    "2001:db8:1::/64",
    "2001:db8:1::100/128",
];

/// One change.
#[derive(Debug, Clone)]
enum Step {
    Delta(String),
    Up(u32, bool),
    PathMtu(&'static str, Option<u16>),
    Neighbour(&'static str, Option<u8>),
    Gateway(bool),
    /// Packets of all flows.
    Traffic,
    Tick,
}

fn one_of(list: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list)
}

fn step() -> impl Strategy<Value = Step> {
    let leads = [
        r#""nexthop": 489, "label": 280"#,
        r#""nexthop": 489, "label": 281"#,
        r#""nexthop": 490, "label": 282"#,
        r#""nexthop": 519"#,
        r#""nexthop": 514"#,
        r#""nexthop": 515"#,
        r#""nexthop": 532"#,
        r#""nexthop": 85"#,
    ];
    let route = (prop::sample::select(vec![8u32, 18, 18, 18, 19, 19]), prop::sample::select(&PREFIXES[..]));
    let put = (route.clone(), prop::sample::select(leads.to_vec())).prop_map(|((vrf, prefix), leads)| {
        format!(r#"{{"routes": [{{"vrf": {vrf}, "prefix": "{prefix}", {leads}}}]}}"#)
    });
    let take =
        route.prop_map(|(vrf, prefix)| format!(r#"{{"removeRoutes": [{{"vrf": {vrf}, "prefix": "{prefix}"}}]}}"#));
    let objects = prop::sample::select(vec![
        r#"{"nexthops": [{"id": 85, "vrf": 8, "encap": {"oif": 4111, "encapData": "0200000000fd 020000004111 0800"}}]}"#,
        r#"{"nexthops": [{"id": 85, "vrf": 8, "encap": {"oif": 4111, "encapData": "0200000000fe 020000004111 0800"}}]}"#,
        r#"{"nexthops": [{"id": 86, "vrf": 8, "invalid": true, "drop": {}}]}"#,
        r#"{"nexthops": [{"id": 86, "vrf": 8, "encap": {"oif": 4109, "encapData": "0200000000fe 020000004109 0800"}}]}"#,
        r#"{"nexthops": [{"id": 86, "vrf": 8, "resolve": {"oif": 4109, "gateway": "172.28.14.1"}}]}"#,
        r#"{"nexthops": [{"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 85, "weight": 100}]}}]}"#,
        r#"{"nexthops": [{"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 85}, {"nexthop": 86}]}}]}"#,
        r#"{"acls": [{"id": 5, "entries": []}]}"#,
        r#"{"acls": [{"id": 5, "entries": [{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 7, "last": 9}}]}]}"#,
        r#"{"acls": [{"id": 5, "entries": [{"id": 2, "action": "DENY", "destination": "192.168.1.101/32"}]}]}"#,
        r#"{"labels": [{"label": 279, "nexthop": 519}]}"#,
        r#"{"labels": [{"label": 279, "nexthop": 513}]}"#,
        r#"{"vifs": [{"id": 4111, "name": "wan0", "type": "PHYSICAL", "mac": "02:00:00:00:41:11", "vrf": 8, "mtu": 1400}]}"#,
        r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/24", "nexthop": 489, "label": 300}], "removeRoutes": [{"vrf": 18, "prefix": "192.168.100.100/32"}]}"#,
    ]);
    let lists = list_change();
    prop_oneof![
        4 => lists.prop_map(Step::Delta),
        8 => put.prop_map(Step::Delta),
        4 => take.prop_map(Step::Delta),
        4 => objects.prop_map(|json| Step::Delta(json.to_owned())),
        2 => (prop::sample::select(UNDERLAYS.to_vec()), any::<bool>()).prop_map(|(vif, up)| Step::Up(vif, up)),
        1 => (one_of(&["10.101.9.245", "10.101.9.7"]), prop::option::of(1300u16..1400)).prop_map(|(to, mtu)| Step::PathMtu(to, mtu)),
        2 => (one_of(&["192.168.100.7", "192.168.100.100"]), prop::option::of(1u8..4)).prop_map(|(who, mac)| Step::Neighbour(who, mac)),
        1 => any::<bool>().prop_map(Step::Gateway),
        6 => Just(Step::Traffic),
        3 => Just(Step::Tick),
    ]
}

/// Entries that meet the packets of [`flows`] or their answers, or none, as they are given: without a number.
fn entry() -> impl Strategy<Value = String> {
    let prefix = |of: &'static [&'static str]| prop::option::weighted(0.5, one_of(of));
    let source =
        prefix(&["192.168.100.100/32", "192.168.1.0/24", "192.168.100.0/24", "203.0.113.9/32", "192.168.200.0/24"]);
    let destination =
        prefix(&["192.168.1.101/32", "192.168.1.64/26", "192.168.100.7/32", "192.168.2.0/24", "192.168.200.0/24"]);
    let ports = one_of(&[
        "",
        "",
        r#", "destinationPorts": {"first": 7, "last": 8}"#,
        r#", "sourcePorts": {"first": 2, "last": 9}"#,
        r#", "destinationPorts": {"first": 100, "last": 102}"#,
    ]);
    let scope = one_of(&["", "", r#", "scope": "ACL_SCOPE_STATELESS""#]);
    let echo = one_of(&[
        r#""proto": 1, "destinationPorts": {"first": 8, "last": 8}"#,
        r#""proto": 1, "destinationPorts": {"first": 0, "last": 0}"#,
        r#""proto": 58"#,
        r#""source": "2001:db8:1::/64""#,
        r#""destination": "2001:db8:1::100/128""#,
    ]);
    let udp = (source, destination, ports, scope).prop_map(|(source, destination, ports, scope)| {
        let prefix =
            |name: &str, prefix: Option<&str>| prefix.map_or(String::new(), |p| format!(r#", "{name}": "{p}""#));
        format!(r#""proto": 17{}{}{ports}{scope}"#, prefix("source", source), prefix("destination", destination))
    });
    (one_of(&["PERMIT", "DENY"]), prop_oneof![4 => udp, 1 => echo.prop_map(str::to_owned)])
        .prop_map(|(action, what)| format!(r#""action": "{action}", {what}"#))
}

/// One of the lists anew.
pub(super) fn list_change() -> impl Strategy<Value = String> {
    let default = one_of(&["", "", "", r#", "defaultAction": "PERMIT""#, r#", "defaultAction": "DENY""#]);
    let entries = prop::collection::vec((1u32..4, entry()), 0..4);
    (5u32..7, entries, default).prop_map(|(id, entries, default)| {
        let numbered: BTreeMap<u32, String> = entries.into_iter().collect();
        // The order is that of the list, not of the numbers.
        let mut entries: Vec<_> = numbered.iter().map(|(id, what)| format!(r#"{{"id": {id}, {what}}}"#)).collect();
        if id == 5 {
            entries.reverse();
        }
        format!(r#"{{"acls": [{{"id": {id}, "entries": [{}]{default}}}]}}"#, entries.join(", "))
    })
}

/// Frames of flows from the LAN, and out of the tunnel; each with its port.
pub(super) fn flows() -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    for sport in 1..4 {
        for dport in [7, 9] {
            for server in
                ["192.168.1.100", "192.168.1.101", "192.168.1.70", "192.168.2.7", "192.168.3.1", "203.0.113.9"]
            {
                let there = udp("192.168.100.100", server, sport, dport, b"there");
                frames.push((LAN1, eth(VRRP, CLIENT_MAC, &there.ip())));
                let back = udp(server, "192.168.100.100", dport, sport, b"back");
                frames.extend(UNDERLAYS.map(|port| (port, out_of_tunnel_on(port, &back))));
                let other = udp(server, "192.168.100.7", dport, 100 + sport, b"unasked");
                frames.push((UNDERLAYS[0], out_of_tunnel_on(UNDERLAYS[0], &other)));
            }
            let six = udp("2001:db8:100::100", "2001:db8:1::100", sport, dport, b"six");
            frames.push((LAN1, eth(VRRP, CLIENT_MAC, &six.ip())));
        }
        let ping = echo_request("192.168.100.100", "192.168.1.101", sport, 1);
        frames.push((LAN1, eth(VRRP, CLIENT_MAC, &ping.ip())));
        let back = echo_request("192.168.1.100", "192.168.100.7", sport, 1);
        frames.push((UNDERLAYS[0], out_of_tunnel_on(UNDERLAYS[0], &back)));
    }
    frames
}

pub(super) struct Bed {
    pub(super) worker: Worker,
    snapshot: Arc<Snapshot>,
    out: Outbox,
    pub(super) now: u64,
    /// What a NIC has that takes everything at once.
    pub(super) in_hardware: BTreeMap<OffloadId, [Option<Direction>; 2]>,
}

impl Bed {
    pub(super) fn new(json: &str) -> Self {
        Self::with_engine(json, false)
    }

    pub(super) fn with_engine(json: &str, offload: bool) -> Self {
        let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [1, 2], offload };
        let snapshot = snapshot(json);
        let worker = Worker::new(config, Arc::clone(&snapshot)).unwrap();
        Self { worker, snapshot, out: Outbox::default(), now: 1000, in_hardware: BTreeMap::new() }
    }

    /// What an engine answers whose NIC does everything at once.
    fn engine(&mut self) {
        while !self.out.offload.is_empty() {
            let mut reports = Vec::new();
            for request in std::mem::take(&mut self.out.offload) {
                match request {
                    Request::Install { id, directions, .. } => {
                        self.in_hardware.insert(id, directions.as_ref().clone());
                        reports.push(Report::State { id, tier: Tier::Hardware, reason: None });
                    }
                    Request::Remove { id } => {
                        self.in_hardware.remove(&id);
                        reports.push(Report::Gone { id });
                    }
                    _ => {}
                }
            }
            self.worker.offload_reports(&reports, self.now, &mut self.out);
        }
        self.out = Outbox::default();
    }

    pub(super) fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.now += 10;
            self.worker.tick(self.now, &mut self.out);
            self.engine();
        }
    }

    pub(super) fn traffic(&mut self, frames: &[(u32, Vec<u8>)]) {
        for (port, frame) in frames {
            self.now += 1;
            self.worker.receive(vif(*port), &mut vec![Packet::from_frame(frame)], self.now, &mut self.out);
            self.engine();
        }
    }

    /// The snapshot after a delta; a delta that is refused changes nothing.
    pub(super) fn delta(&mut self, json: &str) -> bool {
        let mut message: proto::v1::ForwardingDelta = proto::json::parse(json, "test delta").unwrap();
        message.base_generation = self.snapshot.generation();
        message.generation = message.base_generation + 1;
        let delta = decode::delta(&message).unwrap_or_else(|errors| panic!("{errors}"));
        let next = self.snapshot.with_delta(delta).map(Arc::new);
        next.is_ok_and(|next| {
            self.snapshot = next;
            true
        })
    }

    pub(super) fn adopt(&mut self) {
        self.worker.adopt(Arc::clone(&self.snapshot), self.now, &mut self.out);
        self.engine();
    }

    fn change(&mut self, step: &Step) {
        let next = match step {
            Step::Delta(json) => {
                self.delta(json);
                return;
            }
            Step::Up(id, up) => self.snapshot.with_vif_up(vif(*id), *up),
            Step::PathMtu(to, mtu) => self.snapshot.with_path_mtu(to.parse().unwrap(), *mtu),
            Step::Neighbour(who, mac) => {
                let mac = mac.map(|last| MacAddr([2, 0, 0, 0, 0, last]));
                self.snapshot.with_neighbours(&[((vif(LAN1), who.parse().unwrap()), mac)])
            }
            Step::Gateway(dead) => {
                let gateway: IpAddr = "172.28.14.1".parse().unwrap();
                let state = if *dead { GatewayState::Dead } else { GatewayState::Alive };
                match self.snapshot.with_gateways(&[((vif(UNDERLAYS[1]), gateway), state)]) {
                    Some(next) => next,
                    None => return,
                }
            }
            Step::Traffic => return self.traffic(&flows()),
            Step::Tick => return self.ticks(1),
        };
        self.snapshot = Arc::new(next);
    }

    pub(super) fn records(&self) -> Vec<(u32, Record)> {
        let flows = self.worker.flows();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(slot) = flows.next_occupied(at) {
            found.push((slot, *flows.record(slot).unwrap()));
            at = slot + 1;
        }
        found
    }

    /// What a fresh walk says of a record's packets, with the choices that the flow has.
    fn walk(&self, record: &Record) -> Option<Verdict> {
        let ingress = ingress_of(record)?;
        let other = self.worker.flows().record(record.reverse);
        let initiator = record.flags & INITIATOR != 0;
        let role = other.filter(|_| !initiator).map_or(Role::Initiator, |other| Role::Responder(other.key));
        let seen = other.filter(|other| other.packets > 0 || other.flags & INITIATOR != 0);
        let inquiry = Inquiry {
            key: &record.key,
            service_port: match (record.key.proto, initiator) {
                // An echo: its key holds no type.
                (1, true) => 8,
                _ => record.key.dport,
            },
            ingress,
            start: Start::Route,
            role,
            prior: Choices { ecmp: record.ecmp.map(|slot| (slot != 0xff).then_some(slot)) },
            other_ingress: seen.and_then(ingress_of),
            hash: record.key.spread(),
        };
        Some(classify(&self.snapshot, &inquiry))
    }

    /// Every flow forwards as a fresh walk says.
    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        for (slot, record) in self.records() {
            let Some(entry) = self.worker.programs().get(record.program) else { continue };
            let ran = &entry.program;
            match self.walk(&record) {
                Some(Verdict::Forward(fresh)) => {
                    prop_assert_eq!(&ran.ops, &fresh.program.ops, "{} {:?}", slot, record.key);
                    prop_assert_eq!(&ran.passes, &fresh.program.passes, "{} {:?}", slot, record.key);
                    prop_assert_eq!(ran.decided.acl, fresh.program.decided.acl, "{} {:?}", slot, record.key);
                }
                Some(Verdict::Drop { acl, .. }) => {
                    prop_assert!(ran.drops().is_some(), "{} {:?} is forwarded", slot, record.key);
                    let entry = acl.map(|found| found.entry());
                    prop_assert!(entry.is_none() || ran.decided.acl == entry, "{} {:?}", slot, record.key);
                }
                // A denial comes before a neighbour that is not there.
                other => prop_assert!(record.flags & DENIED != 0, "{} {:?} runs, but {:?}", slot, record.key, other),
            }
        }
        Ok(())
    }
}

fn ingress_of(record: &Record) -> Option<Ingress> {
    if record.key.vif != VifId::TUNNEL {
        return Some(Ingress { vif: record.key.vif, tunnel: None });
    }
    let vif = VifId::new(u32::from(record.underlay_vif)).ok()?;
    Some(Ingress { vif, tunnel: Some(record.rpf_source.into()) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn after_any_history_every_flow_forwards_as_a_fresh_walk_says(
        history in prop::collection::vec((step(), any::<bool>()), 1..40)
    ) {
        let mut bed = Bed::new(&world());
        bed.traffic(&flows());
        for (step, adopted) in &history {
            bed.change(step);
            // Several changes may come at once.
            if *adopted {
                bed.adopt();
            }
        }
        bed.adopt();
        // What packets have met: the flows that they have brought in line are, and the others are by the sweep.
        bed.traffic(&flows());
        bed.worker.sweep_all(bed.now);
        bed.check()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_in_hardware_is_what_a_fresh_walk_says(
        history in prop::collection::vec((step(), any::<bool>()), 1..40)
    ) {
        let mut bed = Bed::with_engine(&world(), true);
        // All answers by one way, and longer between packets than a flow rests that has moved.
        let frames: Vec<_> = flows().into_iter().filter(|(port, _)| *port != UNDERLAYS[1]).collect();
        for _ in 0..4 {
            bed.traffic(&frames);
            bed.ticks(150);
        }
        prop_assert!(bed.in_hardware.len() >= 9, "{} flows in hardware", bed.in_hardware.len());
        for (step, adopted) in &history {
            bed.change(step);
            if *adopted {
                bed.adopt();
            }
        }
        bed.adopt();
        // At once, and without a packet: software sees none of what hardware has.
        for direction in bed.in_hardware.values().flatten().flatten() {
            let flows = bed.worker.flows();
            let record = flows.find(flows.hash(&direction.key), &direction.key).and_then(|slot| flows.record(slot));
            let Some(record) = record else { return Err(TestCaseError::fail(format!("{:?} has no flow", direction.key))) };
            match bed.walk(record) {
                Some(Verdict::Forward(fresh)) => {
                    prop_assert_eq!(&direction.program.ops, &fresh.program.ops, "{:?}", direction.key);
                    prop_assert_eq!(&direction.program.passes, &fresh.program.passes, "{:?}", direction.key);
                }
                other => prop_assert!(direction.program.drops().is_some(), "{:?}, but {:?}", direction.key, other),
            }
        }
    }
}

/// Flows from one client to `hosts` hosts in each of the /24s.
fn spread(bed: &mut Bed, nets: u8, hosts: u8) {
    let mut frames = Vec::new();
    for net in 0..nets {
        for host in 1..=hosts {
            let server = format!("192.168.{}.{host}", 10 + net);
            frames.push((LAN1, eth(VRRP, CLIENT_MAC, &udp("192.168.100.100", &server, 1000, 53, b"x").ip())));
        }
    }
    bed.traffic(&frames);
}

/// A bed with 40 flows in 10 /24s, whose route covers all.
fn spread_bed() -> Bed {
    let mut bed = Bed::new(&world());
    assert!(bed.delta(r#"{"routes": [{"vrf": 18, "prefix": "192.168.0.0/16", "nexthop": 489, "label": 280}]}"#));
    bed.adopt();
    spread(&mut bed, 10, 4);
    assert_eq!(bed.worker.flows().len(), 80);
    bed
}

/// How many directions are derived anew because of a delta.
#[track_caller]
pub(super) fn derived(bed: &mut Bed, json: &str) -> u64 {
    let before = bed.worker.derivations();
    assert!(bed.delta(json), "{json}");
    bed.adopt();
    bed.worker.sweep_all(bed.now);
    bed.worker.derivations() - before
}

#[test]
fn changes_that_cover_no_flow_derive_none() {
    let mut bed = spread_bed();
    for delta in [
        r#"{"routes": [{"vrf": 18, "prefix": "192.168.200.0/24", "nexthop": 489, "label": 999}]}"#,
        r#"{"routes": [{"vrf": 18, "prefix": "192.168.10.128/25", "nexthop": 489, "label": 999}]}"#,
        r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.200.0/24"}]}"#,
        r#"{"routes": [{"vrf": 18, "prefix": "0.0.0.0/0", "nexthop": 489, "label": 999}]}"#,
        r#"{"routes": [{"vrf": 19, "prefix": "192.168.10.1/32", "nexthop": 489, "label": 999}]}"#,
        r#"{"nexthops": [{"id": 490, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.8"}}]}"#,
        r#"{"vrfs": [{"id": 77}], "labels": [{"label": 777, "nexthop": 513}]}"#,
    ] {
        assert_eq!(derived(&mut bed, delta), 0, "{delta}");
    }
}

#[test]
fn a_change_derives_the_flows_that_it_covers_in_both_directions() {
    let mut bed = spread_bed();
    for (delta, flows) in [
        (r#"{"routes": [{"vrf": 18, "prefix": "192.168.10.1/32", "nexthop": 489, "label": 300}]}"#, 1),
        (r#"{"routes": [{"vrf": 18, "prefix": "192.168.10.0/24", "nexthop": 489, "label": 301}]}"#, 3),
        (r#"{"removeRoutes": [{"vrf": 18, "prefix": "192.168.10.1/32"}]}"#, 1),
        (r#"{"routes": [{"vrf": 18, "prefix": "192.168.10.2/31", "nexthop": 489, "label": 302}]}"#, 2),
        // The covering one: but for the four that have a longer match.
        (r#"{"routes": [{"vrf": 18, "prefix": "192.168.0.0/16", "nexthop": 489, "label": 303}]}"#, 36),
    ] {
        assert_eq!(derived(&mut bed, delta), 2 * flows, "{delta}");
        bed.check().unwrap();
    }
}

#[test]
fn a_group_that_was_split_gives_up_the_flows_of_the_prefix_alone() {
    let mut bed = Bed::new(&world());
    let mut frames = Vec::new();
    for sport in 0..300u16 {
        let server = if sport == 7 { "192.168.1.7" } else { "192.168.1.100" };
        frames.push((LAN1, eth(VRRP, CLIENT_MAC, &udp("192.168.100.100", server, 1000 + sport, 53, b"x").ip())));
    }
    bed.traffic(&frames);
    let near = r#"{"routes": [{"vrf": 18, "prefix": "192.168.1.0/28", "nexthop": 489, "label": 300}]}"#;
    assert_eq!(derived(&mut bed, near), 2);
    bed.check().unwrap();
}

#[test]
fn more_routes_than_are_followed_at_once_are_seen_by_every_packet() {
    let mut bed = spread_bed();
    let routes: Vec<String> = (0..5000)
        .map(|i| format!(r#"{{"vrf": 18, "prefix": "10.{}.{}.0/24", "nexthop": 489, "label": 999}}"#, i >> 8, i & 0xff))
        .chain([r#"{"vrf": 18, "prefix": "192.168.19.0/24", "nexthop": 489, "label": 300}"#.to_owned()])
        .collect();
    let before = bed.worker.derivations();
    assert!(bed.delta(&format!(r#"{{"routes": [{}]}}"#, routes.join(","))));
    bed.adopt();
    // Before any tick: the last route is in force for the packets of its flows.
    spread(&mut bed, 10, 4);
    bed.check_forwarded(4);
    assert_eq!(bed.worker.derivations() - before, 4);
    bed.worker.sweep_all(bed.now);
    assert_eq!(bed.worker.derivations() - before, 8, "and of the other directions by the sweep");
    bed.check().unwrap();
}

#[test]
fn a_lost_member_derives_only_its_own_flows() {
    let mut bed = Bed::new(&world());
    let mut frames = Vec::new();
    for sport in 1000..1100 {
        frames.push((LAN1, eth(VRRP, CLIENT_MAC, &udp("192.168.100.100", "192.168.1.100", sport, 53, b"x").ip())));
    }
    bed.traffic(&frames);
    let there = |bed: &Bed| {
        let initiators = bed.records().into_iter().filter(|(_, record)| record.flags & INITIATOR != 0);
        initiators.filter(|(_, record)| record.ecmp[0] == 1).count() as u64
    };
    let (own, before) = (there(&bed), bed.worker.derivations());
    assert!(own > 20 && own < 80, "{own}");
    bed.snapshot = Arc::new(bed.snapshot.with_vif_up(vif(UNDERLAYS[1]), false));
    bed.adopt();
    bed.worker.sweep_all(bed.now);
    assert_eq!(bed.worker.derivations() - before, own, "the directions that leave by it");
    bed.check().unwrap();
}

impl Bed {
    /// So many first directions push label 300.
    #[track_caller]
    fn check_forwarded(&self, flows: usize) {
        let pushes = |record: &Record| {
            let entry = self.worker.programs().get(record.program);
            entry.and_then(|entry| entry.program.label).is_some_and(|label| label.get() == 300)
        };
        let first = self.records().into_iter().filter(|(_, record)| record.flags & INITIATOR != 0);
        assert_eq!(first.filter(|(_, record)| pushes(record)).count(), flows);
    }
}
