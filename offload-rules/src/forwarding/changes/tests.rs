use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::{Changes, REACH, VersionChanges};
use crate::{
    DropReason,
    flow::Dependency,
    forwarding::{
        GatewayState, Snapshot, State,
        testing::{base, route, vif_id, vrf_id},
    },
};

fn start() -> Snapshot {
    Snapshot::empty().with_state(base()).unwrap()
}

/// What one derivation has changed.
fn changes(new: &Snapshot, old: &Snapshot) -> Changes {
    match new.changes_since(old).as_slice() {
        [] => Changes::default(),
        [one] => (**one).clone(),
        more => panic!("{} versions", more.len()),
    }
}

fn up(snapshot: &Snapshot, vif: u32) -> Snapshot {
    snapshot.with_vif_up(vif_id(vif), true)
}

#[test]
fn changes_of_several_versions_come_in_order() {
    let first = start();
    let second = up(&first, 1);
    let third = up(&second, 2);
    let objects = |changes: Vec<VersionChanges>| -> Vec<Vec<Dependency>> {
        changes.iter().map(|version| version.objects().iter().copied().collect()).collect()
    };
    let [first_vif, second_vif, third_vif] = [1, 2, 3].map(|id| Dependency::Oper(vif_id(id)));
    assert_eq!(objects(third.changes_since(&second)), [vec![second_vif, third_vif]]);
    assert_eq!(objects(third.changes_since(&first)), [vec![first_vif], vec![second_vif, third_vif]]);
    assert!(third.changes_since(&third).is_empty());
}

#[test]
fn from_another_line_of_snapshots_everything_has_changed() {
    let first = start();
    let (one, other) = (up(&first, 1), up(&first, 2));
    assert!(changes(&one, &other).is_everything() && changes(&first, &one).is_everything());
    assert!(changes(&start(), &first).is_everything(), "equal, but nobody knows");
}

#[test]
fn the_log_forgets_what_is_old_and_reaches_back_far_enough() {
    let first = start();
    let mut last = first.clone();
    let mut kept = Vec::new();
    for _ in 0..3 * REACH / 16 {
        kept.push(last.clone());
        last = up(&last, 1);
    }
    assert!(changes(&last, &first).is_everything(), "it does not grow without bound");
    let near = &kept[kept.len() - REACH / 32];
    assert_eq!(last.changes_since(near).len(), REACH / 32);
    drop(kept);
}

#[test]
fn a_long_log_is_dropped_without_recursion() {
    let mut last = start();
    for _ in 0..REACH / 32 {
        last = up(&last, 1);
    }
    std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(last)).unwrap().join().unwrap();
}

#[test]
fn what_is_learnt_is_named() {
    let s = start();
    let address = "192.168.100.100".parse().unwrap();
    let neighbour = (vif_id(3), address);
    let named_since = |next: &Snapshot, before: &Snapshot, object: Dependency| {
        assert_eq!(changes(next, before).objects().iter().collect::<Vec<_>>(), [&object]);
    };
    let named = |next: &Snapshot, object: Dependency| named_since(next, &s, object);
    let mac = crate::MacAddr([2, 0, 0, 0, 0, 7]);
    let resolved = s.with_neighbour(vif_id(3), address, mac);
    named(&resolved, Dependency::Neighbour(vif_id(3), address));
    named(&s.with_neighbours(&[(neighbour, Some(mac))]), Dependency::Neighbour(vif_id(3), address));
    let gone = resolved.without_neighbour(vif_id(3), address);
    named_since(&gone, &resolved, Dependency::Neighbour(vif_id(3), address));
    named(&s.with_path_mtu(address, Some(1400)), Dependency::PathMtu(address));
    let dead = s.with_gateways(&[(neighbour, GatewayState::Dead)]).unwrap();
    named(&dead, Dependency::Gateway(vif_id(3), address));
    assert!(changes(&s.with_device_mtu(vif_id(1), 9000), &s).touches_arrivals());
    assert!(s.with_sa_ended(crate::SaId::new(9).unwrap(), DropReason::SaExpired).changes_since(&s).is_empty());
}

#[test]
fn a_whole_state_names_only_the_routes_that_differ() {
    let s = start();
    let mut state = State { generation: 2, ..base() };
    state.routes.retain(|route| route.prefix.to_string() != "192.168.1.0/24");
    state.routes.push(route(18, "192.168.0.0/16", 489, Some(281)));
    state.routes.push(route(18, "fd00::9/128", 489, Some(281)));
    let changes = changes(&s.with_state(state).unwrap(), &s);
    let routes = ["192.168.0.0/16", "192.168.1.0/24", "fd00::9/128"];
    assert_eq!(changes.routes(), routes.map(|prefix| (vrf_id(18), prefix.parse().unwrap())));
    assert!(changes.objects().is_empty() && !changes.touches_arrivals());
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    let inet =
        (0u32..64, 24u8..=32).prop_map(|(bits, len)| Ipv4Net::new((0x0a00_0000 | bits << 2).into(), len).unwrap());
    let inet6 = (0u128..64, 120u8..=128).prop_map(|(bits, len)| Ipv6Net::new(bits.into(), len).unwrap());
    prop_oneof![inet.prop_map(IpNet::from), inet6.prop_map(IpNet::from), Just("0.0.0.0/0".parse().unwrap())]
}

proptest! {
    /// The spans are the prefixes.
    #[test]
    fn what_is_covered_is_what_one_of_the_prefixes_contains(
        routes in prop::collection::vec((1u32..3, any_prefix()), 0..20),
        asked in prop::collection::vec((1u32..3, any_prefix()), 20),
    ) {
        let mut changes = Changes::default();
        routes.iter().for_each(|(vrf, prefix)| changes.note_route(vrf_id(*vrf), *prefix));
        let noted = changes.clone();
        changes.settle_routes();
        for (vrf, prefix) in asked {
            let (vrf, address) = (vrf_id(vrf), prefix.addr());
            let contains = routes.iter().any(|(of, prefix)| vrf_id(*of) == vrf && prefix.contains(&address));
            prop_assert_eq!((changes.covers(vrf, address), noted.covers(vrf, address)), (contains, contains));
        }
    }
}
