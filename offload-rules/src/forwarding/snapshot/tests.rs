use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use crate::{
    MacAddr, NexthopId, VifId,
    flow::{Dependency, Family},
    forwarding::{
        Action, Changes, Delta, MplsLabel, Nexthop, NexthopKind, Route, Sa, SaDirection, Settings, Snapshot, State,
        Vif,
        testing::{
            ace, acl, acl_id, base, composite, encap, ipsec, label, listener, mpls, nexthop, nh, physical, receive,
            route, sa, sa_id, sa_key, tag, tunnel, vif, vif_id, vlan, vrf, vrf_id,
        },
    },
};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x11]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x12]);

fn start() -> Snapshot {
    Snapshot::empty().with_state(base()).unwrap()
}

/// What one derivation has changed.
fn changed(new: &Snapshot, old: &Snapshot) -> Changes {
    match new.changes_since(old).as_slice() {
        [] => Changes::default(),
        [one] => (**one).clone(),
        more => panic!("{} versions", more.len()),
    }
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn delta(change: impl FnOnce(&mut Delta)) -> Delta {
    let mut delta = Delta { base_generation: 1, generation: 2, ..Delta::default() };
    change(&mut delta);
    delta
}

fn places(snapshot: &Snapshot, delta: Delta) -> Vec<(String, String)> {
    snapshot.with_delta(delta).unwrap_err().0.into_iter().map(|e| (e.object, e.field)).collect()
}

#[test]
fn a_snapshot_can_be_sent_and_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Snapshot>();
}

#[test]
fn what_was_asked_for_is_what_is_given_back() {
    assert_eq!(start().to_state(), base());
}

#[test]
fn an_empty_node_has_nothing_and_its_version_is_not_zero() {
    let empty = Snapshot::empty();
    assert_eq!((empty.version(), empty.generation(), empty.vifs().count()), (1, 0, 0));
    assert!(empty.route(vrf_id(8), ip("10.0.0.1")).is_none());
}

#[test]
fn objects_are_found_by_what_packets_carry() {
    let s = start();
    assert_eq!(s.vlan_vif(vif_id(2), tag(300), None), Some(vif_id(3)));
    assert_eq!(s.vlan_vif(vif_id(2), tag(301), None), None);
    assert_eq!(s.vlan_vif(vif_id(1), tag(300), None), None);
    assert_eq!(s.vlan_vif(vif_id(2), tag(300), Some(tag(300))), None);
    assert_eq!((s.port_of(vif_id(3)), s.port_of(vif_id(1))), (vif_id(2), vif_id(1)));
    assert_eq!(s.label(label(279)), Some(nh(513)));
    assert_eq!(s.route(vrf_id(18), ip("192.168.1.100")).unwrap().nexthop, nh(489));
    assert_eq!(s.route(vrf_id(18), ip("fd00:1::7")).unwrap().label, Some(label(280)));
    assert_eq!(s.routes(vrf_id(18), Family::Inet).len(), 3);
    assert!(s.terminates_mpls_o_udp(vrf_id(8), ip("10.101.10.39")));
    assert!(!s.terminates_mpls_o_udp(vrf_id(18), ip("10.101.10.39")));
    assert!(!s.terminates_mpls_o_udp(vrf_id(8), ip("10.101.10.40")));
    assert!(s.is_own_tunnel_source(ip("10.101.10.39")) && !s.is_own_tunnel_source(ip("10.101.9.245")));
}

#[test]
fn an_older_state_is_refused_and_generation_zero_starts_again() {
    let s = start().with_state(State { generation: 5, ..base() }).unwrap();
    let error = s.with_state(State { generation: 4, ..base() }).unwrap_err();
    assert_eq!((error.0[0].object.as_str(), error.0[0].field.as_str()), ("state", "generation"));
    assert_eq!(s.with_state(State { generation: 0, ..base() }).unwrap().generation(), 0);
}

