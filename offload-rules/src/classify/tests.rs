//! Dependencies: those of a program must name everything that its walk read.

mod gateway;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    MacAddr, VrfId,
    flow::Op,
    forwarding::{Action, Changes, GatewayState, NexthopKind, SaDirection, Scope, State, testing::*},
};

/// A small world in which most packets get somewhere: `base()` with a second tenant, a second underlay vif behind a gateway, lists,
/// a leak, and a default route to another gateway.
fn world() -> State {
    let mut state = base();
    state.vrfs.push(vrf(19));
    state.vifs.push(vif(5, vlan(2, 301), 19, &["192.168.101.1/24"]));
    state.vifs.push(vif(6, physical("eth2"), 8, &["10.102.10.39/24"]));
    state.nexthops.push(nexthop(87, encap(6, "0200000000050200000000060800")));
    state.nexthops.push(nexthop(88, gateway(6, UNDERLAY_GATEWAY)));
    state.nexthops.iter_mut().filter(|n| n.id == nh(532)).for_each(|n| n.kind = composite(&[85, 86, 88]));
    state.nexthops.push(nexthop(579, gateway(5, GATEWAY)));
    state.routes.push(route(19, "0.0.0.0/0", 579, None));
    state.routes.push(route(18, "203.0.113.0/24", 514, None));
    state.nexthops.push(nexthop(514, NexthopKind::VrfTranslate { vrf: vrf_id(19) }));
    state.nexthops.push(nexthop(578, NexthopKind::Resolve { oif: vif_id(5), gateway: None }));
    state.nexthops.push(nexthop(101, receive(false, Vec::new(), &[])));
    state.routes.push(route(18, "192.168.101.0/24", 514, None));
    state.routes.push(route(19, "192.168.101.0/24", 578, None));
    state.routes.push(route(19, "192.168.100.0/24", 513, None));
    state.routes.push(route(18, "192.168.100.1/32", 101, None));
    state.acls.push(acl(6, vec![ace(1, Action::Permit)], Some(Action::Deny)));
    state
}

const UNDERLAY_GATEWAY: &str = "10.102.10.1";
const GATEWAY: &str = "192.168.101.254";

fn gateway(oif: u32, address: &str) -> NexthopKind {
    NexthopKind::Resolve { oif: vif_id(oif), gateway: Some(address.parse().unwrap()) }
}

/// The neighbours of the world: stations, and both gateways.
const NEIGHBOURS: [(u32, &str); 4] = [(3, "192.168.100.9"), (5, "192.168.101.7"), (5, GATEWAY), (6, UNDERLAY_GATEWAY)];

/// All neighbours are known.
fn resolved(mut snapshot: Snapshot) -> Snapshot {
    for (vif, address) in NEIGHBOURS {
        snapshot = learnt(&snapshot, (vif, address), 1);
    }
    snapshot
}

fn learnt(snapshot: &Snapshot, (vif, address): (u32, &str), mac: u8) -> Snapshot {
    snapshot.with_neighbour(vif_id(vif), address.parse().unwrap(), MacAddr([2, 0, 0, 0, 1, mac]))
}

fn with_gateway(snapshot: &Snapshot, (vif, address): (u32, &str), state: GatewayState) -> Snapshot {
    let news = [((vif_id(vif), address.parse().unwrap()), state)];
    snapshot.with_gateways(&news).unwrap_or_else(|| snapshot.clone())
}

/// One thing that an operator changes, or that the node learns.
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
    Mac(usize, u8),
    Forgotten(usize),
    Gateway(usize, GatewayState),
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
        (0..NEIGHBOURS.len(), 1u8..4).prop_map(|(who, mac)| Change::Mac(who, mac)),
        (0..NEIGHBOURS.len()).prop_map(Change::Forgotten),
        (2..NEIGHBOURS.len(), prop::sample::select(vec![GatewayState::Dead, GatewayState::Alive]))
            .prop_map(|(who, state)| Change::Gateway(who, state)),
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
        Change::Mac(..) | Change::Forgotten(_) | Change::Gateway(..) => {}
    }
    state.generation += 1;
}

/// What the node has learnt; other changes are the state's.
fn learn(snapshot: &Snapshot, change: &Change) -> Option<Snapshot> {
    match change {
        Change::Mac(who, mac) => Some(learnt(snapshot, NEIGHBOURS[*who], *mac)),
        Change::Forgotten(who) => {
            let (vif, address) = NEIGHBOURS[*who];
            Some(snapshot.without_neighbour(vif_id(vif), address.parse().unwrap()))
        }
        Change::Gateway(who, state) => Some(with_gateway(snapshot, NEIGHBOURS[*who], *state)),
        _ => None,
    }
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
        (key(18, vif_id(3), "192.168.100.9", "203.0.113.7"), at(3)),
    ]
}

