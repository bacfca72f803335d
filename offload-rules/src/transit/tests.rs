//! A rule for transit holds for no packet that the walk would treat otherwise, and what follows a change is what a new plan would be.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::{
    MacAddr,
    classify::{self, Inquiry, Role, Start, Verdict},
    flow::{Choices, FlowKey, Forward},
    forwarding::{Delta, NexthopKind, Route, Snapshot, State, Vif, VifFlags, testing::*},
};

const LIMITS: Limits = Limits { rules: 4096, entropy: None };
const TENANT: u32 = 1;
const OTHER: u32 = 2;
const UNDERLAY: u32 = 8;
const OWN: &str = "10.255.0.1";
const FAR: [&str; 2] = ["10.254.0.1", "10.3.7.1"];
/// Where routes may lead.
const NEXTHOPS: [u32; 13] = [0, 11, 12, 13, 14, 21, 22, 23, 31, 32, 33, 34, 35];

fn open(id: u32, kind: crate::forwarding::VifKind, vrf: u32, addresses: &[&str]) -> Vif {
    let mac = Some(MacAddr([2, 0, 0, 0, 0, id as u8]));
    Vif { mac, flags: VifFlags::default(), ..vif(id, kind, vrf, addresses) }
}

/// Three vifs and two tunnels of a tenant, without policy; the default route leads to another VRF.
fn world(routes: &[(Ipv4Net, u32)], flags: VifFlags) -> State {
    let mut state = State {
        generation: 1,
        node: "re".to_owned(),
        vrfs: vec![vrf(TENANT), vrf(OTHER), vrf(UNDERLAY)],
        vifs: vec![
            Vif { flags, ..open(1, physical("eth0"), TENANT, &["10.0.1.1/24"]) },
            open(2, physical("eth1"), TENANT, &["10.1.1.1/24"]),
            open(3, vlan(2, 300), TENANT, &[]),
            open(4, physical("eth2"), UNDERLAY, &["10.255.0.9/24"]),
            vif(5, physical("eth3"), OTHER, &[]),
        ],
        nexthops: vec![
            nexthop(11, encap(1, "0200000000110200000000010800")),
            nexthop(12, encap(2, "0200000000120200000000020800")),
            nexthop(13, encap(3, "0200000000130200000000020800")),
            nexthop(14, encap(5, "0200000000140200000000050800")),
            nexthop(21, tunnel("10.255.0.1", FAR[0], Some(41))),
            nexthop(22, tunnel("10.255.0.1", FAR[1], Some(41))),
            nexthop(23, composite(&[21, 22])),
            nexthop(31, NexthopKind::Drop),
            nexthop(32, NexthopKind::Resolve { oif: vif_id(1), gateway: None }),
            nexthop(33, NexthopKind::Resolve { oif: vif_id(2), gateway: Some("10.1.1.9".parse().unwrap()) }),
            nexthop(34, NexthopKind::VrfTranslate { vrf: vrf_id(OTHER) }),
            nexthop(35, receive(false, Vec::new(), &[])),
            nexthop(41, encap(4, "0200000000410200000000040800")),
            nexthop(51, receive(true, Vec::new(), &[])),
            nexthop(61, NexthopKind::VrfTranslate { vrf: vrf_id(TENANT) }),
        ],
        routes: vec![route(UNDERLAY, "10.255.0.1/32", 51, None), route(OTHER, "10.2.0.0/16", 14, None)],
        labels: vec![mpls(100, 61)],
        ..State::default()
    };
    for (prefix, nexthop) in routes {
        let label = matches!(nexthop, 21..=23).then_some(200);
        state.routes.retain(|route| (route.vrf, route.prefix) != (vrf_id(TENANT), IpNet::V4(*prefix)));
        state.routes.push(route(TENANT, &prefix.to_string(), *nexthop, label));
    }
    state
}

fn snapshot(state: State) -> Snapshot {
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    snapshot.with_neighbour(vif_id(2), "10.1.1.9".parse().unwrap(), MacAddr([2, 9, 9, 9, 9, 9]))
}

fn planned(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    plan.derive(snapshot, &LIMITS);
    plan
}

/// A packet that comes in.
#[derive(Debug, Clone, Copy)]
struct Met {
    ingress: IngressKey,
    outer: Option<Ipv4Addr>,
    source: IpAddr,
    destination: IpAddr,
    l4: L4,
}

