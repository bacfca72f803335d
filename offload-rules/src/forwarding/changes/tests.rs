use super::{Changes, REACH};
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

fn up(snapshot: &Snapshot, vif: u32) -> Snapshot {
    snapshot.with_vif_up(vif_id(vif), true)
}

#[test]
fn changes_of_several_versions_are_their_union() {
    let first = start();
    let second = up(&first, 1);
    let third = up(&second, 2);
    let objects = |changes: Changes| changes.objects().iter().copied().collect::<Vec<_>>();
    assert_eq!(objects(third.changes_since(&second)), [2, 3].map(|id| Dependency::Vif(vif_id(id))));
    assert_eq!(objects(third.changes_since(&first)), [1, 2, 3].map(|id| Dependency::Vif(vif_id(id))));
    assert!(third.changes_since(&third).is_empty());
}

#[test]
fn from_another_line_of_snapshots_everything_has_changed() {
    let first = start();
    let (one, other) = (up(&first, 1), up(&first, 2));
    assert!(one.changes_since(&other).is_everything() && first.changes_since(&one).is_everything());
    assert!(start().changes_since(&first).is_everything(), "equal, but nobody knows");
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
    assert!(last.changes_since(&first).is_everything(), "it does not grow without bound");
    let near = &kept[kept.len() - REACH / 32];
    assert!(!last.changes_since(near).is_everything());
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
    let named = |next: &Snapshot, object: Dependency| {
        let changes = next.changes_since(&s);
        assert_eq!(changes.objects().iter().collect::<Vec<_>>(), [&object]);
    };
    let mac = crate::MacAddr([2, 0, 0, 0, 0, 7]);
    let resolved = s.with_neighbour(vif_id(3), address, mac).unwrap();
    named(&resolved, Dependency::Neighbour(vif_id(3), address));
    named(&s.with_neighbours(&[(neighbour, Some(mac))]), Dependency::Neighbour(vif_id(3), address));
    named(&resolved.without_neighbour(vif_id(3), address), Dependency::Neighbour(vif_id(3), address));
    named(&s.with_path_mtu(address, Some(1400)), Dependency::PathMtu(address));
    let dead = s.with_gateways(&[(neighbour, GatewayState::Dead)]).unwrap();
    named(&dead, Dependency::Gateway(vif_id(3), address));
    assert!(s.with_device_mtu(vif_id(1), 9000).changes_since(&s).touches_arrivals());
    assert!(s.with_sa_ended(crate::SaId::new(9).unwrap(), DropReason::SaExpired).changes_since(&s).is_empty());
}

#[test]
fn a_whole_state_names_only_the_routes_that_differ() {
    let s = start();
    let mut state = State { generation: 2, ..base() };
    state.routes.retain(|route| route.prefix.to_string() != "192.168.1.0/24");
    state.routes.push(route(18, "192.168.0.0/16", 489, Some(281)));
    state.routes.push(route(18, "fd00::9/128", 489, Some(281)));
    let changes = s.with_state(state).unwrap().changes_since(&s);
    let routes = ["192.168.0.0/16", "192.168.1.0/24", "fd00::9/128"];
    assert_eq!(changes.routes(), routes.map(|prefix| (vrf_id(18), prefix.parse().unwrap())));
    assert!(changes.objects().is_empty() && !changes.touches_arrivals());
}
