//! Rules for transit: they follow the snapshot, and survive what rules of flows survive.

use std::sync::Arc;

use offload_rules::{
    MacAddr,
    forwarding::{
        Delta, IoDriver, L2Rewrite, Nexthop, NexthopKind, PortConfig, Route, RouteFlags, RouteOrigin, State, Vif,
        VifFlags, VifKind, Vrf,
    },
};

use super::*;
use crate::TransitStatus;

fn vrf() -> VrfId {
    VrfId::new(1).unwrap()
}

fn vif(id: u32) -> Vif {
    let port = PortConfig { device: format!("eth{id}"), driver: IoDriver::Auto };
    Vif {
        id: VifId::new(id).unwrap(),
        name: format!("eth{id}"),
        kind: VifKind::Physical { port },
        mac: Some(MacAddr([2, 0, 0, 0, 0, id as u8])),
        vrf: vrf(),
        addresses: Vec::new(),
        mtu: 1500,
        enc_mss: 0,
        flags: VifFlags::default(),
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    }
}

fn site(id: u32, station: u8) -> Nexthop {
    let header = [2, 0, 0, 0, 1, station, 2, 0, 0, 0, 0, id as u8, 8, 0];
    let kind = NexthopKind::Encap { oif: VifId::new(id).unwrap(), rewrite: L2Rewrite::new(&header) };
    Nexthop { id: NexthopId::new(10 + id).unwrap(), vrf: Some(vrf()), policy: false, valid: true, kind }
}

fn route(prefix: &str, site: u32) -> Route {
    Route {
        vrf: vrf(),
        prefix: prefix.parse().unwrap(),
        nexthop: NexthopId::new(10 + site).unwrap(),
        label: None,
        flags: RouteFlags::default(),
        origin: RouteOrigin::default(),
    }
}

/// Two sites at two vifs without policy.
fn two_sites() -> Snapshot {
    let state = State {
        generation: 1,
        node: "re".to_owned(),
        vrfs: vec![Vrf { id: vrf(), name: "one".to_owned() }],
        vifs: vec![vif(1), vif(2)],
        nexthops: vec![site(1, 1), site(2, 1)],
        routes: vec![route("10.1.0.0/16", 1), route("10.2.0.0/16", 2)],
        ..State::default()
    };
    Snapshot::empty().with_state(state).unwrap()
}

fn bed() -> (Bed, Arc<Snapshot>) {
    bed_with(Config::default())
}

fn bed_with(config: Config) -> (Bed, Arc<Snapshot>) {
    let (fake, nic) = Fake::new();
    let snapshot = two_sites();
    let mut bed = Bed::over(config, Toy::default(), fake, nic, snapshot.clone());
    bed.nic.lock().unwrap().needs_of = None;
    bed.settle();
    (bed, Arc::new(snapshot))
}

fn adopt(bed: &mut Bed, snapshot: Snapshot) -> Arc<Snapshot> {
    let snapshot = Arc::new(snapshot);
    bed.engine.adopt(&snapshot, bed.now);
    bed.settle();
    snapshot
}

fn delta(before: &Snapshot) -> Delta {
    Delta { base_generation: before.generation(), generation: before.generation() + 1, ..Delta::default() }
}

fn status(bed: &Bed) -> TransitStatus {
    bed.engine.status(bed.now).transit
}

/// Rules in the NIC by table: those that admit, guard and forward.
fn rules(bed: &Bed, table: Table) -> usize {
    bed.nic.lock().unwrap().rules.values().filter(|held| held.rule.table == table).count()
}

/// For each site: a rule that admits, two guards, and two that forward for each of the two prefixes.
const TENANT: usize = 2;
const TRANSIT: usize = 2 * (2 + 2 * 2);

#[test]
fn two_sites_have_their_rules_without_any_flow() {
    let (mut bed, _) = bed();
    assert_eq!((rules(&bed, Table::Tenant), rules(&bed, Table::Transit)), (TENANT, TRANSIT));
    let TransitStatus { rules, wanted, ingresses, prefixes, reasons, .. } = status(&bed);
    assert_eq!((rules, wanted, ingresses, prefixes, reasons), (10, 10, 2, 4, Vec::new()));
    bed.assert_healthy();
}