#[test]
fn one_generation_has_one_content() {
    let s = start();
    assert_eq!(s.with_state(base()).unwrap().version(), s.version(), "the same again changes nothing");
    for change in [
        (|s| s.node.clear()) as fn(&mut State),
        |s| s.settings.max_flows = 64,
        |s| s.vifs[0].mtu = 1400,
        |s| drop(s.routes.pop()),
        |s| s.routes[0].nexthop = nh(86),
        |s| s.acls.push(acl(6, vec![], None)),
        |s| s.labels.clear(),
        |s| s.vrfs.push(vrf(19)),
    ] {
        let mut other = base();
        change(&mut other);
        assert_eq!(s.with_state(other.clone()).unwrap_err().0[0].field, "generation");
        assert!(s.with_state(State { generation: 2, ..other }).is_ok());
    }
}

#[test]
fn a_delta_from_another_base_or_without_a_newer_generation_is_refused() {
    let s = start();
    let place = |field: &str| vec![("delta".to_owned(), field.to_owned())];
    assert_eq!(places(&s, delta(|d| (d.base_generation, d.generation) = (0, 2))), place("base_generation"));
    assert_eq!(places(&s, delta(|d| d.generation = 1)), place("generation"));
}

#[test]
fn removing_what_is_not_there_names_it() {
    let errors = places(
        &start(),
        delta(|d| {
            d.remove_vifs = vec![vif_id(9)];
            d.remove_vrfs = vec![vrf_id(9)];
            d.remove_nexthops = vec![nh(9)];
            d.remove_routes = vec![(vrf_id(18), "10.9.0.0/16".parse().unwrap())];
            d.remove_labels = vec![label(999)];
            d.remove_acls = vec![acl_id(9)];
        }),
    );
    let objects: Vec<_> = errors.iter().map(|(object, _)| object.as_str()).collect();
    assert_eq!(objects, ["route vrf 18 10.9.0.0/16", "label 999", "vif 9", "nexthop 9", "vrf 9", "acl 9"]);
}

#[test]
fn removing_what_is_in_use_names_who_uses_it() {
    let s = start();
    let place = |object: &str, field: &str| (object.to_owned(), field.to_owned());
    let errors = places(&s, delta(|d| d.remove_nexthops = vec![nh(85)]));
    assert_eq!(errors, [place("nexthop 532", "members[0].nexthop"), place("route vrf 8 0.0.0.0/0", "nexthop")]);
    let errors = places(&s, delta(|d| d.remove_vifs = vec![vif_id(3)]));
    assert_eq!(errors, [place("nexthop 577", "oif")]);
    let errors = places(&s, delta(|d| d.remove_vrfs = vec![vrf_id(18)]));
    assert!(errors.contains(&place("vif 3", "vrf")) && errors.contains(&place("nexthop 513", "vrf_translate.vrf")));
    assert!(errors.contains(&place("route vrf 18 192.168.1.0/24", "vrf")));
}

#[test]
fn a_nexthop_that_becomes_a_tunnel_behind_an_unlabelled_route_is_refused() {
    let become_tunnel = nexthop(86, tunnel("10.0.0.1", "10.0.0.2", Some(10)));
    let routed = start().with_delta(delta(|d| d.routes = vec![route(18, "10.0.0.0/8", 532, None)])).unwrap();
    let errors =
        places(&routed, Delta { base_generation: 2, generation: 3, nexthops: vec![become_tunnel], ..Delta::default() });
    assert!(errors.contains(&("route vrf 18 10.0.0.0/8".to_owned(), "label".to_owned())), "{errors:?}");
}

#[test]
fn a_sub_interface_may_not_take_tags_that_a_nexthop_sends() {
    let tagged = nexthop(1, encap(2, "0200000000010200000000028100012d0800"));
    let s = start().with_delta(delta(|d| d.nexthops = vec![tagged])).unwrap();
    let vifs = vec![vif(9, vlan(2, 301), 18, &[])];
    let errors = places(&s, Delta { base_generation: 2, generation: 3, vifs, ..Delta::default() });
    assert_eq!(errors, [("nexthop 1".to_owned(), "encap_data".to_owned())]);
}