impl Met {
    /// The rule that forwards it without software.
    fn departure(self, plan: &Plan) -> Option<&Departure> {
        let admits = |(key, _): &(&RuleKey, &TransitRule)| match key {
            RuleKey::Source { ingress, net, outer } => {
                (*ingress, *outer) == (self.ingress, self.outer) && net.contains(&self.source)
            }
            RuleKey::Destination { .. } => false,
        };
        plan.rules().find(admits)?;
        let mut departures = plan.rules().filter_map(|(key, rule)| match (key, rule) {
            (RuleKey::Destination { ingress, net, l4, ttl: 0 | 64 }, TransitRule::Destination(departure))
                if *ingress == self.ingress && *l4 == self.l4 && net.contains(&self.destination) =>
            {
                Some(departure)
            }
            _ => None,
        });
        let found = departures.next();
        assert!(departures.next().is_none(), "one packet has one rule");
        found
    }

    fn walked(self, snapshot: &Snapshot, vrf: u32) -> Verdict {
        let vif = if self.outer.is_some() { crate::VifId::TUNNEL } else { self.ingress.vif };
        let key = FlowKey::new(vrf_id(vrf), vif, self.source, self.destination, self.l4.proto(), 5000, 6000);
        let ingress = classify::Ingress { vif: self.ingress.vif, tunnel: self.outer };
        classify::classify(
            snapshot,
            &Inquiry {
                key: &key,
                service_port: 6000,
                ingress,
                start: Start::Route,
                role: Role::Initiator,
                prior: Choices::default(),
                other_ingress: None,
                hash: key.spread(),
            },
        )
    }
}

/// Without what a SYN alone meets.
fn without_mss(forward: &Forward) -> Forward {
    Forward { mss: None, ..forward.clone() }
}

fn ingresses() -> Vec<(IngressKey, Option<Ipv4Addr>)> {
    let vifs = [1, 2, 3].map(|id| (IngressKey { vif: vif_id(id), tunnel: None }, None));
    let own = Some((OWN.parse().unwrap(), 6635, label(100)));
    let tunnels = FAR.map(|far| (IngressKey { vif: vif_id(4), tunnel: own }, Some(far.parse().unwrap())));
    vifs.into_iter().chain(tunnels).collect()
}

fn prefix() -> impl Strategy<Value = (Ipv4Net, u32)> {
    let length = prop_oneof![Just(0_u8), Just(8), 10..=16_u8, Just(24), Just(32)];
    (0..4_u8, 0..4_u8, 0..4_u8, length, proptest::sample::select(&NEXTHOPS[..])).prop_map(
        |(b, c, d, length, nexthop)| (Ipv4Net::new(Ipv4Addr::new(10, b, c, d), length).unwrap().trunc(), nexthop),
    )
}

fn address() -> impl Strategy<Value = IpAddr> {
    let special =
        proptest::sample::select(vec!["127.0.0.1", "169.254.1.1", "224.0.0.5", "10.0.1.1", "10.0.1.255", FAR[1]]);
    prop_oneof![
        8 => (0..4_u8, 0..4_u8, 0..4_u8).prop_map(|(b, c, d)| IpAddr::V4(Ipv4Addr::new(10, b, c, d))),
        1 => special.prop_map(|text| text.parse().unwrap()),
    ]
}

fn flags() -> impl Strategy<Value = VifFlags> {
    (any::<bool>(), any::<bool>()).prop_map(|(no_rpf, ttl_unmodified)| VifFlags {
        no_rpf,
        ttl_unmodified,
        ..VifFlags::default()
    })
}

