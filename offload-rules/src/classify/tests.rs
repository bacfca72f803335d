//! What flows are derived anew for: the dependencies of a program must name everything that its walk read.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    VrfId,
    forwarding::{Action, NexthopKind, Scope, State, testing::*},
};

/// A small world in which most packets get somewhere: `base()` with a second tenant, a second underlay vif, lists and a leak.
fn world() -> State {
    let mut state = base();
    state.vrfs.push(vrf(19));
    state.vifs.push(vif(5, vlan(2, 301), 19, &["192.168.101.1/24"]));
    state.vifs.push(vif(6, physical("eth2"), 8, &["10.102.10.39/24"]));
    state.nexthops.push(nexthop(87, encap(6, "0200000000050200000000060800")));
    state.nexthops.push(nexthop(514, NexthopKind::VrfTranslate { vrf: vrf_id(19) }));
    state.nexthops.push(nexthop(578, NexthopKind::Resolve { oif: vif_id(5) }));
    state.nexthops.push(nexthop(101, receive(false, Vec::new(), &[])));
    state.routes.push(route(18, "192.168.101.0/24", 514, None));
    state.routes.push(route(19, "192.168.101.0/24", 578, None));
    state.routes.push(route(19, "192.168.100.0/24", 513, None));
    state.routes.push(route(18, "192.168.100.1/32", 101, None));
    state.acls.push(acl(6, vec![ace(1, Action::Permit)], Some(Action::Deny)));
    state
}