#[test]
fn a_change_names_what_it_changed_and_nothing_else() {
    let s = start();
    let next = s
        .with_delta(delta(|d| {
            d.routes = vec![route(18, "192.168.2.0/24", 489, Some(281))];
            d.nexthops =
                vec![nexthop(86, encap(1, "0200000000040200000000020800")), nexthop(532, composite(&[85, 86]))];
        }))
        .unwrap();
    assert_eq!((s.version(), next.version()), (2, 3));
    let changes = changed(&next, &s);
    assert_eq!(changes.objects().iter().collect::<Vec<_>>(), [&Dependency::Nexthop(nh(86))]);
    assert_eq!(changes.routes(), [(vrf_id(18), "192.168.2.0/24".parse().unwrap())]);
    assert!(!changes.touches_arrivals() && !changes.touches_vrfs());
    assert!(
        s.route(vrf_id(18), ip("192.168.2.1")).unwrap().nexthop == NexthopId::NONE,
        "the old snapshot is as it was"
    );
}

#[test]
fn a_new_state_names_what_differs_and_nothing_else() {
    let mut state = State { generation: 2, ..base() };
    let gone = state.routes.pop().unwrap();
    state.vifs[0].mtu = 1400;
    let before = start();
    let next = before.with_state(state).unwrap();
    let changes = changed(&next, &before);
    assert_eq!(changes.objects().iter().collect::<Vec<_>>(), [&Dependency::Vif(vif_id(1))]);
    assert_eq!(changes.routes(), [(gone.vrf, gone.prefix)]);
}

#[test]
fn new_settings_change_everything() {
    let settings = Settings { max_flows: 128, ..Settings::default() };
    let before = start();
    let next = before.with_delta(delta(|d| d.settings = Some(settings))).unwrap();
    assert_eq!(next.settings().max_flows, 128);
    assert!(changed(&next, &before).is_everything());
}

#[test]
fn vif_and_sub_interfaces_have_the_devices_mac_until_it_changes() {
    let before = start();
    let s = before.with_device_mac(vif_id(2), MAC);
    assert_eq!(s.vif(vif_id(2)).unwrap().mac, Some(MAC));
    assert_eq!(s.vif(vif_id(3)).unwrap().mac, Some(MAC));
    assert_eq!(s.vif(vif_id(1)).unwrap().mac, None);
    let changes = changed(&s, &before);
    assert_eq!(changes.objects().iter().collect::<Vec<_>>(), [2, 3].map(|id| Dependency::Vif(vif_id(id))).each_ref());
    assert_eq!(s.to_state(), base(), "what was configured is not overwritten");
    assert_eq!(s.with_device_mac(vif_id(3), MAC).version(), s.version(), "the same again changes nothing");
    let kept = s.with_state(State { generation: 2, ..base() }).unwrap();
    assert_eq!(kept.vif(vif_id(3)).unwrap().mac, Some(MAC));
    assert!(changed(&kept, &s).is_empty());
    let moved = vif(2, physical("eth7"), 8, &[]);
    let moved = s.with_delta(delta(|d| d.vifs = vec![moved])).unwrap();
    assert_eq!(moved.vif(vif_id(3)).unwrap().mac, None);
}

#[test]
fn a_configured_mac_is_stronger_than_that_of_the_device() {
    let mut state = base();
    state.vifs[1].mac = Some(OTHER_MAC);
    let s = Snapshot::empty().with_state(state).unwrap().with_device_mac(vif_id(2), MAC);
    assert_eq!(s.vif(vif_id(2)).unwrap().mac, Some(OTHER_MAC));
    assert_eq!(s.vif(vif_id(3)).unwrap().mac, Some(OTHER_MAC));
}