/// Every packet that has a rule is forwarded by the walk as the rule says. Returns how many have one.
fn judge(plan: &Plan, snapshot: &Snapshot, packets: &[(IpAddr, IpAddr)]) -> usize {
    let mut forwarded = 0;
    for (ingress, outer) in ingresses() {
        for (source, destination) in packets.iter().copied() {
            for l4 in [L4::Tcp, L4::Udp] {
                let met = Met { ingress, outer, source, destination, l4 };
                let Some(departure) = met.departure(plan) else { continue };
                let Verdict::Forward(decision) = met.walked(snapshot, TENANT) else {
                    panic!("{met:?} is not forwarded by software: {:?}", met.walked(snapshot, TENANT));
                };
                let [rule, walk] =
                    [&departure.direction.program, &decision.program].map(|program| program.forward().map(without_mss));
                assert_eq!(rule, walk, "{met:?}");
                assert_eq!(departure.direction.program.passes, decision.program.passes, "{met:?}");
                forwarded += 1;
            }
        }
    }
    forwarded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_rule_holds_for_a_packet_that_is_decided_on_otherwise(
        routes in proptest::collection::vec(prefix(), 1..24),
        flags in flags(),
        packets in proptest::collection::vec((address(), address()), 40),
    ) {
        let snapshot = snapshot(world(&routes, flags));
        judge(&planned(&snapshot), &snapshot, &packets);
    }

    #[test]
    fn a_plan_that_follows_changes_is_the_one_that_is_derived_anew(
        routes in proptest::collection::vec(prefix(), 1..16),
        changes in proptest::collection::vec((prefix(), 0..6_u8), 1..12),
        packets in proptest::collection::vec((address(), address()), 10),
    ) {
        let mut before = snapshot(world(&routes, VifFlags::default()));
        let mut plan = planned(&before);
        let (mut tight, scarce) = (Plan::default(), Limits { rules: 30, ..LIMITS });
        tight.derive(&before, &scarce);
        for ((prefix, nexthop), what) in changes {
            let after = match what {
                0 => {
                    let delta = Delta { remove_routes: vec![(vrf_id(TENANT), prefix.into())], ..next(&before) };
                    let Ok(after) = before.with_delta(delta) else { continue };
                    after
                }
                1 => before.with_vif_up(vif_id(2), !before.is_up(vif_id(2))),
                2 => {
                    let kind = encap(1, if nexthop % 2 == 0 { "0200000000770200000000010800" } else { "0200000000110200000000010800" });
                    before.with_delta(Delta { nexthops: vec![nexthop_of(11, kind)], ..next(&before) }).unwrap()
                }
                _ => {
                    let label = matches!(nexthop, 21..=23).then_some(200);
                    let new: Route = route(TENANT, &prefix.to_string(), nexthop, label);
                    before.with_delta(Delta { routes: vec![new], ..next(&before) }).unwrap()
                }
            };
            let known: std::collections::BTreeMap<RuleKey, TransitRule> = plan.rules().map(|(key, rule)| (*key, rule.clone())).collect();
            let versions = after.changes_since(&before);
            let changed = plan.follow(&after, versions.iter().map(|changes| -> &crate::forwarding::Changes { changes }), &LIMITS);
            let fresh = planned(&after);
            // Which packet of a way the walk was asked about makes no difference to it.
            prop_assert!(ways(&plan) == ways(&fresh));
            prop_assert_eq!(plan.summary(), fresh.summary());
            tight.follow(&after, versions.iter().map(|changes| -> &crate::forwarding::Changes { changes }), &scarce);
            prop_assert!(tight.rules().count() <= scarce.rules);
            judge(&tight, &after, &packets);
            for (key, rule) in plan.rules().filter(|(key, rule)| known.get(key) != Some(rule)) {
                prop_assert!(changed.contains(key), "{:?} {:?}", key, rule);
            }
            prop_assert!(known.keys().all(|key| plan.rule(key).is_some() || changed.contains(key)));
            before = after;
        }
    }
}

fn next(before: &Snapshot) -> Delta {
    Delta { base_generation: before.generation(), generation: before.generation() + 1, ..Delta::default() }
}

fn nexthop_of(id: u32, kind: NexthopKind) -> crate::forwarding::Nexthop {
    nexthop(id, kind)
}

/// What a program does, and what its packets count as.
type Told = (Option<Forward>, Vec<(crate::VrfId, crate::flow::VrfCounter)>);

/// What the rules of a plan do.
fn ways(plan: &Plan) -> Vec<(RuleKey, Option<Told>)> {
    let told = |(key, rule): (&RuleKey, &TransitRule)| match rule {
        TransitRule::Source(_) => (*key, None),
        TransitRule::Destination(departure) => {
            let program = &departure.direction.program;
            (*key, Some((program.forward().cloned(), program.passes.clone())))
        }
    };
    plan.rules().map(told).collect()
}

fn nets(plan: &Plan, vif: u32) -> Vec<String> {
    let of_vif = |key: &RuleKey| key.ingress() == IngressKey { vif: vif_id(vif), tunnel: None };
    let mut nets: Vec<String> = plan
        .rules()
        .filter(|(key, _)| matches!(key, RuleKey::Destination { .. }) && of_vif(key))
        .map(|(key, _)| key.net().to_string())
        .collect();
    nets.dedup();
    nets
}

fn routes(all: &[(&str, u32)]) -> Vec<(Ipv4Net, u32)> {
    all.iter().map(|(prefix, nexthop)| (prefix.parse().unwrap(), *nexthop)).collect()
}