/// One thing that an operator changes.
#[derive(Debug, Clone)]
enum Change {
    Route(u32, &'static str, u32),
    NoRoute(usize),
    Nexthop(u32, u32),
    Invalid(usize),
    Weight(u16),
    Mtu(usize, u16),
    Lists(usize, bool),
    Deny(&'static str),
    Address(usize, &'static str),
    NoRpf(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let vifs = 0usize..6;
    prop_oneof![
        (
            prop::sample::select(vec![8u32, 18, 19]),
            prop::sample::select(vec!["192.168.1.0/25", "192.168.1.100/32", "192.168.100.0/24", "192.168.101.7/32"]),
            prop::sample::select(vec![489u32, 577, 578, 514, 101, 0])
        )
            .prop_map(|(vrf, prefix, nexthop)| Change::Route(vrf, prefix, nexthop)),
        (0usize..10).prop_map(Change::NoRoute),
        (prop::sample::select(vec![85u32, 86]), prop::sample::select(vec![1u32, 6]))
            .prop_map(|(n, v)| Change::Nexthop(n, v)),
        (0usize..12).prop_map(Change::Invalid),
        (1u16..500).prop_map(Change::Weight),
        (vifs.clone(), 1280u16..1500).prop_map(|(vif, mtu)| Change::Mtu(vif, mtu)),
        (vifs.clone(), any::<bool>()).prop_map(|(vif, egress)| Change::Lists(vif, egress)),
        prop::sample::select(vec!["192.168.1.0/24", "192.168.100.9/32", "192.168.101.0/24"]).prop_map(Change::Deny),
        (vifs.clone(), prop::sample::select(vec!["192.168.100.9/24", "192.168.101.7/24"]))
            .prop_map(|(vif, address)| Change::Address(vif, address)),
        vifs.prop_map(Change::NoRpf),
    ]
}

fn apply(state: &mut State, change: &Change) {
    match change {
        Change::Route(vrf, prefix, nexthop) => {
            let new = route(*vrf, prefix, *nexthop, (*nexthop == 489).then_some(281));
            state.routes.retain(|old| (old.vrf, old.prefix) != (new.vrf, new.prefix));
            state.routes.push(new);
        }
        Change::NoRoute(i) => {
            if !state.routes.is_empty() {
                state.routes.remove(i % state.routes.len());
            }
        }
        Change::Nexthop(id, vif) => {
            let kind = encap(*vif, "0200000000990200000000020800");
            state.nexthops.iter_mut().filter(|n| n.id == nh(*id)).for_each(|n| n.kind = kind.clone());
        }
        Change::Invalid(i) => {
            let len = state.nexthops.len();
            state.nexthops[i % len].valid ^= true;
        }
        Change::Weight(weight) => {
            for nexthop in &mut state.nexthops {
                if let NexthopKind::Composite { members } = &mut nexthop.kind {
                    members.iter_mut().flatten().take(1).for_each(|member| member.weight = *weight);
                }
            }
        }
        Change::Mtu(i, mtu) => {
            let len = state.vifs.len();
            state.vifs[i % len].mtu = *mtu;
        }
        Change::Lists(i, egress) => {
            let len = state.vifs.len();
            let vif = &mut state.vifs[i % len];
            let lists = if *egress { &mut vif.egress_acls } else { &mut vif.ingress_acls };
            *lists = if lists.is_empty() { vec![acl_id(6)] } else { Vec::new() };
        }
        Change::Deny(prefix) => {
            let mut entry = ace(9, Action::Deny);
            entry.destination = Some(prefix.parse().unwrap());
            entry.scope = Scope::Stateless;
            let list = state.acls.iter_mut().find(|list| list.id == acl_id(6)).unwrap();
            list.entries.retain(|old| old.id != 9);
            list.entries.insert(0, entry);
        }
        Change::Address(i, address) => {
            let len = state.vifs.len();
            state.vifs[i % len].addresses = vec![address.parse().unwrap()];
        }
        Change::NoRpf(i) => {
            let len = state.vifs.len();
            state.vifs[i % len].flags.no_rpf ^= true;
        }
    }
    state.generation += 1;
}

/// Packets that cross the world in all ways.
fn packets() -> Vec<(FlowKey, Ingress)> {
    let key = |vrf: u32, from: VifId, src: &str, dst: &str| {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        FlowKey::new(VrfId::new(vrf).unwrap(), from, src, dst, 6, 40_000, 80)
    };
    let at = |id: u32| Ingress { vif: vif_id(id), tunnel: None };
    let tunnel = Ingress { vif: vif_id(1), tunnel: Some("10.101.9.245".parse().unwrap()) };
    vec![
        (key(18, vif_id(3), "192.168.100.9", "192.168.1.100"), at(3)),
        (key(18, VifId::TUNNEL, "192.168.1.100", "192.168.100.9"), tunnel),
        (key(18, vif_id(3), "192.168.100.9", "192.168.101.7"), at(3)),
        (key(19, vif_id(5), "192.168.101.7", "192.168.100.9"), at(5)),
        (key(18, vif_id(3), "192.168.100.9", "192.168.100.1"), at(3)),
        (key(18, vif_id(3), "192.168.100.9", "192.168.200.1"), at(3)),
    ]
}

fn ask(snapshot: &Snapshot, key: &FlowKey, ingress: Ingress) -> Verdict {
    let inquiry = Inquiry {
        key,
        service_port: key.dport,
        ingress,
        start: Start::Route,
        role: Role::Initiator,
        prior: Choices::default(),
        other_ingress: None,
        hash: key.spread(),
    };
    classify(snapshot, &inquiry)
}

proptest! {
    /// Flows are only derived anew when a dependency has changed: as long as none has, the walk must end the same way.
    #[test]
    fn a_decision_stays_the_same_as_long_as_nothing_it_depends_on_has_changed(
        changes in prop::collection::vec(change(), 1..6)
    ) {
        let mut state = world();
        let mut snapshot = Snapshot::empty().with_state(state.clone()).unwrap();
        for (vif, address) in [(3, "192.168.100.9"), (5, "192.168.101.7")] {
            let mac = "02:00:00:00:01:01".parse().unwrap();
            snapshot = snapshot.with_neighbour(vif_id(vif), address.parse().unwrap(), mac).unwrap();
        }
        for change in changes {
            let mut wanted = state.clone();
            apply(&mut wanted, &change);
            let Ok(next) = snapshot.with_state(wanted.clone()) else { continue };
            for (key, ingress) in packets() {
                let Verdict::Forward(before) = ask(&snapshot, &key, ingress) else { continue };
                let same = before.program.dependencies.iter().all(|d| next.version_of(d.kind) == d.generation);
                if same {
                    let after = ask(&next, &key, ingress);
                    prop_assert_eq!(Verdict::Forward(before), after, "{:?} changed {:?} unseen", change, key);
                }
            }
            (state, snapshot) = (wanted, next);
        }
    }
}

#[test]
fn the_world_of_the_property_lets_packets_through() {
    let mut snapshot = Snapshot::empty().with_state(world()).unwrap();
    for (vif, address) in [(3, "192.168.100.9"), (5, "192.168.101.7")] {
        let mac = "02:00:00:00:01:01".parse().unwrap();
        snapshot = snapshot.with_neighbour(vif_id(vif), address.parse().unwrap(), mac).unwrap();
    }
    let forwarded =
        packets().iter().filter(|(key, ingress)| matches!(ask(&snapshot, key, *ingress), Verdict::Forward(_))).count();
    assert_eq!(forwarded, 4);
}

#[test]
fn a_chain_of_translations_that_leads_back_is_a_packet_loop() {
    let mut state = world();
    state.routes.push(route(18, "10.9.0.0/16", 514, None));
    state.routes.push(route(19, "10.9.0.0/16", 513, None));
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    let (mut key, ingress) = packets()[0];
    key.dst[..4].copy_from_slice(&[10, 9, 0, 1]);
    assert_eq!(ask(&snapshot, &key, ingress), Verdict::Drop { reason: DropReason::PacketLoop, acl: None });
}

#[test]
fn a_leak_into_another_vrf_takes_one_off_the_ttl_for_each_lookup() {
    let mut snapshot = Snapshot::empty().with_state(world()).unwrap();
    let mac = "02:00:00:00:01:01".parse().unwrap();
    snapshot = snapshot.with_neighbour(vif_id(5), "192.168.101.7".parse().unwrap(), mac).unwrap();
    let (key, ingress) = packets()[2];
    let Verdict::Forward(decision) = ask(&snapshot, &key, ingress) else { panic!("not forwarded") };
    assert!(decision.program.ops.contains(&Op::DecrementTtl(2)), "{:?}", decision.program.ops);
    assert_eq!(decision.reverse_key.vrf, VrfId::new(19).unwrap());
}