#[test]
fn case_07_no_vif_takes_more_than_its_device_until_the_device_does() {
    let (parent, child, other) = (vif_id(2), vif_id(3), vif_id(1));
    let mtu = |s: &Snapshot, id| s.vif(id).unwrap().mtu;
    let before = start();
    let s = before.with_device_mtu(parent, 1450);
    assert_eq!((mtu(&s, parent), mtu(&s, child), mtu(&s, other)), (1450, 1450, 1500));
    assert_eq!((s.configured_mtu(child), s.device_mtu(child)), (Some(1500), Some(1450)));
    let changes = changed(&s, &before);
    assert!(changes.touches_arrivals() && changes.objects().contains(&Dependency::Vif(child)));
    assert!(!changes.objects().contains(&Dependency::Vif(other)));
    assert_eq!(s.to_state(), base(), "what was configured is not overwritten");
    assert_eq!(s.with_device_mtu(child, 1450).version(), s.version(), "the same again changes nothing");
    // A sub-interface that is changed is judged by what its parent is configured with.
    let mut wide = s.to_state().vifs.into_iter().find(|vif| vif.id == child).unwrap();
    wide.enc_mss = 40;
    let changed = s.with_delta(delta(|d| d.vifs = vec![wide])).unwrap();
    assert_eq!((mtu(&changed, child), changed.configured_mtu(child)), (1450, Some(1500)));
    for larger in [1500, 9000, 65_536] {
        let s = s.with_device_mtu(parent, larger);
        assert_eq!((mtu(&s, parent), mtu(&s, child)), (1500, 1500), "{larger}");
    }
    let moved = vif(2, physical("eth7"), 8, &[]);
    let moved = s.with_delta(delta(|d| d.vifs = vec![moved])).unwrap();
    assert_eq!(mtu(&moved, child), 1500, "of another device nothing is known");
}

#[test]
fn neighbours_have_slots_that_are_used_again() {
    let s = start();
    let (a, b) = (ip("192.168.100.100"), ip("fd00:100::9"));
    let s = s.with_neighbour(vif_id(3), b, MAC).with_neighbour(vif_id(3), a, MAC);
    assert_eq!(
        s.neighbours().iter().map(|(key, n)| (key, n.slot)).collect::<Vec<_>>(),
        [((vif_id(3), a), 1), ((vif_id(3), b), 0)]
    );
    let unchanged = s.with_neighbour(vif_id(9), a, MAC);
    assert_eq!(unchanged.neighbours().len(), 2, "there is no such vif");
    let same = s.with_neighbour(vif_id(3), a, MAC);
    assert!(changed(&same, &s).is_empty(), "the same MAC again");
    let moved = s.with_neighbour(vif_id(3), a, OTHER_MAC);
    assert!(changed(&moved, &s).objects().contains(&Dependency::Neighbour(vif_id(3), a)));
    assert_eq!(moved.neighbour(vif_id(3), a).unwrap().slot, 1, "a new MAC keeps the slot");
    let gone = moved.without_neighbour(vif_id(3), b);
    assert!(changed(&gone, &moved).objects().contains(&Dependency::Neighbour(vif_id(3), b)));
    assert_eq!(gone.neighbours().len(), 1);
    let again = gone.with_neighbour(vif_id(3), b, MAC);
    assert_eq!(again.neighbour(vif_id(3), b).unwrap().slot, 0, "a free slot is used again");
    assert_eq!(s.neighbours().len(), 2, "the old snapshot is as it was");
}

#[test]
fn neighbours_and_path_mtus_outlive_a_new_state_but_not_their_vif() {
    let a = ip("192.168.100.100");
    let s = start().with_neighbour(vif_id(3), a, MAC).with_path_mtu(ip("10.101.9.245"), Some(1400));
    let s = s.with_neighbour(vif_id(1), ip("10.101.10.1"), MAC);
    let next = s.with_state(State { generation: 2, ..base() }).unwrap();
    assert_eq!(next.neighbours().len(), 2);
    assert_eq!(next.path_mtu(ip("10.101.9.245")), Some(1400));
    assert!(changed(&next, &s).is_empty());
    let mut without = State { generation: 3, ..base() };
    without.vifs.remove(2);
    without.nexthops.retain(|n| n.id != nh(577));
    without.routes.retain(|r| r.nexthop != nh(577));
    let by_state = next.with_state(without).unwrap();
    let by_delta = s
        .with_delta(delta(|d| {
            d.remove_vifs = vec![vif_id(3)];
            d.remove_nexthops = vec![nh(577)];
            d.remove_routes = vec![(vrf_id(18), "192.168.100.0/24".parse().unwrap())];
        }))
        .unwrap();
    for s in [by_state, by_delta] {
        assert!(s.neighbour(vif_id(3), a).is_none());
        assert!(s.neighbour(vif_id(1), ip("10.101.10.1")).is_some());
        assert_eq!(s.path_mtu(ip("10.101.9.245")), Some(1400));
    }
    assert_eq!(s.with_path_mtu(ip("10.101.9.245"), None).path_mtus().len(), 0);
}