/// The first packet of a flow.
fn inquiry(key: &FlowKey, ingress: Ingress) -> Inquiry<'_> {
    Inquiry {
        key,
        service_port: key.dport,
        ingress,
        start: Start::Route,
        role: Role::Initiator,
        prior: Choices::default(),
        other_ingress: None,
        hash: key.spread(),
    }
}

fn ask(snapshot: &Snapshot, key: &FlowKey, ingress: Ingress) -> Verdict {
    classify(snapshot, &inquiry(key, ingress))
}

/// Has something changed that a program for this key has read?
fn concerns(changes: &Changes, read: &Dependency, key: &FlowKey) -> bool {
    changes.is_everything()
        || match *read {
            Dependency::Destination(vrf) => changes.covers(vrf, key.destination()),
            Dependency::Source(vrf) => changes.covers(vrf, key.source()),
            Dependency::Route(vrf, address) => changes.covers(vrf, address),
            Dependency::Acl(list) => {
                let selectors = changes.lists().get(&list).map_or(&[][..], Vec::as_slice);
                changes.objects().contains(read) || selectors.iter().any(|selector| selector.may_match(key))
            }
            object => changes.objects().contains(&object),
        }
}

proptest! {
    /// Flows are only derived anew when a dependency has changed: as long as none has, the walk must end the same way.
    #[test]
    fn a_decision_stays_the_same_until_something_it_depends_on_changes(
        changes in prop::collection::vec(change(), 1..6)
    ) {
        let mut state = world();
        let mut snapshot = resolved(Snapshot::empty().with_state(state.clone()).unwrap());
        for change in changes {
            let mut wanted = state.clone();
            apply(&mut wanted, &change);
            let next = learn(&snapshot, &change).map_or_else(|| snapshot.with_state(wanted.clone()), Ok);
            let Ok(next) = next else { continue };
            for (key, ingress) in packets() {
                let Verdict::Forward(before) = ask(&snapshot, &key, ingress) else { continue };
                let changes = next.changes_since(&snapshot);
                let concerns = |read| changes.iter().any(|version| concerns(version, read, &key));
                if !before.program.dependencies.iter().any(concerns) {
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
    let snapshot = resolved(Snapshot::empty().with_state(world()).unwrap());
    let forwarded =
        packets().iter().filter(|(key, ingress)| matches!(ask(&snapshot, key, *ingress), Verdict::Forward(_))).count();
    assert_eq!(forwarded, 5);
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
    snapshot = snapshot.with_neighbour(vif_id(5), "192.168.101.7".parse().unwrap(), mac);
    let (key, ingress) = packets()[2];
    let Verdict::Forward(decision) = ask(&snapshot, &key, ingress) else { panic!("not forwarded") };
    assert!(decision.program.ops.list().contains(&Op::DecrementTtl(2)), "{:?}", decision.program.ops);
    assert_eq!(decision.reverse_key.vrf, VrfId::new(19).unwrap());
}

/// [`world`] with list 6, which denies what goes to a prefix, for what comes in on a vif, or leaves on it.
fn guarded(vif: u32, egress: bool, prefix: &'static str) -> Snapshot {
    let mut state = world();
    let lists = state.vifs.iter_mut().find(|v| v.id == vif_id(vif)).unwrap();
    if egress {
        lists.egress_acls.push(acl_id(6))
    } else {
        lists.ingress_acls.push(acl_id(6))
    }
    apply(&mut state, &Change::Deny(prefix));
    Snapshot::empty().with_state(state).unwrap()
}

#[test]
fn a_missing_neighbour_is_told_with_the_checks_that_come_before_it() {
    let snapshot = Snapshot::empty().with_state(world()).unwrap();
    let (key, ingress) = packets()[2];
    let target = "192.168.101.7".parse().unwrap();
    // Two look-ups: VRF 18, and VRF 19 that the prefix is leaked from.
    let checks = Checks { ttl: 2, size: SizeLimit { mtu: 1500, larger: Oversize::Fragment } };
    assert_eq!(ask(&snapshot, &key, ingress), Verdict::Resolve { vif: vif_id(5), target, checks });
}

#[test]
fn the_lists_come_before_a_missing_neighbour() {
    let (key, ingress) = packets()[2];
    for snapshot in [guarded(3, false, "192.168.101.0/24"), guarded(5, true, "192.168.101.0/24")] {
        let Verdict::Drop { reason: DropReason::PolicyDeny, acl: Some(acl) } = ask(&snapshot, &key, ingress) else {
            panic!("not denied");
        };
        assert_eq!((acl.acl, acl.ace), (acl_id(6), Some(9)));
        // The denial is derived anew when the list changes.
        let inquiry = inquiry(&key, ingress);
        let denial = drop_program(&snapshot, &inquiry, DropReason::PolicyDeny);
        let kinds: Vec<_> = denial.dependencies.clone();
        assert!(kinds.contains(&Dependency::Acl(acl_id(6))), "{kinds:?}");
    }
    // What the list permits still asks for its neighbour.
    let snapshot = guarded(5, true, "192.168.1.0/24");
    assert!(matches!(ask(&snapshot, &key, ingress), Verdict::Resolve { .. }));
}

#[test]
fn what_a_denial_at_a_link_local_address_was_decided_on_derives_it_anew() {
    let mut state = world();
    state.vifs.iter_mut().filter(|v| v.id == vif_id(3)).for_each(|v| v.service_acls.push(acl_id(6)));
    state.acls.iter_mut().filter(|list| list.id == acl_id(6)).for_each(|list| list.entries.clear());
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    let (source, router): (IpAddr, IpAddr) = ("fe80::9".parse().unwrap(), "fe80::1".parse().unwrap());
    let key = FlowKey::new(vrf_id(18), vif_id(3), source, router, 58, 7, 0);
    // An echo request.
    let inquiry = Inquiry { service_port: 128, ..inquiry(&key, Ingress { vif: vif_id(3), tunnel: None }) };
    let verdict = classify(&snapshot, &inquiry);
    assert!(matches!(verdict, Verdict::Drop { reason: DropReason::PolicyDeny, .. }), "{verdict:?}");
    let denial = drop_program(&snapshot, &inquiry, DropReason::PolicyDeny);
    let kinds: Vec<_> = denial.dependencies.clone();
    assert!(kinds.contains(&Dependency::Acl(acl_id(6))), "{kinds:?}");
}

#[test]
fn members_are_usable_over_composites_of_ipsec_tunnels_and_of_links() {
    let mut state = world();
    state.vifs.push(vif(7, ipsec(&[1], &[2], 8), 8, &[]));
    state.sas.extend([sa(1, SaDirection::Outbound), sa(2, SaDirection::Inbound)]);
    state.routes.push(route(8, "103.135.56.40/32", 532, None));
    state.nexthops.push(nexthop(710, NexthopKind::Encap { oif: vif_id(7), rewrite: None }));
    state.nexthops.push(nexthop(711, composite(&[710])));
    state.nexthops.push(nexthop(712, tunnel("10.101.10.39", "10.99.0.1", Some(711))));
    state.nexthops.push(nexthop(713, composite(&[712])));
    state.routes.push(route(18, "198.51.100.0/24", 713, Some(300)));
    let snapshot = resolved(Snapshot::empty().with_state(state).unwrap());
    let (source, destination) = ("192.168.100.9".parse().unwrap(), "198.51.100.1".parse().unwrap());
    let key = FlowKey::new(vrf_id(18), vif_id(3), source, destination, 6, 40_000, 80);
    let verdict = ask(&snapshot, &key, Ingress { vif: vif_id(3), tunnel: None });
    let Verdict::Forward(decision) = verdict else { panic!("{verdict:?}") };
    assert!(decision.program.forward().unwrap().seal().is_some(), "{:?}", decision.program.ops);
}

#[test]
fn denials_toward_all_neighbours_of_a_link_are_one_program() {
    for snapshot in [guarded(3, false, "192.168.101.0/24"), guarded(5, true, "192.168.101.0/24")] {
        // The neighbour of the first is known.
        let snapshot = learnt(&snapshot, (5, "192.168.101.7"), 1);
        let denials = ["192.168.101.7", "192.168.101.8", "192.168.101.9"].map(|destination| {
            let (source, destination) = ("192.168.100.9".parse().unwrap(), destination.parse().unwrap());
            let key = FlowKey::new(vrf_id(18), vif_id(3), source, destination, 6, 40_000, 80);
            let inquiry = inquiry(&key, Ingress { vif: vif_id(3), tunnel: None });
            assert!(matches!(classify(&snapshot, &inquiry), Verdict::Drop { reason: DropReason::PolicyDeny, .. }));
            drop_program(&snapshot, &inquiry, DropReason::PolicyDeny)
        });
        assert_eq!(denials[0], denials[1]);
        assert_eq!(denials[1], denials[2]);
    }
}