#[test]
fn what_they_count_is_told_once_with_what_the_packets_have_in_common() {
    let (mut bed, _) = bed();
    let forwards = |items: &[Item]| {
        items.first() == Some(&Item::Port(VifId::new(1).unwrap()))
            && items.iter().any(|item| matches!(item, Item::Tcp { .. }))
            && items.iter().any(|item| matches!(item, Item::Prefix { net, .. } if net.to_string() == "10.2.0.0/16"))
    };
    bed.nic.lock().unwrap().hit(forwards, 7);
    bed.run(2_000);
    let told: Vec<_> = bed
        .told
        .iter()
        .filter_map(|report| match report {
            Report::Transit { worker, direction, packets, bytes } => {
                Some((*worker, direction.arrival.vif.get(), direction.key.vrf.get(), *packets, *bytes))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [(0, 1, 1, 7, 700)]);
    bed.engine.set_enabled(false, bed.now);
    bed.settle();
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 0, "switched off, all of them leave");
    assert_eq!(bed.told.iter().filter(|report| matches!(report, Report::Transit { .. })).count(), 1);
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    assert_eq!(rules(&bed, Table::Transit), TRANSIT);
    bed.assert_healthy();
}

#[test]
fn a_change_costs_the_rules_that_it_touches() {
    let (mut bed, first) = bed();
    let created = |bed: &Bed| bed.nic.lock().unwrap().created;
    let before = created(&bed);
    let more = Delta { routes: vec![route("10.3.0.0/16", 2)], ..delta(&first) };
    let second = adopt(&mut bed, first.with_delta(more).unwrap());
    assert_eq!(created(&bed) - before, 5, "one that admits, and two that forward at each vif");
    let before = created(&bed);
    let third = adopt(
        &mut bed,
        second.with_neighbours(&[((VifId::new(1).unwrap(), "10.9.0.1".parse().unwrap()), Some(MacAddr([2; 6])))]),
    );
    assert_eq!(created(&bed), before, "no rule depends on that");
    let moved = Delta { nexthops: vec![site(2, 9)], ..delta(&third) };
    let fourth = adopt(&mut bed, third.with_delta(moved).unwrap());
    assert_eq!(created(&bed) - before, 8, "what forwards to the second site");
    let covered = Delta { routes: vec![route("10.3.7.0/24", 1)], ..delta(&fourth) };
    adopt(&mut bed, fourth.with_delta(covered).unwrap());
    let covers = ("longer prefixes in it have routes of their own".to_owned(), 2);
    assert_eq!(status(&bed).reasons, [covers]);
    bed.assert_healthy();
}

#[test]
fn they_come_back_after_a_reset_a_refusal_and_the_loss_of_one() {
    let (mut bed, _) = bed();
    bed.nic.lock().unwrap().reset();
    bed.settle();
    assert_eq!(rules(&bed, Table::Transit), TRANSIT);
    let one = *bed.nic.lock().unwrap().rules.iter().find(|(_, held)| held.rule.table == Table::Tenant).unwrap().0;
    bed.nic.lock().unwrap().rules.remove(&one);
    bed.engine.set_enabled(false, bed.now);
    bed.run(5_000);
    bed.nic.lock().unwrap().closed.insert(Table::Transit, libc::ENOSPC);
    bed.engine.set_enabled(true, bed.now);
    bed.run(1_000);
    assert_eq!(rules(&bed, Table::Tenant), 0, "nobody is admitted to where no guard is");
    bed.nic.lock().unwrap().closed.clear();
    bed.run(60_000);
    assert_eq!((rules(&bed, Table::Tenant), rules(&bed, Table::Transit)), (TENANT, TRANSIT));
    bed.assert_healthy();
}

#[test]
fn one_that_comes_too_late_is_tried_again_ever_more_rarely() {
    let (mut bed, _) = bed();
    bed.engine.set_enabled(false, bed.now);
    bed.run(1_000);
    let before = {
        let mut nic = bed.nic.lock().unwrap();
        // Longer than a completion is waited for.
        nic.delay = 2_500;
        nic.created
    };
    bed.engine.set_enabled(true, bed.now);
    bed.run(60_000);
    let tried = bed.nic.lock().unwrap().created - before;
    assert!((TRANSIT as u64..8 * TRANSIT as u64).contains(&tried), "{tried} rules in a minute");
    bed.nic.lock().unwrap().delay = 0;
    bed.run(120_000);
    assert_eq!((rules(&bed, Table::Tenant), rules(&bed, Table::Transit)), (TENANT, TRANSIT));
    bed.assert_healthy();
}

#[test]
fn a_vif_that_goes_down_takes_its_rules_and_those_that_lead_to_it() {
    let (mut bed, first) = bed();
    let down = adopt(&mut bed, first.with_vif_up(VifId::new(2).unwrap(), false));
    assert_eq!((rules(&bed, Table::Tenant), rules(&bed, Table::Transit)), (1, 2 + 2), "from the first site to itself");
    bed.assert_healthy();
    adopt(&mut bed, down.with_vif_up(VifId::new(2).unwrap(), true));
    assert_eq!(rules(&bed, Table::Transit), TRANSIT);
    bed.assert_healthy();
}

#[test]
fn without_a_budget_there_are_none() {
    let (bed, _) = bed_with(Config { transit_rules: 0, ..Config::default() });
    assert_eq!(bed.nic.lock().unwrap().rules.len(), 0);
    assert_eq!(status(&bed), TransitStatus::default());
}

#[test]
fn one_route_among_many_is_lowered_by_itself() {
    let (mut bed, first) = bed();
    let many = (0..200).map(|at| route(&format!("10.3.{at}.0/24"), 1 + at % 2)).collect();
    let second = adopt(&mut bed, first.with_delta(Delta { routes: many, ..delta(&first) }).unwrap());
    assert_eq!(status(&bed).prefixes, 404);
    let before = bed.toy.transits.load(Ordering::Relaxed);
    let one = Delta { routes: vec![route("10.4.0.0/16", 1)], ..delta(&second) };
    let third = adopt(&mut bed, second.with_delta(one).unwrap());
    assert_eq!(bed.toy.transits.load(Ordering::Relaxed) - before, 5, "what admits it, and what forwards there");
    let gone = Delta { remove_routes: vec![(vrf(), "10.3.7.0/24".parse().unwrap())], ..delta(&third) };
    adopt(&mut bed, third.with_delta(gone).unwrap());
    assert_eq!(bed.toy.transits.load(Ordering::Relaxed) - before, 5, "nothing is lowered to be removed");
    assert_eq!(status(&bed).prefixes, 404);
    bed.assert_healthy();
}