#[test]
fn a_receive_nexthop_that_ends_decapsulation_takes_its_addresses() {
    let closed = nexthop(100, receive(false, vec![], &[(1, 10)]));
    let s = start().with_delta(delta(|d| d.nexthops = vec![closed.clone()])).unwrap();
    assert!(!s.terminates_mpls_o_udp(vrf_id(8), ip("10.101.10.39")));
    assert!(s.is_own_tunnel_source(ip("10.101.10.39")), "it is still the source of a tunnel");
    let replaced =
        start().with_delta(delta(|d| (d.remove_nexthops, d.nexthops) = (vec![nh(100)], vec![closed]))).unwrap();
    assert!(!replaced.terminates_mpls_o_udp(vrf_id(8), ip("10.101.10.39")));
}

/// Changes over few ids, so that they meet; many of the results are consistent, many are not.
#[derive(Debug, Clone)]
enum Op {
    RemoveVif(u32),
    RemoveVrf(u32),
    RemoveNexthop(u32),
    RemoveRoute(u32, IpNet),
    RemoveLabel(u32),
    RemoveAcl(u32),
    Settings(u32),
    Vif(Vif),
    Vrf(u32),
    Nexthop(Nexthop),
    Route(Route),
    Label(MplsLabel),
    Acl(u32, Option<Action>),
    Sa(Sa),
    RemoveSa(u32),
}

const VIFS: [u32; 5] = [1, 2, 3, 4, 9];
const VRFS: [u32; 3] = [8, 18, 19];
const NEXTHOPS: [u32; 8] = [85, 86, 100, 489, 513, 532, 577, 1];
const PREFIXES: [&str; 5] = ["0.0.0.0/0", "10.101.10.39/32", "10.0.0.9/32", "192.168.1.0/24", "fd00::9/128"];

fn any_of<T: Clone + std::fmt::Debug + 'static>(list: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(list)
}

fn any_kind() -> impl Strategy<Value = NexthopKind> {
    const TAGGED: &str = "0200000000010200000000028100012c0800";
    let rewrite = any_of(&["0200000000010200000000020800", TAGGED]);
    prop_oneof![
        1 => Just(NexthopKind::Drop),
        3 => (any_of(&VIFS), rewrite).prop_map(|(oif, hex)| encap(oif, hex)),
        2 => (any_of(&["10.101.10.39", "10.0.0.9"]), prop::option::of(any_of(&NEXTHOPS)))
            .prop_map(|(sip, direct)| tunnel(sip, "10.101.9.245", direct)),
        2 => prop::collection::vec(any_of(&NEXTHOPS), 1..3).prop_map(|members| composite(&members)),
        1 => any_of(&VRFS).prop_map(|vrf| NexthopKind::VrfTranslate { vrf: vrf_id(vrf) }),
        2 => (any::<bool>(), any_of(&NEXTHOPS)).prop_map(|(open, to)| receive(open, vec![listener(6, 1, 1, to)], &[])),
        2 => (any_of(&VIFS), prop::option::of(any_of(&["10.101.10.1", "192.168.100.254", "fe80::fe"])))
            .prop_map(|(oif, gateway)| NexthopKind::Resolve { oif: vif_id(oif), gateway: gateway.map(ip) }),
    ]
}

fn any_vif() -> impl Strategy<Value = Vif> {
    let kind = prop_oneof![
        any_of(&["eth0", "eth1", "eth9"]).prop_map(physical),
        (any_of(&VIFS), any_of(&[300u16, 301])).prop_map(|(parent, vid)| vlan(parent, vid)),
        (prop::collection::vec(1u32..5, 0..2), prop::collection::vec(1u32..5, 0..2), any_of(&VRFS))
            .prop_map(|(outbound, inbound, vrf)| ipsec(&outbound, &inbound, vrf)),
    ];
    let addresses = any_of(&[&[] as &[&str], &["10.101.10.39/24"], &["192.168.100.1/24"], &["192.168.100.9/25"]]);
    let extra =
        (prop::option::of(any_of(&NEXTHOPS)), prop::option::of(5u32..7), any_of(&[1500u16, 1400]), any::<bool>());
    (any_of(&VIFS), kind, any_of(&VRFS), addresses, extra).prop_map(|(id, kind, vrf, addresses, extra)| {
        let mut vif = vif(id, kind, vrf, addresses);
        (vif.nexthop, vif.mtu) = (extra.0.map(nh), extra.2);
        vif.ingress_acls = extra.1.into_iter().map(acl_id).collect();
        vif.flags.raw_ip = extra.3 && id == 9;
        vif
    })
}