#[test]
fn sites_behind_vifs_and_tunnels_have_rules_and_the_others_a_reason() {
    let state = world(
        &routes(&[
            ("10.0.2.0/24", 11),
            ("10.1.0.0/16", 12),
            ("10.1.2.0/24", 13),
            ("10.2.0.0/24", 21),
            ("10.2.1.0/24", 23),
            ("10.2.2.0/24", 32),
            ("10.2.3.0/24", 34),
            ("10.3.0.0/24", 31),
            ("10.3.1.0/24", 33),
        ]),
        VifFlags::default(),
    );
    let snapshot = snapshot(state);
    let plan = planned(&snapshot);
    assert_eq!(nets(&plan, 1), ["10.0.2.0/24", "10.1.2.0/24", "10.2.0.0/24", "10.3.1.0/24"]);
    let why = |prefix: &str| {
        let of = plan.explain(vrf_id(TENANT), prefix.parse().unwrap());
        let first = of.filter(|(key, _)| key.vif == vif_id(1)).map(|(_, why)| why).next();
        first.unwrap()
    };
    assert_eq!(why("10.0.2.0/24"), Ok(()));
    assert_eq!(why("10.1.0.0/16"), Err(Reason::Covers));
    assert_eq!(why("10.2.1.0/24"), Err(Reason::Spread));
    assert_eq!(why("10.2.2.0/24"), Err(Reason::Connected));
    assert_eq!(why("10.2.3.0/24"), Err(Reason::OtherVrf));
    assert_eq!(why("10.3.0.0/24"), Err(Reason::Dropped(DropReason::Discard)));
    let packets =
        [("10.0.2.7", "10.2.0.9"), ("10.2.0.7", "10.0.2.1"), ("10.1.2.7", "10.3.1.1"), ("10.0.2.7", "10.1.0.1")];
    let packets = packets.map(|(source, destination)| (source.parse().unwrap(), destination.parse().unwrap()));
    assert_eq!(judge(&plan, &snapshot, &packets), 6, "three packets, TCP and UDP, each by its own ingress");
}

#[test]
fn a_vif_with_policy_is_no_way_in_and_one_without_sources_leads_nowhere() {
    let all = routes(&[("10.0.2.0/24", 11), ("10.2.0.0/24", 21)]);
    let policy = VifFlags { policy: true, ..VifFlags::default() };
    let plan = planned(&snapshot(world(&all, policy)));
    assert!(plan.rules().all(|(key, _)| key.ingress().vif != vif_id(1)));
    assert_eq!(nets(&plan, 2), Vec::<String>::new(), "no route leads back to it");
}

#[test]
fn shorter_prefixes_come_first_where_there_is_no_room_for_all() {
    let all: Vec<(Ipv4Net, u32)> = (0..200_u8)
        .map(|at| (Ipv4Net::new(Ipv4Addr::new(10, 3, at, 0), 24).unwrap(), 11))
        .chain(routes(&[("10.2.0.0/16", 11)]))
        .collect();
    let snapshot = snapshot(world(&all, VifFlags::default()));
    let mut plan = Plan::default();
    // Half of the room is kept for the other VRF.
    let limits = Limits { rules: 80, ..LIMITS };
    plan.derive(&snapshot, &limits);
    assert!((30..=limits.rules).contains(&plan.rules().count()), "{}", plan.rules().count());
    assert!(plan.rules().any(|(key, _)| key.net().prefix_len() == 16));
    assert!(plan.summary().reasons.get(&Reason::Budget).is_some_and(|left| *left > 100), "{:?}", plan.summary());
}

#[test]
fn a_change_that_concerns_no_transit_asks_nothing() {
    let all = routes(&[("10.0.2.0/24", 11), ("10.1.2.0/24", 12)]);
    let before = snapshot(world(&all, VifFlags::default()));
    let mut plan = planned(&before);
    let rules: Vec<RuleKey> = plan.rules().map(|(key, _)| *key).collect();
    let after = before.with_neighbour(vif_id(5), "10.9.9.9".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 77]));
    let after =
        after.with_delta(Delta { routes: vec![route(OTHER, "10.7.0.0/16", 14, None)], ..next(&after) }).unwrap();
    let versions = after.changes_since(&before);
    let changes = || versions.iter().map(|changes| -> &crate::forwarding::Changes { changes });
    assert!(!changes().any(|changes| plan.is_touched_by(changes)));
    assert_eq!(plan.follow(&after, changes(), &LIMITS), []);
    assert_eq!(plan.rules().map(|(key, _)| *key).collect::<Vec<_>>(), rules);
}

#[test]
fn rules_are_the_same_whichever_packet_was_asked_about() {
    let all = routes(&[("10.0.2.0/24", 11), ("10.0.3.0/24", 11), ("10.1.2.0/24", 12), ("10.2.0.0/24", 21)]);
    let before = snapshot(world(&all, VifFlags::default()));
    let mut plan = planned(&before);
    // The first source of the first vif moves: another one is asked with.
    let moved = Delta { routes: vec![route(TENANT, "10.0.2.0/24", 12, None)], ..next(&before) };
    let after = before.with_delta(moved).unwrap();
    let versions = after.changes_since(&before);
    let changes = versions.iter().map(|changes| -> &crate::forwarding::Changes { changes });
    let changed = plan.follow(&after, changes, &LIMITS);
    assert!(changed.iter().all(|key| key.net().to_string() == "10.0.2.0/24"), "{changed:?}");
}