fn any_sa() -> impl Strategy<Value = Sa> {
    (1u32..5, any_of(&[SaDirection::Outbound, SaDirection::Inbound]), any_of(&[256u32, 257, 5]), 1u8..4)
        .prop_map(|(id, direction, spi, key)| Sa { spi, key: sa_key(key), ..sa(id, direction) })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => any_of(&VIFS).prop_map(Op::RemoveVif),
        1 => any_of(&VRFS).prop_map(Op::RemoveVrf),
        2 => any_of(&NEXTHOPS).prop_map(Op::RemoveNexthop),
        3 => (any_of(&VRFS), any_of(&PREFIXES)).prop_map(|(vrf, p)| Op::RemoveRoute(vrf, p.parse().unwrap())),
        1 => (279u32..282).prop_map(Op::RemoveLabel),
        1 => (5u32..7).prop_map(Op::RemoveAcl),
        1 => any_of(&[10u32, 100, 200]).prop_map(Op::Settings),
        3 => any_vif().prop_map(Op::Vif),
        1 => any_of(&VRFS).prop_map(Op::Vrf),
        6 => (any_of(&NEXTHOPS), any_kind(), prop::option::weighted(0.3, any_of(&VRFS)), prop::bool::weighted(0.9))
            .prop_map(|(id, kind, vrf, valid)| {
                Op::Nexthop(Nexthop { vrf: vrf.map(vrf_id), valid, ..nexthop(id, kind) })
            }),
        5 => (any_of(&VRFS), any_of(&PREFIXES), any_of(&NEXTHOPS), any::<bool>())
            .prop_map(|(vrf, prefix, nexthop, labelled)| Op::Route(route(vrf, prefix, nexthop, labelled.then_some(280)))),
        2 => (279u32..282, any_of(&NEXTHOPS)).prop_map(|(label, nexthop)| Op::Label(mpls(label, nexthop))),
        2 => any_sa().prop_map(Op::Sa),
        1 => (1u32..5).prop_map(Op::RemoveSa),
        1 => (5u32..7, any_of(&[None, Some(Action::Deny)])).prop_map(|(id, default)| Op::Acl(id, default)),
    ]
}

fn to_delta(ops: Vec<Op>, generation: u64) -> Delta {
    let mut d = Delta { base_generation: generation, generation: generation + 1, ..Delta::default() };
    for op in ops {
        match op {
            Op::RemoveVif(id) => d.remove_vifs.push(vif_id(id)),
            Op::RemoveVrf(id) => d.remove_vrfs.push(vrf_id(id)),
            Op::RemoveNexthop(id) => d.remove_nexthops.push(nh(id)),
            Op::RemoveRoute(vrf, prefix) => d.remove_routes.push((vrf_id(vrf), prefix)),
            Op::RemoveLabel(l) => d.remove_labels.push(label(l)),
            Op::RemoveAcl(id) => d.remove_acls.push(acl_id(id)),
            Op::Settings(max_flows) => d.settings = Some(Settings { max_flows, ..Settings::default() }),
            Op::Vif(vif) => d.vifs.push(vif),
            Op::Vrf(id) => d.vrfs.push(vrf(id)),
            Op::Nexthop(nexthop) => d.nexthops.push(nexthop),
            Op::Route(route) => d.routes.push(route),
            Op::Label(label) => d.labels.push(label),
            Op::Sa(sa) => d.sas.push(sa),
            Op::RemoveSa(id) => d.remove_sas.push(sa_id(id)),
            Op::Acl(id, default) => d.acls.push(acl(id, vec![ace(1, Action::Permit)], default)),
        }
    }
    d
}

/// A list after removals and upserts; `None` when a removal finds nothing or an id is given twice.
fn edit<K: Ord + Clone, T>(list: Vec<T>, key: impl Fn(&T) -> K, remove: &[K], put: Vec<T>) -> Option<Vec<T>> {
    let mut map: BTreeMap<K, T> = list.into_iter().map(|item| (key(&item), item)).collect();
    for k in remove {
        map.remove(k)?;
    }
    let mut seen = std::collections::BTreeSet::new();
    for item in put {
        if !seen.insert(key(&item)) {
            return None;
        }
        map.insert(key(&item), item);
    }
    Some(map.into_values().collect())
}

/// The resulting state, written from the definition of a delta.
fn apply(state: State, d: Delta) -> Option<State> {
    Some(State {
        generation: d.generation,
        settings: d.settings.unwrap_or(state.settings),
        vifs: edit(state.vifs, |v| v.id, &d.remove_vifs, d.vifs)?,
        vrfs: edit(state.vrfs, |v| v.id, &d.remove_vrfs, d.vrfs)?,
        nexthops: edit(state.nexthops, |n| n.id, &d.remove_nexthops, d.nexthops)?,
        routes: edit(state.routes, |r| (r.vrf, r.prefix), &d.remove_routes, d.routes)?,
        labels: edit(state.labels, |l| l.label, &d.remove_labels, d.labels)?,
        acls: edit(state.acls, |a| a.id, &d.remove_acls, d.acls)?,
        sas: edit(state.sas, |sa| sa.id, &d.remove_sas, d.sas)?,
        node: state.node,
    })
}

/// Everything that can be looked up.
fn same_lookups(a: &Snapshot, b: &Snapshot) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.to_state(), b.to_state());
    for vrf in VRFS.map(vrf_id) {
        for address in PREFIXES.iter().map(|p| p.parse::<IpNet>().unwrap().addr()) {
            prop_assert_eq!(a.route(vrf, address), b.route(vrf, address));
            let open = |s: &Snapshot| {
                let host = s.route(vrf, address).filter(|r| r.prefix.prefix_len() == r.prefix.max_prefix_len());
                host.and_then(|r| s.nexthop(r.nexthop))
                    .is_some_and(|n| matches!(&n.kind, NexthopKind::Receive(r) if n.valid && r.terminate_mpls_o_udp))
            };
            prop_assert_eq!(a.terminates_mpls_o_udp(vrf, address), open(a), "{} in {}", address, vrf);
            prop_assert_eq!(b.terminates_mpls_o_udp(vrf, address), open(b));
            let opened = VRFS.iter().any(|vrf| a.terminates_mpls_o_udp(vrf_id(*vrf), address));
            let source =
                a.nexthops().any(|n| matches!(&n.kind, NexthopKind::Tunnel(t) if IpAddr::V4(t.sip) == address));
            prop_assert_eq!(a.is_own_tunnel_source(address), opened || source, "own {}", address);
        }
    }
    let named: std::collections::BTreeSet<_> = a
        .nexthops()
        .filter_map(|n| match n.kind {
            NexthopKind::Resolve { oif, gateway: Some(gateway) } if n.valid => Some((oif, gateway)),
            _ => None,
        })
        .collect();
    prop_assert_eq!(a.gateways().collect::<std::collections::BTreeSet<_>>(), named.clone());
    prop_assert_eq!(b.gateways().collect::<std::collections::BTreeSet<_>>(), named);
    for parent in VIFS.map(vif_id) {
        for vid in [300, 301] {
            let by_scan: Option<VifId> = a.vifs().find(|v| v.kind == vlan(parent.get().into(), vid)).map(|v| v.id);
            prop_assert_eq!(a.vlan_vif(parent, tag(vid), None), by_scan);
            prop_assert_eq!(b.vlan_vif(parent, tag(vid), None), by_scan);
        }
    }
    Ok(())
}

/// What has changed is named, and `exact` nothing else: what a delta removes and puts back may count as changed.
fn changes_follow(old: &Snapshot, new: &Snapshot, exact: bool) -> Result<(), TestCaseError> {
    let changes = changed(new, old);
    let settled = |object, changed: bool| {
        let named = changes.is_everything() || changes.objects().contains(&object);
        let right = if changed { named } else { !exact || changes.is_everything() || !named };
        prop_assert!(right, "{object:?} has changed: {changed}, named: {named}");
        Ok(())
    };
    prop_assert!(changes.is_everything() || old.settings() == new.settings());
    for id in VIFS.map(vif_id) {
        settled(Dependency::Vif(id), old.vif(id) != new.vif(id))?;
    }
    for id in NEXTHOPS.map(nh) {
        settled(Dependency::Nexthop(id), old.nexthop(id) != new.nexthop(id))?;
    }
    for l in (279..282).map(label) {
        settled(Dependency::Label(l), old.label(l) != new.label(l))?;
        let leads = |s: &Snapshot| s.label(l).and_then(|id| s.nexthop(id)).cloned();
        prop_assert!(leads(old) == leads(new) || changes.touches_arrivals());
    }
    for id in (5..7).map(acl_id) {
        let differs = old.acl(id) != new.acl(id);
        let named = changes.is_everything() || changes.lists().contains_key(&id);
        prop_assert!(if differs { named } else { !exact || changes.is_everything() || !named }, "{id:?}: {differs}");
    }
    for id in (1..5).map(sa_id) {
        settled(Dependency::Sa(id), old.sa(id) != new.sa(id))?;
    }
    let end = ip("10.101.9.245");
    prop_assert!(old.tunnels_to(end) == new.tunnels_to(end) || changes.touches(|o| *o == Dependency::TunnelsTo(end)));
    for vrf in VRFS.map(vrf_id) {
        prop_assert!(old.vrf(vrf) == new.vrf(vrf) || changes.touches_vrfs());
        for prefix in PREFIXES.map(|prefix| prefix.parse::<IpNet>().unwrap()) {
            let family = Family::of(&prefix.addr());
            let of = |s: &Snapshot| s.routes(vrf, family).into_iter().find(|route| route.prefix == prefix);
            let named = changes.routes().contains(&(vrf, prefix));
            let changed = of(old) != of(new);
            prop_assert!(changes.is_everything() || if changed { named } else { !(exact && named) }, "{vrf} {prefix}");
            let opens = |s: &Snapshot| s.terminates_mpls_o_udp(vrf, prefix.addr());
            let own = |s: &Snapshot| s.is_own_tunnel_source(prefix.addr());
            prop_assert!((opens(old), own(old)) == (opens(new), own(new)) || changes.touches_arrivals());
        }
        for address in ["10.101.10.39", "192.168.100.1", "192.168.100.9"].map(ip) {
            let same = old.owner(vrf, address) == new.owner(vrf, address);
            prop_assert!(same || changes.touches(|object| *object == Dependency::Addresses));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_delta_is_judged_and_applied_like_the_whole_state_that_results(
        deltas in prop::collection::vec(prop::collection::vec(any_op(), 1..4), 1..20),
    ) {
        let mut snapshot = start();
        for ops in deltas {
            let delta = to_delta(ops, snapshot.generation());
            let by_delta = snapshot.with_delta(delta.clone());
            let only_puts = Delta {
                vifs: vec![],
                vrfs: vec![],
                nexthops: vec![],
                routes: vec![],
                labels: vec![],
                acls: vec![],
                settings: None,
                ..delta.clone()
            } == Delta { base_generation: delta.base_generation, generation: delta.generation, ..Delta::default() };
            let state = apply(snapshot.to_state(), delta);
            let Some(state) = state else {
                prop_assert!(by_delta.is_err());
                continue;
            };
            match (Snapshot::empty().with_state(state.clone()), by_delta) {
                (Ok(whole), Ok(next)) => {
                    same_lookups(&next, &whole)?;
                    changes_follow(&snapshot, &next, only_puts)?;
                    let by_state = snapshot.with_state(state).unwrap();
                    same_lookups(&by_state, &whole)?;
                    changes_follow(&snapshot, &by_state, true)?;
                    snapshot = next;
                }
                (Err(_), Err(_)) => {}
                (Ok(_), Err(errors)) => prop_assert!(false, "only the delta is refused: {}", errors),
                (Err(errors), Ok(_)) => prop_assert!(false, "the delta is accepted, but: {}", errors),
            }
        }
    }
}
